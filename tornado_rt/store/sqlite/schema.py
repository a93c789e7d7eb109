"""The database file: how it is opened, which version it has, how an older one is lifted. Knows tables, not what rows mean.

The journal is append-only under a growing integer key and has no other index: an index that every commit must touch costs more
than the disk does. Which rows are a dashboard's is known in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from tornado_rt.errors import StartFault

__all__ = ["APPLICATION_ID", "MIGRATIONS", "check", "connect", "connect_read_only", "prepare", "read_epoch"]

APPLICATION_ID = 0x54525431  # "TRT1" in the file's header, so that another program's database is not taken for ours

PAGE_BYTES = 8192  # a typical row of eight operations fits whole; measured against 4,096 a quarter less CPU for each row
BUSY_SECONDS = 0.05  # how long one try for SQLite's own lock takes; the writer tries again, and looks up in between

# Script i lifts version i to i + 1; the first makes everything. Only ever add to it.
MIGRATIONS: Sequence[str] = (
    """
    CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE journal(
        n INTEGER PRIMARY KEY,
        dashboard TEXT NOT NULL,
        first_seq INTEGER NOT NULL,
        numbered INTEGER NOT NULL,
        operations INTEGER NOT NULL,
        at REAL NOT NULL,
        entries BLOB NOT NULL
    );
    CREATE TABLE snapshots(dashboard TEXT PRIMARY KEY, seq INTEGER NOT NULL, at REAL NOT NULL, state BLOB NOT NULL);
    """,
)


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes, durable (``synchronous=FULL``) or not at all. Raises ``StartFault``."""
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise StartFault(f"The database {path} cannot be opened: {error}.") from error
    try:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA fullfsync=1")  # macOS: fsync alone does not reach the disk
        connection.execute("PRAGMA wal_autocheckpoint=0")  # the writer does it, after it has answered
        synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
        if (mode, synchronous) != ("wal", 2):
            raise StartFault(f"The database {path} cannot be made durable (journal_mode={mode}, synchronous={synchronous}).")
    except sqlite3.Error as error:
        connection.close()
        raise _fault(path, error) from error
    except StartFault:
        connection.close()
        raise
    return connection


def connect_read_only(path: Path) -> sqlite3.Connection:
    """A connection that reads beside the writer, even where nothing can be written. Raises ``StartFault``."""
    if not path.exists():
        raise StartFault(f"There is no database {path}.")
    try:
        return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
    except sqlite3.Error as error:
        raise _fault(path, error) from error


def check(connection: sqlite3.Connection, path: Path) -> int:
    """The file's schema version, 0 if it is empty. Raises ``StartFault`` for what is not ours or newer than this program."""
    try:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    except sqlite3.Error as error:
        raise _fault(path, error) from error
    if owner != APPLICATION_ID and (tables or version):
        raise StartFault(f"{path} is a SQLite database, but not one of tornado_rt.")
    if version > len(MIGRATIONS):
        raise StartFault(
            f"The database {path} has schema version {version}; this program knows {len(MIGRATIONS)}. Use a newer tornado_rt."
        )
    return version


def prepare(connection: sqlite3.Connection, path: Path, new_epoch: Callable[[], str]) -> str:
    """Make the tables, or lift an older file after copying it beside itself. Returns the epoch. Raises ``StartFault``."""
    version = check(connection, path)
    try:
        if 0 < version < len(MIGRATIONS):
            _copy(connection, path, version)
        if version < len(MIGRATIONS):
            _migrate(connection, version)
        if connection.execute("SELECT 1 FROM meta WHERE name = 'epoch'").fetchone() is None:
            connection.execute("INSERT INTO meta VALUES ('epoch', ?)", (new_epoch(),))
        return read_epoch(connection)
    except sqlite3.Error as error:
        raise _fault(path, error) from error


def read_epoch(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0])


def _copy(connection: sqlite3.Connection, path: Path, version: int) -> None:
    target = Path(f"{path}.version-{version}")
    if not target.exists():  # a copy from an earlier try is the better one
        partial = Path(f"{target}.partial")
        partial.unlink(missing_ok=True)
        connection.execute("VACUUM INTO ?", (str(partial),))
        partial.rename(target)


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    """All steps in one transaction, so that a file is of one version or of the other."""
    script = "".join(MIGRATIONS[version:])
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {script}; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={len(MIGRATIONS)}; COMMIT;"
        )
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _fault(path: Path, error: sqlite3.Error) -> StartFault:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return StartFault(f"{path} is not a SQLite database.")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StartFault(f"The database {path} is locked by another program.")
    return StartFault(f"The database {path} cannot be used: {error}.")
