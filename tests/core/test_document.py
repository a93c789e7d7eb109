"""Documents: same JSON values, authors, copies and sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.scene import ANNA, ANNA_PHONE, AT, BERT
from tornado_rt.core.document import MISSING, Author, Document, Stamp, json_size, same

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (0, -0.0),
        ([1, {"a": 1.0}], [1.0, {"a": 1}]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (None, None),
        (True, True),
    ],
)
def test_the_same_json(left: Any, right: Any) -> None:
    """Numbers by value, objects without order."""
    assert same(left, right)
    assert same(right, left)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, True),
        (0, False),
        (None, MISSING),
        (None, False),
        (0, None),
        ("1", 1),
        ([1], [True]),
        ({"a": 0}, {"a": False}),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ({"a": None}, {}),
        ({"a": 1}, {"b": 1}),
        ([], {}),
    ],
)
def test_different_json(left: Any, right: Any) -> None:
    """``true`` is not 1, null is not nothing."""
    assert not same(left, right)
    assert not same(right, left)


@given(JSON)
def test_a_value_is_the_same_after_a_round_trip(value: Any) -> None:
    """Through JSON text and back."""
    assert same(value, json.loads(json.dumps(value)))


@given(JSON, JSON)
def test_values_with_one_text_are_the_same(left: Any, right: Any) -> None:
    """Canonical text is a stricter measure: what it holds equal is the same."""
    texts = [json.dumps(value, sort_keys=True) for value in (left, right)]
    assert texts[0] != texts[1] or same(left, right)


def test_an_author_is_a_user_at_a_device() -> None:
    """Both count."""
    assert ANNA.is_same(Author("anna", "laptop"))
    assert not ANNA.is_same(ANNA_PHONE)
    assert not ANNA.is_same(BERT)


def test_an_authors_names_are_quoted_once() -> None:
    """As JSON, UTF-8."""
    author = Author('Zoë "Z"', "a\\b")
    assert json.loads(author.user_json) == 'Zoë "Z"'
    assert json.loads(author.device_json) == "a\\b"


def test_a_copy_can_be_changed_without_harm() -> None:
    """Committed documents never change: what was encoded from them stays true."""
    document = Document("widget", "w", Stamp(1, ANNA, AT))
    document.fields["a"] = 1
    document.stamps["a"] = document.stamp
    document.picture = b"{}"
    twin = document.copy()
    twin.fields["b"] = 2
    twin.stamps["b"] = twin.stamp
    assert (document.fields, list(document.stamps), document.picture) == ({"a": 1}, ["a"], b"{}")
    assert (twin.name, twin.picture) == ("widget:w", None)


@given(st.dictionaries(st.text(), JSON))
def test_size_is_that_of_the_text_that_is_sent(fields: dict[str, Any]) -> None:
    """Bytes of compact UTF-8, not characters."""
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    if "e" not in text.lower():  # floats with an exponent have more than one spelling
        assert json_size(fields) == len(text.encode())


def test_weighing_replaces_an_upper_bound() -> None:
    """Once weighed, the size is the very number."""
    document = Document("widget", "w", Stamp(1, ANNA, AT))
    document.fields["a"] = "ä"
    document.size = 1_000
    document.is_exact = False
    assert document.weigh() == len('{"a":"ä"}'.encode())
    assert document.is_exact
