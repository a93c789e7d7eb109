"""The demo page and the files that it is made of."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path

from tornado.web import StaticFileHandler

from tornado_rt.errors import NotFound
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.handlers.gate import Gate
from tornado_rt.server import RealtimeServer

__all__ = ["STATIC", "DemoHandler", "StaticHandler"]

STATIC = Path(__file__).parent.parent / "static"


class DemoHandler(BaseHandler):
    """``/``: a dashboard to try. Absent where the operator turned it off."""

    def get(self, *_: str) -> None:
        if not self.gate.demo:
            raise NotFound("there is nothing at this address")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish((STATIC / "index.html").read_bytes())


class StaticHandler(BaseHandler, StaticFileHandler):
    """``/static/...``: scripts and styles."""

    def initialize(self, server: RealtimeServer, gate: Gate) -> None:  # type: ignore[override]
        BaseHandler.initialize(self, server, gate)
        StaticFileHandler.initialize(self, path=str(STATIC))

    def head(self, path: str) -> Awaitable[None]:  # type: ignore[override]
        return StaticFileHandler.head(self, path)

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")
