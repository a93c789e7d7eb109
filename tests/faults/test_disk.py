"""A disk that is full, and a database that another program has locked: nothing stops but what must, and all goes on after."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.line import on_line
from tests.faults.process import ServerProcess
from tests.faults.storm import Storm
from tornado_rt.loadtest.history import Refused

LOCKED_SECONDS = 3.0

log = logging.getLogger(__name__)


@pytest.fixture
def full_server(make_server: Callable[..., ServerProcess]) -> ServerProcess:
    """Its disk is full after half a megabyte."""
    return make_server("max-pages=64")


def make_room(tmp_path: Path) -> None:
    (tmp_path / "rt.db.room").touch()


async def test_a_full_disk_refuses_writes_and_nothing_else(full_server: ServerProcess, tmp_path: Path) -> None:
    server = full_server
    await server.start()
    async with on_line(server.api) as line:
        acknowledged = 0
        answer = await line.update("w", value=0)
        while answer["type"] == "ACK":
            acknowledged += 1
            assert answer["payload"]["seq"] == acknowledged
            refused_id, value = f"big-{acknowledged}", f"{acknowledged}:" + "x" * 8_000
            answer = await line.update("w", refused_id, value=value)

        assert answer["type"] == "NACK"
        assert answer["payload"]["code"] == "UNAVAILABLE"
        assert answer["payload"]["retryable"] is True
        assert "outcome" not in answer["payload"]

        await reads_go_on(server, acknowledged)
        snapshot = await line.snapshot()
        assert snapshot["seq"] == acknowledged
        assert snapshot["widgets"]["w"]["data"]["value"].startswith(f"{acknowledged - 1}:")

        make_room(tmp_path)
        await server.until_status(200)
        again = await line.update("w", refused_id, value=value)
        assert again["type"] == "ACK"
        assert again["payload"]["seq"] == acknowledged + 1
        assert "duplicate" not in again["payload"]


async def reads_go_on(server: ServerProcess, seq: int) -> None:
    assert (await server.fetch("/healthz")).code == 200
    assert await server.readiness() == 503
    status = json.loads((await server.fetch("/api/realtime?userId=bob")).body)
    assert status["status"] == "degraded"
    async with on_line(server.api, "bob", since=0) as reader:
        assert reader.connect["type"] == "CONNECT"
        assert reader.connect["payload"]["sync"]["seq"] == seq
        assert (await reader.ask("PING", {}))["type"] == "PONG"
    async with on_line(server.api, "bob", "another board", since=0) as reader:
        assert reader.connect["payload"]["sync"]["widgets"] == {}
    operation = {"operationId": "o", "type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {"value": "y" * 50_000}}}
    body = json.dumps({"type": "SYNC", "operations": [operation], "dashboardId": "board", "since": 0})
    headers = {"Content-Type": "application/json"}
    posted = json.loads((await server.fetch("/api/realtime?userId=bob", method="POST", headers=headers, body=body)).body)
    assert posted["results"][0]["code"] == "UNAVAILABLE"
    assert posted["sync"]["seq"] == seq


def refusals(storm: Storm) -> int:
    return sum(isinstance(event, Refused) and event.code == "UNAVAILABLE" for event in storm.history)


async def test_a_storm_on_a_full_disk_settles_when_there_is_room(full_server: ServerProcess, tmp_path: Path) -> None:
    await full_server.start()
    storm = Storm(full_server, tmp_path / "history.jsonl", seed=3)
    async with storm.blowing():
        await storm.until(lambda: refusals(storm) >= 20)
        make_room(tmp_path)
        await storm.more_verdicts(50)
        await storm.settle()
    assert [str(violation) for violation in storm.judged()] == []


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Callable[[], sqlite3.Connection]]:
    """Locks the server's database for writing, as another program might, until ``rollback``."""
    connections: list[sqlite3.Connection] = []

    def lock() -> sqlite3.Connection:
        connection = sqlite3.connect(tmp_path / "rt.db", timeout=20, isolation_level=None)
        connections.append(connection)
        connection.execute("BEGIN IMMEDIATE")
        return connection

    yield lock
    for connection in connections:
        connection.close()


async def test_a_locked_database_delays_writes_and_not_the_loop(
    server: ServerProcess, locked: Callable[[], sqlite3.Connection]
) -> None:
    await server.start()
    async with on_line(server.api) as line, on_line(server.api, "bob") as other:
        assert (await line.update("w", value=1))["type"] == "ACK"
        lock = locked()
        waiting = await line.send("WIDGET_UPDATE", {"widgetId": "w", "data": {"value": 2}})
        round_trips = []
        end = time.monotonic() + LOCKED_SECONDS
        while time.monotonic() < end:
            start = time.monotonic()
            assert (await other.ask("PING", {}))["type"] == "PONG"
            round_trips.append(time.monotonic() - start)
            await asyncio.sleep(0.005)
        async with on_line(server.api, "cyd", since=0) as newcomer:
            assert newcomer.connect["payload"]["seq"] == 1  # nobody is told what is not written
        assert [message["payload"]["seq"] for message in other.heard if message["type"] == "WIDGET_UPDATE"] == [1]
        lock.rollback()
        answer = await line.answer_to(waiting)
        assert (answer["type"], answer["payload"]["seq"]) == ("ACK", 2)
    round_trips.sort()
    stats = json.loads((await server.fetch("/api/realtime/stats?userId=ann")).body)
    p99, worst, lag = round_trips[len(round_trips) * 99 // 100], round_trips[-1], stats["loopLag"]["max"]
    log.info("%d pings while locked, p99 %.4f s, worst %.4f s; worst loop lag %.4f s", len(round_trips), p99, worst, lag)
    with closing(sqlite3.connect(f"{server.store_file}")) as check:
        assert check.execute("PRAGMA integrity_check").fetchone() == ("ok",)
