"""The one way out of a WebSocket: frames go straight to the socket, and wait in line only if it is full. Knows no messages."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Final

from tornado.iostream import IOStream

from tornado_rt.wire.frames import PING, encode_close, encode_frame

__all__ = ["WOULD_BLOCK", "Outbox", "take_over"]

PING_FRAME: Final = encode_frame(b"", PING)
CLOSING_SECONDS: Final = 5.0
"""How long the peer may take to answer our close frame (and to read what stood before it)."""
NOTSENT_LOWAT_BYTES: Final = 16_384
WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket that cannot go on without waiting raises, plain or TLS."""

_TCP_NOTSENT_LOWAT: Final[int | None] = getattr(socket, "TCP_NOTSENT_LOWAT", None)


def take_over(stream: IOStream) -> tuple[socket.socket, bytes]:
    """Take the socket from its stream, which must not be writing; return it, and the bytes that the stream has read already.

    The stream is not to be used any more: its futures and its event mask cost more than the frames do. Leans on ``_state``,
    ``_read_buffer`` and ``_read_buffer_size`` (tests/wire/test_conformance.py).
    """
    if stream._state is not None:
        stream.io_loop.remove_handler(stream.fileno())
        stream._state = None
    early = bytes(stream._read_buffer)
    stream._read_buffer.clear()
    stream._read_buffer_size = 0
    return stream.socket, early


class Outbox:
    """Frames for one socket. A socket that does not take everything at once is *behind*: the caller should send no more and
    bring its reader up to date when ``on_drained`` is called.

    The socket, plain or TLS, belongs to the outbox, non-blocking and past its handshakes; ``loop`` is one with ``add_reader``.
    To be used from the loop's thread only. Nothing here raises because a peer is gone: the outbox is then ``closed``, ``send``
    answers False and ``on_closed`` is called, once, from the loop, never from inside ``send``.
    """

    __slots__ = (
        "_backlog",
        "_closing_timer",
        "_fd",
        "_loop",
        "_write",
        "awaits_pong",
        "barred",
        "behind",
        "closed",
        "closed_with",
        "closing",
        "on_closed",
        "on_drained",
        "on_free",
        "progress",
        "socket",
    )

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _TCP_NOTSENT_LOWAT is not None:
            # What nobody has read yet waits here, where it can still be merged, and not as megabytes in the kernel.
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, NOTSENT_LOWAT_BYTES)
        self.socket = sock
        self.behind = False  # the socket was full; `buffered_bytes` wait for it
        self.closing = False  # our close frame is on its way: nothing may follow it
        self.closed = False  # the socket is gone
        self.barred = False  # one of these three: `send` may not go straight to the socket
        self.closed_with: tuple[int | None, str] | None = None  # code and reason of our close frame
        self.awaits_pong = False  # a ping is unanswered
        self.progress = 0  # bytes of the backlog that the socket has taken, ever
        self.on_drained: Callable[[], None] | None = None
        self.on_closed: Callable[[], None] | None = None
        self.on_free: Callable[[], None] | None = None  # the frame loop's own, after `on_drained`
        self._write: Callable[[bytes | memoryview], int] = sock.send
        self._fd = sock.fileno()
        self._loop = loop
        self._backlog: list[memoryview] = []
        self._closing_timer: asyncio.TimerHandle | None = None

    def send(self, data: bytes) -> bool:
        """Send one or several whole frames. True: the socket took them all. False: it is now behind, or closed."""
        if self.barred:
            if self.behind and not self.closing:
                self._backlog.append(memoryview(data))
            return False
        try:
            taken = self._write(data)
        except WOULD_BLOCK:
            taken = 0
        except OSError:
            self.abort()
            return False
        if taken == len(data):
            return True
        self._fall_behind(memoryview(data)[taken:])
        return False

    def ping(self, ahead: bytes = b"") -> bool:
        """Send a ping, in one piece with the frames ``ahead`` of it; the next pong then counts as a sign of life."""
        self.awaits_pong = True
        return self.send(ahead + PING_FRAME)

    def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Say goodbye: after the frames sent so far, a close frame, and five seconds for the peer to answer it."""
        if self.closing or self.closed:
            return
        self.closed_with = (code, reason)
        self._closing_timer = self._loop.call_later(CLOSING_SECONDS, self.abort)
        self.send(encode_close(code, reason))
        self.closing = self.barred = True

    def abort(self) -> None:
        """Close the socket at once."""
        if self.closed:
            return
        self.closed = self.barred = True
        self.behind = False
        self._backlog.clear()
        if self._closing_timer is not None:
            self._closing_timer.cancel()
            self._closing_timer = None
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self.socket.close()
        # Whoever sends to many members must not see the list of them change meanwhile.
        self._loop.call_soon(self._tell_closed)

    def shut_down(self) -> None:
        """End our half of the connection, after a close frame that needs no answer; the peer's end of file does the rest."""
        if not self.behind and not self.closed:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)

    def listen(self, on_readable: Callable[[], None] | None) -> None:
        """Call this whenever the socket can be read, or has ended; None: don't."""
        if on_readable is None:
            self._loop.remove_reader(self._fd)
        else:
            self._loop.add_reader(self._fd, on_readable)

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Call back in the next turn of the event loop."""
        self._loop.call_soon(callback)

    def time(self) -> float:
        """Seconds on the event loop's own clock."""
        return self._loop.time()

    @property
    def buffered_bytes(self) -> int:
        """Bytes that wait for the socket."""
        return sum(map(len, self._backlog))

    def _fall_behind(self, rest: memoryview) -> None:
        self._backlog.append(rest)
        self.behind = self.barred = True
        self._loop.add_writer(self._fd, self._on_writable)

    def _on_writable(self) -> None:
        backlog = self._backlog
        try:
            while backlog:
                taken = self._write(backlog[0])
                self.progress += taken
                if taken < len(backlog[0]):
                    backlog[0] = backlog[0][taken:]
                    return
                del backlog[0]
        except WOULD_BLOCK:
            return
        except OSError:
            self.abort()
            return
        self._loop.remove_writer(self._fd)
        self.behind = False
        self.barred = self.closing
        if self.on_drained is not None and not self.closing:
            self.on_drained()
        if self.on_free is not None and not self.behind and not self.closed:
            self.on_free()

    def _tell_closed(self) -> None:
        tell, self.on_closed, self.on_drained, self.on_free = self.on_closed, None, None, None
        if tell is not None:
            tell()
