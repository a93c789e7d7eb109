"""What SQLite's errors mean for those who wait for an answer. Knows error codes; does nothing about them."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

__all__ = ["CLOSED", "Trouble", "trouble_of"]

CLOSED = "The store is closed."

# The index of the write-ahead log, a file in memory that is rebuilt from the log itself: no room for it is no damage.
_SHARED_MEMORY = (
    sqlite3.SQLITE_IOERR_SHMOPEN,
    sqlite3.SQLITE_IOERR_SHMSIZE,
    sqlite3.SQLITE_IOERR_SHMLOCK,
    sqlite3.SQLITE_IOERR_SHMMAP,
)
_FATAL = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@dataclass(slots=True)
class Trouble:
    """Why nothing was written, as a sentence. ``is_fatal``: what the disk holds now is not known, and nothing more may be
    acknowledged by this process."""

    sentence: str
    is_fatal: bool = False


def trouble_of(error: sqlite3.Error) -> Trouble:
    """After a failed fsync the kernel may have dropped the very pages that it could not write, and says so only once."""
    extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    code = extended & 0xFF
    if code == sqlite3.SQLITE_FULL or extended in _SHARED_MEMORY:
        return Trouble("The disk is full.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Trouble("The database is locked by another program.")
    name = getattr(error, "sqlite_errorname", "unknown")
    if code in _FATAL:
        return Trouble(f"The disk failed ({name}: {error}).", is_fatal=True)
    return Trouble(f"The database cannot be written ({name}: {error}).")
