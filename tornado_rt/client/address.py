"""From what a person calls the server's address to the addresses that are dialled, and who we say we are there. Pure."""

from __future__ import annotations

import base64
import binascii
import json
from urllib.parse import urlencode, urlsplit

__all__ = ["Address", "subject_of"]

_PATH = "/api/realtime"


class Address:
    """A server, from ``http(s)://`` or ``ws(s)://`` with or without the path. Raises ``ValueError`` for anything else."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https", "ws", "wss") or not parts.netloc:
            raise ValueError(f"not the address of a server: {url}")
        is_secure = parts.scheme in ("https", "wss")
        path = parts.path.rstrip("/")
        if not path.endswith(_PATH):
            path += _PATH
        self.socket = f"{'wss' if is_secure else 'ws'}://{parts.netloc}{path}"
        self.http = f"{'https' if is_secure else 'http'}://{parts.netloc}{path}"

    def socket_url(self, query: dict[str, str | int]) -> str:
        return f"{self.socket}?{urlencode(query)}"

    def http_url(self, query: dict[str, str | int]) -> str:
        return f"{self.http}?{urlencode(query)}" if query else self.http


def subject_of(token: str) -> str | None:
    """The ``sub`` of a signed token, unchecked (the server checks it); None where there is none to be read."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError, binascii.Error):
        return None
    subject = claims.get("sub") if isinstance(claims, dict) else None
    return subject if isinstance(subject, str) else None
