"""The frame reader is told the same bytes in every possible cut and must always say the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.util import _websocket_mask

from tornado_rt.errors import Close
from tornado_rt.wire.frames import BINARY, CLOSE, PING, PONG, TEXT, Event, Frame, FrameReader, encode_close, encode_frame

LIMIT = 70_000
TEXTS = st.text("a~ä\u20ac\U0001f600", max_size=200)
MASKS = st.binary(min_size=4, max_size=4)


def masked(body: bytes, opcode: int = TEXT, *, fin: bool = True, mask: bytes = b"\x37\xfa\x21\x3d") -> bytes:
    head = bytearray(encode_frame(body, opcode)[: -len(body) or None])
    head[0] = head[0] if fin else head[0] & 0x7F
    head[1] |= 0x80
    return bytes(head) + mask + _websocket_mask(mask, body)


def read(pieces: list[bytes], *, limit: int = LIMIT) -> tuple[list[Event], Close | None]:
    """All events of a stream that arrives in these pieces, and how it failed."""
    reader = FrameReader(limit, accept_binary=True)
    events: list[Event] = []
    for piece in pieces:
        events += reader.feed(piece)
        while reader.more:
            events += reader.feed(b"")
    return events, reader.fault


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    return [stream[a:b] for a, b in pairwise([0, *sorted(place % (len(stream) + 1) for place in places), len(stream)])]


@st.composite
def conversations(draw: st.DrawFn) -> tuple[bytes, list[Event]]:
    """A legal stream of messages, in fragments with control frames between them, and the events that it means."""
    stream, events = b"", []
    control = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))
    for _ in range(draw(st.integers(0, 5))):
        text = draw(st.booleans())
        body = draw(TEXTS).encode() * draw(st.sampled_from([1, 1, 1, 3, 400])) if text else draw(st.binary())
        body = body[:LIMIT] if body[:LIMIT].isascii() else body[: LIMIT // 4].decode(errors="ignore").encode()
        pieces = cut(body, draw(st.lists(st.integers(0, 100_000), max_size=4)))
        for i, piece in enumerate(pieces):
            opcode = 0 if i else TEXT if text else BINARY
            stream += masked(piece, opcode, fin=i == len(pieces) - 1, mask=draw(MASKS))
            if i < len(pieces) - 1 and draw(st.booleans()):
                opcode, payload = draw(control)
                stream += masked(payload, opcode, mask=draw(MASKS))
                events.append(Frame(opcode, payload))
        events.append(body if text else Frame(BINARY, body))
    return stream, events


@given(conversations(), st.lists(st.integers(0, 100_000), max_size=12))
def test_any_cutting_of_a_legal_stream_gives_its_messages(conversation: tuple[bytes, list[Event]], places: list[int]) -> None:
    stream, events = conversation
    assert read(cut(stream, places)) == (events, None)


@given(conversations(), st.integers(0, 10_000), st.integers(1, 255), st.lists(st.integers(0, 100_000), max_size=12))
def test_a_damaged_stream_fails_the_same_way_however_it_is_cut(
    conversation: tuple[bytes, list[Event]], place: int, damage: int, places: list[int]
) -> None:
    stream = bytearray(conversation[0] or masked(b""))
    stream[place % len(stream)] ^= damage
    assert read(cut(bytes(stream), places)) == read([bytes(stream)])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=8))
def test_noise_is_read_the_same_way_however_it_is_cut(noise: bytes, places: list[int]) -> None:
    assert read(cut(noise, places)) == read([noise])


@given(TEXTS, MASKS)
def test_a_stream_that_comes_byte_by_byte_is_understood(text: str, mask: bytes) -> None:
    stream = masked(text.encode(), mask=mask)
    assert read([bytes((byte,)) for byte in stream]) == ([text.encode()], None)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, LIMIT])
def test_every_form_of_the_length_is_read(size: int) -> None:
    assert read([masked(b"x" * size)]) == ([b"x" * size], None)


@pytest.mark.parametrize(
    ("frame", "close"),
    [
        pytest.param(encode_frame(b""), Close.PROTOCOL_ERROR, id="not masked, and nothing to mask"),
        pytest.param(encode_frame(b"hello"), Close.PROTOCOL_ERROR, id="not masked"),
        pytest.param(bytes((0xC1, 0x80)), Close.PROTOCOL_ERROR, id="RSV1 without an extension"),
        pytest.param(bytes((0xA1, 0x80)), Close.PROTOCOL_ERROR, id="RSV2"),
        pytest.param(bytes((0x91, 0x80)), Close.PROTOCOL_ERROR, id="RSV3"),
        *(pytest.param(bytes((0x80 | opcode, 0x80)), Close.PROTOCOL_ERROR, id=f"opcode {opcode}") for opcode in (3, 7, 11, 15)),
        pytest.param(masked(b"", 0), Close.PROTOCOL_ERROR, id="nothing to continue"),
        pytest.param(masked(b"a", fin=False) + masked(b"b"), Close.PROTOCOL_ERROR, id="a message inside a message"),
        pytest.param(masked(b"", PING, fin=False), Close.PROTOCOL_ERROR, id="a ping in fragments"),
        pytest.param(bytes((0x89, 0xFE, 0, 126)), Close.PROTOCOL_ERROR, id="a ping of 126 bytes"),
        pytest.param(bytes((0x81, 0xFF, 0x80)) + bytes(7), Close.PROTOCOL_ERROR, id="the length's highest bit"),
        pytest.param(masked(b"x", CLOSE), Close.PROTOCOL_ERROR, id="half a close code"),
        *(
            pytest.param(masked(encode_close(code)[2:], CLOSE), Close.PROTOCOL_ERROR, id=f"close code {code}")
            for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
        ),
        pytest.param(masked(b"\x03\xe8\xff", CLOSE), Close.INVALID_TEXT, id="a reason that is no UTF-8"),
        pytest.param(masked(b"\xff"), Close.INVALID_TEXT, id="a byte that UTF-8 does not have"),
        pytest.param(masked(b"\xed\xa0\x80"), Close.INVALID_TEXT, id="a surrogate"),
        pytest.param(masked(b"\xc3"), Close.INVALID_TEXT, id="half a character"),
        pytest.param(masked(b"\xc3", fin=False) + masked(b"", 0), Close.INVALID_TEXT, id="half a character, in fragments"),
    ],
)
def test_what_breaks_the_protocol_is_a_fault(frame: bytes, close: Close) -> None:
    assert read([masked(b"before"), frame, masked(b"after")]) == ([b"before"], close)


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999])
def test_close_codes_of_the_registry_are_taken(code: int) -> None:
    assert read([masked(encode_close(code, "bye")[2:], CLOSE)]) == ([Frame(CLOSE, code.to_bytes(2, "big") + b"bye")], None)


def test_nothing_is_read_after_a_close_frame() -> None:
    assert read([masked(b"", CLOSE) + masked(b"late"), b"\xff\xff"]) == ([Frame(CLOSE, b"")], None)


def test_invalid_text_is_noticed_before_its_frame_is_complete() -> None:
    whole = masked("κόσμε".encode() + b"\xf4\x90\x80\x80" + b"x" * 1000)
    cut_at = 6 + 2 + len("κόσμε".encode()) + 2  # the second byte decides: beyond U+10FFFF
    assert read([whole[:cut_at]]) == ([], Close.INVALID_TEXT)
    assert read([whole[: cut_at - 1]]) == ([], None)


def test_a_message_too_big_is_refused_by_its_header() -> None:
    header = bytes((0x81, 0xFF)) + (LIMIT + 1).to_bytes(8, "big")
    assert read([header]) == ([], Close.MESSAGE_TOO_BIG)


def test_fragments_count_together() -> None:
    half = b"x" * (LIMIT // 2)
    fits = masked(half, fin=False) + masked(half, 0)
    assert read([fits]) == ([half + half], None)
    header_of_too_much = bytes((0x80, 0xFE)) + (LIMIT // 2 + 1).to_bytes(2, "big")
    assert read([masked(half, fin=False), header_of_too_much]) == ([], Close.MESSAGE_TOO_BIG)


def test_crumbs_without_end_are_a_flood() -> None:
    crumbs = masked(b"", fin=False) + masked(b"x", 0, fin=False) * 1_022
    assert read([crumbs + masked(b"", 0, fin=False), masked(b"", 0)]) == ([b"x" * 1_022], None)
    assert read([crumbs + masked(b"", 0, fin=False) * 2]) == ([], Close.RATE_LIMIT_EXCEEDED)


def test_binary_is_refused_unless_it_was_asked_for() -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(masked(b"\x00", BINARY)) == []
    assert reader.fault is Close.UNSUPPORTED_DATA


def test_one_read_gives_at_most_256_events_at_a_time() -> None:
    reader = FrameReader(LIMIT)
    assert len(reader.feed(masked(b"x") * 600)) == 256
    assert reader.more
    assert len(reader.feed(b"")) == 256
    assert reader.more
    assert len(reader.feed(b"")) == 88
    assert not reader.more


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_our_own_frames_are_whole_and_unmasked(size: int) -> None:
    frame = encode_frame(b"x" * size)
    head = {0: 2, 125: 2, 126: 4, 65_535: 4, 65_536: 10}[size]
    assert len(frame) == head + size
    assert frame[0] == 0x81
    assert frame[1] == {2: size, 4: 126, 10: 127}[head]


def test_a_long_reason_is_cut_between_characters() -> None:
    frame = encode_close(1000, "ä" * 100)
    assert frame[1] <= 125
    assert frame[4:].decode() == "ä" * 61
