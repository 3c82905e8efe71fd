/* Runs before first paint, so that a dark page never flashes white. The choice is "auto", "light" or "dark". */
(function () {
  "use strict";
  var media = window.matchMedia("(prefers-color-scheme: dark)");

  function choice() {
    try {
      var stored = localStorage.getItem("atelier-theme");
      return stored === "light" || stored === "dark" ? stored : "auto";
    } catch (error) {
      return "auto"; // storage may be forbidden
    }
  }

  function apply() {
    var chosen = choice();
    document.documentElement.setAttribute("data-bs-theme", chosen === "auto" ? (media.matches ? "dark" : "light") : chosen);
    document.documentElement.setAttribute("data-theme-choice", chosen);
  }

  apply();
  media.addEventListener("change", apply);
  window.atelierTheme = {
    choice: choice,
    set: function (value) {
      try {
        localStorage.setItem("atelier-theme", value);
      } catch (error) {
        /* the choice then lasts for this page only */
      }
      apply();
    },
  };
})();
