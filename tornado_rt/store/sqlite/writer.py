"""The one thread that writes. It takes whatever commits wait, of all dashboards, into one transaction. Knows no rooms.

Group commit without a timer: while one group is being written the next one gathers. Each call into SQLite gives up the GIL and
has to win it back, so a group is few calls, and its outcomes go back to the loop in one.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from tornado_rt.errors import Unavailable
from tornado_rt.store.base import Committed, Contents, NewEpoch, Outcome
from tornado_rt.store.counts import Counts
from tornado_rt.store.ledger import Ledger, judge
from tornado_rt.store.sqlite.connection import WriteConnection
from tornado_rt.store.sqlite.reading import DiskLog, Index
from tornado_rt.store.sqlite.tasks import Commit, Forget, Keys, Snapshot, Task, post
from tornado_rt.store.sqlite.troubles import Trouble, trouble_of

__all__ = ["Answers", "Writer"]

_IDLE_SECONDS = 2.0  # without work for so long: the write-ahead log goes into the database file
_PROBE_SECONDS = 1.0  # while nothing can be written: how often it is tried
_CHECKPOINT_BYTES = 16 * 2**20
_TURN_BYTES = 2**20  # of snapshots in one transaction
_TURN_ROWS = 1_000  # that one snapshot cuts; more at the next

_APPEND = "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?)"
_CUT = "DELETE FROM journal WHERE n = ?"
_KEEP = "INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)"


@dataclass(slots=True)
class Answers:
    """Where the thread's answers go: functions that are called on the loop.

    ``commits`` gets what has its outcome, ``snapshots`` what is done with, and ``fatal`` a sentence, once, when nothing will be
    written any more.
    """

    loop: asyncio.AbstractEventLoop
    commits: Callable[[Sequence[Commit]], None]
    snapshots: Callable[[Sequence[Snapshot]], None]
    fatal: Callable[[str], None]


@dataclass(slots=True)
class _Append:
    """A row that a commit comes to, if the transaction does."""

    commit: Commit
    ledger: Ledger
    number: int
    outcome: Committed

    def parameters(self) -> tuple[object, ...]:
        commit = self.commit
        return (
            self.number,
            commit.dashboard_id,
            self.outcome.first_seq,
            commit.numbered,
            commit.operations,
            commit.at,
            commit.row,
        )


class Writer:
    """Runs in the thread that opened ``connection``, and is all that changes ``index``."""

    def __init__(
        self,
        connection: WriteConnection,
        index: Index,
        epoch: str,
        clock: Callable[[], float],
        inbox: SimpleQueue[Task],
        answers: Answers,
        counts: Counts,
    ) -> None:
        self._connection = connection
        self._index = index
        self._epoch = epoch
        self._clock = clock
        self._inbox = inbox
        self._answers = answers
        self._counts = counts
        self._group: list[Commit] = []
        self._waiting: list[Commit] = []
        self._snapshots: list[Snapshot] = []
        self._is_closing = False
        self._has_told = False

    def run(self) -> None:
        """Until a None has come in, and everything before it is written."""
        while not self._is_closing or self._waiting or self._snapshots:
            is_idle = not self._take()
            if self._waiting:
                self._write_group()
            if self._snapshots:
                self._write_snapshots()
            self._look_after(is_idle)
        self._connection.checkpoint("TRUNCATE")

    def fail(self, trouble: Trouble) -> None:
        """Write nothing any more, by a fault of our own; what was in work may have been written."""
        self._connection.trouble = trouble
        for commit in self._group:
            commit.outcome = _refusal(trouble, outcome_unknown=True)
        self._answer()

    def _take(self) -> bool:
        """Accept all that is in the inbox; False if nothing came for as long as it was worth to wait."""
        inbox = self._inbox
        is_busy = bool(self._is_closing or self._waiting or self._snapshots)
        try:
            self._accept(inbox.get(not is_busy, self._patience_seconds()))
        except Empty:
            return is_busy
        while not inbox.empty():
            self._accept(inbox.get())
        return True

    def _patience_seconds(self) -> float | None:
        connection = self._connection
        if connection.trouble is not None:
            return None if connection.has_failed else _PROBE_SECONDS
        return _IDLE_SECONDS if connection.is_dirty else None

    def _accept(self, task: Task) -> None:
        match task:
            case list():
                self._waiting += task
            case Snapshot():
                self._snapshots.append(task)
            case Keys():
                ledger = self._index.ledgers.get(task.dashboard_id)
                if ledger is not None:
                    ledger.recall(task.keys, task.newest)
            case Forget():
                ledger = self._index.ledgers.get(task.dashboard_id)
                if ledger is not None:
                    ledger.forget()
            case None:
                self._is_closing = True

    def _look_after(self, is_idle: bool) -> None:
        connection = self._connection
        if is_idle and connection.trouble is not None:
            connection.probe()
        elif is_idle:
            connection.checkpoint("TRUNCATE")
        elif connection.log_bytes > _CHECKPOINT_BYTES:
            connection.checkpoint("PASSIVE")
        if connection.trouble is not None and connection.trouble.is_fatal and not self._has_told:
            self._has_told = True
            post(self._answers.loop, self._answers.fatal, connection.trouble.sentence)

    def _write_group(self) -> None:
        if self._connection.trouble is not None and self._connection.trouble.is_fatal:
            self._group, self._waiting = self._waiting, []
            for commit in self._group:
                commit.outcome = _refusal(self._connection.trouble)
            self._answer()
            return
        started = time.perf_counter()
        appends = self._judge_group()
        if appends:
            weight = sum([len(append.commit.row) for append in appends])
            trouble = self._connection.write(((_APPEND, [append.parameters() for append in appends]),), weight)
            for append in appends:
                if trouble is None:
                    self._adopt(append)
                else:
                    append.commit.outcome = _refusal(trouble, outcome_unknown=trouble.is_fatal)
            self._counts.groups += 1
            self._counts.commit_seconds += time.perf_counter() - started
        self._answer()

    def _answer(self) -> None:
        """The whole group at once: waking the loop is a system call."""
        post(self._answers.loop, self._answers.commits, self._group)
        self._group = []

    def _judge_group(self) -> list[_Append]:
        """Of each dashboard the first commit that waits: a second one is judged by what the first one has become."""
        now = self._clock()
        ledgers = self._index.ledgers
        number = self._index.newest
        group: dict[str, Commit] = {}
        later = [commit for commit in self._waiting if group.setdefault(commit.dashboard_id, commit) is not commit]
        self._group = list(group.values())
        self._waiting = later
        appends: list[_Append] = []
        outcome: Outcome | Unavailable
        for commit in self._group:
            ledger = ledgers.get(commit.dashboard_id)
            if ledger is None:
                ledger = Ledger()
            commit.at = now
            if commit.seen == ledger.seq and ledger.is_warm and not ledger.knows(commit.keys):
                outcome = Committed(ledger.seq + 1)
            else:
                outcome = self._judge(commit, ledger)
            commit.outcome = outcome
            if isinstance(outcome, Committed) and commit.records:
                number += 1
                appends.append(_Append(commit, ledger, number, outcome))
        return appends

    def _judge(self, commit: Commit, ledger: Ledger) -> Outcome | Unavailable:
        if commit.seen > ledger.seq:
            return NewEpoch(self._epoch)  # who saw more than there is did not see this log
        log = DiskLog(self._connection.sqlite, commit.dashboard_id, self._epoch, ledger)
        try:
            if not ledger.is_warm:
                ledger.recall(log.keys(), self._index.newest)
            judged = judge(log, self._epoch, commit.seen, commit.reads, commit.records, commit.at)
        except sqlite3.Error as error:
            return _refusal(trouble_of(error))
        return Committed(ledger.seq + 1, judged) if judged is None or isinstance(judged, Contents) else judged

    def _adopt(self, append: _Append) -> None:
        commit = append.commit
        ledger = append.ledger
        ledger.append(append.number, commit.numbered, commit.operations, commit.at)
        ledger.remember(append.number, commit.keys)
        self._index.ledgers[commit.dashboard_id] = ledger
        self._index.newest = append.number
        self._index.rows += 1
        self._counts.commits += 1
        self._counts.committed_operations += len(commit.records)

    def _write_snapshots(self) -> None:
        """A few of those that wait, after the commits and apart from them: their failing must harm nobody."""
        count = 0
        weight = 0
        while count < len(self._snapshots) and weight < _TURN_BYTES:
            weight += len(self._snapshots[count].state)
            count += 1
        turn = self._snapshots[:count]
        useful = {snapshot.dashboard_id: snapshot for snapshot in turn if self._is_of_use(snapshot)}
        if useful and not self._connection.has_failed:
            self._keep(useful, weight)
        del self._snapshots[:count]
        post(self._answers.loop, self._answers.snapshots, turn)

    def _keep(self, snapshots: dict[str, Snapshot], weight: int) -> None:
        now = self._clock()
        spare: dict[str, int] = {}
        states = []
        cuts = []
        for dashboard_id, snapshot in snapshots.items():
            ledger = self._index.ledgers[dashboard_id]
            spare[dashboard_id] = min(ledger.spare(snapshot.seq, now), _TURN_ROWS)
            cuts += [(number,) for number in ledger.numbers[: spare[dashboard_id]]]
            states.append((dashboard_id, snapshot.seq, now, snapshot.state))
        # On a full disk the one may make the room that the other needs.
        trouble = self._connection.write(((_CUT, cuts), (_KEEP, states)), weight)
        if trouble is None:
            for dashboard_id, snapshot in snapshots.items():
                ledger = self._index.ledgers[dashboard_id]
                ledger.state_seq = snapshot.seq
                ledger.cut(spare[dashboard_id])
            self._index.rows -= len(cuts)
            self._counts.snapshots += len(snapshots)

    def _is_of_use(self, snapshot: Snapshot) -> bool:
        ledger = self._index.ledgers.get(snapshot.dashboard_id)
        return ledger is not None and ledger.state_seq < snapshot.seq <= ledger.seq


def _refusal(trouble: Trouble, *, outcome_unknown: bool = False) -> Unavailable:
    """A new one for each who is told: an exception that was raised holds on to where that was."""
    return Unavailable(trouble.sentence, outcome_unknown=outcome_unknown)
