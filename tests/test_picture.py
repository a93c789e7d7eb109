"""A dashboard as the wire shows it, and what of it is kept ready."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.core.scene import ANNA, BERT, EPOCH, Scene, applied, batch, delete, layout, restore, update
from tornado_rt.core.journal import record
from tornado_rt.picture import DELTA_OPERATIONS, Picture
from tornado_rt.protocol.server_messages import CatchUpPayload, DeltaPayload, MergedPayload, SnapshotPayload

AT = "2024-11-24T11:00:00.000Z"
MODELS = {"snapshot": SnapshotPayload, "delta": DeltaPayload, "merged": MergedPayload}


class Drawing(Scene):
    """A scene with a picture of it."""

    def __init__(self, **limits: Any) -> None:
        super().__init__(**limits)
        self.picture = Picture(self.dashboard)

    def draw(self, *requests: Any) -> None:
        for request in requests:
            outcome = applied(self.do(request))
            self.picture.recent.append((outcome.stamp.seq, record(outcome)))

    def sync(self, since: int | None, epoch: str | None = EPOCH) -> dict[str, Any]:
        raw = self.picture.sync(since, epoch, 3, AT)
        payload: dict[str, Any] = json.loads(raw)
        MODELS[payload["mode"]].model_validate_json(raw, by_alias=True)
        return payload

    def catch_up(self, since: int) -> dict[str, Any]:
        raw = self.picture.catch_up(since)
        CatchUpPayload.model_validate_json(raw, by_alias=True)
        payload: dict[str, Any] = json.loads(raw)
        return payload


def test_an_empty_dashboard() -> None:
    assert Drawing().sync(None) == {
        "mode": "snapshot",
        "widgets": {},
        "layouts": {},
        "epoch": EPOCH,
        "seq": 0,
        "syncState": "ready",
        "clientCount": 3,
        "timestamp": AT,
    }


def test_a_snapshot_shows_the_living_whole() -> None:
    drawing = Drawing()
    drawing.draw(
        update(ANNA, {"value": 1, "title": "t"}),
        update(BERT, {"value": 2}),
        update(ANNA, {}, target="gone"),
        delete(ANNA, target="gone"),
        layout(ANNA, {"a": 1}),
        layout(BERT, {"a": 2}),
    )
    payload = drawing.sync(None)
    assert payload["widgets"] == {
        "w": {"data": {"value": 2, "title": "t"}, "version": 2, "updatedAt": "2024-11-24T10:00:00.000Z", "updatedBy": "bert"}
    }
    assert payload["layouts"]["default"]["layout"] == {"a": 2}
    assert payload["layouts"]["default"]["history"] == [5, 6]


def test_a_delta_is_what_was_told() -> None:
    drawing = Drawing()
    drawing.draw(
        update(ANNA, {"value": 1}),
        update(BERT, {"value": 2}, unset=("title",)),
        delete(ANNA),
        layout(ANNA, {"a": 1}),
        layout(ANNA, {"a": 2}),
        restore(BERT, 4),
        batch(ANNA, update(ANNA, {"x": 1}), layout(ANNA, {"b": 1})),
    )
    payload = drawing.sync(1)
    assert payload["mode"] == "delta"
    told = [(change["type"], change["seq"], change["userId"]) for change in payload["operations"]]
    assert told == [
        ("WIDGET_UPDATE", 2, "bert"),
        ("WIDGET_DELETE", 3, "anna"),
        ("LAYOUT_UPDATE", 4, "anna"),
        ("LAYOUT_UPDATE", 5, "anna"),
        ("LAYOUT_RESTORE", 6, "bert"),
        ("WIDGET_BATCH", 7, "anna"),
    ]
    assert payload["operations"][4]["payload"]["restoredFrom"] == 4
    assert {part["seq"] for part in payload["operations"][5]["payload"]["operations"]} == {7}


def test_more_than_a_delta_holds_is_merged() -> None:
    drawing = Drawing()
    drawing.draw(*[update(ANNA, {"value": number}) for number in range(DELTA_OPERATIONS + 2)])
    assert drawing.sync(2)["mode"] == "delta"
    payload = drawing.sync(1)
    assert (payload["mode"], payload["fromSeq"], payload["seq"]) == ("merged", 1, DELTA_OPERATIONS + 2)
    assert list(payload["widgets"]) == ["w"]


def test_a_catch_up_has_what_changed_and_what_is_gone() -> None:
    drawing = Drawing()
    drawing.draw(update(ANNA, {"value": 1}), update(ANNA, {}, target="gone"), update(BERT, {"x": 1}, target="new"))
    drawing.draw(delete(BERT, target="gone"))
    payload = drawing.catch_up(2)
    assert (payload["fromSeq"], payload["seq"], list(payload["widgets"])) == (2, 4, ["new"])
    assert payload["deleted"] == {"widgets": ["gone"], "layouts": []}


def test_names_are_quoted() -> None:
    name = '"\\\u2028é</script>'
    drawing = Drawing()
    drawing.draw(update(ANNA, {name: name}, target=name))
    assert drawing.sync(None)["widgets"][name]["data"] == {name: name}
    assert list(drawing.catch_up(0)["widgets"]) == [name]


def test_a_field_that_looks_like_a_seq_is_no_seq() -> None:
    """The merged form is the catch-up's less its seq, whatever the documents hold."""
    drawing = Drawing()
    drawing.draw(*[update(ANNA, {"seq": 1, "value": number}, target="seq") for number in range(DELTA_OPERATIONS + 2)])
    payload = drawing.sync(1)
    assert payload["mode"] == "merged"
    assert payload["widgets"]["seq"]["data"]["seq"] == 1


@pytest.mark.parametrize(("since", "reached"), [(0, False), (3, False), (4, True), (6, True), (7, False)])
def test_between_the_floor_and_the_seq_it_can_be_said_what_changed(since: int, reached: bool) -> None:
    drawing = Drawing(max_tombstones=1)
    for name in "abc":
        drawing.draw(update(ANNA, {}, target=name), delete(ANNA, target=name))
    assert drawing.dashboard.floor == 4
    assert drawing.picture.reaches(since) is reached


def test_what_is_kept_ready_is_made_anew_after_a_change() -> None:
    drawing = Drawing()
    drawing.draw(update(ANNA, {"value": 1}), update(ANNA, {"value": 2}))
    before = [drawing.sync(None), drawing.sync(1)]
    assert [drawing.sync(None), drawing.sync(1)] == before
    drawing.draw(update(ANNA, {"value": 3}))
    assert drawing.sync(None)["widgets"]["w"]["data"] == {"value": 3}
    assert [change["seq"] for change in drawing.sync(1)["operations"]] == [2, 3]
