"""What a sender is told of what became of its operations: ACK, CONFLICT_DETECTED, NACK, results (PROTOCOL sections 3, 4 and 6).

Puts outcomes into words; decides nothing and sends nothing.
"""

from __future__ import annotations

from typing import Any

from tornado_rt.core.operation import Applied, Batch, Conflict, Refused, Replayed, Request, Resolution, Settled
from tornado_rt.errors import BatchAborted, Refusal
from tornado_rt.intake import Item
from tornado_rt.protocol.codec import decode_json, encode_json

__all__ = ["ack_of_results", "conflict_payload", "duplicate_conflict", "result_of", "results_of"]


def conflict_payload(conflict: Conflict, conflict_id: str | None, at: str) -> dict[str, Any]:
    """CONFLICT_DETECTED. ``conflict_id`` is None within a refused batch, where nothing is left open."""
    operation = conflict.operation
    document = conflict.document
    newest = conflict.newest
    payload: dict[str, Any] = {} if conflict_id is None else {"conflictId": conflict_id}
    payload["kind"] = operation.kind
    payload[f"{operation.kind}Id"] = operation.target
    payload["fields"] = conflict.fields
    payload["baseVersion"] = operation.base
    payload["currentVersion"] = conflict.current_version
    payload["local"] = None if operation.type == "WIDGET_DELETE" else operation.data
    payload["remote"] = (
        {name: document.fields[name] for name in conflict.fields if name in document.fields} if document is not None else None
    )
    payload["remoteUserId"] = newest.author.user if newest is not None else ""
    payload["remoteTimestamp"] = newest.at if newest is not None else at
    if conflict.resolved is not None:
        payload["resolved"] = conflict.resolved
    return payload


def duplicate_conflict(payload: bytes) -> bytes:
    """A remembered CONFLICT_DETECTED payload, said once more."""
    return payload[:-1] + b',"duplicate":true}'


def results_of(items: list[Item], timestamp: str) -> list[dict[str, Any]]:
    return [result_of(item, timestamp) for item in items]


def result_of(item: Item, timestamp: str) -> dict[str, Any]:
    """One element of ``results`` (PROTOCOL section 6)."""
    result: dict[str, Any] = {"operationId": item.id, "status": "success", "type": item.type}
    if item.request is None:
        parts = results_of(item.parts, timestamp)
        result["status"] = _worst(parts)
        result["results"] = parts
    else:
        result.update(_verdict(item, timestamp))
    result["timestamp"] = timestamp
    return result


def _worst(results: list[dict[str, Any]]) -> str:
    seen = {result["status"] for result in results}
    return next((status for status in ("error", "conflict") if status in seen), "success")


def _verdict(item: Item, timestamp: str) -> dict[str, Any]:
    match item.outcome:
        case Applied(request=request, stamp=stamp, merged=merged):
            return _done(request, _numbers(stamp.seq), merged, timestamp)
        case Settled(request=request, version=version):
            return _done(request, _numbers(version), (), timestamp)
        case Replayed(request=request, verdict=verdict) if verdict.conflict is None:
            return _done(request, _numbers(verdict.seq) | {"duplicate": True}, verdict.merged, timestamp)
        case Replayed(verdict=verdict):
            return {"status": "conflict", "conflict": decode_json(verdict.conflict or b"{}"), "duplicate": True}
        case Conflict() as conflict:
            kept = item.conflict
            said = conflict_payload(conflict, None, timestamp) if kept is None else decode_json(kept)
            return {"status": "conflict", "conflict": said}
        case Refused(request=batch) as refused:
            return _error(_aborted(batch)) | {"results": refused_results(refused, timestamp)}
        case Refusal() as refusal:
            return _error(refusal)
        case None:
            raise AssertionError("an operation was answered before it was judged")


def _done(request: Request, said: dict[str, Any], merged: tuple[str, ...], timestamp: str) -> dict[str, Any]:
    if merged:
        said["merged"] = merged
    if isinstance(request, Batch):
        said["results"] = _batch_results(request, said, timestamp)
    elif isinstance(request, Resolution):
        said["resolved"] = True
    return said


def _numbers(seq: int) -> dict[str, Any]:
    return {"version": seq, "seq": seq}


def _error(refusal: Refusal) -> dict[str, Any]:
    said: dict[str, Any] = {"status": "error", "error": refusal.message, "code": refusal.code}
    if refusal.retry_after_ms is not None:
        said["retryAfterMs"] = refusal.retry_after_ms
    if refusal.details:
        said["details"] = [{"path": path, "message": message} for path, message in refusal.details]
    return said


def _aborted(batch: Batch) -> BatchAborted:
    return BatchAborted(f"none of the {len(batch.operations)} operations was applied, since not all of them could be")


def _batch_results(batch: Batch, said: dict[str, Any], timestamp: str) -> list[dict[str, Any]]:
    """All of an atomic batch share one seq, and are repeated together."""
    shared = {name: said[name] for name in ("version", "seq", "duplicate") if name in said} | {"timestamp": timestamp}
    return [{"operationId": each.id, "status": "success", "type": each.type, **shared} for each in batch.operations]


def refused_results(refused: Refused, timestamp: str) -> list[dict[str, Any]]:
    """Who is to blame for a refused atomic batch, and who is not."""
    results = []
    for index, operation in enumerate(refused.request.operations):
        result: dict[str, Any] = {"operationId": operation.id, "type": operation.type}
        blame = refused.blame.get(index)
        if blame is None:
            result.update(_error(_aborted(refused.request)))
        elif isinstance(blame, Refusal):
            result.update(_error(blame))
        elif isinstance(blame, Conflict):
            result.update(status="conflict", conflict=conflict_payload(blame, None, timestamp))
        else:
            remembered = decode_json(blame.verdict.conflict or b"{}")
            remembered.pop("conflictId", None)
            result.update(status="conflict", conflict=remembered, duplicate=True)
        result["timestamp"] = timestamp
        results.append(result)
    return results


def ack_of_results(items: list[Item], timestamp: str) -> bytes:
    """The payload of the one ACK that answers a message of several operations; ``seq`` is the highest that was given."""
    payload: dict[str, Any] = {"received": True}
    if len(items) == 1 and items[0].type == "WIDGET_BATCH" and items[0].id is None:
        whole = result_of(items[0], timestamp)
        payload |= {name: whole[name] for name in ("version", "merged", "duplicate") if name in whole}
        results = whole["results"]
    else:
        results = results_of(items, timestamp)
    payload["results"] = results
    seqs = [seq for result in results for seq in _seqs(result)]
    if seqs:
        payload["seq"] = max(seqs)
    return encode_json(payload)


def _seqs(result: dict[str, Any]) -> list[int]:
    if "seq" in result:
        return [result["seq"]]
    return [seq for part in result.get("results", ()) for seq in _seqs(part)]
