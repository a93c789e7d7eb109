"""The operations that wait for a verdict, in their order, and the rules of when each may leave. Pure: time is handed in.

The rules are PROTOCOL section 8: operations on one document leave in their order; while one is to be repeated later ones wait;
what may have been applied is repeated unchanged under its id; from what was refused the fields that a later one has set
meanwhile are taken out, under a new id. So that this can always be done, nothing follows an operation that touches a whole
document, or several, onto that document before it has its verdict; nor one that travels by POST, which a socket may overtake.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from tornado_rt.client.edit import Fields, Key, Kind
from tornado_rt.client.operation import Operation, OperationState
from tornado_rt.client.outcomes import Result

__all__ = ["Journal", "Limits", "Outbox", "Pace", "grouped"]


class Journal(Protocol):
    """Where operations are kept until their verdict, so that they outlive the process."""

    def put(self, operation: Operation) -> None:
        """Keep it, in its order."""

    def drop(self, operation_id: str) -> None:
        """It needs no keeping any more."""

    def exchange(self, old_id: str, operation: Operation) -> None:
        """``operation`` stands in the place of the one that was kept under ``old_id``."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server said it takes: operations and bytes in one message, messages per second and at once (0: no limit)."""

    max_operations: float = 50
    max_message_bytes: float = 262_144
    rate_per_second: float = 0.0
    rate_burst: float = 0.0

    @classmethod
    def from_wire(cls, limits: dict[str, Any]) -> Limits:
        def number(name: str, default: float, unlimited: float) -> float:
            value = limits.get(name, default)
            return value or unlimited if isinstance(value, int | float) else default

        return cls(
            number("maxOperations", 50, math.inf),
            number("maxMessageBytes", 262_144, math.inf),
            number("rateLimit", 0.0, 0.0),
            number("rateBurst", 0.0, 0.0),
        )


class Pace:
    """A token bucket a little narrower than the server's, so that a queue that is worked off is not refused for its speed."""

    def __init__(self, limits: Limits) -> None:
        self.per_second = limits.rate_per_second * 0.9
        self.most = max(1.0, limits.rate_burst * 0.9)
        self.tokens = self.most
        self.at: float | None = None

    def wait_seconds(self, count: int, now: float) -> float:
        """Until ``count`` operations may leave; 0 means now. More than the bucket holds may leave when it is full."""
        if not self.per_second:
            return 0.0
        if self.at is not None:
            self.tokens = min(self.most, self.tokens + (now - self.at) * self.per_second)
        self.at = now
        lacking = min(count, self.most) - self.tokens
        return 0.0 if lacking <= 1e-9 else lacking / self.per_second

    def take(self, count: int) -> None:
        if self.per_second:
            self.tokens -= count


class Outbox:
    """The operations in the order they were made in. Those confirmed whose change has not been seen yet stay among them as
    echoes, so that what is shown does not flicker.

    ``_by_key`` holds the operations on each document, ``_travelling`` those on their way in the order they left in, ``_held``
    those that wait for a time.
    """

    def __init__(self, journal: Journal, new_id: Callable[[], str]) -> None:
        self.journal = journal
        self.new_id = new_id
        self._all: dict[Operation, None] = {}
        self._by_key: dict[Key, dict[Operation, None]] = {}
        self._travelling: dict[Operation, None] = {}
        self._held: dict[Operation, None] = {}
        self._echoes: dict[Operation, None] = {}

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._all)

    @property
    def unsettled(self) -> list[Operation]:
        return [operation for operation in self._all if operation not in self._echoes]

    @property
    def unsettled_count(self) -> int:
        return len(self._all) - len(self._echoes)

    @property
    def travelling_count(self) -> int:
        return len(self._travelling)

    def add(self, operation: Operation) -> None:
        self._all[operation] = None
        for key in operation.keys:
            self._by_key.setdefault(key, {})[operation] = None

    def hold(self, operation: Operation, until: float) -> None:
        """Let it wait for later edits of the same fields."""
        operation.hold_until = until
        self._held[operation] = None

    def take_out(self, operation: Operation) -> None:
        """It is none of ours any more; the journal is not told."""
        for index in (self._all, self._travelling, self._held, self._echoes):
            index.pop(operation, None)
        for key in operation.keys:
            on_document = self._by_key.get(key, {})
            on_document.pop(operation, None)
            if not on_document:
                self._by_key.pop(key, None)

    def remove(self, operation: Operation) -> None:
        """It is done with."""
        self.take_out(operation)
        self.journal.drop(operation.id)

    def last_on(self, key: Key) -> Operation | None:
        """The newest operation on a document that has no verdict."""
        return next((each for each in reversed(self._by_key.get(key, {})) if each not in self._echoes), None)

    # What is shown

    def replay(self, kind: Kind, documents: dict[str, Fields], only: str | None = None) -> None:
        """Put the effect of every operation onto ``documents``, in their order; with ``only``, onto that document alone."""
        for operation in self._all if only is None else self._by_key.get((kind, only), ()):
            for edit in operation.edits:
                key = edit.key
                if key[0] != kind or key in operation.lost or (only is not None and key[1] != only):
                    continue
                rest = edit.without(operation.overtaken[key]) if key in operation.overtaken else edit
                if rest is None:
                    continue
                after = rest.apply(documents.get(key[1]))
                if after is None:
                    documents.pop(key[1], None)
                else:
                    documents[key[1]] = after

    # Who may leave

    def choose(self, now: float, room: int) -> list[Operation]:
        """The operations that may leave now, in their order, at most ``room``."""
        chosen: list[Operation] = []
        closed: set[Key] = set()  # documents onto which nothing may follow
        closed_to_new: set[Key] = set()  # documents onto which nothing may follow that has not left before
        for operation in self._all:
            if len(chosen) >= room:
                break
            if operation in self._echoes:
                continue
            keys = operation.keys
            if operation.carrier is None:
                is_held = max(operation.not_before, operation.hold_until) > now
                if is_held or keys & closed:
                    closed |= keys
                    continue
                is_behind = not operation.left and bool(keys & closed_to_new)
                if is_behind or (operation.refused and self._is_followed(operation)):
                    closed_to_new |= keys  # first hear what became of the later ones
                    continue
                chosen.append(operation)
            if operation.is_posted or not operation.is_plain:
                closed |= keys
        return chosen

    def _is_followed(self, operation: Operation) -> bool:
        """Did a later operation on the same document leave, so that it may have been applied?"""
        for key in operation.keys:
            on_document = list(self._by_key[key])
            later = on_document[on_document.index(operation) + 1 :]
            if any(each.left for each in later if each not in self._echoes):
                return True
        return False

    def freshen(self, operation: Operation) -> bool:
        """Take out of a refused operation what later ones have set; False where nothing is left of it."""
        if not (operation.refused and operation.overtaken and operation.is_plain):
            return True
        edit = operation.edits[0]
        rest = edit.without(operation.overtaken[edit.key])
        if rest is None:
            self.remove(operation)
            operation.settle(OperationState.CONFIRMED, Result(None, None, superseded=True))
            return False
        if rest != edit:
            old_id = operation.id
            operation.revise(rest, self.new_id())  # with another content it is another operation
            self.journal.exchange(old_id, operation)
        operation.overtaken.clear()
        return True

    # On the way

    def sent(self, operation: Operation, carrier: str, deadline: float, *, by_post: bool) -> None:
        """It travels now; what is not answered by ``deadline`` is repeated."""
        operation.state = OperationState.SENT
        operation.carrier = carrier
        operation.is_posted = by_post
        operation.left = True
        operation.refused = False
        operation.attempts += 1
        operation.deadline = deadline
        self._held.pop(operation, None)
        self._travelling[operation] = None

    def unanswered(self, operations: Iterable[Operation]) -> None:
        """No answer will come by this way: they are repeated, unchanged."""
        for operation in operations:
            if operation.carrier is not None:
                self._land(operation)
                operation.state = OperationState.PENDING

    def expire(self, now: float) -> list[Operation]:
        """Operations without an answer for too long, to be repeated."""
        late: list[Operation] = []
        for operation in self._travelling:
            if operation.deadline > now and not operation.is_posted:
                break  # the others left later
            if operation.deadline <= now:
                operation.is_resumed = True  # in a message with another id, so that the two answers are not mixed up
                late.append(operation)
        self.unanswered(late)
        return late

    def _land(self, operation: Operation) -> None:
        operation.carrier = None
        operation.is_posted = False
        self._travelling.pop(operation, None)

    # Verdicts

    def repeat(self, operation: Operation, not_before: float, *, may_have_been_applied: bool) -> None:
        """It was refused and is worth another try."""
        self._land(operation)
        operation.state = OperationState.PENDING
        operation.left = may_have_been_applied
        operation.refused = not may_have_been_applied
        operation.not_before = not_before
        self._held[operation] = None

    def confirm(self, operation: Operation, result: Result) -> None:
        """It was applied. It stays in the picture until ``forget_seen`` hears that its change is there."""
        operation.seq = result.seq
        for key in operation.keys:
            for earlier in self._by_key[key]:
                if earlier is operation:
                    break
                if earlier not in self._echoes:
                    _overtake(earlier, operation)
        self._land(operation)
        self._held.pop(operation, None)
        self._echoes[operation] = None
        self.journal.drop(operation.id)
        operation.settle(OperationState.CONFIRMED, result)

    def forget_seen(self, position: int, *, everything: bool = False) -> None:
        """Take out what is confirmed and stands at or below ``position``."""
        for operation in [each for each in self._echoes if everything or each.seq is None or each.seq <= position]:
            self.take_out(operation)

    # Time

    def due(self, now: float) -> float | None:
        """When something changes here by time alone; None if nothing does."""
        times = [max(each.not_before, each.hold_until) for each in self._held]
        first = next((each for each in self._travelling if not each.is_posted), None)  # who posts, waits himself
        if first is not None:
            times.append(first.deadline)
        return min((time for time in times if time > now), default=None)


def _overtake(earlier: Operation, later: Operation) -> None:
    for edit in later.edits:
        if edit.key not in earlier.keys:
            continue
        touched = edit.touches
        known = earlier.overtaken.get(edit.key, frozenset())
        earlier.overtaken[edit.key] = None if touched is None or known is None else known | touched


def grouped(operations: Iterable[Operation], limits: Limits) -> Iterator[list[Operation]]:
    """Consecutive operations that fit into one message: counted to the leaves, by bytes, resumed ones apart from new ones."""
    group: list[Operation] = []
    leaves = size = 0
    for operation in operations:
        more, bytes_ = len(operation.edits), operation.size_bytes + 1
        fits = leaves + more <= limits.max_operations and size + bytes_ <= limits.max_message_bytes - 1024
        is_alike = bool(group) and group[-1].is_resumed == operation.is_resumed
        if group and not (fits and is_alike and not operation.goes_alone and not group[-1].goes_alone):
            yield group
            group, leaves, size = [], 0, 0
        group.append(operation)
        leaves += more
        size += bytes_
    if group:
        yield group
