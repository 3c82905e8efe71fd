/* The log viewer's connection and its bar. A lost connection is opened again and goes on after the last line of each replica. */
(function () {
  "use strict";

  const SLOWEST_RETRY = 15000;
  const { element } = window.atelierLogText;
  const View = window.AtelierLogView;

  /* --- the connection -------------------------------------------------------------------------------------------------- */
  class Stream {
    constructor(root, view, show) {
      this.root = root;
      this.view = view;
      this.show = show;
      this.replica = "";
      this.cursors = {};
      this.tries = 0;
    }

    open() {
      const known = Object.keys(this.cursors).length > 0;
      const query = new URLSearchParams();
      if (this.replica) query.set("replica", this.replica);
      if (known) query.set("after", "message"); // as many cursors as replicas: too long for an address
      const base = (location.protocol === "https:" ? "wss://" : "ws://") + location.host + this.root.dataset.socket;
      const socket = (this.socket = new WebSocket(base + (query.size === 0 ? "" : "?" + query)));
      this.show(this.tries ? "reconnecting" : "connecting");
      socket.onopen = () => {
        if (known) socket.send(JSON.stringify({ after: this.cursors }));
      };
      socket.onmessage = (message) => {
        if (socket === this.socket) this.take(JSON.parse(message.data));
      };
      socket.onclose = (event) => {
        if (socket !== this.socket) return;
        if (event.code === 4401) this.show("signedOut");
        else if (event.code === 4404) this.show("notFound");
        else if (event.code === 1000) this.show("ended");
        else {
          this.tries += 1;
          this.show("reconnecting");
          this.timer = setTimeout(() => this.open(), Math.min(SLOWEST_RETRY, 300 * 2 ** this.tries) * (0.75 + Math.random() / 2));
        }
      };
    }

    close() {
      clearTimeout(this.timer);
      const socket = this.socket;
      this.socket = null;
      if (socket) socket.close();
    }

    restart(replica) {
      this.close();
      this.replica = replica;
      this.cursors = {};
      this.tries = 0;
      this.view.clear();
      this.open();
    }

    take(data) {
      if (data.type === "lines") {
        for (const line of data.lines) {
          if (line.seq) this.cursors[line.replica + "/" + line.container] = line.seq;
          if (line.marker) Object.assign(line, { note: true, gap: line.marker.code === "rotated", plain: this.view.say(line.marker.code, line.marker) });
        }
        this.view.add(data.lines);
        this.tries = 0;
      } else if (data.type === "gap") {
        const plain = data.missed === null ? this.view.say("gapUnknown") : this.view.say("gap", { n: data.missed });
        this.view.add([{ note: true, gap: true, plain }]);
      } else if (data.type === "status") {
        this.tries = 0;
        if (!data.replica) this.show(data.state, data);
        else if (data.state === "unreadable") this.view.add([{ note: true, gap: true, plain: this.view.say("unreadable", data) }]);
        this.root.dispatchEvent(new CustomEvent("logs:replica", { detail: data.replica }));
      }
    }
  }

  /* --- the bar ----------------------------------------------------------------------------------------------------------- */
  function start(root) {
    const part = (name) => root.querySelector(`[data-logs-${name}]`);
    const say = (key, values) => {
      const text = root.dataset["t" + key[0].toUpperCase() + key.slice(1)] || key;
      return text.replace(/\{(\w+)\}/g, (_, name) => (values && values[name] !== undefined && values[name] !== null ? String(values[name]) : "?"));
    };
    const view = new View(root, say);
    let state = "connecting";

    function label() {
      const shown = state === "live" && !view.following ? "paused" : state;
      root.dataset.state = shown;
      const text = say(shown);
      if (part("state").textContent !== text) part("state").textContent = text;
      part("follow").textContent = say(view.following ? "pause" : "follow");
      part("follow").setAttribute("aria-pressed", String(view.following));
    }

    const stream = new Stream(root, view, (next, data) => {
      state = next;
      const waiting = part("waiting");
      waiting.hidden = next !== "waiting" || view.lines.length > 0 || view.pending.length > 0;
      if (data && !waiting.hidden) {
        const words = [data.environment && data.environment.message, ...(data.events || []).map((event) => event.message)].filter(Boolean);
        waiting.replaceChildren(...[...new Set(words)].map((text) => element("p", "", text)));
      }
      label();
    });
    view.onfollow = label;

    const remembered = (name, fallback) => {
      try {
        return (localStorage.getItem("logs." + name) || fallback) === "1";
      } catch (error) {
        return fallback === "1";
      }
    };
    for (const [name, fallback] of [["times", "0"], ["wrap", "1"]]) {
      const box = part(name);
      box.checked = remembered(name, fallback);
      const apply = () => {
        view.box.classList.toggle("logs-" + name, box.checked);
        view.settle();
        address();
      };
      box.addEventListener("change", () => {
        try {
          localStorage.setItem("logs." + name, box.checked ? "1" : "0");
        } catch (error) {
          /* private window */
        }
        apply();
      });
      view.box.classList.toggle("logs-" + name, box.checked);
    }

    function address() {
      const query = new URLSearchParams({ download: "true" });
      if (stream.replica) query.set("replica", stream.replica);
      if (part("times").checked) query.set("timestamps", "true");
      part("download").href = root.dataset.download + "?" + query;
    }

    let typing = 0;
    const search = () => view.search(part("search").value.trim(), part("filter").checked);
    part("search").addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(search, 150);
    });
    part("search").addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        view.next(event.shiftKey ? -1 : 1);
      } else if (event.key === "Escape" && part("search").value) {
        part("search").value = "";
        search();
      }
    });
    part("filter").addEventListener("change", search);
    part("follow").addEventListener("click", () => view.follow(!view.following));
    part("replica").addEventListener("change", (event) => {
      stream.restart(event.target.value);
      address();
    });
    root.addEventListener("logs:replica", (event) => {
      const choice = part("replica");
      if (event.detail && !Array.from(choice.options).some((option) => option.value === event.detail)) choice.add(new Option(event.detail, event.detail));
    });
    part("copy").addEventListener("click", async () => {
      const text = view.text();
      try {
        await navigator.clipboard.writeText(text);
      } catch (error) {
        const area = element("textarea", "visually-hidden");
        area.value = text;
        root.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
      const announcer = document.getElementById("announcer");
      if (announcer) announcer.textContent = say("copied");
    });

    window.addEventListener("pagehide", () => stream.close());
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) stream.open();
    });
    address();
    stream.open();
    label();
  }

  document.querySelectorAll("[data-logs]").forEach(start);
})();
