"""Whether and when to connect again (PROTOCOL section 8). Pure: chance is handed in, and nobody sleeps here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Backoff", "Verdict", "after_close"]

MAX_DELAY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the end of a connection means: come back or not, with a new token or not, after ``retry_after_ms`` if given."""

    reconnect: bool
    needs_token: bool = False
    retry_after_ms: int | None = None


def after_close(code: int | None, reason: str | None, disconnect: dict[str, Any] | None) -> Verdict:
    """Judge a close. DISCONNECT's ``reconnect`` decides; without one 1008 ends the attempts and all else may be tried again."""
    if disconnect is None:
        needs_token = code == 1008 and reason == "Token expired"
        return Verdict(code != 1008 or needs_token, needs_token)
    return Verdict(
        bool(disconnect.get("reconnect", True)),
        (disconnect.get("reason") or reason) == "Token expired",
        disconnect.get("retryAfterMs"),
    )


class Backoff:
    """Delays that double from ``first_seconds`` up to 30 s, each with full jitter, the first one too.

    ``attempts`` is how many may fail in a row (None: no end). A connection counts as a success, and starts the delays anew,
    once it has lasted as long as the delay after it might be; so one that is always closed at once is not hammered.
    """

    def __init__(self, random: Callable[[], float], first_seconds: float = 1.0, attempts: int | None = None) -> None:
        self.random = random
        self.first_seconds = first_seconds
        self.attempts = attempts
        self.failures = 0

    def delay_seconds(self, lived_seconds: float = 0.0, retry_after_ms: int | None = None) -> float | None:
        """How long to wait after a connection that lasted ``lived_seconds`` (0: it never came about); None: give up.

        ``retry_after_ms``, the server's slot, stands in for the delay.
        """
        ceiling = min(MAX_DELAY_SECONDS, self.first_seconds * 2.0 ** min(self.failures, 30))
        if lived_seconds >= ceiling:
            self.failures = 0
            ceiling = min(MAX_DELAY_SECONDS, self.first_seconds)
        if self.attempts is not None and self.failures >= self.attempts:
            return None
        self.failures += 1
        return self.random() * ceiling if retry_after_ms is None else retry_after_ms / 1000
