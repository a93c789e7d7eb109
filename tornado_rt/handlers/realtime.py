"""The HTTP door: health, the sync fallback, statistics, the protocol's own descriptions (PROTOCOL section 6)."""

from __future__ import annotations

from tornado.web import stream_request_body

from tornado_rt.auth import Identity
from tornado_rt.core.document import Author
from tornado_rt.errors import Forbidden, TooLarge, Unauthorized, UnsupportedMedia
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.protocol.codec import decode_post, encode_json
from tornado_rt.protocol.schema import asyncapi, openapi

__all__ = ["OpenApiHandler", "RealtimeHandler", "SchemaHandler", "StatsHandler"]

MAX_DROPPED_BYTES = 16 * 1024 * 1024
MAX_LENGTH_DIGITS = 18


@stream_request_body
class RealtimeHandler(BaseHandler):
    """``GET`` says where the socket is; ``POST`` carries operations for whom it cannot be reached.

    Bodies come in pieces, so that who may not send one, or announces too long a one, is told so before it is kept.
    """

    _identity: Identity

    async def prepare(self) -> None:
        super().prepare()
        if self.request.method in ("GET", "HEAD", "POST"):
            self._identity = await self.identify()
        if self.request.method == "POST":
            self._body = bytearray()
            self._check_announced()

    def _check_announced(self) -> None:
        headers, most = self.request.headers, self.server.options.max_message_bytes
        if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMedia("send application/json")
        if not most:
            return
        # Too much is read and dropped, within reason: a client that is cut off while it sends hears no answer.
        self.request.connection.set_max_body_size(max(most, MAX_DROPPED_BYTES))  # type: ignore[union-attr]
        length = headers.get("Content-Length", "")
        if len(length) > MAX_LENGTH_DIGITS or (length.isdecimal() and int(length) > most):
            raise self._too_large()

    def data_received(self, chunk: bytes) -> None:
        most = self.server.options.max_message_bytes
        if not most or len(self._body) <= most:  # one byte too many is enough to know
            self._body += chunk

    async def get(self, *_: str) -> None:
        self.write_json(
            {
                "status": self.server.status,
                "wsUrl": self.gate.websocket_url(self.request),
                "userId": self._identity.user_id,
                "timestamp": self.server.hall.timestamp(),
            }
        )

    async def post(self, *_: str) -> None:
        most = self.server.options.max_message_bytes
        if most and len(self._body) > most:
            raise self._too_large()
        identity = self._identity
        post = decode_post(bytes(self._body))
        permissions = await self.gate.permissions(identity, post.dashboard_id or "default")
        if "read" not in permissions or (post.operations and "write" not in permissions):
            raise Forbidden("you may not do this on this dashboard")
        if self.server.revocations.refuses(identity, post.dashboard_id or "default", self.server.hall.time()):
            raise Unauthorized("who are you? Your token was not accepted")
        author = Author(identity.user_id, post.device_id or f"device-{self.server.hall.new_id()}")
        answer = await self.server.post(author, post)
        sync = answer.pop("sync", None)
        body = encode_json(answer)
        self.write_json(body if sync is None else b'%b,"sync":%b}' % (body[:-1], sync))

    def _too_large(self) -> TooLarge:
        return TooLarge(f"a request has at most {self.server.options.max_message_bytes} bytes")


class StatsHandler(BaseHandler):
    async def get(self, *_: str) -> None:
        if not (await self.identify_for_stats()):
            raise Forbidden("statistics are for admins")
        self.write_json(self.server.get_stats())

    async def identify_for_stats(self) -> bool:
        """In trust mode the guide's bare ``curl .../stats`` is answered; otherwise only an admin's."""
        if self.gate.open_stats:
            return True
        return await self.gate.may_administer(await self.identify())


class SchemaHandler(BaseHandler):
    def get(self, *_: str) -> None:
        self.write_json(asyncapi())


class OpenApiHandler(BaseHandler):
    def get(self, *_: str) -> None:
        self.write_json(openapi())
