"""The admin's door: end what somebody may do, at once (PROTOCOL section 6)."""

from __future__ import annotations

from tornado_rt.errors import Forbidden
from tornado_rt.handlers.body import BodyHandler
from tornado_rt.protocol.codec import decode_revoke

__all__ = ["RevokeHandler"]


class RevokeHandler(BodyHandler):
    """``POST {userId? | tokenId? | dashboardId?}``: closes what is connected, and refuses its tokens from now on."""

    async def prepare(self) -> None:
        await super().prepare()
        if self.request.method == "POST" and not await self.gate.may_administer(self.identity):
            raise Forbidden("only admins may revoke")

    async def post(self, *_: str) -> None:
        kind, value = self.decode_body(decode_revoke).chosen()
        self.server.charge(self.identity.user_id, self.size_bytes)
        closed = await self.server.revoke(kind, value)
        self.write_json({"revoked": {kind: value}, "closed": closed, "timestamp": self.server.hall.timestamp()})
