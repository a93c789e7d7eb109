"""The WebSocket door by Tornado's way: for whatever ``wire.Entrance`` leaves, and for applications that mount our routes."""

from __future__ import annotations

from tornado.websocket import WebSocketHandler

from tornado_rt.errors import InvalidMessage
from tornado_rt.handlers.base import BaseHandler
from tornado_rt.handlers.visitor import Visitor
from tornado_rt.wire import FrameLoop, check_handshake

__all__ = ["SocketHandler"]


class SocketHandler(BaseHandler, WebSocketHandler):
    """Answers the handshake; the connection itself is its visitor's."""

    _visitor: Visitor

    async def get(self, *_: str) -> None:
        if "Content-Length" in self.request.headers or "Transfer-Encoding" in self.request.headers:
            raise InvalidMessage("a handshake has no body")  # which would be taken for frames, or for another request
        bad = check_handshake(self.request)
        if bad is not None:
            self._refuse_handshake(bad.status, bad.sentence)
            return
        self._visitor = Visitor(self.server, self.request)
        await self._visitor.find_room(self.gate, self.request)
        self.open_args, self.open_kwargs = (), {}
        self.ws_connection = self.get_websocket_protocol()
        await self.ws_connection.accept_connection(self)

    def _refuse_handshake(self, status: int, sentence: str) -> None:
        if status != 426:
            raise InvalidMessage(sentence)
        self.set_header("Sec-WebSocket-Version", "13")
        self.set_status(426)
        self.write_json({"error": sentence, "code": "UPGRADE_REQUIRED"})

    def get_websocket_protocol(self) -> FrameLoop:
        return self._visitor.frame_loop

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """``bearer`` is selected where it was offered, never the token beside it."""
        return "bearer" if "bearer" in subprotocols else None
