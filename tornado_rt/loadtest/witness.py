"""Turns the wire messages of one client into a history; knows the shapes of PROTOCOL sections 3 and 6, and opens no socket.

A client hands over what it sends and what it receives, unchanged and in order::

    witness = Witness(history, "tab-1", user_id="ann", dashboard_id="d", device_id="v1")
    witness.sent(message)          # before the frame is written
    witness.received(message)      # as soon as it was read
    witness.closed()               # the socket is gone: what was not answered is unknown now

and for the HTTP API ``posted(body)`` before and ``answered(body, answer)`` (None: no answer came) after each POST. The events
of both ways stand under the one client, told apart by ``via``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tornado_rt.loadtest.events import (
    Applied,
    Conflicted,
    Event,
    Finished,
    History,
    Invoked,
    Joined,
    Json,
    Refused,
    Saw,
    Synced,
    Unanswered,
)

__all__ = ["Witness"]

OPERATIONS = frozenset(
    {"WIDGET_UPDATE", "WIDGET_DELETE", "WIDGET_BATCH", "LAYOUT_UPDATE", "LAYOUT_RESTORE", "CONFLICT_RESOLVED"}
)
CHANGES = OPERATIONS - {"CONFLICT_RESOLVED"}


class Witness:
    """One client's side of the story.

    ``epoch`` is the connection's; ``waiting`` maps the id of each message that has no answer yet to the operations in it.
    """

    def __init__(self, history: History, client: str, *, user_id: str, dashboard_id: str, device_id: str = "") -> None:
        self.client = client
        self.user_id = user_id
        self.dashboard_id = dashboard_id
        self.device_id = device_id
        self.epoch = ""
        self.waiting: dict[str, list[str]] = {}
        self._history = history
        self._asked: dict[str, int | None] = {}  # the since of each SYNC_REQUEST
        self._open_conflicts: dict[str, Json] = {}

    # -- the socket ------------------------------------------------------------------------------------------------------

    def sent(self, message: Mapping[str, Any]) -> None:
        """An outgoing message. Only operations and SYNC_REQUESTs are of interest."""
        if message["type"] == "SYNC_REQUEST" and "id" in message:
            self._asked[message["id"]] = message.get("payload", {}).get("since")
        leaves = list(self._leaves(message))
        for op, type_, payload in leaves:
            self._invoke(op, type_, payload, "socket", self.epoch)
        if leaves:
            self.waiting[message["id"]] = [op for op, _, _ in leaves]

    def received(self, message: Mapping[str, Any], *, since: int | None = None) -> None:
        """An incoming message. ``since`` is what the client offered, for CONNECT."""
        payload = message["payload"]
        asked = message.get("correlationId", "")
        match message["type"]:
            case "CONNECT":
                self.epoch = payload["epoch"]
                self._note(Joined(**self._who, epoch=self.epoch, seq=payload["seq"], since=since))
                if payload.get("sync"):
                    self._synced(payload["sync"], since, in_connect=True)
            case "SYNC_RESPONSE":
                self._synced(payload, self._asked.pop(asked, None))
            case "SYNC_UPDATE" if "fromSeq" in payload:
                self._synced({"mode": "merged", "epoch": self.epoch, **payload}, None)
            case "ACK":
                self._acknowledged(asked, payload)
            case "CONFLICT_DETECTED" if asked in self.waiting:
                self._open_conflicts[payload.get("conflictId", "")] = payload
                for op in self.waiting.pop(asked):
                    self._conflict(op, payload, "socket", bool(payload.get("duplicate")))
            case "NACK":
                for op in self.waiting.pop(asked, ()):
                    self._refuse(op, payload, "socket")
            case type_ if type_ in CHANGES:
                change = {"type": type_, "userId": message["userId"], "payload": payload}
                self._note(Saw(**self._who, epoch=self.epoch, seq=payload["seq"], change=change))

    def closed(self) -> None:
        """The socket is gone, or the client stopped waiting."""
        for ops in self.waiting.values():
            for op in ops:
                self._note(Unanswered(**self._who, op=op, user=self.user_id))
        self.waiting.clear()
        self._open_conflicts.clear()

    # -- POST ------------------------------------------------------------------------------------------------------------

    def posted(self, body: Mapping[str, Any]) -> None:
        for each in body["operations"]:
            for op, type_, payload in self._leaves({**each, "id": each["operationId"]}):
                self._invoke(op, type_, payload, "post", body.get("epoch") or self.epoch)

    def answered(self, body: Mapping[str, Any], answer: Mapping[str, Any] | None) -> None:
        """The answer to a POST: its JSON body, an error body (``{error, code}``), or None where none came."""
        epoch = self.epoch or (answer or {}).get("sync", {}).get("epoch", "")
        if answer is not None and "results" in answer:
            for result in _verdicts(answer["results"], None):
                self._result(result, "post", epoch)
        else:
            for each in body["operations"]:
                for op, _, _ in self._leaves({**each, "id": each["operationId"]}):
                    if answer is None:
                        self._note(Unanswered(**self._who, op=op, user=self.user_id, via="post"))
                    else:
                        self._refuse(op, answer, "post")
        if answer is not None and answer.get("sync"):
            self._synced(answer["sync"], body.get("since"), via="post")

    # -- the end ---------------------------------------------------------------------------------------------------------

    def believes(self, epoch: str, seq: int, widgets: Json, layouts: Json) -> None:
        """What the client shows its user at its position: ``{id: {"data" | "layout": {...}}}``."""
        self._note(Synced(**self._who, epoch=epoch, seq=seq, mode="view", widgets=widgets, layouts=layouts))

    def finished(self, snapshot: Mapping[str, Any]) -> None:
        """A SYNC_RESPONSE payload of mode ``snapshot``, asked for when all writers had stopped."""
        if snapshot["mode"] != "snapshot":
            raise ValueError("the end of a history is a snapshot: ask with since 0")
        documents = {"widgets": snapshot["widgets"], "layouts": snapshot["layouts"]}
        self._note(Finished(**self._who, epoch=snapshot["epoch"], seq=snapshot["seq"], **documents))

    # -- inside ----------------------------------------------------------------------------------------------------------

    @property
    def _who(self) -> Json:
        return {"client": self.client, "dashboard": self.dashboard_id}

    def _note(self, event: Event) -> None:
        self._history.record(event)

    def _leaves(self, message: Mapping[str, Any]) -> Iterator[tuple[str, str, Json]]:
        """``(op, type, payload)`` of everything in a message that gets a verdict of its own. An atomic batch has one."""
        type_, payload = message["type"], message.get("payload", {})
        if type_ == "SYNC_UPDATE" or (type_ == "WIDGET_BATCH" and not payload.get("atomic", True)):
            for each in payload.get("operations", ()):
                yield from self._leaves({**each, "id": each["operationId"]})
        elif type_ in OPERATIONS:
            yield message["id"], type_, dict(payload)

    def _invoke(self, op: str, type_: str, payload: Json, via: str, epoch: str) -> None:
        if type_ == "CONFLICT_RESOLVED":
            type_, payload = self._self_contained(payload)
        event = Invoked(**self._who, op=op, user=self.user_id, device=self.device_id, type=type_, payload=payload)
        event.epoch, event.via = payload.get("epoch") or epoch, via
        self._note(event)

    def _self_contained(self, payload: Json) -> tuple[str, Json]:
        """A resolution that leans on the server's memory, with what that memory adds."""
        conflict = self._open_conflicts.get(payload.get("conflictId", ""))
        if conflict is None or "baseVersion" in payload:
            return "CONFLICT_RESOLVED", payload
        key = f"{conflict['kind']}Id"
        return "CONFLICT_RESOLVED", {**payload, key: conflict[key], "baseVersion": conflict["currentVersion"]}

    def _acknowledged(self, asked: str, payload: Mapping[str, Any]) -> None:
        ops = self.waiting.pop(asked, None)
        if ops is None:
            return
        verdicts = list(_verdicts(payload.get("results", ()), set(ops)))
        for result in verdicts:
            self._result(result, "socket", self.epoch)
        if not verdicts and any(result["status"] != "success" for result in payload.get("results", ())):
            for op in ops:  # an atomic batch, refused as a whole: a repetition would be judged anew
                self._refuse(op, {"code": "BATCH_ABORTED"}, "socket")
        elif not verdicts:
            parts = payload.get("results", ())
            repeated = bool(parts) and all(result.get("duplicate") for result in parts)
            for op in ops:
                self._apply(op, {"duplicate": repeated, **payload}, "socket", self.epoch)

    def _result(self, result: Mapping[str, Any], via: str, epoch: str) -> None:
        op = result["operationId"]
        match result["status"]:
            case "success":
                self._apply(op, result, via, epoch)
            case "conflict":
                self._conflict(op, result.get("conflict") or {}, via, bool(result.get("duplicate")))
            case _:
                self._refuse(op, result, via)

    def _apply(self, op: str, answer: Mapping[str, Any], via: str, epoch: str) -> None:
        event = Applied(**self._who, op=op, user=self.user_id, via=via, epoch=epoch, seq=answer.get("seq") or 0)
        event.merged = list(answer.get("merged") or ())
        event.duplicate = bool(answer.get("duplicate"))
        self._note(event)

    def _conflict(self, op: str, conflict: Mapping[str, Any], via: str, duplicate: bool) -> None:
        event = Conflicted(**self._who, op=op, user=self.user_id, via=via, epoch=self.epoch, duplicate=duplicate)
        event.fields = list(conflict.get("fields") or ())
        event.current_version = conflict.get("currentVersion") or 0
        event.remote = conflict.get("remote")
        self._note(event)

    def _refuse(self, op: str, answer: Mapping[str, Any], via: str) -> None:
        unknown = answer.get("outcome") == "unknown"
        code = str(answer.get("code", ""))
        self._note(Refused(**self._who, op=op, user=self.user_id, via=via, code=code, outcome_unknown=unknown))

    def _synced(self, sync: Mapping[str, Any], since: int | None, *, in_connect: bool = False, via: str = "socket") -> None:
        if via == "socket":
            self.epoch = sync["epoch"]
        operations = sync.get("operations") or []
        first = operations[0]["seq"] - 1 if operations else sync["seq"]
        body = {key: sync[key] for key in ("widgets", "layouts", "deleted") if sync.get(key)}
        event = Synced(
            **self._who,
            epoch=sync["epoch"],
            seq=sync["seq"],
            mode=sync["mode"],
            from_seq=sync.get("fromSeq", first if since is None else since),
            operations=operations,
            in_connect=in_connect,
            via=via,
            **body,
        )
        self._note(event)


def _verdicts(results: Iterable[Mapping[str, Any]], ops: set[str] | None) -> Iterator[Mapping[str, Any]]:
    """The results that speak of operations: those of a loose batch stand inside the batch's own."""
    for result in results:
        inside = result.get("results", ())
        loose = inside and "seq" not in result and result.get("code") != "BATCH_ABORTED"
        if loose:
            yield from _verdicts(inside, ops)
        elif ops is None or result["operationId"] in ops:
            yield result
