// Every word that a person reads, in English and Chinese. {0}, {1} are filled in.
import { english } from "./text_en.js";
import { chinese } from "./text_zh.js";

const LANGUAGES = { en: english, zh: chinese };
let words = english;

export function text(key, ...values) {
  const found = words[key] ?? english[key] ?? key.replace(/^cause_/, "").replaceAll("_", " ");
  return found.replace(/\{(\d)\}/g, (_, i) => values[i]);
}

export function translatePage() {
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
}

export function chooseLanguage(select, changed) {
  const apply = (language) => {
    words = LANGUAGES[language];
    document.documentElement.lang = language;
    select.value = language;
  };
  const wanted = localStorage.getItem("divvy-language") ?? navigator.language.slice(0, 2);
  apply(wanted in LANGUAGES ? wanted : "en");
  select.addEventListener("change", () => {
    apply(select.value);
    localStorage.setItem("divvy-language", select.value);
    changed();
  });
}
