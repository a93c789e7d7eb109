"""What is asked of a dashboard, and what may come of it. Values only; how one follows from the other stands in ``draft``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tornado_rt.core.document import Author, Document, Stamp
from tornado_rt.errors import ClientFault

__all__ = [
    "Applied",
    "Batch",
    "Conflict",
    "Operation",
    "Outcome",
    "Refused",
    "Replayed",
    "Request",
    "Resolution",
    "Settled",
    "Tombstone",
    "Verdict",
]

Kind = Literal["widget", "layout"]
Resolved = Literal["local", "remote", "merged"]
Tombstone = tuple[str, str | None]  # a document's name and the removed field's, or None for the document itself


@dataclass(slots=True)
class Operation:
    """One change of one document, as its sender asked for it (PROTOCOL section 4).

    ``type`` is the message type; ``name`` is the document's key, ``kind:id``. ``encoded`` is the JSON of ``data``, ``digest``
    stands for type and payload as they were sent, so that a retry is told from a reused id. ``base`` is ``baseVersion`` and
    ``base_epoch`` the epoch that it counts in.
    """

    type: str
    kind: Kind
    target: str
    author: Author
    id: str | None
    digest: int
    data: dict[str, Any] = field(default_factory=dict)
    encoded: bytes = b"{}"
    unset: tuple[str, ...] = ()
    replace: bool = False
    base: int | None = None
    base_epoch: str | None = None
    restore: int | None = None  # LAYOUT_RESTORE: the seq whose layout is wanted; once judged, the version that it is
    name: str = ""

    def __post_init__(self) -> None:
        self.name = f"{self.kind}:{self.target}"


@dataclass(slots=True)
class Batch:
    """Several operations that are applied together, with one seq, or not at all."""

    operations: list[Operation]
    author: Author
    id: str | None
    digest: int
    type: str = "WIDGET_BATCH"


@dataclass(slots=True)
class Resolution:
    """A person's answer to a conflict.

    ``operation`` is what the answer comes down to, with the conflict's current version as its base; None if nothing is to be
    changed (``remote``), which leaves the document at ``version``, or if the conflict is not known (``known`` false).
    """

    author: Author
    id: str | None
    digest: int
    operation: Operation | None
    version: int = 0
    known: bool = True
    type: str = "CONFLICT_RESOLVED"


Request = Operation | Batch | Resolution


@dataclass(slots=True)
class Verdict:
    """What was made of an operation, kept for its retries (PROTOCOL section 5, 2): applied at ``seq``, or the conflict that was
    sent, as JSON. ``at`` is the second it was given, for its age. ``is_batch``: a whole batch's; its operations have their own.
    """

    digest: int
    seq: int
    merged: tuple[str, ...]
    conflict: bytes | None
    at: float
    is_batch: bool = False


@dataclass(slots=True)
class Applied:
    """It was done: it takes the seq of ``stamp``. ``changes`` is what the request came down to, a restored layout as the update
    that it is; ``dropped`` names the tombstones that had to make room."""

    request: Request
    stamp: Stamp
    changes: tuple[Operation, ...]
    merged: tuple[str, ...] = ()
    dropped: tuple[Tombstone, ...] = ()


@dataclass(slots=True)
class Conflict:
    """Nothing was done, since touched fields were changed meanwhile by another device (PROTOCOL section 4).

    ``request`` is what was sent and ``operation`` what it came down to. ``document`` is the current one, None where it is gone;
    ``current_version`` the seq to take as base for a resolution and ``newest`` the newest of the changes it collides with.
    ``resolved`` is set where the server settled it by itself.
    """

    request: Request
    operation: Operation
    fields: tuple[str, ...]
    document: Document | None
    current_version: int
    newest: Stamp | None
    resolved: Resolved | None = None


@dataclass(slots=True)
class Refused:
    """An atomic batch that could not be applied. ``blame`` maps an operation's index to what was wrong with it."""

    request: Batch
    blame: dict[int, Conflict | Replayed | ClientFault]


@dataclass(slots=True)
class Replayed:
    """The very same request was judged before; this is what was said then."""

    request: Request
    verdict: Verdict


@dataclass(slots=True)
class Settled:
    """A conflict was answered by keeping what is there: nothing was changed, the document stands at ``version``."""

    request: Resolution
    version: int


Outcome = Applied | Conflict | Refused | Replayed | Settled
