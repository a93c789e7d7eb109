/** The pictures of the demo page: a spark line under a figure, and a chart that moves. They get numbers and know nothing else. */

import { draw, figure, isCalm, make, numbers } from "./words.js";

const PAD = { top: 12, right: 12, bottom: 26, left: 40 };
const MAX_POINTS = 300;

const path = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

/** A spark line; `draw(values)` shows them. It says nothing to a screen reader, since the figure stands beside it. */
export class Spark {
  constructor() {
    this.line = draw("path", { class: "line", "vector-effect": "non-scaling-stroke" });
    this.area = draw("path", { class: "area" });
    this.node = draw("svg", { class: "spark", viewBox: "0 0 100 32", preserveAspectRatio: "none", "aria-hidden": "true" }, this.area, this.line);
  }

  draw(values) {
    const list = numbers(values).slice(-MAX_POINTS);
    this.node.classList.toggle("empty", list.length < 2);
    if (list.length < 2) return;
    const least = Math.min(...list);
    const span = Math.max(...list) - least || 1;
    const line = path(list.map((value, index) => [(index / (list.length - 1)) * 100, 29 - ((value - least) / span) * 26]));
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", `${line}L100 32L0 32Z`);
  }
}

/** Some lines over time, newest at the right. `draw({name: values})` shows them; a pointer over it asks for older values. */
export class Chart {
  #series = [];
  #width = 640;
  #height = 220;
  #last = "";
  #at = null;

  constructor() {
    this.grid = draw("g", { class: "rules" });
    this.lines = draw("g");
    this.cursor = draw("line", { class: "cursor", y1: PAD.top, visibility: "hidden" });
    const id = `window-${Math.random().toString(36).slice(2)}-${performance.now()}`;
    this.window = draw("rect", { y: 0 });
    const moving = draw("g", { "clip-path": `url(#${id})` }, this.lines);
    this.svg = draw("svg", { class: "plot", role: "img" }, draw("clipPath", { id }, this.window), this.grid, moving, this.cursor);
    this.legend = make("ul", { className: "legend" });
    this.frame = make("div", { className: "frame" }, this.svg);
    this.node = make("div", { className: "chart-box" }, this.legend, this.frame);
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#point(null));
    new ResizeObserver(([entry]) => {
      this.#width = Math.max(200, entry.contentRect.width);
      this.#height = Math.max(80, entry.contentRect.height);
      this.#paint(false);
    }).observe(this.frame);
  }

  draw(series) {
    this.#series = Object.entries(series).map(([name, values]) => [name, numbers(values).slice(-MAX_POINTS)]).filter(([, values]) => values.length > 1);
    const last = JSON.stringify(this.#series.map(([, values]) => values.at(-1)));
    const isNew = this.#last !== "" && last !== this.#last;
    this.#last = last;
    this.#paint(isNew);
  }

  #scale() {
    const all = this.#series.flatMap(([, values]) => values);
    const count = Math.max(2, ...this.#series.map(([, values]) => values.length));
    const step = niceStep((Math.max(...all) - Math.min(...all, 0)) / 4 || 1);
    const least = Math.floor(Math.min(...all, 0) / step) * step;
    const most = Math.ceil(Math.max(...all) / step) * step || step;
    const inner = this.#width - PAD.left - PAD.right;
    const x = (index, length) => PAD.left + ((index + count - length) / (count - 1)) * inner;
    const y = (value) => PAD.top + (1 - (value - least) / (most - least)) * (this.#height - PAD.top - PAD.bottom);
    return { count, step, least, most, x, y, gap: inner / (count - 1) };
  }

  #paint(isMoving) {
    if (!this.#series.length) return;
    const scale = this.#scale();
    const { x, y, gap } = scale;
    const floor = this.#height - PAD.bottom;
    this.svg.setAttribute("viewBox", `0 0 ${this.#width} ${this.#height}`);
    this.cursor.setAttribute("y2", this.#height - PAD.bottom);
    this.window.setAttribute("height", this.#height);
    this.window.setAttribute("x", PAD.left);
    this.window.setAttribute("width", this.#width - PAD.left);
    this.#rule(scale);
    const shapes = this.#series.flatMap(([, values], place) => {
      const points = values.map((value, index) => [x(index, values.length), y(value)]);
      const line = path(points);
      const [endX, endY] = points.at(-1);
      return [
        draw("path", { class: `area s${place % 4}`, d: `${line}L${endX} ${floor}L${points[0][0]} ${floor}Z` }),
        draw("path", { class: `line s${place % 4}`, d: line }),
        draw("circle", { class: `end s${place % 4}`, cx: endX, cy: endY, r: 4 }),
      ];
    });
    this.lines.replaceChildren(...shapes);
    if (isMoving && !isCalm() && !document.hidden) {
      this.lines.animate([{ transform: `translateX(${gap}px)` }, { transform: "none" }], { duration: 700, easing: "cubic-bezier(.2,.6,.3,1)" });
    }
    this.#tell();
  }

  #rule({ step, least, most, y }) {
    const rules = [];
    for (let value = least; value <= most + step / 2; value += step) {
      const at = y(value);
      const label = draw("text", { x: PAD.left - 8, y: at + 4, "text-anchor": "end" });
      label.textContent = Math.abs(value) >= 1000 ? `${+(value / 1000).toFixed(1)}k` : String(+value.toFixed(2));
      rules.push(draw("line", { x1: PAD.left, x2: this.#width - PAD.right, y1: at, y2: at }), label);
    }
    const now = draw("text", { x: this.#width - PAD.right, y: this.#height - 6, "text-anchor": "end" });
    now.textContent = "now";
    const then = draw("text", { x: PAD.left, y: this.#height - 6 });
    then.textContent = "earlier";
    this.grid.replaceChildren(...rules, then, now);
  }

  #point(event) {
    this.#at = null;
    if (event && this.#series.length) {
      const { count, gap } = this.#scale();
      const box = this.svg.getBoundingClientRect();
      const over = ((event.clientX - box.left) / box.width) * this.#width;
      const index = Math.round((over - PAD.left) / gap);
      if (index >= 0 && index < count) {
        this.#at = index - count;
        const x = PAD.left + index * gap;
        this.cursor.setAttribute("x1", x);
        this.cursor.setAttribute("x2", x);
      }
    }
    this.cursor.setAttribute("visibility", this.#at === null ? "hidden" : "visible");
    this.#tell();
  }

  /** The legend holds the values: those of now, or those under the pointer. */
  #tell() {
    const said = this.#series.map(([name, values]) => [name, values.at(this.#at ?? -1)]);
    while (this.legend.children.length > said.length) this.legend.lastChild.remove();
    said.forEach(([name, value], place) => {
      if (!this.legend.children[place]) this.legend.append(make("li", { className: `s${place % 4}` }, make("span"), make("b")));
      const [label, number] = this.legend.children[place].children;
      label.textContent = name;
      number.textContent = value === undefined ? "" : figure(value);
    });
    this.svg.setAttribute("aria-label", said.map(([name, value]) => `${name} ${value === undefined ? "unknown" : figure(value)}`).join(", "));
  }
}

/** 1, 2, 2.5 or 5 times a power of ten, not below `rough`. */
function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough * 0.999) ?? power * 10;
}
