/** Figures that move, as a backend would move them: the same walk as `tornado-rt demo-feed`. */

import { RealtimeClient } from "../realtime.js";
import { has, numbers } from "./words.js";

const EVERY_MS = 1000;
const RECENT = 40;
const NAME = "harbour-feed";

/** A number a little further on, between `least` and `most`. */
function step(value, drift, { least, most, decimals }) {
  const low = Number.isFinite(least) ? least : -Infinity;
  const high = Number.isFinite(most) ? most : Infinity;
  const next = value + (Math.random() + Math.random() - 1) * 2 * drift;
  const places = Number.isInteger(decimals) && decimals >= 0 && decimals <= 6 ? decimals : 0;
  return Number(Math.min(high, Math.max(low, next)).toFixed(places));
}

/** The next fields of one widget; null if it stands still. Whoever set a `drift` wants it to move. */
export function nextOf(fields) {
  const { drift, kind } = fields;
  if (!Number.isFinite(drift) || drift <= 0) return null;
  if (kind === "chart" && Array.isArray(fields.series)) {
    const names = fields.series.filter((name) => typeof name === "string" && has(fields, name) && numbers(fields[name]).length > 1);
    return Object.fromEntries(names.map((name) => {
      const values = numbers(fields[name]);
      return [name, [...values.slice(1), step(values.at(-1), drift, { least: 0 })]];
    }));
  }
  if (!Number.isFinite(fields.value)) return null;
  const value = step(fields.value, drift, fields);
  return { value, recent: [...numbers(fields.recent), value].slice(-RECENT) };
}

/** The feed of one page; a client of its own, so that its changes bear its name and keep nothing when it is switched off. */
export class Feed {
  #timer = 0;
  #client = null;

  constructor(options) {
    this.options = options;
  }

  get isOn() { return this.#client !== null; }

  start() {
    if (this.isOn) return;
    const { token } = this.options;
    const who = token ? { token } : { userId: NAME };
    this.#client = new RealtimeClient({ ...this.options, userId: undefined, ...who, storage: null });
    this.#client.on("conflict", ({ conflictId, resolved }) => resolved || this.#client.resolve(conflictId, "remote")); // people come first
    this.#client.connect().catch(() => {});
    this.#timer = setInterval(() => this.#tick(), EVERY_MS);
  }

  stop() {
    clearInterval(this.#timer);
    this.#client?.close();
    this.#client = null;
  }

  #tick() {
    const rt = this.#client;
    if (rt.state !== "CONNECTED" || rt.pending.length) return;
    const edits = [...rt.widgets]
      .map(([widgetId, fields]) => [widgetId, nextOf(fields)])
      .filter(([, data]) => data)
      .map(([widgetId, data]) => ({ type: "WIDGET_UPDATE", payload: { widgetId, data } }));
    if (edits.length) rt.batch(edits, { atomic: false });
  }
}
