"""What the doors ask for an identity, and the mode ``trust``, which believes whatever name it is given: for development."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tornado_rt.auth.identity import EVERYWHERE, Identity
from tornado_rt.errors import Unauthorized
from tornado_rt.protocol.messages import is_valid_id

__all__ = ["Authenticator", "Credentials", "TrustAuthenticator"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request brought along, each from its own place; None where there was nothing."""

    query_user_id: str | None = None
    query_token: str | None = None
    bearer: str | None = None
    subprotocol_token: str | None = None
    cookie_user_id: str | None = None
    cookie_token: str | None = None


class Authenticator(Protocol):
    """Says who somebody is."""

    async def identify(self, credentials: Credentials) -> Identity:
        """Who sends a request.

        Raises ``Unauthorized`` for no or bad credentials, the same for all causes; ``Forbidden`` for good ones that allow
        nothing anywhere; ``Unavailable`` where it cannot be said now.
        """
        ...

    async def renew(self, token: str) -> Identity:
        """Whom a token names that came over a connection which is open already. Raises as ``identify`` does.

        Whether it is the same user as before is the caller's to see.
        """
        ...


class TrustAuthenticator:
    """The guide's way: the name in the query, else in ``Authorization: Bearer``, else in the cookie (PROTOCOL section 1)."""

    async def identify(self, credentials: Credentials) -> Identity:
        for name in (credentials.query_user_id, credentials.bearer, credentials.subprotocol_token, credentials.cookie_user_id):
            if name is not None:
                return self._believe(name)
        raise Unauthorized("say who you are: userId in the query, Authorization: Bearer, or cookie userId")

    async def renew(self, token: str) -> Identity:
        return self._believe(token)

    def _believe(self, name: str) -> Identity:
        if not is_valid_id(name):
            raise Unauthorized("userId must be 1 to 128 printable characters")
        return Identity(name, {EVERYWHERE: "admin"})
