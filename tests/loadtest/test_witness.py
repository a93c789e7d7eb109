"""Wire messages become events: each verdict is laid to its operation, whichever way it came."""

from __future__ import annotations

from typing import Any

import pytest

from tornado_rt.loadtest.history import Applied, Conflicted, Event, Finished, History, Invoked, Joined, Refused, Saw, Synced
from tornado_rt.loadtest.witness import Witness

Json = dict[str, Any]


@pytest.fixture
def history() -> History:
    return History()


@pytest.fixture
def witness(history: History) -> Witness:
    witness = Witness(history, "tab", user_id="ann", dashboard_id="d", device_id="v")
    witness.received(frame("CONNECT", epoch="e", seq=4), since=None)
    history.events.clear()
    return witness


def frame(type_: str, answers: str | None = None, **payload: object) -> Json:
    message: Json = {"type": type_, "id": "s-1", "userId": "bob", "payload": payload}
    return message if answers is None else {**message, "correlationId": answers}


def update(id_: str = "m", **payload: object) -> Json:
    return {"type": "WIDGET_UPDATE", "id": id_, "userId": "ann", "payload": {"widgetId": "w", "data": {"x": 1}, **payload}}


def op(id_: str, type_: str = "WIDGET_UPDATE", **payload: object) -> Json:
    return {"operationId": id_, "type": type_, "payload": {"widgetId": "w", **payload}}


def told(history: History) -> list[tuple[str, str]]:
    return [(event.kind, getattr(event, "op", "")) for event in history]


def only(history: History, kind: type[Event]) -> Event:
    events = [event for event in history if isinstance(event, kind)]
    assert len(events) == 1
    return events[0]


def test_an_update_and_its_ack(history: History, witness: Witness) -> None:
    witness.sent(update(baseVersion=3))
    witness.received(frame("ACK", "m", received=True, seq=5, version=5, merged=["y"]))
    invoked, applied = history.events
    assert isinstance(invoked, Invoked)
    assert isinstance(applied, Applied)
    assert (invoked.epoch, invoked.device, invoked.payload["baseVersion"]) == ("e", "v", 3)
    assert (applied.op, applied.epoch, applied.seq, applied.merged, applied.duplicate) == ("m", "e", 5, ["y"], False)


def test_a_base_of_another_epoch_is_kept_as_such(history: History, witness: Witness) -> None:
    witness.sent(update(baseVersion=3, epoch="older"))
    invoked = history.events[0]
    assert isinstance(invoked, Invoked)
    assert invoked.epoch == "older"


def test_a_cut_leaves_what_waits_unanswered_and_a_late_answer_finds_nothing(history: History, witness: Witness) -> None:
    witness.sent(update("1"))
    witness.sent(update("2"))
    witness.received(frame("ACK", "1", seq=5))
    witness.closed()
    witness.received(frame("ACK", "2", seq=6))
    assert told(history) == [("invoked", "1"), ("invoked", "2"), ("applied", "1"), ("unanswered", "2")]


def test_each_operation_of_a_sync_update_has_a_verdict_of_its_own(history: History, witness: Witness) -> None:
    operations = [op("a", data={"x": 1}), op("b", data={"x": 2}), op("c", "WIDGET_DELETE")]
    witness.sent({"type": "SYNC_UPDATE", "id": "m", "payload": {"operations": operations}})
    results = [
        {"operationId": "a", "status": "success", "seq": 5, "duplicate": True},
        {"operationId": "b", "status": "conflict", "conflict": {"fields": ["x"], "currentVersion": 4, "remote": {"x": 0}}},
        {"operationId": "c", "status": "error", "code": "NOT_FOUND"},
    ]
    witness.received(frame("ACK", "m", received=True, seq=5, results=results))
    assert told(history) == [*(("invoked", name) for name in "abc"), ("applied", "a"), ("conflicted", "b"), ("refused", "c")]
    conflict = only(history, Conflicted)
    assert isinstance(conflict, Conflicted)
    assert (conflict.fields, conflict.current_version, conflict.remote) == (["x"], 4, {"x": 0})


def test_an_atomic_batch_is_one_operation_and_a_loose_one_is_several(history: History, witness: Witness) -> None:
    operations = [op("a", data={"x": 1}), op("b", data={"y": 2})]
    witness.sent({"type": "WIDGET_BATCH", "id": "whole", "payload": {"operations": operations}})
    results = [{"operationId": name, "status": "success", "seq": 5} for name in "ab"]
    witness.received(frame("ACK", "whole", received=True, seq=5, results=results))
    assert told(history) == [("invoked", "whole"), ("applied", "whole")]
    applied = only(history, Applied)
    assert isinstance(applied, Applied)
    assert not applied.duplicate
    witness.sent({"type": "WIDGET_BATCH", "id": "loose", "payload": {"operations": operations, "atomic": False}})
    assert told(history)[2:] == [("invoked", "a"), ("invoked", "b")]


@pytest.mark.parametrize("where", ["payload", "results"])
def test_a_repeated_atomic_batch_is_a_duplicate(history: History, witness: Witness, where: str) -> None:
    witness.sent({"type": "WIDGET_BATCH", "id": "m", "payload": {"operations": [op("a", data={"x": 1})]}})
    result = {"operationId": "a", "status": "success", "seq": 5}
    payload = {"received": True, "seq": 5, "results": [result]}
    (payload if where == "payload" else result)["duplicate"] = True
    witness.received(frame("ACK", "m", **payload))
    applied = only(history, Applied)
    assert isinstance(applied, Applied)
    assert applied.duplicate


def test_a_refused_atomic_batch_is_not_applied(history: History, witness: Witness) -> None:
    operations = [op("a", data={"x": 1}), op("b", data={"y": 2})]
    witness.sent({"type": "WIDGET_BATCH", "id": "m", "payload": {"operations": operations}})
    results = [
        {"operationId": "a", "status": "conflict", "conflict": {"fields": ["x"]}},
        {"operationId": "b", "status": "error", "code": "BATCH_ABORTED"},
    ]
    witness.received(frame("ACK", "m", received=True, results=results))
    assert told(history) == [("invoked", "m"), ("refused", "m")]


def test_a_loose_batch_inside_a_post_is_told_by_its_parts(history: History, witness: Witness) -> None:
    parts = [op("a", data={"x": 1}), op("b", data={"y": 2})]
    whole = op("whole", "WIDGET_BATCH", operations=[op("c", data={"x": 3})])
    body = {"type": "SYNC", "operations": [op("loose", "WIDGET_BATCH", operations=parts, atomic=False), whole]}
    witness.posted(body)
    told_of = [{"operationId": "a", "status": "success", "seq": 5}, {"operationId": "b", "status": "error", "code": "X"}]
    inner = [{"operationId": "c", "status": "success", "seq": 6}]
    results = [
        {"operationId": "loose", "status": "error", "results": told_of},
        {"operationId": "whole", "status": "success", "seq": 6, "results": inner},
    ]
    witness.answered(body, {"success": False, "results": results})
    assert told(history)[3:] == [("applied", "a"), ("refused", "b"), ("applied", "whole")]


def test_a_nack_says_whether_the_outcome_is_known(history: History, witness: Witness) -> None:
    witness.sent(update())
    witness.received(frame("NACK", "m", code="INTERNAL", retryable=True, outcome="unknown"))
    refused = only(history, Refused)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.outcome_unknown) == ("INTERNAL", True)


def test_a_resolution_is_told_with_what_the_server_remembers(history: History, witness: Witness) -> None:
    witness.sent(update(baseVersion=1))
    conflict = {"conflictId": "c", "kind": "widget", "widgetId": "w", "fields": ["x"], "currentVersion": 4, "remote": {"x": 0}}
    witness.received(frame("CONFLICT_DETECTED", "m", **conflict))
    resolution = {"conflictId": "c", "resolution": "merged", "data": {"x": 2, "y": None}}
    witness.sent({"type": "CONFLICT_RESOLVED", "id": "r", "payload": resolution})
    invoked = history.events[-1]
    assert isinstance(invoked, Invoked)
    assert (invoked.payload["widgetId"], invoked.payload["baseVersion"]) == ("w", 4)


def test_a_post_moves_no_position(history: History, witness: Witness) -> None:
    body = {"type": "SYNC", "operations": [op("a", data={"x": 1})], "since": 4}
    witness.posted(body)
    sync = {"mode": "delta", "epoch": "e", "seq": 5, "operations": [{"seq": 5, "type": "WIDGET_UPDATE", "payload": {}}]}
    witness.answered(body, {"success": True, "results": [{"operationId": "a", "status": "success", "seq": 5}], "sync": sync})
    assert told(history) == [("invoked", "a"), ("applied", "a"), ("synced", "")]
    assert {getattr(event, "via", None) for event in history} == {"post"}
    synced = only(history, Synced)
    assert isinstance(synced, Synced)
    assert (synced.from_seq, synced.seq) == (4, 5)


@pytest.mark.parametrize(("answer", "kind"), [(None, "unanswered"), ({"error": "no", "code": "UNAVAILABLE"}, "refused")])
def test_a_post_that_fails_as_a_whole(history: History, witness: Witness, answer: Json | None, kind: str) -> None:
    body = {"type": "SYNC", "operations": [op("a", data={"x": 1}), op("b", data={"x": 2})]}
    witness.posted(body)
    witness.answered(body, answer)
    assert told(history)[2:] == [(kind, "a"), (kind, "b")]


def test_broadcasts_and_syncs(history: History, witness: Witness) -> None:
    witness.received(frame("WIDGET_UPDATE", widgetId="w", data={"x": 1}, seq=5, version=5))
    witness.received(frame("SYNC_UPDATE", fromSeq=5, seq=9, widgets={}, layouts={}, deleted={"widgets": ["w"], "layouts": []}))
    witness.received(frame("SYNC_UPDATE", anything="a host program broadcast this"))
    witness.sent({"type": "SYNC_REQUEST", "id": "q", "payload": {"since": 9}})
    witness.received(frame("SYNC_RESPONSE", "q", mode="delta", epoch="e", seq=9, operations=[]))
    saw, merged, delta = history.events
    assert isinstance(saw, Saw)
    assert isinstance(merged, Synced)
    assert isinstance(delta, Synced)
    assert saw.change is not None
    assert (saw.seq, saw.change["userId"]) == (5, "bob")
    assert (merged.mode, merged.from_seq, merged.seq) == ("merged", 5, 9)
    assert (delta.mode, delta.from_seq, delta.seq) == ("delta", 9, 9)


def test_connect_with_a_sync_inside(history: History, witness: Witness) -> None:
    sync = {"mode": "snapshot", "epoch": "f", "seq": 7, "widgets": {}, "layouts": {}}
    witness.received(frame("CONNECT", epoch="f", seq=7, sync=sync), since=4)
    joined, synced = history.events
    assert isinstance(joined, Joined)
    assert isinstance(synced, Synced)
    assert (joined.since, joined.epoch, synced.in_connect, witness.epoch) == (4, "f", True, "f")


def test_the_end_is_a_snapshot(history: History, witness: Witness) -> None:
    with pytest.raises(ValueError, match="snapshot"):
        witness.finished({"mode": "delta", "epoch": "e", "seq": 5, "operations": []})
    witness.finished({"mode": "snapshot", "epoch": "e", "seq": 5, "widgets": {}, "layouts": {}})
    assert isinstance(history.events[-1], Finished)
