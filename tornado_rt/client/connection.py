"""The socket: kept up for ever, watched for silence, and given up only where the server says so. Knows nothing of documents.

PROTOCOL sections 1 and 8. Tornado's client speaks RFC 6455 for us.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, Protocol

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, WebSocketClosedError, WebSocketError, websocket_connect

from tornado_rt.client.backoff import Backoff, Verdict, after_close

__all__ = ["Connection", "ConnectionState", "Listener"]

_log = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 10.0  # for the upgrade, and then for CONNECT
GOODBYE_SECONDS = 1.0
MAX_FRAME_BYTES = 64 * 1024 * 1024  # a snapshot is 4 MiB by default; the server's operator may have allowed more


class ConnectionState(StrEnum):
    """ERROR is the end: the server does not want us back, or the attempts are used up."""

    DISCONNECTED = "DISCONNECTED"
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    RECONNECTING = "RECONNECTING"
    ERROR = "ERROR"


class Listener(Protocol):
    """Who uses the connection."""

    async def socket_request(self, needs_token: bool) -> HTTPRequest:
        """Where to connect to, and as whom; with ``needs_token`` the last token has expired. If it raises it is tried later."""

    def on_frame(self, frame: dict[str, Any]) -> None:
        """A message came."""

    def on_down(self, was_up: bool) -> dict[str, Any] | None:
        """There is no connection now; returns what DISCONNECT had said, if anything."""

    def on_state(self, state: ConnectionState, error: str | None) -> None:
        """The state is another one now; ``error`` is a sentence about an end."""


class Connection:
    """One socket after the other, until ``close`` or an end. ``state`` tells how it stands."""

    def __init__(
        self,
        listener: Listener,
        backoff: Backoff,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.state = ConnectionState.DISCONNECTED
        self._listener = listener
        self._backoff = backoff
        self._clock = clock
        self._sleep = sleep
        self._socket: WebSocketClientConnection | None = None
        self._dialling: asyncio.Future[WebSocketClientConnection] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._early: list[str | bytes | None] = []  # what came with the handshake, before Tornado gave us the socket
        self._heard_at = 0.0
        self._silence_seconds = HANDSHAKE_SECONDS
        self._is_closing = False

    async def run(self) -> None:
        """Connect, and again, until there is an end."""
        needs_token = False
        self._become(ConnectionState.CONNECTING)
        while True:
            started = self._clock()
            verdict, fault = await self._live(needs_token)
            lived = self._clock() - started if fault is None else 0.0
            if self._is_closing:
                return
            needs_token = verdict.needs_token
            delay = self._backoff.delay_seconds(lived, verdict.retry_after_ms) if verdict.reconnect else None
            if delay is None:
                self._become(ConnectionState.ERROR, fault or "the server refused the connection for good")
                return
            self._become(ConnectionState.RECONNECTING)
            await self._sleep(delay)

    async def _live(self, needs_token: bool) -> tuple[Verdict, str | None]:
        """One connection from beginning to end; the second part says why none came about."""
        try:
            request = await self._listener.socket_request(needs_token)
            request.connect_timeout = request.request_timeout = HANDSHAKE_SECONDS
            self._ended = asyncio.get_running_loop().create_future()
            self._silence_seconds = HANDSHAKE_SECONDS
            self._early.clear()
            self._socket = socket = await self._dial(request, self._ended)
        except (OSError, HTTPClientError, WebSocketError) as fault:
            _log.debug("no connection: %s", fault)
            self._listener.on_down(was_up=False)
            return Verdict(reconnect=True, needs_token=needs_token), f"no connection: {fault}"
        try:
            await self._watch(socket)
        finally:
            socket.close(1001, "")  # where it is not closed already
            self._socket = None
            was_up = self.state is ConnectionState.CONNECTED
            disconnect = self._listener.on_down(was_up)
        return after_close(socket.close_code, socket.close_reason, disconnect), None

    async def _dial(self, request: HTTPRequest, ended: asyncio.Future[None]) -> WebSocketClientConnection:
        """Tornado's connecting cannot be called off: if we are, the socket is closed as soon as it is there."""
        on_message = functools.partial(self._on_message, ended)
        self._dialling = dialling = asyncio.ensure_future(
            websocket_connect(request, on_message_callback=on_message, max_message_size=MAX_FRAME_BYTES)
        )
        try:
            return await asyncio.shield(dialling)
        except asyncio.CancelledError:
            dialling.add_done_callback(_hang_up)
            raise

    async def _watch(self, socket: WebSocketClientConnection) -> None:
        """Until the socket is closed, or was silent for too long."""
        assert self._ended is not None
        self._heard_at = self._clock()
        for message in self._early:
            self._on_message(self._ended, message)
        while not self._ended.done():
            patience = self._heard_at + self._silence_seconds - self._clock()
            if patience <= 0:
                self._ended.set_result(None)  # whatever this socket still says comes too late
                return
            await asyncio.wait((self._ended,), timeout=patience)

    def _on_message(self, ended: asyncio.Future[None], message: str | bytes | None) -> None:
        if ended.done():
            return
        if self._socket is None:
            self._early.append(message)
        elif message is None:
            ended.set_result(None)
        else:
            self._on_frame(json.loads(message))

    def _on_frame(self, frame: dict[str, Any]) -> None:
        self._heard_at = self._clock()
        if frame.get("type") == "CONNECT":
            self._silence_seconds = 2 * frame["payload"]["heartbeatInterval"] / 1000 or HANDSHAKE_SECONDS * 6
            self._become(ConnectionState.CONNECTED)
        self._listener.on_frame(frame)

    def send(self, text: str) -> None:
        """Write one frame; if the socket is going down it is lost, which its end will tell."""
        if self._socket is not None:
            with contextlib.suppress(WebSocketClosedError):
                self._socket.write_message(text).add_done_callback(_ignore)

    def cut(self) -> None:
        """Close the socket and connect again."""
        if self._socket is not None:
            self._socket.close(1001, "")

    async def close(self) -> None:
        """Leave, and wait a moment for what is under way. ``run`` ends, or is to be cancelled if it waits for another try."""
        self._is_closing = True
        under_way = self._dialling if self._socket is None else self._ended
        self.cut()
        if under_way is not None and not under_way.done():
            await asyncio.wait((under_way,), timeout=GOODBYE_SECONDS)
        self._become(ConnectionState.DISCONNECTED)

    def _become(self, state: ConnectionState, error: str | None = None) -> None:
        if state is not self.state:
            self.state = state
            self._listener.on_state(state, error)


def _hang_up(dialling: asyncio.Future[WebSocketClientConnection]) -> None:
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().close()


def _ignore(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
