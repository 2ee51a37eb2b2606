// Light, dark, or as the system has it. Remembered in this browser.
export function chooseTheme(select, changed) {
  const apply = () => {
    document.documentElement.dataset.theme = select.value;
    localStorage.setItem("divvy-theme", select.value);
    changed();
  };
  select.value = localStorage.getItem("divvy-theme") ?? "auto";
  document.documentElement.dataset.theme = select.value;
  select.addEventListener("change", apply);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}
