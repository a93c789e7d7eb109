"""``tornado-rt serve``: read the settings, say what will run, hand over to ``lifecycle``. Opens nothing itself."""

from __future__ import annotations

import argparse
import sys

from tornado_rt import __version__
from tornado_rt.cli.options import add_settings_options, read_settings, warn
from tornado_rt.config import Settings, mask_password
from tornado_rt.config.settings import is_address

__all__ = ["add_commands", "announcement"]

DURABILITY = {
    "sqlite": "an acknowledged change is on disk",
    "memory": "NOTHING IS KEPT when the process ends",
    "redis": "an acknowledged change is as safe as that Redis server keeps it",
    "rediss": "an acknowledged change is as safe as that Redis server keeps it",
}
SIGN_IN = {
    "trust": "trust: ANYONE WHO REACHES THIS PORT CAN BE ANY USER; for development only",
    "jwt": "signed tokens",
}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "serve",
        usage="tornado-rt serve [OPTION...]",
        help="run the server",
        description="Run the server until it is told to stop (Ctrl-C or SIGTERM). Every option is also a variable of the "
        "environment, named in brackets, and may stand in a file .env or .env.local; options win.",
    )
    add_settings_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until the end; returns the exit status."""
    import structlog

    from tornado_rt import lifecycle, log

    settings, warnings = read_settings(arguments)
    as_text = _speaks_text(settings)
    log.configure(settings.log_level, "text" if as_text else "json", secrets=_secrets(settings))
    if as_text:
        print(announcement(settings), flush=True)
        warn(warnings)
    else:
        logger = structlog.get_logger()
        logger.info("starting", version=__version__, store=mask_password(settings.store), auth=settings.auth, env=settings.env)
        for warning in warnings:
            logger.warning("setting_doubtful", text=warning)
    return lifecycle.serve(settings)


def announcement(settings: Settings) -> str:
    """What is about to run, for the person who started it: where, on what store, and who may come in."""
    kind = settings.store.partition(":")[0]
    lines = [f"tornado_rt {__version__}, {settings.env}"]
    if settings.port:
        authority = f"{_reachable(settings.host)}:{settings.port}"
        if settings.demo:
            lines.append(f"  open       http://{authority}")
        lines.append(f"  WebSocket  {settings.public_url or f'ws://{authority}/api/realtime'}")
    lines += [
        f"  store      {mask_password(settings.store)}: {DURABILITY[kind]}",
        f"  sign-in    {SIGN_IN[settings.auth]}",
        "  Ctrl-C ends it",
    ]
    return "\n".join(lines)


def _speaks_text(settings: Settings) -> bool:
    return settings.log_format == "text" or (settings.log_format == "auto" and sys.stderr.isatty())


def _reachable(host: str) -> str:
    """The bound address as one may type it: a wildcard is reached as localhost, IPv6 stands in brackets (RFC 3986)."""
    if host in ("0.0.0.0", "::", "127.0.0.1", "::1"):
        return "localhost"
    return f"[{host}]" if is_address(host) and ":" in host else host


def _secrets(settings: Settings) -> list[str]:
    hidden = [secret.get_secret_value() for secret in (settings.jwt_secret, settings.metrics_token) if secret is not None]
    credentials = settings.store.partition("://")[2].rpartition("@")[0]
    return [*hidden, *filter(None, [credentials.partition(":")[2]])]
