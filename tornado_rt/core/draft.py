"""Where operations are judged: on a copy-on-write draft, one after the other, against what is committed plus what the draft has
accepted so far. Knows no store, no wire and no clock: time is handed in.

A draft is adopted as a whole or thrown away as a whole, so there is nothing here that undoes anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from tornado_rt.core.conflict import Collision, judge_delete, judge_update, other_changes
from tornado_rt.core.dashboard import Dashboard, Tombstone
from tornado_rt.core.document import Document, Stamp, json_size
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import (
    Applied,
    Batch,
    Change,
    Conflict,
    Operation,
    Outcome,
    Refused,
    Replayed,
    Request,
    Resolution,
    Settled,
    Verdict,
)
from tornado_rt.errors import ClientFault, ConflictUnknown, IdReused, InvalidMessage, LimitExceeded, NotFound

__all__ = ["Draft"]


class Draft:
    """What a dashboard would be if the operations decided here were committed.

    ``at`` is the time as ISO 8601 for what is written, ``now`` the same in seconds for the age of verdicts. ``stamps`` lists what
    was accepted, one each; ``reads`` the version of every document that a decision looked at, as of the committed state (0: none).
    """

    __slots__ = (
        "at",
        "committed_seq",
        "documents",
        "dropped",
        "epoch",
        "floor",
        "layouts",
        "limits",
        "now",
        "parent",
        "reads",
        "seq",
        "size",
        "stamps",
        "tombstones",
        "verdicts",
        "widgets",
    )

    def __init__(self, parent: Dashboard | Draft, limits: DashboardLimits, at: str, now: float) -> None:
        self.parent = parent
        self.limits = limits
        self.at = at
        self.now = now
        self.epoch: str = parent.epoch
        self.seq: int = parent.seq
        self.committed_seq: int = parent.committed_seq if isinstance(parent, Draft) else parent.seq
        self.floor: int = parent.floor
        self.widgets: int = parent.widgets
        self.layouts: int = parent.layouts
        self.size: int = parent.size
        self.documents: dict[str, Document | None] = {}
        self.tombstones: dict[Tombstone, Stamp] | None = None
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.reads: dict[str, int] = {}
        self.stamps: list[Stamp] = []
        self.dropped: list[Tombstone] = []

    # What is there now

    def view(self, name: str) -> Document | None:
        if name in self.documents:
            return self.documents[name]
        document = self.parent.view(name)
        if name not in self.reads:
            self.reads[name] = document.stamp.seq if document is not None else 0
        return document

    def names(self) -> Iterator[str]:
        yield from self.documents
        yield from (name for name in self.parent.names() if name not in self.documents)

    def verdict(self, key: tuple[str, str]) -> Verdict | None:
        return self.verdicts.get(key) or self.parent.verdict(key)

    # Deciding

    def decide(self, request: Request) -> Outcome:
        """Judge one request and, if it is applied, make it part of the draft.

        Raises ``ClientFault`` if it cannot be judged at all; the draft is then as before. A conflict leaves it as before too; whoever
        keeps its verdict says so with ``remember``.
        """
        known = self._replayed(request)
        if known is not None:
            return known
        if isinstance(request, Batch):
            return self._decide_batch(request)
        operation: Operation
        if isinstance(request, Resolution):
            if not request.known:
                raise ConflictUnknown("this conflict is not known here; send the resolution with the document's id and baseVersion")
            if request.operation is None:
                return Settled(request, request.version)
            operation = request.operation
        else:
            operation = request
        stamp = Stamp(self.seq + 1, request.author, self.at)
        done = self._apply(operation, stamp)
        if isinstance(done, Collision):
            return self._conflict(request, operation, done)
        change, merged = done
        return self._accept(request, stamp, (change,), merged)

    def remember(self, request: Request, seq: int, merged: tuple[str, ...] = (), conflict: bytes | None = None) -> None:
        """Keep a verdict for the request's retries; without an id it cannot be repeated, nor remembered."""
        if request.id is not None:
            verdict = Verdict(request.digest, seq, merged, conflict, self.now)
            self.verdicts[(request.author.user, request.id)] = verdict

    def _replayed(self, request: Request) -> Replayed | None:
        if request.id is None:
            return None
        verdict = self.verdict((request.author.user, request.id))
        if verdict is None or self.now - verdict.at > self.limits.verdict_seconds:
            return None
        if verdict.digest != request.digest:
            raise IdReused("this id was used before, by you, for an operation with other content")
        return Replayed(request, verdict)

    def _accept(self, request: Request, stamp: Stamp, changes: tuple[Change, ...], merged: tuple[str, ...]) -> Applied:
        self.seq = stamp.seq
        self.stamps.append(stamp)
        self.remember(request, stamp.seq, merged)
        dropped: tuple[Tombstone, ...] = ()
        if self.dropped:
            dropped = tuple(self.dropped)
            self.dropped = []
        return Applied(request, stamp, changes, merged, dropped)

    def _conflict(self, request: Request, operation: Operation, collision: Collision) -> Conflict:
        automatic: Conflict = Conflict(
            request, operation, collision.fields, collision.document, collision.current_version, collision.newest
        )
        if self.limits.conflict_strategy == "remote-wins":
            automatic.resolved = "remote"
        return automatic

    def _decide_batch(self, batch: Batch) -> Outcome:
        """All or none, with one seq (PROTOCOL section 3, WIDGET_BATCH)."""
        trial = Draft(self, self.limits, self.at, self.now)
        stamp = Stamp(self.seq + 1, batch.author, self.at)
        blame: dict[int, Conflict | Replayed | ClientFault] = {}
        changes: list[Change] = []
        merged: dict[str, None] = {}
        replayed: Replayed | None = None
        for index, operation in enumerate(batch.operations):
            try:
                known = trial._replayed(operation)
                if known is not None:
                    replayed = known
                    if known.verdict.conflict is not None:
                        blame[index] = known
                    continue
                done = trial._apply(operation, stamp)
            except ClientFault as fault:
                blame[index] = fault
                continue
            if isinstance(done, Collision):
                blame[index] = trial._conflict(operation, operation, done)
                continue
            changes.append(done[0])
            merged.update(dict.fromkeys(done[1]))
            trial.remember(operation, stamp.seq, done[1])
        if blame:
            self.reads.update(trial.reads)
            return Refused(batch, blame)
        if not changes and replayed is not None:
            return Replayed(batch, replayed.verdict)
        self._absorb(trial)
        return self._accept(batch, stamp, tuple(changes), tuple(merged))

    def _absorb(self, trial: Draft) -> None:
        self.documents.update(trial.documents)
        self.verdicts.update(trial.verdicts)
        for name, version in trial.reads.items():
            self.reads.setdefault(name, version)
        if trial.tombstones is not None:
            self.tombstones = trial.tombstones
            self.floor = trial.floor
        self.widgets = trial.widgets
        self.layouts = trial.layouts
        self.size = trial.size
        self.dropped.extend(trial.dropped)

    # Judging and applying one operation

    def _apply(self, operation: Operation, stamp: Stamp) -> Collision | tuple[Change, tuple[str, ...]]:
        document = self.view(operation.name)
        base = self._base(operation)
        if operation.type == "WIDGET_DELETE":
            return self._delete(operation, document, base, stamp)
        if operation.type == "LAYOUT_RESTORE":
            operation = self._restoration(operation, document)
        merged: tuple[str, ...] = ()
        if base is not None and (document is None or document.stamp.seq > base or base < self.floor):
            collision = judge_update(operation, document, base, self.floor)
            if collision is not None:
                return collision
            merged = other_changes(operation, document, base)
        self._check_limits(operation, document)
        self.write(operation, stamp)
        return _change_of(operation), merged

    def _base(self, operation: Operation) -> int | None:
        base = operation.base
        limits = self.limits
        if base is None or not limits.conflict_detection:
            return None
        if operation.base_epoch is not None and operation.base_epoch != self.epoch:
            base = 0
        elif base > self.committed_seq:
            raise InvalidMessage(
                "baseVersion lies beyond what the dashboard has come to",
                details=(("payload.baseVersion", f"at most {self.committed_seq}, the dashboard's seq"),),
            )
        return None if limits.conflict_strategy == "local-wins" else base

    def _delete(
        self, operation: Operation, document: Document | None, base: int | None, stamp: Stamp
    ) -> Collision | tuple[Change, tuple[str, ...]]:
        if document is None or not document.alive:
            raise NotFound("there is no such widget")
        if base is not None and document.stamp.seq > base:
            collision = judge_delete(operation, document, base)
            if collision is not None:
                return collision
        self.delete(operation.name, stamp)
        return _change_of(operation), ()

    def _restoration(self, operation: Operation, document: Document | None) -> Operation:
        """LAYOUT_RESTORE as the update that it comes down to: the whole of an earlier version (PROTOCOL section 3)."""
        history = document.history if document is not None else []
        wanted = operation.restore
        if wanted is not None and wanted > self.committed_seq:
            raise InvalidMessage("version lies beyond what the dashboard has come to", details=(("payload.version", "too high"),))
        if wanted is None:
            kept = history[:-1]
        else:
            kept = [version for version in history if version[0].seq <= wanted]
        if not kept:
            raise NotFound("this version of the layout is not kept")
        stamp, fields = kept[-1]
        return Operation(
            "LAYOUT_RESTORE",
            "layout",
            operation.target,
            operation.author,
            operation.id,
            operation.digest,
            data=fields,
            encoded=json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode(),
            replace=True,
            restore=stamp.seq,
        )

    def _check_limits(self, operation: Operation, document: Document | None) -> None:
        limits = self.limits
        before = 0
        fields = len(operation.data)
        size = len(operation.encoded)
        if document is None or not document.alive:
            is_widget = operation.kind == "widget"
            most, count = (limits.max_widgets, self.widgets) if is_widget else (limits.max_layouts, self.layouts)
            if most and count >= most:
                raise LimitExceeded(f"a dashboard holds at most {most} {operation.kind}s")
        else:
            before = document.size
            if not operation.replace:
                fields += len(document.fields)
                size += before
        if limits.max_fields and fields > limits.max_fields:
            self._check_fields(operation, document)
        if limits.max_document_bytes and size > limits.max_document_bytes:
            size = self._exact_size(operation, document)
            if size > limits.max_document_bytes:
                raise _too_large(operation, f"a document holds at most {limits.max_document_bytes} bytes of JSON")
        if limits.max_dashboard_bytes and self.size + size - before > limits.max_dashboard_bytes:
            self._weigh()
            before = document.size if document is not None and document.alive else 0
            if self.size - before + self._exact_size(operation, document) > limits.max_dashboard_bytes:
                raise _too_large(operation, f"a dashboard holds at most {limits.max_dashboard_bytes} bytes of JSON")

    def _check_fields(self, operation: Operation, document: Document | None) -> None:
        names: set[str] = set(operation.data)
        if document is not None and not operation.replace:
            names |= document.fields.keys() - set(operation.unset)
        if len(names) > self.limits.max_fields:
            raise _too_large(operation, f"a document has at most {self.limits.max_fields} fields")

    def _exact_size(self, operation: Operation, document: Document | None) -> int:
        if document is None or operation.replace:
            return json_size(operation.data)
        fields = {**document.fields, **operation.data}
        for name in operation.unset:
            fields.pop(name, None)
        return json_size(fields)

    def _weigh(self) -> None:
        """Replace the upper bounds by the real sizes; only documents changed since the last time are encoded for it."""
        documents = map(self.view, list(self.names()))
        self.size = sum(document.weigh() for document in documents if document is not None and document.alive)

    # Writing; also used when the log is folded, where nothing is judged

    def write(self, operation: Operation, stamp: Stamp) -> None:
        """Set, unset or replace fields, and bring the document to life where it is not."""
        document = self._own(operation, stamp)
        if not document.alive:
            self._enliven(document)
        fields, stamps, name = document.fields, document.stamps, operation.name
        if len(stamps) > len(fields):
            self._exhume(name, (field for field in operation.data if field in stamps and field not in fields))
        removed: Iterable[str] = operation.unset
        if operation.replace:
            removed = [field for field in stamps if field not in operation.data]
            self.size -= document.size
            document.size = 0
        fields.update(operation.data)
        for field in operation.data:
            stamps[field] = stamp
        for field in removed:
            if field in stamps:
                fields.pop(field, None)
                stamps[field] = stamp
                self._bury((name, field), stamp)
        document.size += len(operation.encoded)
        self.size += len(operation.encoded)
        document.is_exact = False
        document.stamp = stamp
        if document.kind == "layout":
            self._keep_version(document)
        if self.tombstones is not None:
            self._drop_tombstones()

    def delete(self, name: str, stamp: Stamp) -> None:
        document = self._own(name, stamp)
        self.size -= document.size
        self._exhume(name, (field for field in document.stamps if field not in document.fields))
        document.fields = {}
        document.stamps = {}
        document.size = 0
        document.is_exact = True
        document.alive = False
        document.died = document.stamp = stamp
        self.widgets -= 1
        self._bury((name, None), stamp)
        self._drop_tombstones()

    def drop(self, tombstone: Tombstone) -> None:
        """Forget a tombstone for good; below its seq nobody can say any more what was removed."""
        tombstones = self._own_tombstones()
        stamp = tombstones.pop(tombstone, None)
        if stamp is None:
            return
        self.floor = max(self.floor, stamp.seq)
        self.dropped.append(tombstone)
        name, field = tombstone
        document = self._own(name, stamp)
        if field is not None:
            document.stamps.pop(field, None)
        elif document.alive:
            document.died = None
        else:
            self.documents[name] = None

    def _own(self, which: Operation | str, stamp: Stamp) -> Document:
        """The draft's own copy of a document, to be written to; a new one, not yet alive, where there is none."""
        name = which if isinstance(which, str) else which.name
        document = self.documents.get(name)
        if document is None:
            found = None if name in self.documents else self.view(name)
            if found is not None:
                document = found.copy()
            else:
                kind, _, target = name.partition(":")
                document = Document("widget" if kind == "widget" else "layout", target, stamp)
            self.documents[name] = document
        return document

    def _enliven(self, document: Document) -> None:
        document.alive = True
        document.size = 0
        if document.kind == "widget":
            self.widgets += 1
        else:
            self.layouts += 1

    def _keep_version(self, document: Document) -> None:
        history = document.history = list(document.history)
        if history and history[-1][0] is document.stamp:
            history.pop()
        history.append((document.stamp, dict(document.fields)))
        del history[: -1 - self.limits.layout_history]

    def _own_tombstones(self) -> dict[Tombstone, Stamp]:
        if self.tombstones is None:
            parent: Dashboard | Draft = self.parent
            while isinstance(parent, Draft) and parent.tombstones is None:
                parent = parent.parent
            self.tombstones = dict(parent.tombstones or {})
        return self.tombstones

    def _bury(self, tombstone: Tombstone, stamp: Stamp) -> None:
        tombstones = self._own_tombstones()
        tombstones.pop(tombstone, None)
        tombstones[tombstone] = stamp

    def _exhume(self, name: str, fields: Iterable[str]) -> None:
        for field in list(fields):
            self._own_tombstones().pop((name, field), None)

    def _drop_tombstones(self) -> None:
        tombstones = self._own_tombstones()
        while len(tombstones) > self.limits.max_tombstones:
            self.drop(next(iter(tombstones)))


def _change_of(operation: Operation) -> Change:
    return Change(
        operation.type,
        operation.kind,
        operation.target,
        operation.encoded,
        operation.unset,
        operation.replace,
        operation.restore,
    )


def _too_large(operation: Operation, message: str) -> LimitExceeded:
    path = "payload.data" if operation.kind == "widget" else "payload.layout"
    return LimitExceeded(message, details=((path, message),))
