"""Whole connections on real sockets: what a frame loop hands out, answers and ends."""

from __future__ import annotations

import asyncio
import datetime
import gc
import logging
import ssl
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tornado.iostream import StreamClosedError

from tornado_rt.errors import Close
from tornado_rt.wire import encode_frame
from tornado_rt.wire.frames import encode_close

if TYPE_CHECKING:
    from tests.wire.conftest import Harness, RawClient, Recorder

PING, PONG, CLOSE, BINARY = 0x9, 0xA, 0x8, 0x2


def echo(handler: Recorder, raw: bytes) -> None:
    handler.outbox.send(encode_frame(raw))


def client_close(code: int, reason: str = "") -> bytes:
    return code.to_bytes(2, "big") + reason.encode()


def client_frame(body: bytes | str = b"", opcode: int = 0x1) -> bytes:
    body = body.encode() if isinstance(body, str) else body
    head = bytearray(encode_frame(body, opcode)[: -len(body) or None])
    head[1] |= 0x80
    return bytes(head) + bytes(4) + body


async def test_messages_come_in_order_and_are_answered_in_order(harness: Harness) -> None:
    harness.answer = echo
    client, handler = await harness.connect()
    await client.send(*(client_frame(f"message {n}") for n in range(1_000)))
    assert [await client.frame() for _ in range(1_000)] == [(1, b"message %d" % n) for n in range(1_000)]
    assert handler.heard


async def test_bytes_that_came_with_the_handshake_are_not_lost(harness: Harness) -> None:
    harness.answer = echo
    client, _ = await harness.connect(early=client_frame("early"))
    assert await client.frame() == (1, b"early")


async def test_nothing_is_handed_out_before_open_is_done(harness: Harness) -> None:
    may_open = asyncio.Event()

    async def on_open(handler: Recorder) -> None:
        await may_open.wait()
        handler.outbox.send(encode_frame(b"%d so far" % len(handler.frames)))

    harness.on_open, harness.answer = on_open, echo
    client, _ = await harness.connect(early=client_frame("early"))
    may_open.set()
    assert await client.frame() == (1, b"0 so far")
    assert await client.frame() == (1, b"early")


async def test_open_may_turn_the_client_away(harness: Harness) -> None:
    async def on_open(handler: Recorder) -> None:
        handler.outbox.close(Close.UNAUTHORIZED.code, Close.UNAUTHORIZED.reason)

    harness.on_open = on_open
    client, handler = await harness.connect(early=client_frame("ignored"))
    assert await client.closing() == (1008, "Unauthorized")
    await client.send(client_frame(client_close(1008), CLOSE))
    assert await client.end() == b""
    assert await handler.closed == (1008, "")
    assert handler.frames == []


async def test_pings_are_answered_with_their_payload(harness: Harness) -> None:
    client, handler = await harness.connect()
    await client.send(client_frame("are you there?", PING))
    assert await client.frame() == (PONG, b"are you there?")
    assert handler.heard


async def test_only_a_pong_that_was_asked_for_is_a_sign_of_life(harness: Harness) -> None:
    harness.answer = lambda handler, raw: None
    client, handler = await harness.connect()
    await client.send(client_frame(b"", PONG), client_frame("x", PING))
    assert await client.frame() == (PONG, b"x")
    handler.heard = False
    await client.send(client_frame(b"", PONG), client_frame(b"", PONG))
    handler.outbox.ping(encode_frame(b"news"))
    assert await client.frame() == (1, b"news")
    assert await client.frame() == (PING, b"")
    assert not handler.heard
    await client.send(client_frame(b"", PONG))
    await client.send(client_frame("x", PING))
    await client.frame()
    assert handler.heard
    assert not handler.outbox.awaits_pong


async def test_a_flood_of_control_frames_ends_in_1008(harness: Harness) -> None:
    client, _ = await harness.connect()
    await client.send(client_frame(b"", PONG) * 49, client_frame("fiftieth", PING), client_frame(b"", PING))
    assert await client.frame() == (PONG, b"fiftieth")
    assert await client.closing() == (1008, "Rate limit exceeded")


async def test_the_limit_of_control_frames_is_for_ten_seconds(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.options["max_control_frames"] = 2
    now = 1_000.0
    monkeypatch.setattr("tornado_rt.wire.outbox.Outbox.time", lambda self: now)
    client, _ = await harness.connect()
    await client.send(client_frame("1", PING), client_frame("2", PING))
    assert await client.frame() == (PONG, b"1")
    assert await client.frame() == (PONG, b"2")
    now += 10.1
    await client.send(client_frame("3", PING))
    assert await client.frame() == (PONG, b"3")


async def test_the_limit_of_control_frames_may_be_off(harness: Harness) -> None:
    harness.options["max_control_frames"] = 0
    client, _ = await harness.connect()
    await client.send(*(client_frame(f"{n}", PING) for n in range(200)))
    assert [await client.frame() for _ in range(200)] == [(PONG, b"%d" % n) for n in range(200)]


async def test_the_peers_close_is_answered_with_its_code(harness: Harness) -> None:
    client, handler = await harness.connect()
    await client.send(client_frame("last words"), client_frame(client_close(1001, "going away"), CLOSE), client_frame("late"))
    assert await client.end() == encode_close(1001)
    assert await handler.closed == (1001, "going away")
    assert handler.frames == [b"last words"]


async def test_a_close_without_a_code_is_answered_without_one(harness: Harness) -> None:
    client, handler = await harness.connect()
    await client.send(client_frame(b"", CLOSE))
    assert await client.end() == encode_close(None)
    assert await handler.closed == (None, None)


async def test_our_close_waits_for_the_peers(harness: Harness) -> None:
    client, handler = await harness.connect()
    handler.close(1012, "Server shutting down")
    assert await client.closing() == (1012, "Server shutting down")
    await client.send(client_frame("not heard any more"), client_frame(client_close(1012), CLOSE))
    assert await client.end() == b""
    assert await handler.closed == (1012, "")
    assert handler.frames == []


async def test_a_peer_that_does_not_answer_our_close_is_cut_off(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tornado_rt.wire.outbox.CLOSING_SECONDS", 0.01)
    client, handler = await harness.connect()
    handler.outbox.close(1000)
    assert await client.end() == encode_close(1000)
    assert await handler.closed == (None, None)


@pytest.mark.parametrize(
    ("sent", "close"),
    [
        pytest.param(encode_frame(b"unmasked"), Close.PROTOCOL_ERROR, id="protocol error"),
        pytest.param(client_frame(b"\xff"), Close.INVALID_TEXT, id="invalid text"),
        pytest.param(client_frame(b"\xff", BINARY), Close.UNSUPPORTED_DATA, id="binary"),
        pytest.param(client_frame(b"x" * 1_001), Close.MESSAGE_TOO_BIG, id="too big"),
    ],
)
async def test_a_fault_is_named_and_ends_the_connection(harness: Harness, sent: bytes, close: Close) -> None:
    harness.options["max_message_bytes"], harness.answer = 1_000, echo
    client, handler = await harness.connect()
    await client.send(client_frame("before"), sent, client_frame("after"))
    assert await client.frame() == (1, b"before")
    assert await client.frame() == (CLOSE, client_close(close.code, close.reason))
    assert await client.end() == b""  # our half is closed: the client need not wait for anything
    client.stream.close()
    assert await handler.closed == (None, None)
    assert handler.frames == [b"before"]
    assert handler.outbox.closed_with == (close.code, close.reason)


async def test_binary_messages_are_handed_out_where_they_are_accepted(harness: Harness) -> None:
    harness.options["accept_binary"] = True
    harness.answer = echo
    client, handler = await harness.connect()
    await client.send(client_frame(b"\x00\xff", BINARY), client_frame("text"))
    assert await client.frame() == (1, b"text")
    assert handler.binaries == [b"\x00\xff"]


async def test_a_handler_that_raises_loses_its_connection_and_no_other(harness: Harness) -> None:
    def answer(handler: Recorder, raw: bytes) -> None:
        if raw == b"bad":
            raise KeyError(raw)
        echo(handler, raw)

    harness.answer = answer
    client, handler = await harness.connect()
    other, _ = await harness.connect()
    await client.send(client_frame("bad"), client_frame("good"))
    assert await client.closing() == (1011, "Server fault")
    assert [type(fault) for fault in handler.faults] == [KeyError]
    await other.send(client_frame("good"))
    assert await other.frame() == (1, b"good")


@pytest.mark.logs_errors
async def test_a_fault_that_nobody_wants_to_hear_of_is_logged(harness: Harness, logged_errors: list[logging.LogRecord]) -> None:
    async def on_open(handler: Recorder) -> None:
        handler.on_fault = None  # type: ignore[method-assign, assignment]

    harness.on_open, harness.answer = on_open, lambda handler, raw: 1 / 0
    client, _ = await harness.connect()
    await client.send(client_frame("bad"))
    assert await client.closing() == (1011, "Server fault")
    (record,) = logged_errors
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_an_open_that_raises_ends_in_1011(harness: Harness) -> None:
    async def on_open(handler: Recorder) -> None:
        raise LookupError

    harness.on_open = on_open
    client, handler = await harness.connect()
    assert await client.closing() == (1011, "Server fault")
    assert [type(fault) for fault in handler.faults] == [LookupError]


async def test_a_peer_that_vanishes_closes_without_a_code(harness: Harness) -> None:
    client, handler = await harness.connect()
    client.vanish()
    assert await handler.closed == (None, None)
    assert handler.outbox.send(b"into the void") is False
    handler.outbox.close()
    handler.outbox.abort()


async def test_thousands_of_frames_in_one_read_let_others_have_their_turn(harness: Harness) -> None:
    turns: list[str] = []

    def answer(handler: Recorder, raw: bytes) -> None:
        turns.append(raw.decode())
        if len(handler.frames) == 2_000:
            handler.outbox.send(encode_frame(b"done"))

    harness.answer = answer
    greedy, _ = await harness.connect()
    modest, _ = await harness.connect()
    await greedy.send(client_frame("greedy") * 2_000)
    await modest.send(client_frame("modest"))
    assert await greedy.frame() == (1, b"done")
    assert turns.count("greedy") == 2_000
    assert "modest" in turns[:-1], "the modest client had to wait for the greedy one's last message"


async def test_a_mass_disconnect_says_nothing_and_leaves_nothing(harness: Harness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    pairs = [await harness.connect() for _ in range(200)]
    caplog.clear()
    before = asyncio.all_tasks()
    for client, _ in pairs:
        client.vanish()
    news = encode_frame(b"x" * 20_000)
    for _ in range(3):
        for _, handler in pairs:
            handler.outbox.send(news)
    for _, handler in pairs:
        assert await handler.closed == (None, None)
    assert caplog.records == []
    assert asyncio.all_tasks() <= before


@pytest.mark.parametrize("harness", ["ordinary"], indirect=True)
async def test_write_message_and_ping_of_tornado_go_the_same_way(harness: Harness) -> None:
    client, handler = await harness.connect()
    await handler.write_message({"a": 1})
    handler.ping(b"tornado")
    assert await client.frame() == (1, b'{"a": 1}')
    assert await client.frame() == (PING, b"tornado")


async def test_no_task_stays_behind_an_open_connection(harness: Harness) -> None:
    before = asyncio.all_tasks()
    harness.answer = echo
    client, _ = await harness.connect()
    await client.send(client_frame("x"))
    await client.frame()
    assert asyncio.all_tasks() <= before


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate of its own and of a client that trusts it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    chain, secret = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(chain, secret)
    return server, ssl.create_default_context(cafile=str(chain))


async def sizes_of_frames(client: RawClient, count: int) -> list[int]:
    return [len((await client.frame())[1]) for _ in range(count)]


async def test_tls_carries_the_same_frames(harness: Harness, tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    harness.server.stop()
    server_tls, harness.client_tls = tls
    harness.start(server_tls)
    harness.answer = echo
    client, handler = await harness.connect(early=client_frame("early"))
    assert await client.frame() == (1, b"early")
    big = b"x" * 250_000
    await client.send(*(client_frame(f"{n}") for n in range(500)), client_frame(big))
    assert [await client.frame() for _ in range(501)] == [*((1, b"%d" % n) for n in range(500)), (1, big)]
    # Much more than the sockets hold: the answers wait, reading pauses, and nothing is lost.
    sizes, _ = await asyncio.gather(sizes_of_frames(client, 20), client.send(*(client_frame(big) for _ in range(20))))
    assert sizes == [len(big)] * 20
    assert handler.outbox.progress
    await client.send(client_frame(client_close(1000), CLOSE))
    assert await client.closing() == (1000, "")
    assert await handler.closed == (1000, "")


async def test_a_closed_connection_takes_no_messages_from_tornado(harness: Harness) -> None:
    client, handler = await harness.connect()
    loop = handler.frame_loop
    client.vanish()
    await handler.closed
    assert loop.is_closing()
    with pytest.raises(StreamClosedError):
        loop.write_ping(b"")


@pytest.mark.parametrize("harness", ["door", "short"], indirect=True)
async def test_a_closed_connection_is_forgotten_without_the_garbage_collector(harness: Harness) -> None:
    client, handler = await harness.connect()
    loop = weakref.ref(handler.frame_loop)
    gc.collect()
    gc.disable()
    try:
        client.vanish()
        await handler.closed
        harness.handlers.clear()
        harness.made.clear()
        del handler
        await (await harness.connect())[0].send(client_frame("a turn of the loop"))
        assert loop() is None
    finally:
        gc.enable()
