"""A dashboard and the people who edit it: what a room does with the rules, in a few lines and without a store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Author, Document
from tornado_rt.core.draft import Draft
from tornado_rt.core.journal import conflict_record, fold, record
from tornado_rt.core.limits import DashboardLimits
from tornado_rt.core.operation import Applied, Batch, Conflict, Operation, Outcome, Request
from tornado_rt.protocol.codec import encode_json

ANNA = Author("anna", "laptop")
ANNA_PHONE = Author("anna", "phone")
BERT = Author("bert", "desk")
EPOCH = "epoch-1"
AT = "2024-11-24T10:00:00.000Z"


def update(
    author: Author,
    data: Mapping[str, Any],
    base: int | None = None,
    *,
    target: str = "w",
    kind: Any = "widget",
    unset: tuple[str, ...] = (),
    replace: bool = False,
    id: str | None = None,  # noqa: A002 -- as it is called in the protocol
    epoch: str | None = None,
) -> Operation:
    content = repr((kind, target, data, base, unset, replace)).encode()
    type_ = f"{kind.upper()}_UPDATE"
    encoded = encode_json(dict(data))
    return Operation(type_, kind, target, author, id, crc32(content), dict(data), encoded, unset, replace, base, epoch)


def layout(author: Author, data: Mapping[str, Any], base: int | None = None, **more: Any) -> Operation:
    return update(author, data, base, kind="layout", **{"target": "default"} | more)


def delete(author: Author, base: int | None = None, *, target: str = "w", id: str | None = None) -> Operation:  # noqa: A002
    digest = crc32(repr((target, base)).encode())
    return Operation("WIDGET_DELETE", "widget", target, author, id, digest, base=base)


def restore(
    author: Author, version: int | None = None, base: int | None = None, *, target: str = "default", epoch: str | None = None
) -> Operation:
    return Operation("LAYOUT_RESTORE", "layout", target, author, None, 0, base=base, base_epoch=epoch, restore=version)


def batch(author: Author, *operations: Operation, id: str | None = None) -> Batch:  # noqa: A002
    return Batch(list(operations), author, id, crc32(b"%d" % sum(each.digest for each in operations)))


class Scene:
    """``do`` judges one request and commits it; ``together`` judges several on one draft and commits that."""

    def __init__(self, **limits: Any) -> None:
        self.limits = DashboardLimits(**limits)
        self.dashboard = Dashboard(EPOCH)
        self.log: list[tuple[int, bytes, float]] = []
        self.now = 1_000_000.0

    def draft(self) -> Draft:
        return Draft(self.dashboard, self.limits, AT, self.now)

    def do(self, request: Request) -> Outcome:
        return self.together(request)[0]

    def together(self, *requests: Request) -> list[Outcome]:
        draft = self.draft()
        outcomes = [draft.decide(request) for request in requests]
        self.commit(draft, outcomes)
        return outcomes

    def commit(self, draft: Draft, outcomes: list[Outcome]) -> None:
        seq = self.dashboard.seq
        self.dashboard.adopt(self._keep_conflicts(draft, outcomes), seq + 1)
        for outcome in outcomes:
            if isinstance(outcome, Applied):
                self.log.append((outcome.stamp.seq, record(outcome), self.now))

    def _keep_conflicts(self, draft: Draft, outcomes: list[Outcome]) -> Draft:
        for outcome in outcomes:
            if isinstance(outcome, Conflict) and outcome.request.id is not None:
                payload = json.dumps({"fields": outcome.fields}).encode()
                draft.remember(outcome.request, 0, conflict=payload)
                self.log.append((0, conflict_record(outcome, payload), self.now))
        return draft

    def replayed(self) -> Dashboard:
        """What the log folds to."""
        dashboard = Dashboard(EPOCH)
        fold(dashboard, self.log, self.limits, 0.0)
        return dashboard

    def document(self, name: str = "widget:w") -> Document:
        document = self.dashboard.view(name)
        assert document is not None, f"there is no {name}"
        return document

    def fields(self, name: str = "widget:w") -> dict[str, Any]:
        document = self.document(name)
        assert document.alive, f"{name} is gone"
        return document.fields

    @property
    def seq(self) -> int:
        return self.dashboard.seq


def applied(outcome: Outcome) -> Applied:
    assert isinstance(outcome, Applied), outcome
    return outcome


def conflict(outcome: Outcome) -> Conflict:
    assert isinstance(outcome, Conflict), outcome
    return outcome
