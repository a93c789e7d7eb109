"""What waits to be judged, and what all rooms share. Values only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tornado_rt.auth import Identity
from tornado_rt.core.document import Author
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.events import Events
from tornado_rt.guard import Guard
from tornado_rt.intake import Item
from tornado_rt.store.base import Store

if TYPE_CHECKING:
    from tornado_rt.room import Room
    from tornado_rt.session import Session

__all__ = ["Hall", "Renew", "Submission"]

Renew = Callable[[str, str], Awaitable[tuple[Identity, tuple[str, ...]]]]
"""A fresh token, and a dashboard's id -> who it is now, and what it may do there. Raises ``ClientFault``."""


@dataclass(slots=True)
class Hall:
    """What all rooms share. ``time`` and ``monotonic`` are clocks in seconds, ``timestamp`` the wall clock as ISO 8601.

    ``renew`` judges a token that comes in a PING; None where there are no tokens. ``faults`` counts mistakes of our own
    that were caught and logged.
    """

    store: Store
    limits: DashboardLimits
    time: Callable[[], float]
    monotonic: Callable[[], float]
    timestamp: Callable[[], str]
    new_id: Callable[[], str]
    events: Events
    on_fault: Callable[[Room, BaseException], None]
    guard: Guard
    renew: Renew | None = None
    faults: int = 0
    laggards: set[Session] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Submission:
    """One message or POST whose operations are judged in a row. ``message_id`` is what the answer is correlated with.

    ``is_single`` is answered by ACK, CONFLICT_DETECTED or NACK, any other by results. ``done`` is called in place of an answer
    where the sender has no socket.
    """

    author: Author
    items: list[Item]
    session: Session | None = None
    message_id: str | None = None
    is_single: bool = False
    message: Any = None
    done: Callable[[list[Item]], None] | None = None

    def leaves(self) -> list[Item]:
        return self.items if self.is_single else [leaf for item in self.items for leaf in item.leaves()]
