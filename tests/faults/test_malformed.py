"""Malformed frames, handshakes and messages over real sockets: after each the server answers, and its state is what it was.

A refused message gets exactly one NACK. Frames that are no WebSocket end their connection, with a close code if any that
RFC 6455 section 7.4 allows to be sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.line import Json, Line, on_line
from tests.faults.process import ServerProcess

EXAMPLES = 1_000  # of frames and of messages each
SOAK_EXAMPLES = 20_000
CLOSE_CODES = {1000, 1002, 1003, 1007, 1008, 1009, 1011}
CODES = {"INVALID_JSON", "INVALID_MESSAGE", "UNKNOWN_TYPE", "TOO_LARGE", "FORBIDDEN", "NOT_FOUND", "CONFLICT_UNKNOWN"}
USER = "ann"
T = TypeVar("T")


class Bench:
    """A server on a loop of its own, one connection that must stay well, and the state that must stay as it is."""

    def __init__(self, server: ServerProcess, runner: asyncio.Runner) -> None:
        self.server = server
        self.runner = runner
        self.line: Line | None = None
        self.stack = contextlib.AsyncExitStack()
        self.before: Json = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def start(self) -> None:
        await self.server.start()
        self.line = await self.connect()
        await self.line.update("w", value=1)
        await self.line.ask("LAYOUT_UPDATE", {"layout": {"x": 1}})
        self.before = await self.state()

    async def connect(self) -> Line:
        """One more connection, which ends with the bench."""
        return await self.stack.enter_async_context(on_line(self.server.api, USER))

    async def state(self) -> Json:
        assert self.line is not None
        snapshot = await self.line.snapshot()
        return {name: snapshot[name] for name in ("epoch", "seq", "widgets", "layouts")}

    async def is_well(self) -> None:
        """It answers on the old connection, and nothing has changed."""
        assert await self.state() == self.before
        assert self.line is not None
        assert self.line.heard == []  # and nobody was told of any change


@pytest.fixture
def bench(make_server: Callable[..., ServerProcess]) -> Iterator[Bench]:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        bench = Bench(make_server(), runner)
        try:
            bench.run(bench.start())
            yield bench
        finally:
            bench.run(bench.stack.aclose())


def thorough(examples: int) -> Any:
    """Hypothesis without its clock: a timing fails no test here."""
    return settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))


# -- frames --------------------------------------------------------------------------------------------------------------


def frame(fin: bool, reserved: int, opcode: int, masked: bool, payload: bytes, claimed: int | None, wide: bool) -> bytes:
    """A frame that need not be one: ``claimed`` is a length in place of the payload's, ``wide`` a needlessly long encoding."""
    length = len(payload) if claimed is None else claimed
    head = bytes([fin << 7 | reserved << 4 | opcode])
    mark = masked << 7
    if length > 65_535 or (wide and length > 125):
        head += bytes([mark | 127]) + struct.pack("!Q", length)
    elif length > 125 or wide:
        head += bytes([mark | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mark | length])
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


payloads = st.one_of(
    st.binary(max_size=140),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from([b"", b"\x03", b"\x03\xe8", b"\x03\xed", b"\x00\x00", b"\x03\xe8\xff", b"\xff" * 125, b'{"type":"PING"}']),
)
frames = st.builds(
    frame,
    fin=st.booleans(),
    reserved=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
    opcode=st.sampled_from([0, 1, 1, 1, 2, 3, 7, 8, 9, 10, 11, 15]),
    masked=st.sampled_from([True, True, True, False]),
    payload=payloads,
    claimed=st.one_of(st.none(), st.none(), st.sampled_from([0, 126, 65_536, 262_145, 2**31, 2**63 - 1, 2**63, 2**64 - 1])),
    wide=st.sampled_from([False, False, False, True]),
)
streams = st.one_of(st.lists(frames, min_size=1, max_size=4).map(b"".join), st.binary(min_size=1, max_size=200))

HANDSHAKE = (
    "GET /api/realtime?userId=mal&dashboardId=board HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@contextlib.asynccontextmanager
async def raw_connection(server: ServerProcess) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def what_comes_back(server: ServerProcess, head: bytes, stream: bytes) -> bytes:
    """Send all, say that no more will come, and read to the end."""
    async with raw_connection(server) as (reader, writer), asyncio.timeout(20):
        writer.write(head)
        if stream:
            await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            writer.write(stream)
            writer.write_eof()
            return await reader.read()
    return b""


def server_frames(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each whole frame that the server sent; it masks none and reserves nothing."""
    position = 0
    while position + 2 <= len(raw):
        assert raw[position] & 0x70 == 0
        assert raw[position + 1] & 0x80 == 0
        length, start = raw[position + 1], position + 2
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(raw[start : start + size], "big")
            start += size
        yield raw[position] & 0x0F, raw[start : start + length]
        position = start + length


async def one_stream(bench: Bench, stream: bytes) -> None:
    handshake = HANDSHAKE.format(port=bench.server.port).encode()
    answers = list(server_frames(await what_comes_back(bench.server, handshake, stream)))
    closes = [payload for opcode, payload in answers if opcode == 8]
    assert len(closes) <= 1
    for close in closes:
        if close:
            assert int.from_bytes(close[:2], "big") in CLOSE_CODES or close in stream_closes(stream)
            close[2:].decode()
    for opcode, payload in answers:
        if opcode == 1:
            json.loads(payload)
    await bench.is_well()


def stream_closes(stream: bytes) -> set[bytes]:
    """An echo of a close code that the client may choose (3000 to 4999) is as good as one of the server's own."""
    return {code.to_bytes(2, "big") for code in range(3000, 5000)} if stream else set()


def frames_do_no_harm(bench: Bench, examples: int) -> None:
    @thorough(examples)
    @given(streams)
    def each(stream: bytes) -> None:
        bench.run(one_stream(bench, stream))

    each()


def test_malformed_frames_end_their_own_connection_alone(bench: Bench) -> None:
    frames_do_no_harm(bench, EXAMPLES)


@pytest.mark.soak
def test_many_malformed_frames(bench: Bench) -> None:
    frames_do_no_harm(bench, SOAK_EXAMPLES)


def test_malformed_handshakes_are_answered_with_a_status_or_an_end(bench: Bench) -> None:
    whole = HANDSHAKE.format(port=bench.server.port)
    lines = whole.split("\r\n")
    missing = ["\r\n".join(lines[:index] + lines[index + 1 :]) for index in range(1, 6)]
    spoilt = [
        whole.replace("HTTP/1.1", "HTTP/1.0"),
        whole.replace("HTTP/1.1", "HTTP/9.9"),
        whole.replace("Version: 13", "Version: 8"),
        whole.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        whole.replace("GET", "BREW"),
        whole.replace("Host: 127.0.0.1", "Host: evil.test"),
        whole.replace("userId=mal", "userId=%00%ff"),
        whole.replace("userId=mal", "userId=mal&since=-1&epoch=" + "e" * 500),
        "\x00\x01\x02\r\n\r\n",
        whole[:40],
    ]
    for text in missing + spoilt:
        raw = bench.run(what_comes_back(bench.server, text.encode("latin-1"), b""))
        assert raw == b"" or raw.startswith(b"HTTP/1."), text
        bench.run(bench.is_well())


# -- messages ------------------------------------------------------------------------------------------------------------

VALID: list[Json] = [
    {"type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {"value": 2}, "baseVersion": 1}},
    {"type": "WIDGET_DELETE", "payload": {"widgetId": "w"}},
    {"type": "LAYOUT_UPDATE", "payload": {"layoutId": "default", "layout": {"x": 2}}},
    {"type": "LAYOUT_RESTORE", "payload": {"layoutId": "default", "version": 1}},
    {"type": "CONFLICT_RESOLVED", "payload": {"conflictId": "c", "resolution": "merged", "data": {"v": 1}, "widgetId": "w"}},
    *(
        {
            "type": type_,
            "payload": {"operations": [{"operationId": "o", "type": "WIDGET_DELETE", "payload": {"widgetId": "w"}}]},
        }
        for type_ in ("WIDGET_BATCH", "SYNC_UPDATE")
    ),
]
WRONG_IDS = st.sampled_from(["", "x" * 129, "a\nb", "a\x00b", "\x1b[31m", 7, None, True, [], {}, 1.5])
WRONG_OBJECTS = st.sampled_from(["text", 7, True, [], [{}], 1.5])
WRONG_NUMBERS = st.sampled_from(["1", -1, 1.5, True, [], {}, 2**53, 10**30])
# What is wrong in these places whatever else the message says: path, and values for it.
SPOILERS: list[tuple[tuple[str | int, ...], st.SearchStrategy[Any]]] = [
    (("type",), st.one_of(st.text(max_size=20).map(lambda text: f"{text}?"), st.sampled_from([None, 7, [], {}, True]))),
    (("userId",), st.one_of(WRONG_IDS, st.just("bob"))),
    (("id",), st.sampled_from(["", "x" * 129, "a\nb", 7, True, [], {}])),
    (("payload",), WRONG_OBJECTS),
    (("payload", "widgetId"), WRONG_IDS),
    (("payload", "layoutId"), st.sampled_from(["", "x" * 129, "a\nb", 7, [], {}])),
    (("payload", "data"), st.sampled_from(["text", 7, True, [], [{}], 1.5])),
    (("payload", "layout"), WRONG_OBJECTS),
    (("payload", "baseVersion"), WRONG_NUMBERS),
    (("payload", "version"), WRONG_NUMBERS),
    (("payload", "operations"), st.sampled_from(["text", 7, {}, [7], [[]], [{}], [{"operationId": "o"}], []])),
    (("payload", "operations", 0, "operationId"), WRONG_IDS),
    (("payload", "operations", 0, "type"), st.sampled_from(["PING", "SYNC_UPDATE", "", None, 7])),
    (("payload", "operations", 0, "payload"), WRONG_OBJECTS),
    (("payload", "resolution"), st.sampled_from(["mine", "", None, 7, []])),
]
# JSON that Python reads and a browser does not, or not as the same: in place of a value.
POISONS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    '"\\ud800"',
    str(2**53 + 1),
    str(-(2**63) - 1),
    "[" * 40 + "]" * 40,
    "01",
    "'x'",
)


def holds(message: Json, path: tuple[str | int, ...]) -> bool:
    place: Any = message
    for key in path:
        try:
            place = place[key]
        except (KeyError, IndexError, TypeError):
            return False
    return True


@st.composite
def spoilt_messages(draw: st.DrawFn) -> str:
    """A valid message with one wrong value in it."""
    message = {"id": "m", "userId": USER, **copy.deepcopy(draw(st.sampled_from(VALID)))}
    path, values = draw(st.sampled_from([spoiler for spoiler in SPOILERS if holds(message, spoiler[0])]))
    place: Any = message
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = draw(values)
    return json.dumps(message)


@st.composite
def cut_messages(draw: st.DrawFn) -> str:
    """A valid message less its end."""
    whole = json.dumps({"id": "m", "userId": USER, **draw(st.sampled_from(VALID))})
    return whole[: draw(st.integers(1, len(whole) - 1))]


poisoned_messages = st.sampled_from(POISONS).map(
    lambda value: (
        f'{{"type":"WIDGET_UPDATE","id":"m","userId":"{USER}","payload":{{"widgetId":"w","data":{{"value":{value}}}}}}}'
    )
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
).map(json.dumps)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
messages = st.one_of(spoilt_messages(), spoilt_messages(), cut_messages(), poisoned_messages, json_values, texts)


async def one_message(bench: Bench, line: Line, text: str) -> None:
    await line.socket.send(text)
    after = await line.snapshot()
    refusals, line.heard = line.heard, []
    assert [(each["type"], each["payload"]["retryable"]) for each in refusals] == [("NACK", False)], text
    assert refusals[0]["payload"]["code"] in CODES
    assert refusals[0]["payload"]["error"]
    assert {name: after[name] for name in bench.before} == bench.before
    await bench.is_well()


def messages_do_no_harm(bench: Bench, examples: int) -> None:
    line = bench.run(bench.connect())

    @thorough(examples)
    @given(messages)
    def each(text: str) -> None:
        bench.run(one_message(bench, line, text))

    each()


def test_a_malformed_message_gets_one_nack_and_changes_nothing(bench: Bench) -> None:
    messages_do_no_harm(bench, EXAMPLES)


@pytest.mark.soak
def test_many_malformed_messages(bench: Bench) -> None:
    messages_do_no_harm(bench, SOAK_EXAMPLES)


def test_malformed_posts_are_refused_with_the_one_error_shape(bench: Bench, tmp_path: Path) -> None:
    async def post(body: bytes, content_type: str) -> tuple[int, Json]:
        headers = {"Content-Type": content_type}
        answer = await bench.server.fetch(f"/api/realtime?userId={USER}", method="POST", headers=headers, body=body)
        return answer.code, json.loads(answer.body)

    bodies = [b"", b"{", b"[]", b"7", b'"SYNC"', b"{}", b'{"type":"SYNC"}', b'{"type":"SYNC","operations":7}', b"\xff\xfe"]
    bodies += [b'{"type":"SYNC","operations":[{"operationId":"o","type":"PING","payload":{}}]}', b"[" * 5_000]
    for body in bodies:
        status, said = bench.run(post(body, "application/json"))
        assert status == 400, body
        assert said["code"] in CODES
        assert said["error"]
        bench.run(bench.is_well())
    assert bench.run(post(b"a=b", "application/x-www-form-urlencoded"))[0] == 415
