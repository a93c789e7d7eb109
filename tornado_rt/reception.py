"""What a client's messages mean: each is decoded, checked against who sent it, and put to its room (PROTOCOL section 3).

The one place where a bug in judging a message is caught: it costs the sender a NACK, and us a line in the log.
"""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from tornado_rt.answers import results_of
from tornado_rt.core.document import Author
from tornado_rt.errors import (
    Close,
    Forbidden,
    Internal,
    InvalidMessage,
    RateLimited,
    Refusal,
    ServerFault,
    TooLarge,
    Unauthorized,
)
from tornado_rt.events import Event
from tornado_rt.guard import weight_of
from tornado_rt.intake import Item, OpenConflict, batch_of, item_of, operation_of, resolution_of
from tornado_rt.protocol.codec import decode, encode_message, encode_nack
from tornado_rt.protocol.messages import (
    ClientMessage,
    SyncOp,
    SyncPost,
    SyncUpdatePayload,
    WidgetBatchPayload,
    WidgetUpdate,
    count_leaves,
)
from tornado_rt.room import Room
from tornado_rt.session import Session
from tornado_rt.submission import Hall, Submission

__all__ = ["Reception"]

log = structlog.get_logger(__name__)


class Reception:
    """Takes in what is said; answers at once what needs no judging. ``max_operations`` is the most in one message (0: any)."""

    def __init__(self, hall: Hall, max_operations: int) -> None:
        self._hall = hall
        self._max_operations = max_operations
        self._renewals: set[asyncio.Task[None]] = set()

    def receive(self, session: Session, raw: bytes) -> None:
        """Take in one text frame. Whatever is wrong with it ends here: in a NACK, and in the log if it is our fault."""
        session.message_count += 1
        message, message_id = None, None
        try:
            message = decode(raw)
            message_id = message.id
            self._charge(session, message, len(raw))
            if message.user_id != session.user:
                raise Forbidden("userId is another than the connection's", details=(("userId", "must be your own"),))
            if not self._hall.events.is_idle:
                self._hall.events.emit(session.event("message:received", message))
            if type(message) is WidgetUpdate:  # most of what is said; the rest is told apart by name
                self._submit_operation(session, message)
            else:
                self._carry_out(session, message)
        except Refusal as refusal:
            why = refusal if message is not None else self._charge_unread(session, refusal, len(raw))
            self._nack(session, why, message_id or refusal.message_id, len(raw))
        except Exception:
            self._nack(session, self._mistake(session), message_id)

    def _mistake(self, session: Session) -> Internal:
        """To be called where the mistake was caught."""
        self._hall.faults += 1
        log.exception("message_failed", client_id=session.id, dashboard_id=session.room.dashboard_id)
        return Internal("the server made a mistake; it has been logged")

    def _charge_unread(self, session: Session, refusal: Refusal, size_bytes: int) -> Refusal:
        """What cannot be read costs as much as what can; returns what to say of it."""
        try:
            self._hall.guard.charge(session.pace, self._hall.monotonic(), weight_of(size_bytes))
        except RateLimited as limited:
            return limited
        return refusal

    def _charge(self, session: Session, message: ClientMessage, size_bytes: int) -> None:
        """A message costs one, one more for each further operation in it, and more if it is large. Raises ``RateLimited``."""
        count = weight_of(size_bytes)
        if type(message) is not WidgetUpdate and isinstance(message.payload, WidgetBatchPayload | SyncUpdatePayload):
            count += max(0, count_leaves(message.payload.operations) - 1)
        self._hall.guard.charge(session.pace, self._hall.monotonic(), count)

    def _carry_out(self, session: Session, message: ClientMessage) -> None:
        payload: Any = message.payload
        match message.type:
            case "WIDGET_UPDATE" | "WIDGET_DELETE" | "LAYOUT_UPDATE" | "LAYOUT_RESTORE":
                self._submit_operation(session, message)
            case "CONFLICT_RESOLVED":
                self._may_write(session)
                resolution = resolution_of(payload, session.author, message.id, session.epoch, self._conflicts(session))
                self._submit(session, message, [Item(message.id, message.type, resolution)], is_single=True)
            case "WIDGET_BATCH" | "SYNC_UPDATE":
                self._may_write(session)
                self._submit(session, message, self._items(session, message))
            case "SYNC_REQUEST":
                self._sync(session, message)
            case "PING" if payload.token is not None:
                self._renew(session, message)
            case "PING":
                self._pong(session, message)
            case "DISCONNECT":
                session.connection.close(Close.NORMAL.code, Close.NORMAL.reason)

    def _submit_operation(self, session: Session, message: Any) -> None:
        if not session.may_write:
            self._may_write(session)
        author, id_, type_ = session.author, message.id, message.type
        operation = operation_of(type_, message.payload, author, id_, session.epoch)
        session.pace.waiting += 1
        session.room.submit(Submission(author, [Item(id_, type_, operation)], session, id_, True, message))

    def _submit(self, session: Session, message: ClientMessage, items: list[Item], *, is_single: bool = False) -> None:
        session.pace.waiting += 1
        session.room.submit(Submission(session.author, items, session, message.id, is_single, message))

    def _conflicts(self, session: Session) -> dict[str, OpenConflict]:
        return session.open_conflicts(self._hall.monotonic())

    def _may_write(self, session: Session) -> None:
        if not session.may_write:
            raise Forbidden("you may read this dashboard, not change it")

    def _items(self, session: Session, message: ClientMessage) -> list[Item]:
        payload: Any = message.payload
        self._check_count(len(payload.operations) if message.type == "WIDGET_BATCH" else count_leaves(payload.operations))
        author, epoch = session.author, session.epoch
        if isinstance(payload, WidgetBatchPayload) and payload.atomic:
            return [Item(None, "WIDGET_BATCH", batch_of(payload.operations, author, message.id, epoch))]
        return [item_of(operation, author, epoch, self._conflicts(session)) for operation in payload.operations]

    def _check_count(self, count: int) -> None:
        most = self._max_operations
        if count == 0:
            raise InvalidMessage("there is no operation in it", details=(("payload.operations", "must not be empty"),))
        if most and count > most:
            raise TooLarge(f"at most {most} operations at once", details=(("payload.operations", f"at most {most}"),))

    def _sync(self, session: Session, message: ClientMessage) -> None:
        payload: Any = message.payload
        body = session.room.sync(payload.since, payload.epoch)
        session.epoch = session.room.dashboard.epoch
        self._reply(session, "SYNC_RESPONSE", body, message.id)
        if not self._hall.events.is_idle:
            self._hall.events.emit(session.event("sync:requested", message))

    def _pong(self, session: Session, message: ClientMessage) -> None:
        self._reply(session, "PONG", b'{"serverTime":"%b"}' % self._hall.timestamp().encode(), message.id)

    def _renew(self, session: Session, message: ClientMessage) -> None:
        """A fresh token in a PING takes the place of the connection's own (the guard's part of PROTOCOL section 1)."""
        task = asyncio.get_running_loop().create_task(self._judge_token(session, message))
        self._renewals.add(task)
        task.add_done_callback(self._renewals.discard)

    async def _judge_token(self, session: Session, message: Any) -> None:
        try:
            if self._hall.renew is None:
                raise Forbidden("there are no tokens here to be renewed")
            identity, permissions = await self._hall.renew(message.payload.token, session.room.dashboard_id)
            if identity.user_id != session.user or not permissions:
                raise Forbidden("this token is not for you, or not for this dashboard")
        except Refusal as refusal:
            self._nack(session, Forbidden(refusal.message) if isinstance(refusal, Unauthorized) else refusal, message.id)
            return
        except Exception:
            self._nack(session, self._mistake(session), message.id)
            return
        session.allow(identity, permissions)
        self._pong(session, message)

    def _reply(self, session: Session, type_: str, payload: bytes, correlation_id: str | None) -> None:
        hall = self._hall
        session.send(encode_message(type_, hall.new_id(), hall.timestamp(), session.user, payload, correlation_id))

    def _nack(self, session: Session, refusal: Refusal, message_id: str | None, size_bytes: int = 0) -> None:
        hall = self._hall
        session.send(encode_nack(hall.new_id(), hall.timestamp(), session.user, message_id, refusal))
        if isinstance(refusal, RateLimited) and not hall.events.is_idle:
            hall.events.emit(session.event("rate:limited"))
        if hall.guard.strike(session.pace, hall.monotonic(), weight_of(size_bytes)):
            session.close(Close.RATE_LIMIT_EXCEEDED)

    # Without a socket

    def charge_post(self, user_id: str, dashboard_id: str | None, count: int) -> None:
        """Charge a user with what came by POST. Raises ``RateLimited``."""
        hall = self._hall
        try:
            hall.guard.charge_user(user_id, hall.monotonic(), count)
        except RateLimited:
            if not hall.events.is_idle:
                hall.events.emit(Event("rate:limited", None, user_id, dashboard_id))
            raise

    async def post(self, room: Room, author: Author, post: SyncPost, size_bytes: int) -> dict[str, Any]:
        """Carry out a POST; returns its answer, ``sync`` as JSON text. Raises ``TooLarge`` for too many operations,
        ``RateLimited``."""
        leaves = count_leaves(post.operations)
        if leaves:
            self._check_count(leaves)
        self.charge_post(author.user, room.dashboard_id, weight_of(size_bytes) + max(0, leaves - 1))
        epoch = post.epoch or room.dashboard.epoch
        items = [item_of(operation, author, epoch, {}) for operation in post.operations]
        if items:
            await self._judged(room, author, items, post)
        at = self._hall.timestamp()
        results = results_of(items, at)
        answer: dict[str, Any] = {"success": all(result["status"] == "success" for result in results), "results": results}
        answer["timestamp"] = at
        if post.since is not None:
            answer["sync"] = room.sync(post.since, post.epoch)
        return answer

    async def apply(self, room: Room, operation: SyncOp, user_id: str) -> dict[str, Any]:
        """Carry out one operation of the process's own; returns its result. Raises ``ServerFault`` where it may be repeated."""
        author = Author(user_id, f"process-{self._hall.new_id()}")
        item = item_of(operation, author, room.dashboard.epoch, {})
        await self._judged(room, author, [item], operation)
        for leaf in item.leaves():
            if isinstance(leaf.outcome, ServerFault):
                raise leaf.outcome
        return results_of([item], self._hall.timestamp())[0]

    async def _judged(self, room: Room, author: Author, items: list[Item], message: Any) -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def finish(_: list[Item]) -> None:
            if not done.done():
                done.set_result(None)

        room.submit(Submission(author, items, message=message, done=finish))
        await done
