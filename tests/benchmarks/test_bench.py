"""The benchmark's own parts: the load client compiles and answers to a real socket, and the report's arithmetic holds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import sides
from benchmarks.figures import Figure, fault_of, judge, median, ratios, value_of
from benchmarks.report import number, results_page, table
from benchmarks.scenarios import FIGURES, SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shutil.which("cc") or shutil.which("gcc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the load client needs a C compiler")

# Three rounds as the load client printed them, cut to what is asked for here. The machine slowed down in the second one.
ROUNDS: list[dict[str, dict[str, Any]]] = [
    {
        "node": {"us_per_delivery": 12.0, "nacks": 0, "closed": 0, "load_cpu_share": 0.72, "other_cores": 0.02},
        "durable": {"us_per_delivery": 4.8, "nacks": 0, "closed": 0, "load_cpu_share": 0.60, "other_cores": 0.01},
    },
    {
        "node": {"us_per_delivery": 24.0, "nacks": 0, "closed": 0, "load_cpu_share": 0.71, "other_cores": 0.30},
        "durable": {"us_per_delivery": 7.2, "nacks": 0, "closed": 0, "load_cpu_share": 0.58, "other_cores": 0.28},
    },
    {
        "node": {"us_per_delivery": 12.5, "nacks": 0, "closed": 0, "load_cpu_share": 0.70, "other_cores": 0.03},
        "durable": {"us_per_delivery": 5.0, "nacks": 0, "closed": 0, "load_cpu_share": 0.61, "other_cores": 0.02},
    },
]
PER_DELIVERY = Figure("CPU per delivery", "fanout", "durable", "us_per_delivery", "us", 0.45, "node")


@pytest.fixture(scope="module")
def load_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The load client, compiled with the driver's own flags, which make every warning an error."""
    assert COMPILER is not None
    binary = tmp_path_factory.mktemp("load") / "load"
    source = ROOT / "benchmarks/load.c"
    done = subprocess.run(
        [COMPILER, *sides.LOAD_FLAGS, "-o", str(binary), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return binary


@needs_compiler
def test_the_load_client_compiles_without_a_warning(load_client: Path) -> None:
    assert {"-Wall", "-Wextra", "-Werror"} <= set(sides.LOAD_FLAGS)
    assert load_client.exists()


@needs_compiler
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--port"], "options come in pairs"),
        (["--port", "1", "--colour", "red"], "no option --colour"),
        (["--port", "1", "--mode", "dance"], "--mode:"),
        (["--port", "1", "--conns", "0"], "1 or more"),
    ],
)
def test_the_load_client_refuses_what_it_does_not_know(load_client: Path, words: list[str], sentence: str) -> None:
    done = subprocess.run([str(load_client), *words], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert sentence in done.stderr


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="epoll and /proc")
def test_a_run_against_our_server_counts_what_was_delivered(tmp_path: Path, load_client: Path) -> None:
    """Nine members of ten hear every operation; nothing is refused, cut off or left behind."""
    cores = sides.Cores.of_this_machine()
    server = sides.start("memory", tmp_path, cores)
    try:
        words = ["--mode", "fanout", "--conns", "10", "--window", "4", "--secs", "0.5", "--warm", "0.1"]
        command = [str(load_client), "--port", str(server.port), "--pid", str(server.pid), *words]
        run = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)
    finally:
        server.stop()
    assert fault_of(run) == ""
    assert run["conns"] == 10
    assert run["delivery_per_s"] > 0
    assert run["server_cpu_s"] >= 0


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="epoll and /proc")
def test_clients_that_return_converge_and_a_wrong_target_is_seen(tmp_path: Path, load_client: Path) -> None:
    """``resume`` believes no count: it looks for the newest value of each widget in what it was sent."""
    server = sides.start("memory", tmp_path, sides.Cores.of_this_machine())

    def load(*words: str) -> dict[str, Any]:
        command = [str(load_client), "--port", str(server.port), "--pid", str(server.pid), "--widgets", "8", *words]
        found: dict[str, Any] = json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        )
        return found

    try:
        written = load("--mode", "publish", "--ops", "60")
        assert written["seq"] == 60
        back = ["--mode", "resume", "--conns", "5", "--since", "20", "--epoch", written["epoch"]]
        arrived = load(*back, "--target", "60", "--secs", "20")
        beyond = load(*back, "--target", "61", "--secs", "0.3")
    finally:
        server.stop()
    assert arrived["converged"] == 5
    assert arrived["deltas"] + arrived["merged"] == 5
    assert arrived["probe"]["samples"] > 0
    assert beyond["converged"] == 0


def test_a_ratio_is_taken_pair_by_pair_so_a_slow_round_does_not_count_twice() -> None:
    assert ratios(ROUNDS, "us_per_delivery", "durable", "node") == pytest.approx([0.4, 0.3, 0.4])
    outcome = judge(PER_DELIVERY, ROUNDS)
    assert outcome.ratio == pytest.approx(0.4)
    assert outcome.ours == 5.0
    assert outcome.peer == 12.5
    assert outcome.ours_range == (4.8, 7.2)
    assert outcome.reached is True


def test_a_figure_over_its_limit_is_not_reached() -> None:
    strict = Figure("", "fanout", "durable", "us_per_delivery", "us", 0.39, "node")
    assert judge(strict, ROUNDS).reached is False


def test_more_may_be_better() -> None:
    rounds = [{"node": {"handshakes_per_s": 2000.0}, "durable": {"handshakes_per_s": 1500.0}}]
    more = Figure("", "handshakes", "durable", "handshakes_per_s", "1/s", 1.0, "node", better="higher")
    assert judge(more, rounds).reached is False
    rounds[0]["durable"]["handshakes_per_s"] = 2500.0
    assert judge(more, rounds).reached is True


def test_a_value_without_a_peer_is_held_to_its_own_limit() -> None:
    lag = Figure("", "catch-up", "durable", "probe.p99_ms", "ms", 250)
    assert judge(lag, [{"durable": {"probe": {"p99_ms": 249.0}}}]).reached is True
    assert judge(lag, [{"durable": {"probe": {"p99_ms": 251.0}}}]).reached is False


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"nacks": 3}, "3 operations were refused"),
        ({"closed": 2, "first_close_code": 1013}, "2 connections were closed (first code 1013)"),
        ({"stalled": 1}, "stood still"),
        ({"undelivered": 7}, "7 operations did not reach everybody"),
        ({"fault": "The load client failed: x"}, "The load client failed: x"),
    ],
)
def test_a_run_in_which_something_was_lost_cannot_reach_its_figure(wrong: dict[str, Any], said: str) -> None:
    spoiled = [*ROUNDS[:2], {**ROUNDS[2], "durable": {**ROUNDS[2]["durable"], **wrong}}]
    outcome = judge(PER_DELIVERY, spoiled)
    assert said in outcome.fault
    assert outcome.reached is False
    assert said in table([PER_DELIVERY], {"fanout": {"rounds": spoiled}})


def test_a_figure_that_was_not_measured_is_neither_reached_nor_missed() -> None:
    assert judge(PER_DELIVERY, []).reached is None
    assert "not run" in table([PER_DELIVERY], {})


def test_values_are_found_in_objects() -> None:
    run = {"probe": {"p99_ms": 3}, "held_kb": None}
    assert value_of(run, "probe.p99_ms") == 3.0
    assert value_of(run, "probe.p50_ms") is None
    assert value_of(run, "held_kb") is None


def test_medians_and_numbers() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([]) is None
    assert number(12345.6, 2) == "12,346"
    assert number(0.4567, 2) == "0.46"
    assert number(None, 2) == "-"


def test_the_page_says_what_was_measured_where_and_whether_the_machine_was_quiet() -> None:
    kept = {
        "machine": {"CPU": "a CPU, 2 cores", "peer": "node 20"},
        "command": "make bench",
        "scenarios": {"fanout": {"date": "2026-01-01 10:00 UTC", "rounds": [ROUNDS[1]]}},
    }
    page = results_page(kept, [PER_DELIVERY])
    assert "- CPU: a CPU, 2 cores" in page
    assert "| CPU per delivery | durable | us | at most 0.45 of node's | 24.00 | 7.20 | 0.30 | 1 | yes |" in page
    assert "2026-01-01 10:00 UTC | 0.58 to 0.71 | 0.28 to 0.30 (not quiet) |" in page


def test_every_figure_is_read_from_a_scenario_that_runs_its_side() -> None:
    sides_of = {scenario.name: scenario.sides for scenario in SCENARIOS}
    for figure in FIGURES:
        assert figure.side in sides_of[figure.scenario]
        assert figure.versus is None or figure.versus in sides_of[figure.scenario]
    assert {figure.scenario for figure in FIGURES} == set(sides_of)


def test_the_peers_lock_file_names_no_registry() -> None:
    lock = json.loads((ROOT / "benchmarks/peers/package-lock.json").read_text())
    assert lock["packages"]["node_modules/ws"]["integrity"]
    assert all("resolved" not in package for package in lock["packages"].values())
