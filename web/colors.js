// A tenant's colour: the same on every device and for as long as the page lives, by order of coming.
// Okabe and Ito's set, which people with colour-blindness can tell apart, then lighter ones of it.
const SET = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a7fd6", "#b8a100",
  "#5b8c5a", "#a0522d", "#4d9ba8", "#c25b8a"];
const given = new Map();

export function colorOf(tenant) {
  if (!given.has(tenant)) given.set(tenant, SET[given.size % SET.length]);
  return given.get(tenant);
}
