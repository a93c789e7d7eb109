"""A dashboard's committed state, and how a draft of it becomes the next one. It judges nothing: that is done in ``draft``.

One number orders everything: the seq of an operation in the log is the version of what it touched (PROTOCOL, "Words").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping

from tornado_rt.core.document import Document, Stamp
from tornado_rt.core.operation import Tombstone, Verdict
from tornado_rt.core.overlay import Overlay

__all__ = ["Dashboard"]


class Dashboard:
    """Documents, tombstones and recent verdicts as of ``seq`` in ``epoch``.

    ``documents`` holds the dead ones too, as long as their tombstone is kept. ``tombstones`` is in the order of their seqs,
    oldest first. ``floor`` is the highest seq of a tombstone that was dropped: below it nobody can say what was removed.
    ``widgets`` and ``layouts`` count the living; ``size`` is an upper bound of the bytes of all fields. ``verdicts`` are in the
    order in which they were given; ``batches`` of them are those of whole batches.
    """

    __slots__ = ("batches", "documents", "epoch", "floor", "layouts", "seq", "size", "tombstones", "verdicts", "widgets")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.seq = 0
        self.floor = 0
        self.documents: dict[str, Document] = {}
        self.tombstones: dict[Tombstone, Stamp] = {}
        self.verdicts: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self.batches = 0
        self.widgets = 0
        self.layouts = 0
        self.size = 0

    def view(self, name: str) -> Document | None:
        return self.documents.get(name)

    def verdict(self, key: tuple[str, str]) -> Verdict | None:
        return self.verdicts.get(key)

    def living(self) -> Iterator[Document]:
        return (document for document in self.documents.values() if document.alive)

    def adopt(self, draft: Overlay, first_seq: int) -> None:
        """Make a draft that the store has taken the state. ``first_seq`` is the seq that the store gave to its first entry.

        Where that is higher than the draft had counted on, others wrote in between: all of that has been folded in by now, and
        what the draft accepted is done once more on top of it.
        """
        shift = first_seq - 1 - draft.committed_seq
        if shift:
            draft = self._moved(draft, shift)
        documents = self.documents
        for name, document in draft.documents.items():
            if document is None:
                documents.pop(name, None)
            else:
                documents[name] = document
        if draft.tombstones is not None:
            self.tombstones = draft.tombstones
            self.floor = draft.floor
        self.widgets = draft.widgets
        self.layouts = draft.layouts
        self.size = draft.size
        self.seq = draft.seq
        self.remember(draft.verdicts, draft.limits.verdict_count)

    def _moved(self, draft: Overlay, shift: int) -> Overlay:
        """The same changes on what stands now, ``shift`` seqs later. Stamps are moved in place: each is shared by all that its
        entry touched and by whoever tells of it."""
        moved = Overlay(self, draft.limits)
        for applied in draft.accepted:
            applied.stamp.seq += shift
            moved.redo(applied.changes, applied.stamp, applied.dropped)
        for verdict in draft.verdicts.values():
            verdict.seq += shift if verdict.seq else 0
        moved.verdicts = draft.verdicts
        return moved

    def remember(self, verdicts: Mapping[tuple[str, str], Verdict], count: int) -> None:
        """Keep these verdicts, and of all the newest ``count``; a whole batch's comes on top of those of its operations."""
        known = self.verdicts
        for key, verdict in verdicts.items():
            if key in known:
                self.batches -= known.pop(key).is_batch  # judged anew: it has become one of the newest
            known[key] = verdict
            self.batches += verdict.is_batch
        while len(known) - self.batches > count:
            _, forgotten = known.popitem(last=False)
            self.batches -= forgotten.is_batch

    def changed_since(self, seq: int) -> Iterator[Document]:
        """Documents, living and dead, that changed after ``seq``."""
        return (document for document in self.documents.values() if document.stamp.seq > seq)
