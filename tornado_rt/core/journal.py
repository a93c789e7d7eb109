"""What is written about an outcome, and how the log folds back into a dashboard. Text and values only; stores keep the bytes.

A record is one line: what only we need to know as JSON, a tab, and the change as it is told to others, open at its end and with
a NUL where its seq goes (see ``protocol.codec``). A conflict's record has its CONFLICT_DETECTED payload instead. JSON text
contains neither tab, NUL nor newline, so nothing needs escaping. What only we need to know: ``d`` the device, ``k`` operation
keys as id and digest in turn, ``b`` that of a batch itself, ``m`` fields merged with, ``x`` tombstones dropped, ``u`` a
conflict's user.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Author, Document, Stamp
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import Applied, Batch, Conflict, Operation, Request, Verdict
from tornado_rt.core.overlay import Overlay
from tornado_rt.protocol.codec import decode_json, encode_change, encode_json, quote

__all__ = ["conflict_record", "dump", "fold", "load", "record", "text_of"]


def record(applied: Applied) -> bytes:
    """The record of something that was done."""
    request = applied.request
    if isinstance(request, Batch):
        # What the batch left out, since it was applied before, has a record that answers for it.
        head = b",".join([_key(each) for each in applied.changes if each.id is not None])
        extra = b',"b":[%b]' % _key(request) if request.id is not None else b""
    else:
        head = _key(request) if request.id is not None else b""
        extra = b""
    if applied.merged:
        extra += b',"m":%b' % encode_json(applied.merged)
    if applied.dropped:
        extra += b',"x":%b' % encode_json(applied.dropped)
    return b'{"d":%b,"k":[%b]%b}\t%b' % (request.author.device_json, head, extra, _change_text(applied))


def conflict_record(conflict: Conflict, payload: bytes) -> bytes:
    """The record of a conflict: it changed nothing and is kept for its verdict. Its request has an id."""
    author = conflict.request.author
    return b'{"u":%b,"d":%b,"k":[%b]}\t%b' % (author.user_json, author.device_json, _key(conflict.request), payload)


def _key(request: Request) -> bytes:
    assert request.id is not None
    return b"%b,%d" % (quote(request.id), request.digest)


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


def _payload(change: Operation) -> bytes:
    target = quote(change.target)
    if change.type == "WIDGET_UPDATE":
        head = b'"widgetId":%b,"data":%b' % (target, change.encoded)
    elif change.type == "WIDGET_DELETE":
        return b'"widgetId":%b' % target
    else:
        head = b'"layoutId":%b,"layout":%b' % (target, change.encoded)
        if change.type == "LAYOUT_RESTORE":
            return b'%b,"restoredFrom":%d' % (head, change.restore or 0)
    if change.unset:
        head += b',"unset":%b' % encode_json(change.unset)
    if change.replace:
        head += b',"replace":true'
    return head


def fold(dashboard: Dashboard, records: Iterable[tuple[int, bytes, float]], limits: DashboardLimits, oldest: float) -> None:
    """Apply records ``(seq, body, committed at)`` in order; those up to the dashboard's seq, and those without one, count for
    their verdicts alone, and only if they are not older than ``oldest``, in seconds."""
    overlay = Overlay(dashboard, limits)
    authors: dict[tuple[str, str], Author] = {}
    for seq, body, at in records:
        head, _, text = body.partition(b"\t")
        meta = decode_json(head)
        if seq > overlay.seq:
            change = decode_json(text.replace(b"\0", b"%d" % seq) + b"}")
            key = (change["userId"], meta["d"])
            author = authors.get(key) or authors.setdefault(key, Author(*key))
            dropped = [(name, field) for name, field in meta.get("x", ())]
            overlay.redo(_operations(change, author), Stamp(seq, author, change["timestamp"]), dropped)
        if at >= oldest:
            _recall(overlay, meta, seq, text, at)
    dashboard.adopt(overlay, dashboard.seq + 1)


def _operations(change: dict[str, Any], author: Author) -> list[Operation]:
    type_, payload = change["type"], change["payload"]
    if type_ == "WIDGET_BATCH":
        return [operation for inner in payload["operations"] for operation in _operations(inner, author)]
    if type_ == "WIDGET_DELETE":
        return [Operation(type_, "widget", payload["widgetId"], author, None, 0)]
    is_widget = type_ == "WIDGET_UPDATE"
    data = payload["data" if is_widget else "layout"]
    return [
        Operation(
            type_,
            "widget" if is_widget else "layout",
            payload["widgetId" if is_widget else "layoutId"],
            author,
            None,
            0,
            data,
            encode_json(data),
            tuple(payload.get("unset", ())),
            payload.get("replace", False) or type_ == "LAYOUT_RESTORE",
        )
    ]


def _recall(overlay: Overlay, meta: dict[str, Any], seq: int, text: bytes, at: float) -> None:
    """Keep the verdicts of a record's operation keys, and last that of a whole batch, as when they were given."""
    keys, of_batch = meta["k"], meta.get("b", ())
    if not keys and not of_batch:
        return
    user = meta["u"] if seq == 0 else _user_of(text)
    merged = tuple(meta.get("m", ()))
    conflict = text if seq == 0 else None
    for index in range(0, len(keys), 2):
        overlay.verdicts[(user, keys[index])] = Verdict(keys[index + 1], seq, merged, conflict, at)
    if of_batch:
        overlay.verdicts[(user, of_batch[0])] = Verdict(of_batch[1], seq, merged, None, at, is_batch=True)


def _user_of(text: bytes) -> str:
    """The ``userId`` of a change, without reading the rest of it: ``encode_change`` writes it second."""
    start = text.index(b'"userId":') + len(b'"userId":')
    user: str = decode_json(text[start : text.index(b',"timestamp":')])
    return user


def dump(dashboard: Dashboard) -> dict[str, Any]:
    """The state as plain JSON values, verdicts excepted: they are read from the log. ``load`` is its inverse.

    Stamps are named by their seq; a layout's history is ``[seq, fields]`` each.
    """
    stamps: dict[int, Stamp] = {}

    def seq_of(stamp: Stamp) -> int:
        stamps[stamp.seq] = stamp
        return stamp.seq

    documents = {
        name: {
            "alive": document.alive,
            "fields": document.fields,
            "stamps": {field: seq_of(stamp) for field, stamp in document.stamps.items()},
            "stamp": seq_of(document.stamp),
            "died": seq_of(document.died) if document.died is not None else None,
            "history": [[seq_of(stamp), fields] for stamp, fields in document.history],
        }
        for name, document in dashboard.documents.items()
    }
    return {
        "seq": dashboard.seq,
        "floor": dashboard.floor,
        "documents": documents,
        "tombstones": [[name, field, seq_of(stamp)] for (name, field), stamp in dashboard.tombstones.items()],
        "stamps": [[seq, stamp.author.user, stamp.author.device, stamp.at] for seq, stamp in sorted(stamps.items())],
    }


def load(plain: dict[str, Any], epoch: str) -> Dashboard:
    """A dashboard from what ``dump`` gave."""
    dashboard = Dashboard(epoch)
    dashboard.seq = plain["seq"]
    dashboard.floor = plain["floor"]
    authors: dict[tuple[str, str], Author] = {}
    stamps: dict[int, Stamp] = {}
    for seq, user, device, at in plain["stamps"]:
        author = authors.get((user, device)) or authors.setdefault((user, device), Author(user, device))
        stamps[seq] = Stamp(seq, author, at)
    for name, each in plain["documents"].items():
        document = dashboard.documents[name] = _load_document(name, each, stamps)
        if document.alive:
            dashboard.size += document.weigh()
            if document.kind == "widget":
                dashboard.widgets += 1
            else:
                dashboard.layouts += 1
    dashboard.tombstones = {(name, field): stamps[seq] for name, field, seq in plain["tombstones"]}
    return dashboard


def _load_document(name: str, plain: dict[str, Any], stamps: dict[int, Stamp]) -> Document:
    kind, _, target = name.partition(":")
    document = Document("widget" if kind == "widget" else "layout", target, stamps[plain["stamp"]])
    document.alive = plain["alive"]
    document.fields = plain["fields"]
    document.stamps = {field: stamps[seq] for field, seq in plain["stamps"].items()}
    document.died = stamps[plain["died"]] if plain["died"] is not None else None
    document.history = [(stamps[seq], fields) for seq, fields in plain["history"]]
    document.is_exact = False
    return document
