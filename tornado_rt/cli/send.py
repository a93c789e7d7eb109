"""``tornado-rt send``: one change from a terminal or a script, done when the server has it on disk."""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import TYPE_CHECKING, Any

from tornado_rt.cli.connecting import add_connection_options, client_of, run_client
from tornado_rt.errors import StartFault

if TYPE_CHECKING:
    from tornado_rt.client import Result

__all__ = ["add_commands", "parse_fields"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "send",
        help="change a widget or a layout",
        description="Change fields of a widget and wait until the change is kept. Values are JSON where they read as JSON "
        "(42, true, null, [1, 2]), else text.",
        epilog="Example: tornado-rt send widget-1 value=42 title='Orders today'",
    )
    parser.add_argument("id", metavar="ID", help="the widget (with --layout: the layout)")
    parser.add_argument("fields", metavar="FIELD=VALUE", nargs="*", help="fields to set; the others stay")
    parser.add_argument("--unset", metavar="FIELD", action="append", default=[], help="a field to remove; may be repeated")
    parser.add_argument("--replace", action="store_true", help="remove every field that is not named")
    parser.add_argument("--delete", action="store_true", help="remove the whole widget")
    parser.add_argument("--layout", action="store_true", help="change a layout instead of a widget")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send, wait for the verdict, say it."""
    fields = parse_fields(arguments.fields)
    if arguments.delete and (fields or arguments.unset or arguments.replace or arguments.layout):
        raise StartFault("--delete removes a whole widget; it goes with no fields and no other change.")
    if not (arguments.delete or arguments.replace or fields or arguments.unset):
        raise StartFault("Nothing to send: name fields such as value=42, or --unset FIELD, or --delete.")
    return run_client(arguments, _send)


def parse_fields(texts: list[str]) -> dict[str, Any]:
    """``["value=42", "title=Hello"]`` as ``{"value": 42, "title": "Hello"}``. Raises ``StartFault``."""
    fields: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise StartFault(f"{text!r} is no field: write it as name=value.")
        fields[name] = _value_of(value)
    return fields


def _value_of(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError:
        return text


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON (RFC 8259 section 6)")


async def _send(arguments: argparse.Namespace) -> int:
    fields = parse_fields(arguments.fields)
    async with asyncio.timeout(arguments.timeout), client_of(arguments) as client:
        if arguments.delete:
            result = await client.delete(arguments.id)
        elif arguments.layout:
            result = await client.update_layout(
                fields, layout_id=arguments.id, unset=arguments.unset, replace=arguments.replace
            )
        else:
            result = await client.update(arguments.id, fields, unset=arguments.unset, replace=arguments.replace)
    print(_sentence(arguments, result))
    return 0


def _sentence(arguments: argparse.Namespace, result: Result) -> str:
    name = f"{'layout' if arguments.layout else 'widget'} {arguments.id}"
    if result.seq is None:
        return f"{name}: there was nothing to do"
    done = "deleted" if arguments.delete else "saved"
    return f"{name}: {done} as change {result.seq} of dashboard {arguments.dashboard_id}"
