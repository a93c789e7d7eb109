"""Clients and the real server, with everything between them that a network may do: all agree in the end.

The server is the real one over its memory store; the clients are the pure state. A link between them holds frames and POSTs
back, loses them with the connection, or refuses them, as hypothesis pleases.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from itertools import count
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tornado_rt.client.edit import Edit
from tornado_rt.client.operation import Operation
from tornado_rt.client.outcomes import Change
from tornado_rt.client.queue import MemoryQueue
from tornado_rt.client.state import ClientState, Options, Post
from tornado_rt.core.document import Author
from tornado_rt.errors import Refusal
from tornado_rt.protocol.codec import decode_post, encode_json
from tornado_rt.server import Options as ServerOptions
from tornado_rt.server import RealtimeServer
from tornado_rt.session import Session
from tornado_rt.store.memory import MemoryStore

WIDGETS = ("w0", "w1", "w2")
FIELDS = ("a", "b", "c")
OPERATIONS = {
    "WIDGET_UPDATE",
    "WIDGET_DELETE",
    "WIDGET_BATCH",
    "LAYOUT_UPDATE",
    "LAYOUT_RESTORE",
    "SYNC_UPDATE",
    "CONFLICT_RESOLVED",
}


class Socket:
    """The server's way out: frames wait here until the link lets them through."""

    behind = False
    progress = 0
    heard = True
    on_drained = None

    def __init__(self) -> None:
        self.frames: deque[dict[str, Any]] = deque()

    def send(self, data: bytes) -> bool:
        at = 0
        while at < len(data):
            size, at = data[at + 1], at + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size, at = int.from_bytes(data[at : at + width], "big"), at + width
            self.frames.append(json.loads(data[at : at + size]))
            at += size
        return True

    def ping(self, ahead: bytes = b"") -> bool:
        return True

    def abort(self) -> None:
        pass

    def close(self, code: int, reason: str) -> None:
        raise AssertionError(f"the server closed: {code} {reason}")


class Peer:
    """A client, its link and its user: ``made`` are its operations, ``way_up`` frames and ``posts`` what is under way."""

    def __init__(self, server: RealtimeServer, name: str, conflicts: bool) -> None:
        ids = count(1)
        options = Options(max_queue_size=10_000, enable_conflict_detection=conflicts)
        self.server = server
        self.name = name
        self.author = Author(name, f"{name}-device")
        self.state = ClientState(name, MemoryQueue(), lambda: f"{name}-{next(ids)}", lambda: 0.5, options)
        self.session: Session | None = None
        self.socket = Socket()
        self.way_up: deque[dict[str, Any]] = deque()
        self.post: Post | None = None
        self.answer: dict[str, Any] | None = None
        self.made: list[Operation] = []
        self.answers: set[str] = set()  # operations that carry out a person's choice
        self.heard: list[Change] = []

    # What a person does

    def edit(self, edit: Edit, hold: float = 0.0, now: float = 0.0) -> None:
        operation = self.state.submit(edit, now, hold_seconds=hold)
        if operation not in self.made:
            self.made.append(operation)

    def resolve(self, choice: str, value: int) -> None:
        for conflict in self.state.conflicts[:1]:
            if conflict.batch and choice == "merged":
                choice = "local"
            answer = self.state.resolve(conflict.id, choice, {"a": value})
            if answer is not None:
                self.made.append(answer)
                self.answers.add(answer.id)

    # What the network does

    async def connect(self) -> None:
        if self.session is None:
            room = await self.server.enter("default")
            self.socket = Socket()
            resume = self.state.resume
            self.session = self.server.connect(
                room, self.author, self.socket, self.socket, since=resume["since"], epoch=resume.get("epoch")
            )

    def cut(self) -> None:
        if self.session is not None:
            self.server.disconnect(self.session)
            self.session = None
            self.way_up.clear()
            self.socket.frames.clear()
            self.state.closed()

    async def up(self) -> None:
        if self.way_up and self.session is not None:
            self.server.receive(self.session, json.dumps(self.way_up.popleft()).encode())
            await self.settled()

    async def settled(self) -> None:
        room = await self.server.enter("default")
        while not room.is_settled:
            await asyncio.sleep(0)

    def down(self, now: float) -> None:
        if self.socket.frames:
            self.state.receive(self.socket.frames.popleft(), now)

    def refuse(self, now: float, code: str) -> None:
        """Refuse the next message instead of giving it to the server; the client hears it at once, so it cannot be lost."""
        if self.way_up and self.way_up[0]["type"] in OPERATIONS:
            while self.socket.frames:
                self.down(now)
            frame = self.way_up.popleft()
            answer = {"error": "no", "code": code, "retryable": code != "LIMIT_EXCEEDED", "retryAfterMs": 0}
            self.state.receive({"type": "NACK", "id": "x", "correlationId": frame["id"], "payload": answer}, now)

    async def carry_post(self) -> None:
        """Give the POST that is under way to the server; its answer waits."""
        if self.post is not None and self.answer is None:
            body = {**self.post.body, "dashboardId": "default", "deviceId": self.author.device}
            try:
                answer = await self.server.post(self.author, decode_post(json.dumps(body).encode()))
            except Refusal as refusal:
                raise AssertionError(f"{refusal.code}: {refusal.message} {refusal.details}") from refusal
            sync = json.loads(answer.pop("sync"))  # the door splices it into its text as it is
            self.answer = {**json.loads(encode_json(answer)), "sync": sync}

    def end_post(self, now: float, *, is_lost: bool) -> None:
        if self.post is not None:
            if is_lost or self.answer is None:
                self.state.post_lost(self.post)
            else:
                self.state.posted(self.post, self.answer, now)
            self.post = self.answer = None

    def begin_post(self, now: float) -> None:
        if self.post is None:
            self.post = self.state.post(now)

    # What must be true at any time

    def turn(self, now: float) -> None:
        self.state.flush(now)
        self.way_up.extend(self.state.frames)
        self.state.frames = []
        self.heard += [value for name, value in self.state.events if name == "change"]
        self.state.events = []
        self.check()

    def check(self) -> None:
        """What is shown is the server's, but for documents that waiting operations change; of those, the last edit shows."""
        state = self.state
        replica = state.catchup.replica
        changing = {key for operation in state.outbox for key in operation.keys}
        shown = state.view("widget")
        for name in {*shown, *(name for kind, name in replica.documents if kind == "widget")}:
            if ("widget", name) not in changing:
                assert shown.get(name) == replica.fields(("widget", name))
        last = next(
            (each for each in reversed(self.made) if not each.is_settled and not each.lost and not each.overtaken), None
        )
        if last is not None and last is (state.pending or [None])[-1]:
            for edit in last.edits:
                for field, value in (edit.data or {}).items() if edit.is_known else ():
                    documents = state.view(edit.kind)
                    is_again = any(other.key == edit.key for other in last.edits[last.edits.index(edit) + 1 :])
                    assert is_again or documents[edit.document_id][field] == value


def _edits(widget: str, field: str, value: int) -> dict[str, Edit]:
    return {
        "edit": Edit.update(widget, {field: value}),
        "edit two": Edit.update(widget, {"a": value, "b": value}, unset=["c"]),
        "replace": Edit.update(widget, {field: value}, replace=True),
        "delete": Edit.delete(widget),
        "layout": Edit.update_layout({widget: value}),
        "restore": Edit.restore_layout(),
    }


async def _act(peer: Peer, what: str, widget: str, field: str, now: float, value: int) -> None:
    """One action of a peer, or of the network between it and the server."""
    edits = _edits(widget, field, value)
    if what in edits:
        peer.edit(edits[what])
    elif what == "hold":
        peer.edit(edits["edit"], 0.5, now)
    elif what == "batch":
        peer.made.append(peer.state.submit_batch([edits["edit"], Edit.update("w2", {"a": value})]))
    elif what == "resolve":
        peer.resolve({"a": "local", "b": "remote", "c": "merged"}[field], value)
    elif what == "refuse":
        peer.refuse(now, {"a": "RATE_LIMITED", "b": "UNAVAILABLE", "c": "LIMIT_EXCEEDED"}[field])
    else:
        await _link(peer, what, now, is_lost=widget == "w0")


async def _link(peer: Peer, what: str, now: float, *, is_lost: bool) -> None:
    match what:
        case "connect":
            await peer.connect()
        case "cut":
            peer.cut()
        case "up":
            await peer.up()
        case "down":
            peer.down(now)
        case "begin post":
            peer.begin_post(now)
        case "carry post":
            await peer.carry_post()
        case "end post":
            peer.end_post(now, is_lost=is_lost)


async def _come_to_rest(peers: list[Peer], now: float) -> float:
    """Everybody connects, all is delivered, every conflict is answered."""
    for _ in range(200):
        now += 60.0
        for peer in peers:
            peer.end_post(now, is_lost=False)
            await peer.connect()
            peer.turn(now)
        while any(peer.way_up or peer.socket.frames for peer in peers):
            for peer in peers:
                await peer.up()
                peer.down(now)
                peer.turn(now)
        for peer in peers:
            peer.resolve("remote", 0)
        if not any(peer.state.pending or peer.state.conflicts for peer in peers):
            return now
    raise AssertionError(f"no rest: {[(peer.name, peer.state.pending, peer.state.conflicts) for peer in peers]}")


def _judge(peers: list[Peer], server: RealtimeServer) -> None:
    room = server.rooms["default"]
    documents = room.dashboard.documents.values()
    for peer in peers:
        state = peer.state
        assert state.position == room.dashboard.seq
        for kind in ("widget", "layout"):
            truth = {each.target: each.fields for each in documents if each.alive and each.kind == kind}
            assert state.view(kind) == truth, peer.name
        histories = {each.target: [stamp.seq for stamp, _ in each.history] for each in documents if each.kind == "layout"}
        for name, history in histories.items():
            known = state.catchup.replica.documents["layout", name].history
            assert known[-len(history) :] == history[-len(known) :]
        assert not list(state.outbox)
        assert all(operation.is_settled for operation in peer.made)


def _judge_order(peer: Peer, log: list[Change]) -> None:
    """One client's edits of a field took their places in the order they were made in (``value`` counts up)."""
    last: dict[tuple[str, str], int] = {}
    answered = {operation.seq for operation in peer.made if operation.id in peer.answers}
    for change in log:
        if change.user_id == peer.name and change.type == "WIDGET_UPDATE" and change.seq not in answered:
            for field, value in change.payload["data"].items():
                place = (change.payload["widgetId"], field)
                assert last.get(place, 0) < value, f"{peer.name}: {place} went back from {last.get(place)} to {value}"
                last[place] = value


KINDS = ["edit"] * 5 + ["edit two", "hold", "replace", "delete", "layout", "restore", "batch", "resolve"]
LINKS = (
    ["up"] * 5
    + ["down"] * 6
    + ["connect"] * 3
    + ["cut", "refuse", "refuse", "begin post", "carry post", "carry post", "end post"]
)
ACTIONS = st.tuples(st.sampled_from(KINDS + LINKS), st.integers(0, 1), st.sampled_from(WIDGETS), st.sampled_from(FIELDS))


async def _live(actions: list[tuple[str, int, str, str]], conflicts: bool) -> None:
    ids = count(1)
    server = RealtimeServer(
        MemoryStore("epoch-1", lambda: 0.0),
        ServerOptions(heartbeat_interval_seconds=0),
        time=lambda: 0.0,
        monotonic=lambda: 0.0,
        timestamp=lambda: "2026-01-01T00:00:00.000Z",
        new_id=lambda: f"s-{next(ids)}",
    )
    await server.initialize()
    witness, *peers = [Peer(server, name, conflicts) for name in ("witness", "ada", "bob")]
    try:
        for peer in (witness, *peers):
            await peer.connect()
        now = 0.0
        for value, (what, who, widget, field) in enumerate(actions, 1):
            now += 0.1
            await _act(peers[who], what, widget, field, now, value)
            peers[who].turn(now)
        await _come_to_rest([*peers, witness], now)
        _judge([*peers, witness], server)
        log = [change for change in witness.heard if change.type != "SYNC_RESPONSE"]
        assert [change.seq for change in log] == list(range(1, server.rooms["default"].dashboard.seq + 1))
        for peer in peers:
            _judge_order(peer, log)
    finally:
        for peer in (witness, *peers):
            peer.cut()
        await server.shutdown(0)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@example([("edit", 0, "w0", "a")] * 8 + [("delete", 1, "w0", "a"), ("down", 1, "w0", "a")], False)
@example([("edit", 0, "w0", "a")] * 6 + [(what, 0, "w0", "a") for what in ("down", "edit", "refuse", "cut")], False)
@given(st.lists(ACTIONS, min_size=10, max_size=80), st.booleans())
def test_clients_agree_whatever_happens_between(actions: list[tuple[str, int, str, str]], conflicts: bool) -> None:
    """View, server and log agree at rest; nothing is left pending; nobody's own edits changed their order."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(_live(actions, conflicts))
