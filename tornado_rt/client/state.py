"""The client without its sockets: frames, answers and the time go in; frames to send and events to tell come out. Pure.

What a person sees is the server's documents with the waiting operations replayed on them, so a late broadcast makes nothing
flicker and a rollback restores what really stood before. Frames are dicts as on the wire, without ``timestamp``; times are
seconds of any clock that does not go back. The rules are PROTOCOL sections 5 and 8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from tornado_rt.client.catchup import CatchUp
from tornado_rt.client.conflicts import NOT_GIVEN, resolution
from tornado_rt.client.edit import Edit, Fields, Key, Kind
from tornado_rt.client.operation import Operation, OperationState
from tornado_rt.client.outbox import Journal, Limits, Outbox, Pace, grouped
from tornado_rt.client.outcomes import Conflict, QueueFullError, RefusedError
from tornado_rt.client.verdicts import Verdicts
from tornado_rt.errors import ConflictUnknown, TooLarge

__all__ = ["ClientState", "Frame", "Options", "Post"]

Frame = dict[str, Any]

_CHANGES = frozenset({"WIDGET_UPDATE", "WIDGET_DELETE", "WIDGET_BATCH", "LAYOUT_UPDATE", "LAYOUT_RESTORE"})


@dataclass(frozen=True, slots=True)
class Options:
    """The guide's names and defaults in snake_case; times in seconds."""

    max_pending_operations: int = 100  # on their way at once; more wait
    max_queue_size: int = 500  # made and not yet settled; more are refused
    operation_timeout: float = 30.0
    enable_conflict_detection: bool = True


@dataclass(slots=True)
class Post:
    """One POST to make while the socket is down: its body but for who we are, and what travels in it."""

    id: str
    body: dict[str, Any]
    operations: list[Operation]


class ClientState:
    """``frames`` and ``events`` are to be emptied by the caller after each call; events are ``(name, value)`` pairs:
    change, operation, conflict, message, refused, sync."""

    def __init__(
        self,
        user_id: str,
        journal: Journal,
        new_id: Callable[[], str],
        random: Callable[[], float],
        options: Options | None = None,
    ) -> None:
        self.user_id = user_id
        self.options = options or Options()
        self.outbox = Outbox(journal, new_id)
        self.journal = journal
        self.new_id = new_id
        self.frames: list[Frame] = []
        self.events: list[tuple[str, Any]] = []
        self.limits = Limits()
        self.pace = Pace(self.limits)
        self.connection: dict[str, Any] | None = None  # CONNECT's payload while the socket is up
        self.disconnect: dict[str, Any] | None = None  # what DISCONNECT said, for who decides about coming back
        self.catchup = CatchUp(self)
        self.verdicts = Verdicts(self, random)
        self._paced_until: float | None = None
        self._pictures: dict[Kind, dict[str, Fields]] = {}

    # What is shown

    @property
    def position(self) -> int:
        return self.catchup.replica.position

    @property
    def epoch(self) -> str | None:
        return self.catchup.replica.epoch

    @property
    def pending(self) -> list[Operation]:
        return self.outbox.unsettled

    @property
    def conflicts(self) -> list[Conflict]:
        return [conflict for conflict, _ in self.verdicts.conflicted.values()]

    @property
    def failed(self) -> list[Operation]:
        return list(self.verdicts.failed)

    @property
    def resume(self) -> dict[str, Any]:
        """``since`` and ``epoch``, for the next connection or POST."""
        return {"since": self.position, **({"epoch": self.epoch} if self.epoch is not None else {})}

    def view(self, kind: Kind) -> dict[str, Fields]:
        """Documents by id as a person should see them; to be read, not changed. The same object until something changes."""
        picture = self._pictures.get(kind)
        if picture is None:
            picture = {
                name: document.fields for (each, name), document in self.catchup.replica.documents.items() if each == kind
            }
            self.outbox.replay(kind, picture)
            self._pictures[kind] = picture
        return picture

    def document(self, key: Key) -> Fields | None:
        """One document as it is shown; None where there is none."""
        fields = self.catchup.replica.fields(key)
        picture = {} if fields is None else {key[1]: fields}
        self.outbox.replay(key[0], picture, key[1])
        return picture.get(key[1])

    def changed(self) -> None:
        """The picture is another one now."""
        self._pictures.clear()

    # What the person does

    def submit(self, edit: Edit, now: float, *, hold_seconds: float = 0.0) -> Operation:
        """Make an operation: it is shown at once and leaves with the next ``flush``. With ``hold_seconds`` it waits that long
        for later edits of the same fields and becomes one with them; the same operation is returned again.

        Raises ``QueueFullError``, and ``TooLarge`` for what no message could carry.
        """
        held = self._held(edit, now)
        if held is not None and edit.type == "WIDGET_DELETE":
            self.outbox.remove(held)
        elif held is not None and hold_seconds and held.edits[0].touches == edit.touches and edit.is_plain:
            held.revise(edit.based_on(held.edits[0].base_version, held.edits[0].epoch), held.id)
            self.outbox.hold(held, now + hold_seconds)
            self.changed()
            held.shown = self.document(edit.key)
            self.journal.put(held)
            return held
        operation = Operation(self.new_id(), (self._based(edit),))
        self._admit(operation)
        if held is not None and edit.type == "WIDGET_DELETE":
            operation.followers.append(held)
        elif hold_seconds and edit.is_plain:
            self.outbox.hold(operation, now + hold_seconds)
        return operation

    def submit_batch(self, edits: Iterable[Edit]) -> Operation:
        """Make one operation of several edits: all are applied, or none."""
        operation = Operation(self.new_id(), tuple(self._based(edit) for edit in edits), is_batch=True)
        if not operation.edits:
            raise ValueError("a batch needs at least one edit")
        if len(operation.edits) > self.limits.max_operations:
            raise TooLarge(f"a batch holds at most {self.limits.max_operations} edits")
        self._admit(operation)
        return operation

    def take_back(self, operations: Iterable[Operation]) -> None:
        """Operations that a queue kept from an earlier run, before anything else is done."""
        for operation in operations:
            self.outbox.add(operation)
        self.changed()

    def resolve(self, conflict_id: str, choice: str, data: Any = NOT_GIVEN) -> Operation | None:
        """A person's answer: ``local``, ``remote`` or ``merged`` with ``data``. ``remote`` needs no operation and gives None.

        Raises ``ConflictUnknown``, and ``ValueError`` for a choice that makes no sense here.
        """
        if choice not in ("local", "remote", "merged"):
            raise ValueError(f"a conflict is resolved local, remote or merged, not {choice}")
        if conflict_id not in self.verdicts.conflicted:
            raise ConflictUnknown(f"there is no open conflict {conflict_id}")
        conflict, operation = self.verdicts.conflicted[conflict_id]
        if choice == "remote":
            answer = None
            self.journal.drop(operation.id)
            if conflict_id in self.verdicts.known_to_server:
                self.emit("CONFLICT_RESOLVED", {"conflictId": conflict_id, "resolution": "remote"})
        else:
            answer = resolution(conflict, operation, choice, data, self.new_id(), self.epoch)
            self.outbox.add(answer)
            self.journal.exchange(operation.id, answer)
        del self.verdicts.conflicted[conflict_id]
        self.changed()
        return answer

    def retry(self, operation: Operation) -> None:
        """Try a failed operation again, under a new id and with the base it had. Raises ``ValueError`` for any other."""
        if operation not in self.verdicts.failed:
            raise ValueError("only a failed operation can be tried again")
        self.verdicts.failed.remove(operation)
        operation.reopen(self.new_id())
        self._admit(operation)

    def rollback(self, operation: Operation) -> None:
        """Give an operation up: one that has not left, failed, or is in conflict (then theirs is kept).

        Raises ``ValueError`` for one that may have been applied: only its verdict can tell.
        """
        for conflict_id, (_, each) in self.verdicts.conflicted.items():
            if each is operation:
                self.resolve(conflict_id, "remote")
                return
        if operation in self.verdicts.failed:
            self.verdicts.failed.remove(operation)
            return
        if operation.is_settled:
            raise ValueError("the operation has its verdict")
        if operation.left:
            raise ValueError("the operation has left and may have been applied; only its verdict can tell")
        self.outbox.remove(operation)
        operation.settle(OperationState.FAILED, RefusedError("ROLLED_BACK", "given up before it left"))
        self.events.append(("operation", operation))
        self.changed()

    def _held(self, edit: Edit, now: float) -> Operation | None:
        """The last operation on the document, if it is still held back for edits like this one."""
        last = self.outbox.last_on(edit.key)
        return last if last is not None and last.hold_until > now and not last.left else None

    def _based(self, edit: Edit) -> Edit:
        """With the base that the person saw. Who makes a document, or has seen nothing yet, has none."""
        if not self.options.enable_conflict_detection or self.epoch is None:
            return replace(edit, base_version=None)
        if edit.base_version is not None:
            return replace(edit, epoch=edit.epoch or self.epoch)
        return edit.based_on(self.position, self.epoch) if self.document(edit.key) is not None else edit

    def _admit(self, operation: Operation) -> None:
        waiting = self.outbox.unsettled_count + len(self.verdicts.conflicted)
        if waiting >= self.options.max_queue_size:
            raise QueueFullError(f"{waiting} operations wait already; this one was not taken")
        if operation.size_bytes > self.limits.max_message_bytes - 1024:
            raise TooLarge(f"a message holds at most {self.limits.max_message_bytes} bytes")
        self.outbox.add(operation)
        self.changed()
        edit = operation.edits[0]
        if not operation.is_batch and operation.resolution is None:
            operation.shown = self.document(edit.key)
        self.journal.put(operation)

    # What the server says

    def receive(self, frame: Frame, now: float) -> None:
        """One message of the server."""
        payload: dict[str, Any] = frame.get("payload") or {}
        match frame.get("type"):
            case "CONNECT":
                self._connected(frame, payload, now)
            case "DISCONNECT":
                self.disconnect = payload
            case "PING":
                self.emit("PONG", {}, frame.get("id"))
                if payload.get("seq", 0) > self.position:
                    self.catchup.ask(now)
            case "SYNC_RESPONSE":
                self.catchup.take_sync(payload, now)
            case "SYNC_UPDATE" if "fromSeq" in payload:
                self.catchup.take_merged(payload, now, "SYNC_UPDATE")
            case "ACK":
                self.verdicts.acknowledged(frame, payload, now)
            case "NACK":
                self._refused(frame, payload, now)
            case "CONFLICT_DETECTED":
                self.verdicts.collided(frame, payload)
            case type_ if type_ in _CHANGES and "seq" in payload:
                self.catchup.take_broadcast(frame, now)
            case _:
                self.events.append(("message", frame))

    def closed(self) -> None:
        """The socket is gone: what travelled by it may have been applied, and is repeated."""
        self.connection = None
        self.catchup.closed()
        self.outbox.unanswered(self.verdicts.forget_carriers())

    def _connected(self, frame: Frame, payload: dict[str, Any], now: float) -> None:
        self.user_id = frame.get("userId") or self.user_id
        self.connection = payload
        self.disconnect = None
        self.limits = Limits.from_wire(payload.get("limits") or {})
        self.pace = Pace(self.limits)
        for operation in self.outbox:
            operation.is_resumed = True
        if payload.get("sync") is not None:
            self.catchup.take_sync(payload["sync"], now)
        else:
            self.catchup.ask(now)

    def _refused(self, frame: Frame, payload: dict[str, Any], now: float) -> None:
        if not (self.catchup.is_refused(frame, now) or self.verdicts.refused(frame, payload, now)):
            self.events.append(("refused", frame))

    # Sending

    def emit(
        self, type_: str, payload: dict[str, Any], correlation_id: str | None = None, message_id: str | None = None
    ) -> str:
        message_id = message_id or self.new_id()
        frame: Frame = {"type": type_, "id": message_id, "userId": self.user_id, "payload": payload}
        if correlation_id is not None:
            frame["correlationId"] = correlation_id
        self.frames.append(frame)
        return message_id

    def flush(self, now: float) -> None:
        """Let leave what may leave, and repeat what was not answered in time."""
        for operation in self.outbox.expire(now):
            self.events.append(("operation", operation))
        if self.connection is None:
            return
        self.catchup.ask_again(now)
        self._paced_until = None
        for group in grouped(self._leaving(now), self.limits):
            leaves = _leaves(group)
            wait = self.pace.wait_seconds(leaves, now)
            if wait:
                self._paced_until = now + wait
                return
            self.pace.take(leaves)
            self._send(group, now)

    def _leaving(self, now: float) -> list[Operation]:
        room = self.options.max_pending_operations - self.outbox.travelling_count
        chosen = self.outbox.choose(now, room)
        fresh = [operation for operation in chosen if self.outbox.freshen(operation)]
        if len(fresh) < len(chosen):
            self.changed()
        return fresh

    def _send(self, group: list[Operation], now: float) -> None:
        first = group[0]
        if len(group) == 1 and not first.is_resumed:
            carrier = self.emit(first.type, first.payload, message_id=first.id)
        else:
            payload: dict[str, Any] = {"operations": [operation.wire for operation in group]}
            is_sync = first.is_resumed or any(each.is_batch or each.resolution is not None for each in group)
            if not is_sync:
                payload["atomic"] = False
            carrier = self.emit("SYNC_UPDATE" if is_sync else "WIDGET_BATCH", payload)
        self.verdicts.carriers[carrier] = group
        for operation in group:
            self.outbox.sent(operation, carrier, now + self.options.operation_timeout, by_post=False)

    def due(self, now: float) -> float | None:
        """When ``flush`` has something to do by time alone; None if never."""
        times = [self.outbox.due(now)]
        if self.connection is not None:
            times += [self.catchup.due, self._paced_until]
        return min((time for time in times if time is not None), default=None)

    # By POST, while the socket is down

    def post(self, now: float) -> Post | None:
        """The next POST to make; None while there is a connection."""
        if self.connection is not None:
            return None
        group = next(grouped(self._leaving(now), self.limits), [])
        post = Post(self.new_id(), {"type": "SYNC", "operations": [each.wire for each in group], **self.resume}, group)
        for operation in group:
            self.outbox.sent(operation, post.id, float("inf"), by_post=True)
        return post

    def is_idle(self, now: float) -> bool:
        """Whether nothing may leave just now."""
        return not self.outbox.choose(now, 1)

    def posted(self, post: Post, answer: dict[str, Any], now: float) -> None:
        """The POST was answered with 200."""
        self.verdicts.results(post.id, post.operations, answer.get("results", ()), now)
        sync = answer.get("sync")
        if sync is None or self.connection is not None:
            return  # a connection that came meanwhile knows better
        if sync["mode"] == "snapshot" and sync["epoch"] == self.epoch and sync["seq"] < self.position:
            return  # overtaken on its way
        self.catchup.take_sync(sync, now)

    def post_refused(self, post: Post, error: dict[str, Any], now: float) -> None:
        """The POST was answered with an error of ours: nothing of it was changed."""
        self.verdicts.refuse_all(post.id, post.operations, error, now)

    def post_lost(self, post: Post) -> None:
        """The POST was not answered, or the server was at fault: it may have been applied."""
        self.outbox.unanswered(each for each in post.operations if each.carrier == post.id)


def _leaves(group: Iterable[Operation]) -> int:
    return sum(len(operation.edits) for operation in group)
