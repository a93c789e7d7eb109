/** The demo page: joins the five elements with the tiles, the layout, the log and the buttons. All state is the client's. */

import "./elements.js";
import { glide, inOrder, movable, moved, widthOf } from "./demo/arrange.js";
import { ChangeLog } from "./demo/log.js";
import { kindOf, tileOf } from "./demo/tiles.js";
import { ago, avatar, hueOf, make } from "./demo/words.js";

const USUAL_WIDTH = { number: 3, chart: 8, table: 8, note: 4, plain: 4 };
const MIN_PAUSE_MS = 50; // between two paintings
const NAMES = ["ada", "bo", "cleo", "dag", "edda", "finn", "gro", "hal", "ines", "jon", "kari", "leif"];

const byId = (id) => document.getElementById(id);
const desk = byId("desk");
const grid = byId("tiles");
const cards = new Map(); // widget id -> {node: rt-widget, tile, kind}
const stale = new Set(); // widgets that wait for the next frame
const flashing = new Set();
let paintedAt = 0;
const query = new URLSearchParams(location.search);
const token = query.get("token") ?? undefined;
const dashboardId = query.get("dashboardId") || "default";
const userId = token ? undefined : query.get("userId") || guest();

let rt = null;
let undoable = []; // versions of the layout at which somebody moved something, oldest first

/** A name for this window that a reload keeps. */
function guest() {
  const made = `${NAMES[Math.floor(Math.random() * NAMES.length)]}-${String(Date.now() % 1000).padStart(3, "0")}`;
  try {
    return (sessionStorage["rt-user"] ||= made);
  } catch {
    return made; // no storage in this window
  }
}

// Tiles

function card(id, kind) {
  const tile = tileOf(kind, { id, position: () => rt.position, change: (data, baseVersion) => attempt(() => rt.update(id, data, { baseVersion })) });
  const node = make("rt-widget", { className: "cell" }, tile.node);
  node.setAttribute("widget-id", id);
  node.setAttribute("optimistic", "");
  node.dataset.kind = kind;
  node.render = () => paint(id);
  return { node, tile, kind };
}

/** Show a tile anew with the next frame, however often it changes until then; under a storm of changes, twenty times a second. */
function paint(id) {
  if (!stale.size) setTimeout(requestAnimationFrame, paintedAt + MIN_PAUSE_MS - performance.now(), paintStale);
  stale.add(id);
}

function paintStale() {
  paintedAt = performance.now();
  const ids = [...stale];
  stale.clear();
  if (ids.some((id) => cards.has(id) && rt.widgets.has(id) && kindOf(rt.widgets.get(id)) !== cards.get(id).kind)) arrange();
  for (const id of ids) {
    const fields = rt.widgets.get(id);
    if (fields && cards.has(id)) cards.get(id).tile.show(cards.get(id).node.data ?? fields);
    sign(id);
  }
}

/** The foot of a tile: who changed it, and when. */
function sign(id) {
  const { tile } = cards.get(id) ?? {};
  const info = rt.info("widget", id);
  if (!tile || !info?.updatedBy) return;
  const when = ago(Date.parse(info.updatedAt) || Date.now());
  tile.foot.dataset.hue = hueOf(info.updatedBy);
  const said = `${info.updatedBy} · ${when}`;
  if (tile.foot.textContent !== said) tile.foot.textContent = said;
}

const layout = () => rt.layouts.get("default") ?? {};
const order = () => inOrder(cards.keys(), layout());
const widthFor = (id) => widthOf(layout(), id, USUAL_WIDTH[cards.get(id).kind]);

/** Tiles come, go and change places, so that the page is as the documents say. */
function arrange() {
  for (const [id, { node, kind }] of cards) {
    const fields = rt.widgets.get(id);
    if (fields && kindOf(fields) === kind) continue;
    cards.delete(id);
    node.remove();
  }
  for (const [id, fields] of rt.widgets) if (!cards.has(id)) cards.set(id, card(id, kindOf(fields)));
  const ids = order();
  const nodes = ids.map((id) => cards.get(id).node);
  ids.forEach((id, index) => nodes[index].style.setProperty("--w", widthFor(id)));
  const focused = document.activeElement;
  glide(nodes.filter((node) => node.isConnected), () => nodes.forEach((node, index) => {
    if (grid.children[index] !== node) grid.insertBefore(node, grid.children[index] ?? null);
  }));
  if (focused !== document.activeElement && grid.contains(focused)) focused.focus({ preventScroll: true });
  byId("empty").hidden = cards.size > 0;
}

movable(grid, {
  order: () => order().map((id) => cards.get(id).node),
  begin: () => rt.position,
  drop(node, index, baseVersion) {
    const ids = order();
    const id = node.widgetId;
    const others = ids.filter((each) => each !== id);
    attempt(() => rt.updateLayout(moved(id, index, others, layout(), widthFor), { baseVersion }));
    arrange();
    byId("hear").textContent = `${nameOf(id)} is at place ${index + 1} of ${ids.length}`;
  },
});

function nameOf(id) {
  const title = rt.widgets.get(id)?.title;
  return (typeof title === "string" && title ? title : id).slice(0, 80);
}

// Buttons

/** What the client refuses at once (a full queue, say) is told, not thrown. */
function attempt(work) {
  try {
    return work();
  } catch (error) {
    tell(error.message);
    return null;
  }
}

function tell(sentence) {
  byId("notice").textContent = sentence;
  byId("notice").hidden = !sentence;
}

/** Undo takes back the last move that still stands, whoever made it; pressed again, the one before. */
function undo() {
  const version = undoable.at(-1);
  attempt(() => rt.restoreLayout({ version: version - 1 }))?.done.catch((error) => tell(error.message));
}

/** A move can be undone until it is; what came after the layout that was brought back is gone with it. */
function follow({ type, seq, payload, documents }) {
  if (!documents.some(({ kind, id }) => kind === "layout" && id === "default")) return;
  if (type === "LAYOUT_RESTORE") undoable = undoable.filter((version) => version <= payload.restoredFrom);
  else if (!type.startsWith("SYNC")) undoable.push(seq);
  byId("undo").disabled = undoable.length < 2;
}

function recall() {
  undoable = [...(rt.info("layout", "default")?.history ?? [])];
  byId("undo").disabled = undoable.length < 2;
}

function showConnection() {
  const isCut = rt.state === "DISCONNECTED";
  byId("cut").textContent = isCut ? "Rejoin" : "Cut the connection";
  byId("cut").classList.toggle("main", isCut);
  document.body.classList.toggle("cut", isCut);
  if (rt.state === "CONNECTED") tell("");
  byId("alone").hidden = !isCut;
}

function cutOrRejoin() {
  if (rt.state === "DISCONNECTED") rt.connect().catch(() => {});
  else rt.disconnect();
}

let feed = null;

/** What moves the figures is loaded when it is wanted. */
async function switchFeed() {
  feed ??= new (await import("./demo/feed.js")).Feed({ dashboardId, token });
  if (feed.isOn) feed.stop();
  else feed.start();
  byId("feed").setAttribute("aria-checked", String(feed.isOn));
}

// The client

function listen(client) {
  rt = client;
  const log = new ChangeLog(byId("log"), nameOf);
  rt.on("view", ({ widgets, layouts }) => {
    if (layouts.length || widgets.some((id) => rt.widgets.has(id) !== cards.has(id))) arrange();
  });
  rt.on("change", (change) => {
    log.add(change);
    byId("quiet").hidden = true;
    follow(change);
    for (const { kind, id } of change.isOwn ? [] : change.documents) if (kind === "widget") flash(id, change.userId);
  });
  rt.on("sync", ({ mode }) => {
    if (mode !== "delta") recall();
    arrange();
  });
  rt.on("state", showConnection);
  arrange();
  showConnection();
}

/** A ring in the colour of who changed it. What moves every second anyway needs none. */
function flash(id, user) {
  const node = cards.get(id)?.tile.node;
  if (!node || rt.widgets.get(id)?.drift || flashing.has(id) || document.hidden) return;
  flashing.add(id);
  node.dataset.hue = hueOf(user);
  const look = node.animate([{ outlineColor: "var(--hue)" }, { outlineColor: "transparent" }], { duration: 1400, easing: "ease-in" });
  look.onfinish = look.oncancel = () => flashing.delete(id);
}

/** A dashboard that holds nothing yet gets something to look at. */
async function fill() {
  if (rt.widgets.size || !rt.permissions.includes("write")) return;
  const { widgets, layout } = await (await fetch(new URL("./demo/dashboard.json", import.meta.url))).json();
  if (rt.widgets.size) return;
  const edits = Object.entries(widgets).map(([widgetId, data]) => ({ type: "WIDGET_UPDATE", payload: { widgetId, data } }));
  rt.batch([...edits, { type: "LAYOUT_UPDATE", payload: { layoutId: "default", layout } }]);
}

byId("undo").addEventListener("click", undo);
byId("cut").addEventListener("click", cutOrRejoin);
byId("feed").addEventListener("click", switchFeed);
byId("another").href = `?${new URLSearchParams({ dashboardId, ...(token && { token }) })}`;
byId("board").textContent = dashboardId;
setInterval(() => rt && cards.forEach((_, id) => sign(id)), 5000);

desk.addEventListener("rt-error", ({ detail, target }) => target === desk && tell(detail.message));
desk.addEventListener("rt-initialized", ({ detail }) => {
  byId("me").replaceChildren(avatar(detail.userId), make("span", { textContent: detail.userId }));
  fill();
});
if (token) desk.token = token;
else desk.setAttribute("user-id", userId);
desk.setAttribute("dashboard-id", dashboardId);
desk.join({ set client(client) { if (client) listen(client); } });
desk.setAttribute("auto-connect", "");
