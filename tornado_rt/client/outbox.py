"""The operations that wait for a verdict, in their order, and the rules of when each may leave. Pure: time is handed in.

The rules are PROTOCOL section 8: operations on one document leave in their order; while one is to be repeated later ones wait;
what may have been applied is repeated unchanged under its id; from what was refused the fields that a later one has set
meanwhile are taken out, under a new id. So that this can always be done, nothing follows an operation that touches a whole
document, or several, onto that document before it has its verdict; nor one that travels by POST, which a socket may overtake.
"""

from __future__ import annotations

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

    max_operations: int = 50
    max_message_bytes: int = 262_144
    rate_per_second: float = 0.0
    rate_burst: int = 0

    @classmethod
    def from_wire(cls, limits: dict[str, Any]) -> Limits:
        def number(name: str, default: int) -> int:
            value = limits.get(name, default)
            return value if isinstance(value, int) else default

        return cls(
            number("maxOperations", 50) or 1_000_000,
            number("maxMessageBytes", 262_144) or 1 << 40,
            number("rateLimit", 0),
            number("rateBurst", 0),
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
    """``operations`` are in the order they were made in, by id; those confirmed whose change has not been seen yet stay among
    them, so that what is shown does not flicker."""

    def __init__(self, journal: Journal, new_id: Callable[[], str]) -> None:
        self.operations: dict[str, Operation] = {}
        self.journal = journal
        self.new_id = new_id

    def add(self, operation: Operation) -> None:
        self.operations[operation.id] = operation

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations.values())

    @property
    def unsettled(self) -> list[Operation]:
        return [operation for operation in self if not operation.is_settled]

    # What is shown

    def replay(self, kind: Kind, documents: dict[str, Fields], only: str | None = None) -> None:
        """Put the effect of every operation onto ``documents``, in their order; with ``only``, onto that document alone."""
        for operation in self:
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
        for operation in self.unsettled:
            keys = operation.keys
            if operation.carrier is None:
                is_held = len(chosen) >= room or max(operation.not_before, operation.hold_until) > now
                if is_held or keys & closed or (not operation.left and keys & closed_to_new):
                    closed |= keys
                    continue
                if operation.refused and self._is_followed(operation):
                    closed_to_new |= keys  # first hear what became of the later ones
                    continue
                chosen.append(operation)
            if operation.is_posted or not operation.is_plain:
                closed |= keys
        return chosen

    def _later(self, operation: Operation) -> Iterator[Operation]:
        found = False
        for each in self:
            if found and each.keys & operation.keys:
                yield each
            found = found or each is operation

    def _is_followed(self, operation: Operation) -> bool:
        return any(each.left or each.carrier for each in self._later(operation) if not each.is_settled)

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
            operation.edits = (rest,)
            self._rename(operation)
        operation.overtaken.clear()
        return True

    def _rename(self, operation: Operation) -> None:
        """Give it another id, in its place: with another content it is another operation."""
        old_id, new_id = operation.id, self.new_id()
        self.operations = {(new_id if each is operation else name): each for name, each in self.operations.items()}
        operation.id = new_id
        self.journal.exchange(old_id, operation)

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

    def unanswered(self, operations: Iterable[Operation]) -> None:
        """No answer will come by this way: they are repeated, unchanged."""
        for operation in operations:
            if operation.carrier is not None:
                operation.carrier = None
                operation.is_posted = False
                operation.state = OperationState.PENDING

    def expire(self, now: float) -> list[Operation]:
        """Operations without an answer for too long, to be repeated."""
        late = [each for each in self if each.carrier is not None and each.deadline <= now]
        self.unanswered(late)
        return late

    def travelling(self) -> int:
        return sum(1 for operation in self if operation.carrier is not None)

    # Verdicts

    def repeat(self, operation: Operation, not_before: float, *, may_have_been_applied: bool) -> None:
        """It was refused and is worth another try."""
        operation.state = OperationState.PENDING
        operation.carrier = None
        operation.is_posted = False
        operation.left = may_have_been_applied
        operation.refused = not may_have_been_applied
        operation.not_before = not_before

    def confirm(self, operation: Operation, result: Result) -> None:
        """It was applied. It stays in the picture until ``forget_seen`` hears that its change is there."""
        operation.seq = result.seq
        for earlier in self:
            if earlier is operation:
                break
            if not earlier.is_settled and earlier.keys & operation.keys:
                _overtake(earlier, operation)
        self.journal.drop(operation.id)
        operation.settle(OperationState.CONFIRMED, result)

    def forget_seen(self, position: int, *, everything: bool = False) -> None:
        """Take out what is confirmed and stands at or below ``position``."""
        seen = [
            each
            for each in self
            if each.state is OperationState.CONFIRMED and (everything or each.seq is None or each.seq <= position)
        ]
        for operation in seen:
            self.remove(operation)

    def remove(self, operation: Operation) -> None:
        if self.operations.get(operation.id) is operation:
            del self.operations[operation.id]
            self.journal.drop(operation.id)

    # Time

    def due(self, now: float) -> float | None:
        """When something changes here by time alone; None if nothing does."""
        times: list[float] = []
        for operation in self.unsettled:
            if operation.is_posted:
                continue  # whoever posts it waits for the answer
            elif operation.carrier is not None:
                times.append(operation.deadline)
            else:
                wait = max(operation.not_before, operation.hold_until)
                if wait > now:
                    times.append(wait)
        return min(times, default=None)


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
