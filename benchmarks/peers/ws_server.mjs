/**
 * The peer of the benchmark: node and ws, written as the guide to the original system describes its server. JSON.parse, state in
 * memory, an ACK to the sender, JSON.stringify once and `send` to each other client of the same dashboard, a heartbeat every 25 s.
 * It keeps no log, checks no version and makes nothing durable: it is the relay that tornado_rt has to be as cheap as.
 *
 *   node ws_server.mjs PORT
 */
import { createServer } from 'node:http';
import { WebSocket, WebSocketServer } from 'ws';

const HEARTBEAT_INTERVAL_MS = 25_000;
const BACKLOG = 2_048; // the same as the server it is compared with

/** dashboardId -> { widgets: Map(widgetId -> data), layouts: Map(layoutId -> layout), sessions: Set(session) } */
const dashboards = new Map();
const sessions = new Map();
const startedAt = Date.now();
let messageCounter = 0;

function message(type, userId, payload, correlationId) {
  const made = { type, id: `msg-${++messageCounter}`, timestamp: new Date().toISOString(), userId };
  if (correlationId !== undefined) made.correlationId = correlationId;
  made.payload = payload;
  return made;
}

function send(session, made) {
  if (session.ws.readyState === WebSocket.OPEN) session.ws.send(JSON.stringify(made));
}

function broadcast(dashboard, sender, made) {
  const text = JSON.stringify(made);
  for (const session of dashboard.sessions) {
    if (session !== sender && session.ws.readyState === WebSocket.OPEN) session.ws.send(text);
  }
}

function merge(documents, id, data) {
  const known = documents.get(id);
  if (known === undefined) documents.set(id, { ...data });
  else Object.assign(known, data);
}

/** Applies one operation to the dashboard in memory; false if its type is not an operation. */
function apply(dashboard, type, payload) {
  switch (type) {
    case 'WIDGET_UPDATE':
      merge(dashboard.widgets, payload.widgetId, payload.data);
      return true;
    case 'WIDGET_DELETE':
      dashboard.widgets.delete(payload.widgetId);
      return true;
    case 'WIDGET_BATCH':
      for (const operation of payload.operations) apply(dashboard, operation.type, operation.payload);
      return true;
    case 'LAYOUT_UPDATE':
      merge(dashboard.layouts, payload.layoutId ?? 'default', payload.layout);
      return true;
    default:
      return false;
  }
}

function validate(incoming, session) {
  if (typeof incoming !== 'object' || incoming === null) return 'A message is an object';
  if (typeof incoming.type !== 'string') return 'Missing type';
  if (incoming.userId !== session.userId) return 'Wrong userId';
  if (incoming.payload !== undefined && (typeof incoming.payload !== 'object' || incoming.payload === null)) return 'Wrong payload';
  return null;
}

function onMessage(session, raw) {
  session.messageCount += 1;
  session.isAlive = true;
  let incoming;
  try {
    incoming = JSON.parse(raw);
  } catch {
    send(session, message('NACK', session.userId, { error: 'Not JSON', code: 'INVALID_JSON' }));
    return;
  }
  const fault = validate(incoming, session);
  if (fault !== null) {
    send(session, message('NACK', session.userId, { error: fault, code: 'INVALID_MESSAGE' }, incoming?.id));
    return;
  }
  const { type, id, userId, payload = {} } = incoming;
  const { dashboard } = session;
  if (type === 'PONG') return;
  if (type === 'PING') {
    send(session, message('PONG', userId, { serverTime: new Date().toISOString() }, id));
  } else if (type === 'SYNC_REQUEST') {
    const widgets = Object.fromEntries(dashboard.widgets);
    const layouts = Object.fromEntries(dashboard.layouts);
    send(session, message('SYNC_RESPONSE', userId, { widgets, layouts, clientCount: dashboard.sessions.size }, id));
  } else if (apply(dashboard, type, payload)) {
    send(session, message('ACK', userId, { received: true }, id));
    broadcast(dashboard, session, message(type, userId, payload));
  } else {
    send(session, message('NACK', userId, { error: `Unknown type ${type}`, code: 'UNKNOWN_TYPE' }, id));
  }
}

function join(ws, userId, dashboardId) {
  let dashboard = dashboards.get(dashboardId);
  if (dashboard === undefined) {
    dashboard = { widgets: new Map(), layouts: new Map(), sessions: new Set() };
    dashboards.set(dashboardId, dashboard);
  }
  const clientId = `client-${++messageCounter}`;
  const session = { clientId, ws, userId, dashboardId, dashboard, connectedAt: new Date(), messageCount: 0, isAlive: true };
  dashboard.sessions.add(session);
  sessions.set(clientId, session);
  return session;
}

function leave(session) {
  sessions.delete(session.clientId);
  session.dashboard.sessions.delete(session);
}

const httpServer = createServer((request, response) => {
  const { pathname } = new URL(request.url, 'http://localhost');
  const known = { '/healthz': () => ({ status: 'ok' }), '/api/realtime/stats': stats }[pathname];
  response.writeHead(known ? 200 : 404, { 'Content-Type': 'application/json' });
  response.end(JSON.stringify(known ? known() : { error: 'Not found', code: 'NOT_FOUND' }));
});

function stats() {
  const clients = Array.from(sessions.values(), (session) => ({
    id: session.clientId,
    userId: session.userId,
    dashboardId: session.dashboardId,
    connectedAt: session.connectedAt.toISOString(),
    messageCount: session.messageCount,
    isAlive: session.isAlive,
    outboxBytes: session.ws.bufferedAmount,
  }));
  return { clientCount: clients.length, clients, uptime: (Date.now() - startedAt) / 1000, timestamp: new Date().toISOString() };
}

const webSocketServer = new WebSocketServer({ server: httpServer, path: '/api/realtime', maxPayload: 262_144 });

webSocketServer.on('connection', (ws, request) => {
  const query = new URL(request.url, 'http://localhost').searchParams;
  const userId = query.get('userId');
  if (!userId) {
    ws.close(1008, 'Unauthorized');
    return;
  }
  const dashboardId = query.get('dashboardId') ?? 'default';
  const session = join(ws, userId, dashboardId);
  ws.on('message', (raw) => onMessage(session, raw));
  ws.on('pong', () => {
    session.isAlive = true;
  });
  ws.on('close', () => leave(session));
  ws.on('error', () => {}); // 'close' follows
  send(session, message('CONNECT', userId, { clientId: session.clientId, dashboardId, heartbeatInterval: HEARTBEAT_INTERVAL_MS }));
});

setInterval(() => {
  for (const session of sessions.values()) {
    if (!session.isAlive) {
      session.ws.terminate();
      continue;
    }
    session.isAlive = false;
    send(session, message('PING', session.userId, { serverTime: new Date().toISOString() }));
    session.ws.ping();
  }
}, HEARTBEAT_INTERVAL_MS);

const port = Number(process.argv[2] ?? 3000);
httpServer.listen({ port, host: '127.0.0.1', backlog: BACKLOG });
process.on('SIGTERM', () => process.exit(0));
