"""The short way in: what takes it sees the same request, what does not take it is Tornado's, untouched."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tornado_rt.errors import Forbidden

if TYPE_CHECKING:
    from tornado.httputil import HTTPServerRequest

    from tests.wire.conftest import Harness, Recorder

pytestmark = pytest.mark.parametrize("harness", ["ordinary", "short"], indirect=True)

BROWSER = (
    "Pragma: no-cache\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\nOrigin: http://127.0.0.1\nAccept-Language: de,en;q=0.9\n"
    "Cookie: userId=ann; theme=dark\nX-Twice: one\nX-Twice: two\nX-Latin: caf\u00e9\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\n"
)


def described(request: HTTPServerRequest) -> dict[str, Any]:
    return {
        "start": (request.method, request.uri, request.version, request.path, request.query),
        "arguments": (request.arguments, request.query_arguments),
        "headers": list(request.headers.get_all()),
        "host": (request.host, request.host_name),
        "peer": (request.remote_ip, request.protocol),
        "cookies": {name: morsel.value for name, morsel in request.cookies.items()},
        "body": request.body,
    }


def ways(harness: Harness) -> list[str]:
    return [type(handler).__name__ for handler in harness.handlers]


async def test_a_handshake_takes_the_way_that_it_may_take(harness: Harness) -> None:
    await harness.connect()
    assert ways(harness) == ["Guest" if harness.short_way else "Ordinary"]


@pytest.mark.parametrize("xheaders", [False, True])
@pytest.mark.parametrize("target", ["/", "/?userId=ann&userId=bob&dashboardId=a%20b%2Fc&empty="])
@pytest.mark.parametrize("extra", ["", BROWSER, "X-Forwarded-For: 10.0.0.1, 192.0.2.7\nX-Forwarded-Proto: https\n"])
async def test_both_ways_see_the_same_request(harness: Harness, xheaders: bool, target: str, extra: str) -> None:
    harness.server.xheaders = xheaders
    seen = []

    async def on_request(request: HTTPServerRequest) -> None:
        seen.append(described(request))

    harness.on_request = on_request
    head = harness.handshake(extra=extra).replace("GET / ", f"GET {target} ")
    for harness.short_way in (True, False):
        _, answer = await harness.request(head)
        assert answer.startswith("HTTP/1.1 101 ")
    assert ways(harness) == ["Guest", "Ordinary"]
    assert seen[0] == seen[1]
    assert seen[0]["peer"] == (("192.0.2.7", "https") if xheaders and "Forwarded" in extra else ("127.0.0.1", "http"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("GET / ", "POST / ", id="another method"),
        pytest.param("GET / ", "GET /elsewhere ", id="another path"),
        pytest.param("GET / ", "GET  / ", id="a malformed start line"),
        pytest.param("HTTP/1.1", "HTTP/1.0", id="HTTP/1.0"),
        pytest.param("Host:", "X-Host:", id="no Host"),
        pytest.param("Host: ", "Host: a,", id="two hosts"),
        pytest.param("Upgrade: websocket", "Upgrade: h2c", id="another protocol"),
        pytest.param("Connection: keep-alive, Upgrade", "Connection: keep-alive", id="no Connection: Upgrade"),
        pytest.param("Version: 13", "Version: 8", id="another version"),
        pytest.param("Sec-WebSocket-Key: ", "Sec-WebSocket-Key: x", id="a bad key"),
        pytest.param("\n\n", "\nno header\n\n", id="a line that is no header"),
        pytest.param("\n\n", "\nContent-Length: 4\n\nbody", id="a body"),
        pytest.param("\n\n", "\nTransfer-Encoding: chunked\n\n0\n\n", id="a body in chunks"),
        pytest.param("\n\n", f"\nX-Long: {'x' * 70_000}\n\n", id="a head too long"),
    ],
)
async def test_what_is_no_proper_handshake_is_answered_by_tornado(harness: Harness, old: str, new: str) -> None:
    head = harness.handshake(key="dGhlIHNhbXBsZSBub25jZQ==").replace(old, new, 1).replace("\n", "\r\n").encode()
    answers = []
    for harness.short_way in (True, False):
        with socket.create_connection(("127.0.0.1", harness.port)) as client:
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(client, head)
            answer = await loop.sock_recv(client, 65_536)
        answers.append([line for line in answer.split(b"\r\n") if not line.startswith((b"Date:", b"Sec-WebSocket-Accept:"))])
    assert answers[0] == answers[1]
    assert "Guest" not in ways(harness)


async def test_a_head_in_pieces_is_tornados(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = asyncio.Event()
    handle_stream = harness.server.handle_stream

    def on_stream(*arrival: Any) -> None:
        taken.set()
        handle_stream(*arrival)

    monkeypatch.setattr(harness.server, "handle_stream", on_stream)
    head = harness.handshake().replace("\n", "\r\n").encode()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", harness.port)) as client:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_sendall(client, head[:40])
        await asyncio.wait_for(taken.wait(), 20)
        await loop.sock_sendall(client, head[40:])
        assert (await loop.sock_recv(client, 65_536)).startswith(b"HTTP/1.1 101 ")
    assert ways(harness) == ["Ordinary"]


async def test_lines_without_a_carriage_return_are_tornados(harness: Harness) -> None:
    head = harness.handshake().encode()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", harness.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, head)
        assert (await loop.sock_recv(client, 65_536)).startswith(b"HTTP/1.1 101 ")
    assert ways(harness) == ["Ordinary"]


async def test_a_refusal_is_left_to_tornado(harness: Harness) -> None:
    asked = 0

    async def on_request(request: HTTPServerRequest) -> None:
        nonlocal asked
        asked += 1
        if asked == 1 and harness.short_way:
            raise Forbidden("not by this way")

    harness.on_request = on_request
    await harness.connect()
    assert ways(harness) == ["Ordinary"]
    assert asked == (2 if harness.short_way else 1)


@pytest.mark.logs_errors
async def test_a_mistake_in_admitting_ends_that_connection_alone(harness: Harness, logged_errors: list[Any]) -> None:
    async def on_request(request: HTTPServerRequest) -> None:
        if request.query == "bad":
            raise KeyError

    harness.on_request = on_request
    head = harness.handshake()
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", harness.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, head.replace("GET / ", "GET /?bad ").replace("\n", "\r\n").encode())
        answer = await loop.sock_recv(client, 65_536)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert logged_errors
    assert any("admitting" in record.message for record in logged_errors) == harness.short_way
    await harness.connect()


async def test_a_client_that_vanishes_while_it_is_asked_closes_its_handler(harness: Harness) -> None:
    asked, may_go_on = asyncio.Event(), asyncio.Event()

    async def on_request(request: HTTPServerRequest) -> None:
        asked.set()
        await may_go_on.wait()

    harness.on_request = on_request
    with socket.create_connection(("127.0.0.1", harness.port)) as client:
        client.sendall(harness.handshake().replace("\n", "\r\n").encode())
        await asked.wait()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    harness.on_request = None
    await harness.connect()  # by then the reset has been noticed
    may_go_on.set()
    await harness.connect()
    (vanished,) = (handler for handler in harness.made if handler not in harness.handlers)
    assert await vanished.closed == (None, None)


async def test_those_who_are_still_being_asked_are_sent_away_at_the_end(harness: Harness) -> None:
    asked = asyncio.Event()

    async def on_request(request: HTTPServerRequest) -> None:
        asked.set()
        await asyncio.Event().wait()

    harness.on_request = on_request
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", harness.port)) as client:
        client.setblocking(False)
        await loop.sock_sendall(client, harness.handshake().replace("\n", "\r\n").encode())
        await asked.wait()
        await harness.server.close_all_connections()
        with contextlib.suppress(ConnectionResetError):
            assert await loop.sock_recv(client, 100) == b""


async def test_an_open_that_is_cancelled_ends_the_connection(harness: Harness) -> None:
    harness.short_way = True
    opening = asyncio.Event()

    async def on_open(handler: Recorder) -> None:
        opening.set()
        await asyncio.Event().wait()

    harness.on_open = on_open
    client, _ = await harness.request(harness.handshake())
    await opening.wait()
    await harness.server.close_all_connections()
    assert await client.end() == b""
    assert await harness.made[0].closed == (None, None)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems wake us for every arrival")
async def test_the_kernel_waits_for_the_first_word(harness: Harness) -> None:
    for listening in harness.server._sockets.values():
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) >= 1
