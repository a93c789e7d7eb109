"""What may come of an operation: a result, a conflict, a refusal; and the faults that a caller can meet. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tornado_rt.client.edit import Fields, Key, Kind
from tornado_rt.errors import RealtimeError, Refusal

__all__ = [
    "Change",
    "ClientStoppedError",
    "Conflict",
    "ConflictError",
    "QueueFullError",
    "RefusedError",
    "Result",
    "is_retryable",
]


@dataclass(frozen=True, slots=True)
class Result:
    """The operation was applied.

    ``seq`` is its place in the dashboard's log and ``version`` the version that it gave its documents (the same number); both
    are None where there was nothing to do, such as deleting what was gone already. ``merged`` names other fields that changed
    meanwhile. ``superseded`` says that later operations of this client had set all of its fields before it was applied.
    """

    seq: int | None
    version: int | None
    merged: tuple[str, ...] = ()
    duplicate: bool = False
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """Documents of the dashboard changed.

    ``type`` is the message type of the change; SYNC_RESPONSE and SYNC_UPDATE stand for a snapshot or a merged catch-up, which
    have no single author. ``documents`` are the ``(kind, id)`` pairs that changed. ``is_own`` is true for what this client
    sent.
    """

    type: str
    seq: int
    user_id: str
    timestamp: str
    payload: dict[str, Any]
    documents: tuple[Key, ...]
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody else changed the same fields; a person has to choose (PROTOCOL section 4).

    ``fields`` are those that collide, ``local`` all that was sent (None: it deletes the document), ``remote`` the current
    values (None: the document is gone), ``shown`` the whole document as this client showed it last. ``resolved`` is ``remote``
    where the server decided by itself. ``batch`` holds every conflict of a refused atomic batch, as sent by the server.
    """

    id: str
    operation_id: str
    kind: Kind
    document_id: str
    fields: tuple[str, ...]
    base_version: int | None
    current_version: int
    local: Fields | None
    remote: Fields | None
    remote_user_id: str
    remote_timestamp: str
    resolved: str | None = None
    shown: Fields | None = None
    batch: tuple[dict[str, Any], ...] = field(default=(), compare=False)


class ConflictError(RealtimeError):
    """Nothing was applied: the document changed meanwhile. ``conflict`` goes to ``RealtimeClient.resolve``."""

    def __init__(self, conflict: Conflict) -> None:
        names = ", ".join(conflict.fields) or "the whole of it"
        super().__init__(f"{conflict.kind} {conflict.document_id} was changed meanwhile by {conflict.remote_user_id}: {names}")
        self.conflict = conflict


class RefusedError(RealtimeError):
    """The server did not carry it out and would not, however often it is asked. ``code`` is the NACK's."""

    def __init__(self, code: str, message: str, details: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.details = details


class QueueFullError(RealtimeError):
    """So much waits already that a new operation was not taken; what waits is kept."""


class ClientStoppedError(RealtimeError):
    """The client was closed, or gave up connecting, before the answer came. What was pending stays so, in the queue."""


def _retryable_codes() -> frozenset[str]:
    found: set[str] = set()
    classes: list[type[Refusal]] = [Refusal]
    for each in classes:
        classes.extend(each.__subclasses__())
        if each.retryable and each.code:
            found.add(each.code)
    return frozenset(found)


_RETRYABLE = _retryable_codes()


def is_retryable(answer: dict[str, Any]) -> bool:
    """A refusal that the same operation may outlive. A NACK says so itself; in ``results`` the code does."""
    stated = answer.get("retryable")
    return bool(stated) if stated is not None else answer.get("code") in _RETRYABLE
