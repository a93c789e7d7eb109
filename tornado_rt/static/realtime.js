/**
 * The browser's client of tornado_rt: a dashboard's documents at hand, changed at once, kept in step. It knows no DOM.
 * The rules are those of docs/protocol.md; realtime.d.ts says what options, methods and events mean, docs/browser.md how it works.
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
const EVENTS = ["state", "status", "sync", "view", "change", "operation", "conflict", "resolved", "message", "refused", "error"];

// An edit is `{type, payload}` as on the wire and never changes; a key is a kind, of six letters, a colon and an id. A field may be
// called `__proto__`: objects are spread, and never assigned to by name.

const keyOf = ({ payload: { widgetId, layoutId = "default" } }) => (widgetId === undefined ? `layout:${layoutId}` : `widget:${widgetId}`);
const named = (key) => ({ kind: key.slice(0, 6), id: key.slice(7) });
const bodyOf = ({ payload }) => payload.data ?? payload.layout;
const withPayload = (edit, more) => ({ ...edit, payload: { ...edit.payload, ...more } });
const isPlain = ({ type, payload }) => type.endsWith("_UPDATE") && !payload.replace;

/** The fields that an edit sets or removes; null: all that the document has. */
const touched = (edit) => (isPlain(edit) ? [...Object.keys(bodyOf(edit) ?? {}), ...(edit.payload.unset ?? [])].sort() : null);
const isAlike = (edit, other) => JSON.stringify(touched(edit)) === JSON.stringify(touched(other));

/** The fields after an edit; undefined: no document. */
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
  const body = Object.fromEntries(Object.entries(bodyOf(edit)).filter(([name]) => isLeft(name)));
  const unset = edit.payload.unset?.filter(isLeft);
  const rest = withPayload(edit, { [edit.payload.data ? "data" : "layout"]: body, unset: unset?.length ? unset : undefined });
  return touched(rest).length ? rest : null;
}

/** A deep copy that is JSON and nothing else. */
function plain(value) {
  if (Object(value) !== value || Array.isArray(value)) fail("INVALID_MESSAGE", "not an object of fields");
  const check = (_, each) => (typeof each !== "number" || isFinite(each) ? each : fail("INVALID_MESSAGE", "not a finite number"));
  return JSON.parse(JSON.stringify(value, check));
}

/** What begins with `_` is the module's own. */
class Operation {
  state = "PENDING";
  attempts = 0;
  error = null;
  result = null;
  conflict = null;
  _carrier = null; // the message or POST that it travels in
  _hasLeft = false; // nobody said that nothing was changed: it may have been applied
  _isRefused = false; // it left and nothing was changed
  _isResumed = false; // leaves by SYNC_UPDATE: it waited for the connection, or another answer may still come
  _notBefore = 0;
  _heldUntil = 0; // later edits of the same fields become one with it
  _overtaken = new Map(); // by key: fields that later operations have set (null: all)
  _lost = new Set(); // keys of documents that somebody deleted
  _followers = []; // share its verdict

  /** `kept`: createdAt, isBatch, resolution (a CONFLICT_RESOLVED's payload), shown (the document with this edit in it). */
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

  get _isSettled() {
    return this.state !== "PENDING" && this.state !== "SENT";
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
const leavesOf = (group) => group.flatMap((op) => op._edits).length;

/** A refusal that the same operation may outlive: a NACK says so; in `results` the code does. */
const isRetryable = ({ retryable, code }) => retryable ?? ["RATE_LIMITED", "UNAVAILABLE", "INTERNAL"].includes(code);

/**
 * What the client knows and is to do, without sockets and timers. Operations on one document leave in their order; what may have
 * been applied is repeated unchanged under its id; from what was refused the fields that later ones have set are taken out, under
 * a new id. So nothing follows an operation on a whole document, or one in a POST, onto its documents before the verdict.
 */
class Engine {
  position = 0;
  epoch = null;
  clientCount = 0;
  widgets = new Map();
  layouts = new Map();
  _events = [];
  _outbox = new Set(); // confirmed ones stay until their change is here, so that nothing flickers
  _connection = null; // CONNECT's payload while the socket is up
  _farewell = null; // DISCONNECT's
  _askAt = Infinity; // when to ask (again) for what was missed
  #asked;
  #documents = new Map(); // the server's, by key
  #carriers = new Map(); // messages under way and their operations
  #open = new Map(); // by conflictId: [operation, whether this connection was told of it]
  #failed = new Set();
  #viewed = new Set();
  #batchAt = 0; // when new operations may leave again
  #tokens = 0; // of a bucket a little narrower than the server's
  #filledAt = 0;

  get pending() {
    return [...this._outbox].filter((op) => !op._isSettled);
  }

  get failed() {
    return [...this.#failed];
  }

  get conflicts() {
    return [...this.#open.values()].map(([op]) => op.conflict);
  }

  get queueSize() {
    return this._kept.length;
  }

  /** What has to outlive the page. */
  get _kept() {
    return [...[...this.#open.values()].map(([op]) => op), ...this.pending];
  }

  info(kind, id) {
    const { fields, ...rest } = this.#documents.get(`${kind}:${id}`) ?? {};
    return fields ? rest : null;
  }

  get _resume() {
    return { since: this.position, epoch: this.epoch ?? undefined };
  }

  /** What the server takes; it says 0 for no limit. */
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
    this.#set(op, { state, error: null, _carrier: null, ...outcome });
    op._answer?.();
    for (const each of op._followers) this.#settle(each, state, outcome);
  }

  // What the person does

  /** With `hold` (ms) it waits for later edits of the same fields, but not after `end`; they are the same operation. */
  _submit(edit, hold, end = Infinity) {
    const now = this._now();
    const key = keyOf(edit);
    const last = this.pending.findLast((op) => op._keys.has(key));
    const held = last?._heldUntil > now && !last._hasLeft && last;
    const isDelete = held && edit.type === "WIDGET_DELETE";
    if (held && hold && isAlike(held._edits[0], edit)) {
      const { baseVersion, epoch } = held.payload;
      held._revise(held.id, [withPayload(edit, { baseVersion, epoch })]);
      held._heldUntil = Math.min(now + hold, held._holdEnd);
      this.#set(held);
      held._kept.shown = this.#document(key);
      this._wake();
      return held;
    }
    const shown = apply(edit, this.#document(key));
    const op = this.#admit(new Operation(this._newId(), [this.#rebased(edit)], { createdAt: now, shown }));
    if (hold) Object.assign(op, { _heldUntil: now + hold, _holdEnd: end });
    if (isDelete) {
      this._outbox.delete(held);
      op._followers.push(held);
    }
    return op;
  }

  _submitBatch(edits) {
    const most = this.#limit("maxOperations", 50);
    if (!edits.length || edits.length > most) fail("TOO_LARGE", `a batch holds 1 to ${most} edits`);
    return this.#admit(new Operation(this._newId(), edits.map((edit) => this.#rebased(edit)), { createdAt: this._now(), isBatch: true }));
  }

  /** With the base that the person saw. Who makes a document, or has seen nothing yet, has none. */
  #rebased(edit) {
    const { baseVersion = this.#document(keyOf(edit)) && this.position, epoch = this.epoch } = edit.payload;
    const isBased = this._options.enableConflictDetection && this.epoch && baseVersion !== undefined;
    return withPayload(edit, isBased ? { baseVersion, epoch } : { baseVersion: undefined });
  }

  #admit(op) {
    const { maxQueueSize, batchSize } = this._options;
    if (this.queueSize >= maxQueueSize) fail("QUEUE_FULL", `${maxQueueSize} operations wait already`);
    if (op._size > this.#room) fail("TOO_LARGE", `over ${this.#room} bytes`);
    this._wake();
    this._outbox.add(op);
    try {
      this._save();
    } catch ({ message }) {
      this._outbox.delete(op);
      fail("QUEUE_FULL", `the browser keeps no more: ${message}`);
    }
    this.#set(op, { _notBefore: this.#batchAt > this._now() ? this.#batchAt : 0 });
    const gathered = this.pending.filter((each) => each._notBefore === this.#batchAt && !each.attempts);
    if (gathered.length >= batchSize) for (const each of gathered) each._notBefore = 0;
    return op;
  }

  /** Operations that an earlier page kept; nobody knows whether they had left. */
  _takeBack(ops) {
    this._outbox = new Set([...ops, ...this._outbox]);
    for (const op of ops) this.#set(op, { _hasLeft: true });
  }

  resolve(conflictId, choice, data) {
    const [op, isToldOf] = this.#open.get(conflictId) ?? fail("CONFLICT_UNKNOWN", `no open conflict ${conflictId}`);
    const { conflict } = op;
    const answer = choice === "remote" ? null : this.#resolution(op, choice, data);
    this._wake();
    this.#open.delete(conflictId);
    this._isDirty = true;
    if (answer) {
      this._outbox.add(answer);
      this.#set(answer);
    } else if (isToldOf) this._emit("CONFLICT_RESOLVED", { conflictId, resolution: "remote" });
    this._events.push(["resolved", { conflict, choice }]);
    return answer;
  }

  /** A CONFLICT_RESOLVED that needs no memory on the server; what that cannot say is the same operation again on the new base. */
  #resolution({ conflict, _edits, _kept }, choice, data) {
    const { conflictId, kind, documentId, currentVersion: baseVersion, batch } = conflict;
    const { epoch } = this._resume;
    const isMerged = choice === "merged" && data !== undefined && !batch.length;
    if (!isMerged && choice !== "local") fail("INVALID_MESSAGE", "choose local, remote, or merged with data");
    const bases = new Map([conflict, ...batch].map((each) => [`${each.kind}:${each[`${each.kind}Id`]}`, each.currentVersion]));
    const edits = _edits.map((edit) => (bases.has(keyOf(edit)) ? withPayload(edit, { baseVersion: bases.get(keyOf(edit)), epoch }) : edit));
    const [edit] = edits;
    const kept = { ..._kept, createdAt: this._now(), resolution: undefined };
    const isDelete = edit.type === "WIDGET_DELETE";
    const isGone = !conflict.remote && isPlain(edit); // keeping mine is then all of it, as it was shown
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
    this.#failed.delete(op) || fail("NOT_POSSIBLE", "only a failed operation can be tried again");
    Object.assign(op, { state: "PENDING", attempts: 0, error: null, _hasLeft: false, _isRefused: false, _done: undefined });
    op._revise(this._newId(), op._edits);
    this.#admit(op);
  }

  rollback(op) {
    this._wake();
    if (this.#open.has(op.conflict?.conflictId)) this.resolve(op.conflict.conflictId, "remote");
    else if (this.#failed.delete(op)) this.#set(op);
    else if (op._isSettled || op._hasLeft) fail("NOT_POSSIBLE", "it may have been applied; only its verdict can tell");
    else this.#fail(op, new RealtimeError("ROLLED_BACK", "given up before it left"));
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
    else if (type === "SYNC_UPDATE" && "fromSeq" in payload) this.#takeMerged(payload, type);
    else if (type === "NACK" && group) this._refuseAll(id, group, payload);
    else if (type === "NACK" && id === this.#asked) this._askAt = this._now() + (payload.retryAfterMs ?? 1000);
    else if (type === "NACK") this._events.push(["refused", frame]);
    else if (type === "ACK" && group) {
      const isOne = group[0].id === id; // its `results` are then an atomic batch's parts
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
    this._farewell = null;
    this.#tokens = Infinity;
    for (const op of this._outbox) op._isResumed = true;
    if (payload.sync) this._takeSync(payload.sync);
    else this.#ask();
  }

  /** The socket is gone: what travelled by it may have been applied, and is repeated. */
  _closed() {
    this._connection = null;
    this._askAt = Infinity;
    for (const [id, group] of this.#carriers) this._unanswered(id, group);
    this.#carriers.clear();
    for (const open of this.#open.values()) open[1] = false;
  }

  /** Something was missed: ask for it, unless that is under way. */
  #ask(isWhole) {
    if (this._askAt < Infinity || !this._connection) return;
    this.#asked = this._emit("SYNC_REQUEST", isWhole ? {} : this._resume);
    this._askAt = this._now() + this._options.operationTimeout;
  }

  _takeSync(payload) {
    const { mode, epoch, seq, clientCount = this.clientCount } = payload;
    this._askAt = Infinity;
    if (mode === "snapshot") this.#takeWhole(payload, "SYNC_RESPONSE", true);
    else if (epoch !== this.epoch) return this.#ask(true); // a part of a log that we have nothing of
    else if (mode === "merged") this.#takeMerged(payload, "SYNC_RESPONSE");
    else {
      for (const change of payload.operations) if (change.seq === this.position + 1) this.#takeChange(change);
      if (seq > this.position) return this.#ask(true);
    }
    this.clientCount = clientCount;
    this._events.push(["sync", { mode, seq: this.position }]);
  }

  #takeMerged(payload, type) {
    if (payload.fromSeq > this.position) this.#ask();
    else if (payload.seq >= this.position) this.#takeWhole(payload, type, false);
  }

  /** Whole documents in place of what was here: of a snapshot all, else those that changed. */
  #takeWhole(payload, type, isSnapshot) {
    const kinds = ["widget", "layout"];
    const keys = new Set(isSnapshot ? this.#documents.keys() : []);
    for (const kind of kinds) for (const id of payload.deleted?.[`${kind}s`] ?? []) keys.add(`${kind}:${id}`);
    for (const key of keys) this.#documents.delete(key);
    for (const kind of kinds) {
      for (const [id, { data, layout, ...rest }] of Object.entries(payload[`${kind}s`] ?? {})) {
        keys.add(`${kind}:${id}`);
        this.#documents.set(`${kind}:${id}`, { fields: data ?? layout, ...rest });
      }
    }
    this.epoch = payload.epoch ?? this.epoch;
    this.#moved(payload.seq, keys, { type, userId: "", timestamp: payload.timestamp ?? "", payload }, false, isSnapshot);
  }

  #takeChange(change) {
    const { type, payload } = change;
    this.#takeEdits(type === "WIDGET_BATCH" ? payload.operations : [change], payload.seq ?? change.seq, change);
  }

  /** Edits that took `seq` together: somebody's or, at the ACK, our own. */
  #takeEdits(edits, seq, change, isOwn) {
    for (const edit of edits) {
      const key = keyOf(edit);
      const { fields: before, history = [] } = this.#documents.get(key) ?? {};
      const fields = apply(edit, before);
      const rest = { version: seq, updatedAt: change.timestamp, updatedBy: change.userId, history: [...new Set([...history, seq])] };
      if (fields) this.#documents.set(key, { fields, ...rest });
      else this.#documents.delete(key);
    }
    this.#moved(seq, new Set(edits.map(keyOf)), change, isOwn);
  }

  /** The server's documents changed: forget what is in them now; a late edit of what somebody deleted is not shown. */
  #moved(seq, keys, { type, userId, timestamp, payload }, isOwn = false, isSnapshot = false) {
    const made = new Set(); // an operation that makes the document anew is shown, and what follows it
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

  // Verdicts

  /** An answer that nobody waits for; if it tells of a change that is not here, that is asked for. */
  #stray({ seq, duplicate, resolved }) {
    if (seq > this.position && !duplicate && !resolved) this.#ask();
  }

  /**
   * A verdict for each operation, of a message (answered by `frame`) or a POST. What is not named is repeated. Of an operation that
   * was repeated meanwhile a refusal is no verdict: the repetition may be applied.
   */
  _results(id, group, results, frame) {
    const found = group.map((op) => {
      const whole = results.find(({ operationId }) => operationId === op.id) ?? { retryable: true, retryAfterMs: 1000, outcome: "unknown" };
      return [op, whole.results?.length ? joined(whole) : whole];
    });
    found.sort(([, a], [, b]) => (a.seq ?? 0) - (b.seq ?? 0)); // own changes count in the order of their seqs
    for (const [op, verdict] of found) {
      if (op._isSettled) this.#stray(verdict); // a second answer, to a repetition
      else if (verdict.status === "success") this.#succeed(op, verdict, frame);
      else if (verdict.status === "conflict") this.#collide(op, verdict, frame);
      else if (op._carrier === id) this.#refuse(op, verdict);
    }
  }

  #succeed(op, { seq = null, version = seq, merged = [], duplicate = false }, frame) {
    this.#confirm(op, { seq, version, merged, duplicate });
    if (frame && !duplicate && seq > this.position) {
      const { type, payload, _edits } = op;
      const isKnown = _edits.every((edit) => edit.type !== "LAYOUT_RESTORE"); // else only the server has its outcome
      const change = { type, payload, userId: this.userId, timestamp: frame.timestamp };
      if (isKnown && seq === this.position + 1) this.#takeEdits(_edits, seq, change, true);
      else this.#ask();
    }
    this.#forgetSeen();
  }

  #confirm(op, result) {
    for (const earlier of this.pending) {
      if (earlier === op) break;
      for (const edit of op._edits) {
        const key = keyOf(edit);
        const known = earlier._overtaken.has(key) ? earlier._overtaken.get(key) : [];
        const more = touched(edit);
        if (earlier._keys.has(key)) earlier._overtaken.set(key, known && more && [...known, ...more]);
      }
    }
    this.#settle(op, "CONFIRMED", { result: resultOf(result) });
  }

  #collide(op, { conflict: found, conflicts: batch = [] }, frame) {
    const conflict = {
      ...{ fields: [], local: null, remote: null, resolved: null, conflictId: `conflict-${op.id}` }, // a batch's have no id
      ...found,
      documentId: found[`${found.kind}Id`],
      operation: op,
      shown: op._kept.shown ?? null,
      batch,
    };
    const isToldOf = frame?.type === "CONFLICT_DETECTED";
    this._outbox.delete(op);
    if (!conflict.resolved) this.#open.set(conflict.conflictId, [op, isToldOf]);
    const error = new RealtimeError("CONFLICT", `${conflict.remoteUserId} changed ${conflict.documentId} meanwhile`, { conflict });
    this.#settle(op, "CONFLICT", { conflict, error });
    this._events.push(["conflict", conflict]);
  }

  /** A whole message was refused. Where it was for the fault of one operation, the others must not suffer for it. */
  _refuseAll(id, group, error) {
    const isForAll = group.length < 2 || isRetryable(error) || ["FORBIDDEN", "UNAUTHORIZED"].includes(error.code);
    const blamed = (error.details ?? []).map(({ path }) => group[/^(?:payload\.)?operations\[(\d+)\]/.exec(path)?.[1]]);
    const isKnown = group.some((op) => blamed.includes(op));
    for (const op of group) {
      if (op._carrier !== id) continue; // it was repeated meanwhile
      op._isAlone = !isForAll && !isKnown;
      this.#refuse(op, isForAll || blamed.includes(op) ? error : { retryable: true, retryAfterMs: 0 });
    }
  }

  #refuse(op, answer) {
    const { code = "INTERNAL", error: message = "refused", details = [], outcome, retryAfterMs } = answer;
    const error = new RealtimeError(code, message, { details });
    if (isRetryable(answer)) {
      const backoff = Math.min(30000, 1000 * 2 ** (op.attempts - 1)) * (0.5 + this._random() / 2);
      const _hasLeft = outcome === "unknown";
      const _notBefore = this._now() + (retryAfterMs ?? backoff);
      this.#set(op, { state: "PENDING", error, _carrier: null, _hasLeft, _isRefused: !_hasLeft, _notBefore });
    } else if (code === "NOT_FOUND" && op.type === "WIDGET_DELETE") this.#succeed(op, {}); // it is gone, which is what was wanted
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

  /** Let leave what may leave, and repeat what was not answered in time; returns when to do so again. */
  _flush() {
    const now = this._now();
    const { operationTimeout } = this._options;
    const late = this.pending.filter((op) => op._carrier && op._deadline <= now);
    for (const op of late) op._isResumed = true; // so that the two answers are not mixed up
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
      if (!wait) this.#send(group, now + operationTimeout);
    }
    const times = this.pending.map((op) => (op._carrier ? op._deadline : Math.max(op._notBefore, op._heldUntil)));
    return Math.min(...[...times, now + wait, this._askAt].filter((time) => time > now));
  }

  /** Milliseconds until `count` operations may leave; if none, they are counted. */
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
    if (!_isResumed) this.#batchAt = this._now() + this._options.batchInterval;
    const carrier = isOne
      ? this._emit(type, payload, undefined, id)
      : this._emit(isSync ? "SYNC_UPDATE" : "WIDGET_BATCH", isSync ? { operations } : { operations, atomic: false });
    this.#carriers.set(carrier, group);
    this._sent(group, carrier, deadline);
  }

  /** A POST has no deadline: it ends by itself. */
  _sent(group, _carrier, _deadline = Infinity) {
    for (const op of group) {
      this.#set(op, { state: "SENT", attempts: op.attempts + 1, _carrier, _deadline, _hasLeft: true, _isRefused: false });
    }
  }

  /** No answer will come this way: they are repeated, unchanged. */
  _unanswered(id, group) {
    for (const op of group) if (op._carrier && op._carrier === (id ?? op._carrier)) this.#set(op, { state: "PENDING", _carrier: null });
  }

  /** The operations of the next message: counted to the leaves, by bytes, resumed ones apart from new ones. */
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
    const closed = new Set(); // documents onto which nothing may follow
    const closedToNew = new Set(); // nor what has not left before
    const isIn = (set, keys) => [...keys].some((key) => set.has(key));
    let room = this._options.maxPendingOperations - all.filter((op) => op._carrier).length;
    for (const [index, op] of all.entries()) {
      const keys = op._keys;
      const isFollowed = () => op._isRefused && all.slice(index + 1).some((each) => each._hasLeft && isIn(each._keys, keys));
      let closes = op._isPlain && !(op._carrier && op._deadline === Infinity) ? null : closed;
      if (!op._carrier) {
        if (op._notBefore > this._now() || op._heldUntil > this._now() || isIn(closed, keys)) closes = closed;
        else if ((!op._hasLeft && isIn(closedToNew, keys)) || isFollowed()) closes = closedToNew; // first their verdict
        else if (room-- > 0) chosen.push(op);
        else break;
      }
      for (const key of keys) closes?.add(key);
    }
    return chosen;
  }

  /** Take out of a refused operation what later ones have set; false where nothing is left of it. */
  #freshen(op) {
    const [edit] = op._edits;
    const key = keyOf(edit);
    if (!op._isRefused || !op._isPlain || !op._overtaken.has(key)) return true;
    const rest = without(edit, op._overtaken.get(key));
    op._overtaken.clear();
    if (!rest) {
      this._outbox.delete(op);
      this.#settle(op, "CONFIRMED", { result: resultOf({ superseded: true }) });
    } else if (!isAlike(rest, edit)) op._revise(this._newId(), [rest]); // with another content it is another operation
    return rest;
  }
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

/** A client of one dashboard. */
export class RealtimeClient extends Engine {
  state = "DISCONNECTED";
  syncState = "IDLE";
  error = null;
  retryAt = null;
  lastSyncAt = null;
  deviceId = null;
  #env;
  #url;
  #prefix; // of the keys in storage
  #opening; // the queue
  #release; // lets go of the device
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

  constructor({ environment = globalThis, ...options }) {
    super();
    this.#env = environment;
    this._options = { ...DEFAULTS };
    for (const [name, value] of Object.entries(options)) if (value !== undefined) this._options[name] = value;
    const { url, userId, token, dashboardId } = this._options;
    if (!userId && !token) fail("UNAUTHORIZED", "a client needs a userId or a token");
    this.userId = userId ?? "";
    this.dashboardId = dashboardId;
    this.#url = new URL(url, environment.location?.href);
    this.#url.pathname = `${this.#url.pathname.replace(/\/*(api\/realtime)?\/*$/, "")}/api/realtime`;
    this.#url.protocol = this.#url.protocol.replace("ws", "http");
    for (const name of ["online", "offline"]) environment.addEventListener?.(name, this.#onNetwork);
  }

  get clientId() {
    return this._connection?.clientId ?? null;
  }

  get permissions() {
    return this._connection?.permissions ?? [];
  }

  on(event, listener) {
    const all = this.#listeners.get(event) ?? fail("INVALID_MESSAGE", `there is no event ${event}`);
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
  #edit(type, payload, { unset, replace, baseVersion, debounce: hold } = {}) {
    const edit = { type, payload: { ...payload, unset, replace, baseVersion } };
    if (!isPlain(edit) || hold !== undefined) return this._submit(edit, isPlain(edit) && hold);
    const { debounce, batchInterval } = this._options;
    const now = this._now();
    const last = this.#edited.get(keyOf(edit));
    this.#edited.set(keyOf(edit), { edit, now });
    return this._submit(edit, now - last?.now < debounce && isAlike(last.edit, edit) && debounce, now + batchInterval);
  }

  // Messages of one's own

  send(type, payload = {}) {
    const frame = { type, id: this._newId(), userId: this.userId, payload };
    if (this._connection) this._write(frame);
    else if (this.#messages.length < this._options.maxMessageQueueSize) this.#messages.push(frame);
    else fail("QUEUE_FULL", `${this.#messages.length} messages wait already`);
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
    const sentAt = this._now();
    await this.request("PING");
    return this._now() - sentAt;
  }

  // The connection

  connect() {
    if (this.#isClosed) return Promise.reject(ended("closed"));
    if (this.state === "CONNECTED" && !this.#ready) return Promise.resolve();
    if (!this.#ready) {
      const ready = (this.#ready = {});
      ready.promise = new Promise((resolve, reject) => Object.assign(ready, { resolve, reject }));
      ready.promise.catch(() => {}); // perhaps nobody waits
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
    for (const name of ["online", "offline"]) this.#env.removeEventListener?.(name, this.#onNetwork);
    for (const name of [...this.#timers.keys()]) this.#clear(name);
    this.#release?.();
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
    const { token } = this._options;
    this.#clear("dial");
    this.retryAt = null;
    this.#become(this.state === "RECONNECTING" ? this.state : "CONNECTING");
    try {
      if (this.#needsToken) this.#token = typeof token === "function" ? await token() : token;
      this.#needsToken = false;
      this.userId ||= subjectOf(this.#token);
      if (!this.deviceId) await (this.#opening ??= this.#openQueue());
      if (attempt === this.#attempt) this.#openSocket(attempt);
    } catch (fault) {
      if (attempt === this.#attempt) this.#lost(0, fault.message);
    }
  }

  // The queue: in storage by server, user, dashboard and device. A tab holds a Web Lock on its device.

  _now() {
    return this.#env.Date.now();
  }

  _random() {
    return this.#env.Math.random();
  }

  _newId() {
    return this.#env.crypto.getRandomValues(new Uint32Array(4)).join("-");
  }

  #box(name) {
    if (name === "localStorage" && "storage" in this._options) return this._options.storage;
    try {
      return this.#env[name];
    } catch {} // a browser that keeps nothing
  }

  /** Become the device that this tab had before, that of a tab that is gone, or a new one. */
  async #openQueue() {
    this.#prefix = ["tornado-rt", this.#url, this.userId, this.dashboardId, ""].map(encodeURIComponent).join("/");
    const wanted = this._options.deviceId ?? this.#box("sessionStorage")?.getItem(this.#prefix);
    for (let tries = 5; wanted && tries--; ) {
      if (await this.#take(wanted)) return;
      await new Promise((resolve) => this.#later("open", 50, resolve)); // the page that is being reloaded still holds it
    }
    if (!(await this.#takeOver())) await this.#take(this._newId(), true);
  }

  async #takeOver() {
    for (const key of this.#env.navigator?.locks ? Object.keys(this.#box("localStorage") ?? {}) : []) {
      const device = key.startsWith(this.#prefix) && key.slice(this.#prefix.length);
      if (device && device !== this.deviceId && (await this.#take(device))) return true;
    }
    return false;
  }

  async #take(device, isNew) {
    const locks = this.#env.navigator?.locks;
    const hold = (resolve) => (lock) => (lock ? new Promise(resolve) : resolve());
    const ask = (resolve) => locks.request(this.#prefix + device, { ifAvailable: true }, hold(resolve)).catch(() => resolve());
    const release = locks ? await new Promise(ask) : () => {};
    if (this.#isClosed || (!release && !isNew)) return release?.();
    this.#release?.();
    this.#release = release;
    this.deviceId = device;
    this.#box("sessionStorage")?.setItem(this.#prefix, device);
    const kept = JSON.parse(this.#box("localStorage")?.getItem(this.#prefix + device) ?? "[]");
    this._takeBack(kept.map(({ id, edits, kept }) => new Operation(id, edits, kept)));
    this._save();
    return true;
  }

  _save() {
    const all = this._kept.map(({ id, _edits: edits, _kept: kept }) => ({ id, edits, kept }));
    const key = this.#prefix + this.deviceId;
    if (!this.deviceId) return;
    this._isDirty = false;
    if (all.length) this.#box("localStorage")?.setItem(key, JSON.stringify(all));
    else this.#box("localStorage")?.removeItem(key);
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
    const all = Object.entries({ ...more, userId: this.#token ? undefined : this.userId });
    return `?${new URLSearchParams(all.filter(([, value]) => value !== undefined))}`;
  }

  /** A socket that says nothing for so long is dead, whatever it claims. */
  #watch(heardAt = this.#heardAt, patience = this.#patience) {
    this.#heardAt = heardAt;
    this.#patience = patience;
    const left = heardAt + patience - this._now();
    if (left > 0) this.#later("watch", left, () => this.#watch());
    else this.#lost(1006, "the server fell silent");
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
      this.#adoptLater();
    }
    const { resolve, reject } = this.#answers.get(correlationId) ?? {};
    if (type === "NACK") reject?.(new RealtimeError(payload.code, payload.error, payload));
    else resolve?.(frame);
    this.#pump();
  }

  /** Where nothing of our own waits, become the device of a tab that is gone, and send what it left. */
  #adoptLater() {
    this.#later("adopt", this._options.syncInterval, async () => {
      if (this.queueSize || !(await this.#takeOver())) return this.#adoptLater();
      this.#hangUp();
      this.#dial();
    });
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
    const { _farewell } = this;
    const { reason = why, reconnect, retryAfterMs } = _farewell ?? {};
    const isExpired = reason === "Token expired";
    const lived = this.state === "CONNECTED" && this._now() - this.#startedAt;
    this._farewell = null;
    this.error = reason || "no connection";
    this.#needsToken ||= isExpired;
    this.#hangUp();
    if (!(reconnect ?? (_farewell || code !== 1008 || isExpired)) || !this.#dialLater(lived, retryAfterMs)) {
      this.#needsToken = true;
      this.#stop("ERROR", ended(this.error));
      return this.#tell("error", ended(this.error));
    }
    this.#become("RECONNECTING");
    // After a cut others lost their sockets too: the first POST comes at a random moment.
    if (!this.#timers.has("sync")) this.#later("sync", lived === false ? 0 : this._random() * this._options.syncInterval, () => this.sync());
    this._wake();
  }

  /** Doubling with full jitter, from the first try on; begins anew once a connection has outlived its delay. */
  #dialLater(lived, retryAfterMs) {
    const { reconnectDelay, reconnectAttempts } = this._options;
    const ceiling = () => Math.min(30000, reconnectDelay * 2 ** this.#failures);
    if (lived >= ceiling()) this.#failures = 0;
    if (this.#failures >= reconnectAttempts) return false;
    const delay = retryAfterMs ?? this._random() * ceiling();
    this.#failures += 1;
    this.retryAt = this._now() + delay;
    this.#later("dial", delay, () => this.#dial());
    return true;
  }

  #become(state, syncState = this.syncState) {
    const before = [this.state, this.syncState];
    Object.assign(this, { state, syncState });
    if (state !== before[0]) this.#tell("state", state);
    if (syncState !== before[1]) this.#tell("status", syncState);
  }

  #networkChanged(isOnline) {
    if (this._connection) {
      this.send("PING"); // is the socket still there?
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
      this.error = message; // nobody answered, or a proxy did
    }
    const { results, sync, code } = answer;
    this.#needsToken ||= status === 401;
    if (status === 200 && results) {
      this._results(id, group, results);
      const isOvertaken = sync?.mode === "snapshot" && sync.epoch === this.epoch && sync.seq < this.position;
      if (!sync || this._connection || isOvertaken) return "IDLE";
      this._takeSync(sync);
      this.lastSyncAt = this._now();
    } else if (code && group.length && [400, 403, 409, 413, 422].includes(status)) this._refuseAll(id, group, answer);
    else {
      this._unanswered(id, group);
      return status ? "ERROR" : "OFFLINE";
    }
    return group.length && this._next().length ? "SYNCING" : "IDLE";
  }

  // Moving what the engine has made

  /** With the end of this turn, so that what is submitted together leaves together. */
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
      if (name !== "sync" || !this.#ready) continue;
      this.#ready.resolve();
      this.#ready = null;
    }
    if (this._isDirty) this._save();
    this.#later("pump", due - this._now(), () => this.#pump());
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
    this.#timers.set(name, this.#env.setTimeout(fire, Math.min(ms, 2 ** 31 - 1)));
  }

  #clear(name) {
    this.#env.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

const ended = (why) => new RealtimeError("CLOSED", `the connection ended: ${why}`);

/** The `sub` of a signed token, unchecked (the server checks it). */
function subjectOf(token) {
  const body = atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/"));
  return JSON.parse(new TextDecoder().decode(Uint8Array.from(body, (sign) => sign.charCodeAt(0)))).sub;
}
