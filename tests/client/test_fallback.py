"""POST against a server that answers as the test wants, while its WebSocket door is shut."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from tornado_rt.client import Edit, OperationState, RealtimeClient

RECONNECT_SECONDS = 15.0  # half of the longest delay, by the source of chance below
Answer = tuple[int, Any]
Script = Callable[[int, dict[str, Any]], Answer]


class Door(RequestHandler):
    """Answers each POST as ``script`` says, given its number and body; the upgrade is refused."""

    def initialize(self, script: Script, bodies: list[dict[str, Any]]) -> None:
        self.script, self.bodies = script, bodies

    def get(self) -> None:
        self.set_status(404)

    def post(self) -> None:
        self.bodies.append(json.loads(self.request.body))
        status, answer = self.script(len(self.bodies), self.bodies[-1])
        self.set_status(status)
        self.write(answer)


class Stage:
    """The server, what it was sent, and how long the client slept between."""

    def __init__(self, script: Script) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.slept: list[float] = []
        self.server = HTTPServer(Application([("/api/realtime", Door, {"script": script, "bodies": self.bodies})]))
        socket, port = bind_unused_port()
        self.server.add_socket(socket)
        self.url = f"http://127.0.0.1:{port}"

    def client(self, **options: Any) -> RealtimeClient:
        return RealtimeClient(self.url, user_id="ada", random=lambda: 0.5, sleep=self.sleep, reconnect_delay=1e6, **options)

    async def sleep(self, seconds: float) -> None:
        if seconds == RECONNECT_SECONDS or len(self.slept) > 20:
            await asyncio.sleep(3600)  # the socket is never tried again
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def close(self) -> None:
        self.server.stop()
        await self.server.close_all_connections()


def sync(seq: int) -> dict[str, Any]:
    return {"mode": "snapshot", "widgets": {}, "layouts": {}, "epoch": "e", "seq": seq, "syncState": "ready", "clientCount": 0}


def success(body: dict[str, Any], seq: int) -> Answer:
    results = [
        {"operationId": each["operationId"], "status": "success", "type": each["type"], "version": seq + n, "seq": seq + n}
        for n, each in enumerate(body["operations"], 1)
    ]
    return 200, {"success": True, "results": results, "sync": sync(seq + len(results))}


async def test_a_post_is_tried_three_times_more() -> None:
    """An overloaded server, a proxy's page and a lost connection are no verdicts: the same operation again, after 5 s each."""
    answers: list[Answer] = [(503, {"error": "later", "code": "UNAVAILABLE"}), (403, "<h1>no</h1>"), (200, "<h1>what?</h1>")]
    stage = Stage(lambda number, body: answers[number - 1] if number <= 3 else success(body, 0))
    rt = stage.client()
    await rt.start()
    operation = rt.submit(Edit.update("w", {"a": 1}))
    assert (await operation).seq == 1
    assert [body["operations"][0]["operationId"] for body in stage.bodies[:4]] == [operation.id] * 4
    assert stage.slept[:3] == [5.0, 5.0, 5.0]
    assert stage.bodies[0]["dashboardId"] == "default"
    assert stage.bodies[0]["deviceId"] == rt.device_id
    await rt.close()
    await stage.close()


async def test_then_it_waits_for_the_next_interval() -> None:
    """After the last retry the operation is still pending; the next round comes after `sync_interval`."""
    stage = Stage(lambda number, body: (500, "broken") if number <= 4 else success(body, 0))
    rt = stage.client(sync_interval=40.0)
    await rt.start()
    operation = rt.submit(Edit.update("w", {"a": 1}))
    await operation
    assert stage.slept[:4] == [5.0, 5.0, 5.0, 40.0]
    assert [body["operations"][0]["operationId"] for body in stage.bodies[:5]] == [operation.id] * 5
    await rt.close()
    await stage.close()


async def test_one_bad_operation_does_not_keep_the_others_back() -> None:
    """A body that is refused without naming the culprit: each goes alone, and only the bad one fails."""

    def script(_: int, body: dict[str, Any]) -> Answer:
        ids = [each["payload"]["widgetId"] for each in body["operations"]]
        if "bad" in ids:
            return 400, {"error": "no", "code": "INVALID_MESSAGE"}
        return success(body, 0)

    stage = Stage(script)
    rt = stage.client()
    await rt.start()
    operations = [rt.submit(Edit.update(name, {"a": 1})) for name in ("w1", "bad", "w2")]
    await operations[0]
    await operations[2]
    assert operations[1].state is OperationState.FAILED
    assert [len(body["operations"]) for body in stage.bodies[:4]] == [3, 1, 1, 1]
    await rt.close()
    await stage.close()
