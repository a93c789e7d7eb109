/** What a widget looks like on the demo page: a figure, a chart, a table, a note, or just its fields. It is told what to show and asks to change. */

import { Chart, Spark } from "./chart.js";
import { figure, has, make, numbers, words } from "./words.js";

const PAUSE_MS = 350; // after the last key, a typed value is meant
const MAX_SEEN = 20;
const MAX_FIELDS = 12;
const MAX_ROWS = 50;

/** The kind of tile that suits these fields, whatever somebody wrote into them. */
export function kindOf(fields) {
  if (fields.kind === "chart" && Array.isArray(fields.series)) return "chart";
  if (fields.kind === "table" && Array.isArray(fields.rows)) return "table";
  if (typeof fields.text === "string") return "note";
  return typeof fields.value === "number" ? "number" : "plain";
}

/** `change(data, baseVersion)` sends an edit; `position()` is what the client knows now, for the beginning of one. */
export function tileOf(kind, desk) {
  return new { number: NumberTile, chart: ChartTile, table: TableTile, note: NoteTile, plain: PlainTile }[kind](desk);
}

/**
 * A field that a person types into. While he does, nothing from elsewhere is put into it; he is taken to have meant the
 * picture that he saw at the first key. `read` makes a value of what is typed, or undefined if it is none.
 */
class Typed {
  #base = null;
  #shown = "";
  #timer = 0;

  constructor(input, { desk, read, send }) {
    this.input = input;
    this.desk = desk;
    this.read = read;
    this.send = send;
    input.addEventListener("input", () => {
      this.#base ??= desk.position();
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.commit(), PAUSE_MS);
    });
    input.addEventListener("change", () => this.commit());
    input.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && input.tagName !== "TEXTAREA") this.commit();
      if (event.key === "Escape") this.#drop();
    });
    addEventListener("pagehide", () => this.commit()); // a page that is left or reloaded sends it when it comes back
    input.addEventListener("blur", () => {
      this.commit();
      this.#drop();
    });
  }

  show(value) {
    this.#shown = value;
    if (this.#base === null && this.input.value !== value) this.#put(value);
  }

  commit() {
    clearTimeout(this.#timer);
    const value = this.#base === null ? undefined : this.read(this.input.value);
    if (value === undefined) return;
    const base = this.#base;
    this.#base = null;
    if (this.input.value !== this.#shown) this.send(value, base);
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#base = null;
    this.#put(this.#shown);
  }

  #put(value) {
    const isFocused = document.activeElement === this.input && this.input.type !== "number";
    const caret = isFocused ? [this.input.selectionStart, this.input.selectionEnd] : null;
    this.input.value = value;
    if (caret) this.input.setSelectionRange(...caret);
  }
}

/** What all tiles have: a title that can be changed, a grip, a foot that says who changed it last. */
class Tile {
  constructor(desk, kind) {
    this.desk = desk;
    this.name = make("input", { className: "title", autocomplete: "off", spellcheck: false, maxLength: 20_000 });
    this.grip = make("button", { type: "button", className: "grip", title: "Drag, or use the arrow keys" }, make("span"));
    this.name.ariaLabel = `Title of ${desk.id}`;
    this.foot = make("p", { className: "foot" });
    this.body = make("div", { className: "body" });
    this.node = make("article", { className: `tile ${kind}` }, make("header", {}, make("h2", {}, this.name), this.grip), this.body, this.foot);
    this.title = new Typed(this.name, { desk, read: (typed) => typed, send: (title, base) => desk.change({ title }, base) });
  }

  show(fields) {
    this.called = typeof fields.title === "string" && fields.title ? fields.title : this.desk.id;
    this.title.show(this.called);
    const short = this.called.slice(0, 80);
    if (this.short !== short) this.grip.ariaLabel = `Move ${(this.short = short)}`;
    this.fill(fields, short);
  }

  fill() {}
}

class NumberTile extends Tile {
  #recent = "";
  #seen = []; // values since the widget's own `recent` was written

  constructor(desk) {
    super(desk, "number");
    this.spark = new Spark();
    this.value = make("input", { type: "number", step: "any", className: "value", autocomplete: "off" });
    this.unit = make("span", { className: "unit" });
    const step = (sign) => make("button", { type: "button", className: "step", textContent: sign > 0 ? "+" : "−", onclick: () => this.#step(sign) });
    [this.less, this.more] = [step(-1), step(1)];
    this.typed = new Typed(this.value, {
      desk,
      read: (typed) => (typed.trim() !== "" && Number.isFinite(Number(typed)) ? Number(typed) : undefined),
      send: (value, base) => desk.change({ value }, base),
    });
    this.body.append(make("div", { className: "figure" }, this.value, this.unit, make("span", { className: "steps" }, this.less, this.more)), this.spark.node);
  }

  #step(sign) {
    this.typed.commit();
    const by = 10 ** -(this.decimals || 0);
    this.desk.change({ value: Number((this.number + sign * by).toFixed(6)) });
  }

  fill({ value, unit, decimals, recent }, title) {
    this.number = value;
    this.decimals = Number.isInteger(decimals) && decimals > 0 && decimals <= 6 ? decimals : 0;
    const text = figure(value, this.decimals);
    this.typed.show(text);
    this.value.style.setProperty("--signs", Math.min(12, text.length - 0.6 * text.includes(".")));
    if (this.value.ariaLabel !== title) {
      this.value.ariaLabel = title;
      this.less.ariaLabel = `${title}: one less`;
      this.more.ariaLabel = `${title}: one more`;
    }
    this.unit.textContent = typeof unit === "string" ? unit.slice(0, 8) : "";
    this.spark.draw(this.#history(numbers(recent), value));
  }

  #history(recent, value) {
    const key = recent.join();
    if (key !== this.#recent) [this.#recent, this.#seen] = [key, []];
    if (value !== (this.#seen.at(-1) ?? recent.at(-1))) this.#seen = [...this.#seen, value].slice(-MAX_SEEN);
    return [...recent, ...this.#seen];
  }
}

class ChartTile extends Tile {
  constructor(desk) {
    super(desk, "chart");
    this.chart = new Chart();
    this.body.append(this.chart.node);
  }

  fill(fields) {
    const names = fields.series.filter((name) => typeof name === "string" && has(fields, name)).slice(0, 4);
    this.chart.draw(Object.fromEntries(names.map((name) => [name, fields[name]])));
  }
}

class NoteTile extends Tile {
  constructor(desk) {
    super(desk, "note");
    this.area = make("textarea", { spellcheck: false });
    this.typed = new Typed(this.area, { desk, read: (typed) => typed, send: (text, base) => desk.change({ text }, base) });
    this.body.append(this.area);
  }

  fill({ text }, title) {
    this.area.ariaLabel = title;
    this.typed.show(text);
  }
}

/** Rows that stay, and a state for each that people set: a field of its own, so that two rows never collide. */
class TableTile extends Tile {
  #rows = "";
  #states = new Map();

  constructor(desk) {
    super(desk, "table");
    this.table = make("table");
    this.body.append(make("div", { className: "scroll" }, this.table));
  }

  fill(fields, title) {
    const { columns, rows, choices } = fields;
    const look = JSON.stringify([columns, rows, choices]);
    if (look !== this.#rows) {
      this.#rows = look;
      this.#build(Array.isArray(columns) ? columns : [], rows.filter(Array.isArray).slice(0, MAX_ROWS), Array.isArray(choices) ? choices : []);
    }
    this.table.ariaLabel = title;
    for (const [key, select] of this.#states) {
      const state = has(fields, key) ? words(fields[key]) : "";
      if (![...select.options].some((option) => option.value === state)) select.append(new Option(state.slice(0, 40), state));
      select.value = state;
      select.dataset.state = state;
    }
  }

  #build(columns, rows, choices) {
    this.#states.clear();
    const names = choices.length ? [...columns, "State"] : columns;
    const head = make("tr", {}, names.map((name) => make("th", { scope: "col", textContent: words(name) })));
    const body = rows.map((row) => {
      const [first, ...rest] = row.map(words);
      const cells = rest.map((cell) => make("td", { textContent: cell }));
      return make("tr", {}, make("th", { scope: "row", textContent: first }), cells, choices.length ? make("td", {}, this.#state(first, choices)) : null);
    });
    this.table.replaceChildren(make("thead", {}, head), make("tbody", {}, body));
  }

  #state(key, choices) {
    const select = make("select", { ariaLabel: `State of ${key}` }, choices.map((choice) => new Option(words(choice), words(choice))));
    let base = null;
    select.addEventListener("pointerdown", () => (base = this.desk.position()));
    select.addEventListener("change", () => {
      this.desk.change({ [key]: select.value }, base ?? undefined);
      base = null;
    });
    this.#states.set(key, select);
    return select;
  }
}

/** A widget of a kind that this page does not know. */
class PlainTile extends Tile {
  constructor(desk) {
    super(desk, "plain");
    this.list = make("dl");
    this.body.append(this.list);
  }

  fill(fields) {
    const names = Object.keys(fields).filter((name) => name !== "title" && name !== "kind").slice(0, MAX_FIELDS);
    this.list.replaceChildren(...names.flatMap((name) => [make("dt", { textContent: name }), make("dd", { textContent: words(fields[name]).slice(0, 400) })]));
  }
}
