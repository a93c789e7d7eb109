/**
 * Five custom elements over `realtime.js`. They know what a person sees, not what goes over the wire.
 * Data gets into the page as text alone: nothing here parses HTML, so no value can become markup.
 */
import { RealtimeClient } from "./realtime.js";

const Base = globalThis.HTMLElement ?? class {}; // importable where there is no page
const SETTLING_MS = 250; // a change that is confirmed sooner is not worth a flicker
const UNSETTLED = ["PENDING", "SENT"];

/** An element: `props` are its properties, `null` children are left out. */
function make(tag, props, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children.flat(2).filter((child) => child != null));
  return node;
}

const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
const has = (object, key) => object != null && Object.hasOwn(object, key);
const isOn = (element, name) => element.hasAttribute(name) && element.getAttribute(name) !== "false";
const emit = (element, type, detail) => element.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, composed: true }));
const clock = (time) => new Date(time).toLocaleTimeString();
const documentOf = (operation) => operation.documents.map((each) => each.id).join(", ");

/** Every colour comes from a custom property of the page, or else from here. */
const SHARED = `
:host { color-scheme: light dark; font: 500 .875rem/1.4 var(--rt-font, system-ui, sans-serif); color: var(--_ink);
  --_ink: var(--rt-ink, light-dark(#10262f, #e6eef0)); --_muted: var(--rt-muted, light-dark(#516671, #9bb0b8));
  --_surface: var(--rt-surface, light-dark(#fff, #14232b)); --_line: var(--rt-line, light-dark(#d3dde1, #2c414b));
  --_accent: var(--rt-accent, light-dark(#0b5f83, #6cc3e6)); --_on-accent: var(--rt-on-accent, light-dark(#fff, #06202b));
  --_radius: var(--rt-radius, 8px);
  --_live: var(--rt-live, light-dark(#14804a, #46c486)); --_syncing: var(--rt-syncing, light-dark(#1b66c9, #74adff));
  --_fallback: var(--rt-fallback, light-dark(#b35a00, #f2a24b)); --_offline: var(--rt-offline, light-dark(#66757d, #93a4ac));
  --_error: var(--rt-error, light-dark(#c22f2f, #ff8078)); }
:host([hidden]) { display: none }
* { box-sizing: border-box }
button, input, textarea { font: inherit; color: inherit }
button { padding: .375rem .75rem; border: 1px solid var(--_line); border-radius: var(--_radius); background: var(--_surface); cursor: pointer }
button:hover { border-color: var(--_muted) }
:focus-visible { outline: 2px solid var(--_accent); outline-offset: 2px }
.pill { display: inline-flex; align-items: center; gap: .5rem; padding: .25rem .75rem; border: 1px solid var(--_line);
  border-radius: 99px; background: var(--_surface); white-space: nowrap; font-variant-numeric: tabular-nums }
.dot { width: .625rem; height: .625rem; border-radius: 50%; background: var(--_state) }
.soft { color: var(--_muted); font-weight: 400 }
.acts:not(:empty) { display: flex; gap: .5rem; margin-top: .5rem }
.hear { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
[popover] { margin: 0; inset: auto; width: min(22rem, calc(100vw - 1rem)); max-height: 70vh; overflow: auto; padding: 1rem;
  border: 1px solid var(--_line); border-radius: var(--_radius); background: var(--_surface); color: var(--_ink);
  box-shadow: 0 12px 32px #0003 }
@media (prefers-reduced-motion: no-preference) { .busy { animation: beat 1s ease-in-out infinite alternate } @keyframes beat { to { opacity: .35 } } }
`;

const sheets = new Map();

/** A shadow root with the shared style and the element's own, made by script as strict policies want it. */
function shadow(element, css) {
  const root = element.attachShadow({ mode: "open" });
  for (const each of [SHARED, css]) {
    if (!sheets.has(each)) {
      const sheet = new CSSStyleSheet();
      sheet.replaceSync(each);
      sheets.set(each, sheet);
    }
  }
  root.adoptedStyleSheets = [sheets.get(SHARED), sheets.get(css)];
  return root;
}

/**
 * `<rt-dashboard url dashboard-id user-id|token auto-connect>`: makes the client and offers it to the elements inside.
 * `options` are more of the client's options; `token` may be a function. Another address or user makes another client.
 */
export class RtDashboard extends Base {
  static observedAttributes = ["url", "dashboard-id", "user-id", "token", "auto-connect"];
  #parts = new Set();
  #client = null;
  #token = null;
  #options = {};
  #made = null;
  #isPlanned = false;

  get client() { return this.#client; }
  get token() { return this.#token ?? this.getAttribute("token"); }
  set token(value) { this.#token = value; this.#plan(); }
  get options() { return this.#options; }
  set options(value) { this.#options = value ?? {}; this.#plan(); }

  connectedCallback() { this.#plan(); }
  disconnectedCallback() { this.#plan(); }
  attributeChangedCallback(_name, before, now) { if (before !== now) this.#plan(); }

  connect() { return this.#client?.connect() ?? Promise.resolve(); }
  disconnect() { this.#client?.disconnect(); }

  /** An element inside wants to be told of the client, now and whenever it is another. Returns what ends it. */
  join(part) {
    this.#parts.add(part);
    part.client = this.#client;
    return () => this.#parts.delete(part);
  }

  /** Soon: several attributes, or a move within the page, make one change. */
  #plan() {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    queueMicrotask(() => {
      this.#isPlanned = false;
      this.#renew();
    });
  }

  #renew() {
    const url = this.getAttribute("url");
    const wanted = {
      ...this.#options,
      ...(url && { url: new URL(url, location.href).href }),
      dashboardId: this.getAttribute("dashboard-id") || "default",
      userId: this.getAttribute("user-id") || undefined,
      token: this.token || undefined,
    };
    const is = this.#client && this.#made;
    if (!this.isConnected || !is || Object.keys({ ...is, ...wanted }).some((key) => is[key] !== wanted[key])) {
      this.#client?.close();
      this.#client = this.isConnected ? this.#make(wanted) : null;
      this.#made = wanted;
      for (const part of this.#parts) part.client = this.#client;
    }
    if (this.#client?.state === "DISCONNECTED" && isOn(this, "auto-connect")) this.connect().catch(() => {});
  }

  #make(options) {
    if (!options.userId && !options.token) return null; // whoever sets them later gets a client then
    const fault = (error) => emit(this, "rt-error", { error, message: error.message });
    let client = null;
    try {
      client = new RealtimeClient(options);
    } catch (error) {
      fault(error);
      return null;
    }
    const off = client.on("sync", () => {
      off();
      emit(this, "rt-initialized", { client, userId: client.userId, dashboardId: client.dashboardId });
    });
    client.on("error", fault);
    return client;
  }
}

/** What the others have in common: a client, from the dashboard around them or set by hand, and listeners on it. */
class Part extends Base {
  #client = null;
  #listeners = [];
  #leave = null;

  get client() { return this.#client; }
  set client(client) {
    if (client === this.#client) return;
    this.#unlisten();
    this.#client = client ?? null;
    if (client && this.isConnected) this.#listen();
    this.clientChanged?.();
    this.refresh();
  }

  connectedCallback() {
    if (this.#client) this.#listen();
    let node = this;
    let around = null;
    while (node && !(around = node.closest("rt-dashboard"))) node = node.getRootNode().host;
    this.#leave = around?.join?.(this) ?? null;
    this.refresh();
  }

  disconnectedCallback() {
    this.#leave?.();
    this.#unlisten();
  }

  attributeChangedCallback() { if (this.isConnected) this.refresh(); }

  #listen() {
    this.#unlisten();
    this.#listeners = Object.entries(this.listeners()).map(([event, fn]) => this.#client.on(event, fn));
  }

  #unlisten() {
    for (const off of this.#listeners.splice(0)) off();
  }
}

/** A pill that may open a panel under it. */
class Pill extends Part {
  #timer = 0;

  constructor(css, panelLabel) {
    super();
    const root = shadow(this, css);
    this.dot = make("span", { className: "dot" });
    this.words = make("span");
    this.aside = make("span", { className: "soft", ariaHidden: "true" });
    this.pill = make("button", { type: "button", className: "pill" }, this.dot, this.words, this.aside);
    this.pill.part.add("pill");
    this.panel = make("div", { popover: "auto", role: "group", ariaLabel: panelLabel });
    this.panel.part.add("details");
    this.hear = make("span", { className: "hear", role: "status", ariaLive: "polite" });
    this.panel.addEventListener("beforetoggle", (event) => event.newState === "open" && this.#place());
    root.append(this.pill, this.panel, this.hear);
  }

  /** Only with details is there something to press. */
  armed() {
    const open = isOn(this, "show-details");
    this.pill.popoverTargetElement = open ? this.panel : null;
    this.pill.ariaDisabled = open ? null : "true";
    this.pill.tabIndex = open ? 0 : -1;
    if (!open && this.panel.matches(":popover-open")) this.panel.hidePopover();
    return open;
  }

  /** Set what a screen reader says, once for each news. */
  say(sentence) {
    if (this.hear.textContent !== sentence) this.hear.textContent = sentence;
  }

  /** Look again soon; many events make one look. */
  later(ms = 40) {
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      if (this.isConnected) this.refresh();
    }, ms);
  }

  #place() {
    const box = this.pill.getBoundingClientRect();
    const width = Math.min(352, innerWidth - 16);
    this.panel.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
    this.panel.style.top = `${box.bottom + 8}px`;
  }
}

const STATUS = { live: "Live", syncing: "Syncing", fallback: "By HTTP", offline: "Offline", error: "Error" };

/** `<rt-sync-indicator show-details>`: how fresh the picture is, and by which way. Event `rt-status`. */
export class RtSyncIndicator extends Pill {
  static observedAttributes = ["show-details"];
  #status = "";
  #lostAt = 0;
  #wasConnected = false;
  #tick = 0;

  constructor() {
    super(`:host { display: inline-block } .pill[aria-disabled] { cursor: default }
      dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 0 } dt { color: var(--_muted); font-weight: 400 }
      dd { margin: 0; overflow-wrap: anywhere }`, "Connection");
    this.values = ["Connected", "Pending", "Queue", "Last sync", "Error"].map((name) => [make("dt", { textContent: name }), make("dd")]);
    this.panel.append(make("dl", {}, this.values));
  }

  get status() { return this.#status; }

  listeners() {
    const look = () => this.refresh();
    const soon = () => this.later();
    return { state: look, status: look, operation: soon, sync: soon, conflict: soon, resolved: soon };
  }

  clientChanged() { this.#lostAt = 0; this.#wasConnected = false; }

  connectedCallback() {
    super.connectedCallback();
    this.#tick = setInterval(() => document.hidden || this.refresh(), SETTLING_MS);
  }

  disconnectedCallback() {
    clearInterval(this.#tick);
    super.disconnectedCallback();
  }

  #judge() {
    const rt = this.client;
    const isConnected = rt?.state === "CONNECTED";
    if (this.#wasConnected && !isConnected) this.#lostAt = Date.now();
    this.#wasConnected = isConnected;
    if (!rt || rt.state === "DISCONNECTED") return "offline";
    if (rt.state === "ERROR") return "error";
    const isSlow = rt.pending.some((operation) => Date.now() - operation.createdAt > SETTLING_MS);
    if (isConnected) return isSlow ? "syncing" : "live";
    if (rt.syncState === "OFFLINE") return "offline";
    if (rt.syncState === "ERROR") return "error";
    if (rt.syncState === "SYNCING" && isSlow) return "syncing";
    return rt.lastSyncAt > this.#lostAt ? "fallback" : "offline";
  }

  refresh() {
    const rt = this.client;
    const status = this.#judge();
    const pending = rt?.pending.length ?? 0;
    const age = rt?.lastSyncAt ? Math.max(0, Date.now() - rt.lastSyncAt) : null;
    const isNew = status !== this.#status;
    this.#status = status;
    this.dataset.status = status;
    this.dot.style.setProperty("--_state", `var(--_${status})`);
    this.dot.classList.toggle("busy", status === "syncing");
    this.words.textContent = status === "syncing" ? `Syncing ${pending}` : STATUS[status];
    const wait = pending ? `${pending} waiting` : "";
    this.aside.textContent = status === "live" ? (age === null ? "" : `${age.toLocaleString()} ms`) : status === "syncing" ? "" : wait;
    if (this.armed()) {
      const last = rt?.lastSyncAt ? `${clock(rt.lastSyncAt)}, ${age.toLocaleString()} ms ago` : "never";
      const connected = status === "fallback" ? "no, by HTTP" : rt?.state === "CONNECTED" ? `yes, as ${rt.userId}` : "no";
      const shown = [connected, String(pending), String(rt?.queueSize ?? 0), last, rt?.error ?? "none"];
      this.values.forEach(([, value], index) => value.textContent !== shown[index] && (value.textContent = shown[index]));
    }
    if (isNew) {
      this.say(`Connection: ${STATUS[status]}`);
      const { queueSize = 0, lastSyncAt = null, error = null } = rt ?? {};
      emit(this, "rt-status", { status, pending, age, queueSize, lastSyncAt, error });
    }
  }
}

const DOES = {
  WIDGET_UPDATE: "Change",
  WIDGET_DELETE: "Delete",
  WIDGET_BATCH: "Change together",
  LAYOUT_UPDATE: "Arrange",
  LAYOUT_RESTORE: "Undo arrangement",
  CONFLICT_RESOLVED: "Settle conflict",
};

/** `<rt-pending-badge show-details max-display=5>`: what has no verdict yet, or was refused. Hidden when there is nothing. */
export class RtPendingBadge extends Pill {
  static observedAttributes = ["show-details", "max-display"];
  #rows = new Map();

  constructor() {
    super(`:host { display: inline-block; --_state: var(--_syncing) } :host([data-failed]) { --_state: var(--_error) }
      ul { display: grid; gap: .75rem; margin: 0; padding: 0; list-style: none } li { display: grid; gap: .125rem }
      li[data-state=FAILED] { border-inline-start: 3px solid var(--_error); padding-inline-start: .75rem }
      b, p { margin: 0; overflow-wrap: anywhere } p { font-weight: 400; color: var(--_muted) }`, "Changes under way");
    this.list = make("ul");
    this.more = make("p");
    this.panel.append(this.list, this.more);
  }

  listeners() {
    const soon = () => this.later();
    return {
      state: soon,
      operation: (operation) => {
        if (operation.state === "CONFIRMED") emit(this, "rt-operation-complete", { operation });
        if (this.client.failed.includes(operation)) emit(this, "rt-operation-fail", { operation, error: operation.error });
        soon();
      },
    };
  }

  refresh() {
    const pending = this.client?.pending ?? [];
    const failed = this.client?.failed ?? [];
    const isFresh = !failed.length && pending.every((operation) => Date.now() - operation.createdAt <= SETTLING_MS);
    this.hidden = isFresh;
    if (isFresh) {
      if (pending.length) this.later(SETTLING_MS);
      return this.say("");
    }
    const retrying = pending.filter((operation) => operation.attempts > 1).length;
    const parts = [
      [pending.length - retrying, "pending"],
      [retrying, "retrying"],
      [failed.length, "failed"],
    ].filter(([count]) => count);
    this.toggleAttribute("data-failed", failed.length > 0);
    this.dot.classList.toggle("busy", !failed.length);
    this.words.textContent = parts.map(([count, name]) => `${count} ${name}`).join(", ");
    this.say(failed.length ? `${failed.length} failed` : "");
    if (this.armed()) this.#show([...failed, ...pending]);
  }

  #show(operations) {
    const most = Number(this.getAttribute("max-display")) || 5;
    const shown = operations.slice(0, most);
    for (const [operation, row] of this.#rows) {
      if (!shown.includes(operation)) {
        row.remove();
        this.#rows.delete(operation);
      }
    }
    shown.forEach((operation, place) => {
      if (!this.#rows.has(operation)) this.#rows.set(operation, make("li", {}, make("b"), make("p"), make("div", { className: "acts" })));
      const row = this.#rows.get(operation);
      if (this.list.children[place] !== row) this.list.insertBefore(row, this.list.children[place] ?? null);
      this.#fill(row, operation);
    });
    const left = operations.length - shown.length;
    this.more.textContent = left ? `and ${left} more` : "";
  }

  #fill(row, operation) {
    const [title, state, acts] = row.children;
    const retries = Math.max(0, operation.attempts - 1);
    const isFailed = operation.state === "FAILED";
    title.textContent = `${DOES[operation.type] ?? operation.type} ${documentOf(operation)}`;
    state.textContent = [
      isFailed ? "failed" : retries ? "retrying" : "pending",
      clock(operation.createdAt),
      retries ? `${retries} ${retries > 1 ? "retries" : "retry"}` : null,
      operation.error?.message,
    ].filter(Boolean).join(" · ");
    if (row.dataset.state === operation.state) return;
    row.dataset.state = operation.state;
    const act = (name, method) =>
      make("button", { type: "button", textContent: name, onclick: () => { this.client[method](operation); this.refresh(); } });
    acts.replaceChildren(...(isFailed ? [act("Retry", "retry"), act("Roll back", "rollback")] : []));
  }
}

/**
 * `<rt-conflict-dialog auto-resolve>`: both values side by side, and a choice. Dismissed, it keeps theirs. `auto-resolve`
 * settles without asking: `local` keeps mine, `remote` (or no value) theirs. Event `rt-conflict-resolved`.
 */
export class RtConflictDialog extends Part {
  static observedAttributes = ["auto-resolve"];
  #conflict = null;
  #settled = 0;
  #inputs = null;

  constructor() {
    super();
    const root = shadow(this, `
      dialog { width: min(42rem, calc(100vw - 2rem)); max-height: 90vh; padding: 0; border: 1px solid var(--_line); border-radius: 1rem; background: var(--_surface); color: var(--_ink); box-shadow: 0 12px 32px #0003 }
      dialog::backdrop { background: #04141c99 }
      form { display: grid; gap: 1rem; padding: 1.5rem } .head { display: flex; gap: 1rem; align-items: start }
      h2 { margin: 0; flex: 1; font-size: 1.25rem; line-height: 1.3; overflow-wrap: anywhere; outline: none }
      p { margin: 0; font-weight: 400; overflow-wrap: anywhere } .x { border: 0; padding: .125rem .5rem; font-size: 1.25rem; line-height: 1.2 }
      .scroll { overflow: auto; max-height: 45vh } table { width: 100%; border-collapse: separate; border-spacing: 0; table-layout: fixed }
      th, td { padding: .5rem .75rem; overflow-wrap: anywhere; text-align: start; vertical-align: top } td { font-weight: 400; white-space: pre-wrap }
      thead th { color: var(--_muted); font-weight: 500 }
      tbody th, td { border-top: 1px solid var(--_line) } th:first-child { width: 25% } .val { display: block }
      .mine .val { border-inline-start: 3px solid var(--_fallback); padding-inline-start: .625rem }
      .theirs .val { border-inline-start: 3px solid var(--_syncing); padding-inline-start: .625rem }
      .none { font-style: italic }
      input, textarea { width: 100%; padding: .5rem .75rem; border: 1px solid; border-radius: var(--_radius); background: var(--_surface) }
      textarea { min-height: 5rem; resize: vertical } [aria-invalid=true] { border-color: var(--_error) } .fault { color: var(--_error) }
      .foot { display: flex; flex-wrap: wrap; gap: .5rem; justify-content: end } .foot button { padding: .5rem 1rem }
      .main { background: var(--_accent); border-color: var(--_accent); color: var(--_on-accent) }
      @media (max-width: 34rem) { dialog { margin: auto 0 0; width: 100vw; max-width: none; border-radius: 1rem 1rem 0 0 } form { padding: 1rem }
        .foot button { flex: 1 } }`);
    this.title_ = make("h2", { id: "title", tabIndex: -1 });
    this.story = make("p", { id: "story" });
    this.table = make("div", { className: "scroll", role: "group", ariaLabel: "Fields" });
    this.fault = make("p", { className: "fault", role: "alert" });
    this.buttons = make("div", { className: "foot" });
    const dismiss = make("button", { type: "button", className: "x", ariaLabel: "Close and keep theirs", textContent: "×", onclick: () => this.#settle("remote") });
    const form = make("form", { noValidate: true }, make("div", { className: "head" }, this.title_, dismiss), this.story, this.table, this.fault, this.buttons);
    form.addEventListener("submit", (event) => { event.preventDefault(); if (this.#inputs) this.#merge(); });
    this.dialog = make("dialog", {}, form);
    this.dialog.setAttribute("aria-labelledby", "title");
    this.dialog.setAttribute("aria-describedby", "story");
    this.dialog.addEventListener("close", () => this.dialog.open || this.#settle("remote")); // Escape
    root.append(this.dialog);
  }

  listeners() {
    return {
      conflict: (conflict) => {
        if (conflict.resolved) emit(this, "rt-conflict-resolved", { conflict, choice: conflict.resolved, by: "server" });
        this.refresh();
      },
      resolved: () => this.refresh(),
      operation: () => this.#conflict && this.refresh(),
    };
  }

  refresh() {
    let open = this.client?.conflicts ?? [];
    const rule = this.getAttribute("auto-resolve");
    if (rule !== null && rule !== "false" && open.length) {
      for (const conflict of open) this.#choose(conflict, rule === "local" ? "local" : "remote", undefined, "rule");
      open = this.client.conflicts;
    }
    if (open.includes(this.#conflict)) return this.#entitle(open);
    this.#conflict = open[0] ?? null;
    this.hidden = !this.#conflict;
    if (this.#conflict) this.#show(open);
    else {
      this.#settled = 0;
      this.dialog.close();
    }
  }

  /** Focus goes to the heading: a person who is typing must not press a button with the next key. */
  #show(open) {
    const { remote, remoteUserId, remoteTimestamp, local } = this.#conflict;
    this.#inputs = null;
    this.fault.textContent = "";
    this.#entitle(open);
    const did = remote === null ? "deleted it" : "changed it too";
    this.story.replaceChildren(
      make("b", { textContent: remoteUserId }),
      ` ${did} at ${clock(remoteTimestamp)}, before your ${local ? "change" : "deletion"} arrived. Which one shall stand?`,
    );
    if (!this.dialog.open && this.isConnected) this.dialog.showModal();
    this.#compare();
    this.buttons.replaceChildren(
      this.#button("Keep theirs", () => this.#settle("remote")),
      this.#conflict.batch?.length ? "" : this.#button("Edit and merge", () => this.#edit()),
      this.#button("Keep mine", () => this.#settle("local"), "main"),
    );
    this.title_.focus();
  }

  #entitle(open) {
    const { shown, remote, documentId } = this.#conflict;
    const title = [shown, remote].map((fields) => has(fields, "title") && fields.title).find((each) => typeof each === "string" && each);
    const count = this.#settled + open.length;
    const place = count > 1 ? ` (${this.#settled + 1} of ${count})` : "";
    this.title_.textContent = `Two changes to “${(title || documentId).slice(0, 120)}”${place}`;
  }

  #button(textContent, onclick, className = "", type = "button") {
    return make("button", { type, className, textContent, onclick });
  }

  /** The fields that collide first, then what else was sent. */
  #names() {
    const { fields, local, remote, shown } = this.#conflict;
    const all = remote === null && this.#inputs ? { ...shown, ...local } : local === null ? remote : local;
    return [...new Set([...fields, ...Object.keys(all ?? {})])];
  }

  #compare() {
    const { fields, local, remote, remoteUserId, batch } = this.#conflict;
    const cell = (side, name, className, gone) => {
      const isThere = has(side, name);
      const words = isThere ? text(side[name]) : side ? (fields.includes(name) ? "removed" : "as it was") : gone;
      const value = make("span", { className: `val${isThere ? "" : " none"}`, textContent: words });
      return make("td", { className }, value);
    };
    const row = (name) => [cell(local, name, "mine", "I deleted it"), cell(remote, name, "theirs", "they deleted it")];
    this.#tabulate(["Field", "Mine", `Theirs (${remoteUserId})`], row);
    if (batch?.length > 1) this.table.append(make("p", { textContent: `and ${batch.length - 1} more of the same batch` }));
  }

  /** One row for each name; `cells(name)` gives what stands beside it. */
  #tabulate(columns, cells) {
    const head = (scope) => (textContent) => make("th", { scope, textContent });
    const rows = this.#names().map((name) => make("tr", {}, head("row")(name), cells(name)));
    this.table.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, columns.map(head("col")))), make("tbody", {}, rows)));
    this.table.tabIndex = this.table.scrollHeight > this.table.clientHeight ? 0 : -1;
  }

  #edit() {
    const { local, remote, shown } = this.#conflict;
    this.#inputs = new Map();
    const mine = remote === null ? { ...shown, ...local } : local;
    this.#tabulate(["Field", "Merged value"], (name) => {
      const sides = [mine, remote].filter((side) => has(side, name)).map((side) => side[name]);
      const isLong = sides.some((value) => text(value).length > 60 || text(value).includes("\n"));
      const input = make(isLong ? "textarea" : "input", { ariaLabel: `Merged ${name}`, value: sides.length ? text(sides[0]) : "" });
      this.#inputs.set(name, { input, isText: sides.every((value) => typeof value === "string"), isNumber: sides.every((value) => typeof value === "number") });
      const pick = (label, side) => this.#button(label, () => { input.value = text(side[name]); input.focus(); });
      return make("td", {}, input, sides.length > 1 ? make("div", { className: "acts" }, pick("Mine", mine), pick("Theirs", remote)) : null);
    });
    this.buttons.replaceChildren(
      this.#button("Back", () => { this.#inputs = null; this.#show(this.client.conflicts); }),
      this.#button("Save merged", null, "main", "submit"),
    );
    [...this.#inputs.values()][0]?.input.focus();
  }

  /** Text stays text; what was a number, a list or the like has to be one again. */
  #merge() {
    const data = Object.create(null);
    for (const [name, { input, isText, isNumber }] of this.#inputs) {
      try {
        data[name] = isText ? input.value : JSON.parse(input.value);
        if (isNumber && typeof data[name] !== "number") throw new TypeError();
        input.ariaInvalid = null;
      } catch {
        this.fault.textContent = `${name} must be ${isNumber ? "a number" : "JSON"}.`;
        input.ariaInvalid = "true";
        return input.focus();
      }
    }
    this.#settle("merged", data);
  }

  #settle(choice, data) {
    const conflict = this.#conflict;
    if (conflict) this.#choose(conflict, choice, data, "person");
  }

  #choose(conflict, choice, data, by) {
    try {
      this.client.resolve(conflict.conflictId, choice, data);
    } catch (error) {
      if (by === "person") this.fault.textContent = error.message;
      if (this.#conflict && !this.dialog.open) this.dialog.showModal();
      return;
    }
    if (by === "person") this.#settled += 1;
    emit(this, "rt-conflict-resolved", { conflict, choice, data, by });
    if (by === "person") this.refresh();
  }
}

/**
 * `<rt-widget widget-id optimistic>`: wraps any content. The fields go to `render(fields, element)` if that is set, else to
 * `data` of the first child; where descendants bear `data-field="name"`, their text becomes that field. `fields` is null while there
 * is no such widget. Without `optimistic` an own change is shown once it is confirmed. Events `rt-update`, `rt-sync`, `rt-error`.
 */
export class RtWidget extends Part {
  static observedAttributes = ["widget-id", "optimistic"];
  #fields;
  #render = null;

  get widgetId() { return this.getAttribute("widget-id") ?? ""; }
  set widgetId(id) { this.setAttribute("widget-id", id); }
  get data() { return this.#fields ?? null; }
  get render() { return this.#render; }
  set render(fn) { this.#render = fn; this.#deliver(); }

  /** Change fields of this widget; as the client's `update`. */
  update(data, options) { return this.client.update(this.widgetId, data, options); }
  delete(options) { return this.client.delete(this.widgetId, options); }

  listeners() {
    return {
      view: ({ widgets }) => widgets.includes(this.widgetId) && this.refresh(),
      resolved: () => this.refresh(),
      operation: (operation) => {
        if (!this.#isAbout(operation)) return;
        if (this.client.failed.includes(operation)) emit(this, "rt-error", { widgetId: this.widgetId, operation, error: operation.error });
        this.refresh();
      },
    };
  }

  #isAbout(operation) {
    return operation.documents.some((each) => each.kind === "widget" && each.id === this.widgetId);
  }

  refresh() {
    const rt = this.client;
    if (!rt) return;
    const isWaiting = rt.pending.some((each) => this.#isAbout(each));
    const isSynced = !isWaiting && !rt.conflicts.some((each) => each.kind === "widget" && each.documentId === this.widgetId);
    const fields = rt.widgets.get(this.widgetId) ?? null;
    if (fields !== this.#fields && (!isWaiting || isOn(this, "optimistic"))) {
      this.#fields = fields;
      this.#deliver();
      emit(this, "rt-update", { widgetId: this.widgetId, data: fields, synced: isSynced });
    }
    if (this.dataset.synced === String(isSynced)) return;
    this.dataset.synced = isSynced;
    if (isSynced) emit(this, "rt-sync", { widgetId: this.widgetId, version: rt.info("widget", this.widgetId)?.version ?? null });
  }

  #deliver() {
    const fields = this.#fields;
    if (fields === undefined) return;
    if (this.#render) this.#render(fields, this);
    else if (this.querySelector("[data-field]")) {
      for (const node of this.querySelectorAll("[data-field]")) {
        const name = node.dataset.field;
        node["value" in node ? "value" : "textContent"] = has(fields, name) ? text(fields[name]) : "";
      }
    } else if (this.firstElementChild) this.firstElementChild.data = fields;
  }
}

const elements = {
  "rt-dashboard": RtDashboard,
  "rt-sync-indicator": RtSyncIndicator,
  "rt-pending-badge": RtPendingBadge,
  "rt-conflict-dialog": RtConflictDialog,
  "rt-widget": RtWidget,
};

if (globalThis.customElements) {
  for (const [name, element] of Object.entries(elements)) if (!customElements.get(name)) customElements.define(name, element);
}
