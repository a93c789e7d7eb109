"""Limits at the doors: 429 by HTTP, 1013 by WebSocket, and whose address counts behind a proxy (PROTOCOL sections 6 and 9)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from tests.handlers.conftest import House, OpenHouse, ended, hear, say, turned_away
from tornado_rt.auth import TrustAuthenticator
from tornado_rt.events import Event
from tornado_rt.handlers.gate import Gate

BOTH = pytest.mark.parametrize("is_mounted", [False, True])
ANNA = {"Authorization": "Bearer anna"}
FULL = {"code": 1013, "reason": "Try again later", "reconnect": True}


def sync(count: int) -> dict[str, Any]:
    operations = [
        {"operationId": f"o{number}", "type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {"value": number}}}
        for number in range(count)
    ]
    return {"type": "SYNC", "operations": operations}


# Messages


@BOTH
async def test_too_many_posts_are_429_with_retry_after(open_house: OpenHouse, is_mounted: bool) -> None:
    """In the one error shape; and the application hears of it."""
    house = await open_house(is_mounted=is_mounted, user_rate_limit_per_second=0.5)
    heard: list[Event] = []
    house.server.on("rate:limited", heard.append)
    assert (await house.fetch("/api/realtime", body=sync(1), headers=ANNA)).code == 200
    answer = await house.fetch("/api/realtime", body=sync(1), headers=ANNA)
    body = json.loads(answer.body)
    assert (answer.code, body["code"], set(body)) == (429, "RATE_LIMITED", {"error", "code", "retryAfterMs"})
    assert 1_000 < body["retryAfterMs"] <= 2_000
    assert answer.headers["Retry-After"] == "2"
    assert [(event.client_id, event.user_id) for event in heard] == [(None, "anna")]
    assert (await house.fetch("/api/realtime?userId=bert", body=sync(1))).code == 200


async def test_what_is_refused_is_not_applied(open_house: OpenHouse) -> None:
    house = await open_house(user_rate_limit_per_second=2)
    assert (await house.fetch("/api/realtime", body=sync(5), headers=ANNA)).code == 200  # it is over, and paid off afterwards
    assert (await house.fetch("/api/realtime", body=sync(9), headers=ANNA)).code == 429
    assert house.server.rooms["default"].dashboard.seq == 5


async def test_what_cannot_be_read_counts_too(open_house: OpenHouse) -> None:
    """A stranger to JSON cannot keep the server busy with it for nothing."""
    house = await open_house(user_rate_limit_per_second=2)
    headers = {**ANNA, "Content-Type": "application/json"}
    codes = [(await house.fetch("/api/realtime", method="POST", body="{", headers=headers)).code for _ in range(5)]
    assert codes == [400] * 4 + [429]


async def test_sockets_and_posts_share_the_users_bucket(open_house: OpenHouse) -> None:
    house = await open_house(user_rate_limit_per_second=2)
    socket = await house.member()
    for _ in range(4):
        await say(socket, "PING")
        assert (await hear(socket))["type"] == "PONG"
    assert (await house.fetch("/api/realtime", body=sync(1), headers=ANNA)).code == 429


async def test_a_flood_over_a_socket_ends_in_1008(open_house: OpenHouse) -> None:
    """NACKs, DISCONNECT, the guide's reason; nobody else notices."""
    house = await open_house(rate_limit_per_second=10, rate_burst=10)
    flooding, calm = await house.member(), await house.member("userId=bert")
    await say(flooding, "WIDGET_UPDATE", {"widgetId": "w", "data": {"value": 0}}, "first")
    assert (await hear(flooding))["type"] == "ACK"
    for number in range(400):
        await say(flooding, "WIDGET_UPDATE", {"widgetId": "w", "data": {"value": number}}, f"m{number}")
    answers = []
    while (message := await hear(flooding))["type"] != "DISCONNECT":
        answers.append(message["payload"].get("code", message["type"]))
    assert message["payload"] == {"code": 1008, "reason": "Rate limit exceeded", "reconnect": True}
    assert await ended(flooding) == (1008, "Rate limit exceeded")
    assert "RATE_LIMITED" in answers
    assert house.server.rooms["default"].dashboard.seq < 30
    await say(calm, "PING", user="bert", id_="calm")
    while (message := await hear(calm)).get("correlationId") != "calm":
        assert message["type"] == "WIDGET_UPDATE"


# Connections


@BOTH
@pytest.mark.parametrize(
    ("setting", "other", "fits"),
    [("max_connections", "bert", False), ("max_connections_per_user", "bert", True), ("max_connections_per_ip", "bert", False)],
)
async def test_one_connection_too_many_is_told_to_come_later(
    open_house: OpenHouse, is_mounted: bool, setting: str, other: str, fits: bool
) -> None:
    """And no dashboard is read from the store for it."""
    house = await open_house(is_mounted=is_mounted, **{setting: 1})
    first = await house.member("userId=anna")
    payload, end = await turned_away(await house.connect("userId=anna&dashboardId=another"))
    assert payload.pop("retryAfterMs") > 0
    assert (payload, end) == (FULL, (1013, "Try again later"))
    assert "another" not in house.server.rooms
    kind = (await hear(await house.connect(f"userId={other}")))["type"]
    assert kind == ("CONNECT" if fits else "DISCONNECT")
    await first.close()
    await house.member("userId=anna")


@BOTH
async def test_handshakes_are_limited_by_address(open_house: OpenHouse, is_mounted: bool) -> None:
    """Good and bad ones alike; one that was refused is told when to come back."""
    house = await open_house(is_mounted=is_mounted, handshake_rate_per_second=2)
    said = [
        (await hear(await house.connect(query)))["payload"].get("reason") for query in ["userId=anna", "", "", "userId=anna"]
    ]
    assert said == [None, "Unauthorized", "Unauthorized", None]
    payload, end = await turned_away(await house.connect())
    assert (payload["reason"], end) == ("Try again later", (1013, "Try again later"))


# Behind a proxy


def seen_from(count: int, *lines: str) -> str:
    """The address that counts, of a request with these X-Forwarded-For lines."""
    headers = HTTPHeaders({"Host": "localhost"})
    for line in lines:
        headers.add("X-Forwarded-For", line)
    request = HTTPServerRequest(start_line=RequestStartLine("GET", "/", "HTTP/1.1"), headers=headers)
    request.remote_ip = "10.0.0.9"
    return Gate(TrustAuthenticator(), trusted_proxies=count).address_of(request)


@pytest.mark.parametrize(
    ("count", "lines", "address"),
    [
        (0, ("203.0.113.1",), "10.0.0.9"),
        (1, ("203.0.113.1",), "203.0.113.1"),
        (1, ("6.6.6.6, 203.0.113.1",), "203.0.113.1"),
        (1, ("6.6.6.6", "203.0.113.1"), "203.0.113.1"),
        (2, ("6.6.6.6, 203.0.113.1, 10.1.1.1",), "203.0.113.1"),
        (2, ("203.0.113.1",), "10.0.0.9"),
        (1, (), "10.0.0.9"),
        (1, ("203.0.113.1,",), "10.0.0.9"),
        (1, ("2001:db8::7",), "2001:db8::7"),
        (1, ("x" * 5_000,), "x" * 64),
    ],
)
def test_whose_address_counts(count: int, lines: tuple[str, ...], address: str) -> None:
    """0 ignores the header; n takes the n-th from the end: what the outermost proxy saw, not what a client wrote before it."""
    assert seen_from(count, *lines) == address


@pytest.mark.parametrize(("proxies", "is_full"), [(0, True), (1, False)])
async def test_clients_of_a_proxy_have_addresses_of_their_own(open_house: OpenHouse, proxies: int, is_full: bool) -> None:
    house = await open_house(trusted_proxies=proxies, max_connections_per_ip=1)
    for address in ("203.0.113.1", "203.0.113.2"):
        headers = {"X-Forwarded-For": f"6.6.6.6, {address}"}
        last = await hear(await house.connect(additional_headers=headers))
    assert last["type"] == ("DISCONNECT" if is_full else "CONNECT")
    if proxies:
        forged = {"X-Forwarded-For": "198.51.100.7, 203.0.113.2"}
        assert (await hear(await house.connect(additional_headers=forged)))["type"] == "DISCONNECT"


@pytest.mark.parametrize(("proxies", "scheme"), [(0, "ws"), (1, "wss")])
async def test_a_proxy_says_whether_it_came_by_tls(open_house: OpenHouse, proxies: int, scheme: str) -> None:
    house: House = await open_house(trusted_proxies=proxies)
    answer = await house.fetch_json("/api/realtime?userId=anna", headers={"X-Forwarded-Proto": "http, https"})
    assert answer["wsUrl"].startswith(f"{scheme}://")
