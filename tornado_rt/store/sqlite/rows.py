"""A commit's records as the bytes of one journal row, and back. Knows no SQL.

A row is text lines: first a head for each record, then a body for each. A head is a sign (``+`` has a seq, ``-`` has none), the
number of its operation keys, and the keys and the names of the documents it writes, set off by unit separators.
"""

from __future__ import annotations

from collections.abc import Sequence

from tornado_rt.errors import InvalidMessage
from tornado_rt.store.base import Record

__all__ = ["decode", "encode"]

_UNIT = "\x1f"


def encode(records: Sequence[Record]) -> bytes:
    """Raises ``InvalidMessage`` for what would not be read back as it was: line breaks, and text that UTF-8 cannot hold."""
    heads = []
    names = 0
    for record in records:
        keys = record.keys
        writes = record.writes
        names += len(keys) + len(writes)
        heads.append(_UNIT.join((f"+{len(keys)}" if record.numbered else f"-{len(keys)}", *keys, *writes)))
    head = "\n".join(heads)
    try:
        lines = [head.encode()]
    except UnicodeEncodeError as error:
        raise InvalidMessage("An operation's id or document name is not valid text.") from error
    lines += [record.body for record in records]
    row = b"\n".join(lines)
    if head.count(_UNIT) != names or row.count(b"\n") != 2 * len(records) - 1:
        raise InvalidMessage("An operation's id, document name or text holds a control character.")
    return row


def decode(row: bytes) -> list[Record]:
    """The records of a row that ``encode`` made."""
    lines = row.split(b"\n")
    half = len(lines) // 2
    records = []
    for head, body in zip(lines[:half], lines[half:], strict=True):
        sign, *names = head.decode().split(_UNIT)
        count = int(sign[1:])
        records.append(Record(body, sign[0] == "+", tuple(names[:count]), tuple(names[count:])))
    return records
