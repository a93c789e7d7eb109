"""From what was said to what is judged: messages become requests to the rules.

Knows the wire's models and the rules' values; no rooms, no sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zlib import crc32

from tornado_rt.core.document import Author
from tornado_rt.core.operation import Batch, Operation, Outcome, Request, Resolution
from tornado_rt.errors import InvalidMessage, Refusal
from tornado_rt.protocol.codec import encode_json
from tornado_rt.protocol.messages import (
    ConflictResolvedPayload,
    LayoutRestorePayload,
    LayoutUpdatePayload,
    WidgetDeletePayload,
    WidgetUpdatePayload,
)

__all__ = ["Item", "OpenConflict", "batch_of", "item_of", "operation_of", "resolution_of"]

OperationPayload = WidgetUpdatePayload | WidgetDeletePayload | LayoutUpdatePayload | LayoutRestorePayload


@dataclass(slots=True)
class OpenConflict:
    """A conflict that a connection was told of and has not answered yet; ``expires`` on the monotonic clock, in seconds."""

    operation: Operation
    current_version: int
    expires: float


@dataclass(slots=True)
class Item:
    """One operation of a message or POST: what is judged, or, for a batch that is not atomic, the parts that are.

    Judged, it also holds the ``record`` that goes into the log; of a conflict, the ``conflict`` payload as it is said and kept.
    """

    id: str | None
    type: str
    request: Request | None = None
    parts: list[Item] = field(default_factory=list)
    outcome: Outcome | Refusal | None = None
    record: bytes = b""
    conflict: bytes | None = None

    def leaves(self) -> list[Item]:
        return [self] if self.request is not None else [leaf for part in self.parts for leaf in part.leaves()]


def operation_of(type_: str, payload: OperationPayload, author: Author, id_: str | None, epoch: str) -> Operation:
    """``epoch`` is the connection's, in which ``baseVersion`` counts unless the payload names another (PROTOCOL section 4)."""
    base_epoch = payload.epoch or epoch
    base = payload.base_version
    # By type() and not by isinstance, which pydantic's metaclass makes several times dearer than all the rest of this.
    kind = type(payload)
    if kind is WidgetUpdatePayload or kind is LayoutUpdatePayload:
        is_widget = kind is WidgetUpdatePayload
        target = payload.widget_id if is_widget else payload.layout_id  # type: ignore[union-attr]
        data = payload.data if is_widget else payload.layout  # type: ignore[union-attr]
        encoded = encode_json(data)
        digest = _digest_update(encoded, type_, target, payload)  # type: ignore[arg-type]
        return Operation(
            type_,
            "widget" if is_widget else "layout",
            target,
            author,
            id_,
            digest,
            data,
            encoded,
            payload.unset,  # type: ignore[union-attr]
            payload.replace,  # type: ignore[union-attr]
            base,
            base_epoch,
        )
    if kind is WidgetDeletePayload:
        target = payload.widget_id  # type: ignore[union-attr]
        digest = _digest(b"", type_, target, base, payload.epoch)
        return Operation(type_, "widget", target, author, id_, digest, base=base, base_epoch=base_epoch)
    assert isinstance(payload, LayoutRestorePayload)
    target, version = payload.layout_id, payload.version
    digest = _digest(b"", type_, target, base, payload.epoch, version)
    return Operation(type_, "layout", target, author, id_, digest, base=base, base_epoch=base_epoch, restore=version)


def batch_of(operations: list[Any], author: Author, id_: str | None, epoch: str) -> Batch:
    """An atomic batch; its content is the content of its operations."""
    parts = [operation_of(each.type, each.payload, author, each.operation_id, epoch) for each in operations]
    digest = crc32(b"".join(b"%d," % part.digest for part in parts))
    return Batch(parts, author, id_, digest)


def item_of(operation: Any, author: Author, epoch: str, conflicts: Mapping[str, OpenConflict]) -> Item:
    """One operation of SYNC_UPDATE or POST, of whatever kind."""
    id_, type_, payload = operation.operation_id, operation.type, operation.payload
    if type_ == "CONFLICT_RESOLVED":
        return Item(id_, type_, resolution_of(payload, author, id_, epoch, conflicts))
    if type_ != "WIDGET_BATCH":
        return Item(id_, type_, operation_of(type_, payload, author, id_, epoch))
    if payload.atomic:
        return Item(id_, type_, batch_of(payload.operations, author, id_, epoch))
    return Item(id_, type_, parts=[item_of(each, author, epoch, conflicts) for each in payload.operations])


def resolution_of(
    payload: ConflictResolvedPayload, author: Author, id_: str | None, epoch: str, conflicts: Mapping[str, OpenConflict]
) -> Resolution:
    """A CONFLICT_RESOLVED, self-contained or answering a conflict that the connection remembers (PROTOCOL section 4)."""
    target = payload.widget_id or payload.layout_id
    data = encode_json(payload.data)
    digest = _digest(data, payload.conflict_id, payload.resolution, target, payload.base_version, payload.epoch)
    known = conflicts.get(payload.conflict_id)
    version = payload.base_version if payload.base_version is not None else known.current_version if known else None
    if version is None or (known is None and target is None):
        return Resolution(author, id_, digest, None, known=False)
    if payload.resolution == "remote":
        return Resolution(author, id_, digest, None, version)
    if payload.resolution == "local" and known is not None:
        operation = replace(known.operation, base=version, base_epoch=payload.epoch or epoch)
        return Resolution(author, id_, digest, operation, version)
    if "data" not in payload.model_fields_set:
        if payload.resolution == "local":
            return Resolution(author, id_, digest, None, known=False)
        raise InvalidMessage("a merged resolution brings the data to be written", details=(("payload.data", "is required"),))
    kind, target = ("layout", payload.layout_id) if payload.layout_id else ("widget", payload.widget_id)
    if target is None and known is not None:
        kind, target = known.operation.kind, known.operation.target
    assert target is not None
    operation = _written(payload, kind, target, author, data)
    operation.base, operation.base_epoch = version, payload.epoch or epoch
    return Resolution(author, id_, digest, operation, version)


def _written(payload: ConflictResolvedPayload, kind: str, target: str, author: Author, data: bytes) -> Operation:
    if payload.data is None:
        if kind == "layout":
            raise InvalidMessage("a layout cannot be deleted", details=(("payload.data", "must be an object"),))
        return Operation("WIDGET_DELETE", "widget", target, author, None, 0)
    if kind == "layout":
        return Operation("LAYOUT_UPDATE", "layout", target, author, None, 0, payload.data, data)
    return Operation("WIDGET_UPDATE", "widget", target, author, None, 0, payload.data, data)


def _digest(encoded: bytes, *content: Any) -> int:
    """Stands for an operation's type and payload; 32 bits of checksum and the length tell any honest mistake."""
    return len(encoded) << 32 | crc32(encoded, crc32(repr(content).encode()))


def _digest_update(encoded: bytes, type_: str, target: str, payload: WidgetUpdatePayload | LayoutUpdatePayload) -> int:
    """The same for updates, which are many: what most of them lack is looked at only where it is there."""
    head = target.encode()
    if payload.base_version is not None:
        head += b"\0%d" % payload.base_version  # an id has no NUL
    if payload.unset or payload.replace or payload.epoch is not None or type_ != "WIDGET_UPDATE":
        head += repr((type_, payload.unset, payload.replace, payload.epoch)).encode()
    return len(encoded) << 32 | crc32(encoded, crc32(head))
