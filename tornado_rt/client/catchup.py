"""How the replica comes up to date and stays so: syncs, broadcasts, own changes at their ACK, and asking for what is missing.

Pure; part of ``state``. The rules are PROTOCOL section 5, 3 to 5, and section 8: position + 1 is applied, what is lower is
dropped, on anything higher the client asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from tornado_rt.client.edit import Fields, Key
from tornado_rt.client.operation import Operation
from tornado_rt.client.outcomes import Change
from tornado_rt.client.replica import Replica

if TYPE_CHECKING:
    from tornado_rt.client.state import ClientState, Frame

__all__ = ["CatchUp"]

_MAY_DELETE = frozenset({"WIDGET_DELETE", "WIDGET_BATCH"})


class CatchUp:
    """``replica`` is what the server has, as far as we know; ``is_done`` is true once a first sync has come."""

    def __init__(self, state: ClientState) -> None:
        self.state = state
        self.replica = Replica()
        self.is_done = False
        self._asked: tuple[str, float] | None = None  # the SYNC_REQUEST under way, and when it is given up
        self._ask_again_at: float | None = None

    # Asking

    def ask(self, now: float, *, whole: bool = False) -> None:
        """Something was missed: ask for it, unless that is under way or nobody is there to be asked."""
        if self._asked is None and self.state.connection is not None:
            message_id = self.state.emit("SYNC_REQUEST", {} if whole else self.state.resume)
            self._asked = (message_id, now + self.state.options.operation_timeout)
            self._ask_again_at = None

    def is_refused(self, frame: Frame, now: float) -> bool:
        """True if the NACK was for our SYNC_REQUEST, which is then repeated later."""
        if self._asked is None or frame.get("correlationId") != self._asked[0]:
            return False
        self._asked = None
        self._ask_again_at = now + (frame["payload"].get("retryAfterMs") or 1000) / 1000
        return True

    def ask_again(self, now: float) -> None:
        """Repeat what was refused or not answered in time."""
        due = self.due
        if due is not None and due <= now:
            self._asked = None
            self.ask(now)

    def closed(self) -> None:
        """Nobody will answer any more."""
        self._asked = self._ask_again_at = None

    @property
    def due(self) -> float | None:
        """When ``ask_again`` has something to do."""
        return self._asked[1] if self._asked is not None else self._ask_again_at

    # Whole states

    def take_sync(self, payload: dict[str, Any], now: float) -> None:
        """A SYNC_RESPONSE's payload, by whichever way it came."""
        self.closed()
        mode = payload["mode"]
        if mode == "snapshot":
            self._take_whole(self.replica.take_snapshot, payload, "SYNC_RESPONSE", is_snapshot=True)
        elif payload["epoch"] != self.replica.epoch:
            self.ask(now, whole=True)  # a part of a log that we have nothing of
            return
        elif mode == "merged":
            self.take_merged(payload, now, "SYNC_RESPONSE")
        elif not self._take_delta(payload):
            self.ask(now, whole=True)
            return
        self.is_done = True
        self.state.events.append(("sync", mode))

    def take_merged(self, payload: dict[str, Any], now: float, type_: str) -> None:
        """Merged state in place of a backlog."""
        if payload.get("fromSeq", 0) > self.replica.position:
            self.ask(now)
        elif payload["seq"] >= self.replica.position:
            self._take_whole(self.replica.take_merged, payload, type_, is_snapshot=False)

    def _take_whole(
        self, take: Callable[[dict[str, Any]], tuple[Key, ...]], payload: dict[str, Any], type_: str, *, is_snapshot: bool
    ) -> None:
        shown = self._shown()
        keys = take(payload)
        self._settle_in(keys, shown, is_snapshot=is_snapshot)
        change = Change(type_, self.replica.position, "", payload.get("timestamp", ""), payload, keys)
        self.state.events.append(("change", change))

    def _take_delta(self, payload: dict[str, Any]) -> bool:
        for change in payload["operations"]:
            if change["seq"] == self.replica.position + 1:
                self._take_change(change)
            elif change["seq"] > self.replica.position:
                return False
        return bool(payload["seq"] <= self.replica.position)

    # Single changes

    def take_broadcast(self, frame: Frame, now: float) -> None:
        seq = frame["payload"]["seq"]
        if seq == self.replica.position + 1:
            self._take_change(frame)
        elif seq > self.replica.position:
            self.ask(now)

    def _take_change(self, change: dict[str, Any]) -> None:
        shown = self._shown() if change["type"] in _MAY_DELETE else {}
        keys = self.replica.take_change(change)
        self._settle_in(keys, shown)
        told = Change(change["type"], self.replica.position, change["userId"], change["timestamp"], change["payload"], keys)
        self.state.events.append(("change", told))

    def take_own(self, operation: Operation, seq: int, frame: Frame, now: float) -> None:
        """An ACK says that an operation stands at ``seq``. If that is the next place, its change is what we sent."""
        if seq <= self.replica.position:
            return
        if seq > self.replica.position + 1 or not all(edit.is_known for edit in operation.edits):
            self.ask(now)
            return
        at, user_id = frame.get("timestamp", ""), self.state.user_id
        keys = self.replica.take_edits(operation.edits, seq, user_id, at)
        self._settle_in(keys, {})
        self.state.events.append(("change", Change(operation.type, seq, user_id, at, operation.payload, keys, is_own=True)))

    # What it means for the operations that wait

    def _shown(self) -> dict[Key, Fields]:
        """The documents that waiting operations change, as they are shown now."""
        shown = {key: self.state.document(key) for operation in self.state.outbox for key in operation.keys}
        return {key: fields for key, fields in shown.items() if fields is not None}

    def _settle_in(self, keys: Iterable[Key], shown: dict[Key, Fields], *, is_snapshot: bool = False) -> None:
        """After the server's documents changed: forget what is in them now, hide edits of what somebody deleted."""
        gone = {key for key in keys if key not in self.replica.documents}
        if gone or is_snapshot:
            self._hide(gone, shown, is_snapshot=is_snapshot)
        self.state.outbox.forget_seen(self.replica.position, everything=is_snapshot)
        self.state.changed()

    def _hide(self, gone: set[Key], shown: dict[Key, Fields], *, is_snapshot: bool) -> None:
        """A late edit brings no document back, so it is not shown; an operation that makes the document anew is."""
        made: set[Key] = set()
        for operation in self.state.pending:
            for edit in operation.edits:
                key = edit.key
                is_missing = key in gone or (is_snapshot and key not in self.replica.documents)
                if edit.base_version is None:
                    made.add(key)
                elif is_missing and key not in made:
                    operation.lost.add(key)
                    operation.shown = shown.get(key, operation.shown)
