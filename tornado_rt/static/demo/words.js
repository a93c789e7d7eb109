/** Small words of the demo page: elements made without parsing HTML, figures, people, times. Knows no widget and no connection. */

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element; `props` are its properties, those with a dash its attributes. */
export function make(tag, props = {}, ...children) {
  return dress(document.createElement(tag), props, children);
}

/** An SVG element; `props` are its attributes. */
export function draw(tag, props = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function dress(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (name.includes("-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat(2).filter((child) => child != null));
  return node;
}

export const has = (fields, name) => fields != null && Object.hasOwn(fields, name);

/** A figure as it is shown. */
export const figure = (value, decimals = 0) => (decimals ? value.toFixed(decimals) : String(Number(value.toFixed(6))));

/** The numbers of a list; what is none is left out. */
export const numbers = (list) => (Array.isArray(list) ? list.filter(Number.isFinite) : []);

export const words = (value) => (typeof value === "string" ? value : JSON.stringify(value) ?? "");

/** One of eight hues for a person, the same in every window. */
export function hueOf(user) {
  let sum = 7;
  for (const sign of user) sum = (sum * 33 + sign.codePointAt(0)) >>> 0;
  return ((sum ^ (sum >>> 7)) >>> 0) % 8;
}

export function avatar(user) {
  const mark = make("span", { className: "avatar", textContent: [...user][0]?.toUpperCase() ?? "?", "aria-hidden": "true" });
  mark.dataset.hue = hueOf(user);
  return mark;
}

export function ago(time) {
  const seconds = Math.max(0, Math.round((Date.now() - time) / 1000));
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  return new Date(time).toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}

export const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
