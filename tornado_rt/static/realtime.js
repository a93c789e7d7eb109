/**
 * The browser's client of tornado_rt: a dashboard's documents at hand, changed at once, kept in step. It knows no DOM.
 * What is shown is the server's documents with the operations that wait replayed on them, so a late broadcast makes nothing
 * flicker and a rollback restores what really stood before. The rules are those of docs/protocol.md; types and the meaning of
 * each option and event stand in realtime.d.ts, a guide in docs/browser.md.
 */

/** Everything that this module throws or rejects with; `code` is a NACK's or one of its own (QUEUE_FULL, TIMEOUT, CLOSED...). */
export class RealtimeError extends Error {
  name = "RealtimeError";
  constructor(code, message, details = []) {
    super(message);
    this.code = code;
    this.details = details;
  }
}

const MAX_DELAY_MS = 30_000;
const HANDSHAKE_MS = 10_000; // for the upgrade, and then for CONNECT
const PROBE_MS = 5_000; // for an answer after the network changed
const POST_MS = 20_000;
const ENVELOPE_BYTES = 1_024; // room that a message needs around its operations
const MAX_FAILED = 100;
const EVENTS = ["state", "status", "sync", "view", "change", "operation", "conflict", "resolved", "message", "refused", "error"];
const RETRYABLE = new Set(["RATE_LIMITED", "UNAVAILABLE", "INTERNAL"]);
const WHOLESALE = new Set(["FORBIDDEN", "UNAUTHORIZED"]); // refusals that the next operation would meet as well
const HTTP_REFUSALS = new Set([400, 403, 409, 413, 422]); // the server judged the request, and nothing of it was done

// Edits: one change of one document, `{type, payload}` as on the wire; never changed once made. A key is a kind, of six
// letters, a colon and an id. Own fields may be called `__proto__`: objects are spread, never assigned to by name.

const isLayout = (type) => type.startsWith("LAYOUT");
const bodyName = (type) => (isLayout(type) ? "layout" : "data");
const keyOf = ({ type, payload }) =>
  isLayout(type) ? `layout:${payload.layoutId ?? "default"}` : `widget:${payload.widgetId}`;
const named = (key) => ({ kind: key.slice(0, 6), id: key.slice(7) });
const bodyOf = ({ type, payload }) => payload[bodyName(type)];
const based = (edit, baseVersion, epoch) => ({ ...edit, payload: { ...edit.payload, baseVersion, epoch } });

/** A merge of named fields: parts of it can be taken out and the rest still means the same. */
const isPlain = ({ type, payload }) => type.endsWith("_UPDATE") && !payload.replace;

/** The fields that an edit sets or removes; null stands for the whole document. */
const touches = (edit) => (isPlain(edit) ? new Set([...Object.keys(bodyOf(edit) ?? {}), ...(edit.payload.unset ?? [])]) : null);
const isSame = (a, b) => a !== null && b !== null && a.size === b.size && [...a].every((name) => b.has(name));

/** The document's fields after an edit; undefined stands for a document that is not there. */
function apply(edit, fields) {
  const body = bodyOf(edit);
  if (edit.type === "WIDGET_DELETE") return undefined;
  if (!body) return fields; // a LAYOUT_RESTORE whose outcome only the server knows
  if (edit.payload.replace || edit.type === "LAYOUT_RESTORE") return { ...body };
  const merged = { ...fields, ...body };
  for (const name of edit.payload.unset ?? []) delete merged[name];
  return merged;
}

/** An edit without some fields (null: without all); null where nothing is left of it. */
function without(edit, names) {
  if (names === null) return null;
  if (!isPlain(edit)) return edit;
  const body = Object.fromEntries(Object.entries(bodyOf(edit) ?? {}).filter(([name]) => !names.has(name)));
  const unset = edit.payload.unset?.filter((name) => !names.has(name));
  if (!Object.keys(body).length && !unset?.length) return null;
  return { ...edit, payload: { ...edit.payload, [bodyName(edit.type)]: body, unset: unset?.length ? unset : undefined } };
}

/** A deep copy that is JSON and nothing else; throws for what JSON would silently make another value. */
function plain(value) {
  const isObject = value !== null && typeof value === "object" && !Array.isArray(value);
  if (!isObject) throw new RealtimeError("INVALID_MESSAGE", "a document is an object of fields");
  const text = JSON.stringify(value, (_, each) => {
    if (typeof each !== "number" || Number.isFinite(each)) return each;
    throw new RealtimeError("INVALID_MESSAGE", "JSON knows no NaN and no Infinity");
  });
  return JSON.parse(text);
}

/** One request to change documents, from its making to its verdict. Names that begin with `_` are the module's own. */
class Operation {
  state = "PENDING";
  attempts = 0;
  error = null;
  result = null;
  conflict = null;
  _carrier = null; // the message or POST that it travels in now
  _isPosted = false; // and that is a POST
  _hasLeft = false; // and nobody said that nothing was changed: it may have been applied
  _isRefused = false; // it left and nothing was changed: it is to be repeated
  _isResumed = false; // it goes by SYNC_UPDATE: it waited for the connection, or another answer may still come
  _goesAlone = false; // a message that it shared was refused without naming the culprit
  _notBefore = 0;
  _heldUntil = 0; // debounce: later edits of the same fields become one with it until then
  _deadline = 0;
  _overtaken = new Map(); // by key, the fields that later operations have set; null: all
  _lost = new Set(); // keys of documents that somebody deleted meanwhile
  _followers = []; // operations that share its verdict

  constructor(id, edits, kept = {}) {
    this._isBatch = kept.isBatch ?? false;
    this._resolution = kept.resolution ?? null; // the payload of a CONFLICT_RESOLVED
    this._shown = kept.shown; // the document as the person saw it with this edit in it
    this.createdAt = kept.createdAt;
    this._revise(id, edits);
  }

  _revise(id, edits) {
    this.id = id;
    this._edits = edits;
    this._keys = new Set(edits.map(keyOf));
    this._size = new TextEncoder().encode(JSON.stringify(this._wire)).length;
  }

  get type() {
    return this._resolution ? "CONFLICT_RESOLVED" : this._isBatch ? "WIDGET_BATCH" : this._edits[0].type;
  }

  /** The same each time, since a repeated operation must be the same operation. */
  get payload() {
    if (this._resolution) return this._resolution;
    if (!this._isBatch) return this._edits[0].payload;
    return { operations: this._edits.map((edit, index) => ({ operationId: `${this.id}.${index}`, ...edit })), atomic: true };
  }

  get documents() {
    return [...this._keys].map(named);
  }

  get done() {
    this._done ??= new Promise((resolve, reject) => {
      this._answer = () => (this.result ? resolve(this.result) : reject(this.error));
      if (this._isSettled) this._answer();
    });
    return this._done;
  }

  get _wire() {
    return { operationId: this.id, type: this.type, payload: this.payload };
  }

  get _isSettled() {
    return this.state !== "PENDING" && this.state !== "SENT";
  }

  get _isPlain() {
    return !this._resolution && !this._isBatch && isPlain(this._edits[0]);
  }

  /** A document's fields with this operation's effect. */
  _onto(key, fields) {
    if (!this._keys.has(key) || this._lost.has(key)) return fields;
    for (const edit of this._edits) {
      const rest = keyOf(edit) !== key ? null : this._overtaken.has(key) ? without(edit, this._overtaken.get(key)) : edit;
      if (rest) fields = apply(rest, fields);
    }
    return fields;
  }

  _settle(state, { result = null, error = null, conflict = null }) {
    Object.assign(this, { state, result, error, conflict, _carrier: null });
    this._answer?.();
    for (const follower of this._followers) follower._settle(state, { result, error, conflict });
  }

  _wait(hasLeft, notBefore = 0) {
    const isRefused = !hasLeft;
    Object.assign(this, { state: "PENDING", _carrier: null, _isPosted: false, _hasLeft: hasLeft, _isRefused: isRefused });
    this._notBefore = notBefore;
  }

  _dump() {
    const { _edits: edits, _isBatch: isBatch, _resolution: resolution, _shown: shown, id, createdAt } = this;
    return JSON.stringify({ id, edits, isBatch, resolution, shown, createdAt });
  }
}

/** The server's documents as far as they are here, and the position (the last seq that is here in full). */
class Replica {
  documents = new Map(); // by key: {fields, version, updatedAt, updatedBy, history?}; `fields` is never changed
  position = 0;
  epoch = null;

  /** A snapshot; returns the keys of what may be different now. */
  takeSnapshot(payload) {
    const before = this.documents;
    this.documents = new Map(documentsIn(payload));
    this.position = payload.seq;
    this.epoch = payload.epoch;
    return new Set([...before.keys(), ...this.documents.keys()]);
  }

  /** Each document that changed after `fromSeq`, whole, in place of what was here. */
  takeMerged(payload) {
    const { widgets = [], layouts = [] } = payload.deleted ?? {};
    const gone = [...widgets.map((id) => `widget:${id}`), ...layouts.map((id) => `layout:${id}`)];
    const found = [...documentsIn(payload)];
    for (const [key, document] of found) this.documents.set(key, document);
    for (const key of gone) this.documents.delete(key);
    this.position = payload.seq;
    return new Set([...found.map(([key]) => key), ...gone]);
  }

  /** Changes that took `seq` together. */
  takeEdits(edits, seq, updatedBy, updatedAt) {
    for (const edit of edits) {
      const key = keyOf(edit);
      const before = this.documents.get(key);
      const fields = apply(edit, before?.fields);
      if (!fields) this.documents.delete(key);
      else {
        let history = before?.history ?? [];
        if (isLayout(edit.type) && history.at(-1) !== seq) history = [...history, seq];
        this.documents.set(key, { fields, version: seq, updatedAt, updatedBy, history });
      }
    }
    this.position = seq;
    return new Set(edits.map(keyOf));
  }
}

function* documentsIn(payload) {
  for (const [kind, body] of [["widget", "data"], ["layout", "layout"]]) {
    for (const [id, { [body]: fields, ...rest }] of Object.entries(payload[`${kind}s`] ?? {})) yield [`${kind}:${id}`, { fields, ...rest }];
  }
}

/** A token bucket a little narrower than the server's, so that a queue that is worked off is not refused for its speed. */
class Pace {
  constructor({ rateLimit = 0, rateBurst = 0 }) {
    this.perMs = (rateLimit * 0.9) / 1000;
    this.tokens = this.most = Math.max(1, rateBurst * 0.9);
    this.at = 0;
  }

  /** Milliseconds until `count` operations may leave. */
  wait(count, now) {
    if (!this.perMs) return 0;
    this.tokens = Math.min(this.most, this.tokens + (now - (this.at || now)) * this.perMs);
    this.at = now;
    const lacking = Math.min(count, this.most) - this.tokens;
    return lacking < 1e-9 ? 0 : lacking / this.perMs;
  }
}

const leavesOf = (group) => group.reduce((sum, operation) => sum + operation._edits.length, 0);

/**
 * The client without its sockets: frames, answers and the time go in; `frames` to send and `events` to tell come out.
 * Operations on one document leave in their order; what may have been applied is repeated unchanged under its id; from what was
 * refused the fields that a later one has set meanwhile are taken out, under a new id. So that this can always be done, nothing
 * follows an operation that touches a whole document onto it before its verdict; nor one that travels by POST.
 */
class Engine {
  frames = [];
  events = []; // [name, value]
  limits = {};
  pace = new Pace({});
  connection = null; // CONNECT's payload while the socket is up
  farewell = null; // DISCONNECT's payload
  replica = new Replica();
  clientCount = 0;
  outbox = new Map(); // by id, in their order; confirmed ones stay until their change is seen, so that nothing flickers
  conflicted = new Map(); // by conflictId: {conflict, operation}
  failed = [];
  #carriers = new Map(); // messages under way and the operations in them
  #openThere = new Set(); // conflicts that this connection was told of
  #asked = null; // the SYNC_REQUEST under way
  #askAt = Infinity; // when to ask (again)
  #batchAt = 0; // when the next batch of new operations may leave
  #shown = { widget: new Map(), layout: new Map() };
  #stale = new Set(); // keys of `#shown` to be looked at again
  #viewed = new Set(); // keys that are shown differently since the last "view"

  constructor(userId, options, queue, env) {
    Object.assign(this, { userId, options, queue, env });
  }

  // What is shown

  get pending() {
    return [...this.outbox.values()].filter((each) => !each._isSettled);
  }

  get resume() {
    return { since: this.replica.position, epoch: this.replica.epoch ?? undefined };
  }

  get maxOperations() {
    return this.limits.maxOperations || (this.limits.maxOperations === 0 ? Infinity : 50);
  }

  get maxBytes() {
    return (this.limits.maxMessageBytes || (this.limits.maxMessageBytes === 0 ? Infinity : 262_144)) - ENVELOPE_BYTES;
  }

  view(kind) {
    for (const key of this.#stale) {
      const { kind, id } = named(key);
      const fields = this.document(key);
      if (fields === this.#shown[kind].get(id)) continue;
      if (fields) this.#shown[kind].set(id, fields);
      else this.#shown[kind].delete(id);
      this.#viewed.add(key);
    }
    this.#stale.clear();
    return this.#shown[kind];
  }

  /** The ids of what is shown differently since the last call, or null. */
  takeViewed() {
    this.view("widget");
    if (!this.#viewed.size) return null;
    const found = { widgets: [], layouts: [] };
    for (const key of this.#viewed) found[`${key.slice(0, 6)}s`].push(key.slice(7));
    this.#viewed.clear();
    return found;
  }

  document(key) {
    let fields = this.replica.documents.get(key)?.fields;
    for (const operation of this.outbox.values()) fields = operation._onto(key, fields);
    return fields;
  }

  #changed(keys) {
    for (const key of keys) this.#stale.add(key);
  }

  #tell(name, value) {
    this.events.push([name, value]);
  }

  // What the person does

  /**
   * Make an operation. With `hold` (ms) it waits for later edits of the same fields, at most until `end`, and becomes one with
   * them; the same operation is returned again.
   */
  submit(edit, now, hold = 0, end = Infinity) {
    const key = keyOf(edit);
    const last = this.pending.findLast((each) => each._keys.has(key));
    const held = last && last._heldUntil > now && !last._hasLeft ? last : null;
    const isDelete = edit.type === "WIDGET_DELETE";
    if (held && hold && isSame(touches(held._edits[0]), touches(edit))) return this.#join(held, edit, now + hold);
    if (held && isDelete) this.#remove(held);
    const operation = new Operation(this.env.newId(), [this.#rebased(edit)], { createdAt: now });
    this.#admit(operation, now);
    if (held && isDelete) operation._followers.push(held);
    else if (hold && isPlain(edit)) Object.assign(operation, { _heldUntil: now + hold, _heldEnd: end });
    return operation;
  }

  #join(held, edit, until) {
    const [{ payload }] = held._edits;
    held._revise(held.id, [based(edit, payload.baseVersion, payload.epoch)]);
    held._heldUntil = Math.min(until, held._heldEnd);
    held._shown = this.document(keyOf(edit));
    this.queue.put(held);
    this.#changed(held._keys);
    return held;
  }

  submitBatch(edits, now) {
    if (!edits.length) throw new RealtimeError("INVALID_MESSAGE", "a batch needs at least one edit");
    if (edits.length > this.maxOperations) throw new RealtimeError("TOO_LARGE", `a batch holds at most ${this.maxOperations} edits`);
    const kept = { isBatch: true, createdAt: now };
    const operation = new Operation(this.env.newId(), edits.map((edit) => this.#rebased(edit)), kept);
    this.#admit(operation, now);
    return operation;
  }

  /** With the base that the person saw. Who makes a document, or has seen nothing yet, has none. */
  #rebased(edit) {
    const { epoch, position } = this.replica;
    if (!this.options.enableConflictDetection || epoch === null) return based(edit);
    if (edit.payload.baseVersion !== undefined) return based(edit, edit.payload.baseVersion, edit.payload.epoch ?? epoch);
    return this.document(keyOf(edit)) ? based(edit, position, epoch) : edit;
  }

  #admit(operation, now) {
    const waiting = this.pending.length + this.conflicted.size;
    if (waiting >= this.options.maxQueueSize) throw new RealtimeError("QUEUE_FULL", `${waiting} operations wait already; this one was not taken`);
    if (operation._size > this.maxBytes) throw new RealtimeError("TOO_LARGE", `a message holds at most ${this.maxBytes} bytes`);
    const [edit] = operation._edits;
    if (!operation._isBatch && !operation._resolution) operation._shown = apply(edit, this.document(keyOf(edit)));
    this.queue.put(operation);
    operation._notBefore = this.#batchAt > now ? this.#batchAt : 0;
    this.#add(operation);
    const gathered = operation._notBefore ? this.pending.filter((each) => !each.attempts && each._notBefore === this.#batchAt) : [];
    if (gathered.length >= this.options.batchSize) for (const each of gathered) each._notBefore = this.#batchAt = 0;
  }

  #add(operation) {
    this.outbox.set(operation.id, operation);
    this.#changed(operation._keys);
    this.#tell("operation", operation);
  }

  /** Operations that a queue kept from an earlier page: they come before what was made meanwhile. */
  takeBack(operations) {
    this.outbox = new Map([...operations, ...this.outbox.values()].map((each) => [each.id, each]));
    for (const operation of operations) {
      operation._hasLeft = true; // nobody knows any more
      this.#changed(operation._keys);
      this.#tell("operation", operation);
    }
  }

  resolve(conflictId, choice, data) {
    const { conflict, operation } = this.conflicted.get(conflictId) ?? {};
    if (!conflict) throw new RealtimeError("CONFLICT_UNKNOWN", `there is no open conflict ${conflictId}`);
    let answer = null;
    if (choice === "remote") {
      this.queue.drop(operation);
      if (this.#openThere.has(conflictId)) this.emit("CONFLICT_RESOLVED", { conflictId, resolution: "remote" });
    } else {
      answer = resolution(conflict, operation, choice, data, this.env.newId(), this.replica.epoch ?? undefined);
      answer.createdAt = this.env.now();
      this.queue.put(answer, operation);
      this.#add(answer);
    }
    this.conflicted.delete(conflictId);
    this.#tell("resolved", { conflict, choice });
    return answer;
  }

  retry(operation, now) {
    if (!this.failed.includes(operation)) throw new RealtimeError("NOT_POSSIBLE", "only a failed operation can be tried again");
    this.failed = this.failed.filter((each) => each !== operation);
    Object.assign(operation, { attempts: 0, error: null, _done: undefined, _answer: undefined });
    operation._wait(false);
    operation._isRefused = false;
    operation._overtaken.clear();
    operation._revise(this.env.newId(), operation._edits);
    this.#admit(operation, now);
  }

  rollback(operation) {
    if (operation.state === "CONFLICT" && this.conflicted.has(operation.conflict.conflictId)) {
      this.resolve(operation.conflict.conflictId, "remote");
    } else if (this.failed.includes(operation)) {
      this.failed = this.failed.filter((each) => each !== operation);
      this.#tell("operation", operation);
    } else if (operation._isSettled || operation._hasLeft) {
      throw new RealtimeError("NOT_POSSIBLE", "the operation has left and may have been applied; only its verdict can tell");
    } else {
      this.#remove(operation);
      operation._settle("FAILED", { error: new RealtimeError("ROLLED_BACK", "given up before it left") });
      this.#tell("operation", operation);
    }
  }

  #remove(operation) {
    if (this.outbox.get(operation.id) === operation) this.outbox.delete(operation.id);
    this.queue.drop(operation);
    this.#changed(operation._keys);
  }

  // What the server says

  receive(frame, now) {
    const { type, payload = {}, correlationId } = frame;
    const group = this.#carriers.get(correlationId);
    if (type === "CONNECT") this.#connected(frame, payload, now);
    else if (type === "DISCONNECT") this.farewell = payload;
    else if (type === "PING") {
      this.emit("PONG", {}, frame.id);
      if (payload.seq > this.replica.position) this.ask(now);
    } else if (type === "SYNC_RESPONSE") this.takeSync(payload, now);
    else if (type === "SYNC_UPDATE" && "fromSeq" in payload) this.#takeMerged(payload, now, type);
    else if (type === "ACK") this.#acknowledged(frame, payload, group, now);
    else if (type === "NACK") this.#nacked(frame, payload, group, now);
    else if (type === "CONFLICT_DETECTED" && group?.length === 1 && !group[0]._isSettled) {
      if (payload.conflictId) this.#openThere.add(payload.conflictId);
      this.#open(group[0], offer(group[0], payload));
    } else if ("seq" in payload && /^(WIDGET|LAYOUT)_/.test(type)) {
      if (payload.seq === this.replica.position + 1) this.#takeChange(frame);
      else if (payload.seq > this.replica.position) this.ask(now);
    } else if (type !== "PONG") this.#tell("message", frame);
    if (group && type !== "PING") this.#carriers.delete(correlationId);
  }

  /** The socket is gone: what travelled by it may have been applied, and is repeated. */
  closed() {
    this.connection = null;
    this.#asked = null;
    this.#askAt = Infinity;
    for (const [carrier, group] of this.#carriers) this.#unanswered(group, carrier);
    this.#carriers.clear();
    this.#openThere.clear();
  }

  #connected(frame, payload, now) {
    this.userId = frame.userId || this.userId;
    this.connection = payload;
    this.farewell = null;
    this.limits = payload.limits ?? {};
    this.pace = new Pace(this.limits);
    for (const operation of this.outbox.values()) operation._isResumed = true;
    if (payload.sync) this.takeSync(payload.sync, now);
    else this.ask(now);
  }

  // Catching up

  get isBehind() {
    return this.#askAt < Infinity;
  }

  /** Something was missed: ask for it, unless that is under way or nobody is there to be asked. */
  ask(now, isWhole = false) {
    if (this.#asked !== null || !this.connection) return;
    this.#asked = this.emit("SYNC_REQUEST", isWhole ? {} : this.resume);
    this.#askAt = now + this.options.operationTimeout;
  }

  takeSync(payload, now) {
    this.#asked = null;
    this.#askAt = Infinity;
    const { mode, epoch, seq } = payload;
    if (mode === "snapshot") this.#takeWhole(this.replica.takeSnapshot(payload), payload, "SYNC_RESPONSE", true);
    else if (epoch !== this.replica.epoch) return this.ask(now, true); // a part of a log that we have nothing of
    else if (mode === "merged") this.#takeMerged(payload, now, "SYNC_RESPONSE");
    else {
      for (const change of payload.operations) if (change.seq === this.replica.position + 1) this.#takeChange(change);
      if (seq > this.replica.position) return this.ask(now, true);
    }
    this.clientCount = payload.clientCount ?? this.clientCount;
    this.#tell("sync", { mode, seq: this.replica.position });
  }

  #takeMerged(payload, now, type) {
    if (payload.fromSeq > this.replica.position) this.ask(now);
    else if (payload.seq >= this.replica.position) this.#takeWhole(this.replica.takeMerged(payload), payload, type, false);
  }

  #takeWhole(keys, payload, type, isSnapshot) {
    this.#settleIn(keys, isSnapshot);
    this.#tellChange({ type, userId: "", timestamp: payload.timestamp ?? "", payload }, keys);
  }

  #takeChange(change) {
    const { type, payload, userId, timestamp } = change;
    const edits = type === "WIDGET_BATCH" ? payload.operations : [change];
    const keys = this.replica.takeEdits(edits, payload.seq ?? change.seq, userId, timestamp);
    this.#settleIn(keys, false);
    this.#tellChange(change, keys);
  }

  /** An ACK says that an operation stands at `seq`. If that is the next place, its change is what we sent. */
  #takeOwn(operation, seq, { timestamp }, now) {
    const { position } = this.replica;
    if (seq <= position) return;
    if (seq > position + 1 || operation._edits.some((edit) => edit.type === "LAYOUT_RESTORE")) return this.ask(now);
    const keys = this.replica.takeEdits(operation._edits, seq, this.userId, timestamp);
    this.#settleIn(keys, false);
    this.#tellChange({ type: operation.type, userId: this.userId, timestamp, payload: operation.payload }, keys, true);
  }

  #tellChange({ type, userId, timestamp, payload }, keys, isOwn = false) {
    const documents = [...keys].map(named);
    this.#tell("change", { type, seq: this.replica.position, userId, timestamp, payload, documents, isOwn });
  }

  /** After the server's documents changed: forget what is in them now; an edit of what somebody deleted is not shown. */
  #settleIn(keys, isSnapshot) {
    const made = new Set(); // an operation that makes the document anew is shown, and what follows it
    const isGone = (key) => (isSnapshot || keys.has(key)) && !this.replica.documents.has(key);
    for (const operation of this.pending) {
      for (const edit of operation._edits) {
        const key = keyOf(edit);
        if (edit.payload.baseVersion === undefined) made.add(key);
        else if (isGone(key) && !made.has(key)) {
          operation._shown = this.#shown[key.slice(0, 6)].get(key.slice(7)) ?? operation._shown;
          operation._lost.add(key);
          this.#changed([key]);
        }
      }
    }
    this.#forgetSeen(isSnapshot);
    this.#changed(keys);
  }

  #forgetSeen(isSnapshot = false) {
    for (const each of this.outbox.values()) {
      const isSeen = isSnapshot || each.result?.seq == null || each.result.seq <= this.replica.position;
      if (each.state === "CONFIRMED" && isSeen) this.#remove(each);
    }
  }

  // Verdicts

  #acknowledged(frame, payload, group, now) {
    if (!group) this.#stray(payload, now);
    else if (group[0].id !== frame.correlationId) this.#results(frame.correlationId, group, payload.results ?? [], now, frame);
    else if (payload.results) this.#verdict(group[0], joined(payload.results, payload.seq), now, frame);
    else this.#verdict(group[0], { ...payload, status: "success" }, now, frame);
  }

  /** An answer that nobody waits for; if it tells of a change that is not here, that has to be asked for. */
  #stray({ seq, duplicate, resolved }, now) {
    if (seq > this.replica.position && !duplicate && !resolved) this.ask(now);
  }

  /**
   * One verdict for each operation, of an ACK (`frame`) or of a POST. What is not named is repeated. Of an operation that was
   * repeated meanwhile a refusal is no verdict: the repetition may be applied.
   */
  #results(carrier, group, results, now, frame) {
    const byId = new Map(results.map((each) => [each.operationId, each]));
    const found = group.map((operation) => {
      const whole = byId.get(operation.id);
      return [operation, whole?.results?.length && whole.status !== "success" ? joined(whole.results) : whole];
    });
    found.sort(([, a], [, b]) => (a?.seq ?? 0) - (b?.seq ?? 0)); // own changes count in the order of their seqs
    for (const [operation, status] of found) {
      if (operation._carrier !== carrier && status?.status !== "success" && status?.status !== "conflict") continue;
      if (status) this.#verdict(operation, status, now, frame);
      else operation._wait(true, now + 1000);
    }
  }

  #verdict(operation, status, now, frame) {
    if (operation._isSettled) return this.#stray(status, now); // a second answer, to a repetition
    const { seq = null, version = seq, merged = [], duplicate = false, conflicts } = status;
    if (status.status === "conflict") this.#open(operation, offer(operation, conflicts?.[0] ?? status.conflict, conflicts));
    else if (status.status !== "success") this.#refuse(operation, status, now);
    else {
      this.#confirm(operation, { seq, version, merged, duplicate, superseded: false });
      if (frame && seq !== null && !duplicate) this.#takeOwn(operation, seq, frame, now);
      this.#forgetSeen();
    }
  }

  #confirm(operation, result) {
    for (const earlier of this.pending) {
      if (earlier === operation) break;
      for (const edit of operation._edits) overtake(earlier, edit);
    }
    this.queue.drop(operation);
    operation._settle("CONFIRMED", { result });
    this.#changed(operation._keys);
    this.#tell("operation", operation);
  }

  #open(operation, conflict) {
    this.outbox.delete(operation.id);
    this.#changed(operation._keys);
    if (conflict.resolved) this.queue.drop(operation);
    else this.conflicted.set(conflict.conflictId, { conflict, operation }); // the queue keeps it until somebody has chosen
    const error = new RealtimeError("CONFLICT", `${conflict.kind} ${conflict.documentId} was changed meanwhile by ${conflict.remoteUserId}`);
    error.conflict = conflict;
    operation._settle("CONFLICT", { error, conflict });
    this.#tell("operation", operation);
    this.#tell("conflict", conflict);
  }

  #nacked(frame, payload, group, now) {
    if (group) return this.refuseAll({ id: frame.correlationId, group }, payload, now);
    if (this.#asked === null || frame.correlationId !== this.#asked) return this.#tell("refused", frame);
    this.#asked = null;
    this.#askAt = now + (payload.retryAfterMs ?? 1000);
  }

  /** A whole message was refused. Where it was for the fault of one operation, the others must not suffer for it. */
  refuseAll({ id, group }, error, now) {
    const isForAll = group.length <= 1 || isRetryable(error) || WHOLESALE.has(error.code);
    const blamed = new Set((error.details ?? []).map(({ path }) => Number(/^(?:payload\.)?operations\[(\d+)\]/.exec(path)?.[1])));
    const isKnown = group.some((_, index) => blamed.has(index));
    for (const [index, operation] of group.entries()) {
      if (operation._carrier !== id) continue; // it was repeated meanwhile
      if (isForAll || blamed.has(index)) this.#refuse(operation, error, now);
      else {
        operation._goesAlone = !isKnown;
        operation._wait(false, now);
      }
    }
  }

  #refuse(operation, answer, now) {
    const error = new RealtimeError(answer.code ?? "INTERNAL", answer.error ?? "refused", answer.details);
    if (isRetryable(answer)) {
      const backoff = Math.min(MAX_DELAY_MS, 1000 * 2 ** (operation.attempts - 1)) * (0.5 + this.env.random() / 2);
      operation._wait(answer.outcome === "unknown", now + (answer.retryAfterMs ?? backoff));
      operation.error = error;
    } else if (answer.code === "NOT_FOUND" && operation.type === "WIDGET_DELETE") {
      this.#confirm(operation, { seq: null, version: null, merged: [], duplicate: false, superseded: false });
      return this.#forgetSeen(); // it is gone, which is what was wanted
    } else {
      this.#remove(operation);
      operation._settle("FAILED", { error });
      this.failed = [...this.failed, operation].slice(-MAX_FAILED);
    }
    this.#changed(operation._keys);
    this.#tell("operation", operation);
  }

  // Sending

  emit(type, payload, correlationId, id = this.env.newId()) {
    this.frames.push({ type, id, userId: this.userId, correlationId, payload });
    return id;
  }

  /** Let leave what may leave, and repeat what was not answered in time. */
  flush(now) {
    for (const operation of this.outbox.values()) {
      if (!operation._carrier || operation._deadline > now) continue;
      operation._isResumed = true; // in a message with another id, so that the two answers are not mixed up
      this.#unanswered([operation]);
    }
    if (!this.connection) return;
    if (this.#askAt <= now) {
      this.#asked = null;
      this.ask(now);
    }
    for (const group of this.#grouped(this.#leaving(now))) {
      if (this.pace.wait(leavesOf(group), now)) return;
      this.pace.tokens -= leavesOf(group);
      this.#send(group, now);
    }
  }

  #send(group, now) {
    const [first] = group;
    let carrier = first.id;
    if (group.length === 1 && !first._isResumed) this.emit(first.type, first.payload, undefined, first.id);
    else {
      const isSync = first._isResumed || group.some((each) => each._isBatch || each._resolution);
      const operations = group.map((each) => each._wire);
      carrier = isSync ? this.emit("SYNC_UPDATE", { operations }) : this.emit("WIDGET_BATCH", { operations, atomic: false });
    }
    this.#carriers.set(carrier, group);
    if (!first._isResumed) this.#batchAt = now + this.options.batchInterval;
    for (const operation of group) this.#sent(operation, carrier, now + this.options.operationTimeout, false);
  }

  #sent(operation, _carrier, _deadline, _isPosted) {
    Object.assign(operation, { state: "SENT", _carrier, _deadline, _isPosted, _hasLeft: true, _isRefused: false });
    operation.attempts += 1;
    this.#tell("operation", operation);
  }

  /** No answer will come by this way: they are repeated, unchanged. */
  #unanswered(group, carrier) {
    for (const operation of group) {
      if (!operation._carrier || (carrier && operation._carrier !== carrier)) continue;
      Object.assign(operation, { state: "PENDING", _carrier: null, _isPosted: false });
      this.#tell("operation", operation);
    }
  }

  #choose(now) {
    const all = this.pending;
    const room = this.options.maxPendingOperations - all.filter((each) => each._carrier).length;
    const chosen = [];
    const closed = new Set(); // documents onto which nothing may follow
    const closedToNew = new Set(); // documents onto which nothing may follow that has not left before
    const close = (keys, set) => keys.forEach((key) => set.add(key));
    const isIn = (set, keys) => set.size > 0 && [...keys].some((key) => set.has(key));
    for (const [index, operation] of all.entries()) {
      if (chosen.length >= room) break;
      const keys = operation._keys;
      if (!operation._carrier) {
        if (Math.max(operation._notBefore, operation._heldUntil) > now || isIn(closed, keys)) {
          close(keys, closed);
          continue;
        }
        const isBehind = !operation._hasLeft && isIn(closedToNew, keys);
        const isFollowed = () => all.slice(index + 1).some((each) => each._hasLeft && isIn(each._keys, keys));
        if (isBehind || (operation._isRefused && isFollowed())) {
          close(keys, closedToNew); // first hear what became of the later ones
          continue;
        }
        chosen.push(operation);
      }
      if (operation._isPosted || !operation._isPlain) close(keys, closed);
    }
    return chosen;
  }

  #leaving(now) {
    return this.#choose(now).filter((operation) => this.#freshen(operation));
  }

  /** Take out of a refused operation what later ones have set; false where nothing is left of it. */
  #freshen(operation) {
    if (!operation._isRefused || !operation._overtaken.size || !operation._isPlain) return true;
    const [edit] = operation._edits;
    const rest = without(edit, operation._overtaken.get(keyOf(edit)));
    if (!rest) {
      this.#remove(operation);
      operation._settle("CONFIRMED", { result: { seq: null, version: null, merged: [], duplicate: false, superseded: true } });
      this.#tell("operation", operation);
      return false;
    }
    if (!isSame(touches(rest), touches(edit))) {
      operation._revise(this.env.newId(), [rest]); // with another content it is another operation
      this.outbox = new Map([...this.outbox.values()].map((each) => [each.id, each]));
      this.queue.put(operation);
    }
    operation._overtaken.clear();
    return true;
  }

  /** Consecutive operations that fit into one message: counted to the leaves, by bytes, resumed ones apart from new ones. */
  *#grouped(operations) {
    let group = [];
    let size = 0;
    for (const operation of operations) {
      const last = group.at(-1);
      const fits = leavesOf([...group, operation]) <= this.maxOperations && size + operation._size < this.maxBytes;
      const isAlike = last?._isResumed === operation._isResumed && !last._goesAlone && !operation._goesAlone;
      if (last && !(fits && isAlike)) {
        yield group;
        group = [];
        size = 0;
      }
      group.push(operation);
      size += operation._size + 1;
    }
    if (group.length) yield group;
  }

  /** When `flush` has something to do by time alone; Infinity if never. */
  due(now) {
    let due = this.connection ? this.#askAt : Infinity;
    if (!this.outbox.size) return due;
    for (const each of this.pending) {
      const wait = Math.max(each._notBefore, each._heldUntil);
      if (each._carrier) due = Math.min(due, each._deadline);
      else if (wait > now) due = Math.min(due, wait);
    }
    const waiting = this.connection && this.#grouped(this.#choose(now)).next().value;
    return waiting ? Math.min(due, now + this.pace.wait(leavesOf(waiting), now)) : due;
  }

  // By POST, while the socket is down

  post(now) {
    const group = this.#grouped(this.#leaving(now)).next().value ?? [];
    const id = this.env.newId();
    for (const operation of group) this.#sent(operation, id, Infinity, true);
    return { id, group, body: { type: "SYNC", operations: group.map((each) => each._wire), ...this.resume } };
  }

  get isIdle() {
    return !this.#choose(this.env.now()).length;
  }

  posted({ id, group }, { results = [], sync }, now) {
    this.#results(id, group, results, now);
    if (!sync || this.connection) return; // a connection that came meanwhile knows better
    const isOvertaken = sync.mode === "snapshot" && sync.epoch === this.replica.epoch && sync.seq < this.replica.position;
    if (!isOvertaken) this.takeSync(sync, now);
  }

  /** The POST was not answered, or the server was at fault: it may have been applied. */
  postLost({ group, id }) {
    this.#unanswered(group, id);
  }
}

/** A refusal that the same operation may outlive. A NACK says so itself; in `results` the code does. */
const isRetryable = (answer) => answer.retryable ?? RETRYABLE.has(answer.code);

function overtake(earlier, edit) {
  const key = keyOf(edit);
  if (!earlier._keys.has(key)) return;
  const known = earlier._overtaken.has(key) ? earlier._overtaken.get(key) : new Set();
  const more = touches(edit);
  earlier._overtaken.set(key, known && more && new Set([...known, ...more]));
}

/** The verdicts on the parts of an atomic batch as one: all were applied, or none. */
function joined(parts, seq) {
  const errors = parts.filter((part) => part.status === "error" && part.code !== "BATCH_ABORTED");
  if (errors.length) return errors.find((part) => !isRetryable(part)) ?? errors[0];
  const conflicts = parts.filter((part) => part.status === "conflict").map((part) => part.conflict);
  if (conflicts.length) return { status: "conflict", conflicts };
  const last = Math.max(...parts.map((part) => part.seq ?? 0));
  const duplicate = parts.length > 0 && parts.every((part) => part.duplicate);
  return parts.find((part) => part.status !== "success") ?? { status: "success", seq: seq ?? (last > 0 ? last : null), duplicate };
}

/** What CONFLICT_DETECTED, or a `conflict` in `results`, says about an operation, as it is offered to a person. */
const offer = (operation, payload, batch = []) => ({
  fields: [],
  local: null,
  remote: null,
  resolved: null,
  conflictId: `conflict-${operation.id}`.slice(0, 128), // an atomic batch's have none
  ...payload,
  documentId: payload[`${payload.kind}Id`],
  operation,
  shown: operation._shown ?? null,
  batch,
});

/**
 * The operation that carries out a person's choice: a CONFLICT_RESOLVED in the form that needs no memory on the server. What that
 * cannot say (unset, replace, a restored layout, a batch) is the same operation again with the conflict's version as its base.
 */
function resolution(conflict, operation, choice, data, id, epoch) {
  const { conflictId, kind, documentId, currentVersion: baseVersion, batch } = conflict;
  const isMerge = choice === "merged" && data !== undefined && !batch.length;
  if (choice !== "local" && !isMerge) throw new RealtimeError("INVALID_MESSAGE", "choose local, remote, or (not for a batch) merged with data");
  if (batch.length) {
    const current = new Map(batch.map((each) => [`${each.kind}:${each[`${each.kind}Id`]}`, each.currentVersion]));
    const rebase = (edit) => (current.has(keyOf(edit)) ? based(edit, current.get(keyOf(edit)), epoch) : edit);
    return new Operation(id, operation._edits.map(rebase), { isBatch: true });
  }
  const [edit] = operation._edits;
  let whole = isMerge ? data && plain(data) : edit.type === "WIDGET_DELETE" ? null : bodyOf(edit);
  let shown = isMerge ? whole : operation._shown;
  if (!isMerge && conflict.remote === null && isPlain(edit)) {
    whole = shown = operation._shown ?? apply(edit); // the document is gone: keeping mine means all of it, as it was shown
    choice = "merged";
  } else if (!isMerge && edit.type !== "WIDGET_DELETE" && (!isPlain(edit) || edit.payload.unset)) {
    return new Operation(id, [based(edit, baseVersion, epoch)], { shown });
  }
  const name = `${kind}Id`;
  const resolved = { conflictId, resolution: choice, [name]: documentId, data: whole, baseVersion, epoch };
  const type = kind === "layout" ? "LAYOUT_UPDATE" : whole ? "WIDGET_UPDATE" : "WIDGET_DELETE";
  const effect = { type, payload: { [name]: documentId, [bodyName(type)]: whole ?? undefined, baseVersion, epoch } };
  return new Operation(id, [effect], { resolution: resolved, shown });
}

/**
 * Operations kept until their verdict, in a web Storage, by user, dashboard and device. A tab holds a Web Lock on its device;
 * one that begins takes over, with its id, the queue of a tab that is gone. Without locks (no secure context) it keeps its own.
 */
class Queue {
  deviceId = null;
  #places = 0;
  #release = null;

  constructor(env, names) {
    this.env = env;
    this.prefix = `${["tornado-rt", ...names].map(encodeURIComponent).join("/")}/`;
  }

  /** Take a device, `wanted` or the one that this tab had before if it is free; returns what was left over. */
  async open(wanted = this.env.session?.getItem(this.prefix)) {
    for (let attempt = 0; wanted && attempt < 5; attempt++) {
      if (await this.#take(wanted)) return this.#load();
      await new Promise((resolve) => this.env.setTimeout(resolve, 50)); // a page that is being reloaded is still letting go
    }
    const found = await this.takeOver();
    if (!this.deviceId && !(await this.#take(this.env.newId()))) this.deviceId = this.env.newId();
    return found ?? this.#load();
  }

  /** The operations of a tab that is gone, whose device this one is from now on; null where there are none. */
  async takeOver() {
    const devices = new Set(this.#keys().map((key) => key.slice(this.prefix.length).split("/")[0]));
    for (const device of this.env.locks ? devices : []) {
      if (device !== this.deviceId && (await this.#take(device))) return this.#load();
    }
    return null;
  }

  async #take(device) {
    const { locks, session } = this.env;
    const release = locks ? await hold(locks, this.prefix + device) : () => {};
    if (!release) return false;
    this.#release?.();
    this.#release = release;
    this.deviceId = device;
    session?.setItem(this.prefix, device);
    return true;
  }

  #keys() {
    const { storage } = this.env;
    const all = Array.from({ length: storage?.length ?? 0 }, (_, index) => storage.key(index));
    return all.filter((key) => key?.startsWith(this.prefix));
  }

  #load() {
    const mine = this.#keys().filter((key) => key.startsWith(`${this.prefix}${this.deviceId}/`));
    const places = mine.map((key) => Number(key.split("/").at(-1))).sort((a, b) => a - b);
    this.#places = Math.max(this.#places, ...places);
    return places.flatMap((place) => {
      try {
        const kept = JSON.parse(this.env.storage.getItem(this.#key(place)));
        return [Object.assign(new Operation(kept.id, kept.edits, kept), { _place: place })];
      } catch {
        return []; // not of our making
      }
    });
  }

  #key(place) {
    return `${this.prefix}${this.deviceId}/${place}`;
  }

  /** Keep an operation in its place, or in that of another; throws QUEUE_FULL where the browser has no more room. */
  put(operation, { _place } = operation) {
    operation._place = _place ?? ++this.#places;
    if (!this.deviceId || !this.env.storage) return;
    try {
      this.env.storage.setItem(this.#key(operation._place), operation._dump());
    } catch (fault) {
      throw new RealtimeError("QUEUE_FULL", `the browser keeps no more: ${fault.message}`);
    }
  }

  drop({ _place }) {
    if (this.deviceId) this.env.storage?.removeItem(this.#key(_place));
  }

  close() {
    this.#release?.();
    this.#release = null;
  }
}

/** A function that lets go of a lock; null while somebody else has it. */
const hold = (locks, name) =>
  new Promise((resolve) => {
    const held = (lock) => (lock ? new Promise((release) => resolve(release)) : resolve(null));
    locks.request(name, { ifAvailable: true }, held).catch(() => resolve(null));
  });

/** What a close means: come back or not, with a new token or not, after `retryAfterMs` if given. */
function afterClose(code, reason, farewell) {
  const isExpired = (farewell?.reason ?? reason) === "Token expired";
  if (farewell) return { comesBack: farewell.reconnect ?? true, isExpired, retryAfterMs: farewell.retryAfterMs };
  return { comesBack: code !== 1008 || isExpired, isExpired: code === 1008 && isExpired };
}

function addressesOf(url = "/") {
  const http = new URL(url, globalThis.location?.href);
  const isSecure = /^(https|wss):$/.test(http.protocol);
  http.search = http.hash = "";
  http.pathname = http.pathname.replace(/\/+$/, "").replace(/(\/api\/realtime)?$/, "/api/realtime");
  http.protocol = isSecure ? "https:" : "http:";
  const socket = new URL(http);
  socket.protocol = isSecure ? "wss:" : "ws:";
  return { http: http.href, socket: socket.href };
}

/** The `sub` of a signed token, unchecked (the server checks it). */
function subjectOf(token) {
  try {
    const body = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(body, (sign) => sign.charCodeAt(0)))).sub;
  } catch {
    return undefined;
  }
}

/** What the client needs of its surroundings; tests hand in their own. */
function surroundings(given = {}) {
  const allowed = (name) => {
    try {
      return globalThis[name] ?? null;
    } catch {
      return null; // a browser that keeps nothing throws
    }
  };
  let last = 0;
  let shift = 0;
  return {
    WebSocket: globalThis.WebSocket,
    fetch: (...all) => globalThis.fetch(...all),
    setTimeout: (act, ms) => globalThis.setTimeout(act, ms),
    clearTimeout: (timer) => globalThis.clearTimeout(timer),
    /** The time of day, except that it does not go back when somebody sets the clock. */
    now: () => {
      const at = Date.now() + shift;
      if (at < last) shift += last - at;
      return (last = Math.max(at, last));
    },
    random: Math.random,
    newId: () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    storage: allowed("localStorage"),
    session: allowed("sessionStorage"),
    locks: globalThis.navigator?.locks ?? null,
    network: globalThis.addEventListener ? globalThis : null,
    ...given,
  };
}

const DEFAULTS = {
  dashboardId: "default",
  reconnectAttempts: Infinity,
  reconnectDelay: 1_000,
  maxMessageQueueSize: 1_000,
  maxPendingOperations: 100,
  operationTimeout: 30_000,
  enableConflictDetection: true,
  syncInterval: 30_000,
  maxQueueSize: 500,
  retryAttempts: 3,
  retryDelay: 5_000,
  batchSize: 50,
  batchInterval: 200,
  debounce: 100,
};

/** A client of one dashboard. See realtime.d.ts for the options, and docs/browser.md. */
export class RealtimeClient {
  #options;
  #env;
  #addresses;
  #engine;
  #queue = null;
  #token = null;
  #needsToken = true;
  #state = "DISCONNECTED";
  #syncState = "IDLE";
  #socket = null;
  #attempt = 0; // of connecting; what belongs to an older one is not heard
  #isDialling = false;
  #failures = 0;
  #startedAt = 0;
  #heardAt = 0;
  #patience = HANDSHAKE_MS;
  #isPosting = false;
  #syncFailures = 0;
  #isPumpingSoon = false;
  #isClosed = false;
  #ready = null; // who waits for `connect`
  #messages = []; // given to `send` while there was no connection
  #answers = new Map(); // by message id: who waits for the answer
  #timers = new Map();
  #listeners = new Map(EVENTS.map((name) => [name, new Set()]));
  #edited = new Map(); // by key: which fields were edited last, and when
  #onNetwork = (event) => this.#networkChanged(event.type === "online");

  constructor(options) {
    const { storage, environment, ...rest } = options;
    const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
    this.#options = { ...DEFAULTS, ...given };
    this.#env = surroundings({ ...(storage !== undefined && { storage }), ...environment });
    this.#addresses = addressesOf(options.url);
    if (!options.userId && !options.token) throw new RealtimeError("UNAUTHORIZED", "a client needs a userId or a token");
    const unborn = { put: () => {}, drop: () => {} }; // until the device is known
    this.#engine = new Engine(options.userId ?? "", this.#options, unborn, this.#env);
    for (const name of ["online", "offline"]) this.#env.network?.addEventListener(name, this.#onNetwork);
  }

  // How things stand

  error = null;
  retryAt = null;
  lastSyncAt = null;

  get state() {
    return this.#state;
  }

  get syncState() {
    return this.#syncState;
  }

  get widgets() {
    return this.#engine.view("widget");
  }

  get layouts() {
    return this.#engine.view("layout");
  }

  get position() {
    return this.#engine.replica.position;
  }

  get epoch() {
    return this.#engine.replica.epoch;
  }

  get userId() {
    return this.#engine.userId;
  }

  get dashboardId() {
    return this.#options.dashboardId;
  }

  get deviceId() {
    return this.#queue?.deviceId ?? null;
  }

  get clientId() {
    return this.#engine.connection?.clientId ?? null;
  }

  get clientCount() {
    return this.#engine.clientCount;
  }

  get permissions() {
    return this.#engine.connection?.permissions ?? [];
  }

  get pending() {
    return this.#engine.pending;
  }

  get failed() {
    return this.#engine.failed;
  }

  get conflicts() {
    return [...this.#engine.conflicted.values()].map(({ conflict }) => conflict);
  }

  get queueSize() {
    return this.pending.length + this.#engine.conflicted.size;
  }

  info(kind, id) {
    const { fields, ...rest } = this.#engine.replica.documents.get(`${kind}:${id}`) ?? {};
    return fields ? rest : null;
  }

  on(event, listener) {
    const all = this.#listeners.get(event);
    if (!all) throw new RealtimeError("INVALID_MESSAGE", `there is no event ${event}; there are ${EVENTS.join(", ")}`);
    all.add(listener);
    return () => all.delete(listener);
  }

  #tell(event, value) {
    for (const listener of this.#listeners.get(event)) {
      try {
        listener(value);
      } catch (fault) {
        (globalThis.reportError ?? console.error)(fault); // it harms nobody else
      }
    }
  }

  // Changing documents

  update(widgetId, data, { debounce, ...how } = {}) {
    return this.#submit({ type: "WIDGET_UPDATE", payload: { widgetId, data: plain(data), ...meant(how) } }, debounce);
  }

  delete(widgetId, how = {}) {
    return this.#submit({ type: "WIDGET_DELETE", payload: { widgetId, ...meant(how) } }, 0);
  }

  updateLayout(layout, { debounce, layoutId = "default", ...how } = {}) {
    return this.#submit({ type: "LAYOUT_UPDATE", payload: { layoutId, layout: plain(layout), ...meant(how) } }, debounce);
  }

  restoreLayout({ layoutId = "default", version, ...how } = {}) {
    return this.#submit({ type: "LAYOUT_RESTORE", payload: { layoutId, version, ...meant(how) } }, 0);
  }

  batch(edits, { atomic = true } = {}) {
    const copies = edits.map(({ type, payload }) => ({ type, payload: plain(payload) }));
    if (!atomic) return copies.map((edit) => this.#submit(edit, 0));
    return this.#act(() => this.#engine.submitBatch(copies, this.#env.now()));
  }

  resolve(conflictId, choice, data) {
    return this.#act(() => this.#engine.resolve(conflictId, choice, data));
  }

  retry(operation) {
    this.#act(() => this.#engine.retry(operation, this.#env.now()));
  }

  rollback(operation) {
    this.#act(() => this.#engine.rollback(operation));
  }

  /**
   * A hold that the caller names begins with the first edit. Otherwise the first edit of a field leaves at once, and only what
   * follows it closely is held, but no longer than a batch: somebody who drags is seen to move.
   */
  #submit(edit, hold) {
    const now = this.#env.now();
    const { debounce, batchInterval } = this.#options;
    if (hold !== undefined || !isPlain(edit)) return this.#act(() => this.#engine.submit(edit, now, hold));
    const names = [...touches(edit)].sort().join("\0");
    const last = this.#edited.get(keyOf(edit));
    this.#edited.set(keyOf(edit), { names, now });
    const isClose = last?.names === names && now - last.now < debounce;
    return this.#act(() => this.#engine.submit(edit, now, isClose ? debounce : 0, now + batchInterval));
  }

  #act(work) {
    if (this.#isClosed) throw closedError("the client is closed");
    const made = work();
    this.#pumpSoon();
    return made;
  }

  // Messages of one's own

  send(type, payload = {}) {
    const frame = { type, id: this.#env.newId(), userId: this.userId, payload };
    if (this.#engine.connection) this.#write(frame);
    else if (this.#messages.length < this.#options.maxMessageQueueSize) this.#messages.push(frame);
    else throw new RealtimeError("QUEUE_FULL", `${this.#messages.length} messages wait already; this one was not taken`);
    return frame.id;
  }

  request(type, payload) {
    return new Promise((resolve, reject) => {
      const id = this.send(type, payload);
      const late = () => this.#answers.get(id)?.reject(new RealtimeError("TIMEOUT", `no answer to ${type}`));
      const end = (settle) => (value) => {
        this.#answers.delete(id);
        this.#clear(id);
        settle(value);
      };
      this.#answers.set(id, { resolve: end(resolve), reject: end(reject) });
      this.#later(id, this.#options.operationTimeout, late);
    });
  }

  async ping() {
    const sentAt = this.#env.now();
    await this.request("PING");
    return this.#env.now() - sentAt;
  }

  // The connection

  connect() {
    if (this.#isClosed) return Promise.reject(closedError("the client is closed"));
    if (this.#state === "CONNECTED" && !this.#ready) return Promise.resolve();
    if (!this.#ready) {
      const ready = (this.#ready = {});
      ready.promise = new Promise((resolve, reject) => Object.assign(ready, { resolve, reject }));
      ready.promise.catch(() => {}); // perhaps nobody waits
    }
    const { promise } = this.#ready;
    if (!this.#isDialling && !this.#socket) {
      this.#failures = 0;
      this.#dial();
    }
    return promise;
  }

  disconnect() {
    if (this.#state === "CONNECTED") {
      this.#engine.emit("DISCONNECT", {});
      this.#writeFrames();
    }
    this.#hangUp();
    for (const name of ["dial", "sync"]) this.#clear(name);
    this.#become("DISCONNECTED");
    this.#syncBecomes("IDLE");
    this.#end(closedError("disconnected"));
    this.#pumpSoon();
  }

  close() {
    this.disconnect();
    this.#isClosed = true;
    for (const name of ["online", "offline"]) this.#env.network?.removeEventListener(name, this.#onNetwork);
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    this.#queue?.close();
  }

  /** One attempt to connect, from asking for a token to the open socket. */
  async #dial() {
    const attempt = ++this.#attempt;
    this.#isDialling = true;
    this.#clear("dial");
    this.retryAt = null;
    this.#become(this.#state === "RECONNECTING" ? "RECONNECTING" : "CONNECTING");
    try {
      await this.#begin();
      if (attempt !== this.#attempt) return;
      this.#isDialling = false;
      this.#openSocket(attempt);
    } catch (fault) {
      if (attempt === this.#attempt) this.#lost(0, fault.message, false);
    }
  }

  /** Who we are, and what an earlier page left over. */
  async #begin() {
    const { token, userId, dashboardId, deviceId } = this.#options;
    if (token && this.#needsToken) this.#token = typeof token === "function" ? await token() : token;
    this.#needsToken = false;
    const engine = this.#engine;
    engine.userId ||= userId ?? subjectOf(this.#token ?? "") ?? "";
    if (this.#queue) return;
    const queue = new Queue(this.#env, [this.#addresses.http, engine.userId, dashboardId]);
    const left = await queue.open(deviceId);
    if (this.#queue || this.#isClosed) return queue.close(); // another attempt was quicker
    this.#queue = engine.queue = queue;
    for (const operation of engine.pending) queue.put(operation);
    engine.takeBack(left);
    this.#pump();
  }

  #openSocket(attempt) {
    const query = this.#query({ dashboardId: this.dashboardId, deviceId: this.deviceId, ...this.#engine.resume });
    const protocols = this.#token ? ["bearer", this.#token] : [];
    const socket = (this.#socket = new this.#env.WebSocket(this.#addresses.socket + query, protocols));
    this.#startedAt = this.#heardAt = this.#env.now();
    this.#patience = HANDSHAKE_MS;
    socket.onmessage = ({ data }) => attempt === this.#attempt && this.#hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => attempt === this.#attempt && this.#lost(code, reason, this.#state === "CONNECTED");
    this.#watch();
  }

  #query(parts) {
    const all = { ...parts, userId: this.#token ? undefined : this.userId };
    return `?${new URLSearchParams(Object.entries(all).filter(([, value]) => value !== undefined))}`;
  }

  /** A socket that says nothing for two heartbeats is dead, whatever it claims. */
  #watch() {
    const left = this.#heardAt + this.#patience - this.#env.now();
    if (left > 0) this.#later("watch", left, () => this.#watch());
    else this.#lost(1006, "the server was silent for too long", this.#state === "CONNECTED");
  }

  #hear(frame) {
    this.#heardAt = this.#env.now();
    this.#engine.receive(frame, this.#heardAt);
    if (!this.#engine.isBehind) this.lastSyncAt = this.#heardAt;
    if (frame.type === "CONNECT") this.#connected(frame.payload);
    const answer = this.#answers.get(frame.correlationId);
    const { code, error, details } = frame.payload ?? {};
    if (frame.type === "NACK") answer?.reject(new RealtimeError(code, error, details));
    else answer?.resolve(frame);
    this.#pump();
  }

  #connected({ heartbeatInterval }) {
    this.#patience = 2 * heartbeatInterval || HANDSHAKE_MS * 6;
    this.#watch();
    this.error = null;
    this.#clear("sync");
    this.#syncFailures = 0;
    this.#become("CONNECTED");
    this.#syncBecomes("IDLE");
    for (const frame of this.#messages.splice(0)) this.#write(frame);
    this.#later("orphans", this.#options.syncInterval, () => this.#adopt());
  }

  /** When nothing of our own waits, become the device of a tab that is gone, so that what it left is sent. */
  async #adopt() {
    const found = this.queueSize ? null : await this.#queue.takeOver();
    if (found && !this.#isClosed) {
      this.#engine.takeBack(found);
      this.#hangUp();
      this.#dial();
    } else if (this.#state === "CONNECTED") this.#later("orphans", this.#options.syncInterval, () => this.#adopt());
  }

  #hangUp() {
    this.#attempt += 1;
    this.#isDialling = false;
    this.#clear("watch");
    this.#clear("orphans");
    if (this.#socket) this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket?.close(1000);
    this.#socket = null;
    this.#engine.closed();
    for (const { reject } of [...this.#answers.values()]) reject(closedError("the connection was cut before the answer came"));
  }

  #lost(code, reason, wasUp) {
    const lived = wasUp ? this.#env.now() - this.#startedAt : 0;
    const { comesBack, isExpired, retryAfterMs } = afterClose(code, reason, this.#engine.farewell);
    this.#hangUp();
    this.#engine.farewell = null;
    this.#needsToken ||= isExpired;
    this.error = reason || "no connection";
    const delay = comesBack ? this.#delay(lived, retryAfterMs) : null;
    if (delay === null) return this.#giveUp();
    this.retryAt = this.#env.now() + delay;
    this.#become("RECONNECTING");
    this.#later("dial", delay, () => this.#dial());
    // After a cut others lost their sockets too: the first round of POSTs comes at a random moment.
    if (!this.#timers.has("sync")) this.#later("sync", wasUp ? this.#env.random() * this.#options.syncInterval : 0, () => this.sync());
    this.#pumpSoon();
  }

  /** Doubling, with full jitter, from the first try on; a connection counts as a success once it has outlived its delay. */
  #delay(lived, retryAfterMs) {
    const { reconnectDelay, reconnectAttempts } = this.#options;
    const ceiling = () => Math.min(MAX_DELAY_MS, reconnectDelay * 2 ** this.#failures);
    if (lived >= ceiling()) this.#failures = 0;
    if (this.#failures >= reconnectAttempts) return null;
    const delay = retryAfterMs ?? this.#env.random() * ceiling();
    this.#failures += 1;
    return delay;
  }

  #giveUp() {
    const fault = new RealtimeError("CLOSED", `the connection ended for good: ${this.error}`);
    this.#clear("sync");
    this.#needsToken = true;
    this.#become("ERROR");
    this.#syncBecomes("IDLE");
    this.#end(fault);
    this.#tell("error", fault);
    this.#pumpSoon();
  }

  #end(fault) {
    this.#ready?.reject(fault);
    this.#ready = null;
  }

  #become(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#tell("state", state);
  }

  #networkChanged(isOnline) {
    if (this.#state === "CONNECTED") {
      this.send("PING"); // is the socket still there?
      this.#heardAt = this.#env.now() + PROBE_MS - this.#patience;
      this.#watch();
    } else if (isOnline && this.#state === "RECONNECTING" && !this.#socket) {
      this.#failures = 0;
      const delay = this.#delay(0);
      this.retryAt = this.#env.now() + delay;
      this.#later("dial", delay, () => this.#dial());
    } else if (this.#isDown) this.#syncBecomes("OFFLINE");
  }

  // By POST, while the socket is down

  get #isDown() {
    return this.#state === "RECONNECTING" || this.#state === "CONNECTING";
  }

  async sync() {
    if (this.#isPosting || !this.#isDown || !this.#queue) return;
    this.#isPosting = true;
    let found = "SYNCING";
    while (found === "SYNCING" && this.#isDown) {
      this.#syncBecomes("SYNCING");
      found = await this.#exchange();
    }
    this.#isPosting = false;
    if (!this.#isDown) return;
    this.#syncBecomes(found);
    const { retryAttempts, retryDelay, syncInterval } = this.#options;
    this.#syncFailures = found === "IDLE" || this.#syncFailures >= retryAttempts ? 0 : this.#syncFailures + 1;
    this.#later("sync", this.#syncFailures ? retryDelay : syncInterval, () => this.sync());
  }

  /** One POST; returns the state of the sync after it, SYNCING where there is more to send. */
  async #exchange() {
    const engine = this.#engine;
    const post = engine.post(this.#env.now());
    let status = 0;
    let answer = {};
    try {
      const headers = { "Content-Type": "application/json", ...(this.#token && { Authorization: `Bearer ${this.#token}` }) };
      const body = JSON.stringify({ ...post.body, dashboardId: this.dashboardId, deviceId: this.deviceId });
      const how = { method: "POST", headers, body, signal: AbortSignal.timeout(POST_MS) };
      const response = await this.#env.fetch(this.#addresses.http + this.#query({}), how);
      status = response.status;
      answer = await response.json();
    } catch (fault) {
      this.error = fault.message; // nobody answered, or a proxy did with a page of its own
    }
    const isRefusal = HTTP_REFUSALS.has(status) && answer.code && post.group.length > 0;
    if (status === 200 && answer.results) {
      engine.posted(post, answer, this.#env.now());
      if (!engine.connection) this.lastSyncAt = this.#env.now();
    } else if (isRefusal) engine.refuseAll(post, answer, this.#env.now());
    else engine.postLost(post);
    this.#needsToken ||= status === 401;
    this.#pump();
    if (isRefusal || (status === 200 && answer.results)) return post.group.length && !engine.isIdle ? "SYNCING" : "IDLE";
    return status ? "ERROR" : "OFFLINE";
  }

  #syncBecomes(state) {
    if (state === this.#syncState) return;
    this.#syncState = state;
    this.#tell("status", state);
  }

  // Moving what the engine has made

  /** With the end of this turn, so that what is submitted together leaves together. */
  #pumpSoon() {
    if (this.#isPumpingSoon) return;
    this.#isPumpingSoon = true;
    queueMicrotask(() => this.#pump());
  }

  #pump() {
    this.#isPumpingSoon = false;
    const engine = this.#engine;
    const now = this.#env.now();
    engine.flush(now);
    this.#writeFrames();
    const viewed = engine.takeViewed();
    const events = engine.events.splice(0);
    if (viewed) this.#tell("view", viewed);
    for (const [name, value] of events) {
      this.#tell(name, value);
      if (name === "sync" && this.#ready) {
        this.#ready.resolve();
        this.#ready = null;
      }
    }
    this.#clear("pump");
    const due = engine.due(now);
    if (due < Infinity && !this.#isClosed) this.#later("pump", Math.max(1, due - now), () => this.#pump());
  }

  #writeFrames() {
    for (const frame of this.#engine.frames.splice(0)) this.#write(frame);
  }

  #write(frame) {
    // 1 is OPEN; what a socket that goes down swallows is repeated, since no answer comes.
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify({ ...frame, timestamp: new Date().toISOString() }));
  }

  #later(name, ms, act) {
    this.#clear(name);
    const fire = () => {
      this.#timers.delete(name);
      act();
    };
    this.#timers.set(name, this.#env.setTimeout(fire, Math.min(ms, 2 ** 31 - 1)));
  }

  #clear(name) {
    this.#env.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

const closedError = (message) => new RealtimeError("CLOSED", message);

/** The parts of a payload that say how it is meant. */
const meant = ({ unset, replace, baseVersion }) => ({
  unset: unset?.length ? [...unset] : undefined,
  replace: replace || undefined,
  baseVersion,
});
