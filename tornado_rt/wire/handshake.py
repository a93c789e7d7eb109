"""What makes an HTTP request a WebSocket handshake (RFC 6455 section 4.2.1). Knows headers, not who may connect."""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from tornado.httputil import HTTPServerRequest

__all__ = ["BadHandshake", "check_handshake"]


class BadHandshake(NamedTuple):
    """Why a handshake is refused: an HTTP status, a sentence, and headers that the answer must have."""

    status: int
    sentence: str
    headers: tuple[tuple[str, str], ...] = ()


def check_handshake(request: HTTPServerRequest) -> BadHandshake | None:
    """None if the request is a proper handshake; Tornado itself checks little of this."""
    headers = request.headers
    if request.method != "GET" or request.version != "HTTP/1.1":
        return BadHandshake(400, "A WebSocket handshake is a GET over HTTP/1.1.")
    if headers.get("Upgrade", "").lower() != "websocket":
        return BadHandshake(400, 'Can "Upgrade" only to "WebSocket".')
    if "upgrade" not in [option.strip() for option in headers.get("Connection", "").lower().split(",")]:
        return BadHandshake(400, '"Connection" must be "Upgrade".')
    if headers.get("Sec-WebSocket-Version") != "13":
        sentence = "Only version 13 of the WebSocket protocol is spoken here."
        return BadHandshake(426, sentence, (("Sec-WebSocket-Version", "13"),))
    if not is_key(headers.get("Sec-WebSocket-Key", "")):
        return BadHandshake(400, '"Sec-WebSocket-Key" must be 16 bytes in base64.')
    return None


def is_key(key: str) -> bool:
    """Whether ``key`` is a Sec-WebSocket-Key: 16 bytes in base64."""
    try:
        return len(key) == 24 and len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
