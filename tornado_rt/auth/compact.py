"""A token's text: its size, its header, its JSON, read so that no two readers can take it for different things.

Knows the compact form of RFC 7515 and why a token may be refused; not keys, and not what the claims mean.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from enum import StrEnum
from typing import Any, Final, NamedTuple

__all__ = ["MAX_TOKEN_BYTES", "BadToken", "Cause", "Header", "read_header", "read_object"]

MAX_TOKEN_BYTES: Final = 8_192
MAX_LEVELS: Final = 16
MAX_KEY_ID_CHARACTERS: Final = 256
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++")


class Cause(StrEnum):
    """Why a token was refused: for counters and the operator's eyes; whoever sent it is told of none."""

    MISSING = "missing"
    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    ALGORITHM = "algorithm"
    UNKNOWN_KEY = "unknown_key"
    SIGNATURE = "signature"
    SUBJECT = "subject"
    OTHER_USER = "other_user"
    TIMES = "times"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    LIFE = "life"
    AUDIENCE = "audience"
    ISSUER = "issuer"
    TOKEN_ID = "token_id"
    DASHBOARDS = "dashboards"
    NO_ROLE = "no_role"


class BadToken(Exception):
    """A token is refused. Stays inside ``auth``; the doors see a ``Refusal``."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


class Header(NamedTuple):
    """What of a token's header counts. Keys that it brings along or points to (``jwk``, ``jku``, ``x5u``) never do."""

    algorithm: str
    key_id: str | None


def read_header(token: str, max_bytes: int) -> Header:
    """The header of a token whose signature is still to be checked. Raises ``BadToken``."""
    if len(token) > max_bytes:
        raise BadToken(Cause.TOO_LARGE)
    if not _COMPACT.fullmatch(token):
        raise BadToken(Cause.MALFORMED)
    header = read_object(_decode(token.partition(".")[0]))
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str):
        raise BadToken(Cause.ALGORITHM)
    # What must be understood is not (RFC 7515 section 4.1.11); a payload that is not encoded (RFC 7797) is such a thing.
    is_plain = "crit" not in header and "b64" not in header
    if not is_plain or not (key_id is None or (isinstance(key_id, str) and len(key_id) <= MAX_KEY_ID_CHARACTERS)):
        raise BadToken(Cause.MALFORMED)
    return Header(algorithm, key_id)


def read_object(raw: bytes) -> dict[str, Any]:
    """A JSON object without duplicate names (RFC 7519 section 4), ``NaN`` or needless depth. Raises ``BadToken``."""
    try:
        value = _JSON.decode(raw.decode())
    except (ValueError, RecursionError):
        raise BadToken(Cause.MALFORMED) from None
    if not isinstance(value, dict) or _is_deeper(value, MAX_LEVELS):
        raise BadToken(Cause.MALFORMED)
    return value


def _decode(segment: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except binascii.Error:
        raise BadToken(Cause.MALFORMED) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_JSON: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_number)


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(part, levels - 1) for part in parts)
