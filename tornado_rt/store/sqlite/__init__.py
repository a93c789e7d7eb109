"""The embedded store: one SQLite file, one server. Rooms know it as a ``Store``; the command also makes copies of the file."""

from tornado_rt.store.sqlite.copies import backup, new_epoch
from tornado_rt.store.sqlite.store import SqliteStore

__all__ = ["SqliteStore", "backup", "new_epoch"]
