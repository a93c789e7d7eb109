"""Many at once: handshakes, connections, sockets. Whoever was there before goes on, and the log stays short."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.abuse.fortress import Fortress

Make = Callable[..., Awaitable[Fortress]]
LATER = {"code": 1013, "reason": "Try again later", "reconnect": True}


async def test_a_flood_of_handshakes_is_told_to_come_later(make_fortress: Make) -> None:
    """By the address: good and bad tokens alike, before any is looked at. Who is in stays in."""
    fortress = await make_fortress(RT_HANDSHAKE_RATE="20")
    async with fortress.unharmed(), fortress.speaker() as anna:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(fortress.turned_away("dashboardId=sales&token=x")) for _ in range(100)]
        reasons = [task.result()[0]["reason"] for task in tasks]
        assert set(reasons) == {"Unauthorized", "Try again later"}
        assert reasons.count("Unauthorized") < 90
        assert (await anna.ask("PING"))["type"] == "PONG"


async def test_posts_over_the_rate_are_429(make_fortress: Make) -> None:
    """In the one error shape, with Retry-After; nothing of them is applied."""
    fortress = await make_fortress(RT_USER_RATE_LIMIT="10")
    body = json.dumps({"type": "SYNC", "dashboardId": "sales", "operations": [], "since": 0})
    headers = {**fortress.bearer(), "Content-Type": "application/json"}
    async with fortress.unharmed():
        answers = [await fortress.process.fetch("/api/realtime", method="POST", body=body, headers=headers) for _ in range(60)]
        refused = [answer for answer in answers if answer.code != 200]
        assert refused
        for answer in refused:
            said = json.loads(answer.body)
            assert (answer.code, said["code"], set(said)) == (429, "RATE_LIMITED", {"error", "code", "retryAfterMs"})
            assert int(answer.headers["Retry-After"]) >= 1


async def test_revocation_ends_a_connection_and_shuts_every_door(make_fortress: Make) -> None:
    """At once, whatever it is busy with; the token opens nothing any more, those of others do."""
    fortress = await make_fortress(RT_RATE_LIMIT="0", RT_USER_RATE_LIMIT="0")
    evil = {"Authorization": f"Bearer {fortress.token('evil', jti='t-evil')}"}
    async with fortress.speaker("bert") as bert, fortress.speaker("evil", additional_headers=evil) as flooding:
        for _ in range(300):
            await flooding.socket.send(json.dumps({"type": "PING", "userId": "evil"}))
        headers = {**fortress.bearer("boss", {"*": "admin"}), "Content-Type": "application/json"}
        answer = await fortress.process.fetch(
            "/api/realtime/revoke", method="POST", body='{"tokenId":"t-evil"}', headers=headers
        )
        assert (answer.code, json.loads(answer.body)["closed"]) == (200, 1)
        write = {"widgetId": "w1", "data": {"value": 666}}
        await flooding.socket.send(json.dumps({"type": "WIDGET_UPDATE", "userId": "evil", "payload": write}))
        said, end = await flooding.end()
        assert end == (1008, "Unauthorized")
        assert said[-1]["payload"] == {"code": 1008, "reason": "Unauthorized", "reconnect": False}
        assert {message["type"] for message in said[:-1]} <= {"PONG"}
        assert (await fortress.turned_away("dashboardId=sales", additional_headers=evil))[1] == (1008, "Unauthorized")
        for path in ("", "/stats"):
            assert (await fortress.process.fetch(f"/api/realtime{path}", headers=evil)).code == 401
        widgets = (await bert.ask("SYNC_REQUEST"))["payload"]["widgets"]
        assert widgets["w1"]["data"]["value"] == 1


async def test_a_revoked_admin_revokes_nobody(make_fortress: Make) -> None:
    """And a restart does not bring his token back."""
    fortress = await make_fortress()
    admin = {**fortress.bearer("rogue", {"*": "admin"}, jti="t-rogue"), "Content-Type": "application/json"}
    revoke = {"method": "POST", "headers": admin}
    answer = await fortress.process.fetch("/api/realtime/revoke", body='{"userId":"rogue"}', **revoke)
    assert answer.code == 200
    for _ in range(2):
        answer = await fortress.process.fetch("/api/realtime/revoke", body='{"userId":"witness"}', **revoke)
        assert (answer.code, json.loads(answer.body)["code"]) == (401, "UNAUTHORIZED")
        assert (await fortress.process.fetch("/api/realtime/stats", headers=admin)).code == 401
        fortress.process.kill()
        await fortress.process.start()


async def test_more_sockets_than_there_are_files_are_borne(make_fortress: Make) -> None:
    """Sockets that never say what they want use up the descriptors. Who is in goes on, newcomers hear 503 at once.

    The process neither spins nor fills its log, and when those are gone others come in.
    """
    fortress = await make_fortress(max_files=260)
    pid = fortress.process.process.pid
    async with fortress.unharmed(), fortress.speaker() as anna:
        idle = [socket.create_connection(("127.0.0.1", fortress.port)) for _ in range(300)]
        for each in idle:
            with contextlib.suppress(OSError):
                each.sendall(b"GET ")
        answer = await fortress.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["code"] == "UNAVAILABLE"
        before = cpu_seconds(pid)
        for _ in range(10):
            assert (await anna.ask("PING"))["type"] == "PONG"
            await asyncio.sleep(0.05)
        assert cpu_seconds(pid) - before < 0.4
        for each in idle:
            each.close()
        async with fortress.speaker("bert") as bert:
            assert (await bert.ask("PING"))["type"] == "PONG"


def cpu_seconds(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
