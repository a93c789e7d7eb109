"""The composition root: the only place where parts are made and joined, and where the clock and the ids come from."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tornado.web import Application

from tornado_rt.auth import (
    Authenticator,
    FixedKeySet,
    JwtAuthenticator,
    Key,
    KeySet,
    RemoteKeySet,
    TrustAuthenticator,
    issue_token,
    public_key,
    secret_key,
)
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.errors import StartFault
from tornado_rt.guard import Rates
from tornado_rt.handlers.base import NotFoundHandler
from tornado_rt.handlers.gate import LOOPBACK_HOSTS, Authorize, Gate
from tornado_rt.routes import routes
from tornado_rt.server import Options, RealtimeServer
from tornado_rt.session import isoformat
from tornado_rt.store.memory import MemoryStore
from tornado_rt.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from tornado_rt.config import Settings
    from tornado_rt.store.base import Store

__all__ = ["make_application", "make_gate", "make_server", "make_store", "new_epoch", "sqlite_path"]


def id_maker() -> Callable[[], str]:
    """Ids that are unique everywhere: some random letters of this process, and a number."""
    beginning = secrets.token_hex(5)
    count = itertools.count(1).__next__
    return lambda: f"{beginning}-{count()}"


def timestamp_maker(clock: Callable[[], float]) -> Callable[[], str]:
    """The time as the wire writes it. Only the milliseconds are formatted anew; the second changes once a second."""
    second, beginning = -1, ""

    def timestamp() -> str:
        nonlocal second, beginning
        now = clock()
        whole = int(now)
        if whole != second:
            second, beginning = whole, isoformat(whole)[:20]
        return f"{beginning}{int((now - whole) * 1000):03d}Z"

    return timestamp


def new_epoch() -> str:
    """A random name for a log that begins."""
    return secrets.token_hex(8)


def make_store(settings: Settings, on_fatal: Callable[[str], None]) -> Store:
    """The store that ``RT_STORE`` names. Raises ``StartFault`` for one that is not built in."""
    scheme = settings.store.partition(":")[0]
    if scheme == "memory":
        return MemoryStore(new_epoch(), time.time)
    if scheme == "sqlite":
        return SqliteStore(sqlite_path(settings), new_epoch, time.time, on_fatal=on_fatal)
    raise StartFault(f"RT_STORE={scheme}://... is not built yet: this version keeps dashboards in sqlite:/// or memory://")


def sqlite_path(settings: Settings) -> Path:
    """The file of a ``sqlite:///relative`` or ``sqlite:////absolute`` address."""
    return Path(settings.store.removeprefix("sqlite:///"))


def make_server(settings: Settings, on_fatal: Callable[[str], None]) -> RealtimeServer:
    """A server as the settings want it, not yet running."""
    limits = DashboardLimits(
        max_widgets=settings.max_widgets,
        max_layouts=settings.max_layouts,
        layout_history=settings.layout_history,
        max_fields=settings.max_fields,
        max_document_bytes=settings.max_document_bytes,
        max_dashboard_bytes=settings.max_dashboard_bytes,
        conflict_detection=settings.conflict_detection,
        conflict_strategy=settings.conflict_strategy,
    )
    options = Options(
        heartbeat_interval_seconds=settings.heartbeat_interval_seconds,
        heartbeat_timeout_seconds=settings.heartbeat_timeout_seconds,
        slow_consumer_timeout_seconds=settings.slow_consumer_timeout_seconds,
        accept_rate_per_second=settings.accept_rate_per_second,
        rates=Rates(
            messages_per_second=settings.rate_limit_per_second,
            burst=settings.rate_burst,
            user_messages_per_second=settings.user_rate_limit_per_second,
            handshakes_per_second=settings.handshake_rate_per_second,
            max_connections=settings.max_connections,
            max_connections_per_user=settings.max_connections_per_user,
            max_connections_per_address=settings.max_connections_per_ip,
        ),
        max_message_bytes=settings.max_message_bytes,
        limits=limits,
    )
    return RealtimeServer(
        make_store(settings, on_fatal),
        options,
        time=time.time,
        monotonic=time.monotonic,
        timestamp=timestamp_maker(time.time),
        new_id=id_maker(),
    )


def make_authenticator(settings: Settings) -> Authenticator:
    """Raises ``StartFault`` for a key that is of no use."""
    if settings.auth == "trust":
        return TrustAuthenticator()
    return JwtAuthenticator(
        make_key_set(settings),
        algorithms=settings.jwt_algorithms,
        clock=time.time,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        default_role=None if settings.jwt_default_role == "none" else settings.jwt_default_role,
    )


def make_key_set(settings: Settings) -> KeySet:
    """Where the keys of tokens are. Raises ``StartFault``."""
    algorithms = settings.jwt_algorithms
    if settings.jwks_url is not None:
        return RemoteKeySet(settings.jwks_url, algorithms, monotonic=time.monotonic)
    if settings.jwt_secret is not None:
        return FixedKeySet([make_secret_key(settings.jwt_secret.get_secret_value(), algorithms)])
    try:
        return FixedKeySet([public_key(settings.jwt_public_key or "", algorithms)])
    except ValueError as fault:
        raise StartFault(f"RT_JWT_PUBLIC_KEY cannot be used with RT_JWT_ALGORITHMS={','.join(algorithms)}: {fault}") from None


def make_secret_key(secret: str, algorithms: Sequence[str]) -> Key:
    """Raises ``StartFault``."""
    try:
        return secret_key(secret, algorithms)
    except ValueError as fault:
        raise StartFault(f"RT_JWT_SECRET cannot be used with RT_JWT_ALGORITHMS={','.join(algorithms)}: {fault}") from None


def make_token(settings: Settings, user_id: str, roles: Mapping[str, str], life_seconds: float) -> str:
    """A token that a server with these settings takes. Raises ``StartFault`` without a secret to sign it with."""
    if settings.jwt_secret is None:
        raise StartFault("RT_JWT_SECRET is not set, and tokens are signed with it; where an issuer signs them, ask that one")
    secret, algorithms = settings.jwt_secret.get_secret_value(), settings.jwt_algorithms
    make_secret_key(secret, algorithms)
    now = time.time()
    return issue_token(
        secret,
        algorithms[0],
        user_id=user_id,
        roles=roles,
        issued_at=now,
        expires_at=now + life_seconds,
        token_id=secrets.token_hex(8),
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
    )


def make_gate(settings: Settings, authorize: Authorize | None = None) -> Gate:
    """Who may knock at all, and by an application's own rule ``authorize`` do what."""
    hosts = set(LOOPBACK_HOSTS) | {host.lower() for host in settings.allowed_hosts}
    if settings.public_url:
        hosts.add((urlsplit(settings.public_url).hostname or "").lower())
    return Gate(
        authenticator=make_authenticator(settings),
        allowed_hosts=frozenset(hosts),
        allowed_origins=frozenset(origin.rstrip("/") for origin in settings.allowed_origins),
        public_url=settings.public_url,
        demo=settings.demo,
        trusted_proxies=settings.trusted_proxies,
        open_stats=settings.auth == "trust",
        authorize=authorize,
    )


def make_application(server: RealtimeServer, gate: Gate) -> Application:
    """Tornado's application around a server."""
    return Application(
        routes(server, gate),
        default_handler_class=NotFoundHandler,
        default_handler_args={"server": server, "gate": gate},
        log_function=lambda _: None,
        compiled_template_cache=True,
    )
