/** Types of the custom elements in `elements.js`. */

import type { Conflict, EditOptions, Fields, Operation, OperationOptions, RealtimeClient, RealtimeClientOptions, RealtimeError, Token } from "./realtime.js";

export type Status = "live" | "syncing" | "fallback" | "offline" | "error";

/** `<rt-dashboard url dashboard-id user-id|token auto-connect>`. There is no client until there is a user or a token. */
export class RtDashboard extends HTMLElement {
  readonly client: RealtimeClient | null;
  /** A signed token, or what gives one and is asked again when it has expired. */
  token: Token | null;
  /** More of the client's options. Another value makes another client. */
  options: Partial<RealtimeClientOptions>;
  connect(): Promise<void>;
  disconnect(): void;
  /** Be told of the client, by setting `part.client`, now and whenever it is another. Returns what ends it. */
  join(part: { client: RealtimeClient | null }): () => void;
}

/** What the elements inside a dashboard have in common; `client` is set by the dashboard around them, or by hand. */
declare class Part extends HTMLElement {
  client: RealtimeClient | null;
}

/** `<rt-sync-indicator show-details>` */
export class RtSyncIndicator extends Part {
  readonly status: Status | "";
}

/** `<rt-pending-badge show-details max-display=5>` */
export class RtPendingBadge extends Part {}

/** `<rt-conflict-dialog auto-resolve="local|remote">` */
export class RtConflictDialog extends Part {}

/** `<rt-widget widget-id optimistic>` */
export class RtWidget extends Part {
  widgetId: string;
  /** What is shown; null while there is no such widget. */
  readonly data: Fields | null;
  /** Called with what is to be shown, at once and after every change. */
  render: ((data: Fields | null, widget: RtWidget) => void) | null;
  update(data: Fields, options?: OperationOptions): Operation;
  delete(options?: EditOptions): Operation;
}

/** The details of the events; all bubble. */
export interface RtEvents {
  "rt-initialized": { client: RealtimeClient; userId: string; dashboardId: string };
  /** From a dashboard (the connection has ended for good) or a widget (a change of it was refused). */
  "rt-error": { error: RealtimeError; message?: string; widgetId?: string; operation?: Operation };
  "rt-status": { status: Status; pending: number; age: number | null; queueSize: number; lastSyncAt: number | null; error: string | null };
  "rt-operation-complete": { operation: Operation };
  "rt-operation-fail": { operation: Operation; error: RealtimeError };
  "rt-conflict-resolved": { conflict: Conflict; choice: "local" | "remote" | "merged"; data?: Fields | null; by: "person" | "rule" | "server" };
  "rt-update": { widgetId: string; data: Fields | null; synced: boolean };
  "rt-sync": { widgetId: string; version: number | null };
}

declare global {
  interface HTMLElementTagNameMap {
    "rt-dashboard": RtDashboard;
    "rt-sync-indicator": RtSyncIndicator;
    "rt-pending-badge": RtPendingBadge;
    "rt-conflict-dialog": RtConflictDialog;
    "rt-widget": RtWidget;
  }
  interface HTMLElementEventMap extends RtEventMap {}
}

type RtEventMap = { [Name in keyof RtEvents]: CustomEvent<RtEvents[Name]> };
