"""One sweep over all sessions in place of a timer for each: who has gone silent, who takes nothing any more.

PROTOCOL sections 3 and 5, 5. Says PING and ends connections; knows nothing of what they talk about.
"""

from __future__ import annotations

from collections.abc import Callable

from tornado_rt.errors import Close
from tornado_rt.protocol.codec import encode_message
from tornado_rt.session import Session
from tornado_rt.submission import Hall
from tornado_rt.wire import encode_frame

__all__ = ["Heartbeat"]

SLICES = 50  # the sessions are dealt out over so many parts of an interval, so that no sweep is long


class Heartbeat:
    """Sessions in slices; ``tick`` sweeps one slice and is to be called ``SLICES`` times an interval.

    ``interval_seconds`` and ``timeout_seconds`` of 0 turn PINGs or the silence limit off; ``stuck_seconds`` is how long a full
    socket may take nothing. ``missed``, ``stuck`` and ``expired`` count the connections that were ended.
    """

    def __init__(self, hall: Hall, interval_seconds: float, timeout_seconds: float, stuck_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self.missed = 0
        self.expired = 0
        self.stuck = 0
        self._hall = hall
        self._timeout_seconds = timeout_seconds
        self._stuck_seconds = stuck_seconds
        self._slices: list[set[Session]] = [set() for _ in range(SLICES)]
        self._next_slice = 0
        self._next_join = 0

    @property
    def tick_seconds(self) -> float:
        return (self.interval_seconds or 25.0) / SLICES

    def join(self, session: Session) -> Callable[[], None]:
        """Look after a session; returns the function that ends it."""
        self._next_join = (self._next_join + 1) % SLICES
        slice_ = self._slices[self._next_join]
        slice_.add(session)
        return lambda: slice_.discard(session)

    def tick(self) -> None:
        """Sweep the next slice, and all who are behind."""
        now = self._hall.monotonic()
        today = self._hall.time()
        self._next_slice = (self._next_slice + 1) % SLICES
        for session in tuple(self._slices[self._next_slice]):
            if session.connection.heard:
                session.connection.heard = False
                session.heard_at = now
            if session.expires_at is not None and session.expires_at <= today:
                self.expired += 1
                session.close(Close.TOKEN_EXPIRED)
                continue
            if session.is_behind:
                continue
            if self._timeout_seconds and now - session.heard_at > self._timeout_seconds:
                self.missed += 1
                session.close(Close.HEARTBEAT_TIMEOUT)
            elif self.interval_seconds:
                self._ping(session)
        for session in tuple(self._hall.laggards):
            self._watch(session, now)

    def _ping(self, session: Session) -> None:
        hall = self._hall
        at = hall.timestamp()
        payload = b'{"seq":%d,"serverTime":"%b"}' % (session.room.dashboard.seq, at.encode())
        message = encode_message("PING", hall.new_id(), at, session.user, payload)
        if not session.outbox.ping(encode_frame(message)):
            session.room.falls_behind(session)

    def _watch(self, session: Session, now: float) -> None:
        """A socket that takes any bytes is alive; one that takes none for too long is ended."""
        progress = session.outbox.progress
        if progress != session.progress:
            session.progress = progress
            session.stuck_since = session.heard_at = now
        elif self._stuck_seconds and now - session.stuck_since > self._stuck_seconds:
            self.stuck += 1
            session.outbox.abort()
