// Puts the chosen theme on the page before its first paint; a module would come too late. See theme.js.
(() => {
  try {
    const chosen = localStorage.getItem("polyroute.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch {
    // no storage: the system's theme it is
  }
})();
