/* The lines on the page: appending, following, searching. Blocks of lines out of sight cost nothing (see logs.css). */
(function () {
  "use strict";

  const MAX_LINES = 20000;
  const BLOCK_LINES = 100;
  const LINES_PER_FRAME = 2500;
  const { appendMarked, clock, coloured, element, hitsIn, nameColour, styled } = window.atelierLogText;

  class View {
    constructor(root, say) {
      this.root = root;
      this.say = say;
      this.box = root.querySelector("[data-logs-view]");
      this.jump = root.querySelector("[data-logs-jump]");
      this.count = root.querySelector("[data-logs-count]");
      this.rows = this.box.appendChild(element("div"));
      this.lines = [];
      this.pending = [];
      this.names = new Set();
      this.following = true;
      this.unread = 0;
      this.needle = "";
      this.only = false;
      this.current = null;
      this.searching = 0;
      this.dropped = false;
      this.lastTop = 0;
      this.onfollow = () => {};
      this.box.classList.add("logs-following");
      this.box.addEventListener("scroll", () => this.scrolled(), { passive: true });
      // a block gets its true height only when it comes into sight: the bottom moves after we went there
      new ResizeObserver(() => this.following && this.settle()).observe(this.rows);
      this.jump.addEventListener("click", () => {
        this.follow(true);
        this.box.focus({ preventScroll: true });
      });
    }

    clear() {
      this.lines = [];
      this.pending = [];
      this.names.clear();
      this.rows.replaceChildren();
      this.current = null;
      this.dropped = false;
      if (this.rows.previousElementSibling) this.rows.previousElementSibling.remove();
      this.follow(true);
      this.showCount();
    }

    add(entries) {
      this.root.querySelector("[data-logs-waiting]").hidden = true;
      for (const entry of entries) this.pending.push(entry);
      if (this.pending.length > MAX_LINES) {
        this.pending.splice(0, this.pending.length - MAX_LINES);
        this.dropped = true;
      }
      this.schedule();
    }

    schedule() {
      if (this.scheduled) return;
      this.scheduled = true;
      const flush = () => {
        this.scheduled = false;
        this.flush();
      };
      if (document.hidden) setTimeout(flush, 250); // no frames are drawn in the background
      else requestAnimationFrame(flush);
    }

    flush() {
      const batch = this.pending.splice(0, LINES_PER_FRAME);
      let block = this.rows.lastElementChild;
      for (const line of batch) {
        if (!block || block.childElementCount >= BLOCK_LINES) {
          block = element("div", "logs-block");
          this.rows.append(block);
        }
        if (line.replica && !line.note) this.name(line.replica);
        this.draw(line);
        block.append(line.node);
        this.lines.push(line);
      }
      this.trim();
      if (!this.following) this.unread += batch.length;
      this.settle();
      if (this.needle) this.showCount();
      if (this.pending.length) this.schedule();
    }

    /* The name of the replica stands before each line as soon as there are two. */
    name(replica) {
      if (this.names.has(replica)) return;
      this.names.add(replica);
      if (this.names.size === 2) for (const line of this.lines) this.draw(line);
    }

    trim() {
      while (this.lines.length > MAX_LINES && this.rows.childElementCount > 1) {
        const first = this.rows.firstElementChild;
        this.lines.splice(0, first.childElementCount);
        first.remove();
        this.dropped = true;
      }
      if (this.dropped && this.rows.previousElementSibling === null) this.rows.before(element("div", "logs-line logs-note logs-older", this.say("older")));
    }

    draw(line) {
      const node = line.node || (line.node = element("div"));
      if (line.note) {
        node.className = "logs-line logs-note" + (line.gap ? " logs-gap" : "");
        node.textContent = line.plain;
        line.hits = [];
        node.hidden = this.only && this.needle !== "";
        return;
      }
      if (line.plain === undefined) Object.assign(line, coloured(line.text));
      line.hits = hitsIn(line.plain, this.needle);
      node.className = "logs-line" + (line === this.current ? " logs-current" : "");
      node.hidden = this.only && this.needle !== "" && !line.hits.length;
      const parts = [];
      if (line.ts) {
        const time = element("span", "logs-time", clock(line.ts));
        time.title = line.ts;
        parts.push(time);
      }
      if (this.names.size > 1) parts.push(element("span", "logs-name " + nameColour(line.replica), line.replica));
      const text = element("span", "logs-text");
      if (!line.spans) appendMarked(text, line.plain, 0, line.hits);
      else {
        let start = 0;
        for (const [end, style] of line.spans) {
          const span = styled(style);
          appendMarked(span, line.plain.slice(start, end), start, line.hits);
          text.append(span);
          start = end;
        }
      }
      parts.push(text);
      if (line.cut) parts.push(element("span", "logs-cut", " … " + this.say("cut", { n: line.cut })));
      node.replaceChildren(...parts);
    }

    /* --- following and pausing --- */
    settle() {
      if (this.following) {
        this.box.scrollTop = this.box.scrollHeight;
        this.unread = 0;
      }
      this.lastTop = this.box.scrollTop;
      this.jump.hidden = this.following;
      if (!this.following && this.unread) this.jump.textContent = this.say("newLines", { n: this.unread }) + " ↓";
    }

    scrolled() {
      const top = this.box.scrollTop;
      const bottom = this.box.scrollHeight - this.box.clientHeight - top < 24;
      if (bottom !== this.following && (bottom || top < this.lastTop - 2)) this.follow(bottom);
      this.lastTop = top;
    }

    follow(on) {
      this.following = on;
      this.box.classList.toggle("logs-following", on);
      if (on) this.jump.textContent = this.jumpText || (this.jumpText = this.jump.textContent);
      else this.jumpText = this.jumpText || this.jump.textContent;
      this.settle();
      this.onfollow(on);
    }

    /* --- searching, in slices so that typing stays smooth --- */
    search(needle, only) {
      this.needle = needle.toLowerCase();
      this.only = only;
      this.current = null;
      const turn = ++this.searching;
      let at = 0;
      const step = () => {
        if (turn !== this.searching) return;
        const until = performance.now() + 12;
        for (; at < this.lines.length && performance.now() < until; at++) {
          const line = this.lines[at];
          const had = line.hits && line.hits.length;
          const has = !line.note && hitsIn(line.plain, this.needle).length;
          const hide = this.only && this.needle !== "" && !has;
          if (had || has || line.node.hidden !== hide) this.draw(line);
        }
        this.showCount();
        if (at < this.lines.length) requestAnimationFrame(step);
        else this.settle();
      };
      step();
    }

    next(direction) {
      const found = this.lines.filter((line) => line.hits && line.hits.length);
      if (!found.length) return;
      const before = this.current;
      const at = before ? found.indexOf(before) + direction : direction > 0 ? 0 : found.length - 1;
      this.current = found[(at + found.length) % found.length];
      if (before) this.draw(before);
      this.draw(this.current);
      this.follow(false);
      this.current.node.scrollIntoView({ block: "center" });
      this.lastTop = this.box.scrollTop;
      this.showCount();
    }

    showCount() {
      if (!this.needle) {
        this.count.textContent = "";
        return;
      }
      const found = this.lines.filter((line) => line.hits && line.hits.length);
      this.count.textContent = this.say("matches", { i: this.current ? found.indexOf(this.current) + 1 : 0, n: found.length });
    }

    text() {
      const several = this.names.size > 1;
      const times = this.box.classList.contains("logs-times");
      const shown = this.lines.filter((line) => !line.node.hidden);
      return shown.map((line) => (times && line.ts ? line.ts + " " : "") + (several && line.replica ? `[${line.replica}] ` : "") + line.plain).join("\n");
    }
  }

  window.AtelierLogView = View;
})();
