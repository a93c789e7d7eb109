"""When two edits collide (PROTOCOL section 4). Pure judgement over one document; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tornado_rt.core.document import MISSING, Author, Document, Stamp, same
from tornado_rt.core.operation import Operation

__all__ = ["Collision", "judge_delete", "judge_update", "other_changes"]


@dataclass(slots=True)
class Collision:
    """``fields`` of what ``operation`` touches were changed after its base; ``document`` is None where it is gone."""

    operation: Operation
    fields: tuple[str, ...]
    document: Document | None
    current_version: int
    newest: Stamp | None


def judge_update(operation: Operation, document: Document | None, base: int, floor: int) -> Collision | None:
    """Does an update that began at ``base`` collide? Below ``floor`` what is not there may have been removed since.

    A collision's current version is never below ``floor``, or its resolution would collide for ever.
    """
    if document is None:
        return Collision(operation, tuple(operation.data), None, floor, None) if base < floor else None
    died = document.died
    if not document.alive:
        assert died is not None
        if died.seq > base or base < floor:
            return Collision(operation, _touched(operation, document), None, max(died.seq, floor), died)
        return None
    fields: list[str] = []
    newest: Stamp | None = None
    for name in _touched(operation, document):
        stamp = document.stamps.get(name)
        if stamp is None:
            stamp = died  # removed with the whole document; the own deletion counts
            if stamp is None or stamp.seq <= base:
                if base < floor and name in operation.data:
                    fields.append(name)
                continue
        elif stamp.seq <= base or stamp.author.is_same(operation.author):
            continue
        if not _same_outcome(operation, document, name):
            fields.append(name)
            newest = _newer(newest, stamp)
    if not fields:
        return None
    return Collision(operation, tuple(fields), document, max(document.stamp.seq, floor), newest or document.stamp)


def judge_delete(operation: Operation, document: Document, base: int, floor: int) -> Collision | None:
    """Was the document changed after ``base`` by another device?"""
    fields: list[str] = []
    newest: Stamp | None = None
    for name, stamp in document.stamps.items():
        if stamp.seq > base and not stamp.author.is_same(operation.author):
            fields.append(name)
            newest = _newer(newest, stamp)
    if newest is None and not document.stamp.author.is_same(operation.author):
        newest = document.stamp  # changed without leaving a field behind: replaced by nothing
    if newest is None:
        return None
    return Collision(operation, tuple(fields), document, max(document.stamp.seq, floor), newest)


def other_changes(operation: Operation, document: Document | None, base: int) -> tuple[str, ...]:
    """Fields that another device changed after ``base`` and that the operation does not touch: merged with it."""
    if document is None or not document.alive:
        return ()
    touched = set(_touched(operation, document))
    author: Author = operation.author
    return tuple(
        name
        for name, stamp in document.stamps.items()
        if stamp.seq > base and name not in touched and not stamp.author.is_same(author)
    )


def _touched(operation: Operation, document: Document) -> tuple[str, ...]:
    """PROTOCOL section 4: ``replace`` and LAYOUT_RESTORE touch every field that the document has, had or gets."""
    more: Iterable[str] = document.stamps if operation.replace else operation.unset
    return tuple(dict.fromkeys((*operation.data, *more))) if more else tuple(operation.data)


def _same_outcome(operation: Operation, document: Document, name: str) -> bool:
    return same(operation.data.get(name, MISSING), document.fields.get(name, MISSING))


def _newer(left: Stamp | None, right: Stamp) -> Stamp:
    return right if left is None or right.seq > left.seq else left
