"""Strict JSON: which texts are JSON but not to be taken, and where in them the fault is. Knows no message types.

A value that one browser of a dashboard cannot read, or reads as another number, must not enter it (PROTOCOL section 2):
``NaN`` and ``Infinity``, which are not JSON; lone surrogates, which are not Unicode; whole numbers that a browser rounds;
numbers that are infinite once read; more levels than the limits allow.

The fast half looks at bytes alone and says "certainly fine" or "look closer"; the slow half walks the values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from tornado_rt.protocol.messages import MAX_SAFE_INTEGER

MAX_FRAME_LEVELS = 32
MAX_VALUE_LEVELS = 16
# A field's value never begins higher than this: the frame, its payload, the payload's data or layout.
LEVELS_ABOVE_A_VALUE = 3

Path = tuple[str | int, ...]
Fault = tuple[Path, str]

NOT_A_NUMBER = "is not JSON: NaN and Infinity have no place in it"
TOO_LARGE_INTEGER = "is a whole number beyond 53 bits, which a browser would round: send a string"
TOO_LARGE_NUMBER = "is a number beyond what a 64-bit float holds"
LONE_SURROGATE = "holds half of a surrogate pair, which is not Unicode"
FRAME_TOO_DEEP = f"is nested deeper than {MAX_FRAME_LEVELS} levels"
VALUE_TOO_DEEP = f"is nested deeper than {MAX_VALUE_LEVELS} levels"

# Digits to 0; e, E and + so that each exponent of three digits or more reads "0e000"; one kind of bracket.
_SHAPE = bytes.maketrans(b"0123456789+E[", b"00000000000e{")
_SIXTEEN_DIGITS = "0" * 16  # 2**53 has sixteen
_LONG_EXPONENT = "0e000"  # 1e99 with fifteen digits before it is far from infinite
_ALL_BUT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'{}[]"')
_ONE_KIND_OF_BRACKET = bytes.maketrans(b"[]", b"{}")


def is_plain(raw: bytes) -> bool:
    """Whether JSON text is certainly free of what this module looks for, surrogates excepted: the parser refuses those.

    True costs well under a microsecond for a common message. False means only that ``raw`` has to be looked at.
    """
    # As text, since `in` is four times faster on str than on bytes, which first takes the needle for a number.
    shape = raw.translate(_SHAPE).decode("latin-1")
    if "NaN" in shape or "Infinity" in shape or _SIXTEEN_DIGITS in shape or _LONG_EXPONENT in shape:
        return False
    return shape.count("{") <= MAX_VALUE_LEVELS or is_shallow(raw)


def is_shallow(raw: bytes) -> bool:
    """Whether well-formed JSON text is certainly within both limits of depth; works at the speed of ``bytes`` methods.

    Only the brackets outside of strings are kept, and then pairs that hold nothing are taken out, level by level.
    """
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    structure = raw.translate(_ONE_KIND_OF_BRACKET, _ALL_BUT_STRUCTURE).replace(b'""', b"")
    if b'"' in structure:  # some string holds brackets: it is what stands between two quotes
        structure = b"".join(structure.split(b'"')[::2])
    for _ in range(MAX_VALUE_LEVELS + LEVELS_ABOVE_A_VALUE):
        structure = structure.replace(b"{}", b"")
        if not structure:
            return True
    return False


def find_fault(value: Any, levels: int = MAX_FRAME_LEVELS, too_deep: str = FRAME_TOO_DEEP) -> Fault | None:
    """The first thing in a parsed value that strict JSON does not allow, as the path to it and a sentence."""
    kind = type(value)
    if kind is not dict and kind is not list:
        sentence = _judge(value)
        return ((), sentence) if sentence else None
    if not levels:
        return (), too_deep
    if kind is dict:
        for name in value:
            if not name.isascii() and _judge(name):
                return (name,), LONE_SURROGATE
    parts: Iterable[tuple[str | int, Any]] = value.items() if kind is dict else enumerate(value)
    for key, part in parts:
        kind = type(part)
        if kind is list or kind is dict:
            fault = find_fault(part, levels - 1, too_deep) if part or levels == 1 else None
            if fault:
                return (key, *fault[0]), fault[1]
        elif sentence := _judge(part):
            return (key,), sentence
    return None


def _judge(value: Any) -> str | None:
    """What is wrong with a string, a number or a constant."""
    kind = type(value)
    if kind is str:
        return None if value.isascii() or _is_unicode(value) else LONE_SURROGATE
    if kind is int:
        return None if -MAX_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER else TOO_LARGE_INTEGER
    if kind is float:
        return None if math.isfinite(value) else TOO_LARGE_NUMBER
    return NOT_A_NUMBER if kind is _Constant else None


def find_fault_in_message(message: Mapping[str, Any], raw: bytes) -> Fault | None:
    """As ``find_fault`` for a whole message or POST body, with the limit for each field's value as well."""
    fault = find_fault(message)
    if fault or is_shallow(raw):
        return fault
    return _find_deep_value(message.get("payload"), ("payload",)) or _find_deep_value(message, ())


def _find_deep_value(payload: Any, path: Path) -> Fault | None:
    """The first field value in a payload, or in the operations that it carries, that has too many levels."""
    if not isinstance(payload, dict):
        return None
    for part in ("data", "layout"):
        fields = payload.get(part)
        if isinstance(fields, dict):
            for name, value in fields.items():
                fault = find_fault(value, MAX_VALUE_LEVELS, VALUE_TOO_DEEP)
                if fault:
                    return (*path, part, name), fault[1]
    operations = payload.get("operations")
    for index, operation in enumerate(operations if isinstance(operations, list) else ()):
        if isinstance(operation, dict):
            fault = _find_deep_value(operation.get("payload"), (*path, "operations", index, "payload"))
            if fault:
                return fault
    return None


def parse_leniently(raw: bytes) -> Any:
    """What can be made of a text that the strict parser refused, in order to say where it is wrong.

    Takes ``NaN``, ``Infinity`` and lone surrogates. Raises ValueError or RecursionError on what is no JSON at all.
    """
    return json.loads(raw.decode("utf-8"), parse_constant=_Constant, parse_int=_integer)


class _Constant(float):
    """A ``NaN`` or ``Infinity`` in the text, as against a number that became infinite."""


def _integer(digits: str) -> int:
    """Python refuses to read numbers of thousands of digits; any beyond the limit will do."""
    return int(digits) if len(digits) < 20 else MAX_SAFE_INTEGER + 1


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
