# ruff: noqa: A002 -- a message has a type and an id, and the encoders' parameters bear the names of the wire
"""Bytes to models and back: the only place where JSON is read or written. It must not know what a message does.

Reading is strict (``strict``) and refuses with a path (``refusals``). Writing goes by templates where it is hot: the caller
hands in what it has quoted once, such as its user's id. Bodies of changes are written once, without their seq, and finished
by ``broadcast`` and ``change`` when it is known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from tornado_rt.errors import InvalidMessage, Refusal
from tornado_rt.protocol.messages import ClientMessage, Revoke, SyncOp, SyncPost, is_valid_id
from tornado_rt.protocol.refusals import refuse_body, refuse_message, refuse_text
from tornado_rt.protocol.server_messages import Envelope, ServerMessage
from tornado_rt.protocol.strict import is_plain

__all__ = [
    "broadcast",
    "change",
    "decode",
    "decode_envelope",
    "decode_json",
    "decode_operation",
    "decode_post",
    "decode_revoke",
    "decode_server",
    "encode_ack",
    "encode_change",
    "encode_json",
    "encode_message",
    "encode_nack",
    "is_valid_id",
    "quote",
]

_CLIENT: Final = TypeAdapter[ClientMessage](ClientMessage)
_CLIENT_TYPES: Final = frozenset(
    {
        "PING",
        "PONG",
        "DISCONNECT",
        "SYNC_REQUEST",
        "SYNC_UPDATE",
        "WIDGET_UPDATE",
        "WIDGET_DELETE",
        "WIDGET_BATCH",
        "LAYOUT_UPDATE",
        "LAYOUT_RESTORE",
        "CONFLICT_RESOLVED",
    }
)
_validate_client = _CLIENT.validator.validate_json
_validate_post = TypeAdapter(SyncPost).validator.validate_json
_validate_revoke = TypeAdapter(Revoke).validator.validate_json
_validate_server = TypeAdapter[ServerMessage](ServerMessage).validator.validate_json
_validate_envelope = TypeAdapter(Envelope).validator.validate_json

_SEQ: Final = b"\x00"  # stands where a body's seq goes: JSON text cannot hold it (RFC 8259 section 7)


# -- reading ----------------------------------------------------------------------------------------------------------------


def decode(raw: bytes) -> ClientMessage:
    """One frame of a client as its model.

    Raises InvalidJson, InvalidMessage or UnknownType, with the paths to what is wrong and the message's id where it is known.
    """
    try:
        message: ClientMessage = _validate_client(raw, by_alias=True, by_name=False)
    except ValidationError as complaint:
        raise refuse_message(raw, complaint, _CLIENT_TYPES) from None
    if not is_plain(raw):
        refusal = refuse_text(raw)
        if refusal:
            raise refusal
    return message


def decode_post(raw: bytes) -> SyncPost:
    """The body of ``POST /api/realtime``. Raises as ``decode`` does."""
    try:
        post: SyncPost = _validate_post(raw, by_alias=True, by_name=False)
    except ValidationError as complaint:
        raise refuse_body(raw, complaint) from None
    if not is_plain(raw):
        refusal = refuse_text(raw)
        if refusal:
            raise refusal
    return post


def decode_server(raw: bytes) -> ServerMessage | Envelope:
    """One frame of a server as its model, for clients.

    Unknown fields are ignored; an unknown type, or a message sent as given by ``broadcast()``, comes as an Envelope. Raises
    InvalidMessage on what is no message at all.
    """
    try:
        message: ServerMessage = _validate_server(raw, by_alias=True, by_name=False)
    except ValidationError:
        return decode_envelope(raw)
    return message


def decode_envelope(raw: bytes) -> Envelope:
    """One frame of a server with its payload as it came, for clients that fold payloads themselves. Raises InvalidMessage."""
    try:
        envelope: Envelope = _validate_envelope(raw, by_alias=True, by_name=False)
    except ValidationError:
        raise InvalidMessage("The server sent what is no message.") from None
    return envelope


def decode_json(raw: bytes) -> Any:
    """JSON text of our own making, such as a kept record, as plain values. Raises ValueError."""
    return from_json(raw, allow_inf_nan=False)


# -- writing ----------------------------------------------------------------------------------------------------------------


def quote(text: str) -> bytes:
    """``text`` as a JSON string. Raises UnicodeEncodeError (a ValueError) on a lone surrogate."""
    return encode_basestring(text).encode()


def encode_json(value: Any) -> bytes:
    """``value`` as compact JSON in UTF-8. Raises ValueError on NaN, on infinity and on what has no JSON form."""
    text = to_json(value)
    if text.find(b"NaN") >= 0 or text.find(b"Infinity") >= 0:  # a constant, or in a string: the slow way tells them apart
        json.dumps(value, allow_nan=False, default=str)
    return text


def encode_message(
    type: str, id: str, timestamp: str, user_id: str, payload: bytes | Mapping[str, Any], correlation_id: str | None = None
) -> bytes:
    """A whole message; ``payload`` is JSON text already or will be."""
    return b'{"type":"%b","id":%b,"timestamp":"%b","userId":%b,%b"payload":%b}' % (
        type.encode(),
        quote(id),
        timestamp.encode(),
        quote(user_id),
        b"" if correlation_id is None else b'"correlationId":%b,' % quote(correlation_id),
        payload if isinstance(payload, bytes) else encode_json(payload),
    )


def encode_ack(
    id: str,
    timestamp: str,
    user: bytes,
    correlation: bytes | None,
    seq: int,
    merged: Sequence[str] = (),
    duplicate: bool = False,
    resolved: bool = False,
) -> bytes:
    """The ACK of one operation. ``user`` and ``correlation`` are quoted already; ``id`` and ``timestamp`` need no quoting."""
    return b'{"type":"ACK","id":"%b","timestamp":"%b","userId":%b%b,"payload":{"received":true,"version":%d,"seq":%d%b}}' % (
        id.encode(),
        timestamp.encode(),
        user,
        b"" if correlation is None else b',"correlationId":' + correlation,
        seq,
        seq,
        _encode_ack_extras(merged, duplicate, resolved) if merged or duplicate or resolved else b"",
    )


def _encode_ack_extras(merged: Sequence[str], duplicate: bool, resolved: bool) -> bytes:
    text = b',"merged":' + to_json(list(merged)) if merged else b""
    if duplicate:
        text += b',"duplicate":true'
    if resolved:
        text += b',"resolved":true'
    return text


def encode_nack(id: str, timestamp: str, user_id: str, correlation_id: str | None, refusal: Refusal) -> bytes:
    """The NACK of a refused message (PROTOCOL section 3)."""
    payload: dict[str, Any] = {"error": refusal.message, "code": refusal.code, "retryable": refusal.retryable}
    if refusal.retry_after_ms is not None:
        payload["retryAfterMs"] = refusal.retry_after_ms
    if refusal.details:
        payload["details"] = [{"path": path, "message": message} for path, message in refusal.details]
    if refusal.outcome_unknown:
        payload["outcome"] = "unknown"
    return encode_message("NACK", id, timestamp, user_id, payload, correlation_id)


def encode_change(type: str, user: bytes, timestamp: str, payload_head: bytes) -> bytes:
    """A change without its seq and without its closing brace: a NUL stands wherever the seq goes.

    ``user`` is quoted already, ``payload_head`` the payload's members before ``version`` and ``seq``, without braces.
    """
    return b'{"type":"%b","userId":%b,"timestamp":"%b","payload":{%b,"version":\x00,"seq":\x00}' % (
        type.encode(),
        user,
        timestamp.encode(),
        payload_head,
    )


def broadcast(body: bytes, seq: int, epoch: str) -> bytes:
    """The message that tells a change to the others; its id is the change's place: ``<epoch>-<seq>``."""
    place = b"%d" % seq
    return b'%b,"id":"%b-%b"}' % (body.replace(_SEQ, place), epoch.encode(), place)


def change(body: bytes, seq: int) -> bytes:
    """A ``Change`` as it stands in a SYNC_RESPONSE's delta."""
    place = b"%d" % seq
    return b'%b,"seq":%b}' % (body.replace(_SEQ, place), place)


def decode_revoke(raw: bytes) -> Revoke:
    """The body of ``POST /api/realtime/revoke``. Raises as ``decode`` does."""
    try:
        revoke: Revoke = _validate_revoke(raw, by_alias=True, by_name=False)
    except ValidationError as complaint:
        raise refuse_body(raw, complaint) from None
    return revoke


def decode_operation(operation: Mapping[str, Any]) -> SyncOp:
    """An ``Op`` from within the process, judged like one from the wire. Raises as ``decode_post`` does."""
    raw = to_json({"type": "SYNC", "operations": [operation]})
    return decode_post(raw).operations[0]
