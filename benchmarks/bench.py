"""`make bench`: every scenario against node and ourselves in turn, and RESULTS.md from it; knows the order, not the loads.

python benchmarks/bench.py [--only NAME ...] [--runs N] [--long-runs N] [--quick]
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the working tree is measured, however this is called

from benchmarks.report import results_page, table
from benchmarks.scenarios import FIGURES, SCENARIOS, Scenario
from benchmarks.sides import HERE, SIDE_TITLES, BenchFault, Cores, build_load, prepare_peer

KEPT = HERE / "results.json"
PAGE = HERE / "RESULTS.md"


def machine() -> dict[str, str]:
    """What the figures were measured on; no paths and no names of machines."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    memory_kb = int(Path("/proc/meminfo").read_text().split()[1])
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    peer = json.loads((HERE / "peers/node_modules/ws/package.json").read_text())["version"]
    ours = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("tornado", "uvloop", "pydantic"))
    return {
        "CPU": f"{cpus[0] if cpus else platform.machine()}, {os.cpu_count()} cores, {memory_kb / 2**20:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "ours": f"Python {platform.python_version()}, {ours}",
        "peer": f"node {node.lstrip('v')}, ws {peer}",
    }


def run_scenario(scenario: Scenario, cores: Cores, runs: int, quick: bool) -> list[dict[str, Any]]:
    """``runs`` rounds; each runs every side once, one after the other, so that whatever disturbs the machine disturbs all."""
    rounds = []
    for index in range(runs):
        measured: dict[str, Any] = {}
        for side in scenario.sides:
            print(f"{scenario.name} {index + 1}/{runs}: {SIDE_TITLES[side]} ...", end=" ", flush=True)
            try:
                measured[side] = scenario.run(side, cores, quick)
                print(_gist(measured[side]), flush=True)
            except BenchFault as fault:
                measured[side] = {"fault": str(fault).splitlines()[0]}
                print(fault, flush=True)
        rounds.append(measured)
    return rounds


def _gist(run: dict[str, Any]) -> str:
    """The one or two values of a run that a person waits for."""
    named = (
        "us_per_delivery",
        "us_per_ack",
        "handshakes_per_s",
        "kb_per_conn",
        "converged",
        "slow_converged",
        "server_cpu_share",
    )
    found = [f"{name} {run[name]:.2f}" for name in named if name in run]
    found += [f"{name} p99 {run[name]['p99_ms']:.1f} ms" for name in ("last_delivery", "probe") if name in run]
    return ", ".join(found)


def chosen(names: Iterable[str]) -> list[Scenario]:
    """The scenarios whose names begin with one of ``names``; all if there are none."""
    wanted = tuple(names)
    found = [scenario for scenario in SCENARIOS if not wanted or scenario.name.startswith(wanted)]
    if not found:
        raise BenchFault(f"No scenario of that name; there are {', '.join(scenario.name for scenario in SCENARIOS)}.")
    return found


def keep(scenario: Scenario, rounds: list[dict[str, Any]], kept: dict[str, Any]) -> None:
    """Puts ``rounds`` in place of what was kept of this scenario, and writes both files."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    kept["scenarios"][scenario.name] = {"date": date, "rounds": rounds}
    order = [each.name for each in SCENARIOS]
    kept["scenarios"] = {name: kept["scenarios"][name] for name in order if name in kept["scenarios"]}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(results_page(kept, FIGURES))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=__doc__.partition(";")[0])
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="scenarios whose name begins so; repeatable"
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds of each scenario (default 5)")
    parser.add_argument("--long-runs", type=int, default=1, help="rounds of what takes minutes: idle, slow reader (1)")
    parser.add_argument("--quick", action="store_true", help="one short round of each; nothing is written")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    try:
        scenarios = chosen(options.only)
        prepare_peer()
        build_load()
        cores = Cores.of_this_machine()
        if not cores.apart:
            print("Only one core: server and load share it, so the figures are not comparable with others.", flush=True)
        if options.quick:
            print("A quick look: small loads and one round each, so the figures mean little.", flush=True)
        kept: dict[str, Any] = json.loads(KEPT.read_text()) if KEPT.exists() and not options.quick else {"scenarios": {}}
        kept |= {"machine": machine(), "command": "make bench"}
        for scenario in scenarios:
            runs = 1 if options.quick else options.long_runs if scenario.long else options.runs
            rounds = run_scenario(scenario, cores, runs, options.quick)
            if options.quick:
                kept["scenarios"][scenario.name] = {"date": "now", "rounds": rounds}
            else:
                keep(scenario, rounds, kept)
    except BenchFault as fault:
        print(fault, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nEnded; what was measured until now is kept.", file=sys.stderr)
        return 130
    print(
        table([figure for figure in FIGURES if figure.scenario in {scenario.name for scenario in scenarios}], kept["scenarios"])
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
