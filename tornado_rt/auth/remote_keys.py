"""An issuer's key set behind an address (RFC 7517 section 5): fetched when it is needed, kept when it cannot be.

Knows when to ask and how much to take; what a key is good for is ``keys``'s. The clock is handed in.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import UnsatisfiableReadError
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from tornado_rt.auth.keys import Key, key_of_jwk
from tornado_rt.errors import Unavailable

__all__ = ["RemoteKeySet"]

log = logging.getLogger(__name__)

MAX_AGE_SECONDS: Final = 600.0  # a key that its issuer has withdrawn is good no longer than that
PAUSE_SECONDS: Final = 60.0  # between two questions, so that made-up key ids cannot make us ask and ask
FIRST_PAUSE_SECONDS: Final = 5.0  # as long as there is no set at all
MAX_BODY_BYTES: Final = 65_536
MAX_HEADER_BYTES: Final = 16_384
MAX_CANDIDATES: Final = 4  # keys that are tried for a token which names none


class RemoteKeySet:
    """Asks once for all who wait, and never more often than once a minute; nobody else waits.

    When the issuer does not answer, or answers without a usable key, the last good set stays in force, however old. A token
    with a key id that this set does not have can then not be judged: ``Unavailable``, since its sender is to come back.
    """

    def __init__(
        self, url: str, algorithms: Iterable[str], *, monotonic: Callable[[], float], timeout_seconds: float = 5.0
    ) -> None:
        self.url = url
        self.fetches = 0
        self.failed_fetches = 0
        self._algorithms = tuple(algorithms)
        self._monotonic = monotonic
        self._timeout_seconds = timeout_seconds
        self._keys: tuple[Key, ...] = ()
        self._is_current = False  # whether the last question was answered
        self._loaded_at = 0.0
        self._next_fetch_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        found = self._fitting(algorithm, key_id)
        if not found or self._monotonic() - self._loaded_at > MAX_AGE_SECONDS:
            await self._refresh()
            found = self._fitting(algorithm, key_id)
        if not found and not self._is_current:
            pause = max(0.0, (self._next_fetch_at or 0.0) - self._monotonic())
            raise Unavailable("tokens cannot be checked now: their issuer does not answer", retry_after_ms=round(pause * 1000))
        return found

    def _fitting(self, algorithm: str, key_id: str | None) -> list[Key]:
        keys = [key for key in self._keys if algorithm in key.algorithms and key_id in (None, key.key_id)]
        return keys[:MAX_CANDIDATES]

    async def _refresh(self) -> None:
        """Ask the issuer, unless that was done just now; whoever comes meanwhile waits for the same answer."""
        if self._fetching is None:
            now = self._monotonic()
            if self._next_fetch_at is not None and now < self._next_fetch_at:
                return
            self._fetching = asyncio.get_running_loop().create_task(self._fetch(now))
        await asyncio.shield(self._fetching)

    async def _fetch(self, now: float) -> None:
        self.fetches += 1
        self._is_current = False
        try:
            self._keys = self._read(await self._download())
            self._is_current, self._loaded_at = True, now
        except (OSError, HTTPClientError, UnsatisfiableReadError, ValueError, RecursionError) as fault:
            self.failed_fetches += 1
            log.warning(
                "key set %s cannot be read, %s: %s", self.url, "the last one stays" if self._keys else "there is none", fault
            )
        finally:
            self._next_fetch_at = now + (PAUSE_SECONDS if self._keys else FIRST_PAUSE_SECONDS)
            self._fetching = None

    async def _download(self) -> bytes:
        """Bounded in time and size; follows nobody elsewhere, unpacks nothing. TLS is checked."""
        client = SimpleAsyncHTTPClient(
            force_instance=True,
            max_clients=1,
            max_body_size=MAX_BODY_BYTES,
            max_header_size=MAX_HEADER_BYTES,
        )
        request = HTTPRequest(
            self.url,
            headers={"Accept": "application/jwk-set+json, application/json"},
            connect_timeout=self._timeout_seconds,
            request_timeout=self._timeout_seconds,
            follow_redirects=False,
            decompress_response=False,
        )
        try:
            return (await client.fetch(request)).body
        finally:
            client.close()

    def _read(self, body: bytes) -> tuple[Key, ...]:
        """Raises ``ValueError`` where there is no usable key in it."""
        document = json.loads(body)
        members = document.get("keys") if isinstance(document, dict) else None
        found = [key_of_jwk(member, self._algorithms) for member in members] if isinstance(members, list) else []
        keys = tuple(key for key in found if key is not None)
        if not keys:
            raise ValueError(f"there is no key for {', '.join(self._algorithms)} in it")
        return keys
