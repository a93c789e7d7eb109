"""The HTTP door: health, the sync fallback, statistics, the protocol's own descriptions (PROTOCOL section 6)."""

from __future__ import annotations

from tornado_rt.core.document import Author
from tornado_rt.errors import Forbidden, TooLarge, UnsupportedMedia
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.protocol.codec import decode_post, encode_json
from tornado_rt.protocol.schema import asyncapi, openapi

__all__ = ["OpenApiHandler", "RealtimeHandler", "SchemaHandler", "StatsHandler"]


class RealtimeHandler(BaseHandler):
    """``GET`` says where the socket is; ``POST`` carries operations for whom it cannot be reached."""

    async def get(self, *_: str) -> None:
        identity = await self.identify()
        self.write_json(
            {
                "status": self.server.status,
                "wsUrl": self.gate.websocket_url(self.request),
                "userId": identity.user_id,
                "timestamp": self.server.hall.timestamp(),
            }
        )

    async def post(self, *_: str) -> None:
        identity = await self.identify()
        media_type = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMedia("send application/json")
        most = self.server.options.max_message_bytes
        if most and len(self.request.body) > most:
            raise TooLarge(f"a request has at most {most} bytes")
        post = decode_post(self.request.body)
        permissions = identity.permissions_on(post.dashboard_id or "default")
        if "read" not in permissions or (post.operations and "write" not in permissions):
            raise Forbidden("you may not do this on this dashboard")
        author = Author(identity.user_id, post.device_id or f"device-{self.server.hall.new_id()}")
        answer = await self.server.post(author, post)
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
        return (await self.identify()).is_admin


class SchemaHandler(BaseHandler):
    def get(self, *_: str) -> None:
        self.write_json(asyncapi())


class OpenApiHandler(BaseHandler):
    def get(self, *_: str) -> None:
        self.write_json(openapi())
