"""``python mutant_server.py MUTATION[,MUTATION...] --port ...``: the real server less a protection, or with another size.

For tests alone. A mutation reaches into the running package; when a name it needs is gone it fails at once, so that no test
passes because its mutant was the sound server.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tornado_rt import app, cli, room
from tornado_rt.core import draft
from tornado_rt.core.journal import text_of
from tornado_rt.core.operation import Applied
from tornado_rt.protocol.codec import broadcast
from tornado_rt.store.base import Committed
from tornado_rt.store.sqlite import SqliteStore, store, writer
from tornado_rt.store.sqlite.connection import WriteConnection
from tornado_rt.wire import encode_frame

GAP_SECONDS = 0.05  # between saying and doing, where a mutant says it first


def replace(owner: Any, name: str, substitute: Any) -> Any:
    """Put ``substitute`` in the place of what is there, and return that."""
    original = getattr(owner, name)
    setattr(owner, name, substitute)
    return original


# -- sizes ---------------------------------------------------------------------------------------------------------------


def max_pages(count: str) -> None:
    """A disk that is full soon, until there is a file ``<database>.room``."""

    def begin(self: WriteConnection) -> None:
        database = Path(self.sqlite.execute("PRAGMA database_list").fetchone()[2])
        if database.with_name(f"{database.name}.room").exists():
            self.sqlite.execute("PRAGMA max_page_count=1000000")
        original(self)

    original = replace(WriteConnection, "_begin", begin)
    replace(app, "SqliteStore", functools.partial(SqliteStore, max_page_count=int(count)))


def frequent_checkpoints() -> None:
    """The write-ahead log goes into the database file after every few commits."""
    replace(writer, "_CHECKPOINT_BYTES", 50_000)
    replace(room, "SNAPSHOT_EVERY", 100)


# -- protections ---------------------------------------------------------------------------------------------------------


def synchronous(level: str) -> None:
    """Commit without waiting for the disk."""

    def connect(path: Path) -> sqlite3.Connection:
        connection = original(path)
        connection.execute(f"PRAGMA synchronous={level}")
        return connection  # type: ignore[no-any-return]

    original = replace(store, "connect", connect)


def ack_before_commit() -> None:
    """Answer first, write later."""
    turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
    tasks: set[asyncio.Task[None]] = set()

    async def commit(self: SqliteStore, dashboard_id: str, epoch: str, seen: int, reads: Any, records: Any) -> Committed:
        async def later() -> None:
            async with turns[dashboard_id]:
                await asyncio.sleep(GAP_SECONDS)
                await original(self, dashboard_id, epoch, seen, reads, records)

        task = asyncio.create_task(later())
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return Committed(seen + 1)

    original = replace(SqliteStore, "commit", commit)


def broadcast_before_commit() -> None:
    """Tell the others first, write and acknowledge later."""
    told: set[int] = set()

    async def commit(self: room.Room, draft_: Any, records: Any) -> Any:
        leaves = [leaf for submission in self.in_flight for leaf in submission.leaves() if isinstance(leaf.outcome, Applied)]
        frames = [broadcast(text_of(leaf.record), leaf.outcome.stamp.seq, self.dashboard.epoch) for leaf in leaves]
        original_send(self, b"".join(map(encode_frame, frames)), {submission.session for submission in self.in_flight})
        told.add(id(self))
        await asyncio.sleep(GAP_SECONDS)
        return await original_commit(self, draft_, records)

    def deliver(self: room.Room, batch: Any) -> None:
        original_deliver(self, batch)
        told.discard(id(self))

    def send(self: room.Room, data: bytes, senders: Any) -> None:
        if id(self) not in told:
            original_send(self, data, senders)

    original_commit = replace(room.Room, "_commit", commit)
    original_deliver = replace(room.Room, "_deliver", deliver)
    original_send = replace(room.Room, "_send", send)


def no_deduplication() -> None:
    """Forget every verdict at once."""
    replace(draft.Draft, "_replayed", lambda self, request: None)
    replace(room, "_keys", lambda item: ())


def stale_overwrite() -> None:
    """The last writer wins, whatever he has seen."""
    replace(draft, "judge_update", lambda *_: None)
    replace(draft, "judge_delete", lambda *_: None)


def reordered_broadcasts() -> None:
    """Others hear what was committed together in the wrong order."""

    def send(self: room.Room, data: bytes, senders: Any) -> None:
        original(self, b"".join(reversed(list(split_frames(data)))), senders)

    original = replace(room.Room, "_send", send)


def split_frames(data: bytes) -> Iterator[bytes]:
    """The server's frames, which are not masked, one by one."""
    while data:
        more = {126: 2, 127: 8}.get(data[1], 0)
        end = 2 + more + (int.from_bytes(data[2 : 2 + more], "big") if more else data[1])
        yield data[:end]
        data = data[end:]


def lost_delta() -> None:
    """Who comes back misses one operation."""

    def sync(self: room.Room, since: int | None, epoch: str | None) -> bytes:
        skips = since and epoch == self.dashboard.epoch and since < self.dashboard.seq
        return original(self, since + 1 if since and skips else since, epoch)  # type: ignore[no-any-return]

    original = replace(room.Room, "sync", sync)


MUTATIONS: dict[str, Callable[..., None]] = {
    mutation.__name__.replace("_", "-"): mutation
    for mutation in (
        max_pages,
        frequent_checkpoints,
        synchronous,
        ack_before_commit,
        broadcast_before_commit,
        no_deduplication,
        stale_overwrite,
        reordered_broadcasts,
        lost_delta,
    )
}

if __name__ == "__main__":
    for each in sys.argv[1].split(","):
        name, _, value = each.partition("=")
        MUTATIONS[name](*([value] if value else ()))
    raise SystemExit(cli.main(["serve", *sys.argv[2:]]))
