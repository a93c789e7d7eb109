"""What the disk and the kernel can do to the SQLite store, done by them and not by a stand-in."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.store.lodgings import Lodging, commit, fill, numbered, texts, until
from tornado_rt.errors import StartFault, Unavailable
from tornado_rt.store.base import VERDICT_SECONDS, Committed
from tornado_rt.store.sqlite import SqliteStore

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@pytest.fixture
def lodging(tmp_path: Path) -> Lodging:
    return Lodging("sqlite", tmp_path)


@pytest.fixture(scope="session")
def disk_faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that lets a process's disk fail."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("disk_faults") / "disk_faults.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "disk_faults.c", "-ldl"], check=True)
    return library


def start_child(program: str, database: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.child", program, database],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def facts_of_child(program: str, database: Path, library: Path) -> dict[str, Any]:
    """All that the child said, with the disk at its mercy."""
    child = start_child(program, database, LD_PRELOAD=str(library), DISK_FAULTS=str(database.parent))
    output, _ = child.communicate(timeout=60)
    assert child.returncode == 0
    facts: dict[str, Any] = {}
    for line in output.splitlines():
        facts |= json.loads(line)
    return facts


async def test_what_was_acknowledged_outlives_kill_9(lodging: Lodging) -> None:
    acknowledged = {"a": 0, "b": 0, "c": 0}
    for lines in (30, 90, 200):
        with start_child("write", lodging.path) as child:
            assert child.stdout is not None
            for _ in range(lines):
                fact = json.loads(child.stdout.readline())
                assert fact["seq"] == acknowledged[fact["dashboard"]] + 1
                acknowledged[fact["dashboard"]] = fact["seq"]
            child.kill()
            for line in child.stdout:
                fact = json.loads(line)
                acknowledged[fact["dashboard"]] = fact["seq"]
        async with lodging.open() as store:
            for dashboard, seq in acknowledged.items():
                log = texts(await store.open(dashboard))
                assert log == [(number, f"r{number}") for number in range(1, len(log) + 1)]
                assert len(log) in (seq, seq + 1)  # one more, if it was killed between the disk and the word
                acknowledged[dashboard] = len(log)


def test_a_full_disk_refuses_writes_and_takes_them_again_by_itself(lodging: Lodging, disk_faults: Path) -> None:
    facts = facts_of_child("fill_up", lodging.path, disk_faults)
    assert facts["full"] == {"refused": "The disk is full.", "outcome_unknown": False}
    assert facts["fault"] == "The disk is full."
    assert facts["after"] == {"seq": 2}
    assert facts["log"] == [[1, "one"], [2, "three"]]


async def test_after_a_failed_fsync_nothing_is_acknowledged_any_more(lodging: Lodging, disk_faults: Path) -> None:
    facts = facts_of_child("break_down", lodging.path, disk_faults)
    assert facts["before"] == {"seq": 1}
    assert all(outcome["outcome_unknown"] for outcome in facts["group"])
    assert facts["fatal"].startswith("The disk failed (SQLITE_IOERR_FSYNC")
    assert facts["fault"] == facts["fatal"]
    assert facts["after"] == {"refused": facts["fatal"], "outcome_unknown": False}
    async with lodging.open() as store:
        assert texts(await store.open("d"))[0] == (1, "one")


async def test_a_file_that_may_not_grow_refuses_whole_groups_until_there_is_room(lodging: Lodging) -> None:
    store = SqliteStore(lodging.path, lambda: "epoch", lodging.clock, max_page_count=12)
    await store.start()
    seqs = dict.fromkeys(("a", "b"), 0)
    while True:
        both = (store.commit(name, "epoch", seq, {}, [numbered("x" * 4000)]) for name, seq in seqs.items())
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        if outcomes != [Committed(seq + 1) for seq in seqs.values()]:
            break
        seqs = {name: seq + 1 for name, seq in seqs.items()}
    assert [str(outcome) for outcome in outcomes] == ["The disk is full."] * 2
    assert store.fault == "The disk is full."
    assert {name: (await store.open(name)).seq for name in seqs} == seqs
    lodging.clock.seconds += VERDICT_SECONDS + 1
    await store.snapshot("a", seqs["a"], b"small")  # which lets the log before it go
    assert store.fault is None
    assert await store.commit("a", "epoch", seqs["a"], {}, [numbered("y")]) == Committed(seqs["a"] + 1)
    await store.close()


async def test_a_lock_of_another_program_is_waited_for_while_reading_goes_on(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 1)
        other = sqlite3.connect(lodging.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(commit(store, numbered("r2"), seen=1))
        started = time.monotonic()
        await until(lambda: store.fault is not None)
        assert store.fault == "The database is locked by another program."
        assert time.monotonic() - started > 1  # shorter locks are not worth a word
        assert (await store.open("d")).seq == 1
        assert not waiting.done()
        other.execute("ROLLBACK")
        other.close()
        assert await waiting == Committed(2)
        assert store.fault is None


async def test_a_lock_that_is_never_given_back_refuses_what_waits(lodging: Lodging) -> None:
    store = SqliteStore(lodging.path, lambda: "epoch", lodging.clock, patience_seconds=0.2)
    await store.start()
    await fill(store, 1)
    other = sqlite3.connect(lodging.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked by another program"):
        await commit(store, numbered("r2", "k2"), seen=1)
    other.execute("ROLLBACK")
    other.close()
    assert await commit(store, numbered("r2", "k2"), seen=1) == Committed(2)
    await store.close()


async def test_a_bug_in_the_writer_refuses_everything_and_hangs_nothing(
    lodging: Lodging, caplog: pytest.LogCaptureFixture
) -> None:
    def clock() -> float:
        if broken:
            raise ZeroDivisionError("the clock")
        return 1.0

    broken: list[bool] = []
    fatal: asyncio.Queue[str] = asyncio.Queue()
    store = SqliteStore(lodging.path, lambda: "epoch", clock, on_fatal=fatal.put_nowait)
    await store.start()
    await fill(store, 1)
    broken.append(True)
    with pytest.raises(Unavailable) as refused:
        await commit(store, numbered("r2"), seen=1)
    assert not refused.value.outcome_unknown  # it had not been begun
    assert await fatal.get() == store.fault
    assert "ZeroDivisionError: the clock" in caplog.text
    with pytest.raises(Unavailable):
        await commit(store, numbered("r2"), seen=1)
    with pytest.raises(Unavailable):
        await store.snapshot("d", 1, b"")
    assert (await store.open("d")).seq == 1
    await store.close()


async def test_a_bug_while_a_snapshot_is_kept_leaves_nobody_waiting(lodging: Lodging) -> None:
    def clock() -> float:
        if broken:
            raise ZeroDivisionError("the clock")
        return 1.0

    broken: list[bool] = []
    store = SqliteStore(lodging.path, lambda: "epoch", clock)
    await store.start()
    await fill(store, 1)
    broken.append(True)
    await store.snapshot("d", 1, b"one")
    assert store.fault == "The store's writer has failed; its log says why."
    await store.close()


async def test_a_folder_that_does_not_exist_is_a_sentence(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "nowhere" / "log.db", lambda: "epoch", time.time)
    with pytest.raises(StartFault, match=r"nowhere/log\.db cannot be opened for writing: No such file or directory\."):
        await store.start()
