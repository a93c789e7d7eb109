"""A short way in for WebSocket handshakes, beside Tornado's HTTP server. Knows what a handshake is, not who may connect.

For every request Tornado makes a stream, a connection, two tasks, a delegate and a handler, which is three quarters of what a
handshake costs and of what an idle connection keeps in memory. After a restart all clients come at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.httputil import HTTPHeaders, HTTPInputError, HTTPServerRequest, parse_request_start_line
from tornado.log import app_log
from tornado.websocket import WebSocketProtocol13

from tornado_rt.errors import Refusal
from tornado_rt.wire.frame_loop import FrameLoop
from tornado_rt.wire.handshake import check_handshake

__all__ = ["Admit", "Entrance"]

Admit = Callable[[HTTPServerRequest], Awaitable[FrameLoop | None]]
"""A handshake, as Tornado describes a request (its ``connection`` is of no use) -> the frame loop that will serve it, with its
handler and ``selected_subprotocol``, or None (or a :class:`Refusal`): Tornado's ordinary way is to answer.

Nothing but the form of the handshake has been checked: Host, Origin and identity are this function's to judge."""

_HEADER_LINES: Final = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)+\r\n")
_MAX_HEAD_BYTES: Final = 65_536
_FULL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: 84\r\n\r\n"
    b'{"error":"there is no socket to spare; come again in a moment","code":"UNAVAILABLE"}'
)
_TCP_DEFER_ACCEPT: Final[int | None] = getattr(socket, "TCP_DEFER_ACCEPT", None)


class _Arrival:
    """An accepted socket in the two parts that Tornado's request wants it to play: a stream's and a connection's."""

    __slots__ = ("context", "socket")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.context: _HTTPRequestContext | None = None


class Entrance(HTTPServer):
    """Tornado's HTTP server, which lets proper handshakes for one path in by the short way::

        http_server = Entrance(application, xheaders=True)
        http_server.expect("/api/realtime", admit)
        http_server.add_sockets(sockets)

    Only what will be upgraded goes the short way. A request is looked at without taking it from its socket; whatever is not a
    whole and proper handshake, or is not admitted, is left for Tornado as it came, TLS always. So the application needs a
    ``WebSocketHandler`` at that path all the same, for those, and every refusal is made in one place: there.
    """

    max_files: int | None = None
    """How many files the process may have open before whoever comes is told 503 at once.

    Where accepting itself fails, for want of one, the kernel wakes us for it again and again, and Tornado logs each time.
    """
    _admit: Admit | None = None
    _beginnings: tuple[bytes, ...] = ()
    _arrivals: set[asyncio.Task[None]]

    def expect(self, path: str, admit: Admit) -> None:
        """Let handshakes for ``path`` in as ``admit`` says. To be called before the server listens."""
        self._beginnings = (f"GET {path}?".encode(), f"GET {path} ".encode())
        self._arrivals = set()
        self._admit = admit

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Also asks the kernel to wake us when a client has said something, not when it has merely arrived (at most 1 s)."""
        sockets = list(sockets)
        if self._admit is not None and _TCP_DEFER_ACCEPT is not None:
            for sock in sockets:
                if sock.family in (socket.AF_INET, socket.AF_INET6):
                    sock.setsockopt(socket.IPPROTO_TCP, _TCP_DEFER_ACCEPT, 1)
        super().add_sockets(sockets)

    async def close_all_connections(self) -> None:
        """Those who are still being asked for their names are sent away too."""
        for task in list(getattr(self, "_arrivals", ())):
            task.cancel()
        await super().close_all_connections()

    def _handle_connection(self, connection: socket.socket, address: Any) -> None:
        # A file gets the lowest number that is free: one as high as this says that all below are in use.
        if self.max_files is not None and connection.fileno() >= self.max_files:
            self._turn_away(connection)
            return
        head = self._peek(connection) if self._admit is not None and self.ssl_options is None else None
        request = self._handshake(head, connection, address) if head is not None else None
        if head is None or request is None:
            super()._handle_connection(connection, address)
            return
        task = asyncio.get_running_loop().create_task(self._let_in(request, len(head), connection, address))
        self._arrivals.add(task)
        task.add_done_callback(self._arrivals.discard)

    def _turn_away(self, connection: socket.socket) -> None:
        """Close it before anything is read; what stands unread in it is thrown away, so that the answer is not."""
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.recv(_MAX_HEAD_BYTES)
        with contextlib.suppress(OSError):
            connection.send(_FULL)
        connection.close()

    def _peek(self, connection: socket.socket) -> bytes | None:
        """The head of a request that begins like a handshake, if all of it is there; it stays in the socket."""
        connection.setblocking(False)
        try:
            data = connection.recv(self.conn_params.max_header_size or _MAX_HEAD_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing there yet, or nobody any more
            return None
        end = data.find(b"\r\n\r\n") if data.startswith(self._beginnings) else -1
        return data[: end + 4] if end > 0 else None

    def _handshake(self, head: bytes, connection: socket.socket, address: Any) -> HTTPServerRequest | None:
        """The request as Tornado itself would have read it, or None if it is not a proper handshake."""
        line, _, lines = head.decode("latin1").partition("\r\n")
        headers = _read_headers(lines)
        if headers is None:
            return None
        arrival = _Arrival(connection)
        arrival.context = _HTTPRequestContext(arrival, address, self.protocol, self.trusted_downstream)  # type: ignore[arg-type]
        try:
            if self.xheaders:
                arrival.context._apply_xheaders(headers)
            request = HTTPServerRequest(
                start_line=parse_request_start_line(line),
                headers=headers,
                connection=arrival,  # type: ignore[arg-type]
            )
        except HTTPInputError:
            return None
        if "Content-Length" in headers or "Transfer-Encoding" in headers or check_handshake(request) is not None:
            return None
        return request

    async def _let_in(self, request: HTTPServerRequest, head_bytes: int, connection: socket.socket, address: Any) -> None:
        assert self._admit is not None
        try:
            loop = await self._admit(request)
        except Refusal:
            loop = None
        except Exception:
            app_log.error("Error in admitting a connection", exc_info=True)
            loop = None
        except BaseException:
            connection.close()
            raise
        if loop is None:
            super()._handle_connection(connection, address)
            return
        try:
            connection.recv(head_bytes)  # now it is ours
            loop.attach(connection)
        except OSError:
            connection.close()
            loop.handler.on_ws_connection_close()
            return
        loop.outbox.send(_answer(request, loop.selected_subprotocol))
        await loop.open()


def _read_headers(lines: str) -> HTTPHeaders | None:
    """What ``HTTPHeaders.parse`` makes of well-formed lines, in a quarter of the time; None if anything is odd about them."""
    if _HEADER_LINES.fullmatch(lines) is None:
        return None
    headers = HTTPHeaders()
    for line in lines.split("\r\n")[:-2]:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        if name in headers:
            headers.add(name, value)
        else:
            headers[name] = value
    return headers


def _answer(request: HTTPServerRequest, subprotocol: str | None) -> bytes:
    """The server's half of the handshake (RFC 6455 section 4.2.2)."""
    accept = WebSocketProtocol13.compute_accept_value(request.headers["Sec-WebSocket-Key"])
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
    ]
    if subprotocol is not None:
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode()
