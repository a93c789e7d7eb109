"""The arithmetic of the report: medians, ratios pair by pair, and whether a figure was reached; no processes, no files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

# One round: what each side measured in turn, side by side in time. A failed run is {"fault": "sentence"}.
Run = Mapping[str, Any]
Round = Mapping[str, Run]


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    ``field`` names a measured value, dots lead into objects. ``versus`` names the side that a ratio is taken against;
    without it the value itself is held to ``limit``. ``limit`` None: reported, not judged.
    """

    title: str
    scenario: str
    side: str
    field: str
    unit: str
    limit: float | None
    versus: str | None = None
    better: Literal["lower", "higher"] = "lower"
    digits: int = 2
    wanted_text: str = ""

    @property
    def wanted(self) -> str:
        if self.wanted_text or self.limit is None:
            return self.wanted_text or "(for comparison)"
        bound = "at most" if self.better == "lower" else "at least"
        if self.versus is not None:
            return f"{bound} {self.limit:g} of {self.versus}'s"
        return f"{bound} {self.limit:g} {self.unit}".strip()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A figure with what was measured: medians of both sides, the median of the ratios, and the verdict (None: not judged)."""

    figure: Figure
    runs: int
    ours: float | None
    ours_range: tuple[float, float] | None
    peer: float | None
    ratio: float | None
    reached: bool | None
    fault: str = ""


def value_of(run: Run, field: str) -> float | None:
    """The number at ``field`` ("probe.p99_ms" leads into an object); None if the run failed or has none."""
    found: Any = run
    for part in field.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return float(found) if isinstance(found, (int, float)) else None


def fault_of(run: Run) -> str:
    """Why a run cannot count, "" if it can: nobody may be refused, cut off or left without a delivery."""
    if "fault" in run:
        return str(run["fault"])
    if run.get("nacks"):
        return f"{run['nacks']:g} operations were refused"
    if run.get("closed"):
        return f"{run['closed']:g} connections were closed (first code {run.get('first_close_code', 0):g})"
    if run.get("stalled"):
        return "the load stood still"
    if run.get("undelivered"):
        return f"{run['undelivered']:g} operations did not reach everybody"
    return ""


def median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def ratios(rounds: Sequence[Round], field: str, side: str, versus: str) -> list[float]:
    """``side``'s value by ``versus``'s, pair by pair: both runs of a pair had the same neighbours, clock and temperature."""
    found = []
    for pair in rounds:
        ours, theirs = value_of(pair.get(side, {}), field), value_of(pair.get(versus, {}), field)
        if ours is not None and theirs:
            found.append(ours / theirs)
    return found


def judge(figure: Figure, rounds: Sequence[Round]) -> Outcome:
    """What ``rounds`` say of ``figure``. A figure with a failed run of ours is not reached, whatever the others say."""
    runs = [pair[figure.side] for pair in rounds if figure.side in pair]
    ours = [value for run in runs if (value := value_of(run, figure.field)) is not None]
    peers = [value for pair in rounds if "node" in pair and (value := value_of(pair["node"], figure.field)) is not None]
    ratio = median(ratios(rounds, figure.field, figure.side, figure.versus or "node"))
    fault = next((fault for run in runs if (fault := fault_of(run))), "")
    judged = ratio if figure.versus is not None else median(ours)
    reached: bool | None = None
    if figure.limit is not None and (judged is not None or fault):
        within = judged is not None and (judged <= figure.limit if figure.better == "lower" else judged >= figure.limit)
        reached = within and not fault
    span = (min(ours), max(ours)) if ours else None
    return Outcome(figure, len(runs), median(ours), span, median(peers), ratio, reached, fault)
