"""The admin's door: end what somebody may do, at once (PROTOCOL section 6)."""

from __future__ import annotations

from tornado_rt.errors import Forbidden, UnsupportedMedia
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.protocol.codec import decode_revoke

__all__ = ["RevokeHandler"]


class RevokeHandler(BaseHandler):
    """``POST {userId? | tokenId? | dashboardId?}``: closes what is connected, and refuses its tokens from now on."""

    async def post(self, *_: str) -> None:
        identity = await self.identify()
        if not await self.gate.may_administer(identity):
            raise Forbidden("only admins may revoke")
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMedia("send application/json")
        wanted = decode_revoke(self.request.body)
        kind, value = wanted.chosen()
        closed = await self.server.revoke(kind, value)
        self.write_json({"revoked": {kind: value}, "closed": closed, "timestamp": self.server.hall.timestamp()})
