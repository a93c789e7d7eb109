"""An operation of this client from its making to its verdict. It knows what it is and how far it came, not how it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from tornado_rt.client.edit import Edit, Fields, Key
from tornado_rt.client.outcomes import Result

__all__ = ["Operation", "OperationState"]


class OperationState(StrEnum):
    """PENDING waits to leave or to be repeated, SENT to be answered; the others are verdicts."""

    PENDING = "PENDING"
    SENT = "SENT"
    CONFIRMED = "CONFIRMED"
    FAILED = "FAILED"
    CONFLICT = "CONFLICT"


@dataclass(slots=True, eq=False)
class Operation:
    """One request to change documents. ``await operation`` gives its ``Result`` or raises ``ConflictError``, ``RefusedError``.

    ``edits`` are its effect: one, or those of an atomic batch. ``resolution`` is the payload of a CONFLICT_RESOLVED. ``shown``
    is the document as the person saw it with this edit in it. ``keys`` names the documents that it is about.
    """

    id: str
    edits: tuple[Edit, ...]
    is_batch: bool = False
    resolution: dict[str, Any] | None = None
    shown: Fields | None = None

    state: OperationState = OperationState.PENDING
    outcome: Result | Exception | None = None
    seq: int | None = None  # its place in the log, once confirmed
    attempts: int = 0

    carrier: str | None = None  # the message or POST that it travels in now
    is_posted: bool = False  # and that is a POST
    left: bool = False  # it left and nobody said that nothing was changed: it may have been applied
    refused: bool = False  # it left and a NACK said that nothing was changed: it is to be repeated
    is_resumed: bool = False  # it goes by SYNC_UPDATE: it waited for the connection, or another answer may still come
    goes_alone: bool = False  # a message that it shared was refused without naming the culprit
    not_before: float = 0.0
    hold_until: float = 0.0  # debounce: later edits of the same fields are joined to it until then
    deadline: float = 0.0
    overtaken: dict[Key, frozenset[str] | None] = field(default_factory=dict)  # fields that later operations have set
    lost: set[Key] = field(default_factory=set)  # documents that somebody deleted meanwhile
    followers: list[Operation] = field(default_factory=list)  # operations that share its verdict
    keys: frozenset[Key] = field(init=False)
    _size_bytes: int = 0
    _waiting: list[Callable[[Operation, Exception | None], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = frozenset(edit.key for edit in self.edits)

    @property
    def type(self) -> str:
        if self.resolution is not None:
            return "CONFLICT_RESOLVED"
        return "WIDGET_BATCH" if self.is_batch else self.edits[0].type

    @property
    def payload(self) -> dict[str, Any]:
        """What leaves; the same each time, since a repeated operation must be the same operation."""
        if self.resolution is not None:
            return self.resolution
        if not self.is_batch:
            return self.edits[0].payload()
        operations = [
            {"operationId": leaf, "type": edit.type, "payload": edit.payload()}
            for leaf, edit in zip(self.leaf_ids, self.edits, strict=True)
        ]
        return {"operations": operations, "atomic": True}

    @property
    def leaf_ids(self) -> tuple[str, ...]:
        return tuple(f"{self.id}.{index}" for index in range(len(self.edits)))

    @property
    def wire(self) -> dict[str, Any]:
        """It as an ``Op``, for SYNC_UPDATE, WIDGET_BATCH and POST."""
        return {"operationId": self.id, "type": self.type, "payload": self.payload}

    @property
    def size_bytes(self) -> int:
        if not self._size_bytes:
            self._size_bytes = len(json.dumps(self.wire, ensure_ascii=False, separators=(",", ":")).encode())
        return self._size_bytes

    def revise(self, edit: Edit, id_: str) -> None:
        """Another content for a single edit."""
        self.id = id_
        self.edits = (edit,)
        self._size_bytes = 0

    @property
    def is_plain(self) -> bool:
        """A single merge of fields, from which fields can be taken out."""
        return self.resolution is None and not self.is_batch and self.edits[0].is_plain

    @property
    def is_settled(self) -> bool:
        return self.outcome is not None

    @property
    def error(self) -> Exception | None:
        return self.outcome if isinstance(self.outcome, Exception) else None

    # The end of it

    def settle(self, state: OperationState, outcome: Result | Exception) -> None:
        """The verdict is there: whoever waits is told, and so are the operations that share it."""
        self.state = state
        self.outcome = outcome
        self.carrier = None
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told(self, None)
        for follower in self.followers:
            follower.settle(state, outcome)

    def abandon(self, error: Exception) -> None:
        """Nobody will answer any more; who waits gets ``error``, the operation stays what it is."""
        waiting, self._waiting = self._waiting, []
        for told in waiting:
            told(self, error)
        for follower in self.followers:
            follower.abandon(error)

    def reopen(self, new_id: str) -> None:
        """Back to the beginning under a new id, for a refused operation that a person wants to try again."""
        self.id = new_id
        self.state = OperationState.PENDING
        self.outcome = None
        self.attempts = 0
        self.left = self.refused = False
        self.not_before = 0.0

    def __await__(self) -> Generator[Any, None, Result]:
        return self._verdict().__await__()

    async def _verdict(self) -> Result:
        if self.outcome is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def told(_: Operation, error: Exception | None) -> None:
                if not future.done():
                    if error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(error)

            self._waiting.append(told)
            await future
        if isinstance(self.outcome, Exception):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    # For a queue on disk

    def dump(self) -> dict[str, Any]:
        """As plain JSON values; ``load`` is its inverse."""
        return {
            "id": self.id,
            "edits": [asdict(edit) for edit in self.edits],
            "is_batch": self.is_batch,
            "resolution": self.resolution,
            "shown": self.shown,
        }

    @classmethod
    def load(cls, kept: dict[str, Any]) -> Operation:
        """From a queue: nobody knows any more whether it had left, so it counts as if it had."""
        edits = tuple(Edit(**{**each, "unset": tuple(each["unset"])}) for each in kept["edits"])
        operation = cls(kept["id"], edits, kept["is_batch"], kept["resolution"], kept["shown"])
        operation.left = True
        return operation
