"""What ``store/base.py`` promises, asked of every store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.store.lodgings import KINDS, Lodging, commit, conflict, fill, numbered, texts
from tornado_rt.errors import Unavailable
from tornado_rt.store import ledger
from tornado_rt.store.base import VERDICT_SECONDS, Committed, Contents, Duplicate, Logged, NewEpoch, Record, Stale


@pytest.fixture(params=KINDS)
def lodging(request: pytest.FixtureRequest, tmp_path: Path) -> Lodging:
    return Lodging(request.param, tmp_path)


@pytest.fixture
def few_verdicts(monkeypatch: pytest.MonkeyPatch) -> int:
    """The verdicts of four operations are kept, instead of ten thousand."""
    monkeypatch.setattr(ledger, "VERDICT_COUNT", 4)
    return 4


# Seqs and contents


async def test_numbered_records_get_adjacent_seqs_from_one_on(lodging: Lodging) -> None:
    async with lodging.open() as store:
        assert await commit(store, numbered("a"), conflict("x"), numbered("b")) == Committed(1)
        assert await commit(store, conflict("y")) == Committed(3)
        assert await commit(store, numbered("c")) == Committed(3)
        assert texts(await store.open("d")) == [(1, "a"), (0, "x"), (2, "b"), (0, "y"), (3, "c")]


async def test_dashboards_have_seqs_of_their_own(lodging: Lodging) -> None:
    async with lodging.open() as store:
        assert await commit(store, numbered("a"), numbered("b"), dashboard="one") == Committed(1)
        assert await commit(store, numbered("c"), dashboard="two") == Committed(1)
        assert texts(await store.open("two")) == [(1, "c")]


async def test_an_unknown_dashboard_is_empty(lodging: Lodging) -> None:
    async with lodging.open() as store:
        assert await store.open("d") == Contents(store.epoch, 0)
        assert await store.open("d", 0) == Contents(store.epoch, 0)


async def test_records_carry_the_second_of_their_commit(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await commit(store, numbered("a"))
        lodging.clock.seconds += 7.5
        await commit(store, numbered("b"))
        first, second = (await store.open("d")).log
        assert second == Logged(2, b"b", lodging.clock.seconds)
        assert first.at == lodging.clock.seconds - 7.5


@pytest.mark.parametrize("body", [b"", b"\0", b"a\0b\tc\r", "ключ \u2028 🙂".encode(), bytes(range(11, 256))])
async def test_bodies_come_back_as_they_were(lodging: Lodging, body: bytes) -> None:
    async with lodging.open() as store:
        await commit(store, Record(body), Record(body, numbered=False), Record(body))
        store = await lodging.reopen(store)
        assert [logged.body for logged in (await store.open("d")).log] == [body, body, body]
        await store.close()


async def test_a_commit_of_nothing_only_asks_what_was_missed(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 2)
        outcome = await commit(store, seen=1)
        assert isinstance(outcome, Committed)
        assert outcome.first_seq == 3
        assert outcome.missed is not None
        assert texts(outcome.missed) == [(2, "r2")]
        assert (await store.open("d")).seq == 2


async def test_a_log_is_the_same_after_a_restart(lodging: Lodging) -> None:
    async with lodging.open() as store:
        epoch = store.epoch
        await fill(store, 3)
        await commit(store, conflict("x", "kx"))
        await store.snapshot("d", 2, b"two")
        before = await store.open("d")
        store = await lodging.reopen(store)
        assert store.epoch == epoch
        assert await store.open("d") == before
        assert await commit(store, numbered("after")) == Committed(4)
        await store.close()


async def test_commits_that_come_at_once_are_all_kept_in_one_order(lodging: Lodging) -> None:
    async with lodging.open() as store:
        commits = [commit(store, numbered(f"{n}", f"k{n}"), seen=0, doc=0) for n in range(50)]
        outcomes = await asyncio.gather(*commits)
        seqs = [outcome.first_seq for outcome in outcomes if isinstance(outcome, Committed)]
        assert sorted(seqs) == list(range(1, 51))
        log = texts(await store.open("d"))
        assert log == sorted((seq, str(n)) for n, seq in enumerate(seqs))


# Reading on from a position


async def test_since_brings_what_came_after_it(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await commit(store, numbered("a"), conflict("x"), numbered("b"), numbered("c"))
        await commit(store, conflict("y"))
        await commit(store, numbered("d"))
        everything = [(1, "a"), (0, "x"), (2, "b"), (3, "c"), (0, "y"), (4, "d")]
        for since, rest in ((0, everything), (1, everything[1:]), (2, everything[3:]), (3, everything[4:]), (4, [])):
            contents = await store.open("d", since)
            assert (texts(contents), contents.seq, contents.state) == (rest, 4, None)


async def test_since_beyond_the_log_brings_everything(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 2)
        assert await store.open("d", 3) == await store.open("d")


async def test_since_before_what_was_cut_brings_the_snapshot(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
        lodging.clock.seconds += VERDICT_SECONDS + 1
        await commit(store, numbered("r4"))
        await store.snapshot("d", 2, b"two")
        reached = await store.open("d", 2)
        assert (texts(reached), reached.state) == ([(3, "r3"), (4, "r4")], None)
        cut = await store.open("d", 1)
        assert (texts(cut), cut.state, cut.state_seq, cut.seq) == ([(3, "r3"), (4, "r4")], b"two", 2, 4)
        store = await lodging.reopen(store)
        assert await store.open("d", 2) == reached
        assert await store.open("d", 1) == cut
        await store.close()


# Others on the same log


async def test_one_who_is_behind_gets_what_was_missed_with_the_answer(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
        outcome = await commit(store, numbered("mine", writes=["other"]), seen=1, other=0)
        assert isinstance(outcome, Committed)
        assert outcome.first_seq == 4
        assert outcome.missed is not None
        assert (texts(outcome.missed), outcome.missed.seq) == ([(2, "r2"), (3, "r3")], 3)


async def test_decisions_about_a_document_that_changed_are_stale(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await commit(store, numbered("one", writes=["w1", "w2"]))
        await commit(store, numbered("two", writes=["w2"]))
        outcome = await commit(store, numbered("mine"), seen=1, w2=1)
        assert isinstance(outcome, Stale)
        assert texts(outcome.missed) == [(2, "two")]
        assert (await store.open("d")).seq == 2


async def test_who_is_behind_and_does_not_say_what_was_read_is_stale(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 2)
        assert isinstance(await commit(store, numbered("mine"), seen=1), Stale)


async def test_documents_that_were_not_read_make_nothing_stale(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await commit(store, numbered("one", writes=["w1"]))
        await commit(store, numbered("two", writes=["w2"]))
        assert isinstance(await commit(store, numbered("mine"), seen=1, w1=1, w3=0), Committed)


async def test_a_record_in_the_middle_of_a_commit_makes_stale_who_saw_its_beginning(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await commit(store, numbered("one", writes=["w1"]), numbered("two", writes=["w2"]))
        assert isinstance(await commit(store, numbered("mine"), seen=1, w1=1), Committed)
        assert isinstance(await commit(store, numbered("mine"), seen=1, w2=0), Stale)


async def test_who_is_behind_a_cut_log_is_stale_with_the_snapshot(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
        lodging.clock.seconds += VERDICT_SECONDS + 1
        await store.snapshot("d", 3, b"three")
        outcome = await commit(store, numbered("mine"), seen=1, elsewhere=0)
        assert outcome == Stale(Contents(store.epoch, 3, b"three", 3))


async def test_another_epoch_is_told(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 1)
        assert await store.commit("d", "foreign", 1, {}, [numbered("x")]) == NewEpoch(store.epoch)
        assert await commit(store, numbered("x"), seen=2) == NewEpoch(store.epoch)
        assert (await store.open("d")).seq == 1


# Operation keys


async def test_a_known_key_is_answered_with_the_first_record(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await commit(store, numbered("a", "ka"), conflict("x", "kx"), numbered("b", "kb", "kb2"))
        log = (await store.open("d")).log
        assert await commit(store, numbered("new", "new"), numbered("again", "kb2")) == Duplicate({1: log[2]})
        assert await commit(store, conflict("again", "kx"), numbered("again", "ka")) == Duplicate({0: log[1], 1: log[0]})
        assert (await store.open("d")).seq == 2


async def test_a_duplicate_comes_with_what_was_missed(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 2)
        outcome = await commit(store, numbered("again", "k2"), seen=1, doc=1)
        assert isinstance(outcome, Duplicate)
        assert outcome.missed is not None
        assert texts(outcome.missed) == [(2, "r2")]


async def test_keys_are_known_after_a_restart(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
        store = await lodging.reopen(store)
        outcome = await store.commit("d", store.epoch, 3, {}, [numbered("again", "k2")])
        assert isinstance(outcome, Duplicate)
        assert outcome.verdicts[0].body == b"r2"
        assert await commit(store, numbered("new", "k4")) == Committed(4)
        assert isinstance(await commit(store, numbered("again", "k4")), Duplicate)
        await store.close()


async def test_keys_are_known_when_nobody_follows_any_more(lodging: Lodging) -> None:
    async with lodging.open() as store:
        unfollow = store.follow("d", lambda contents: None)
        await fill(store, 2)
        unfollow()
        assert isinstance(await commit(store, numbered("again", "k1")), Duplicate)
        await commit(store, numbered("new", "k3"))
        assert isinstance(await commit(store, numbered("again", "k3")), Duplicate)


async def test_keys_are_of_one_dashboard(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await commit(store, numbered("a", "k"), dashboard="one")
        assert await commit(store, numbered("a", "k"), dashboard="two") == Committed(1)


async def test_a_key_is_forgotten_after_a_day(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 1)
        lodging.clock.seconds += VERDICT_SECONDS
        assert isinstance(await commit(store, numbered("again", "k1")), Duplicate)
        lodging.clock.seconds += 1
        assert await commit(store, numbered("again", "k1")) == Committed(2)
        assert isinstance(await commit(store, numbered("again", "k1")), Duplicate)


async def test_a_key_is_forgotten_after_so_many_operations(lodging: Lodging, few_verdicts: int) -> None:
    async with lodging.open() as store:
        await fill(store, few_verdicts)
        assert isinstance(await commit(store, numbered("again", "k1")), Duplicate)
        await commit(store, numbered("one more", "k5"))
        assert isinstance(await commit(store, numbered("again", "k2")), Duplicate)
        assert isinstance(await commit(store, numbered("again", "k1")), Committed)


# Snapshots


async def test_snapshot_and_tail_are_the_whole_log(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 4)
        await store.snapshot("d", 3, b"three")
        contents = await store.open("d")
        assert (contents.state, contents.state_seq, contents.seq) == (b"three", 3, 4)
        assert texts(contents)[-1] == (4, "r4")


async def test_a_snapshot_keeps_the_records_that_verdicts_need(lodging: Lodging, few_verdicts: int) -> None:
    async with lodging.open() as store:
        await fill(store, 6)
        await store.snapshot("d", 6, b"six")
        assert texts(await store.open("d")) == [(3, "r3"), (4, "r4"), (5, "r5"), (6, "r6")]
        assert isinstance(await commit(store, numbered("again", "k3")), Duplicate)


async def test_a_snapshot_cuts_what_is_older_than_a_day_and_nothing_behind_itself(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
        lodging.clock.seconds += VERDICT_SECONDS + 1
        await store.snapshot("d", 2, b"two")
        assert texts(await store.open("d")) == [(3, "r3")]
        assert isinstance(await commit(store, numbered("again", "k2")), Committed)
        await store.snapshot("d", 4, b"four")
        store = await lodging.reopen(store)
        contents = await store.open("d")
        assert (contents.seq, contents.state, texts(contents)) == (4, b"four", [(4, "again")])
        await store.close()


async def test_a_log_without_rows_goes_on_where_its_snapshot_stands(lodging: Lodging) -> None:
    async with lodging.open() as store:
        await fill(store, 3)
        lodging.clock.seconds += VERDICT_SECONDS + 1
        await store.snapshot("d", 3, b"three")
        store = await lodging.reopen(store)
        assert await store.open("d") == Contents(store.epoch, 3, b"three", 3)
        assert await store.open("d", 3) == Contents(store.epoch, 3)
        assert await store.commit("d", store.epoch, 3, {}, [numbered("next", "k4")]) == Committed(4)
        await store.close()


@pytest.mark.parametrize("seq", [1, 2, 5])
async def test_a_snapshot_that_is_older_than_the_last_or_newer_than_the_log_is_ignored(lodging: Lodging, seq: int) -> None:
    async with lodging.open() as store:
        await fill(store, 4)
        await store.snapshot("d", 2, b"two")
        await store.snapshot("d", seq, b"wrong")
        await store.snapshot("nowhere", 1, b"wrong")
        assert (await store.open("d")).state == b"two"
        assert await store.open("nowhere") == Contents(store.epoch, 0)


# Following


async def test_another_servers_commits_are_told_in_order(lodging: Lodging) -> None:
    async with lodging.open() as store:
        other = lodging.peer(store)
        heard: asyncio.Queue[Contents] = asyncio.Queue()
        store.follow("d", heard.put_nowait)
        other.follow("d", lambda contents: None)
        await commit(other, numbered("a"), conflict("x"))
        await commit(other, numbered("elsewhere"), dashboard="e")
        await commit(other, numbered("b"))
        assert await heard.get() == Contents(store.epoch, 1, log=(await store.open("d")).log[:2])
        contents = await heard.get()
        assert (texts(contents), contents.seq) == ([(2, "b")], 2)
        assert heard.empty()


async def test_the_committer_has_its_answer_before_anybody_hears(lodging: Lodging) -> None:
    async with lodging.open() as store:
        told: list[str] = []
        heard = asyncio.Event()

        def hear(contents: Contents) -> None:
            told.append("heard")
            heard.set()

        lodging.peer(store).follow("d", hear)
        store.follow("d", lambda contents: None)
        await commit(store, numbered("a"))
        told.append("answered")
        await heard.wait()
        assert told == ["answered", "heard"]


async def test_a_follower_alone_hears_nothing_of_its_own(lodging: Lodging) -> None:
    async with lodging.open() as store:
        told: list[Contents] = []
        store.follow("d", told.append)
        await fill(store, 2)
        await asyncio.sleep(0)
        assert told == []


async def test_a_follower_that_has_ended_hears_nothing(lodging: Lodging) -> None:
    async with lodging.open() as store:
        other = lodging.peer(store)
        told: list[Contents] = []
        heard: asyncio.Queue[Contents] = asyncio.Queue()
        unfollow = store.follow("d", told.append)
        store.follow("d", heard.put_nowait)
        other.follow("d", lambda contents: None)
        unfollow()
        unfollow()
        await commit(other, numbered("a"))
        assert texts(await heard.get()) == [(1, "a")]
        assert told == []


# The end


async def test_a_closed_store_is_unavailable_and_says_so(lodging: Lodging) -> None:
    async with lodging.open() as store:
        assert store.fault is None
        await store.close()
        assert store.fault is not None
        with pytest.raises(Unavailable):
            await store.open("d")
        with pytest.raises(Unavailable):
            await store.commit("d", store.epoch, 0, {}, [numbered("a")])
        with pytest.raises(Unavailable):
            await store.snapshot("d", 1, b"")


async def test_what_waits_when_the_store_closes_is_written_out(lodging: Lodging) -> None:
    async with lodging.open() as store:
        waiting = [asyncio.ensure_future(commit(store, numbered("x", f"k{n}"), seen=0, dashboard=f"d{n}")) for n in range(20)]
        await asyncio.sleep(0)
        store = await lodging.reopen(store)
        assert await asyncio.gather(*waiting) == [Committed(1)] * 20
        assert [(await store.open(f"d{n}")).seq for n in range(20)] == [1] * 20
        await store.close()
