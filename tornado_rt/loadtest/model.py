"""A dashboard as its log says it must be, at any seq: the merge rules of PROTOCOL section 4 once more, written to judge by.

Deliberately not the server's rules: this is a second reading of the protocol, kept slow and plain, which remembers every value
that a field ever had so that the documents at any earlier seq can be asked for. It must never import ``core``.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import Any

__all__ = ["Dashboard", "Document", "Edit", "Touch", "canonical", "edits_of", "text_of"]

DocumentName = tuple[str, str]  # ("widget" | "layout", id)


def canonical(value: Any) -> str:
    """JSON text that is equal for equal JSON: keys sorted, 1.0 written as 1 (``true`` stays ``true``)."""
    if type(value) is int:
        return str(value)
    if type(value) is str:
        return encode_basestring_ascii(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    if "." in text or "e" in text or "E" in text:  # there may be a float, or only a word with that letter in it
        return json.dumps(_whole_numbers(value), sort_keys=True, separators=(",", ":"))
    return text


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(item) for item in value]
    return value


@dataclass(slots=True)
class Edit:
    """One document changed. ``data`` maps fields to canonical texts; ``opaque`` marks content that only the server knows."""

    name: DocumentName
    data: dict[str, str] = field(default_factory=dict)
    unset: frozenset[str] = frozenset()
    replace: bool = False
    delete: bool = False
    restored_from: int | None = None  # of a LAYOUT_RESTORE: the seq whose layout ``data`` claims to be
    opaque: bool = False
    base: int | None = None  # of an operation: its baseVersion
    epoch: str = ""  # in which the base counts, where the payload says so

    def text(self) -> str:
        """What it does, as text: equal for edits that are the same, whoever sends or relays them."""
        if self.opaque:
            return f"{self.name} restored"
        if self.delete:
            return f"{self.name} deleted"
        fields = ",".join(f"{name!r}:{value}" for name, value in sorted(self.data.items()))
        return f"{self.name} {'=' if self.replace else '+'}{{{fields}}}-{sorted(self.unset)}"


def edits_of(type_: str, payload: Mapping[str, Any]) -> list[Edit]:
    """The edits that an operation asks for, or that a change brings: one, or for a batch several."""
    match type_:
        case "WIDGET_UPDATE":
            return [_update(("widget", payload["widgetId"]), payload.get("data"), payload)]
        case "LAYOUT_UPDATE":
            return [_update(("layout", payload.get("layoutId", "default")), payload.get("layout"), payload)]
        case "WIDGET_DELETE":
            base, epoch = payload.get("baseVersion"), payload.get("epoch", "")
            return [Edit(("widget", payload["widgetId"]), delete=True, base=base, epoch=epoch)]
        case "LAYOUT_RESTORE":
            edit = _update(("layout", payload.get("layoutId", "default")), payload.get("layout"), payload)
            edit.replace, edit.opaque = True, True
            edit.restored_from = payload.get("restoredFrom", payload.get("version"))
            return [edit]
        case "WIDGET_BATCH":
            return [edit for each in payload["operations"] for edit in edits_of(each["type"], each["payload"])]
        case "CONFLICT_RESOLVED":
            return _resolution(payload)
    raise ValueError(f"{type_} changes no document")


def _update(name: DocumentName, data: Mapping[str, Any] | None, payload: Mapping[str, Any]) -> Edit:
    return Edit(
        name,
        data={key: canonical(value) for key, value in (data or {}).items()},
        unset=frozenset(payload.get("unset") or ()),
        replace=bool(payload.get("replace")),
        base=payload.get("baseVersion"),
        epoch=payload.get("epoch", ""),
    )


def _resolution(payload: Mapping[str, Any]) -> list[Edit]:
    """A CONFLICT_RESOLVED that brings its data; ``null`` deletes. Without, it means what the connection remembers: no edits."""
    if payload.get("resolution") == "remote" or "data" not in payload:
        return []
    kind = "layout" if payload.get("layoutId") else "widget"
    edit = _update((kind, payload.get(f"{kind}Id", "")), payload["data"], payload)
    edit.delete = payload["data"] is None
    return [edit]


def text_of(edits: list[Edit]) -> str:
    """The content of an operation or change as text, for comparing the two."""
    return edits[0].text() if len(edits) == 1 else " & ".join(edit.text() for edit in edits)


@dataclass(slots=True)
class Touch:
    """A field was set (``value`` is canonical text) or removed (None) at ``seq``. ``user`` is None where nobody knows.

    ``is_idle`` marks an ``unset`` of what was not there: a server may remember that as a change, or not.
    """

    seq: int
    value: str | None
    user: str | None
    device: str | None
    by_delete: bool = False
    is_idle: bool = False


@dataclass(slots=True)
class Document:
    """All that ever happened to a document, field by field, oldest first."""

    touches: dict[str, list[Touch]] = field(default_factory=dict)
    versions: list[int] = field(default_factory=list)  # the seq of each change, growing
    alive: list[bool] = field(default_factory=list)  # after the change of the same index, whether the document is there
    authors: list[str | None] = field(default_factory=list)

    def at(self, seq: int) -> dict[str, str] | None:
        """Its fields at ``seq``, or None where it was not there."""
        place = bisect_right(self.versions, seq) - 1
        if place < 0 or not self.alive[place]:
            return None
        fields = {}
        for name, touches in self.touches.items():
            last = _last(touches, seq)
            if last is not None and last.value is not None:
                fields[name] = last.value
        return fields

    def version_at(self, seq: int) -> int:
        """The seq of its last change up to ``seq``; 0 where it had none."""
        place = bisect_right(self.versions, seq) - 1
        return self.versions[place] if place >= 0 else 0

    def author_at(self, seq: int) -> str | None:
        place = bisect_right(self.versions, seq) - 1
        return self.authors[place] if place >= 0 else None

    def died_at(self, seq: int) -> int:
        """The seq of its last deletion up to ``seq``; 0 where it was never deleted."""
        place = bisect_right(self.versions, seq) - 1
        while place >= 0 and self.alive[place]:
            place -= 1
        return self.versions[place] if place >= 0 else 0

    def last_touches(self, seq: int) -> Iterator[tuple[str, Touch]]:
        """The last touch of every field that it has or had at ``seq``."""
        for name, touches in self.touches.items():
            last = _last(touches, seq)
            if last is not None:
                yield name, last


def _last(touches: list[Touch], seq: int) -> Touch | None:
    if touches[-1].seq <= seq:  # the usual question is about the present
        return touches[-1]
    place = bisect_right(touches, seq, key=lambda touch: touch.seq) - 1
    return touches[place] if place >= 0 else None


@dataclass(slots=True)
class Dashboard:
    """Documents and everything they ever were. ``seq`` is the last one folded in; nothing is known before ``start``."""

    documents: dict[DocumentName, Document] = field(default_factory=dict)
    changed: dict[int, list[DocumentName]] = field(default_factory=dict)
    seq: int = 0
    start: int = 0

    def at(self, seq: int, name: DocumentName) -> dict[str, str] | None:
        document = self.documents.get(name)
        return document.at(seq) if document is not None else None

    def names_at(self, seq: int) -> set[DocumentName]:
        """The documents that are there at ``seq``."""
        return {name for name, document in self.documents.items() if document.at(seq) is not None}

    def apply(self, seq: int, edits: list[Edit], user: str | None, device: str | None) -> None:
        """Fold the next entry of the log in."""
        self.seq = seq
        self.changed[seq] = [edit.name for edit in edits]
        for edit in edits:
            document = self.documents.setdefault(edit.name, Document())
            present = (document.at(seq) or {}) if edit.delete else {}
            written: dict[str, str | None] = dict(edit.data)
            written.update(dict.fromkeys(edit.unset))
            if edit.replace or edit.delete:
                written.update(dict.fromkeys(name for name in document.touches if name not in edit.data))
            for name, value in written.items():
                if edit.delete and name not in present:
                    continue
                touches = document.touches.setdefault(name, [])
                is_idle = value is None and (not touches or touches[-1].value is None)
                touches.append(Touch(seq, value, user, device, edit.delete, is_idle))
            document.versions.append(seq)
            document.alive.append(not edit.delete)
            document.authors.append(user)

    def rebase(self, seq: int, documents: Mapping[DocumentName, tuple[dict[str, str], int]]) -> None:
        """Take over documents ``{name: (fields, version)}`` as they stood at ``seq``: the log before it is not known."""
        self.seq = self.start = seq
        self.documents.clear()
        self.changed.clear()
        for name, (fields, version) in documents.items():
            touches = {key: [Touch(version, value, None, None)] for key, value in fields.items()}
            self.documents[name] = Document(touches, [version], [True], [None])
