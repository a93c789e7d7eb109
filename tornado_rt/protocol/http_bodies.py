"""What goes over HTTP: the bodies of the calls beside the socket, and of their answers. Knows shapes, not handlers.

Shapes: docs/protocol.md (PROTOCOL section 6). The body of a POST is ``messages.SyncPost``.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from tornado_rt.protocol.messages import Timestamp, WireModel
from tornado_rt.protocol.server_messages import Detail, Result, SyncResponsePayload


class StatusAnswer(WireModel):
    """``GET /api/realtime``."""

    status: Literal["ready", "draining", "degraded"]
    ws_url: str
    user_id: str
    timestamp: Timestamp


class SyncAnswer(WireModel):
    """``POST /api/realtime``: results in the order of the operations, and what the client missed if it said ``since``."""

    success: bool
    results: list[Result]
    sync: SyncResponsePayload | None = None
    timestamp: Timestamp


class ClientStats(WireModel):
    id: str
    user_id: str
    dashboard_id: str | None = None
    connected_at: Timestamp
    message_count: int
    is_alive: bool


class StatsAnswer(WireModel):
    """``GET /api/realtime/stats``; a server may tell more."""

    model_config = ConfigDict(extra="allow")

    client_count: int
    clients: list[ClientStats]
    uptime: float = Field(description="seconds")
    timestamp: Timestamp


class RevokeAnswer(WireModel):
    """``POST /api/realtime/revoke``: what is in force now, and how many connections were closed."""

    revoked: dict[Literal["userId", "tokenId", "dashboardId"], str]
    closed: int
    timestamp: Timestamp


class ErrorAnswer(WireModel):
    """Every answer that is an error."""

    error: str = Field(description="a sentence for a person")
    code: str
    details: tuple[Detail, ...] = ()
    retry_after_ms: int | None = Field(None, description="when the same may be asked again; Retry-After says it in seconds")
