"""Makes tokens, signed with a shared secret: for trying things out, and for applications without an issuer of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt

__all__ = ["issue_token"]


def issue_token(
    secret: str,
    algorithm: str,
    *,
    user_id: str,
    roles: Mapping[str, str],
    issued_at: float,
    expires_at: float,
    token_id: str,
    audience: str | None = None,
    issuer: str | None = None,
) -> str:
    """A token as ``JwtAuthenticator`` takes it. Times are seconds since 1970; ``roles`` are an ``Identity``'s."""
    claims: dict[str, Any] = {
        "sub": user_id,
        "dashboards": dict(roles),
        "iat": int(issued_at),
        "exp": int(expires_at),
        "jti": token_id,
    }
    parties = {"aud": audience, "iss": issuer}
    claims |= {name: value for name, value in parties.items() if value is not None}
    return jwt.encode(claims, secret, algorithm)
