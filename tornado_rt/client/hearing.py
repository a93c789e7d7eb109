"""Who is told what the client hears: listeners, readers of changes, and who waits for the answer to a message of his own."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tornado_rt.client.outcomes import Change, ClientStoppedError

__all__ = ["Answers", "Hearing"]

_log = logging.getLogger(__name__)

EVENTS = frozenset({"state", "sync", "change", "operation", "conflict", "message", "refused", "error"})
CHANGES_KEPT = 10_000


class Hearing:
    """Listeners by event, and readers of ``changes``. ``tasks`` are the coroutines that run on the client's account."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Future[Any]] = set()
        self._listeners: dict[str, list[Callable[[Any], object]]] = {name: [] for name in EVENTS}
        self._readers: list[_Reader] = []

    def on(self, event: str, listener: Callable[[Any], object]) -> Callable[[], None]:
        if event not in EVENTS:
            raise ValueError(f"there is no event {event}; there are {', '.join(sorted(EVENTS))}")
        self._listeners[event].append(listener)
        return lambda: self._listeners[event].remove(listener)

    def tell(self, event: str, value: Any) -> None:
        """Tell everybody; a listener that raises is logged and harms nobody."""
        if event == "change":
            for reader in self._readers:
                reader.put(value)
        for listener in tuple(self._listeners[event]):
            try:
                result = listener(value)
            except Exception:
                _log.exception("a listener for %s failed", event)
                continue
            if inspect.isawaitable(result):
                self.keep(result)

    async def changes(self) -> AsyncIterator[Change]:
        reader = _Reader()
        self._readers.append(reader)
        try:
            while (change := await reader.next()) is not None:
                yield change
        finally:
            self._readers.remove(reader)

    def end(self) -> None:
        """There will be no more changes."""
        for reader in self._readers:
            reader.put(None)

    def keep(self, work: Awaitable[Any]) -> None:
        """Run a coroutine until it ends, or the client does."""
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Future[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            _log.error("a task of the client failed", exc_info=fault)


class _Reader:
    """What one reader of ``changes`` has yet to read."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Change | None] = asyncio.Queue()
        self._is_lost = False

    def put(self, change: Change | None) -> None:
        self._is_lost = self._is_lost or self._queue.qsize() >= CHANGES_KEPT
        if not self._is_lost or change is None:
            self._queue.put_nowait(change)

    async def next(self) -> Change | None:
        if self._is_lost and self._queue.empty():
            raise ClientStoppedError("the reader of changes fell behind")
        return await self._queue.get()


class Answers:
    """Who waits for the answer to which message."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def wait(self, message_id: str, timeout_seconds: float) -> dict[str, Any]:
        """The frame that answers a message. Raises ``TimeoutError``, or what ``fail`` was given."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[message_id] = future
        try:
            async with asyncio.timeout(timeout_seconds):
                return await future
        finally:
            del self._waiting[message_id]

    def arrived(self, frame: dict[str, Any]) -> None:
        future = self._waiting.get(frame.get("correlationId") or "")
        if future is not None and not future.done():
            future.set_result(frame)

    def fail(self, error: Exception) -> None:
        """No answer will come."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
