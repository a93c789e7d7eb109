"""The client against a server that says exactly what the test wants: silence, expired tokens, slots."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketHandler

from tornado_rt.client import ConnectionState, RealtimeClient

Script = Callable[["Door", int], None]


class Door(WebSocketHandler):
    """Plays ``script`` to each connection, with the number of the connection."""

    script: Script
    doors: list[Door]
    received: asyncio.Queue[dict[str, Any]]

    def initialize(self, script: Script, doors: list[Door], received: asyncio.Queue[dict[str, Any]]) -> None:
        self.script, self.doors, self.received = script, doors, received

    def open(self, *_: str, **__: str) -> None:
        self.doors.append(self)
        self.script(self, len(self.doors))

    def on_message(self, message: str | bytes) -> None:
        self.received.put_nowait(json.loads(message))

    def say(self, type_: str, payload: dict[str, Any], id_: str = "s") -> None:
        frame = {"type": type_, "id": id_, "timestamp": "2026-01-01T00:00:00.000Z", "userId": "ada", "payload": payload}
        self.write_message(json.dumps(frame))

    def welcome(self, heartbeat_ms: int = 60_000, seq: int = 0) -> None:
        sync = {
            "mode": "snapshot",
            "widgets": {},
            "layouts": {},
            "epoch": "e",
            "seq": seq,
            "syncState": "ready",
            "clientCount": 1,
        }
        limits = {"maxOperations": 50}
        connect = {"clientId": "c", "dashboardId": "default", "protocol": 1, "epoch": "e", "seq": seq, "limits": limits}
        self.say("CONNECT", {**connect, "heartbeatInterval": heartbeat_ms, "permissions": ["read"], "sync": sync})

    def dismiss(self, code: int, reason: str, reconnect: bool, **more: Any) -> None:
        self.say("DISCONNECT", {"code": code, "reason": reason, "reconnect": reconnect, **more})
        self.close(code, reason)


class Stage:
    """A scripted server and what it saw."""

    def __init__(self, script: Script) -> None:
        self.doors: list[Door] = []
        self.received: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        arguments = {"script": script, "doors": self.doors, "received": self.received}
        self.server = HTTPServer(Application([("/api/realtime", Door, arguments)]))
        socket, port = bind_unused_port()
        self.server.add_socket(socket)
        self.url = f"http://127.0.0.1:{port}"

    async def close(self) -> None:
        for door in self.doors:
            door.close()
        self.server.stop()
        await self.server.close_all_connections()


def client(stage: Stage, slept: list[float] | None = None, **options: Any) -> RealtimeClient:
    async def sleep(seconds: float) -> None:
        if slept is not None and seconds < 1e6:
            slept.append(seconds)
        await asyncio.sleep(0 if seconds < 1e6 else seconds)

    who = {} if "token" in options else {"user_id": "ada"}
    return RealtimeClient(stage.url, **who, random=lambda: 0.5, sync_interval=1e7, sleep=sleep, connect_timeout=10, **options)


async def reached(rt: RealtimeClient, state: ConnectionState) -> None:
    done = asyncio.Event()
    end = rt.on("state", lambda now: now is state and done.set())
    if rt.state is not state:
        await done.wait()
    end()


async def test_silence_is_a_lost_connection() -> None:
    """Two heartbeat intervals without a frame: the client closes and comes back."""
    stage = Stage(lambda door, number: door.welcome(heartbeat_ms=20 if number == 1 else 60_000))
    async with client(stage) as rt:
        await reached(rt, ConnectionState.RECONNECTING)
        await reached(rt, ConnectionState.CONNECTED)
        assert len(stage.doors) == 2
    await stage.close()


async def test_a_ping_is_answered() -> None:
    """By a PONG that names it."""

    def script(door: Door, _: int) -> None:
        door.welcome()
        door.say("PING", {"seq": 0}, "ping-7")

    stage = Stage(script)
    async with client(stage):
        pong = await stage.received.get()
        assert (pong["type"], pong["correlationId"], pong["userId"]) == ("PONG", "ping-7", "ada")
        assert pong["timestamp"].endswith("Z")
    assert (await stage.received.get())["type"] == "DISCONNECT"
    await stage.close()


async def test_the_slot_of_a_server_that_leaves_is_kept() -> None:
    """`retryAfterMs` stands in for the first backoff."""

    def script(door: Door, number: int) -> None:
        door.welcome()
        if number == 1:
            door.dismiss(1012, "Server shutting down", True, retryAfterMs=4321)

    stage = Stage(script)
    slept: list[float] = []
    async with client(stage, slept) as rt:
        await reached(rt, ConnectionState.RECONNECTING)
        await reached(rt, ConnectionState.CONNECTED)
        assert slept == [4.321]
    await stage.close()


async def test_an_expired_token_is_asked_for_again() -> None:
    """The function that gives tokens is called for the first one and when the server says that it has expired."""
    asked: list[int] = []

    async def token() -> str:
        asked.append(len(asked))
        return "x.eyJzdWIiOiJhZGEifQ." + "abc"[len(asked) - 1]

    def script(door: Door, number: int) -> None:
        door.welcome()
        if number == 1:
            door.close(1012)
        elif number == 2:
            door.dismiss(1008, "Token expired", True)

    stage = Stage(script)
    async with client(stage, token=token) as rt:
        while len(stage.doors) < 3:
            await reached(rt, ConnectionState.RECONNECTING)
            await reached(rt, ConnectionState.CONNECTED)
        seen = [door.request.headers["Authorization"] for door in stage.doors]
        assert seen == ["Bearer x.eyJzdWIiOiJhZGEifQ.a"] * 2 + ["Bearer x.eyJzdWIiOiJhZGEifQ.b"]
        assert rt.user_id == "ada"
        assert "userId" not in stage.doors[0].request.query
    assert len(asked) == 2
    await stage.close()


@pytest.mark.parametrize("says_disconnect", [True, False])
async def test_forbidden_is_the_end(says_disconnect: bool) -> None:
    """With a DISCONNECT that says so, or with 1008 alone: state ERROR, and the reader of changes is released."""

    def script(door: Door, _: int) -> None:
        door.welcome()
        if says_disconnect:
            door.dismiss(1008, "Forbidden", False)
        else:
            door.close(1008, "Forbidden")

    stage = Stage(script)
    async with client(stage) as rt:
        changes = [change async for change in rt.changes()] if rt.state is not ConnectionState.ERROR else []
        await reached(rt, ConnectionState.ERROR)
        assert all(change.type == "SYNC_RESPONSE" for change in changes)
    assert len(stage.doors) == 1
    await stage.close()


async def test_where_it_was_is_said_at_the_next_connection() -> None:
    """`since`, `epoch` and the same `deviceId`."""

    def script(door: Door, number: int) -> None:
        door.welcome(seq=7)
        if number == 1:
            door.close(1011)

    stage = Stage(script)
    async with client(stage, device_id="my-device") as rt:
        await reached(rt, ConnectionState.RECONNECTING)
        await reached(rt, ConnectionState.CONNECTED)
        queries = [door.request.arguments for door in stage.doors]
        assert queries[0] == {"dashboardId": [b"default"], "deviceId": [b"my-device"], "since": [b"0"], "userId": [b"ada"]}
        assert queries[1] == {**queries[0], "since": [b"7"], "epoch": [b"e"]}
    await stage.close()


async def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, the next one is told."""
    heard: list[dict[str, Any]] = []

    def fail(_: Any) -> None:
        raise RuntimeError("a listener's own fault")

    async def fail_later(_: Any) -> None:
        raise RuntimeError("later")

    def script(door: Door, _: int) -> None:
        door.welcome()
        door.say("SYNC_UPDATE", {"hello": 1})

    stage = Stage(script)
    rt = client(stage)
    told = asyncio.Event()
    rt.on("message", fail)
    rt.on("message", fail_later)
    rt.on("message", lambda frame: (heard.append(frame), told.set()))
    async with rt:
        await told.wait()
        assert heard[0]["payload"] == {"hello": 1}
    assert "a listener's own fault" in caplog.text
    with pytest.raises(ValueError, match="there is no event"):
        rt.on("nonsense", fail)
    await stage.close()
