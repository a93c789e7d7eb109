"""What code in the process can listen to: every event of PROTOCOL section 7, and listeners that misbehave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.hall import Hall, Trouble, op
from tornado_rt.events import EVENTS, Event, Events


def listening(hall: Hall) -> list[Event]:
    heard: list[Event] = []
    for name in EVENTS:
        hall.server.on(name, heard.append)
    return heard


def names(heard: list[Event]) -> list[str]:
    return [event.name for event in heard if event.name != "message:received"]


def test_the_names_are_the_protocols() -> None:
    assert len(EVENTS) == 16


async def test_the_beginning_and_the_end() -> None:
    hall = Hall()
    heard = listening(hall)
    await hall.server.initialize()
    await hall.server.shutdown(0)
    assert names(heard) == ["initialized", "shutdown"]


async def test_coming_and_going() -> None:
    hall = Hall()
    heard = listening(hall)
    anna = await hall.join("anna")
    anna.leave()
    anna.leave()
    assert heard == [
        Event("client:connected", anna.session.id, "anna", "board"),
        Event("client:disconnected", anna.session.id, "anna", "board"),
    ]


UPDATE = ("WIDGET_UPDATE", {"widgetId": "w", "data": {"value": 3}})


@pytest.mark.parametrize(
    ("type_", "payload", "expected"),
    [
        pytest.param(*UPDATE, ["widget:updated"], id="widget:updated"),
        pytest.param("WIDGET_DELETE", {"widgetId": "w"}, ["widget:deleted"], id="widget:deleted"),
        pytest.param("LAYOUT_UPDATE", {"layout": {"a": 1}}, ["layout:updated"], id="layout:updated"),
        pytest.param("LAYOUT_RESTORE", {"version": 3}, ["layout:restored"], id="layout:restored"),
        pytest.param(
            "WIDGET_BATCH", {"operations": [op("WIDGET_DELETE", "p1", widgetId="w")]}, ["widget:batch"], id="widget:batch"
        ),
        pytest.param("SYNC_REQUEST", {}, ["sync:requested"], id="sync:requested"),
        pytest.param(
            "SYNC_UPDATE",
            {"operations": [op("WIDGET_DELETE", "p1", widgetId="w")]},
            ["sync:updated", "widget:deleted"],
            id="sync:updated",
        ),
        pytest.param(
            "WIDGET_UPDATE",
            {"widgetId": "w", "data": {"value": 3}, "baseVersion": 1},
            ["conflict:detected"],
            id="conflict:detected",
        ),
        pytest.param(
            "CONFLICT_RESOLVED",
            {"conflictId": "c", "resolution": "merged", "widgetId": "w", "data": {"value": 3}, "baseVersion": 2},
            ["conflict:resolved", "widget:updated"],
            id="conflict:resolved",
        ),
        pytest.param(
            "CONFLICT_RESOLVED",
            {"conflictId": "c", "resolution": "remote", "widgetId": "w", "baseVersion": 2},
            ["conflict:resolved"],
            id="conflict:resolved, nothing changed",
        ),
        pytest.param("WIDGET_DELETE", {"widgetId": "nothing"}, [], id="a refusal"),
        pytest.param("PING", {}, [], id="a ping"),
    ],
)
async def test_what_a_message_brings_about(type_: str, payload: dict[str, Any], expected: list[str]) -> None:
    """After it is durable, with who did it where, and the message itself as the client sent it."""
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 1})
    bert.update({"value": 2})
    bert.say("LAYOUT_UPDATE", {"layout": {"b": 2}})
    await hall.quiet()
    heard = listening(hall)
    id_ = anna.say(type_, payload)
    await hall.quiet()
    received = heard.pop(0)
    assert (received.name, received.message.id, received.message.type) == ("message:received", id_, type_)
    assert names(heard) == expected
    for event in heard:
        assert (event.client_id, event.user_id, event.dashboard_id) == (anna.session.id, "anna", "board")
        assert event.message is received.message


async def test_nothing_is_told_twice() -> None:
    """A retry changes nothing, so nobody hears of it."""
    hall = Hall()
    (anna,) = await hall.people("anna")
    heard = listening(hall)
    anna.say(*UPDATE, "x")
    anna.say(*UPDATE, "x")
    await hall.quiet()
    assert names(heard) == ["widget:updated"]


async def test_whoever_has_no_socket_has_no_client_id() -> None:
    hall = Hall()
    heard = listening(hall)
    await hall.server.apply("board", op("WIDGET_UPDATE", "o1", widgetId="w", data={}), user_id="robot")
    (event,) = heard
    assert (event.name, event.client_id, event.user_id, event.dashboard_id) == ("widget:updated", None, "robot", "board")


async def test_a_listener_may_be_a_coroutine_function_and_a_decorated_one() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    heard: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    @hall.server.on("widget:updated")
    async def listen(event: Event) -> None:
        await asyncio.sleep(0)
        heard.set_result(event)

    anna.say(*UPDATE)
    assert (await heard).message.payload.data == {"value": 3}
    assert listen is not None


async def test_a_listener_that_raises_harms_nobody() -> None:
    """It is logged and counted; the others hear, and the client notices nothing."""
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    heard: list[Event] = []

    def fail(_: Event) -> None:
        raise Trouble("not the room's business")

    async def fail_later(_: Event) -> None:
        raise Trouble("nor this")

    for listener in (fail, fail_later, heard.append):
        hall.server.on("widget:updated", listener)
    with capture_logs() as logs:
        anna.say(*UPDATE)
        await hall.quiet()
    assert [(line["event"], line["event_name"], line["log_level"]) for line in logs] == [
        ("listener_failed", "widget:updated", "error"),
        ("listener_failed", "widget:updated", "error"),
    ]
    assert hall.server.events.failures == 2
    assert [event.name for event in heard] == ["widget:updated"]
    assert (anna.types(), bert.types()) == (["ACK"], ["WIDGET_UPDATE"])


def test_listening_can_be_ended() -> None:
    events = Events()
    heard: list[Event] = []
    end = events.on("shutdown", heard.append)
    events.emit(Event("shutdown"))
    end()
    end()
    events.emit(Event("shutdown"))
    assert len(heard) == 1
    assert not events.wants("shutdown")


def test_a_name_that_is_no_event_is_refused() -> None:
    with pytest.raises(ValueError, match="widget:moved"):
        Events().on("widget:moved", print)
