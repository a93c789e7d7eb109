"""Takes a conversation of tests/wire/conversations step by step, with the client's pure state on one side; no sockets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from tornado_rt.client.backoff import Backoff, after_close
from tornado_rt.client.conflicts import NOT_GIVEN
from tornado_rt.client.edit import Edit
from tornado_rt.client.operation import Operation
from tornado_rt.client.outcomes import Conflict, RefusedError
from tornado_rt.client.queue import MemoryQueue
from tornado_rt.client.state import ClientState, Options, Post

MISSING = object()
OPTIONS = {
    "maxPendingOperations": "max_pending_operations",
    "maxQueueSize": "max_queue_size",
    "enableConflictDetection": "enable_conflict_detection",
}


class Talk:
    """One conversation; ``names`` are the values that names in patterns stand for, ``operations`` those of operations."""

    def __init__(self, conversation: dict[str, Any]) -> None:
        options = Options(**{OPTIONS[name]: value for name, value in conversation.get("options", {}).items()})
        ids = count(1)
        self.state = ClientState(conversation["userId"], MemoryQueue(), lambda: f"id-{next(ids)}", lambda: 0.5, options)
        self.steps = conversation["steps"]
        self.now = 0.0
        self.names: dict[str, Any] = {}
        self.operations: dict[str, Operation] = {}
        self.sent: list[dict[str, Any]] = []
        self.told = 0
        self.post: Post | None = None
        self.reconnect: Any = None

    def run(self) -> None:
        for number, step in enumerate(self.steps):
            ((kind, content),) = step.items()
            try:
                getattr(self, f"step_{kind}")(content)
            except AssertionError as fault:
                raise AssertionError(f"step {number}, {step}:\n{fault}") from fault
        assert self.sent == [], "the client sent more than was told of"

    # Steps

    def step_do(self, actions: dict[str, Any]) -> None:
        must_refuse = actions.pop("refused", False)
        ((action, arguments),) = actions.items()
        try:
            getattr(self, f"do_{action}")(arguments)
        except Exception:
            if not must_refuse:
                raise
        else:
            assert not must_refuse, "this was to be refused"
        self.turn()

    def step_server(self, frame: dict[str, Any]) -> None:
        self.state.receive(self.filled(frame), self.now)
        self.turn()

    def step_client(self, pattern: dict[str, Any] | None) -> None:
        if pattern is None:
            assert self.sent == [], "the client was to send nothing"
        else:
            assert self.sent, "the client was to send something"
            self.match(pattern, self.sent.pop(0))

    def step_post(self, pattern: dict[str, Any] | None) -> None:
        post = self.state.post(self.now)
        if pattern is None:
            assert post is None
        else:
            assert post is not None
            self.post = post
            self.match(pattern, post.body)

    def step_answer(self, answer: dict[str, Any] | None) -> None:
        assert self.post is not None
        if answer is None:
            self.state.post_lost(self.post)
        elif answer["status"] == 200:
            self.state.posted(self.post, self.filled(answer["body"]), self.now)
        else:
            self.state.post_refused(self.post, self.filled(answer["body"]), self.now)
        self.turn()

    def step_see(self, expected: dict[str, Any]) -> None:
        for name, value in expected.items():
            getattr(self, f"see_{name}")(value)

    # Actions

    def do_connect(self, _: Any) -> None:
        self.state.disconnect = None

    def do_disconnect(self, close: dict[str, Any]) -> None:
        self.state.closed()
        verdict = after_close(close["code"], close.get("reason"), self.state.disconnect)
        backoff = Backoff(lambda: 0.5)
        delay = backoff.delay_seconds(0.0, verdict.retry_after_ms)
        self.reconnect = (delay, verdict.needs_token) if verdict.reconnect else False

    def do_wait(self, milliseconds: int) -> None:
        self.now += milliseconds / 1000

    def do_update(self, said: dict[str, Any]) -> None:
        edit = Edit.update(said["widgetId"], said["data"], unset=said.get("unset", ()), replace=said.get("replace", False))
        self.submit(edit.based_on(said.get("baseVersion"), None), said)

    def do_delete(self, said: dict[str, Any]) -> None:
        self.submit(Edit.delete(said["widgetId"]), said)

    def do_updateLayout(self, said: dict[str, Any]) -> None:  # noqa: N802 - the action's name
        self.submit(Edit.update_layout(said["layout"], layout_id=said.get("layoutId", "default")), said)

    def do_restoreLayout(self, said: dict[str, Any]) -> None:  # noqa: N802 - the action's name
        self.submit(Edit.restore_layout(layout_id=said.get("layoutId", "default"), version=said.get("version")), said)

    def do_batch(self, said: dict[str, Any]) -> None:
        edits = [Edit.from_wire(each["type"], each["payload"]) for each in said["edits"]]
        self.operations[said["as"]] = self.state.submit_batch(edits)

    def do_resolve(self, said: dict[str, Any]) -> None:
        operation = self.state.resolve(self.filled(said["conflictId"]), said["choice"], said.get("data", NOT_GIVEN))
        if operation is not None:
            self.operations[said["as"]] = operation

    def do_rollback(self, name: str) -> None:
        self.state.rollback(self.operations[name])

    def do_retry(self, name: str) -> None:
        self.state.retry(self.operations[name])

    def do_together(self, actions: list[dict[str, Any]]) -> None:
        for each in actions:
            ((action, arguments),) = each.items()
            getattr(self, f"do_{action}")(arguments)

    def submit(self, edit: Edit, said: dict[str, Any]) -> None:
        self.operations[said["as"]] = self.state.submit(edit, self.now, hold_seconds=said.get("holdMs", 0) / 1000)

    def turn(self) -> None:
        self.state.flush(self.now)
        self.sent += self.state.frames
        self.state.frames = []
        self.told += sum(name == "message" for name, _ in self.state.events)
        self.state.events = []
        due = self.state.due(self.now)
        assert due is None or due > self.now, "something was due and was not done"

    # What is to be seen

    def see_widgets(self, expected: Any) -> None:
        assert self.state.view("widget") == expected
        assert {name: self.state.document(("widget", name)) for name in expected} == expected

    def see_layouts(self, expected: Any) -> None:
        assert self.state.view("layout") == expected

    def see_position(self, expected: int) -> None:
        assert self.state.position == expected

    def see_epoch(self, expected: str) -> None:
        assert self.state.epoch == expected

    def see_resume(self, expected: Any) -> None:
        assert self.state.resume == expected

    def see_pending(self, expected: list[str]) -> None:
        names = {operation: name for name, operation in self.operations.items()}
        assert [names[each] for each in self.state.pending] == expected

    def see_operations(self, expected: dict[str, str]) -> None:
        assert {name: str(self.operations[name].state) for name in expected} == expected

    def see_error(self, expected: dict[str, str]) -> None:
        for name, code in expected.items():
            error = self.operations[name].error
            assert isinstance(error, RefusedError)
            assert error.code == code

    def see_conflicts(self, expected: list[dict[str, Any]]) -> None:
        self.match(expected, [_on_the_wire(conflict) for conflict in self.state.conflicts])

    def see_reconnect(self, expected: Any) -> None:
        if expected is False:
            assert self.reconnect is False
        else:
            delay, needs_token = self.reconnect
            assert expected["minMs"] <= delay * 1000 <= expected["maxMs"]
            assert needs_token == expected["token"]

    def see_told(self, expected: int) -> None:
        assert self.told == expected

    def see_differ(self, names: list[str]) -> None:
        values = [self.value(name) for name in names]
        assert len(set(values)) == len(values)

    # Names and patterns

    def value(self, name: str) -> Any:
        bare = name[1:]
        return self.operations[bare].id if bare in self.operations else self.names.get(bare, MISSING)

    def filled(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self.filled(each) for each in value]
        if isinstance(value, str) and value.startswith("$"):
            found = self.value(value)
            assert found is not MISSING, f"nothing is called {value}"
            return found
        return value

    def match(self, pattern: Any, value: Any, path: str = "") -> None:
        if isinstance(pattern, str) and pattern.startswith("$"):
            self.match_name(pattern, value, path)
        elif isinstance(pattern, dict):
            assert isinstance(value, dict), f"{path}: {value!r} is no object"
            for key, each in pattern.items():
                self.match(each, value.get(key, MISSING), f"{path}.{key}")
        elif isinstance(pattern, list):
            assert isinstance(value, list), f"{path}: {value!r} is no list"
            assert len(value) == len(pattern), f"{path}: {value!r} has another length"
            for index, (each, found) in enumerate(zip(pattern, value, strict=True)):
                self.match(each, found, f"{path}[{index}]")
        else:
            assert value == pattern, f"{path}: {value!r} is not {pattern!r}"

    def match_name(self, name: str, value: Any, path: str) -> None:
        if name == "$absent":
            assert value is MISSING, f"{path}: {value!r} should not be there"
        elif name == "$any":
            assert value is not MISSING, f"{path} is not there"
        elif (known := self.value(name)) is MISSING:
            self.names[name[1:]] = value
        else:
            assert value == known, f"{path}: {value!r} is not {name}, which is {known!r}"


def _on_the_wire(conflict: Conflict) -> dict[str, Any]:
    return {
        "conflictId": conflict.id,
        "kind": conflict.kind,
        f"{conflict.kind}Id": conflict.document_id,
        "fields": list(conflict.fields),
        "baseVersion": conflict.base_version,
        "currentVersion": conflict.current_version,
        "local": conflict.local,
        "remote": conflict.remote,
        "remoteUserId": conflict.remote_user_id,
        "remoteTimestamp": conflict.remote_timestamp,
    }


def frames(conversation: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The frames that the server sends in a conversation."""
    return (step["server"] for step in conversation["steps"] if "server" in step)
