"""The command ``tornado-rt``: which subcommands there are, and how a fault becomes a sentence and an exit status.

Exit status: 0 done, 1 the server or the network said no, 2 wrong settings or arguments. What a subcommand does is its module's;
each loads what it needs when it runs, so that ``send`` is not as slow to begin as a server.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from tornado_rt import __version__
from tornado_rt.cli import check, demo_feed, files, send, serve, token, watch
from tornado_rt.errors import StartFault

__all__ = ["build_parser", "main", "parse"]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each subcommand's module adds its own part and names the function that runs it."""
    parser = argparse.ArgumentParser(prog="tornado-rt", description="Durable real-time dashboards over WebSocket and HTTP.")
    parser.add_argument("--version", action="version", version=f"tornado_rt {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (serve, check, files, send, watch, token, demo_feed):
        module.add_commands(commands)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line. Options may also stand between positional words, which argparse takes in one run alone."""
    parser = build_parser()
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        if "fields" not in arguments or any(word.startswith("-") for word in rest):
            parser.error(f"what is {' '.join(rest)}?")
        arguments.fields += rest
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; ``argv`` is the process's own arguments unless given."""
    arguments = parse(argv)
    try:
        return int(arguments.run(arguments))
    except StartFault as fault:
        print(f"tornado-rt: {fault}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
