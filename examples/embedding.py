"""The realtime server inside a Tornado application of one's own: its routes, its events, and changes from the backend."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import uuid

from tornado.web import Application, RequestHandler

from tornado_rt.app import make_gate
from tornado_rt.config import load_settings
from tornado_rt.events import Event
from tornado_rt.lifecycle import get_realtime_server, initialize_realtime_server, shutdown_realtime_server
from tornado_rt.routes import routes


class OrderHandler(RequestHandler):
    """An ordinary handler. What it changes goes the way of a client's change and is durable when the call returns."""

    async def post(self) -> None:
        server = get_realtime_server()
        result = await server.apply(
            "sales",
            {
                "operationId": uuid.uuid4().hex,
                "type": "WIDGET_UPDATE",
                "payload": {"widgetId": "orders", "data": {"last": self.get_body_argument("number")}},
            },
            user_id="shop",
        )
        server.broadcast({"type": "SYNC_UPDATE", "userId": "shop", "payload": {"notice": "a new order"}}, "sales")
        self.write({"seq": result["seq"]})


def on_widget_updated(event: Event) -> None:
    print(f"{event.user_id} changed {event.message.payload.widget_id} on {event.dashboard_id}", flush=True)


async def main() -> None:
    settings, _ = load_settings()
    server = await initialize_realtime_server(settings)
    server.on("widget:updated", on_widget_updated)

    application = Application([("/orders", OrderHandler), *routes(server, make_gate(settings))])
    application.listen(settings.port, settings.host)
    print(f"listening on port {settings.port}", flush=True)

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with contextlib.suppress(asyncio.CancelledError):  # Ctrl-C
        await stop.wait()
    await shutdown_realtime_server(settings.shutdown_grace_seconds)


if __name__ == "__main__":
    asyncio.run(main())
