"""One server for all cases of a module; each case is watched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from tests.abuse.fortress import Fortress


@pytest.fixture(scope="module")
def shared_fortress(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fortress]:
    fortress = Fortress(tmp_path_factory.mktemp("fortress"))
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(fortress.start())
    yield fortress
    fortress.process.close()


@pytest.fixture
def max_lines() -> int:
    """What a case may be worth in the log."""
    return 1


@pytest.fixture
def fortress(shared_fortress: Fortress, max_lines: int, io_loop: IOLoop) -> Iterator[Fortress]:
    """The server; after the test it must be what it was, and have little to say of it."""
    watch = shared_fortress.unharmed(max_lines)
    io_loop.run_sync(watch.__aenter__)
    yield shared_fortress
    io_loop.run_sync(lambda: watch.__aexit__(None, None, None))


@pytest.fixture
def make_fortress(tmp_path: Path) -> Iterator[Callable[..., Awaitable[Fortress]]]:
    """One with settings of its own, started; it ends with the test."""
    made: list[Fortress] = []

    async def make(**settings: Any) -> Fortress:
        made.append(Fortress(tmp_path, **settings))
        await made[-1].start()
        return made[-1]

    yield make
    for fortress in made:
        fortress.process.close()
