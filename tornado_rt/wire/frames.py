"""RFC 6455 framing without a socket: bytes in, messages out. Knows opcodes, masks and UTF-8, not JSON, sessions or time.

Almost every frame that a client sends is one whole, masked text message shorter than 64 KiB, so ``FrameReader.feed`` takes that
frame in a few lines. Whatever else may come (fragments, control frames, a frame cut by the end of a read, nonsense) goes
through ``_take_frame``, which says what the RFC says.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import Final, NamedTuple

from tornado.util import _websocket_mask as mask_bytes

from tornado_rt.errors import Close

__all__ = ["BINARY", "CLOSE", "PING", "PONG", "TEXT", "Event", "Frame", "FrameReader", "encode_close", "encode_frame"]

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
_MAX_CONTROL_BYTES: Final = 125
_WHOLE_TEXT: Final = 0x80 | TEXT
_MAX_EVENTS: Final = 256
# A message in thousands of tiny fragments costs us per fragment and shows up in no rate limit, which counts messages.
_CRUMB_BYTES: Final = 16
_MAX_CRUMBS: Final = 1_024


class Frame(NamedTuple):
    """Anything that is not a text message: a binary message, or a control frame."""

    opcode: int
    body: bytes


Event = bytes | Frame
"""A text message, as the UTF-8 it came in (checked), or a :class:`Frame`."""


class _Violation(Exception):
    """The peer broke the protocol; the connection ends with ``close``."""

    def __init__(self, close: Close) -> None:
        super().__init__(close.reason)
        self.close = close


def encode_frame(body: bytes, opcode: int = TEXT) -> bytes:
    """One whole, unmasked frame (RFC 6455 section 5.2), the same bytes for every receiver."""
    size = len(body)
    if size < 126:
        return bytes((0x80 | opcode, size)) + body
    if size < 0x10000:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + body
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + body


def encode_close(code: int | None, reason: str = "") -> bytes:
    """A close frame; a reason too long for a control frame is cut at a character (RFC 6455 sections 5.5 and 7.1.6)."""
    if code is None:
        return encode_frame(b"", CLOSE)
    text = reason.encode()[: _MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return encode_frame(code.to_bytes(2, "big") + text, CLOSE)


def _may_be_sent(code: int) -> bool:
    """Whether a peer may put this code into a close frame (RFC 6455 section 7.4 and IANA's registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


class FrameReader:
    """Turns a client's byte stream, however it was cut up, into events.

    ``fault`` is set once the peer has broken the protocol, with the close code that tells it so; nothing is read after that,
    nor after a close frame. ``more`` says that the last ``feed`` stopped at its limit and that ``feed(b"")`` goes on.
    """

    __slots__ = (
        "_accept_binary",
        "_crumbs",
        "_ended",
        "_final",
        "_left",
        "_mask",
        "_max_message_bytes",
        "_message",
        "_opcode",
        "_rest",
        "_tail",
        "fault",
        "more",
    )

    def __init__(self, max_message_bytes: int, accept_binary: bool = False) -> None:
        self._max_message_bytes = max_message_bytes
        self._accept_binary = accept_binary
        self.fault: Close | None = None
        self.more = False
        self._ended = False
        self._rest = b""  # bytes not looked at yet, or too few to be a header
        # The message under way, if it did not come as one whole frame.
        self._opcode = 0  # TEXT or BINARY; 0: there is none
        self._message: bytearray | None = None
        self._tail = b""  # the beginning of a character whose end is still to come
        self._crumbs = 0
        # The data frame under way, if the last read ended inside it.
        self._final = False
        self._left = 0  # payload bytes still to come
        self._mask = b""  # turned so that it fits the next of them

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, in order, at most 256 of them: other connections want their turn too."""
        events: list[Event] = []
        if self._ended:
            return events
        if self._rest:
            data = self._rest + data
        try:
            self._rest = data[self._take_frames(data, events) :]
        except UnicodeDecodeError:
            self.fault = Close.INVALID_TEXT
        except _Violation as violation:
            self.fault = violation.close
        if self.fault is not None:
            self._ended = True
        self.more = len(events) >= _MAX_EVENTS and not self._ended
        return events

    def _take_frames(self, data: bytes, events: list[Event]) -> int:
        """Take frame after frame; return where the first begins that is not complete, or not to be taken yet."""
        end, max_bytes = len(data), self._max_message_bytes
        at = self._take_payload(data, 0, events) if self._left else 0
        while len(events) < _MAX_EVENTS:
            body_at = at + 6
            if body_at <= end and data[at] == _WHOLE_TEXT and not self._opcode:
                size = data[at + 1] - 0x80
                if size == 126:
                    body_at += 2
                    size = data[at + 2] << 8 | data[at + 3]
                # Below 0 it is not masked, 127 is the 64-bit form: neither is the common case.
                if 0 <= size != 127 and (stop := body_at + size) <= end and size <= max_bytes:
                    text = mask_bytes(data[body_at - 4 : body_at], data[body_at:stop])
                    if not text.isascii():
                        utf_8_decode(text, "strict", True)
                    events.append(text)
                    at = stop
                    continue
            stop = self._take_frame(data, at, events)
            if stop < 0:
                break
            at = stop
        return at

    def _take_frame(self, data: bytes, at: int, events: list[Event]) -> int:
        """Take the frame that begins at ``at``; return where the next one begins, or -1 if more bytes are needed first."""
        end = len(data)
        if end - at < 2:
            return -1
        first, size = data[at], data[at + 1] & 0x7F
        opcode = first & 0x0F
        # RSV bits without an extension, unknown opcodes (5.2), and a client that does not mask (5.1).
        if first & 0x70 or opcode not in _OPCODES or data[at + 1] < 0x80:
            raise _Violation(Close.PROTOCOL_ERROR)
        if opcode >= CLOSE:
            return self._take_control(data, at, opcode, size, events)
        # A continuation needs something to continue; a new message must wait for the end of the last (5.4).
        if (opcode == CONTINUATION) == (self._opcode == 0):
            raise _Violation(Close.PROTOCOL_ERROR)
        if opcode == BINARY and not self._accept_binary:
            raise _Violation(Close.UNSUPPORTED_DATA)
        mask_at = at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            mask_at += width
            if mask_at > end:
                return -1
            size = int.from_bytes(data[at + 2 : mask_at], "big")
            if size >> 63:
                raise _Violation(Close.PROTOCOL_ERROR)
        self._check_size(size, first < 0x80)
        if mask_at + 4 > end:
            return -1
        if opcode != CONTINUATION:
            self._opcode = opcode
            self._message = bytearray()
        self._final = first >= 0x80
        self._left = size
        self._mask = data[mask_at : mask_at + 4]
        return self._take_payload(data, mask_at + 4, events)

    def _check_size(self, size: int, is_fragment: bool) -> None:
        """Refuse a frame by its header, before any of its payload is kept."""
        if size + len(self._message or b"") > self._max_message_bytes:
            raise _Violation(Close.MESSAGE_TOO_BIG)
        if is_fragment and size < _CRUMB_BYTES:
            self._crumbs += 1
            if self._crumbs > _MAX_CRUMBS:
                raise _Violation(Close.RATE_LIMIT_EXCEEDED)

    def _take_payload(self, data: bytes, at: int, events: list[Event]) -> int:
        """Take what there is of the current data frame's payload, checking its UTF-8 as it comes; return where it ends."""
        assert self._message is not None
        chunk = data[at : at + self._left]
        stop = at + len(chunk)
        self._left -= len(chunk)
        chunk = mask_bytes(self._mask, chunk)
        if self._left:
            turn = len(chunk) & 3
            self._mask = self._mask[turn:] + self._mask[:turn]
        is_whole = self._final and not self._left
        if self._opcode == TEXT:
            pending = self._tail + chunk
            _, used = utf_8_decode(pending, "strict", is_whole)
            self._tail = pending[used:]
        self._message += chunk
        if is_whole:
            body = bytes(self._message)
            events.append(body if self._opcode == TEXT else Frame(BINARY, body))
            self._opcode, self._message, self._crumbs = 0, None, 0
        return stop

    def _take_control(self, data: bytes, at: int, opcode: int, size: int, events: list[Event]) -> int:
        """Take a control frame: whole or not at all, never fragmented, at most 125 bytes (RFC 6455 section 5.5)."""
        if data[at] < 0x80 or size > _MAX_CONTROL_BYTES:
            raise _Violation(Close.PROTOCOL_ERROR)
        body_at = at + 6
        stop = body_at + size
        if stop > len(data):
            return -1
        body = mask_bytes(data[at + 2 : body_at], data[body_at:stop])
        if opcode == CLOSE:
            if len(body) == 1 or (body and not _may_be_sent(int.from_bytes(body[:2], "big"))):
                raise _Violation(Close.PROTOCOL_ERROR)
            utf_8_decode(body[2:], "strict", True)
            self._ended = True
            stop = len(data)  # what follows a close frame is nobody's
        events.append(Frame(opcode, body))
        return stop
