"""Whoever comes by WebSocket: which room they want, whether they may come in, and their frames while they are there.

PROTOCOL section 1. The same for those who come by Tornado's way and those who come by the short one (``wire.Entrance``).
"""

from __future__ import annotations

import structlog
from tornado.httputil import HTTPServerRequest

from tornado_rt.auth import REFUSAL, Identity
from tornado_rt.core.document import Author
from tornado_rt.errors import Close, Forbidden, Misdirected, Unauthorized, Unavailable
from tornado_rt.handlers.gate import Gate, query_id, query_seq
from tornado_rt.room import Room
from tornado_rt.server import RealtimeServer
from tornado_rt.session import Session
from tornado_rt.submission import Renew
from tornado_rt.wire import Admit, FrameLoop

__all__ = ["Visitor", "admitting", "check_origin", "renewing"]

log = structlog.get_logger(__name__)


class Visitor:
    """One connection, from its handshake to its end.

    ``refused`` is why it is not let in, ``sentence`` more of that where there is more. It is told so over the socket: a browser
    cannot read the status of a failed handshake, and would try again for ever.
    """

    __slots__ = (
        "_address",
        "_dashboard_id",
        "_device_id",
        "_epoch",
        "_identity",
        "_permissions",
        "_room",
        "_server",
        "_since",
        "frame_loop",
        "heard",
        "refused",
        "sentence",
        "session",
    )

    def __init__(self, server: RealtimeServer, request: HTTPServerRequest) -> None:
        """Raises ``InvalidMessage`` for a query that makes no sense."""
        self._server = server
        self._dashboard_id = query_id(request, "dashboardId") or "default"
        self._device_id = query_id(request, "deviceId")
        self._since = query_seq(request, "since")
        self._epoch = query_id(request, "epoch")
        self._address = ""
        self._identity: Identity | None = None
        self._permissions: tuple[str, ...] = ()
        self._room: Room | None = None
        self.heard = True
        self.refused: Close | None = None
        self.sentence: str | None = None
        self.session: Session | None = None
        self.frame_loop = FrameLoop(self, max_message_bytes=server.options.max_message_bytes)

    async def find_room(self, gate: Gate, request: HTTPServerRequest) -> None:
        """Establish who it is and what it may see; leaves ``refused`` behind where that is nothing."""
        server = self._server
        self._address = gate.address_of(request)
        if server.is_draining or not server.guard.knock(self._address, server.hall.monotonic()):
            self.refused = Close.TRY_AGAIN_LATER
            return
        try:
            self._identity = await gate.identify(request)
            self._permissions = await gate.permissions(self._identity, self._dashboard_id)
        except Unauthorized:
            self.refused = Close.UNAUTHORIZED
            return
        except Forbidden as refusal:
            self.refused, self.sentence = Close.FORBIDDEN, refusal.message
            return
        except Unavailable:
            self.refused = Close.TRY_AGAIN_LATER
            return
        if not self._permissions:
            self.refused = Close.FORBIDDEN
        elif self._is_revoked(self._identity):
            self.refused = Close.UNAUTHORIZED
        elif not server.guard.has_room(self._identity.user_id, self._address):
            self.refused = Close.TRY_AGAIN_LATER
        else:
            try:
                self._room = await server.enter(self._dashboard_id)
            except Unavailable:
                self.refused = Close.TRY_AGAIN_LATER

    def open(self, *_: str, **__: str) -> None:
        """The handshake is done: come in, or hear why not."""
        server, identity = self._server, self._identity
        if self.refused is None and (self._room is None or server.rooms.get(self._dashboard_id) is not self._room):
            self.refused = Close.TRY_AGAIN_LATER  # the room went away during the handshake
        if self.refused is None and identity is not None and self._is_revoked(identity):
            self.refused = Close.UNAUTHORIZED  # while its room was being read
        if self.refused is not None:
            self._turn_away(self.refused)
            return
        assert identity is not None
        assert self._room is not None
        self.session = server.connect(
            self._room,
            Author(identity.user_id, self._device_id or f"device-{server.hall.new_id()}"),
            self,
            self.frame_loop.outbox,
            since=self._since,
            epoch=self._epoch,
            permissions=self._permissions,
            identity=identity,
            address=self._address,
        )
        if self.session is None:
            self._turn_away(Close.TRY_AGAIN_LATER)

    def _is_revoked(self, identity: Identity) -> bool:
        return self._server.revocations.refuses(identity, self._dashboard_id, self._server.hall.time())

    def _turn_away(self, how: Close) -> None:
        outbox, identity = self.frame_loop.outbox, self._identity
        outbox.send(self._server.farewell(how, identity.user_id if identity is not None else "", self.sentence))
        outbox.close(how.code, how.reason)

    def on_frame(self, raw: bytes, /) -> None:
        if self.session is not None:
            self._server.receive(self.session, raw)

    def close(self, code: int, reason: str) -> None:
        self.frame_loop.close(code, reason)

    def pause(self) -> None:
        self.frame_loop.pause()

    def on_end(self, how: Close) -> None:
        """DISCONNECT comes before every close that we begin, where the socket still takes it."""
        if self.session is not None:
            self.session.say_goodbye(how)

    def on_fault(self, fault: Exception) -> None:
        """A mistake of ours that ends this connection alone."""
        self._server.hall.faults += 1
        log.error("connection_failed", exc_info=fault)
        if self.session is not None:
            self._server.events.emit(self.session.event("client:error"))

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        if self.session is not None:
            self._server.disconnect(self.session)
            self.session = None


def check_origin(gate: Gate, request: HTTPServerRequest) -> str | None:
    """The request's Origin, if it has one and may connect; looked at before anything else (DNS rebinding).

    Raises ``Misdirected`` for a foreign Host, ``Forbidden`` for a foreign Origin.
    """
    if not gate.knows_host(request.host):
        raise Misdirected("this Host is not served here; RT_ALLOWED_HOSTS lists those that are")
    origin = request.headers.get("Origin")
    if origin is not None and not gate.welcomes_origin(origin, request.host):
        raise Forbidden("pages of this Origin may not connect; RT_ALLOWED_ORIGINS lists those that may")
    return origin


def admitting(server: RealtimeServer, gate: Gate) -> Admit:
    """What ``wire.Entrance`` asks about each handshake; what is refused here by HTTP is refused once more by Tornado's way."""

    async def admit(request: HTTPServerRequest) -> FrameLoop | None:
        check_origin(gate, request)
        visitor = Visitor(server, request)
        await visitor.find_room(gate, request)
        if "bearer" in offered_subprotocols(request):
            visitor.frame_loop.selected_subprotocol = "bearer"
        return visitor.frame_loop

    return admit


def renewing(server: RealtimeServer, gate: Gate) -> Renew:
    """What the hall asks about a token that comes over a connection; one that was revoked is as good as none."""

    async def renew(token: str, dashboard_id: str) -> tuple[Identity, tuple[str, ...]]:
        identity, permissions = await gate.renew(token, dashboard_id)
        if server.revocations.refuses(identity, dashboard_id, server.hall.time()):
            raise Unauthorized(REFUSAL)
        return identity, permissions

    return renew


def offered_subprotocols(request: HTTPServerRequest) -> list[str]:
    return [name.strip() for name in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
