"""Who may no longer come in although its token says so (PROTOCOL section 6, revoke). Kept in the store, beyond a restart.

What is refused: tokens of a user, or for a dashboard, that were issued before the revocation (or do not say when), and a token
by its id. An identity that never ends is no token's (``RT_AUTH=trust``), and is not refused: it could never come back. Knows no
connections: ``server`` closes those.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Literal

from tornado_rt.auth import MAX_LIFE_SECONDS, Identity
from tornado_rt.errors import Unavailable
from tornado_rt.protocol.codec import decode_json, encode_json
from tornado_rt.store.base import Committed, Contents, Record, Store, Unknown

__all__ = ["RETENTION_SECONDS", "Revocation", "Revocations"]

LOG = "\x01revocations"  # a log beside those of the dashboards; no dashboard can have this name
RETENTION_SECONDS = MAX_LIFE_SECONDS + 3_600.0  # no token is accepted that lives longer, whatever leeway its clock is given
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Revocation:
    """``at`` and ``until`` in seconds since 1970; after ``until`` every token that it is about has expired."""

    kind: Literal["userId", "tokenId", "dashboardId"]
    value: str
    at: float
    until: float


class Revocations:
    """The revocations in force, newest of each kind and value."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seq = 0
        self._turn = asyncio.Lock()  # a store wants the commits of one log one after the other
        self._known: dict[tuple[str, str], Revocation] = {}

    async def load(self, now: float) -> None:
        """Read what was revoked before. Raises ``Unavailable``."""
        self._learn(await self._store.open(LOG), now)

    async def add(self, revocation: Revocation) -> None:
        """In force, and durable, when this returns. Raises ``Unavailable``."""
        record = Record(encode_json(asdict(revocation)))
        async with self._turn:
            for _ in range(MAX_ATTEMPTS):
                outcome = await self._store.commit(LOG, self._store.epoch, self._seq, {}, [record])
                if isinstance(outcome, Committed):
                    if outcome.missed is not None:  # what other processes revoked meanwhile
                        self._learn(outcome.missed, revocation.at)
                    self._seq = max(self._seq, outcome.first_seq)
                    self._keep(revocation)
                    return
                if not isinstance(outcome, Unknown):  # then the very same is asked again; to say it twice does no harm
                    await self.load(revocation.at)
        raise Unavailable("the revocation could not be kept; try again", retry_after_ms=1000)

    def _learn(self, contents: Contents, now: float) -> None:
        self._seq = contents.seq
        for logged in contents.log:
            revocation = Revocation(**decode_json(logged.body))
            if revocation.until > now:
                self._keep(revocation)

    def _keep(self, revocation: Revocation) -> None:
        key = (revocation.kind, revocation.value)
        known = self._known.get(key)
        if known is None or known.at <= revocation.at:
            self._known[key] = revocation

    def refuses(self, identity: Identity, dashboard_id: str | None, now: float) -> bool:
        """Is this identity, on this dashboard (None: on none), one of those?"""
        if not self._known or identity.expires_at is None:
            return False
        keys = [("userId", identity.user_id)]
        if dashboard_id is not None:
            keys.append(("dashboardId", dashboard_id))
        if identity.token_id is not None:
            keys.append(("tokenId", identity.token_id))
        for key in keys:
            revocation = self._known.get(key)
            if revocation is None:
                continue
            if revocation.until <= now:
                del self._known[key]
            elif revocation.kind == "tokenId" or identity.issued_at is None or identity.issued_at <= revocation.at:
                return True
        return False
