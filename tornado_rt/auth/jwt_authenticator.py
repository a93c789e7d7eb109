"""The mode ``jwt``: an identity is what a signed token says, and everything else is refused in the same words.

PROTOCOL section 1; RFC 7519, RFC 8725. The causes are counted for the operator, and told to nobody who knocks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

import jwt
from jwt.api_jws import PyJWS

from tornado_rt.auth.authenticator import Credentials
from tornado_rt.auth.claims import MAX_LIFE_SECONDS, Demands, identity_of
from tornado_rt.auth.compact import MAX_TOKEN_BYTES, BadToken, Cause, read_header, read_object
from tornado_rt.auth.identity import Identity
from tornado_rt.auth.keys import ALGORITHMS, KeySet
from tornado_rt.errors import Forbidden, Unauthorized

__all__ = ["REFUSAL", "JwtAuthenticator"]

log = logging.getLogger(__name__)

REFUSAL: Final = (
    "a valid token is needed: Authorization: Bearer, token in the query, subprotocols bearer and token, or cookie token"
)
NO_ROLE: Final = "the token has no claim dashboards, and RT_JWT_DEFAULT_ROLE gives such tokens no role"


class JwtAuthenticator:
    """``clock`` is the wall clock, in seconds since 1970. Raises ``ValueError`` for algorithms that are none.

    ``failures`` counts refused tokens by cause. No token is good for longer than ``max_life_seconds``, leeway included.
    """

    def __init__(
        self,
        keys: KeySet,
        *,
        algorithms: Iterable[str],
        clock: Callable[[], float],
        audience: str | None = None,
        issuer: str | None = None,
        default_role: str | None = None,
        leeway_seconds: float = 10.0,
        max_life_seconds: float = MAX_LIFE_SECONDS,
        max_token_bytes: int = MAX_TOKEN_BYTES,
    ) -> None:
        self.failures: dict[str, int] = dict.fromkeys(Cause, 0)
        self.max_life_seconds = max_life_seconds + leeway_seconds
        self._demands = Demands(audience, issuer, default_role, leeway_seconds, max_life_seconds)
        self._keys = keys
        self._algorithms = frozenset(algorithms)
        self._clock = clock
        self._max_token_bytes = max_token_bytes
        if not self._algorithms or not self._algorithms <= ALGORITHMS.keys():
            raise ValueError(f"algorithms must be some of {', '.join(ALGORITHMS)}")
        self._jws = PyJWS(sorted(self._algorithms), {"verify_signature": True, "enforce_minimum_key_length": True})

    async def identify(self, credentials: Credentials) -> Identity:
        """The first token that is there counts; what a page says itself comes before the cookie, which is sent unasked."""
        places = (credentials.query_token, credentials.bearer, credentials.subprotocol_token, credentials.cookie_token)
        token = next((token for token in places if token is not None), None)
        return await self._judge(token, credentials.query_user_id)

    async def renew(self, token: str) -> Identity:
        return await self._judge(token, None)

    async def _judge(self, token: str | None, asked_user_id: str | None) -> Identity:
        try:
            if token is None:
                raise BadToken(Cause.MISSING)
            claims = await self._verify(token)
            return identity_of(claims, self._demands, self._clock(), asked_user_id)
        except BadToken as fault:
            self.failures[fault.cause] += 1
            log.debug("token refused: %s", fault.cause)
            if fault.cause is Cause.NO_ROLE:
                raise Forbidden(NO_ROLE) from None
            raise Unauthorized(REFUSAL) from None

    async def _verify(self, token: str) -> dict[str, Any]:
        """The claims of a token that one of our keys has signed. Raises ``BadToken``, and what ``KeySet.find`` raises."""
        algorithm, key_id = read_header(token, self._max_token_bytes)
        if algorithm not in self._algorithms:
            raise BadToken(Cause.ALGORITHM)
        keys = await self._keys.find(algorithm, key_id)
        if not keys:
            raise BadToken(Cause.UNKNOWN_KEY)
        for key in keys:
            try:
                signed = self._jws.decode_complete(token, key.material, algorithms=[algorithm])
            except jwt.PyJWTError:
                continue
            return read_object(signed["payload"])
        raise BadToken(Cause.SIGNATURE)
