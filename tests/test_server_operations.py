"""Several operations at once, by socket, by POST and from within the process (PROTOCOL sections 3 and 6)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hall import Hall, Member, Message, op, troubled
from tornado_rt.core.document import Author
from tornado_rt.errors import InvalidMessage, TooLarge, Unavailable
from tornado_rt.protocol.codec import decode_post
from tornado_rt.protocol.http_bodies import SyncAnswer


def update(id_: str, value: Any, widget_id: str = "w", **more: Any) -> Message:
    return op("WIDGET_UPDATE", id_, widgetId=widget_id, data={"value": value}, **more)


def batch(id_: str, *operations: Message, **more: Any) -> Message:
    return op("WIDGET_BATCH", id_, operations=list(operations), **more)


async def acknowledged(member: Member, type_: str, payload: dict[str, Any], id_: str | None = "") -> dict[str, Any]:
    """The payload of the ACK that answers a message; and that nothing else does."""
    id_ = member.say(type_, payload, id_)
    answer = await member.answer(id_)
    assert answer["type"] == "ACK", answer
    assert [message for message in member.take() if message.get("correlationId") == id_] == [answer]
    found: dict[str, Any] = answer["payload"]
    return found


def verdicts(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(result["operationId"], result.get("code") or result["status"]) for result in results]


async def with_a_change(hall: Hall) -> tuple[Member, Member]:
    """A widget ``w`` whose value Bert has changed at 1 and 2."""
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 1})
    bert.update({"value": 2})
    await hall.quiet()
    anna.take(), bert.take()
    return anna, bert


MIXED = [
    update("o1", 10, "a"),
    update("o2", 11, baseVersion=1),
    op("WIDGET_DELETE", "o3", widgetId="nothing"),
    op("LAYOUT_UPDATE", "o4", layout={"x": 1}),
    batch("o5", update("p1", 1, "b"), update("p2", 2, "c")),
    batch("o6", update("p3", 3, "d"), op("WIDGET_DELETE", "p4", widgetId="nothing"), atomic=False),
    batch("o7", update("p5", 4, "e"), update("p6", 12, baseVersion=1)),
    op("LAYOUT_RESTORE", "o8", version=0),
    op(
        "CONFLICT_RESOLVED",
        "o9",
        conflictId="from an earlier connection",
        resolution="merged",
        widgetId="w",
        data={"value": 13},
        baseVersion=2,
    ),
]


async def test_each_operation_has_its_result_and_none_stops_another() -> None:
    hall = Hall()
    anna, bert = await with_a_change(hall)
    payload = await acknowledged(anna, "SYNC_UPDATE", {"operations": MIXED})
    results = payload["results"]
    assert verdicts(results) == [
        ("o1", "success"),
        ("o2", "conflict"),
        ("o3", "NOT_FOUND"),
        ("o4", "success"),
        ("o5", "success"),
        ("o6", "error"),
        ("o7", "BATCH_ABORTED"),
        ("o8", "NOT_FOUND"),
        ("o9", "success"),
    ]
    assert [result["type"] for result in results] == [operation["type"] for operation in MIXED]
    assert [result.get("seq") for result in results] == [3, None, None, 4, 5, None, None, None, 7]
    assert verdicts(results[4]["results"]) == [("p1", "success"), ("p2", "success")]
    assert verdicts(results[5]["results"]) == [("p3", "success"), ("p4", "NOT_FOUND")]
    assert verdicts(results[6]["results"]) == [("p5", "BATCH_ABORTED"), ("p6", "conflict")]
    assert results[1]["conflict"]["remote"] == {"value": 2}
    assert "conflictId" not in results[6]["results"][1]["conflict"]
    assert results[8]["resolved"] is True
    assert payload["seq"] == 7
    changes = [(message["type"], message["payload"]["seq"]) for message in bert.take()]
    assert changes == [
        ("WIDGET_UPDATE", 3),
        ("LAYOUT_UPDATE", 4),
        ("WIDGET_BATCH", 5),
        ("WIDGET_UPDATE", 6),
        ("WIDGET_UPDATE", 7),
    ]


async def test_what_is_sent_together_is_committed_together() -> None:
    hall, store = troubled()
    (anna,) = await hall.people("anna")
    await acknowledged(anna, "SYNC_UPDATE", {"operations": [update(f"o{n}", n, f"w{n}") for n in range(10)]})
    assert store.commits == [10]


async def test_an_atomic_batch_is_one_operation_with_one_seq() -> None:
    hall = Hall()
    anna, bert = await with_a_change(hall)
    operations = [update("p1", 1, "a"), op("WIDGET_DELETE", "p2", widgetId="w"), op("LAYOUT_UPDATE", "p3", layout={})]
    payload = await acknowledged(anna, "WIDGET_BATCH", {"operations": operations})
    assert payload["seq"] == 3
    assert verdicts(payload["results"]) == [("p1", "success"), ("p2", "success"), ("p3", "success")]
    assert {result["seq"] for result in payload["results"]} == {3}
    (change,) = bert.take()
    assert (change["type"], change["payload"]["seq"]) == ("WIDGET_BATCH", 3)
    parts = change["payload"]["operations"]
    assert [(part["type"], part["seq"], part["userId"]) for part in parts] == [
        ("WIDGET_UPDATE", 3, "anna"),
        ("WIDGET_DELETE", 3, "anna"),
        ("LAYOUT_UPDATE", 3, "anna"),
    ]


async def test_a_repeated_atomic_batch_is_a_duplicate() -> None:
    hall = Hall()
    anna, bert = await with_a_change(hall)
    operations = [update("p1", 1, "a"), update("p2", 2, "b")]
    first = await acknowledged(anna, "WIDGET_BATCH", {"operations": operations}, "b1")
    bert.take()
    again = await acknowledged(anna, "WIDGET_BATCH", {"operations": operations}, "b1")
    assert again["duplicate"] is True
    assert "duplicate" not in first
    assert again["seq"] == first["seq"] == 3
    assert [(result["seq"], result["duplicate"]) for result in again["results"]] == [(3, True), (3, True)]
    await hall.quiet()
    assert bert.take() == []


async def test_an_atomic_batch_names_what_it_was_merged_with() -> None:
    hall = Hall()
    anna, _ = await with_a_change(hall)
    operations = [op("WIDGET_UPDATE", "p1", widgetId="w", data={"color": "red"}, baseVersion=0)]
    payload = await acknowledged(anna, "WIDGET_BATCH", {"operations": operations})
    assert payload["merged"] == ["value"]


async def test_a_refused_atomic_batch_says_who_is_to_blame() -> None:
    hall = Hall()
    anna, bert = await with_a_change(hall)
    operations = [update("p1", 1, "a"), update("p2", 3, baseVersion=1), op("WIDGET_DELETE", "p3", widgetId="no")]
    payload = await acknowledged(anna, "WIDGET_BATCH", {"operations": operations})
    assert verdicts(payload["results"]) == [("p1", "BATCH_ABORTED"), ("p2", "conflict"), ("p3", "NOT_FOUND")]
    assert "seq" not in payload
    assert "conflictId" not in payload["results"][1]["conflict"]
    assert anna.session.conflicts == {}
    await hall.quiet()
    assert bert.take() == []
    again = [update("p1", 1, "a"), update("p2", 3, baseVersion=2)]
    assert (await acknowledged(anna, "WIDGET_BATCH", {"operations": again}))["seq"] == 3


async def test_a_batch_that_is_not_atomic_is_told_one_by_one() -> None:
    hall = Hall()
    anna, bert = await with_a_change(hall)
    operations = [update("p1", 1, "a"), op("WIDGET_DELETE", "p2", widgetId="no"), update("p3", 3, "b")]
    payload = await acknowledged(anna, "WIDGET_BATCH", {"operations": operations, "atomic": False})
    assert verdicts(payload["results"]) == [("p1", "success"), ("p2", "NOT_FOUND"), ("p3", "success")]
    assert payload["seq"] == 4
    assert [(message["type"], message["payload"]["seq"]) for message in bert.take()] == [
        ("WIDGET_UPDATE", 3),
        ("WIDGET_UPDATE", 4),
    ]


async def test_a_repeated_sync_update_is_judged_once() -> None:
    """Refusals are not remembered; all else gets its first verdict (PROTOCOL section 5, 2)."""
    hall = Hall()
    anna, bert = await with_a_change(hall)
    operations = MIXED[:-1]  # the last one would settle what the seventh was refused for
    first = await acknowledged(anna, "SYNC_UPDATE", {"operations": operations})
    await hall.quiet()
    bert.take()
    again = await acknowledged(anna, "SYNC_UPDATE", {"operations": operations})
    assert verdicts(again["results"]) == verdicts(first["results"])
    for before, now in zip(first["results"], again["results"], strict=True):
        assert now.get("seq") == before.get("seq")
        assert now.get("duplicate", False) is (before["status"] != "error")
    assert again["results"][5]["results"][0]["duplicate"] is True
    await hall.quiet()
    assert bert.take() == []


@pytest.mark.parametrize("atomic", [True, False])
async def test_an_empty_batch_beside_others_harms_nobody(atomic: bool) -> None:
    hall = Hall()
    anna, bert = await with_a_change(hall)
    payload = await acknowledged(
        anna, "SYNC_UPDATE", {"operations": [update("o1", 1, "a"), batch("o2", atomic=atomic), update("o3", 3, "b")]}
    )
    assert verdicts(payload["results"]) == [("o1", "success"), ("o2", "success"), ("o3", "success")]
    assert payload["results"][1]["results"] == []
    assert hall.server.get_stats()["faults"] == 0
    assert bert.socket.closed_with is None


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param([update(f"o{n}", n) for n in range(51)], id="plain"),
        pytest.param(
            [batch("b", *[update(f"o{n}", n) for n in range(26)]), *[update(f"x{n}", n) for n in range(25)]], id="leaves"
        ),
    ],
)
async def test_fifty_operations_at_once_counted_to_the_leaves(payload: list[Message]) -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    id_ = anna.say("SYNC_UPDATE", {"operations": payload})
    nack = await anna.answer(id_)
    assert nack["payload"]["code"] == "TOO_LARGE"
    assert nack["payload"]["details"][0]["path"] == "payload.operations"
    assert anna.room.dashboard.seq == 0
    assert len((await acknowledged(anna, "SYNC_UPDATE", {"operations": payload[:-1]}))["results"]) == len(payload) - 1
    with pytest.raises(TooLarge):
        await hall.server.post(anna.session.author, decode_post(json.dumps({"type": "SYNC", "operations": payload}).encode()))


async def test_fifty_one_in_a_batch_are_too_many() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    nack = await anna.answer(anna.say("WIDGET_BATCH", {"operations": [update(f"o{n}", n) for n in range(51)]}))
    assert nack["payload"]["code"] == "TOO_LARGE"


@pytest.mark.parametrize("type_", ["WIDGET_BATCH", "SYNC_UPDATE"])
async def test_no_operation_is_no_message(type_: str) -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    nack = await anna.answer(anna.say(type_, {"operations": []}))
    assert nack["payload"]["code"] == "INVALID_MESSAGE"


async def test_a_store_that_cannot_write_refuses_the_whole_message() -> None:
    hall, store = troubled()
    anna, bert = await with_a_change(hall)
    store.failures.append(Unavailable("full"))
    nack = await anna.answer(anna.say("SYNC_UPDATE", {"operations": MIXED}))
    assert (nack["type"], nack["payload"]["code"]) == ("NACK", "UNAVAILABLE")
    assert bert.take() == []


async def test_an_answer_to_a_conflict_may_be_repeated_after_a_failure() -> None:
    """A retryable NACK: the client repeats it unchanged, under its id."""
    hall, store = troubled()
    anna, _ = await with_a_change(hall)
    conflict = await anna.answer(anna.update({"value": 3}, baseVersion=1))
    answer = {"conflictId": conflict["payload"]["conflictId"], "resolution": "local"}
    store.failures.append(Unavailable("full"))
    nack = await anna.answer(anna.say("CONFLICT_RESOLVED", answer, "r1"))
    assert nack["payload"]["retryable"] is True
    anna.take()
    anna.say("CONFLICT_RESOLVED", answer, "r1")
    assert (await anna.answer("r1"))["payload"] == {"received": True, "version": 3, "seq": 3, "resolved": True}


# By POST


async def posted(hall: Hall, operations: list[Message], user: str = "anna", **more: Any) -> dict[str, Any]:
    body = {"type": "SYNC", "operations": operations, "dashboardId": "board", **more}
    author = Author(user, more.get("deviceId", "phone"))
    answer = await hall.server.post(author, decode_post(json.dumps(body).encode()))
    plain: dict[str, Any] = json.loads(
        json.dumps({**answer, "sync": json.loads(answer["sync"])} if "sync" in answer else answer)
    )
    SyncAnswer.model_validate_json(json.dumps(plain), by_alias=True)
    return plain


async def test_a_post_has_the_same_results() -> None:
    hall = Hall()
    anna, bert = await with_a_change(hall)
    answer = await posted(hall, MIXED, "carl")
    assert answer["success"] is False
    assert [code for _, code in verdicts(answer["results"])] == [
        "success",
        "conflict",
        "NOT_FOUND",
        "success",
        "success",
        "error",
        "BATCH_ABORTED",
        "NOT_FOUND",
        "success",
    ]
    assert "sync" not in answer
    await hall.quiet()
    assert len(bert.take()) == len(anna.take()) == 5


async def test_a_post_where_everything_succeeds_is_a_success() -> None:
    hall = Hall()
    answer = await posted(hall, [update("o1", 1), batch("o2", update("p1", 2, "a"))])
    assert answer["success"] is True
    (first, second) = answer["results"]
    assert (first["seq"], first["version"], second["seq"]) == (1, 1, 2)


async def test_with_since_a_post_brings_what_was_missed() -> None:
    """PROTOCOL section 6: polling alone is a working client."""
    hall = Hall()
    await with_a_change(hall)
    answer = await posted(hall, [update("o1", 3, "mine")], "carl", since=1, epoch="epoch-1")
    sync = answer["sync"]
    assert (sync["mode"], [change["seq"] for change in sync["operations"]], sync["seq"]) == ("delta", [2, 3], 3)
    polled = await posted(hall, [], "carl", since=0)
    assert (polled["success"], polled["results"], polled["sync"]["mode"]) == (True, [], "snapshot")


async def test_a_retry_by_post_of_what_the_socket_sent_is_a_duplicate() -> None:
    """PROTOCOL section 5, 2: over the HTTP fallback too."""
    hall = Hall()
    (anna,) = await hall.people("anna")
    anna.update({"value": 1}, id_="x")
    await hall.quiet()
    (result,) = (await posted(hall, [update("x", 1)]))["results"]
    assert (result["status"], result["seq"], result["duplicate"]) == ("success", 1, True)
    (again,) = (await posted(hall, [update("x", 2)]))["results"]
    assert (again["status"], again["code"]) == ("error", "ID_REUSED")


async def test_a_conflict_by_post_is_answered_in_the_self_contained_form() -> None:
    hall = Hall()
    await with_a_change(hall)
    (result,) = (await posted(hall, [update("o1", 3, baseVersion=1)]))["results"]
    conflict = result["conflict"]
    answer = {
        "conflictId": conflict["conflictId"],
        "resolution": "local",
        "widgetId": "w",
        "data": conflict["local"],
        "baseVersion": conflict["currentVersion"],
    }
    (settled,) = (await posted(hall, [op("CONFLICT_RESOLVED", "o2", **answer)]))["results"]
    assert (settled["status"], settled["resolved"], settled["seq"]) == ("success", True, 3)


async def test_a_post_that_cannot_be_written_says_so_for_each() -> None:
    hall, store = troubled()
    store.failures.append(Unavailable("full", retry_after_ms=500))
    answer = await posted(hall, [update("o1", 1), update("o2", 2)])
    assert answer["success"] is False
    assert [(result["code"], result["retryAfterMs"]) for result in answer["results"]] == [("UNAVAILABLE", 500)] * 2


# From within the process


async def test_apply_is_done_when_it_is_durable_and_everybody_hears() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    result = await hall.server.apply("board", update("o1", 5), user_id="robot")
    assert (result["operationId"], result["status"], result["seq"]) == ("o1", "success", 1)
    assert (await hall.store.open("board")).seq == 1
    (change,) = anna.take()
    assert (change["userId"], change["payload"]["data"]) == ("robot", {"value": 5})


async def test_apply_conflicts_and_repeats_like_anybody() -> None:
    hall = Hall()
    await with_a_change(hall)
    conflict = await hall.server.apply("board", update("o1", 5, baseVersion=1), user_id="robot")
    assert (conflict["status"], conflict["conflict"]["remote"]) == ("conflict", {"value": 2})
    first = await hall.server.apply("board", update("o2", 6), user_id="robot")
    again = await hall.server.apply("board", update("o2", 6), user_id="robot")
    assert (again["seq"], again["duplicate"]) == (first["seq"], True)
    missing = await hall.server.apply("board", op("WIDGET_DELETE", "o3", widgetId="no"), user_id="robot")
    assert (missing["status"], missing["code"]) == ("error", "NOT_FOUND")


async def test_apply_takes_batches() -> None:
    hall = Hall()
    result = await hall.server.apply("board", batch("o1", update("p1", 1, "a"), update("p2", 2, "b")), user_id="robot")
    assert (result["status"], result["seq"], len(result["results"])) == ("success", 1, 2)
    loose = await hall.server.apply(
        "board", batch("o2", update("p3", 1, "a"), update("p4", 2, "b"), atomic=False), user_id="robot"
    )
    assert [part["seq"] for part in loose["results"]] == [2, 3]


async def test_apply_refuses_what_is_no_operation() -> None:
    hall = Hall()
    for wrong in ({}, {"type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {}}}, op("DANCE", "o1")):
        with pytest.raises(InvalidMessage):
            await hall.server.apply("board", wrong, user_id="robot")


async def test_apply_raises_where_the_store_cannot_write() -> None:
    hall, store = troubled()
    store.failures.append(Unavailable("full"))
    with pytest.raises(Unavailable):
        await hall.server.apply("board", update("o1", 5), user_id="robot")


async def test_apply_raises_for_a_loose_batch_too() -> None:
    hall, store = troubled()
    store.failures.append(Unavailable("full"))
    loose = batch("o2", update("p1", 1), atomic=False)
    with pytest.raises(Unavailable):
        await hall.server.apply("board", loose, user_id="robot")
