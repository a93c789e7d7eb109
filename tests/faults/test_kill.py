"""kill -9, again and again, under writes over WebSocket and POST: nothing acknowledged is lost, doubled or reordered."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.process import ServerProcess
from tests.faults.storm import Storm
from tornado_rt.loadtest.history import Synced

TOO_MANY_FOR_A_DELTA = 250  # operations


async def killed_again_and_again(server: ServerProcess, path: Path, *, kills: int, seed: int) -> Storm:
    rng = random.Random(seed)
    await server.start()
    storm = Storm(server, path, seed=seed)
    async with storm.blowing():
        for _ in range(kills):
            await storm.more_verdicts(rng.randint(20, 300))
            server.kill()
            await server.start()
        await storm.oversleep([driver for driver in storm.drivers if driver.user == "bob"], TOO_MANY_FOR_A_DELTA)
        await storm.settle()
    return storm


def assert_it_was_a_storm(storm: Storm, kills: int) -> None:
    """A run in which nothing happened would prove nothing."""
    counts = storm.history.counts()
    assert counts["applied"] > 50 * kills
    assert counts["unanswered"] > kills
    assert counts["conflicted"] > kills
    assert {event.mode for event in storm.history if isinstance(event, Synced)} >= {"snapshot", "delta", "merged"}
    duplicates = sum(getattr(event, "duplicate", False) for event in storm.history)
    assert duplicates > 0


async def test_five_kills_lose_nothing(server: ServerProcess, tmp_path: Path) -> None:
    storm = await killed_again_and_again(server, tmp_path / "history.jsonl", kills=5, seed=1)
    assert_it_was_a_storm(storm, 5)
    assert [str(violation) for violation in storm.judged()] == []


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
async def test_twenty_kills_lose_nothing(make_server: Callable[..., ServerProcess], tmp_path: Path, seed: int) -> None:
    storm = await killed_again_and_again(make_server(), tmp_path / "history.jsonl", kills=20, seed=seed)
    assert_it_was_a_storm(storm, 20)
    assert [str(violation) for violation in storm.judged()] == []
