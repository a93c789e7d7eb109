"""What every test stands on: an event loop of its own, no task left over, no error logged in silence."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator

import pytest
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import AsyncIOMainLoop

try:
    from uvloop import new_event_loop
except ImportError:  # uvloop does not exist on every platform; the server runs on asyncio's own loop there, and so do the tests
    from asyncio import new_event_loop

WATCHED_LOGGERS = ("tornado.application", "asyncio")


class _ErrorCollector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture(autouse=True)
def logged_errors(request: pytest.FixtureRequest) -> Iterator[list[logging.LogRecord]]:
    """Fails the test if Tornado or asyncio logged an error that nobody looked at, unless it is marked ``logs_errors``.

    Such a record is an exception that escaped: from a callback, a handler, or a task that nobody awaited.
    """
    collector = _ErrorCollector()
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).addHandler(collector)
    yield collector.records
    for name in WATCHED_LOGGERS:
        logging.getLogger(name).removeHandler(collector)
    if collector.records and not request.node.get_closest_marker("logs_errors"):
        formatter = logging.Formatter("%(name)s: %(message)s")
        pytest.fail("errors were logged:\n" + "\n".join(map(formatter.format, collector.records)), pytrace=False)


@pytest.fixture
def io_loop(logged_errors: list[logging.LogRecord]) -> Iterator[IOLoop]:
    """A fresh loop, uvloop's where there is one, as in the server. Tasks that a test leaves behind are cancelled at its end."""
    asyncio_loop = new_event_loop()
    asyncio.set_event_loop(asyncio_loop)
    loop = AsyncIOMainLoop()
    yield loop
    _cancel_leftovers(asyncio_loop)
    loop.close(all_fds=True)
    asyncio_loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def own_loop(io_loop: IOLoop) -> None:
    """Every test gets a loop of its own, asked for or not: a shared one would carry a time-out into the tests after it."""


def _cancel_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    leftovers = asyncio.all_tasks(loop)
    for task in leftovers:
        task.cancel()
    if leftovers:
        loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        gc.collect()  # a future whose exception nobody took says so only when it is collected
