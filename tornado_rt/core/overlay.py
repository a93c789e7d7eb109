"""A dashboard as it would be: changes laid over what stands, copy on write. It does as it is told and judges nothing.

An overlay is adopted as a whole or thrown away as a whole, so there is nothing here that undoes anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tornado_rt.core.document import Document, Stamp
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import Applied, Operation, Tombstone, Verdict

if TYPE_CHECKING:
    from tornado_rt.core.dashboard import Dashboard

__all__ = ["Overlay"]


class Overlay:
    """What ``parent`` would be after the changes made here.

    ``accepted`` lists what was judged and done; ``reads`` the version of every document that was looked at, as of the committed
    state (0: none). ``committed_seq`` is the seq of that state, ``seq`` the last one that was given here, provisionally.
    ``documents`` and ``tombstones`` (None: untouched) are copies; a document that is forgotten altogether is None.
    """

    __slots__ = (
        "accepted",
        "committed_seq",
        "documents",
        "epoch",
        "floor",
        "layouts",
        "limits",
        "parent",
        "reads",
        "seq",
        "size",
        "tombstones",
        "verdicts",
        "widgets",
    )

    def __init__(self, parent: Dashboard | Overlay, limits: DashboardLimits) -> None:
        self.parent = parent
        self.limits = limits
        self.epoch: str = parent.epoch
        self.seq: int = parent.seq
        self.committed_seq: int = parent.committed_seq if isinstance(parent, Overlay) else parent.seq
        self.floor: int = parent.floor
        self.widgets: int = parent.widgets
        self.layouts: int = parent.layouts
        self.size: int = parent.size
        self.documents: dict[str, Document | None] = {}
        self.tombstones: dict[Tombstone, Stamp] | None = None
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.reads: dict[str, int] = {}
        self.accepted: list[Applied] = []

    # Reading

    def view(self, name: str) -> Document | None:
        documents = self.documents
        if name in documents:
            return documents[name]
        document = self.parent.view(name)
        self.reads[name] = document.stamp.seq if document is not None else 0
        return document

    def verdict(self, key: tuple[str, str]) -> Verdict | None:
        return self.verdicts.get(key) or self.parent.verdict(key)

    def living(self) -> Iterator[Document]:
        """Every document that is there; this does not count as reading them."""
        own = self.documents
        yield from (document for document in own.values() if document is not None and document.alive)
        yield from (document for document in self.parent.living() if document.name not in own)

    # Writing

    def redo(self, changes: Iterable[Operation], stamp: Stamp, dropped: Iterable[Tombstone]) -> None:
        """Do what was accepted elsewhere or before: in a log that is read back, or on top of what others wrote meanwhile."""
        for operation in changes:
            self.perform(operation, stamp)
        for tombstone in dropped:
            self.drop(tombstone)
        self.seq = stamp.seq

    def perform(self, operation: Operation, stamp: Stamp) -> None:
        if operation.type == "WIDGET_DELETE":
            self.delete(operation.name, stamp)
        else:
            self.write(operation, stamp)

    def write(self, operation: Operation, stamp: Stamp) -> None:
        """Set, unset or replace fields, and bring the document to life where it is not."""
        name, data = operation.name, operation.data
        document = self._own(name, stamp)
        if not document.alive:
            self._enliven(document)
        fields, stamps = document.fields, document.stamps
        if len(stamps) > len(fields):
            self._exhume(name, [field for field in data if field in stamps and field not in fields])
        removed: Iterable[str] = operation.unset
        if operation.replace:
            removed = [field for field in stamps if field not in data]
            self.size -= document.size
            document.size = 0
        fields.update(data)
        for field in data:
            stamps[field] = stamp
        for field in removed:
            if field in stamps:
                fields.pop(field, None)
                stamps[field] = stamp
                self._bury((name, field), stamp)
        size = len(operation.encoded)
        document.size += size
        self.size += size
        document.is_exact = False
        document.stamp = stamp
        if document.kind == "layout":
            self._keep_version(document)

    def delete(self, name: str, stamp: Stamp) -> None:
        document = self._own(name, stamp)
        self.size -= document.size
        self._exhume(name, [field for field in document.stamps if field not in document.fields])
        document.fields = {}
        document.stamps = {}
        document.size = 0
        document.is_exact = True
        document.alive = False
        document.died = document.stamp = stamp
        self.widgets -= 1
        self._bury((name, None), stamp)

    def drop(self, tombstone: Tombstone) -> None:
        """Forget a tombstone for good; below its seq nobody can say any more what was removed."""
        stamp = self._own_tombstones().pop(tombstone, None)
        if stamp is None:
            return
        self.floor = max(self.floor, stamp.seq)
        name, field = tombstone
        document = self._own(name, stamp)
        if field is not None:
            del document.stamps[field]
        elif document.alive:
            document.died = None
        else:
            self.documents[name] = None

    def drop_oldest(self) -> tuple[Tombstone, ...]:
        """Drop the tombstones that are too many (PROTOCOL section 4); returns them."""
        tombstones = self.tombstones
        if tombstones is None or len(tombstones) <= self.limits.max_tombstones:
            return ()
        dropped = tuple(tombstones)[: len(tombstones) - self.limits.max_tombstones]
        for tombstone in dropped:
            self.drop(tombstone)
        return dropped

    def absorb(self, trial: Overlay) -> None:
        """Take over what was tried on top of this one. What it read, it read through this one."""
        self.documents.update(trial.documents)
        self.verdicts.update(trial.verdicts)
        if trial.tombstones is not None:
            self.tombstones = trial.tombstones
        self.widgets = trial.widgets
        self.layouts = trial.layouts
        self.size = trial.size

    # The copies that are written to

    def _own(self, name: str, stamp: Stamp) -> Document:
        """The overlay's own copy of a document; a new one, not yet alive, where there is none."""
        document = self.documents.get(name)
        if document is None:
            found = self.view(name)
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
        """A layout's history gets its new version; one operation makes one, however often it touches the layout."""
        earlier = document.history
        if earlier and earlier[-1][0] is document.stamp:
            earlier = earlier[:-1]
        first = max(0, len(earlier) - self.limits.layout_history)
        document.history = [*earlier[first:], (document.stamp, document.fields.copy())]

    def _own_tombstones(self) -> dict[Tombstone, Stamp]:
        if self.tombstones is None:
            parent: Dashboard | Overlay = self.parent
            while isinstance(parent, Overlay) and parent.tombstones is None:
                parent = parent.parent
            self.tombstones = dict(parent.tombstones or {})
        return self.tombstones

    def _bury(self, tombstone: Tombstone, stamp: Stamp) -> None:
        tombstones = self._own_tombstones()
        tombstones.pop(tombstone, None)  # the youngest stand last
        tombstones[tombstone] = stamp

    def _exhume(self, name: str, fields: Iterable[str]) -> None:
        for field in fields:
            self._own_tombstones().pop((name, field), None)
