"""``tornado-rt token``: a signed token for trying out ``RT_AUTH=jwt``, alone on standard output. Its shape is ``auth``'s."""

from __future__ import annotations

import argparse
import re
from typing import Final

from tornado_rt.cli.options import add_settings_options, read_settings, warn
from tornado_rt.errors import StartFault
from tornado_rt.protocol.messages import is_valid_id

__all__ = ["add_commands", "parse_life"]

ROLES: Final = ("viewer", "editor", "admin")
TOKEN_SETTINGS: Final = frozenset({"jwt_secret", "jwt_algorithms", "jwt_audience", "jwt_issuer"})
UNIT_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "token",
        usage="tornado-rt token --user NAME [OPTION...]",
        help="make a signed token for trying out RT_AUTH=jwt",
        description="Print a token that a server with the same RT_JWT_SECRET takes, and nothing else. Whoever has it is that "
        "user until it ends.",
        epilog="Example: tornado-rt token --user anna --dashboard sales --dashboard 'ops-*' --role viewer --ttl 8h",
    )
    parser.add_argument("--user", required=True, metavar="NAME", help="whose token it is")
    parser.add_argument(
        "--dashboard",
        action="append",
        metavar="NAME",
        help="a dashboard, or a beginning that ends in * (* alone: all); may be repeated; default: the dashboard default",
    )
    parser.add_argument("--role", choices=ROLES, default="editor", help="what may be done there; default: %(default)s")
    parser.add_argument(
        "--ttl", default="1h", metavar="TIME", help="how long it is good: 90s, 15m, 8h, 7d; default: %(default)s"
    )
    add_settings_options(parser, only=TOKEN_SETTINGS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Make the token and print it. Raises ``StartFault`` for one that no server would take."""
    from tornado_rt.app import make_token
    from tornado_rt.auth import MAX_LIFE_SECONDS, MAX_TOKEN_BYTES

    settings, warnings = read_settings(arguments)
    warn(warnings)
    dashboards = arguments.dashboard or ["default"]
    for name in (arguments.user, *dashboards):
        if not is_valid_id(name):
            raise StartFault(f"{name!r} is no name: 1 to 128 printable characters.")
    life_seconds = parse_life(arguments.ttl)
    if not 0 < life_seconds <= MAX_LIFE_SECONDS:
        raise StartFault(
            f"--ttl {arguments.ttl}: a token is good for a second at least, and for {MAX_LIFE_SECONDS / 86_400:g} days at most."
        )
    token = make_token(settings, arguments.user, dict.fromkeys(dashboards, arguments.role), life_seconds)
    if len(token) > MAX_TOKEN_BYTES:
        raise StartFault(
            f"The token would have {len(token):,} bytes, and a server takes {MAX_TOKEN_BYTES:,} at most: name fewer dashboards."
        )
    if settings.auth != "jwt":
        warn([f"RT_AUTH is {settings.auth}: a server with these settings does not read tokens"])
    print(token)
    return 0


def parse_life(text: str) -> int:
    """``90s``, ``15m``, ``8h``, ``7d`` or a number of seconds, as seconds. Raises ``StartFault``."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None:
        raise StartFault(f"--ttl {text!r} is no time: write it as 90s, 15m, 8h or 7d.")
    return int(found[1]) * UNIT_SECONDS[found[2]]
