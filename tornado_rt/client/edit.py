"""One change of one document as its author meant it, and what it does to the document's fields. Pure; knows no sending.

The rules are those of "Changing documents" (PROTOCOL section 4): fields are merged one by one, ``unset`` removes some,
``replace`` makes the data the whole document.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

__all__ = ["Edit", "Fields", "Key", "Kind", "plain"]

Kind = Literal["widget", "layout"]
Key = tuple[Kind, str]
Fields = dict[str, Any]


def plain(value: Mapping[str, Any]) -> Fields:
    """A deep copy that is JSON and nothing else. Raises ``ValueError`` for what JSON or a browser cannot hold."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    text.encode()  # a lone surrogate is a UnicodeEncodeError, which is a ValueError
    copy: Fields = json.loads(text)
    return copy


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to happen to one document.

    ``type`` is WIDGET_UPDATE, WIDGET_DELETE, LAYOUT_UPDATE or LAYOUT_RESTORE. ``base_version`` is the seq that the person had
    seen when the edit began, in ``epoch``; None lets the last writer win. ``version`` is what a LAYOUT_RESTORE asks for.
    """

    type: str
    document_id: str
    data: Fields | None = None
    unset: tuple[str, ...] = ()
    replace: bool = False
    version: int | None = None
    base_version: int | None = None
    epoch: str | None = None

    @classmethod
    def update(cls, widget_id: str, data: Mapping[str, Any], *, unset: Iterable[str] = (), replace: bool = False) -> Edit:
        """Merge ``data`` into a widget; ``unset`` removes fields, ``replace`` makes ``data`` all of it."""
        return cls("WIDGET_UPDATE", widget_id, plain(data), tuple(unset), replace)

    @classmethod
    def delete(cls, widget_id: str) -> Edit:
        """Remove a widget."""
        return cls("WIDGET_DELETE", widget_id)

    @classmethod
    def update_layout(
        cls, layout: Mapping[str, Any], *, layout_id: str = "default", unset: Iterable[str] = (), replace: bool = False
    ) -> Edit:
        """Merge ``layout`` into a layout, like ``update``."""
        return cls("LAYOUT_UPDATE", layout_id, plain(layout), tuple(unset), replace)

    @classmethod
    def restore_layout(cls, *, layout_id: str = "default", version: int | None = None) -> Edit:
        """Make the layout as it stood at seq ``version`` (None: before its last change) current again."""
        return cls("LAYOUT_RESTORE", layout_id, version=version)

    @classmethod
    def from_wire(cls, type_: str, payload: Mapping[str, Any]) -> Edit:
        """The edit in an operation or in a broadcast change; a broadcast LAYOUT_RESTORE carries the whole layout."""
        is_layout = type_.startswith("LAYOUT")
        document_id = payload.get("layoutId", "default") if is_layout else payload["widgetId"]
        return cls(
            type_,
            document_id,
            payload.get("layout" if is_layout else "data"),
            tuple(payload.get("unset", ())),
            bool(payload.get("replace", False)),
            payload.get("version") if type_ == "LAYOUT_RESTORE" and "layout" not in payload else None,
            payload.get("baseVersion"),
            payload.get("epoch"),
        )

    @property
    def kind(self) -> Kind:
        return "layout" if self.type.startswith("LAYOUT") else "widget"

    @property
    def key(self) -> Key:
        return (self.kind, self.document_id)

    @property
    def is_plain(self) -> bool:
        """A merge of named fields: parts of it can be taken out and the rest still means the same."""
        return self.type in ("WIDGET_UPDATE", "LAYOUT_UPDATE") and not self.replace

    @property
    def is_known(self) -> bool:
        """Whether its effect can be told without the server; a LAYOUT_RESTORE names a version that only the server has."""
        return self.type != "LAYOUT_RESTORE" or self.data is not None

    @property
    def touches(self) -> frozenset[str] | None:
        """The fields that it sets or removes; None stands for the whole document."""
        return frozenset((*(self.data or ()), *self.unset)) if self.is_plain else None

    def payload(self) -> dict[str, Any]:
        """Its payload on the wire."""
        is_layout = self.kind == "layout"
        payload: dict[str, Any] = {"layoutId" if is_layout else "widgetId": self.document_id}
        if self.data is not None:
            payload["layout" if is_layout else "data"] = self.data
        if self.unset:
            payload["unset"] = list(self.unset)
        if self.replace:
            payload["replace"] = True
        if self.version is not None:
            payload["version"] = self.version
        if self.base_version is not None:
            payload["baseVersion"] = self.base_version
            if self.epoch is not None:
                payload["epoch"] = self.epoch
        return payload

    def apply(self, fields: Fields | None) -> Fields | None:
        """The document's fields after it; None stands for a document that is not there. Never changes what it is given."""
        if self.type == "WIDGET_DELETE":
            return None
        if self.data is None:  # a LAYOUT_RESTORE whose outcome is not known yet
            return fields
        if self.replace or self.type == "LAYOUT_RESTORE":
            return dict(self.data)
        merged = {**(fields or {}), **self.data}
        for name in self.unset:
            merged.pop(name, None)
        return merged

    def without(self, fields: Collection[str] | None) -> Edit | None:
        """The edit with some fields (None: all) taken out; None where nothing is left of it."""
        if fields is None:
            return None
        if not fields or not self.is_plain:
            return self
        data = {name: value for name, value in (self.data or {}).items() if name not in fields}
        unset = tuple(name for name in self.unset if name not in fields)
        return replace(self, data=data, unset=unset) if data or unset else None

    def based_on(self, base_version: int | None, epoch: str | None) -> Edit:
        """The same edit with another base."""
        return replace(self, base_version=base_version, epoch=epoch)
