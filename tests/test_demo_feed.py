"""The feed of the demo: what moves, what stands still, and that it goes to a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import clean_environment
from tornado_rt.cli.demo_feed import FILLING, next_fields
from tornado_rt.client import RealtimeClient


def chance(*values: float) -> Any:
    return iter(values).__next__


def test_a_figure_moves_by_its_drift_at_the_most() -> None:
    assert next_fields({"value": 10, "drift": 3}, chance(1.0, 1.0)) == {"value": 16, "recent": [16]}
    assert next_fields({"value": 10, "drift": 3}, chance(0.0, 0.0)) == {"value": 4, "recent": [4]}
    assert next_fields({"value": 10, "drift": 3}, chance(0.5, 0.5)) == {"value": 10, "recent": [10]}


def test_a_figure_keeps_its_bounds_its_decimals_and_40_values() -> None:
    fields = {"value": 99.5, "drift": 9, "most": 100, "least": 99, "decimals": 1, "recent": list(range(40))}
    assert next_fields(fields, chance(1.0, 1.0)) == {"value": 100, "recent": [*range(1, 40), 100]}
    assert next_fields(fields, chance(0.0, 0.0))["value"] == 99
    assert next_fields({**fields, "drift": 0.07, "most": None}, chance(1.0, 1.0))["value"] == 99.6


def test_the_lines_of_a_chart_move_on() -> None:
    fields = {"series": ["a", "b", "gone", 7], "a": [1, 2, 3], "b": [5], "drift": 1}
    assert next_fields(fields, chance(0.5, 0.5)) == {"a": [2, 3, 3]}


@pytest.mark.parametrize(
    "fields",
    [
        {"value": 1},
        {"value": 1, "drift": 0},
        {"value": 1, "drift": -1},
        {"value": 1, "drift": True},
        {"value": 1, "drift": "3"},
        {"value": "1", "drift": 3},
        {"value": True, "drift": 3},
        {"drift": 3},
        {},
    ],
)
def test_what_bears_no_drift_or_no_figure_stands_still(fields: dict[str, Any]) -> None:
    assert next_fields(fields, chance()) == {}


def test_the_filling_is_what_the_feed_can_move() -> None:
    filling = json.loads(FILLING.read_text())
    assert set(filling["layout"]) == set(filling["widgets"])
    moving = [name for name, fields in filling["widgets"].items() if next_fields(fields, lambda: 0.5)]
    assert moving == ["passengers", "punctuality", "wind", "queue", "load"]


def feed(url: str, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tornado_rt", "demo-feed", "--url", url, *arguments]
    return subprocess.run(command, cwd=directory, env=clean_environment(), capture_output=True, text=True, timeout=60)


async def test_it_fills_an_empty_dashboard_and_moves_it(start_server: Any, tmp_path: Path) -> None:
    server = start_server("--store", "memory://")
    done = feed(server.url, tmp_path, "--interval", "0.01", "--count", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "feeding dashboard default every 0.01 s (Ctrl-C ends it)\n"
    filling = json.loads(FILLING.read_text())
    async with RealtimeClient(server.url, user_id="anna") as client:
        assert set(client.widgets) == set(filling["widgets"])
        assert client.layouts["default"] == filling["layout"]
        assert client.widgets["crew"] == filling["widgets"]["crew"]
        assert client.widgets["wind"]["recent"][:-3] == filling["widgets"]["wind"]["recent"][3:]
        assert client.widgets["load"]["Aboard"][:-3] == filling["widgets"]["load"]["Aboard"][3:]


async def test_it_leaves_a_dashboard_that_holds_something_as_it_is(start_server: Any, tmp_path: Path) -> None:
    server = start_server("--store", "memory://")
    async with RealtimeClient(server.url, user_id="anna") as client:
        await client.update("mine", {"value": 1})
        assert feed(server.url, tmp_path, "--count", "1").returncode == 0
        assert client.widgets == {"mine": {"value": 1}}


def test_an_interval_is_a_time(tmp_path: Path) -> None:
    for interval in ("0", "-1", "nan", "inf"):
        done = feed("http://127.0.0.1:1", tmp_path, f"--interval={interval}")
        assert (done.returncode, done.stderr) == (2, "tornado-rt: --interval is a number of seconds above 0\n")
