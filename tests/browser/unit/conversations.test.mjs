/** Every conversation of tests/wire/conversations holds for the browser's client too; see the README there. */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";

import { RealtimeClient } from "../../../tornado_rt/static/realtime.js";
import { browser, settled } from "./surroundings.mjs";

const FOLDER = new URL("../../wire/conversations/", import.meta.url);
const FILES = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
const MISSING = Symbol("missing");
/** What the browser does of its own accord and a conversation does not speak of: batches in time, holds, rounds of POSTs. */
const STILL = { batchInterval: 0, debounce: 0, syncInterval: Infinity, retryDelay: Infinity };

class Talk {
  names = new Map();
  operations = new Map();
  told = 0;
  tokens = 0;
  post = null;

  constructor({ userId, dashboardId, deviceId = "device-1", options }) {
    this.browser = browser();
    const token = () => `token-${++this.tokens}`;
    const who = { url: "http://server.test", userId, token, dashboardId, deviceId };
    this.client = new RealtimeClient({ ...who, ...STILL, ...options, environment: this.browser.environment });
    this.client.on("message", () => (this.told += 1));
  }

  async step([kind, content]) {
    await this[kind](content);
    await settled();
  }

  // Steps

  async do({ refused, ...actions }) {
    const [[action, said]] = Object.entries(actions);
    const act = async () => this.actions[action](said);
    if (refused) await assert.rejects(act, "this was to be refused");
    else await act();
  }

  server(frame) {
    this.browser.line.socket.say(this.filled(frame));
  }

  client_(pattern) {
    const { sent } = this.browser.line;
    if (pattern === null) assert.deepEqual(sent, [], "the client was to send nothing");
    else this.match(pattern, sent.shift() ?? MISSING, "frame");
  }

  async post_(pattern) {
    const { posts } = this.browser.line;
    if (!posts.length) this.client.sync();
    await settled();
    if (pattern === null) return assert.equal(posts.length, 0, "the client was to make no POST");
    assert.equal(posts.length, 1, "the client was to make a POST");
    this.post = posts.shift();
    this.match(pattern, this.post.body, "body");
  }

  answer(answer) {
    if (answer === null) this.post.lose();
    else this.post.answer(answer.status, this.filled(answer.body));
  }

  async see(expected) {
    for (const [name, value] of Object.entries(expected)) await this.sights[name](value);
  }

  actions = {
    connect: async () => {
      if (this.browser.line.socket?.readyState !== 0) this.client.connect();
      await settled();
      this.browser.line.socket.open();
    },
    disconnect: ({ code, reason }) => this.browser.line.socket.end(code, reason),
    wait: (ms) => this.browser.clock.pass(ms),
    update: ({ widgetId, data, as, holdMs, ...how }) => this.keep(as, this.client.update(widgetId, data, { debounce: holdMs, ...how })),
    delete: ({ widgetId, as }) => this.keep(as, this.client.delete(widgetId)),
    updateLayout: ({ layout, as, ...how }) => this.keep(as, this.client.updateLayout(layout, how)),
    restoreLayout: ({ as, ...how }) => this.keep(as, this.client.restoreLayout(how)),
    batch: ({ edits, as }) => this.keep(as, this.client.batch(edits)),
    resolve: ({ conflictId, choice, data, as }) => this.keep(as, this.client.resolve(this.filled(conflictId), choice, data)),
    rollback: (name) => this.client.rollback(this.operations.get(name)),
    retry: (name) => this.client.retry(this.operations.get(name)),
    together: (list) => list.forEach((each) => Object.entries(each).forEach(([action, said]) => this.actions[action](said))),
  };

  keep(name, operation) {
    if (operation) this.operations.set(name, operation);
  }

  // What is to be seen

  sights = {
    widgets: (expected) => assert.deepEqual(Object.fromEntries(this.client.widgets), expected),
    layouts: (expected) => assert.deepEqual(Object.fromEntries(this.client.layouts), expected),
    position: (expected) => assert.equal(this.client.position, expected),
    epoch: (expected) => assert.equal(this.client.epoch, expected),
    pending: (expected) => assert.deepEqual(this.client.pending.map((each) => this.nameOf(each)), expected),
    operations: (expected) => this.each(expected, (operation) => operation.state),
    error: (expected) => this.each(expected, (operation) => operation.error.code),
    conflicts: (expected) => this.match(expected, this.client.conflicts, "conflicts"),
    told: (expected) => assert.equal(this.told, expected),
    differ: (names) => assert.equal(new Set(names.map((name) => this.value(name))).size, names.length),
    resume: (expected) => this.seeResume(expected),
    reconnect: (expected) => this.seeReconnect(expected),
  };

  each(expected, look) {
    for (const [name, value] of Object.entries(expected)) assert.equal(look(this.operations.get(name)), value, name);
  }

  /** What it asks for shows in the address that it dials. */
  async seeResume(expected) {
    const { line } = this.browser;
    const before = line.sockets.length;
    if (this.client.state === "CONNECTED") return this.match(expected, { since: this.client.position, epoch: this.client.epoch ?? undefined }, "resume");
    if (line.socket?.readyState !== 0) this.client.connect();
    await settled();
    assert.ok(line.sockets.length > before || line.socket.readyState === 0);
    const query = Object.fromEntries(line.socket.url.searchParams);
    this.match(expected, { since: Number(query.since), ...(query.epoch && { epoch: query.epoch }) }, "resume");
  }

  /** It dials when it said that it would, and asks for a new token or does not. */
  async seeReconnect(expected) {
    const { client, browser } = this;
    const before = this.tokens;
    if (expected === false) return assert.equal(client.state, "ERROR");
    const delay = client.retryAt - browser.clock.now;
    assert.ok(delay >= expected.minMs && delay <= expected.maxMs, `${delay} ms`);
    const dialled = browser.line.sockets.length;
    await browser.clock.pass(delay);
    assert.equal(browser.line.sockets.length, dialled + 1);
    assert.equal(this.tokens > before, expected.token, "a new token");
  }

  // Names and patterns

  nameOf(operation) {
    return [...this.operations].find(([, each]) => each === operation)?.[0];
  }

  value(name) {
    const bare = name.slice(1);
    return this.operations.get(bare)?.id ?? this.names.get(bare) ?? MISSING;
  }

  filled(value) {
    return JSON.parse(JSON.stringify(value), (_, each) => {
      if (typeof each !== "string" || !each.startsWith("$")) return each;
      assert.notEqual(this.value(each), MISSING, `nothing is called ${each}`);
      return this.value(each);
    });
  }

  match(pattern, value, path) {
    if (typeof pattern === "string" && pattern.startsWith("$")) this.matchName(pattern, value, path);
    else if (Array.isArray(pattern)) {
      assert.ok(Array.isArray(value), `${path} is no list`);
      assert.equal(value.length, pattern.length, `${path} has another length`);
      pattern.forEach((each, index) => this.match(each, value[index], `${path}[${index}]`));
    } else if (pattern !== null && typeof pattern === "object") {
      assert.ok(value !== null && typeof value === "object", `${path} is no object: ${String(value)}`);
      for (const [key, each] of Object.entries(pattern)) this.match(each, Object.hasOwn(value, key) ? value[key] : MISSING, `${path}.${key}`);
    } else assert.deepEqual(value, pattern, path);
  }

  matchName(name, value, path) {
    const known = this.value(name);
    if (name === "$absent") assert.equal(value, MISSING, `${path} should not be there`);
    else if (name === "$any") assert.notEqual(value, MISSING, `${path} is not there`);
    else if (known !== MISSING) assert.equal(value, known, `${path} is not ${name}`);
    else this.names.set(name.slice(1), value);
  }
}

test("there are conversations", () => assert.ok(FILES.length >= 40));

const METHODS = { client: "client_", post: "post_" };

for (const file of FILES) {
  test(file.replace(".json", ""), async () => {
    const conversation = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"));
    const talk = new Talk(conversation);
    for (const [number, step] of conversation.steps.entries()) {
      const [[kind, content]] = Object.entries(step);
      try {
        await talk.step([METHODS[kind] ?? kind, content]);
      } catch (fault) {
        fault.message = `step ${number}, ${JSON.stringify(step).slice(0, 400)}:\n${fault.message}`;
        throw fault;
      }
    }
    assert.deepEqual(talk.browser.line.sent, [], "the client sent more than was told of");
    talk.client.close();
  });
}
