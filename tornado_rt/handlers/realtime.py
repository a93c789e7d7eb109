"""The HTTP door: health, the sync fallback, statistics, the protocol's own descriptions (PROTOCOL section 6)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from tornado_rt.auth import REFUSAL
from tornado_rt.core.document import Author
from tornado_rt.errors import Forbidden, Unauthorized
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.handlers.body import BodyHandler
from tornado_rt.protocol.codec import decode_post, encode_json
from tornado_rt.protocol.schema import asyncapi, openapi

__all__ = ["OpenApiHandler", "RealtimeHandler", "SchemaHandler", "StatsHandler"]


class RealtimeHandler(BodyHandler):
    """``GET`` says where the socket is; ``POST`` carries operations for whom it cannot be reached."""

    async def get(self, *_: str) -> None:
        self.write_json(
            {
                "status": self.server.status,
                "wsUrl": self.gate.websocket_url(self.request),
                "userId": self.identity.user_id,
                "timestamp": self.server.hall.timestamp(),
            }
        )

    async def post(self, *_: str) -> None:
        identity, server = self.identity, self.server
        post = self.decode_body(decode_post)
        dashboard_id = post.dashboard_id or "default"
        permissions = await self.gate.permissions(identity, dashboard_id)
        if "read" not in permissions or (post.operations and "write" not in permissions):
            raise Forbidden("you may not do this on this dashboard")
        if server.revocations.refuses(identity, dashboard_id, server.hall.time()):
            raise Unauthorized(REFUSAL)
        author = Author(identity.user_id, post.device_id or f"device-{server.hall.new_id()}")
        answer = await server.post(author, post, self.size_bytes)
        sync = answer.pop("sync", None)
        body = encode_json(answer)
        self.write_json(body if sync is None else b'%b,"sync":%b}' % (body[:-1], sync))


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


@cache
def description_of(make: Callable[[], Any]) -> bytes:
    """A description as it is sent. To make one takes a fifth of a second, which no stranger shall have for the asking."""
    return encode_json(make())


class SchemaHandler(BaseHandler):
    def get(self, *_: str) -> None:
        self.write_json(description_of(asyncapi))


class OpenApiHandler(BaseHandler):
    def get(self, *_: str) -> None:
        self.write_json(description_of(openapi))
