"""How much of everything one dashboard may hold. Numbers only; a limit of 0 is off (PROTOCOL section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["DashboardLimits"]


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
