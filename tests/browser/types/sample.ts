/** A program that uses all of the declared types, as an application would; tsc has to take it, and to refuse what is marked. */

import { RealtimeClient, RealtimeError, type Change, type Conflict, type Operation, type RealtimeClientOptions } from "tornado-rt";

interface Sales {
  value: number;
  title?: string;
}

const options: RealtimeClientOptions = { url: "https://dash.test", token: async () => "a.b.c", reconnectAttempts: 5, storage: null };
const rt = new RealtimeClient({ ...options, dashboardId: "sales" });

const off: () => void = rt.on("view", ({ widgets }) => widgets.forEach((id: string) => draw(id)));
rt.on("change", (change: Change) => console.log(change.userId, change.documents[0]?.id, change.isOwn));
rt.on("conflict", (conflict: Conflict) => decide(conflict));
rt.on("state", (state) => state === "RECONNECTING" && console.log(rt.retryAt));
rt.on("error", (error) => console.error(error.code, error.details.map(({ path }) => path)));

function draw(id: string): void {
  const { value } = (rt.widgets.get(id) ?? {}) as Partial<Sales>;
  console.log(value?.toFixed(2), rt.info("widget", id)?.updatedBy);
}

function decide(conflict: Conflict): void {
  const nothing: null = rt.resolve(conflict.conflictId, "remote");
  const operation: Operation = rt.resolve(conflict.conflictId, "merged", { ...conflict.remote, ...conflict.local });
  console.log(nothing, operation.state);
}

async function edit(): Promise<void> {
  const sales: Sales = { value: 42 };
  await rt.connect();
  const operation = rt.update("w1", sales, { baseVersion: rt.position, unset: ["note"] });
  try {
    const { seq, merged } = await operation.done;
    console.log(seq?.toString(), merged.join());
  } catch (fault) {
    if (fault instanceof RealtimeError && fault.code === "CONFLICT") decide(fault.conflict!);
    else if (operation.state === "FAILED") rt.retry(operation);
    else rt.rollback(operation);
  }
  const one: Operation = rt.batch([{ type: "WIDGET_DELETE", payload: { widgetId: "w1" } }]);
  const several: Operation[] = rt.batch([{ type: "LAYOUT_RESTORE", payload: { version: 3 } }], { atomic: false });
  const history = rt.info("layout", "default")?.history ?? [];
  rt.restoreLayout({ version: history.at(-1)! - 1 });
  const { payload } = await rt.request("SYNC_REQUEST", { since: rt.position });
  console.log(one, several, payload["seq"], rt.lastSyncAt?.toFixed());
}

// @ts-expect-error the states are known
rt.on("state", (state) => state === "OPEN");
// @ts-expect-error and so are the events
rt.on("nothing", () => {});
// @ts-expect-error choices are known
rt.resolve("k", "mine");
// @ts-expect-error what is shown is to be read
rt.widgets.set("w1", {});
// @ts-expect-error a misspelt option
new RealtimeClient({ userId: "ada", reconectDelay: 5 });

void edit().finally(off);
