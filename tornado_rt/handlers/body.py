"""A door that takes a JSON body: who may not send one, or announces too long a one, is told so before it is kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tornado_rt.auth import Identity
from tornado_rt.errors import ClientFault, TooLarge, UnsupportedMedia
from tornado_rt.handlers.base import BaseHandler

__all__ = ["BodyHandler"]

MAX_DROPPED_BYTES = 16 * 1024 * 1024
MAX_LENGTH_DIGITS = 18

Body = TypeVar("Body")


class BodyHandler(BaseHandler):
    """``identity`` is known when a method is called."""

    identity: Identity

    async def prepare(self) -> None:
        super().prepare()
        if self.request.method != "OPTIONS":
            self.identity = await self.identify()
        if self.request.method == "POST":
            self._body = bytearray()
            self._check_announced()

    def _check_announced(self) -> None:
        headers, most = self.request.headers, self.server.options.max_message_bytes
        if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
            raise UnsupportedMedia("send application/json")
        if not most:
            return
        # Too much is read and dropped, within reason: a client that is cut off while it sends hears no answer.
        self.request.connection.set_max_body_size(max(most, MAX_DROPPED_BYTES))  # type: ignore[union-attr]
        length = headers.get("Content-Length", "")
        if len(length) > MAX_LENGTH_DIGITS or (length.isdecimal() and int(length) > most):
            raise self._too_large()

    def data_received(self, chunk: bytes) -> None:
        most = self.server.options.max_message_bytes
        if not most or len(self._body) <= most:  # one byte too many is enough to know
            self._body += chunk

    def decode_body(self, decode: Callable[[bytes], Body]) -> Body:
        """What came. What makes no sense is charged here, the rest by whoever knows what is in it.

        Raises as ``decode`` does, ``TooLarge``, ``RateLimited``.
        """
        most, user_id = self.server.options.max_message_bytes, self.identity.user_id
        if most and self.size_bytes > most:
            raise self._too_large()
        self.server.charge(user_id)
        try:
            return decode(bytes(self._body))
        except ClientFault:
            self.server.charge(user_id, self.size_bytes)
            raise

    @property
    def size_bytes(self) -> int:
        return len(self._body)

    def _too_large(self) -> TooLarge:
        return TooLarge(f"a request has at most {self.server.options.max_message_bytes} bytes")
