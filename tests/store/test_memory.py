"""What the memory store does beyond the contract, for those who test rooms against it."""

from __future__ import annotations

import asyncio

import pytest

from tests.store.lodgings import Clock, commit, fill, numbered, texts
from tornado_rt.store.base import Committed, Contents, NewEpoch
from tornado_rt.store.memory import MemoryStore


async def test_a_commit_never_suspends() -> None:
    store = MemoryStore("epoch", Clock())
    with pytest.raises(StopIteration) as done:
        store.commit("d", "epoch", 0, {}, [numbered("a")]).send(None)  # type: ignore[attr-defined]
    assert done.value.value == Committed(1)


async def test_a_peer_is_another_server_on_the_same_memory() -> None:
    store = MemoryStore("epoch", Clock())
    assert not store.is_shared
    peer = store.peer()
    assert store.is_shared
    assert peer.is_shared
    await fill(store, 1)
    assert texts(await peer.open("d")) == [(1, "r1")]


async def test_a_peers_follower_hears_and_ones_own_does_not() -> None:
    store = MemoryStore("epoch", Clock())
    heard: asyncio.Queue[str] = asyncio.Queue()
    store.follow("d", lambda contents: heard.put_nowait("own"))
    store.peer().follow("d", lambda contents: heard.put_nowait("peer's"))
    await fill(store, 2)
    assert [await heard.get(), await heard.get()] == ["peer's", "peer's"]
    assert heard.empty()


async def test_a_memory_that_was_lost_has_another_epoch_and_says_so() -> None:
    store = MemoryStore("first", Clock())
    heard: asyncio.Queue[Contents] = asyncio.Queue()
    store.peer().follow("d", heard.put_nowait)
    await fill(store, 1)
    await heard.get()
    store.lose("second")
    assert await heard.get() == Contents("second", 0)
    assert await store.open("d") == Contents("second", 0)
    assert await store.commit("d", "first", 1, {}, [numbered("b")]) == NewEpoch("second")
    assert await commit(store, numbered("b")) == await commit(store.peer(), numbered("c"), dashboard="other")
