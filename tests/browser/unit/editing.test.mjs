/** How edits leave: at once when alone, together when many, the last of a burst on one field; and what no edit may do. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { RealtimeClient } from "../../../tornado_rt/static/realtime.js";
import { hello, settled, tab } from "./surroundings.mjs";

/** Acknowledge what was sent, in its order. */
async function acknowledge(page, seq) {
  for (const { type, id, payload } of page.line.sent.splice(0)) {
    const found = (payload.operations ?? []).map(({ operationId }) => ({ operationId, status: "success", seq: ++seq, version: seq }));
    const one = type === "WIDGET_BATCH" ? {} : { seq: ++seq, version: seq };
    const answer = { received: true, ...one, ...(found.length && { results: found, seq }) };
    page.line.socket.say({ type: "ACK", id: `a${seq}`, userId: "ada", timestamp: "", correlationId: id, payload: answer });
  }
  await settled();
  return seq;
}

test("a lone edit leaves at the end of the turn", async () => {
  const page = tab(RealtimeClient);
  await page.up(7, { w1: { value: 1, title: "x" } });
  const operation = page.client.update("w1", { value: 2 });
  assert.deepEqual(page.client.widgets.get("w1"), { value: 2, title: "x" }, "shown at once");
  assert.deepEqual([operation.state, page.line.sent.length], ["PENDING", 0]);
  await settled();
  assert.equal(operation.state, "SENT");
  const [{ type, id, userId, timestamp, payload }] = page.line.sent;
  assert.deepEqual([type, id, userId], ["WIDGET_UPDATE", operation.id, "ada"]);
  assert.match(timestamp, /^\d{4}-\d\d-\d\dT.*Z$/);
  assert.deepEqual(payload, { widgetId: "w1", data: { value: 2 }, baseVersion: 7, epoch: "e" });
});

test("many edits leave in batches of fifty or after 200 ms, each on its own", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  page.client.update("first", { value: 0 });
  await settled();
  for (let index = 0; index < 60; index++) {
    page.client.update(`w${index}`, { value: index });
    await settled();
  }
  assert.deepEqual(page.line.sent.map((each) => each.payload.operations?.length), [undefined, 50]);
  assert.equal(page.line.sent[1].payload.atomic, false);
  await page.clock.pass(200);
  assert.deepEqual(page.line.sent.map((each) => each.payload.operations?.length), [undefined, 50, 10]);
  assert.equal(await acknowledge(page, 0), 61);
  assert.deepEqual([page.client.position, page.client.pending.length], [61, 0]);
});

test("somebody who drags is seen to move, and the last value counts", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  const made = new Set();
  for (let value = 0; value < 60; value++) {
    made.add(page.client.update("w1", { value }));
    await page.clock.pass(16);
  }
  await page.clock.pass(300);
  const values = page.line.sent.map((each) => each.payload.data.value);
  assert.equal(values.at(0), 0);
  assert.equal(values.at(-1), 59);
  assert.ok(values.length >= 4 && values.length <= 8, `${values.length} messages in a second`);
  assert.equal(made.size, values.length);
});

test("a hold that is asked for waits until nothing follows any more", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  for (let value = 0; value < 10; value++) {
    page.client.update("w1", { value }, { debounce: 100 });
    await page.clock.pass(90);
  }
  assert.equal(page.line.sent.length, 0);
  await page.clock.pass(10);
  assert.deepEqual(page.line.sent.map((each) => each.payload.data.value), [9]);
});

test("another field of the same widget is not held back", async () => {
  const page = tab(RealtimeClient, { batchInterval: 0 });
  await page.up();
  page.client.update("w1", { value: 1 });
  await settled();
  page.client.update("w1", { title: "x" });
  await settled();
  assert.equal(page.line.sent.length, 2);
});

test("fields and ids may bear the names of an object's own parts", async () => {
  const page = tab(RealtimeClient);
  const odd = JSON.parse('{"__proto__": {"polluted": 1}, "constructor": 2, "toString": 3}');
  await page.up();
  for (const id of ["__proto__", "constructor", "w1"]) page.client.update(id, odd);
  await settled();
  await acknowledge(page, 0);
  page.line.socket.say({
    type: "WIDGET_UPDATE", id: "b", userId: "bob", timestamp: "",
    payload: { widgetId: "__proto__", data: JSON.parse('{"__proto__": 5}'), unset: ["toString"], version: 4, seq: 4 },
  });
  assert.deepEqual([...page.client.widgets.keys()], ["__proto__", "constructor", "w1"]);
  assert.deepEqual(Object.entries(page.client.widgets.get("__proto__")), [["__proto__", 5], ["constructor", 2]]);
  assert.deepEqual(Object.entries(page.client.widgets.get("w1")), Object.entries(odd));
  assert.equal({}.polluted, undefined);
  assert.deepEqual(page.client.info("widget", "__proto__").updatedBy, "bob");
});

test("what JSON would make something else of is refused", () => {
  const { client } = tab(RealtimeClient);
  for (const value of [NaN, Infinity]) assert.throws(() => client.update("w1", { deep: [{ value }] }), { code: "INVALID_MESSAGE" });
  for (const data of [null, 1, "x", [1]]) assert.throws(() => client.update("w1", data), { code: "INVALID_MESSAGE" });
  assert.throws(() => client.update("w1", { text: "ü".repeat(200_000) }), { code: "TOO_LARGE" });
  assert.throws(() => client.batch([]), { code: "TOO_LARGE" });
  assert.equal(client.pending.length, 0);
});

test("what was handed in may be changed afterwards", async () => {
  const page = tab(RealtimeClient);
  const data = { list: [1] };
  page.client.update("w1", data);
  data.list.push(2);
  assert.deepEqual(page.client.widgets.get("w1"), { list: [1] });
});

test("a base that the caller names is kept", async () => {
  const page = tab(RealtimeClient);
  await page.up(7, { w1: { value: 1 } });
  page.client.update("w1", { value: 2 }, { baseVersion: 5 });
  await settled();
  assert.equal(page.line.sent[0].payload.baseVersion, 5);
});

test("without conflict detection nothing has a base", async () => {
  const page = tab(RealtimeClient, { enableConflictDetection: false });
  await page.up(7, { w1: { value: 1 } });
  page.client.update("w1", { value: 2 }, { baseVersion: 5 });
  await settled();
  assert.equal("baseVersion" in page.line.sent[0].payload, false);
});

test("what is shown is told once a turn, with the ids", async () => {
  const page = tab(RealtimeClient);
  const seen = [];
  page.client.on("view", (each) => seen.push(each));
  await page.up(7, { w1: { value: 1 }, w2: { value: 1 } });
  seen.length = 0;
  page.client.update("w1", { value: 2 });
  page.client.update("w2", { value: 2 });
  page.client.updateLayout({ w1: { x: 1 } });
  await settled();
  assert.deepEqual(seen, [{ widgets: ["w1", "w2"], layouts: ["default"] }]);
});

test("an untouched document keeps its object", async () => {
  const page = tab(RealtimeClient);
  await page.up(7, { w1: { value: 1 }, w2: { value: 1 } });
  const [w1, w2] = ["w1", "w2"].map((id) => page.client.widgets.get(id));
  page.client.update("w1", { value: 2 });
  assert.notEqual(page.client.widgets.get("w1"), w1);
  assert.deepEqual(w1, { value: 1 }, "and the old one its content");
  assert.equal(page.client.widgets.get("w2"), w2);
});

test("an operation tells of its whole life", async () => {
  const page = tab(RealtimeClient);
  const states = [];
  page.client.on("operation", ({ state, attempts, error }) => states.push([state, attempts, error?.code]));
  await page.up();
  const operation = page.client.update("w1", { value: 1 });
  await settled();
  const nack = (payload) =>
    page.line.socket.say({ type: "NACK", id: "n", userId: "ada", correlationId: page.line.sent.at(-1).id, payload });
  nack({ code: "UNAVAILABLE", error: "busy", retryable: true, retryAfterMs: 50 });
  await page.clock.pass(50);
  nack({ code: "LIMIT_EXCEEDED", error: "too many widgets", retryable: false });
  await assert.rejects(operation.done, { code: "LIMIT_EXCEEDED", message: "too many widgets" });
  assert.deepEqual(states, [
    ["SENT", 1, undefined], // that it was made is told with the end of the turn, when it has left already
    ["SENT", 1, undefined],
    ["PENDING", 1, "UNAVAILABLE"],
    ["SENT", 2, "UNAVAILABLE"],
    ["FAILED", 2, "LIMIT_EXCEEDED"],
  ]);
  assert.deepEqual(page.client.failed, [operation]);
  assert.equal(page.client.widgets.has("w1"), false);
  page.client.retry(operation);
  assert.deepEqual(page.client.failed, []);
  assert.deepEqual(page.client.widgets.get("w1"), { value: 1 });
});

test("to roll a conflict back is to keep theirs", async () => {
  const page = tab(RealtimeClient);
  await page.up(7, { w1: { value: 1 } });
  const told = [];
  page.client.on("conflict", (each) => told.push(each));
  page.client.on("resolved", (each) => told.push(each));
  const operation = page.client.update("w1", { value: 2 });
  await settled();
  const { id } = page.line.sent[0];
  const conflict = { conflictId: "k", kind: "widget", widgetId: "w1", fields: ["value"], baseVersion: 7, currentVersion: 8 };
  const sides = { local: { value: 2 }, remote: { value: 3 }, remoteUserId: "bob", remoteTimestamp: "" };
  page.line.socket.say({ type: "CONFLICT_DETECTED", id: "c", userId: "ada", correlationId: id, payload: { ...conflict, ...sides } });
  await assert.rejects(operation.done, { code: "CONFLICT" });
  assert.equal(page.client.conflicts[0], operation.conflict);
  assert.deepEqual([operation.conflict.documentId, operation.conflict.shown], ["w1", { value: 2 }]);
  assert.throws(() => page.client.resolve("k", "merged"), { code: "INVALID_MESSAGE" });
  assert.throws(() => page.client.resolve("k", "mine"), { code: "INVALID_MESSAGE" });
  assert.throws(() => page.client.resolve("other", "local"), { code: "CONFLICT_UNKNOWN" });
  page.client.rollback(operation);
  await settled();
  assert.deepEqual(page.client.conflicts, []);
  assert.deepEqual(page.line.sent.at(-1).payload, { conflictId: "k", resolution: "remote" });
  assert.deepEqual([told[0], told[1].choice], [operation.conflict, "remote"]);
  assert.equal(page.storage.length, 0);
});

test("the versions that an undo can bring back are known", async () => {
  const page = tab(RealtimeClient);
  const greeting = hello(3);
  greeting.payload.sync.layouts = { default: { layout: { w1: { x: 1 } }, version: 3, updatedAt: "", updatedBy: "bob", history: [1, 3] } };
  page.client.connect();
  await settled();
  page.line.socket.open();
  page.line.socket.say(greeting);
  page.client.updateLayout({ w1: { x: 2 } });
  await settled();
  await acknowledge(page, 3);
  assert.deepEqual(page.client.info("layout", "default").history, [1, 3, 4]);
  assert.equal(page.client.info("layout", "other"), null);
});

test("every update can be held back, and a delete is not", async () => {
  const page = tab(RealtimeClient, { debounce: 100 });
  await page.up(7, { w1: { value: 1 }, w2: { value: 1 } });
  page.client.update("w1", { value: 2 });
  page.client.delete("w2");
  await settled();
  assert.deepEqual(page.line.sent.map((each) => each.type), ["WIDGET_DELETE"]);
  await page.clock.pass(200);
  assert.deepEqual(page.line.sent.map((each) => each.type), ["WIDGET_DELETE", "WIDGET_UPDATE"]);
});

test("edits that have not left yet become one, so a slider that is dragged offline is one operation", () => {
  const { client } = tab(RealtimeClient);
  const made = new Set();
  for (let value = 0; value < 1000; value++) made.add(client.update("w1", { value }));
  assert.deepEqual([made.size, client.pending[0].payload.data.value], [1, 999]);
  client.update("w1", { value: 1, title: "x" });
  assert.equal(client.pending.length, 2, "other fields are another edit");
});
