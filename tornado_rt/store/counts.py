"""What a store has done since it was made, for whoever measures. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Counts"]


@dataclass(slots=True)
class Counts:
    """``groups`` are transactions, each for one ``commit`` or for many. ``commit_seconds`` is what they took."""

    groups: int = 0
    commits: int = 0
    committed_operations: int = 0
    snapshots: int = 0
    commit_seconds: float = 0.0
