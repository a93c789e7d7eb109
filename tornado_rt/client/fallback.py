"""Working by POST while the socket is down (PROTOCOL sections 6 and 8): what waits is sent, what was missed is fetched."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse

from tornado_rt.client.state import ClientState, Post

__all__ = ["Fallback", "SyncState"]

_log = logging.getLogger(__name__)

REQUEST_SECONDS = 20.0
_REFUSALS = frozenset({400, 403, 409, 413, 422})  # the server judged the request, and nothing of it was done


class SyncState(StrEnum):
    """How the background sync stands: IDLE while the socket is up or nothing is due, OFFLINE where nobody answers."""

    IDLE = "IDLE"
    SYNCING = "SYNCING"
    ERROR = "ERROR"
    OFFLINE = "OFFLINE"


class Fallback:
    """Rounds of POSTs every ``interval_seconds``, each tried ``retries`` times more, ``retry_seconds`` apart."""

    def __init__(
        self,
        state: ClientState,
        http_request: Callable[[], Awaitable[tuple[str, dict[str, str], dict[str, Any]]]],
        told: Callable[[], None],
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        interval_seconds: float,
        retries: int,
        retry_seconds: float,
    ) -> None:
        self.state = SyncState.IDLE
        self._client = state
        self._http_request = http_request
        self._told = told
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._interval_seconds = interval_seconds
        self._retries = retries
        self._retry_seconds = retry_seconds
        self._http = AsyncHTTPClient(force_instance=True)
        self._task: asyncio.Task[None] | None = None

    def start(self, *, at_once: bool) -> None:
        """The socket is down. Unless ``at_once``, the first round comes at a random moment: others lost their sockets too."""
        if self._task is None or self._task.done():
            first = 0.0 if at_once else self._random() * self._interval_seconds
            self._task = asyncio.get_running_loop().create_task(self._run(first))

    def stop(self) -> None:
        """The socket is up, or the client ends."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self.state = SyncState.IDLE

    def close(self) -> None:
        self.stop()
        self._http.close()

    async def _run(self, first_seconds: float) -> None:
        delay = first_seconds
        while True:
            if delay:
                await self._sleep(delay)
            await self.round()
            delay = self._interval_seconds

    async def round(self) -> None:
        """Send all that may leave and fetch what was missed; give up for now when the last retry fails."""
        failures = 0
        while failures <= self._retries:
            if failures:
                await self._sleep(self._retry_seconds)
            self.state = SyncState.SYNCING
            post = self._client.post(self._clock())
            if post is None:
                break
            if not await self._exchange(post):
                failures += 1
            elif not post.operations or self._client.is_idle(self._clock()):
                self.state = SyncState.IDLE
                return

    async def _exchange(self, post: Post) -> bool:
        """One POST; true if it was answered by a verdict on what it held."""
        try:
            url, headers, identity = await self._http_request()
            body = json.dumps({**post.body, **identity}, ensure_ascii=False).encode()
            request = HTTPRequest(
                url,
                "POST",
                {**headers, "Content-Type": "application/json"},
                body,
                connect_timeout=REQUEST_SECONDS,
                request_timeout=REQUEST_SECONDS,
            )
            response = await self._fetch(request)
        except (OSError, HTTPClientError) as fault:
            _log.debug("no answer to a POST: %s", fault)
            self.state = SyncState.OFFLINE
            self._client.post_lost(post)
            return False
        except asyncio.CancelledError:
            self._client.post_lost(post)
            raise
        return self._judge(post, response)

    async def _fetch(self, request: HTTPRequest) -> HTTPResponse:
        """Tornado logs an error when a fetch is called off; so it goes on in the dark, and nobody looks at its answer."""
        fetching = asyncio.ensure_future(self._http.fetch(request, raise_error=False))
        try:
            return await asyncio.shield(fetching)
        except asyncio.CancelledError:
            fetching.add_done_callback(_ignore)
            raise

    def _judge(self, post: Post, response: HTTPResponse) -> bool:
        answer = _object(response.body)
        is_answered = True
        if response.code == 200 and "results" in answer:
            self._client.posted(post, answer, self._clock())
        elif response.code in _REFUSALS and "code" in answer and post.operations:
            self._client.post_refused(post, answer, self._clock())
        else:
            self.state = SyncState.ERROR
            self._client.post_lost(post)
            is_answered = False
        self._told()
        return is_answered


def _ignore(fetching: asyncio.Future[HTTPResponse]) -> None:
    if not fetching.cancelled():
        fetching.exception()


def _object(body: bytes | None) -> dict[str, Any]:
    try:
        answer = json.loads(body or b"")
    except ValueError:  # a proxy's page
        return {}
    return answer if isinstance(answer, dict) else {}
