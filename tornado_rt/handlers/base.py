"""What all doors have in common: Host and Origin, headers, the one error shape (PROTOCOL section 6)."""

from __future__ import annotations

import asyncio
import http.client
import math
from collections.abc import Awaitable
from types import TracebackType
from typing import Any

import structlog
from tornado.web import HTTPError, RequestHandler, stream_request_body

from tornado_rt.auth import REFUSAL, Identity
from tornado_rt.errors import (
    ClientFault,
    Forbidden,
    Internal,
    InvalidMessage,
    MethodNotAllowed,
    NotFound,
    Refusal,
    Unauthorized,
)
from tornado_rt.handlers.gate import Gate
from tornado_rt.handlers.visitor import check_origin
from tornado_rt.protocol.codec import encode_json
from tornado_rt.server import RealtimeServer

__all__ = ["BaseHandler", "NotFoundHandler"]

log = structlog.get_logger(__name__)

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_STATUS_FAULTS = {400: InvalidMessage, 403: Forbidden, 404: NotFound, 405: MethodNotAllowed}


@stream_request_body
class BaseHandler(RequestHandler):
    """``server`` and ``gate`` come with the route.

    Bodies come in pieces and are dropped: a door that takes one keeps it itself (``body.BodyHandler``), once it knows whose it
    is. Kept by Tornado, they would be whole before anybody was asked who he is.
    """

    server: RealtimeServer
    gate: Gate
    _origin: str | None = None  # a page's that may connect; refusals say so too, or the page could not read them
    SUPPORTED_METHODS = ("GET", "HEAD", "POST", "OPTIONS")

    def initialize(self, server: RealtimeServer, gate: Gate) -> None:
        self.server = server
        self.gate = gate

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("Vary", "Origin")

        if self._origin is not None:
            self.set_header("Access-Control-Allow-Origin", self._origin)
            if self.gate.trusts_cookies_of(self.request):  # a page let in by ``*`` speaks for nobody but itself
                self.set_header("Access-Control-Allow-Credentials", "true")

    def prepare(self) -> Awaitable[None] | None:
        """Refuse a foreign Host (421) and a foreign Origin (403) before anything else is looked at (DNS rebinding)."""
        self._origin = check_origin(self.gate, self.request)
        if self._origin is not None:
            self.set_default_headers()
        if self.request.method not in self.methods():
            raise MethodNotAllowed("this address does not take that method")
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Nobody asked for a body."""

    def head(self, *arguments: str) -> Awaitable[None] | None:
        """What GET says, without its body (RFC 9110 section 9.3.2): Tornado leaves it out."""
        return self.get(*arguments)

    def options(self, *_: str) -> None:
        """A browser asks before it sends (CORS)."""
        self.set_header("Access-Control-Allow-Methods", "GET, POST")
        self.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.set_header("Access-Control-Max-Age", "600")
        self.set_status(204)

    async def identify(self) -> Identity:
        """Who sends this. Raises as ``Authenticator.identify`` does; a token that was revoked is as good as none."""
        identity = await self.gate.identify(self.request)
        if self.server.revocations.refuses(identity, None, self.server.hall.time()):
            raise Unauthorized(REFUSAL)
        return identity

    def write_json(self, body: Any) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish(body if isinstance(body, bytes) else encode_json(body))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Whatever went wrong, in the one shape: ``{error, code, details?}``."""
        error = kwargs.get("exc_info", (None, None))[1]
        if isinstance(error, Refusal):
            refusal: Refusal = error
        elif isinstance(error, HTTPError) and status_code < 500:
            refusal = _STATUS_FAULTS.get(status_code, ClientFault)(http.client.responses.get(status_code, "Refused") + ".")
        else:
            refusal = Internal("the server made a mistake; it has been logged")
        self.set_status(refusal.http_status if not isinstance(error, HTTPError) else status_code)
        prepared: asyncio.Future[None] | None = self._prepared_future
        if prepared is not None and not prepared.done():
            self.set_header("Connection", "close")  # whatever body there may be is not waited for
        if refusal.retry_after_ms is not None:
            self.set_header("Retry-After", str(math.ceil(refusal.retry_after_ms / 1000)))
        elif refusal.http_status == 503:
            self.set_header("Retry-After", "1")
        if refusal.http_status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        if refusal.http_status == 405:
            self.set_header("Allow", ", ".join(self.methods()))
        body: dict[str, Any] = {"error": refusal.message, "code": refusal.code}
        if refusal.details:
            body["details"] = [{"path": path, "message": message} for path, message in refusal.details]
        if refusal.retry_after_ms is not None:
            body["retryAfterMs"] = refusal.retry_after_ms
        self.write_json(body)

    def methods(self) -> list[str]:
        """What this door answers to."""
        mine = type(self)
        names = ["OPTIONS"]
        if mine.post is not RequestHandler.post:
            names.insert(0, "POST")
        if mine.get is not RequestHandler.get:
            names[:0] = "GET", "HEAD"
        return names

    def log_exception(self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        """A refusal is an answer, not an event; only a mistake of ours is worth a line."""
        if not isinstance(value, Refusal | HTTPError):
            self.server.hall.faults += 1
            log.error("request_failed", method=self.request.method, path=self.request.path, exc_info=value)


class NotFoundHandler(BaseHandler):
    """Every path that there is not."""

    def methods(self) -> list[str]:
        return list(self.SUPPORTED_METHODS)

    def prepare(self) -> None:
        super().prepare()
        raise NotFound("there is nothing at this address")
