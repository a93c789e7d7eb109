"""One server for each database file: a lock file beside it, held by ``flock``. Knows nothing of SQLite."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from tornado_rt.errors import StartFault

__all__ = ["FileLock"]


class FileLock:
    """``<path>.lock``. The kernel lets go of it when the process ends, however it ends; the file stays and means nothing."""

    def __init__(self, path: Path) -> None:
        self._path = Path(f"{path}.lock")
        self._database = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises ``StartFault`` if another process holds it, naming that one where it left its number."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartFault(f"The database {self._database} cannot be opened for writing: {error.strerror}.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder.isdigit() else "another process"
            raise StartFault(f"The database {self._database} is in use by {who}; one server at a time may have it.") from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
