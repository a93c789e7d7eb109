/** Who changed what, newest first. Who goes on changing the same things keeps one line. */

import { ago, avatar, make, words } from "./words.js";

const MAX_LINES = 24;
const MAX_VALUE = 48;
const PAUSE_MS = 120;

export class ChangeLog {
  #lines = [];
  #isPlanned = false;

  /** `list` is the `<ol>`; `nameOf(id)` a widget's title. */
  constructor(list, nameOf) {
    this.list = list;
    this.nameOf = nameOf;
    setInterval(() => this.#plan(), 5000);
  }

  /** A `change` of the client; a snapshot or a merged catch-up has no author and makes no line. */
  add({ type, userId, timestamp, payload, documents }) {
    if (!userId || !documents.length || type === "SYNC_RESPONSE" || type === "SYNC_UPDATE") return;
    const at = Date.parse(timestamp) || Date.now();
    const ids = documents.map((each) => each.id);
    const isMore = (line) => line.at === at || ids.every((id) => line.ids.has(id)); // of the same batch, or the same again
    const known = this.#lines.findIndex((line) => line.userId === userId && line.type === type && isMore(line));
    const [line] = known < 0 ? [{ userId, type, ids: new Set(), count: 0 }] : this.#lines.splice(known, 1);
    for (const id of ids) line.ids.add(id);
    Object.assign(line, { at, count: line.count + 1, what: line.ids.size > 1 ? ["changed", `${line.ids.size} tiles`] : this.#tell(type, payload, ids) });
    this.#lines.unshift(line);
    this.#lines.length = Math.min(this.#lines.length, MAX_LINES);
    this.#plan();
  }

  #tell(type, payload, ids) {
    const name = this.nameOf(ids[0]);
    if (type === "LAYOUT_UPDATE") return ["moved", Object.keys(payload.layout ?? {}).map(this.nameOf).slice(0, 3).join(", ")];
    if (type === "LAYOUT_RESTORE") return ["undid a move", ""];
    if (type === "WIDGET_DELETE") return ["deleted", name];
    const fields = Object.entries(payload.data ?? {}).filter(([field]) => field !== "recent");
    if (fields.length !== 1) return ["changed", name];
    const [[field, value]] = fields;
    const shown = Array.isArray(value) ? "" : words(value);
    const short = shown.length > MAX_VALUE ? `${shown.slice(0, MAX_VALUE)}…` : shown;
    return [field === "value" ? "set" : `set ${field.slice(0, MAX_VALUE)} of`, name, short];
  }

  /** A few times a second, however much changes. */
  #plan() {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    setTimeout(() => {
      this.#isPlanned = false;
      this.list.replaceChildren(...this.#lines.map((line) => this.#row(line)));
    }, PAUSE_MS);
  }

  #row({ userId, what: [verb, object, value], at, count, ids }) {
    return make("li", {},
      avatar(userId),
      make("span", { className: "what" }, make("b", { textContent: userId }), ` ${verb} `, make("em", { textContent: object }), value ? " to " : null,
        value ? make("b", { textContent: value }) : null),
      count > 1 && ids.size === 1 ? make("span", { className: "count", textContent: `× ${count}` }) : null,
      make("time", { textContent: ago(at), dateTime: new Date(at).toISOString() }));
  }
}
