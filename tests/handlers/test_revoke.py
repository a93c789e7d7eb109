"""The admin's door (PROTOCOL section 6): what is connected is gone, and what was revoked opens nothing, at whatever door."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from tornado.httpclient import HTTPResponse

from tests.auth import forgery
from tests.auth.forgery import SECRET
from tests.handlers.conftest import House, OpenHouse, ended, hear, say, turned_away
from tornado_rt.auth import REFUSAL
from tornado_rt.errors import Unavailable
from tornado_rt.room import Room

BOSS = {"sub": "boss", "dashboards": {"*": "admin"}, "jti": "t-boss"}
NOBODY = {"error": REFUSAL, "code": "UNAUTHORIZED"}


def token(**claims: Any) -> str:
    return forgery.token(**{"exp": int(time.time()) + 3_600, "iat": int(time.time()) - 1, "jti": "t1", **claims})


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


async def strict(open_house: OpenHouse, **settings: Any) -> House:
    house: House = await open_house(auth="jwt", jwt_secret=SECRET, **settings)
    return house


async def revoke(house: House, body: Any, **claims: Any) -> HTTPResponse:
    return await house.fetch("/api/realtime/revoke", body=body, headers=bearer(**{**BOSS, **claims}))


@pytest.mark.parametrize("is_mounted", [False, True])
@pytest.mark.parametrize("body", [{"userId": "anna"}, {"tokenId": "t1"}, {"dashboardId": "sales"}])
async def test_what_is_revoked_is_gone_and_comes_no_more(open_house: OpenHouse, is_mounted: bool, body: dict[str, str]) -> None:
    """By WebSocket, by POST, by PING; the answer says how many were closed. Others stay."""
    house = await strict(open_house, is_mounted=is_mounted)
    anna = await house.member(f"dashboardId=sales&token={token()}")
    bert = await house.member(f"dashboardId=ops&token={token(sub='bert', jti='t2', dashboards={'ops': 'editor'})}")
    answer = await revoke(house, body)
    said = json.loads(answer.body)
    assert (answer.code, said["revoked"], said["closed"]) == (200, body, 1)
    payload, end = await turned_away(anna)
    assert (payload, end) == ({"code": 1008, "reason": "Unauthorized", "reconnect": False}, (1008, "Unauthorized"))
    assert (await turned_away(await house.connect(f"dashboardId=sales&token={token()}")))[1] == (1008, "Unauthorized")
    sync = {"type": "SYNC", "dashboardId": "sales", "operations": []}
    answer = await house.fetch("/api/realtime", body=sync, headers=bearer())
    assert (answer.code, json.loads(answer.body)) == (401, NOBODY)
    await say(bert, "PING", user="bert")
    assert (await hear(bert))["type"] == "PONG"


async def test_a_token_that_was_issued_afterwards_is_good(open_house: OpenHouse) -> None:
    house = await strict(open_house)
    await revoke(house, {"userId": "anna"})
    await house.member(f"dashboardId=sales&token={token(iat=int(time.time()) + 2)}")


async def test_a_revoked_admin_is_nobody(open_house: OpenHouse) -> None:
    """In the same words as a forger."""
    house = await strict(open_house)
    assert (await revoke(house, {"tokenId": "t-boss"})).code == 200
    answer = await revoke(house, {"userId": "anna"})
    assert (answer.code, json.loads(answer.body)) == (401, NOBODY)
    for path in ("", "/stats"):
        answer = await house.fetch(f"/api/realtime{path}", headers=bearer(**BOSS))
        assert (answer.code, json.loads(answer.body)) == (401, NOBODY)


async def test_what_is_revoked_during_a_handshake_does_not_slip_in(
    open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the dashboard is being read from the store, for instance."""
    house = await strict(open_house)
    asked, go_on = asyncio.Event(), asyncio.Event()
    load = house.server._load

    async def slowly(dashboard_id: str) -> Room:
        asked.set()
        await go_on.wait()
        return await load(dashboard_id)

    monkeypatch.setattr(house.server, "_load", slowly)
    coming = asyncio.ensure_future(house.connect(f"dashboardId=sales&token={token()}"))
    await asked.wait()
    assert json.loads((await revoke(house, {"userId": "anna"})).body)["closed"] == 0
    go_on.set()
    assert (await turned_away(await coming))[1] == (1008, "Unauthorized")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "userId"),
        ({"userId": "anna", "tokenId": "t1"}, "userId"),
        ({"userId": ""}, "userId"),
        ({"userId": 7}, "userId"),
        ({"dashboardId": "a\nb"}, "dashboardId"),
        ({"tokenId": "x" * 513}, "tokenId"),
        ({"everybody": True}, "userId"),
    ],
)
async def test_what_makes_no_sense_revokes_nobody(open_house: OpenHouse, body: Any, path: str) -> None:
    house = await strict(open_house)
    answer = await revoke(house, body)
    said = json.loads(answer.body)
    assert (answer.code, said["code"], said["details"][0]["path"]) == (400, "INVALID_MESSAGE", path)
    assert said["error"].startswith(path)


async def test_the_admin_hears_where_it_could_not_be_kept(open_house: OpenHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing was closed: it is to be tried again."""
    house = await strict(open_house)
    anna = await house.member(f"dashboardId=sales&token={token()}")

    async def fail(*_: object) -> None:
        raise Unavailable("the disk is full", retry_after_ms=2_000)

    monkeypatch.setattr(house.server.store, "commit", fail)
    answer = await revoke(house, {"userId": "anna"})
    assert (answer.code, json.loads(answer.body)["code"], answer.headers["Retry-After"]) == (503, "UNAVAILABLE", "2")
    await say(anna, "PING")
    assert (await hear(anna))["type"] == "PONG"


async def test_in_trust_mode_it_only_disconnects(house: House) -> None:
    """A name is no token: it may come back at once, or anybody could lock everybody out for a month."""
    anna = await house.member()
    assert json.loads((await house.fetch("/api/realtime/revoke?userId=bert", body={"userId": "anna"})).body)["closed"] == 1
    assert (await hear(anna))["type"] == "DISCONNECT"
    assert await ended(anna) == (1008, "Unauthorized")
    await house.member()
