"""What every door asks before it opens: is this our Host, is that Origin welcome, who is it (PROTOCOL section 1)."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from tornado.httputil import HTTPServerRequest

from tornado_rt.auth import Authenticator, Credentials
from tornado_rt.errors import InvalidMessage
from tornado_rt.protocol.messages import is_valid_id

__all__ = ["LOOPBACK_HOSTS", "Gate", "credentials_of", "query_id", "query_seq"]

LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Gate:
    """Plain values from the settings.

    ``allowed_hosts`` are names without a port, ``*`` for any, ``*.example.com`` for all below; ``allowed_origins`` are scheme,
    host and port as browsers send them, ``*`` for any.
    """

    authenticator: Authenticator
    allowed_hosts: frozenset[str] = LOOPBACK_HOSTS
    allowed_origins: frozenset[str] = frozenset()
    public_url: str | None = None
    demo: bool = True
    open_stats: bool = True

    def knows_host(self, host: str) -> bool:
        name = host_name(host)
        if name in self.allowed_hosts or "*" in self.allowed_hosts:
            return True
        return any(pattern.startswith("*.") and name.endswith(pattern[1:]) for pattern in self.allowed_hosts)

    def welcomes_origin(self, origin: str, host: str) -> bool:
        """The page's own server is welcome, since its Host is known; others as they are listed."""
        if origin in self.allowed_origins or "*" in self.allowed_origins:
            return True
        return urlsplit(origin).netloc.lower() == host.lower() and origin != "null"

    def websocket_url(self, request: HTTPServerRequest) -> str:
        """Where this server's socket is to be reached, as the one who asks should call it."""
        if self.public_url:
            return self.public_url
        return f"{'wss' if request.protocol == 'https' else 'ws'}://{request.host}/api/realtime"


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
