"""What a signed-in person may send to do harm, and what he gets: HARDENING's list, over real sockets.

A refused message gets exactly one NACK, with the path to what is wrong where that can be said.
"""

from __future__ import annotations

import asyncio
import json
import os
import struct
from typing import Any

import pytest

from tests.abuse.fortress import Fortress


def update(data: str = '{"value":1}', *, widget_id: str = '"w1"', more: str = "") -> str:
    """A WIDGET_UPDATE as text, for what json.dumps would not write."""
    payload = f'{{"widgetId":{widget_id},"data":{data}{more}}}'
    return f'{{"type":"WIDGET_UPDATE","id":"m","userId":"anna","payload":{payload}}}'


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


REFUSED = {
    "no JSON": ("{", "INVALID_JSON", None),
    "nothing": ("", "INVALID_JSON", None),
    "two at once": (update() * 2, "INVALID_JSON", None),
    "NaN": (update('{"value":NaN}'), "INVALID_JSON", "payload.data.value"),
    "Infinity": (update('{"value":-Infinity}'), "INVALID_JSON", "payload.data.value"),
    "infinite once read": (update('{"value":1e400}'), "INVALID_MESSAGE", "payload.data.value"),
    "a lone surrogate": (update('{"value":"\\ud800"}'), "INVALID_JSON", "payload.data.value"),
    "a lone surrogate for a name": (update('{"\\udfff":1}'), "INVALID_JSON", "payload.data.?"),
    "beyond 53 bits": (update('{"value":9007199254740993}'), "INVALID_MESSAGE", "payload.data.value"),
    "ten thousand digits": (update(f'{{"value":{"9" * 10_000}}}'), "INVALID_MESSAGE", "payload.data.value"),
    "33 levels": (update(more=f',"x":{nested(31)}'), "INVALID_MESSAGE", "payload.x" + "[0]" * 30),
    "17 levels of a value": (update(f'{{"value":{nested(17)}}}'), "INVALID_MESSAGE", "payload.data.value"),
    "twenty thousand levels": (update(f'{{"value":{nested(20_000)}}}'), "INVALID_MESSAGE", None),
    "an array": ("[]", "INVALID_MESSAGE", None),
    "a type that there is not": ('{"type":"DROP_TABLE","userId":"anna"}', "UNKNOWN_TYPE", "type"),
    "a server's type": ('{"type":"ACK","userId":"anna"}', "INVALID_MESSAGE", "type"),
    "type is a number": ('{"type":1,"userId":"anna"}', "INVALID_MESSAGE", "type"),
    "nobody's": ('{"type":"PING"}', "INVALID_MESSAGE", "userId"),
    "payload is an array": ('{"type":"PING","userId":"anna","payload":[]}', "INVALID_MESSAGE", "payload"),
    "data is a string": (update('"x"'), "INVALID_MESSAGE", "payload.data"),
    "widgetId is a number": (update(widget_id="7"), "INVALID_MESSAGE", "payload.widgetId"),
    "widgetId is an object": (update(widget_id='{"$ne":null}'), "INVALID_MESSAGE", "payload.widgetId"),
    "an empty id": (update(widget_id='""'), "INVALID_MESSAGE", "payload.widgetId"),
    "an id of 129 signs": (update(widget_id=f'"{"x" * 129}"'), "INVALID_MESSAGE", "payload.widgetId"),
    "a line break in an id": (update(widget_id='"a\\nb"'), "INVALID_MESSAGE", "payload.widgetId"),
    "ANSI in an id": (update(widget_id='"\\u001b[31m"'), "INVALID_MESSAGE", "payload.widgetId"),
    "NUL in an id": (update(widget_id='"a\\u0000"'), "INVALID_MESSAGE", "payload.widgetId"),
    "baseVersion is true": (update(more=',"baseVersion":true'), "INVALID_MESSAGE", "payload.baseVersion"),
    "baseVersion is negative": (update(more=',"baseVersion":-1'), "INVALID_MESSAGE", "payload.baseVersion"),
    "baseVersion is not yet": (update(more=',"baseVersion":999999'), "INVALID_MESSAGE", "payload.baseVersion"),
    "replace is 1": (update(more=',"replace":1'), "INVALID_MESSAGE", "payload.replace"),
    "set and removed": (update(more=',"unset":["value"]'), "INVALID_MESSAGE", "payload.unset[0]"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_malformed_messages_are_refused_with_the_path(fortress: Fortress, case: str) -> None:
    text, code, path = REFUSED[case]
    async with fortress.speaker() as anna:
        refusal = await anna.ask_raw(text)
        assert (refusal["type"], refusal["payload"]["code"], refusal["payload"]["retryable"]) == ("NACK", code, False)
        paths = [detail["path"] for detail in refusal["payload"].get("details", [])]
        if path is not None:
            assert paths == [path]
        assert (await anna.ask("PING"))["type"] == "PONG"  # exactly one, and the connection lives


@pytest.mark.parametrize("name", ["__proto__", "constructor", "prototype", "toString"])
async def test_names_that_mean_something_to_javascript_mean_nothing(fortress: Fortress, name: str) -> None:
    """Legal, and kept as they are; nothing else changes. Taken back, so that the state is what it was."""
    async with fortress.speaker(dashboards={"traps": "editor"}, dashboard="traps") as anna:
        data = f'{{"{name}":{{"x":1}}}}'
        text = update(data, widget_id=f'"{name}"').replace('"id":"m"', f'"id":"{name}"')
        assert (await anna.ask_raw(text))["type"] == "ACK"
        widgets = (await anna.ask("SYNC_REQUEST"))["payload"]["widgets"]
        assert widgets[name]["data"] == {name: {"x": 1}}


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "</script><script>", "'; DROP TABLE log;--", "\x1b[2J", "‮evil", "\x00"]
)
async def test_text_is_text(fortress: Fortress, text: str) -> None:
    """Kept and told word for word; to show it as text is the page's part."""
    async with fortress.speaker(dashboards={"traps": "editor"}, dashboard="traps") as anna:
        assert (await anna.ask("WIDGET_UPDATE", {"widgetId": "t", "data": {"title": text}}))["type"] == "ACK"
        assert (await anna.ask("SYNC_REQUEST"))["payload"]["widgets"]["t"]["data"]["title"] == text


# Whose it is


BLIND = {"error", "code", "retryable", "details"}


@pytest.mark.parametrize("other", ["boss", "witness", "anna ", "Anna", "anna\u200b"])
async def test_nobody_speaks_for_another(fortress: Fortress, other: str) -> None:
    async with fortress.speaker() as anna:
        refusal = await anna.ask("WIDGET_UPDATE", {"widgetId": "w1", "data": {"value": 9}}, userId=other)
        assert refusal["payload"]["code"] in ("FORBIDDEN", "INVALID_MESSAGE")


WRITES: list[tuple[str, Any]] = [
    ("WIDGET_UPDATE", {"widgetId": "w1", "data": {"value": 9}}),
    ("WIDGET_UPDATE", {"widgetId": "nothing", "data": {"value": 9}}),
    ("WIDGET_DELETE", {"widgetId": "w1"}),
    ("WIDGET_DELETE", {"widgetId": "nothing"}),
    ("LAYOUT_UPDATE", {"layout": {"x": 9}}),
    ("LAYOUT_RESTORE", {"version": 1}),
    ("LAYOUT_RESTORE", {"layoutId": "nothing", "version": 99}),
    ("CONFLICT_RESOLVED", {"conflictId": "nothing", "resolution": "remote"}),
    ("WIDGET_BATCH", {"operations": [{"operationId": "o", "type": "WIDGET_DELETE", "payload": {"widgetId": "w1"}}]}),
    ("SYNC_UPDATE", {"operations": [{"operationId": "o", "type": "WIDGET_DELETE", "payload": {"widgetId": "w1"}}]}),
    ("SYNC_UPDATE", {"operations": []}),
]


async def test_a_reader_writes_nothing_and_learns_nothing(fortress: Fortress) -> None:
    """The same NACK for what is there and for what is not."""
    async with fortress.speaker(dashboards={"sales": "viewer"}) as anna:
        refusals = [(await anna.ask(type_, payload))["payload"] for type_, payload in WRITES]
    assert {json.dumps(refusal, sort_keys=True) for refusal in refusals} == {json.dumps(refusals[0], sort_keys=True)}
    assert refusals[0]["code"] == "FORBIDDEN"


async def test_one_message_cannot_reach_another_dashboard(fortress: Fortress) -> None:
    """A ``dashboardId`` inside a message is an unknown field, and ignored: the connection's own counts."""
    async with fortress.speaker(dashboards={"traps": "editor"}, dashboard="traps") as anna:
        answer = await anna.ask(
            "WIDGET_UPDATE", {"widgetId": "w1", "data": {"x": 1}, "dashboardId": "sales"}, dashboardId="sales"
        )
        assert answer["type"] == "ACK"


# Frames


def frame(opcode: int, body: bytes = b"", *, first: int = 0x80) -> bytes:
    """A client's frame, masked; ``first`` are the bits beside the opcode."""
    mask = os.urandom(4)
    match len(body):
        case size if size < 126:
            length = bytes([0x80 | size])
        case size if size < 65_536:
            length = b"\xfe" + struct.pack("!H", size)
        case size:
            length = b"\xff" + struct.pack("!Q", size)
    return bytes([first | opcode]) + length + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(body))


@pytest.mark.parametrize(
    ("frames", "code", "reason"),
    [
        pytest.param(frame(2, b"{}"), 1003, "Text frames only", id="binary"),
        pytest.param(frame(1, b"x" * 65_537), 1009, "Message too big", id="oversize"),
        pytest.param(
            frame(1, b"x" * 40_000, first=0) + frame(0, b"x" * 40_000), 1009, "Message too big", id="oversize in parts"
        ),
        pytest.param(b"\x81\xff" + b"\x7f" + b"\xff" * 7 + b"mask", 1009, "Message too big", id="announces 2^63 bytes"),
        pytest.param(frame(1, b"\xff\xfe"), 1007, "Invalid UTF-8", id="no UTF-8"),
        pytest.param(frame(1, b'"\xed\xa0\x80"'), 1007, "Invalid UTF-8", id="a surrogate in UTF-8"),
        pytest.param(frame(1, b"x", first=0xC0), 1002, "Protocol error", id="compressed, though nobody agreed to"),
        pytest.param(b"\x81\x02{}", 1002, "Protocol error", id="unmasked"),
        pytest.param(frame(3), 1002, "Protocol error", id="an opcode that there is not"),
        pytest.param(frame(0, b"x"), 1002, "Protocol error", id="the end of nothing"),
        pytest.param(frame(9, first=0), 1002, "Protocol error", id="a ping in parts"),
        pytest.param(frame(8, b"\x03"), 1002, "Protocol error", id="half a close code"),
        pytest.param(frame(8, b"\x03\xed"), 1002, "Protocol error", id="a close code that is forbidden"),
        pytest.param(frame(9) * 51, 1008, "Rate limit exceeded", id="a flood of pings"),
        pytest.param(frame(10) * 51, 1008, "Rate limit exceeded", id="a flood of pongs"),
        pytest.param(frame(1, first=0) + frame(0, first=0) * 3_000, 1008, "Rate limit exceeded", id="a flood of crumbs"),
    ],
)
async def test_frames_that_break_the_rules_end_the_connection(
    fortress: Fortress, frames: bytes, code: int, reason: str
) -> None:
    async with fortress.speaker() as anna:
        anna.socket.transport.write(frames)
        said, end = await anna.end()
    assert end == (code, reason)
    assert [message for message in said if message["type"] not in ("DISCONNECT",)] == []


async def test_fifty_control_frames_are_borne(fortress: Fortress) -> None:
    async with fortress.speaker() as anna:
        anna.socket.transport.write(frame(10) * 49)
        assert (await anna.ask("PING"))["type"] == "PONG"


async def test_what_follows_a_refused_frame_is_not_heard(fortress: Fortress) -> None:
    async with fortress.speaker() as anna:
        anna.socket.transport.write(frame(2, b"{}") + frame(1, update('{"value":666}').encode()))
        assert (await anna.end())[1][0] == 1003


async def test_compression_is_not_agreed_to(fortress: Fortress) -> None:
    """A bomb of ten kilobytes would be ten megabytes."""
    async with fortress.speaker(compression="deflate") as anna:
        assert anna.socket.protocol.extensions == []
        assert anna.socket.response is not None
        assert "Sec-WebSocket-Extensions" not in anna.socket.response.headers


# Too much


async def test_a_flood_of_messages_ends_in_1008(fortress: Fortress) -> None:
    """Each is refused by one NACK; then DISCONNECT. Others go on."""
    async with fortress.speaker() as anna, fortress.speaker("bert") as bert:
        ping = json.dumps({"type": "PING", "userId": "anna"}).encode()
        anna.socket.transport.write(frame(1, ping) * 400)
        said, end = await anna.end()
        assert end == (1008, "Rate limit exceeded")
        codes = [message["payload"].get("code", message["type"]) for message in said]
        assert codes[:100] == ["PONG"] * 100
        assert codes[-1] == 1008
        assert codes.count("RATE_LIMITED") >= 100
        assert (await bert.ask("PING"))["type"] == "PONG"


async def test_a_message_carries_fifty_operations_at_most(fortress: Fortress) -> None:
    """Counted to the leaves of batches; refused whole, by one NACK."""
    operations = [
        {"operationId": f"o{n}", "type": "WIDGET_UPDATE", "payload": {"widgetId": "w1", "data": {}}} for n in range(52)
    ]
    halves = {"a": operations[:26], "b": operations[26:]}
    parts = [{"operationId": name, "type": "WIDGET_BATCH", "payload": {"operations": half}} for name, half in halves.items()]
    for type_, sent in (("SYNC_UPDATE", operations), ("WIDGET_BATCH", operations), ("SYNC_UPDATE", parts)):
        async with fortress.speaker() as anna:
            assert (await anna.ask(type_, {"operations": sent}))["payload"]["code"] == "TOO_LARGE"


async def test_a_document_holds_so_much_and_no_more(fortress: Fortress) -> None:
    async with fortress.speaker() as anna:
        many = {f"f{number}": 1 for number in range(501)}
        assert (await anna.ask("WIDGET_UPDATE", {"widgetId": "w1", "data": many}))["payload"]["code"] == "LIMIT_EXCEEDED"


async def test_many_who_break_off_at_once_are_worth_no_line(fortress: Fortress) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(40):
            group.create_task(break_off(fortress, f"user-{number}"))


async def break_off(fortress: Fortress, user: str) -> None:
    async with fortress.speaker(user) as speaker:
        speaker.socket.transport.abort()
