// Asks for the token, when the address did not have the right one.
import { setToken } from "./api.js";
import { make } from "./dom.js";
import { text } from "./text.js";

export function askForToken(dialog) {
  return new Promise((done) => {
    const input = make("input", { id: "token", type: "password", autocomplete: "off", required: true });
    const form = make("form", { method: "dialog", on: { submit: () => {
      setToken(input.value.trim());
      done();
    } } }, make("p", {}, text("tokenWhy")), make("label", { for: "token" }, make("span", {}, text("token")), input),
      make("p", { class: "buttons" }, make("button", { class: "main" }, text("open"))));
    dialog.replaceChildren(make("h2", { id: "token-title" }, text("tokenTitle")), form);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    if (!dialog.open) dialog.showModal();
  });
}
