"""Who may no longer come in although its token says so (PROTOCOL section 6, revoke). Kept in the store, beyond a restart.

What is refused: tokens of a user, or for a dashboard, that were issued before the revocation (or do not say when), and a token
by its id. Knows no connections: ``server`` closes those.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from tornado_rt.auth import Identity
from tornado_rt.errors import Unavailable
from tornado_rt.protocol.codec import decode_json, encode_json
from tornado_rt.store.base import Committed, Record, Stale, Store

__all__ = ["RETENTION_SECONDS", "Revocation", "Revocations"]

LOG = "\x01revocations"  # a log beside those of the dashboards; no dashboard can have this name
RETENTION_SECONDS = 30 * 24 * 3600.0  # a token that lives longer than this is not accepted in the first place


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
        self._known: dict[tuple[str, str], Revocation] = {}

    async def load(self, now: float) -> None:
        """Read what was revoked before. Raises ``Unavailable``."""
        contents = await self._store.open(LOG)
        self._seq = contents.seq
        for logged in contents.log:
            revocation = Revocation(**decode_json(logged.body))
            if revocation.until > now:
                self._known[(revocation.kind, revocation.value)] = revocation

    async def add(self, revocation: Revocation) -> None:
        """In force, and durable, when this returns. Raises ``Unavailable``."""
        record = Record(encode_json(asdict(revocation)))
        while True:
            outcome = await self._store.commit(LOG, self._store.epoch, self._seq, {}, [record])
            if isinstance(outcome, Committed):
                self._seq = outcome.first_seq
                break
            if not isinstance(outcome, Stale):
                raise Unavailable("the revocation could not be kept; try again", retry_after_ms=1000)
            await self.load(revocation.at)
        self._known[(revocation.kind, revocation.value)] = revocation

    def refuses(self, identity: Identity, dashboard_id: str, now: float) -> bool:
        """Is this identity, on this dashboard, one of those?"""
        if not self._known:
            return False
        keys = [("userId", identity.user_id), ("dashboardId", dashboard_id)]
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
