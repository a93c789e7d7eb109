"""One dashboard at work: who is in it, what waits to be judged, the batch that is being written, who fell behind.

Asks the rules, then the store, then tells the members; knows neither HTTP nor SQL. Operations wait in ``pending`` while a batch is
being written; when the store is free, all that waits is judged on one draft and committed together (DESIGN: decide late).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tornado_rt.answers import ack_of_results, conflict_payload, duplicate_conflict
from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Author
from tornado_rt.core.draft import Draft
from tornado_rt.core.journal import conflict_record, dump, fold, load, record, text_of
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import Applied, Batch, Conflict, Operation, Replayed, Resolution, Settled
from tornado_rt.errors import ClientFault, Refusal, ServerFault, Unavailable
from tornado_rt.events import Event, Events
from tornado_rt.intake import Item, OpenConflict
from tornado_rt.picture import Picture
from tornado_rt.protocol.codec import broadcast, decode_json, encode_ack, encode_json, encode_message, encode_nack, quote
from tornado_rt.session import Session
from tornado_rt.store.base import Committed, Contents, Duplicate, NewEpoch, Outcome, Record, Stale, Store, Unknown
from tornado_rt.wire import encode_frame

__all__ = ["Hall", "Room", "Submission", "restore"]

MAX_BATCH = 256  # submissions judged and committed together
SNAPSHOT_EVERY = 2_000  # log entries after which the state is written down
FOLD_SLICE = 500  # log entries read back without giving way to others

_background: set[asyncio.Task[None]] = set()  # snapshots on their way; held only so that they are not collected


@dataclass(slots=True)
class Hall:
    """What all rooms share. ``time`` and ``monotonic`` are clocks in seconds, ``timestamp`` the wall clock as ISO 8601."""

    store: Store
    limits: DashboardLimits
    time: Callable[[], float]
    monotonic: Callable[[], float]
    timestamp: Callable[[], str]
    new_id: Callable[[], str]
    events: Events
    on_fault: Callable[[Room, BaseException], None]
    laggards: set[Session] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Submission:
    """One message or POST whose operations are judged in a row. ``message_id`` is what the answer is correlated with.

    ``is_single`` is answered by ACK, CONFLICT_DETECTED or NACK, any other by results. ``done`` is called in place of an answer where
    the sender has no socket.
    """

    author: Author
    items: list[Item]
    session: Session | None = None
    message_id: str | None = None
    is_single: bool = False
    message: Any = None
    done: Callable[[list[Item]], None] | None = None

    def leaves(self) -> list[Item]:
        return self.items if self.is_single else [leaf for item in self.items for leaf in item.leaves()]


class Room:
    """Members and committed state of one dashboard; ``dashboard.seq`` is the last seq that was told."""

    __slots__ = (
        "_held",
        "_snapshot_seq",
        "_task",
        "_unfollow",
        "dashboard",
        "dashboard_id",
        "empty_since",
        "hall",
        "in_flight",
        "members",
        "pending",
        "picture",
    )

    def __init__(self, hall: Hall, dashboard_id: str, dashboard: Dashboard, contents: Contents) -> None:
        self.hall = hall
        self.dashboard_id = dashboard_id
        self.dashboard = dashboard
        self.picture = Picture(dashboard)
        self.members: set[Session] = set()
        self.pending: list[Submission] = []
        self.in_flight: list[Submission] = []
        self.empty_since = hall.monotonic()
        self._snapshot_seq = contents.state_seq
        self.picture.recent.extend((logged.seq, logged.body) for logged in contents.log if logged.seq)
        self._task: asyncio.Task[None] | None = None
        self._held: list[Contents] = []
        self._unfollow = hall.store.follow(dashboard_id, self._follow)

    # Members

    def join(self, session: Session) -> None:
        self.members.add(session)

    def leave(self, session: Session) -> None:
        self.members.discard(session)
        self.hall.laggards.discard(session)
        if not self.members:
            self.empty_since = self.hall.monotonic()

    def falls_behind(self, session: Session) -> None:
        """Its socket is full, with all up to the current seq in it: it is told nothing more until that is through."""
        if session not in self.members:
            return
        self.members.discard(session)
        self.hall.laggards.add(session)
        session.is_behind = True
        session.position = self.dashboard.seq
        session.progress = session.outbox.progress
        session.stuck_since = self.hall.monotonic()
        session.outbox.on_drained = lambda: self._catch_up(session)

    def _catch_up(self, session: Session) -> None:
        """Its socket has drained: one merged message in place of all it missed, then the answers that it is owed."""
        if session not in self.hall.laggards:
            return
        self.hall.laggards.discard(session)
        self.members.add(session)
        session.is_behind = False
        frames = [*self._missed_by(session), *session.owed]
        session.owed = []
        if frames and not session.outbox.send(b"".join(frames)):
            self.falls_behind(session)

    def _missed_by(self, session: Session) -> list[bytes]:
        since = session.position
        if since == self.dashboard.seq and session.epoch == self.dashboard.epoch:
            return []
        if session.epoch == self.dashboard.epoch and self.picture.reaches(since):
            return [self._frame("SYNC_UPDATE", session, self.picture.catch_up(since))]
        session.epoch = self.dashboard.epoch
        return [self._frame("SYNC_RESPONSE", session, self.sync(None, None))]

    def sync(self, since: int | None, epoch: str | None) -> bytes:
        """The payload of SYNC_RESPONSE for somebody at ``since`` of ``epoch``."""
        return self.picture.sync(since, epoch, len(self.members), self.hall.timestamp())

    def _frame(self, type_: str, session: Session, payload: bytes, correlation_id: str | None = None) -> bytes:
        hall = self.hall
        return encode_frame(encode_message(type_, hall.new_id(), hall.timestamp(), session.user, payload, correlation_id))

    @property
    def is_idle(self) -> bool:
        return not self.members and self.is_settled

    @property
    def is_settled(self) -> bool:
        """Everything that was asked has been answered."""
        return not self.pending and self._task is None

    def give_up(self, fault: Refusal) -> None:
        """Answer whatever waits with ``fault``, as far as that is possible; this room will judge nothing more."""
        self._unfollow()
        waiting, self.in_flight, self.pending = [*self.in_flight, *self.pending], [], []
        self._refuse(waiting, fault)

    def evict(self) -> bytes | None:
        """Leave the store to itself; returns the state to be kept as a snapshot, if there is something new in it."""
        self._unfollow()
        return encode_json(dump(self.dashboard)) if self.dashboard.seq > self._snapshot_seq else None

    # Judging and committing

    def submit(self, submission: Submission) -> None:
        """Take operations in. The answer comes when what it says is durable."""
        self.pending.append(submission)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._work())
            self._task.add_done_callback(self._worked)

    async def _work(self) -> None:
        while self.pending:
            self.in_flight = self.pending[:MAX_BATCH]
            del self.pending[:MAX_BATCH]
            await self._process(self.in_flight)
            self.in_flight = []
            self._release()
        self._task = None

    def _worked(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.hall.on_fault(self, error)

    async def _process(self, batch: list[Submission]) -> None:
        """Judge a batch, have it written, tell it. Starts over where another process was faster."""
        hall = self.hall
        while True:
            draft = Draft(self.dashboard, hall.limits, hall.timestamp(), hall.time())
            records = self._judge(batch, draft)
            if not records:
                self._deliver(batch)
                return
            try:
                outcome = await self._commit(draft, records)
            except Unavailable as fault:
                self._refuse(batch, fault)
                return
            match outcome:
                case Committed(first_seq=first_seq, missed=missed):
                    if missed is not None:
                        self._absorb(missed)
                    self.dashboard.adopt(draft, first_seq)
                    self._deliver(batch)
                    self._snapshot_when_due()
                    return
                case Stale(missed=missed):
                    self._absorb(missed)
                case Duplicate(verdicts=verdicts, missed=missed):
                    if missed is not None:
                        self._absorb(missed)
                    known = [(logged.seq, logged.body, logged.at) for logged in verdicts.values()]
                    fold(self.dashboard, known, hall.limits, 0.0)
                case NewEpoch():
                    await self._reopen()

    async def _commit(self, draft: Draft, records: list[Record]) -> Outcome:
        """On *unknown* the very same commit is asked again: its operation keys tell whether it was written."""
        while True:
            outcome = await self.hall.store.commit(
                self.dashboard_id, self.dashboard.epoch, self.dashboard.seq, draft.reads, records
            )
            if not isinstance(outcome, Unknown):
                return outcome

    def _judge(self, batch: list[Submission], draft: Draft) -> list[Record]:
        records: list[Record] = []
        for submission in batch:
            for item in submission.leaves():
                request = item.request
                assert request is not None
                try:
                    outcome = draft.decide(request)
                except ClientFault as fault:
                    item.outcome = fault
                    continue
                item.outcome = outcome
                if type(outcome) is Applied:
                    item.record = record(outcome)
                    records.append(Record(item.record, True, _keys(item), _writes(outcome)))
                elif type(outcome) is Conflict:
                    self._keep_conflict(item, outcome, draft, records)
        return records

    def _keep_conflict(self, item: Item, conflict: Conflict, draft: Draft, records: list[Record]) -> None:
        payload = encode_json(conflict_payload(conflict, f"conflict-{self.hall.new_id()}", draft.at))
        item.conflict = payload
        if conflict.request.id is not None:
            draft.remember(conflict.request, 0, conflict=payload)
            records.append(Record(conflict_record(conflict, payload), False, _keys(item)))

    def _refuse(self, batch: list[Submission], fault: Refusal) -> None:
        """Nothing was written: the draft is thrown away, and everybody in the batch is told so."""
        for submission in batch:
            for item in submission.leaves():
                item.outcome = fault
        self._deliver(batch)

    # Telling

    def _deliver(self, batch: list[Submission]) -> None:
        """Tell members what changed and senders what became of it, in the order of the seqs, with one send each.

        ``frames`` is what others hear of it, piece by piece; ``answers`` what the piece's sender hears in its place.
        """
        senders: dict[Session | None, list[int]] = {submission.session: [] for submission in batch}
        members = self.members
        tells_others = bool(members) and (len(members) > 1 or len(senders) > 1 or members.isdisjoint(senders))
        frames: list[bytes] = []
        answers: list[bytes] = []
        for submission in batch:
            first = len(frames)
            if submission.is_single:
                self._tell_single(submission, tells_others, frames, answers)
            else:
                self._tell_several(submission, tells_others, frames, answers)
            senders[submission.session].extend(range(first, len(frames)))
        sockets = {session: mine for session, mine in senders.items() if session is not None}
        self._send(frames, answers, sockets, tells_others)
        if not self.hall.events.is_idle:
            self._emit(batch)

    def _send(self, frames: list[bytes], answers: list[bytes], senders: dict[Session, list[int]], tells_others: bool) -> None:
        full: list[Session] = []
        everything = b"".join(frames) if tells_others else b""
        if everything:
            for member in tuple(self.members):
                if member not in senders and not member.outbox.send(everything):
                    full.append(member)
        for sender, mine in senders.items():
            if sender.is_behind or sender not in self.members:
                sender.owed.extend([answers[index] for index in mine])
                continue
            pieces = frames.copy()
            for index in mine:
                pieces[index] = answers[index]
            if not sender.outbox.send(b"".join(pieces)):
                full.append(sender)
        for member in full:
            self.falls_behind(member)

    def _tell_single(self, submission: Submission, tells_others: bool, frames: list[bytes], answers: list[bytes]) -> None:
        item = submission.items[0]
        outcome = item.outcome
        session = submission.session
        if type(outcome) is not Applied:
            frames.append(b"")
            answers.append(b"" if session is None else encode_frame(self._answer(submission, item, session)))
        else:
            frames.append(self._told(item, outcome, tells_others))
            answers.append(b"" if session is None else encode_frame(self._ack(submission, outcome.stamp.seq, outcome.merged)))
        if submission.done is not None:
            submission.done(submission.items)

    def _tell_several(self, submission: Submission, tells_others: bool, frames: list[bytes], answers: list[bytes]) -> None:
        """The sender hears nothing of each, then one answer with everything in it."""
        leaves = submission.leaves()
        for item in leaves:
            if type(item.outcome) is Applied:
                frames.append(self._told(item, item.outcome, tells_others))
                answers.append(b"")
        session = submission.session
        if session is not None:
            frames.append(b"")
            answers.append(encode_frame(self._answer_to_several(submission, leaves, session)))
        if submission.done is not None:
            submission.done(submission.items)

    def _told(self, item: Item, applied: Applied, tells_others: bool) -> bytes:
        seq = applied.stamp.seq
        self.picture.recent.append((seq, item.record))
        return encode_frame(broadcast(text_of(item.record), seq, self.dashboard.epoch)) if tells_others else b""

    def _ack(self, submission: Submission, seq: int, merged: tuple[str, ...] = (), duplicate: bool = False) -> bytes:
        hall = self.hall
        correlation = None if submission.message_id is None else quote(submission.message_id)
        is_resolution = isinstance(submission.items[0].request, Resolution)
        user = submission.author.user_json
        return encode_ack(hall.new_id(), hall.timestamp(), user, correlation, seq, merged, duplicate, is_resolution)

    def _answer(self, submission: Submission, item: Item, session: Session) -> bytes:
        """What the sender of one operation hears, where it was not simply applied."""
        match item.outcome:
            case Settled(version=version):
                return self._ack(submission, version)
            case Replayed(verdict=verdict) if verdict.conflict is None:
                return self._ack(submission, verdict.seq, verdict.merged, duplicate=True)
            case Replayed(request=request, verdict=verdict):
                assert verdict.conflict is not None
                said = decode_json(verdict.conflict)
                operation = request.operation if isinstance(request, Resolution) else request
                if isinstance(operation, Operation):
                    self._open_conflict(session, said["conflictId"], operation, said["currentVersion"])
                payload = duplicate_conflict(verdict.conflict)
                return self._message("CONFLICT_DETECTED", submission, payload)
            case Conflict() as conflict:
                assert item.conflict is not None
                said = decode_json(item.conflict)
                if conflict.resolved is None:
                    self._open_conflict(session, said["conflictId"], conflict.operation, conflict.current_version)
                return self._message("CONFLICT_DETECTED", submission, item.conflict)
            case Refusal() as refusal:
                return self._nack(submission, refusal)
            case outcome:
                raise AssertionError(f"no single operation ends in {outcome!r}")

    def _open_conflict(self, session: Session, conflict_id: str, operation: Operation, current_version: int) -> None:
        session.open_conflict(conflict_id, OpenConflict(operation, current_version, 0.0), self.hall.monotonic())

    def _answer_to_several(self, submission: Submission, leaves: list[Item], session: Session) -> bytes:
        """One ACK with all results; but a NACK where nothing could be judged, or a batch was refused for itself."""
        first = leaves[0].outcome if leaves else None
        is_one_batch = len(leaves) == 1 and isinstance(leaves[0].request, Batch) and leaves[0].id is None
        if isinstance(first, ServerFault) or (is_one_batch and isinstance(first, Refusal)):
            return self._nack(submission, first)
        for item in leaves:
            if isinstance(item.outcome, Conflict) and item.conflict is not None:
                conflict_id = decode_json(item.conflict)["conflictId"]
                self._open_conflict(session, conflict_id, item.outcome.operation, item.outcome.current_version)
        return self._message("ACK", submission, ack_of_results(submission.items, self.hall.timestamp()))

    def _message(self, type_: str, submission: Submission, payload: bytes) -> bytes:
        hall = self.hall
        return encode_message(type_, hall.new_id(), hall.timestamp(), submission.author.user, payload, submission.message_id)

    def _nack(self, submission: Submission, refusal: Refusal) -> bytes:
        hall = self.hall
        return encode_nack(hall.new_id(), hall.timestamp(), submission.author.user, submission.message_id, refusal)

    def _emit(self, batch: list[Submission]) -> None:
        for submission in batch:
            for item in submission.leaves():
                for name in _event_names(item):
                    self.hall.events.emit(
                        Event(
                            name,
                            submission.session.id if submission.session is not None else None,
                            submission.author.user,
                            self.dashboard_id,
                            submission.message,
                        )
                    )

    # What other processes wrote

    def _follow(self, contents: Contents) -> None:
        """Told by the store; held back while a commit of our own is on its way, whose answer may come first."""
        self._held.append(contents)
        if not self.in_flight:
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for contents in held:
            self._absorb(contents)

    def _absorb(self, missed: Contents) -> None:
        """Apply what others committed, seq after seq, and tell it to the members."""
        fresh = [logged for logged in missed.log if logged.seq > self.dashboard.seq]
        verdicts = [(0, logged.body, logged.at) for logged in missed.log if logged.seq == 0]
        fold(self.dashboard, [*verdicts, *((logged.seq, logged.body, logged.at) for logged in fresh)], self.hall.limits, 0.0)
        frames = []
        for logged in fresh:
            self.picture.recent.append((logged.seq, logged.body))
            frames.append(encode_frame(broadcast(text_of(logged.body), logged.seq, self.dashboard.epoch)))
        if frames:
            self._send(frames, [], {}, True)

    async def _reopen(self) -> None:
        """The log is another one now: take it as it is, and show everybody the whole of it."""
        contents = await self.hall.store.open(self.dashboard_id)
        self.dashboard = await restore(contents, self.hall.limits, self.hall.time())
        self.picture = Picture(self.dashboard)
        for session in tuple(self.members):
            session.epoch = self.dashboard.epoch
            session.send_frames(self._frame("SYNC_RESPONSE", session, self.sync(None, None)))

    # Keeping

    def _snapshot_when_due(self) -> None:
        if self.dashboard.seq - self._snapshot_seq < SNAPSHOT_EVERY:
            return
        seq = self._snapshot_seq = self.dashboard.seq
        state = encode_json(dump(self.dashboard))
        task = asyncio.get_running_loop().create_task(self.hall.store.snapshot(self.dashboard_id, seq, state))
        _background.add(task)
        task.add_done_callback(_background.discard)


async def restore(contents: Contents, limits: DashboardLimits, now: float) -> Dashboard:
    """The dashboard that a store's contents fold to; the loop gets its turn between slices of a long log."""
    dashboard = load(decode_json(contents.state), contents.epoch) if contents.state is not None else Dashboard(contents.epoch)
    log = contents.log
    for start in range(0, len(log), FOLD_SLICE):
        part = log[start : start + FOLD_SLICE]
        fold(dashboard, [(each.seq, each.body, each.at) for each in part], limits, now - limits.verdict_seconds)
        await asyncio.sleep(0)
    return dashboard


def _keys(item: Item) -> tuple[str, ...]:
    """Operation keys for the store: ``user`` and id, joined by a sign that neither may contain."""
    request = item.request
    assert request is not None
    ids = [request.id]
    if isinstance(request, Batch):
        ids += [each.id for each in request.operations]
    return tuple([f"{request.author.user}\x1e{id_}" for id_ in ids if id_ is not None])


def _writes(applied: Applied) -> tuple[str, ...]:
    return tuple([f"{change.kind}:{change.target}" for change in applied.changes])


_EVENT_OF = {
    "WIDGET_UPDATE": "widget:updated",
    "WIDGET_DELETE": "widget:deleted",
    "LAYOUT_UPDATE": "layout:updated",
    "LAYOUT_RESTORE": "layout:restored",
}


def _event_names(item: Item) -> list[str]:
    outcome = item.outcome
    if isinstance(outcome, Conflict):
        return ["conflict:detected"]
    if isinstance(outcome, Settled):
        return ["conflict:resolved"]
    if not isinstance(outcome, Applied):
        return []
    if isinstance(outcome.request, Batch):
        return ["widget:batch"]
    names = [_EVENT_OF[outcome.changes[0].type]]
    return ["conflict:resolved", *names] if isinstance(outcome.request, Resolution) else names
