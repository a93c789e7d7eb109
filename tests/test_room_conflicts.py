"""Conflicts as a connection lives through them: told, remembered, answered (PROTOCOL section 4)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hall import Hall, Member, Message, op


async def in_conflict(hall: Hall, mine: dict[str, Any] | None = None) -> tuple[Member, Member, Message]:
    """Bert has changed ``value`` to 2 after Anna's edit began; what Anna is told."""
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 1, "title": "t"})
    bert.update({"value": 2})
    await hall.quiet()
    anna.take(), bert.take()
    id_ = anna.update(mine or {"value": 3, "color": "red"}, baseVersion=1)
    conflict = await anna.answer(id_)
    anna.take()
    return anna, bert, conflict["payload"]


async def told(member: Member, id_: str) -> Message:
    answer = await member.answer(id_)
    member.take()
    return answer


def data_of(member: Member, widget_id: str = "w") -> dict[str, Any] | None:
    document = member.room.dashboard.documents.get(f"widget:{widget_id}")
    return document.fields if document is not None and document.alive else None


async def test_a_conflict_is_told_to_the_sender_alone() -> None:
    hall = Hall()
    anna, bert, payload = await in_conflict(hall)
    conflict_id = payload.pop("conflictId")
    assert conflict_id
    assert payload == {
        "kind": "widget",
        "widgetId": "w",
        "fields": ["value"],
        "baseVersion": 1,
        "currentVersion": 2,
        "local": {"value": 3, "color": "red"},
        "remote": {"value": 2},
        "remoteUserId": "bert",
        "remoteTimestamp": hall.clock.timestamp(),
    }
    assert bert.take() == []
    assert data_of(anna) == {"value": 2, "title": "t"}
    assert anna.room.dashboard.seq == 2


async def test_other_fields_that_changed_meanwhile_are_named_merged() -> None:
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 1, "title": "t"})
    anna_id = anna.update({"color": "red"}, baseVersion=0)
    assert (await told(anna, anna_id))["payload"] == {"received": True, "version": 2, "seq": 2, "merged": ["value", "title"]}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param({"resolution": "local"}, {"value": 3, "title": "t", "color": "red"}, id="local"),
        pytest.param({"resolution": "merged", "data": {"value": 5}}, {"value": 5, "title": "t"}, id="merged"),
        pytest.param({"resolution": "merged", "data": None}, None, id="merged: null deletes"),
    ],
)
async def test_an_answer_is_applied_and_broadcast_as_an_ordinary_change(answer: dict[str, Any], expected: Any) -> None:
    hall = Hall()
    anna, bert, conflict = await in_conflict(hall)
    id_ = anna.say("CONFLICT_RESOLVED", {"conflictId": conflict["conflictId"], **answer})
    assert (await told(anna, id_))["payload"] == {"received": True, "version": 3, "seq": 3, "resolved": True}
    assert data_of(anna) == data_of(bert) == expected
    (change,) = bert.take()
    assert change["type"] == ("WIDGET_UPDATE" if expected else "WIDGET_DELETE")
    assert change["payload"]["seq"] == 3


async def test_remote_drops_the_whole_of_it() -> None:
    hall = Hall()
    anna, bert, conflict = await in_conflict(hall)
    id_ = anna.say("CONFLICT_RESOLVED", {"conflictId": conflict["conflictId"], "resolution": "remote"})
    ack = await told(anna, id_)
    assert ack["payload"] == {"received": True, "version": 2, "seq": 2, "resolved": True}
    assert data_of(anna) == {"value": 2, "title": "t"}
    assert bert.take() == []


@pytest.mark.parametrize("resolution", ["local", "merged"])
async def test_a_document_that_moved_on_in_a_touched_field_conflicts_again(resolution: str) -> None:
    hall = Hall()
    anna, bert, conflict = await in_conflict(hall)
    bert.update({"value": 9})
    await hall.quiet()
    anna.take()
    data = {"data": {"value": 3}} if resolution == "merged" else {}
    id_ = anna.say("CONFLICT_RESOLVED", {"conflictId": conflict["conflictId"], "resolution": resolution, **data})
    again = await told(anna, id_)
    assert again["type"] == "CONFLICT_DETECTED"
    assert again["payload"]["conflictId"] != conflict["conflictId"]
    assert (again["payload"]["currentVersion"], again["payload"]["remote"]) == (3, {"value": 9})
    id_ = anna.say("CONFLICT_RESOLVED", {"conflictId": again["payload"]["conflictId"], "resolution": "local"})
    assert (await told(anna, id_))["payload"]["resolved"] is True
    assert data_of(anna)["value"] == 3  # type: ignore[index]


async def test_other_fields_that_moved_on_do_not_disturb_an_answer() -> None:
    hall = Hall()
    anna, bert, conflict = await in_conflict(hall)
    bert.update({"title": "other"})
    id_ = anna.say("CONFLICT_RESOLVED", {"conflictId": conflict["conflictId"], "resolution": "local"})
    assert (await told(anna, id_))["payload"]["resolved"] is True
    assert data_of(anna) == {"value": 3, "title": "other", "color": "red"}


async def test_a_document_that_is_gone_comes_back_with_all_that_is_sent() -> None:
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 1, "title": "t"})
    bert.say("WIDGET_DELETE", {"widgetId": "w"})
    await hall.quiet()
    anna.take(), bert.take()
    conflict = await told(anna, anna.update({"value": 2}, baseVersion=1))
    assert (conflict["payload"]["remote"], conflict["payload"]["currentVersion"]) == (None, 2)
    answer = {"conflictId": conflict["payload"]["conflictId"], "resolution": "merged", "data": {"value": 2, "title": "t"}}
    assert (await told(anna, anna.say("CONFLICT_RESOLVED", answer)))["payload"]["seq"] == 3
    assert data_of(bert) == {"value": 2, "title": "t"}


async def test_a_deletion_conflicts_with_a_change_and_may_be_insisted_on() -> None:
    """``local: null`` says that the sender deletes it."""
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 1})
    bert.update({"value": 2})
    await hall.quiet()
    anna.take(), bert.take()
    conflict = await told(anna, anna.say("WIDGET_DELETE", {"widgetId": "w", "baseVersion": 1}))
    assert (conflict["payload"]["local"], conflict["payload"]["remote"]) == (None, {"value": 2})
    answer = {"conflictId": conflict["payload"]["conflictId"], "resolution": "local"}
    assert (await told(anna, anna.say("CONFLICT_RESOLVED", answer)))["payload"]["resolved"] is True
    assert data_of(anna) is None
    assert bert.types() == ["WIDGET_DELETE"]


async def test_a_layout_conflicts_and_is_resolved_like_a_widget() -> None:
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    bert.say("LAYOUT_UPDATE", {"layout": {"a": 1}})
    bert.say("LAYOUT_UPDATE", {"layout": {"a": 2}})
    await hall.quiet()
    anna.take()
    conflict = await told(anna, anna.say("LAYOUT_UPDATE", {"layout": {"a": 3}, "baseVersion": 1}))
    assert (conflict["payload"]["kind"], conflict["payload"]["layoutId"]) == ("layout", "default")
    answer = {"conflictId": conflict["payload"]["conflictId"], "resolution": "merged", "data": {"a": 4}}
    assert (await told(anna, anna.say("CONFLICT_RESOLVED", answer)))["payload"]["seq"] == 3
    assert anna.room.dashboard.documents["layout:default"].fields == {"a": 4}


async def test_a_layout_cannot_be_resolved_away() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    answer = {"conflictId": "c", "resolution": "merged", "layoutId": "default", "baseVersion": 0, "data": None}
    nack = await told(anna, anna.say("CONFLICT_RESOLVED", answer))
    assert (nack["payload"]["code"], nack["payload"]["details"][0]["path"]) == ("INVALID_MESSAGE", "payload.data")


@pytest.mark.parametrize("resolution", ["local", "merged"])
async def test_the_self_contained_form_needs_no_memory(resolution: str) -> None:
    """What a client sends that has reconnected since it was told."""
    hall = Hall()
    anna, bert, conflict = await in_conflict(hall)
    anna.leave()
    anna = await hall.join("anna")
    anna.take()
    answer = {
        "conflictId": conflict["conflictId"],
        "resolution": resolution,
        "widgetId": "w",
        "data": {"value": 3},
        "baseVersion": conflict["currentVersion"],
    }
    assert (await told(anna, anna.say("CONFLICT_RESOLVED", answer)))["payload"] == {
        "received": True,
        "version": 3,
        "seq": 3,
        "resolved": True,
    }
    assert data_of(bert) == {"value": 3, "title": "t"}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param({"resolution": "local"}, id="local"),
        pytest.param({"resolution": "remote"}, id="remote"),
        pytest.param({"resolution": "merged", "data": {"value": 1}}, id="merged"),
        pytest.param({"resolution": "merged", "data": {"value": 1}, "widgetId": "w"}, id="without baseVersion"),
        pytest.param({"resolution": "merged", "data": {"value": 1}, "baseVersion": 0}, id="without the document"),
        pytest.param({"resolution": "local", "widgetId": "w", "baseVersion": 0}, id="local without data"),
    ],
)
async def test_a_conflict_that_nobody_knows_is_refused(answer: dict[str, Any]) -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    nack = await told(anna, anna.say("CONFLICT_RESOLVED", {"conflictId": "unheard-of", **answer}))
    assert (nack["type"], nack["payload"]["code"], nack["payload"]["retryable"]) == ("NACK", "CONFLICT_UNKNOWN", False)


async def test_conflicts_are_those_of_one_connection() -> None:
    hall = Hall()
    _, bert, conflict = await in_conflict(hall)
    nack = await told(bert, bert.say("CONFLICT_RESOLVED", {"conflictId": conflict["conflictId"], "resolution": "local"}))
    assert nack["payload"]["code"] == "CONFLICT_UNKNOWN"


async def test_a_conflict_is_remembered_for_ten_minutes() -> None:
    hall = Hall()
    anna, _, conflict = await in_conflict(hall)
    hall.clock.advance(601)
    nack = await told(anna, anna.say("CONFLICT_RESOLVED", {"conflictId": conflict["conflictId"], "resolution": "local"}))
    assert nack["payload"]["code"] == "CONFLICT_UNKNOWN"


async def test_just_before_ten_minutes_it_still_is() -> None:
    hall = Hall()
    anna, _, conflict = await in_conflict(hall)
    hall.clock.advance(599)
    ack = await told(anna, anna.say("CONFLICT_RESOLVED", {"conflictId": conflict["conflictId"], "resolution": "local"}))
    assert ack["payload"]["resolved"] is True


async def test_the_newest_hundred_conflicts_are_remembered() -> None:
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 1})
    bert.update({"value": 2})
    await hall.quiet()
    ids = [anna.update({"value": 10 + turn}, baseVersion=1) for turn in range(101)]
    await hall.quiet()
    conflicts = {
        message["correlationId"]: message["payload"]["conflictId"] for message in anna.take() if "correlationId" in message
    }
    assert len(conflicts) == 101
    first, second = conflicts[ids[0]], conflicts[ids[1]]
    nack = await told(anna, anna.say("CONFLICT_RESOLVED", {"conflictId": first, "resolution": "local"}))
    assert nack["payload"]["code"] == "CONFLICT_UNKNOWN"
    ack = await told(anna, anna.say("CONFLICT_RESOLVED", {"conflictId": second, "resolution": "local"}))
    assert ack["payload"]["resolved"] is True


async def test_a_repeated_edit_hears_its_conflict_again_and_may_be_answered() -> None:
    """PROTOCOL section 5, 2: the first one's verdict, with ``duplicate``; also for whoever came back on a new connection."""
    hall = Hall()
    anna, _, _ = await in_conflict(hall)
    id_ = anna.update({"value": 7}, baseVersion=1)
    first = await told(anna, id_)
    anna.leave()
    anna = await hall.join("anna")
    anna.take()
    anna.update({"value": 7}, baseVersion=1, id_=id_)
    again = await told(anna, id_)
    assert again["payload"] == {**first["payload"], "duplicate": True}
    answer = {"conflictId": first["payload"]["conflictId"], "resolution": "local"}
    assert (await told(anna, anna.say("CONFLICT_RESOLVED", answer)))["payload"]["resolved"] is True
    assert data_of(anna) == {"value": 7, "title": "t"}


async def test_a_repeated_answer_is_not_judged_again() -> None:
    hall = Hall()
    anna, bert, conflict = await in_conflict(hall)
    answer = {"conflictId": conflict["conflictId"], "resolution": "local"}
    first = await told(anna, anna.say("CONFLICT_RESOLVED", answer, "r1"))
    bert.update({"value": 20})
    await hall.quiet()
    anna.take()
    again = await told(anna, anna.say("CONFLICT_RESOLVED", answer, "r1"))
    assert again["payload"] == {**first["payload"], "duplicate": True}
    assert data_of(anna)["value"] == 20  # type: ignore[index]


async def test_an_id_with_another_content_is_refused() -> None:
    hall = Hall()
    (anna,) = await hall.people("anna")
    anna.update({"value": 1}, id_="x")
    await told(anna, "x")
    anna.update({"value": 2}, id_="x")
    nack = await told(anna, "x")
    assert (nack["type"], nack["payload"]["code"], nack["payload"]["retryable"]) == ("NACK", "ID_REUSED", False)


async def test_the_server_may_settle_conflicts_for_what_stands() -> None:
    """remote-wins: nothing was applied, no answer is due, and none is kept open."""
    hall = Hall(limits={"conflict_strategy": "remote-wins"})
    anna, _, conflict = await in_conflict(hall)
    assert conflict["resolved"] == "remote"
    assert data_of(anna) == {"value": 2, "title": "t"}
    assert anna.session.conflicts == {}


async def test_a_repeated_conflict_that_the_server_settled_stays_settled() -> None:
    hall = Hall(limits={"conflict_strategy": "remote-wins"})
    anna, _, _ = await in_conflict(hall)
    id_ = anna.update({"value": 8}, baseVersion=1)
    await told(anna, id_)
    anna.update({"value": 8}, baseVersion=1, id_=id_)
    again = await told(anna, id_)
    assert (again["payload"]["resolved"], again["payload"]["duplicate"]) == ("remote", True)
    assert anna.session.conflicts == {}


@pytest.mark.parametrize("limits", [{"conflict_strategy": "local-wins"}, {"conflict_detection": False}])
async def test_the_server_may_let_the_last_writer_win(limits: dict[str, Any]) -> None:
    hall = Hall(limits=limits)
    anna, bert = await hall.people("anna", "bert")
    bert.update({"value": 2})
    await hall.quiet()
    anna.take()
    assert (await told(anna, anna.update({"value": 3}, baseVersion=0)))["type"] == "ACK"
    assert data_of(anna) == {"value": 3}


async def test_a_conflict_among_several_operations_may_be_answered_like_any_other() -> None:
    """In ``results`` it has a conflictId too, and the connection remembers it."""
    hall = Hall()
    anna, _, _ = await in_conflict(hall)
    id_ = anna.say("SYNC_UPDATE", {"operations": [op("WIDGET_UPDATE", "o1", widgetId="w", data={"value": 6}, baseVersion=1)]})
    (result,) = (await told(anna, id_))["payload"]["results"]
    assert (result["operationId"], result["status"]) == ("o1", "conflict")
    answer = {"conflictId": result["conflict"]["conflictId"], "resolution": "local"}
    assert (await told(anna, anna.say("CONFLICT_RESOLVED", answer)))["payload"]["resolved"] is True
