"""A document: fields with a value each, and who last set each of them when. Knows no dashboard and no conflicts.

A document that has been adopted into a dashboard is never changed again: drafts work on copies. So whatever was encoded from it
stays true, and is kept in ``picture``.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from tornado_rt.protocol.codec import encode_json, quote

__all__ = ["MISSING", "Author", "Document", "Stamp", "json_size", "same"]

MISSING: Final = object()  # no value, where None is one


class Author:
    """A user at a device; ``user_json`` and ``device_json`` are the same as JSON, as they are written with every operation."""

    __slots__ = ("device", "device_json", "user", "user_json")

    def __init__(self, user: str, device: str) -> None:
        self.user = user
        self.device = device
        self.user_json = quote(user)
        self.device_json = quote(device)

    def is_same(self, other: Author) -> bool:
        return self is other or (self.user == other.user and self.device == other.device)


class Stamp:
    """When and by whom: ``seq`` in the dashboard's log, ``at`` as ISO 8601 in UTC.

    All that one operation touches carries one and the same stamp; so a draft's provisional seqs are moved in one place each.
    """

    __slots__ = ("at", "author", "seq")

    def __init__(self, seq: int, author: Author, at: str) -> None:
        self.seq = seq
        self.author = author
        self.at = at


class Document:
    """A widget or a layout.

    ``stamps`` has an entry for each field that is there and for each whose tombstone is kept. ``died`` is the tombstone of the
    document itself: its last deletion, kept through a second life. ``size`` is an upper bound of the bytes of the fields' JSON,
    and the very number where ``is_exact``.
    ``history`` holds a layout's versions, the current one last, as ``(stamp, fields)``; the list itself is never changed.
    """

    __slots__ = (
        "alive",
        "died",
        "fields",
        "history",
        "is_exact",
        "kind",
        "name",
        "picture",
        "size",
        "stamp",
        "stamps",
        "target",
    )

    def __init__(self, kind: Literal["widget", "layout"], target: str, stamp: Stamp) -> None:
        self.kind = kind
        self.target = target
        self.name = f"{kind}:{target}"
        self.stamp = stamp
        self.alive = False
        self.died: Stamp | None = None
        self.fields: dict[str, Any] = {}
        self.stamps: dict[str, Stamp] = {}
        self.history: list[tuple[Stamp, dict[str, Any]]] = []
        self.size = 2
        self.is_exact = True
        self.picture: bytes | None = None

    def copy(self) -> Document:
        twin = Document.__new__(Document)
        twin.kind = self.kind
        twin.target = self.target
        twin.name = self.name
        twin.stamp = self.stamp
        twin.alive = self.alive
        twin.died = self.died
        twin.fields = self.fields.copy()
        twin.stamps = self.stamps.copy()
        twin.history = self.history
        twin.size = self.size
        twin.is_exact = self.is_exact
        twin.picture = None
        return twin

    def weigh(self) -> int:
        """The exact size in bytes of the fields' JSON."""
        if not self.is_exact:
            self.size = json_size(self.fields)
            self.is_exact = True
        return self.size


def json_size(value: Any) -> int:
    """Bytes of the compact JSON of a value, UTF-8."""
    return len(encode_json(value))


def same(left: Any, right: Any) -> bool:
    """Are both the same JSON? 1 is 1.0, but ``true`` is not 1 (PROTOCOL section 4)."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
