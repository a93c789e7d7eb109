"""A power cut at any moment loses nothing that anybody was told of; and the simulation sees what a lazier disk setting loses.

The server runs with a recorder under it (``recorder.c``). For each cut its files are made anew as the disk may have kept them,
the store opens them, and the history up to that moment is judged against what the store then holds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.driver import Documents, Json
from tests.faults.powercut import Kind, Trace, build_recorder
from tests.faults.process import ServerProcess
from tests.faults.storm import Storm
from tornado_rt.core.journal import text_of
from tornado_rt.errors import StartFault
from tornado_rt.loadtest.history import Conflicted, Event, Finished, Synced, check
from tornado_rt.protocol.codec import change, decode_json
from tornado_rt.store.base import Contents
from tornado_rt.store.sqlite import SqliteStore

DASHBOARDS = ("board-0", "board-1")


@dataclass
class Recording:
    """A storm, everything that was said in it, and everything that was asked of the disk meanwhile."""

    trace: Trace
    events: list[Event]


async def record(make_server: Callable[..., ServerProcess], tmp_path: Path, mutations: str, verdicts: int) -> Recording:
    """Of a server that is killed at the end, so that nothing is put in order for the occasion."""
    library, trace = build_recorder(tmp_path), tmp_path / "trace"
    (tmp_path / "disk").mkdir()
    environment = {"LD_PRELOAD": str(library), "RECORDER_ROOT": str(tmp_path / "disk"), "RECORDER_TRACE": str(trace)}
    server = make_server(mutations, store=f"sqlite:///{tmp_path}/disk/rt.db", settings=environment)
    await server.start()
    storm = Storm(server, tmp_path / "history.jsonl", seed=7)
    async with storm.blowing():
        await storm.more_verdicts(verdicts)
        server.kill()
    return Recording(Trace(trace, tmp_path / "disk"), storm.history.events)


def moments(recording: Recording, count: int, rng: random.Random) -> list[float]:
    """Half of them just after somebody was told something: nothing is less likely to be on the disk than what came last."""
    told = [event.at for event in recording.events if event.kind in ("applied", "conflicted", "saw")]
    first, last = told[0], recording.trace.times[-1]
    return [rng.choice(told) if index % 2 else rng.uniform(first, last) for index in range(count)]


async def losses(recording: Recording, moment: float, directory: Path, rng: random.Random, *, torn: bool) -> list[str]:
    """Cut the power at ``moment``; what is then missing of all that anybody had been told."""
    recording.trace.cut(moment, directory, rng, torn=torn)
    store = SqliteStore(directory / "rt.db", lambda: "a new epoch", time.time)
    try:
        await store.start()
    except StartFault as fault:
        return [str(fault)]
    try:
        found = {dashboard: await store.open(dashboard) for dashboard in DASHBOARDS}
    finally:
        await store.close()
    before = [event for event in recording.events if event.at <= moment]
    after = [event for dashboard, contents in found.items() for event in what_it_holds(dashboard, contents)]
    lost = [str(violation) for violation in check([*before, *after], one_clock=False)]
    return lost + [sentence for dashboard in DASHBOARDS for sentence in lost_conflicts(before, dashboard, found[dashboard])]


def what_it_holds(dashboard: str, contents: Contents) -> list[Event]:
    """A store's contents as a history tells them. Nothing has been cut from so short a log, so its records tell everything."""
    changes: list[Json] = [decode_json(change(text_of(logged.body), logged.seq)) for logged in contents.log if logged.seq]
    documents = Documents()
    for each in changes:
        documents.apply(each["type"], each["payload"])
    state = {"widgets": documents.on_wire("widget", "data"), "layouts": documents.on_wire("layout", "layout")}
    where = {"client": "store", "dashboard": dashboard, "epoch": contents.epoch, "seq": contents.seq}
    return [Synced(**where, mode="delta", operations=changes, via="post"), Finished(**where, **state)]


def lost_conflicts(before: list[Event], dashboard: str, contents: Contents) -> list[str]:
    """A conflict is a verdict too: who asks again must get the same."""
    kept = b"\n".join(logged.body for logged in contents.log if not logged.seq)
    conflicts = [event for event in before if isinstance(event, Conflicted) and event.dashboard == dashboard]
    return [f"the conflict of {each.op} is forgotten" for each in conflicts if f'["{each.op}",'.encode() not in kept]


async def cut_again_and_again(recording: Recording, tmp_path: Path, count: int, *, torn: bool) -> list[list[str]]:
    rng = random.Random(count)
    cuts = enumerate(moments(recording, count, rng))
    return [await losses(recording, moment, tmp_path / f"cut-{torn}-{number}", rng, torn=torn) for number, moment in cuts]


def assert_the_disk_was_busy(recording: Recording) -> None:
    syncs, writes = recording.trace.count(Kind.SYNC), recording.trace.count(Kind.WRITE)
    assert syncs > 20
    assert writes > syncs


async def test_a_power_cut_loses_nothing(make_server: Callable[..., ServerProcess], tmp_path: Path) -> None:
    recording = await record(make_server, tmp_path, "frequent-checkpoints", verdicts=400)
    assert_the_disk_was_busy(recording)
    for torn in (False, True):
        assert [lost for lost in await cut_again_and_again(recording, tmp_path, 15, torn=torn) if lost] == []


@pytest.mark.parametrize("level", ["NORMAL", "OFF"])
async def test_the_simulation_sees_what_a_lazier_setting_loses(
    make_server: Callable[..., ServerProcess], tmp_path: Path, level: str
) -> None:
    recording = await record(make_server, tmp_path, f"synchronous={level}", verdicts=200)
    outcomes = await cut_again_and_again(recording, tmp_path, 10, torn=False)
    assert any("lost" in sentence for lost in outcomes for sentence in lost), outcomes


@pytest.mark.soak
@pytest.mark.parametrize("mutations", ["", "frequent-checkpoints"])
@pytest.mark.parametrize("torn", [False, True])
async def test_two_hundred_power_cuts_lose_nothing(
    make_server: Callable[..., ServerProcess], tmp_path: Path, mutations: str, torn: bool
) -> None:
    recording = await record(make_server, tmp_path, mutations, verdicts=3_000)
    assert_the_disk_was_busy(recording)
    assert [lost for lost in await cut_again_and_again(recording, tmp_path, 200, torn=torn) if lost] == []
