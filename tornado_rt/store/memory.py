"""The store that keeps everything in this process and nothing after it: for tests, demos and measurements. Knows no disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tornado_rt.errors import Unavailable
from tornado_rt.store.base import Committed, Contents, Duplicate, Durability, Logged, NewEpoch, Outcome, Record, Stale
from tornado_rt.store.counts import Counts
from tornado_rt.store.followers import Follower, Followers
from tornado_rt.store.ledger import Ledger, Row, judge, missed

__all__ = ["MemoryStore"]


@dataclass(slots=True)
class _Log:
    """One dashboard: its rows, and what ``Ledger`` says of them."""

    shared: _Shared
    ledger: Ledger = field(default_factory=Ledger)
    kept: list[Row] = field(default_factory=list)
    state: bytes | None = None

    def contents(self) -> Contents:
        return Contents(self.shared.epoch, self.ledger.seq, self.state, self.ledger.state_seq, self.logged(0))

    def rows(self, start: int) -> list[Row]:
        return self.kept[start:]

    def logged(self, start: int) -> list[Logged]:
        return [logged for row in self.kept[start:] for logged in row.logged()]

    def row(self, number: int) -> Row:
        return next(row for row in self.kept if row.number == number)


class _Shared:
    """What all peers of one memory have in common."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.logs: dict[str, _Log] = {}
        self.followers = Followers()
        self.last_number = 0
        self.has_peers = False


class MemoryStore:
    """A ``Store`` in a dict. ``commit`` never suspends.

    ``epoch`` names the log, ``clock`` gives seconds since 1970. ``peer()`` makes another store object on the same memory, as
    another server process would have one.
    """

    durability: Durability = "memory"

    def __init__(self, epoch: str, clock: Callable[[], float]) -> None:
        self._shared = _Shared(epoch)
        self._clock = clock
        self._is_closed = False
        self.counts = Counts()

    def peer(self) -> MemoryStore:
        """Another process's view of the same memory."""
        peer = MemoryStore(self._shared.epoch, self._clock)
        peer._shared = self._shared
        self._shared.has_peers = True
        return peer

    @property
    def is_shared(self) -> bool:
        return self._shared.has_peers

    def lose(self, epoch: str) -> None:
        """Forget every log, as a server without a disk does when it restarts; followers hear of the new epoch."""
        self._shared.epoch = epoch
        self._shared.logs.clear()
        for _, follower in self._shared.followers.all():
            Followers.tell([follower], Contents(epoch, 0))

    async def start(self) -> None:
        self._is_closed = False

    async def close(self) -> None:
        self._is_closed = True

    @property
    def epoch(self) -> str:
        return self._shared.epoch

    @property
    def fault(self) -> str | None:
        return "The store is closed." if self._is_closed else None

    async def open(self, dashboard_id: str, since: int | None = None) -> Contents:
        self._check()
        log = self._shared.logs.get(dashboard_id)
        if log is None:
            return Contents(self.epoch, 0)
        return log.contents() if since is None else missed(log, self.epoch, since)

    async def commit(
        self, dashboard_id: str, epoch: str, seen: int, reads: Mapping[str, int], records: Sequence[Record]
    ) -> Outcome:
        self._check()
        shared = self._shared
        log = shared.logs.get(dashboard_id)
        if log is None:
            log = _Log(shared)
        ledger = log.ledger
        if epoch != shared.epoch or seen > ledger.seq:
            return NewEpoch(shared.epoch)
        now = self._clock()
        keys = [key for record in records for key in record.keys]
        missing: Contents | None = None
        if seen < ledger.seq or ledger.knows(keys):
            judged = judge(log, epoch, seen, reads, records, now)
            if isinstance(judged, Stale | Duplicate):
                return judged
            missing = judged
        first_seq = ledger.seq + 1
        if records:
            shared.logs[dashboard_id] = log
            self._append(dashboard_id, log, Row(shared.last_number + 1, first_seq, now, tuple(records)), keys)
        return Committed(first_seq, missing)

    def _append(self, dashboard_id: str, log: _Log, row: Row, keys: list[str]) -> None:
        shared = self._shared
        records = row.records
        numbered = sum([record.numbered for record in records])
        log.ledger.append(row.number, numbered, max(len(keys), len(records)), row.at)
        log.ledger.remember(row.number, keys)
        log.kept.append(row)
        shared.last_number = row.number
        self.counts.groups += 1
        self.counts.commits += 1
        self.counts.committed_operations += len(records)
        listening = shared.followers.listening(dashboard_id, self)
        if listening:
            Followers.tell(listening, Contents(shared.epoch, log.ledger.seq, log=row.logged()))

    async def snapshot(self, dashboard_id: str, seq: int, state: bytes) -> None:
        self._check()
        log = self._shared.logs.get(dashboard_id)
        if log is None or not log.ledger.state_seq < seq <= log.ledger.seq:
            return  # older than what is kept, or of a log that was lost meanwhile
        self.counts.snapshots += 1
        log.state = state
        log.ledger.state_seq = seq
        spare = log.ledger.spare(seq, self._clock())
        log.ledger.cut(spare)
        del log.kept[:spare]

    def follow(self, dashboard_id: str, on_records: Follower) -> Callable[[], None]:
        end = self._shared.followers.add(dashboard_id, self, on_records)

        def unfollow() -> None:
            end()

        return unfollow

    def _check(self) -> None:
        if self._is_closed:
            raise Unavailable("The store is closed.")
