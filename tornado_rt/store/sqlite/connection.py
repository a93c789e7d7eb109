"""The writing connection and its health: transactions are whole or nothing, and why there are none. Knows no dashboards."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from tornado_rt.store.sqlite.schema import PAGE_BYTES
from tornado_rt.store.sqlite.troubles import Trouble, trouble_of

__all__ = ["Statement", "WriteConnection"]

_NOTABLE_SECONDS = 1.0  # a lock of another program that is shorter is nothing to speak of
_PROBE_BYTES = 64 * 1024

Statement = tuple[str, Sequence[Sequence[Any]]]  # SQL, and its parameters for each time that it is to be executed


class WriteConnection:
    """One connection, used by the thread that opened it.

    ``trouble`` says why nothing can be written just now, None while all is well; any thread may read it. ``log_bytes`` is about
    how much was written since the last checkpoint, ``is_dirty`` whether the write-ahead log holds anything.
    """

    def __init__(self, connection: sqlite3.Connection, patience_seconds: float) -> None:
        self.sqlite = connection
        self.trouble: Trouble | None = None
        self.log_bytes = 0
        self.is_dirty = True
        self._patience_seconds = patience_seconds
        self._cursor = connection.cursor()

    @property
    def has_failed(self) -> bool:
        """For good: nothing is written any more."""
        return self.trouble is not None and self.trouble.is_fatal

    def write(self, statements: Iterable[Statement], weight_bytes: int) -> Trouble | None:
        """Execute all in one transaction. Returns what was in the way; nothing of it was done then, unless that is fatal."""
        if self.has_failed:
            return self.trouble
        try:
            self._begin()
            for sql, parameters in statements:
                self._cursor.executemany(sql, parameters)
            self._cursor.execute("COMMIT")
        except sqlite3.Error as error:
            self.trouble = trouble_of(error)
            self._roll_back()
            return self.trouble
        self.trouble = None
        self.log_bytes += (
            weight_bytes + 2 * PAGE_BYTES
        )  # even a short row rewrites its page, and now and then that one's parent
        self.is_dirty = True
        return None

    def _begin(self) -> None:
        """Wait for a lock that another program holds, in this thread alone: commits gather meanwhile."""
        started = time.monotonic()
        while True:
            try:
                self._cursor.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                waited = time.monotonic() - started
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or waited > self._patience_seconds:
                    raise
                if waited > _NOTABLE_SECONDS:
                    self.trouble = trouble_of(error)

    def _roll_back(self) -> None:
        if self.sqlite.in_transaction:
            try:
                self._cursor.execute("ROLLBACK")
            except sqlite3.Error as error:
                self.trouble = Trouble(f"A transaction could not be rolled back ({error}).", is_fatal=True)

    def probe(self) -> None:
        """See whether writing is possible again, by writing; ``trouble`` tells."""
        self.checkpoint("PASSIVE")  # a log that was moved whole is written again from its beginning: that may be room enough
        probe: Statement = ("INSERT OR REPLACE INTO meta VALUES ('probe', zeroblob(?))", ((_PROBE_BYTES,),))
        if self.write((probe,), _PROBE_BYTES) is None:
            self.write((("DELETE FROM meta WHERE name = 'probe'", ((),)),), 0)

    def checkpoint(self, mode: str) -> None:
        """Move the write-ahead log into the database file, as far as those who read it allow."""
        if self.has_failed:
            return
        self.log_bytes = 0
        if mode == "TRUNCATE":
            self.is_dirty = False
        try:
            self._cursor.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            trouble = trouble_of(error)
            if trouble.is_fatal:
                self.trouble = trouble

    def close(self) -> None:
        self._cursor.close()
        self.sqlite.close()
