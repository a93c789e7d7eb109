"""From credentials to an identity: who is it, and what may it do where. Reads no requests: ``handlers`` bring what they found.

The mode ``trust`` believes whatever name it is given and is for development; signed tokens take its place in production.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tornado_rt.errors import Unauthorized
from tornado_rt.protocol.messages import is_valid_id

__all__ = ["Authenticator", "Credentials", "Identity", "TrustAuthenticator"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brought along, each from its own place; None where there was nothing."""

    query_user_id: str | None = None
    query_token: str | None = None
    bearer: str | None = None
    subprotocol_token: str | None = None
    cookie_user_id: str | None = None
    cookie_token: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and what it may do."""

    user_id: str
    permissions: tuple[str, ...] = ("read", "write")

    def permissions_on(self, dashboard_id: str) -> tuple[str, ...]:
        """What of ``read``, ``write`` and ``admin`` this identity may do on a dashboard; empty: not even know of it."""
        return self.permissions

    @property
    def is_admin(self) -> bool:
        return "admin" in self.permissions


class Authenticator(Protocol):
    """Raises ``Unauthorized`` for no or bad credentials, the same for all causes."""

    async def identify(self, credentials: Credentials) -> Identity: ...


class TrustAuthenticator:
    """The guide's way: the name in the query, else in ``Authorization: Bearer``, else in the cookie (PROTOCOL section 1)."""

    async def identify(self, credentials: Credentials) -> Identity:
        for name in (credentials.query_user_id, credentials.bearer, credentials.subprotocol_token, credentials.cookie_user_id):
            if name is not None:
                break
        else:
            raise Unauthorized("say who you are: userId in the query, Authorization: Bearer, or cookie userId")
        if not is_valid_id(name):
            raise Unauthorized("userId must be 1 to 128 printable characters")
        return Identity(name, ("read", "write", "admin"))
