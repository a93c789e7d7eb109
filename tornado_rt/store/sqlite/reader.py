"""The thread that reads dashboards, on a connection of its own: reading goes on while the writer waits or cannot write."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tornado_rt.errors import StartFault, Unavailable
from tornado_rt.store.base import Contents
from tornado_rt.store.sqlite.reading import Index, open_at
from tornado_rt.store.sqlite.schema import connect_read_only
from tornado_rt.store.sqlite.tasks import post

__all__ = ["Reader"]


@dataclass(slots=True)
class _Open:
    dashboard_id: str
    since: int | None
    future: asyncio.Future[Contents]
    outcome: Contents | Unavailable | None = None


class Reader:
    """Answers ``open`` one after the other.

    ``on_keys`` is called from the thread, before the answer, with a dashboard's operation keys and the number of the newest row
    that they come from, where the ledger had forgotten them.
    """

    def __init__(self, path: Path, index: Index, epoch: str, on_keys: Callable[[str, dict[str, int], int], None]) -> None:
        self._path = path
        self._index = index
        self._epoch = epoch
        self._on_keys = on_keys
        self._inbox: SimpleQueue[_Open | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()

    async def start(self) -> None:
        """Raises ``StartFault``."""
        threading.Thread(target=self._run, name="sqlite-reader", daemon=True).start()
        await self._started

    async def open(self, dashboard_id: str, since: int | None) -> Contents:
        """Raises ``Unavailable`` if the file cannot be read."""
        future: asyncio.Future[Contents] = self._loop.create_future()
        self._inbox.put(_Open(dashboard_id, since, future))
        return await future

    async def close(self) -> None:
        """Answer what was asked, then let go of the file."""
        self._inbox.put(None)
        await self._ended

    def _run(self) -> None:
        try:
            connection = connect_read_only(self._path)
        except StartFault as fault:
            post(self._loop, self._started.set_exception, fault)
            return
        post(self._loop, self._started.set_result, None)
        try:
            while (request := self._inbox.get()) is not None:
                request.outcome = self._read(connection, request)
                post(self._loop, _settle, request)
        finally:
            connection.close()  # by the thread that opened it
            post(self._loop, self._ended.set_result, None)

    def _read(self, connection: sqlite3.Connection, request: _Open) -> Contents | Unavailable:
        try:
            opened = open_at(connection, self._index, request.dashboard_id, self._epoch, request.since)
        except sqlite3.Error as error:
            return Unavailable(f"The store cannot be read: {error}.")
        if opened.keys is not None:
            self._on_keys(request.dashboard_id, opened.keys, opened.newest)
        return opened.contents


def _settle(request: _Open) -> None:
    if request.future.done():
        pass  # whoever asked has gone
    elif isinstance(request.outcome, Contents):
        request.future.set_result(request.outcome)
    elif request.outcome is not None:
        request.future.set_exception(request.outcome)
