/* The search over the cards of templates: what is typed is looked for in their texts and slugs. Without it all of them are shown. */
(function () {
  "use strict";

  const box = document.getElementById("launch-search");
  if (!box) return;
  const field = document.getElementById("launch-query");
  const groups = Array.from(document.querySelectorAll("[data-template-group]"));
  const none = document.getElementById("launch-none");
  box.hidden = false;

  function show() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const group of groups) {
      let here = 0;
      for (const card of group.querySelectorAll("[data-template]")) {
        const text = (card.dataset.template + " " + card.textContent).toLowerCase();
        card.hidden = !words.every((word) => text.includes(word));
        if (!card.hidden) here += 1;
      }
      group.hidden = !here;
      found += here;
    }
    none.hidden = found > 0;
  }

  field.addEventListener("input", show);
  show();
})();
