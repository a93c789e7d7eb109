/**
 * The browser's client of tornado_rt: a dashboard's documents at hand, changed at once, kept in step. It knows no DOM.
 * The rules are those of docs/protocol.md; options, methods and events are described in realtime.d.ts and docs/browser.md.
 */

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

const DEFAULTS = {
  url: "/",
  dashboardId: "default",
  reconnectAttempts: Infinity,
  reconnectDelay: 1000,
  maxMessageQueueSize: 1000,
  maxPendingOperations: 100,
  operationTimeout: 30000,
  enableConflictDetection: true,
  syncInterval: 30000,
  maxQueueSize: 500,
  retryAttempts: 3,
  retryDelay: 5000,
  batchSize: 50,
  batchInterval: 200,
  debounce: 100,
};
const MAX_DELAY = 30000;
const EVENTS = ["state", "status", "sync", "view", "change", "operation", "conflict", "resolved", "message", "refused", "error"];

// An edit changes one document: `{type, payload}` as on the wire. A key is a kind, of six letters, a colon and an id. Fields may
// be called `__proto__`, so objects are spread and never assigned to by name.

const keyOf = ({ payload: { widgetId, layoutId = "default" } }) => (widgetId === undefined ? `layout:${layoutId}` : `widget:${widgetId}`);
const named = (key) => ({ kind: key.slice(0, 6), id: key.slice(7) });
const bodyOf = ({ payload }) => payload.data ?? payload.layout;
const based = (edit, baseVersion, epoch) => ({ ...edit, payload: { ...edit.payload, baseVersion, epoch } });

/** A merge of named fields: parts of it can be taken out and the rest still means the same. */
const isPlain = ({ type, payload }) => type.endsWith("_UPDATE") && !payload.replace;

/** The names of the fields that an edit sets or removes; null: all that the document has. */
const touched = (edit) => (isPlain(edit) ? [...Object.keys(bodyOf(edit) ?? {}), ...(edit.payload.unset ?? [])].sort() : null);
const isSame = (a, b) => JSON.stringify(touched(a)) === JSON.stringify(touched(b));

/** The fields after an edit; undefined: there is no such document. */
function apply(edit, fields) {
  const body = bodyOf(edit);
  if (edit.type === "WIDGET_DELETE") return undefined;
  if (!body) return fields; // a LAYOUT_RESTORE, whose outcome only the server knows
  if (!isPlain(edit)) return { ...body };
  const merged = { ...fields, ...body };
  for (const name of edit.payload.unset ?? []) delete merged[name];
  return merged;
}

/** An edit without some fields (null: all); null where nothing is left. */
function without(edit, names) {
  if (!names || !isPlain(edit)) return names && edit;
  const isLeft = (name) => !names.includes(name);
  const body = Object.fromEntries(Object.entries(bodyOf(edit) ?? {}).filter(([name]) => isLeft(name)));
  const unset = edit.payload.unset?.filter(isLeft);
  const payload = { ...edit.payload, [edit.payload.data ? "data" : "layout"]: body, unset: unset?.length ? unset : undefined };
  return touched({ ...edit, payload }).length ? { ...edit, payload } : null;
}

/** A deep copy that is JSON and nothing else. */
function plain(value) {
  if (Object(value) !== value || Array.isArray(value)) fail("INVALID_MESSAGE", "a document is an object of fields");
  const check = (_, each) => (typeof each !== "number" || isFinite(each) ? each : fail("INVALID_MESSAGE", "JSON knows only finite numbers"));
  return JSON.parse(JSON.stringify(value, check));
}

/** One request to change documents. What begins with `_` is the module's own. */
class Operation {
  state = "PENDING";
  attempts = 0;
  error = null;
  result = null;
  conflict = null;
  _carrier = null; // the message or POST that it travels in now
  _isPosted = false;
  _hasLeft = false; // and nobody said that nothing was changed: it may have been applied
  _isRefused = false; // it left and nothing was changed
  _isResumed = false; // goes by SYNC_UPDATE: it waited for the connection, or another answer may still come
  _isAlone = false; // a message that it shared was refused without naming the culprit
  _notBefore = 0;
  _heldUntil = 0; // for later edits of the same fields, which become one with it
  _overtaken = new Map(); // by key: the fields that later operations have set (null: all)
  _lost = new Set(); // keys of documents that somebody deleted meanwhile
  _followers = []; // share its verdict

  /** `kept`: createdAt, isBatch, resolution (a CONFLICT_RESOLVED's payload), shown (the document with this edit in it). */
  constructor(id, edits, kept) {
    this._kept = kept;
    this.createdAt = kept.createdAt;
    this._revise(id, edits);
  }

  _revise(id, edits) {
    const { isBatch, resolution } = this._kept;
    this.id = id;
    this._edits = edits;
    this._keys = new Set(edits.map(keyOf));
    this.documents = [...this._keys].map(named);
    this.type = resolution ? "CONFLICT_RESOLVED" : isBatch ? "WIDGET_BATCH" : edits[0].type;
    const parts = edits.map((edit, index) => ({ operationId: `${id}.${index}`, ...edit }));
    this.payload = resolution ?? (isBatch ? { operations: parts, atomic: true } : edits[0].payload);
    this._wire = { operationId: id, type: this.type, payload: this.payload };
    this._size = new TextEncoder().encode(JSON.stringify(this._wire)).length;
  }

  get done() {
    return (this._done ??= new Promise((resolve, reject) => {
      this._answer = () => (this.result ? resolve(this.result) : this.error && reject(this.error));
      if (this._isSettled) this._answer();
    }));
  }

  get _isSettled() {
    return this.state !== "PENDING" && this.state !== "SENT";
  }

  get _isPlain() {
    return !this._kept.resolution && !this._kept.isBatch && isPlain(this._edits[0]);
  }

  /** A document's fields with this operation's effect. */
  _onto(key, fields) {
    for (const edit of this._lost.has(key) ? [] : this._edits) {
      const rest = keyOf(edit) === key && (this._overtaken.has(key) ? without(edit, this._overtaken.get(key)) : edit);
      if (rest) fields = apply(rest, fields);
    }
    return fields;
  }
}

const resultOf = (more) => ({ seq: null, version: null, merged: [], duplicate: false, superseded: false, ...more });
const leavesOf = (group) => group.reduce((sum, { _edits }) => sum + _edits.length, 0);

/** A refusal that the same operation may outlive: a NACK says so itself; in `results` the code does. */
const isRetryable = ({ retryable, code }) => retryable ?? ["RATE_LIMITED", "UNAVAILABLE", "INTERNAL"].includes(code);

/**
 * What the client knows and is to do, without sockets and timers. What is shown is the server's documents with the waiting
 * operations replayed on them. Operations on one document leave in their order; what may have been applied is repeated unchanged
 * under its id; from what was refused the fields that a later one has set are taken out, under a new id. So that this can be
 * done, nothing follows an operation on a whole document, or one that travels by POST, onto its documents before its verdict.
 */
class Engine {
  position = 0; // the last seq that is here in full
  epoch = null;
  clientCount = 0;
  widgets = new Map();
  layouts = new Map();
  failed = [];
  _events = [];
  _outbox = new Set(); // in their order; confirmed ones stay until their change is here, so that nothing flickers
  _queue = { put: () => {}, drop: () => {} };
  _connection = null; // CONNECT's payload while the socket is up
  _farewell = null; // DISCONNECT's
  #documents = new Map(); // the server's, by key: {fields, version, updatedAt, updatedBy, history}; `fields` never change
  #carriers = new Map(); // messages under way and their operations
  #open = new Map(); // by conflictId: [conflict, operation, whether this connection was told of it]
  #viewed = new Set();
  #asked = null;
  _askAt = Infinity; // when to ask (again) for what was missed
  #batchAt = 0; // when new operations may leave again
  #tokens = 0; // of a bucket a little narrower than the server's, filled at `#filledAt`
  #filledAt = 0;

  get pending() {
    return [...this._outbox].filter((each) => !each._isSettled);
  }

  get conflicts() {
    return [...this.#open.values()].map(([conflict]) => conflict);
  }

  get queueSize() {
    return this.pending.length + this.#open.size;
  }

  info(kind, id) {
    const { fields, ...rest } = this.#documents.get(`${kind}:${id}`) ?? {};
    return fields ? rest : null;
  }

  get _resume() {
    return { since: this.position, epoch: this.epoch ?? undefined };
  }

  /** What the server said it takes; 0: no limit. */
  #limit(name, otherwise) {
    return (this._connection?.limits?.[name] ?? otherwise) || Infinity;
  }

  #document(key) {
    let fields = this.#documents.get(key)?.fields;
    for (const operation of this._outbox) if (operation._keys.has(key)) fields = operation._onto(key, fields);
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

  _takeViewed() {
    const found = { widgets: [], layouts: [] };
    for (const key of this.#viewed) found[`${key.slice(0, 6)}s`].push(key.slice(7));
    if (this.#viewed.size) this._events.unshift(["view", found]);
    this.#viewed.clear();
  }

  #set(operation, changes) {
    Object.assign(operation, changes);
    this.#show(operation._keys);
    this._events.push(["operation", operation]);
  }

  #settle(operation, state, outcome) {
    this.#set(operation, { state, error: null, _carrier: null, ...outcome });
    operation._answer?.();
    for (const follower of operation._followers) this.#settle(follower, state, outcome);
  }

  // What the person does

  /** Make an operation. With `hold` (ms) it waits for later edits of the same fields, not after `end`; they get the same one. */
  _submit(edit, hold, end = Infinity) {
    const now = this._env.now();
    const last = this.pending.findLast((each) => each._keys.has(keyOf(edit)));
    const held = last?._heldUntil > now && !last._hasLeft ? last : null;
    const isDelete = edit.type === "WIDGET_DELETE";
    if (held && hold && isSame(held._edits[0], edit)) {
      const { baseVersion, epoch } = held.payload;
      held._revise(held.id, [based(edit, baseVersion, epoch)]);
      held._heldUntil = Math.min(now + hold, held._holdEnd);
      this.#set(held);
      held._kept.shown = this.#document(keyOf(edit));
      this._queue.put(held);
      return held;
    }
    if (held && isDelete) this.#remove(held);
    const shown = apply(edit, this.#document(keyOf(edit)));
    const operation = this.#admit(new Operation(this._env.newId(), [this.#rebased(edit)], { createdAt: now, shown }));
    if (held && isDelete) operation._followers.push(held);
    else if (hold) Object.assign(operation, { _heldUntil: now + hold, _holdEnd: end });
    return operation;
  }

  _submitBatch(edits) {
    const most = this.#limit("maxOperations", 50);
    if (!edits.length || edits.length > most) fail("TOO_LARGE", `a batch holds 1 to ${most} edits`);
    const kept = { createdAt: this._env.now(), isBatch: true };
    return this.#admit(new Operation(this._env.newId(), edits.map((edit) => this.#rebased(edit)), kept));
  }

  /** With the base that the person saw. Who makes a document, or has seen nothing yet, has none. */
  #rebased(edit) {
    if (!this._options.enableConflictDetection || !this.epoch) return based(edit);
    const { baseVersion, epoch = this.epoch } = edit.payload;
    if (baseVersion !== undefined) return based(edit, baseVersion, epoch);
    return this.#document(keyOf(edit)) ? based(edit, this.position, epoch) : edit;
  }

  #admit(operation) {
    const { maxQueueSize, batchSize } = this._options;
    if (this.queueSize >= maxQueueSize) fail("QUEUE_FULL", `${maxQueueSize} operations wait already`);
    if (operation._size > this.#room) fail("TOO_LARGE", `an operation has at most ${this.#room} bytes`);
    this._queue.put(operation);
    operation._notBefore = this.#batchAt > this._env.now() ? this.#batchAt : 0;
    this.#add(operation);
    const gathered = this.pending.filter((each) => each._notBefore === this.#batchAt && !each.attempts);
    if (gathered.length >= batchSize) for (const each of gathered) each._notBefore = 0;
    this._wake();
    return operation;
  }

  #add(operation) {
    this._outbox.add(operation);
    this.#set(operation);
  }

  /** Operations that a page before kept; nobody knows whether they had left. */
  _takeBack(operations) {
    this._outbox = new Set([...operations, ...this._outbox]);
    for (const operation of operations) this.#set(operation, { _hasLeft: true });
  }

  resolve(conflictId, choice, data) {
    const [conflict, operation, isToldOf] = this.#open.get(conflictId) ?? fail("CONFLICT_UNKNOWN", `no open conflict ${conflictId}`);
    const answer = choice === "remote" ? null : resolution(conflict, operation, choice, data, this.epoch ?? undefined, this._env);
    if (answer) {
      this._queue.put(answer, operation._place);
      this.#add(answer);
    } else {
      this._queue.drop(operation);
      if (isToldOf) this._emit("CONFLICT_RESOLVED", { conflictId, resolution: "remote" });
    }
    this.#open.delete(conflictId);
    this._events.push(["resolved", { conflict, choice }]);
    this._wake();
    return answer;
  }

  retry(operation) {
    this.#unfail(operation) || fail("NOT_POSSIBLE", "only a failed operation can be tried again");
    Object.assign(operation, { state: "PENDING", attempts: 0, error: null, _hasLeft: false, _isRefused: false, _done: null });
    operation._revise(this._env.newId(), operation._edits);
    this.#admit(operation);
  }

  rollback(operation) {
    const { _isSettled, _hasLeft, conflict } = operation;
    if (this.#open.has(conflict?.conflictId)) this.resolve(conflict.conflictId, "remote");
    else if (this.#unfail(operation)) this.#set(operation);
    else if (_isSettled || _hasLeft) fail("NOT_POSSIBLE", "it has left and may have been applied; only its verdict can tell");
    else {
      this.#remove(operation);
      this.#settle(operation, "FAILED", { error: new RealtimeError("ROLLED_BACK", "given up before it left") });
    }
    this._wake();
  }

  #unfail(operation) {
    const { length } = this.failed;
    this.failed = this.failed.filter((each) => each !== operation);
    return this.failed.length < length;
  }

  #remove(operation) {
    this._outbox.delete(operation);
    this._queue.drop(operation);
    this.#show(operation._keys);
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
      if (payload.seq > this.position) this._ask();
    } else if (type === "SYNC_RESPONSE") this._takeSync(payload);
    else if (type === "SYNC_UPDATE" && "fromSeq" in payload) this.#takeMerged(payload, type);
    else if (type === "NACK" && group) this._refuseAll(id, group, payload);
    else if (type === "NACK" && id === this.#asked) this._askAt = this._env.now() + (payload.retryAfterMs ?? 1000);
    else if (type === "NACK") this._events.push(["refused", frame]);
    else if (type === "ACK" && group) {
      const isWhole = group[0].id === id; // its `results` are then an atomic batch's parts
      const whole = { status: "success", ...payload, operationId: id };
      this._results(id, group, isWhole ? [whole] : payload.results ?? [], frame);
    } else if (type === "ACK") this.#stray(payload);
    else if (type === "CONFLICT_DETECTED" && group) {
      this._results(id, group, [{ operationId: group[0].id, status: "conflict", conflict: payload, isToldOf: true }]);
    } else if (/^(WIDGET|LAYOUT)_/.test(type) && payload.seq) {
      if (payload.seq === this.position + 1) this.#takeChange(frame);
      else if (payload.seq > this.position) this._ask();
    } else if (type !== "PONG") this._events.push(["message", frame]);
  }

  #connected(frame, payload) {
    this.userId = frame.userId || this.userId;
    this._connection = payload;
    this._farewell = null;
    this.#tokens = Infinity;
    for (const operation of this._outbox) operation._isResumed = true;
    if (payload.sync) this._takeSync(payload.sync);
    else this._ask();
  }

  /** The socket is gone: what travelled by it may have been applied, and is repeated. */
  _closed() {
    this._connection = null;
    this._askAt = Infinity;
    for (const [id, group] of this.#carriers) this._unanswered(id, group);
    this.#carriers.clear();
    for (const open of this.#open.values()) open[2] = false;
  }

  /** Something was missed: ask for it, unless that is under way. */
  _ask(isWhole) {
    if (this._askAt < Infinity || !this._connection) return;
    this.#asked = this._emit("SYNC_REQUEST", isWhole ? {} : this._resume);
    this._askAt = this._env.now() + this._options.operationTimeout;
  }

  _takeSync(payload) {
    const { mode, epoch, seq, operations } = payload;
    this._askAt = Infinity;
    if (mode === "snapshot") this.#takeWhole(payload, "SYNC_RESPONSE", true);
    else if (epoch !== this.epoch) return this._ask(true); // a part of a log that we have nothing of
    else if (mode === "merged") this.#takeMerged(payload, "SYNC_RESPONSE");
    else {
      for (const change of operations) if (change.seq === this.position + 1) this.#takeChange(change);
      if (seq > this.position) return this._ask(true);
    }
    this.clientCount = payload.clientCount ?? this.clientCount;
    this._events.push(["sync", { mode, seq: this.position }]);
  }

  #takeMerged(payload, type) {
    if (payload.fromSeq > this.position) this._ask();
    else if (payload.seq >= this.position) this.#takeWhole(payload, type, false);
  }

  /** Whole documents in place of what was here: of a snapshot all, else those that changed. */
  #takeWhole(payload, type, isSnapshot) {
    const keys = new Set(isSnapshot ? this.#documents.keys() : []);
    const kinds = ["widget", "layout"];
    for (const kind of kinds) for (const id of payload.deleted?.[`${kind}s`] ?? []) keys.add(`${kind}:${id}`);
    for (const key of keys) this.#documents.delete(key);
    for (const kind of kinds) {
      for (const [id, { data, layout, ...rest }] of Object.entries(payload[`${kind}s`] ?? {})) {
        keys.add(`${kind}:${id}`);
        this.#documents.set(`${kind}:${id}`, { fields: data ?? layout, ...rest });
      }
    }
    if (isSnapshot) this.epoch = payload.epoch;
    this.#moved(payload.seq, keys, { type, userId: "", timestamp: "", ...payload, payload }, false, isSnapshot);
  }

  #takeChange(change) {
    const { type, payload } = change;
    this.#takeEdits(type === "WIDGET_BATCH" ? payload.operations : [change], payload.seq ?? change.seq, change);
  }

  /** Edits that took `seq` together, by somebody or, at the ACK, by us. */
  #takeEdits(edits, seq, change, isOwn) {
    for (const edit of edits) {
      const key = keyOf(edit);
      const before = this.#documents.get(key);
      const fields = apply(edit, before?.fields);
      const history = [...new Set([...(before?.history ?? []), seq])];
      if (fields) this.#documents.set(key, { fields, version: seq, updatedAt: change.timestamp, updatedBy: change.userId, history });
      else this.#documents.delete(key);
    }
    this.#moved(seq, new Set(edits.map(keyOf)), change, isOwn);
  }

  /** The server's documents changed: forget what is in them now; a late edit of what somebody deleted is not shown. */
  #moved(seq, keys, { type, userId, timestamp, payload }, isOwn = false, isSnapshot = false) {
    const made = new Set(); // an operation that makes the document anew is shown, and what follows it
    this.position = seq;
    for (const operation of this.pending) {
      for (const edit of operation._edits) {
        const key = keyOf(edit);
        const { kind, id } = named(key);
        if (edit.payload.baseVersion === undefined) made.add(key);
        else if ((isSnapshot || keys.has(key)) && !this.#documents.has(key) && !made.has(key)) {
          operation._kept.shown = this[`${kind}s`].get(id) ?? operation._kept.shown;
          operation._lost.add(key);
          keys.add(key);
        }
      }
    }
    this.#forgetSeen(isSnapshot);
    this.#show(keys);
    this._events.push(["change", { type, seq, userId, timestamp, payload, documents: [...keys].map(named), isOwn }]);
  }

  #forgetSeen(isSnapshot) {
    for (const each of this._outbox) {
      if (each.state === "CONFIRMED" && (isSnapshot || !(each.result.seq > this.position))) this.#remove(each);
    }
  }

  // Verdicts

  /** An answer that nobody waits for; if it tells of a change that is not here, that is asked for. */
  #stray({ seq, duplicate, resolved }) {
    if (seq > this.position && !duplicate && !resolved) this._ask();
  }

  /**
   * One verdict for each operation, of a message (`frame`: its ACK) or of a POST. What is not named is repeated. Of an operation
   * that was repeated meanwhile a refusal is no verdict: the repetition may be applied.
   */
  _results(id, group, results, frame) {
    const found = group.map((operation) => {
      const whole = results.find((each) => each.operationId === operation.id);
      return [operation, whole?.results?.length ? joined(whole) : whole];
    });
    found.sort(([, a], [, b]) => (a?.seq ?? 0) - (b?.seq ?? 0)); // own changes count in the order of their seqs
    for (const [operation, verdict] of found) {
      const isFinal = verdict?.status === "success" || verdict?.status === "conflict";
      if (operation._isSettled) this.#stray(verdict ?? {}); // a second answer, to a repetition
      else if (isFinal) this.#judge(operation, verdict, frame);
      else if (operation._carrier === id) this.#refuse(operation, verdict ?? { retryAfterMs: 1000, retryable: true, outcome: "unknown" });
    }
  }

  #judge(operation, { status, seq, version = seq, merged, duplicate, conflict, conflicts, isToldOf }, frame) {
    if (status === "conflict") return this.#collide(operation, conflict, conflicts, isToldOf);
    this.#confirm(operation, { seq, version, ...(merged && { merged }), duplicate: !!duplicate });
    if (frame && !duplicate && seq > this.position) {
      const isKnown = operation._edits.every((edit) => edit.type !== "LAYOUT_RESTORE"); // only the server has its outcome
      const { type, payload } = operation;
      const change = { type, payload, userId: this.userId, timestamp: frame.timestamp };
      if (isKnown && seq === this.position + 1) this.#takeEdits(operation._edits, seq, change, true);
      else this._ask();
    }
    this.#forgetSeen();
  }

  #confirm(operation, result) {
    for (const earlier of this.pending) {
      if (earlier === operation) break;
      for (const edit of operation._edits) overtake(earlier, edit);
    }
    this._queue.drop(operation);
    this.#settle(operation, "CONFIRMED", { result: resultOf(result) });
  }

  #collide(operation, payload, batch = [], isToldOf = false) {
    const conflict = {
      fields: [],
      local: null,
      remote: null,
      resolved: null,
      conflictId: `conflict-${operation.id}`, // an atomic batch's have none
      ...payload,
      documentId: payload[`${payload.kind}Id`],
      operation,
      shown: operation._kept.shown ?? null,
      batch,
    };
    this._outbox.delete(operation);
    if (conflict.resolved) this._queue.drop(operation);
    else this.#open.set(conflict.conflictId, [conflict, operation, isToldOf]); // the queue keeps it until somebody has chosen
    const message = `${conflict.documentId} was changed meanwhile by ${conflict.remoteUserId}`;
    this.#settle(operation, "CONFLICT", { conflict, error: new RealtimeError("CONFLICT", message, { conflict }) });
    this._events.push(["conflict", conflict]);
  }

  /** A whole message was refused. Where it was for the fault of one operation, the others must not suffer for it. */
  _refuseAll(id, group, error) {
    const isForAll = group.length < 2 || isRetryable(error) || ["FORBIDDEN", "UNAUTHORIZED"].includes(error.code);
    const blamed = (error.details ?? []).map(({ path }) => group[/^(?:payload\.)?operations\[(\d+)\]/.exec(path)?.[1]]).filter(Boolean);
    for (const operation of group) {
      if (operation._carrier !== id) continue; // it was repeated meanwhile
      if (isForAll || blamed.includes(operation)) this.#refuse(operation, error);
      else {
        operation._isAlone = !blamed.length;
        this.#refuse(operation, { retryable: true, retryAfterMs: 0 });
      }
    }
  }

  #refuse(operation, { code = "INTERNAL", error: message = "refused", details = [], outcome, retryAfterMs, ...answer }) {
    const error = new RealtimeError(code, message, { details });
    if (isRetryable({ code, ...answer })) {
      const backoff = Math.min(MAX_DELAY, 1000 * 2 ** (operation.attempts - 1)) * (0.5 + this._env.random() / 2);
      const _hasLeft = outcome === "unknown";
      const _notBefore = this._env.now() + (retryAfterMs ?? backoff);
      this.#set(operation, { state: "PENDING", error, _carrier: null, _isPosted: false, _hasLeft, _isRefused: !_hasLeft, _notBefore });
    } else if (code === "NOT_FOUND" && operation.type === "WIDGET_DELETE") {
      this.#confirm(operation); // it is gone, which is what was wanted
      this.#forgetSeen();
    } else {
      this.#remove(operation);
      this.#settle(operation, "FAILED", { error });
      this.failed = [...this.failed, operation].slice(-100);
    }
  }

  // Sending

  _emit(type, payload, correlationId, id = this._env.newId()) {
    this._write({ type, id, userId: this.userId, correlationId, payload });
    return id;
  }

  /** Let leave what may leave, and repeat what was not answered in time; returns when there is something to do again. */
  _flush() {
    const now = this._env.now();
    const late = this.pending.filter((each) => each._carrier && each._deadline <= now);
    for (const operation of late) operation._isResumed = true; // so that the two answers are not mixed up
    this._unanswered(undefined, late);
    const times = this.pending.map((each) => (each._carrier ? each._deadline : Math.max(each._notBefore, each._heldUntil)));
    let due = Math.min(...times.filter((time) => time > now));
    if (!this._connection) return due;
    if (this._askAt <= now) {
      this._askAt = Infinity;
      this._ask();
    }
    for (let group = this._next(); group.length; group = this._next()) {
      const wait = this.#pace(leavesOf(group));
      due = Math.min(due, now + (wait || this._options.operationTimeout));
      if (wait) break;
      this.#send(group);
    }
    return Math.min(due, this._askAt);
  }

  /** Milliseconds until `count` operations may leave; if none, they are counted. */
  #pace(count) {
    const { rateLimit, rateBurst = 0 } = this._connection.limits ?? {};
    const perMs = (rateLimit * 0.9) / 1000;
    if (!perMs) return 0;
    const now = this._env.now();
    const most = Math.max(1, rateBurst * 0.9);
    this.#tokens = Math.min(most, this.#tokens + (now - this.#filledAt) * perMs);
    this.#filledAt = now;
    const wait = (Math.min(count, most) - this.#tokens) / perMs;
    if (wait > 1e-6) return wait;
    this.#tokens -= count;
    return 0;
  }

  #send(group) {
    const [first] = group;
    const operations = group.map((each) => each._wire);
    const isSync = first._isResumed || group.some((each) => each._kept.isBatch || each._kept.resolution);
    let id = first.id;
    if (!first._isResumed) this.#batchAt = this._env.now() + this._options.batchInterval;
    if (!first._isResumed && group.length === 1) this._emit(first.type, first.payload, undefined, id);
    else id = isSync ? this._emit("SYNC_UPDATE", { operations }) : this._emit("WIDGET_BATCH", { operations, atomic: false });
    this.#carriers.set(id, group);
    this._sent(group, id, this._env.now() + this._options.operationTimeout);
  }

  _sent(group, _carrier, _deadline, _isPosted = false) {
    for (const operation of group) {
      const attempts = operation.attempts + 1;
      this.#set(operation, { state: "SENT", attempts, _carrier, _deadline, _isPosted, _hasLeft: true, _isRefused: false });
    }
  }

  /** No answer will come this way: they are repeated, unchanged. */
  _unanswered(id, group) {
    for (const each of group) {
      if (each._carrier && each._carrier === (id ?? each._carrier)) this.#set(each, { state: "PENDING", _carrier: null, _isPosted: false });
    }
  }

  /** The operations of the next message: counted to the leaves, by bytes, resumed ones apart from new ones. */
  _next() {
    const group = [];
    let size = 0;
    for (const operation of this.#choose().filter((each) => this.#freshen(each))) {
      size += operation._size + 1;
      const fits = leavesOf([...group, operation]) <= this.#limit("maxOperations", 50) && size <= this.#room;
      const isAlike = operation._isResumed === group[0]?._isResumed && !operation._isAlone && !group[0]._isAlone;
      if (group.length && !(fits && isAlike)) break;
      group.push(operation);
    }
    return group;
  }

  get #room() {
    return this.#limit("maxMessageBytes", 262144) - 1024;
  }

  #choose() {
    const all = this.pending;
    const chosen = [];
    const closed = new Set(); // documents onto which nothing may follow
    const closedToNew = new Set(); // nor what has not left before
    const isIn = (set, keys) => [...keys].some((key) => set.has(key));
    let room = this._options.maxPendingOperations - all.filter((each) => each._carrier).length;
    for (const [index, operation] of all.entries()) {
      const { _keys: keys, _carrier, _hasLeft, _isRefused, _notBefore, _heldUntil } = operation;
      let closes = operation._isPosted || !operation._isPlain ? closed : null;
      if (!_carrier) {
        const isFollowed = () => _isRefused && all.slice(index + 1).some((each) => each._hasLeft && isIn(each._keys, keys));
        if (Math.max(_notBefore, _heldUntil) > this._env.now() || isIn(closed, keys)) closes = closed;
        else if ((!_hasLeft && isIn(closedToNew, keys)) || isFollowed()) closes = closedToNew; // first their verdict
        else if (room-- > 0) chosen.push(operation);
        else break;
      }
      for (const key of keys) closes?.add(key);
    }
    return chosen;
  }

  /** Take out of a refused operation what later ones have set; false where nothing is left of it. */
  #freshen(operation) {
    const [edit] = operation._edits;
    const rest = operation._isPlain && operation._overtaken.has(keyOf(edit)) ? without(edit, operation._overtaken.get(keyOf(edit))) : edit;
    if (!operation._isRefused || (rest && isSame(rest, edit))) return true;
    operation._overtaken.clear();
    if (rest) {
      operation._revise(this._env.newId(), [rest]); // with another content it is another operation
      this._queue.put(operation);
      return true;
    }
    this.#remove(operation);
    this.#settle(operation, "CONFIRMED", { result: resultOf({ superseded: true }) });
    return false;
  }
}

function overtake(earlier, edit) {
  const key = keyOf(edit);
  const known = earlier._overtaken.has(key) ? earlier._overtaken.get(key) : [];
  const more = touched(edit);
  if (earlier._keys.has(key)) earlier._overtaken.set(key, known && more && [...known, ...more]);
}

/** The verdicts on the parts of an atomic batch as one: all were applied, or none. */
function joined({ results: parts, ...whole }) {
  const errors = parts.filter(({ status, code }) => status === "error" && code !== "BATCH_ABORTED");
  const conflicts = parts.filter(({ status }) => status === "conflict").map(({ conflict }) => conflict);
  if (errors.length) return errors.find((part) => !isRetryable(part)) ?? errors[0];
  if (conflicts.length) return { status: "conflict", conflict: conflicts[0], conflicts };
  const other = parts.find(({ status }) => status !== "success");
  return other ?? { ...whole, seq: whole.seq ?? parts.at(-1).seq, duplicate: parts.every(({ duplicate }) => duplicate) };
}

/**
 * The operation that carries out a choice: a CONFLICT_RESOLVED that needs no memory on the server, or, for what that cannot say
 * (unset, replace, a restored layout, a batch), the same operation again with the conflict's version as its base.
 */
function resolution(conflict, operation, choice, data, epoch, env) {
  const { conflictId, kind, documentId, currentVersion, batch } = conflict;
  const isMerged = choice === "merged";
  if (isMerged ? data === undefined || batch.length : choice !== "local") fail("INVALID_MESSAGE", "choose local, remote, or merged with data");
  const current = new Map([conflict, ...batch].map((each) => [`${each.kind}:${each[`${each.kind}Id`]}`, each.currentVersion]));
  const edits = operation._edits.map((edit) => (current.has(keyOf(edit)) ? based(edit, current.get(keyOf(edit)), epoch) : edit));
  const [edit] = edits;
  const kept = { ...operation._kept, createdAt: env.now(), resolution: undefined };
  const isDelete = edit.type === "WIDGET_DELETE";
  const isGone = conflict.remote === null && isPlain(edit); // keeping mine means all of it, as it was shown
  if (batch.length || !(isMerged || isGone || isDelete || (isPlain(edit) && !edit.payload.unset))) return new Operation(env.newId(), edits, kept);
  const whole = isMerged ? data && plain(data) : isDelete ? null : isGone ? kept.shown ?? bodyOf(edit) : bodyOf(edit);
  const base = { [`${kind}Id`]: documentId, baseVersion: currentVersion, epoch };
  kept.resolution = { conflictId, resolution: isGone ? "merged" : choice, data: whole, ...base };
  if (isMerged || isGone) kept.shown = whole;
  const effect = whole && { [kind === "layout" ? "layout" : "data"]: whole };
  return new Operation(env.newId(), [{ type: effect ? `${kind.toUpperCase()}_UPDATE` : "WIDGET_DELETE", payload: { ...base, ...effect } }], kept);
}

/**
 * Operations kept until their verdict, in a web Storage, by server, user, dashboard and device. A tab holds a Web Lock on its
 * device, and takes over the queue of one that is gone, with its id. Without locks (no secure context) it keeps its own alone.
 */
class Queue {
  #places = 0;

  constructor(env, names) {
    this.env = env;
    this.prefix = `${["tornado-rt", ...names].map(encodeURIComponent).join("/")}/`;
  }

  /** Become `device`, or the one that this tab had, or another; returns the operations that were left over. */
  async open(device = this.env.sessionStorage?.getItem(this.prefix)) {
    for (let tries = 5; device && tries--; ) {
      if (await this.#take(device)) return this.#load();
      await new Promise((resolve) => this.env.setTimeout(resolve, 50)); // the page that is being reloaded still holds it
    }
    const found = await this.takeOver();
    if (!found) await this.#take(this.env.newId(), true);
    return found ?? [];
  }

  /** Become the device of a tab that is gone; null if there is none. */
  async takeOver() {
    const devices = new Set(this.#keys("").map((key) => key.split("/").at(-2)));
    for (const device of this.env.locks ? devices : []) if (device !== this.deviceId && (await this.#take(device))) return this.#load();
    return null;
  }

  async #take(device, isNew) {
    const { locks, sessionStorage } = this.env;
    const hold = (resolve) => (lock) => new Promise((release) => resolve(lock ? release : release()));
    const ask = (resolve) => locks.request(this.prefix + device, { ifAvailable: true }, hold(resolve)).catch(() => resolve());
    const release = locks ? await new Promise(ask) : () => {};
    if (!release && !isNew) return false;
    this.close?.();
    this.close = release;
    this.deviceId = device;
    sessionStorage?.setItem(this.prefix, device);
    return true;
  }

  #keys(device) {
    const storage = this.env.localStorage;
    const all = Array.from({ length: storage?.length ?? 0 }, (_, index) => storage.key(index));
    return all.filter((key) => key.startsWith(this.prefix + device));
  }

  #load() {
    const read = (key) => ({ place: Number(key.split("/").at(-1)), ...JSON.parse(this.env.localStorage.getItem(key)) });
    const all = this.#keys(`${this.deviceId}/`).map(read).sort((a, b) => a.place - b.place);
    this.#places = Math.max(this.#places, all.at(-1)?.place ?? 0);
    return all.map(({ place, id, edits, kept }) => Object.assign(new Operation(id, edits, kept), { _place: place }));
  }

  #key({ _place }) {
    return `${this.prefix}${this.deviceId}/${_place}`;
  }

  /** Keep an operation, in the place of another one if it is named. */
  put(operation, place = operation._place ?? ++this.#places) {
    const { id, _edits: edits, _kept: kept } = Object.assign(operation, { _place: place });
    try {
      this.env.localStorage?.setItem(this.#key(operation), JSON.stringify({ id, edits, kept }));
    } catch (fault) {
      fail("QUEUE_FULL", `the browser keeps no more: ${fault.message}`);
    }
  }

  drop(operation) {
    this.env.localStorage?.removeItem(this.#key(operation));
  }
}

/** The `sub` of a signed token, unchecked (the server checks it). */
function subjectOf(token) {
  const body = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(body, (sign) => sign.charCodeAt(0)))).sub;
}

/** What is needed of the browser; tests hand in their own. */
function browser(given) {
  let last = 0;
  let shift = 0;
  const env = {
    now() {
      const at = Date.now() + shift; // the time of day, but it does not go back
      shift += Math.max(0, last - at);
      return (last = Math.max(last, at));
    },
    random: Math.random,
    newId: () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join(""),
    locks: globalThis.navigator?.locks,
  };
  for (const name of ["WebSocket", "fetch", "setTimeout", "clearTimeout", "addEventListener", "removeEventListener"]) {
    env[name] = globalThis[name]?.prototype ? globalThis[name] : (...all) => globalThis[name]?.(...all);
  }
  for (const name of ["localStorage", "sessionStorage"]) {
    try {
      env[name] = globalThis[name];
    } catch {} // a browser that keeps nothing
  }
  return { ...env, ...given };
}

/** A client of one dashboard. */
export class RealtimeClient extends Engine {
  state = "DISCONNECTED";
  syncState = "IDLE";
  error = null;
  retryAt = null;
  lastSyncAt = null;
  #http; // address
  #token;
  #needsToken = true;
  #socket = null;
  #attempt = 0; // of connecting; nothing of an older one is heard
  #failures = 0;
  #startedAt = 0;
  #heardAt = 0;
  #patience = 0; // how long the server may be silent
  #isPosting = false;
  #syncFailures = 0;
  #isClosed = false;
  #ready = null; // who waits for `connect`
  #messages = []; // wait for a connection
  #answers = new Map(); // who waits for the answer to which message
  #timers = new Map();
  #listeners = new Map(EVENTS.map((name) => [name, new Set()]));
  #edited = new Map(); // by key: the last edit and its time
  #onNetwork = ({ type }) => this.#networkChanged(type === "online");

  constructor({ environment, ...options }) {
    super();
    const given = Object.entries(options).filter(([, value]) => value !== undefined);
    this._options = { ...DEFAULTS, ...Object.fromEntries(given) };
    this._env = browser({ ...("storage" in options && { localStorage: options.storage }), ...environment });
    this.userId = options.userId ?? "";
    this.dashboardId = this._options.dashboardId;
    this.#http = new URL(this._options.url, globalThis.location?.href);
    const { pathname, protocol } = this.#http;
    this.#http.pathname = `${pathname.replace(/\/*(api\/realtime)?\/*$/, "")}/api/realtime`;
    this.#http.protocol = protocol.replace("ws", "http");
    if (!options.userId && !options.token) fail("UNAUTHORIZED", "a client needs a userId or a token");
    for (const name of ["online", "offline"]) this._env.addEventListener(name, this.#onNetwork);
  }

  get deviceId() {
    return this._queue.deviceId ?? null;
  }

  get clientId() {
    return this._connection?.clientId ?? null;
  }

  get permissions() {
    return this._connection?.permissions ?? [];
  }

  on(event, listener) {
    const all = this.#listeners.get(event) ?? fail("INVALID_MESSAGE", `there is no event ${event}; there are ${EVENTS}`);
    all.add(listener);
    return () => all.delete(listener);
  }

  #tell(event, value) {
    for (const listener of this.#listeners.get(event)) {
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
    return atomic ? this._submitBatch(copies) : copies.map((edit) => this._submit(edit, 0));
  }

  /**
   * A hold that the caller names begins with the first edit. Otherwise the first edit of a field leaves at once, and what follows
   * closely is held, but no longer than a batch: somebody who drags is seen to move.
   */
  #edit(type, payload, { unset, replace, baseVersion, debounce } = {}) {
    const edit = { type, payload: { ...payload, unset, replace, baseVersion } };
    if (!isPlain(edit) || debounce !== undefined) return this._submit(edit, isPlain(edit) && debounce);
    const now = this._env.now();
    const last = this.#edited.get(keyOf(edit));
    this.#edited.set(keyOf(edit), { edit, now });
    const isClose = last && now - last.now < this._options.debounce && isSame(last.edit, edit);
    return this._submit(edit, isClose && this._options.debounce, now + this._options.batchInterval);
  }

  // Messages of one's own

  send(type, payload = {}) {
    const frame = { type, id: this._env.newId(), userId: this.userId, payload };
    const { maxMessageQueueSize } = this._options;
    if (this._connection) this._write(frame);
    else if (this.#messages.push(frame) > maxMessageQueueSize) fail("QUEUE_FULL", `${this.#messages.pop() && maxMessageQueueSize} messages wait already`);
    return frame.id;
  }

  async request(type, payload) {
    const id = this.send(type, payload);
    try {
      return await new Promise((resolve, reject) => {
        this.#answers.set(id, { resolve, reject });
        this.#later(id, this._options.operationTimeout, () => reject(new RealtimeError("TIMEOUT", `no answer to ${type}`)));
      });
    } finally {
      this.#clear(id);
      this.#answers.delete(id);
    }
  }

  async ping() {
    const sentAt = this._env.now();
    await this.request("PING");
    return this._env.now() - sentAt;
  }

  // The connection

  connect() {
    if (this.#isClosed || (this.state === "CONNECTED" && !this.#ready)) return this.#isClosed ? Promise.reject(ended("closed")) : Promise.resolve();
    if (!this.#ready) {
      const promise = new Promise((resolve, reject) => (this.#ready = { resolve, reject }));
      promise.catch(() => {}); // perhaps nobody waits
      this.#ready.promise = promise;
    }
    const { promise } = this.#ready;
    if (this.state !== "CONNECTING" && !this.#socket) {
      this.#failures = 0;
      this.#dial();
    }
    return promise;
  }

  disconnect() {
    if (this._connection) this._emit("DISCONNECT", {});
    this.#stop("DISCONNECTED", ended("disconnected"));
  }

  close() {
    this.disconnect();
    this.#isClosed = true;
    for (const name of ["online", "offline"]) this._env.removeEventListener(name, this.#onNetwork);
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    this._queue.close?.();
  }

  #stop(state, fault) {
    this.#hangUp();
    for (const name of ["dial", "sync"]) this.#clear(name);
    this.#become(state, "IDLE");
    this.#ready?.reject(fault);
    this.#ready = null;
    this._wake();
  }

  /** One attempt, from asking for a token to the socket. */
  async #dial() {
    const attempt = ++this.#attempt;
    const { token, deviceId } = this._options;
    this.#clear("dial");
    this.retryAt = null;
    this.#become(this.state === "RECONNECTING" ? "RECONNECTING" : "CONNECTING");
    try {
      if (this.#needsToken) this.#token = typeof token === "function" ? await token() : token;
      this.#needsToken = false;
      this.userId ||= subjectOf(this.#token);
      if (!this.deviceId) await this.#openQueue(deviceId);
      if (attempt === this.#attempt) this.#openSocket(attempt);
    } catch (fault) {
      if (attempt === this.#attempt) this.#lost(0, fault.message);
    }
  }

  async #openQueue(deviceId) {
    const queue = new Queue(this._env, [this.#http, this.userId, this.dashboardId]);
    const left = await queue.open(deviceId);
    if (this.deviceId || this.#isClosed) return queue.close?.(); // another attempt was quicker
    this._queue = queue;
    for (const operation of this.pending) queue.put(operation);
    this._takeBack(left);
  }

  #query(more) {
    const all = { ...more, userId: this.#token ? undefined : this.userId };
    return `?${new URLSearchParams(Object.entries(all).filter(([, value]) => value !== undefined))}`;
  }

  #openSocket(attempt) {
    const { dashboardId, deviceId } = this;
    const address = this.#http.href.replace("http", "ws") + this.#query({ dashboardId, deviceId, ...this._resume });
    const socket = (this.#socket = new this._env.WebSocket(address, this.#token ? ["bearer", this.#token] : []));
    this.#startedAt = this._env.now();
    socket.onmessage = ({ data }) => attempt === this.#attempt && this.#hear(JSON.parse(data));
    socket.onclose = ({ code, reason }) => attempt === this.#attempt && this.#lost(code, reason);
    this.#watch(this.#startedAt, 10000);
  }

  /** A socket that says nothing for so long is dead, whatever it claims. */
  #watch(heardAt = this.#heardAt, patience = this.#patience) {
    this.#heardAt = heardAt;
    this.#patience = patience;
    const left = heardAt + patience - this._env.now();
    if (left > 0) this.#later("watch", left, () => this.#watch());
    else this.#lost(1006, "the server fell silent");
  }

  #hear(frame) {
    const { type, payload, correlationId } = frame;
    this.#heardAt = this._env.now();
    this._receive(frame);
    if (this._askAt === Infinity) this.lastSyncAt = this.#heardAt;
    if (type === "CONNECT") {
      this.#watch(this.#heardAt, 2 * payload.heartbeatInterval || 60000);
      this.error = null;
      this.#clear("sync");
      this.#syncFailures = 0;
      this.#become("CONNECTED", "IDLE");
      for (const message of this.#messages.splice(0)) this._write(message);
      this.#later("adopt", this._options.syncInterval, () => this.#adopt());
    }
    const { resolve, reject } = this.#answers.get(correlationId) ?? {};
    if (type === "NACK") reject?.(new RealtimeError(payload.code, payload.error, payload));
    else resolve?.(frame);
    this.#pump();
  }

  /** Where nothing of our own waits, become the device of a tab that is gone, and send what it left. */
  async #adopt() {
    const found = !this.queueSize && (await this._queue.takeOver());
    if (!found) return this.#later("adopt", this._options.syncInterval, () => this.#adopt());
    this._takeBack(found);
    this.#hangUp();
    this.#dial();
  }

  #hangUp() {
    this.#attempt += 1;
    for (const name of ["watch", "adopt"]) this.#clear(name);
    if (this.#socket) this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket?.close(1000);
    this.#socket = null;
    this._closed();
    for (const { reject } of this.#answers.values()) reject(ended("cut before the answer came"));
  }

  #lost(code, why) {
    const { reason = why, reconnect, retryAfterMs } = this._farewell ?? {};
    const isExpired = reason === "Token expired";
    const wasUp = this.state === "CONNECTED";
    this.error = reason || "no connection";
    this.#needsToken ||= isExpired;
    const comesBack = reconnect ?? (this._farewell || code !== 1008 || isExpired);
    this._farewell = null;
    this.#hangUp();
    if (!comesBack || !this.#dialLater(wasUp ? this._env.now() - this.#startedAt : 0, retryAfterMs)) {
      const fault = ended(this.error);
      this.#needsToken = true;
      this.#stop("ERROR", fault);
      return this.#tell("error", fault);
    }
    this.#become("RECONNECTING");
    // After a cut others lost their sockets too: the first POST comes at a random moment.
    if (!this.#timers.has("sync")) this.#later("sync", wasUp ? this._env.random() * this._options.syncInterval : 0, () => this.sync());
    this._wake();
  }

  /** Doubling with full jitter, from the first try on; begins anew once a connection has outlived its delay. */
  #dialLater(lived, retryAfterMs) {
    const { reconnectDelay, reconnectAttempts } = this._options;
    const ceiling = () => Math.min(MAX_DELAY, reconnectDelay * 2 ** this.#failures);
    if (lived >= ceiling()) this.#failures = 0;
    if (this.#failures >= reconnectAttempts) return false;
    const delay = retryAfterMs ?? this._env.random() * ceiling();
    this.#failures += 1;
    this.retryAt = this._env.now() + delay;
    this.#later("dial", delay, () => this.#dial());
    return true;
  }

  #become(state, syncState = this.syncState) {
    const changes = [["state", state, this.state], ["status", syncState, this.syncState]];
    Object.assign(this, { state, syncState });
    for (const [event, now, before] of changes) if (now !== before) this.#tell(event, now);
  }

  #networkChanged(isOnline) {
    if (this._connection) {
      this.send("PING"); // is the socket still there?
      this.#watch(this._env.now() + 5000 - this.#patience);
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
    let found = "SYNCING";
    while (found === "SYNCING" && this.#isDown) {
      this.#become(this.state, found);
      found = await this.#post();
      this.#pump();
    }
    this.#isPosting = false;
    if (!this.#isDown) return;
    const { retryAttempts, retryDelay, syncInterval } = this._options;
    this.#become(this.state, found);
    this.#syncFailures = found === "IDLE" || this.#syncFailures >= retryAttempts ? 0 : this.#syncFailures + 1;
    this.#later("sync", this.#syncFailures ? retryDelay : syncInterval, () => this.sync());
  }

  /** One POST; returns how the sync stands then: SYNCING where there is more to send. */
  async #post() {
    const { dashboardId, deviceId } = this;
    const id = this._env.newId();
    const group = this._next();
    const operations = group.map((each) => each._wire);
    this._sent(group, id, Infinity, true);
    let status = 0;
    let answer = {};
    try {
      const response = await this._env.fetch(this.#http + this.#query(), {
        method: "POST",
        headers: { "Content-Type": "application/json", ...(this.#token && { Authorization: `Bearer ${this.#token}` }) },
        body: JSON.stringify({ type: "SYNC", operations, dashboardId, deviceId, ...this._resume }),
        signal: AbortSignal.timeout(20000),
      });
      status = response.status;
      answer = await response.json();
    } catch (fault) {
      this.error = fault.message; // nobody answered, or a proxy did
    }
    const { results, sync, code } = answer;
    this.#needsToken ||= status === 401;
    if (status === 200 && results) {
      this._results(id, group, results);
      if (sync && !this._connection) this._takeLate(sync);
    } else if ([400, 403, 409, 413, 422].includes(status) && code && group.length) this._refuseAll(id, group, answer);
    else {
      this._unanswered(id, group);
      return status ? "ERROR" : "OFFLINE";
    }
    return group.length && this._next().length ? "SYNCING" : "IDLE";
  }

  _takeLate(sync) {
    this.lastSyncAt = this._env.now();
    if (sync.mode !== "snapshot" || sync.epoch !== this.epoch || sync.seq >= this.position) this._takeSync(sync); // else overtaken
  }

  // Moving what the engine has made

  /** With the end of this turn, so that what is submitted together leaves together. */
  _wake() {
    if (this.#isClosed) fail("CLOSED", "the client is closed");
    if (!this.#timers.has("wake")) queueMicrotask(() => this.#pump());
    this.#timers.set("wake");
  }

  #pump() {
    this.#timers.delete("wake");
    const due = this._flush();
    this._takeViewed();
    for (const [name, value] of this._events.splice(0)) {
      this.#tell(name, value);
      if (name !== "sync" || !this.#ready) continue;
      this.#ready.resolve();
      this.#ready = null;
    }
    this.#later("pump", Math.max(1, due - this._env.now()), () => this.#pump());
  }

  _write(frame) {
    // 1 is OPEN. What a dying socket swallows is repeated, since no answer comes.
    if (this.#socket?.readyState === 1) this.#socket.send(JSON.stringify({ ...frame, timestamp: new Date().toISOString() }));
  }

  #later(name, ms, act) {
    this.#clear(name);
    if (this.#isClosed) return;
    const fire = () => {
      this.#timers.delete(name);
      act();
    };
    this.#timers.set(name, this._env.setTimeout(fire, Math.min(ms, 2 ** 31 - 1)));
  }

  #clear(name) {
    this._env.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

const ended = (why) => new RealtimeError("CLOSED", `the connection ended: ${why}`);
