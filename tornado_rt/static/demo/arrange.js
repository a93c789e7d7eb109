/**
 * The order of the tiles: a field `{at, w}` for each widget, so that two people who drag different tiles never collide. Knows
 * the layout's fields and the tiles' boxes, not what is in them.
 */

import { has, isCalm } from "./words.js";

const MIN_GAP = 1e-6;
const DRAG_PX = 4;
const EARLIER = ["ArrowLeft", "ArrowUp"];
const LATER = ["ArrowRight", "ArrowDown"];

const place = (layout, id) => (has(layout, id) && Number.isFinite(layout[id]?.at) ? layout[id].at : Infinity);

/** Ids in their order; those without a place come last, by name. */
export function inOrder(ids, layout) {
  return [...ids].sort((a, b) => place(layout, a) - place(layout, b) || (a < b ? -1 : 1));
}

export function widthOf(layout, id, usual) {
  const width = has(layout, id) ? layout[id]?.w : usual;
  return Number.isInteger(width) && width >= 2 && width <= 12 ? width : usual;
}

/** What to write so that `id` stands at `index` of `order` (which is without it): mostly one field, rarely all of them. */
export function moved(id, index, order, layout, widths) {
  const before = index > 0 ? place(layout, order[index - 1]) : 0;
  const after = index < order.length ? place(layout, order[index]) : before + 2;
  const entry = (each, at) => [each, { at, w: widths(each) }];
  if (Number.isFinite(before) && Number.isFinite(after) && after - before > MIN_GAP) return Object.fromEntries([entry(id, (before + after) / 2)]);
  const whole = [...order.slice(0, index), id, ...order.slice(index)];
  return Object.fromEntries(whole.map((each, position) => entry(each, position + 1)));
}

/** Let nodes glide from where they were to where `rearrange` puts them. */
export function glide(nodes, rearrange, except = null) {
  if (isCalm() || document.hidden) return rearrange();
  const were = new Map(nodes.map((node) => [node, node.getBoundingClientRect()]));
  rearrange();
  for (const [node, was] of were) {
    if (node === except) continue;
    const is = node.getBoundingClientRect();
    const [x, y] = [was.left - is.left, was.top - is.top];
    if (x || y) node.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }], { duration: 220, easing: "cubic-bezier(.2,.7,.3,1)" });
  }
}

/**
 * Let the tiles of `grid` be moved by their grips, with pointer or arrow keys. `shelf.order()` gives the nodes in order;
 * `shelf.begin()` what the person saw when the move began; `shelf.drop(node, index, begun)` writes it down.
 */
export function movable(grid, shelf) {
  grid.addEventListener("pointerdown", (event) => {
    const grip = event.target.closest(".grip");
    if (grip && event.button === 0) new Drag(grid, grip, event, shelf);
  });
  grid.addEventListener("keydown", (event) => {
    const grip = event.target.closest(".grip");
    const by = EARLIER.includes(event.key) ? -1 : LATER.includes(event.key) ? 1 : 0;
    if (!grip || !by) return;
    event.preventDefault();
    const nodes = shelf.order();
    const node = nodes.find((each) => each.contains(grip));
    const index = nodes.indexOf(node) + by;
    if (index >= 0 && index < nodes.length) shelf.drop(node, index, shelf.begin());
  });
}

/**
 * One drag: the tile follows the pointer, the others make room; Escape puts it back. Boxes are taken from the layout
 * (`offsetLeft` and the like), where tiles are at their place already while they still glide there.
 */
class Drag {
  #isMoving = false;

  constructor(grid, grip, event, shelf) {
    Object.assign(this, { grid, grip, shelf, begun: shelf.begin(), startX: event.pageX, startY: event.pageY });
    this.nodes = shelf.order();
    this.node = this.nodes.find((each) => each.contains(grip));
    this.from = this.index = this.nodes.indexOf(this.node);
    this.end = new AbortController();
    const { signal } = this.end;
    grip.setPointerCapture(event.pointerId);
    grip.addEventListener("pointermove", (each) => this.#move(each), { signal });
    grip.addEventListener("pointerup", () => this.#finish(true), { signal });
    grip.addEventListener("pointercancel", () => this.#finish(false), { signal });
    addEventListener("keydown", (each) => each.key === "Escape" && this.#finish(false), { signal });
  }

  #move({ pageX, pageY }) {
    const [x, y] = [pageX - this.startX, pageY - this.startY];
    if (!this.#isMoving && Math.hypot(x, y) < DRAG_PX) return;
    if (!this.#isMoving) this.#lift();
    const index = this.#indexAt(pageX, pageY);
    if (index !== this.index) this.#makeRoom(index);
    this.node.style.transform = `translate(${this.left + x - this.node.offsetLeft}px, ${this.top + y - this.node.offsetTop}px)`;
  }

  #lift() {
    this.#isMoving = true;
    [this.left, this.top] = [this.node.offsetLeft, this.node.offsetTop];
    this.node.classList.add("lifted");
    this.grid.classList.add("arranging");
    this.nodes.forEach((node, index) => (node.style.order = index));
  }

  /** The place of the tile under the pointer; where there is none, or its own, it stays as it is. */
  #indexAt(pageX, pageY) {
    const box = this.grid.getBoundingClientRect();
    const [x, y] = [pageX - scrollX - box.left, pageY - scrollY - box.top];
    const isUnder = ({ offsetLeft, offsetTop, offsetWidth, offsetHeight }) =>
      x >= offsetLeft && x <= offsetLeft + offsetWidth && y >= offsetTop && y <= offsetTop + offsetHeight;
    const index = this.#shown().findIndex(isUnder);
    return index < 0 ? this.index : index;
  }

  #shown() {
    const nodes = this.nodes.filter((node) => node !== this.node);
    nodes.splice(this.index, 0, this.node);
    return nodes;
  }

  #makeRoom(index) {
    this.index = index;
    glide(this.nodes, () => this.#shown().forEach((node, at) => (node.style.order = at)), this.node);
  }

  #finish(isMeant) {
    this.end.abort();
    if (!this.#isMoving) return;
    glide([this.node], () => {
      this.node.style.transform = "";
      for (const node of this.nodes) node.style.order = "";
      this.grid.classList.remove("arranging");
      this.node.classList.remove("lifted");
      if (isMeant && this.index !== this.from) this.shelf.drop(this.node, this.index, this.begun);
    });
  }
}
