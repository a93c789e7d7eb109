"""SIGTERM: newcomers are turned away, what is in flight is answered, everybody gets a slot to come back in, and all ends well.

What is in flight is kept there by a lock on the database, so that nothing here depends on being fast.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.line import Json, Line, on_line
from tests.faults.process import ServerProcess

END_SECONDS = 20.0
GRACE_AND_A_LOT_SECONDS = 7.0  # of a grace of one second; less than the ten for which the store waits for a lock
USERS = ("ann", "bob", "cyd")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, timeout=20, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
    finally:
        connection.close()


async def draining(server: ServerProcess) -> None:
    """Send SIGTERM and wait until the server shows it."""
    server.terminate()
    await server.until_status(503)


async def turned_away(server: ServerProcess) -> int:
    """Try to come in; the slot that was given, in ms."""
    async with on_line(server.api, "late") as newcomer:
        assert newcomer.connect["type"] == "DISCONNECT"
        payload = newcomer.connect["payload"]
        assert (payload["code"], payload["reason"], payload["reconnect"]) == (1013, "Try again later", True)
        _, code, reason = await newcomer.end()
        assert (code, reason) == (1013, "Try again later")
        slot: int = payload["retryAfterMs"]
        return slot


async def test_sigterm_answers_what_is_in_flight_and_sends_everybody_off_with_a_slot(server: ServerProcess) -> None:
    await server.start()
    async with contextlib.AsyncExitStack() as stack:
        lines = [await stack.enter_async_context(on_line(server.api, user)) for user in USERS]
        assert (await lines[0].update("w", value=0))["type"] == "ACK"
        with locked(server.store_file) as lock:
            waiting = [await line.send("WIDGET_UPDATE", {"widgetId": "w", "data": {line.user: 1}}) for line in lines]
            for line in lines:
                assert (await line.ask("PING", {}))["type"] == "PONG"  # so the update before it has come in, too
            await draining(server)

            assert (await server.fetch("/healthz")).code == 200
            assert await turned_away(server) > 0
            posted = await server.fetch(
                "/api/realtime?userId=late",
                method="POST",
                headers={"Content-Type": "application/json"},
                body='{"type": "SYNC", "operations": []}',
            )
            assert posted.code == 503
            assert "Retry-After" in posted.headers
            assert json.loads(posted.body)["code"] == "UNAVAILABLE"
            lock.rollback()

        endings = [await line.end() for line in lines]
        assert await server.ended(END_SECONDS) == 0
    seqs, slots = [], []
    for waited, (said, code, reason) in zip(waiting, endings, strict=True):
        assert (code, reason) == (1012, "Server shutting down")
        answer = next(message for message in said if message.get("correlationId") == waited)
        assert answer["type"] == "ACK"
        seqs.append(answer["payload"]["seq"])
        assert said[-1]["type"] == "DISCONNECT"
        assert (said[-1]["payload"]["code"], said[-1]["payload"]["reconnect"]) == (1012, True)
        slots.append(said[-1]["payload"]["retryAfterMs"])
    assert sorted(seqs) == [2, 3, 4]
    assert len(set(slots)) == len(USERS)  # each another one

    await server.start()
    state = await state_of(server)
    assert state["seq"] == 4
    assert state["widgets"]["w"]["data"] == {"value": 0, **dict.fromkeys(USERS, 1)}


async def state_of(server: ServerProcess) -> Json:
    async with on_line(server.api, "auditor") as line:
        return await line.snapshot()


async def in_flight(line: Line) -> None:
    """Send what the lock will keep in flight."""
    await line.send("WIDGET_UPDATE", {"widgetId": "w", "data": {"value": 2}}, "in flight")
    assert (await line.ask("PING", {}))["type"] == "PONG"


async def test_a_second_sigterm_ends_it_at_once(server: ServerProcess) -> None:
    await server.start()
    async with on_line(server.api) as line:
        assert (await line.update("w", value=1))["type"] == "ACK"
        with locked(server.store_file):
            await in_flight(line)
            await draining(server)
            server.terminate()
            await server.ended(END_SECONDS)  # while the lock is held: nothing was waited for
    await server.start()
    assert (await state_of(server))["widgets"]["w"]["data"] == {"value": 1}


async def test_the_grace_is_kept_though_something_stays_in_flight(make_server: Callable[..., ServerProcess]) -> None:
    server = make_server(settings={"RT_SHUTDOWN_GRACE": "1"})
    await server.start()
    async with on_line(server.api) as line:
        assert (await line.update("w", value=1))["type"] == "ACK"
        with locked(server.store_file):
            await in_flight(line)
            await draining(server)
            said, code, _ = await line.end()
            status = await server.ended(GRACE_AND_A_LOT_SECONDS)  # again while the lock is held
    assert status == 0
    assert code == 1012
    answers = [message["type"] for message in said if message.get("correlationId") == "in flight"]
    assert "ACK" not in answers
    await server.start()
    assert (await state_of(server))["seq"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_idle_server_ends_with_status_0(server: ServerProcess, number: signal.Signals) -> None:
    await server.start()
    server.process.send_signal(number)
    async with asyncio.timeout(END_SECONDS):
        assert await server.ended(END_SECONDS) == 0
