"""What the claims of a token mean, once its signature is found good (RFC 7519 section 4.1, PROTOCOL section 1).

The clock is handed in. A claim that is there and malformed is never passed over: it may have been meant to narrow something.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tornado_rt.auth.compact import BadToken, Cause
from tornado_rt.auth.identity import EVERYWHERE, ROLES, Identity
from tornado_rt.protocol.messages import is_valid_id

__all__ = ["MAX_LIFE_SECONDS", "Demands", "identity_of"]

MAX_LIFE_SECONDS: Final = 30 * 86_400.0  # and so a revocation has to be kept no longer


@dataclass(frozen=True, slots=True)
class Demands:
    """What a token must say. ``default_role`` is for tokens without the claim ``dashboards``; None refuses them."""

    audience: str | None = None
    issuer: str | None = None
    default_role: str | None = None
    leeway_seconds: float = 10.0
    max_life_seconds: float = MAX_LIFE_SECONDS


def identity_of(claims: Mapping[str, Any], demands: Demands, now: float, asked_user_id: str | None = None) -> Identity:
    """Whom the claims name, and what that user may do. ``now`` is in seconds since 1970.

    ``asked_user_id`` is a user id that came beside the token and must be the same. Raises ``BadToken``.
    """
    user_id = claims.get("sub")
    if not isinstance(user_id, str) or not is_valid_id(user_id):
        raise BadToken(Cause.SUBJECT)
    expires_at = _check_times(claims, demands, now)
    _check_parties(claims, demands)
    token_id = claims.get("jti")
    if "jti" in claims and not is_valid_id(token_id):
        raise BadToken(Cause.TOKEN_ID)
    if asked_user_id not in (None, user_id):
        raise BadToken(Cause.OTHER_USER)
    return Identity(user_id, _roles_of(claims, demands.default_role), expires_at, token_id, _seconds(claims, "iat"))


def _check_times(claims: Mapping[str, Any], demands: Demands, now: float) -> float:
    """When the token's last second is over, leeway included."""
    ends, begins, issued = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
    leeway = demands.leeway_seconds
    if ends is None:
        raise BadToken(Cause.TIMES)
    if ends + leeway <= now:
        raise BadToken(Cause.EXPIRED)
    # From when it was issued, where it says so: else one for a year would be refused for eleven months, and then be good.
    if ends - min(now, now if issued is None else issued) > demands.max_life_seconds:
        raise BadToken(Cause.LIFE)
    if any(time is not None and time > now + leeway for time in (begins, issued)):
        raise BadToken(Cause.NOT_YET_VALID)
    return ends + leeway


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), None where there is none. JSON has no bounds for it: ``1e400``, 400 digits."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadToken(Cause.TIMES)
    try:
        seconds = float(value)
    except OverflowError:
        raise BadToken(Cause.TIMES) from None
    if not math.isfinite(seconds):
        raise BadToken(Cause.TIMES)
    return seconds


def _check_parties(claims: Mapping[str, Any], demands: Demands) -> None:
    """``iss`` and ``aud`` as they were asked for. A token for somebody else is not for us, asked or not (section 4.1.3)."""
    if demands.issuer is not None and claims.get("iss") != demands.issuer:
        raise BadToken(Cause.ISSUER)
    audience = claims.get("aud", [])
    names = [audience] if isinstance(audience, str) else audience
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadToken(Cause.AUDIENCE)
    if demands.audience not in names if demands.audience is not None else names:
        raise BadToken(Cause.AUDIENCE)


def _roles_of(claims: Mapping[str, Any], default_role: str | None) -> Mapping[str, str]:
    """The claim ``dashboards``: ``{"sales": "editor", "ops-*": "viewer"}``."""
    if "dashboards" not in claims:
        if default_role is None:
            raise BadToken(Cause.NO_ROLE)
        return {EVERYWHERE: default_role}
    roles = claims["dashboards"]
    if not isinstance(roles, dict) or not all(is_valid_id(name) for name in roles):
        raise BadToken(Cause.DASHBOARDS)
    if not all(isinstance(role, str) and role in ROLES for role in roles.values()):
        raise BadToken(Cause.DASHBOARDS)
    return roles
