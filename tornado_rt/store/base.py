"""The Store contract, in prose: what every store promises to the rooms. Knows bytes, seqs and document names; no merge rules.

A store keeps, for each dashboard, a **log** of records and now and then a **snapshot** of the state that the log folds to. The
rules live in ``core`` alone; to a store a record's body and a snapshot's state are opaque bytes.

Promises that hold for every store, and that ``tests/store/test_contract.py`` asks of every one:

1. ``commit`` is all or nothing, and when it returns ``Committed`` the records are as safe as ``durability`` says.
2. The store gives the seqs: the numbered records of a commit get adjacent ones, in order, without holes, from 1 on.
3. ``open`` returns what was committed and nothing else, records in the order of their commits.
4. Nothing is lost by ``snapshot``: snapshot and tail together fold to the same state as the whole log, and the records of the
   last ``VERDICT_COUNT`` operations that are younger than ``VERDICT_SECONDS`` stay readable, for their verdicts.
5. The epoch is the same as long as the log is; a log that was lost or restored from an older copy has another.
6. A store that cannot write raises ``Unavailable`` and has written nothing; reading goes on where it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

__all__ = [
    "VERDICT_COUNT",
    "VERDICT_SECONDS",
    "Committed",
    "Contents",
    "Duplicate",
    "Logged",
    "NewEpoch",
    "Outcome",
    "Record",
    "Stale",
    "Store",
    "Unknown",
]

VERDICT_COUNT = 10_000  # operations of a dashboard whose verdicts are kept (PROTOCOL section 5, 2)
VERDICT_SECONDS = 24 * 3600  # and for how long

Durability = Literal["disk", "redis", "memory"]


@dataclass(slots=True)
class Record:
    """One outcome on its way into the log.

    ``body`` holds no newline (JSON escapes it) and does not name its own seq: a NUL byte stands where the seq goes, which JSON
    text cannot contain. ``numbered`` is false for a conflict, which is kept for its verdict alone. ``keys`` are the operation
    keys that it answers for, ``writes`` the names of the documents that it changes.
    """

    body: bytes
    numbered: bool = True
    keys: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(slots=True)
class Logged:
    """A record as read back: ``seq`` is its own, or 0 for a record that is not numbered; ``at`` the second it was committed."""

    seq: int
    body: bytes
    at: float


@dataclass(slots=True)
class Contents:
    """What ``open`` found. ``state`` is the snapshot at ``state_seq`` or None; ``log`` is every kept record, oldest first.

    Records with ``0 < seq <= state_seq`` are in the state already and are there for their verdicts; those above are the tail.
    Asked with a ``since`` that the log still reaches, ``state`` is None and ``log`` begins behind ``since``.
    """

    epoch: str
    seq: int
    state: bytes | None = None
    state_seq: int = 0
    log: list[Logged] = field(default_factory=list)


@dataclass(slots=True)
class Committed:
    """Durable. ``missed`` is what others wrote after the caller's ``seen``, to be applied first."""

    first_seq: int
    missed: Contents | None = None


@dataclass(slots=True)
class Stale:
    """Nothing was written: another process changed a document that these decisions read. Apply ``missed``, decide anew."""

    missed: Contents


@dataclass(slots=True)
class Duplicate:
    """Nothing was written: the store knows these keys already. ``verdicts`` maps the record's index to the first one's body."""

    verdicts: dict[int, Logged]
    missed: Contents | None = None


@dataclass(slots=True)
class NewEpoch:
    """Nothing was written: the log is another one now. Open it afresh."""

    epoch: str


@dataclass(slots=True)
class Unknown:
    """The store cannot say whether it was written (a time-out): ask the very same commit again before anything later."""


Outcome = Committed | Stale | Duplicate | NewEpoch | Unknown


class Store(Protocol):
    """What a room asks of its store. All methods are called on the event loop's thread."""

    durability: Durability

    @property
    def is_shared(self) -> bool:
        """Whether other processes may write to it too.

        If not, a room knows all there is: ``reads``, and the records' ``keys`` and ``writes``, may be left empty.
        """

    async def start(self) -> None:
        """Open the store. Raises ``StartFault`` with a sentence (locked by another server, newer schema, not a database)."""

    async def close(self) -> None:
        """Write out what waits, release everything. Calls after it raise ``Unavailable``."""

    @property
    def epoch(self) -> str:
        """The log's epoch; known after ``start``."""

    @property
    def fault(self) -> str | None:
        """Why the store cannot take writes right now, as a sentence; None while it is well (``/readyz``)."""

    async def open(self, dashboard_id: str, since: int | None = None) -> Contents:
        """All that is kept of a dashboard, or what came after ``since`` where the log reaches back that far."""

    async def commit(
        self, dashboard_id: str, epoch: str, seen: int, reads: Mapping[str, int], records: Sequence[Record]
    ) -> Outcome:
        """Append records, all or none.

        ``seen`` is the last seq that the caller has applied, ``reads`` the version of each document that its decisions looked
        at. Raises ``Unavailable`` (nothing was written; ``retry_after_ms`` where the queue is full).
        """

    async def snapshot(self, dashboard_id: str, seq: int, state: bytes) -> None:
        """Keep ``state`` as the state at ``seq``; the log before it may be cut where promise 4 allows. Failing is harmless."""

    def follow(self, dashboard_id: str, on_records: Callable[[Contents], None]) -> Callable[[], None]:
        """Be told what other processes committed, in order, gaps filled. Returns the function that ends it."""
