"""One WebSocket connection: reads its socket, hands out its messages, keeps the duties of RFC 6455. Knows no JSON, no rooms."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from tornado.concurrent import Future
from tornado.ioloop import IOLoop
from tornado.iostream import StreamClosedError
from tornado.log import app_log
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from tornado_rt.errors import Close
from tornado_rt.wire.frames import BINARY, CLOSE, PING, PONG, Event, Frame, FrameReader, encode_frame
from tornado_rt.wire.outbox import WOULD_BLOCK, Outbox, take_over

__all__ = ["FrameHandler", "FrameLoop"]

READ_BYTES: Final = 65_536
CONTROL_FRAMES_SECONDS: Final = 10.0
_PARAMS: Final = _WebSocketParams()


class FrameHandler(Protocol):
    """What a frame loop needs of whoever it reads for.

    Optional are ``on_binary(raw)``, ``on_fault(exception)``, without which a fault is logged, and ``on_end(close)``, called
    before we end a connection for what its peer did, or for a fault.
    """

    heard: bool
    """Set to True by every frame that shows a living peer; the heartbeat sweep sets it back."""

    def open(self, *args: str, **kwargs: str) -> Awaitable[None] | None:
        """The handshake is done and the outbox is there; no message comes before this is done."""

    def on_frame(self, raw: bytes, /) -> None:
        """A text message: valid UTF-8, no longer than ``max_message_bytes``. It should not raise: that ends in 1011."""

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        """The socket is gone, once (before ``open``, even); the code and reason are the peer's, None if it said none."""


class FrameLoop(WebSocketProtocol13):
    """What ``WebSocketHandler.get_websocket_protocol`` returns: Tornado's handshake, then a frame loop and outbox of our own.

    The frames' ``handler`` may be that WebSocketHandler, or an object of its own that also serves those who came by the
    ``Entrance``; the WebSocketHandler, with its request, is then forgotten as soon as the connection stands.

    There is no coroutine behind a connection: the event loop calls ``_on_readable``, one read brings as many frames as it
    holds, each text message goes to ``handler.on_frame``. While the outbox is behind nothing is read or handed out. ``outbox``
    exists from just before ``handler.open`` is called.
    """

    __slots__ = (
        "_control_frames",
        "_control_since",
        "_held",
        "_is_parked",
        "_is_paused",
        "_max_control_frames",
        "_on_frame",
        "_reader",
        "_receive",
        "_tls_pending",
        "outbox",
    )

    handler: FrameHandler  # type: ignore[assignment]
    outbox: Outbox

    def __init__(
        self,
        handler: FrameHandler,
        *,
        max_message_bytes: int = 262_144,
        max_control_frames: int = 50,
        accept_binary: bool = False,
    ) -> None:
        """``max_control_frames`` is what a peer may send in ten seconds (0: no limit)."""
        super().__init__(handler, False, _PARAMS)  # type: ignore[arg-type] # of Tornado's delegate nothing else is called
        self.selected_subprotocol = None
        self._on_frame = handler.on_frame
        self._reader = FrameReader(max_message_bytes, accept_binary)
        self._max_control_frames = max_control_frames
        self._control_frames = 0
        self._control_since = 0.0
        self._held: list[Event] = []  # read already, to be handed out when the outbox has drained
        self._is_parked = False  # not listening, until then
        self._is_paused = False  # not listening, until it is closed

    # The handshake, by way of WebSocketHandler.get

    async def _accept_connection(self, handler: WebSocketHandler) -> None:
        """Answer the handshake, open the handler, begin to read. The request has passed ``check_handshake``."""
        if self.selected_subprotocol is None:
            offered = handler.request.headers.get("Sec-WebSocket-Protocol", "")
            self.selected_subprotocol = handler.select_subprotocol(
                [name.strip() for name in offered.split(",") if name.strip()]
            )
        handler.clear_header("Content-Type")
        handler.set_status(101)
        handler.set_header("Upgrade", "websocket")
        handler.set_header("Connection", "Upgrade")
        handler.set_header("Sec-WebSocket-Accept", self._challenge_response(handler))
        if self.selected_subprotocol:
            handler.set_header("Sec-WebSocket-Protocol", self.selected_subprotocol)
        sent = handler.finish()
        stream = handler.detach()
        try:
            if stream.writing():
                await sent
            if stream.closed():
                raise StreamClosedError()
            sock, early = take_over(stream)
            self.attach(sock)
        except OSError:  # StreamClosedError is one
            stream.close()
            self.handler.on_ws_connection_close()
            return
        await self.open(early, *handler.open_args, **handler.open_kwargs)

    def attach(self, sock: socket.socket) -> None:
        """Take a socket, past its handshakes, and make the outbox. Raises ``OSError`` if the peer is gone already."""
        self._receive: Callable[[int], bytes] = sock.recv
        self._tls_pending = sock.pending if isinstance(sock, ssl.SSLSocket) else None
        self.outbox = Outbox(sock, IOLoop.current().selector_loop)  # type: ignore[attr-defined]
        self.outbox.on_closed = self._on_closed
        self.outbox.on_free = self._on_free

    async def open(self, early: bytes = b"", *args: str, **kwargs: str) -> None:
        """Open the handler, then begin to read, with the bytes that came ``early``, right behind the handshake."""
        handler = self.handler
        if self.outbox.closed:
            return
        try:
            opened = handler.open(*args, **kwargs)
            if opened is not None:
                await opened
        except Exception as fault:
            self._report(handler, fault)
        except BaseException:
            self.outbox.abort()
            raise
        if not self.outbox.closed:
            self.outbox.listen(self._on_readable)
            if early:
                self._hand_out(self._reader.feed(early))
            if self._tls_pending is not None:
                self.outbox.call_soon(self._on_readable)

    # Reading

    def _on_readable(self) -> None:
        outbox, reader = self.outbox, self._reader
        if outbox.behind or reader.more:
            # Listening again is dearer than being called once in vain: only now is it clear that the peer goes on sending.
            outbox.listen(None)
            self._is_parked = True
            return
        try:
            data = self._receive(READ_BYTES)
        except WOULD_BLOCK:
            return
        except OSError:
            data = b""
        if not data:
            outbox.abort()
            return
        self._hand_out(reader.feed(data))
        if self._tls_pending is not None and self._tls_pending() and not outbox.closed:
            # Decrypted bytes inside the TLS object never make the socket readable.
            outbox.call_soon(self._on_readable)

    def _hand_out(self, events: list[Event]) -> None:
        """Hand the events to the handler, until there are no more or the outbox is behind, closing or closed."""
        outbox, handler, on_frame = self.outbox, self.handler, self._on_frame
        waiting = iter(events)
        try:
            for event in waiting:
                if outbox.barred:
                    self._held = [event, *waiting]
                    break
                if event.__class__ is bytes:
                    handler.heard = True
                    on_frame(event)
                else:
                    self._on_other(event)  # type: ignore[arg-type]
        except Exception as fault:
            self._report(handler, fault)
        if self._held or outbox.barred or self._reader.more or self._reader.fault:
            self._go_on()

    def _go_on(self) -> None:
        """Decide what follows when the events of a read have not simply all been handed out."""
        outbox, reader = self.outbox, self._reader
        if outbox.closed or outbox.behind:
            return  # `_on_free` comes back here, or the socket is gone
        held, self._held = self._held, []
        if outbox.closing:
            # Of what the peer says now only its own goodbye counts.
            for event in held:
                if isinstance(event, Frame) and event.opcode == CLOSE:
                    self._on_close_frame(event.body)
            held = []
        if held:
            self._hand_out(held)
        elif self.client_terminated:
            outbox.abort()
        elif reader.more:
            outbox.call_soon(self._feed_rest)
        elif reader.fault is not None:
            # Whatever else the peer sends is dropped; with the end of our half it learns that it may close its own.
            self._end(reader.fault)
            outbox.shut_down()

    def _feed_rest(self) -> None:
        """Take the next of many frames that came with one read."""
        if not self.outbox.closed:
            self._hand_out(self._reader.feed(b""))
            self._listen_again()

    def _on_free(self) -> None:
        """The outbox has drained: go on where it fell behind."""
        self._go_on()
        self._listen_again()

    def pause(self) -> None:
        """Read nothing more, until the connection is closed: what the peer says from now on stays with it, unanswered."""
        self.outbox.listen(None)
        self._is_paused = True

    def _listen_again(self) -> None:
        if self._is_parked and not self._is_paused and not (self.outbox.behind or self.outbox.closed or self._reader.more):
            self._is_parked = False
            self.outbox.listen(self._on_readable)
            if self._tls_pending is not None:
                self.outbox.call_soon(self._on_readable)

    def _on_other(self, frame: Frame) -> None:
        """A binary message or a control frame (RFC 6455 section 5.5)."""
        opcode, body = frame
        if opcode == BINARY:
            self.handler.heard = True
            self.handler.on_binary(body)  # type: ignore[attr-defined]
        elif opcode == CLOSE:
            self._on_close_frame(body)
        elif self._is_flood():
            self._end(Close.RATE_LIMIT_EXCEEDED)
        elif opcode == PING:
            self.handler.heard = True
            self.outbox.send(encode_frame(body, PONG))
        elif self.outbox.awaits_pong:
            # An unsolicited pong proves nothing: whoever sends them need not be reading.
            self.outbox.awaits_pong = False
            self.handler.heard = True

    def _is_flood(self) -> bool:
        """Count a control frame; True if it is one too many for ten seconds."""
        if not self._max_control_frames:
            return False
        now = self.outbox.time()
        if now - self._control_since > CONTROL_FRAMES_SECONDS:
            self._control_since = now
            self._control_frames = 0
        self._control_frames += 1
        return self._control_frames > self._max_control_frames

    # The end

    def _on_close_frame(self, body: bytes) -> None:
        self.client_terminated = True
        if body:
            self.close_code = int.from_bytes(body[:2], "big")
            self.close_reason = body[2:].decode()
        self.outbox.close(self.close_code)
        if not self.outbox.behind:
            self.outbox.abort()

    def _report(self, handler: FrameHandler, fault: Exception) -> None:
        """The handler raised: its connection ends, the others do not."""
        self._end(Close.SERVER_FAULT)
        on_fault = getattr(handler, "on_fault", None)
        if on_fault is not None:
            on_fault(fault)
        else:
            app_log.error("Uncaught exception in %s", type(handler).__name__, exc_info=fault)

    def _end(self, how: Close) -> None:
        """We end it; the handler may say a last word before the close frame."""
        on_end = getattr(self.handler, "on_end", None)
        if on_end is not None and not self.is_closing():
            on_end(how)
        self.outbox.close(how.code, how.reason)

    def _on_closed(self) -> None:
        self.client_terminated = self.server_terminated = True
        self._held = []
        handler = self.handler
        del self._on_frame, self.handler  # it most likely knows us: no work for the garbage collector
        handler.on_ws_connection_close(self.close_code, self.close_reason)

    # What WebSocketHandler calls

    def close(self, code: int | None = None, reason: str | None = None) -> None:
        """Send a close frame; the peer has five seconds to answer."""
        self.server_terminated = True
        self.outbox.close(1000 if code is None and reason else code, reason or "")
        if self._is_paused and not self.outbox.closed:
            self._is_paused = False
            self.outbox.listen(self._on_readable)  # for the peer's goodbye

    def is_closing(self) -> bool:
        """Whether either side has begun to close."""
        return self.outbox.closing or self.outbox.closed

    def _abort(self) -> None:
        outbox: Outbox | None = getattr(self, "outbox", None)
        if outbox is not None:  # else the peer was gone before its handshake was answered
            outbox.abort()

    def _write_frame(self, fin: bool, opcode: int, data: bytes, flags: int = 0) -> Future[None]:
        """For ``WebSocketHandler.write_message`` and ``ping``: by way of the outbox, like everything."""
        if self.is_closing():
            raise StreamClosedError()
        self.outbox.send(encode_frame(data, opcode))
        sent: Future[None] = Future()
        sent.set_result(None)
        return sent
