/* Behaviour of every page: theme, menus, dialogs, copying, times in words, live refresh. No inline handlers, no eval. */
(function () {
  "use strict";

  const $$ = (selector, root) => Array.from((root || document).querySelectorAll(selector));

  /* --- theme ------------------------------------------------------------------------------------------------- */
  function labelTheme() {
    for (const button of $$("[data-theme-toggle]")) {
      const text = button.getAttribute("data-label-" + window.atelierTheme.choice());
      button.setAttribute("aria-label", text);
      button.title = text;
    }
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-theme-toggle]")) {
      const order = ["auto", "light", "dark"];
      window.atelierTheme.set(order[(order.indexOf(window.atelierTheme.choice()) + 1) % order.length]);
      labelTheme();
    }
  });

  /* --- menus ------------------------------------------------------------------------------------------------- */
  document.addEventListener("click", (event) => {
    const toggler = event.target.closest("[data-toggle-target]");
    if (toggler) {
      const open = document.getElementById(toggler.dataset.toggleTarget).classList.toggle("show");
      toggler.setAttribute("aria-expanded", String(open));
    }
    for (const menu of $$("details[data-dropdown][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
    const dismiss = event.target.closest("[data-dismiss]");
    if (dismiss) dismiss.closest(".alert").remove();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const menu of $$("details[data-dropdown][open]")) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  /* --- dialogs: the native element keeps the focus inside and gives it back ------------------------------------ */
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-dialog]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.dialog);
      if (dialog && !dialog.open) {
        dialog.showModal();
        // the browser gives the focus back to the opener, unless a live refresh has replaced it meanwhile
        dialog.addEventListener(
          "close",
          () => {
            const again = document.getElementById(opener.id);
            if (again && again !== opener) again.focus();
          },
          { once: true },
        );
      }
      return;
    }
    const closer = event.target.closest("[data-dialog-close]");
    if (closer) closer.closest("dialog").close();
    else if (event.target.nodeName === "DIALOG") event.target.close(); // the backdrop
  });

  /* Forms that ask first. */
  let asking = null;

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset || !form.dataset.confirm || form === asking) return;
    event.preventDefault();
    asking = form;
    document.getElementById("confirm-text").textContent = form.dataset.confirm;
    const dialog = document.getElementById("confirm");
    dialog.addEventListener("close", () => (asking = null), { once: true });
    dialog.showModal();
  });

  document.addEventListener("click", (event) => {
    if (!event.target.closest("#confirm-yes") || !asking) return;
    // a live refresh may have replaced the form meanwhile
    const form = asking.isConnected ? asking : document.querySelector('form[action="' + asking.getAttribute("action") + '"]');
    if (form) form.submit();
  });

  /* --- copying ------------------------------------------------------------------------------------------------ */
  const announcer = () => document.getElementById("announcer");

  async function copyText(text) {
    try {
      await navigator.clipboard.writeText(text);
    } catch (error) {
      // plain HTTP on another host has no clipboard API
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "visually-hidden";
      document.body.appendChild(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await copyText(document.getElementById(button.dataset.copy).textContent.trim());
    button.classList.add("copied");
    announcer().textContent = button.dataset.copied || "";
    setTimeout(() => button.classList.remove("copied"), 1500);
  });

  /* --- times in words ------------------------------------------------------------------------------------------ */
  const language = document.documentElement.lang || "en";
  const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  // the zone chosen in the settings, else the browser's
  const timeZone = document.documentElement.dataset.timezone || undefined;
  const hm = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone };
  const absolute = new Intl.DateTimeFormat(language, { dateStyle: "medium", timeStyle: "long", timeZone });
  const clock = new Intl.DateTimeFormat(language, { ...hm, second: "2-digit" });
  const today = new Intl.DateTimeFormat(language, hm);
  const thisWeek = new Intl.DateTimeFormat(language, { ...hm, weekday: "short" });
  const anyDay = new Intl.DateTimeFormat(language, { ...hm, day: "numeric", month: "short" });
  const day = new Intl.DateTimeFormat("en-CA", { timeZone });

  function moment(date) {
    if (day.format(date) === day.format(new Date())) return today.format(date);
    return (Math.abs(date - Date.now()) < 6 * 86400000 ? thisWeek : anyDay).format(date);
  }

  function inWords(date) {
    const seconds = Math.round((date - Date.now()) / 1000);
    const size = Math.abs(seconds);
    if (size < 60) return relative.format(Math.round(seconds / 10) * 10, "second");
    if (size < 3600) return relative.format(Math.round(seconds / 60), "minute");
    if (size < 172800) return relative.format(Math.round(seconds / 3600), "hour");
    return relative.format(Math.round(seconds / 86400), "day");
  }

  function showTimes(root) {
    for (const element of $$("time[data-show]", root)) {
      const date = new Date(element.getAttribute("datetime"));
      if (Number.isNaN(date.getTime())) continue;
      const show = element.dataset.show;
      const text = show === "clock" ? clock.format(date) : show === "moment" ? moment(date) : inWords(date);
      if (element.textContent !== text) element.textContent = text;
      element.title = absolute.format(date);
    }
    for (const element of $$("[data-zone]", root)) {
      const name = timeZone || today.resolvedOptions().timeZone;
      if (element.textContent !== name) element.textContent = name;
    }
  }

  /* --- live refresh -------------------------------------------------------------------------------------------- */
  /* A socket says that something changed; the fragment is then fetched again, so the server renders it in one place only.
     While the socket is down the page asks by itself now and then, and says that it does. */
  const POLL_SECONDS = 10;

  function live(element) {
    const address = (location.protocol === "https:" ? "wss://" : "ws://") + location.host + element.dataset.live;
    let tries = 0;
    let wanted = 0;
    let connected = false;
    let stopped = false;
    let socket = null;

    const target = () => document.getElementById(element.dataset.liveTarget);

    function refresh() {
      if (wanted || stopped) return;
      wanted = setTimeout(() => {
        wanted = 0;
        const fragment = target();
        if (fragment) window.htmx.trigger(fragment, "refresh");
      }, 150);
    }

    function show(state) {
      if ("liveQuiet" in element.dataset) return; // what it shows is beside the page, not the page
      element.dataset.connection = state;
      const notice = document.getElementById("connection-lost");
      if (notice) notice.hidden = state === "open";
    }

    function connect() {
      socket = new WebSocket(address);
      socket.onopen = () => {
        connected = true;
        tries = 0;
        show("open");
        if (!("liveQuiet" in element.dataset)) refresh(); // whatever changed while nobody listened
      };
      socket.onmessage = (message) => {
        let data = {};
        try {
          data = JSON.parse(message.data);
        } catch (error) {
          return;
        }
        if (["state", "event", "changed", "observed", "notifications"].includes(data.type)) refresh();
      };
      socket.onclose = () => {
        connected = false;
        if (stopped) return;
        tries += 1;
        if (tries > 1) show("lost");
        setTimeout(connect, Math.min(15000, 500 * 2 ** tries) * (0.75 + Math.random() / 2));
      };
    }

    connect();
    setInterval(() => {
      if (!connected) refresh();
    }, POLL_SECONDS * 1000);
    window.addEventListener("pagehide", () => {
      stopped = true;
      socket.close();
    });
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) {
        stopped = false;
        connect();
      }
    });
  }

  /* Say aloud what changed, once, and only what changed. */
  const spoken = new Map();

  function announce(root) {
    for (const element of $$("[data-announce]", root)) {
      const before = spoken.get(element.id);
      const now = element.dataset.announce;
      spoken.set(element.id, now);
      if (before !== undefined && before !== now) announcer().textContent = now;
    }
  }

  /* The number beside "Approvals" follows the bell, which is the part that is fetched again. */
  function countApprovals() {
    const bell = document.getElementById("bell");
    const badge = document.getElementById("approvals-count");
    if (!bell || !badge || bell.dataset.approvals === undefined) return;
    badge.textContent = bell.dataset.approvals;
    badge.hidden = bell.dataset.approvals === "0";
  }

  /* A dialog that came with a fragment opens at once. */
  function openNow(root) {
    const dialog = root.querySelector && root.querySelector("dialog[data-open-now]");
    if (!dialog || dialog.open) return;
    dialog.showModal();
    dialog.addEventListener("close", () => {
      const opener = document.getElementById(dialog.dataset.openNow);
      dialog.remove();
      if (opener) opener.focus();
    });
  }

  /* Settings: offer the browser's own time zone. */
  function offerZone() {
    const name = new Intl.DateTimeFormat().resolvedOptions().timeZone;
    for (const button of $$("[data-browser-timezone]")) {
      const field = document.getElementById(button.dataset.browserTimezone);
      if (!Array.from(field.options).some((option) => option.value === name) || field.value === name) continue;
      button.querySelector("span").textContent = name;
      button.hidden = false;
      button.addEventListener("click", () => {
        field.value = name;
        button.hidden = true;
        field.focus();
      });
    }
  }

  /* --- start --------------------------------------------------------------------------------------------------- */
  document.addEventListener("DOMContentLoaded", () => {
    labelTheme();
    showTimes();
    announce();
    $$("[data-live]").forEach(live);
    offerZone();
    setInterval(showTimes, 10000);
    const wrong = document.querySelector(".is-invalid");
    if (wrong) wrong.focus();
  });

  document.addEventListener("htmx:afterSettle", (event) => {
    showTimes(event.target.parentNode || document);
    announce(event.target.parentNode || document);
    countApprovals();
    openNow(event.target);
  });
})();
