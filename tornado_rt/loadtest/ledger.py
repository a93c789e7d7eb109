"""Sorts a history into operations and logs: what was asked, what was answered, and what each seq is known to hold.

Knows which event speaks of which operation and of which seq; leaves it to ``history`` to say what is wrong about that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from tornado_rt.loadtest.events import (
    Answered,
    Applied,
    Conflicted,
    Event,
    Finished,
    Invoked,
    Json,
    Refused,
    Saw,
    Synced,
)
from tornado_rt.loadtest.model import Edit, edits_of, text_of

__all__ = ["Entry", "Ledger", "Log", "Operation"]


@dataclass(slots=True)
class Operation:
    """What one user asked for under one id, and every answer to it, in the order in which they came.

    ``acked_before`` is the highest ``(epoch, seq, op)`` that any client had in hand when this was first sent; ``shown_before``
    the highest seq of ``epoch`` that anyone had been told of when it was last repeated, with ``answers_before`` answers.
    """

    dashboard: str
    user: str
    op: str
    device: str
    type: str
    payload: Json
    edits: list[Edit]
    text: str
    epoch: str
    invoked: int = 0
    answers: list[Answered] = field(default_factory=list)
    acked_before: tuple[str, int, str] | None = None
    shown_before: int = 0
    answers_before: int = 0

    @property
    def applied(self) -> list[Applied]:
        return [answer for answer in self.answers if isinstance(answer, Applied)]

    @property
    def conflicted(self) -> list[Conflicted]:
        return [answer for answer in self.answers if isinstance(answer, Conflicted)]

    @property
    def outcome(self) -> Literal["applied", "not applied", "maybe"]:
        """Whether it stands in the log, as far as its sender can know."""
        if any(isinstance(answer, Applied) for answer in self.answers):
            return "applied"
        if any(isinstance(answer, Conflicted) for answer in self.answers):
            return "not applied"
        final = [answer for answer in self.answers if isinstance(answer, Refused) and not answer.outcome_unknown]
        return "not applied" if len(final) >= self.invoked else "maybe"

    @property
    def says_less(self) -> bool:
        """Whether the server remembers more of it than the message says: "local" is the whole operation once again."""
        return self.payload.get("resolution") == "local"

    def base_of(self, edit: Edit, epoch: str) -> int | None:
        """The edit's ``baseVersion`` as it counts in ``epoch``: 0 where it was taken from another one."""
        if edit.base is None:
            return None
        return edit.base if (edit.epoch or self.epoch) in ("", epoch) else 0

    def __str__(self) -> str:
        return f"{self.type} {self.op!r} of {self.user!r}"


@dataclass(slots=True)
class Entry:
    """What one seq of a log holds. ``source`` says who told of it; ``op`` is the operation it stands for, where known.

    ``is_guess``: no verdict says so, and several operations have this content.
    """

    seq: int
    user: str
    type: str
    payload: Json
    edits: list[Edit]
    text: str
    source: str
    op: Operation | None = None
    is_guess: bool = False


@dataclass(slots=True)
class Log:
    """The log of a dashboard in one epoch, as far as anyone was told of it. ``split`` holds sentences about contradictions."""

    dashboard: str
    epoch: str
    entries: dict[int, Entry] = field(default_factory=dict)
    snapshots: list[Synced | Finished] = field(default_factory=list)
    shown: int = 0  # the highest seq that anyone was told of, and by what
    shown_by: str = ""
    split: list[str] = field(default_factory=list)

    def show(self, seq: int, what: str) -> None:
        if seq > self.shown:
            self.shown, self.shown_by = seq, what

    def add(self, seq: int, change: Json, source: str) -> None:
        """Someone was told that ``seq`` is ``change``."""
        entry = self.entries.get(seq)
        edits = edits_of(change["type"], change["payload"])
        text = text_of(edits)
        if entry is None:
            self.entries[seq] = Entry(seq, change["userId"], change["type"], change["payload"], edits, text, source)
        elif (entry.text, entry.user) != (text, change["userId"]):
            self.split.append(
                f"seq {seq} was told to {entry.source} as {entry.text} by {entry.user!r}, "
                f"but to {source} as {text} by {change['userId']!r}"
            )


class Ledger:
    """A history, sorted.

    ``finals`` holds the last ``Finished`` of each dashboard, ``clients`` each client's events in order, ``strays`` the answers
    to what was never asked.
    """

    def __init__(self, events: Iterable[Event]) -> None:
        self.operations: dict[tuple[str, str, str, str], Operation] = {}
        self.logs: dict[tuple[str, str], Log] = {}
        self.finals: dict[str, Finished] = {}
        self.clients: dict[tuple[str, str], list[Event]] = defaultdict(list)
        self.strays: list[Answered] = []
        self._asked: dict[tuple[str, str, str, str], Operation] = {}
        self._acked: dict[str, tuple[str, int, str]] = {}
        for event in events:
            self._take(event)

    def log(self, dashboard: str, epoch: str) -> Log:
        log = self.logs.get((dashboard, epoch))
        if log is None:
            log = self.logs[dashboard, epoch] = Log(dashboard, epoch)
        return log

    def _take(self, event: Event) -> None:
        self.clients[event.dashboard, event.client].append(event)
        match event:
            case Invoked():
                self._invoked(event)
            case Answered():
                self._answered(event)
            case Saw():
                log = self.log(event.dashboard, event.epoch)
                log.show(event.seq, f"a broadcast to {event.client}")
                if event.change is not None:
                    log.add(event.seq, event.change, event.client)
            case Synced():
                self._synced(event)
            case Finished():
                self.finals[event.dashboard] = event
                self.log(event.dashboard, event.epoch).snapshots.append(event)

    def _invoked(self, event: Invoked) -> None:
        edits = edits_of(event.type, event.payload)
        text = text_of(edits)
        key = (event.dashboard, event.user, event.op, f"{event.type} {text}")
        operation = self.operations.get(key)
        if operation is None:
            content = (event.device, event.type, event.payload, edits, text, event.epoch)
            operation = self.operations[key] = Operation(event.dashboard, event.user, event.op, *content)
            operation.acked_before = self._acked.get(event.dashboard)
        elif len(operation.answers) >= operation.invoked:  # else the first one's answer may still come
            operation.shown_before = self.log(event.dashboard, operation.epoch).shown
            operation.answers_before = len(operation.answers)
        operation.invoked += 1
        self._asked[event.dashboard, event.user, event.client, event.op] = operation

    def _answered(self, event: Answered) -> None:
        operation = self._asked.get((event.dashboard, event.user, event.client, event.op))
        if operation is None:
            self.strays.append(event)
            return
        operation.answers.append(event)
        if isinstance(event, Applied) and event.seq:
            before = self._acked.get(event.dashboard)
            if before is None or before[0] != event.epoch or event.seq > before[1]:
                self._acked[event.dashboard] = (event.epoch, event.seq, event.op)
            self.log(event.dashboard, event.epoch).show(event.seq, f"the ACK of {operation}")
        elif isinstance(event, Conflicted) and event.epoch:
            self.log(event.dashboard, event.epoch).show(event.current_version, f"the conflict of {operation}")

    def _synced(self, event: Synced) -> None:
        if event.mode == "view":
            return
        log = self.log(event.dashboard, event.epoch)
        log.show(event.seq, f"a {event.mode} to {event.client}")
        if event.mode == "snapshot":
            log.snapshots.append(event)
        for change in event.operations:
            log.add(change["seq"], change, event.client)
