"""From messages to requests: what an operation is taken for, and which of two are the same."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tornado_rt.core.document import Author
from tornado_rt.core.operation import Batch, Operation, Resolution
from tornado_rt.errors import InvalidMessage
from tornado_rt.intake import Item, OpenConflict, item_of, operation_of, resolution_of
from tornado_rt.protocol.codec import decode, decode_operation

ANNA = Author("anna", "laptop")
EPOCH = "epoch-1"


def taken(type_: str, payload: dict[str, Any]) -> Operation:
    message = decode(json.dumps({"type": type_, "userId": "anna", "id": "m1", "payload": payload}).encode())
    return operation_of(message.type, message.payload, ANNA, message.id, EPOCH)  # type: ignore[arg-type]


def item(type_: str, payload: dict[str, Any], conflicts: dict[str, OpenConflict] | None = None) -> Item:
    decoded = decode_operation({"operationId": "o1", "type": type_, "payload": payload})
    return item_of(decoded, ANNA, EPOCH, conflicts or {})


FULL = {"widgetId": "w", "data": {"a": 1}, "baseVersion": 3, "epoch": "epoch-0", "unset": ["b"], "replace": True}


def test_a_widget_update() -> None:
    operation = taken("WIDGET_UPDATE", FULL)
    assert (operation.name, operation.data, json.loads(operation.encoded)) == ("widget:w", {"a": 1}, {"a": 1})
    assert (operation.unset, operation.replace) == (("b",), True)
    assert (operation.base, operation.base_epoch, operation.id, operation.author) == (3, "epoch-0", "m1", ANNA)


def test_a_base_version_counts_in_the_connections_epoch() -> None:
    """PROTOCOL section 4: absent, ``epoch`` is the connection's."""
    assert taken("WIDGET_DELETE", {"widgetId": "w", "baseVersion": 3}).base_epoch == EPOCH


@pytest.mark.parametrize(
    ("type_", "payload", "name"),
    [
        ("WIDGET_DELETE", {"widgetId": "w"}, "widget:w"),
        ("LAYOUT_UPDATE", {"layout": {}}, "layout:default"),
        ("LAYOUT_UPDATE", {"layout": {}, "layoutId": "other"}, "layout:other"),
        ("LAYOUT_RESTORE", {}, "layout:default"),
    ],
)
def test_the_documents_name(type_: str, payload: dict[str, Any], name: str) -> None:
    assert taken(type_, payload).name == name


def test_what_is_to_be_restored() -> None:
    assert taken("LAYOUT_RESTORE", {"version": 4}).restore == 4
    assert taken("LAYOUT_RESTORE", {}).restore is None


VARIANTS = [
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 1}}),
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 2}}),
    ("WIDGET_UPDATE", {"widgetId": "v", "data": {"a": 1}}),
    ("WIDGET_UPDATE", {"widgetId": "w 3", "data": {"a": 1}}),
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 1}, "baseVersion": 0}),
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 1}, "baseVersion": 3}),
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 1}, "baseVersion": 3, "epoch": "e"}),
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 1}, "epoch": "e"}),
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 1}, "unset": ["b"]}),
    ("WIDGET_UPDATE", {"widgetId": "w", "data": {"a": 1}, "replace": True}),
    ("LAYOUT_UPDATE", {"layoutId": "w", "layout": {"a": 1}}),
    ("WIDGET_DELETE", {"widgetId": "w"}),
    ("WIDGET_DELETE", {"widgetId": "w", "baseVersion": 3}),
    ("LAYOUT_RESTORE", {"layoutId": "w"}),
    ("LAYOUT_RESTORE", {"layoutId": "w", "version": 3}),
    ("LAYOUT_RESTORE", {"layoutId": "w", "baseVersion": 3}),
]


def test_every_difference_of_content_is_seen() -> None:
    """So that a reused id is told from a retry (PROTOCOL section 5, 2)."""
    digests = [taken(type_, payload).digest for type_, payload in VARIANTS]
    assert len(set(digests)) == len(VARIANTS)


def test_the_same_content_is_the_same() -> None:
    for type_, payload in VARIANTS:
        assert taken(type_, payload).digest == taken(type_, {"later": "field", **payload}).digest


def test_a_retry_by_the_other_way_is_the_same() -> None:
    """A message and an ``Op`` of a SYNC_UPDATE or POST."""
    request = item("WIDGET_UPDATE", FULL).request
    assert isinstance(request, Operation)
    assert request.digest == taken("WIDGET_UPDATE", FULL).digest


PARTS = [
    {"operationId": "p1", "type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {}}},
    {"operationId": "p2", "type": "WIDGET_DELETE", "payload": {"widgetId": "w"}},
]


def test_an_atomic_batch_is_one_request() -> None:
    batch = item("WIDGET_BATCH", {"operations": PARTS})
    assert isinstance(batch.request, Batch)
    assert [part.id for part in batch.request.operations] == ["p1", "p2"]
    assert batch.leaves() == [batch]


def test_a_loose_batch_is_its_parts() -> None:
    batch = item("WIDGET_BATCH", {"operations": PARTS, "atomic": False})
    assert batch.request is None
    assert [leaf.id for leaf in batch.leaves()] == ["p1", "p2"]


def test_the_order_of_a_batch_is_content() -> None:
    there, back = (item("WIDGET_BATCH", {"operations": parts}).request for parts in (PARTS, PARTS[::-1]))
    assert isinstance(there, Batch)
    assert isinstance(back, Batch)
    assert there.digest != back.digest


def resolved(payload: dict[str, Any], conflicts: dict[str, OpenConflict] | None = None) -> Resolution:
    message = decode(
        json.dumps({"type": "CONFLICT_RESOLVED", "userId": "anna", "payload": {"conflictId": "c", **payload}}).encode()
    )
    return resolution_of(message.payload, ANNA, "r1", EPOCH, conflicts or {})  # type: ignore[arg-type]


def known(operation: Operation | None = None) -> dict[str, OpenConflict]:
    return {"c": OpenConflict(operation or taken("WIDGET_UPDATE", FULL), 9, float("inf"))}


def test_local_is_the_whole_operation_again() -> None:
    resolution = resolved({"resolution": "local"}, known())
    operation = resolution.operation
    assert operation is not None
    assert (operation.data, operation.unset, operation.replace, operation.base) == ({"a": 1}, ("b",), True, 9)
    assert operation.base_epoch == EPOCH


def test_remote_is_nothing() -> None:
    resolution = resolved({"resolution": "remote"}, known())
    assert (resolution.operation, resolution.version, resolution.known) == (None, 9, True)


def test_merged_is_what_is_sent() -> None:
    operation = resolved({"resolution": "merged", "data": {"b": 2}}, known()).operation
    assert operation is not None
    assert (operation.type, operation.name, operation.data, operation.replace) == ("WIDGET_UPDATE", "widget:w", {"b": 2}, False)


def test_merged_to_nothing_deletes() -> None:
    operation = resolved({"resolution": "merged", "data": None}, known()).operation
    assert operation is not None
    assert (operation.type, operation.name, operation.base) == ("WIDGET_DELETE", "widget:w", 9)


def test_a_conflict_over_a_layout_is_resolved_on_it() -> None:
    conflicts = known(taken("LAYOUT_UPDATE", {"layoutId": "l", "layout": {"a": 1}}))
    operation = resolved({"resolution": "merged", "data": {"b": 2}}, conflicts).operation
    assert operation is not None
    assert (operation.type, operation.name) == ("LAYOUT_UPDATE", "layout:l")
    with pytest.raises(InvalidMessage):
        resolved({"resolution": "merged", "data": None}, conflicts)


@pytest.mark.parametrize("resolution", ["local", "merged"])
def test_the_self_contained_form_stands_alone(resolution: str) -> None:
    """PROTOCOL section 4: with the document's id, ``data`` and ``baseVersion``."""
    request = resolved({"resolution": resolution, "widgetId": "w", "data": {"b": 2}, "baseVersion": 8})
    assert request.operation is not None
    assert (request.operation.name, request.operation.data, request.operation.base) == ("widget:w", {"b": 2}, 8)


def test_what_nobody_remembers_is_not_known() -> None:
    assert not resolved({"resolution": "local"}).known
    assert not resolved({"resolution": "remote", "widgetId": "w"}).known
    assert not resolved({"resolution": "merged", "data": {}, "baseVersion": 1}).known
