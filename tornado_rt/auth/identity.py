"""A user, and what it may do on which dashboard (PROTOCOL section 1). Knows roles and names, not tokens or requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

__all__ = ["EVERYWHERE", "ROLES", "Identity"]

EVERYWHERE: Final = "*"
ROLES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"viewer": ("read",), "editor": ("read", "write"), "admin": ("read", "write", "admin")}
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and what it may do.

    ``roles`` maps a dashboard's name, or a beginning that ends in ``*``, to a role. ``expires_at`` is when all of this ends, in
    seconds since 1970, None for never; a token's leeway is in it already. ``token_id`` (``jti``) and ``issued_at`` (``iat``,
    seconds since 1970) are what the token says of itself, for those who revoke it.
    """

    user_id: str
    roles: Mapping[str, str]
    expires_at: float | None = None
    token_id: str | None = None
    issued_at: float | None = None

    def role_on(self, dashboard_id: str) -> str | None:
        """The exact name counts before the longest beginning that fits."""
        if dashboard_id in self.roles and not dashboard_id.endswith("*"):
            return self.roles[dashboard_id]
        fitting = [name for name in self.roles if name.endswith("*") and dashboard_id.startswith(name[:-1])]
        return self.roles[max(fitting, key=len)] if fitting else None

    def permissions_on(self, dashboard_id: str) -> tuple[str, ...]:
        """What of ``read``, ``write`` and ``admin`` this identity may do on a dashboard; empty: not even know of it."""
        role = self.role_on(dashboard_id)
        return ROLES[role] if role is not None else ()

    @property
    def is_admin(self) -> bool:
        """Admin of the whole server (statistics, revocation), as against of some dashboards: the role stands on ``*``."""
        return self.roles.get(EVERYWHERE) == "admin"
