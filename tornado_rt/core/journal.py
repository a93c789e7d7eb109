"""What is written about an outcome, and how the log folds back into a dashboard. Text and values only; stores keep the bytes.

A record is one line: what only we need to know (device, operation keys, dropped tombstones) as JSON, a tab, and the change as it is
told to others, open at its end and with a NUL where its seq goes (see ``protocol.codec``). A conflict's record has its
CONFLICT_DETECTED payload instead. JSON text contains neither tab, NUL nor newline, so nothing needs escaping.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Author, Document, Stamp
from tornado_rt.core.draft import Draft
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import Applied, Batch, Change, Conflict, Operation, Request, Verdict
from tornado_rt.protocol.codec import encode_change, quote

__all__ = ["conflict_record", "dump", "fold", "load", "record", "text_of"]

_UNBOUNDED = 1 << 62


def record(applied: Applied) -> bytes:
    """The record of something that was done."""
    request = applied.request
    keys = b"%b,%d" % (quote(request.id), request.digest) if request.id is not None else b""
    if isinstance(request, Batch):
        inner = [b"%b,%d" % (quote(each.id), each.digest) for each in request.operations if each.id is not None]
        keys = b",".join([keys, *inner] if keys else inner)
    extra = b""
    if applied.merged:
        extra = b',"m":%b' % _json(applied.merged)
    if applied.dropped:
        extra += b',"x":%b' % _json(applied.dropped)
    return b'{"d":%b,"k":[%b]%b}\t%b' % (request.author.device_json, keys, extra, _change_text(applied))


def conflict_record(conflict: Conflict, payload: bytes) -> bytes:
    """The record of a conflict: it changed nothing and is kept for its verdict."""
    request = conflict.request
    assert request.id is not None
    author = request.author
    key = b"%b,%d" % (quote(request.id), request.digest)
    return b'{"u":%b,"d":%b,"k":[%b]}\t%b' % (author.user_json, author.device_json, key, payload)


def text_of(body: bytes) -> bytes:
    """A record's change, as ``protocol.codec`` sends it."""
    return body[body.index(b"\t") + 1 :]


def _change_text(applied: Applied) -> bytes:
    user = applied.request.author.user_json
    at = applied.stamp.at
    changes = applied.changes
    if not isinstance(applied.request, Batch):
        return encode_change(changes[0].type, user, at, _payload(changes[0]))
    inner = [encode_change(change.type, user, at, _payload(change)) + b',"seq":\0}' for change in changes]
    return encode_change("WIDGET_BATCH", user, at, b'"operations":[%b]' % b",".join(inner))


def _payload(change: Change) -> bytes:
    target = quote(change.target)
    if change.type == "WIDGET_UPDATE":
        head = b'"widgetId":%b,"data":%b' % (target, change.encoded)
    elif change.type == "WIDGET_DELETE":
        return b'"widgetId":%b' % target
    else:
        head = b'"layoutId":%b,"layout":%b' % (target, change.encoded)
        if change.type == "LAYOUT_RESTORE":
            return b'%b,"restoredFrom":%d' % (head, change.restored_from or 0)
    if change.unset:
        head += b',"unset":%b' % _json(change.unset)
    if change.replace:
        head += b',"replace":true'
    return head


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def fold(dashboard: Dashboard, records: Iterable[tuple[int, bytes, float]], limits: DashboardLimits, oldest: float) -> None:
    """Apply records ``(seq, body, committed at)`` in order; those up to the dashboard's seq, and those without one, count for their
    verdicts alone, and only if they are not older than ``oldest``, in seconds."""
    draft = Draft(dashboard, replace(limits, max_tombstones=_UNBOUNDED), "", 0.0)
    authors: dict[tuple[str, str], Author] = {}
    for seq, body, at in records:
        tab = body.index(b"\t")
        meta = json.loads(body[:tab])
        text = body[tab + 1 :]
        if seq > draft.seq:
            change = json.loads(text.replace(b"\0", b"%d" % seq) + b"}")
            key = (change["userId"], meta["d"])
            author = authors.get(key) or authors.setdefault(key, Author(*key))
            _redo(draft, change, Stamp(seq, author, change["timestamp"]))
            for name, field in meta.get("x", ()):
                draft.drop((name, field))
            draft.seq = seq
        if at >= oldest and meta["k"]:
            user = meta["u"] if seq == 0 else _user_of(text)
            _recall(draft, user, meta, seq, text, at)
    dashboard.adopt(draft, dashboard.seq + 1)


def _redo(draft: Draft, change: dict[str, Any], stamp: Stamp) -> None:
    payload = change["payload"]
    match change["type"]:
        case "WIDGET_BATCH":
            for inner in payload["operations"]:
                _redo(draft, inner, stamp)
        case "WIDGET_DELETE":
            draft.delete(f"widget:{payload['widgetId']}", stamp)
        case type_:
            is_widget = type_ == "WIDGET_UPDATE"
            data = payload["data" if is_widget else "layout"]
            operation = Operation(
                type_,
                "widget" if is_widget else "layout",
                payload["widgetId" if is_widget else "layoutId"],
                stamp.author,
                None,
                0,
                data,
                _json(data),
                tuple(payload.get("unset", ())),
                payload.get("replace", False) or type_ == "LAYOUT_RESTORE",
            )
            draft.write(operation, stamp)


def _user_of(text: bytes) -> str:
    """The ``userId`` of a change, without reading the rest of it: ``encode_change`` writes it second."""
    start = text.index(b'"userId":') + 9
    user: str = json.JSONDecoder().raw_decode(text[start : text.index(b',"timestamp":')].decode())[0]
    return user


def _recall(draft: Draft, user: str, meta: dict[str, Any], seq: int, text: bytes, at: float) -> None:
    keys = meta["k"]
    merged = tuple(meta.get("m", ()))
    for index in range(0, len(keys), 2):
        verdict = Verdict(keys[index + 1], seq, merged, text if seq == 0 else None, at)
        draft.verdicts[(user, keys[index])] = verdict


def dump(dashboard: Dashboard) -> dict[str, Any]:
    """The state as plain JSON values, verdicts excepted: they are read from the log. ``load`` is its inverse."""
    stamps: dict[int, int] = {}
    listed: list[list[Any]] = []

    def index(stamp: Stamp | None) -> int | None:
        if stamp is None:
            return None
        if id(stamp) not in stamps:
            stamps[id(stamp)] = len(listed)
            listed.append([stamp.seq, stamp.author.user, stamp.author.device, stamp.at])
        return stamps[id(stamp)]

    documents = [
        {
            "kind": document.kind,
            "target": document.target,
            "alive": document.alive,
            "fields": document.fields,
            "stamps": {name: index(stamp) for name, stamp in document.stamps.items()},
            "stamp": index(document.stamp),
            "died": index(document.died),
            "history": [[index(stamp), fields] for stamp, fields in document.history],
        }
        for document in dashboard.documents.values()
    ]
    tombstones = [[name, field, index(stamp)] for (name, field), stamp in dashboard.tombstones.items()]
    return {"seq": dashboard.seq, "floor": dashboard.floor, "stamps": listed, "documents": documents, "tombstones": tombstones}


def load(plain: dict[str, Any], epoch: str) -> Dashboard:
    """A dashboard from what ``dump`` gave."""
    dashboard = Dashboard(epoch)
    dashboard.seq = plain["seq"]
    dashboard.floor = plain["floor"]
    authors: dict[tuple[str, str], Author] = {}
    stamps = []
    for seq, user, device, at in plain["stamps"]:
        author = authors.get((user, device)) or authors.setdefault((user, device), Author(user, device))
        stamps.append(Stamp(seq, author, at))
    for each in plain["documents"]:
        document = Document(each["kind"], each["target"], stamps[each["stamp"]])
        document.alive = each["alive"]
        document.fields = each["fields"]
        document.stamps = {name: stamps[index] for name, index in each["stamps"].items()}
        document.died = stamps[each["died"]] if each["died"] is not None else None
        document.history = [(stamps[index], fields) for index, fields in each["history"]]
        document.is_exact = False
        dashboard.documents[document.name] = document
        if document.alive:
            dashboard.size += document.weigh()
            if document.kind == "widget":
                dashboard.widgets += 1
            else:
                dashboard.layouts += 1
    dashboard.tombstones = {(name, field): stamps[index] for name, field, index in plain["tombstones"]}
    return dashboard
