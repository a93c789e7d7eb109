"""What a store remembers of each dashboard's log, and how it judges a commit by that. Knows no SQL, no bytes, no merge rules.

The unit of a log is the **row**: the records of one commit. A ``Ledger`` says which rows there are, what each holds and which
operation keys they answer for, so that a commit touches no index on disk. Both built-in stores judge by the rules below.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tornado_rt.store.base import (
    VERDICT_COUNT,
    VERDICT_SECONDS,
    Contents,
    Duplicate,
    Logged,
    Record,
    Stale,
)

__all__ = ["Ledger", "Log", "Row", "behind", "judge", "missed"]


@dataclass(slots=True)
class Row:
    """The records of one commit, ``at`` the second it was made. Its numbered records have the seqs from ``first_seq`` on."""

    number: int
    first_seq: int
    at: float
    records: Sequence[Record]

    def logged(self) -> list[Logged]:
        """The records as they are read back."""
        seq = self.first_seq - 1
        log = []
        for record in self.records:
            if record.numbered:
                seq += 1
                log.append(Logged(seq, record.body, self.at))
            else:
                log.append(Logged(0, record.body, self.at))
        return log


@dataclass(slots=True)
class Ledger:
    """Where one dashboard's log stands.

    ``seq`` is the last one given, ``state_seq`` the snapshot's, ``cut_seq`` the last one whose row is gone. Of row ``i``,
    ``numbers[i]`` is its number in the store, ``lasts[i]`` the dashboard's seq after it, ``totals[i]`` how many operations
    there had been with it, ``times[i]`` when it was written. ``recent`` and ``older`` map operation keys to row numbers, in
    two generations, so that old ones go without being looked for; ``is_warm`` says that they know every key that counts,
    otherwise those of rows up to number ``forgotten`` are missing.
    """

    seq: int = 0
    state_seq: int = 0
    cut_seq: int = 0
    total: int = 0
    numbers: array[int] = field(default_factory=lambda: array("q"))
    lasts: array[int] = field(default_factory=lambda: array("q"))
    totals: array[int] = field(default_factory=lambda: array("q"))
    times: array[float] = field(default_factory=lambda: array("d"))
    recent: dict[str, int] = field(default_factory=dict)
    older: dict[str, int] = field(default_factory=dict)
    is_warm: bool = True
    forgotten: int = 0

    def append(self, number: int, numbered: int, operations: int, at: float) -> None:
        """Take in a row with ``numbered`` seqs; ``operations`` counts its keys, or its records where those have none."""
        self.seq += numbered
        self.total += operations
        self.numbers.append(number)
        self.lasts.append(self.seq)
        self.totals.append(self.total)
        self.times.append(at)

    def remember(self, number: int, keys: Iterable[str]) -> None:
        """Take in the keys that a row answers for."""
        recent = self.recent
        for key in keys:
            recent[key] = number
        if len(recent) >= VERDICT_COUNT:
            self.older = recent
            self.recent = {}

    def forget(self) -> None:
        """Let go of the keys, to save memory; whoever needs them reads the rows again, and calls ``recall``."""
        if self.numbers:
            self.recent = {}
            self.older = {}
            self.is_warm = False
            self.forgotten = self.numbers[-1]

    def recall(self, keys: dict[str, int], newest: int) -> None:
        """Take back what was forgotten: ``keys`` of all rows up to number ``newest``."""
        if not self.is_warm and newest >= self.forgotten:
            keys.update(self.older)
            self.older = keys
            self.is_warm = True

    def knows(self, keys: Sequence[str]) -> bool:
        """Whether any of these has been seen, however long ago."""
        return not (self.recent.keys().isdisjoint(keys) and self.older.keys().isdisjoint(keys))

    def find(self, key: str, now: float) -> int | None:
        """The number of the row that answers for ``key``, if that still counts (PROTOCOL section 5, 2)."""
        number = self.recent.get(key)
        if number is None:
            number = self.older.get(key)
            if number is None:
                return None
        index = bisect_left(self.numbers, number)
        is_kept = index < len(self.numbers) and self.numbers[index] == number
        return number if is_kept and self._counts(index, now) else None

    def _counts(self, index: int, now: float) -> bool:
        """Whether row ``index`` holds one of the newest operations, and is young."""
        return self.total - self.totals[index] < VERDICT_COUNT and self.times[index] >= now - VERDICT_SECONDS

    def start_of(self, since: int) -> int | None:
        """The index of the first row that may hold what came after ``since``; None where the log does not reach back so far."""
        if not self.cut_seq <= since <= self.seq:
            return None
        return bisect_left(self.lasts, since) if since else 0

    def spare(self, state_seq: int, now: float) -> int:
        """How many of the oldest rows a snapshot at ``state_seq`` covers and no verdict needs."""
        count = 0
        while count < len(self.numbers) and self.lasts[count] <= state_seq and not self._counts(count, now):
            count += 1
        return count

    def cut(self, count: int) -> None:
        """Drop the oldest ``count`` rows. A reader in another thread slices ``numbers`` at an index that it found in ``lasts``:
        ``lasts`` goes first, so that a second look tells it whether the two belonged together."""
        if count:
            self.cut_seq = self.lasts[count - 1]
            del self.lasts[:count], self.totals[:count], self.times[:count], self.numbers[:count]


class Log(Protocol):
    """A dashboard's log as ``judge`` wants to see it."""

    @property
    def ledger(self) -> Ledger: ...

    def contents(self) -> Contents:
        """All that is kept."""

    def rows(self, start: int) -> list[Row]:
        """The rows from index ``start`` on."""

    def logged(self, start: int) -> list[Logged]:
        """Their records, as they are read back."""

    def row(self, number: int) -> Row:
        """One row, by its number."""


def behind(log: list[Logged], since: int) -> list[Logged]:
    """The records that came after the one numbered ``since``."""
    for index, logged in enumerate(log):
        if logged.seq > since:
            break
        if logged.seq == since > 0:
            return log[index + 1 :]
    return log


def missed(log: Log, epoch: str, since: int) -> Contents:
    """What came after ``since``, or all that is kept where the log does not reach back so far."""
    start = log.ledger.start_of(since)
    if start is None:
        return log.contents()
    return Contents(epoch, log.ledger.seq, log=behind(log.logged(start), since))


def judge(
    log: Log, epoch: str, seen: int, reads: Mapping[str, int], records: Sequence[Record], now: float
) -> Contents | Stale | Duplicate | None:
    """Why these records must not be appended, or else what the caller has missed: None if nothing.

    A document that was written after ``seen`` to a version above the one that was read makes the decisions stale. Who does not
    say what was read (where nobody else writes, there is no need to) may have read anything.
    """
    ledger = log.ledger
    contents = missed(log, epoch, seen) if seen < ledger.seq else None
    verdicts: dict[int, Logged] = {}
    for index, record in enumerate(records):
        for key in record.keys:
            number = ledger.find(key, now)
            if number is not None:
                verdicts[index] = _verdict(log.row(number), key)
    if verdicts:
        return Duplicate(verdicts, contents)
    if contents is not None and records and _is_stale(log, seen, reads):
        return Stale(contents)
    return contents


def _verdict(row: Row, key: str) -> Logged:
    return next(logged for record, logged in zip(row.records, row.logged(), strict=True) if key in record.keys)


def _is_stale(log: Log, seen: int, reads: Mapping[str, int]) -> bool:
    start = log.ledger.start_of(seen)
    if start is None or not reads:
        return True  # where the log is cut, nobody can say which documents changed
    for row in log.rows(start):
        seq = row.first_seq
        for record in row.records:
            if record.numbered:
                if seq > seen and any(seq > reads.get(name, seq) for name in record.writes):
                    return True
                seq += 1
    return False
