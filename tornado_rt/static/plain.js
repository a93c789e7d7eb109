// The plainest client that keeps in step: one number on one widget. It shows what the protocol asks of a client at the least:
// its own edits wait until they are acknowledged, what it holds is made from what it hears, in order, and a gap is asked for.
const query = new URLSearchParams(location.search);
const user = query.get("userId") || (sessionStorage.user ||= `guest-${random(4)}`);
const dashboard = query.get("dashboardId") || "default";
const device = (sessionStorage.device ||= random(16));
const widgetId = "number";
const shown = Object.fromEntries(["state", "value", "less", "more", "changes", "another"].map((id) => [id, document.getElementById(id)]));

let socket, epoch, position = 0, held = {}; // `held` is the widget's data as of `position`
const waiting = new Map(); // edits without an answer, by id, oldest first
let attempts = 0, silence, heartbeatInterval = 25_000;

function random(length) {
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => "abcdefghijklmnopqrstuvwxyz234567"[byte & 31]).join("");
}

// The connection

function connect() {
  const url = new URL("/api/realtime", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const resume = { since: position, ...(epoch && { epoch }) };
  url.search = new URLSearchParams({ userId: user, dashboardId: dashboard, deviceId: device, ...resume });
  const mine = (socket = new WebSocket(url));
  let goodbye;
  mine.onmessage = ({ data }) => {
    if (mine !== socket) return;
    listen();
    const message = JSON.parse(data);
    if (message.type === "DISCONNECT") goodbye = message.payload;
    else hear(message);
  };
  mine.onclose = ({ code, reason }) => mine === socket && lose(goodbye ?? { reason, reconnect: code !== 1008 });
}

function lose(goodbye) {
  clearTimeout(silence);
  if (!goodbye.reconnect) return show(`not let in: ${goodbye.reason}`, false);
  const delay = goodbye.retryAfterMs ?? Math.random() * Math.min(30_000, 1_000 * 2 ** attempts++);
  show("cut off; coming back", false);
  setTimeout(connect, delay);
}

// A network may die without a word: whoever hears nothing for two heartbeats begins anew.
function listen() {
  clearTimeout(silence);
  silence = setTimeout(() => {
    const dead = socket;
    socket = undefined;
    dead.close();
    lose({ reconnect: true });
  }, 2 * heartbeatInterval);
}

function say(type, payload, id = `${device}-${random(12)}`) {
  const message = { type, id, userId: user, timestamp: new Date().toISOString(), payload };
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  return message;
}

// What is heard

function hear(message) {
  const { type, payload } = message;
  if (type === "CONNECT") {
    attempts = 0;
    heartbeatInterval = payload.heartbeatInterval;
    show(`live as ${user} on ${dashboard}`, true);
    adopt(payload.sync);
    for (const edit of waiting.values()) say(edit.type, edit.payload, edit.id);
  } else if (type === "SYNC_RESPONSE" || (type === "SYNC_UPDATE" && "fromSeq" in payload)) adopt(payload);
  else if (type === "PING") {
    say("PONG", {});
    if (payload.seq > position) resync();
  } else if (type === "ACK") {
    const edit = waiting.get(message.correlationId);
    waiting.delete(message.correlationId);
    if (edit) step({ ...edit, payload: { ...edit.payload, seq: payload.seq } });
  } else if (type === "NACK") {
    const edit = waiting.get(message.correlationId);
    if (!payload.retryable) waiting.delete(message.correlationId);
    else if (edit) setTimeout(() => waiting.has(edit.id) && say(edit.type, edit.payload, edit.id), payload.retryAfterMs ?? 1_000);
    show(`refused: ${payload.error}`, true);
  } else if ("seq" in payload) step(message);
  draw();
}

// Changes come as position + 1, + 2, ...: what is lower is known, what is higher shows a gap.
function step(change) {
  const { seq } = change.payload;
  if (seq === position + 1) {
    apply(change);
    position = seq;
  } else if (seq > position) resync();
}

const resync = () => say("SYNC_REQUEST", { since: position, ...(epoch && { epoch }) });

function apply({ type, userId, timestamp, payload }) {
  if (type === "WIDGET_BATCH") return payload.operations.forEach(apply);
  if (payload.widgetId !== widgetId) return;
  if (type === "WIDGET_DELETE") held = {};
  if (type === "WIDGET_UPDATE") {
    held = { ...(payload.replace ? {} : held), ...payload.data };
    for (const name of payload.unset ?? []) delete held[name];
  }
  note(userId, timestamp);
}

// A snapshot is everything, merged state is what changed, a delta is the changes themselves.
function adopt(sync) {
  if (sync.mode === "delta") sync.operations.forEach(apply);
  else {
    const doc = sync.widgets[widgetId];
    if (doc || sync.mode === "snapshot" || sync.deleted?.widgets.includes(widgetId)) held = doc?.data ?? {};
    if (doc) note(doc.updatedBy, doc.updatedAt);
  }
  position = sync.seq;
  epoch = sync.epoch ?? epoch;
}

// What is shown

function show(text, isLive) {
  shown.state.textContent = text;
  shown.state.classList.toggle("live", isLive);
}

function draw() {
  const newest = [...waiting.values()].at(-1);
  const value = newest ? newest.payload.data.value : (held.value ?? 0);
  if (Number(shown.value.value) !== value || shown.value.value === "") shown.value.value = value;
  shown.value.classList.toggle("waits", waiting.size > 0);
}

function note(by, at) {
  const [line, what, who] = ["li", "b", "span"].map((name) => document.createElement(name));
  what.textContent = held.value ?? "nothing";
  who.textContent = `${by}, ${new Date(at).toLocaleTimeString()}`;
  line.append(what, who);
  shown.changes.prepend(line);
  while (shown.changes.children.length > 5) shown.changes.lastChild.remove();
}

function change(value) {
  const edit = say("WIDGET_UPDATE", { widgetId, data: { value } });
  waiting.set(edit.id, edit);
  draw();
}

shown.value.addEventListener("input", () => Number.isFinite(shown.value.valueAsNumber) && change(shown.value.valueAsNumber));
shown.value.addEventListener("blur", draw);
shown.less.addEventListener("click", () => change(Number(shown.value.value) - 1));
shown.more.addEventListener("click", () => change(Number(shown.value.value) + 1));
if (query.has("dashboardId")) shown.another.search = new URLSearchParams({ dashboardId: dashboard });
draw();
connect();
