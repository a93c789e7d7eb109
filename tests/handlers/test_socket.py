"""The WebSocket door, row by row of PROTOCOL section 1: who comes in, who is told what, and how it ends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from tests.handlers.conftest import House, OpenHouse, ended, hear, say, turned_away
from tornado_rt.room import Room


def handshake(extra: str = "", *, target: str = "/api/realtime?userId=anna", version: str = "13", http: str = "1.1") -> str:
    return (
        f"GET {target} HTTP/{http}\nHost: HOST\nUpgrade: websocket\nConnection: Upgrade\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: {version}\n{extra}\n"
    )


async def refused(house: House, head: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers and body of the answer that is no upgrade."""
    status, headers, body = await house.raw(head)
    return status, headers, json.loads(body)


# Who it is


@pytest.mark.parametrize(
    ("query", "options", "user"),
    [
        ("userId=anna", {"additional_headers": {"Authorization": "Bearer bert", "Cookie": "userId=carl"}}, "anna"),
        ("", {"additional_headers": {"Authorization": "Bearer bert", "Cookie": "userId=carl"}}, "bert"),
        ("", {"additional_headers": {"Cookie": "userId=carl"}}, "carl"),
        ("", {"subprotocols": ["bearer", "dora"]}, "dora"),
        ("userId=J%C3%B6rg%20%26%20Co", {}, "Jörg & Co"),
    ],
)
async def test_the_guides_order_of_identities(house: House, query: str, options: dict[str, Any], user: str) -> None:
    connect = await hear(await house.connect(query, **options))
    assert (connect["type"], connect["userId"]) == ("CONNECT", user)


async def test_where_bearer_is_offered_it_is_selected_and_never_the_token(house: House) -> None:
    assert (await house.connect("", subprotocols=["bearer", "dora"])).subprotocol == "bearer"
    assert (await house.connect("userId=anna", subprotocols=["chat"])).subprotocol is None


@pytest.mark.parametrize("query", ["", "userId=", "userId=a%00b", "userId=" + "x" * 129])
async def test_nobody_is_told_so_over_the_socket(house: House, query: str) -> None:
    """1008 Unauthorized: a browser cannot read the status of a failed handshake and would retry for ever."""
    payload, end = await turned_away(await house.connect(query))
    assert payload == {"code": 1008, "reason": "Unauthorized", "reconnect": False}
    assert end == (1008, "Unauthorized")
    assert house.server.get_stats()["clientCount"] == 0


# Where it goes


async def test_connect_says_where_one_is(house: House) -> None:
    payload = (await hear(await house.connect("userId=anna&dashboardId=board%2F1&deviceId=d1")))["payload"]
    assert (payload["dashboardId"], payload["protocol"], payload["seq"]) == ("board/1", 1, 0)
    assert payload["permissions"] == ["read", "write", "admin"]
    assert "sync" not in payload
    default = (await hear(await house.connect("userId=anna")))["payload"]
    assert default["dashboardId"] == "default"


async def test_coming_back_brings_what_was_missed(house: House) -> None:
    anna = await house.connect("userId=anna&since=0")
    connect = await hear(anna)
    assert connect["payload"]["sync"]["mode"] == "snapshot"
    epoch = connect["payload"]["epoch"]
    for turn in range(3):
        await say(anna, "WIDGET_UPDATE", {"widgetId": "w", "data": {"value": turn}}, f"m{turn}")
        assert (await hear(anna))["type"] == "ACK"
    sync = (await hear(await house.connect(f"userId=bert&since=1&epoch={epoch}")))["payload"]["sync"]
    assert (sync["mode"], [change["seq"] for change in sync["operations"]]) == ("delta", [2, 3])
    sync = (await hear(await house.connect("userId=bert&since=1&epoch=another")))["payload"]["sync"]
    assert sync["mode"] == "snapshot"


async def test_a_device_is_the_same_over_connections(house: House) -> None:
    """PROTOCOL section 4: the same user on the same device never conflicts with himself; another device does."""
    anna = await house.member("userId=anna&deviceId=laptop")
    for turn in range(2):
        await say(anna, "WIDGET_UPDATE", {"widgetId": "w", "data": {"value": turn}}, f"m{turn}")
        await hear(anna)
    again = await house.member("userId=anna&deviceId=laptop")
    phone = await house.member("userId=anna&deviceId=phone")
    edit = {"widgetId": "w", "data": {"value": 7}, "baseVersion": 1}
    await say(phone, "WIDGET_UPDATE", edit, "p1")
    assert (await hear(phone))["type"] == "CONFLICT_DETECTED"
    await say(again, "WIDGET_UPDATE", edit, "l1")
    assert (await hear(again))["type"] == "ACK"


@pytest.mark.parametrize(
    "query", ["dashboardId=", "dashboardId=a%0Ab", "deviceId=", "since=-1", "since=x", "since=1e3", "epoch="]
)
async def test_a_query_that_makes_no_sense_is_400(house: House, query: str) -> None:
    status, _, body = await refused(house, handshake(target=f"/api/realtime?userId=anna&{query}"))
    assert (status, body["code"]) == (400, "INVALID_MESSAGE")
    assert query.partition("=")[0] in json.dumps(body)


# Who may not even knock


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "https://127.0.0.1.evil.test", "file://"])
async def test_a_foreign_origin_is_403_without_an_upgrade(house: House, origin: str) -> None:
    with pytest.raises(InvalidStatus) as fault:
        await house.connect(origin=origin)
    assert fault.value.response.status_code == 403
    assert json.loads(fault.value.response.body or b"")["code"] == "FORBIDDEN"


async def test_the_own_origin_is_welcome(house: House) -> None:
    await house.member(origin=house.base)


async def test_a_listed_origin_is_welcome(open_house: OpenHouse) -> None:
    house = await open_house(allowed_origins="https://app.example.com")
    await house.member(origin="https://app.example.com")
    with pytest.raises(InvalidStatus):
        await house.connect(origin="https://app.example.com.evil.test")


async def test_a_foreign_host_is_421(house: House) -> None:
    """Also where the Origin is equal to it: DNS rebinding."""
    evil = f"evil.test:{house.port}"
    status, _, body = await refused(house, handshake(f"Origin: http://{evil}\n").replace("HOST", evil))
    assert (status, body["code"]) == (421, "MISDIRECTED")


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        pytest.param("Version: 13", "Version: 8", 426, id="another version"),
        pytest.param("Sec-WebSocket-Version: 13\n", "", 426, id="no version"),
        pytest.param("dGhlIHNhbXBsZSBub25jZQ==", "short", 400, id="a bad key"),
        pytest.param("Connection: Upgrade", "Connection: keep-alive", 400, id="no Connection: Upgrade"),
        pytest.param("HTTP/1.1", "HTTP/1.0", 400, id="HTTP/1.0"),
    ],
)
async def test_a_bad_handshake_is_400_or_426(house: House, old: str, new: str, status: int) -> None:
    found, headers, body = await refused(house, handshake().replace(old, new))
    assert found == status
    assert set(body) == {"error", "code"}
    assert (headers.get("sec-websocket-version") == "13") is (status == 426)


# Full, draining


@pytest.mark.parametrize("is_mounted", [False, True])
async def test_a_full_server_says_when_to_come_back(open_house: OpenHouse, is_mounted: bool) -> None:
    house = await open_house(is_mounted=is_mounted, max_connections=1, accept_rate_per_second=2)
    anna = await house.member()
    payload, end = await turned_away(await house.connect("userId=bert"))
    assert payload == {"code": 1013, "reason": "Try again later", "reconnect": True, "retryAfterMs": 500}
    assert end == (1013, "Try again later")
    await say(anna, "PING")
    assert (await hear(anna))["type"] == "PONG"
    await anna.close()
    await house.member("userId=bert")


async def test_a_draining_server_turns_newcomers_away_and_says_goodbye(house: House) -> None:
    anna = await house.member()
    house.server.is_draining = True
    payload, end = await turned_away(await house.connect("userId=bert"))
    assert (payload["code"], payload["reconnect"], end) == (1013, True, (1013, "Try again later"))
    assert payload["retryAfterMs"] > 0
    draining = asyncio.ensure_future(house.server.drain(5))
    payload, end = await turned_away(anna)
    assert (payload["code"], payload["reason"], payload["reconnect"]) == (1012, "Server shutting down", True)
    assert payload["retryAfterMs"] > 0
    assert end == (1012, "Server shutting down")
    await draining


async def test_a_room_that_goes_during_the_handshake_is_asked_for_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever came into a room that the server has left would hear of nothing."""
    enter = house.server.enter

    async def enter_and_leave(dashboard_id: str) -> Room:
        room = await enter(dashboard_id)
        del house.server.rooms[dashboard_id]
        return room

    monkeypatch.setattr(house.server, "enter", enter_and_leave)
    payload, end = await turned_away(await house.connect())
    assert (payload["reconnect"], end) == (True, (1013, "Try again later"))
    monkeypatch.undo()
    await house.member()


# While it lasts


async def test_two_who_edit_hear_of_each_other(house: House) -> None:
    anna, bert = await house.member(), await house.member("userId=bert")
    await say(anna, "WIDGET_UPDATE", {"widgetId": "widget-1", "data": {"title": "New Title", "value": 42}}, "msg-123456")
    ack, change = await hear(anna), await hear(bert)
    assert (ack["type"], ack["correlationId"], ack["payload"]["received"]) == ("ACK", "msg-123456", True)
    assert (change["type"], change["userId"]) == ("WIDGET_UPDATE", "anna")
    assert change["payload"]["data"] == {"title": "New Title", "value": 42}


async def test_the_guides_snippet_for_the_browser(house: House) -> None:
    """PING with a Date for a timestamp, nothing else; it is answered."""
    socket = await house.member("userId=test-user")
    await socket.send('{"type":"PING","id":"test-1","timestamp":"2024-11-24T10:00:00.000Z","userId":"test-user","payload":{}}')
    pong = await hear(socket)
    assert (pong["type"], pong["correlationId"]) == ("PONG", "test-1")


async def test_a_binary_frame_ends_with_1003(house: House) -> None:
    socket = await house.member()
    await socket.send(b"{}")
    assert (await ended(socket))[0] == 1003


async def test_a_frame_that_is_too_long_ends_with_1009(open_house: OpenHouse) -> None:
    house = await open_house(max_message_bytes=2048)
    socket = await house.member()
    await say(socket, "WIDGET_UPDATE", {"widgetId": "w", "data": {"text": "x" * 2048}})
    assert (await ended(socket))[0] == 1009


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (b"{}", 1003, "Text frames only"),
        ("x" * 300_000, 1009, "Message too big"),
    ],
    ids=["binary", "too long"],
)
async def test_a_close_that_we_start_is_announced(house: House, data: str | bytes, code: int, reason: str) -> None:
    """PROTOCOL section 1: before it DISCONNECT, where the socket still takes it."""
    socket = await house.member()
    await socket.send(data)
    goodbye, end = await turned_away(socket)
    assert end == (code, reason)
    assert goodbye == {"code": code, "reason": reason, "reconnect": True}


async def test_a_polite_goodbye_ends_with_1000(house: House) -> None:
    socket = await house.member()
    await say(socket, "DISCONNECT")
    assert (await ended(socket))[0] == 1000


async def test_whoever_goes_is_gone(house: House) -> None:
    gone: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    house.server.on("client:disconnected", gone.set_result)
    socket = await house.member()
    assert house.server.get_stats()["clientCount"] == 1
    socket.transport.abort()
    await gone
    assert house.server.get_stats()["clientCount"] == 0


async def test_a_mistake_of_ours_ends_that_connection_with_1011(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """And application code hears of it."""
    heard: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    house.server.on("client:error", heard.set_result)
    anna, bert = await house.member(), await house.member("userId=bert")
    receive = house.server.receive

    def fail(session: Any, raw: bytes) -> None:
        if session.user == "anna":
            raise RuntimeError("a bug")
        receive(session, raw)

    monkeypatch.setattr(house.server, "receive", fail)
    with capture_logs() as logs:
        await say(anna, "PING")
        assert await ended(anna) == (1011, "Server fault")
    assert [line["event"] for line in logs] == ["connection_failed"]
    await say(bert, "PING", user="bert")
    assert (await hear(bert))["type"] == "PONG"
    assert (await heard).user_id == "anna"
    assert house.server.get_stats()["faults"] == 1


async def test_a_mass_disconnect_leaves_nothing(house: House) -> None:
    """No session, no member, nothing logged (the fixture sees to that)."""
    sockets = [await house.member(f"userId=user-{number}") for number in range(40)]
    last = asyncio.get_running_loop().create_future()
    house.server.on("client:disconnected", lambda _: house.server.sessions or last.done() or last.set_result(None))
    for socket in sockets:
        socket.transport.abort()
    await last
    assert house.server.rooms["default"].members == set()
    assert house.server.get_stats()["clientCount"] == 0


async def test_the_epoch_of_a_connection_counts_for_its_base_versions(house: House) -> None:
    """PROTOCOL section 4: ``baseVersion`` of another epoch counts as 0."""
    anna, bert = await house.member(), await house.member("userId=bert")
    await say(bert, "WIDGET_UPDATE", {"widgetId": "w", "data": {"value": 1}}, user="bert")
    assert (await hear(anna))["payload"]["seq"] == 1
    edit = {"widgetId": "w", "data": {"value": 2}, "baseVersion": 1}
    await say(anna, "WIDGET_UPDATE", {**edit, "epoch": "another"}, "m1")
    assert (await hear(anna))["type"] == "CONFLICT_DETECTED"
    await say(anna, "WIDGET_UPDATE", edit, "m2")
    assert (await hear(anna))["type"] == "ACK"
