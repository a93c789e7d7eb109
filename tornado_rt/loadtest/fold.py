"""Folds a log, entry by entry, and judges edits, conflicts and handed-out documents by it: PROTOCOL section 4.

Where the log has a hole (an operation whose outcome nobody learnt), folding goes on from the next snapshot that was handed out;
what lies between is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tornado_rt.loadtest.events import Conflicted, Finished, Synced
from tornado_rt.loadtest.ledger import Entry, Log, Operation
from tornado_rt.loadtest.model import Dashboard, Document, DocumentName, Edit, Touch, canonical

__all__ = ["Fold"]


class Fold:
    """The documents of one log at every seq of it."""

    def __init__(self, log: Log, *, conflicts: bool) -> None:
        self._log = log
        self._conflicts = conflicts
        self._parts: list[Dashboard] = []

    @staticmethod
    def start_of(log: Log) -> int:
        """The seq before everything that happened: 0, or that of a snapshot from before the first recorded change."""
        first = min(log.entries, default=log.shown + 1)
        return max((snapshot.seq for snapshot in log.snapshots if snapshot.seq < first), default=0)

    def run(self) -> Iterator[tuple[str, str]]:
        """Fold everything; yields ``(rule, sentence)``."""
        snapshots = sorted(self._log.snapshots, key=lambda snapshot: snapshot.seq)
        part = self._begin(self.start_of(self._log), snapshots)
        end = max(self._log.entries, default=0)
        while part.seq < end:
            seq = part.seq + 1
            entry = self._log.entries.get(seq)
            edits = None if entry is None else self._edits(entry, part)
            if entry is None or edits is None:
                later = next((snapshot.seq for snapshot in snapshots if snapshot.seq >= seq), None)
                if later is None:
                    return
                part = self._begin(later, snapshots)
                continue
            if entry.op is not None and not entry.is_guess and self._conflicts:
                yield from self._stale(entry, entry.op, part)
            if entry.type == "LAYOUT_RESTORE":
                yield from self._restored(entry, edits[0], part)
            part.apply(seq, edits, entry.user, entry.op.device or None if entry.op is not None and not entry.is_guess else None)

    def _begin(self, seq: int, snapshots: list[Synced | Finished]) -> Dashboard:
        part = Dashboard()
        if seq:
            snapshot = next(each for each in snapshots if each.seq == seq)
            documents = {name: (fields, version) for name, fields, version, _ in _documents(snapshot)}
            part.rebase(seq, documents)
        self._parts.append(part)
        return part

    def _edits(self, entry: Entry, part: Dashboard) -> list[Edit] | None:
        """What the entry does, or None where that is not known."""
        for edit in entry.edits:
            if edit.opaque and "layout" not in entry.payload:  # all that is known of it is its ACK: work it out
                document = part.documents.get(edit.name)
                if document is None:
                    return None
                source = edit.restored_from if edit.restored_from is not None else document.versions[-1] - 1
                fields = document.at(source)
                if fields is None or source < part.start:
                    return None
                edit.data = fields
        return entry.edits or None

    # -- edits -----------------------------------------------------------------------------------------------------------

    def _stale(self, entry: Entry, operation: Operation, part: Dashboard) -> Iterator[tuple[str, str]]:
        own: set[tuple[DocumentName, str | None]] = set()  # what earlier edits of the same batch have written
        for edit, written in zip(operation.edits, entry.edits, strict=False):
            base = operation.base_of(edit, self._log.epoch)
            document = part.documents.get(edit.name)
            if base is not None and document is not None and (edit.name, None) not in own:
                for what in self._overwritten(operation, written, document, base, own):
                    yield "stale", f"{operation}, based on {base}, {what}; it stands at seq {entry.seq}"
            own.update((edit.name, field) for field in (*edit.data, *edit.unset))
            if edit.replace or edit.delete:
                own.add((edit.name, None))
        for answer in operation.applied:
            if answer.seq == entry.seq:
                yield from self._merged(operation, answer.merged, entry, part)

    def _overwritten(
        self, operation: Operation, edit: Edit, document: Document, base: int, own: set[tuple[DocumentName, str | None]]
    ) -> Iterator[str]:
        """What a stale edit did away with, though others had changed it since."""
        now, died = document.versions[-1], document.died_at(document.versions[-1])
        if document.at(now) is None:
            if now > base and not edit.delete and not any(name == edit.name for name, _ in own):
                yield f"brought {edit.name} back, which had been deleted at seq {now}"
            return
        for name, touch in document.last_touches(now):
            if edit.delete and touch.seq <= died:
                continue  # what an earlier deletion took away, this one takes from nobody
            foreign = not touch.is_idle and (edit.name, name) not in own and _is_other(touch, operation)
            if foreign and _overwrites(edit, name, touch, base):
                yield f"overwrote {name!r} of {edit.name}, which {touch.user!r} had set to {touch.value} at seq {touch.seq}"

    def _merged(self, operation: Operation, merged: list[str], entry: Entry, part: Dashboard) -> Iterator[tuple[str, str]]:
        """``merged`` in an ACK names fields that others changed since, and none that the operation touched."""
        edits = operation.edits
        if not merged or len(edits) != 1:
            return
        edit, document = edits[0], part.documents.get(edits[0].name)
        base = operation.base_of(edit, self._log.epoch)
        last = dict(document.last_touches(part.seq)) if document is not None else {}
        for name in merged:
            if base is None or name in edit.data or name in edit.unset or name not in last or last[name].seq <= base:
                sentence = f"the ACK of {operation} at seq {entry.seq} says that field {name!r} was changed meanwhile"
                yield "verdict", f"{sentence}, after {base}; it was not, or the operation sets it itself"

    def _restored(self, entry: Entry, edit: Edit, part: Dashboard) -> Iterator[tuple[str, str]]:
        source = entry.payload.get("restoredFrom")
        if source is not None and source >= part.start and part.at(source, edit.name) != edit.data:
            yield "view", f"seq {entry.seq} claims to restore {edit.name} of seq {source}, but that was another layout"

    def conflict_faults(self, operation: Operation, conflict: Conflicted) -> Iterator[tuple[str, str]]:
        """What is wrong about a conflict: it shows what never was, or there was no reason for it."""
        edits = operation.edits
        part = self._part(conflict.current_version)
        if not conflict.current_version or part is None or len(edits) != 1 or edits[0].opaque or operation.says_less:
            return
        edit = edits[0]
        fields = part.at(conflict.current_version, edit.name)
        if fields is None:
            return  # it is gone, which is reason enough
        remote = conflict.remote or {}
        for name in conflict.fields:
            shown = canonical(remote[name]) if name in remote else None
            if conflict.remote is not None and shown != fields.get(name):
                sentence = f"the conflict of {operation} shows {name!r} of {edit.name} as {shown}"
                yield "view", f"{sentence}, but at seq {conflict.current_version} it was {fields.get(name)}"
        if not self._is_reasonable(edit, operation, part, conflict.current_version):
            sentence = f"{operation}, based on {edit.base}, was answered with a conflict over {conflict.fields}"
            yield "needless", f"{sentence}, but nobody else set them"

    def _is_reasonable(self, edit: Edit, operation: Operation, part: Dashboard, seq: int) -> bool:
        """Whether another device had changed at ``seq`` what the edit touches, or may have."""
        base = operation.base_of(edit, self._log.epoch) or 0
        document = part.documents[edit.name]
        if document.died_at(seq) > base or (edit.delete and document.author_at(seq) != operation.user):
            return True
        for name, touch in document.last_touches(seq):
            may_be_other = touch.user is None or touch.device is None or not operation.device or _is_other(touch, operation)
            if may_be_other and _overwrites(edit, name, touch, base):
                return True
        return False

    # -- documents that were handed out ----------------------------------------------------------------------------------

    def differences(self, event: Synced | Finished) -> Iterator[str]:
        """Compare documents that a client was given, or shows, with the log up to their seq."""
        part = self._part(event.seq)
        if part is None or (isinstance(event, Synced) and event.mode == "delta"):
            return
        whose = f"the {event.mode} of {event.client}" if isinstance(event, Synced) else "the final state"
        given = set()
        for name, fields, version, author in _documents(event):
            given.add(name)
            document = part.documents.get(name)
            wanted = document.at(event.seq) if document is not None else None
            if wanted is None:
                yield f"{whose} has {name}, which is not there at seq {event.seq}"
            elif fields != wanted:
                yield f"{whose} has {name} at seq {event.seq} with {_difference(fields, wanted)}"
            elif document is not None and version and version != document.version_at(event.seq):
                yield f"{whose} gives {name} version {version} at seq {event.seq}, but it is {document.version_at(event.seq)}"
            elif document is not None and author and author != (document.author_at(event.seq) or author):
                yield f"{whose} names {author!r} as the last author of {name}, but it was {document.author_at(event.seq)!r}"
        merged = isinstance(event, Synced) and event.mode == "merged"
        if merged:
            gone = {("widget", name) for name in event.deleted.get("widgets", ())}  # type: ignore[union-attr]
            gone |= {("layout", name) for name in event.deleted.get("layouts", ())}  # type: ignore[union-attr]
            given |= gone
            wanted_names = self._changed(part, event.from_seq, event.seq)  # type: ignore[union-attr]
            wrong = sorted(name for name in gone if part.at(event.seq, name) is not None)
            if wrong:
                yield f"{whose} says that {wrong[0]} is gone, but it is there at seq {event.seq}"
        else:
            wanted_names = part.names_at(event.seq)
        for name in sorted(wanted_names - given):
            yield f"{whose} at seq {event.seq} lacks {name}"

    def _part(self, seq: int) -> Dashboard | None:
        """The part of the fold that can say how things stood at ``seq``."""
        return next((part for part in reversed(self._parts) if part.start <= seq <= part.seq), None)

    @staticmethod
    def _changed(part: Dashboard, after: int, until: int) -> set[DocumentName]:
        """The documents changed in ``after < seq <= until``, as far as this part reaches back."""
        return {name for seq in range(after + 1, until + 1) for name in part.changed.get(seq, ())}


def _overwrites(edit: Edit, name: str, touch: Touch, base: int) -> bool:
    """Whether the edit changes what was set after its base."""
    if touch.seq <= base:
        return False
    if edit.delete:
        return True
    touched = edit.replace or name in edit.data or name in edit.unset
    return touched and touch.value != edit.data.get(name)


def _is_other(touch: Touch, operation: Operation) -> bool:
    """Whether the field was certainly set by another user, or by the same one on another device. Own deletions count too."""
    if touch.user is None or touch.by_delete:
        return touch.by_delete
    devices_differ = bool(touch.device and operation.device and touch.device != operation.device)
    return touch.user != operation.user or devices_differ


def _documents(event: Synced | Finished) -> Iterator[tuple[DocumentName, dict[str, str], int, str]]:
    for kind, key, documents in (("widget", "data", event.widgets), ("layout", "layout", event.layouts)):
        for name, document in documents.items():
            yield (kind, name), _texts(document[key]), document.get("version", 0), document.get("updatedBy", "")


def _texts(fields: Mapping[str, Any]) -> dict[str, str]:
    return {name: canonical(value) for name, value in fields.items()}


def _difference(fields: dict[str, str], wanted: dict[str, str]) -> str:
    for name in sorted(fields.keys() | wanted.keys()):
        if fields.get(name) != wanted.get(name):
            return f"{name!r} = {fields.get(name, 'nothing')}, but the log says {wanted.get(name, 'nothing')}"
    return "no difference"
