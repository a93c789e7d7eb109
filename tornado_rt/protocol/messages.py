"""What may be said to a server: one model for each message type, operation and payload that a client sends.

Field names are snake_case here and camelCase on the wire, by alias alone. It must not know how bytes become models (``codec``),
nor what a message does (``core``, ``room``). What a server says is in ``answers``.

Shapes and limits: docs/protocol.md, "Envelope" and "Message types" (PROTOCOL sections 2 and 3).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

MAX_SAFE_INTEGER = 2**53 - 1  # the largest whole number that a browser does not round (RFC 8259 section 6)
MAX_ID_LENGTH = 128  # code points


class MessageType(StrEnum):
    """The sixteen types, PROTOCOL section 3."""

    CONNECT = "CONNECT"
    DISCONNECT = "DISCONNECT"
    PING = "PING"
    PONG = "PONG"
    SYNC_REQUEST = "SYNC_REQUEST"
    SYNC_RESPONSE = "SYNC_RESPONSE"
    SYNC_UPDATE = "SYNC_UPDATE"
    WIDGET_UPDATE = "WIDGET_UPDATE"
    WIDGET_DELETE = "WIDGET_DELETE"
    WIDGET_BATCH = "WIDGET_BATCH"
    LAYOUT_UPDATE = "LAYOUT_UPDATE"
    LAYOUT_RESTORE = "LAYOUT_RESTORE"
    CONFLICT_DETECTED = "CONFLICT_DETECTED"
    CONFLICT_RESOLVED = "CONFLICT_RESOLVED"
    ACK = "ACK"
    NACK = "NACK"


# -- the small change -------------------------------------------------------------------------------------------------------

# Printable as `str.isprintable` has it: nothing of Unicode's classes Other and Separator but the space. JSON Schema's patterns
# are read by engines that do not know those classes, so the published pattern names the control characters alone.
Id = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_ID_LENGTH, pattern=r"^(?:[^\p{C}\p{Z}]| )+$"),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ID_LENGTH,
            "not": {"pattern": r"[\u0000-\u001f\u007f-\u009f]"},
            "description": "1 to 128 printable code points, compared as they are",
        }
    ),
]
Timestamp = Annotated[
    str,
    StringConstraints(
        max_length=40,
        pattern=r"^[+-]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:Z|[+-][0-9]{2}:?(?:[0-9]{2})?)?)?$",
    ),
    Field(description="ISO 8601; kept for the record, never used to order"),
]
Seq = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Fields = dict[str, Any]

_is_id = TypeAdapter(Id).validator.isinstance_python


def is_valid_id(text: object) -> bool:
    """Whether ``text`` may name a user, dashboard, device, document, message or operation (PROTOCOL section 2)."""
    return _is_id(text)


def _not_set_too(field_name: str, info: ValidationInfo) -> str:
    """A field cannot be written and removed at once (PROTOCOL section 4)."""
    written = info.data.get("data") or info.data.get("layout") or ()
    if field_name in written:
        raise PydanticCustomError("set_and_unset", "is set by the same operation")
    return field_name


Unset = Annotated[tuple[Annotated[str, AfterValidator(_not_set_too)], ...], FailFast()]


class WireModel(BaseModel):
    """Unknown fields are ignored (a newer peer may talk to an older one); no JSON type is converted to another."""

    # Frozen makes a default payload hashable, and so shared: a default that is not hashable is copied for every message.
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, extra="ignore", strict=True, frozen=True
    )


# -- payloads ---------------------------------------------------------------------------------------------------------------


class EmptyPayload(WireModel):
    """PONG and DISCONNECT from a client: whatever stands in it is ignored."""


class PingPayload(WireModel):
    """``token`` takes the place of the connection's own, before that one expires."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=8192)] | None = None


class WidgetUpdatePayload(WireModel):
    """Merge ``data`` into a widget, field by field; ``unset`` removes fields, ``replace`` makes ``data`` the whole of it.

    ``baseVersion`` is the seq that its user saw when the edit began, in ``epoch`` (absent: the connection's own).
    """

    widget_id: Id
    data: Fields
    base_version: Seq | None = None
    epoch: Id | None = None
    unset: Unset = ()
    replace: bool = False


class WidgetDeletePayload(WireModel):
    widget_id: Id
    base_version: Seq | None = None
    epoch: Id | None = None


class LayoutUpdatePayload(WireModel):
    """As WidgetUpdatePayload, with ``layout`` for ``data``."""

    layout_id: Id = "default"
    layout: Fields
    base_version: Seq | None = None
    epoch: Id | None = None
    unset: Unset = ()
    replace: bool = False


class LayoutRestorePayload(WireModel):
    """Make the layout as it stood at seq ``version`` current again (absent: as it stood before its last change)."""

    layout_id: Id = "default"
    version: Seq | None = None
    base_version: Seq | None = None
    epoch: Id | None = None


class SyncRequestPayload(WireModel):
    since: Seq | None = None
    epoch: Id | None = None


class ConflictResolvedPayload(WireModel):
    """How a conflict ends. With ``widgetId`` or ``layoutId``, ``data`` and ``baseVersion`` it needs no memory of the conflict.

    ``data`` of null deletes the document; where ``data`` is absent, nothing is said of it.
    """

    conflict_id: Id
    resolution: Literal["local", "remote", "merged"]
    data: Fields | None = None
    widget_id: Id | None = None
    layout_id: Id | None = None
    base_version: Seq | None = None
    epoch: Id | None = None

    @property
    def has_data(self) -> bool:
        """Whether ``data`` was sent, if only as null."""
        return "data" in self.model_fields_set

    @model_validator(mode="after")
    def _is_one_decision(self) -> ConflictResolvedPayload:
        if self.widget_id is not None and self.layout_id is not None:
            raise _at("layoutId", "cannot stand beside widgetId")
        if self.resolution == "merged" and not self.has_data:
            raise _at("data", "is required where resolution is merged")
        return self


def _at(path: str, sentence: str) -> PydanticCustomError:
    """A fault of a part that only the whole can see; ``path`` leads there from the model that raises."""
    return PydanticCustomError("at", "{sentence}", {"at": path, "sentence": sentence})


# -- operations: what SYNC_UPDATE, WIDGET_BATCH and POST carry -----------------------------------------------------------------


class _Operation(WireModel):
    operation_id: Id


class OpWidgetUpdate(_Operation):
    type: Literal["WIDGET_UPDATE"]
    payload: WidgetUpdatePayload


class OpWidgetDelete(_Operation):
    type: Literal["WIDGET_DELETE"]
    payload: WidgetDeletePayload


class OpLayoutUpdate(_Operation):
    type: Literal["LAYOUT_UPDATE"]
    payload: LayoutUpdatePayload


class OpLayoutRestore(_Operation):
    type: Literal["LAYOUT_RESTORE"]
    payload: LayoutRestorePayload = LayoutRestorePayload()


Op = Annotated[OpWidgetUpdate | OpWidgetDelete | OpLayoutUpdate | OpLayoutRestore, Field(discriminator="type")]


def _names(operations: Iterable[SyncOp]) -> Iterator[tuple[str, str]]:
    """Every operation id with the path that leads to it, those inside of batches too."""
    for index, operation in enumerate(operations):
        yield f"[{index}].operationId", operation.operation_id
        if isinstance(operation, OpWidgetBatch):
            for path, name in _names(operation.payload.operations):
                yield f"[{index}].payload.operations{path}", name


def _each_its_own_id(operations: list[Any]) -> list[Any]:
    """An id stands for one operation (PROTOCOL section 5, 2), so one message cannot use it twice."""
    seen: set[str] = set()
    for path, name in _names(operations):
        if name in seen:
            raise _at(path, "is used twice in this message")
        seen.add(name)
    return operations


class WidgetBatchPayload(WireModel):
    """Operations that are applied all or none (``atomic``), with one seq; else each on its own."""

    operations: Annotated[list[Op], FailFast(), AfterValidator(_each_its_own_id)]
    atomic: bool = True


class OpWidgetBatch(_Operation):
    type: Literal["WIDGET_BATCH"]
    payload: WidgetBatchPayload


class OpConflictResolved(_Operation):
    type: Literal["CONFLICT_RESOLVED"]
    payload: ConflictResolvedPayload

    @model_validator(mode="after")
    def _is_self_contained(self) -> OpConflictResolved:
        payload = self.payload
        if payload.resolution == "remote":
            return self
        if payload.widget_id is None and payload.layout_id is None:
            raise _at("payload.widgetId", "is required here (or layoutId)")
        if payload.base_version is None:
            raise _at("payload.baseVersion", "is required here")
        if not payload.has_data:
            raise _at("payload.data", "is required here")
        return self


SyncOp = Annotated[
    OpWidgetUpdate | OpWidgetDelete | OpLayoutUpdate | OpLayoutRestore | OpWidgetBatch | OpConflictResolved,
    Field(discriminator="type"),
]
SyncOps = Annotated[list[SyncOp], FailFast(), AfterValidator(_each_its_own_id)]


def count_leaves(operations: Iterable[SyncOp]) -> int:
    """How many operations there are where a batch counts as what is in it (PROTOCOL section 3, ``limits.maxOperations``)."""
    return sum(len(op.payload.operations) if isinstance(op, OpWidgetBatch) else 1 for op in operations)


class SyncUpdatePayload(WireModel):
    operations: SyncOps


class SyncPost(WireModel):
    """The body of ``POST /api/realtime`` (PROTOCOL section 6)."""

    type: Literal["SYNC"]
    operations: SyncOps
    dashboard_id: Id | None = "default"
    device_id: Id | None = None
    since: Seq | None = None
    epoch: Id | None = None


def _given(name: str) -> JsonDict:
    return {"required": [name], "properties": {name: {"type": "string"}}}


class Revoke(WireModel):
    """The body of ``POST /api/realtime/revoke``: exactly one of the three (PROTOCOL section 6)."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_given(name) for name in ("userId", "tokenId", "dashboardId")]})

    user_id: Id | None = None
    token_id: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    dashboard_id: Id | None = None

    @model_validator(mode="after")
    def _is_about_one(self) -> Revoke:
        if [self.user_id, self.token_id, self.dashboard_id].count(None) != 2:
            raise _at("userId", "is required, or tokenId or dashboardId, and only one of them")
        return self

    def chosen(self) -> tuple[Literal["userId", "tokenId", "dashboardId"], str]:
        """Which of the three it is, and its value."""
        if self.user_id is not None:
            return "userId", self.user_id
        if self.token_id is not None:
            return "tokenId", self.token_id
        assert self.dashboard_id is not None
        return "dashboardId", self.dashboard_id


# -- messages ---------------------------------------------------------------------------------------------------------------


class ClientEnvelope(WireModel):
    """What every message of a client has beside ``type`` and ``payload``. Without ``id`` it cannot be repeated safely."""

    user_id: Id
    id: Id | None = None
    timestamp: Timestamp | None = None


class Ping(ClientEnvelope):
    type: Literal["PING"]
    payload: PingPayload = PingPayload()


class Pong(ClientEnvelope):
    type: Literal["PONG"]
    payload: EmptyPayload = EmptyPayload()


class Disconnect(ClientEnvelope):
    type: Literal["DISCONNECT"]
    payload: EmptyPayload = EmptyPayload()


class SyncRequest(ClientEnvelope):
    type: Literal["SYNC_REQUEST"]
    payload: SyncRequestPayload = SyncRequestPayload()


class SyncUpdate(ClientEnvelope):
    type: Literal["SYNC_UPDATE"]
    payload: SyncUpdatePayload


class WidgetUpdate(ClientEnvelope):
    type: Literal["WIDGET_UPDATE"]
    payload: WidgetUpdatePayload


class WidgetDelete(ClientEnvelope):
    type: Literal["WIDGET_DELETE"]
    payload: WidgetDeletePayload


class WidgetBatch(ClientEnvelope):
    type: Literal["WIDGET_BATCH"]
    payload: WidgetBatchPayload


class LayoutUpdate(ClientEnvelope):
    type: Literal["LAYOUT_UPDATE"]
    payload: LayoutUpdatePayload


class LayoutRestore(ClientEnvelope):
    type: Literal["LAYOUT_RESTORE"]
    payload: LayoutRestorePayload = LayoutRestorePayload()


class ConflictResolved(ClientEnvelope):
    type: Literal["CONFLICT_RESOLVED"]
    payload: ConflictResolvedPayload


ClientMessage = Annotated[
    Ping
    | Pong
    | Disconnect
    | SyncRequest
    | SyncUpdate
    | WidgetUpdate
    | WidgetDelete
    | WidgetBatch
    | LayoutUpdate
    | LayoutRestore
    | ConflictResolved,
    Field(discriminator="type"),
]
