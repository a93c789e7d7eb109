"""A dashboard's committed state, and how a draft of it becomes the next one. Decisions are made in ``draft``.

One number orders everything: the seq of an operation in the log is the version of what it touched (PROTOCOL, "Words").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tornado_rt.core.document import Document, Stamp
from tornado_rt.core.operation import Verdict

if TYPE_CHECKING:
    from tornado_rt.core.draft import Draft

__all__ = ["Dashboard", "Tombstone"]

Tombstone = tuple[str, str | None]  # the document's name and the field's, or None for the document itself


class Dashboard:
    """Documents, tombstones and recent verdicts as of ``seq`` in ``epoch``.

    ``documents`` holds the dead ones too, as long as their tombstone is kept. ``tombstones`` is in the order of their seqs, oldest
    first. ``floor`` is the highest seq of a tombstone that was dropped: below it nobody can say what was removed. ``widgets`` and
    ``layouts`` count the living; ``size`` is an upper bound of the bytes of all fields.
    """

    __slots__ = ("documents", "epoch", "floor", "layouts", "seq", "size", "tombstones", "verdicts", "widgets")

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.seq = 0
        self.floor = 0
        self.documents: dict[str, Document] = {}
        self.tombstones: dict[Tombstone, Stamp] = {}
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.widgets = 0
        self.layouts = 0
        self.size = 0

    def view(self, name: str) -> Document | None:
        return self.documents.get(name)

    def verdict(self, key: tuple[str, str]) -> Verdict | None:
        return self.verdicts.get(key)

    def names(self) -> Iterator[str]:
        return iter(self.documents)

    def adopt(self, draft: Draft, first_seq: int) -> None:
        """Make a draft that the store has taken the state. ``first_seq`` is the seq that the store gave to its first operation;
        the draft had counted from ``seq + 1``."""
        shift = first_seq - (self.seq + 1)
        if shift:
            for stamp in draft.stamps:
                stamp.seq += shift
            for verdict in draft.verdicts.values():
                verdict.seq += shift if verdict.seq else 0
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
        self.seq = draft.seq + shift
        self.remember(draft.verdicts, draft.limits.verdict_count)

    def remember(self, verdicts: dict[tuple[str, str], Verdict], count: int) -> None:
        """Keep these verdicts, the newest ``count`` of all."""
        known = self.verdicts
        known.update(verdicts)
        while len(known) > count:
            del known[next(iter(known))]

    def changed_since(self, seq: int) -> Iterator[Document]:
        """Documents, living and dead, that changed after ``seq``."""
        return (document for document in self.documents.values() if document.stamp.seq > seq)
