"""A toy of the server in one page, which can be broken on purpose: what the judge of histories is tested on.

It speaks the wire's messages by plain calls, keeps one dashboard, and has a "disk" that outlives a crash. Each name in
``Break`` takes one protection away.
"""

from __future__ import annotations

import copy
import random
from enum import Enum, auto
from typing import Any

from tornado_rt.loadtest.history import History
from tornado_rt.loadtest.witness import Witness

Json = dict[str, Any]


class Break(Enum):
    """One protection taken away."""

    ACK_BEFORE_COMMIT = auto()
    BROADCAST_BEFORE_COMMIT = auto()
    NO_DEDUPLICATION = auto()
    DUPLICATE_NOT_SAID = auto()
    REORDERED_BROADCASTS = auto()
    REPEATED_BROADCAST = auto()
    DROPPED_BROADCAST = auto()
    LOST_DELTA_ON_RESUME = auto()
    MERGED_FORGETS_DELETED = auto()
    SNAPSHOT_ONE_FIELD_WRONG = auto()
    STALE_OVERWRITE = auto()
    LATE_UPDATE_REVIVES = auto()
    NEEDLESS_CONFLICT = auto()
    REFUSED_BUT_APPLIED = auto()
    SEQ_SKIPPED = auto()
    ACK_WITH_WRONG_SEQ = auto()
    CHANGES_DIFFER = auto()
    OTHER_ORDER_THAN_TIME = auto()
    CONFLICT_SHOWS_UNCOMMITTED = auto()


class Toy:
    """The server. ``disk`` is what a crash leaves; everything else is made from it."""

    def __init__(self, broken: Break | None, rng: random.Random) -> None:
        self.broken = broken
        self.rng = rng
        self.disk: list[Json] = []  # log entries: {seq, userId, type, payload, device, key}
        self.sessions: list[Client] = []
        self.held: list[Json] = []
        self.restart()

    def restart(self) -> None:
        self.fields: dict[str, dict[str, tuple[Any, int, str, str]]] = {}  # document -> field -> value, seq, user, device
        self.gone: dict[str, int] = {}
        self.versions: dict[str, int] = {}
        self.verdicts: dict[tuple[str, str], Json] = {}
        self.log: list[Json] = []
        self.skipped = 0
        for entry in self.disk:
            self._fold(entry)

    def crash(self) -> None:
        self.held.clear()
        for client in list(self.sessions):
            client.cut()
        self.restart()

    @property
    def seq(self) -> int:
        return len(self.log) + self.skipped

    def is_broken(self, what: Break, one_in: int = 4) -> bool:
        return self.broken is what and self.rng.randrange(one_in) == 0

    # -- what clients call -----------------------------------------------------------------------------------------------

    def connect(self, client: Client, since: int | None) -> Json:
        self.sessions.append(client)
        payload: Json = {"epoch": "e", "seq": self.seq}
        if since is not None:
            payload["sync"] = self.sync(since)
        return payload

    def sync(self, since: int) -> Json:
        head = {"epoch": "e", "seq": self.seq}
        if since == 0 or since > self.seq:
            return {**head, "mode": "snapshot", **self._documents(set(self.fields))}
        missed = [entry for entry in self.log if entry["seq"] > since]
        if len(missed) > 6:
            changed = {entry["payload"]["widgetId"] for entry in missed}
            deleted = sorted(name for name in changed if name not in self.fields)
            if self.broken is Break.MERGED_FORGETS_DELETED:
                deleted = []
            merged = self._documents({name for name in changed if name in self.fields})
            return {**head, "mode": "merged", "fromSeq": since, **merged, "deleted": {"widgets": deleted, "layouts": []}}
        if missed and self.is_broken(Break.LOST_DELTA_ON_RESUME):
            missed.pop()
        return {**head, "mode": "delta", "operations": [self._change(entry) for entry in missed]}

    def message(self, sender: Client, message: Json) -> Json | None:
        """Returns the answer, or None where it is held back until the commit."""
        key = (sender.user, message["id"])
        payload = message["payload"]
        if key in self.verdicts and self.broken is not Break.NO_DEDUPLICATION:
            said = {} if self.broken is Break.DUPLICATE_NOT_SAID else {"duplicate": True}
            return {**self.verdicts[key], **said}
        refused = payload.get("data", {}).get("bad")
        if refused and not self.is_broken(Break.REFUSED_BUT_APPLIED):
            return {"type": "NACK", "code": "INVALID_MESSAGE"}
        conflict = self._conflict(sender, payload)
        if conflict is not None:
            self.verdicts[key] = conflict
            return conflict
        if message["type"] == "WIDGET_DELETE" and payload["widgetId"] not in self.fields:
            return {"type": "NACK", "code": "NOT_FOUND"}
        entry = {"userId": sender.user, "type": message["type"], "payload": payload, "device": sender.device, "key": key}
        if self.is_broken(Break.SEQ_SKIPPED, 30):
            self.skipped += 1
        if self.is_broken(Break.OTHER_ORDER_THAN_TIME) and self.log and not self.held:
            self.held.append(entry)  # will be written behind what comes after it, though it is acknowledged first
            return None
        return self._write(sender, entry, refused)

    def _write(self, sender: Client, entry: Json, refused: bool) -> Json:
        entry["seq"] = self.seq + 1
        lost = self.rng.randrange(5) == 0  # the process dies before the disk has it: only who spoke too early is found out
        early = self.broken in (Break.ACK_BEFORE_COMMIT, Break.BROADCAST_BEFORE_COMMIT, Break.CONFLICT_SHOWS_UNCOMMITTED)
        if early and lost:
            self._fold(entry)
            if self.broken is Break.BROADCAST_BEFORE_COMMIT:
                self._broadcast(sender, entry)
            return {"type": "LOST", "ack": self.broken is Break.ACK_BEFORE_COMMIT, "seq": entry["seq"]}
        self.disk.append(entry)
        self._fold(entry)
        self._broadcast(sender, entry)
        if refused:
            return {"type": "NACK", "code": "INVALID_MESSAGE"}
        wrong = self.is_broken(Break.ACK_WITH_WRONG_SEQ, 10) and entry["seq"] > 1
        return {"type": "ACK", "seq": entry["seq"] - wrong}

    # -- inside ----------------------------------------------------------------------------------------------------------

    def _conflict(self, sender: Client, payload: Json) -> Json | None:
        base, name = payload.get("baseVersion"), payload["widgetId"]
        if base is None or self.broken is Break.STALE_OVERWRITE:
            return None
        head = {"type": "CONFLICT_DETECTED", "kind": "widget", "widgetId": name, "conflictId": "c"}
        if name not in self.fields:
            if self.gone.get(name, 0) <= base or self.broken is Break.LATE_UPDATE_REVIVES:
                return None
            return {**head, "fields": [], "currentVersion": self.gone[name], "remote": None}
        changed = []
        for field, (value, seq, user, device) in self.fields[name].items():
            touched = field in payload.get("data", ()) or "data" not in payload
            own = (user, device) == (sender.user, sender.device) and not self.is_broken(Break.NEEDLESS_CONFLICT)
            if touched and seq > base and not own and payload.get("data", {}).get(field, "") != value:
                changed.append(field)
        if self.gone.get(name, 0) > base and self.broken is not Break.LATE_UPDATE_REVIVES:  # removed with a former life of it
            changed += [field for field in payload.get("data", ()) if field not in self.fields[name]]
        if not changed:
            return None
        remote = {field: self.fields[name][field][0] for field in changed if field in self.fields[name]}
        return {**head, "fields": changed, "currentVersion": self.versions[name], "remote": remote}

    def _fold(self, entry: Json) -> None:
        self.log.append(entry)
        self.skipped = entry["seq"] - len(self.log)
        name, seq = entry["payload"]["widgetId"], entry["seq"]
        if entry["type"] == "WIDGET_DELETE":
            self.fields.pop(name, None)
            self.gone[name] = seq
        else:
            fields = self.fields.setdefault(name, {})
            for field, value in entry["payload"]["data"].items():
                fields[field] = (value, seq, entry["userId"], entry["device"])
        self.versions[name] = seq
        self.verdicts[entry["key"]] = {"type": "ACK", "seq": seq}

    def _change(self, entry: Json) -> Json:
        payload = {key: value for key, value in entry["payload"].items() if key in ("widgetId", "data")}
        change = {key: entry[key] for key in ("seq", "userId", "type")}
        return copy.deepcopy({**change, "payload": {**payload, "seq": entry["seq"], "version": entry["seq"]}})

    def _documents(self, names: set[str]) -> Json:
        widgets = {}
        for name in sorted(names):
            data = {field: value for field, (value, *_) in self.fields[name].items()}
            if data and self.is_broken(Break.SNAPSHOT_ONE_FIELD_WRONG):
                data.popitem()
            widgets[name] = {"data": data, "version": self.versions[name]}
        return {"widgets": widgets, "layouts": {}}

    def _broadcast(self, sender: Client, entry: Json) -> None:
        for client in self.sessions:
            if client is sender or self.is_broken(Break.DROPPED_BROADCAST, 20):
                continue
            change = self._change(entry)
            if change["payload"].get("data") and self.is_broken(Break.CHANGES_DIFFER, 20):
                change["payload"]["data"] = {"other": 1}
            if self.is_broken(Break.REORDERED_BROADCASTS, 10) and client.late is None:
                client.late = change
                continue
            client.hear(change)
            if self.is_broken(Break.REPEATED_BROADCAST, 10):
                client.hear(change)
            if client.late is not None:
                client.hear(client.late)
                client.late = None


class Client:
    """Sends operations and tells a ``Witness`` everything; knows its position as PROTOCOL section 5, 3 has it."""

    def __init__(self, name: str, user: str, toy: Toy, history: History) -> None:
        self.user, self.device, self.toy = user, f"device-{name}", toy
        self.witness = Witness(history, name, user_id=user, dashboard_id="d", device_id=self.device)
        self.position: int | None = None
        self.late: Json | None = None
        self.retry: list[Json] = []  # sent, and no verdict yet
        self.count = 0
        self.name = name

    @property
    def online(self) -> bool:
        return self in self.toy.sessions

    def join(self) -> None:
        since = 0 if self.position is None else self.position
        connect = self.toy.connect(self, since)
        self.witness.received({"type": "CONNECT", "payload": connect}, since=since)
        self.position = connect["seq"]

    def cut(self) -> None:
        self.toy.sessions.remove(self)
        self.late = None
        self.witness.closed()

    def hear(self, change: Json) -> None:
        self.witness.received(change)
        self.position = change["seq"]

    def act(self, rng: random.Random) -> None:
        """Send a new operation, or first of all one that has no verdict yet."""
        message = self.retry.pop(0) if self.retry else self.compose(rng)
        self.send(message, answer_lost=rng.randrange(6) == 0)

    def compose(self, rng: random.Random) -> Json:
        self.count += 1
        payload: Json = {"widgetId": f"w{rng.randrange(3)}"}
        if rng.randrange(8):
            payload["data"] = {f"f{rng.randrange(3)}": f"{self.name}:{self.count}"}
            if rng.randrange(10) == 0:
                payload["data"]["bad"] = True
        if rng.randrange(3):
            payload["baseVersion"] = max(0, (self.position or 0) - rng.choice((0, 0, 0, 2, 5)))
        type_ = "WIDGET_UPDATE" if "data" in payload else "WIDGET_DELETE"
        return {"type": type_, "id": f"{self.name}-{self.count}", "payload": payload}

    def send(self, message: Json, *, answer_lost: bool = False) -> None:
        toy = self.toy
        self.witness.sent(message)
        answer = toy.message(self, message)
        if answer is None:  # held back
            self.answer(message, {"type": "ACK", "seq": toy.seq + 1})
            filler = {"userId": self.user, "type": "WIDGET_UPDATE", "device": self.device, "key": ("", "")}
            toy._write(self, {**filler, "payload": {"widgetId": "w9", "data": {"x": toy.seq}}}, refused=False)
            toy._write(self, toy.held.pop(), refused=False)
        elif answer["type"] == "LOST":
            if answer["ack"]:
                self.answer(message, {"type": "ACK", "seq": answer["seq"]})
            else:
                self.retry.append(message)
            for other in list(toy.sessions):
                if toy.broken is Break.CONFLICT_SHOWS_UNCOMMITTED and other is not self:
                    other.send(other.compose_against(message))
            toy.crash()
        elif answer_lost:
            self.retry.append(message)
            self.cut()
        else:
            self.answer(message, answer)

    def compose_against(self, message: Json) -> Json:
        self.count += 1
        payload = {**message["payload"], "baseVersion": 0}
        if "data" in payload:
            payload["data"] = dict.fromkeys(payload["data"], f"{self.name}:{self.count}")
        return {"type": message["type"], "id": f"{self.name}-{self.count}", "payload": payload}

    def answer(self, message: Json, answer: Json) -> None:
        payload = {key: value for key, value in answer.items() if key != "type"}
        self.witness.received({"type": answer["type"], "correlationId": message["id"], "payload": payload})
        if answer["type"] == "ACK" and answer["seq"] == (self.position or 0) + 1:
            self.position = answer["seq"]


def play(broken: Break | None, seed: int, rounds: int = 300) -> History:
    """A random afternoon of four clients (two are tabs of one user) with cuts and crashes, to its settled end."""
    rng = random.Random(seed)
    history, toy = History(), Toy(broken, rng)
    clients = [Client(name, user, toy, history) for name, user in (("a", "ann"), ("b", "bob"), ("c", "cyd"), ("a2", "ann"))]
    for _ in range(rounds):
        client = rng.choice(clients)
        if not client.online:
            client.join()
        elif rng.randrange(15) == 0:
            client.cut()
        elif rng.randrange(60) == 0:
            toy.crash()
        else:
            client.act(rng)
    for client in clients:
        while client.retry or not client.online:
            if not client.online:
                client.join()
            else:
                client.send(client.retry.pop(0))
    clients[0].witness.finished(toy.sync(0))
    return history
