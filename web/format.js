// Numbers for people. Sizes are binary, as everywhere in Divvy.
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(n) {
  let unit = 0;
  let value = Math.abs(n);
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit > 0 && value < 10 ? 1 : 0;
  return `${n < 0 ? "−" : ""}${value.toFixed(digits)} ${UNITS[unit]}`;
}

export function percent(p) {
  return p === null || p === undefined ? "–" : `${p.toFixed(p < 10 && p % 1 !== 0 ? 1 : 0)} %`;
}

export function whole(n) {
  return n.toLocaleString(document.documentElement.lang);
}

export function time(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString(document.documentElement.lang, { hour12: false });
}

// "6GiB", "512 m", "1.5g" -> bytes; NaN when it is none.
export function parseBytes(textOf) {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:i?b)?|b)?\s*$/i.exec(textOf);
  if (!match) return NaN;
  const power = match[2] ? "kmgt".indexOf(match[2].toLowerCase()) + 1 : 0;
  return Math.round(Number(match[1]) * 1024 ** power);
}
