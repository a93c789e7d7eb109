/** A browser's surroundings for RealtimeClient, with nothing real in them: a clock that stands, sockets and POSTs that a test answers. */

/** Timers that go off when the test says that time passes. */
export class Clock {
  now = 0;
  #timers = new Map();
  #last = 0;

  setTimeout = (act, ms) => {
    this.#timers.set(++this.#last, { at: this.now + ms, act });
    return this.#last;
  };

  clearTimeout = (timer) => this.#timers.delete(timer);

  get size() {
    return this.#timers.size;
  }

  /** Let time pass, each timer at its moment; what they begin may end before the next. */
  async pass(ms) {
    const end = this.now + ms;
    for (;;) {
      const next = [...this.#timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (!next) break;
      const [timer, { at, act }] = next;
      this.#timers.delete(timer);
      this.now = Math.max(this.now, at);
      act();
      await settled();
    }
    this.now = end;
  }
}

/** Everything that was begun without timers has ended. */
export async function settled() {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A web Storage: its items are its own properties. `room` is how many signs fit. */
export class Storage {
  #room = Infinity;

  set room(signs) {
    this.#room = signs;
  }

  get length() {
    return Object.keys(this).length;
  }

  getItem(name) {
    return Object.hasOwn(this, name) ? this[name] : null;
  }

  setItem(name, value) {
    const used = Object.entries(this).reduce((sum, [key, text]) => sum + (key === name ? 0 : key.length + text.length), 0);
    if (used + name.length + value.length > this.#room) throw new Error("QuotaExceededError");
    this[name] = String(value);
  }

  removeItem(name) {
    delete this[name];
  }
}

/** Web Locks of one browser, with `ifAvailable` alone. */
export class Locks {
  held = new Set();

  async request(name, { ifAvailable }, callback) {
    if (!ifAvailable) throw new Error("this lock manager does not wait");
    if (this.held.has(name)) return callback(null);
    this.held.add(name);
    try {
      return await callback({ name });
    } finally {
      this.held.delete(name);
    }
  }
}

/** A server's side of sockets and POSTs: `sockets` are those that were dialled, `posts` those that wait for an answer. */
export class Line {
  sockets = [];
  posts = [];
  sent = []; // frames of all sockets, parsed
  texts = [];

  constructor() {
    const line = this;
    this.WebSocket = class {
      readyState = 0;

      constructor(url, protocols) {
        Object.assign(this, { url: new URL(url), protocols });
        line.sockets.push(this);
      }

      send(text) {
        line.texts.push(text);
        line.sent.push(JSON.parse(text));
      }

      close(code) {
        this.readyState = 3;
        this.closedWith = code;
      }

      open() {
        this.readyState = 1;
      }

      say(frame) {
        this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
      }

      end(code, reason = "") {
        this.readyState = 3;
        this.onclose?.({ code, reason });
      }
    };
  }

  get socket() {
    return this.sockets.at(-1);
  }

  fetch = (url, { body, headers }) =>
    new Promise((resolve, reject) => {
      const answer = (status, content) => resolve({ status, json: async () => content });
      this.posts.push({ url: new URL(url), headers, body: JSON.parse(body), answer, lose: () => reject(new Error("no network")) });
    });
}

let ids = 0;

/** All of it together, as RealtimeClient's option `environment`. `shared` is what the tabs of one browser share. */
export function browser({ storage = new Storage(), locks = new Locks() } = {}) {
  const clock = new Clock();
  const line = new Line();
  const network = new EventTarget();
  const environment = {
    WebSocket: line.WebSocket,
    fetch: line.fetch,
    setTimeout: clock.setTimeout,
    clearTimeout: clock.clearTimeout,
    Date: { now: () => clock.now },
    Math: { random: () => 0.5 },
    crypto: { getRandomValues: () => [++ids] },
    localStorage: storage,
    navigator: { locks },
    addEventListener: network.addEventListener.bind(network),
    removeEventListener: network.removeEventListener.bind(network),
  };
  return { clock, line, network, environment, storage, locks };
}
/** CONNECT of a server that has `widgets` at `seq`. */
export function hello(seq = 0, widgets = {}, more = {}) {
  const docs = Object.entries(widgets).map(([id, data]) => [id, { data, version: seq, updatedAt: "", updatedBy: "bob" }]);
  const sync = { mode: "snapshot", widgets: Object.fromEntries(docs), layouts: {}, epoch: "e", seq, clientCount: 1, timestamp: "" };
  const payload = { clientId: "c", dashboardId: "default", epoch: "e", seq, heartbeatInterval: 25_000, permissions: ["read", "write"] };
  return { type: "CONNECT", id: "c", userId: "ada", payload: { ...payload, limits: {}, sync, ...more } };
}

/** A client in a browser; `up` is a function that opens its socket and lets the server greet. */
export function tab(Client, options = {}, shared = undefined) {
  const here = browser(shared);
  const who = options.token ? {} : { userId: "ada" };
  const client = new Client({ url: "http://server.test", ...who, ...options, environment: here.environment });
  const up = async (...greeting) => {
    client.connect();
    await settled();
    here.line.socket.open();
    here.line.socket.say(hello(...greeting));
    await settled();
  };
  return { ...here, client, up };
}
