"""What a sender is told: the words for every outcome. That they come at the right time is tested with rooms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tornado_rt.answers import ack_of_results, conflict_payload, duplicate_conflict, result_of
from tornado_rt.core.document import Author, Document, Stamp
from tornado_rt.core.operation import Applied, Batch, Conflict, Operation, Refused, Replayed, Resolution, Settled, Verdict
from tornado_rt.errors import LimitExceeded, NotFound, Unavailable
from tornado_rt.intake import Item
from tornado_rt.protocol.server_messages import AckPayload, ConflictPayload, Result

ANNA = Author("anna", "laptop")
BERT = Author("bert", "desk")
AT = "2024-11-24T10:00:00.000Z"
EARLIER = "2024-11-24T09:00:00.000Z"


def update(id_: str | None = "o1", data: dict[str, Any] | None = None, base: int | None = None) -> Operation:
    return Operation("WIDGET_UPDATE", "widget", "w", ANNA, id_, 7, data or {"value": 1}, base=base)


def item(outcome: Any, request: Any = None, conflict: bytes | None = None) -> Item:
    request = request or update()
    return Item(request.id, request.type, request, outcome=outcome, conflict=conflict)


def said(of: Item) -> dict[str, Any]:
    """A result, less what all results have; it is one of the protocol."""
    result = result_of(of, AT)
    Result.model_validate_json(json.dumps(result), by_alias=True)
    assert (result.pop("operationId"), result.pop("type"), result.pop("timestamp")) == (of.id, of.type, AT)
    return result


def document() -> Document:
    found = Document("widget", "w", Stamp(4, BERT, EARLIER))
    found.alive = True
    found.fields = {"value": 2, "other": 3}
    return found


def conflict(**more: Any) -> Conflict:
    known = {"fields": ("value",), "document": document(), "current_version": 4, "newest": Stamp(4, BERT, EARLIER)}
    operation = more.pop("operation", None) or update(base=3)
    return Conflict(operation, operation, **{**known, **more})


def test_applied() -> None:
    request = update()
    assert said(item(Applied(request, Stamp(5, ANNA, AT), (request,)), request)) == {
        "status": "success",
        "version": 5,
        "seq": 5,
    }


def test_applied_beside_other_changes() -> None:
    outcome = Applied(update(), Stamp(5, ANNA, AT), (), merged=("title",))
    assert said(item(outcome))["merged"] == ("title",)


def test_replayed() -> None:
    outcome = Replayed(update(), Verdict(7, 5, ("title",), None, 0.0))
    assert said(item(outcome)) == {"status": "success", "version": 5, "seq": 5, "duplicate": True, "merged": ("title",)}


def test_a_replayed_conflict() -> None:
    payload = json.dumps(conflict_payload(conflict(), "c1", AT)).encode()
    result = said(item(Replayed(update(), Verdict(7, 0, (), payload, 0.0))))
    assert (result["status"], result["duplicate"], result["conflict"]["conflictId"]) == ("conflict", True, "c1")


def test_settled_and_resolved() -> None:
    resolution = Resolution(ANNA, "r1", 1, None, 4)
    assert said(item(Settled(resolution, 4), resolution)) == {"status": "success", "version": 4, "seq": 4, "resolved": True}


@pytest.mark.parametrize(
    ("refusal", "expected"),
    [
        (NotFound("there is none"), {"error": "there is none", "code": "NOT_FOUND"}),
        (Unavailable("full", retry_after_ms=9), {"error": "full", "code": "UNAVAILABLE", "retryAfterMs": 9}),
        (
            LimitExceeded("too many", details=(("payload.data", "too many"),)),
            {"error": "too many", "code": "LIMIT_EXCEEDED", "details": [{"path": "payload.data", "message": "too many"}]},
        ),
    ],
)
def test_refused(refusal: Any, expected: dict[str, Any]) -> None:
    assert said(item(refusal)) == {"status": "error", **expected}


def test_what_was_never_judged_is_not_answered() -> None:
    with pytest.raises(AssertionError):
        result_of(item(None), AT)


def payload_of(found: Conflict, conflict_id: str | None = "c1") -> dict[str, Any]:
    payload = conflict_payload(found, conflict_id, AT)
    ConflictPayload.model_validate_json(json.dumps(payload), by_alias=True)
    return payload


def test_a_conflict_names_both_sides() -> None:
    """``local`` is all that was sent, ``remote`` the current values of what of it conflicts."""
    assert payload_of(conflict()) == {
        "conflictId": "c1",
        "kind": "widget",
        "widgetId": "w",
        "fields": ("value",),
        "baseVersion": 3,
        "currentVersion": 4,
        "local": {"value": 1},
        "remote": {"value": 2},
        "remoteUserId": "bert",
        "remoteTimestamp": EARLIER,
    }


def test_a_field_that_is_gone_is_absent_from_remote() -> None:
    assert payload_of(conflict(fields=("value", "removed")))["remote"] == {"value": 2}


def test_null_says_that_a_side_has_no_document() -> None:
    deletion = Operation("WIDGET_DELETE", "widget", "w", ANNA, "o1", 7, base=3)
    assert payload_of(conflict(operation=deletion))["local"] is None
    gone = payload_of(conflict(document=None, newest=None))
    assert (gone["remote"], gone["remoteUserId"], gone["remoteTimestamp"]) == (None, "", AT)


def test_a_conflict_settled_by_the_server_says_so() -> None:
    assert payload_of(conflict(resolved="remote"))["resolved"] == "remote"
    assert "resolved" not in payload_of(conflict())


def test_a_conflict_said_once_more() -> None:
    again = json.loads(duplicate_conflict(json.dumps(payload_of(conflict())).encode()))
    assert again.pop("duplicate") is True
    assert again == json.loads(json.dumps(payload_of(conflict())))


def test_a_refused_batch_blames_each_for_its_own() -> None:
    remembered = json.dumps(payload_of(conflict(), "c9")).encode()
    operations = [update(f"p{number}") for number in range(4)]
    batch = Batch(operations, ANNA, "b1", 7)
    blame = {1: NotFound("none"), 2: conflict(), 3: Replayed(operations[3], Verdict(7, 0, (), remembered, 0.0))}
    result = said(item(Refused(batch, blame), batch))
    assert (result["status"], result["code"]) == ("error", "BATCH_ABORTED")
    assert [(part["operationId"], part["status"], part.get("code")) for part in result["results"]] == [
        ("p0", "error", "BATCH_ABORTED"),
        ("p1", "error", "NOT_FOUND"),
        ("p2", "conflict", None),
        ("p3", "conflict", None),
    ]
    assert not any("conflictId" in part.get("conflict", ()) for part in result["results"])
    assert result["results"][3]["duplicate"] is True


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([Applied(update(), Stamp(5, ANNA, AT), ())], "success"),
        ([], "success"),
        ([Applied(update(), Stamp(5, ANNA, AT), ()), conflict()], "conflict"),
        ([conflict(), NotFound("none"), Applied(update(), Stamp(5, ANNA, AT), ())], "error"),
    ],
)
def test_a_loose_batch_is_as_good_as_its_worst_part(outcomes: list[Any], status: str) -> None:
    parts = [item(outcome) for outcome in outcomes]
    result = said(Item("b1", "WIDGET_BATCH", parts=parts))
    assert (result["status"], len(result["results"])) == (status, len(outcomes))


def acknowledged(items: list[Item]) -> dict[str, Any]:
    raw = ack_of_results(items, AT)
    AckPayload.model_validate_json(raw, by_alias=True)
    payload: dict[str, Any] = json.loads(raw)
    assert payload["received"] is True
    return payload


def test_one_ack_for_several_has_the_highest_seq() -> None:
    parts = [item(Applied(update("p1"), Stamp(7, ANNA, AT), ())), item(NotFound("none"))]
    items = [item(Applied(update(), Stamp(5, ANNA, AT), ())), Item("b1", "WIDGET_BATCH", parts=parts)]
    assert acknowledged(items)["seq"] == 7


def test_where_nothing_was_applied_there_is_no_seq() -> None:
    assert "seq" not in acknowledged([item(NotFound("none"))])


def test_a_message_that_is_one_batch_has_its_parts_for_results() -> None:
    batch = Batch([update("p1"), update("p2")], ANNA, "m1", 7)
    whole = Item(None, "WIDGET_BATCH", batch, outcome=Applied(batch, Stamp(5, ANNA, AT), (), merged=("title",)))
    payload = acknowledged([whole])
    assert [part["operationId"] for part in payload["results"]] == ["p1", "p2"]
    assert (payload["version"], payload["seq"], payload["merged"]) == (5, 5, ["title"])
