"""What the models allow, beyond what the golden frames show."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_rt.protocol.codec import decode, decode_post
from tornado_rt.protocol.messages import (
    ConflictResolved,
    LayoutRestore,
    SyncPost,
    WidgetBatch,
    WidgetUpdate,
    count_leaves,
    is_valid_id,
)


@pytest.mark.parametrize("text", ["a", "a b", "é", "😀" * 128, "__proto__", "{:}", "x" * 128])
def test_an_id_is_up_to_128_printable_code_points(text: str) -> None:
    assert is_valid_id(text)


@pytest.mark.parametrize(
    "text", ["", "x" * 129, "😀" * 129, "a\n", "\x00", "\x7f", "\x85", "a\u200db", "\u2028", "\ud800", "\ufeff", "\u3000"]
)
def test_what_cannot_be_printed_is_no_id(text: str) -> None:
    assert not is_valid_id(text)


@pytest.mark.parametrize("thing", [None, 1, b"a", ["a"]])
def test_only_text_is_an_id(thing: object) -> None:
    assert not is_valid_id(thing)


@given(st.text(max_size=130))
def test_ids_are_printable_as_python_has_it(text: str) -> None:
    """Python's tables and the parser's are of different Unicode versions: they may differ on signs younger than Python's."""
    unassigned = any(not each.isprintable() and is_valid_id(each) for each in text)
    assert is_valid_id(text) == (0 < len(text) <= 128 and text.isprintable()) or unassigned


def test_the_tables_agree_on_all_that_python_knows() -> None:
    """Signs that Python calls printable are, and of the others only such as it does not know yet (class Cn)."""
    import unicodedata

    for code in range(sys.maxunicode + 1):
        sign = chr(code)
        if is_valid_id(sign) != sign.isprintable():
            assert unicodedata.category(sign) == "Cn", hex(code)


def test_defaults_of_a_widget_update() -> None:
    message = decode(b'{"type":"WIDGET_UPDATE","userId":"u","payload":{"widgetId":"w","data":{}}}')
    assert isinstance(message, WidgetUpdate)
    assert (message.id, message.timestamp) == (None, None)
    payload = message.payload
    assert (payload.base_version, payload.epoch, payload.unset, payload.replace) == (None, None, (), False)


def test_unset_may_name_a_field_twice() -> None:
    message = decode(b'{"type":"WIDGET_UPDATE","userId":"u","payload":{"widgetId":"w","data":{},"unset":["a","a"]}}')
    assert isinstance(message, WidgetUpdate)
    assert message.payload.unset == ("a", "a")


def test_a_batch_is_atomic_unless_it_says_otherwise() -> None:
    message = decode(b'{"type":"WIDGET_BATCH","userId":"u","payload":{"operations":[]}}')
    assert isinstance(message, WidgetBatch)
    assert message.payload.atomic


def test_the_layout_is_the_default_one_unless_named() -> None:
    message = decode(b'{"type":"LAYOUT_RESTORE","userId":"u"}')
    assert isinstance(message, LayoutRestore)
    assert (message.payload.layout_id, message.payload.version) == ("default", None)


@pytest.mark.parametrize(("data", "is_there"), [(b"", False), (b',"data":null', True), (b',"data":{}', True)])
def test_absent_data_is_not_null_data(data: bytes, is_there: bool) -> None:
    message = decode(b'{"type":"CONFLICT_RESOLVED","userId":"u","payload":{"conflictId":"c","resolution":"local"%b}}' % data)
    assert isinstance(message, ConflictResolved)
    assert message.payload.has_data is is_there


def test_a_post_is_for_the_default_dashboard_unless_it_names_one() -> None:
    assert decode_post(b'{"type":"SYNC","operations":[]}') == SyncPost(type="SYNC", operations=[], dashboard_id="default")


def test_a_batch_counts_as_what_is_in_it() -> None:
    leaf = b'{"operationId":"%d","type":"WIDGET_DELETE","payload":{"widgetId":"w"}}'
    batch = b'{"operationId":"b","type":"WIDGET_BATCH","payload":{"operations":[%b,%b]}}' % (leaf % 1, leaf % 2)
    post = decode_post(b'{"type":"SYNC","operations":[%b,%b]}' % (batch, leaf % 3))
    assert count_leaves(post.operations) == 3
