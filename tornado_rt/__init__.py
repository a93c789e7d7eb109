"""tornado_rt: durable real-time dashboards over WebSocket and HTTP. This file knows the version and nothing else."""

from __future__ import annotations

__version__ = "0.1.0"
