"""Raw clients that write without pause through every fault, and tell a ``Witness`` all they do and hear.

Not the project's own client: this one is small enough to be seen through, takes no care of anybody's interest, and uses
everything that the protocol allows. It retries what has no verdict under the same id, over the socket or by POST.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tornado_rt.loadtest.history import History
from tornado_rt.loadtest.witness import Witness

Json = dict[str, Any]
GONE = (OSError, WebSocketException, HTTPClientError, EOFError, TimeoutError)
WORKED_OUT_BY_SERVER = ("LAYOUT_RESTORE", "CONFLICT_RESOLVED")  # an ACK alone does not tell what became of the documents

CUT_ONE_IN = 50  # ACKs that do not arrive, and neither does anything after them


class Documents:
    """What a client shows its user: the log folded as far as it has come."""

    def __init__(self) -> None:
        self.documents: dict[tuple[str, str], Json] = {}

    def apply(self, type_: str, payload: Json) -> None:
        if type_ == "WIDGET_BATCH":
            for each in payload["operations"]:
                self.apply(each["type"], each["payload"])
            return
        kind, key = ("widget", "data") if type_.startswith("WIDGET") else ("layout", "layout")
        name = (kind, payload.get(f"{kind}Id", "default"))
        if type_ == "WIDGET_DELETE":
            self.documents.pop(name, None)
            return
        whole = payload.get("replace") or type_ == "LAYOUT_RESTORE"
        fields = {} if whole else self.documents.get(name, {})
        fields = {**fields, **copy.deepcopy(payload.get(key) or {})}
        self.documents[name] = {field: value for field, value in fields.items() if field not in payload.get("unset", ())}

    def sync(self, payload: Json) -> None:
        if payload.get("mode") == "delta":
            for change in payload["operations"]:
                self.apply(change["type"], change["payload"])
            return
        if payload.get("mode") == "snapshot":
            self.documents.clear()
        for kind, key in (("widget", "data"), ("layout", "layout")):
            for id_, document in payload.get(f"{kind}s", {}).items():
                self.documents[kind, id_] = document[key]
            for id_ in payload.get("deleted", {}).get(f"{kind}s", ()):
                self.documents.pop((kind, id_), None)

    def on_wire(self, kind: str, key: str) -> Json:
        return {id_: {key: fields} for (of_kind, id_), fields in self.documents.items() if of_kind == kind}


class Composer:
    """Makes operations, each with values that are used once: so that every change can be laid to the one who made it."""

    def __init__(self, name: str, rng: random.Random) -> None:
        self.name = name
        self.rng = rng
        self.count = 0

    def id(self) -> str:
        self.count += 1
        return f"{self.name}-{self.count}"

    def operation(self, position: int, epoch: str, *, in_batch: bool = False) -> tuple[str, Json]:
        rng = self.rng
        kind = rng.choices(("update", "delete", "layout", "restore", "batch"), (60, 6, 20, 4, 0 if in_batch else 10))[0]
        if kind == "batch":
            operations = []
            for _ in range(rng.randint(1, 4)):
                type_, payload = self.operation(position, epoch, in_batch=True)
                operations.append({"operationId": self.id(), "type": type_, "payload": payload})
            return "WIDGET_BATCH", {"operations": operations}
        payload = self._base(position, epoch)
        if kind == "delete":
            return "WIDGET_DELETE", {"widgetId": f"w{rng.randrange(4)}", **payload}
        if kind == "restore":
            return "LAYOUT_RESTORE", {"layoutId": f"l{rng.randrange(2)}", **payload}
        fields: Json = {f"f{rng.randrange(5)}": self._value() for _ in range(rng.randint(1, 3))}
        if rng.randrange(8) == 0:
            payload["unset"] = [field for field in ("f0", "f4") if field not in fields]
        if rng.randrange(12) == 0:
            payload["replace"] = True
        if kind == "layout":
            return "LAYOUT_UPDATE", {"layoutId": f"l{rng.randrange(2)}", "layout": fields, **payload}
        return "WIDGET_UPDATE", {"widgetId": f"w{rng.randrange(4)}", "data": fields, **payload}

    def resolution(self, conflict: Json, local: Json | None, epoch: str) -> Json:
        """Self-contained, so that it means the same after a reconnect."""
        key = f"{conflict['kind']}Id"
        known = {"conflictId": conflict["conflictId"], key: conflict[key], "baseVersion": conflict["currentVersion"]}
        how = self.rng.choice(("local", "merged", "remote"))
        data = {"merged": {"f1": self._value(), "f2": None}, "local": local}.get(how)
        if how == "remote" or not data:
            return {**known, "epoch": epoch, "resolution": "remote"}
        return {**known, "epoch": epoch, "resolution": how, "data": data}

    def _base(self, position: int, epoch: str) -> Json:
        """A ``baseVersion`` that is often fresh, sometimes stale, sometimes absent."""
        if not epoch or self.rng.randrange(3) == 0:
            return {}
        return {"baseVersion": max(0, position - self.rng.choice((0, 0, 0, 0, 3, 20))), "epoch": epoch}

    def _value(self) -> Any:
        self.count += 1
        return self.rng.choice((f"{self.name}:{self.count}", [self.name, self.count], {self.name: self.count / 8}))


class Driver:
    """One client: a position, the documents at it, and what it has sent without a verdict yet (``pending``, by id)."""

    def __init__(
        self,
        name: str,
        user: str,
        dashboard: str,
        api: str,
        history: History,
        seed: int,
        *,
        socket: bool = True,
        post: bool = True,
    ) -> None:
        self.name, self.user, self.dashboard, self.api = name, user, dashboard, api
        self.rng = random.Random(f"{seed}:{name}")
        self.composer = Composer(name, self.rng)
        self.witness = Witness(history, name, user_id=user, dashboard_id=dashboard, device_id=f"device-{name}")
        self.view = Documents()
        self.position = 0
        self.epoch = ""
        self.pending: dict[str, Json] = {}
        self.conflicted: list[tuple[Json, Json]] = []
        self.composing = True
        self.verdicts = 0
        self.window = 4
        self.by_socket, self.by_post = socket, post
        self._is_ending = False
        self._awake = asyncio.Event()
        self._awake.set()
        self._calls: set[asyncio.Future[Any]] = set()
        self.changed = asyncio.Event()
        self._syncing = self._unknown_change = False
        self._containers: dict[str, list[Json]] = {}  # messages that carry several pending operations
        self._posting: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: ClientConnection | None = None

    # -- life ------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: come back whenever the connection is lost."""
        try:
            while True:
                await self._awake.wait()
                try:
                    await (self._session() if self.by_socket else self._poll())
                except GONE:
                    pass
                finally:
                    self._socket = None
                    self.witness.closed()
                await asyncio.sleep(self.rng.uniform(0.01, 0.05))
        finally:
            for task in self._tasks:
                task.cancel()

    async def nap(self) -> None:
        """Leave, and stay away until ``wake``: what is missed meanwhile may be too much for a delta."""
        self._awake.clear()
        if self._socket is not None:
            await self._socket.close()

    def wake(self) -> None:
        self._awake.set()

    async def hang_up(self) -> None:
        """POST nothing more, and let what is under way come to its end: Tornado's client logs what is broken off."""
        self._is_ending = True
        if self._calls:
            await asyncio.wait(self._calls)

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    @property
    def is_done(self) -> bool:
        """Everything that it ever sent has a verdict."""
        return not self.composing and not self.pending and not self.conflicted

    def show(self) -> None:
        """Tell the history what is on the screen."""
        documents = (self.view.on_wire("widget", "data"), self.view.on_wire("layout", "layout"))
        self.witness.believes(self.epoch, self.position, *documents)

    # -- the socket ------------------------------------------------------------------------------------------------------

    async def _session(self) -> None:
        query = {"userId": self.user, "dashboardId": self.dashboard, "deviceId": self.witness.device_id, "since": self.position}
        if self.epoch:
            query["epoch"] = self.epoch
        url = f"ws{self.api.removeprefix('http')}?{urlencode(query)}"
        async with connect(url, max_size=None, max_queue=None, ping_interval=None, compression=None, proxy=None) as socket:
            first = json.loads(await socket.recv())
            if first["type"] != "CONNECT" or not self._awake.is_set():  # it was sent to bed while it was coming back
                return
            self.witness.received(first, since=self.position)
            self._synced(first["payload"]["sync"])
            self._socket, self._syncing, self._unknown_change = socket, False, False
            await self._repeat()
            while True:
                await self._pump()
                message = json.loads(await socket.recv())
                if message["type"] == "ACK" and self.rng.randrange(CUT_ONE_IN) == 0:
                    return  # the network failed just before it came: what it says must be said again
                self._hear(message)
                if self._unknown_change:
                    await self._ask_for_sync()

    async def _repeat(self) -> None:
        """What has no verdict yet goes first, in one of the ways there are."""
        waiting = [message for id_, message in self.pending.items() if id_ not in self._posting]
        if len(waiting) > 1 and self.rng.randrange(2):
            operations = [
                {"operationId": each["id"], "type": each["type"], "payload": each["payload"]} for each in waiting[:20]
            ]
            id_ = self.composer.id()
            self._containers[id_], waiting = waiting[:20], waiting[20:]
            await self._send({"type": "SYNC_UPDATE", "id": id_, "payload": {"operations": operations}})
        for message in waiting:
            await self._dispatch(message)

    async def _pump(self) -> None:
        """Send new operations as long as fewer than ``window`` are open."""
        while self.conflicted:
            conflict, message = self.conflicted.pop()
            if self.rng.randrange(2):
                payload = self.composer.resolution(conflict, message["payload"].get("data"), self.epoch)
                await self._begin("CONFLICT_RESOLVED", payload)
        while self.composing and len(self.pending) < self.window:
            await self._begin(*self.composer.operation(self.position, self.epoch))

    async def _begin(self, type_: str, payload: Json) -> None:
        message = {"type": type_, "id": self.composer.id(), "userId": self.user, "payload": payload}
        self.pending[message["id"]] = message
        await self._dispatch(message)

    async def _dispatch(self, message: Json) -> None:
        if self.by_post and self.rng.randrange(5) == 0:
            self._spawn(self._post_one(message))
        else:
            await self._send(message)

    async def _send(self, message: Json) -> None:
        assert self._socket is not None
        message.setdefault("userId", self.user)
        self.witness.sent(message)
        await self._socket.send(json.dumps(message))

    def _hear(self, message: Json) -> None:
        self.witness.received(message)
        payload, asked = message["payload"], message.get("correlationId", "")
        match message["type"]:
            case "SYNC_RESPONSE":
                self._synced(payload)
                self._syncing = False
            case "SYNC_UPDATE" if "fromSeq" in payload:
                self._synced(payload)
            case "ACK" if asked in self._containers:
                del self._containers[asked]
                for result in payload["results"]:
                    self._verdict(result)
            case "ACK":
                refused = any(result["status"] != "success" for result in payload.get("results", ()))
                self._verdict({**payload, "operationId": asked, "status": "error" if refused else "success"})
            case "CONFLICT_DETECTED":
                self._verdict({"operationId": asked, "status": "conflict", "conflict": payload})
            case "NACK":
                for id_ in [each["id"] for each in self._containers.pop(asked, ())] or [asked]:
                    self._refused(id_, payload)
            case "DISCONNECT" | "PING" | "PONG" | "SYNC_UPDATE":
                pass
            case type_:
                if payload["seq"] == self.position + 1 and not self._syncing:
                    self.view.apply(type_, payload)
                    self.position += 1
        self.changed.set()

    def _synced(self, payload: Json) -> None:
        self.view.sync(payload if "mode" in payload else {**payload, "mode": "merged"})
        self.position, self.epoch = payload["seq"], payload.get("epoch", self.epoch)

    async def _ask_for_sync(self) -> None:
        self._unknown_change, self._syncing = False, True
        await self._send(
            {"type": "SYNC_REQUEST", "id": self.composer.id(), "payload": {"since": self.position, "epoch": self.epoch}}
        )

    # -- verdicts --------------------------------------------------------------------------------------------------------

    def _verdict(self, result: Json) -> None:
        if result["status"] == "error":
            self._refused(result["operationId"], result)
            return
        message = self.pending.pop(result["operationId"], None)
        if message is None:
            return
        self.verdicts += 1
        if result["status"] == "conflict":
            if "conflictId" in result.get("conflict", {}) and message["type"] != "CONFLICT_RESOLVED":
                self.conflicted.append((result["conflict"], message))
        elif result.get("seq") == self.position + 1 and not result.get("duplicate") and not self._syncing:
            self._own_change(message)

    def _own_change(self, message: Json) -> None:
        leaves = message["payload"]["operations"] if message["type"] == "WIDGET_BATCH" else [message]
        if any(each["type"] in WORKED_OUT_BY_SERVER for each in leaves):
            self._unknown_change = True  # the position stays behind it, and a delta will bring it
        else:
            self.view.apply(message["type"], message["payload"])
            self.position += 1

    def _refused(self, id_: str, refusal: Json) -> None:
        message = self.pending.get(id_)
        if message is None:
            return
        if refusal.get("retryable") or refusal.get("code") in ("UNAVAILABLE", "INTERNAL") or refusal.get("outcome"):
            self._spawn(self._later(message))
        else:
            del self.pending[message["id"]]
            self.verdicts += 1

    async def _later(self, message: Json) -> None:
        await asyncio.sleep(0.1)
        if self._socket is not None and message["id"] in self.pending:
            await self._dispatch(message)

    # -- POST ------------------------------------------------------------------------------------------------------------

    async def _post_one(self, message: Json) -> None:
        """One operation beside the socket. Without an answer it stays pending, and is repeated by either way."""
        self._posting.add(message["id"])
        try:
            await self._post([message], None)
        finally:
            self._posting.discard(message["id"])
        if message["id"] in self.pending and self._socket is not None:
            await self._later(message)

    async def _poll(self) -> None:
        """All there is without a socket: operations up, what was missed down."""
        while self.composing and len(self.pending) < self.window:
            type_, payload = self.composer.operation(self.position, self.epoch)
            message = {"type": type_, "id": self.composer.id(), "userId": self.user, "payload": payload}
            self.pending[message["id"]] = message
        if not await self._post(list(self.pending.values()), self.position):
            raise ConnectionError("no answer")

    async def _post(self, messages: list[Json], since: int | None) -> bool:
        if self._is_ending:
            raise ConnectionError("the storm is over")
        operations = [{"operationId": each["id"], "type": each["type"], "payload": each["payload"]} for each in messages]
        body: Json = {"type": "SYNC", "operations": operations, "dashboardId": self.dashboard}
        body["deviceId"] = self.witness.device_id
        if self.epoch:
            body["epoch"] = self.epoch
        if since is not None:
            body["since"] = since
        self.witness.posted(body)
        answer = await self._answer_to(body)
        self.witness.answered(body, answer)
        if answer is not None and "results" in answer:
            for result in answer["results"]:
                self._verdict_by_post(result)
            if since is not None:
                self._synced(answer["sync"])
        self.changed.set()
        return answer is not None

    async def _answer_to(self, body: Json) -> Json | None:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.user}"}
        request = HTTPRequest(f"{self.api}?{urlencode({'userId': self.user})}", "POST", headers, json.dumps(body))
        call = AsyncHTTPClient().fetch(request, raise_error=False)
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            answer: Json = json.loads((await call).body)
        except (*GONE, ValueError):
            return None
        return answer

    def _verdict_by_post(self, result: Json) -> None:
        """As ``_verdict``, but it moves no position."""
        if result["status"] == "error":
            if result.get("code") not in ("UNAVAILABLE", "INTERNAL"):
                self._refused(result["operationId"], result)
            return
        if self.pending.pop(result["operationId"], None) is not None:
            self.verdicts += 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        async def guarded() -> None:
            with contextlib.suppress(*GONE):  # the session notices it too
                await work

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
