"""What passes between the loop and the threads: plain values, and the way back. Knows neither side."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from tornado_rt.errors import Unavailable
from tornado_rt.store.base import Outcome, Record

__all__ = ["Commit", "Forget", "Keys", "Snapshot", "Task", "post"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Commit:
    """Records on their way to the disk, already in the form of a ``row``; ``numbered`` of them get a seq, ``keys`` are theirs.

    The thread sets ``outcome``, and ``at``, the second of the commit; the loop sets ``future``.
    """

    dashboard_id: str
    seen: int
    reads: Mapping[str, int]
    records: Sequence[Record]
    keys: list[str]
    numbered: int
    operations: int
    row: bytes
    future: asyncio.Future[Outcome]
    outcome: Outcome | Unavailable | None = None
    at: float = 0.0


@dataclass(slots=True, eq=False)
class Snapshot:
    """A state to keep, if that can be done."""

    dashboard_id: str
    seq: int
    state: bytes
    future: asyncio.Future[None]


@dataclass(slots=True, eq=False)
class Keys:
    """A dashboard's operation keys, read again, of all rows up to number ``newest``."""

    dashboard_id: str
    keys: dict[str, int]
    newest: int


@dataclass(slots=True, eq=False)
class Forget:
    """Nobody works on a dashboard any more."""

    dashboard_id: str


def post(loop: asyncio.AbstractEventLoop, callback: Callable[[T], object], argument: T) -> None:
    """Have ``callback`` called on the loop, from a thread; or not at all, if the loop has ended without closing its store."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(callback, argument)


Task = list[Commit] | Snapshot | Keys | Forget | None  # None: write out what waits, then end
