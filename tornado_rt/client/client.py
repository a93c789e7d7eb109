"""The Python client: a dashboard's documents at hand, changed at once, kept in step. Joins the pure state with the sockets."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import random as chance
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from tornado.httpclient import HTTPRequest

from tornado_rt.client.address import Address, subject_of
from tornado_rt.client.backoff import Backoff
from tornado_rt.client.conflicts import NOT_GIVEN
from tornado_rt.client.connection import Connection, ConnectionState
from tornado_rt.client.edit import Edit, Fields
from tornado_rt.client.fallback import Fallback, SyncState
from tornado_rt.client.hearing import Answers, Hearing
from tornado_rt.client.operation import Operation
from tornado_rt.client.outcomes import Change, ClientStoppedError, Conflict, QueueFullError, RefusedError, Result
from tornado_rt.client.queue import FileQueue, MemoryQueue
from tornado_rt.client.state import ClientState, Frame, Options

__all__ = ["RealtimeClient"]

Token = str | Callable[[], str | Awaitable[str]]


class RealtimeClient:
    """A client of one dashboard.

    ``url`` is the server's address (http, https, ws or wss). Who we are is ``user_id``, or ``token``: a signed token, or a
    function (or coroutine function) that gives one and is asked again when it has expired. With ``queue_path`` what was not
    acknowledged survives the process. The other options are the guide's, times in seconds::

        async with RealtimeClient("http://localhost:3000", user_id="ada") as rt:
            await rt.update("widget-1", {"value": 42})
            async for change in rt.changes():
                print(change.documents, rt.widgets)
    """

    def __init__(
        self,
        url: str,
        *,
        user_id: str | None = None,
        token: Token | None = None,
        dashboard_id: str = "default",
        device_id: str | None = None,
        queue_path: str | os.PathLike[str] | None = None,
        connect_timeout: float | None = None,
        reconnect_attempts: int | None = None,
        reconnect_delay: float = 1.0,
        max_message_queue_size: int = 1000,
        max_pending_operations: int = 100,
        operation_timeout: float = 30.0,
        enable_conflict_detection: bool = True,
        sync_interval: float = 30.0,
        max_queue_size: int = 500,
        retry_attempts: int = 3,
        retry_delay: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = chance.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if user_id is None and token is None:
            raise ValueError("a client needs a user_id or a token")
        self.dashboard_id = dashboard_id
        self._address = Address(url)
        self._user_id = user_id
        self._token_source = token
        self._token: str | None = None
        self._device_id = device_id
        self._queue_path = queue_path
        self._connect_timeout = connect_timeout
        self._reconnect = (reconnect_attempts, reconnect_delay)
        self._max_messages = max_message_queue_size
        self._options = Options(max_pending_operations, max_queue_size, operation_timeout, enable_conflict_detection)
        self._sync = (sync_interval, retry_attempts, retry_delay)
        self._clock, self._random, self._sleep = clock, random, sleep
        self._hearing = Hearing()
        self._answers = Answers()
        self._messages: list[Frame] = []  # given to ``send`` while there was no connection
        self._timer: asyncio.TimerHandle | None = None
        self._is_pumping_soon = False
        self._end: ClientStoppedError | None = None  # why it is over

    # Beginning and end

    async def __aenter__(self) -> RealtimeClient:
        await self.start()
        try:
            async with asyncio.timeout(self._connect_timeout):
                await self._ready
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin without waiting for a connection: operations are taken, and leave when there is one.

        Raises ``QueueInUseError`` if another process has the queue's file open, ``ValueError`` if no user can be made out.
        """
        if self._token_source is not None:
            await self._renew_token()
        user_id = self._user_id or subject_of(self._token or "")
        if not user_id:
            raise ValueError("the token does not name its user; pass user_id as well")
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._queue: FileQueue | MemoryQueue = MemoryQueue(self._device_id)
        if self._queue_path is not None:
            self._queue = FileQueue(self._queue_path, user_id, self.dashboard_id, self._device_id)
        self._state = ClientState(user_id, self._queue, lambda: uuid.uuid4().hex, self._random, self._options)
        self._state.take_back(self._queue.load())
        attempts, delay = self._reconnect
        self._connection = Connection(self, Backoff(self._random, delay, attempts), self._clock, self._sleep)
        interval, retries, retry_delay = self._sync
        self._fallback = Fallback(
            self._state,
            self._http_request,
            self._pump,
            self._clock,
            self._sleep,
            self._random,
            interval_seconds=interval,
            retries=retries,
            retry_seconds=retry_delay,
        )
        self._hearing.keep(self._connection.run())

    async def close(self) -> None:
        """Leave. What has no verdict yet stays in the queue, if it has a file; who waits for it gets ``ClientStoppedError``."""
        if self._connection.state is ConnectionState.CONNECTED:
            self._state.emit("DISCONNECT", {})
            self._send_frames()
        self._end = self._end or ClientStoppedError("the client was closed")
        await self._connection.close()
        if self._timer is not None:
            self._timer.cancel()
        tasks = tuple(self._hearing.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fallback.close()
        self._stop(self._end)
        self._queue.close()

    # What is there

    @property
    def state(self) -> ConnectionState:
        return self._connection.state

    @property
    def sync_state(self) -> SyncState:
        """How the background sync by POST stands."""
        return self._fallback.state

    @property
    def widgets(self) -> dict[str, Fields]:
        """The widgets by id, as they should be shown: the server's with what is pending on top. To be read, not changed."""
        return self._state.view("widget")

    @property
    def layouts(self) -> dict[str, Fields]:
        """The layouts by id, like ``widgets``."""
        return self._state.view("layout")

    @property
    def position(self) -> int:
        """The seq of the last change that is here in full."""
        return self._state.position

    @property
    def epoch(self) -> str | None:
        return self._state.epoch

    @property
    def user_id(self) -> str:
        return self._state.user_id

    @property
    def device_id(self) -> str:
        return self._queue.device_id

    @property
    def pending(self) -> list[Operation]:
        """Operations without a verdict, in their order."""
        return self._state.pending

    @property
    def failed(self) -> list[Operation]:
        """The last operations that were refused for good; ``retry`` or ``rollback`` takes them off the list."""
        return self._state.failed

    @property
    def conflicts(self) -> list[Conflict]:
        """Conflicts that wait for a choice."""
        return self._state.conflicts

    # Changing documents

    def submit(self, edit: Edit, *, hold_seconds: float = 0.0) -> Operation:
        """Change a document at once; await the operation for its verdict.

        Raises ``QueueFullError`` when too much waits, ``TooLarge`` for what no message can carry, ``ClientStoppedError`` after
        the end.
        """
        self._must_go_on()
        operation = self._state.submit(edit, self._clock(), hold_seconds=hold_seconds)
        self._pump_soon()
        return operation

    async def update(
        self,
        widget_id: str,
        data: Mapping[str, Any],
        *,
        unset: Iterable[str] = (),
        replace: bool = False,
        base_version: int | None = None,
    ) -> Result:
        """Merge ``data`` into a widget and wait until the server has it. Raises ``ConflictError`` and ``RefusedError``.

        ``base_version`` is the ``position`` at which the edit began, where that was earlier than now.
        """
        edit = Edit.update(widget_id, data, unset=unset, replace=replace)
        return await self.submit(edit.based_on(base_version, None))

    async def delete(self, widget_id: str, *, base_version: int | None = None) -> Result:
        """Remove a widget."""
        return await self.submit(Edit.delete(widget_id).based_on(base_version, None))

    async def update_layout(
        self,
        layout: Mapping[str, Any],
        *,
        layout_id: str = "default",
        unset: Iterable[str] = (),
        replace: bool = False,
        base_version: int | None = None,
    ) -> Result:
        """Merge ``layout`` into a layout, like ``update``."""
        edit = Edit.update_layout(layout, layout_id=layout_id, unset=unset, replace=replace)
        return await self.submit(edit.based_on(base_version, None))

    async def restore_layout(self, *, layout_id: str = "default", version: int | None = None) -> Result:
        """Make an earlier version of a layout current again. The undo of a change is its version less 1."""
        return await self.submit(Edit.restore_layout(layout_id=layout_id, version=version))

    async def batch(self, edits: Iterable[Edit], *, atomic: bool = True) -> list[Result]:
        """Several edits: all or none (``atomic``), or each on its own. One result for each edit, or the first error."""
        edits = list(edits)
        if atomic:
            self._must_go_on()
            operation = self._state.submit_batch(edits)
            self._pump_soon()
            return [await operation] * len(edits)
        return [await operation for operation in [self.submit(edit) for edit in edits]]

    async def resolve(self, conflict_id: str, choice: str, data: Any = NOT_GIVEN) -> Result | None:
        """Settle a conflict: ``local`` keeps mine, ``remote`` theirs (gives None), ``merged`` writes ``data`` (None deletes).

        Raises ``ConflictUnknown``, ``ValueError`` for a choice that makes no sense, and as ``update`` does.
        """
        self._must_go_on()
        operation = self._state.resolve(conflict_id, choice, data)
        self._pump_soon()
        return await operation if operation is not None else None

    def retry(self, operation: Operation) -> None:
        """Try a failed operation again. Raises ``ValueError`` for one that has not failed."""
        self._state.retry(operation)
        self._pump_soon()

    def rollback(self, operation: Operation) -> None:
        """Give up an operation that has not left, has failed or is in conflict. Raises ``ValueError`` for any other."""
        self._state.rollback(operation)
        self._pump_soon()

    def _must_go_on(self) -> None:
        if self._end is not None:
            raise self._end

    # Hearing

    def on(self, event: str, listener: Callable[[Any], object]) -> Callable[[], None]:
        """Be told of ``event``; the listener is a function or a coroutine function of one value. Returns what ends it.

        Events: state (``ConnectionState``), sync (its mode), change (``Change``), operation (``Operation``, whenever its state
        has changed), conflict (``Conflict``), message (a frame that changes nothing, such as a broadcast of the application's
        own), refused (a NACK frame for something else than an operation), error (a sentence).
        """
        return self._hearing.on(event, listener)

    def changes(self) -> AsyncIterator[Change]:
        """Every change from now on. Ends with the client; raises ``ClientStoppedError`` for a reader who is 10,000 behind."""
        return self._hearing.changes()

    def send(self, type_: str, payload: Mapping[str, Any] | None = None) -> str:
        """Send a message of any type, or keep it until there is a connection; returns its id. Raises ``QueueFullError``."""
        frame: Frame = {"type": type_, "id": uuid.uuid4().hex, "userId": self.user_id, "payload": dict(payload or {})}
        if self._state.connection is not None:
            self._connection.send(_encode(frame))
        elif len(self._messages) >= self._max_messages:
            raise QueueFullError(f"{len(self._messages)} messages wait already; this one was not taken")
        else:
            self._messages.append(frame)
        message_id: str = frame["id"]
        return message_id

    async def request(self, type_: str, payload: Mapping[str, Any] | None = None) -> Frame:
        """Send a message and wait for its answer, the whole frame.

        Raises ``RefusedError`` on a NACK, ``TimeoutError`` without an answer in time, ``ClientStoppedError`` if the connection
        ends. For changing documents use ``update`` and its like: they are repeated where this is not.
        """
        frame = await self._answers.wait(self.send(type_, payload), self._options.operation_timeout)
        if frame["type"] == "NACK":
            answer = frame["payload"]
            raise RefusedError(answer["code"], answer["error"], tuple(answer.get("details", ())))
        return frame

    # The sockets' side

    async def socket_request(self, needs_token: bool) -> HTTPRequest:
        if needs_token:
            await self._renew_token()
        query: dict[str, str | int] = {"dashboardId": self.dashboard_id, "deviceId": self.device_id, **self._state.resume}
        if self._token is None:
            query["userId"] = self.user_id
        return HTTPRequest(self._address.socket_url(query), headers=self._credentials())

    async def _http_request(self) -> tuple[str, dict[str, str], dict[str, Any]]:
        query: dict[str, str | int] = {} if self._token is not None else {"userId": self.user_id}
        identity = {"dashboardId": self.dashboard_id, "deviceId": self.device_id}
        return self._address.http_url(query), self._credentials(), identity

    def _credentials(self) -> dict[str, str]:
        return {} if self._token is None else {"Authorization": f"Bearer {self._token}"}

    async def _renew_token(self) -> None:
        source = self._token_source
        if callable(source):
            try:
                given = source()
                self._token = await given if inspect.isawaitable(given) else given
            except Exception as fault:
                raise OSError(f"no token: {fault}") from fault  # tried again like any other failed attempt
        else:
            self._token = source

    def on_frame(self, frame: Frame) -> None:
        self._state.receive(frame, self._clock())
        self._answers.arrived(frame)
        if frame["type"] == "CONNECT":
            self._fallback.stop()
            for message in self._messages:
                self._connection.send(_encode(message))
            self._messages.clear()
        self._pump()

    def on_down(self, was_up: bool) -> dict[str, Any] | None:
        self._state.closed()
        self._answers.fail(ClientStoppedError("the connection was cut before the answer came"))
        if self._end is None:
            self._fallback.start(at_once=not was_up)
            self._pump()
        return self._state.disconnect

    def on_state(self, state: ConnectionState, error: str | None) -> None:
        if state is ConnectionState.ERROR:
            self._fallback.stop()
            self._stop(ClientStoppedError(error or "the connection ended"))
            self._hearing.tell("error", error)
        self._hearing.tell("state", state)

    # Moving what the state has made

    def _pump_soon(self) -> None:
        """With the end of this tick, so that what is submitted together leaves together."""
        if not self._is_pumping_soon:
            self._is_pumping_soon = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pumping_soon = False
        now = self._clock()
        self._state.flush(now)
        self._queue.sync()
        self._send_frames()
        events, self._state.events = self._state.events, []
        for name, value in events:
            self._hearing.tell(name, value)
        if self._state.catchup.is_done and not self._ready.done():
            self._ready.set_result(None)
        self._schedule(now)

    def _send_frames(self) -> None:
        frames, self._state.frames = self._state.frames, []
        for frame in frames:
            self._connection.send(_encode(frame))

    def _schedule(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._state.due(now)
        if due is not None:
            self._timer = self._loop.call_later(max(0.001, due - now), self._pump)

    def _stop(self, end: ClientStoppedError) -> None:
        """Nothing more will come: tell all who wait."""
        self._end = end
        if not self._ready.done():
            self._ready.set_exception(end)
            self._ready.exception()  # taken here, since perhaps nobody waits
        self._answers.fail(end)
        for operation in self._state.pending:
            operation.abandon(end)
        self._hearing.end()


def _encode(frame: Frame) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({**frame, "timestamp": now}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
