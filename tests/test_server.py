"""RealtimeServer without doors: connections, what their messages mean, its own voice, numbers, the end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.hall import Clock, Hall, Member, Trouble, troubled, turn
from tornado_rt.errors import Close, Internal, Unavailable
from tornado_rt.picture import Picture
from tornado_rt.protocol.http_bodies import StatsAnswer
from tornado_rt.protocol.messages import SyncPost
from tornado_rt.store.base import Outcome, Record
from tornado_rt.store.memory import MemoryStore

POLL = SyncPost.model_validate({"type": "SYNC", "operations": []})


def only(member: Member) -> dict[str, Any]:
    (message,) = member.take()
    return message


# Connecting


async def test_connect_says_all_that_a_client_needs() -> None:
    hall = Hall()
    anna = await hall.join("anna", permissions=("read",))
    message = only(anna)
    assert (message["type"], message["userId"]) == ("CONNECT", "anna")
    payload = message["payload"]
    assert payload.pop("clientId") == anna.session.id
    assert payload.pop("limits")["maxOperations"] == 50
    assert payload == {
        "dashboardId": "board",
        "protocol": 1,
        "epoch": "epoch-1",
        "seq": 0,
        "heartbeatInterval": 25_000,
        "durability": "memory",
        "permissions": ["read"],
    }


async def with_changes(count: int, **options: Any) -> Hall:
    hall = Hall(**options)
    (anna,) = await hall.people("anna")
    for number in range(count):
        anna.update({"value": number}, f"w{number % 5}")
    await hall.quiet()
    anna.leave()
    return hall


async def resumed(hall: Hall, since: int | None, epoch: str | None) -> dict[str, Any]:
    message = only(await hall.join("bert", since=since, epoch=epoch))
    sync: dict[str, Any] = message["payload"]["sync"]
    assert (sync["seq"], sync["epoch"], sync["syncState"]) == (message["payload"]["seq"], "epoch-1", "ready")
    return sync


@pytest.mark.parametrize(
    ("since", "epoch"),
    [(0, "epoch-1"), (0, None), (5, None), (5, "another"), (11, "epoch-1")],
    ids=["from nothing", "from nothing, no epoch", "without epoch", "another epoch", "beyond the seq"],
)
async def test_where_nothing_less_is_true_a_snapshot_is_sent(since: int, epoch: str | None) -> None:
    """PROTOCOL section 5, 4."""
    sync = await resumed(await with_changes(10), since, epoch)
    assert sync["mode"] == "snapshot"
    assert {name: doc["data"]["value"] for name, doc in sync["widgets"].items()} == {f"w{n}": n + 5 for n in range(5)}


async def test_whoever_comes_back_soon_gets_the_operations_missed() -> None:
    sync = await resumed(await with_changes(10), 7, "epoch-1")
    assert (sync["mode"], [change["seq"] for change in sync["operations"]]) == ("delta", [8, 9, 10])
    assert sync["operations"][0]["payload"] == {"widgetId": "w2", "data": {"value": 7}, "version": 8, "seq": 8}


async def test_whoever_missed_nothing_gets_an_empty_delta() -> None:
    sync = await resumed(await with_changes(10), 10, "epoch-1")
    assert (sync["mode"], sync["operations"]) == ("delta", [])


async def test_whoever_missed_much_gets_merged_state() -> None:
    sync = await resumed(await with_changes(300), 3, "epoch-1")
    assert (sync["mode"], sync["fromSeq"], sync["deleted"]) == ("merged", 3, {"widgets": [], "layouts": []})
    assert {doc["data"]["value"] for doc in sync["widgets"].values()} == set(range(295, 300))


async def test_below_the_floor_a_snapshot_is_sent() -> None:
    hall = Hall(limits={"max_tombstones": 1})
    (anna,) = await hall.people("anna")
    for name in "abc":
        anna.update({}, name)
        anna.say("WIDGET_DELETE", {"widgetId": name})
    await hall.quiet()
    assert (await resumed(hall, 3, "epoch-1"))["mode"] == "snapshot"
    assert (await resumed(hall, 4, "epoch-1"))["mode"] == "delta"


async def test_without_since_nothing_is_synced() -> None:
    hall = await with_changes(2)
    payload = only(await hall.join("bert"))["payload"]
    assert "sync" not in payload
    assert payload["seq"] == 2


# What messages mean


async def test_a_sync_request_is_answered_as_at_connect() -> None:
    hall = await with_changes(4)
    bert = await hall.join("bert")
    bert.take()
    id_ = bert.say("SYNC_REQUEST", {"since": 3, "epoch": "epoch-1"})
    answer = only(bert)
    assert (answer["type"], answer["correlationId"]) == ("SYNC_RESPONSE", id_)
    assert (answer["payload"]["mode"], answer["payload"]["clientCount"]) == ("delta", 1)
    bert.say("SYNC_REQUEST")
    assert only(bert)["payload"]["mode"] == "snapshot"


async def test_ping_is_answered_by_pong() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    id_ = anna.say("PING")
    answer = only(anna)
    assert (answer["type"], answer["correlationId"]) == ("PONG", id_)
    assert answer["payload"] == {"serverTime": hall.clock.timestamp()}


async def test_pong_is_not_answered() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    anna.say("PONG")
    assert anna.take() == []


async def test_disconnect_is_a_polite_goodbye() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    anna.say("DISCONNECT")
    assert anna.socket.closed_with == (1000, "")


@pytest.mark.parametrize(
    ("raw", "code", "path"),
    [
        (b"{", "INVALID_JSON", None),
        (b"[]", "INVALID_MESSAGE", ""),
        (b'{"type":"PING","id":"x","payload":{}}', "INVALID_MESSAGE", "userId"),
        (b'{"type":"PING","id":"x","userId":"bert"}', "FORBIDDEN", "userId"),
        (b'{"type":"DANCE","id":"x","userId":"anna"}', "UNKNOWN_TYPE", "type"),
        (b'{"type":"ACK","id":"x","userId":"anna"}', "INVALID_MESSAGE", "type"),
        (b'{"type":"WIDGET_UPDATE","id":"x","userId":"anna","payload":{"widgetId":"w"}}', "INVALID_MESSAGE", "payload.data"),
    ],
)
async def test_what_is_wrong_is_refused_once_and_closes_nothing(raw: bytes, code: str, path: str | None) -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    anna.say_raw(raw)
    nack = only(anna)
    assert (nack["type"], nack["payload"]["code"], nack["payload"]["retryable"]) == ("NACK", code, False)
    assert nack["payload"]["error"]
    assert nack.get("correlationId") == ("x" if b'"x"' in raw else None)
    if path:
        assert [detail["path"] for detail in nack["payload"]["details"]] == [path]
    assert anna.socket.closed_with is None
    anna.say("PING")
    assert only(anna)["type"] == "PONG"


@pytest.mark.parametrize(
    ("type_", "payload"),
    [
        ("WIDGET_UPDATE", {"widgetId": "w", "data": {}}),
        ("WIDGET_DELETE", {"widgetId": "w"}),
        ("WIDGET_BATCH", {"operations": []}),
        ("SYNC_UPDATE", {"operations": []}),
        ("LAYOUT_UPDATE", {"layout": {}}),
        ("LAYOUT_RESTORE", {}),
        ("CONFLICT_RESOLVED", {"conflictId": "c", "resolution": "local"}),
    ],
)
async def test_whoever_may_only_read_changes_nothing(type_: str, payload: dict[str, Any]) -> None:
    hall = Hall()
    reader = await hall.join("anna", permissions=("read",))
    reader.take()
    id_ = reader.say(type_, payload)
    nack = only(reader)
    assert (nack["correlationId"], nack["payload"]["code"]) == (id_, "FORBIDDEN")
    assert reader.room.is_settled


async def test_whoever_may_only_read_hears_and_asks() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    reader = await hall.join("bert", permissions=("read",))
    reader.take()
    anna.update({"value": 1})
    await hall.quiet()
    reader.say("SYNC_REQUEST")
    reader.say("PING")
    assert reader.types() == ["WIDGET_UPDATE", "SYNC_RESPONSE", "PONG"]


async def test_a_mistake_of_ours_is_a_nack_and_the_connection_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one boundary that keeps a bug in the words for one message from everybody else."""
    hall = Hall()
    (anna,) = await hall.people("anna")

    def fail(*_: object) -> None:
        raise Trouble("a bug")

    monkeypatch.setattr(Picture, "sync", fail)
    with capture_logs() as logs:
        id_ = anna.say("SYNC_REQUEST")
    assert [(line["event"], line["client_id"]) for line in logs] == [("message_failed", anna.session.id)]
    nack = only(anna)
    assert (nack["correlationId"], nack["payload"]["code"], nack["payload"]["retryable"]) == (id_, "INTERNAL", True)
    assert "bug" not in nack["payload"]["error"]
    assert (hall.server.get_stats()["faults"], anna.socket.closed_with) == (1, None)
    anna.say("PING")
    assert only(anna)["type"] == "PONG"


# Speaking from within


async def talkers() -> tuple[Hall, Member, Member, Member, Member]:
    hall = Hall()
    anna, tab, bert = await hall.people("anna", "anna", "bert")
    far = await hall.join("carl", dashboard_id="elsewhere")
    far.take()
    for member in (anna, tab, bert, far):
        member.socket.is_free = True
    return hall, anna, tab, bert, far


GUIDES_BROADCAST = {"type": "SYNC_UPDATE", "id": "msg-123", "userId": "admin", "payload": {"note": "hello"}}


async def test_broadcast_goes_to_everybody_as_given() -> None:
    """The guide's example: a message with a date for a timestamp."""
    hall, *everybody = await talkers()
    at = datetime(2024, 11, 24, 10, 0, 0, tzinfo=UTC)
    assert hall.server.broadcast({**GUIDES_BROADCAST, "timestamp": at}) == 4
    for member in everybody:
        assert only(member) == {**GUIDES_BROADCAST, "timestamp": "2024-11-24T10:00:00Z"}


async def test_broadcast_may_be_to_one_dashboard() -> None:
    hall, anna, tab, bert, far = await talkers()
    assert hall.server.broadcast(GUIDES_BROADCAST, "board") == 3
    assert [len(member.take()) for member in (anna, tab, bert, far)] == [1, 1, 1, 0]


async def test_broadcast_to_user_goes_to_all_the_tabs_of_that_one() -> None:
    hall, anna, tab, bert, far = await talkers()
    message = {"type": "WIDGET_UPDATE", "id": "msg-456", "userId": "admin", "payload": {}}
    assert hall.server.broadcast_to_user("anna", message) == 2
    assert [len(member.take()) for member in (anna, tab, bert, far)] == [1, 1, 0, 0]


async def test_send_goes_to_one_connection() -> None:
    hall, anna, tab, *_ = await talkers()
    assert hall.server.send(tab.session.id, {"type": "NOTE"}) is True
    message = only(tab)
    assert (message["type"], message["payload"], anna.take()) == ("NOTE", {}, [])
    assert message["id"]
    assert message["timestamp"] == hall.clock.timestamp()
    assert hall.server.send("client-nobody", {"type": "NOTE"}) is False


async def test_what_is_broadcast_moves_no_seq() -> None:
    hall, anna, _, bert, _ = await talkers()
    hall.server.broadcast(GUIDES_BROADCAST)
    bert.take()
    anna.update({"value": 1})
    await hall.quiet()
    assert only(bert)["payload"]["seq"] == 1


# Numbers


async def test_stats_are_the_guides_and_more() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    anna.say("PING")
    anna.say("PING")
    hall.clock.advance(12.5)
    stats = hall.server.get_stats()
    StatsAnswer.model_validate(stats, by_alias=True)
    assert stats["clientCount"] == 1
    assert stats["clients"] == [
        {
            "id": anna.session.id,
            "userId": "anna",
            "dashboardId": "board",
            "connectedAt": "2023-11-14T22:13:20.000Z",
            "messageCount": 2,
            "isAlive": True,
            "outboxBytes": 0,
        }
    ]
    assert (stats["uptime"], stats["dashboards"], stats["behind"], stats["storeReads"]) == (12.5, 1, 0, 1)
    anna.leave()
    assert hall.server.get_stats()["clients"] == []


async def test_whoever_is_silent_for_too_long_is_not_alive() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    anna.socket.heard = False
    hall.clock.advance(61)
    assert hall.server.get_stats()["clients"][0]["isAlive"] is False
    anna.socket.heard = True
    assert hall.server.get_stats()["clients"][0]["isAlive"] is True


async def test_the_status_follows_the_store_and_the_drain() -> None:
    hall = Hall()
    assert hall.server.status == "draining"
    await hall.server.initialize()
    assert hall.server.status == "ready"
    await hall.store.close()
    assert hall.server.status == "degraded"
    await hall.store.start()
    await hall.server.shutdown(0)
    assert hall.server.status == "draining"


# The end


async def test_a_drain_answers_what_is_in_flight_and_says_goodbye_with_slots() -> None:
    """PROTOCOL section 1: dealt out over time at the rate at which the process can accept them."""
    hall, store = troubled(accept_rate_per_second=4.0)
    anna, bert = await hall.people("anna", "bert")
    store.hold()
    id_ = anna.update({"value": 1})
    await store.waiting.wait()
    draining = asyncio.ensure_future(hall.server.drain(5))
    await turn()
    assert hall.server.is_draining
    assert anna.take() == []
    store.gate.set()
    ack = await anna.answer(id_)
    goodbyes = [await member.hears(lambda message: message["type"] == "DISCONNECT") for member in (anna, bert)]
    assert ack["type"] == "ACK"
    assert [message["type"] for message in anna.take()] == ["ACK", "DISCONNECT"]
    expected = {"code": 1012, "reason": "Server shutting down", "reconnect": True}
    assert [goodbye["payload"] for goodbye in goodbyes] == [{**expected, "retryAfterMs": slot} for slot in (250, 500)]
    assert anna.socket.closed_with == (1012, "Server shutting down")
    anna.leave()
    bert.leave()
    await draining


async def test_a_drain_ends_with_its_grace_and_cuts_whoever_is_left() -> None:
    hall = Hall()
    await hall.server.initialize()
    (anna,) = await hall.people("anna")
    await hall.server.shutdown(0)
    assert anna.socket.aborted
    assert not hall.server.is_running


class SlowStore(MemoryStore):
    """While it writes one batch the next one gathers, as over a disk."""

    async def commit(
        self, dashboard_id: str, epoch: str, seen: int, reads: Mapping[str, int], records: Sequence[Record]
    ) -> Outcome:
        await turn()
        await turn()
        return await super().commit(dashboard_id, epoch, seen, reads, records)


async def test_a_drain_does_not_wait_for_those_who_never_pause() -> None:
    """What is in flight is answered; a client that always has something in flight must not use up the grace of all others."""
    clock = Clock()
    hall = Hall(SlowStore("epoch-1", clock.time), clock)
    (anna,) = await hall.people("anna")
    anna.update({"value": 0})
    draining = asyncio.ensure_future(hall.server.drain(1_000))
    for value in range(1, 500):
        anna.update({"value": value})
        await turn()
        if anna.socket.closed_with is not None:
            break
    draining.cancel()
    assert anna.socket.closed_with == (1012, "Server shutting down")


async def test_a_post_during_the_drain_is_told_when_to_come_back() -> None:
    hall = Hall()
    hall.server.is_draining = True
    (anna,) = await hall.people("anna")
    with pytest.raises(Unavailable) as refused:
        await hall.server.post(anna.session.author, POLL)
    assert refused.value.retry_after_ms is not None


async def test_a_full_server_lets_nobody_in() -> None:
    hall = Hall(rates={"max_connections": 2})
    anna, _ = await hall.people("anna", "bert")
    with pytest.raises(AssertionError):
        await hall.join("carl")
    anna.leave()
    await hall.join("carl")
    assert hall.server.guard.refused["connections"] == 1


async def test_slots_that_have_passed_are_free_again() -> None:
    hall = Hall(accept_rate_per_second=10.0)
    assert [hall.server.next_slot_ms() for _ in range(3)] == [100, 200, 300]
    hall.clock.advance(3600)
    assert hall.server.next_slot_ms() <= 100


async def test_shutting_down_twice_is_harmless() -> None:
    hall = Hall()
    await hall.server.initialize()
    await hall.server.shutdown(0)
    await hall.server.shutdown(0)


def test_only_two_closes_tell_a_client_to_stay_away() -> None:
    """PROTOCOL section 1: ``reconnect`` is false for Unauthorized and Forbidden alone."""
    assert {close for close in Close if not close.reconnect} == {Close.UNAUTHORIZED, Close.FORBIDDEN}


def test_every_server_fault_may_be_repeated() -> None:
    assert Unavailable.retryable
    assert Internal.retryable
