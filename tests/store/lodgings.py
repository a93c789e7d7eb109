"""The stores that the contract is asked of, each with a clock that stands still until it is moved."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tornado_rt.store.base import Committed, Contents, Outcome, Record, Store
from tornado_rt.store.memory import MemoryStore
from tornado_rt.store.sqlite import SqliteStore

KINDS = ("memory", "sqlite")


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_700_000_000.0

    def __call__(self) -> float:
        return self.seconds


class Lodging:
    """Makes a store of one kind, a second view of it as another server would have, and the same one after a restart."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.path = folder / "log.db"
        self.clock = Clock()
        self._epochs = map("epoch-{}".format, itertools.count(1))

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        store = self._make()
        await store.start()
        try:
            yield store
        finally:
            await store.close()

    def _make(self) -> Store:
        if self.kind == "memory":
            return MemoryStore(next(self._epochs), self.clock)
        return SqliteStore(self.path, lambda: next(self._epochs), self.clock)

    def peer(self, store: Store) -> Store:
        """What another server on the same log would use; SQLite has one server for each file, whose rooms share one object."""
        return store.peer() if isinstance(store, MemoryStore) else store

    async def reopen(self, store: Store) -> Store:
        await store.close()
        again = store if isinstance(store, MemoryStore) else self._make()
        await again.start()
        return again


def numbered(text: str, *keys: str, writes: Sequence[str] = ()) -> Record:
    return Record(text.encode(), True, keys, tuple(writes))


def conflict(text: str, *keys: str) -> Record:
    return Record(text.encode(), False, keys)


async def commit(store: Store, *records: Record, dashboard: str = "d", seen: int | None = None, **reads: int) -> Outcome:
    """Commit as one who has seen everything, or up to ``seen``."""
    if seen is None:
        seen = (await store.open(dashboard)).seq
    return await store.commit(dashboard, store.epoch, seen, reads, records)


async def fill(store: Store, count: int, dashboard: str = "d") -> None:
    """``count`` commits of one record each, ``r1`` to ``r<count>`` with keys ``k1`` and so on."""
    for number in range(1, count + 1):
        outcome = await commit(store, numbered(f"r{number}", f"k{number}", writes=["doc"]), dashboard=dashboard)
        assert isinstance(outcome, Committed)


async def until(condition: Callable[[], bool]) -> None:
    """For what nobody announces; a test that waits in vain ends by its time-out."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def look() -> None:
        if condition():
            done.set_result(None)
        else:
            loop.call_later(0.01, look)

    look()
    await done


def texts(contents: Contents) -> list[tuple[int, str]]:
    return [(logged.seq, logged.body.decode()) for logged in contents.log]
