"""How much one may ask: of the counting alone, then of a whole server without doors, on a clock that the test moves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hall import Hall, Member, op, troubled
from tornado_rt.errors import RateLimited, Unavailable
from tornado_rt.events import Event
from tornado_rt.guard import BYTES_A_MESSAGE, STRIKES_BURST, Guard, Rates, network_of, weight_of
from tornado_rt.protocol.messages import SyncPost

# Counting


def test_a_limit_of_zero_is_off() -> None:
    """PROTOCOL section 9."""
    guard = Guard(Rates(0, 0, 0, 0, 0, 0, 0, 0))
    pace = guard.pace("anna")
    for _ in range(10_000):
        assert guard.knock("10.0.0.1", 0.0)
        assert guard.enter("anna", "10.0.0.1")
        guard.charge(pace, 0.0, 50)
        guard.charge_user("anna", 0.0, 50)
        assert not guard.strike(pace, 0.0)
    assert set(guard.refused.values()) == {0}


@pytest.mark.parametrize(
    ("limit", "others", "same"),
    [
        ("max_connections", ("bert", "10.0.0.2"), "connections"),
        ("max_connections_per_user", ("anna", "10.0.0.2"), "user_connections"),
        ("max_connections_per_address", ("bert", "10.0.0.1"), "address_connections"),
    ],
)
def test_connections_are_counted_in_all_by_user_and_by_address(limit: str, others: tuple[str, str], same: str) -> None:
    guard = Guard(Rates(**{"max_connections": 0, "max_connections_per_user": 0, limit: 2}))
    assert guard.enter("anna", "10.0.0.1")
    assert guard.enter(*others)
    assert not guard.has_room(*others)
    assert not guard.enter(*others)
    assert {name: count for name, count in guard.refused.items() if count} == {same: 2}
    if limit != "max_connections":
        assert guard.enter("carl", "10.0.0.3")
    guard.leave(*others)
    assert guard.enter(*others)


def test_whoever_is_refused_is_not_counted() -> None:
    guard = Guard(Rates(max_connections_per_user=1, max_connections_per_address=5))
    assert guard.enter("anna", "10.0.0.1")
    for _ in range(5):
        assert not guard.enter("anna", "10.0.0.1")
    assert guard.connections == 1
    assert all(guard.enter(f"user-{number}", "10.0.0.1") for number in range(4))


def test_handshakes_are_limited_by_address() -> None:
    guard = Guard(Rates(handshakes_per_second=5))
    assert [guard.knock("10.0.0.1", 0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert guard.knock("10.0.0.2", 0.0)
    assert guard.knock("10.0.0.1", 0.2)
    assert guard.refused["handshakes"] == 2


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("::1", "::/64"),
        ("what:ever", "what:ever"),
        ("", ""),
    ],
)
def test_whoever_has_an_ipv6_address_has_all_of_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


def test_an_ipv6_network_is_one_address() -> None:
    guard = Guard(Rates(max_connections_per_address=2))
    assert [guard.enter(f"user-{number}", f"2001:db8::{number}") for number in range(3)] == [True, True, False]


def test_what_nobody_uses_is_forgotten() -> None:
    """Strangers with ever new names and addresses leave nothing behind."""
    guard = Guard(Rates(handshakes_per_second=1, max_connections_per_address=5))
    for number in range(1_000):
        guard.knock(f"10.0.0.{number}", 0.0)
        guard.charge_user(f"user-{number}", 0.0, 1)
    guard.enter("anna", "10.0.0.1")
    guard.tidy(0.0)
    assert len(guard._accounts) > 1_000 - 1  # their buckets are not full yet
    guard.tidy(60.0)
    assert (set(guard._accounts), set(guard._addresses)) == ({"anna"}, {"10.0.0.1"})
    guard.leave("anna", "10.0.0.1")
    guard.tidy(60.0)
    assert (guard._accounts, guard._addresses) == ({}, {})


def test_a_user_cannot_shed_his_debt_by_leaving() -> None:
    """The account stays until its bucket is full."""
    guard = Guard(Rates(user_messages_per_second=1))
    guard.enter("anna", "")
    guard.charge_user("anna", 0.0, 2)
    guard.leave("anna", "")
    guard.tidy(0.5)
    with pytest.raises(RateLimited):
        guard.charge_user("anna", 0.5, 1)


def test_a_large_message_counts_as_several() -> None:
    assert [weight_of(size) for size in (0, 100, BYTES_A_MESSAGE - 1, BYTES_A_MESSAGE, 262_144)] == [1, 1, 1, 2, 65]


# A whole server


async def hall_of(*users: str, **rates: Any) -> tuple[Hall, list[Member]]:
    hall = Hall(rates=rates)
    return hall, await hall.people(*users)


async def ping(member: Member) -> dict[str, Any]:
    return await member.answer(member.say("PING"))


def said(answer: dict[str, Any]) -> Any:
    """The code of a NACK, or the type."""
    return answer["payload"]["code"] if answer["type"] == "NACK" else answer["type"]


async def test_a_connection_over_its_rate_is_told_when_to_go_on() -> None:
    """NACK RATE_LIMITED with ``retryAfterMs``; whoever waits as long is served."""
    hall, (anna, bert) = await hall_of("anna", "bert", messages_per_second=10, burst=5)
    assert [said(await ping(anna)) for _ in range(5)] == ["PONG"] * 5
    refusal = await ping(anna)
    assert refusal["payload"] == {
        "error": "too many messages on this connection",
        "code": "RATE_LIMITED",
        "retryable": True,
        "retryAfterMs": 100,
    }
    assert said(await ping(bert)) == "PONG"
    hall.clock.advance(0.1)
    assert [said(await ping(anna)) for _ in range(2)] == ["PONG", "RATE_LIMITED"]
    assert hall.server.guard.refused["connection"] == 2


async def test_what_is_refused_changes_nothing() -> None:
    hall, (anna, bert) = await hall_of("anna", "bert", messages_per_second=10, burst=2)
    for value in range(5):
        anna.update({"value": value})
    await hall.quiet()
    assert anna.types() == ["NACK"] * 3 + ["ACK"] * 2
    assert [message["payload"]["data"]["value"] for message in bert.take()] == [0, 1]
    assert anna.room.dashboard.seq == 2


async def test_refused_over_and_over_ends_in_1008() -> None:
    """DISCONNECT, and the guide's reason; the client may come back."""
    hall, (anna,) = await hall_of("anna", messages_per_second=10, burst=5)
    count = 0
    while anna.socket.closed_with is None:
        anna.say("PING")
        count += 1
    assert count == 5 + STRIKES_BURST + 1
    assert anna.socket.closed_with == (1008, "Rate limit exceeded")
    goodbye = anna.take()[-1]
    assert (goodbye["type"], goodbye["payload"]) == (
        "DISCONNECT",
        {"code": 1008, "reason": "Rate limit exceeded", "reconnect": True},
    )
    assert hall.server.guard.refused["strikes"] == 1


async def test_an_honest_client_with_a_bug_is_not_ended() -> None:
    """Ten refusals a second are borne for ever."""
    hall, (anna,) = await hall_of("anna", messages_per_second=50)
    for _ in range(1_000):
        anna.say("WIDGET_UPDATE", {"widgetId": ""})
        hall.clock.advance(0.1)
    assert (set(anna.types()), anna.socket.closed_with) == ({"NACK"}, None)


async def test_a_flood_of_rubbish_ends_too() -> None:
    """What cannot be read costs as much as what can."""
    _, (anna,) = await hall_of("anna", messages_per_second=50, burst=10)
    while anna.socket.closed_with is None:
        anna.say_raw(b"{")
    codes = [message["payload"]["code"] for message in anna.take()[:-1]]
    assert codes[:10] == ["INVALID_JSON"] * 10
    assert set(codes[10:]) == {"RATE_LIMITED"}


async def test_large_rubbish_ends_sooner() -> None:
    """It takes longer to refuse."""
    _, (anna,) = await hall_of("anna", messages_per_second=50, burst=1_000)
    count = 0
    while anna.socket.closed_with is None:
        anna.say_raw(b" " * 50_000)
        count += 1
    assert count == STRIKES_BURST // weight_of(50_000) + 1 == 8


async def test_operations_are_counted_to_the_leaves() -> None:
    """PROTOCOL section 3: each counts against the rate limit, a batch within a message as what is in it."""
    hall, (anna,) = await hall_of("anna", messages_per_second=10, burst=10)
    batch = op("WIDGET_BATCH", "b", operations=[op("WIDGET_UPDATE", f"b{n}", widgetId=f"w{n}", data={}) for n in range(4)])
    single = op("WIDGET_UPDATE", "s", widgetId="w", data={})
    anna.say("SYNC_UPDATE", {"operations": [single, batch]})  # 5
    more = [op("WIDGET_UPDATE", f"c{n}", widgetId=f"w{n}", data={}) for n in range(4)]
    anna.say("WIDGET_BATCH", {"operations": more})  # 4
    assert [said(await ping(anna)) for _ in range(2)] == ["PONG", "RATE_LIMITED"]  # 1 is left
    await hall.quiet()
    assert anna.room.dashboard.seq == 3


async def test_one_large_message_counts_as_several() -> None:
    _, (anna,) = await hall_of("anna", messages_per_second=10, burst=4)
    assert said(await anna.answer(anna.update({"text": "x" * 2 * BYTES_A_MESSAGE}))) == "ACK"
    assert [said(await ping(anna)) for _ in range(2)] == ["PONG", "RATE_LIMITED"]


async def test_a_user_has_one_bucket_for_all_connections_and_posts() -> None:
    """And nobody else's."""
    hall, (laptop, phone, bert) = await hall_of("anna", "anna", "bert", user_messages_per_second=5)
    for member in (laptop, phone, laptop, phone):
        assert said(await ping(member)) == "PONG"
    for _ in range(6):
        hall.server.charge("anna", 10)
    with pytest.raises(RateLimited, match="of this user") as refused:
        hall.server.charge("anna", 10)
    assert refused.value.retry_after_ms == 200
    assert [said(await ping(member)) for member in (laptop, phone, bert)] == ["RATE_LIMITED", "RATE_LIMITED", "PONG"]
    hall.clock.advance(0.2)
    assert said(await ping(phone)) == "PONG"
    assert hall.server.guard.refused["user"] == 3


async def test_the_operations_of_a_post_count_each() -> None:
    hall = Hall(rates={"user_messages_per_second": 5})
    anna = (await hall.join()).session.author

    async def post(count: int) -> bool:
        operations = [op("WIDGET_UPDATE", f"{hall.clock.now}-{n}", widgetId="w", data={"n": n}) for n in range(count)]
        text = json.dumps({"type": "SYNC", "dashboardId": "board", "operations": operations})
        return bool((await hall.server.post(anna, SyncPost.model_validate_json(text), 10))["success"])

    assert await post(9)
    with pytest.raises(RateLimited):
        await post(2)
    hall.clock.advance(0.2)
    assert await post(2)
    hall.clock.advance(2)
    assert await post(20)  # more than the bucket holds: when it is full, and paid off afterwards
    with pytest.raises(RateLimited) as refused:
        await post(1)
    assert refused.value.retry_after_ms == 2_200
    assert hall.server.rooms["board"].dashboard.seq == 31


async def test_where_a_post_was_refused_the_next_is_not_even_read() -> None:
    """Until the time that it was told."""
    hall = Hall(rates={"user_messages_per_second": 5})
    hall.server.charge("anna", 9 * BYTES_A_MESSAGE)
    hall.server.charge("anna")
    for size_bytes in (1, None):
        with pytest.raises(RateLimited) as refused:
            hall.server.charge("anna", size_bytes)
        assert refused.value.retry_after_ms == 200
    hall.clock.advance(0.2)
    hall.server.charge("anna")


async def test_what_waits_for_the_store_is_bounded() -> None:
    """A flood waits at the door, not in memory."""
    hall, store = troubled(rates={"max_waiting": 3})
    anna, bert = await hall.people("anna", "bert")
    store.hold()
    anna.update({"value": 0}, id_="in flight")
    await store.waiting.wait()
    for number in range(5):
        anna.update({"value": number}, id_=f"m{number}")
    refusals = anna.take()
    assert [(refusal["correlationId"], said(refusal)) for refusal in refusals] == [
        ("m3", "RATE_LIMITED"),
        ("m4", "RATE_LIMITED"),
    ]
    assert all(refusal["payload"]["retryAfterMs"] > 0 for refusal in refusals)
    bert.update({"value": 9}, id_="b")
    store.gate.set()
    await hall.quiet()
    assert [message["type"] for message in anna.take()] == ["ACK"] * 4 + ["WIDGET_UPDATE"]
    assert (anna.session.pace.waiting, hall.server.guard.refused["waiting"]) == (0, 2)
    anna.update({"value": 5})
    await hall.quiet()
    assert anna.types() == ["ACK"]


async def test_a_store_that_fails_leaves_nothing_waiting() -> None:
    hall, store = troubled(rates={"max_waiting": 2})
    (anna,) = await hall.people("anna")
    store.failures = [Unavailable("full")] * 4
    for number in range(4):
        anna.update({"value": number})
        await hall.quiet()
    assert ([said(message) for message in anna.take()], anna.session.pace.waiting) == (["UNAVAILABLE"] * 4, 0)


async def test_the_application_hears_of_it() -> None:
    """The event ``rate:limited``, of a connection and of a POST."""
    hall, (anna,) = await hall_of("anna", messages_per_second=10, burst=1, user_messages_per_second=1)
    heard: list[Event] = []
    hall.server.on("rate:limited", heard.append)
    await ping(anna)
    assert heard == []
    await ping(anna)
    assert [(event.client_id, event.user_id, event.dashboard_id) for event in heard] == [(anna.session.id, "anna", "board")]
    hall.server.charge("anna", 1)
    with pytest.raises(RateLimited):
        hall.server.charge("anna", 1)
    assert [(event.client_id, event.user_id) for event in heard[1:]] == [(None, "anna")]


async def test_whoever_leaves_makes_room() -> None:
    hall = Hall(rates={"max_connections_per_user": 1})
    room = await hall.server.enter("board")
    anna = await hall.join("anna")
    socket = anna.socket
    assert hall.server.connect(room, anna.session.author, socket, socket) is None
    anna.leave()
    anna.leave()  # a socket that ends twice is counted out once
    assert (await hall.join("anna")).types() == ["CONNECT"]
    assert hall.server.guard.connections == 1
