"""One dashboard at work: who is in it, what waits to be judged, the batch that is being written, who fell behind.

Asks the rules, then the store, then tells the members; knows neither HTTP nor SQL. Operations wait in ``pending`` while a batch
is being written; when the store is free, all that waits is judged on one draft and committed together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Sequence

from tornado_rt.answers import conflict_payload
from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.draft import Draft
from tornado_rt.core.journal import conflict_record, dump, fold, load, record, text_of
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import Applied, Batch, Conflict, Operation, Request, Resolution, Settled
from tornado_rt.errors import ClientFault, Refusal, Unavailable
from tornado_rt.events import Event
from tornado_rt.intake import Item
from tornado_rt.picture import Picture
from tornado_rt.protocol.codec import broadcast, decode_json, encode_json, encode_message
from tornado_rt.session import Session
from tornado_rt.store.base import Committed, Contents, Duplicate, Logged, NewEpoch, Outcome, Record, Stale, Unknown
from tornado_rt.submission import Hall, Submission
from tornado_rt.telling import Telling
from tornado_rt.wire import encode_frame

__all__ = ["Room", "restore"]

MAX_BATCH = 256  # submissions judged and committed together
SNAPSHOT_EVERY = 2_000  # log entries after which the state is written down
FOLD_SLICE = 500  # log entries read back without giving way to others

_background: set[asyncio.Task[None]] = set()  # snapshots on their way; held only so that they are not collected


class Room:
    """Members and committed state of one dashboard; ``dashboard.seq`` is the last seq that was told."""

    __slots__ = (
        "_held",
        "_snapshot_seq",
        "_unfollow",
        "dashboard",
        "dashboard_id",
        "empty_since",
        "hall",
        "in_flight",
        "members",
        "pending",
        "picture",
        "population",
        "task",
    )

    def __init__(self, hall: Hall, dashboard_id: str, dashboard: Dashboard, contents: Contents) -> None:
        self.hall = hall
        self.dashboard_id = dashboard_id
        self.dashboard = dashboard
        self.picture = Picture(dashboard)
        self.members: set[Session] = set()
        self.pending: list[Submission] = []
        self.in_flight: list[Submission] = []
        self.population = 0  # members, and those who are behind
        self.empty_since = hall.monotonic()
        self._snapshot_seq = contents.state_seq
        self.picture.recent.extend((logged.seq, logged.body) for logged in contents.log if logged.seq)
        self.task: asyncio.Task[None] | None = None
        self._held: list[Contents] = []
        self._unfollow = hall.store.follow(dashboard_id, self._follow)

    # Members

    def join(self, session: Session) -> None:
        self.population += 1
        self.members.add(session)

    def leave(self, session: Session) -> None:
        self.members.discard(session)
        self.hall.laggards.discard(session)
        self.population -= 1
        if not self.population:
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
        return self.picture.sync(since, epoch, self.population, self.hall.timestamp())

    def _frame(self, type_: str, session: Session, payload: bytes, correlation_id: str | None = None) -> bytes:
        hall = self.hall
        return encode_frame(encode_message(type_, hall.new_id(), hall.timestamp(), session.user, payload, correlation_id))

    @property
    def is_idle(self) -> bool:
        return not self.population and self.is_settled

    @property
    def is_settled(self) -> bool:
        """Everything that was asked has been answered."""
        return not self.pending and self.task is None

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
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._work())
            self.task.add_done_callback(self._worked)

    async def _work(self) -> None:
        while self.pending:
            self.in_flight = self.pending[:MAX_BATCH]
            del self.pending[:MAX_BATCH]
            for submission in self.in_flight:
                if submission.session is not None:
                    submission.session.pace.waiting -= 1
            await self._process(self.in_flight)
            self.in_flight = []
            self._release()
        self.task = None

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
        decide = draft.decide
        is_shared = self.hall.store.is_shared
        for submission in batch:
            for item in submission.items if submission.is_single else submission.leaves():
                try:
                    item.outcome = outcome = decide(item.request)  # type: ignore[arg-type]
                except ClientFault as fault:
                    item.outcome = fault
                    continue
                if type(outcome) is Applied:
                    item.record = body = record(outcome)
                    records.append(
                        Record(body, True, _keys(outcome.request, outcome.changes), _writes(outcome))
                        if is_shared
                        else Record(body)
                    )
                elif type(outcome) is Conflict:
                    self._keep_conflict(item, outcome, draft, records)
        return records

    def _keep_conflict(self, item: Item, conflict: Conflict, draft: Draft, records: list[Record]) -> None:
        payload = encode_json(conflict_payload(conflict, f"conflict-{self.hall.new_id()}", draft.at))
        item.conflict = payload
        if conflict.request.id is not None:
            draft.remember(conflict.request, 0, conflict=payload)
            records.append(Record(conflict_record(conflict, payload), False, _keys(conflict.request)))

    def _refuse(self, batch: list[Submission], fault: Refusal) -> None:
        """Nothing was written: the draft is thrown away, and everybody in the batch is told so."""
        for submission in batch:
            for item in submission.leaves():
                item.outcome = fault
        self._deliver(batch)

    # Telling

    def _deliver(self, batch: list[Submission]) -> None:
        """Tell members what changed and senders what became of it, in the order of the seqs, with one send each."""
        senders: dict[Session | None, list[int]] = {submission.session: [] for submission in batch}
        members = self.members
        tells_others = bool(members) and (len(members) > 1 or len(senders) > 1 or members.isdisjoint(senders))
        telling = Telling(self.hall, self.picture, tells_others)
        frames = telling.frames
        for submission in batch:
            first = len(frames)
            telling.tell(submission)
            senders[submission.session].extend(range(first, len(frames)))
        for session, mine in senders.items():
            if session is not None:
                self._answer(session, mine, telling)
        if tells_others:
            self._send(b"".join(frames), senders)
        if not self.hall.events.is_idle:
            self._emit(batch)

    def _answer(self, sender: Session, mine: list[int], telling: Telling) -> None:
        """A sender hears what everybody hears, but of its own pieces the answer."""
        answers = [telling.answers[index] for index in mine]
        if sender not in self.members:
            sender.owed.extend(answers)  # behind, or gone
            return
        if len(mine) < len(telling.frames):
            pieces = telling.frames.copy()
            for index, answer in zip(mine, answers, strict=True):
                pieces[index] = answer
            answers = pieces
        if not sender.outbox.send(b"".join(answers)):
            self.falls_behind(sender)

    def _send(self, data: bytes, senders: Container[Session | None]) -> None:
        """The same bytes to every member that is no sender."""
        full = []
        if data:
            for member in self.members:
                if member not in senders and not member.outbox.send(data):
                    full.append(member)
        for member in full:
            self.falls_behind(member)

    def _emit(self, batch: list[Submission]) -> None:
        for submission in batch:
            if submission.session is not None and submission.message.type == "SYNC_UPDATE":
                self.hall.events.emit(submission.session.event("sync:updated", submission.message))
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
        if missed.epoch != self.dashboard.epoch or (missed.state is not None and missed.state_seq > self.dashboard.seq):
            self._replace(rebuild(missed, self.hall.limits, self.hall.time()))
            return
        fresh = [logged for logged in missed.log if logged.seq > self.dashboard.seq]
        verdicts = [(0, logged.body, logged.at) for logged in missed.log if logged.seq == 0]
        fold(self.dashboard, [*verdicts, *((logged.seq, logged.body, logged.at) for logged in fresh)], self.hall.limits, 0.0)
        frames = []
        for logged in fresh:
            self.picture.recent.append((logged.seq, logged.body))
            frames.append(encode_frame(broadcast(text_of(logged.body), logged.seq, self.dashboard.epoch)))
        if frames:
            self._send(b"".join(frames), ())

    async def _reopen(self) -> None:
        """The log is another one now: take it as it is, and show everybody the whole of it."""
        contents = await self.hall.store.open(self.dashboard_id)
        self._replace(await restore(contents, self.hall.limits, self.hall.time()))

    def _replace(self, dashboard: Dashboard) -> None:
        """Go on from another state: of a new epoch, or too far ahead to be told step by step."""
        before, self.dashboard = self.dashboard, dashboard
        self.picture = Picture(dashboard)
        for session in tuple(self.members):
            session.position = before.seq
            for frame in self._missed_by(session):
                session.send_frames(frame)

    # Keeping

    def _snapshot_when_due(self) -> None:
        if self.dashboard.seq - self._snapshot_seq < SNAPSHOT_EVERY:
            return
        seq = self._snapshot_seq = self.dashboard.seq
        state = encode_json(dump(self.dashboard))
        task = asyncio.get_running_loop().create_task(self.hall.store.snapshot(self.dashboard_id, seq, state))
        _background.add(task)
        task.add_done_callback(_forget)


def _forget(task: asyncio.Task[None]) -> None:
    """A snapshot that failed is no harm: the log has it all, and the next one is tried in its time."""
    _background.discard(task)
    if not task.cancelled():
        task.exception()


async def restore(contents: Contents, limits: DashboardLimits, now: float) -> Dashboard:
    """The dashboard that a store's contents fold to; the loop gets its turn between slices of a long log."""
    dashboard = _begin(contents)
    for start in range(0, len(contents.log), FOLD_SLICE):
        _fold(dashboard, contents.log[start : start + FOLD_SLICE], limits, now)
        await asyncio.sleep(0)
    return dashboard


def rebuild(contents: Contents, limits: DashboardLimits, now: float) -> Dashboard:
    """The same in one go."""
    dashboard = _begin(contents)
    _fold(dashboard, contents.log, limits, now)
    return dashboard


def _begin(contents: Contents) -> Dashboard:
    return load(decode_json(contents.state), contents.epoch) if contents.state is not None else Dashboard(contents.epoch)


def _fold(dashboard: Dashboard, log: list[Logged], limits: DashboardLimits, now: float) -> None:
    fold(dashboard, [(each.seq, each.body, each.at) for each in log], limits, now - limits.verdict_seconds)


def _keys(request: Request, changes: Sequence[Operation] = ()) -> tuple[str, ...]:
    """Operation keys for the store: ``user`` and id, joined by a sign that neither may contain.

    A batch answers for its own id and for what it changed; what of it was applied before has a record that answers for it.
    """
    ids = [request.id]
    if isinstance(request, Batch):
        ids += [each.id for each in changes]
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
