"""``tornado-rt demo-feed``: figures that move, as a backend would. Knows the demo page's fields, and the Python client."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import tornado_rt
from tornado_rt.cli.connecting import add_connection_options, client_of, run_client
from tornado_rt.errors import StartFault

if TYPE_CHECKING:
    from tornado_rt.client import RealtimeClient

__all__ = ["FILLING", "add_commands", "next_fields"]

FILLING = Path(tornado_rt.__file__).parent / "static" / "demo" / "dashboard.json"  # what the page puts on an empty dashboard
NAME = "harbour-feed"
RECENT = 40
MAX_DECIMALS = 6

Random = Callable[[], float]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo-feed",
        help="make the figures of the demo dashboard move",
        description="Change every widget that bears a 'drift', as a backend would, until Ctrl-C. An empty dashboard is filled "
        "with the demo's widgets first.",
    )
    parser.add_argument(
        "--interval", type=float, default=1.0, metavar="SECONDS", help="between two rounds; default: %(default)g"
    )
    parser.add_argument("--count", type=int, metavar="N", help="end after N rounds")
    add_connection_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Feed until Ctrl-C, or ``--count`` rounds."""
    if not math.isfinite(arguments.interval) or arguments.interval <= 0:
        raise StartFault("--interval is a number of seconds above 0")
    if not arguments.token:
        arguments.user_id = arguments.user_id or NAME
    try:
        return run_client(arguments, _feed)
    except KeyboardInterrupt:
        return 0


async def _feed(arguments: argparse.Namespace) -> int:
    left = arguments.count
    async with client_of(arguments) as client:
        if not client.widgets:
            await _fill(client)
        print(f"feeding dashboard {arguments.dashboard_id} every {arguments.interval:g} s (Ctrl-C ends it)", flush=True)
        while left is None or left > 0:
            await _round(client)
            left = None if left is None else left - 1
            if left != 0:
                await asyncio.sleep(arguments.interval)
    return 0


async def _fill(client: RealtimeClient) -> None:
    from tornado_rt.client import Edit

    filling = json.loads(FILLING.read_text())
    edits = [Edit.update(widget_id, data) for widget_id, data in filling["widgets"].items()]
    await client.batch([*edits, Edit.update_layout(filling["layout"])])


async def _round(client: RealtimeClient) -> None:
    """One step of everything that moves. Where a person was quicker, his value stands."""
    from tornado_rt.client import ConflictError, Edit

    moves = [(widget_id, next_fields(fields, random.random)) for widget_id, fields in sorted(client.widgets.items())]
    operations = [client.submit(Edit.update(widget_id, data)) for widget_id, data in moves if data]
    for operation in operations:
        try:
            await operation
        except ConflictError as fault:
            if fault.conflict.resolved is None:
                await client.resolve(fault.conflict.id, "remote")


def next_fields(fields: Mapping[str, Any], chance: Random) -> dict[str, Any]:
    """What the next round writes into a widget; nothing if it has no ``drift``, the widest step of its figures.

    A figure stays between ``least`` and ``most``, keeps ``decimals``, and takes its last 40 values along in ``recent``; of a
    chart each list that ``series`` names loses its oldest value and gets a new one.
    """
    drift = fields.get("drift")
    if not _is_number(drift) or drift <= 0:
        return {}
    if isinstance(names := fields.get("series"), list):
        lines = {name: _numbers(fields.get(name)) for name in names if isinstance(name, str)}
        bounds = {"least": 0}
        return {name: [*line[1:], _step(line[-1], drift, bounds, chance)] for name, line in lines.items() if len(line) > 1}
    value = fields.get("value")
    if not _is_number(value):
        return {}
    value = _step(value, drift, fields, chance)
    return {"value": value, "recent": [*_numbers(fields.get("recent")), value][-RECENT:]}


def _step(value: float, drift: float, bounds: Mapping[str, Any], chance: Random) -> float:
    least, most, decimals = (bounds.get(name) for name in ("least", "most", "decimals"))
    value += (chance() + chance() - 1) * 2 * drift
    if _is_number(most):
        value = min(value, most)
    if _is_number(least):
        value = max(value, least)
    return round(value, decimals) if isinstance(decimals, int) and 0 < decimals <= MAX_DECIMALS else round(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(values: object) -> list[float]:
    return [value for value in values if _is_number(value)] if isinstance(values, list) else []
