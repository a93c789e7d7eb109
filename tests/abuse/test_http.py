"""What can be said in HTTP to do harm: slowly, endlessly, in two meanings at once. The server is the real one, less patient."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abuse.fortress import Fortress

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HIDDEN = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nX-Hidden: yes\r\n\r\n"


@pytest.fixture(scope="module")
def shared_fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    """Waits half a second for the head of a request, and for its body."""
    fortress = Fortress(tmp_path_factory.mktemp("fortress"), patience_seconds=0.5)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(fortress.start())
    yield fortress
    fortress.process.close()


def post(fortress: Fortress, *headers: str, path: str = "/api/realtime", signed: bool = True) -> bytes:
    """The head of a POST, signed unless told otherwise."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    if signed:
        lines.append(f"Authorization: {fortress.bearer()['Authorization']}")
    return "\r\n".join([*lines, "", ""]).encode("latin1")


# Slowly


async def test_a_head_in_drips_is_cut_off(fortress: Fortress) -> None:
    drips = itertools.repeat(b"X-Drip: 1\r\n", 1_000)
    await fortress.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n", more=drips, pause=0.05)
    assert next(drips, None) is not None


async def test_a_handshake_in_drips_is_cut_off(fortress: Fortress) -> None:
    drips = itertools.repeat(b"X-Drip: 1\r\n", 1_000)
    head = b"GET /api/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    await fortress.raw(head, more=drips, pause=0.05)
    assert next(drips, None) is not None


@pytest.mark.parametrize("length", ["Content-Length: 1000", "Transfer-Encoding: chunked"])
async def test_a_body_in_drips_is_cut_off(fortress: Fortress, length: str) -> None:
    drips = itertools.repeat(b"1\r\n \r\n" if "chunked" in length else b" ", 900)
    await fortress.raw(post(fortress, length), more=drips, pause=0.05)
    assert next(drips, None) is not None


async def test_silence_is_cut_off(fortress: Fortress) -> None:
    """Before the first word, and between two requests."""
    assert await fortress.raw(b"") == b""
    assert (await fortress.raw(HEALTH)).count(b"HTTP/1.1 200") == 1


async def test_others_are_served_meanwhile(fortress: Fortress) -> None:
    drips = [fortress.raw(b"GET / HTTP/1.1\r\n", more=itertools.repeat(b"X: 1\r\n", 100), pause=0.05) for _ in range(100)]
    dripping = asyncio.gather(*drips)
    async with fortress.speaker() as anna:
        assert (await anna.ask("PING"))["type"] == "PONG"
    await dripping


# Too much


def memory_of(process_id: int) -> int:
    """Bytes that a process holds in memory."""
    [line] = [line for line in Path(f"/proc/{process_id}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


DOORS = {
    "/api/realtime": 401,
    "/api/realtime/revoke": 401,
    "/api/realtime/stats": 405,
    "/healthz": 405,
    "/": 405,
    "/static/index.html": 405,
    "/nothing": 404,
}


@pytest.mark.parametrize("path", DOORS)
async def test_nobody_need_send_his_body_to_be_refused(fortress: Fortress, path: str) -> None:
    """And the answer says that it is the last."""
    answer = await fortress.raw(post(fortress, "Content-Length: 1000", path=path, signed=False))
    assert answer.startswith(b"HTTP/1.1 %d " % DOORS[path])
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize("path", DOORS)
async def test_nobody_parks_a_body_before_he_is_known(fortress: Fortress, path: str) -> None:
    """What comes all the same is not kept."""
    before = memory_of(fortress.process.process.pid)
    head = post(fortress, "Content-Length: 1000000", path=path, signed=False)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fortress.raw(head, more=[b"x" * 900_000], pause=0.02)) for _ in range(60)]
        await asyncio.sleep(0.2)
        grown = memory_of(fortress.process.process.pid) - before
    answers = {task.result()[:12] for task in tasks} - {b""}
    assert answers <= {b"HTTP/1.1 %d" % DOORS[path]}
    assert grown < 30_000_000


async def test_who_is_known_parks_no_more_than_one_message(fortress: Fortress) -> None:
    before = memory_of(fortress.process.process.pid)
    head = post(fortress, "Transfer-Encoding: chunked")
    chunk = b"f4240\r\n" + b" " * 1_000_000 + b"\r\n"
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fortress.raw(head, more=[chunk], pause=0.02)) for _ in range(60)]
        await asyncio.sleep(0.2)
        grown = memory_of(fortress.process.process.pid) - before
    assert grown < 40_000_000
    assert len(tasks) == 60


@pytest.mark.parametrize(
    ("length", "status"),
    [("65537", 413), ("999999999999999999", 413), ("9" * 30, 413), ("65536", 400)],
    ids=["a byte too long", "a petabyte", "thirty digits", "as long as may be"],
)
async def test_a_body_that_announces_too_much_is_413(fortress: Fortress, length: str, status: int) -> None:
    body = b" " * 65_536 if length == "65536" else b""
    answer = await fortress.raw(post(fortress, f"Content-Length: {length}", "Connection: close") + body)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_head_of_64_kib_is_not_read(fortress: Fortress) -> None:
    answer = await fortress.raw(b"GET /" + b"x" * 65_536 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_a_thousand_headers_and_arguments_are_borne(fortress: Fortress) -> None:
    headers = "".join(f"X-{number}: 1\r\n" for number in range(1_000))
    query = "&".join(f"a{number}=1" for number in range(500))
    head = f"GET /healthz?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"
    answer = await fortress.raw(head.encode())
    assert answer == b"" or answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4"))


# In two meanings (RFC 9112 section 11.2): what one server takes for a body, another takes for the next request


TWO_MEANINGS = {
    "length and chunks": ["Content-Length: 4", "Transfer-Encoding: chunked"],
    "two lengths": ["Content-Length: 4", "Content-Length: 60"],
    "two lengths in a line": ["Content-Length: 4, 60"],
    "a length with a sign": ["Content-Length: +4"],
    "a negative length": ["Content-Length: -1"],
    "a length in hexadecimal": ["Content-Length: 0x4"],
    "a length with an underscore": ["Content-Length: 1_0"],
    "a length in foreign digits": ["Content-Length: \xb2"],
    "a blank before the colon": ["Content-Length : 4"],
    "no name": [": 4", "Content-Length: 4"],
    "unheard-of chunks": ["Transfer-Encoding: xchunked"],
    "chunks twice": ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
    "chunks with a tab": ["Transfer-Encoding: \x0bchunked"],
    "a folded line": ["X-Fold: a", " Content-Length: 4"],
    "a NUL": ["X-Nul: a\x00b"],
    "a lone carriage return": ["X-Cr: a\rContent-Length: 4"],
}


@pytest.mark.parametrize("case", TWO_MEANINGS)
async def test_what_can_be_read_in_two_ways_is_not_read(fortress: Fortress, case: str) -> None:
    """400 and the end; what stands behind it is nobody's request."""
    answer = await fortress.raw(post(fortress, *TWO_MEANINGS[case]) + b"0\r\n\r\n" + HIDDEN)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize("size", ["0x5", "-5", "+5", "1_0", " 5", "5 ", "", "g", "f" * 20, "5\n"])
async def test_chunks_of_odd_sizes_are_the_end(fortress: Fortress, size: str) -> None:
    chunk = f"{size}\r\n[1,2]\r\n0\r\n\r\n".encode()
    answer = await fortress.raw(post(fortress, "Transfer-Encoding: chunked") + chunk + HIDDEN)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") <= 1


LINES = {
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.test\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c4030300") + b"\x00" * 32,
    "no words": b"\r\n\r\n\r\n\r\n",
    "a NUL": b"GET /healthz\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a tab": b"GET\t/healthz\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    "rubbish": bytes(range(256)) * 20 + b"\r\n\r\n",
}


@pytest.mark.parametrize("case", LINES)
async def test_what_is_no_request_is_the_end(fortress: Fortress, case: str) -> None:
    answer = await fortress.raw(LINES[case])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1 ") <= 1


@pytest.mark.parametrize(
    "path",
    [
        "http://evil.test/api/realtime",
        "//evil.test/api/realtime",
        "/api/realtime/../realtime/stats",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/static/\\..\\app.py",
        "/static/index.html%00.js",
        "/.env",
        "/%ff",
        "*",
    ],
)
async def test_no_path_leads_out(fortress: Fortress, path: str) -> None:
    answer = await fortress.raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 4")
    assert b"import" not in answer
    assert b"root:" not in answer


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "BREW", "OPTIONS"])
async def test_no_other_method_does_anything(fortress: Fortress, method: str) -> None:
    head = f"{method} /api/realtime HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Echo: seen\r\n\r\n"
    answer = await fortress.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 204" if method == "OPTIONS" else b"HTTP/1.1 405")
    assert b"seen" not in answer


@pytest.mark.parametrize("length", [f"Content-Length: {len(HIDDEN)}", "Transfer-Encoding: chunked", "Content-Length: 0"])
async def test_a_handshake_that_brings_a_body_is_refused(fortress: Fortress, length: str) -> None:
    """Nothing behind it may be taken for a second request, or for frames of somebody who was let in."""
    head = (
        "GET /api/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"{length}\r\n\r\n"
    )
    answer = await fortress.raw(head.encode() + (HIDDEN if not length.endswith(" 0") else b""))
    assert answer.count(b"HTTP/1.1 ") == answer.count(b"HTTP/1.1 400 ") == 1


async def test_a_stranger_who_asks_to_go_on_is_told_no(fortress: Fortress) -> None:
    answer = await fortress.raw(post(fortress, "Expect: 100-continue", "Content-Length: 1000", signed=False))
    assert b"HTTP/1.1 401 " in answer
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["code"] == "UNAUTHORIZED"


async def test_what_is_asked_in_one_breath_is_answered_in_order(fortress: Fortress) -> None:
    """Until the first that is refused."""
    answer = await fortress.raw(HEALTH * 3 + b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n" + HEALTH)
    assert [answer.count(status) for status in (b"HTTP/1.1 200", b"HTTP/1.1 404")] == [3, 1]
