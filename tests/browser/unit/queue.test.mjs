/** What was not acknowledged outlives the page; each tab has a queue and a device of its own, and one that is gone is inherited. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { RealtimeClient } from "../../../tornado_rt/static/realtime.js";
import { Locks, settled, Storage, tab } from "./surroundings.mjs";

const shared = () => ({ storage: new Storage(), locks: new Locks() });

/** The page goes away without a word: its locks are let go by the browser. */
const vanish = ({ locks }) => locks.held.clear();

test("a reloaded page has its queue and its device again, in order", async () => {
  const own = shared();
  const before = tab(RealtimeClient, {}, own);
  before.client.connect();
  await settled();
  before.client.update("w1", { value: 1 });
  before.client.delete("w2");
  before.client.updateLayout({ w1: { x: 3 } });
  const { deviceId } = before.client;
  const ids = before.client.pending.map((each) => each.id);
  vanish(own);

  const after = tab(RealtimeClient, {}, own);
  const told = [];
  after.client.on("view", (view) => told.push(view));
  after.client.connect();
  await settled();
  assert.equal(after.client.deviceId, deviceId);
  assert.deepEqual(told, [{ widgets: ["w1", "w2"], layouts: ["default"] }]);
  assert.deepEqual(after.client.pending.map((each) => each.id), ids);
  assert.deepEqual(after.client.widgets.get("w1"), { value: 1 }, "shown before there is a connection");
  await after.up();
  const [{ type, payload }] = after.line.sent;
  assert.equal(type, "SYNC_UPDATE");
  assert.deepEqual(payload.operations.map((each) => each.operationId), ids);
});

test("an acknowledged operation is kept no longer", async () => {
  const page = tab(RealtimeClient);
  await page.up();
  const operation = page.client.update("w1", { value: 1 });
  await settled();
  assert.equal(page.storage.length, 1);
  page.line.socket.say({ type: "ACK", id: "a", userId: "ada", timestamp: "", correlationId: operation.id, payload: { seq: 1, version: 1 } });
  assert.equal(page.storage.length, 0);
  assert.equal((await operation.done).seq, 1);
});

test("what is made before the device is known stands behind what was left over", async () => {
  const own = shared();
  const before = tab(RealtimeClient, {}, own);
  before.client.connect();
  await settled();
  before.client.update("w1", { value: 1 });
  vanish(own);
  const after = tab(RealtimeClient, {}, own);
  after.client.update("w1", { value: 2 });
  after.client.connect();
  await settled();
  assert.deepEqual(after.client.pending.map((each) => each.payload.data.value), [1, 2]);
  assert.deepEqual(after.client.widgets.get("w1"), { value: 2 });
  vanish(own);
  const third = tab(RealtimeClient, {}, own);
  third.client.connect();
  await settled();
  assert.deepEqual(third.client.pending.map((each) => each.payload.data.value), [1, 2]);
});

test("two tabs at once are two devices with two queues", async () => {
  const both = shared();
  const [one, two] = [tab(RealtimeClient, {}, both), tab(RealtimeClient, {}, both)];
  for (const { client } of [one, two]) client.connect();
  await settled();
  one.client.update("w1", { value: 1 });
  assert.notEqual(one.client.deviceId, two.client.deviceId);
  assert.equal(two.client.pending.length, 0);
});

test("a device that is wanted is had, unless another tab is that one", async () => {
  const both = shared();
  const [one, copy] = [tab(RealtimeClient, { deviceId: "mine" }, both), tab(RealtimeClient, { deviceId: "mine" }, both)];
  for (const { client } of [one, copy]) client.connect();
  await settled();
  assert.equal(one.client.deviceId, "mine");
  assert.ok(copy.client.deviceId && copy.client.deviceId !== "mine");
});

test("a page that is reloaded faster than the browser lets go of it has its queue a second later", async () => {
  const own = shared();
  const before = tab(RealtimeClient, {}, own);
  before.client.connect();
  await settled();
  before.client.update("w1", { value: 1 });
  const after = tab(RealtimeClient, {}, own);
  after.client.connect();
  await settled();
  assert.equal(after.client.pending.length, 0);
  vanish(own);
  await after.clock.pass(1000);
  assert.equal(after.client.pending.length, 1);
  assert.equal(after.client.deviceId, before.client.deviceId);
});

test("a new tab takes over the queue of a closed one, with its id", async () => {
  const both = shared();
  const one = tab(RealtimeClient, {}, both);
  one.client.connect();
  await settled();
  one.client.update("w1", { value: 1 });
  one.client.close();
  await settled();
  const two = tab(RealtimeClient, {}, both);
  two.client.connect();
  await settled();
  assert.equal(two.client.deviceId, one.client.deviceId);
  assert.equal(two.client.pending.length, 1);
});

test("a tab that is open takes over when it has nothing of its own to send", async () => {
  const both = shared();
  const [one, two] = [tab(RealtimeClient, {}, both), tab(RealtimeClient, {}, both)];
  one.client.connect();
  await settled();
  one.client.update("w1", { value: 1 });
  await two.up();
  await two.clock.pass(5_000);
  one.client.close();
  await settled();
  await two.clock.pass(26_000);
  assert.equal(two.client.deviceId, one.client.deviceId);
  assert.equal(two.line.sockets.length, 2, "it came back as that device");
  assert.equal(two.line.socket.url.searchParams.get("deviceId"), one.client.deviceId);
  await two.up();
  assert.equal(two.line.sent.at(-1).payload.operations[0].payload.data.value, 1);
});

test("queues of other users, dashboards and servers are left alone", async () => {
  const both = shared();
  const one = tab(RealtimeClient, {}, both);
  one.client.connect();
  await settled();
  one.client.update("w1", { value: 1 });
  one.client.close();
  await settled();
  for (const other of [{ userId: "bob" }, { dashboardId: "other" }, { url: "http://other.test" }]) {
    const two = tab(RealtimeClient, other, both);
    two.client.connect();
    await settled();
    assert.equal(two.client.pending.length, 0, JSON.stringify(other));
  }
});

test("where the browser has no more room the new operation is refused and the old ones stay", async () => {
  const storage = new Storage();
  storage.room = 600;
  const page = tab(RealtimeClient, {}, { storage });
  page.client.connect();
  await settled();
  page.client.update("w1", { value: 1 });
  assert.throws(() => page.client.update("w2", { text: "x".repeat(600) }), { code: "QUEUE_FULL" });
  assert.deepEqual([...page.client.widgets.keys()], ["w1"]);
  assert.equal(page.client.pending.length, 1);
});

test("without storage, or without locks, everything works but for the keeping", async () => {
  for (const lacking of [{ storage: null }, { locks: null }]) {
    const bare = tab(RealtimeClient, {}, { ...shared(), ...lacking });
    await bare.up();
    bare.client.update("w1", { value: 1 });
    await settled();
    assert.equal(bare.line.sent[0].type, "WIDGET_UPDATE");
    assert.equal(bare.storage?.length ?? 0, 0, "no tab can spoil what another one keeps");
  }
});

test("a browser that forbids its storage is one without", async () => {
  const page = tab(RealtimeClient);
  const forbidden = Object.defineProperty({ ...page.environment }, "localStorage", {
    get: () => {
      throw new Error("SecurityError");
    },
  });
  const client = new RealtimeClient({ url: "http://server.test", userId: "ada", environment: forbidden });
  client.connect();
  await settled();
  client.update("w1", { value: 1 });
  assert.equal(client.pending.length, 1);
});
