"""The store in one SQLite file, as the loop sees it: hands commits to the writer's thread and its outcomes to those who wait.
Knows no SQL.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue

from tornado_rt.errors import InvalidMessage, StartFault, Unavailable
from tornado_rt.store.base import Committed, Contents, Durability, NewEpoch, Outcome, Record
from tornado_rt.store.counts import Counts
from tornado_rt.store.followers import Follower, Followers
from tornado_rt.store.ledger import Row
from tornado_rt.store.sqlite.connection import WriteConnection
from tornado_rt.store.sqlite.lock import FileLock
from tornado_rt.store.sqlite.reader import Reader
from tornado_rt.store.sqlite.reading import Index, scan
from tornado_rt.store.sqlite.rows import encode
from tornado_rt.store.sqlite.schema import connect, prepare
from tornado_rt.store.sqlite.tasks import Commit, Forget, Keys, Snapshot, Task, post
from tornado_rt.store.sqlite.troubles import CLOSED, Trouble
from tornado_rt.store.sqlite.writer import Answers, Writer

__all__ = ["SqliteStore"]

_log = logging.getLogger(__name__)

_RETRY_AFTER_MS = 500  # a full queue is written out in less


class SqliteStore:
    """A ``Store`` in the file ``path``, which one server at a time may have.

    ``new_epoch`` makes the epoch of a new file, ``clock`` gives seconds since 1970. ``on_fatal`` is called on the loop with a
    sentence when the disk has failed in a way after which this process must not acknowledge anything. No more than
    ``max_waiting_operations`` and ``max_waiting_bytes`` wait for the disk, and no longer than ``patience_seconds`` for another
    program's lock. ``max_page_count`` bounds the file, for tests of a full disk.
    """

    durability: Durability = "disk"
    is_shared = False  # the lock file sees to it

    def __init__(
        self,
        path: str | Path,
        new_epoch: Callable[[], str],
        clock: Callable[[], float],
        *,
        on_fatal: Callable[[str], None] = lambda sentence: None,
        max_waiting_operations: int = 10_000,
        max_waiting_bytes: int = 16 * 2**20,
        patience_seconds: float = 10.0,
        max_page_count: int | None = None,
    ) -> None:
        self.path = Path(path).resolve()
        self._new_epoch = new_epoch
        self._clock = clock
        self._on_fatal = on_fatal
        self._max_waiting_operations = max_waiting_operations
        self._max_waiting_bytes = max_waiting_bytes
        self._patience_seconds = patience_seconds
        self._max_page_count = max_page_count
        self._lock = FileLock(self.path)
        self._inbox: SimpleQueue[Task] = SimpleQueue()
        self._gathered: list[Commit] = []
        self._followers = Followers()
        self._index = Index()
        self._epoch = ""
        self._refusal: str | None = "The store has not been started."
        self._connection: WriteConnection | None = None
        self._reader: Reader | None = None
        self.counts = Counts()
        self.waiting_operations = 0
        self.waiting_bytes = 0

    @property
    def epoch(self) -> str:
        return self._epoch

    @property
    def fault(self) -> str | None:
        if self._refusal is not None:
            return self._refusal
        trouble = self._connection.trouble if self._connection is not None else None
        return trouble.sentence if trouble is not None else None

    @property
    def log_rows(self) -> int:
        """How many commits the journal holds."""
        return self._index.rows

    @property
    def file_bytes(self) -> int:
        """The size of the database file and its write-ahead log."""
        files = (self.path, Path(f"{self.path}-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._lock.acquire()
        try:
            started: asyncio.Future[None] = self._loop.create_future()
            self._ended: asyncio.Future[None] = self._loop.create_future()
            threading.Thread(target=self._run, args=(started,), name="sqlite-writer", daemon=True).start()
            await started
            self._reader = Reader(self.path, self._index, self._epoch, self._on_keys)
            await self._reader.start()
        except StartFault:
            self._lock.release()
            raise
        self._refusal = None

    async def close(self) -> None:
        if self._refusal is not None or self._reader is None:
            return
        self._refusal = CLOSED
        self._hand_over()
        if self._connection is not None and not self._connection.has_failed:
            await self._reader.close()  # first, so that the writer is the last one and can take the write-ahead log away
        self._inbox.put(None)
        await self._ended
        await self._reader.close()
        self._lock.release()

    async def open(self, dashboard_id: str, since: int | None = None) -> Contents:
        self._check()
        if dashboard_id not in self._index.ledgers or self._reader is None:
            return Contents(self._epoch, 0)
        return await self._reader.open(dashboard_id, since)

    async def commit(
        self, dashboard_id: str, epoch: str, seen: int, reads: Mapping[str, int], records: Sequence[Record]
    ) -> Outcome:
        self._check_writing()
        if epoch != self._epoch:
            return NewEpoch(self._epoch)
        commit = self._commit_of(dashboard_id, seen, reads, records)
        if self.waiting_operations and (
            self.waiting_operations + len(records) > self._max_waiting_operations
            or self.waiting_bytes + len(commit.row) > self._max_waiting_bytes
        ):
            raise Unavailable("Too much is waiting for the disk.", retry_after_ms=_RETRY_AFTER_MS)
        self.waiting_operations += len(records)
        self.waiting_bytes += len(commit.row)
        if not self._gathered:
            # Once for all that this turn of the loop brings: each waking of the thread is a fight for the GIL.
            self._loop.call_soon(self._hand_over)
        self._gathered.append(commit)
        return await commit.future

    def _commit_of(self, dashboard_id: str, seen: int, reads: Mapping[str, int], records: Sequence[Record]) -> Commit:
        """Raises ``InvalidMessage`` for what SQLite would stumble over in the midst of a group."""
        try:
            dashboard_id.encode()
        except UnicodeEncodeError as error:
            raise InvalidMessage("The dashboard's id is not valid text.") from error
        # Taken together here, where the records are still in the processor's cache.
        keys = [key for record in records for key in record.keys]
        numbered = sum([record.numbered for record in records])
        operations = max(len(keys), len(records))
        row = encode(records)
        return Commit(dashboard_id, seen, reads, records, keys, numbered, operations, row, self._loop.create_future())

    async def snapshot(self, dashboard_id: str, seq: int, state: bytes) -> None:
        self._check_writing()
        if dashboard_id not in self._index.ledgers:
            return
        snapshot = Snapshot(dashboard_id, seq, state, self._loop.create_future())
        self._inbox.put(snapshot)
        await snapshot.future

    def follow(self, dashboard_id: str, on_records: Follower) -> Callable[[], None]:
        end = self._followers.add(dashboard_id, self, on_records)

        def unfollow() -> None:
            if end() and self._refusal is None and dashboard_id in self._index.ledgers:
                self._inbox.put(Forget(dashboard_id))

        return unfollow

    def _check(self) -> None:
        if self._refusal is not None:
            raise Unavailable(self._refusal)

    def _check_writing(self) -> None:
        self._check()
        trouble = self._connection.trouble if self._connection is not None else None
        if trouble is not None and trouble.is_fatal:
            raise Unavailable(trouble.sentence)

    def _hand_over(self) -> None:
        if self._gathered:
            self._inbox.put(self._gathered)
            self._gathered = []

    def _on_commits(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            self.waiting_operations -= len(commit.records)
            self.waiting_bytes -= len(commit.row)
            outcome = commit.outcome
            if commit.future.done():
                pass  # whoever asked has gone; what was written stays
            elif isinstance(outcome, Unavailable):
                commit.future.set_exception(outcome)
            elif outcome is not None:
                commit.future.set_result(outcome)
            if isinstance(outcome, Committed):
                self._tell(commit, outcome)

    def _tell(self, commit: Commit, outcome: Committed) -> None:
        followers = self._followers.listening(commit.dashboard_id, self)
        if followers and commit.records:
            log = Row(0, outcome.first_seq, commit.at, commit.records).logged()
            seq = max([outcome.first_seq - 1, *(logged.seq for logged in log)])
            Followers.tell(followers, Contents(self._epoch, seq, log=log))

    @staticmethod
    def _on_snapshots(snapshots: Sequence[Snapshot]) -> None:
        for snapshot in snapshots:
            if not snapshot.future.done():
                snapshot.future.set_result(None)

    def _on_keys(self, dashboard_id: str, keys: dict[str, int], newest: int) -> None:
        self._inbox.put(Keys(dashboard_id, keys, newest))  # from the reader's thread

    def _run(self, started: asyncio.Future[None]) -> None:
        """The writer's thread, from the first to the last."""
        try:
            connection = self._open_file()
        except StartFault as fault:
            post(self._loop, started.set_exception, fault)
            return
        answers = Answers(self._loop, self._on_commits, self._on_snapshots, self._on_fatal)
        writer = Writer(connection, self._index, self._epoch, self._clock, self._inbox, answers, self.counts)
        post(self._loop, started.set_result, None)
        try:
            writer.run()
        except Exception:  # nobody else would hear of it, and all who wait would wait for ever
            _log.exception("The writer of %s has failed", self.path)
            writer.fail(Trouble("The store's writer has failed; its log says why.", is_fatal=True))
            writer.run()  # refuses what comes
        finally:
            connection.close()  # by the thread that opened it
            post(self._loop, self._ended.set_result, None)

    def _open_file(self) -> WriteConnection:
        connection = connect(self.path)
        try:
            self._epoch = prepare(connection, self.path, self._new_epoch)
            if self._max_page_count is not None:
                connection.execute(f"PRAGMA max_page_count={int(self._max_page_count)}")
            self._index = scan(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = WriteConnection(connection, self._patience_seconds)
        return self._connection
