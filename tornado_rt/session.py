"""One connection at work: who it is, what it is owed, what it has been asked. Knows its outbox and its room; decides nothing.

A session whose socket is full is **behind**: it is sent no changes; ``position`` remembers the last seq that it has in full,
and ``owed`` the answers that will follow its catch-up (PROTOCOL section 5, 5).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tornado_rt.auth import Identity
from tornado_rt.core.document import Author
from tornado_rt.events import Event
from tornado_rt.guard import Pace
from tornado_rt.intake import OpenConflict
from tornado_rt.protocol.codec import encode_message
from tornado_rt.wire import encode_frame

if TYPE_CHECKING:
    from tornado_rt.errors import Close
    from tornado_rt.room import Room

__all__ = ["MAX_OPEN_CONFLICTS", "Connection", "Session", "Way", "disconnect_payload", "isoformat"]

MAX_OPEN_CONFLICTS = 100
OPEN_CONFLICT_SECONDS = 600.0


class Way(Protocol):
    """The way out of a socket, as ``wire.Outbox`` is one."""

    on_drained: Callable[[], None] | None

    def send(self, data: bytes) -> bool: ...

    @property
    def behind(self) -> bool: ...

    @property
    def buffered_bytes(self) -> int: ...

    @property
    def progress(self) -> int: ...

    def ping(self, ahead: bytes = b"") -> bool: ...

    def abort(self) -> None: ...


class Connection(Protocol):
    """The socket's handler, as a session needs it. ``heard`` is set by every sign of life and set back by the sweep."""

    heard: bool

    def pause(self) -> None:
        """Read nothing more until it is closed."""

    def close(self, code: int, reason: str) -> None: ...


class Session:
    """``heard_at`` and ``connected_at`` are seconds on the monotonic and on the wall clock; ``progress`` and ``stuck_since``
    tell a slow reader from one that takes nothing at all. ``expires_at`` is when its token ends, in seconds since 1970."""

    __slots__ = (
        "address",
        "author",
        "conflicts",
        "connected_at",
        "connection",
        "epoch",
        "expires_at",
        "heard_at",
        "id",
        "identity",
        "is_behind",
        "may_write",
        "message_count",
        "outbox",
        "owed",
        "pace",
        "permissions",
        "position",
        "progress",
        "room",
        "stuck_since",
        "user",
    )

    def __init__(
        self,
        id_: str,
        author: Author,
        room: Room,
        connection: Connection,
        outbox: Way,
        connected_at: float,
        heard_at: float,
        permissions: tuple[str, ...],
        pace: Pace,
        identity: Identity,
        address: str,
    ) -> None:
        self.id = id_
        self.author = author
        self.user = author.user
        self.room = room
        self.connection = connection
        self.outbox = outbox
        self.connected_at = connected_at
        self.heard_at = heard_at
        self.pace = pace
        self.address = address
        self.allow(identity, permissions)
        self.epoch = room.dashboard.epoch
        self.message_count = 0
        self.is_behind = False
        self.position = 0
        self.owed: list[bytes] = []
        self.progress = 0
        self.stuck_since = 0.0
        self.conflicts: dict[str, OpenConflict] = {}

    def allow(self, identity: Identity, permissions: tuple[str, ...]) -> None:
        """What it may do from now on, and until when."""
        self.identity = identity
        self.expires_at = identity.expires_at
        self.permissions = permissions
        self.may_write = "write" in permissions

    def send(self, message: bytes) -> None:
        """Send one message, or keep it until the catch-up is through. It is not a change: those come from the room."""
        self.send_frames(encode_frame(message))

    def send_frames(self, frames: bytes) -> None:
        if self.is_behind:
            self.owed.append(frames)
        elif not self.outbox.send(frames):
            self.room.falls_behind(self)

    def event(self, name: str, message: Any = None) -> Event:
        """Something about this connection, for listeners."""
        return Event(name, self.id, self.user, self.room.dashboard_id, message)

    def open_conflict(self, conflict_id: str, conflict: OpenConflict, now: float) -> None:
        """Remember a conflict until it is answered, the newest hundred for ten minutes."""
        conflict.expires = now + OPEN_CONFLICT_SECONDS
        self.conflicts.pop(conflict_id, None)
        self.conflicts[conflict_id] = conflict
        if len(self.open_conflicts(now)) > MAX_OPEN_CONFLICTS:
            del self.conflicts[next(iter(self.conflicts))]

    def settle(self, message: Any) -> None:
        """The conflict that this message answered, if it was an answer, is closed."""
        if message.type == "CONFLICT_RESOLVED":
            self.conflicts.pop(message.payload.conflict_id, None)

    def open_conflicts(self, now: float) -> dict[str, OpenConflict]:
        """The conflicts that can still be answered by their id alone; ``now`` is on the monotonic clock."""
        for conflict_id in [name for name, conflict in self.conflicts.items() if conflict.expires < now]:
            del self.conflicts[conflict_id]
        return self.conflicts

    def describe(self, now: float, timeout_seconds: float) -> dict[str, Any]:
        """For ``stats``. ``now`` is on the monotonic clock."""
        silent_seconds = 0.0 if self.connection.heard else now - self.heard_at
        return {
            "id": self.id,
            "userId": self.user,
            "dashboardId": self.room.dashboard_id,
            "connectedAt": isoformat(self.connected_at),
            "messageCount": self.message_count,
            "outboxBytes": self.outbox.buffered_bytes,
            "isAlive": not timeout_seconds or silent_seconds <= timeout_seconds,
        }

    def is_meant_by(self, kind: Literal["userId", "tokenId", "dashboardId"], value: str) -> bool:
        """Is a revocation of this kind and value about this connection?"""
        match kind:
            case "userId":
                return self.user == value
            case "tokenId":
                return self.identity.token_id == value
            case "dashboardId":
                return self.room.dashboard_id == value

    def close(self, how: Close, retry_after_ms: int | None = None) -> None:
        """Say DISCONNECT where the socket still takes it, then close."""
        self.say_goodbye(how, retry_after_ms)
        self.connection.close(how.code, how.reason)

    def say_goodbye(self, how: Close, retry_after_ms: int | None = None) -> None:
        """DISCONNECT, the last message."""
        if not self.outbox.behind:
            hall = self.room.hall
            payload = disconnect_payload(how, retry_after_ms)
            message = encode_message("DISCONNECT", hall.new_id(), hall.timestamp(), self.user, payload)
            self.outbox.send(encode_frame(message))


def isoformat(seconds: float) -> str:
    """Seconds since 1970 as the wire writes time: ISO 8601, UTC, milliseconds, ``Z``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds * 1000) % 1000:03d}Z"


def disconnect_payload(how: Close, retry_after_ms: int | None = None) -> dict[str, Any]:
    """The payload of DISCONNECT (PROTOCOL section 1)."""
    payload: dict[str, Any] = {"code": how.code, "reason": how.reason, "reconnect": how.reconnect}
    if retry_after_ms is not None:
        payload["retryAfterMs"] = retry_after_ms
    return payload
