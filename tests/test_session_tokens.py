"""A token while its connection is open: its end, and a fresh one in its place by PING (PROTOCOL section 1)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.auth.forgery import CLAIMS, NOW, authenticator, token
from tests.hall import Hall, Member, turn
from tornado_rt.auth import REFUSAL, Identity, TrustAuthenticator
from tornado_rt.handlers.gate import Gate
from tornado_rt.handlers.visitor import renewing
from tornado_rt.heartbeat import SLICES

LEEWAY = 10


def identity(**more: Any) -> Identity:
    return Identity("anna", {"sales": "editor"}, **{"expires_at": NOW + 60.0, "token_id": "t1", "issued_at": NOW - 1.0, **more})


async def with_token(authorize: Any = None, **more: Any) -> tuple[Hall, Member]:
    """Anna, with a token that ends in a minute; the server takes tokens by PING."""
    hall = Hall()
    hall.server.hall.renew = renewing(hall.server, Gate(authenticator(clock=hall.clock.time), authorize=authorize))
    anna = await hall.join("anna", dashboard_id="sales", identity=identity(**more))
    anna.take()
    return hall, anna


def interval(hall: Hall) -> None:
    """A whole heartbeat interval passes, of 25 s."""
    for _ in range(SLICES):
        hall.clock.advance(hall.server.heartbeat.tick_seconds)
        hall.server.heartbeat.tick()


def lifetime(hall: Hall, member: Member) -> float:
    """Seconds, from the beginning, until the connection of a member who does not go silent is ended."""
    while member.socket.closed_with is None:
        member.socket.heard = True
        member.socket.progress += 1
        hall.clock.advance(hall.server.heartbeat.tick_seconds)
        hall.server.heartbeat.tick()
        assert hall.clock.now < NOW + 1_000
    return hall.clock.now - NOW


async def renew(anna: Member, text: str) -> dict[str, Any]:
    return await anna.answer(anna.say("PING", {"token": text}))


# The end


async def test_whoevers_token_has_ended_is_gone_within_one_heartbeat() -> None:
    """DISCONNECT and 1008 ``Token expired``; with a new token one may come back. Once, and nothing after it."""
    hall, anna = await with_token()
    assert 60 <= lifetime(hall, anna) <= 60 + 25
    assert anna.socket.closed_with == (1008, "Token expired")
    *pings, goodbye = anna.take()
    assert {message["type"] for message in pings} == {"PING"}
    assert (goodbye["type"], goodbye["payload"]) == ("DISCONNECT", {"code": 1008, "reason": "Token expired", "reconnect": True})
    assert (hall.server.heartbeat.expired, hall.server.heartbeat.missed, anna.socket.pings) == (1, 0, len(pings))


async def test_it_ends_for_whoever_reads_nothing_too() -> None:
    hall, anna = await with_token()
    anna.socket.is_full = True
    anna.say("PING")
    assert 60 <= lifetime(hall, anna) <= 60 + 25
    assert anna.socket.closed_with == (1008, "Token expired")


async def test_one_end_is_enough() -> None:
    """Silent for too long as well: it is ended, and counted, once."""
    hall, anna = await with_token()
    anna.socket.heard = False
    for _ in range(4):
        interval(hall)
    assert anna.socket.closed_with == (1008, "Token expired")
    assert hall.server.heartbeat.missed == 0


async def test_who_has_no_token_stays() -> None:
    hall, anna = await with_token(expires_at=None)
    for _ in range(10):
        anna.socket.heard = True
        interval(hall)
    assert anna.socket.closed_with is None


# A fresh one


async def test_a_fresh_token_takes_the_place_of_the_old_one() -> None:
    """Without reconnecting: answered by a PONG, and the connection goes on until the new one ends."""
    hall, anna = await with_token()
    pong = await renew(anna, token(exp=NOW + 100))
    assert (pong["type"], set(pong["payload"])) == ("PONG", {"serverTime"})
    assert 100 + LEEWAY <= lifetime(hall, anna) <= 100 + LEEWAY + 25
    assert anna.socket.closed_with == (1008, "Token expired")


async def test_it_brings_its_own_permissions() -> None:
    hall, anna = await with_token()
    assert (await renew(anna, token(dashboards={"sales": "viewer"})))["type"] == "PONG"
    assert (await anna.answer(anna.update({"value": 1})))["payload"]["code"] == "FORBIDDEN"
    assert (await renew(anna, token(dashboards={"sales": "editor"})))["type"] == "PONG"
    assert (await anna.answer(anna.update({"value": 1})))["type"] == "ACK"
    assert hall.server.rooms["sales"].dashboard.seq == 1


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(token(sub="bert"), id="another's"),
        pytest.param(token(dashboards={"ops": "editor"}), id="for another dashboard"),
        pytest.param(token(dashboards={}), id="for none"),
        pytest.param(token(dashboards=None), id="without dashboards"),
        pytest.param(token(exp=NOW - LEEWAY - 1), id="expired"),
        pytest.param(token(key="x" * 32), id="forged"),
        pytest.param(token(aud="another service"), id="foreign"),
        pytest.param("anna", id="a name"),
        pytest.param("x" * 8_192, id="as long as may be"),
    ],
)
async def test_a_token_that_is_no_good_changes_nothing(text: str) -> None:
    """NACK ``FORBIDDEN``; the connection stays as long as its own token."""
    hall, anna = await with_token()
    refusal = await renew(anna, text)
    assert (refusal["type"], refusal["payload"]["code"]) == ("NACK", "FORBIDDEN")
    assert text not in refusal["payload"]["error"]
    assert (anna.session.identity, anna.session.expires_at) == (identity(), NOW + 60)
    assert (await anna.answer(anna.update({"value": 1})))["type"] == "ACK"
    assert lifetime(hall, anna) <= 60 + 25
    assert anna.socket.closed_with == (1008, "Token expired")


@pytest.mark.parametrize("payload", [{"token": ""}, {"token": "x" * 8_193}, {"token": 1}])
async def test_what_is_no_token_is_no_message(payload: Any) -> None:
    _, anna = await with_token()
    answer = await anna.answer(anna.say("PING", payload))
    assert (answer["payload"]["code"], answer["payload"]["details"][0]["path"]) == ("INVALID_MESSAGE", "payload.token")


@pytest.mark.parametrize(("kind", "value"), [("tokenId", "t2"), ("userId", "anna"), ("dashboardId", "sales")])
async def test_a_revoked_token_renews_nothing(kind: Any, value: str) -> None:
    """Also over a connection that another token of the same user has opened since."""
    hall, _ = await with_token()
    await hall.server.revoke(kind, value)
    newer = identity(token_id="t3", issued_at=NOW + 1.0)
    hall.clock.advance(2)
    again = await hall.join("anna", dashboard_id="sales", identity=newer)
    refusal = await renew(again, token(jti="t2", iat=NOW - 1))
    assert (refusal["payload"]["code"], refusal["payload"]["error"]) == ("FORBIDDEN", REFUSAL)
    assert again.session.identity == newer


async def test_a_token_that_is_revoked_while_it_is_judged_renews_nothing() -> None:
    gate = asyncio.Event()

    async def think(*_: object) -> bool:
        await gate.wait()
        return True

    hall, anna = await with_token(think)
    id_ = anna.say("PING", {"token": token(jti="t2")})
    await turn()
    await hall.server.revoke("tokenId", "t2")
    gate.set()
    assert (await anna.answer(id_))["payload"]["code"] == "FORBIDDEN"
    assert anna.session.identity == identity()


async def test_whoever_leaves_while_his_token_is_judged_is_no_trouble() -> None:
    gate = asyncio.Event()

    async def think(*_: object) -> bool:
        await gate.wait()
        return True

    hall, anna = await with_token(think)
    anna.say("PING", {"token": token()})
    await turn()
    anna.leave()
    anna.socket.close(1001, "")
    gate.set()
    await turn()
    await turn()
    assert (hall.server.sessions, hall.server.hall.faults) == ({}, 0)


async def test_an_applications_rule_that_raises_is_our_fault_and_is_told() -> None:
    """One NACK, one line in the log; the token is not in it."""

    def fail(*_: object) -> bool:
        raise RuntimeError("a bug")

    hall, anna = await with_token(fail)
    text = token()
    with capture_logs() as lines:
        refusal = await renew(anna, text)
    assert refusal["payload"]["code"] == "INTERNAL"
    assert [line["event"] for line in lines] == ["message_failed"]
    assert text not in str(lines)
    assert hall.server.hall.faults == 1


async def test_in_trust_mode_a_token_is_a_name() -> None:
    hall = Hall()
    hall.server.hall.renew = renewing(hall.server, Gate(TrustAuthenticator()))
    (anna,) = await hall.people("anna")
    assert (await renew(anna, "anna"))["type"] == "PONG"
    assert (await renew(anna, "bert"))["payload"]["code"] == "FORBIDDEN"


async def test_where_there_are_no_tokens_none_is_taken() -> None:
    (anna,) = await Hall().people("anna")
    assert (await renew(anna, token()))["payload"]["code"] == "FORBIDDEN"


def test_the_tokens_of_this_file_are_good() -> None:
    """Else all refusals above would prove nothing."""
    assert CLAIMS["sub"] == "anna"
    assert CLAIMS["dashboards"] == {"sales": "editor"}
