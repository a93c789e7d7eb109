// The plainest client that keeps in step: one number on one widget. It shows what the protocol needs at the least.
const query = new URLSearchParams(location.search);
const user = query.get("userId") || (sessionStorage.user ||= `guest-${Math.random().toString(36).slice(2, 8)}`);
const dashboard = query.get("dashboardId") || "default";
const widgetId = "number";
const [state, input, who] = ["state", "value", "who"].map((id) => document.getElementById(id));

let socket, epoch, position = 0, retries = 0;

function connect() {
  const url = new URL("/api/realtime", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  url.search = new URLSearchParams({ userId: user, dashboardId: dashboard, since: position, ...(epoch && { epoch }) });
  socket = new WebSocket(url);
  socket.onmessage = (event) => hear(JSON.parse(event.data));
  socket.onclose = () => {
    show("cut off; coming back", false);
    setTimeout(connect, Math.random() * Math.min(30_000, 1_000 * 2 ** retries++));
  };
}

function show(text, live) {
  state.textContent = text;
  state.classList.toggle("live", live);
}

function say(type, payload) {
  if (socket.readyState !== WebSocket.OPEN) return;
  const id = `${user}-${Date.now().toString(36)}-${Math.random().toString(36).slice(2)}`;
  socket.send(JSON.stringify({ type, id, userId: user, timestamp: new Date().toISOString(), payload }));
}

function set(data, by) {
  if (data && "value" in data && document.activeElement !== input) input.value = data.value;
  if (by) who.textContent = `last changed by ${by}`;
}

function adopt(sync) {
  if (sync.mode === "delta") for (const change of sync.operations) apply(change);
  else {
    const doc = sync.widgets[widgetId];
    if (doc) set(doc.data, doc.updatedBy);
  }
  position = sync.seq;
  epoch = sync.epoch ?? epoch;
}

function apply({ type, userId, payload }) {
  if (type === "WIDGET_UPDATE" && payload.widgetId === widgetId) set(payload.data, userId);
}

function hear(message) {
  const { type, payload } = message;
  if (type === "CONNECT") {
    retries = 0;
    epoch = payload.epoch;
    show(`live as ${user} on ${dashboard}`, true);
    adopt(payload.sync);
  } else if (type === "SYNC_RESPONSE" || (type === "SYNC_UPDATE" && "fromSeq" in payload)) adopt(payload);
  else if (type === "PING") say("PONG", {});
  else if (type === "NACK") show(`refused: ${payload.error}`, true);
  else if ("seq" in payload) {
    if (payload.seq === position + 1) {
      apply(message);
      position = payload.seq;
    } else if (payload.seq > position) say("SYNC_REQUEST", { since: position, epoch });
  }
}

function change(value) {
  input.value = value;
  say("WIDGET_UPDATE", { widgetId, data: { value } });
}

input.addEventListener("input", () => input.value !== "" && change(Number(input.value)));
document.getElementById("less").addEventListener("click", () => change(Number(input.value) - 1));
document.getElementById("more").addEventListener("click", () => change(Number(input.value) + 1));
connect();
