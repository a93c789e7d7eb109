/** The socket: kept up for ever, watched for silence, given up only where the server says so; and POSTs while it is down. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { RealtimeClient } from "../../../tornado_rt/static/realtime.js";
import { hello, settled, tab } from "./surroundings.mjs";

const tokenOf = (sub) => `x.${Buffer.from(JSON.stringify({ sub })).toString("base64url")}.y`;

test("it dials with who and where it is", async () => {
  for (const url of ["http://server.test", "ws://server.test/", "http://server.test/api/realtime", "http://server.test/api/realtime/"]) {
    const page = tab(RealtimeClient, { url, dashboardId: "sales & more" });
    await page.up(7);
    const { href, searchParams } = page.line.socket.url;
    assert.ok(href.startsWith("ws://server.test/api/realtime?"), href);
    const { deviceId } = page.client;
    assert.deepEqual(Object.fromEntries(searchParams), { userId: "ada", dashboardId: "sales & more", deviceId, since: "0" });
    assert.deepEqual(page.line.socket.protocols, []);
  }
  const secure = tab(RealtimeClient, { url: "https://server.test/sub" });
  await secure.up();
  assert.ok(secure.line.socket.url.href.startsWith("wss://server.test/sub/api/realtime?"));
});

test("connect waits for the first picture", async () => {
  const page = tab(RealtimeClient);
  const states = [];
  page.client.on("state", (state) => states.push(state));
  const done = page.client.connect();
  await page.up(7, { w1: { value: 1 } });
  await done;
  assert.deepEqual(states, ["CONNECTING", "CONNECTED"]);
  const { permissions, epoch, position, lastSyncAt } = page.client;
  assert.deepEqual([permissions, epoch, position, lastSyncAt], [["read", "write"], "e", 7, 0]);
  await page.client.connect();
  assert.equal(page.line.sockets.length, 1);
});

test("it comes back for ever, ever more slowly, at random moments", async () => {
  const page = tab(RealtimeClient);
  page.client.connect();
  const delays = [];
  for (let attempt = 0; attempt < 12; attempt++) {
    await settled();
    page.line.socket.end(1006);
    delays.push(page.client.retryAt - page.clock.now);
    assert.equal(page.client.state, "RECONNECTING");
    for (const post of page.line.posts.splice(0)) post.lose();
    await page.clock.pass(delays.at(-1));
  }
  assert.deepEqual(delays, [500, 1000, 2000, 4000, 8000, ...Array(7).fill(15_000)]);
});

test("after as many attempts as the guide says it gives up, visibly", async () => {
  const page = tab(RealtimeClient, { reconnectAttempts: 2 });
  const errors = [];
  page.client.on("error", (error) => errors.push(error.code));
  const done = page.client.connect();
  for (let attempt = 0; attempt < 3; attempt++) {
    await settled();
    page.line.socket.end(1006);
    await page.clock.pass(2000);
  }
  await assert.rejects(done, { code: "CLOSED" });
  assert.deepEqual([page.client.state, errors], ["ERROR", ["CLOSED"]]);
  await page.up();
  assert.equal(page.client.state, "CONNECTED", "a person may try again");
});

test("a connection that lasted starts the delays anew", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  for (let attempt = 0; attempt < 4; attempt++) {
    page.line.socket.end(1006);
    await page.clock.pass(page.client.retryAt - page.clock.now);
  }
  await page.up();
  await page.clock.pass(20_000);
  page.line.socket.end(1006);
  assert.equal(page.client.retryAt - page.clock.now, 500);
});

test("an end that the server wants is one", async () => {
  const page = tab(RealtimeClient);
  const done = page.client.connect();
  await settled();
  page.line.socket.open();
  page.line.socket.say({ type: "DISCONNECT", id: "d", userId: "", payload: { code: 1008, reason: "Unauthorized", reconnect: false } });
  page.line.socket.end(1008, "Unauthorized");
  await assert.rejects(done, /Unauthorized/);
  assert.deepEqual([page.client.state, page.client.error, page.client.retryAt], ["ERROR", "Unauthorized", null]);
  await page.clock.pass(120_000);
  assert.deepEqual([page.line.sockets.length, page.line.posts.length], [1, 0]);
});

test("silence for two heartbeats is a dead socket, and what it says later is not heard", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  await page.clock.pass(49_000);
  page.line.socket.say({ type: "PING", id: "p", userId: "ada", payload: { seq: 0, serverTime: "" } });
  await page.clock.pass(49_999);
  assert.equal(page.client.state, "CONNECTED");
  const { onmessage } = page.line.socket;
  await page.clock.pass(1);
  assert.deepEqual([page.client.state, page.client.error], ["RECONNECTING", "the server is silent"]);
  assert.equal(page.line.socket.closedWith, 1000);
  onmessage({ data: JSON.stringify(hello(9)) });
  assert.deepEqual([page.client.state, page.client.position], ["RECONNECTING", 0]);
});

test("a handshake that goes nowhere is given up after ten seconds", async () => {
  const page = tab(RealtimeClient);
  page.client.connect();
  await settled();
  await page.clock.pass(10_000);
  assert.equal(page.client.state, "RECONNECTING");
});

test("when the network has changed the socket is asked for a sign of life", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  page.network.dispatchEvent(new Event("offline"));
  const ping = page.line.sent.pop();
  assert.equal(ping.type, "PING");
  await page.clock.pass(4000);
  page.line.socket.say({ type: "PONG", id: "q", userId: "ada", correlationId: ping.id, payload: { serverTime: "" } });
  await page.clock.pass(40_000);
  assert.equal(page.client.state, "CONNECTED");
  page.network.dispatchEvent(new Event("online"));
  await page.clock.pass(5000);
  assert.equal(page.client.state, "RECONNECTING");
});

test("when the network is back it does not wait for its turn", async () => {
  const page = tab(RealtimeClient);
  page.client.connect();
  for (let attempt = 0; attempt < 8; attempt++) {
    await settled();
    page.line.socket.end(1006);
    if (attempt < 7) await page.clock.pass(page.client.retryAt - page.clock.now);
  }
  page.network.dispatchEvent(new Event("offline"));
  assert.equal(page.client.syncState, "OFFLINE");
  page.network.dispatchEvent(new Event("online"));
  assert.equal(page.client.retryAt - page.clock.now, 500);
});

test("disconnect cuts until connect; close ends", async () => {
  const page = tab(RealtimeClient);
  await page.up(7, { w1: { value: 1 } });
  page.client.disconnect();
  assert.deepEqual([page.client.state, page.line.socket.closedWith], ["DISCONNECTED", 1000]);
  page.client.update("w1", { value: 2 });
  await page.clock.pass(120_000);
  assert.deepEqual([page.line.sockets.length, page.line.posts.length], [1, 0]);
  await page.up(7, { w1: { value: 1 } });
  assert.equal(page.line.sent.at(-1).type, "SYNC_UPDATE");
  page.client.close();
  assert.throws(() => page.client.update("w1", { value: 3 }), { code: "CLOSED" });
  await assert.rejects(page.client.connect(), { code: "CLOSED" });
  await settled();
  assert.deepEqual([page.locks.held.size, page.clock.size], [0, 0], "nothing is left behind");
});

test("a token travels as the subprotocol and the bearer, and is asked for anew when it has expired", async () => {
  let made = 0;
  const page = tab(RealtimeClient, { token: async () => tokenOf(`user-${++made > 0}`) });
  await page.up();
  assert.equal(page.client.userId, "ada", "the server says who we are");
  assert.deepEqual(page.line.socket.protocols, ["bearer", tokenOf("user-true")]);
  assert.equal(page.line.socket.url.searchParams.has("userId"), false);
  page.line.socket.end(1006);
  await page.clock.pass(500);
  assert.equal(made, 1);
  page.line.socket.end(1008, "Token expired");
  await settled();
  await page.clock.pass(1000);
  assert.equal(made, 2);
  page.line.posts.splice(0).forEach((post) => post.lose());
  page.client.sync();
  await settled();
  const { headers, url } = page.line.posts[0];
  assert.equal(headers.Authorization, `Bearer ${tokenOf("user-true")}`);
  assert.equal(url.searchParams.has("userId"), false);
  page.line.posts[0].answer(401, { code: "UNAUTHORIZED", error: "no" });
  await settled();
  page.line.socket.end(1006);
  await page.clock.pass(30_000);
  assert.ok(made > 2, "refused by POST");
});

test("a token that cannot be had is tried for again", async () => {
  let tries = 0;
  const token = () => (++tries < 3 ? Promise.reject(new Error("the issuer is away")) : tokenOf("ada"));
  const page = tab(RealtimeClient, { token });
  page.client.connect();
  await settled();
  assert.deepEqual([page.client.state, page.client.error], ["RECONNECTING", "the issuer is away"]);
  await page.clock.pass(3000);
  assert.deepEqual([tries, page.line.sockets.length], [3, 1]);
});

test("who says neither userId nor token is told so", () => {
  assert.throws(() => new RealtimeClient({ url: "http://server.test" }), { code: "UNAUTHORIZED" });
});

test("while no socket can be had it works by POST, in its interval", async () => {
  const page = tab(RealtimeClient);
  const statuses = [];
  page.client.on("status", (status) => statuses.push(status));
  const done = page.client.connect();
  await settled();
  page.client.update("w1", { value: 1 });
  page.line.socket.end(1006);
  await page.clock.pass(0);
  const [{ url, body, answer }] = page.line.posts.splice(0);
  assert.equal(url.href, "http://server.test/api/realtime?userId=ada");
  const { type, operations, dashboardId, deviceId, since } = body;
  assert.deepEqual([type, operations.length, dashboardId, deviceId, since], ["SYNC", 1, "default", page.client.deviceId, 0]);
  const { sync } = hello(1, { w1: { value: 1 } }).payload;
  answer(200, { success: true, results: [{ operationId: operations[0].operationId, status: "success", seq: 1, version: 1 }], sync });
  await settled();
  await done;
  assert.deepEqual([page.client.position, page.client.pending.length, page.client.syncState], [1, 0, "IDLE"]);
  const until = page.clock.now + 30_000;
  while (page.clock.now < until) {
    assert.equal(page.line.posts.length, 0);
    if (page.line.socket.readyState === 0) page.line.socket.end(1006);
    await page.clock.pass(Math.min(until, page.client.retryAt) - page.clock.now || 1);
  }
  assert.deepEqual([page.line.posts.length, page.line.posts[0].body.since], [1, 1]);
  assert.deepEqual(statuses, ["SYNCING", "IDLE", "SYNCING"]);
});

test("a POST that nobody answers is repeated three times, five seconds apart, then waits for the next round", async () => {
  const page = tab(RealtimeClient, { reconnectDelay: 1e9 });
  page.client.connect();
  await settled();
  page.line.socket.end(1006);
  const times = [];
  for (let round = 0; round < 6; round++) {
    while (!page.line.posts.length) await page.clock.pass(1000);
    times.push(page.clock.now);
    const post = page.line.posts.pop();
    if (round % 2) post.answer(503, {});
    else post.lose();
    await settled();
    assert.equal(page.client.syncState, round % 2 ? "ERROR" : "OFFLINE");
    if (page.line.socket.readyState === 0) page.line.socket.end(1006);
  }
  const gaps = times.slice(1).map((time, index) => time - times[index]);
  assert.deepEqual(gaps, [5000, 5000, 5000, 30_000, 5000]);
});

test("an application's own messages wait for the connection, as many as there is room for", async () => {
  const page = tab(RealtimeClient, { maxMessageQueueSize: 2 });
  const told = [];
  page.client.on("message", (frame) => told.push(frame.payload));
  page.client.send("PING");
  page.client.send("PING");
  assert.throws(() => page.client.send("PING"), { code: "QUEUE_FULL" });
  await page.up();
  assert.equal(page.line.sent.length, 2);
  page.line.socket.say({ type: "SYNC_UPDATE", id: "x", userId: "", payload: { news: 1 } });
  assert.deepEqual(told, [{ news: 1 }]);
});

test("a request has the answer, the refusal, or an end", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  const answered = page.client.request("PING");
  const refused = page.client.request("SYNC_REQUEST", {});
  const late = page.client.request("SYNC_REQUEST", {});
  const [ping, sync] = page.line.sent.splice(0);
  await page.clock.pass(20);
  page.line.socket.say({ type: "PONG", id: "q", userId: "ada", correlationId: ping.id, payload: { serverTime: "" } });
  page.line.socket.say({ type: "NACK", id: "n", userId: "ada", correlationId: sync.id, payload: { code: "RATE_LIMITED", error: "slow", retryable: true } });
  assert.equal((await answered).type, "PONG");
  await assert.rejects(refused, { code: "RATE_LIMITED", message: "slow" });
  const failing = assert.rejects(late, { code: "TIMEOUT" });
  await page.clock.pass(30_000);
  await failing;
  const cut = assert.rejects(page.client.request("PING"), { code: "CLOSED" });
  page.line.socket.end(1006);
  await cut;
});

test("a listener that fails is reported and harms nobody", async (context) => {
  const reported = [];
  globalThis.reportError = (fault) => reported.push(fault.message);
  context.after(() => delete globalThis.reportError);
  const page = tab(RealtimeClient);
  const seen = [];
  page.client.on("state", () => {
    throw new Error("mine");
  });
  const off = page.client.on("state", (state) => seen.push(state));
  await page.up();
  assert.deepEqual([seen, reported], [["CONNECTING", "CONNECTED"], ["mine", "mine"]]);
  off();
  page.client.disconnect();
  assert.equal(seen.length, 2);
});
