"""A socket that is full: what waits, how much, and what happens when it drains."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tornado_rt.wire import encode_frame
from tornado_rt.wire.frames import encode_close

if TYPE_CHECKING:
    from tests.wire.conftest import Harness, RawClient, Recorder

NEWS = encode_frame(b"n" * 60_000)


def masked(body: bytes, opcode: int = 0x1) -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(body))) + bytes(4) + body


async def slow_pair(harness: Harness) -> tuple[RawClient, Recorder, int]:
    """A connection whose client has not read for so long that the server's end is behind, and how many NEWS were sent."""
    client, handler = await harness.connect(receive_buffer_bytes=4_096)
    count = 1
    while handler.outbox.send(NEWS):
        count += 1
        assert count < 1_000
    return client, handler, count


async def test_a_full_socket_is_behind_and_what_waits_is_bounded(harness: Harness) -> None:
    _, handler, count = await slow_pair(harness)
    outbox = handler.outbox
    assert outbox.behind
    assert 0 < outbox.buffered_bytes <= len(NEWS)
    # TCP_NOTSENT_LOWAT: what nobody reads does not pile up as megabytes in the kernel.
    assert count * len(NEWS) < 1_000_000


async def test_a_drained_socket_says_so_once_and_everything_arrived(harness: Harness) -> None:
    client, handler, count = await slow_pair(harness)
    outbox = handler.outbox
    drained: list[int] = []
    done = asyncio.Event()

    def on_drained() -> None:
        drained.append(outbox.buffered_bytes)
        assert not outbox.behind
        assert outbox.send(encode_frame(b"caught up"))
        done.set()

    outbox.on_drained = on_drained
    assert outbox.send(encode_frame(b"owed")) is False  # accepted, in its place
    waiting = outbox.buffered_bytes
    assert await client.stream.read_bytes(count * len(NEWS)) == count * NEWS
    assert await client.frame() == (1, b"owed")
    assert await client.frame() == (1, b"caught up")
    await done.wait()
    assert drained == [0]
    assert outbox.progress == waiting


async def test_progress_tells_a_slow_reader_from_a_stalled_one(harness: Harness) -> None:
    client, handler, _ = await slow_pair(harness)
    outbox = handler.outbox
    assert outbox.progress == 0
    rest = outbox.buffered_bytes
    while not outbox.progress:
        await client.stream.read_bytes(4_096, partial=True)
        await asyncio.sleep(0)
    assert outbox.progress + outbox.buffered_bytes == rest


async def test_on_drained_may_fall_behind_again(harness: Harness) -> None:
    client, handler, count = await slow_pair(harness)
    outbox = handler.outbox
    rounds = 0

    def on_drained() -> None:
        nonlocal rounds, count
        rounds += 1
        if rounds < 3:
            while outbox.send(NEWS):
                count += 1
            count += 1

    outbox.on_drained = on_drained
    handler.harness.answer = lambda handler, raw: handler.outbox.send(encode_frame(raw))
    await client.send(masked(b"heard when there is room"))
    received = 0
    while rounds < 3:
        received += len(await client.stream.read_bytes(65_536, partial=True))
    left = count * len(NEWS) - received
    if left:
        await client.stream.read_bytes(left)
    assert await client.frame() == (1, b"heard when there is room")


async def test_a_client_that_is_behind_is_not_read_from(harness: Harness) -> None:
    client, handler, count = await slow_pair(harness)
    harness.answer = lambda handler, raw: handler.outbox.send(encode_frame(raw))
    other, _ = await harness.connect()
    await client.send(masked(b"one"), masked(b"ping", 0x9), masked(b"two"))
    await other.send(masked(b"a whole turn of the loop, and more"))
    await other.frame()
    assert handler.frames == []
    await client.stream.read_bytes(count * len(NEWS))
    assert [await client.frame() for _ in range(3)] == [(1, b"one"), (0xA, b"ping"), (1, b"two")]


async def test_frames_that_were_read_already_wait_too(harness: Harness) -> None:
    was_behind: list[bool] = []

    def answer(handler: Recorder, raw: bytes) -> None:
        was_behind.append(handler.outbox.behind)
        while handler.outbox.send(NEWS):
            pass
        handler.outbox.send(encode_frame(raw))

    harness.answer = answer
    client, _ = await harness.connect(receive_buffer_bytes=4_096)
    await client.send(masked(b"1") + masked(b"2") + masked(b"3"))  # one read
    answers: list[bytes] = []
    while len(answers) < 3:
        _, body = await client.frame()
        if len(body) == 1:
            answers.append(body)
    assert answers == [b"1", b"2", b"3"]
    assert was_behind == [False, False, False]


async def test_the_close_frame_waits_its_turn_and_is_the_last(harness: Harness) -> None:
    client, handler, count = await slow_pair(harness)
    outbox = handler.outbox
    outbox.on_drained = lambda: pytest.fail("nobody has to be brought up to date who is leaving")
    outbox.close(1013, "Slow consumer")
    outbox.close(1000, "a second close says nothing")
    assert outbox.send(NEWS) is False
    await client.stream.read_bytes(count * len(NEWS))
    assert await client.closing() == (1013, "Slow consumer")
    await client.send(masked(b"\x03\xf5", 0x8))
    assert await client.end() == b""
    assert await handler.closed == (1013, "")
    assert outbox.closed_with == (1013, "Slow consumer")


async def test_a_fault_of_a_client_that_was_behind_is_told_when_it_has_read(harness: Harness) -> None:
    def answer(handler: Recorder, raw: bytes) -> None:
        while handler.outbox.send(NEWS):
            pass

    harness.answer = answer
    client, _ = await harness.connect(receive_buffer_bytes=4_096)
    await client.send(masked(b"fill") + encode_frame(b"unmasked"))
    assert await client.closing() == (1002, "Protocol error")
    assert await client.end() == b""


async def test_the_peers_goodbye_is_answered_when_it_has_read(harness: Harness) -> None:
    def answer(handler: Recorder, raw: bytes) -> None:
        while handler.outbox.send(NEWS):
            pass

    harness.answer = answer
    client, handler = await harness.connect(receive_buffer_bytes=4_096)
    await client.send(masked(b"fill") + masked(b"\x03\xe8", 0x8))
    assert await client.closing() == (1000, "")
    assert await client.end() == b""
    assert await handler.closed == (1000, "")


async def test_one_that_never_reads_is_cut_off_when_it_should_close(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_rt.wire.outbox.CLOSING_SECONDS", 0.01)
    _, handler, _ = await slow_pair(harness)
    handler.outbox.close(1013, "Slow consumer")
    assert await handler.closed == (None, None)
    assert handler.outbox.closed
    assert handler.outbox.buffered_bytes == 0


async def test_abort_is_told_from_the_loop_and_only_once(harness: Harness) -> None:
    _, handler = await harness.connect()
    told: list[str] = []
    tell = handler.outbox.on_closed
    assert tell is not None

    def on_closed() -> None:
        told.append("closed")
        tell()

    handler.outbox.on_closed = on_closed
    handler.outbox.abort()
    handler.outbox.abort()
    assert told == [], "whoever sends to many members must not see them change meanwhile"
    await handler.closed
    assert told == ["closed"]


async def test_a_peer_that_vanishes_while_behind_is_noticed(harness: Harness) -> None:
    client, handler, _ = await slow_pair(harness)
    client.vanish()
    assert await handler.closed == (None, None)


async def test_a_close_frame_is_exactly_what_the_peer_gets(harness: Harness) -> None:
    client, handler = await harness.connect()
    handler.outbox.close(1012, "Server shutting down")
    frame = encode_close(1012, "Server shutting down")
    assert await client.stream.read_bytes(len(frame)) == frame
