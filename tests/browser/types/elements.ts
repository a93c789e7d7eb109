// A program that uses the elements as an application would; compiled, never run.
import "../../../tornado_rt/static/elements.js";
import type { RtWidget } from "../../../tornado_rt/static/elements.js";

const dashboard = document.createElement("rt-dashboard");
dashboard.token = async () => "a token";
dashboard.options = { syncInterval: 5_000, reconnectAttempts: 5 };
dashboard.addEventListener("rt-initialized", (event) => event.detail.client.update("widget-1", { value: 42 }));
dashboard.addEventListener("rt-error", (event) => console.error(event.detail.error.code, event.detail.message));

const widget = document.createElement("rt-widget");
widget.widgetId = "widget-1";
widget.render = (data, element: RtWidget) => element.toggleAttribute("empty", data === null);
widget.update({ value: 43 }, { baseVersion: 7 }).done.then((result) => result.seq);

document.querySelector("rt-sync-indicator")?.addEventListener("rt-status", (event) => {
  const status: "live" | "syncing" | "fallback" | "offline" | "error" = event.detail.status;
  console.log(status);
  // @ts-expect-error: there is no such status
  console.log(event.detail.status === "lively");
});
document.querySelector("rt-conflict-dialog")?.addEventListener("rt-conflict-resolved", ({ detail }) => console.log(detail.choice, detail.conflict.fields));
// @ts-expect-error: the client is the dashboard's to make
dashboard.client = null;
