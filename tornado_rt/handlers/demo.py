"""The demo page and the files that it is made of."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from datetime import datetime
from pathlib import Path

from tornado.web import StaticFileHandler

from tornado_rt.errors import NotFound
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.handlers.gate import Gate
from tornado_rt.server import RealtimeServer

__all__ = ["STATIC", "DemoHandler", "StaticHandler", "hash_of"]

STATIC = Path(__file__).parent.parent / "static"
_PLACEHOLDER = re.compile(r"/static/([\w./-]+)\?v=hash")
_HASH_LENGTH = 16


def hash_of(path: str) -> str:
    """What names the content of the file ``path`` of ``static``: another content, another name."""
    return StaticFileHandler.get_content_version(str(STATIC / path))[:_HASH_LENGTH]


def _address(found: re.Match[str]) -> str:
    return f"/static/{found[1]}?v={hash_of(found[1])}"


class DemoHandler(BaseHandler):
    """``/``: a dashboard to try. Absent where the operator turned it off."""

    def get(self, *_: str) -> None:
        if not self.gate.demo:
            raise NotFound("there is nothing at this address")
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.finish(_PLACEHOLDER.sub(_address, (STATIC / "index.html").read_text()))


class StaticHandler(BaseHandler, StaticFileHandler):
    """``/static/...``: scripts and styles.

    Under an address that bears the hash of its content a file is kept for good. Modules that import each other do so by plain
    names; those are looked up anew each time, which costs a 304.
    """

    def initialize(self, server: RealtimeServer, gate: Gate) -> None:  # type: ignore[override]
        BaseHandler.initialize(self, server, gate)
        StaticFileHandler.initialize(self, path=str(STATIC))

    def prepare(self) -> Awaitable[None] | None:
        if "\0" in self.path_args[0]:
            raise NotFound("there is nothing at this address")  # no file system takes such a name
        return super().prepare()

    def head(self, path: str) -> Awaitable[None]:  # type: ignore[override]
        return StaticFileHandler.head(self, path)

    def get_cache_time(self, path: str, modified: datetime | None, mime_type: str) -> int:
        return 0  # what set_extra_headers says is all

    def set_extra_headers(self, path: str) -> None:
        asked = self.get_query_argument("v", None)
        is_that = asked is not None and asked == hash_of(path)
        self.set_header("Cache-Control", "public, max-age=31536000, immutable" if is_that else "no-cache")
