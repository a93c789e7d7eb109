"""What an edit does to a document, and how it stands on the wire."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_rt.client.address import Address, subject_of
from tornado_rt.client.edit import Edit
from tornado_rt.client.operation import Operation

NAMES = st.sampled_from("abcd")
FIELDS = st.dictionaries(NAMES, st.none() | st.integers(-5, 5))


def test_fields_are_merged_and_null_is_a_value() -> None:
    """Others stay, `unset` removes, nothing that was given is changed."""
    before = {"a": 1, "b": 2, "c": 3}
    assert Edit.update("w", {"a": None}, unset=["b", "x"]).apply(before) == {"a": None, "c": 3}
    assert before == {"a": 1, "b": 2, "c": 3}


def test_replace_and_delete() -> None:
    """The one makes the data all of it, the other leaves nothing."""
    assert Edit.update("w", {"a": 1}, replace=True).apply({"b": 2}) == {"a": 1}
    assert Edit.delete("w").apply({"b": 2}) is None
    assert Edit.update("w", {"a": 1}).apply(None) == {"a": 1}


@given(FIELDS, FIELDS, st.sets(NAMES), st.sets(NAMES))
def test_what_is_taken_out_is_not_touched(before: dict[str, Any], data: dict[str, Any], unset: set[str], out: set[str]) -> None:
    """The rest of an edit does to the other fields what the whole would have done."""
    edit = Edit.update("w", data, unset=sorted(unset - set(data)))
    rest = edit.without(frozenset(out))
    after = rest.apply(before) if rest is not None else before
    whole = edit.apply(before)
    assert after is not None
    assert whole is not None
    for name in "abcd":
        expected = before if name in out else whole
        assert after.get(name, "gone") == expected.get(name, "gone")


@given(FIELDS, st.sets(NAMES), st.booleans(), st.none() | st.integers(0, 9), st.booleans())
def test_the_wire_tells_all_of_it(
    data: dict[str, Any], unset: set[str], replace: bool, base: int | None, is_layout: bool
) -> None:
    """An edit that was sent is read as the same edit."""
    names = sorted(unset - set(data))
    make = (
        Edit.update_layout(data, unset=names, replace=replace)
        if is_layout
        else Edit.update("w", data, unset=names, replace=replace)
    )
    edit = make.based_on(base, "epoch" if base is not None else None)
    assert Edit.from_wire(edit.type, edit.payload()) == edit


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {1, 2}, b"x"])
def test_what_json_cannot_hold_is_refused_at_once(value: Any) -> None:
    """Where the mistake was made, not when the answer comes."""
    with pytest.raises((ValueError, TypeError)):
        Edit.update("w", {"a": value})


def test_an_edit_is_a_copy() -> None:
    """What the caller does with his dict afterwards changes nothing that waits."""
    data = {"a": [1]}
    edit = Edit.update("w", data)
    data["a"].append(2)
    assert edit.data == {"a": [1]}


def test_an_operation_survives_its_dump() -> None:
    """As a queue on disk keeps it: the same payload under the same id, or it would be another operation."""
    edits = (Edit.update("w", {"a": 1}, unset=["b"]).based_on(3, "e"), Edit.delete("v"))
    for operation in (Operation("id", edits, is_batch=True), Operation("id", edits[:1], shown={"a": 1})):
        again = Operation.load(operation.dump())
        assert again.wire == operation.wire
        assert (again.shown, again.keys, again.left) == (operation.shown, operation.keys, True)


@pytest.mark.parametrize(
    ("url", "socket", "http"),
    [
        ("http://localhost:3000", "ws://localhost:3000/api/realtime", "http://localhost:3000/api/realtime"),
        ("https://example.org/", "wss://example.org/api/realtime", "https://example.org/api/realtime"),
        ("ws://h/api/realtime", "ws://h/api/realtime", "http://h/api/realtime"),
        ("wss://h/behind/api/realtime/", "wss://h/behind/api/realtime", "https://h/behind/api/realtime"),
        ("localhost:3000", "ws://localhost:3000/api/realtime", "http://localhost:3000/api/realtime"),
    ],
)
def test_addresses(url: str, socket: str, http: str) -> None:
    """However it is written, both doors are found."""
    address = Address(url)
    assert (address.socket, address.http) == (socket, http)


@pytest.mark.parametrize("url", ["ftp://h", "http://", "file:///etc"])
def test_what_is_no_address(url: str) -> None:
    """A sentence, not a strange failure later."""
    with pytest.raises(ValueError, match="not the address of a server"):
        Address(url)


@pytest.mark.parametrize(
    ("token", "subject"),
    [("x.eyJzdWIiOiJhZGEifQ.y", "ada"), ("x.eyJzdWIiOjd9.y", None), ("x.W10.y", None), ("opaque", None), ("a.%.b", None)],
)
def test_the_subject_of_a_token(token: str, subject: str | None) -> None:
    """Read where it can be read."""
    assert subject_of(token) == subject
