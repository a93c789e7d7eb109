"""The hall without doors: a server on a store in memory, people with a list for a socket, clocks that go on when told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

from tornado_rt.auth import Identity
from tornado_rt.core.document import Author
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.errors import RealtimeError
from tornado_rt.guard import Rates
from tornado_rt.protocol.codec import decode_server
from tornado_rt.protocol.server_messages import Envelope
from tornado_rt.room import Room
from tornado_rt.server import Options, RealtimeServer
from tornado_rt.session import Session
from tornado_rt.store.base import Contents, Outcome, Record, Unknown
from tornado_rt.store.memory import MemoryStore

__all__ = ["Clock", "Hall", "Member", "Socket", "Trouble", "TroubledStore", "op", "troubled", "turn"]

TEXT, PING = 0x81, 0x89
Message = dict[str, Any]


class Clock:
    """Both of the server's clocks, in seconds; they go on only when they are told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0
        self._since_start = 1_000.0  # a clock of its own: the other has too many digits to be exact

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self._since_start

    def timestamp(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(self.now * 1000) % 1000:03d}Z"

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self._since_start += seconds


class Socket:
    """A list as the socket, with an outbox's manners (``session.Way``, ``session.Connection``).

    While ``is_full`` it takes one more piece and is then behind. Every text frame must be a message of the protocol, unless
    ``is_free`` says that ``broadcast`` may have sent what it likes.
    """

    def __init__(self) -> None:
        self.heard = True
        self.behind = False
        self.progress = 0
        self.buffered_bytes = 0
        self.on_drained: Callable[[], None] | None = None
        self.is_full = False
        self.is_paused = False
        self.is_free = False
        self.aborted = False
        self.closed_with: tuple[int, str] | None = None
        self.inbox: list[Message] = []
        self.pings = 0
        self.pieces: list[int] = []  # how many frames came with each send
        self._arrived = asyncio.Event()

    def send(self, data: bytes) -> bool:
        if self.closed_with is not None or self.aborted:
            return False
        frames = list(split_frames(data))
        self.pieces.append(len(frames))
        for head, body in frames:
            if head == PING:
                self.pings += 1
                continue
            assert head == TEXT
            assert self.is_free or not isinstance(decode_server(body), Envelope), body
            self.inbox.append(json.loads(body))
        self._arrived.set()
        self.behind = self.behind or self.is_full
        return not self.behind

    def ping(self, ahead: bytes = b"") -> bool:
        return self.send(ahead + bytes([PING, 0]))

    def drain(self) -> None:
        """The peer has read everything."""
        self.is_full = self.behind = False
        if self.on_drained is not None:
            self.on_drained()

    def abort(self) -> None:
        self.aborted = True

    def pause(self) -> None:
        self.is_paused = True

    def close(self, code: int, reason: str) -> None:
        self.closed_with = (code, reason)

    async def arrival(self) -> None:
        """Wait until something more has come."""
        self._arrived.clear()
        await self._arrived.wait()


def split_frames(data: bytes) -> Sequence[tuple[int, bytes]]:
    """A server's frames, unmasked: first byte and body (RFC 6455 section 5.2)."""
    frames = []
    at = 0
    while at < len(data):
        size, body_at = data[at + 1], at + 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size, body_at = int.from_bytes(data[body_at : body_at + width], "big"), body_at + width
        frames.append((data[at], data[body_at : body_at + size]))
        at = body_at + size
    return frames


class Trouble(RealtimeError):
    """What a store should never raise: a mistake in it."""


class TroubledStore(MemoryStore):
    """A memory that may be held up or fail. ``failures`` are raised or returned, one for each commit, before it is tried;
    ``gate`` holds commits until it is set. ``lose_answers``: so many commits are made, and answered with *unknown*."""

    def __init__(self, epoch: str, clock: Callable[[], float]) -> None:
        super().__init__(epoch, clock)
        self.failures: list[Exception] = []
        self.lose_answers = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.commits: list[int] = []  # how many records each commit had
        self.waiting = asyncio.Event()

    async def commit(
        self, dashboard_id: str, epoch: str, seen: int, reads: Mapping[str, int], records: Sequence[Record]
    ) -> Outcome:
        self.waiting.set()
        await self.gate.wait()
        self.waiting.clear()
        if self.failures:
            raise self.failures.pop(0)
        self.commits.append(len(records))
        outcome = await super().commit(dashboard_id, epoch, seen, reads, records)
        if self.lose_answers:
            self.lose_answers -= 1
            return Unknown()
        return outcome

    def hold(self) -> None:
        """Let no commit through until ``gate`` is set."""
        self.gate.clear()
        self.waiting.clear()

    async def log(self, dashboard_id: str = "board") -> Contents:
        return await self.open(dashboard_id)


class Member:
    """A person at a device, with a connection."""

    def __init__(self, hall: Hall, session: Session, socket: Socket) -> None:
        self.hall = hall
        self.session = session
        self.socket = socket
        self.user = session.user

    def say(self, type_: str, payload: Any = None, id_: str | None = "", **envelope: Any) -> str:
        """Send a message; returns its id. ``id_`` of None sends it without one."""
        if id_ == "":
            id_ = f"m-{next(self.hall.ids)}"
        message = {"type": type_, "userId": self.user, "payload": payload or {}, **envelope}
        if id_ is not None:
            message["id"] = id_
        self.say_raw(json.dumps(message).encode())
        return id_ or ""

    def say_raw(self, raw: bytes) -> None:
        if not self.socket.is_paused:
            self.hall.server.receive(self.session, raw)

    def update(self, data: Mapping[str, Any], widget_id: str = "w", id_: str | None = "", **more: Any) -> str:
        return self.say("WIDGET_UPDATE", {"widgetId": widget_id, "data": data, **more}, id_)

    async def answer(self, id_: str) -> Message:
        """The message that answers the one of this id; everything before it stays in the inbox."""
        return await self.hears(lambda message: message.get("correlationId") == id_)

    async def hears(self, wanted: Callable[[Message], bool]) -> Message:
        """The first message in the inbox that is wanted, as soon as it is there."""
        while True:
            for message in self.socket.inbox:
                if wanted(message):
                    return message
            await self.socket.arrival()

    def take(self) -> list[Message]:
        """All that has come since the last time."""
        inbox, self.socket.inbox = self.socket.inbox, []
        return inbox

    def types(self) -> list[str]:
        """The types of all that has come since the last time."""
        return [message["type"] for message in self.take()]

    def leave(self) -> None:
        self.hall.server.disconnect(self.session)

    @property
    def room(self) -> Room:
        return self.session.room


NO_RATES = {
    "messages_per_second": 0.0,
    "user_messages_per_second": 0.0,
    "max_connections": 0,
    "max_connections_per_user": 0,
    "max_waiting": 0,
}


class Hall:
    """A server, its store and its clock. ``peer`` makes another process's server on the same memory."""

    def __init__(self, store: MemoryStore | None = None, clock: Clock | None = None, name: str = "a", **options: Any) -> None:
        self.clock = clock or Clock()
        self.store = store or MemoryStore("epoch-1", self.clock.time)
        self.ids = count(1)
        numbers = count(1)
        self.options = dict(options)
        limits = DashboardLimits(**options.pop("limits", {}))
        rates = Rates(**{**NO_RATES, **options.pop("rates", {})})
        self.server = RealtimeServer(
            self.store,
            Options(limits=limits, rates=rates, **options),
            time=self.clock.time,
            monotonic=self.clock.monotonic,
            timestamp=self.clock.timestamp,
            new_id=lambda: f"{name}-{next(numbers)}",
        )

    def peer(self) -> Hall:
        return Hall(self.store.peer(), self.clock, "b", **self.options)

    async def join(
        self,
        user: str = "anna",
        device: str = "",
        dashboard_id: str = "board",
        *,
        since: int | None = None,
        epoch: str | None = None,
        permissions: tuple[str, ...] = ("read", "write"),
        identity: Identity | None = None,
        address: str = "",
    ) -> Member:
        """Somebody connects; CONNECT is in the inbox."""
        room = await self.server.enter(dashboard_id)
        socket = Socket()
        author = Author(user, device or f"device-{next(self.ids)}")
        session = self.server.connect(
            room,
            author,
            socket,
            socket,
            since=since,
            epoch=epoch,
            permissions=permissions,
            identity=identity,
            address=address,
        )
        assert session is not None
        return Member(self, session, socket)

    async def people(self, *users: str) -> list[Member]:
        """Several on one dashboard, their CONNECTs taken out of the way."""
        members = [await self.join(user) for user in users]
        for member in members:
            member.take()
        return members

    async def quiet(self, *others: Hall) -> None:
        """Wait until everything that was asked of these servers has been answered, and heard by the other processes."""
        for _ in range(3):
            while not all(room.is_settled for hall in (self, *others) for room in hall.server.rooms.values()):
                await turn()
            await turn()


async def turn() -> None:
    """Let the loop go round once."""
    await asyncio.sleep(0)


def op(type_: str, id_: str, **payload: Any) -> Message:
    """An ``Op`` (PROTOCOL section 3)."""
    return {"operationId": id_, "type": type_, "payload": payload}


def troubled(**options: Any) -> tuple[Hall, TroubledStore]:
    """A hall whose store may be held up or fail."""
    clock = Clock()
    store = TroubledStore("epoch-1", clock.time)
    return Hall(store, clock, **options), store
