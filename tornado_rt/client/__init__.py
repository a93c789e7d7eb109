"""The Python client. What a program needs stands here; the other modules are how it works."""

from tornado_rt.client.client import RealtimeClient
from tornado_rt.client.connection import ConnectionState
from tornado_rt.client.edit import Edit
from tornado_rt.client.operation import Operation, OperationState
from tornado_rt.client.outcomes import (
    Change,
    ClientStoppedError,
    Conflict,
    ConflictError,
    QueueFullError,
    RefusedError,
    Result,
)
from tornado_rt.client.queue import QueueInUseError

__all__ = [
    "Change",
    "ClientStoppedError",
    "Conflict",
    "ConflictError",
    "ConnectionState",
    "Edit",
    "Operation",
    "OperationState",
    "QueueFullError",
    "QueueInUseError",
    "RealtimeClient",
    "RefusedError",
    "Result",
]
