"""``tornado-rt watch``: a dashboard's changes in a terminal, one a line, as they happen."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tornado_rt.cli.connecting import add_connection_options, client_of, run_client

if TYPE_CHECKING:
    from tornado_rt.client import Change, ConnectionState

__all__ = ["add_commands", "describe"]

MAX_VALUE_CHARACTERS = 60


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "watch",
        help="show the changes of a dashboard as they happen",
        description="Print what the dashboard holds, then every change, one a line, until Ctrl-C. A lost connection is made "
        "again, and what was missed is told.",
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N changes")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Watch until Ctrl-C, or ``--count`` changes."""
    try:
        return run_client(arguments, _watch)
    except KeyboardInterrupt:
        return 0


async def _watch(arguments: argparse.Namespace) -> int:
    left = arguments.count
    async with client_of(arguments) as client:
        changes = client.changes()
        client.on("state", _say_state)
        print(f"dashboard {arguments.dashboard_id}: {len(client.widgets)} widgets, {len(client.layouts)} layouts", flush=True)
        for widget_id, data in sorted(client.widgets.items()):
            print(f"  {printable(widget_id)} {_fields(data)}", flush=True)
        if left == 0:
            return 0
        async for change in changes:
            if not change.documents:
                continue
            for line in describe(change):
                print(line, flush=True)
            left = None if left is None else left - 1
            if left == 0:
                return 0
    print("tornado-rt: the server ended the connection for good", file=sys.stderr)
    return 1


def _say_state(state: ConnectionState) -> None:
    if state.value != "DISCONNECTED":  # that is our own end
        print(f"connection: {state.value.lower()}", file=sys.stderr)


def describe(change: Change) -> Iterator[str]:
    """The lines of one change: when, its seq, who, what."""
    head = f"{_clock(change.timestamp)} #{change.seq} {printable(change.user_id)}".rstrip()
    operations = change.payload.get("operations") if change.type == "WIDGET_BATCH" else None
    if isinstance(operations, list):
        for operation in operations:
            yield f"{head} {_what(str(operation.get('type')), operation.get('payload', {}))}"
    elif change.type in ("SYNC_RESPONSE", "SYNC_UPDATE"):
        names = ", ".join(f"{kind} {printable(name)}" for kind, name in change.documents)
        yield f"{head} caught up: {names}"
    else:
        yield f"{head} {_what(change.type, change.payload)}"


def printable(text: str) -> str:
    """Text that neither breaks the line nor paints the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _what(kind: str, payload: dict[str, Any]) -> str:
    layout = "layoutId" in payload
    name = f"layout {payload['layoutId']}" if layout else str(payload.get("widgetId", ""))
    if kind == "WIDGET_DELETE":
        return f"{printable(name)} deleted"
    if kind == "LAYOUT_RESTORE":
        name += f" restored from #{payload.get('restoredFrom')}"
    elif payload.get("replace"):
        name += " replaced:"
    fields = [
        _fields(payload.get("layout" if layout else "data") or {}),
        *(f"-{field}" for field in payload.get("unset") or ()),
    ]
    return " ".join(map(printable, filter(None, [name, *fields])))


def _fields(data: dict[str, Any]) -> str:
    return " ".join(f"{printable(field)}={_short(value)}" for field, value in data.items())


def _short(value: Any) -> str:
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"


def _clock(timestamp: str) -> str:
    try:
        return f"{datetime.fromisoformat(timestamp).astimezone():%H:%M:%S}"
    except ValueError:
        return "--:--:--"
