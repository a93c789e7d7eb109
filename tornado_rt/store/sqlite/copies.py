"""Copies of a database file: made beside a running server, and marked as what they are. Knows no server."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from tornado_rt.errors import StartFault
from tornado_rt.store.sqlite.lock import FileLock
from tornado_rt.store.sqlite.schema import check, connect, connect_read_only

__all__ = ["backup", "new_epoch"]


def backup(source: str | Path, target: str | Path, new_epoch: str) -> None:
    """Copy ``source`` as of this moment to ``target``, which must not exist, and give the copy an epoch of its own.

    A server may be at work on ``source`` meanwhile. Raises ``StartFault``.
    """
    source = Path(source)
    target = Path(target)
    if target.exists():
        raise StartFault(f"{target} exists already; a backup is never written over anything.")
    partial = Path(f"{target}.partial")
    try:
        partial.unlink(missing_ok=True)
        with closing(connect_read_only(source)) as connection:
            _check_used(connection, source)
            connection.execute("VACUUM INTO ?", (str(partial),))
        with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            copy.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (new_epoch,))
        _sync(partial)  # VACUUM INTO does not
        partial.rename(target)
        _sync(target.parent)
    except (sqlite3.Error, OSError) as error:
        partial.unlink(missing_ok=True)
        raise StartFault(f"The backup of {source} to {target} failed: {error}.") from error


def new_epoch(path: str | Path, epoch: str) -> None:
    """Mark a file that was restored from a plain copy, so that no client takes its old seqs for new ones.

    Refused with a ``StartFault`` while a server has the file.
    """
    path = Path(path)
    if not path.exists():
        raise StartFault(f"There is no database {path}.")
    lock = FileLock(path)
    lock.acquire()
    try:
        with closing(connect(path)) as connection:
            _check_used(connection, path)
            connection.execute("UPDATE meta SET value = ? WHERE name = 'epoch'", (epoch,))
    except sqlite3.Error as error:
        raise StartFault(f"The database {path} cannot be written: {error}.") from error
    finally:
        lock.release()


def _check_used(connection: sqlite3.Connection, path: Path) -> None:
    if check(connection, path) == 0:
        raise StartFault(f"The database {path} is empty.")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
