"""The file, the group and the threads: what only the SQLite store promises."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.store.lodgings import Lodging, commit, conflict, fill, numbered, texts, until
from tornado_rt.errors import InvalidMessage, StartFault, Unavailable
from tornado_rt.store import ledger
from tornado_rt.store.base import VERDICT_SECONDS, Committed, Contents, Duplicate, Outcome, Record, Stale
from tornado_rt.store.sqlite import SqliteStore, backup, new_epoch, reading, schema, writer
from tornado_rt.store.sqlite.connection import WriteConnection


@pytest.fixture
def lodging(tmp_path: Path) -> Lodging:
    return Lodging("sqlite", tmp_path)


def sqlite_store(lodging: Lodging, **options: int) -> SqliteStore:
    return SqliteStore(lodging.path, lambda: "epoch", lodging.clock, **options)  # type: ignore[arg-type]


def put(store: SqliteStore, dashboard: str, *records: Record, seen: int = 0, **reads: int) -> asyncio.Future[Outcome]:
    return asyncio.ensure_future(store.commit(dashboard, store.epoch, seen, reads, records))


# Groups


async def test_what_comes_in_one_turn_of_the_loop_is_one_transaction(lodging: Lodging) -> None:
    store = sqlite_store(lodging)
    await store.start()
    outcomes = await asyncio.gather(*(put(store, f"d{n}", numbered("a"), numbered("b")) for n in range(100)))
    assert outcomes == [Committed(1)] * 100
    assert (store.counts.groups, store.counts.commits, store.counts.committed_operations) == (1, 100, 200)
    assert store.log_rows == 100
    assert store.counts.commit_seconds > 0
    await store.close()


async def test_what_comes_while_a_group_is_written_is_the_next_group(lodging: Lodging) -> None:
    store = sqlite_store(lodging)
    await store.start()
    other = sqlite3.connect(lodging.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    first = put(store, "first", numbered("a"))
    await until(lambda: not store._inbox.qsize())
    rest = [put(store, f"d{n}", numbered("a")) for n in range(50)]
    await until(lambda: store.waiting_operations == 51)
    other.execute("ROLLBACK")
    other.close()
    assert await asyncio.gather(first, *rest) == [Committed(1)] * 51
    assert store.counts.groups <= 3
    assert (store.waiting_operations, store.waiting_bytes) == (0, 0)
    await store.close()


async def test_two_commits_of_a_dashboard_at_once_are_judged_one_after_the_other(lodging: Lodging) -> None:
    store = sqlite_store(lodging)
    await store.start()
    first = put(store, "d", numbered("a", "k", writes=["w"]), w=0)
    stale = put(store, "d", numbered("b", "other", writes=["w"]), w=0)
    again = put(store, "d", numbered("c", "k"), w=0)
    assert await first == Committed(1)
    assert isinstance(await stale, Stale)
    assert isinstance(await again, Duplicate)
    assert store.counts.commits == 1
    await store.close()


@pytest.mark.parametrize(
    ("dashboard", "record"),
    [
        ("\ud800", numbered("a")),
        ("d", numbered("a", "\ud800")),
        ("d", numbered("a", writes=["\udfff"])),
        ("d", numbered("a\nb")),
        ("d", numbered("a", "k\nk")),
        ("d", numbered("a", "k\x1fk")),
        ("d", numbered("a", "k\x1dk")),
    ],
)
async def test_what_cannot_be_kept_fails_alone(lodging: Lodging, dashboard: str, record: Record) -> None:
    store = sqlite_store(lodging)
    await store.start()
    good = put(store, "good", numbered("a"))
    bad = put(store, dashboard, record)
    also_good = put(store, "also", numbered("a"))
    with pytest.raises(InvalidMessage):
        await bad
    assert [await good, await also_good] == [Committed(1), Committed(1)]
    assert store.waiting_operations == 0
    await store.close()


@pytest.mark.parametrize("limits", [{"max_waiting_operations": 10}, {"max_waiting_bytes": 100}])
async def test_the_queue_is_bounded(lodging: Lodging, limits: dict[str, int]) -> None:
    store = sqlite_store(lodging, **limits)
    await store.start()
    first = put(store, "d0", *[numbered("x" * 8) for _ in range(10)])  # more than may wait, but nothing does
    refused = put(store, "d1", numbered("a"))
    with pytest.raises(Unavailable) as refusal:
        await refused
    assert refusal.value.retry_after_ms == 500
    assert await first == Committed(1)
    assert await put(store, "d1", numbered("a")) == Committed(1)
    await store.close()


async def test_a_commit_whose_caller_has_gone_is_written_all_the_same(lodging: Lodging) -> None:
    store = sqlite_store(lodging)
    await store.start()
    gone = put(store, "d", numbered("a"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await put(store, "e", numbered("b")) == Committed(1)
    assert texts(await store.open("d")) == [(1, "a")]
    assert store.waiting_operations == 0
    await store.close()


def test_a_loop_that_ends_without_closing_its_store_breaks_nothing(lodging: Lodging) -> None:
    """The thread is left with nobody to tell; pytest turns an exception in it into a failure."""
    store = sqlite_store(lodging)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(store.start())
    other = sqlite3.connect(lodging.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    work = loop.create_task(store.commit("d", "epoch", 0, {}, [numbered("a")]))
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    work.cancel()
    loop.run_until_complete(asyncio.gather(work, return_exceptions=True))
    loop.close()
    other.execute("ROLLBACK")
    other.close()
    assert store._reader is not None
    store._reader._inbox.put(None)
    store._inbox.put(None)
    for thread in threading.enumerate():
        if thread.name.startswith("sqlite-"):
            thread.join(10)
    with closing(sqlite3.connect(lodging.path)) as connection:
        assert connection.execute("SELECT count(*) FROM journal").fetchone() == (1,)
    store._lock.release()


# Reading


async def test_ten_thousand_records_are_read_beside_the_loop(lodging: Lodging) -> None:
    store = sqlite_store(lodging)
    await store.start()
    for first in range(0, 10_000, 50):
        assert await put(store, "d", *[numbered(f"r{first + n}") for n in range(50)], seen=first) == Committed(first + 1)
    turns = 0
    opening = asyncio.ensure_future(store.open("d"))
    while not opening.done():
        await asyncio.sleep(0)
        turns += 1
    assert texts(await opening) == [(n + 1, f"r{n}") for n in range(10_000)]
    assert turns > 10
    await store.close()


async def test_every_read_is_of_one_moment(lodging: Lodging, monkeypatch: pytest.MonkeyPatch) -> None:
    """While commits and snapshots go on, and rows are cut, whatever is read is whole: no seq is wanting."""
    monkeypatch.setattr(ledger, "VERDICT_COUNT", 5)
    store = sqlite_store(lodging)
    await store.start()
    await fill(store, 1)

    async def write() -> None:
        for seq in range(1, 300):
            await put(store, "d", numbered(f"r{seq + 1}", f"k{seq + 1}"), conflict("x", f"c{seq}"), seen=seq)
            if seq % 3 == 0:
                await store.snapshot("d", seq, str(seq).encode())

    writing = asyncio.ensure_future(write())
    outcomes = {"whole": 0, "from since": 0, "cut": 0}
    while not writing.done():
        whole = await store.open("d")
        check_dense(whole, whole.log[0].seq - 1)
        since = max(whole.seq - 4, 0)
        part = await store.open("d", since)
        check_dense(part, since if part.state is None else part.log[0].seq - 1)
        outcomes["whole"] += 1
        outcomes["from since" if part.state is None else "cut"] += 1
    await writing
    assert outcomes["whole"] > 20
    assert outcomes["from since"] > 0
    await store.close()


def check_dense(contents: Contents, before: int) -> None:
    """The seqs go on from ``before`` to the last, and a snapshot stands where it says and reaches what was cut."""
    seqs = [logged.seq for logged in contents.log if logged.seq]
    assert seqs == list(range(before + 1, contents.seq + 1))
    if contents.state is not None:
        assert contents.state == str(contents.state_seq).encode()
        assert before <= contents.state_seq


async def test_an_index_that_is_behind_the_file_hides_nothing(lodging: Lodging) -> None:
    """The reader may look into the index just before the writer has brought it up to date."""
    async with lodging.open() as store:
        await fill(store, 4)
        with closing(schema.connect_read_only(lodging.path)) as connection:
            index = reading.scan(connection)
            lodging.clock.seconds += VERDICT_SECONDS + 1
            await commit(store, numbered("r5"))
            await store.snapshot("d", 3, b"three")
            for since in (None, 0, 2, 3, 4, 5, 6):
                opened = reading.open_at(connection, index, "d", store.epoch, since)
                assert opened.contents in (await store.open("d", since), await store.open("d"))
            assert reading.open_at(connection, index, "d", store.epoch, 4).contents.state is None


async def test_opening_tells_the_writer_the_keys(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
    store = sqlite_store(lodging)
    await store.start()
    await store.open("d")
    await until(lambda: store._index.ledgers["d"].is_warm)
    assert store._index.ledgers["d"].older == {"k1": 1, "k2": 2, "k3": 3}
    await store.close()


async def test_reading_does_not_wait_for_the_writer(lodging: Lodging) -> None:
    store = sqlite_store(lodging)
    await store.start()
    await fill(store, 2)
    other = sqlite3.connect(lodging.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = put(store, "d", numbered("r3"), seen=2)
    await asyncio.sleep(0)
    assert (await store.open("d")).seq == 2
    assert not waiting.done()
    other.execute("ROLLBACK")
    other.close()
    assert await waiting == Committed(3)
    await store.close()


# The file


async def test_the_log_is_synced_at_each_commit(lodging: Lodging) -> None:
    with closing(schema.connect(lodging.path)) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_nothing_but_the_file_is_left_after_closing(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 10)
        await store.open("d")
        assert Path(f"{lodging.path}-wal").stat().st_size > 0
    assert sorted(path.name for path in lodging.path.parent.iterdir()) == ["log.db", "log.db.lock"]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("sqlite-")]


async def test_the_write_ahead_log_is_emptied_when_nobody_writes(lodging: Lodging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_IDLE_SECONDS", 0.05)
    monkeypatch.setattr(writer, "_CHECKPOINT_BYTES", 100_000)  # what is moved before leaves the log as long as it was
    async with lodging.open() as store:
        await fill(store, 10)
        log = Path(f"{lodging.path}-wal")
        await until(lambda: log.stat().st_size == 0)
        assert (await store.open("d")).seq == 10


async def test_the_write_ahead_log_is_kept_short_under_load(lodging: Lodging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "_CHECKPOINT_BYTES", 100_000)
    async with lodging.open() as store:
        await fill(store, 100)
        assert Path(f"{lodging.path}-wal").stat().st_size < 500_000


async def test_a_transaction_that_fails_leaves_the_connection_ready_for_the_next(lodging: Lodging) -> None:
    with closing(schema.connect(lodging.path)) as sqlite:
        sqlite.execute("CREATE TABLE numbers(n INTEGER PRIMARY KEY)")
        connection = WriteConnection(sqlite, patience_seconds=0.0)
        trouble = connection.write([("INSERT INTO numbers VALUES (?)", [(1,), (2,), (1,)])], 0)
        assert trouble is not None
        assert not trouble.is_fatal
        assert connection.write([("INSERT INTO numbers VALUES (?)", [(3,)])], 0) is None
        assert connection.trouble is None
        assert sqlite.execute("SELECT n FROM numbers").fetchall() == [(3,)]


async def test_a_second_server_is_refused_with_the_number_of_the_first(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 1)
        with pytest.raises(StartFault, match=f"is in use by process {os.getpid()}; one server at a time"):
            await sqlite_store(lodging).start()
        with pytest.raises(StartFault, match="is in use"):
            new_epoch(lodging.path, "mine")
        assert await commit(store, numbered("r2")) == Committed(2)
    async with lodging.open() as store:
        assert (await store.open("d")).seq == 2


async def test_a_store_that_could_not_start_lets_go_of_the_file(lodging: Lodging) -> None:
    lodging.path.write_bytes(b"It was a dark and stormy night; " * 100)
    for _ in range(2):
        store = sqlite_store(lodging)
        with pytest.raises(StartFault, match=r"log\.db is not a SQLite database\."):
            await store.start()
        with pytest.raises(Unavailable):
            await store.open("d")


async def test_another_programs_database_is_refused(lodging: Lodging) -> None:
    with closing(sqlite3.connect(lodging.path)) as connection:
        connection.execute("CREATE TABLE journal(entry)")
    with pytest.raises(StartFault, match="not one of tornado_rt"):
        await sqlite_store(lodging).start()


async def test_a_newer_schema_is_refused(lodging: Lodging) -> None:
    async with lodging.open():
        pass
    with closing(sqlite3.connect(lodging.path)) as connection:
        connection.execute(f"PRAGMA user_version={len(schema.MIGRATIONS) + 1}")
    with pytest.raises(StartFault, match=r"has schema version 2; this program knows 1\. Use a newer tornado_rt\."):
        await sqlite_store(lodging).start()


async def test_an_older_schema_is_lifted_after_a_copy(lodging: Lodging, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
    step = "CREATE TABLE notes(text); INSERT INTO notes VALUES('lifted');"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, step))
    async with lodging.open() as store:
        assert texts(await store.open("d")) == [(1, "r1"), (2, "r2"), (3, "r3")]
    with closing(sqlite3.connect(lodging.path)) as connection:
        assert connection.execute("SELECT text FROM notes").fetchone() == ("lifted",)
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    with closing(sqlite3.connect(f"{lodging.path}.version-1")) as copy:
        assert copy.execute("PRAGMA user_version").fetchone() == (1,)
        assert copy.execute("SELECT count(*) FROM journal").fetchone() == (3,)


async def test_a_step_that_fails_leaves_the_older_schema_as_it_was(lodging: Lodging, monkeypatch: pytest.MonkeyPatch) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "DELETE FROM journal; INSERT INTO nowhere VALUES (1);"))
        with pytest.raises(StartFault, match="no such table: nowhere"):
            await sqlite_store(lodging).start()
    async with lodging.open() as store:
        assert (await store.open("d")).seq == 3


# Copies


async def test_a_backup_beside_a_running_server_is_whole_and_has_an_epoch_of_its_own(lodging: Lodging) -> None:
    target = lodging.path.with_name("copy.db")
    async with lodging.open() as store:
        seq = 0
        copying = asyncio.ensure_future(asyncio.to_thread(backup, lodging.path, target, "copied"))
        while not copying.done() or seq < 5:
            assert await store.commit("d", store.epoch, seq, {}, [numbered(f"r{seq + 1}")]) == Committed(seq + 1)
            seq += 1
        await copying
        epoch = store.epoch
    copy = SqliteStore(target, lambda: "unused", lodging.clock)
    await copy.start()
    assert (copy.epoch, epoch) == ("copied", "epoch-1")
    log = texts(await copy.open("d"))
    assert log == [(n, f"r{n}") for n in range(1, len(log) + 1)]
    await copy.close()
    assert not target.with_name("copy.db.partial").exists()


async def test_a_backup_holds_what_was_acknowledged_before_it(lodging: Lodging) -> None:
    target = lodging.path.with_name("copy.db")
    async with lodging.open() as store:
        await fill(store, 5)
        await store.snapshot("d", 3, b"three")
        backup(lodging.path, target, "copied")
        expected = await store.open("d")
    copy = SqliteStore(target, lambda: "unused", lodging.clock)
    await copy.start()
    contents = await copy.open("d")
    contents.epoch = expected.epoch
    assert contents == expected
    await copy.close()


def test_a_backup_is_never_written_over_anything(lodging: Lodging) -> None:
    target = lodging.path.with_name("copy.db")
    with pytest.raises(StartFault, match="There is no database"):
        backup(lodging.path, target, "copied")
    target.write_text("precious")
    with pytest.raises(StartFault, match="exists already"):
        backup(lodging.path, target, "copied")
    assert target.read_text() == "precious"


async def test_a_backup_that_fails_leaves_nothing_behind(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 1)
    with pytest.raises(StartFault, match=r"^The backup of .* failed: "):
        backup(lodging.path, lodging.path.parent / "nowhere" / "copy.db", "copied")
    lodging.path.write_bytes(b"no database at all, " * 100)
    with pytest.raises(StartFault, match="is not a SQLite database"):
        backup(lodging.path, lodging.path.with_name("copy.db"), "copied")
    assert not list(lodging.path.parent.glob("copy.db*"))


async def test_a_restored_file_can_be_given_a_new_epoch(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 2)
    new_epoch(lodging.path, "restored")
    async with lodging.open() as store:
        assert store.epoch == "restored"
        assert (await store.open("d")).seq == 2
    with pytest.raises(StartFault, match="There is no database"):
        new_epoch(lodging.path.with_name("nowhere.db"), "restored")
