"""Operations kept until their verdict, in memory or in a file that outlives the process. Knows no server.

A file is SQLite, written with ``synchronous=FULL``: what ``put`` has returned from survives a power cut. Several users,
dashboards and devices may share a file, one process at a time: an operation that two processes repeat would still be applied
once, but each would take the other's for its own.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import uuid
from pathlib import Path
from typing import IO

from tornado_rt.client.operation import Operation
from tornado_rt.errors import RealtimeError

__all__ = ["FileQueue", "MemoryQueue", "QueueInUseError"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS device (user_id TEXT, dashboard_id TEXT, device_id TEXT, PRIMARY KEY (user_id, dashboard_id));
CREATE TABLE IF NOT EXISTS operation (
    place INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT, dashboard_id TEXT, device_id TEXT, id TEXT, body TEXT,
    UNIQUE (user_id, dashboard_id, device_id, id)
);
"""
_MINE = "user_id = ? AND dashboard_id = ? AND device_id = ?"


class QueueInUseError(RealtimeError):
    """Another process has the queue's file open."""


class MemoryQueue:
    """A queue for programs that may forget what was not acknowledged when they end."""

    def __init__(self, device_id: str | None = None) -> None:
        self.device_id = device_id or uuid.uuid4().hex

    def load(self) -> list[Operation]:
        return []

    def put(self, operation: Operation) -> None:
        pass

    def drop(self, operation_id: str) -> None:
        pass

    def exchange(self, old_id: str, operation: Operation) -> None:
        pass

    def sync(self) -> None:
        pass

    def close(self) -> None:
        pass


class FileQueue:
    """A queue in a file, of one user on one dashboard. Raises ``QueueInUseError`` while another process has it open.

    ``device_id`` names the one whose operations these are; without one the file's own is taken, made up the first time.
    """

    def __init__(self, path: str | os.PathLike[str], user_id: str, dashboard_id: str, device_id: str | None = None) -> None:
        self._lock = _lock(Path(f"{os.fspath(path)}.lock"), path)
        self._dropped: list[str] = []
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.executescript(_SCHEMA)
        self.device_id = device_id or self._own_device(user_id, dashboard_id)
        self._mine = (user_id, dashboard_id, self.device_id)

    def _own_device(self, user_id: str, dashboard_id: str) -> str:
        """The device that this file stands for; it must stay the same, or a repeated edit would seem another device's."""
        self._connection.execute("INSERT OR IGNORE INTO device VALUES (?, ?, ?)", (user_id, dashboard_id, uuid.uuid4().hex))
        found = self._connection.execute(
            "SELECT device_id FROM device WHERE user_id = ? AND dashboard_id = ?", (user_id, dashboard_id)
        )
        device_id: str = found.fetchone()[0]
        return device_id

    def load(self) -> list[Operation]:
        """What was left over from an earlier run, in the order it was made in."""
        rows = self._connection.execute(f"SELECT body FROM operation WHERE {_MINE} ORDER BY place", self._mine)
        return [Operation.load(json.loads(body)) for (body,) in rows]

    def put(self, operation: Operation) -> None:
        """Keep it; on the disk when this returns."""
        self._connection.execute(
            "INSERT INTO operation (user_id, dashboard_id, device_id, id, body) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET body = excluded.body",
            (*self._mine, operation.id, _body(operation)),
        )

    def drop(self, operation_id: str) -> None:
        """Forget it with the next ``sync``. If the process dies before, it is repeated and its first verdict comes again."""
        self._dropped.append(operation_id)

    def exchange(self, old_id: str, operation: Operation) -> None:
        """Another operation in the place of one."""
        self._connection.execute(
            f"UPDATE operation SET id = ?, body = ? WHERE {_MINE} AND id = ?",
            (operation.id, _body(operation), *self._mine, old_id),
        )

    def sync(self) -> None:
        """Write what was dropped, all at once."""
        if self._dropped:
            dropped, self._dropped = self._dropped, []
            self._connection.execute("BEGIN")
            self._connection.executemany(
                f"DELETE FROM operation WHERE {_MINE} AND id = ?", [(*self._mine, each) for each in dropped]
            )
            self._connection.execute("COMMIT")

    def close(self) -> None:
        self.sync()
        self._connection.close()
        self._lock.close()


def _body(operation: Operation) -> str:
    return json.dumps(operation.dump(), ensure_ascii=False, separators=(",", ":"))


def _lock(path: Path, queue: str | os.PathLike[str]) -> IO[bytes]:
    """Held until it is closed, or until the process ends, however it ends."""
    file = path.open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise QueueInUseError(f"the queue {os.fspath(queue)} is in use by another process") from None
    return file
