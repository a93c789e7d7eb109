/** The browser's client, without DOM. What it offers: realtime.d.ts; how it works: docs/browser.md. */

export class RealtimeError extends Error {
  name = "RealtimeError";
  constructor(code, message, more) {
    super(message);
    Object.assign(this, { code, details: [] }, more);
  }
}

const fail = (code, message) => {
  throw new RealtimeError(code, message);
};


// An edit is `{type, payload}` as on the wire; a key is `widget:` or `layout:` and an id. Fields may be called `__proto__`:
// objects are spread, never assigned to by name.

const keyOf = ({ payload: { widgetId, layoutId = "default" } }) =>
  widgetId === undefined ? `layout:${layoutId}` : `widget:${widgetId}`;
const named = (key) => ({ kind: key.slice(0, 6), id: key.slice(7) });
const bodyOf = ({ payload }) => payload.data ?? payload.layout;
const withPayload = (edit, more) => ({ ...edit, payload: { ...edit.payload, ...more } });
const isPlain = ({ type, payload }) => type.endsWith("_UPDATE") && !payload.replace;

// null: all fields; undefined: no document

const touched = (edit) => (isPlain(edit) ? [...Object.keys(bodyOf(edit) ?? {}), ...(edit.payload.unset ?? [])].sort() : null);
const isAlike = (edit, other) => JSON.stringify(touched(edit)) === JSON.stringify(touched(other));


function apply(edit, fields) {
  const body = bodyOf(edit);
  if (edit.type === "WIDGET_DELETE") return undefined;
  if (!body) return fields; // a LAYOUT_RESTORE, whose outcome only the server knows
  if (!isPlain(edit)) return { ...body };
  const merged = { ...fields, ...body };
  for (const name of edit.payload.unset ?? []) delete merged[name];
  return merged;
}


function without(edit, names) {
  if (!names || !isPlain(edit)) return names && edit;
  const isLeft = (name) => !names.includes(name);
  const body = Object.fromEntries(Object.entries(bodyOf(edit)).filter(([name]) => isLeft(name)));
  const unset = edit.payload.unset?.filter(isLeft);
  const rest = withPayload(edit, { [edit.payload.data ? "data" : "layout"]: body, unset: unset?.length ? unset : undefined });
  return touched(rest).length ? rest : null;
}

function plain(value) {
  if (Object(value) !== value || Array.isArray(value)) fail("INVALID_MESSAGE", "not an object");
  const check = (_, each) => (typeof each !== "number" || isFinite(each) ? each : fail("INVALID_MESSAGE", "not a number"));
  return JSON.parse(JSON.stringify(value, check));
}

class Operation {
  state = "PENDING";
  attempts = 0;
  error = null;
  result = null;
  conflict = null;
  _carrier = null; // message or POST
  _hasLeft = false; // it may have been applied
  _isRefused = false; // it certainly was not
  _isResumed = false;
  _notBefore = 0;
  _overtaken = new Map(); // by key: fields that later ones have set
  _lost = new Set(); // documents that somebody deleted
  _followers = [];

  constructor(id, edits, kept) {
    this._kept = kept;
    this.createdAt = kept.createdAt;
    this._revise(id, edits);
  }

  _revise(id, edits) {
    const { isBatch, resolution } = this._kept;
    const [{ type, payload }] = edits;
    const parts = edits.map((edit, index) => ({ operationId: `${id}.${index}`, ...edit }));
    this.id = id;
    this._edits = edits;
    this._keys = new Set(edits.map(keyOf));
    this._isPlain = !resolution && !isBatch && isPlain(edits[0]);
    this.documents = [...this._keys].map(named);
    this.type = resolution ? "CONFLICT_RESOLVED" : isBatch ? "WIDGET_BATCH" : type;
    this.payload = resolution ?? (isBatch ? { operations: parts, atomic: true } : payload);
    this._wire = { operationId: id, type: this.type, payload: this.payload };
    this._size = new TextEncoder().encode(JSON.stringify(this._wire)).length + 1;
  }

  get done() {
    return (this._done ??= new Promise((resolve, reject) => {
      this._answer = () => (this.result ? resolve(this.result) : reject(this.error));
      if (this._isSettled) this._answer();
    }));
  }

  _onto(key, fields) {
    for (const edit of this._lost.has(key) ? [] : this._edits) {
      const rest = keyOf(edit) === key && (this._overtaken.has(key) ? without(edit, this._overtaken.get(key)) : edit);
      if (rest) fields = apply(rest, fields);
    }
    return fields;
  }
}

const leavesOf = (group) => group.flatMap((op) => op._edits).length;

const isRetryable = ({ retryable, code }) => retryable ?? ["RATE_LIMITED", "UNAVAILABLE", "INTERNAL"].includes(code);


/** The rules, without sockets and timers. */
class Engine {
  userId = "";
  dashboardId = "default";
  reconnectAttempts = Infinity;
  reconnectDelay = 1000;
  maxMessageQueueSize = 1000;
  maxPendingOperations = 100;
  operationTimeout = 30000;
  enableConflictDetection = true;
  syncInterval = 30000;
  maxQueueSize = 500;
  retryAttempts = 3;
  retryDelay = 5000;
  batchSize = 50;
  batchInterval = 200;
  debounce = 0;
  position = 0;
  epoch = null;
  permissions = [];
  widgets = new Map();
  layouts = new Map();
  _events = [];
  _outbox = new Set(); // confirmed ones stay until their change is here
  _connection = null; // CONNECT's payload
  _farewell = null;
  _askAt = Infinity;
  #asked;
  #documents = new Map();
  #carriers = new Map();
  #open = new Map();
  #failed = new Set();
  #viewed = new Set();
  #batchAt = 0;
  #tokens = 0;
  #filledAt = 0;

  get pending() {
    return [...this._outbox].filter((op) => !op._isSettled);
  }

  get failed() {
    return [...this.#failed];
  }

  get conflicts() {
    return [...this.#open.values()].map((op) => op.conflict);
  }

  get queueSize() {
    return this._kept.length;
  }

  get _kept() {
    return [...this.#open.values(), ...this.pending];
  }

  info(kind, id) {
    const { fields, ...rest } = this.#documents.get(`${kind}:${id}`) ?? {};
    return fields ? rest : null;
  }

  get _resume() {
    return { since: this.position, epoch: this.epoch ?? undefined };
  }

  #limit(name, otherwise) {
    return (this._connection?.limits?.[name] ?? otherwise) || Infinity;
  }

  get #room() {
    return this.#limit("maxMessageBytes", 262144) - 1024;
  }

  #document(key) {
    let fields = this.#documents.get(key)?.fields;
    for (const op of this._outbox) if (op._keys.has(key)) fields = op._onto(key, fields);
    return fields;
  }

  #show(keys) {
    for (const key of keys) {
      const { kind, id } = named(key);
      const fields = this.#document(key);
      if (fields) this[`${kind}s`].set(id, fields);
      else this[`${kind}s`].delete(id);
      this.#viewed.add(key);
    }
  }

  _takeEvents() {
    const view = { widgets: [], layouts: [] };
    for (const key of this.#viewed) view[`${key.slice(0, 6)}s`].push(key.slice(7));
    if (this.#viewed.size) this._events.unshift(["view", view]);
    this.#viewed.clear();
    return this._events.splice(0);
  }

  #set(op, changes) {
    Object.assign(op, changes);
    this.#show(op._keys);
    this._events.push(["operation", op]);
    this._isDirty = true;
  }

  #settle(op, state, outcome) {
    this.#set(op, { state, error: null, _carrier: null, _isSettled: true, ...outcome });
    op._answer?.();
    for (const each of op._followers) this.#settle(each, state, outcome);
  }

  // What the person does

  _submit(edit, hold = 0) {
    const _notBefore = hold && this._now() + hold;
    const key = keyOf(edit);
    const last = this.pending.findLast((op) => op._keys.has(key));
    const held = last?.attempts === 0 && !last._hasLeft && last._isPlain && last;
    if (held && isAlike(held._edits[0], edit)) {
      const { baseVersion, epoch } = held.payload;
      held._revise(held.id, [withPayload(edit, { baseVersion, epoch })]);
      this.#set(held, hold && { _notBefore });
      held._kept.shown = this.#document(key);
      this._wake();
      return held;
    }
    const shown = apply(edit, this.#document(key));
    const op = this.#admit(new Operation(this._newId(), [this.#rebased(edit)], { createdAt: this._now(), shown }));
    Object.assign(op, { _notBefore });
    if (held && edit.type === "WIDGET_DELETE") {
      this._outbox.delete(held);
      op._followers.push(held);
    }
    return op;
  }

  _submitBatch(edits) {
    const most = this.#limit("maxOperations", 50);
    if (!edits.length || edits.length > most) fail("TOO_LARGE", `a batch has 1 to ${most} edits`);
    const kept = { createdAt: this._now(), isBatch: true };
    return this.#admit(new Operation(this._newId(), edits.map((edit) => this.#rebased(edit)), kept));
  }

  /** With the base that the person saw. */
  #rebased(edit) {
    const { baseVersion = this.#document(keyOf(edit)) && this.position, epoch = this.epoch } = edit.payload;
    const isBased = this.enableConflictDetection && this.epoch && baseVersion !== undefined;
    return withPayload(edit, isBased ? { baseVersion, epoch } : { baseVersion: undefined });
  }

  #admit(op) {
    if (this.queueSize >= this.maxQueueSize) fail("QUEUE_FULL", `${this.queueSize} operations wait already`);
    if (op._size > this.#room) fail("TOO_LARGE", `it has more than ${this.#room} bytes`);
    this._wake();
    this._outbox.add(op);
    if (!this._save()) {
      this._outbox.delete(op);
      fail("QUEUE_FULL", "the browser keeps no more");
    }
    this.#set(op);
    return op;
  }

  _takeBack(ops) {
    this._outbox = new Set([...ops, ...this._outbox]);
    for (const op of ops) this.#set(op, { _hasLeft: true });
  }

  resolve(conflictId, choice, data) {
    const op = this.#open.get(conflictId) ?? fail("CONFLICT_UNKNOWN", "no such conflict is open");
    const { conflict } = op;
    const answer = choice === "remote" ? null : this.#resolution(op, choice, data);
    this._wake();
    this.#open.delete(conflictId);
    this._isDirty = true;
    if (answer) {
      this._outbox.add(answer);
      this.#set(answer);
    } else if (op._isToldOf) this._emit("CONFLICT_RESOLVED", { conflictId, resolution: "remote" });
    this._events.push(["resolved", { conflict, choice }]);
    return answer;
  }

  /** A self-contained CONFLICT_RESOLVED; what that cannot say is the same operation again on the new base. */
  #resolution({ conflict, _edits, _kept }, choice, data) {
    const { conflictId, kind, documentId, currentVersion: baseVersion, batch } = conflict;
    const { epoch } = this._resume;
    const isMerged = choice === "merged" && data !== undefined && !batch.length;
    if (!isMerged && choice !== "local") fail("INVALID_MESSAGE", "choose local, remote or merged (with data)");
    const bases = new Map([conflict, ...batch].map((each) => [keyOf({ payload: each }), each.currentVersion]));
    const rebase = (edit, base) => (base === undefined ? edit : withPayload(edit, { baseVersion: base, epoch }));
    const edits = _edits.map((edit) => rebase(edit, bases.get(keyOf(edit))));
    const [edit] = edits;
    const kept = { ..._kept, createdAt: this._now(), resolution: undefined };
    const isDelete = edit.type === "WIDGET_DELETE";
    const isGone = !conflict.remote && isPlain(edit); // mine is then all of it, as it was shown
    const canSay = isMerged || isGone || isDelete || (isPlain(edit) && !edit.payload.unset);
    if (batch.length || !canSay) return new Operation(this._newId(), edits, kept);
    if (isMerged) kept.shown = data && plain(data);
    const body = isMerged || isGone ? kept.shown ?? null : isDelete ? null : bodyOf(edit);
    const base = { [`${kind}Id`]: documentId, baseVersion, epoch };
    kept.resolution = { conflictId, resolution: isMerged || isGone ? "merged" : choice, data: body, ...base };
    const type = kind === "layout" ? "LAYOUT_UPDATE" : body ? "WIDGET_UPDATE" : "WIDGET_DELETE";
    return new Operation(this._newId(), [{ type, payload: { ...base, [kind === "layout" ? kind : "data"]: body } }], kept);
  }

  retry(op) {
    this.#failed.delete(op) || fail("NOT_POSSIBLE", "it has not failed");
    Object.assign(op, { state: "PENDING", attempts: 0, error: null, _hasLeft: false, _isRefused: false });
    Object.assign(op, { _isSettled: false, _done: undefined });
    op._revise(this._newId(), op._edits);
    this.#admit(op);
  }

  rollback(op) {
    this._wake();
    if (this.#open.has(op.conflict?.conflictId)) this.resolve(op.conflict.conflictId, "remote");
    else if (this.#failed.delete(op)) this.#set(op);
    else if (op._isSettled || op._hasLeft) fail("NOT_POSSIBLE", "it has left and may have been applied");
    else this.#fail(op, new RealtimeError("ROLLED_BACK", "given up"));
  }

  #fail(op, error) {
    this._outbox.delete(op);
    this.#settle(op, "FAILED", { error });
  }

  // What the server says

  _receive(frame) {
    const { type, payload = {}, correlationId: id } = frame;
    const group = this.#carriers.get(id);
    this.#carriers.delete(id);
    if (type === "CONNECT") this.#connected(frame, payload);
    else if (type === "DISCONNECT") this._farewell = payload;
    else if (type === "PING") {
      this._emit("PONG", {}, frame.id);
      if (payload.seq > this.position) this.#ask();
    } else if (type === "SYNC_RESPONSE") this._takeSync(payload);
    else if (type === "SYNC_UPDATE" && "fromSeq" in payload) this.#takeMerged(payload);
    else if (type === "NACK" && group) this._refuseAll(id, group, payload);
    else if (type === "NACK" && id === this.#asked) this._askAt = this._now() + (payload.retryAfterMs ?? 1000);
    else if (type === "NACK") this._events.push(["refused", frame]);
    else if (type === "ACK" && group) {
      const isOne = group[0].id === id;
      this._results(id, group, isOne ? [{ status: "success", ...payload, operationId: id }] : payload.results ?? [], frame);
    } else if (type === "ACK") this.#stray(payload);
    else if (type === "CONFLICT_DETECTED" && group) {
      this._results(id, group, [{ operationId: group[0].id, status: "conflict", conflict: payload }], frame);
    } else if (/^(WIDGET|LAYOUT)_/.test(type) && payload.seq) {
      if (payload.seq === this.position + 1) this.#takeChange(frame);
      else if (payload.seq > this.position) this.#ask();
    } else if (type !== "PONG") this._events.push(["message", frame]);
  }

  #connected(frame, payload) {
    this.userId = frame.userId || this.userId;
    this._connection = payload;
    this.permissions = payload.permissions;
    this._farewell = null;
    this.#tokens = Infinity;
    for (const op of this._outbox) op._isResumed = true;
    if (payload.sync) this._takeSync(payload.sync);
    else this.#ask();
  }

  _closed() {
    this._connection = null;
    this._askAt = Infinity;
    for (const [id, group] of this.#carriers) this._unanswered(id, group);
    this.#carriers.clear();
    for (const op of this.#open.values()) op._isToldOf = false;
  }

  #ask(isWhole) {
    if (this._askAt < Infinity || !this._connection) return;
    this.#asked = this._emit("SYNC_REQUEST", isWhole ? {} : this._resume);
    this._askAt = this._now() + this.operationTimeout;
  }

  _takeSync(payload) {
    const { mode, epoch, seq } = payload;
    this._askAt = Infinity;
    if (mode === "snapshot") this.#takeWhole(payload);
    else if (epoch !== this.epoch) return this.#ask(true);
    else if (mode === "merged") this.#takeMerged(payload);
    else {
      for (const change of payload.operations) if (change.seq === this.position + 1) this.#takeChange(change);
      if (seq > this.position) return this.#ask(true);
    }
    this._events.push(["sync", { mode, seq: this.position }]);
  }

  #takeMerged(payload) {
    if (payload.fromSeq > this.position) this.#ask();
    else if (payload.seq >= this.position) this.#takeWhole(payload);
  }

  #takeWhole(payload) {
    const kinds = ["widget", "layout"];
    const keys = new Set(payload.mode === "snapshot" ? this.#documents.keys() : []);
    for (const kind of kinds) for (const id of payload.deleted?.[`${kind}s`] ?? []) keys.add(`${kind}:${id}`);
    for (const key of keys) this.#documents.delete(key);
    for (const kind of kinds) {
      for (const [id, { data, layout, ...rest }] of Object.entries(payload[`${kind}s`] ?? {})) {
        keys.add(`${kind}:${id}`);
        this.#documents.set(`${kind}:${id}`, { fields: data ?? layout, ...rest });
      }
    }
    this.epoch = payload.epoch ?? this.epoch;
    const type = payload.mode ? "SYNC_RESPONSE" : "SYNC_UPDATE";
    this.#moved(payload.seq, keys, { type, userId: "", timestamp: payload.timestamp, payload });
  }

  #takeChange(change) {
    const { type, payload } = change;
    this.#takeEdits(type === "WIDGET_BATCH" ? payload.operations : [change], payload.seq ?? change.seq, change);
  }

  #takeEdits(edits, seq, change, isOwn) {
    for (const edit of edits) {
      const key = keyOf(edit);
      const before = this.#documents.get(key);
      const fields = apply(edit, before?.fields);
      const history = key[0] === "l" ? [...new Set(before?.history).add(seq)].slice(-50) : undefined;
      const { timestamp: updatedAt, userId: updatedBy } = change;
      if (fields) this.#documents.set(key, { fields, version: seq, updatedAt, updatedBy, history });
      else this.#documents.delete(key);
    }
    this.#moved(seq, new Set(edits.map(keyOf)), change, isOwn);
  }

  /** A late edit of what somebody deleted is not shown. */
  #moved(seq, keys, { type, userId, timestamp, payload }, isOwn = false) {
    const isSnapshot = payload.mode === "snapshot";
    const made = new Set();
    this.position = seq;
    for (const op of this.pending) {
      for (const edit of op._edits) {
        const key = keyOf(edit);
        const { kind, id } = named(key);
        if (edit.payload.baseVersion === undefined) made.add(key);
        else if ((isSnapshot || keys.has(key)) && !this.#documents.has(key) && !made.has(key)) {
          op._kept.shown = this[`${kind}s`].get(id) ?? op._kept.shown;
          op._lost.add(key);
          keys.add(key);
        }
      }
    }
    this.#forgetSeen(isSnapshot);
    this.#show(keys);
    this._events.push(["change", { type, seq, userId, timestamp, payload, documents: [...keys].map(named), isOwn }]);
  }

  #forgetSeen(isSnapshot) {
    for (const op of this._outbox) {
      if (op.state !== "CONFIRMED" || (!isSnapshot && op.result.seq > this.position)) continue;
      this._outbox.delete(op);
      this.#show(op._keys);
    }
  }

  #stray({ seq, duplicate, resolved }) {
    if (seq > this.position && !duplicate && !resolved) this.#ask();
  }

  /** To what was repeated meanwhile a refusal is no verdict: the repetition may be applied. */
  _results(id, group, results, frame) {
    const found = group.map((op) => {
      const missing = { retryable: true, retryAfterMs: 1000, outcome: "unknown" };
      const whole = results.find(({ operationId }) => operationId === op.id) ?? missing;
      return [op, whole.results?.length ? joined(whole) : whole];
    });
    found.sort(([, a], [, b]) => (a.seq ?? 0) - (b.seq ?? 0));
    for (const [op, verdict] of found) {
      if (op._isSettled) this.#stray(verdict);
      else if (verdict.status === "success") this.#confirm(op, verdict, frame);
      else if (verdict.status === "conflict") this.#collide(op, verdict, frame);
      else if (op._carrier === id) this.#refuse(op, verdict);
    }
  }

  #confirm(op, { seq = null, version = seq, merged = [], duplicate = false, superseded = false }, frame) {
    for (const earlier of this.pending) {
      if (earlier === op) break;
      for (const edit of op._edits) {
        const key = keyOf(edit);
        const known = earlier._overtaken.has(key) ? earlier._overtaken.get(key) : [];
        const more = touched(edit);
        earlier._overtaken.set(key, known && more && [...known, ...more]);
      }
    }
    this.#settle(op, "CONFIRMED", { result: { seq, version, merged, duplicate, superseded } });
    if (frame && !duplicate && seq > this.position) {
      const isKnown = op._edits.every(({ type }) => type !== "LAYOUT_RESTORE");
      const change = { type: op.type, payload: op.payload, userId: this.userId, timestamp: frame.timestamp };
      if (isKnown && seq === this.position + 1) this.#takeEdits(op._edits, seq, change, true);
      else this.#ask();
    }
    this.#forgetSeen();
  }

  #collide(op, { conflict: found, conflicts: batch = [] }, frame) {
    const conflict = {
      ...{ fields: [], local: null, remote: null, resolved: null, conflictId: `conflict-${op.id}` },
      ...found,
      documentId: found[`${found.kind}Id`],
      operation: op,
      shown: op._kept.shown ?? null,
      batch,
    };
    op._isToldOf = frame?.type === "CONFLICT_DETECTED";
    this._outbox.delete(op);
    if (!conflict.resolved) this.#open.set(conflict.conflictId, op);
    const error = new RealtimeError("CONFLICT", `${conflict.remoteUserId} changed ${conflict.documentId}`, { conflict });
    this.#settle(op, "CONFLICT", { conflict, error });
    this._events.push(["conflict", conflict]);
  }

  /** For the fault of one the others must not suffer. */
  _refuseAll(id, group, error) {
    const isForAll = group.length < 2 || isRetryable(error) || error.code === "FORBIDDEN";
    const blamed = (error.details ?? []).map(({ path }) => group[/operations\[(\d+)/.exec(path)?.[1]]);
    const isKnown = group.some((op) => blamed.includes(op));
    for (const op of group) {
      if (op._carrier !== id) continue;
      op._isAlone = !isForAll && !isKnown;
      this.#refuse(op, isForAll || blamed.includes(op) ? error : { retryable: true, retryAfterMs: 0 });
    }
  }

  #refuse(op, answer) {
    const { code = "INTERNAL", error: message = "refused", details = [], outcome, retryAfterMs } = answer;
    const error = new RealtimeError(code, message, { details });
    if (isRetryable(answer)) {
      const backoff = Math.min(30000, 1000 * 2 ** (op.attempts - 1)) ;
      const _hasLeft = outcome === "unknown";
      const _notBefore = this._now() + (retryAfterMs ?? backoff);
      this.#set(op, { state: "PENDING", error, _carrier: null, _hasLeft, _isRefused: !_hasLeft, _notBefore });
    } else if (code === "NOT_FOUND" && op.type === "WIDGET_DELETE") this.#confirm(op, {}); // as wanted
    else {
      this.#fail(op, error);
      this.#failed = new Set([...this.#failed, op].slice(-100));
    }
  }

  // Sending

  _emit(type, payload, correlationId, id = this._newId()) {
    this._write({ type, id, userId: this.userId, correlationId, payload });
    return id;
  }

  /** Returns when to do so again. */
  _flush() {
    const now = this._now();
    const late = this.pending.filter((op) => op._carrier && op._deadline <= now);
    for (const op of late) op._isResumed = true;
    this._unanswered(undefined, late);
    let wait = 0;
    if (this._askAt <= now) {
      this._askAt = Infinity;
      this.#ask();
    }
    while (this._connection && !wait) {
      const group = this._next();
      if (!group.length) break;
      wait = this.#pace(leavesOf(group));
      if (!wait) this.#send(group, now + this.operationTimeout);
    }
    const times = this.pending.map((op) => (op._carrier ? op._deadline : op._notBefore));
    return Math.min(...[...times, now + wait, this._askAt, this.#batchAt].filter((time) => time > now));
  }

  /** A bucket a little narrower than the server's. */
  #pace(count) {
    const { rateLimit, rateBurst = 0 } = this._connection.limits ?? {};
    const perMs = (rateLimit * 0.9) / 1000;
    const most = Math.max(1, rateBurst * 0.9);
    const now = this._now();
    if (!perMs) return 0;
    this.#tokens = Math.min(most, this.#tokens + (now - this.#filledAt) * perMs);
    this.#filledAt = now;
    const wait = Math.ceil((Math.min(count, most) - this.#tokens) / perMs);
    if (wait > 0) return wait;
    this.#tokens -= count;
    return 0;
  }

  #send(group, deadline) {
    const [{ id, type, payload, _isResumed }] = group;
    const operations = group.map((op) => op._wire);
    const isSync = _isResumed || group.some((op) => op._kept.isBatch || op._kept.resolution);
    const isOne = !_isResumed && group.length === 1;
    if (!_isResumed) this.#batchAt = this._now() + this.batchInterval;
    const carrier = isOne
      ? this._emit(type, payload, undefined, id)
      : this._emit(isSync ? "SYNC_UPDATE" : "WIDGET_BATCH", { operations, atomic: isSync ? undefined : false });
    this.#carriers.set(carrier, group);
    this._sent(group, carrier, deadline);
  }

  _sent(group, _carrier, _deadline = Infinity) {
    for (const op of group) {
      this.#set(op, { state: "SENT", attempts: op.attempts + 1, _carrier, _deadline, _hasLeft: true, _isRefused: false });
    }
  }

  _unanswered(id, group) {
    for (const op of group) {
      if (op._carrier && op._carrier === (id ?? op._carrier)) this.#set(op, { state: "PENDING", _carrier: null });
    }
  }

  _next() {
    const group = [];
    let room = this.#room;
    for (const op of this.#choose().filter((each) => this.#freshen(each))) {
      room -= op._size;
      const fits = room >= 0 && leavesOf([...group, op]) <= this.#limit("maxOperations", 50);
      const [first = op] = group;
      if (group.length && !(fits && op._isResumed === first._isResumed && !op._isAlone && !first._isAlone)) break;
      group.push(op);
    }
    return group;
  }

  #choose() {
    const all = this.pending;
    const chosen = [];
    const closed = new Set(); // nothing may follow onto these
    const closedToNew = new Set(); // nor what has not left
    const isIn = (set, keys) => [...keys].some((key) => set.has(key));
    const isNew = (op) => !op.attempts && !op._isResumed;
    const isFew = this.#batchAt > this._now() && all.filter(isNew).length < this.batchSize;
    let room = this.maxPendingOperations - all.filter((op) => op._carrier).length;
    for (const [index, op] of all.entries()) {
      const keys = op._keys;
      const isFollowed = () => op._isRefused && all.slice(index + 1).some((each) => each._hasLeft && isIn(each._keys, keys));
      let closes = op._isPlain && !(op._carrier && op._deadline === Infinity) ? null : closed;
      if (!op._carrier) {
        if (op._notBefore > this._now() || (isFew && isNew(op)) || isIn(closed, keys)) closes = closed;
        else if ((!op._hasLeft && isIn(closedToNew, keys)) || isFollowed()) closes = closedToNew;
        else if (room-- > 0) chosen.push(op);
        else break;
      }
      for (const key of keys) closes?.add(key);
    }
    return chosen;
  }

  #freshen(op) {
    const [edit] = op._edits;
    const key = keyOf(edit);
    if (!op._isRefused || !op._isPlain || !op._overtaken.has(key)) return true;
    const rest = without(edit, op._overtaken.get(key));
    op._overtaken.clear();
    if (!rest) this.#confirm(op, { superseded: true });
    else if (!isAlike(rest, edit)) op._revise(this._newId(), [rest]);
    return rest;
  }
}


function joined({ results: parts, ...whole }) {
  const conflicts = parts.flatMap(({ conflict }) => conflict ?? []);
  const refused = parts.filter(({ status, code }) => status === "error" && code !== "BATCH_ABORTED");
  const error = refused.find((part) => !isRetryable(part)) ?? refused[0];
  if (!error && conflicts.length) return { status: "conflict", conflict: conflicts[0], conflicts };
  const other = error ?? parts.find(({ status }) => status !== "success");
  return other ?? { ...whole, seq: whole.seq ?? parts[0].seq, duplicate: parts[0].duplicate };
}

export class RealtimeClient extends Engine {
  state = "DISCONNECTED";
  syncState = "IDLE";
  error = null;
  retryAt = null;
  lastSyncAt = null;
  deviceId = null;
  #env;
  #storage;
  #url;
  #prefix;
  #opening;
  #release;
  #given;
  #token;
  #needsToken = true;
  #socket = null;
  #attempt = 0;
  #failures = 0;
  #startedAt = 0;
  #heardAt = 0;
  #patience = 0;
  #isPosting = false;
  #syncFailures = 0;
  #isClosed = false;
  #waiting = [];
  #messages = [];
  #answers = new Map();
  #timers = new Map();
  #listeners = new Map();
  #onNetwork = ({ type }) => this.#networkChanged(type === "online");

  constructor({ environment = globalThis, url = "/", token, deviceId, storage, ...options }) {
    super();
    this.#env = environment;
    for (const [name, value] of Object.entries(options)) if (value !== undefined) this[name] = value;
    if (!this.userId && !token) fail("UNAUTHORIZED", "a client needs a userId or a token");
    this.#given = { token, deviceId };
    this.#url = new URL(url, environment.location?.href);
    this.#url.pathname = `${this.#url.pathname.replace(/\/*(api\/realtime)?\/*$/, "")}/api/realtime`;
    this.#url.protocol = this.#url.protocol.replace("ws", "http");
    for (const name of ["online", "offline"]) environment.addEventListener?.(name, this.#onNetwork);
    try {
      this.#storage = storage === undefined ? environment.localStorage : storage;
    } catch {}
  }

  on(event, listener) {
    const all = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, all.add(listener));
    return () => all.delete(listener);
  }

  #tell(event, value) {
    for (const listener of this.#listeners.get(event) ?? []) {
      try {
        listener(value);
      } catch (fault) {
        (globalThis.reportError ?? console.error)(fault);
      }
    }
  }

  // Changing documents

  update(widgetId, data, how) {
    return this.#edit("WIDGET_UPDATE", { widgetId, data: plain(data) }, how);
  }

  delete(widgetId, how) {
    return this.#edit("WIDGET_DELETE", { widgetId }, how);
  }

  updateLayout(layout, { layoutId = "default", ...how } = {}) {
    return this.#edit("LAYOUT_UPDATE", { layoutId, layout: plain(layout) }, how);
  }

  restoreLayout({ layoutId = "default", version, ...how } = {}) {
    return this.#edit("LAYOUT_RESTORE", { layoutId, version }, how);
  }

  batch(edits, { atomic = true } = {}) {
    const copies = edits.map(({ type, payload }) => ({ type, payload: plain(payload) }));
    return atomic ? this._submitBatch(copies) : copies.map((edit) => this._submit(edit));
  }

  #edit(type, payload, { unset, replace, baseVersion, debounce = payload.data || payload.layout ? this.debounce : 0 } = {}) {
    return this._submit({ type, payload: { ...payload, unset, replace, baseVersion } }, debounce);
  }

  send(type, payload = {}) {
    const frame = { type, id: this._newId(), userId: this.userId, payload };
    if (this._connection) this._write(frame);
    else if (this.#messages.length < this.maxMessageQueueSize) this.#messages.push(frame);
    else fail("QUEUE_FULL", `${this.#messages.length} wait already`);
    return frame.id;
  }

  request(type, payload) {
    const id = this.send(type, payload);
    return new Promise((resolve, reject) => {
      this.#answers.set(id, { resolve, reject });
      this.#later(id, this.operationTimeout, () => reject(new RealtimeError("TIMEOUT", `no answer to ${type}`)));
    }).finally(() => {
      this.#clear(id);
      this.#answers.delete(id);
    });
  }

  // The connection

  connect() {
    const done = new Promise((...ends) => this.#waiting.push(ends));
    done.catch(() => {});
    if (this.#isClosed) this.#end(1);
    else if (this.state === "CONNECTED" && this._askAt === Infinity) queueMicrotask(() => this.#end(0));
    else if (this.state !== "CONNECTING" && !this.#socket) {
      this.#failures = 0;
      this.#dial();
    }
    return done;
  }

  #end(how) {
    for (const ends of this.#waiting.splice(0)) ends[how](how && ended(this.error));
  }

  disconnect() {
    this.error = "disconnected";
    this.#stop("DISCONNECTED");
  }

  close() {
    this.disconnect();
    this.#isClosed = true;
    for (const name of ["online", "offline"]) this.#env.removeEventListener?.(name, this.#onNetwork);
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    this.#release?.();
  }

  #stop(state) {
    this.#hangUp();
    for (const name of ["dial", "sync"]) this.#clear(name);
    this.#become(state, "IDLE");
    this.#end(1);
    this._wake();
  }

  async #dial() {
    const attempt = ++this.#attempt;
    this.#clear("dial");
    this.retryAt = null;
    this.#become(this.state === "RECONNECTING" ? this.state : "CONNECTING");
    try {
      const { token, deviceId } = this.#given;
      if (this.#needsToken) this.#token = typeof token === "function" ? await token() : token;
      this.#needsToken = false;
      this.userId ||= subjectOf(this.#token);
      if (!this.deviceId) await (this.#opening ??= this.#openQueue(deviceId));
      if (attempt === this.#attempt) this.#openSocket(attempt);
    } catch (fault) {
      if (attempt === this.#attempt) this.#lost(0, fault.message);
    }
  }

  // A tab holds a Web Lock on its device, and takes over that of a tab that is gone.

  _now() {
    return this.#env.Date.now();
  }

  _newId() {
    return this.#env.crypto.getRandomValues(new Uint32Array(4)).join("-");
  }

  async #openQueue(deviceId) {
    this.#prefix = ["tornado-rt", this.#url, this.userId, this.dashboardId, ""].map(encodeURIComponent).join("/");
    if (!(await (deviceId ? this.#take(deviceId) : this.#takeOver()))) await this.#take(this._newId(), true);
    this.#adoptLater(1000); // a reloaded page lets go
  }

  async #takeOver() {
    for (const key of Object.keys(this.#storage ?? {})) {
      const device = key.startsWith(this.#prefix) && key.slice(this.#prefix.length);
      if (device && device !== this.deviceId && (await this.#take(device))) return true;
    }
  }

  async #take(device, isNew) {
    const release = await new Promise((resolve) => {
      const hold = (lock) => (lock ? new Promise(resolve) : resolve());
      const { locks } = this.#env.navigator ?? {};
      locks?.request(this.#prefix + device, { ifAvailable: true }, hold).catch(() => resolve()) ?? resolve();
    });
    if (this.#isClosed || (!release && !isNew)) return release?.();
    this.#release?.();
    this.#release = release;
    this.deviceId = device;
    const kept = JSON.parse(this.#storage?.getItem(this.#prefix + device) ?? "[]");
    this._takeBack(kept.map(({ id, edits, kept }) => new Operation(id, edits, kept)));
    this._wake();
    return true;
  }

  _save() {
    const all = this._kept.map(({ id, _edits: edits, _kept: kept }) => ({ id, edits, kept }));
    const key = this.#prefix + this.deviceId;
    this._isDirty = false;
    if (!this.#release || !this.#storage) return true;
    try {
      if (all.length) this.#storage.setItem(key, JSON.stringify(all));
      else this.#storage.removeItem(key);
      return true;
    } catch {
      return false;
    }
  }

  #openSocket(attempt) {
    const { dashboardId, deviceId } = this;
    const address = this.#url.href.replace("http", "ws") + this.#query({ dashboardId, deviceId, ...this._resume });
    const socket = (this.#socket = new this.#env.WebSocket(address, this.#token ? ["bearer", this.#token] : []));
    this.#startedAt = this._now();
    socket.onmessage = ({ data }) => attempt === this.#attempt && this.#hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => attempt === this.#attempt && this.#lost(code, reason);
    this.#watch(this.#startedAt, 10000);
  }

  #query(more) {
    const all = JSON.stringify({ ...more, userId: this.#token ? undefined : this.userId });
    return `?${new URLSearchParams(JSON.parse(all))}`;
  }

  #watch(heardAt = this.#heardAt, patience = this.#patience) {
    this.#heardAt = heardAt;
    this.#patience = patience;
    const left = heardAt + patience - this._now();
    if (left > 0) this.#later("watch", left, () => this.#watch());
    else this.#lost(1006, "the server is silent");
  }

  #hear(frame) {
    const { type, payload, correlationId } = frame;
    this.#heardAt = this._now();
    this._receive(frame);
    if (this._askAt === Infinity) this.lastSyncAt = this.#heardAt;
    if (type === "CONNECT") {
      this.#watch(this.#heardAt, 2 * payload.heartbeatInterval || 60000);
      this.error = null;
      this.#clear("sync");
      this.#syncFailures = 0;
      this.#become("CONNECTED", "IDLE");
      for (const message of this.#messages.splice(0)) this._write(message);
    }
    const { resolve, reject } = this.#answers.get(correlationId) ?? {};
    if (type === "NACK") reject?.(new RealtimeError(payload.code, payload.error, payload));
    else resolve?.(frame);
    this.#pump();
  }

  #adoptLater(ms) {
    this.#later("adopt", ms, async () => {
      const isOther = !this.queueSize && (await this.#takeOver());
      this.#adoptLater(this.syncInterval);
      if (!isOther || !(this._connection || this.#isDown)) return;
      this.#hangUp();
      this.#dial();
    });
  }

  #hangUp() {
    this.#attempt += 1;
    this.#clear("watch");
    this.#socket?.close(1000);
    this.#socket = null;
    this._closed();
    for (const { reject } of this.#answers.values()) reject(ended("cut"));
  }

  #lost(code, why) {
    const { reason = why, reconnect, retryAfterMs } = this._farewell ?? {};
    const isExpired = reason === "Token expired";
    const lived = this.state === "CONNECTED" && this._now() - this.#startedAt;
    this._farewell = null;
    this.error = reason || "no connection";
    this.#needsToken ||= isExpired;
    this.#hangUp();
    if (!(reconnect ?? (code !== 1008 || isExpired)) || !this.#dialLater(lived, retryAfterMs)) {
      this.#needsToken = true;
      this.#stop("ERROR");
      return this.#tell("error", ended(this.error));
    }
    this.#become("RECONNECTING");
    // Others were cut too: the first POST comes at a random moment.
    const delay = lived === false ? 0 : this.#env.Math.random() * this.syncInterval;
    if (!this.#timers.has("sync")) this.#later("sync", delay, () => this.sync());
    this._wake();
  }

  /** Doubling, with full jitter; anew once a connection has outlived its delay. */
  #dialLater(lived, retryAfterMs) {
    const ceiling = () => Math.min(30000, this.reconnectDelay * 2 ** this.#failures);
    if (lived >= ceiling()) this.#failures = 0;
    if (this.#failures >= this.reconnectAttempts) return false;
    const delay = retryAfterMs ?? this.#env.Math.random() * ceiling();
    this.#failures += 1;
    this.retryAt = this._now() + delay;
    this.#later("dial", delay, () => this.#dial());
    return true;
  }

  #become(state, syncState = this.syncState) {
    const changes = [];
    if (state !== this.state) changes.push(["state", state]);
    if (syncState !== this.syncState) changes.push(["status", syncState]);
    Object.assign(this, { state, syncState });
    for (const [name, value] of changes) this.#tell(name, value);
  }

  #networkChanged(isOnline) {
    if (this._connection) {
      this.send("PING");
      this.#watch(this._now() + 5000 - this.#patience);
    } else if (isOnline && this.state === "RECONNECTING" && !this.#socket) this.#dialLater(Infinity);
    else if (this.#isDown) this.#become(this.state, "OFFLINE");
  }

  // By POST, while the socket is down

  get #isDown() {
    return this.state === "RECONNECTING" || this.state === "CONNECTING";
  }

  async sync() {
    if (this.#isPosting || !this.#isDown || !this.deviceId) return;
    this.#isPosting = true;
    let found;
    do {
      this.#become(this.state, "SYNCING");
      found = await this.#post();
      this.#pump();
    } while (found === "SYNCING" && this.#isDown);
    this.#isPosting = false;
    if (!this.#isDown) return;
    this.#become(this.state, found);
    this.#syncFailures = found === "IDLE" || this.#syncFailures >= this.retryAttempts ? 0 : this.#syncFailures + 1;
    this.#later("sync", this.#syncFailures ? this.retryDelay : this.syncInterval, () => this.sync());
  }

  async #post() {
    const { dashboardId, deviceId } = this;
    const id = this._newId();
    const group = this._next();
    const operations = group.map((op) => op._wire);
    this._sent(group, id);
    let status = 0;
    let answer = {};
    try {
      const response = await this.#env.fetch(this.#url + this.#query(), {
        method: "POST",
        headers: { "Content-Type": "application/json", ...(this.#token && { Authorization: `Bearer ${this.#token}` }) },
        body: JSON.stringify({ type: "SYNC", operations, dashboardId, deviceId, ...this._resume }),
        signal: AbortSignal.timeout(20000),
      });
      status = response.status;
      answer = await response.json();
    } catch ({ message }) {
      this.error = message;
    }
    const { results, sync, code } = answer;
    this.#needsToken ||= status === 401;
    if (status === 200 && results) {
      this._results(id, group, results);
      if (!sync || this._connection) return "IDLE";
      this._takeSync(sync);
      this.lastSyncAt = this._now();
    } else if (code && group.length && [400, 403, 409, 413, 422].includes(status)) this._refuseAll(id, group, answer);
    else {
      this._unanswered(id, group);
      return status ? "ERROR" : "OFFLINE";
    }
    return group.length && this._next().length ? "SYNCING" : "IDLE";
  }

  _wake() {
    if (this.#isClosed) throw ended("closed");
    if (!this.#timers.has("wake")) queueMicrotask(() => this.#pump());
    this.#timers.set("wake");
  }

  #pump() {
    this.#timers.delete("wake");
    const due = this._flush();
    for (const [name, value] of this._takeEvents()) {
      this.#tell(name, value);
      if (name === "sync") this.#end(0);
    }
    if (this._isDirty) this._save();
    this.#later("pump", due - this._now(), () => this.#pump());
  }

  _write(frame) {
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify({ ...frame, timestamp: new Date().toISOString() }));
  }

  #later(name, ms, act) {
    this.#clear(name);
    if (this.#isClosed) return;
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

const ended = (why) => new RealtimeError("CLOSED", why);


function subjectOf(token) {
  return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"))).sub;
}
