"""How the terminal client reaches a server: address, name, patience. Shared by ``send`` and ``watch``."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING

from tornado_rt.config import load_settings
from tornado_rt.errors import RealtimeError, StartFault

if TYPE_CHECKING:
    from tornado_rt.client import RealtimeClient

__all__ = ["add_connection_options", "client_of", "run_client"]


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", help="the server; default: the one that the settings here would start")
    parser.add_argument("--dashboard-id", default="default", metavar="NAME", help="default: %(default)s")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--user-id", metavar="NAME", help="who you are, where the server trusts it; default: your login name")
    who.add_argument("--token", help="a signed token, where the server wants one")
    parser.add_argument(
        "--timeout", type=float, default=10.0, metavar="SECONDS", help="how long to wait for the server; default: %(default)g"
    )


def client_of(arguments: argparse.Namespace) -> RealtimeClient:
    """The client that the options describe, not connected yet."""
    from tornado_rt.client import RealtimeClient

    user_id = arguments.user_id if arguments.token or arguments.user_id else getpass.getuser()
    return RealtimeClient(
        arguments.url or _own_url(),
        user_id=user_id,
        token=arguments.token,
        dashboard_id=arguments.dashboard_id,
        connect_timeout=arguments.timeout,
    )


def run_client(arguments: argparse.Namespace, work: Callable[[argparse.Namespace], Coroutine[None, None, int]]) -> int:
    """Run ``work`` to its end; what the server or the network refuses becomes a sentence and status 1."""
    from tornado_rt.client import ClientStoppedError

    try:
        return asyncio.run(work(arguments))
    except StartFault:
        raise
    except (ClientStoppedError, TimeoutError, OSError) as fault:
        reason = str(fault) or f"no answer within {arguments.timeout:g} s"
        print(f"tornado-rt: {arguments.url or _own_url()}: {reason}", file=sys.stderr)
    except RealtimeError as fault:
        print(f"tornado-rt: {fault}", file=sys.stderr)
    return 1


def _own_url() -> str:
    settings, _ = load_settings()
    return settings.public_url or f"ws://localhost:{settings.port}/api/realtime"
