"""What every test stands on: an event loop of its own, no task left over, no error logged in silence."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from tornado.ioloop import IOLoop
from tornado.platform.asyncio import AsyncIOMainLoop

try:
    from uvloop import new_event_loop
except ImportError:  # uvloop does not exist on every platform; the server runs on asyncio's own loop there, and so do the tests
    from asyncio import new_event_loop

# A timing never fails a test; and what CI tries is the same each time, while developers' runs go on looking for something new.
settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=bool(os.environ.get("CI"))
)
settings.load_profile("patient")

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


PROJECT = Path(__file__).parent.parent
THIS_PYTHON = (sys.executable, "-m", "tornado_rt")


@dataclass
class ServerProcess:
    """A `tornado-rt serve` on a free port of loopback. ``log`` grows with every line that it logs, as parsed JSON."""

    process: subprocess.Popen[str]
    port: int
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(timeout=20)


StartServer = Callable[..., ServerProcess]


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without anything that the server would take for a setting, and with ``settings``."""
    ours = ("PORT", "HOST", "HOSTNAME", "NODE_ENV", "DYNO", "REDIS_URL", "NEXT_PUBLIC_WS_URL")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RT_") and name not in ours}
    return {**kept, "PYTHONPATH": str(PROJECT), **settings}


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """A function that starts a real server in a process of its own and waits until it listens; ended with the test."""
    started: list[ServerProcess] = []

    def start(*options: str, command: Sequence[str] = THIS_PYTHON, env: dict[str, str] | None = None) -> ServerProcess:
        process = subprocess.Popen(
            [*command, "serve", "--port", "0", "--log-format", "json", *options],
            cwd=tmp_path,
            env=clean_environment() if env is None else env,
            stderr=subprocess.PIPE,
            text=True,
        )
        server = ServerProcess(process, 0)
        started.append(server)
        assert process.stderr is not None
        for line in process.stderr:
            server.log.append(json.loads(line))
            if server.log[-1]["event"] == "listening":
                server.port = server.log[-1]["port"]
                threading.Thread(target=_drain, args=(server,), daemon=True).start()
                return server
        raise AssertionError(f"the server ended with status {process.wait()} and said {server.log}")

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
        if server.process.stderr is not None and not server.port:
            server.process.stderr.close()


def _drain(server: ServerProcess) -> None:
    """Read on, so that the server never waits for a reader."""
    assert server.process.stderr is not None
    with server.process.stderr:
        for line in server.process.stderr:
            server.log.append(json.loads(line))


def _cancel_leftovers(loop: asyncio.AbstractEventLoop) -> None:
    leftovers = asyncio.all_tasks(loop)
    for task in leftovers:
        task.cancel()
    if leftovers:
        loop.run_until_complete(asyncio.gather(*leftovers, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        gc.collect()  # a future whose exception nobody took says so only when it is collected
