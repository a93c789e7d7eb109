"""Reads of one dashboard from the file, for the reader and for the writer. Knows the tables; must not write."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tornado_rt.store.base import Contents, Logged
from tornado_rt.store.ledger import Ledger, Row, behind
from tornado_rt.store.sqlite.rows import decode, keys, logged

__all__ = ["DiskLog", "Index", "Opened", "open_at", "scan"]

_COLUMNS = "SELECT n, first_seq, at, entries FROM journal"

_Entry = tuple[int, int, float, bytes]  # of these columns


class Index:
    """Which rows are whose: a ledger for each dashboard that has any, and the number of the newest row.

    The writer's thread changes it, after each commit; other threads may read it.
    """

    def __init__(self) -> None:
        self.ledgers: dict[str, Ledger] = {}
        self.newest = 0
        self.rows = 0


def scan(connection: sqlite3.Connection) -> Index:
    """The index of a file, from the journal's short columns."""
    index = Index()
    ledgers = index.ledgers
    for dashboard_id, seq in connection.execute("SELECT dashboard, seq FROM snapshots"):
        ledgers[dashboard_id] = Ledger(seq=seq, state_seq=seq, cut_seq=seq)
    columns = "SELECT n, dashboard, first_seq, numbered, operations, at FROM journal ORDER BY n"
    for number, dashboard_id, first_seq, numbered, operations, at in connection.execute(columns):
        ledger = ledgers.get(dashboard_id)
        if ledger is None:
            ledger = ledgers[dashboard_id] = Ledger()
        if not ledger.numbers:
            ledger.seq = ledger.cut_seq = first_seq - 1
        ledger.append(number, numbered, operations, at)
        index.newest = number
        index.rows += 1
    for ledger in ledgers.values():
        ledger.forget()
    return index


def _entries(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[_Entry]:
    """These rows, oldest first; those that are gone are left out."""
    wanted = json.dumps(list(numbers))
    return connection.execute(f"{_COLUMNS} WHERE n IN (SELECT value FROM json_each(?)) ORDER BY n", (wanted,)).fetchall()


def _state(connection: sqlite3.Connection, dashboard_id: str) -> tuple[int, bytes | None]:
    found = connection.execute("SELECT seq, state FROM snapshots WHERE dashboard = ?", (dashboard_id,)).fetchone()
    return (found[0], found[1]) if found else (0, None)


def _logged(entries: Iterable[_Entry]) -> list[Logged]:
    return [record for _, first_seq, at, row in entries for record in logged(row, first_seq, at)]


def _keys(entries: Iterable[_Entry]) -> dict[str, int]:
    return {key: number for number, _, _, row in entries for key in keys(row)}


@dataclass(slots=True)
class Opened:
    """What was read of a dashboard; ``keys`` of all rows up to number ``newest``, where the ledger had forgotten them."""

    contents: Contents
    keys: dict[str, int] | None = None
    newest: int = 0


def open_at(connection: sqlite3.Connection, index: Index, dashboard_id: str, epoch: str, since: int | None) -> Opened:
    """What is kept of a dashboard as of one moment, while the writer goes on.

    The index may be a little older than the moment that the transaction sees: rows that it does not name yet are found behind
    the newest that it does, and rows that are gone were cut by the very transaction that wrote the snapshot which is read.
    """
    newest = index.newest
    ledger = index.ledgers.get(dashboard_id)
    numbers, reaches = _numbers(ledger, since) if ledger is not None else (array("q"), False)
    newest = max(newest, numbers[-1] if numbers else 0)
    connection.execute("BEGIN")
    try:
        entries = _entries(connection, numbers) if numbers else []
        reaches = reaches and len(entries) == len(numbers)
        state_seq, state = (0, None) if reaches else _state(connection, dashboard_id)
        entries += connection.execute(f"{_COLUMNS} WHERE n > ? AND dashboard = ?", (newest, dashboard_id))
    finally:
        connection.execute("COMMIT")
    log = _logged(entries)
    if reaches and since is not None:
        log = behind(log, since)
        return Opened(Contents(epoch, max([since, *(record.seq for record in log)]), log=log))
    seq = max([state_seq, *(record.seq for record in log)])
    opened = Opened(Contents(epoch, seq, state, state_seq, log))
    if ledger is not None and not ledger.is_warm:
        opened.keys = _keys(entries)
        opened.newest = max(newest, entries[-1][0] if entries else 0)
    return opened


def _numbers(ledger: Ledger, since: int | None) -> tuple[array[int], bool]:
    """The rows to read, and whether they begin where ``since`` wants them to; the writer may cut the ledger meanwhile."""
    if since is not None:
        start = ledger.start_of(since)
        if start is not None:
            numbers = ledger.numbers[start:]
            if ledger.start_of(since) == start:
                return numbers, True
    return ledger.numbers[:], False


@dataclass(slots=True)
class DiskLog:
    """One dashboard's log, for ``judge``: on the writer's connection, whose index is never behind."""

    connection: sqlite3.Connection
    dashboard_id: str
    epoch: str
    ledger: Ledger

    def contents(self) -> Contents:
        state_seq, state = _state(self.connection, self.dashboard_id)
        return Contents(self.epoch, self.ledger.seq, state, state_seq, self.logged(0))

    def rows(self, start: int) -> list[Row]:
        return [Row(*entry[:3], decode(entry[3])) for entry in _entries(self.connection, self.ledger.numbers[start:])]

    def logged(self, start: int) -> list[Logged]:
        return _logged(_entries(self.connection, self.ledger.numbers[start:]))

    def row(self, number: int) -> Row:
        entry = _entries(self.connection, [number])[0]
        return Row(*entry[:3], decode(entry[3]))

    def keys(self) -> dict[str, int]:
        """The operation keys of all rows, with the numbers of these."""
        return _keys(_entries(self.connection, self.ledger.numbers))
