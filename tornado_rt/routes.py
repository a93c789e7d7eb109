"""Every path and its door; also to be mounted into an application of your own: ``Application(routes(server, gate))``."""

from __future__ import annotations

from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.routing import PathMatches, Rule

from tornado_rt.handlers.demo import DemoHandler, StaticHandler
from tornado_rt.handlers.gate import Gate
from tornado_rt.handlers.ops import HealthHandler, ReadyHandler
from tornado_rt.handlers.realtime import OpenApiHandler, RealtimeHandler, SchemaHandler, StatsHandler
from tornado_rt.handlers.revoke import RevokeHandler
from tornado_rt.handlers.socket import SocketHandler
from tornado_rt.handlers.visitor import renewing
from tornado_rt.server import RealtimeServer

__all__ = ["routes"]


class UpgradeMatches(PathMatches):
    """A path, but only for requests that want to become a WebSocket."""

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        return super().match(request) if request.headers.get("Upgrade", "").lower() == "websocket" else None


def routes(server: RealtimeServer, gate: Gate) -> list[Rule]:
    """Tornado routing rules for everything the server answers to (PROTOCOL section 6)."""
    parts = {"server": server, "gate": gate}
    server.hall.renew = renewing(server, gate)
    paths = [
        ("/api/realtime", RealtimeHandler),
        ("/api/realtime/stats", StatsHandler),
        ("/api/realtime/revoke", RevokeHandler),
        ("/api/realtime/schema", SchemaHandler),
        ("/api/realtime/openapi", OpenApiHandler),
        ("/healthz", HealthHandler),
        ("/readyz", ReadyHandler),
        ("/", DemoHandler),
        ("/static/(.*)", StaticHandler),
    ]
    return [
        Rule(UpgradeMatches("/api/realtime"), SocketHandler, parts),
        *(Rule(PathMatches(path), handler, parts) for path, handler in paths),
    ]
