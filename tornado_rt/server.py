"""RealtimeServer: rooms and sessions, what messages mean, broadcast, events, stats, drain (PROTOCOL section 7).

Hears and speaks bytes of JSON; knows no HTTP, no SQL and no environment. ``app`` makes one from settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from tornado_rt.auth import Identity
from tornado_rt.core.document import Author
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.errors import Close, Internal, Refusal, Unavailable
from tornado_rt.events import Event, Events, Listener
from tornado_rt.guard import Guard, Rates, weight_of
from tornado_rt.heartbeat import Heartbeat
from tornado_rt.protocol.codec import decode_operation, encode_json, encode_message
from tornado_rt.protocol.messages import SyncPost
from tornado_rt.reception import Reception
from tornado_rt.revocations import RETENTION_SECONDS, Revocation, Revocations
from tornado_rt.room import Room, restore
from tornado_rt.session import Connection, Session, Way, disconnect_payload
from tornado_rt.store.base import Store
from tornado_rt.submission import Hall
from tornado_rt.wire import encode_frame

__all__ = ["Options", "RealtimeServer"]

PROTOCOL_VERSION = 1
IDLE_ROOM_SECONDS = 60.0
HOUSEKEEPING_SECONDS = 5.0
SHORTEST_CLOSE_SECONDS = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """Plain values from the settings; seconds, bytes and counts. 0 is off."""

    heartbeat_interval_seconds: float = 25.0
    heartbeat_timeout_seconds: float = 60.0
    slow_consumer_timeout_seconds: float = 30.0
    accept_rate_per_second: float = 500.0
    rates: Rates = field(default_factory=Rates)
    max_message_bytes: int = 262_144
    max_operations: int = 50
    limits: DashboardLimits = field(default_factory=DashboardLimits)


class RealtimeServer:
    """One process's worth of dashboards.

    ``time`` is the wall clock in seconds since 1970, ``monotonic`` one that never steps back, ``timestamp`` the wall clock as
    ISO 8601 with milliseconds, ``new_id`` makes ids that are unique in this process and, by their beginning, beyond it.
    """

    def __init__(
        self,
        store: Store,
        options: Options,
        *,
        time: Callable[[], float],
        monotonic: Callable[[], float],
        timestamp: Callable[[], str],
        new_id: Callable[[], str],
    ) -> None:
        self.store = store
        self.options = options
        self.events = Events()
        self.guard = Guard(options.rates)
        self.revocations = Revocations(store)
        self.hall = Hall(
            store, options.limits, time, monotonic, timestamp, new_id, self.events, self._on_room_fault, self.guard
        )
        self.heartbeat = Heartbeat(
            self.hall,
            options.heartbeat_interval_seconds,
            options.heartbeat_timeout_seconds,
            options.slow_consumer_timeout_seconds,
        )
        self.rooms: dict[str, Room] = {}
        self.sessions: dict[Session, Callable[[], None]] = {}
        self._reception = Reception(self.hall, options.max_operations)
        self.receive = self._reception.receive
        self.is_draining = False
        self.store_reads = 0
        self.lag_seconds = 0.0
        self.max_lag_seconds = 0.0
        self._started_at = monotonic()
        self._is_running = False
        self._loading: dict[str, asyncio.Task[Room]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._next_slot_at = 0.0
        self._is_empty: asyncio.Future[None] | None = None  # fulfilled when the last session of a drain has gone

    # Life

    async def initialize(self) -> None:
        """Open the store and begin the sweep. Raises ``StartFault`` with a sentence where the store cannot be opened."""
        await self.store.start()
        await self.revocations.load(self.hall.time())
        self._is_running = True
        self._started_at = self.hall.monotonic()
        self._spawn(self._sweep())
        self.events.emit(Event("initialized"))

    async def drain(self, grace_seconds: float) -> None:
        """Turn newcomers away, answer what is in flight, send everybody off with a slot (PROTOCOL section 1)."""
        self.is_draining = True
        deadline = self.hall.monotonic() + grace_seconds
        for session in self.sessions:
            session.connection.pause()
        await self._settle(grace_seconds)
        sessions = list(self.sessions)
        log.info("draining", connections=len(sessions))
        now = self.hall.monotonic()  # one moment for all: saying goodbye takes time, and would move two slots onto each other
        for session in sessions:
            session.close(Close.SERVER_SHUTTING_DOWN, self._slot_ms(now))
        if sessions:
            self._is_empty = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._is_empty], timeout=max(0.0, deadline - self.hall.monotonic()))

    async def shutdown(self, grace_seconds: float = 10.0) -> None:
        """Drain, then close the store. Nothing that was acknowledged is lost, however this ends."""
        if not self._is_running:
            return
        deadline = self.hall.monotonic() + max(grace_seconds, SHORTEST_CLOSE_SECONDS)
        await self.drain(grace_seconds)
        self._is_running = False
        for session in list(self.sessions):
            session.outbox.abort()
        for task in self._tasks:
            task.cancel()
        await self._close_store(deadline - self.hall.monotonic())
        self.events.emit(Event("shutdown"))

    async def _close_store(self, seconds: float) -> None:
        """A store that cannot finish, say because another program holds its lock, does not hold up the end: what it has not
        written was not acknowledged either."""
        closing = asyncio.ensure_future(self.store.close())
        await asyncio.wait([closing], timeout=max(seconds, SHORTEST_CLOSE_SECONDS))
        if closing.done():
            closing.result()
        else:
            closing.cancel()
            log.warning("store_left_open", reason="it did not finish within the grace")

    async def _settle(self, seconds: float) -> None:
        """Wait until every room has answered what it was asked."""
        busy = [room.task for room in self.rooms.values() if room.task is not None]
        if busy:
            await asyncio.wait(busy, timeout=seconds)

    @property
    def is_running(self) -> bool:
        return self._is_running

    @property
    def status(self) -> str:
        """``ready``, ``draining``, or ``degraded`` while the store cannot take writes."""
        if self.is_draining or not self._is_running:
            return "draining"
        return "ready" if self.store.fault is None else "degraded"

    def next_slot_ms(self) -> int:
        """When the next of those who are sent away may come back, so that they do not all come at once."""
        return self._slot_ms(self.hall.monotonic())

    def _slot_ms(self, now: float) -> int:
        self._next_slot_at = max(now, self._next_slot_at) + 1 / (self.options.accept_rate_per_second or 1_000_000)
        return round((self._next_slot_at - now) * 1000)

    # Rooms

    async def enter(self, dashboard_id: str) -> Room:
        """The room of a dashboard, read from the store where it is not in memory: once, however many ask."""
        room = self.rooms.get(dashboard_id)
        if room is not None:
            return room
        task = self._loading.get(dashboard_id)
        if task is None:
            task = self._loading[dashboard_id] = self._spawn(self._load(dashboard_id))
            task.add_done_callback(lambda _: self._loading.pop(dashboard_id, None))
        return await asyncio.shield(task)

    async def _load(self, dashboard_id: str) -> Room:
        self.store_reads += 1
        contents = await self.store.open(dashboard_id)
        dashboard = await restore(contents, self.options.limits, self.hall.time())
        room = self.rooms[dashboard_id] = Room(self.hall, dashboard_id, dashboard, contents)
        return room

    def _evict_idle_rooms(self) -> None:
        now = self.hall.monotonic()
        for dashboard_id, room in list(self.rooms.items()):
            if room.is_idle and now - room.empty_since > IDLE_ROOM_SECONDS:
                del self.rooms[dashboard_id]
                state = room.evict()
                if state is not None:
                    self._spawn(self.store.snapshot(dashboard_id, room.dashboard.seq, state))

    def _on_room_fault(self, room: Room, error: BaseException) -> None:
        """A bug in a room: nobody knows what it would do next, so it is thrown away and read again from the store."""
        self.hall.faults += 1
        log.error("room_failed", dashboard_id=room.dashboard_id, exc_info=error)
        self.rooms.pop(room.dashboard_id, None)
        room.give_up(Internal("the server made a mistake; repeat the operation under the same id", outcome_unknown=True))
        for session in [session for session in self.sessions if session.room is room]:
            session.close(Close.SERVER_FAULT)

    # Sessions

    def connect(
        self,
        room: Room,
        author: Author,
        connection: Connection,
        outbox: Way,
        *,
        since: int | None = None,
        epoch: str | None = None,
        permissions: tuple[str, ...] = ("read", "write"),
        identity: Identity | None = None,
        address: str = "",
    ) -> Session | None:
        """Let a connection in: CONNECT, with what it missed since ``since``, and from then on every change.

        None if there is no room for it, for its user, or for its ``address``.
        """
        if not self.guard.enter(author.user, address):
            return None
        hall = self.hall
        id_ = f"client-{hall.new_id()}"
        identity = identity or Identity(author.user, {})
        pace = self.guard.pace(author.user)
        session = Session(
            id_, author, room, connection, outbox, hall.time(), hall.monotonic(), permissions, pace, identity, address
        )
        room.join(session)
        self.sessions[session] = self.heartbeat.join(session)
        session.send(self._connect_message(session, since, epoch))
        if not self.events.is_idle:
            self.events.emit(session.event("client:connected"))
        return session

    def disconnect(self, session: Session) -> None:
        """The socket is gone."""
        leave = self.sessions.pop(session, None)
        if leave is not None:
            leave()
            session.room.leave(session)
            self.guard.leave(session.user, session.address)
            if not self.sessions and self._is_empty is not None and not self._is_empty.done():
                self._is_empty.set_result(None)
            if not self.events.is_idle:
                self.events.emit(session.event("client:disconnected"))

    def _connect_message(self, session: Session, since: int | None, epoch: str | None) -> bytes:
        room = session.room
        options = self.options
        limits = options.limits
        payload = {
            "clientId": session.id,
            "dashboardId": room.dashboard_id,
            "protocol": PROTOCOL_VERSION,
            "epoch": room.dashboard.epoch,
            "seq": room.dashboard.seq,
            "heartbeatInterval": int(options.heartbeat_interval_seconds * 1000),
            "durability": self.store.durability,
            "limits": {
                "maxOperations": options.max_operations,
                "maxMessageBytes": options.max_message_bytes,
                "maxWidgets": limits.max_widgets,
                "maxLayouts": limits.max_layouts,
                "maxFields": limits.max_fields,
                "maxDocumentBytes": limits.max_document_bytes,
                "maxDashboardBytes": limits.max_dashboard_bytes,
                "rateLimit": options.rates.messages_per_second,
                "rateBurst": options.rates.burst,
            },
            "permissions": session.permissions,
        }
        body = encode_json(payload)
        if since is not None:
            body = b'%b,"sync":%b}' % (body[:-1], room.sync(since, epoch))
        return encode_message("CONNECT", self.hall.new_id(), self.hall.timestamp(), session.user, body)

    def farewell(self, how: Close, user_id: str = "", sentence: str | None = None) -> bytes:
        """DISCONNECT for a connection that is not let in, as a frame; with a slot where it may come back.

        ``sentence`` says more of the reason, for a person.
        """
        slot = self.next_slot_ms() if how is Close.TRY_AGAIN_LATER else None
        hall = self.hall
        payload = disconnect_payload(how, slot)
        if sentence is not None:
            payload["error"] = sentence
        return encode_frame(encode_message("DISCONNECT", hall.new_id(), hall.timestamp(), user_id, payload))

    async def revoke(self, kind: Literal["userId", "tokenId", "dashboardId"], value: str) -> int:
        """End what somebody may do: close what is connected, refuse its tokens from now on. Returns how many were closed.

        Raises ``Unavailable`` where it could not be made durable; nothing was closed then.
        """
        now = self.hall.time()
        await self.revocations.add(Revocation(kind, value, now, now + RETENTION_SECONDS))
        gone = [session for session in self.sessions if session.is_meant_by(kind, value)]
        for session in gone:
            session.close(Close.UNAUTHORIZED)
        log.info("revoked", kind=kind, closed=len(gone))
        return len(gone)

    # Asked from within the process or by HTTP; what a socket says goes to ``receive``

    def charge(self, user_id: str, size_bytes: int | None = None) -> None:
        """Charge a user with a POST of this size that makes no sense; None: see whether one is worth reading.

        Raises ``RateLimited``.
        """
        self._reception.charge_post(user_id, None, 0 if size_bytes is None else weight_of(size_bytes))

    async def post(self, author: Author, post: SyncPost, size_bytes: int = 0) -> dict[str, Any]:
        """Carry out a POST (PROTOCOL section 6); returns its answer when everything in it is durable.

        ``size_bytes`` is what it came in. Raises ``Unavailable`` while draining, ``TooLarge`` for too many operations,
        ``RateLimited``.
        """
        if self.is_draining:
            raise Unavailable("the server is shutting down", retry_after_ms=self.next_slot_ms())
        return await self._reception.post(await self.enter(post.dashboard_id or "default"), author, post, size_bytes)

    async def apply(self, dashboard_id: str, operation: Mapping[str, Any], *, user_id: str) -> dict[str, Any]:
        """Change a document from within the process, by the same path as a client's; returns when it is durable.

        ``operation`` is an ``Op``: ``{operationId, type, payload}`` as on the wire. Returns its result (PROTOCOL section 6).
        Raises ``InvalidMessage`` for a malformed one and ``Unavailable`` where the store cannot take it.
        """
        decoded = decode_operation(operation)
        return await self._reception.apply(await self.enter(dashboard_id), decoded, user_id)

    # Speaking from within the process

    def broadcast(self, message: Mapping[str, Any], dashboard_id: str | None = None) -> int:
        """Send a message as given to all connections, or to those of one dashboard. Not kept, no seq, lost on who is behind.

        Returns how many were sent it.
        """
        return self._send_free(message, lambda session: dashboard_id in (None, session.room.dashboard_id))

    def broadcast_to_user(self, user_id: str, message: Mapping[str, Any]) -> int:
        """Send a message as given to all connections of one user."""
        return self._send_free(message, lambda session: session.user == user_id)

    def send(self, client_id: str, message: Mapping[str, Any]) -> bool:
        """Send a message as given to one connection; False if there is none of this id, or it is behind."""
        return self._send_free(message, lambda session: session.id == client_id) > 0

    def _send_free(self, message: Mapping[str, Any], wanted: Callable[[Session], bool]) -> int:
        hall = self.hall
        complete = {"id": hall.new_id(), "timestamp": hall.timestamp(), "userId": "", "payload": {}, **message}
        frame = encode_frame(encode_json(complete))
        count = 0
        for session in list(self.sessions):
            if wanted(session) and not session.is_behind:
                session.send_frames(frame)
                count += 1
        return count

    def on(self, event: str, listener: Listener | None = None) -> Any:
        """Listen to an event (``events.EVENTS``); usable as a decorator. Returns the function that ends it, or the listener."""
        if listener is not None:
            return self.events.on(event, listener)

        def decorate(function: Listener) -> Listener:
            self.events.on(event, function)
            return function

        return decorate

    def get_stats(self) -> dict[str, Any]:
        """The guide's statistics and ours (PROTOCOL section 6); ``uptime`` and lags in seconds."""
        hall = self.hall
        now = hall.monotonic()
        return {
            "clientCount": len(self.sessions),
            "clients": [session.describe(now, self.options.heartbeat_timeout_seconds) for session in self.sessions],
            "uptime": round(now - self._started_at, 3),
            "status": self.status,
            "durability": self.store.durability,
            "dashboards": len(self.rooms),
            "behind": len(hall.laggards),
            "storeReads": self.store_reads,
            "loopLag": {"last": round(self.lag_seconds, 6), "max": round(self.max_lag_seconds, 6)},
            "faults": hall.faults,
            "timestamp": hall.timestamp(),
        }

    # Housekeeping

    async def _sweep(self) -> None:
        """The one timer: heartbeats, and now and then the rooms that nobody is in."""
        loop = asyncio.get_running_loop()
        pause = self.heartbeat.tick_seconds
        housekeeping_at = loop.time() + HOUSEKEEPING_SECONDS
        while True:
            due = loop.time() + pause
            await asyncio.sleep(pause)
            now = loop.time()
            self.lag_seconds = max(0.0, now - due)
            self.max_lag_seconds = max(self.max_lag_seconds, self.lag_seconds)
            self.heartbeat.tick()
            if now >= housekeeping_at:
                housekeeping_at = now + HOUSEKEEPING_SECONDS
                self._evict_idle_rooms()
                self.guard.tidy(self.hall.monotonic())

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not isinstance(task.exception(), Refusal):
            self.hall.faults += 1
            log.error("task_failed", exc_info=task.exception())
