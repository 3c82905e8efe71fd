/* A line of a log as nodes: colours as spans, matches as marks, everything else as text. Nothing is ever parsed as HTML. */
(function () {
  "use strict";

  /* --- colours: SGR to spans ------------------------------------------------------------------------------------ */
  const SGR = /\x1b\[([0-9;:]*)m/g;
  const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "under", 7: "inverse", 9: "strike" };
  const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["under"], 27: ["inverse"], 29: ["strike"] };

  function cube(n) {
    if (n >= 232) return `rgb(${Array(3).fill(8 + (n - 232) * 10).join()})`;
    const level = (v) => (v ? 55 + v * 40 : 0);
    n -= 16;
    return `rgb(${level(Math.floor(n / 36))},${level(Math.floor(n / 6) % 6)},${level(n % 6)})`;
  }

  /* 38;5;n and 38;2;r;g;b: a class for the sixteen that follow the theme, a colour otherwise; and how many numbers were used. */
  function extended(codes, at) {
    if (codes[at + 1] === 5 && codes[at + 2] <= 255) return [codes[at + 2] < 16 ? codes[at + 2] : cube(codes[at + 2]), 2];
    if (codes[at + 1] === 2) {
      const rgb = codes.slice(at + 2, at + 5);
      if (rgb.length === 3 && rgb.every((v) => v <= 255)) return [`rgb(${rgb.join()})`, 4];
    }
    return [null, codes.length];
  }

  function change(style, parameters) {
    const codes = parameters.split(/[;:]/).map(Number);
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i];
      if (code === 0) style = {};
      else if (FLAGS[code]) style = { ...style, [FLAGS[code]]: true };
      else if (OFF[code]) for (const flag of OFF[code]) style = { ...style, [flag]: false };
      else if (code === 38 || code === 48) {
        const [colour, used] = extended(codes, i);
        style = { ...style, [code === 38 ? "f" : "b"]: colour };
        i += used;
      } else if (code === 39) style = { ...style, f: null };
      else if (code === 49) style = { ...style, b: null };
      else if (code >= 30 && code <= 37) style = { ...style, f: code - 30 };
      else if (code >= 40 && code <= 47) style = { ...style, b: code - 40 };
      else if (code >= 90 && code <= 97) style = { ...style, f: code - 82 };
      else if (code >= 100 && code <= 107) style = { ...style, b: code - 92 };
    }
    return style;
  }

  /* {plain, spans: [[end, style]]} of a text with colours. */
  function coloured(text) {
    if (!text.includes("\x1b")) return { plain: text, spans: null };
    let plain = "";
    let style = {};
    let start = 0;
    const spans = [];
    for (const match of text.matchAll(SGR)) {
      if (match.index > start) {
        plain += text.slice(start, match.index);
        spans.push([plain.length, style]);
      }
      start = match.index + match[0].length;
      style = change(style, match[1]);
    }
    plain += text.slice(start);
    spans.push([plain.length, style]);
    return { plain, spans };
  }

  function element(tag, name, text) {
    const node = document.createElement(tag);
    if (name) node.className = name;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function styled(style) {
    const span = element("span");
    for (const flag of Object.values(FLAGS)) if (style[flag]) span.classList.add("a-" + flag);
    for (const side of ["f", "b"]) {
      if (typeof style[side] === "number") span.classList.add(side + style[side]);
      else if (style[side]) span.style[side === "f" ? "color" : "backgroundColor"] = style[side];
    }
    return span;
  }

  /* Appends part of a line, with what was searched for marked. */
  function appendMarked(parent, text, offset, hits) {
    let at = 0;
    for (const [from, to] of hits) {
      const start = Math.max(0, from - offset);
      const end = Math.min(text.length, to - offset);
      if (end <= 0 || start >= text.length) continue;
      if (start > at) parent.append(text.slice(at, start));
      parent.append(element("mark", "", text.slice(start, end)));
      at = end;
    }
    if (at < text.length) parent.append(text.slice(at));
  }

  function hitsIn(plain, needle) {
    const hits = [];
    if (!needle) return hits;
    const hay = plain.toLowerCase();
    if (hay.length !== plain.length) return hits; // a letter whose lower case is longer: positions would not agree
    for (let at = hay.indexOf(needle); at >= 0 && hits.length < 200; at = hay.indexOf(needle, at + needle.length)) hits.push([at, at + needle.length]);
    return hits;
  }

  function nameColour(name) {
    let sum = 0;
    for (const char of name) sum = (sum * 31 + char.codePointAt(0)) >>> 0;
    return "logs-n" + (sum % 6);
  }

  function clock(stamp) {
    const date = new Date(stamp.replace(/(\.\d{3})\d*/, "$1"));
    if (Number.isNaN(date.getTime())) return stamp;
    const two = (n) => String(n).padStart(2, "0");
    return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
  }

  window.atelierLogText = { appendMarked, clock, coloured, element, hitsIn, nameColour, styled };
})();
