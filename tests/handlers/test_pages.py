"""What pages of other origins may read, and in whose name they may speak."""

from __future__ import annotations

import json

import pytest

from tests.handlers.conftest import OpenHouse, hear, turned_away
from tornado_rt.handlers.gate import is_same_origin
from tornado_rt.handlers.realtime import description_of
from tornado_rt.protocol.schema import asyncapi, openapi

PAGE = "https://somewhere.example"


async def test_a_page_let_in_by_the_asterisk_may_not_send_cookies(open_house: OpenHouse) -> None:
    """Its answer names it, and never allows credentials: a browser then sends none, and hides what came all the same."""
    house = await open_house(allowed_origins="*")
    for path in ("/api/realtime?userId=anna", "/healthz", "/nothing"):
        answer = await house.fetch(path, headers={"Origin": PAGE})
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize("allowed", [PAGE, "*"])
async def test_a_page_by_name_may(open_house: OpenHouse, allowed: str) -> None:
    house = await open_house(allowed_origins=allowed)
    for origin in (house.base, *([PAGE] if allowed == PAGE else [])):
        answer = await house.fetch("/healthz", headers={"Origin": origin})
        assert answer.headers["Access-Control-Allow-Credentials"] == "true"


async def test_nor_does_its_visitors_cookie_count(open_house: OpenHouse) -> None:
    """Not even in trust mode; the guide's own way, without a page, stays."""
    house = await open_house(allowed_origins="*")
    cookie = {"Cookie": "userId=anna"}
    assert (await house.fetch("/api/realtime", headers=cookie)).code == 200
    assert (await house.fetch("/api/realtime", headers={**cookie, "Origin": PAGE})).code == 401
    assert (await turned_away(await house.connect("", additional_headers=cookie, origin=PAGE)))[1] == (1008, "Unauthorized")
    assert (await hear(await house.connect("", additional_headers=cookie, origin=house.base)))["type"] == "CONNECT"


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "http:///", "://localhost:3000", "localhost:3000", "null", ""])
def test_what_is_no_origin_is_nobodys(origin: str) -> None:
    assert not is_same_origin(origin, "localhost:3000")
    assert not is_same_origin(origin, "")


async def test_an_origin_that_is_none_is_403_and_no_mistake_of_ours(open_house: OpenHouse) -> None:
    house = await open_house()
    answer = await house.fetch("/healthz", headers={"Origin": "http://["})
    assert (answer.code, json.loads(answer.body)["code"], house.server.hall.faults) == (403, "FORBIDDEN", 0)


def test_a_description_is_made_once() -> None:
    """It takes a fifth of a second, and strangers may ask."""
    for make in (asyncapi, openapi):
        assert description_of(make) is description_of(make)
        assert json.loads(description_of(make)) == make()
