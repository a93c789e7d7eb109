"""Bytes to models and back: strict, with paths, and whatever is taken in can be given out to a browser."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tornado_rt.errors import ClientFault, InvalidJson, InvalidMessage, NotFound, Refusal, Unavailable, UnknownType
from tornado_rt.protocol.codec import (
    broadcast,
    change,
    decode,
    decode_envelope,
    decode_json,
    decode_post,
    decode_server,
    encode_ack,
    encode_change,
    encode_json,
    encode_message,
    encode_nack,
    quote,
)
from tornado_rt.protocol.messages import MAX_SAFE_INTEGER, WidgetUpdate
from tornado_rt.protocol.refusals import MAX_DETAILS, refuse_text
from tornado_rt.protocol.server_messages import Ack, Envelope, Nack, WidgetUpdated
from tornado_rt.protocol.strict import find_fault_in_message, is_plain, is_shallow

AT = "2024-11-24T10:00:00.000Z"

# -- what may come in, for hypothesis ------------------------------------------------------------------------------------------

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ids = st.text(st.characters(categories=["L", "N", "P", "S"], max_codepoint=0x2FFF), min_size=1, max_size=20)
safe_numbers = st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | safe_numbers | any_text
values = st.recursive(
    scalars, lambda parts: st.lists(parts, max_size=4) | st.dictionaries(any_text, parts, max_size=4), max_leaves=12
)
fields = st.dictionaries(any_text, values, max_size=5)
wild_numbers = safe_numbers | st.integers() | st.floats() | st.integers(10**15, 10**25)
wild_values = st.recursive(
    st.none() | st.booleans() | wild_numbers | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=4), parts, max_size=4),
    max_leaves=20,
)


def widget_update(data: Any, **more: Any) -> dict[str, Any]:
    return {"type": "WIDGET_UPDATE", "id": "m", "userId": "u", "payload": {"widgetId": "w", "data": data}, **more}


def nested(levels: int, core: str = "") -> str:
    return "[" * levels + core + "]" * levels


# -- reading -------------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf{}")
@example(b'{"type":"PING","userId":"\xed\xa0\x80"}')
@example(b"1" * 5000)
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
def test_bytes_are_read_or_refused(raw: bytes) -> None:
    """Whatever comes in, nothing but the three refusals comes out."""
    for read in (decode, decode_post):
        try:
            read(raw)
        except (InvalidJson, InvalidMessage, UnknownType) as refusal:
            encode_nack("n", AT, "u", refusal.message_id, refusal)


@given(
    wild_values,
    st.sampled_from(["type", "id", "userId", "timestamp", "payload", "payload.widgetId", "payload.data", "payload.x"]),
)
def test_json_at_any_place_is_read_or_refused(value: Any, place: str) -> None:
    """A refusal names only fields, so it can be sent back as it is; what is read is fit for a browser."""
    frame = widget_update({"title": "x"})
    part, _, last = place.rpartition(".")
    (frame[part] if part else frame)[last] = value
    try:
        message = decode(json.dumps(frame).encode())
    except ClientFault as refusal:
        decode_server(encode_nack("n", AT, "u", refusal.message_id, refusal))
    else:
        assert isinstance(message, WidgetUpdate)
        assert is_fit_for_browsers(message.payload.data)


def is_fit_for_browsers(value: Any) -> bool:
    """Reads the same after a way through JavaScript's numbers and a strict parser."""
    text = encode_json(value)
    return bool(json.loads(text, parse_int=float, parse_constant=pytest.fail) == value)


@given(fields, st.none() | st.integers(0, MAX_SAFE_INTEGER), st.lists(any_text, max_size=3), ids, ids)
def test_what_was_written_reads_the_same(
    data: dict[str, Any], base: int | None, unset: list[str], user: str, widget: str
) -> None:
    payload = {"widgetId": widget, "data": data, "baseVersion": base, "unset": [name for name in unset if name not in data]}
    message = decode(encode_message("WIDGET_UPDATE", "m", AT, user, payload))
    assert isinstance(message, WidgetUpdate)
    assert (message.type, message.id, message.timestamp, message.user_id) == ("WIDGET_UPDATE", "m", AT, user)
    assert message.payload.model_dump(by_alias=True, exclude_unset=True, mode="json") == payload
    assert decode(encode_message("WIDGET_UPDATE", "m", AT, user, encode_json(payload))) == message


@pytest.mark.parametrize(
    ("text", "value"), [('{"a":1,"a":2}', {"a": 2}), ('{"a":{"b":1},"a":{"c":2}}', {"a": {"c": 2}}), ('{"a":-0}', {"a": 0})]
)
def test_of_duplicate_keys_the_last_is_kept(text: str, value: Any) -> None:
    message = decode(
        b'{"type":"PING","type":"WIDGET_UPDATE","userId":"u","payload":{"widgetId":"w","data":%b}}' % text.encode()
    )
    assert isinstance(message, WidgetUpdate)
    assert message.payload.data == value


@pytest.mark.parametrize(
    "text", ["1e308", "9007199254740991", "-9007199254740991", '"NaN"', '"Infinity 1234567890123456 1e999"', "1e-999"]
)
def test_what_only_looks_dangerous_is_read(text: str) -> None:
    message = decode(json.dumps(widget_update(0)).replace('"data": 0', f'"data": {{"a": {text}}}').encode())
    assert isinstance(message, WidgetUpdate)
    assert message.payload.data == {"a": json.loads(text)}


@pytest.mark.parametrize(
    "text", ["9007199254740992", "-9007199254740992", "1" * 5000, "1e309", "-1E+400", "1" * 400 + ".0", "NaN", "-Infinity"]
)
def test_numbers_that_a_browser_reads_otherwise_are_refused_wherever_they_stand(text: str) -> None:
    """In a field that nobody reads, too: JSON is strict."""
    for frame, path in ((widget_update({"a": ["@"]}), "payload.data.a[0]"), (widget_update({}, x={"y": "@"}), "x.y")):
        with pytest.raises(ClientFault) as caught:
            decode(json.dumps(frame).replace('"@"', text).encode())
        assert caught.value.details[0][0] == path
        assert caught.value.message_id == "m"


def test_a_lone_surrogate_is_refused_in_names_too() -> None:
    with pytest.raises(InvalidJson) as caught:
        decode(b'{"type":"WIDGET_UPDATE","id":"m","userId":"u","payload":{"widgetId":"w","data":{"\\udc00":1}}}')
    assert caught.value.details[0][0] == "payload.data.?"


@pytest.mark.parametrize("levels", [200, 500, 5_000, 100_000])
def test_a_bottomless_message_is_refused_as_too_deep(levels: int) -> None:
    with pytest.raises(InvalidMessage) as caught:
        decode(json.dumps(widget_update("@")).replace('"@"', nested(levels)).encode())
    assert "32 levels" in caught.value.message


def test_a_value_may_be_deep_in_any_wrapping() -> None:
    """Sixteen levels are sixteen levels: in an update, in a batch, and in a batch within a POST."""
    operation = {"operationId": "1", "type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {"a": "@"}}}
    batch = {"type": "WIDGET_BATCH", "userId": "u", "operationId": "2", "payload": {"operations": [operation]}}
    post = {"type": "SYNC", "operations": [batch]}
    for frame, read, path in (
        (widget_update({"a": "@"}), decode, "payload.data.a"),
        (batch, decode, "payload.operations[0].payload.data.a"),
        (post, decode_post, "operations[0].payload.operations[0].payload.data.a"),
    ):
        text = json.dumps(frame)
        read(text.replace('"@"', nested(16)).encode())
        with pytest.raises(InvalidMessage) as caught:
            read(text.replace('"@"', nested(17)).encode())
        assert caught.value.details == ((path, "is nested deeper than 16 levels"),)


@pytest.mark.parametrize("extra", ["[]" * 40, "{[" * 40, '\\"]' * 40, "\\\\"])
def test_brackets_in_strings_are_not_levels(extra: str) -> None:
    data = f'{{"{extra}":' + nested(16, f'"{extra}"') + "}"
    decode(json.dumps(widget_update("@")).replace('"@"', data).encode())


def depth(value: Any) -> int:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if parts is None else 1 + max(map(depth, parts), default=0)


deep = st.recursive(
    st.sampled_from(['"', "\\", "[", "]}", '\\"', "{", ""]),
    lambda parts: st.lists(parts, max_size=2) | st.dictionaries(st.sampled_from(["a", '"', "[", "\\"]), parts, max_size=2),
    max_leaves=60,
)


@given(deep, st.integers(0, 25))
def test_the_fast_look_at_depth_is_exact(value: Any, levels: int) -> None:
    for _ in range(levels):
        value = [value, '"[']
    assert is_shallow(json.dumps(value).encode()) == (depth(value) <= 19)


@given(wild_values)
def test_the_fast_look_misses_nothing(value: Any) -> None:
    """What it calls plain has no fault that the slow walk would find."""
    raw = json.dumps(widget_update({"a": value}), ensure_ascii=True).encode()
    if is_plain(raw) and refuse_text(raw) is None:
        assert find_fault_in_message(json.loads(raw), raw) is None


def test_a_common_message_is_plain() -> None:
    assert is_plain(json.dumps(widget_update({"title": "New Title", "value": 42, "at": AT})).encode())


def test_a_refusal_never_repeats_what_was_sent() -> None:
    secret = "hunter2"
    frame = widget_update({}, timestamp=secret)
    frame["payload"] |= {"baseVersion": secret, "epoch": secret + "\n", "replace": secret, "unset": [secret, 5]}
    with pytest.raises(InvalidMessage) as caught:
        decode(json.dumps(frame).encode())
    paths = {path for path, _ in caught.value.details}
    assert paths == {"timestamp", "payload.baseVersion", "payload.epoch", "payload.replace", "payload.unset[1]"}
    assert secret not in str(caught.value.details) + caught.value.message
    with pytest.raises(UnknownType) as unknown:
        decode(b'{"type":"hunter2","userId":"u"}')
    assert secret not in str(unknown.value.details) + unknown.value.message


def test_a_refusal_names_a_few_fields_at_most() -> None:
    operations = [{"operationId": str(index), "type": "WIDGET_DELETE", "payload": {}} for index in range(500)]
    with pytest.raises(InvalidMessage) as caught:
        decode(json.dumps({"type": "SYNC_UPDATE", "userId": "u", "payload": {"operations": operations}}).encode())
    assert 1 <= len(caught.value.details) <= MAX_DETAILS


def test_a_name_that_cannot_be_shown_is_not_shown() -> None:
    for name in ("a\nb", "x" * 65):
        with pytest.raises(InvalidMessage) as caught:
            decode(json.dumps(widget_update({name: 2**53})).encode())
        assert caught.value.details[0][0] == "payload.data.?"


@pytest.mark.parametrize("wrong", ['"x\\n"', "5", "null", '""', '"' + "x" * 129 + '"'])
def test_an_id_that_is_not_sane_is_not_sent_back(wrong: str) -> None:
    with pytest.raises(ClientFault) as caught:
        decode(b'{"type":"WIDGET_DELETE","userId":"u","id":%b}' % wrong.encode())
    assert caught.value.message_id is None


# -- writing -------------------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_quoted_text_reads_the_same(text: str) -> None:
    assert json.loads(quote(text)) == text
    assert b"\x00" not in quote(text)


@given(values)
def test_values_read_the_same_and_hold_no_nul(value: Any) -> None:
    """A NUL in a body is where its seq goes, so no JSON text may bring one along."""
    text = encode_json(value)
    assert decode_json(text) == value
    assert b"\x00" not in text
    assert b"\n" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [-math.inf]}, {"a": "NaN", "b": math.nan}, object(), "\ud800"])
def test_what_has_no_json_form_is_not_written(value: Any) -> None:
    with pytest.raises(ValueError):
        encode_json(value)


def test_text_about_constants_is_written() -> None:
    assert encode_json({"a": "NaN", "b": "Infinity"}) == b'{"a":"NaN","b":"Infinity"}'


def test_text_is_written_as_utf_8() -> None:
    assert encode_json({"é": "✓"}) == '{"é":"✓"}'.encode()
    assert quote("é\n") == '"é\\n"'.encode()


def test_a_message_says_what_it_answers() -> None:
    text = encode_message("PONG", "n-1", AT, 'u"', {"serverTime": AT}, 'c"')
    assert json.loads(text) == {
        "type": "PONG",
        "id": "n-1",
        "timestamp": AT,
        "userId": 'u"',
        "correlationId": 'c"',
        "payload": {"serverTime": AT},
    }
    assert "correlationId" not in json.loads(encode_message("PING", "n-2", AT, "u", {}))


def test_an_ack_has_what_there_is_to_say() -> None:
    ack = decode_server(encode_ack("n-1", AT, quote("ü"), quote("c"), 7))
    assert isinstance(ack, Ack)
    assert (ack.id, ack.timestamp, ack.user_id, ack.correlation_id) == ("n-1", AT, "ü", "c")
    assert ack.payload.model_dump(exclude_unset=True) == {"received": True, "version": 7, "seq": 7}
    full = decode_server(encode_ack("n-1", AT, quote("u"), None, 7, ["a", 'b"'], duplicate=True, resolved=True))
    assert isinstance(full, Ack)
    assert full.correlation_id is None
    assert full.payload.model_dump(exclude_unset=True) == {
        "received": True,
        "version": 7,
        "seq": 7,
        "merged": ("a", 'b"'),
        "duplicate": True,
        "resolved": True,
    }


@pytest.mark.parametrize(
    ("refusal", "payload"),
    [
        (NotFound("Gone."), {"error": "Gone.", "code": "NOT_FOUND", "retryable": False}),
        (
            Unavailable("Later.", retry_after_ms=0, outcome_unknown=True),
            {"error": "Later.", "code": "UNAVAILABLE", "retryable": True, "retryAfterMs": 0, "outcome": "unknown"},
        ),
        (
            InvalidMessage("No.", details=(("a", "b"),)),
            {"error": "No.", "code": "INVALID_MESSAGE", "retryable": False, "details": [{"path": "a", "message": "b"}]},
        ),
    ],
)
def test_a_nack_says_why(refusal: Refusal, payload: dict[str, Any]) -> None:
    text = encode_nack("n", AT, "u", "m", refusal)
    assert json.loads(text)["payload"] == payload
    nack = decode_server(text)
    assert isinstance(nack, Nack)
    assert nack.correlation_id == "m"


@given(fields, any_text, st.integers(1, MAX_SAFE_INTEGER))
def test_a_change_gets_its_seq_when_it_is_sent(data: dict[str, Any], user: str, seq: int) -> None:
    body = encode_change("WIDGET_UPDATE", quote(user), AT, b'"widgetId":"w","data":' + encode_json(data))
    message = decode_server(broadcast(body, seq, "e1"))
    assert isinstance(message, WidgetUpdated)
    assert (message.id, message.user_id, message.timestamp) == (f"e1-{seq}", user, AT)
    assert (message.payload.data, message.payload.seq, message.payload.version) == (data, seq, seq)
    assert json.loads(change(body, seq)) == {
        "type": "WIDGET_UPDATE",
        "userId": user,
        "timestamp": AT,
        "payload": {"widgetId": "w", "data": data, "version": seq, "seq": seq},
        "seq": seq,
    }


# -- for clients ---------------------------------------------------------------------------------------------------------------


def test_a_client_gets_an_unknown_message_as_it_came() -> None:
    envelope = decode_server(b'{"type":"TYPING","payload":{"who":["u"]},"later":1}')
    assert envelope == Envelope(type="TYPING", payload={"who": ["u"]})


def test_a_change_can_be_had_with_its_payload_as_it_came() -> None:
    body = encode_change("WIDGET_DELETE", quote("u"), AT, b'"widgetId":"w"')
    assert decode_envelope(broadcast(body, 3, "e")).payload == {"widgetId": "w", "version": 3, "seq": 3}


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"type":5}', b'{"type":"ACK","payload":[]}', b"\xff"])
def test_a_client_refuses_what_is_no_message(raw: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_server(raw)
