"""What the server's answers mean for the operations that are on their way. Pure; part of ``state``."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from tornado_rt.client.conflicts import offer, offer_batch
from tornado_rt.client.operation import Operation, OperationState
from tornado_rt.client.outcomes import Conflict, ConflictError, RefusedError, Result, is_retryable

if TYPE_CHECKING:
    from tornado_rt.client.state import ClientState, Frame

__all__ = ["Verdicts"]

_BLAMED = re.compile(r"^(?:payload\.)?operations\[(\d+)\]")
_WHOLESALE = frozenset({"FORBIDDEN", "UNAUTHORIZED"})  # refusals that the next operation would meet as well
_FAILED_KEPT = 100


class Verdicts:
    """``carriers`` are the messages under way and the operations in them; ``conflicted`` the open conflicts, by their id;
    ``failed`` the last operations that were refused for good, for who wants to try them again."""

    def __init__(self, state: ClientState, random: Callable[[], float]) -> None:
        self.state = state
        self.random = random
        self.carriers: dict[str, list[Operation]] = {}
        self.conflicted: dict[str, tuple[Conflict, Operation]] = {}
        self.known_to_server: set[str] = set()  # conflicts that this connection was told of
        self.failed: deque[Operation] = deque(maxlen=_FAILED_KEPT)

    def forget_carriers(self) -> list[Operation]:
        """The socket is gone; returns what travelled by it."""
        lost = [each for carrier, group in self.carriers.items() for each in group if each.carrier == carrier]
        self.carriers.clear()
        self.known_to_server.clear()
        return lost

    # ACK

    def acknowledged(self, frame: Frame, payload: dict[str, Any], now: float) -> None:
        carrier = frame.get("correlationId") or ""
        group = self.carriers.pop(carrier, None)
        if group is None:
            self._stray(payload, now)
        elif group[0].id != carrier:
            self.results(carrier, group, payload.get("results", ()), now, frame)
        elif "results" in payload:  # of the parts of an atomic batch
            self._settle(group[0], _joined(payload["results"], payload.get("seq")), now, frame)
        else:
            self._settle(group[0], {**payload, "status": "success"}, now, frame)

    def _stray(self, payload: dict[str, Any], now: float) -> None:
        """An ACK for what nobody waits for; if it tells of a change that we do not have, we have to ask for it."""
        if payload.get("seq", 0) > self.state.position and not payload.get("duplicate") and not payload.get("resolved"):
            self.state.catchup.ask(now)

    def results(
        self,
        carrier: str,
        group: Iterable[Operation],
        results: Iterable[dict[str, Any]],
        now: float,
        frame: Frame | None = None,
    ) -> None:
        """One verdict for each operation, of an ACK (``frame``) or of a POST. What is not named is repeated.

        Of an operation that was repeated meanwhile a refusal is no verdict: the repetition may be applied.
        """
        by_id = {each.get("operationId"): each for each in results}
        statuses = [(operation, _status(operation, by_id)) for operation in group]
        statuses.sort(key=lambda pair: (pair[1] or {}).get("seq") or 0)  # own changes count in the order of their seqs
        for operation, status in statuses:
            if operation.carrier != carrier and (status is None or status["status"] == "error"):
                continue
            if status is not None:
                self._settle(operation, status, now, frame)
            else:
                self.state.outbox.repeat(operation, now + 1.0, may_have_been_applied=True)

    def _settle(self, operation: Operation, status: dict[str, Any], now: float, frame: Frame | None) -> None:
        if operation.is_settled:  # a second answer, to a repetition
            self._stray(status, now)
            return
        match status["status"]:
            case "success":
                self._confirm(operation, status, now, frame)
            case "conflict":
                found = status.get("conflicts")
                conflict = offer_batch(operation, found) if found else offer(operation, status["conflict"])
                self._open(operation, conflict)
            case _:
                self.refuse(operation, status, now)

    def _confirm(self, operation: Operation, status: dict[str, Any], now: float, frame: Frame | None) -> None:
        seq = status.get("seq")
        is_duplicate = bool(status.get("duplicate"))
        result = Result(seq, status.get("version", seq), tuple(status.get("merged", ())), is_duplicate)
        state = self.state
        state.outbox.confirm(operation, result)
        if frame is not None and seq is not None and not is_duplicate:
            state.catchup.take_own(operation, seq, frame, now)
        state.outbox.forget_seen(state.position)
        state.changed()
        state.events.append(("operation", operation))

    # CONFLICT_DETECTED

    def collided(self, frame: Frame, payload: dict[str, Any]) -> None:
        group = self.carriers.pop(frame.get("correlationId") or "", None)
        if group is None or len(group) != 1 or group[0].is_settled:
            self.state.events.append(("message", frame))
        else:
            conflict = offer(group[0], payload)
            self.known_to_server.add(conflict.id)
            self._open(group[0], conflict)

    def _open(self, operation: Operation, conflict: Conflict) -> None:
        state = self.state
        state.outbox.take_out(operation)
        if conflict.resolved is None:
            self.conflicted[conflict.id] = (conflict, operation)  # its journal keeps it until somebody has chosen
        else:
            state.journal.drop(operation.id)
        state.changed()
        operation.settle(OperationState.CONFLICT, ConflictError(conflict))
        state.events.append(("operation", operation))
        state.events.append(("conflict", conflict))

    # NACK

    def refused(self, frame: Frame, payload: dict[str, Any], now: float) -> bool:
        """True if the NACK was for operations of ours."""
        carrier = frame.get("correlationId") or ""
        group = self.carriers.pop(carrier, None)
        if group is not None:
            self.refuse_all(carrier, group, payload, now)
        return group is not None

    def refuse_all(self, carrier: str, group: list[Operation], error: dict[str, Any], now: float) -> None:
        """A whole message was refused. Where it was for the fault of one operation, the others must not suffer for it."""
        blamed = set(_blamed(error, len(group)))
        if len(group) <= 1 or is_retryable(error) or error.get("code") in _WHOLESALE:
            blamed = set(range(len(group)))
        for index, operation in enumerate(group):
            if operation.carrier != carrier:
                continue  # it was repeated meanwhile
            if index in blamed:
                self.refuse(operation, error, now)
            else:
                operation.goes_alone = not blamed
                self.state.outbox.repeat(operation, now, may_have_been_applied=False)

    def refuse(self, operation: Operation, error: dict[str, Any], now: float) -> None:
        state = self.state
        if is_retryable(error):
            wait = error.get("retryAfterMs")
            seconds = (
                wait / 1000 if wait is not None else min(30.0, 2.0 ** (operation.attempts - 1)) * (0.5 + self.random() / 2)
            )
            is_unknown = error.get("outcome") == "unknown"
            state.outbox.repeat(operation, now + seconds, may_have_been_applied=is_unknown)
        elif error.get("code") == "NOT_FOUND" and operation.edits[0].type == "WIDGET_DELETE" and not operation.is_batch:
            state.outbox.confirm(operation, Result(None, None))  # it is gone, which is what was wanted
            state.outbox.forget_seen(state.position)
        else:
            state.outbox.remove(operation)
            details = tuple(error.get("details") or ())
            operation.settle(
                OperationState.FAILED, RefusedError(error.get("code") or "INTERNAL", error.get("error") or "refused", details)
            )
            self.failed.append(operation)
        state.changed()
        state.events.append(("operation", operation))


def _blamed(error: dict[str, Any], count: int) -> Iterator[int]:
    for detail in error.get("details") or ():
        found = _BLAMED.match(detail.get("path", ""))
        if found and int(found[1]) < count:
            yield int(found[1])


def _status(operation: Operation, by_id: dict[Any, dict[str, Any]]) -> dict[str, Any] | None:
    """The verdict on an operation; why an atomic batch was not applied stands with its parts."""
    whole = by_id.get(operation.id)
    if whole is None or whole["status"] == "success" or not whole.get("results"):
        return whole
    return _joined(whole["results"], None)


def _joined(parts: list[dict[str, Any]], seq: int | None) -> dict[str, Any]:
    """The verdicts on the parts of an atomic batch as one: all were applied, or none."""
    found = [part["conflict"] for part in parts if part["status"] == "conflict"]
    errors = [part for part in parts if part["status"] == "error" and part.get("code") != "BATCH_ABORTED"]
    if errors:
        return next((part for part in errors if not is_retryable(part)), errors[0])
    if found:
        return {"status": "conflict", "conflicts": found}
    if any(part["status"] != "success" for part in parts):
        return next(part for part in parts if part["status"] != "success")
    seqs = [part["seq"] for part in parts if part.get("seq") is not None]
    is_duplicate = bool(parts) and all(part.get("duplicate") for part in parts)
    return {"status": "success", "seq": seq if seq is not None else max(seqs, default=None), "duplicate": is_duplicate}
