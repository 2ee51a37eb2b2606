// Elements without ceremony. Text is always text: nothing that a tenant is called becomes markup.
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [type, call] of Object.entries(value)) element.addEventListener(type, call);
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Changes only what differs, so that focus and selection live through a redraw.
export function setText(element, value) {
  if (element.textContent !== value) element.textContent = value;
}
