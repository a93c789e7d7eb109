"""Why a text is not a message: refusals with the path to the wrong field, in sentences of our own.

Knows models and the parser's complaints. It never repeats what was sent, except the names of fields, which make the path.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from tornado_rt.errors import ClientFault, InvalidJson, InvalidMessage, UnknownType
from tornado_rt.protocol.messages import MessageType, is_valid_id
from tornado_rt.protocol.strict import (
    FRAME_TOO_DEEP,
    LONE_SURROGATE,
    NOT_A_NUMBER,
    Fault,
    Path,
    find_fault,
    find_fault_in_message,
    is_plain,
    parse_leniently,
)

MAX_DETAILS = 8  # wrong fields that one refusal names
_MAX_NAME_LENGTH = 64  # of a field's name in a path

_PLACE = re.compile(r"line (\d+) column (\d+)$")

# The parser's kinds of complaint, in our words.
_SENTENCES: dict[str, str] = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "string_too_long": "is too long",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than_equal": "must not be negative",
    "less_than_equal": "is too large",
    "bool_type": "must be true or false",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
    "list_type": "must be an array",
    "tuple_type": "must be an array",
    "union_tag_not_found": "is required",
    "union_tag_invalid": "is not a type that may stand here",
}


def format_path(path: Path) -> str:
    """``payload.operations[3].payload.widgetId``; a name that cannot be shown is written as ``?``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if part.isprintable() and len(part) <= _MAX_NAME_LENGTH else "?"
            text += f".{name}" if text else name
    return text


def refuse_text(raw: bytes) -> ClientFault | None:
    """What is wrong with ``raw`` as strict JSON and as an object; None if nothing is."""
    try:
        body = from_json(raw, allow_inf_nan=False)
    except ValueError as fault:
        return _refuse_syntax(raw, str(fault))
    if not isinstance(body, dict):
        return _refuse(InvalidMessage, ((), "must be a JSON object"), None)
    found = None if is_plain(raw) else find_fault_in_message(body, raw)
    return _refuse(InvalidMessage, found, body) if found else None


def _refuse_syntax(raw: bytes, complaint: str) -> ClientFault:
    """The strict parser would not have it: too deep for it, not quite JSON, or no JSON at all."""
    try:
        body = parse_leniently(raw)
        found = find_fault(body)
    except UnicodeDecodeError:
        return InvalidJson("This is not JSON: the text is not UTF-8.")
    except RecursionError:
        return _refuse(InvalidMessage, ((), FRAME_TOO_DEEP), None)
    except ValueError:
        found = None
    if found:
        return _refuse(InvalidJson if found[1] in (NOT_A_NUMBER, LONE_SURROGATE) else InvalidMessage, found, body)
    place = _PLACE.search(complaint)
    return InvalidJson(f"This is not JSON: line {place[1]}, column {place[2]}." if place else "This is not JSON.")


def refuse_message(raw: bytes, complaint: ValidationError, known: Collection[str]) -> ClientFault:
    """Why ``raw`` is none of the messages whose types are ``known``; ``complaint`` is what the models said of it."""
    refusal = refuse_text(raw)
    if refusal:
        return refusal
    body = from_json(raw)
    kind = body.get("type")
    if not isinstance(kind, str):
        return _refuse(InvalidMessage, (("type",), "must be a string" if "type" in body else "is required"), body)
    if kind in known:
        return _refuse_fields(complaint, body)
    if kind in MessageType.__members__:
        return _refuse(InvalidMessage, (("type",), "is a type that only a server sends"), body)
    return _refuse(UnknownType, (("type",), "is not the name of a message type"), body)


def refuse_body(raw: bytes, complaint: ValidationError) -> ClientFault:
    """Why ``raw`` is not the one body that was expected, such as a POST's."""
    return refuse_text(raw) or _refuse_fields(complaint, from_json(raw))


def _refuse(refusal: type[ClientFault], found: Fault, body: Any) -> ClientFault:
    path, sentence = format_path(found[0]), found[1]
    return refusal(_head(path, sentence), details=((path, sentence),), message_id=_read_id(body))


def _refuse_fields(complaint: ValidationError, body: Any) -> InvalidMessage:
    """The models' complaints with the paths of the wire."""
    errors = complaint.errors(include_url=False, include_input=False)[:MAX_DETAILS]
    details = tuple(_detail(error) for error in errors)
    return InvalidMessage(_head(*details[0]), details=details, message_id=_read_id(body))


def _detail(error: ErrorDetails) -> tuple[str, str]:
    kind, context = error["type"], error.get("ctx", {})
    path = format_path(_without_tags(error["loc"]))
    if kind == "at":  # found by the whole, about a part: see messages._at
        part = context["at"]
        return path + (part if part.startswith("[") or not path else f".{part}"), context["sentence"]
    if kind == "set_and_unset":
        return path, error["msg"]
    if kind == "literal_error":
        return path, f"must be {context['expected']}"
    if kind == "string_pattern_mismatch":
        return path, "must be an ISO 8601 time" if path == "timestamp" else "holds signs that are not printable"
    if kind.startswith("union_tag"):
        path += ".type"
    return path, _SENTENCES.get(kind, "is not valid here")


def _without_tags(location: Path) -> Path:
    """The parser names the type that it chose for an operation as if it were a field: ``operations, 3, WIDGET_UPDATE, ...``."""
    path: list[str | int] = []
    for part in location:
        is_tag = part in MessageType.__members__ and (not path or isinstance(path[-1], int))
        if not is_tag:
            path.append(part)
    return tuple(path)


def _head(path: str, sentence: str) -> str:
    """A sentence for a person."""
    return f"{path} {sentence}." if path else f"The message {sentence}."


def _read_id(body: Any) -> str | None:
    """The refused message's own id, where it is fit to be sent back."""
    found = body.get("id") if isinstance(body, dict) else None
    return found if is_valid_id(found) else None
