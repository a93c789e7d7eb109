"""The judge convicts the real server of each protection that is taken from it: what it does not report would have been seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.process import ServerProcess
from tests.faults.storm import Storm

CONVICTED_OF = {
    "ack-before-commit": {"lost", "misplaced", "doubled"},
    "broadcast-before-commit": {"lost", "split", "misplaced"},
    "no-deduplication": {"doubled"},
    "stale-overwrite": {"stale"},
    "reordered-broadcasts": {"gap"},
    "lost-delta": {"gap"},
}

SHOWN_BY_A_KILL = ("ack-before-commit", "broadcast-before-commit")


@pytest.mark.parametrize("mutation", CONVICTED_OF)
async def test_a_mutant_is_convicted(make_server: Callable[..., ServerProcess], tmp_path: Path, mutation: str) -> None:
    server = make_server(mutation)
    await server.start()
    storm = Storm(server, tmp_path / "history.jsonl", seed=1, dashboards=1)
    async with storm.blowing():
        for _ in range(2):
            await storm.more_verdicts(100)
            if mutation in SHOWN_BY_A_KILL:
                server.kill()
                await server.start()
        await storm.break_off()
    rules = {violation.rule for violation in storm.judged()}
    assert rules & CONVICTED_OF[mutation], rules
