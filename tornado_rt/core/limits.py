"""How much of everything a dashboard may hold, and how fast anybody may ask. A limit of 0 is off (PROTOCOL section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DashboardLimits", "TokenBucket"]


@dataclass(frozen=True, slots=True)
class DashboardLimits:
    """``max_document_bytes`` and ``max_dashboard_bytes`` count the compact JSON of fields; ``max_tombstones`` and the two of
    verdicts are the protocol's own (sections 4 and 5, 2) and are settings only for tests."""

    max_widgets: int = 1_000
    max_layouts: int = 20
    layout_history: int = 50
    max_fields: int = 500
    max_document_bytes: int = 65_536
    max_dashboard_bytes: int = 4 * 1024 * 1024
    conflict_detection: bool = True
    conflict_strategy: Literal["manual", "remote-wins", "local-wins"] = "manual"
    max_tombstones: int = 1_000
    verdict_count: int = 10_000
    verdict_seconds: float = 24 * 3600.0


_CLOCK_GRAIN = 1e-9  # seconds lost in rounding


class TokenBucket:
    """So many at once, so many a second. The caller brings the time, in seconds on a clock that never steps back.

    Kept as one number, the moment when the bucket is full again (the generic cell rate algorithm, ITU-T I.371): a message that
    is let through moves it ahead by ``1 / rate_per_second``, and it may never be further ahead than ``burst`` of these.
    """

    __slots__ = ("_depth", "_full_at", "_period")

    def __init__(self, rate_per_second: float, burst: float) -> None:
        self._period = 1.0 / rate_per_second
        self._depth = max(burst, 1.0) * self._period
        self._full_at = 0.0

    def take(self, now: float, count: float = 1) -> float:
        """Take ``count`` tokens: 0.0 if they were there, else the seconds after which they will be; then none are taken.

        More than the bucket holds is let through when it is full, and paid off afterwards.
        """
        full_at = self._full_at
        if full_at < now:
            full_at = now
        after = full_at + count * self._period
        wait = after - now - self._depth
        if wait > _CLOCK_GRAIN and full_at > now:
            return wait if count * self._period <= self._depth else full_at - now
        self._full_at = after
        return 0.0

    def is_full(self, now: float) -> bool:
        return self._full_at <= now
