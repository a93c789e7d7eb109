"""A dashboard as the wire shows it: snapshot, merged catch-up, delta (PROTOCOL sections 3 and 5).

Reads committed state, sends nothing. What was encoded once is kept: of each document on the document itself, which never
changes once it is committed, and of whole answers until the next operation, so that a thousand clients who come back at once
cost little more than one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Document
from tornado_rt.core.journal import text_of
from tornado_rt.protocol.codec import change, encode_json, quote

__all__ = ["Picture"]

DELTA_OPERATIONS = 200  # more than this in one answer is told as merged state
CACHED_ANSWERS = 32  # those who come back at once were mostly cut off at once


class Picture:
    """What members of one dashboard are shown of it. ``recent`` is the tail of its log, as ``(seq, record)``."""

    __slots__ = ("_cache", "_cache_seq", "dashboard", "recent")

    def __init__(self, dashboard: Dashboard) -> None:
        self.dashboard = dashboard
        self.recent: deque[tuple[int, bytes]] = deque(maxlen=DELTA_OPERATIONS)
        self._cache: dict[int, bytes] = {}
        self._cache_seq = -1

    def sync(self, since: int | None, epoch: str | None, client_count: int, timestamp: str) -> bytes:
        """The payload of SYNC_RESPONSE for a client at ``since`` of ``epoch``; a snapshot where nothing less is true."""
        dashboard = self.dashboard
        if not since or epoch != dashboard.epoch or not self.reaches(since):
            since = 0
        body = self._cached(since)
        return b'{%b,"epoch":%b,"seq":%d,"syncState":"ready","clientCount":%d,"timestamp":"%b"}' % (
            body,
            quote(dashboard.epoch),
            dashboard.seq,
            client_count,
            timestamp.encode(),
        )

    def reaches(self, since: int) -> bool:
        """Can it be said what changed after ``since``?"""
        return self.dashboard.floor <= since <= self.dashboard.seq

    def catch_up(self, since: int) -> bytes:
        """The payload of a catch-up SYNC_UPDATE: each document that changed after ``since``, whole."""
        return b"{%b}" % self._merged(since)

    def _cached(self, since: int) -> bytes:
        if self._cache_seq != self.dashboard.seq or len(self._cache) >= CACHED_ANSWERS:
            self._cache.clear()
            self._cache_seq = self.dashboard.seq
        body = self._cache.get(since)
        if body is None:
            body = self._snapshot() if since == 0 else self._delta(since)
            if body is None:
                body = b'"mode":"merged",' + self._merged(since).rsplit(b',"seq":', 1)[0]
            self._cache[since] = body
        return body

    def _snapshot(self) -> bytes:
        living = [document for document in self.dashboard.documents.values() if document.alive]
        return b'"mode":"snapshot",' + _documents(living)

    def _delta(self, since: int) -> bytes | None:
        """The operations after ``since`` as they were told, if they are all still at hand."""
        missed = self.dashboard.seq - since
        if missed > len(self.recent):
            return None
        tail = [each for each in self.recent if each[0] > since]
        return b'"mode":"delta","operations":[%b]' % b",".join([change(text_of(record), seq) for seq, record in tail])

    def _merged(self, since: int) -> bytes:
        changed = list(self.dashboard.changed_since(since))
        living = [document for document in changed if document.alive]
        dead = [document for document in changed if not document.alive]
        deleted = {
            "widgets": [document.target for document in dead if document.kind == "widget"],
            "layouts": [document.target for document in dead if document.kind == "layout"],
        }
        head = b'"fromSeq":%d,%b,"deleted":%b' % (since, _documents(living), encode_json(deleted))
        return head + b',"seq":%d' % self.dashboard.seq


def _documents(documents: Iterable[Document]) -> bytes:
    widgets: list[bytes] = []
    layouts: list[bytes] = []
    for document in documents:
        into = widgets if document.kind == "widget" else layouts
        into.append(b"%b:%b" % (quote(document.target), _document(document)))
    return b'"widgets":{%b},"layouts":{%b}' % (b",".join(widgets), b",".join(layouts))


def _document(document: Document) -> bytes:
    """A ``Doc`` (PROTOCOL section 3)."""
    picture = document.picture
    if picture is None:
        stamp = document.stamp
        picture = b'{"%b":%b,"version":%d,"updatedAt":%b,"updatedBy":%b' % (
            b"data" if document.kind == "widget" else b"layout",
            encode_json(document.fields),
            stamp.seq,
            quote(stamp.at),
            stamp.author.user_json,
        )
        if document.kind == "layout":
            picture += b',"history":[%b]' % b",".join([b"%d" % version.seq for version, _ in document.history])
        picture += b"}"
        document.picture = picture
    return picture
