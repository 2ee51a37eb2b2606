// A bar for an amount of a limit, with a mark (what is guaranteed), readable by a screen reader.
import { make } from "./dom.js";

export function makeBar() {
  const fill = make("span", { class: "fill" });
  const mark = make("span", { class: "mark", hidden: true });
  const bar = make("span", { class: "bar", role: "meter", "aria-valuemin": 0 }, fill, mark);
  return {
    element: bar,
    set({ value, max, mark: at, label, over }) {
      const part = max > 0 && value !== null ? Math.min(value / max, 1) : 0;
      fill.style.inlineSize = `${part * 100}%`;
      bar.classList.toggle("over", Boolean(over));
      bar.classList.toggle("unknown", value === null);
      mark.hidden = !at;
      if (at) mark.style.insetInlineStart = `${Math.min(at / max, 1) * 100}%`;
      bar.setAttribute("aria-valuemax", max);
      bar.setAttribute("aria-valuenow", value ?? 0);
      bar.setAttribute("aria-valuetext", label);
      bar.title = label;
    },
  };
}
