"""What every door asks before it opens: is this our Host, is that Origin welcome, who is it (PROTOCOL section 1)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from tornado.httputil import HTTPServerRequest

from tornado_rt.auth import EVERYWHERE, Authenticator, Credentials, Identity
from tornado_rt.errors import InvalidMessage
from tornado_rt.protocol.messages import is_valid_id

__all__ = ["LOOPBACK_HOSTS", "Authorize", "Gate", "credentials_of", "query_id", "query_seq"]

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})

Authorize = Callable[[Identity, str, str], bool | Awaitable[bool]]
"""An application's own rule: ``authorize(identity, dashboard_id, action)``, a function or a coroutine function, with ``action``
one of ``read``, ``write`` and ``admin``, and ``dashboard_id`` ``*`` where it is about the whole server."""


@dataclass(frozen=True, slots=True)
class Gate:
    """Plain values from the settings.

    ``allowed_hosts`` are names without a port, ``*`` for any, ``*.example.com`` for all below; ``allowed_origins`` are scheme,
    host and port as browsers send them, ``*`` for any. ``authorize`` may take away what the identity's roles give, and never
    adds to it.
    """

    authenticator: Authenticator
    allowed_hosts: frozenset[str] = LOOPBACK_HOSTS
    allowed_origins: frozenset[str] = frozenset()
    public_url: str | None = None
    demo: bool = True
    open_stats: bool = True
    authorize: Authorize | None = None
    trusted_proxies: int = 0

    def address_of(self, request: HTTPServerRequest) -> str:
        """Where a request comes from: the peer, or what the outermost of the trusted proxies saw.

        Each proxy appends whom it was called by to ``X-Forwarded-For``; whatever stands before that anybody may have written.
        """
        if self.trusted_proxies:
            seen = [entry.strip() for line in request.headers.get_list("X-Forwarded-For") for entry in line.split(",")]
            if len(seen) >= self.trusted_proxies and seen[-self.trusted_proxies]:
                return seen[-self.trusted_proxies][:64]
        return request.remote_ip or ""

    def is_secure(self, request: HTTPServerRequest) -> bool:
        """Did the client come by TLS?"""
        if self.trusted_proxies and "X-Forwarded-Proto" in request.headers:
            return request.headers["X-Forwarded-Proto"].rpartition(",")[2].strip().lower() == "https"
        return request.protocol == "https"

    async def renew(self, token: str, dashboard_id: str) -> tuple[Identity, tuple[str, ...]]:
        """Who brings a fresh token, and what it may do on a dashboard. Raises ``ClientFault``."""
        identity = await self.authenticator.renew(token)
        return identity, await self.permissions(identity, dashboard_id)

    async def identify(self, request: HTTPServerRequest) -> Identity:
        """Who sends a request. Raises as ``Authenticator.identify`` does."""
        credentials = credentials_of(request)
        if not self.trusts_cookies_of(request):
            credentials = replace(credentials, cookie_token=None)
            if "Origin" in request.headers:  # a page, let in by ``*``; the guide's curl has none
                credentials = replace(credentials, cookie_user_id=None)
        return await self.authenticator.identify(credentials)

    async def permissions(self, identity: Identity, dashboard_id: str) -> tuple[str, ...]:
        """What of ``read``, ``write`` and ``admin`` somebody may do on a dashboard; empty: not even know whether it exists."""
        given = identity.permissions_on(dashboard_id)
        allowed = tuple([action for action in given if await self._allows(identity, dashboard_id, action)])
        return allowed if "read" in allowed else ()

    async def may_administer(self, identity: Identity) -> bool:
        """Whether somebody is an admin of the whole server: statistics, revocation."""
        return identity.is_admin and await self._allows(identity, EVERYWHERE, "admin")

    async def _allows(self, identity: Identity, dashboard_id: str, action: str) -> bool:
        if self.authorize is None:
            return True
        answer = self.authorize(identity, dashboard_id, action)
        return bool(await answer if inspect.isawaitable(answer) else answer)

    def trusts_cookies_of(self, request: HTTPServerRequest) -> bool:
        """Whether a page that we know sends this, not a foreign one that has the browser add our cookies (CSRF).

        Only an Origin header says so, and ``*`` in ``allowed_origins`` makes no page known.
        """
        origin = request.headers.get("Origin")
        return origin is not None and (origin in self.allowed_origins or is_same_origin(origin, request.host))

    def knows_host(self, host: str) -> bool:
        name = host_name(host)
        if name in self.allowed_hosts or "*" in self.allowed_hosts:
            return True
        return any(pattern.startswith("*.") and name.endswith(pattern[1:]) for pattern in self.allowed_hosts)

    def welcomes_origin(self, origin: str, host: str) -> bool:
        """The page's own server is welcome, since its Host is known; others as they are listed."""
        if origin in self.allowed_origins or "*" in self.allowed_origins:
            return True
        return is_same_origin(origin, host)

    def websocket_url(self, request: HTTPServerRequest) -> str:
        """Where this server's socket is to be reached, as the one who asks should call it."""
        if self.public_url:
            return self.public_url
        return f"{'wss' if self.is_secure(request) else 'ws'}://{request.host}/api/realtime"


def is_same_origin(origin: str, host: str) -> bool:
    """Whether a page was served under the name that it now asks."""
    scheme, separator, authority = origin.partition("://")  # RFC 6454 section 6.2; nothing else is an origin
    return bool(separator) and scheme.isalpha() and authority.lower() == host.lower() != ""


def host_name(host: str) -> str:
    """A Host header without its port, in lower case."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def credentials_of(request: HTTPServerRequest) -> Credentials:
    """Everything in a request that may say who sends it."""
    headers = request.headers
    scheme, _, value = headers.get("Authorization", "").partition(" ")
    offered = [name.strip() for name in headers.get("Sec-WebSocket-Protocol", "").split(",")]
    token = offered[1] if len(offered) == 2 and offered[0] == "bearer" else None
    cookies = request.cookies if "Cookie" in headers else {}
    return Credentials(
        query_user_id=_argument(request, "userId"),
        query_token=_argument(request, "token"),
        bearer=value.strip() if scheme.lower() == "bearer" and value.strip() else None,
        subprotocol_token=token,
        cookie_user_id=cookies["userId"].value if "userId" in cookies else None,
        cookie_token=cookies["token"].value if "token" in cookies else None,
    )


def query_id(request: HTTPServerRequest, name: str) -> str | None:
    """A query argument that must be an id, or absent. Raises ``InvalidMessage`` with its name."""
    value = _argument(request, name)
    if value is not None and not is_valid_id(value):
        raise InvalidMessage(f"{name} must be 1 to 128 printable characters", details=((name, "is not an id"),))
    return value


def query_seq(request: HTTPServerRequest, name: str) -> int | None:
    """A query argument that must be a seq, or absent. Raises ``InvalidMessage`` with its name."""
    value = _argument(request, name)
    if value is None:
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 16:
        raise InvalidMessage(f"{name} must be a whole number from 0 on", details=((name, "is not a seq"),))
    return int(value)


def _argument(request: HTTPServerRequest, name: str) -> str | None:
    values = request.query_arguments.get(name)
    if not values:
        return None
    try:
        return values[-1].decode()
    except UnicodeDecodeError:
        return ""  # nobody's name; put right, it could be somebody's
