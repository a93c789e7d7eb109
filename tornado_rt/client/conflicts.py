"""From what the server says about a conflict to what a person is offered, and from the person's choice to what is sent. Pure.

A resolution is always sent in the self-contained form (PROTOCOL section 4), which needs no memory on the server and so survives
a reconnect. What that form cannot say (``unset``, ``replace``, a restored layout, a batch) is sent as the same operation again,
under a new id and with the conflict's version as its base, which comes to the same.
"""

from __future__ import annotations

from typing import Any, Final

from tornado_rt.client.edit import Edit, Fields, plain
from tornado_rt.client.operation import Operation
from tornado_rt.client.outcomes import Conflict

__all__ = ["NOT_GIVEN", "offer", "offer_batch", "resolution"]

NOT_GIVEN: Final = object()  # where None is a choice: it deletes the document


def offer(operation: Operation, payload: dict[str, Any], batch: tuple[dict[str, Any], ...] = ()) -> Conflict:
    """What CONFLICT_DETECTED, or a ``conflict`` in ``results``, says about an operation."""
    kind = payload["kind"]
    return Conflict(
        id=payload.get("conflictId") or f"conflict-{operation.id}"[:128],
        operation_id=operation.id,
        kind=kind,
        document_id=payload["layoutId" if kind == "layout" else "widgetId"],
        fields=tuple(payload.get("fields", ())),
        base_version=payload.get("baseVersion"),
        current_version=payload["currentVersion"],
        local=payload.get("local"),
        remote=payload.get("remote"),
        remote_user_id=payload.get("remoteUserId") or "",
        remote_timestamp=payload.get("remoteTimestamp") or "",
        resolved=payload.get("resolved"),
        shown=operation.shown,
        batch=batch,
    )


def offer_batch(operation: Operation, conflicts: list[dict[str, Any]]) -> Conflict:
    """An atomic batch was refused for these; the first stands for all."""
    return offer(operation, conflicts[0], tuple(conflicts))


def resolution(conflict: Conflict, operation: Operation, choice: str, data: Any, new_id: str, epoch: str | None) -> Operation:
    """The operation that carries out ``local`` or ``merged``. Raises ``ValueError`` for a choice that makes no sense here."""
    if conflict.batch:
        if choice != "local":
            raise ValueError("a batch can be sent again (local) or dropped (remote); to merge, send a new batch")
        return Operation(new_id, _rebased(conflict, operation, epoch), is_batch=True)
    edit = operation.edits[0].based_on(conflict.current_version, epoch)
    if choice == "local" and not (conflict.remote is None and edit.is_plain):
        return _again(conflict, edit, new_id, operation.shown)
    if choice == "local":  # the document is gone: keeping mine means all of it, as it was shown
        whole: Fields | None = operation.shown if operation.shown is not None else edit.apply(None)
    elif data is NOT_GIVEN:
        raise ValueError("merged needs data (None deletes the document)")
    else:
        whole = plain(data) if data is not None else None
    return _written(conflict, "merged", whole, new_id, epoch)


def _again(conflict: Conflict, edit: Edit, new_id: str, shown: Fields | None) -> Operation:
    """``local``: the whole operation again, on what is there now."""
    if edit.type == "WIDGET_DELETE":
        return _written(conflict, "local", None, new_id, edit.epoch)
    if not edit.is_plain or edit.unset:
        return Operation(new_id, (edit,), shown=shown)
    assert edit.data is not None
    return _written(conflict, "local", edit.data, new_id, edit.epoch, shown)


def _written(
    conflict: Conflict, choice: str, data: Fields | None, new_id: str, epoch: str | None, shown: Fields | None = None
) -> Operation:
    is_layout = conflict.kind == "layout"
    payload: dict[str, Any] = {
        "conflictId": conflict.id,
        "resolution": choice,
        "layoutId" if is_layout else "widgetId": conflict.document_id,
        "data": data,
        "baseVersion": conflict.current_version,
    }
    if epoch is not None:
        payload["epoch"] = epoch
    type_ = "LAYOUT_UPDATE" if is_layout else "WIDGET_UPDATE" if data is not None else "WIDGET_DELETE"
    edit = Edit(type_, conflict.document_id, data, base_version=conflict.current_version, epoch=epoch)
    return Operation(new_id, (edit,), resolution=payload, shown=data if shown is None else shown)


def _rebased(conflict: Conflict, operation: Operation, epoch: str | None) -> tuple[Edit, ...]:
    current = {
        (each["kind"], each["layoutId" if each["kind"] == "layout" else "widgetId"]): each["currentVersion"]
        for each in conflict.batch
    }
    return tuple(edit.based_on(current[edit.key], epoch) if edit.key in current else edit for edit in operation.edits)
