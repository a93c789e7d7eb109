"""What a server says: one model for each message type that it sends, and for the HTTP answers.

The server itself writes by templates (``codec``); these models are what the schema is made from and what clients decode
with. It must not know how a message comes about.

Shapes: docs/protocol.md (PROTOCOL sections 3, 4 and 6).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from tornado_rt.protocol.messages import Fields, Seq, Timestamp, WireModel

# -- documents and changes ---------------------------------------------------------------------------------------------------


class _Doc(WireModel):
    version: Seq = Field(description="the seq of the operation that last changed it")
    updated_at: Timestamp
    updated_by: str = Field(description="userId")


class WidgetDoc(_Doc):
    """A widget as it stands."""

    data: Fields


class LayoutDoc(_Doc):
    """A layout as it stands; ``history`` lists the versions that LAYOUT_RESTORE can bring back."""

    layout: Fields
    history: tuple[Seq, ...] = ()


class _Placed(WireModel):
    """A payload without ``seq`` is no change, but something that ``broadcast()`` sent as given: see ``Envelope``."""

    seq: Seq
    version: Seq | None = None


class WidgetUpdatedPayload(_Placed):
    widget_id: str
    data: Fields
    unset: tuple[str, ...] = ()
    replace: bool = False


class WidgetDeletedPayload(_Placed):
    widget_id: str


class LayoutUpdatedPayload(_Placed):
    layout_id: str
    layout: Fields
    unset: tuple[str, ...] = ()
    replace: bool = False


class LayoutRestoredPayload(_Placed):
    layout_id: str
    layout: Fields
    restored_from: Seq


class _Change(WireModel):
    """An accepted operation at its place in the log."""

    seq: Seq
    user_id: str
    timestamp: Timestamp


class WidgetUpdateChange(_Change):
    type: Literal["WIDGET_UPDATE"]
    payload: WidgetUpdatedPayload


class WidgetDeleteChange(_Change):
    type: Literal["WIDGET_DELETE"]
    payload: WidgetDeletedPayload


class LayoutUpdateChange(_Change):
    type: Literal["LAYOUT_UPDATE"]
    payload: LayoutUpdatedPayload


class LayoutRestoreChange(_Change):
    type: Literal["LAYOUT_RESTORE"]
    payload: LayoutRestoredPayload


BatchedChange = Annotated[
    WidgetUpdateChange | WidgetDeleteChange | LayoutUpdateChange | LayoutRestoreChange, Field(discriminator="type")
]


class WidgetBatchedPayload(_Placed):
    """The parts of an atomic batch, which all have the batch's seq."""

    operations: list[BatchedChange]


class WidgetBatchChange(_Change):
    type: Literal["WIDGET_BATCH"]
    payload: WidgetBatchedPayload


Change = Annotated[
    WidgetUpdateChange | WidgetDeleteChange | LayoutUpdateChange | LayoutRestoreChange | WidgetBatchChange,
    Field(discriminator="type"),
]

# -- catching up -------------------------------------------------------------------------------------------------------------


class Deleted(WireModel):
    widgets: tuple[str, ...] = ()
    layouts: tuple[str, ...] = ()


class CatchUpPayload(WireModel):
    """Each document that changed after ``from_seq``, whole, in place of what the client had; and what is gone."""

    from_seq: Seq
    seq: Seq
    widgets: dict[str, WidgetDoc]
    layouts: dict[str, LayoutDoc]
    deleted: Deleted = Deleted()


class _Synced(WireModel):
    epoch: str
    seq: Seq
    sync_state: Literal["ready"]
    client_count: int
    timestamp: Timestamp


class SnapshotPayload(_Synced):
    mode: Literal["snapshot"]
    widgets: dict[str, WidgetDoc]
    layouts: dict[str, LayoutDoc]


class DeltaPayload(_Synced):
    mode: Literal["delta"]
    operations: list[Change]


class MergedPayload(_Synced, CatchUpPayload):
    mode: Literal["merged"]


SyncResponsePayload = Annotated[SnapshotPayload | DeltaPayload | MergedPayload, Field(discriminator="mode")]

# -- verdicts ----------------------------------------------------------------------------------------------------------------


class Detail(WireModel):
    path: str = Field(description="the wrong field in the wire's spelling: payload.operations[3].payload.widgetId")
    message: str


class ConflictPayload(WireModel):
    """``local`` is all that was sent (null: a deletion), ``remote`` the present values (null: the document is gone)."""

    conflict_id: str | None = Field(None, description="absent within a refused atomic batch, where nothing is left open")
    kind: Literal["widget", "layout"]
    widget_id: str | None = None
    layout_id: str | None = None
    fields: list[str] = Field(description="which of the fields sent conflict")
    base_version: Seq | None
    current_version: Seq
    local: Fields | None
    remote: Fields | None
    remote_user_id: str
    remote_timestamp: Timestamp
    resolved: Literal["remote"] | None = Field(None, description="the server resolved it: no answer is due")
    duplicate: bool = False


class Result(WireModel):
    """What became of one operation."""

    operation_id: str | None
    status: Literal["success", "conflict", "error"]
    type: str
    timestamp: Timestamp
    version: Seq | None = None
    seq: Seq | None = None
    merged: tuple[str, ...] = ()
    duplicate: bool = False
    resolved: bool = False
    conflict: ConflictPayload | None = None
    error: str | None = None
    code: str | None = None
    retry_after_ms: int | None = None
    details: tuple[Detail, ...] = ()
    results: tuple[Result, ...] = Field((), description="of a WIDGET_BATCH: of each of its operations")


class AckPayload(WireModel):
    received: Literal[True]
    version: Seq | None = None
    seq: Seq | None = Field(None, description="the operation's place; of several, the highest that was given")
    merged: tuple[str, ...] = Field((), description="other fields of the document that changed since baseVersion")
    duplicate: bool = False
    resolved: bool = False
    results: tuple[Result, ...] = ()


class NackPayload(WireModel):
    error: str = Field(description="a sentence for a person")
    code: str
    retryable: bool
    retry_after_ms: int | None = None
    details: tuple[Detail, ...] = ()
    outcome: Literal["unknown"] | None = Field(None, description="it may have been applied: repeat with the same id")


# -- the connection ----------------------------------------------------------------------------------------------------------


class Limits(WireModel):
    """What the server takes; 0 is no limit. A newer server may name more."""

    model_config = ConfigDict(extra="allow")

    max_operations: int = Field(50, description="in one message or POST, counted to the leaves")
    max_message_bytes: int | None = None
    rate_limit: float | None = Field(None, description="messages a second, of this connection")
    rate_burst: int | None = Field(None, description="messages at once")


class ConnectPayload(WireModel):
    client_id: str
    dashboard_id: str
    protocol: int
    epoch: str
    seq: Seq
    heartbeat_interval: int = Field(description="milliseconds")
    limits: Limits = Limits()
    permissions: tuple[str, ...] = ()
    durability: str | None = Field(None, description="disk, redis or memory: how safe an ACK is")
    sync: SyncResponsePayload | None = None


class DisconnectPayload(WireModel):
    code: int = Field(description="the close code that follows")
    reason: str
    reconnect: bool
    retry_after_ms: int | None = None
    error: str | None = Field(None, description="a sentence for a person, where there is more to say than the reason")


class HeartbeatPayload(WireModel):
    seq: Seq | None = Field(None, description="the dashboard's, so that a client knows that it misses nothing")
    server_time: Timestamp | None = None


# -- messages ----------------------------------------------------------------------------------------------------------------


class ServerEnvelope(WireModel):
    id: str
    timestamp: Timestamp
    user_id: str = Field(description="who caused it; of messages that the server makes, the receiver, or empty")
    correlation_id: str | None = Field(None, description="the id of the message that this one answers")


class Envelope(WireModel):
    """A message that is none of the others: of a type that is not known here, or what ``broadcast()`` sent as given.

    It has no seq, so it changes no document and no position; clients hand it to listeners.
    """

    type: str
    id: str | None = None
    timestamp: str | None = None
    user_id: str | None = None
    correlation_id: str | None = None
    payload: Fields = Field(default_factory=dict)


class Connect(ServerEnvelope):
    type: Literal["CONNECT"]
    payload: ConnectPayload


class Disconnected(ServerEnvelope):
    type: Literal["DISCONNECT"]
    payload: DisconnectPayload


class ServerPing(ServerEnvelope):
    type: Literal["PING"]
    payload: HeartbeatPayload


class ServerPong(ServerEnvelope):
    type: Literal["PONG"]
    payload: HeartbeatPayload


class SyncResponse(ServerEnvelope):
    type: Literal["SYNC_RESPONSE"]
    payload: SyncResponsePayload


class CatchUp(ServerEnvelope):
    type: Literal["SYNC_UPDATE"]
    payload: CatchUpPayload


class WidgetUpdated(ServerEnvelope):
    type: Literal["WIDGET_UPDATE"]
    payload: WidgetUpdatedPayload


class WidgetDeleted(ServerEnvelope):
    type: Literal["WIDGET_DELETE"]
    payload: WidgetDeletedPayload


class WidgetBatched(ServerEnvelope):
    type: Literal["WIDGET_BATCH"]
    payload: WidgetBatchedPayload


class LayoutUpdated(ServerEnvelope):
    type: Literal["LAYOUT_UPDATE"]
    payload: LayoutUpdatedPayload


class LayoutRestored(ServerEnvelope):
    type: Literal["LAYOUT_RESTORE"]
    payload: LayoutRestoredPayload


class ConflictDetected(ServerEnvelope):
    type: Literal["CONFLICT_DETECTED"]
    payload: ConflictPayload


class Ack(ServerEnvelope):
    type: Literal["ACK"]
    payload: AckPayload


class Nack(ServerEnvelope):
    type: Literal["NACK"]
    payload: NackPayload


ServerMessage = Annotated[
    Connect
    | Disconnected
    | ServerPing
    | ServerPong
    | SyncResponse
    | CatchUp
    | WidgetUpdated
    | WidgetDeleted
    | WidgetBatched
    | LayoutUpdated
    | LayoutRestored
    | ConflictDetected
    | Ack
    | Nack,
    Field(discriminator="type"),
]
