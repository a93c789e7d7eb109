"""Any interleaving of clients, sends, retries, crashes and resumes, on two processes with one log, against the naive model.

The promises of PROTOCOL section 5 as invariants: all who saw seq N agree; no acknowledged value is overwritten by another
user's stale edit without a conflict; disjoint fields never conflict; a retry never applies twice; fold(log) equals the state;
snapshot and tail equal the log; a delta equals the difference of two snapshots.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.core.naive import GONE, Naive, author_of, sent
from tests.core.scene import AT, EPOCH, batch, delete, layout, restore, update
from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Author
from tornado_rt.core.draft import Draft
from tornado_rt.core.journal import conflict_record, dump, fold, load, record, text_of
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import (
    Applied,
    Batch,
    Conflict,
    Operation,
    Outcome,
    Refused,
    Replayed,
    Request,
    Resolution,
)
from tornado_rt.errors import ClientFault, NotFound
from tornado_rt.protocol.codec import change

LIMITS = DashboardLimits(max_tombstones=2, layout_history=2)
NOW = 1_000.0

Fate = Outcome | ClientFault
State = dict[str, dict[str, Any]]


@dataclass
class Client:
    """A person at a device: ``picture`` is what it shows, as of ``position``."""

    author: Author
    position: int = 0
    picture: State = field(default_factory=dict)
    pending: list[Request] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)

    def hear(self, said: dict[str, Any]) -> None:
        """Apply one change as it is told on the wire."""
        if said["type"] == "WIDGET_BATCH":
            for inner in said["payload"]["operations"]:
                self.hear(inner)
        else:
            self._apply(said["type"], said["payload"])
        self.position = said["seq"]

    def _apply(self, type_: str, payload: dict[str, Any]) -> None:
        kind = "layout" if "layoutId" in payload else "widget"
        name = f"{kind}:{payload[kind + 'Id']}"
        if type_ == "WIDGET_DELETE":
            self.picture.pop(name)
            return
        whole = type_ == "LAYOUT_RESTORE" or payload.get("replace", False)
        fields = {} if whole else self.picture.get(name, {})
        fields = fields | payload["data" if kind == "widget" else "layout"]
        self.picture[name] = {key: value for key, value in fields.items() if key not in payload.get("unset", ()) or whole}


@dataclass
class Judged:
    """A group that was decided on one draft."""

    draft: Draft
    fates: list[tuple[Client, Request, Fate]]
    records: list[tuple[bool, bytes]]


@dataclass
class Process:
    dashboard: Dashboard
    queue: list[tuple[Client, Request]] = field(default_factory=list)


FIELDS = st.dictionaries(st.sampled_from("abc"), st.sampled_from([0, 1, 1.0, True, None, "x", [1]]), max_size=2)
WHAT = st.sampled_from(["update", "update", "layout", "delete", "restore"])
STYLE = st.sampled_from(["merge", "merge", "unset", "replace"])
EDIT = st.tuples(st.tuples(WHAT, st.sampled_from("uv"), FIELDS), STYLE, st.sampled_from([None, 0, 0, 1, 3, 9]))
WHO = st.integers(0, 2)
WHERE = st.integers(0, 1)


class Dashboards(RuleBasedStateMachine):
    """``log`` is the one truth; ``states[N]`` and ``told[N]`` are what seq N left behind and how it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[int, bytes, float]] = []
        self.told: list[dict[str, Any]] = [{}]
        self.states: list[State] = [{}]
        self.versions: dict[str, int] = {}
        self.naive = Naive(LIMITS.max_tombstones, LIMITS.layout_history)
        self.verdicts: dict[tuple[str, str], tuple[int, bytes | None]] = {}
        self.snapshot = json.dumps(dump(Dashboard(EPOCH)))
        self.ids = 0
        people = [("anna", "laptop"), ("anna", "phone"), ("bert", "desk")]
        self.clients = [Client(Author(*person)) for person in people]
        self.processes = [Process(Dashboard(EPOCH)), Process(Dashboard(EPOCH))]

    @property
    def seq(self) -> int:
        return len(self.states) - 1

    @initialize()
    def begin(self) -> None:
        """Everybody has seen the same dashboard, and nothing was removed yet."""
        everything = {"a": 0, "b": 0, "c": 0}
        for what in ("update", "layout"):
            for target in "uv":
                operation = self.operation(self.clients[0], (what, target, everything), "merge", None)
                self.submit(self.clients[0], 0, operation)
        self.commit(0, is_answer_lost=False)
        for who in range(3):
            self.resume(who, "delta")

    # What clients do

    def operation(self, client: Client, edit: tuple[str, str, dict[str, Any]], style: str, base: int | None) -> Operation:
        what, target, data = edit
        self.ids += 1
        id_ = f"op-{self.ids}"
        if what == "delete":
            return delete(client.author, base, target=target, id=id_)
        if what == "restore":
            version = base if style == "replace" else None
            return replace(restore(client.author, version, base, target=target), id=id_, digest=self.ids)
        unset = tuple(name for name in "cba" if name not in data)[:2] if style == "unset" else ()
        make = layout if what == "layout" else update
        return make(client.author, data, base, target=target, id=id_, unset=unset, replace=style == "replace")

    @rule(edits=st.lists(st.tuples(WHO, EDIT), min_size=1, max_size=6), where=WHERE, is_committed=st.booleans())
    def edit(self, edits: Any, where: int, is_committed: bool) -> None:
        """Edits that began where the client stands or some seqs before, or that do not say when."""
        for who, (what, style, age) in edits:
            client = self.clients[who]
            base = None if age is None else max(0, client.position - age)
            self.submit(client, where, self.operation(client, what, style, base))
        if is_committed:
            self.commit(where, is_answer_lost=False)

    @rule(who=WHO, where=WHERE, edits=st.lists(EDIT, min_size=1, max_size=3), age=st.sampled_from([None, 0, 2]))
    def edit_batch(self, who: int, where: int, edits: Any, age: int | None) -> None:
        client = self.clients[who]
        base = None if age is None else max(0, client.position - age)
        operations = [self.operation(client, what, style, base) for what, style, _ in edits]
        self.ids += 1
        self.submit(client, where, batch(client.author, *operations, id=f"batch-{self.ids}"))

    def submit(self, client: Client, where: int, request: Request) -> None:
        client.pending.append(request)
        self.processes[where].queue.append((client, request))

    @precondition(lambda self: any(client.conflicts for client in self.clients))
    @rule(where=WHERE, is_local=st.booleans())
    def resolve(self, where: int, is_local: bool) -> None:
        """Answer a conflict: the same again on top of the current version, or other fields."""
        client = next(client for client in self.clients if client.conflicts)
        conflict = client.conflicts.pop()
        self.ids += 1
        operation = replace(conflict.operation, base=conflict.current_version, id=None)
        if not is_local and operation.type == "WIDGET_UPDATE":
            operation = replace(operation, data={"a": "merged"}, encoded=b'{"a":"merged"}', unset=(), replace=False)
        self.submit(client, where, Resolution(client.author, f"answer-{self.ids}", self.ids, operation))

    @precondition(lambda self: any(client.pending for client in self.clients))
    @rule(where=WHERE)
    def send_again(self, where: int) -> None:
        """What has no answer yet goes out once more, perhaps to another process."""
        for client in self.clients:
            self.processes[where].queue += [(client, request) for request in client.pending[-3:]]

    @rule(who=WHO, how=st.sampled_from(["delta", "merged"]))
    def resume(self, who: int, how: str) -> None:
        """Come back with ``since``: what was missed, as it was told or merged; a snapshot below the floor."""
        client = self.clients[who]
        dashboard = self.caught_up(self.processes[0])
        before = client.picture
        if client.position < dashboard.floor:
            client.picture = {each.name: each.fields for each in dashboard.living()}
        elif how == "delta":
            for said in self.told[client.position + 1 :]:
                client.hear(said)
        else:
            changed = {each.name: each for each in dashboard.changed_since(client.position)}
            after = self.states[self.seq]
            assert {name for name in before | after if before.get(name) != after.get(name)} <= changed.keys()
            kept = {name: fields for name, fields in before.items() if name not in changed}
            client.picture = kept | {name: each.fields for name, each in changed.items() if each.alive}
        client.position = self.seq

    # What processes do

    @rule(where=WHERE, is_answer_lost=st.booleans())
    def commit(self, where: int, is_answer_lost: bool) -> None:
        process = self.processes[where]
        self.finish(process, self.judge(process), is_answer_lost)

    @rule(first=WHERE, is_answer_lost=st.booleans())
    def race(self, first: int, is_answer_lost: bool) -> None:
        """Both judge before either has written."""
        processes = [self.processes[first], self.processes[1 - first]]
        for process, judged in [(process, self.judge(process)) for process in processes]:
            self.finish(process, judged, is_answer_lost)

    @precondition(lambda self: self.processes[0].queue)
    @rule()
    def fail(self) -> None:
        """The store cannot write: the draft is thrown away, the senders are to try again."""
        process = self.processes[0]
        self.caught_up(process)
        before = dump(process.dashboard)
        self.judge(process)
        assert dump(process.dashboard) == before
        process.queue.clear()

    @rule(where=WHERE, is_quick=st.booleans())
    def crash(self, where: int, is_quick: bool) -> None:
        """Start again from the log, or from the last snapshot, its tail, and the log's verdicts."""
        dashboard = load(json.loads(self.snapshot), EPOCH) if is_quick else Dashboard(EPOCH)
        fold(dashboard, self.log, LIMITS, 0.0)
        self.processes[where] = Process(dashboard)

    @rule(where=WHERE)
    def take_snapshot(self, where: int) -> None:
        self.snapshot = json.dumps(dump(self.processes[where].dashboard))

    def caught_up(self, process: Process) -> Dashboard:
        fold(process.dashboard, self.log, LIMITS, 0.0)
        return process.dashboard

    def judge(self, process: Process) -> Judged:
        """Decide all that waits on one draft, and have the naive model decide the same."""
        if any(base > process.dashboard.seq for _, request in process.queue for base in bases(request)):
            self.caught_up(process)
        draft = Draft(process.dashboard, LIMITS, AT, NOW)
        model = self.naive.copy() if process.dashboard.seq == self.seq else None
        judged = Judged(draft, [], [])
        for client, request in process.queue:
            known = draft.verdict((client.author.user, request.id or ""))
            try:
                fate: Fate = draft.decide(request)
            except ClientFault as fault:
                fate = fault
            assert isinstance(fate, Replayed) == (known is not None) or isinstance(request, Batch)
            if model is not None and not isinstance(fate, Replayed):
                self.agree(model, request, fate, draft)
            judged.fates.append((client, request, fate))
            if isinstance(fate, Applied):
                judged.records.append((True, record(fate)))
            elif isinstance(fate, Conflict):
                payload = json.dumps({"of": request.id}).encode()
                draft.remember(request, 0, conflict=payload)
                judged.records.append((False, conflict_record(fate, payload)))
        return judged

    def agree(self, model: Naive, request: Request, fate: Fate, draft: Draft) -> None:
        """The naive model comes to the same end, and goes on from there."""
        if isinstance(request, Batch):
            trial = model.copy()
            expected = {}
            for index, part in enumerate(request.operations):
                end = naive_end(trial, part, draft.seq + (not isinstance(fate, Applied)))
                if end is not None:
                    expected[index] = end
            blame = fate.blame if isinstance(fate, Refused) else {}
            assert {index: real_end(each) for index, each in blame.items()} == expected
            if isinstance(fate, Applied):
                model.__dict__.update(trial.__dict__)
        else:
            operation = request.operation if isinstance(request, Resolution) else request
            assert operation is not None
            merged = naive_merged(model, operation)
            assert real_end(fate) == naive_end(model, operation, draft.seq)
            assert not isinstance(fate, Applied) or set(fate.merged) == merged
        if isinstance(fate, Applied):
            model.drop(list(fate.dropped))
            assert model.floor == draft.floor

    def finish(self, process: Process, judged: Judged, is_answer_lost: bool) -> None:
        """What a store and a room do: compare what was read, number the entries, tell everybody."""
        dashboard = process.dashboard
        if self.is_stale(judged, dashboard.seq):
            self.caught_up(process)
            judged = self.judge(process)
        is_alone = dashboard.seq == self.seq
        first_seq = self.seq + 1
        self.caught_up(process)
        dashboard.adopt(judged.draft, first_seq)
        seq = self.seq
        for is_numbered, body in judged.records:
            seq += is_numbered
            self.log.append((seq if is_numbered else 0, body, NOW))
        for client, request, fate in judged.fates:
            self.settle(client, request, fate, is_alone)
            if not is_answer_lost and request in client.pending:
                client.pending.remove(request)
        process.queue.clear()
        assert dashboard.seq == self.seq
        assert dump(dashboard) == dump(self.folded()), "fold(log) is not the state"

    def is_stale(self, judged: Judged, seen: int) -> bool:
        """Others have changed since what was read, or answered what is asked here."""
        versions = {name: self.versions.get(name, 0) for name in judged.draft.reads}
        if any(version > max(seen, judged.draft.reads[name]) for name, version in versions.items()):
            return True
        new = [(client, request, fate) for client, request, fate in judged.fates if isinstance(fate, Applied | Conflict)]
        return any((client.author.user, id_) in self.verdicts for client, request, fate in new for id_ in ids_of(request, fate))

    def settle(self, client: Client, request: Request, fate: Fate, is_alone: bool) -> None:
        user = client.author.user
        if isinstance(fate, Applied):
            assert fate.stamp.seq == self.seq + 1
            for operation in fate.changes:
                self.overwrites_nobody(operation)
                self.naive.perform(operation, fate.stamp.seq)
                self.versions[operation.name] = fate.stamp.seq
            if is_alone:
                self.naive.drop(list(fate.dropped))
            else:
                self.naive.drop_known(list(fate.dropped))
            self.states.append(self.naive.state())
            self.told.append(json.loads(change(text_of(self.body_of(fate.stamp.seq)), fate.stamp.seq)))
            for id_ in ids_of(request, fate):
                assert (user, id_) not in self.verdicts, "applied twice"
                self.verdicts[user, id_] = (fate.stamp.seq, None)
        elif isinstance(fate, Conflict):
            self.has_a_reason(fate)
            assert request.id is not None
            self.verdicts[user, request.id] = (0, json.dumps({"of": request.id}).encode())
            client.conflicts.append(fate)
        elif isinstance(fate, Replayed) and request.id in {id_ for _, id_ in self.verdicts}:
            assert (fate.verdict.seq, fate.verdict.conflict) == self.verdicts[user, request.id]

    def body_of(self, seq: int) -> bytes:
        return next(body for number, body, _ in self.log if number == seq)

    def folded(self) -> Dashboard:
        dashboard = Dashboard(EPOCH)
        fold(dashboard, self.log, LIMITS, 0.0)
        return dashboard

    # What must hold

    def overwrites_nobody(self, operation: Operation) -> None:
        """No acknowledged field value is overwritten by another user's stale edit without a conflict."""
        if operation.base is None:
            return
        for name in set(self.naive.touched(operation)) if operation.type != "WIDGET_DELETE" else set("abc"):
            value = self.naive.text(operation.name, name)
            last = self.naive.last(operation.name, name)
            if value == GONE or last is None:
                continue
            is_news = last.seq > operation.base and last.author[0] != operation.author.user
            assert not is_news or sent(operation, name) == value, (operation, last)

    def has_a_reason(self, conflict: Conflict) -> None:
        """Disjoint fields never conflict: each that does was touched by another device after the base, or may have been."""
        operation = conflict.operation
        assert operation.base is not None
        me = author_of(operation.author)
        for name in conflict.fields:
            touches = [each for each in self.naive.events if each.name == operation.name and each.field in (name, None)]
            news = [each for each in touches if each.seq > operation.base and (each.author != me or each.field is None)]
            assert news or operation.base < self.naive.floor, (conflict, touches)

    @invariant()
    def all_who_saw_a_seq_agree(self) -> None:
        for client in self.clients:
            assert client.picture == self.states[client.position]
        for process in self.processes:
            living = {each.name: each.fields for each in process.dashboard.living()}
            assert living == self.states[process.dashboard.seq]
            assert process.dashboard.widgets + process.dashboard.layouts == len(living)
            assert process.dashboard.size >= sum(len(json.dumps(each, separators=(",", ":"))) for each in living.values())

    def teardown(self) -> None:
        """Snapshot and tail equal the log."""
        dashboard = load(json.loads(self.snapshot), EPOCH)
        fold(dashboard, self.log, LIMITS, 0.0)
        assert dump(dashboard) == dump(self.folded())


def bases(request: Request) -> list[int]:
    operations = request.operations if isinstance(request, Batch) else [request]
    leaves = [each.operation if isinstance(each, Resolution) else each for each in operations]
    return [each.base for each in leaves if isinstance(each, Operation) and each.base is not None]


def ids_of(request: Request, fate: Fate) -> list[str]:
    """The ids that an entry answers for; what a batch left out has its own."""
    parts = fate.changes if isinstance(request, Batch) and isinstance(fate, Applied) else ()
    return [each.id for each in (request, *parts) if each.id is not None]


def real_end(fate: Any) -> Any:
    """What became of an operation, in terms that the model has, too."""
    if isinstance(fate, Conflict):
        return set(fate.fields)
    return type(fate) if isinstance(fate, ClientFault) else None


def naive_end(model: Naive, operation: Operation, seq: int) -> Any:
    """What the model makes of an operation; it is performed where nothing stands against it."""
    name = operation.name
    if operation.type == "WIDGET_DELETE" and name not in model.alive:
        return NotFound
    if operation.type == "LAYOUT_RESTORE":
        restored = naive_restoration(model, operation)
        if restored is None:
            return NotFound
        operation = restored
    found = model.collisions(operation, operation.base) if operation.base is not None else None
    if found is None:
        model.perform(operation, seq)
    return found


def naive_merged(model: Naive, operation: Operation) -> set[str]:
    restored = naive_restoration(model, operation) if operation.type == "LAYOUT_RESTORE" else operation
    is_delete = operation.type == "WIDGET_DELETE"
    return set() if restored is None or operation.base is None or is_delete else model.merged(restored, operation.base)


def naive_restoration(model: Naive, operation: Operation) -> Operation | None:
    versions = model.versions.get(operation.name, [])
    wanted = operation.restore
    kept = versions[:-1] if wanted is None else [each for each in versions if each[0] <= wanted]
    return replace(operation, data=kept[-1][1], replace=True) if kept else None


TestDashboards = Dashboards.TestCase
TestDashboards.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)


class LongDashboards(Dashboards):
    """The same, for `make soak`: other examples each time, and longer ones."""


TestDashboardsLong = pytest.mark.timeout(3_600)(pytest.mark.soak(LongDashboards.TestCase))
TestDashboardsLong.settings = settings(max_examples=2_000, stateful_step_count=80, deadline=None)
