"""The server's documents as far as this client has them, and its position in the log. Pure; knows no pending operations.

The position rules are PROTOCOL section 5, 3 and 4: it is the last seq that the client has in full.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tornado_rt.client.edit import Edit, Fields, Key, Kind

__all__ = ["Document", "Replica"]


@dataclass(slots=True)
class Document:
    """A document as the server has it. ``fields`` is never changed. ``history`` lists a layout's versions, newest last."""

    fields: Fields
    version: int
    updated_at: str
    updated_by: str
    history: list[int] = field(default_factory=list)


class Replica:
    """Documents by ``(kind, id)``, the ``position`` they stand at and the log's ``epoch`` (None before the first sync)."""

    def __init__(self) -> None:
        self.documents: dict[Key, Document] = {}
        self.position = 0
        self.epoch: str | None = None

    def fields(self, key: Key) -> Fields | None:
        document = self.documents.get(key)
        return document.fields if document is not None else None

    # Whole states

    def take_snapshot(self, payload: Mapping[str, Any]) -> tuple[Key, ...]:
        """Everything anew; returns the documents that are different from before."""
        before = self.documents
        self.documents = dict(_documents(payload))
        self.position = payload["seq"]
        self.epoch = payload["epoch"]
        keys = dict.fromkeys((*before, *self.documents))
        return tuple(key for key in keys if before.get(key) != self.documents.get(key))

    def take_merged(self, payload: Mapping[str, Any]) -> tuple[Key, ...]:
        """Each document that changed after ``fromSeq``, whole, in place of what was here; returns those documents."""
        keys: list[Key] = []
        for key, document in _documents(payload):
            self.documents[key] = document
            keys.append(key)
        for key in _deleted(payload):
            self.documents.pop(key, None)
            keys.append(key)
        self.position = payload["seq"]
        return tuple(keys)

    # Single changes

    def take_change(self, change: Mapping[str, Any]) -> tuple[Key, ...]:
        """One broadcast change, or one of a delta, at ``position`` + 1."""
        payload = change["payload"]
        seq: int = payload["seq"] if "seq" in payload else change["seq"]
        inner = payload["operations"] if change["type"] == "WIDGET_BATCH" else (change,)
        edits = [Edit.from_wire(each["type"], each["payload"]) for each in inner]
        return self.take_edits(edits, seq, change["userId"], change["timestamp"])

    def take_edits(self, edits: Iterable[Edit], seq: int, user_id: str, timestamp: str) -> tuple[Key, ...]:
        """Changes that took ``seq`` together: a change by somebody, or this client's own at its ACK."""
        keys: dict[Key, None] = {}
        for edit in edits:
            keys[edit.key] = None
            before = self.documents.get(edit.key)
            after = edit.apply(before.fields if before is not None else None)
            if after is None:
                self.documents.pop(edit.key, None)
                continue
            history = before.history if before is not None else []
            if edit.kind == "layout" and seq not in history[-1:]:
                history = [*history, seq]
            self.documents[edit.key] = Document(after, seq, timestamp, user_id, history)
        self.position = seq
        return tuple(keys)


def _documents(payload: Mapping[str, Any]) -> Iterable[tuple[Key, Document]]:
    kinds: tuple[tuple[Kind, str, str], ...] = (("widget", "widgets", "data"), ("layout", "layouts", "layout"))
    for kind, group, body in kinds:
        for name, doc in payload.get(group, {}).items():
            history = list(doc.get("history", ()))
            yield (kind, name), Document(doc[body], doc["version"], doc.get("updatedAt", ""), doc.get("updatedBy", ""), history)


def _deleted(payload: Mapping[str, Any]) -> Iterable[Key]:
    gone = payload.get("deleted", {})
    for name in gone.get("widgets", ()):
        yield ("widget", name)
    for name in gone.get("layouts", ()):
        yield ("layout", name)
