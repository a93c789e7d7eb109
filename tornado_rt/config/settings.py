"""Every setting of the server: its names, default, unit and meaning, and what makes a value wrong.

Knows words and shapes only: where values come from is ``loading``'s; whether a store opens or a port is free, others find out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, ValidationInfo, field_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

__all__ = ["LOOPBACK_HOSTS", "Settings", "is_address"]

LOOPBACK_HOSTS: Final = ("localhost", "127.0.0.1", "[::1]")
SOCKET_PATH: Final = "/api/realtime"
SECRET_ALGORITHMS: Final = frozenset({"HS256", "HS384", "HS512"})
KEY_ALGORITHMS: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"})
MIN_SECRET_BYTES: Final = 32  # RFC 7518 section 3.2: a key is at least as long as the hash of HS256
MIN_SECRET_VARIETY: Final = 8  # different characters; random ones of that length, even hexadecimal, have more

Names = Annotated[tuple[str, ...], NoDecode]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _setting(
    names: str,
    default: object | Callable[[dict[str, Any]], object],
    *,
    text: str,
    unit: str = "",
    shown: str = "",
    group: str = "",
    **checks: Any,
) -> Any:
    """A field with its environment names (the first counts before the others) and the words that the documents are made of."""
    if callable(default):
        checks["default_factory"] = default
    else:
        checks["default"] = default
    about: JsonDict = {"unit": unit, "shown_default": shown, "group": group}
    return Field(validation_alias=AliasChoices(*names.split()), description=text, json_schema_extra=about, **checks)


def _in_production(data: Mapping[str, Any]) -> bool:
    return data.get("env") == "production"


class Settings(BaseSettings):
    """What the process was told. Frozen; made by ``load_settings`` alone, or directly with attribute names in tests.

    Attributes bear their unit in the name where they have one. A limit of 0 is off.
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, case_sensitive=True, validate_default=True
    )

    # --- where it runs
    env: Literal["development", "production", "test"] = _setting(
        "RT_ENV NODE_ENV",
        "development",
        shown="`development`; `production` where `DYNO` is set",
        group="Where it runs",
        text="`development`, `production` or `test`. Production binds all addresses, wants real authentication and known "
        "host names, and hides the demo page.",
    )
    port: int = _setting("PORT", 3000, shown="`3000`", ge=0, le=65535, text="Port to listen on; 0 takes a free one.")
    host: str = _setting(
        "HOST HOSTNAME",
        lambda data: "0.0.0.0" if _in_production(data) else "127.0.0.1",
        shown="`127.0.0.1`; in production `0.0.0.0`",
        text="Address to bind. `HOSTNAME` counts only if it is `localhost` or an address, because platforms set it to the "
        "name of the machine.",
    )
    public_url: str | None = _setting(
        "RT_PUBLIC_URL NEXT_PUBLIC_WS_URL",
        None,
        shown="taken from the request",
        text="The WebSocket address that clients are told, such as `wss://dash.example.com/api/realtime`.",
    )
    allowed_origins: Names = _setting(
        "RT_ALLOWED_ORIGINS",
        (),
        shown="the server's own origin",
        text="Comma-separated origins of web pages that may connect, such as `https://app.example.com`; `*` for any.",
    )
    allowed_hosts: Names = _setting(
        "RT_ALLOWED_HOSTS",
        (),
        shown="loopback, a bound address and the host of `RT_PUBLIC_URL`",
        text="Comma-separated host names under which the server may be called, `*.example.com` for all below; others get 421. "
        "In production this setting or `RT_PUBLIC_URL` must be given.",
    )
    trusted_proxies: Count = _setting(
        "RT_TRUSTED_PROXIES",
        0,
        unit="proxies",
        shown="0; 1 where `DYNO` is set",
        text="How many proxies in front of the server append to `X-Forwarded-For`. 0 ignores that header.",
    )
    shutdown_grace_seconds: Amount = _setting(
        "RT_SHUTDOWN_GRACE", 10.0, unit="s", text="Time to answer what is in flight and part from clients after SIGTERM."
    )

    # --- what it keeps
    store: str = _setting(
        "RT_STORE REDIS_URL",
        "sqlite:///tornado_rt.db",
        repr=False,
        group="What it keeps",
        text="Where operations are kept: `sqlite:///relative/path`, `sqlite:////absolute/path`, `memory://` (lost at the end "
        "of the process), `redis://...` or `rediss://...`.",
    )
    redis_wait_replicas: Count = _setting(
        "RT_REDIS_WAIT_REPLICAS", 0, unit="replicas", text="Redis replicas that must have a write before it is acknowledged."
    )
    redis_tls_verify: Literal["full", "ca", "none"] = _setting(
        "RT_REDIS_TLS_VERIFY",
        "full",
        text="What is checked of a `rediss://` server's certificate: `full` (name and authority), `ca` (authority), `none`.",
    )
    max_widgets: Count = _setting("RT_MAX_WIDGETS", 1_000, unit="widgets", text="Widgets of one dashboard.")
    max_layouts: Count = _setting("RT_MAX_LAYOUTS", 20, unit="layouts", text="Layouts of one dashboard.")
    layout_history: Count = _setting(
        "RT_LAYOUT_HISTORY", 50, unit="versions", text="Older versions of a layout that can be restored; with 0 none is kept."
    )
    max_fields: Count = _setting("RT_MAX_FIELDS", 500, unit="fields", text="Fields of one document.")
    max_document_bytes: Count = _setting("RT_MAX_DOCUMENT_BYTES", 65_536, unit="bytes", text="Size of one document.")
    max_dashboard_bytes: Count = _setting(
        "RT_MAX_DASHBOARD_BYTES", 4 * 1024 * 1024, unit="bytes", text="Size of all documents of one dashboard together."
    )
    conflict_detection: bool = _setting(
        "RT_CONFLICT_DETECTION", True, text="Whether edits that were made on an outdated picture are refused as conflicts."
    )
    conflict_strategy: Literal["manual", "remote-wins", "local-wins"] = _setting(
        "RT_CONFLICT_STRATEGY",
        "manual",
        text="Who decides a conflict: the person (`manual`), or always what stands on the server (`remote-wins`) or what was "
        "sent (`local-wins`).",
    )

    # --- who may come in
    auth: Literal["trust", "jwt"] = _setting(
        "RT_AUTH",
        "trust",
        group="Who may come in",
        text="`trust` believes whatever user id a client names: for development only. `jwt` wants a signed token.",
    )
    jwt_secret: SecretStr | None = _setting(
        "RT_JWT_SECRET", None, text="Shared secret of tokens signed with HS256, HS384 or HS512; at least 32 bytes."
    )
    jwt_public_key: str | None = _setting("RT_JWT_PUBLIC_KEY", None, repr=False, text="Public key (PEM) of signed tokens.")
    jwks_url: str | None = _setting("RT_JWKS_URL", None, text="Address of the key set of the tokens' issuer.")
    jwt_algorithms: Names = _setting(
        "RT_JWT_ALGORITHMS",
        (),
        shown="`HS256` with a secret, else `RS256`",
        text="Comma-separated signature algorithms that are accepted; of one family, unless the keys come from `RT_JWKS_URL`.",
    )
    jwt_audience: str | None = _setting("RT_JWT_AUDIENCE", None, text="Audience (`aud`) that a token must name.")
    jwt_issuer: str | None = _setting("RT_JWT_ISSUER", None, text="Issuer (`iss`) that a token must name.")
    jwt_default_role: Literal["none", "viewer", "editor", "admin"] = _setting(
        "RT_JWT_DEFAULT_ROLE", "none", text="Role on every dashboard of a token without the claim `dashboards`."
    )
    allow_insecure_auth: bool = _setting(
        "RT_ALLOW_INSECURE_AUTH", False, text="Lets `trust` be used in production all the same."
    )
    metrics_token: SecretStr | None = _setting(
        "RT_METRICS_TOKEN", None, text="Bearer token that opens `/metrics` on the public port."
    )
    metrics_port: int | None = _setting(
        "RT_METRICS_PORT",
        None,
        ge=1,
        le=65535,
        text="A port of its own for `/metrics`. Without it and without a token, "
        "`/metrics` answers loopback in development alone.",
    )

    # --- how much it takes
    max_connections: Count = _setting(
        "RT_MAX_CONNECTIONS", 20_000, unit="connections", group="How much it takes", text="Connections of the process."
    )
    max_connections_per_user: Count = _setting(
        "RT_MAX_CONNECTIONS_PER_USER", 50, unit="connections", text="Connections of one user."
    )
    max_connections_per_ip: Count = _setting(
        "RT_MAX_CONNECTIONS_PER_IP", 0, unit="connections", text="Connections of one address, of IPv6 of one /64 network."
    )
    handshake_rate_per_second: Amount = _setting(
        "RT_HANDSHAKE_RATE",
        0.0,
        unit="handshakes/s",
        text="WebSocket handshakes of one address, good or bad. Behind a proxy it wants `RT_TRUSTED_PROXIES`.",
    )
    rate_limit_per_second: Amount = _setting("RT_RATE_LIMIT", 50.0, unit="messages/s", text="Messages of one connection.")
    rate_burst: Count = _setting("RT_RATE_BURST", 100, unit="messages", text="Messages that may come at once.")
    user_rate_limit_per_second: Amount = _setting(
        "RT_USER_RATE_LIMIT", 200.0, unit="messages/s", text="Messages of one user over all connections and POSTs."
    )
    max_message_bytes: Count = _setting("RT_MAX_MESSAGE_BYTES", 262_144, unit="bytes", text="Size of one message.")
    accept_rate_per_second: Amount = _setting(
        "RT_ACCEPT_RATE", 500.0, unit="connections/s", text="Rate at which clients are told to come back after a restart."
    )
    slow_consumer_timeout_seconds: Amount = _setting(
        "RT_SLOW_CONSUMER_TIMEOUT",
        30.0,
        unit="s",
        text="How long a client may take nothing from its socket before it is cut off.",
    )
    heartbeat_interval_seconds: Amount = _setting(
        "RT_HEARTBEAT_INTERVAL", 25.0, unit="s", text="Time between two heartbeats; keep it below the idle limit of your proxy."
    )
    heartbeat_timeout_seconds: Amount = _setting(
        "RT_HEARTBEAT_TIMEOUT", 60.0, unit="s", text="Silence after which a client is taken for gone."
    )

    # --- what it shows
    demo: bool = _setting(
        "RT_DEMO",
        lambda data: not _in_production(data),
        shown="on; in production off",
        group="What it shows",
        text="Whether `/` serves the live demo dashboard.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "RT_LOG_LEVEL", "info", text="`debug`, `info`, `warning` or `error`."
    )
    log_format: Literal["auto", "text", "json"] = _setting(
        "RT_LOG_FORMAT", "auto", text="`text`, `json`, or `auto`: text in a terminal, else JSON."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is handed in: the environment is read in one place, ``load_settings``, and never behind anyone's back."""
        return (init_settings,)

    @field_validator("allowed_origins", "allowed_hosts", "jwt_algorithms", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("public_url")
    @classmethod
    def _complete_public_url(cls, value: str | None) -> str | None:
        """``https://host`` is enough: the scheme becomes a WebSocket's, the path the server's own."""
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
            raise _wrong("it must be an address such as wss://dash.example.com/api/realtime")
        scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
        return parts._replace(scheme=scheme, path=parts.path.rstrip("/") or SOCKET_PATH).geturl()

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """As a browser writes them (RFC 6454 section 6.2): scheme and host in lower case, no path."""
        origins = tuple(origin.lower().rstrip("/") for origin in value)
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+", origin):
                raise _wrong(f"{origin!r} is not an origin such as https://app.example.com")
        return origins

    @field_validator("allowed_hosts")
    @classmethod
    def _complete_hosts(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """As in a Host header, less the port, in lower case; the public address is always one of them."""
        hosts = [_host_name(host) for host in value]
        public_url, bound = info.data.get("public_url"), info.data.get("host", "")
        if not hosts:
            if _in_production(info.data) and public_url is None and "public_url" in info.data:
                raise _sentence(
                    "in production the host names must be known: set RT_ALLOWED_HOSTS=dash.example.com "
                    "or RT_PUBLIC_URL=wss://dash.example.com/api/realtime"
                )
            is_one_address = is_address(bound) and not ipaddress.ip_address(bound).is_unspecified
            hosts = [*LOOPBACK_HOSTS, *([_host_name(bound)] if is_one_address else [])]
        if public_url is not None:
            hosts.append(_host_name(urlsplit(public_url).hostname or ""))
        return tuple(dict.fromkeys(hosts))

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: str) -> str:
        if value == "memory://":
            return value
        kind, _, rest = value.partition("://")
        if (kind == "sqlite" and rest.startswith("/") and rest != "/") or (kind in ("redis", "rediss") and rest):
            return value
        raise _wrong("it must be memory://, sqlite:///relative/path, sqlite:////absolute/path, redis://... or rediss://...")

    @field_validator("jwt_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise _wrong(f"it must be at least {MIN_SECRET_BYTES} bytes long")
        if value is not None and _in_production(info.data) and len(set(value.get_secret_value())) < MIN_SECRET_VARIETY:
            raise _wrong("it repeats itself and could be guessed; make one with: openssl rand -base64 48")
        return value

    @field_validator("jwks_url")
    @classmethod
    def _check_keys(cls, value: str | None, info: ValidationInfo) -> str | None:
        """The last of the three places where a key may come from: in jwt mode exactly one is given."""
        if value is not None and not re.match(r"https?://[^/\s]", value):
            raise _wrong("it must be an address such as https://login.example.com/.well-known/jwks.json")
        if value is not None and _in_production(info.data) and not _is_safe_way(value):
            raise _wrong("in production it must begin with https://, or whoever stands between could put in keys of his own")
        if {"auth", "jwt_secret", "jwt_public_key"} <= info.data.keys() and info.data["auth"] == "jwt":
            given = sum(key is not None for key in (info.data["jwt_secret"], info.data["jwt_public_key"], value))
            if given != 1:
                raise _sentence(
                    "RT_AUTH=jwt needs one of RT_JWT_SECRET, RT_JWT_PUBLIC_KEY and RT_JWKS_URL; "
                    + ("none is set" if given == 0 else f"{given} are set")
                )
        return value

    @field_validator("jwt_algorithms")
    @classmethod
    def _check_algorithms(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """One family for each key: a public key taken for a shared secret is the classic forgery (RFC 8725 section 2.1)."""
        secret = info.data.get("jwt_secret") is not None
        allowed = SECRET_ALGORITHMS if secret else KEY_ALGORITHMS
        for algorithm in value:
            if algorithm not in allowed:
                raise _wrong(f"with a {'secret' if secret else 'public key'} it may name {', '.join(sorted(allowed))}")
        return value or (("HS256",) if secret else ("RS256",))

    @field_validator("allow_insecure_auth")
    @classmethod
    def _check_trust(cls, value: bool, info: ValidationInfo) -> bool:
        if _in_production(info.data) and info.data.get("auth") == "trust" and not value:
            raise _sentence(
                "RT_AUTH is 'trust', which believes whatever user id a client names, and is refused in production: "
                "set RT_AUTH=jwt, or RT_ALLOW_INSECURE_AUTH=1 if something in front of the server checks who comes in"
            )
        return value

    @field_validator("metrics_port")
    @classmethod
    def _check_metrics_port(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value == info.data.get("port"):
            raise _wrong("it must differ from PORT")
        return value

    @field_validator("rate_burst")
    @classmethod
    def _check_burst(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("rate_limit_per_second", 0) > 0:
            raise _wrong("it must be at least 1 while RT_RATE_LIMIT is on")
        return value

    @field_validator("heartbeat_timeout_seconds")
    @classmethod
    def _check_heartbeat(cls, value: float, info: ValidationInfo) -> float:
        if 0 < value <= info.data.get("heartbeat_interval_seconds", 0):
            raise _wrong("it must be longer than RT_HEARTBEAT_INTERVAL")
        return value

    @property
    def sqlite_path(self) -> Path | None:
        """The file of a ``sqlite://`` store; None for any other kind."""
        return Path(self.store.removeprefix("sqlite:///")) if self.store.startswith("sqlite:///") else None


def is_address(text: str) -> bool:
    """Whether this is an IPv4 or IPv6 address, and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_safe_way(url: str) -> bool:
    """Whether nobody between us and that address can change what it answers: TLS, or this machine itself."""
    parts = urlsplit(url)
    return parts.scheme == "https" or parts.hostname in ("localhost", "127.0.0.1", "::1")


def _host_name(text: str) -> str:
    host = text.lower()
    if is_address(host):
        return f"[{host}]" if ":" in host else host
    name = re.fullmatch(r"(\[[0-9a-f:.]+\]|\*|(?:\*\.)?[^\[\]:/?#@*\s]+)(?::\d+)?", host)
    if name is None:
        raise _wrong(f"{text!r} is not a host name such as dash.example.com or *.example.com")
    return name[1]


def _wrong(text: str) -> PydanticCustomError:
    """A mistake whose sentence begins with the setting's name and value."""
    return PydanticCustomError("wrong", "{text}", {"text": text})


def _sentence(text: str) -> PydanticCustomError:
    """A mistake that is a whole sentence, because it is about several settings."""
    return PydanticCustomError("sentence", "{text}", {"text": text})
