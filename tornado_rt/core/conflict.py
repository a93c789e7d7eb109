"""When two edits collide (PROTOCOL section 4). Pure judgement over one document; changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tornado_rt.core.document import MISSING, Author, Document, Stamp, same
from tornado_rt.core.operation import Operation

__all__ = ["Collision", "judge_delete", "judge_update", "other_changes"]


@dataclass(slots=True)
class Collision:
    """``fields`` were changed after the sender's base; ``document`` is None where it is gone."""

    fields: tuple[str, ...]
    document: Document | None
    current_version: int
    newest: Stamp | None


def judge_update(operation: Operation, document: Document | None, base: int, floor: int) -> Collision | None:
    """Does an update that began at ``base`` collide? Below ``floor`` what is not there may have been removed since."""
    if document is None:
        return Collision(tuple(operation.data), None, floor, None) if base < floor else None
    died = document.died
    if not document.alive:
        assert died is not None
        if died.seq > base or base < floor:
            return Collision(_touched(operation, document), None, died.seq, died)
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
    return Collision(tuple(fields), document, document.stamp.seq, newest or document.stamp) if fields else None


def judge_delete(operation: Operation, document: Document, base: int) -> Collision | None:
    """Was the document changed after ``base`` by another device?"""
    fields: list[str] = []
    newest: Stamp | None = None
    for name, stamp in document.stamps.items():
        if stamp.seq > base and not stamp.author.is_same(operation.author):
            fields.append(name)
            newest = _newer(newest, stamp)
    if newest is None and not document.stamp.author.is_same(operation.author):
        newest = document.stamp  # changed without leaving a field behind: replaced by nothing
    return Collision(tuple(fields), document, document.stamp.seq, newest) if newest is not None else None


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
    names: Iterable[str] = (*operation.data, *operation.unset)
    if operation.replace:
        names = (*operation.data, *(name for name in document.stamps if name not in operation.data))
    return tuple(dict.fromkeys(names))


def _same_outcome(operation: Operation, document: Document, name: str) -> bool:
    return same(operation.data.get(name, MISSING), document.fields.get(name, MISSING))


def _newer(left: Stamp | None, right: Stamp) -> Stamp:
    return right if left is None or right.seq > left.seq else left
