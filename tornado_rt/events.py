"""What application code in the process can listen to (PROTOCOL section 7). Knows names and listeners; causes nothing itself.

A listener may be a function or a coroutine function; one that raises is logged and counted, and harms nobody.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

__all__ = ["EVENTS", "Event", "Events", "Listener"]

EVENTS = frozenset(
    {
        "initialized",
        "shutdown",
        "client:connected",
        "client:disconnected",
        "client:error",
        "message:received",
        "sync:requested",
        "sync:updated",
        "widget:updated",
        "widget:deleted",
        "widget:batch",
        "layout:updated",
        "layout:restored",
        "conflict:detected",
        "conflict:resolved",
        "rate:limited",
    }
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Event:
    """``message`` is the client's message as decoded (``protocol.messages``), or None where there was none."""

    name: str
    client_id: str | None = None
    user_id: str | None = None
    dashboard_id: str | None = None
    message: Any = None


Listener = Callable[[Event], Awaitable[None] | None]


class Events:
    """Listeners by event name. ``failures`` counts listeners that raised."""

    def __init__(self) -> None:
        self.failures = 0
        self._listeners: dict[str, list[Listener]] = {}
        self._running: set[asyncio.Future[None]] = set()

    def on(self, name: str, listener: Listener) -> Callable[[], None]:
        """Listen; returns the function that ends it. Raises ``ValueError`` for a name that is no event."""
        if name not in EVENTS:
            raise ValueError(f"{name!r} is no event; there are {', '.join(sorted(EVENTS))}")
        listeners = self._listeners.setdefault(name, [])
        listeners.append(listener)
        return lambda: listeners.remove(listener) if listener in listeners else None

    def wants(self, name: str) -> bool:
        return bool(self._listeners.get(name))

    @property
    def is_idle(self) -> bool:
        """Nobody listens to anything: the hot path asks this alone."""
        return not self._listeners

    def emit(self, event: Event) -> None:
        for listener in tuple(self._listeners.get(event.name, ())):
            try:
                result = listener(event)
            except Exception:  # application code: whatever it raises must not reach the room
                self._failed(event.name)
                continue
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(result)
                self._running.add(task)
                task.add_done_callback(partial(self._finished, event.name))

    def _finished(self, name: str, task: asyncio.Future[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failed(name, task.exception())

    def _failed(self, name: str, error: BaseException | None = None) -> None:
        self.failures += 1
        log.error("listener_failed", event_name=name, exc_info=error or True)
