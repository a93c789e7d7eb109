"""Writes RESULTS.md from what was measured; knows the words for people, not how a run is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.figures import Figure, Outcome, Round, judge, median, value_of

# Above this the machine was not ours alone, and the figures say so.
QUIET_CORES = 0.1


def number(value: float | None, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}f}"


def _verdict(outcome: Outcome) -> str:
    if outcome.reached is None:
        return "-" if outcome.ours is not None else "not run"
    return "yes" if outcome.reached else f"**no**{': ' + outcome.fault if outcome.fault else ''}"


def _row(outcome: Outcome) -> str:
    figure, digits = outcome.figure, outcome.figure.digits
    ours = number(outcome.ours, digits)
    if outcome.ours_range and outcome.runs > 1:
        ours += f" ({number(outcome.ours_range[0], digits)} to {number(outcome.ours_range[1], digits)})"
    cells = (
        figure.title,
        figure.side,
        figure.unit,
        figure.wanted,
        number(outcome.peer, digits),
        ours,
        number(outcome.ratio, 2),
        str(outcome.runs),
        _verdict(outcome),
    )
    return "| " + " | ".join(cells) + " |"


def table(figures: Sequence[Figure], scenarios: Mapping[str, Any]) -> str:
    """The table of all figures, as Markdown."""
    head = ("figure", "store", "unit", "wanted", "node + ws", "tornado_rt (range)", "ratio", "runs", "reached")
    rows = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    rows += [_row(judge(figure, scenarios.get(figure.scenario, {}).get("rounds", []))) for figure in figures]
    return "\n".join(rows)


def _shares(scenarios: Mapping[str, Any]) -> list[str]:
    """For each scenario: was the load client ever the bottleneck, was the machine quiet?"""
    lines = ["| scenario | measured | load client's CPU, of a core | other work, cores |", "| --- | --- | --- | --- |"]
    for name, scenario in scenarios.items():
        runs = [run for pair in scenario["rounds"] for run in pair.values()]
        load = [share for run in runs if (share := value_of(run, "load_cpu_share")) is not None]
        others = [share for run in runs if (share := value_of(run, "other_cores")) is not None]
        noise = " (not quiet)" if others and (median(others) or 0) > QUIET_CORES else ""
        lines.append(f"| {name} | {scenario['date']} | {_span(load)} | {_span(others)}{noise} |")
    return lines


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if values else "-"


def results_page(kept: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """RESULTS.md as text. ``kept`` is results.json: ``machine``, ``command``, ``scenarios: {name: {date, rounds}}``."""
    machine: Mapping[str, str] = kept["machine"]
    scenarios: Mapping[str, Any] = kept["scenarios"]
    rounds: list[Round] = [pair for scenario in scenarios.values() for pair in scenario["rounds"]]
    lines = [
        "# Results",
        "",
        f"Written by `{kept['command']}`; do not edit. How to read it: [README.md](README.md).",
        "",
        *(f"- {name}: {value}" for name, value in machine.items()),
        "",
        table(figures, scenarios),
        "",
        f"Medians over the runs, {len(rounds)} rounds in all. A round runs each side once, one after the other; a ratio is the",
        "median of the ratios of each round. `durable` is SQLite with `synchronous=FULL`, an operation acknowledged after its",
        "fsync; node keeps everything in memory. Both serve from one core; the load has the other.",
        "",
        "## Was the measurement sound?",
        "",
        *_shares(scenarios),
        "",
    ]
    return "\n".join(lines)
