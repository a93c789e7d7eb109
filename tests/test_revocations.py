"""Who may no longer come in: which tokens a revocation is about, and that it outlives the process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pytest

from tests.hall import Clock, Hall, Trouble, TroubledStore
from tornado_rt.auth import MAX_LIFE_SECONDS, Identity
from tornado_rt.errors import Unavailable
from tornado_rt.protocol.codec import is_valid_id
from tornado_rt.revocations import LOG, RETENTION_SECONDS, Revocation, Revocations
from tornado_rt.store.base import Outcome, Record, Store, Unknown
from tornado_rt.store.memory import MemoryStore
from tornado_rt.store.sqlite import SqliteStore

Kind = Literal["userId", "tokenId", "dashboardId"]
NOW = Clock().now


def token_of(user: str = "anna", issued_at: float | None = NOW - 60, token_id: str | None = "t1") -> Identity:
    return Identity(user, {"*": "editor"}, NOW + 3_600, token_id, issued_at)


def revocation(kind: Kind = "userId", value: str = "anna", at: float = NOW) -> Revocation:
    return Revocation(kind, value, at, at + RETENTION_SECONDS)


async def after(*revoked: Revocation, store: Store | None = None) -> Revocations:
    revocations = Revocations(store or MemoryStore("epoch-1", lambda: NOW))
    await revocations.load(NOW)
    for each in revoked:
        await revocations.add(each)
    return revocations


@pytest.mark.parametrize(
    ("revoked", "identity", "dashboard", "is_refused"),
    [
        pytest.param(revocation(), token_of(), "sales", True, id="the user"),
        pytest.param(revocation(), token_of("bert"), "sales", False, id="another user"),
        pytest.param(revocation(), token_of(), None, True, id="the user, on no dashboard"),
        pytest.param(revocation(), token_of(issued_at=NOW + 1), "sales", False, id="issued afterwards"),
        pytest.param(revocation(), token_of(issued_at=NOW), "sales", True, id="issued in the same moment"),
        pytest.param(revocation(), token_of(issued_at=None), "sales", True, id="nobody knows when issued"),
        pytest.param(revocation("tokenId", "t1"), token_of(), "sales", True, id="the token"),
        pytest.param(revocation("tokenId", "t1"), token_of(issued_at=NOW + 9), "sales", True, id="the token, whenever issued"),
        pytest.param(revocation("tokenId", "t1"), token_of(token_id="t2"), "sales", False, id="another token of that user"),
        pytest.param(revocation("tokenId", "t1"), token_of(token_id=None), "sales", False, id="a token without id"),
        pytest.param(revocation("dashboardId", "sales"), token_of("bert"), "sales", True, id="the dashboard, for all"),
        pytest.param(revocation("dashboardId", "sales"), token_of(), "ops", False, id="another dashboard"),
        pytest.param(revocation("dashboardId", "sales"), token_of(), None, False, id="on no dashboard"),
        pytest.param(revocation("dashboardId", "sales"), token_of(issued_at=NOW + 1), "sales", False, id="for a new token"),
        pytest.param(revocation("userId", "t1"), token_of(), "t1", False, id="kinds are not mixed up"),
    ],
)
async def test_what_a_revocation_is_about(
    revoked: Revocation, identity: Identity, dashboard: str | None, is_refused: bool
) -> None:
    assert (await after(revoked)).refuses(identity, dashboard, NOW + 1) is is_refused


async def test_an_identity_that_never_ends_is_no_tokens() -> None:
    """Of ``RT_AUTH=trust``: it could never come back, and anybody could lock out anybody."""
    revocations = await after(revocation(), revocation("dashboardId", "sales"))
    assert not revocations.refuses(Identity("anna", {"*": "admin"}), "sales", NOW)


async def test_a_revocation_outlives_every_token_that_it_is_about() -> None:
    """However long a token may live; then it is forgotten."""
    assert RETENTION_SECONDS > MAX_LIFE_SECONDS + 10
    revocations = await after(revocation())
    last = token_of(issued_at=NOW)
    assert revocations.refuses(last, "sales", NOW + MAX_LIFE_SECONDS + 10)
    assert not revocations.refuses(last, "sales", NOW + RETENTION_SECONDS)
    assert revocations._known == {}


async def test_the_newest_of_one_kind_and_value_counts() -> None:
    revocations = await after(revocation(at=NOW + 10), revocation(at=NOW))
    assert revocations.refuses(token_of(issued_at=NOW + 5), "sales", NOW + 20)


async def test_it_outlives_the_process(tmp_path: Path) -> None:
    """In the file, beside the dashboards; those that are over are not loaded again."""

    def make() -> SqliteStore:
        return SqliteStore(tmp_path / "rt.db", lambda: "epoch-1", lambda: NOW)

    store = make()
    await store.start()
    revocations = await after(store=store)
    await asyncio.gather(*[revocations.add(revocation(value=f"user-{number}")) for number in range(20)])
    await revocations.add(Revocation("userId", "long ago", NOW - 9, NOW - 1))
    await store.close()
    again = make()
    await again.start()
    loaded = await after(store=again)
    assert all(loaded.refuses(token_of(f"user-{number}"), None, NOW) for number in range(20))
    assert len(loaded._known) == 20
    await loaded.add(revocation(value="one more"))
    await again.close()


class OddStore(MemoryStore):
    """Answers as often as there are ``answers`` with those, before it does what it should."""

    answers: list[Outcome | Exception]

    async def commit(
        self, dashboard_id: str, epoch: str, seen: int, reads: Mapping[str, int], records: Sequence[Record]
    ) -> Outcome:
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        return await super().commit(dashboard_id, epoch, seen, reads, records)


def odd_store(*answers: Outcome | Exception) -> OddStore:
    store = OddStore("epoch-1", lambda: NOW)
    store.answers = list(answers)
    return store


async def test_where_the_store_does_not_know_it_is_asked_again() -> None:
    store = odd_store(Unknown())
    revocations = await after(revocation(), store=store)
    assert revocations.refuses(token_of(), None, NOW)
    assert (await after(store=store)).refuses(token_of(), None, NOW)


@pytest.mark.parametrize("answers", [[Unknown()] * 3, [Unavailable("full")]])
async def test_what_cannot_be_kept_is_not_in_force(answers: list[Outcome | Exception]) -> None:
    """Whoever revokes has to hear of it, and to try again."""
    revocations = await after(store=odd_store(*answers))
    with pytest.raises(Unavailable):
        await revocations.add(revocation())
    assert not revocations.refuses(token_of(), None, NOW)


async def test_a_log_that_was_lost_takes_no_revocation_with_it() -> None:
    """What this process knows stays in force, and new ones go into the new log."""
    store = MemoryStore("epoch-1", lambda: NOW)
    revocations = await after(revocation(), store=store)
    store.lose("epoch-2")
    await revocations.add(revocation(value="bert"))
    assert revocations.refuses(token_of(), None, NOW)
    assert (await after(store=store)).refuses(token_of("bert"), None, NOW)


async def test_another_processs_revocations_come_with_the_next_of_our_own() -> None:
    store = MemoryStore("epoch-1", lambda: NOW)
    ours, theirs = await after(store=store), await after(store=store.peer())
    await theirs.add(revocation(value="bert"))
    await ours.add(revocation())
    assert ours.refuses(token_of("bert"), None, NOW)
    await theirs.add(revocation(value="carl"))
    assert theirs.refuses(token_of(), None, NOW)


# A whole server


@pytest.mark.parametrize(("kind", "value"), [("userId", "anna"), ("tokenId", "t1"), ("dashboardId", "sales")])
async def test_those_who_are_meant_are_gone_when_it_is_durable(kind: Kind, value: str) -> None:
    hall = Hall()
    anna = await hall.join("anna", dashboard_id="sales", identity=token_of())
    bert = await hall.join("bert", dashboard_id="ops", identity=token_of("bert", token_id="t2"))
    assert await hall.server.revoke(kind, value) == 1
    assert (anna.socket.closed_with, bert.socket.closed_with) == ((1008, "Unauthorized"), None)
    goodbye = anna.take()[-1]
    assert (goodbye["type"], goodbye["payload"]) == ("DISCONNECT", {"code": 1008, "reason": "Unauthorized", "reconnect": False})


async def test_nobody_goes_where_it_could_not_be_kept() -> None:
    clock = Clock()
    store = TroubledStore("epoch-1", clock.time)
    hall = Hall(store, clock)
    (anna,) = await hall.people("anna")
    for failure in (Unavailable("full"), Trouble("a bug")):
        store.failures = [failure]
        with pytest.raises(type(failure)):
            await hall.server.revoke("userId", "anna")
    assert anna.socket.closed_with is None


async def test_a_server_that_starts_knows_what_was_revoked() -> None:
    hall = Hall()
    await hall.server.revoke("userId", "anna")
    again = Hall(hall.store.peer(), hall.clock)
    await again.server.initialize()
    assert again.server.revocations.refuses(token_of(), None, hall.clock.time())
    await again.server.shutdown(0.0)


async def test_the_log_of_revocations_is_no_dashboard() -> None:
    """Its name cannot be said on the wire."""
    assert not is_valid_id(LOG)
