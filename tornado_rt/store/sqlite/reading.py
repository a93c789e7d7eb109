"""Reads of one dashboard from the file, for the reader and for the writer. Knows the tables; must not write."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tornado_rt.store.base import Contents
from tornado_rt.store.ledger import Ledger, Row, behind
from tornado_rt.store.sqlite.rows import decode

__all__ = ["DiskLog", "Index", "keys_of", "open_at", "read_rows", "scan"]

_COLUMNS = "SELECT n, first_seq, at, entries FROM journal"


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


def read_rows(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[Row]:
    """These rows, oldest first; those that are gone are left out."""
    found = connection.execute(
        f"{_COLUMNS} WHERE n IN (SELECT value FROM json_each(?)) ORDER BY n", (json.dumps(list(numbers)),)
    )
    return _rows(found)


def _rows(found: Iterable[tuple[int, int, float, bytes]]) -> list[Row]:
    return [Row(number, first_seq, at, decode(entries)) for number, first_seq, at, entries in found]


def _state(connection: sqlite3.Connection, dashboard_id: str) -> tuple[int, bytes | None]:
    found = connection.execute("SELECT seq, state FROM snapshots WHERE dashboard = ?", (dashboard_id,)).fetchone()
    return (found[0], found[1]) if found else (0, None)


def keys_of(rows: Iterable[Row]) -> dict[str, int]:
    """The operation keys that rows answer for."""
    return {key: row.number for row in rows for record in row.records for key in record.keys}


def open_at(
    connection: sqlite3.Connection, index: Index, dashboard_id: str, epoch: str, since: int | None
) -> tuple[Contents, list[Row] | None]:
    """What is kept of a dashboard as of one moment, while the writer goes on; and the rows, if those are all there are.

    The index may be a little older than the moment that the transaction sees: rows that it does not name yet are found behind
    the newest that it does, and rows that are gone were cut by the very transaction that wrote the snapshot which is read.
    """
    newest = index.newest
    ledger = index.ledgers.get(dashboard_id)
    numbers, reaches = _numbers(ledger, since) if ledger is not None else (array("q"), False)
    newest = max(newest, numbers[-1] if numbers else 0)
    connection.execute("BEGIN")
    try:
        rows = read_rows(connection, numbers) if numbers else []
        reaches = reaches and len(rows) == len(numbers)
        state_seq, state = (0, None) if reaches else _state(connection, dashboard_id)
        rows += _rows(connection.execute(f"{_COLUMNS} WHERE n > ? AND dashboard = ?", (newest, dashboard_id)))
    finally:
        connection.execute("COMMIT")
    if reaches and since is not None:
        log = behind(rows, since)
        return Contents(epoch, max([since, *(logged.seq for logged in log)]), log=log), None
    log = [logged for row in rows for logged in row.logged()]
    return Contents(epoch, max([state_seq, *(logged.seq for logged in log)]), state, state_seq, log), rows


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
        log = [logged for row in self.rows(0) for logged in row.logged()]
        return Contents(self.epoch, self.ledger.seq, state, state_seq, log)

    def rows(self, start: int) -> list[Row]:
        return read_rows(self.connection, self.ledger.numbers[start:])

    def row(self, number: int) -> Row:
        return read_rows(self.connection, [number])[0]
