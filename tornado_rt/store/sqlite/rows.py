"""A commit's records as the bytes of one journal row, and back. Knows no SQL.

A row is lines of text: a head for each record, then a body for each. A head is a sign (``+`` has a seq, ``-`` has none), the
operation keys, a group separator, and the names of the documents written; between names stand unit separators.
"""

from __future__ import annotations

from collections.abc import Sequence

from tornado_rt.errors import InvalidMessage
from tornado_rt.store.base import Logged, Record

__all__ = ["decode", "encode", "keys", "logged"]

_UNIT = "\x1f"
_GROUP = "\x1d"


def encode(records: Sequence[Record]) -> bytes:
    """Raises ``InvalidMessage`` for what would not be read back as it was: separators, and text that UTF-8 cannot hold."""
    head = "\n".join(
        [f"{'+' if record.numbered else '-'}{_UNIT.join(record.keys)}{_GROUP}{_UNIT.join(record.writes)}" for record in records]
    )
    try:
        row = b"\n".join([head.encode(), *[record.body for record in records]])
    except UnicodeEncodeError as error:
        raise InvalidMessage("An operation's id or the name of what it changes is not valid text.") from error
    count = len(records)
    between = sum([max(len(record.keys) - 1, 0) + max(len(record.writes) - 1, 0) for record in records])
    if (row.count(b"\n"), head.count(_GROUP), head.count(_UNIT)) != (max(2 * count - 1, 0), count, between):
        raise InvalidMessage("An operation's id, text or the name of what it changes holds a separator.")
    return row


def decode(row: bytes) -> list[Record]:
    """The records of a row that ``encode`` made."""
    lines = row.split(b"\n")
    half = len(lines) // 2
    records = []
    for line, body in zip(lines[:half], lines[half:], strict=True):
        keys, writes = line[1:].decode().split(_GROUP)
        records.append(Record(body, line.startswith(b"+"), _names(keys), _names(writes)))
    return records


def logged(row: bytes, first_seq: int, at: float) -> list[Logged]:
    """The records of a row as they are read back: ``decode`` without what nobody asks for."""
    lines = row.split(b"\n")
    half = len(lines) // 2
    seq = first_seq - 1
    log = []
    for line, body in zip(lines[:half], lines[half:], strict=True):
        if line.startswith(b"+"):
            seq += 1
            log.append(Logged(seq, body, at))
        else:
            log.append(Logged(0, body, at))
    return log


def keys(row: bytes) -> list[str]:
    """The operation keys that a row answers for."""
    heads = row.split(b"\n")
    del heads[len(heads) // 2 :]
    return [key for head in heads for key in _names(head[1 : head.index(b"\x1d")].decode())]


def _names(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(_UNIT)) if joined else ()
