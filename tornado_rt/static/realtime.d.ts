/** Types of realtime.js, the browser's client of tornado_rt. Times are milliseconds. */

/** What JSON can hold. A document's fields are not limited to what TypeScript can follow, hence `unknown` where they come back. */
export type Fields = Record<string, unknown>;

export type Kind = "widget" | "layout";

/** ERROR is the end: the server does not want this client back, or the attempts are used up; `error` says why. */
export type ConnectionState = "DISCONNECTED" | "CONNECTING" | "CONNECTED" | "RECONNECTING" | "ERROR";

/** The background sync by POST while the socket is down. OFFLINE: nobody answers; ERROR: somebody does, and not as he should. */
export type SyncState = "IDLE" | "SYNCING" | "ERROR" | "OFFLINE";

/** PENDING waits to leave or to be repeated, SENT to be answered; the others are verdicts. */
export type OperationState = "PENDING" | "SENT" | "CONFIRMED" | "FAILED" | "CONFLICT";

export type EditType = "WIDGET_UPDATE" | "WIDGET_DELETE" | "LAYOUT_UPDATE" | "LAYOUT_RESTORE";

/** A signed token, or a function that gives one and is asked again when it has expired. */
export type Token = string | (() => string | Promise<string>);

export interface DocumentName {
  kind: Kind;
  id: string;
}

export interface RealtimeClientOptions {
  /** http(s) or ws(s), with or without /api/realtime; the page's own server if absent. */
  url?: string;
  /** Who we are; or `token`. One of the two is needed. */
  userId?: string;
  token?: Token;
  /** `default` if absent. */
  dashboardId?: string;
  /** Made up and kept with the queue if absent. One per tab. */
  deviceId?: string;
  /** Where operations outlive the page: localStorage if absent, null for nowhere. */
  storage?: Storage | null;
  /** Attempts to connect that may fail in a row; no end if absent (the guide's was 5). */
  reconnectAttempts?: number;
  /** The first delay, 1,000; it doubles up to 30,000, and the real one lies anywhere between 0 and that. */
  reconnectDelay?: number;
  /** Messages of `send` and `request` that wait for a connection: 1,000. */
  maxMessageQueueSize?: number;
  /** Operations that are on their way at once: 100; more wait. */
  maxPendingOperations?: number;
  /** After so long without an answer an operation is repeated: 30,000. */
  operationTimeout?: number;
  /** false: no operation has a base, the last writer wins. */
  enableConflictDetection?: boolean;
  /** How often to sync by POST while the socket is down: 30,000. */
  syncInterval?: number;
  /** Operations without a verdict, and open conflicts: 500; more are refused. */
  maxQueueSize?: number;
  /** How often a POST that failed is repeated before the next round: 3. */
  retryAttempts?: number;
  /** Between those: 5,000. */
  retryDelay?: number;
  /** A lone edit leaves at once; those that follow it closely leave together, so many at a time: 50, */
  batchSize?: number;
  /** or after so long: 200. Edits of the same fields that have not left yet become one. */
  batchInterval?: number;
  /** Hold every update back for so long, for later ones of the same fields: 0. Not needed against haste: see `batchInterval`. */
  debounce?: number;
  /** Another window than this one, for tests. */
  environment?: Environment;
}

/** What the client needs of a window. */
export interface Environment {
  WebSocket: new (url: string, protocols: string[]) => WebSocket;
  fetch: typeof globalThis.fetch;
  setTimeout(act: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  addEventListener?(type: "online" | "offline", listener: (event: Event) => void): void;
  removeEventListener?(type: "online" | "offline", listener: (event: Event) => void): void;
  Date: { now(): number };
  Math: { random(): number };
  crypto: { getRandomValues<Values extends ArrayBufferView<ArrayBuffer>>(values: Values): Values };
  localStorage?: Storage | null;
  location?: { href: string };
  navigator?: { locks?: LockManager | null };
}

export interface EditOptions {
  /** `position` as it was when the person began to edit; the present one if absent. */
  baseVersion?: number;
}

export interface OperationOptions extends EditOptions {
  /** Fields to remove. */
  unset?: string[];
  /** The data is to be the whole document. */
  replace?: boolean;
  /** Wait until for so long nothing follows on the same fields. */
  debounce?: number;
}

/** An edit as it stands on the wire. */
export type Edit =
  | { type: "WIDGET_UPDATE"; payload: { widgetId: string; data: object; unset?: string[]; replace?: boolean; baseVersion?: number } }
  | { type: "WIDGET_DELETE"; payload: { widgetId: string; baseVersion?: number } }
  | { type: "LAYOUT_UPDATE"; payload: { layoutId?: string; layout: object; unset?: string[]; replace?: boolean; baseVersion?: number } }
  | { type: "LAYOUT_RESTORE"; payload: { layoutId?: string; version?: number; baseVersion?: number } };

export interface Result {
  /** The operation's place in the dashboard's log, and the version that it gave its documents; null where nothing was to be done. */
  seq: number | null;
  version: number | null;
  /** Other fields that changed meanwhile. */
  merged: string[];
  /** It had been applied before; this answers a repetition. */
  duplicate: boolean;
  /** Later operations of this client had set all of its fields before it was applied. */
  superseded: boolean;
}

export interface Operation {
  readonly id: string;
  readonly type: EditType | "WIDGET_BATCH" | "CONFLICT_RESOLVED";
  readonly state: OperationState;
  /** As on the wire. */
  readonly payload: Fields;
  readonly documents: DocumentName[];
  /** When it was made, as Date.now() says. */
  readonly createdAt: number;
  /** How often it has left. */
  readonly attempts: number;
  /** The last refusal; of a PENDING one, why it is repeated. */
  readonly error: RealtimeError | null;
  readonly result: Result | null;
  readonly conflict: Conflict | null;
  /** The verdict; rejects with what `error` is. Begins to exist when it is first read, so nobody has to. */
  readonly done: Promise<Result>;
}

/** Somebody else changed the same fields; a person has to choose. */
export interface Conflict {
  conflictId: string;
  kind: Kind;
  widgetId?: string;
  layoutId?: string;
  documentId: string;
  /** Those that collide. */
  fields: string[];
  baseVersion?: number;
  currentVersion: number;
  /** All that was sent; null: it deletes the document. */
  local: Fields | null;
  /** The current values; null: the document is gone. */
  remote: Fields | null;
  remoteUserId: string;
  remoteTimestamp: string;
  operation: Operation;
  /** The whole document as it was shown here with the edit in it. */
  shown: Fields | null;
  /** `remote`: the server decided by itself, and nothing is to be answered. */
  resolved: "remote" | null;
  /** Every conflict of an atomic batch, as the server sent them; `local` and `remote` are then the choices. */
  batch: Fields[];
}

/** The server's log moved on. SYNC_RESPONSE and SYNC_UPDATE stand for whole states, which have no single author. */
export interface Change {
  type: string;
  seq: number;
  userId: string;
  timestamp: string;
  payload: Fields;
  documents: DocumentName[];
  isOwn: boolean;
}

export interface Frame {
  type: string;
  id: string;
  userId: string;
  timestamp?: string;
  correlationId?: string;
  payload: Fields;
}

export interface DocumentInfo {
  version: number;
  updatedAt: string;
  updatedBy: string;
  /** Of a layout: the versions that `restoreLayout` can bring back, oldest first. */
  history?: number[];
}

export interface Events {
  state: ConnectionState;
  status: SyncState;
  /** The picture was brought up to date as a whole, by socket or by POST. */
  sync: { mode: "snapshot" | "delta" | "merged"; seq: number };
  /** Something else is shown now; at most once a turn. */
  view: { widgets: string[]; layouts: string[] };
  change: Change;
  /** An operation was made, or its state is another one. */
  operation: Operation;
  conflict: Conflict;
  resolved: { conflict: Conflict; choice: "local" | "remote" | "merged" };
  /** A frame that changes nothing, such as a broadcast of the application's own. */
  message: Frame;
  /** A NACK for something else than an operation. */
  refused: Frame;
  /** The connection ended for good. */
  error: RealtimeError;
}

/**
 * Everything that is thrown or rejected with. `code` is a NACK's, or one of QUEUE_FULL, TOO_LARGE, INVALID_MESSAGE,
 * NOT_POSSIBLE, ROLLED_BACK, CONFLICT (with `conflict`), CONFLICT_UNKNOWN, TIMEOUT, CLOSED, UNAUTHORIZED.
 */
export class RealtimeError extends Error {
  constructor(code: string, message: string, more?: object);
  readonly code: string;
  readonly details: { path: string; message: string }[];
  readonly conflict?: Conflict;
}

/** A client of one dashboard. Edits are taken at any time; they are shown at once and leave when there is a connection. */
export class RealtimeClient {
  constructor(options: RealtimeClientOptions);

  readonly state: ConnectionState;
  readonly syncState: SyncState;
  /** A sentence about what is wrong with the connection. */
  readonly error: string | null;
  /** When it tries to connect again. */
  readonly retryAt: number | null;
  /** When the picture was last known to be the present one. */
  readonly lastSyncAt: number | null;
  /** What is to be shown: the server's documents with the waiting operations on them. To be read; objects are new when changed. */
  readonly widgets: ReadonlyMap<string, Readonly<Fields>>;
  readonly layouts: ReadonlyMap<string, Readonly<Fields>>;
  /** The seq of the last change that is here in full. */
  readonly position: number;
  readonly epoch: string | null;
  /** Whom the server takes us for. */
  readonly userId: string;
  readonly dashboardId: string;
  readonly deviceId: string | null;
  readonly permissions: string[];
  /** Operations without a verdict, in their order. */
  readonly pending: Operation[];
  /** The last hundred that were refused for good; `retry` and `rollback` take them off. */
  readonly failed: Operation[];
  readonly conflicts: Conflict[];
  /** Operations and conflicts that are kept. */
  readonly queueSize: number;

  /** Connect, or try again at once. Resolves with the first picture; rejects if the server does not want us, or on `disconnect`. */
  connect(): Promise<void>;
  /** No socket and no POST until `connect`. */
  disconnect(): void;
  /** The end of this client. What has no verdict stays in the queue. */
  close(): void;
  /** Sync by POST now, if the socket is down. Never rejects. */
  sync(): Promise<void>;
  /** Send a message of any type, or keep it until there is a connection; returns its id. */
  send(type: string, payload?: object): string;
  /** Send a message and wait for the answering frame. For documents use `update` and its like: they are repeated, this is not. */
  request(type: string, payload?: object): Promise<Frame>;
  /** Returns what takes the listener off. */
  on<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => void): () => void;
  /** What the server knows of a document. */
  info(kind: Kind, id: string): DocumentInfo | null;

  /** Merge `data` into a widget. */
  update(widgetId: string, data: object, options?: OperationOptions): Operation;
  delete(widgetId: string, options?: EditOptions): Operation;
  /** Merge `layout` into a layout, `default` if none is named. */
  updateLayout(layout: object, options?: OperationOptions & { layoutId?: string }): Operation;
  /** Make an earlier version current again; without `version` that before the last change. */
  restoreLayout(options?: EditOptions & { layoutId?: string; version?: number }): Operation;
  /** Several edits: all or none, as one operation; or with `atomic: false` each on its own. */
  batch(edits: Edit[], options?: { atomic?: true }): Operation;
  batch(edits: Edit[], options: { atomic: false }): Operation[];
  batch(edits: Edit[], options?: { atomic?: boolean }): Operation | Operation[];
  /** Give up an operation that has not left, has failed, or is in conflict (which keeps theirs). */
  rollback(operation: Operation): void;
  /** Try a failed operation again, under a new id. */
  retry(operation: Operation): void;
  /** `merged` writes `data`; null deletes the document. `remote` needs no operation and gives null. */
  resolve(conflictId: string, choice: "remote"): null;
  resolve(conflictId: string, choice: "local"): Operation;
  resolve(conflictId: string, choice: "merged", data: object | null): Operation;
  resolve(conflictId: string, choice: "local" | "remote" | "merged", data?: object | null): Operation | null;
}
