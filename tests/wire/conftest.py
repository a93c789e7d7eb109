"""A WebSocket server that records what its frame loops hand out, and a client that may be as rude as a test wants."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream, SSLIOStream
from tornado.util import _websocket_mask
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from tornado_rt.wire import Entrance, FrameLoop, Outbox, check_handshake, encode_frame

MASK = b"\x37\xfa\x21\x3d"  # the one of RFC 6455 section 5.7


def client_frame(body: bytes | str = b"", opcode: int = 0x1, *, fin: bool = True, mask: bytes = MASK) -> bytes:
    """One masked frame, as a client sends it; nothing about it is checked."""
    body = body.encode() if isinstance(body, str) else body
    head = bytearray(encode_frame(body, opcode)[: -len(body) or None])
    head[0] = head[0] if fin else head[0] & 0x7F
    head[1] |= 0x80
    return bytes(head) + mask + _websocket_mask(mask, body)


@dataclass
class RawClient:
    """The client's end of one connection, in frames and bytes."""

    stream: IOStream

    async def send(self, *frames: bytes) -> None:
        await self.stream.write(b"".join(frames))

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the server: opcode and body."""
        first, size = await self.stream.read_bytes(2)
        if size >= 126:
            size = int.from_bytes(await self.stream.read_bytes(2 if size == 126 else 8), "big")
        return first & 0x0F, await self.stream.read_bytes(size) if size else b""

    async def closing(self) -> tuple[int | None, str]:
        """The code and reason of the server's close frame, whatever it said before."""
        while True:
            opcode, body = await self.frame()
            if opcode == 0x8:
                return (int.from_bytes(body[:2], "big") if body else None), body[2:].decode()

    async def end(self) -> bytes:
        """What else comes until the server closes the connection."""
        return await self.stream.read_until_close()

    def vanish(self) -> None:
        """Reset the connection, as a crash does."""
        self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.stream.close()


class Recorder:
    """The server's end: keeps what it was given. ``harness.answer`` is called with each text message."""

    heard = False
    outbox: Outbox
    frame_loop: FrameLoop

    def begin(self, harness: Harness) -> None:
        self.harness = harness
        harness.made.append(self)
        self.frames: list[bytes] = []
        self.binaries: list[bytes] = []
        self.faults: list[Exception] = []
        self.closed: asyncio.Future[tuple[int | None, str | None]] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        self.outbox = self.frame_loop.outbox
        self.harness.handlers.append(self)
        if self.harness.on_open is not None:
            await self.harness.on_open(self)

    def on_frame(self, raw: bytes) -> None:
        self.frames.append(raw)
        if self.harness.answer is not None:
            self.harness.answer(self, raw)

    def on_binary(self, raw: bytes) -> None:
        self.binaries.append(raw)

    def on_fault(self, fault: Exception) -> None:
        self.faults.append(fault)


class Door(WebSocketHandler):
    """The ordinary way in, for a recorder that knows nothing of Tornado."""

    def initialize(self, harness: Harness) -> None:
        self.harness = harness

    async def prepare(self) -> None:
        if bad := check_handshake(self.request):
            self.set_status(bad.status)
            for name, value in bad.headers:
                self.set_header(name, value)
            self.finish(bad.sentence)
        elif self.harness.on_request is not None:
            await self.harness.on_request(self.request)

    def check_origin(self, origin: str) -> bool:
        return True

    def get_websocket_protocol(self) -> FrameLoop:
        return Guest(self.harness).frame_loop

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return subprotocols[0] if subprotocols else None


class Ordinary(Recorder, Door):
    """A recorder that is the door at the same time."""

    def initialize(self, harness: Harness) -> None:
        self.begin(harness)

    def get_websocket_protocol(self) -> FrameLoop:
        self.frame_loop = FrameLoop(self, **self.harness.options)
        return self.frame_loop

    def on_close(self) -> None:
        self.closed.set_result((self.close_code, self.close_reason))


class Guest(Recorder):
    """A recorder that may have come in either way."""

    def __init__(self, harness: Harness) -> None:
        self.begin(harness)
        self.frame_loop = FrameLoop(self, **harness.options)

    def close(self, code: int, reason: str) -> None:
        self.frame_loop.close(code, reason)

    def on_ws_connection_close(self, close_code: int | None = None, close_reason: str | None = None) -> None:
        self.closed.set_result((close_code, close_reason))


@dataclass
class Harness:
    """One listening server, with both ways in. What is set here before a client connects holds for it."""

    options: dict[str, Any] = field(default_factory=dict)
    answer: Callable[[Recorder, bytes], object] | None = None
    on_open: Callable[[Recorder], Coroutine[Any, Any, None]] | None = None
    on_request: Callable[[HTTPServerRequest], Coroutine[Any, Any, None]] | None = None
    short_way: bool = True
    door: type[Door] = Ordinary
    xheaders: bool = False
    handlers: list[Recorder] = field(default_factory=list)  # those that were opened
    made: list[Recorder] = field(default_factory=list)
    clients: list[RawClient] = field(default_factory=list)
    server: Entrance = field(init=False)
    client_tls: ssl.SSLContext | None = None

    @property
    def port(self) -> int:
        return int(next(iter(self.server._sockets.values())).getsockname()[1])

    async def request(self, head: str, *, receive_buffer_bytes: int | None = None, early: bytes = b"") -> tuple[RawClient, str]:
        """Connect and send a request head, followed at once by ``early``; the client and the answer's head."""
        raw = socket.socket()
        if receive_buffer_bytes is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        stream = IOStream(raw) if self.client_tls is None else SSLIOStream(raw, ssl_options=self.client_tls)
        await stream.connect(("127.0.0.1", self.port), server_hostname="localhost" if self.client_tls else None)
        client = RawClient(stream)
        self.clients.append(client)
        await stream.write(head.replace("\n", "\r\n").encode() + early)
        answer = await stream.read_until(b"\r\n\r\n")
        return client, answer.decode()

    async def connect(
        self, *, receive_buffer_bytes: int | None = None, early: bytes = b"", extra: str = ""
    ) -> tuple[RawClient, Recorder]:
        """Both ends of a new connection."""
        head = self.handshake(extra=extra)
        client, answer = await self.request(head, receive_buffer_bytes=receive_buffer_bytes, early=early)
        assert answer.startswith("HTTP/1.1 101 "), answer
        return client, self.handlers[-1]

    def handshake(self, *, extra: str = "", key: str = "", version: str = "13", http: str = "1.1") -> str:
        key = key or base64.b64encode(os.urandom(16)).decode()
        return (
            f"GET / HTTP/{http}\nHost: 127.0.0.1:{self.port}\nUpgrade: websocket\nConnection: keep-alive, Upgrade\n"
            f"Sec-WebSocket-Key: {key}\nSec-WebSocket-Version: {version}\n{extra}\n"
        )

    async def admit(self, request: HTTPServerRequest) -> FrameLoop | None:
        if not self.short_way:
            return None
        if self.on_request is not None:
            await self.on_request(request)
        loop = Guest(self).frame_loop
        if "Sec-WebSocket-Protocol" in request.headers:
            loop.selected_subprotocol = request.headers["Sec-WebSocket-Protocol"].partition(",")[0]
        return loop

    def start(self, server_tls: ssl.SSLContext | None = None) -> None:
        application = Application([("/", self.door, {"harness": self})])
        self.server = Entrance(application, ssl_options=server_tls, xheaders=self.xheaders)
        self.server.expect("/", self.admit)
        self.server.listen(0, "127.0.0.1")

    def stop(self) -> None:
        self.server.stop()
        for handler in self.handlers:
            handler.outbox.abort()
        for client in self.clients:
            client.stream.close()


@pytest.fixture(params=["ordinary", "door", "short"])
def harness(request: pytest.FixtureRequest, io_loop: IOLoop) -> Iterator[Harness]:
    """A server on a free port of 127.0.0.1, once for each way in."""
    harness = Harness(short_way=request.param == "short", door=Door if request.param == "door" else Ordinary)

    async def start() -> None:
        harness.start()

    async def stop() -> None:
        harness.stop()
        await harness.server.close_all_connections()
        await io_loop.run_in_executor(None, int)  # the ends that were scheduled come before this returns

    io_loop.run_sync(start)
    yield harness
    io_loop.run_sync(stop)
