"""The words for what can go wrong; knows codes and sentences, not sockets, HTTP handlers or stores.

Expected outcomes of an operation (applied, conflict, replayed) are values, see ``core``. What stands here is the other two
vocabularies: refusals, which are exceptions and leave the connection alive, and ends of connections, which are close codes.

The tree (wire code, HTTP status, retryable)::

    RealtimeError
    |-- ClientFault              the sender must change something before it tries again
    |   |-- InvalidJson          INVALID_JSON      400
    |   |-- InvalidMessage       INVALID_MESSAGE   400
    |   |-- UnknownType          UNKNOWN_TYPE      400
    |   |-- Unauthorized         UNAUTHORIZED      401   (HTTP; a socket is closed with 1008)
    |   |-- Forbidden            FORBIDDEN         403
    |   |-- NotFound             NOT_FOUND         404
    |   |-- MethodNotAllowed     METHOD_NOT_ALLOWED 405  (HTTP)
    |   |-- ConflictUnknown      CONFLICT_UNKNOWN  404
    |   |-- IdReused             ID_REUSED         409
    |   |-- BatchAborted         BATCH_ABORTED     409
    |   |-- TooLarge             TOO_LARGE         413
    |   |-- UnsupportedMedia     UNSUPPORTED_MEDIA_TYPE 415  (HTTP)
    |   |-- Misdirected          MISDIRECTED       421   (HTTP: a Host that is not ours)
    |   |-- LimitExceeded        LIMIT_EXCEEDED    422
    |   `-- RateLimited          RATE_LIMITED      429   retryable
    |-- ServerFault              the sender may try the same again
    |   |-- Unavailable          UNAVAILABLE       503   retryable
    |   `-- Internal             INTERNAL          500   retryable
    `-- StartFault               a sentence for the person at the terminal; the process ends with status 2
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

__all__ = [
    "BatchAborted",
    "ClientFault",
    "Close",
    "ConflictUnknown",
    "Forbidden",
    "IdReused",
    "Internal",
    "InvalidJson",
    "InvalidMessage",
    "LimitExceeded",
    "MethodNotAllowed",
    "Misdirected",
    "NotFound",
    "RateLimited",
    "RealtimeError",
    "Refusal",
    "ServerFault",
    "StartFault",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UnknownType",
    "UnsupportedMedia",
]


class RealtimeError(Exception):
    """Root of everything this package raises on purpose."""


class Refusal(RealtimeError):
    """A request that was not carried out, in the words of the wire (PROTOCOL sections 3 and 6).

    ``message`` is a sentence for a person. ``details`` names wrong fields as ``(path, message)`` pairs, the path in the wire's
    own spelling, such as ``payload.data.title``. ``retry_after_ms`` says when a repetition makes sense. ``message_id`` is the
    refused message's own id, where it could still be read. ``outcome_unknown`` is the one case in which something may have
    been changed all the same.
    """

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        details: tuple[tuple[str, str], ...] = (),
        retry_after_ms: int | None = None,
        message_id: str | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.retry_after_ms = retry_after_ms
        self.message_id = message_id
        self.outcome_unknown = outcome_unknown


class ClientFault(Refusal):
    """The sender has to change something first."""


class InvalidJson(ClientFault):
    code = "INVALID_JSON"
    http_status = 400


class InvalidMessage(ClientFault):
    code = "INVALID_MESSAGE"
    http_status = 400


class UnknownType(ClientFault):
    code = "UNKNOWN_TYPE"
    http_status = 400


class Unauthorized(ClientFault):
    code = "UNAUTHORIZED"
    http_status = 401


class Forbidden(ClientFault):
    code = "FORBIDDEN"
    http_status = 403


class NotFound(ClientFault):
    code = "NOT_FOUND"
    http_status = 404


class MethodNotAllowed(ClientFault):
    code = "METHOD_NOT_ALLOWED"
    http_status = 405


class ConflictUnknown(ClientFault):
    code = "CONFLICT_UNKNOWN"
    http_status = 404


class IdReused(ClientFault):
    code = "ID_REUSED"
    http_status = 409


class BatchAborted(ClientFault):
    code = "BATCH_ABORTED"
    http_status = 409


class TooLarge(ClientFault):
    code = "TOO_LARGE"
    http_status = 413


class UnsupportedMedia(ClientFault):
    code = "UNSUPPORTED_MEDIA_TYPE"
    http_status = 415


class Misdirected(ClientFault):
    code = "MISDIRECTED"
    http_status = 421


class LimitExceeded(ClientFault):
    code = "LIMIT_EXCEEDED"
    http_status = 422


class RateLimited(ClientFault):
    code = "RATE_LIMITED"
    http_status = 429
    retryable = True


class ServerFault(Refusal):
    """The fault is ours; the same request may be repeated, under the same id."""

    retryable = True


class Unavailable(ServerFault):
    code = "UNAVAILABLE"
    http_status = 503


class Internal(ServerFault):
    code = "INTERNAL"
    http_status = 500


class StartFault(RealtimeError):
    """The process cannot start or go on; the text is a sentence for the person at the terminal (exit status 2)."""


class Close(Enum):
    """Why a connection ends: ``(code, reason, reconnect)``, PROTOCOL section 1. ``reconnect`` goes into DISCONNECT."""

    NORMAL = (1000, "", True)
    GOING_AWAY = (1001, "", True)
    PROTOCOL_ERROR = (1002, "Protocol error", True)
    UNSUPPORTED_DATA = (1003, "Text frames only", True)
    INVALID_TEXT = (1007, "Invalid UTF-8", True)
    UNAUTHORIZED = (1008, "Unauthorized", False)
    FORBIDDEN = (1008, "Forbidden", False)
    TOKEN_EXPIRED = (1008, "Token expired", True)
    RATE_LIMIT_EXCEEDED = (1008, "Rate limit exceeded", True)
    MESSAGE_TOO_BIG = (1009, "Message too big", True)
    SERVER_FAULT = (1011, "Server fault", True)
    SERVER_SHUTTING_DOWN = (1012, "Server shutting down", True)
    SLOW_CONSUMER = (1013, "Slow consumer", True)
    HEARTBEAT_TIMEOUT = (1013, "Heartbeat timeout", True)
    TRY_AGAIN_LATER = (1013, "Try again later", True)

    def __init__(self, code: int, reason: str, reconnect: bool) -> None:
        self.code = code
        self.reason = reason
        self.reconnect = reconnect
