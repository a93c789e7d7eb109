"""Where operations are judged: on a copy-on-write draft, one after the other, against what is committed plus what the draft has
accepted so far. Knows no store, no wire and no clock: time is handed in.
"""

from __future__ import annotations

from dataclasses import replace

from tornado_rt.core.conflict import Collision, judge_delete, judge_update, other_changes
from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Document, Stamp, json_size
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
    Settled,
    Verdict,
)
from tornado_rt.core.overlay import Overlay
from tornado_rt.errors import ClientFault, ConflictUnknown, IdReused, InvalidMessage, LimitExceeded, NotFound
from tornado_rt.protocol.codec import encode_json

__all__ = ["Draft"]


class Draft(Overlay):
    """What a dashboard would be if the operations decided here were committed.

    ``at`` is the time as ISO 8601 for what is written, ``now`` the same in seconds for the age of verdicts.
    """

    __slots__ = ("at", "now")

    def __init__(self, parent: Dashboard | Draft, limits: DashboardLimits, at: str, now: float) -> None:
        super().__init__(parent, limits)
        self.at = at
        self.now = now

    def decide(self, request: Request) -> Outcome:
        """Judge one request and, if it is applied, make it part of the draft.

        Raises ``ClientFault`` if it cannot be judged at all; the draft is then as before. A conflict leaves it as before too;
        whoever keeps its verdict says so with ``remember``.
        """
        known = self._replayed(request)
        if known is not None:
            return known
        operation: Operation
        if type(request) is Operation:
            operation = request
        elif isinstance(request, Batch):
            return self._decide_batch(request)
        elif isinstance(request, Resolution):
            if not request.known:
                raise ConflictUnknown(
                    "this conflict is not known here; send the document's id and baseVersion with the resolution"
                )
            if request.operation is None:
                return Settled(request, request.version)
            operation = request.operation
        stamp = Stamp(self.seq + 1, request.author, self.at)
        done = self._apply(operation, stamp)
        if isinstance(done, Collision):
            return self._conflict(request, done)
        change, merged = done
        self.remember(request, stamp.seq, merged)
        return self._accept(Applied(request, stamp, (change,), merged))

    def remember(self, request: Request, seq: int, merged: tuple[str, ...] = (), conflict: bytes | None = None) -> None:
        """Keep a verdict for the request's retries; without an id it cannot be repeated, nor remembered."""
        if request.id is not None:
            verdict = Verdict(request.digest, seq, merged, conflict, self.now, isinstance(request, Batch))
            self.verdicts[(request.author.user, request.id)] = verdict

    def _replayed(self, request: Request) -> Replayed | None:
        if request.id is None:
            return None
        verdict = self.verdict((request.author.user, request.id))
        if verdict is None or self.now - verdict.at >= self.limits.verdict_seconds:
            return None
        if verdict.digest != request.digest:
            raise IdReused("this id was used before, by you, for an operation with other content")
        return Replayed(request, verdict)

    def _accept(self, applied: Applied) -> Applied:
        if self.tombstones is not None:
            applied.dropped = self.drop_oldest()
        self.accepted.append(applied)
        self.seq = applied.stamp.seq
        return applied

    def _conflict(self, request: Request, collision: Collision) -> Conflict:
        return Conflict(
            request,
            collision.operation,
            collision.fields,
            collision.document,
            collision.current_version,
            collision.newest,
            "remote" if self.limits.conflict_strategy == "remote-wins" else None,
        )

    def _decide_batch(self, batch: Batch) -> Outcome:
        """All or none, with one seq (PROTOCOL section 3, WIDGET_BATCH)."""
        trial = Draft(self, self.limits, self.at, self.now)
        stamp = Stamp(self.seq + 1, batch.author, self.at)
        blame: dict[int, Conflict | Replayed | ClientFault] = {}
        changes: list[Operation] = []
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
                blame[index] = self._conflict(operation, done)
                continue
            changes.append(done[0])
            merged.update(dict.fromkeys(done[1]))
            trial.remember(operation, stamp.seq, done[1])
        if blame:
            return Refused(batch, blame)
        if not changes and replayed is not None:
            return Replayed(batch, replayed.verdict)
        self.absorb(trial)
        self.remember(batch, stamp.seq, tuple(merged))
        return self._accept(Applied(batch, stamp, tuple(changes), tuple(merged)))

    # Judging and applying one operation

    def _apply(self, operation: Operation, stamp: Stamp) -> Collision | tuple[Operation, tuple[str, ...]]:
        """Returns what was done, a restoration as the update that it is, and what else had changed meanwhile."""
        document = self.view(operation.name)
        base = None if operation.base is None else self._base(operation, operation.base)
        if operation.type != "WIDGET_UPDATE":
            if operation.type == "WIDGET_DELETE":
                return self._apply_delete(operation, document, base, stamp)
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
        return operation, merged

    def _apply_delete(
        self, operation: Operation, document: Document | None, base: int | None, stamp: Stamp
    ) -> Collision | tuple[Operation, tuple[str, ...]]:
        if document is None or not document.alive:
            raise NotFound("there is no such widget")
        if base is not None and document.stamp.seq > base:
            collision = judge_delete(operation, document, base, self.floor)
            if collision is not None:
                return collision
        self.delete(operation.name, stamp)
        return operation, ()

    def _base(self, operation: Operation, base: int) -> int | None:
        """Where the edit began, as a seq of this epoch; None where it does not matter."""
        limits = self.limits
        if not limits.conflict_detection:
            return None
        if self._is_foreign(operation):
            base = 0
        elif base > self.committed_seq:
            raise self._beyond("baseVersion")
        return None if limits.conflict_strategy == "local-wins" else base

    def _beyond(self, name: str) -> InvalidMessage:
        most = f"at most {self.committed_seq}, the dashboard's seq"
        return InvalidMessage(f"{name} lies beyond what the dashboard has come to", details=((f"payload.{name}", most),))

    def _is_foreign(self, operation: Operation) -> bool:
        """Are its seqs those of another epoch?"""
        return operation.base_epoch is not None and operation.base_epoch != self.epoch

    def _restoration(self, operation: Operation, document: Document | None) -> Operation:
        """LAYOUT_RESTORE as the update that it comes down to: the whole of an earlier version (PROTOCOL section 3)."""
        history = document.history if document is not None else []
        wanted = operation.restore
        if wanted is None:
            kept = history[:-1]
        elif self._is_foreign(operation):
            kept = []  # an old seq is never taken for a new one
        elif wanted > self.committed_seq:
            raise self._beyond("version")
        else:
            kept = [version for version in history if version[0].seq <= wanted]
        if not kept:
            raise NotFound("this version of the layout is not kept")
        version, fields = kept[-1]
        return replace(operation, data=fields, encoded=encode_json(fields), replace=True, restore=version.seq)

    # Limits

    def _check_limits(self, operation: Operation, document: Document | None) -> None:
        """Raises ``LimitExceeded``. First counted is an upper bound; the real sizes are asked for where that is too much."""
        limits = self.limits
        known = 0
        fields = len(operation.data)
        size = len(operation.encoded)
        if document is None or not document.alive:
            self._check_count(operation)
        else:
            known = document.size
            if not operation.replace:
                fields += len(document.fields)
                size += known
        if limits.max_fields and fields > limits.max_fields:
            self._check_fields(operation, document)
        if (limits.max_document_bytes and size > limits.max_document_bytes) or (
            limits.max_dashboard_bytes and self.size + size - known > limits.max_dashboard_bytes
        ):
            self._check_bytes(operation, document)

    def _check_count(self, operation: Operation) -> None:
        limits = self.limits
        if operation.kind == "widget":
            most, count = limits.max_widgets, self.widgets
        else:
            most, count = limits.max_layouts, self.layouts
        if most and count >= most:
            raise LimitExceeded(f"a dashboard holds at most {most} {operation.kind}s")

    def _check_fields(self, operation: Operation, document: Document | None) -> None:
        names: set[str] = set(operation.data)
        if document is not None and not operation.replace:
            names |= document.fields.keys() - set(operation.unset)
        if len(names) > self.limits.max_fields:
            raise _too_large(operation, f"a document has at most {self.limits.max_fields} fields")

    def _check_bytes(self, operation: Operation, document: Document | None) -> None:
        """Only documents that changed since they were last weighed are encoded for it."""
        limits = self.limits
        before = 0
        if document is not None and document.alive:
            bound = document.size
            before = document.weigh()
            self.size += before - bound
        after = _size_after(operation, document)
        if limits.max_document_bytes and after > limits.max_document_bytes:
            raise _too_large(operation, f"a document holds at most {limits.max_document_bytes} bytes of JSON")
        if limits.max_dashboard_bytes and self.size + after - before > limits.max_dashboard_bytes:
            self.size = sum(each.weigh() for each in self.living())
            if self.size + after - before > limits.max_dashboard_bytes:
                raise _too_large(operation, f"a dashboard holds at most {limits.max_dashboard_bytes} bytes of JSON")


def _size_after(operation: Operation, document: Document | None) -> int:
    """Bytes of the document's fields once the operation is done."""
    if document is None or operation.replace:
        return json_size(operation.data)
    fields = {**document.fields, **operation.data}
    for name in operation.unset:
        fields.pop(name, None)
    return json_size(fields)


def _too_large(operation: Operation, message: str) -> LimitExceeded:
    path = "payload.data" if operation.kind == "widget" else "payload.layout"
    return LimitExceeded(message, details=((path, message),))
