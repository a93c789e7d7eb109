"""SQLite against memory: whatever is asked of both, with restarts in between, both answer the same."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.store.lodgings import Clock
from tornado_rt.store import ledger
from tornado_rt.store.base import Record
from tornado_rt.store.memory import MemoryStore
from tornado_rt.store.sqlite import SqliteStore

DASHBOARDS = st.sampled_from(["one", "two"])
NAMES = st.sampled_from(["w1", "w2", "w3"])
RECORDS = st.lists(
    st.builds(
        Record,
        st.binary(max_size=6).map(lambda body: body.replace(b"\n", b"")),
        st.booleans(),
        st.lists(st.sampled_from([f"k{n}" for n in range(30)]), max_size=2, unique=True).map(tuple),
        st.lists(NAMES, max_size=2, unique=True).map(tuple),
    ),
    max_size=4,
)


class Comparison(RuleBasedStateMachine):
    """Two stores with one clock, asked the same."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.loop = asyncio.new_event_loop()
        self.clock = Clock()
        self.memory = MemoryStore("epoch", self.clock)
        self.restart(is_first=True)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def ask(self, name: str, *arguments: Any) -> Any:
        """The answer, which is the same from both."""
        expected = self.run(getattr(self.memory, name)(*arguments))
        assert self.run(getattr(self.sqlite, name)(*arguments)) == expected
        return expected

    @rule(dashboard=DASHBOARDS, lag=st.integers(-1, 4), reads=st.dictionaries(NAMES, st.integers(0, 12)), records=RECORDS)
    def commit(self, dashboard: str, lag: int, reads: dict[str, int], records: list[Record]) -> None:
        seen = max(self.run(self.memory.open(dashboard)).seq - lag, 0)
        self.ask("commit", dashboard, "epoch", seen, reads, records)

    @rule(dashboard=DASHBOARDS, records=RECORDS)
    def commit_what_was_just_seen(self, dashboard: str, records: list[Record]) -> None:
        self.ask("commit", dashboard, "epoch", self.run(self.memory.open(dashboard)).seq, {}, records)

    @rule(dashboard=DASHBOARDS, behind=st.integers(-1, 3), state=st.binary(max_size=3))
    def snapshot(self, dashboard: str, behind: int, state: bytes) -> None:
        self.ask("snapshot", dashboard, self.run(self.memory.open(dashboard)).seq - behind, state)

    @rule(dashboard=DASHBOARDS, since=st.integers(0, 20))
    def open_since(self, dashboard: str, since: int) -> None:
        self.ask("open", dashboard, since)

    @rule(hours=st.integers(1, 20))
    def wait(self, hours: int) -> None:
        self.clock.seconds += hours * 3600.0

    @rule(dashboard=DASHBOARDS)
    def leave(self, dashboard: str) -> None:
        self.sqlite.follow(dashboard, lambda contents: None)()

    @rule()
    def restart(self, is_first: bool = False) -> None:
        if not is_first:
            self.run(self.sqlite.close())
        self.sqlite = SqliteStore(self.folder / "log.db", lambda: "epoch", self.clock)
        self.run(self.sqlite.start())

    @invariant()
    def holds_the_same(self) -> None:
        if hasattr(self, "sqlite"):
            for dashboard in ("one", "two"):
                self.ask("open", dashboard)

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            self.run(self.sqlite.close())
            self.loop.close()
            shutil.rmtree(self.folder)


def test_sqlite_answers_as_memory_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The verdicts of six operations are kept, so that the limit is met."""
    monkeypatch.setattr(ledger, "VERDICT_COUNT", 6)
    run_state_machine_as_test(
        Comparison,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
        ),
    )
