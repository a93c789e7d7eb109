"""The WebSocket door: lets a connection into its room, hands over its frames, and sees it out (PROTOCOL section 1)."""

from __future__ import annotations

import structlog
from tornado.websocket import WebSocketHandler

from tornado_rt.auth import Identity
from tornado_rt.core.document import Author
from tornado_rt.errors import Close, InvalidMessage, Unauthorized, Unavailable
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.room import Room
from tornado_rt.session import Session
from tornado_rt.wire import FrameLoop, check_handshake

__all__ = ["SocketHandler"]

log = structlog.get_logger(__name__)


class SocketHandler(BaseHandler, WebSocketHandler):
    """One connection. Who may not come in is told so over the socket: a browser cannot read the status of a failed handshake."""

    heard = True
    session: Session | None = None
    _refused: Close | None = None
    _identity: Identity | None = None
    _room: Room

    async def get(self, *_: str) -> None:
        bad = check_handshake(self.request)
        if bad is not None:
            self._refuse_handshake(bad.status, bad.sentence)
            return
        self._dashboard_id = self.checked_id("dashboardId", "default") or "default"
        self._device_id = self.checked_id("deviceId")
        self._since = self.checked_seq("since")
        self._epoch = self.checked_id("epoch")
        await self._find_room()
        self.open_args, self.open_kwargs = (), {}
        self.ws_connection = self.get_websocket_protocol()
        await self.ws_connection.accept_connection(self)

    async def _find_room(self) -> None:
        try:
            self._identity = await self.identify()
        except Unauthorized:
            self._refused = Close.UNAUTHORIZED
            return
        if not self._identity.permissions_on(self._dashboard_id):
            self._refused = Close.FORBIDDEN
        elif self.server.is_draining or self.server.is_full:
            self._refused = Close.TRY_AGAIN_LATER
        else:
            try:
                self._room = await self.server.enter(self._dashboard_id)
            except Unavailable:
                self._refused = Close.TRY_AGAIN_LATER

    def _refuse_handshake(self, status: int, sentence: str) -> None:
        if status == 426:
            self.set_header("Sec-WebSocket-Version", "13")
            self.set_status(426)
            self.write_json({"error": sentence, "code": "UPGRADE_REQUIRED"})
        else:
            raise InvalidMessage(sentence)

    def get_websocket_protocol(self) -> FrameLoop:
        return FrameLoop(self, max_message_bytes=self.server.options.max_message_bytes)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """``bearer`` is selected where it was offered, never the token beside it."""
        return "bearer" if "bearer" in subprotocols else None

    def open(self, *_: str) -> None:
        assert isinstance(self.ws_connection, FrameLoop)
        outbox = self.ws_connection.outbox
        if self._refused is None and self.server.rooms.get(self._dashboard_id) is not self._room:
            self._refused = Close.TRY_AGAIN_LATER  # the room went away during the handshake
        if self._refused is not None:
            outbox.send(self.server.farewell(self._refused, self._identity.user_id if self._identity else ""))
            outbox.close(self._refused.code, self._refused.reason)
            return
        assert self._identity is not None
        permissions = self._identity.permissions_on(self._dashboard_id)
        author = Author(self._identity.user_id, self._device_id or f"device-{self.server.hall.new_id()}")
        self.session = self.server.connect(
            self._room, author, self, outbox, since=self._since, epoch=self._epoch, permissions=permissions
        )

    def on_frame(self, raw: bytes) -> None:
        if self.session is not None:
            self.server.receive(self.session, raw)

    def on_fault(self, fault: Exception) -> None:
        """A mistake of ours that ends this connection alone."""
        self.server.faults += 1
        log.error("connection_failed", exc_info=fault)

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        if self.session is not None:
            self.server.disconnect(self.session)
