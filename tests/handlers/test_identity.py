"""Who comes in with a signed token, and what it may do, at every door (PROTOCOL sections 1 and 6)."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets

from tests.auth import forgery
from tests.auth.forgery import SECRET, hmac_sha256, pem, raw_token
from tests.handlers.conftest import House, OpenHouse, hear, say, turned_away
from tornado_rt import lifecycle
from tornado_rt.app import make_application, make_gate
from tornado_rt.auth import REFUSAL, Identity, TrustAuthenticator
from tornado_rt.handlers.gate import Authorize, Gate

UPDATE = {"widgetId": "w1", "data": {"value": 1}}


def token(**claims: Any) -> str:
    """A token that is good now."""
    return forgery.token(**{"exp": int(time.time()) + 3_600, **claims})


def bearer(**claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(**claims)}"}


def post(dashboard: str, *operations: str) -> dict[str, Any]:
    ops = [{"operationId": id_, "type": "WIDGET_UPDATE", "payload": UPDATE} for id_ in operations]
    return {"type": "SYNC", "dashboardId": dashboard, "operations": ops}


@pytest.fixture(params=["serve", "mounted"])
def strict(request: pytest.FixtureRequest, io_loop: IOLoop, open_house: OpenHouse) -> House:
    """A server that wants signed tokens, in both forms."""
    is_mounted = request.param == "mounted"
    opened: House = io_loop.run_sync(partial(open_house, is_mounted=is_mounted, auth="jwt", jwt_secret=SECRET))
    return opened


# Coming in


@pytest.mark.parametrize("place", ["query", "header", "subprotocols", "cookie"])
async def test_a_token_may_come_in_each_of_its_places(strict: House, place: str) -> None:
    text = token()
    match place:
        case "query":
            socket = await strict.connect(f"dashboardId=sales&token={text}")
        case "header":
            socket = await strict.connect("dashboardId=sales", additional_headers={"Authorization": f"Bearer {text}"})
        case "subprotocols":
            socket = await strict.connect("dashboardId=sales", subprotocols=["bearer", text])
            assert socket.subprotocol == "bearer"
        case _:
            headers = {"Cookie": f"token={text}; userId=bert"}
            socket = await strict.connect("dashboardId=sales", additional_headers=headers, origin=strict.base)
    connect = await hear(socket)
    assert (connect["type"], connect["userId"]) == ("CONNECT", "anna")
    assert connect["payload"]["permissions"] == ["read", "write"]


def forged() -> dict[str, str]:
    now = int(time.time())
    good = {"sub": "anna", "exp": now + 3_600, "dashboards": {"sales": "admin"}}
    header, claims, signature = token().split(".")
    return {
        "none at all": "",
        "a name": "anna",
        "no signature": raw_token({"alg": "none"}, good, lambda _: b"x"),
        "by a public key": raw_token({"alg": "HS256"}, good, hmac_sha256(pem("RSA").encode())),
        "by another secret": raw_token({"alg": "HS256"}, good, hmac_sha256(b"x" * 32)),
        "changed": f"{header}.{token(sub='boss').split('.')[1]}.{signature}",
        "cut": f"{header}.{claims}.",
        "expired": token(exp=now - 60),
        "not yet valid": token(nbf=now + 60),
        "for ever": token(exp=10**30),
        "for somebody else": token(aud="another service"),
        "nobody's": token(sub=""),
        "with a line break": token(sub="anna\r\nX: y"),
        "twice": raw_token({"alg": "HS256"}, b'{"sub":"anna","sub":"boss","exp":%d,"dashboards":{}}' % (now + 60)),
        "unheard-of role": token(dashboards={"sales": "owner"}),
        "too large": token(note="x" * 7_000),
    }


@pytest.mark.parametrize("kind", forged())
async def test_every_bad_token_gets_the_same_answer_and_changes_nothing(
    strict: House, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    headers = {"Authorization": f"Bearer {forged()[kind]}"}
    with capture_logs() as lines:
        for request in ({}, {"body": post("sales", "a")}):
            answer = await strict.fetch("/api/realtime", headers=headers, **request)
            assert (answer.code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert json.loads(answer.body) == {"error": REFUSAL, "code": "UNAUTHORIZED"}
        payload, end = await turned_away(await strict.connect("dashboardId=sales", additional_headers=headers))
    assert payload == {"code": 1008, "reason": "Unauthorized", "reconnect": False}
    assert end == (1008, "Unauthorized")
    assert strict.server.rooms == {}
    assert strict.server.get_stats()["clientCount"] == 0
    assert lines == []
    assert [record for record in caplog.records if record.name.startswith("tornado_rt")] == []


async def test_a_user_id_in_the_query_must_be_the_tokens(strict: House) -> None:
    await strict.member(f"dashboardId=sales&userId=anna&token={token()}")
    payload, _ = await turned_away(await strict.connect(f"dashboardId=sales&userId=bert&token={token()}"))
    assert payload["reason"] == "Unauthorized"


async def test_nobody_speaks_for_another(strict: House) -> None:
    socket = await strict.member(f"dashboardId=sales&token={token()}")
    await say(socket, "WIDGET_UPDATE", UPDATE, user="boss")
    assert (await hear(socket))["payload"]["code"] == "FORBIDDEN"


async def test_a_token_without_dashboards_is_told_what_it_lacks(strict: House) -> None:
    answer = await strict.fetch("/api/realtime", headers=bearer(dashboards=None))
    assert answer.code == 403
    assert "RT_JWT_DEFAULT_ROLE" in json.loads(answer.body)["error"]
    payload, end = await turned_away(await strict.connect(f"token={token(dashboards=None)}"))
    assert "RT_JWT_DEFAULT_ROLE" in payload.pop("error")
    assert payload == {"code": 1008, "reason": "Forbidden", "reconnect": False}
    assert end == (1008, "Forbidden")


async def test_the_default_role_is_for_tokens_without_dashboards(open_house: OpenHouse) -> None:
    house = await open_house(auth="jwt", jwt_secret=SECRET, jwt_default_role="viewer")
    connect = await hear(await house.connect(f"dashboardId=any&token={token(dashboards=None)}"))
    assert connect["payload"]["permissions"] == ["read"]


# What it may do there


async def test_forbidden_tells_nothing_about_existence(strict: House) -> None:
    """A dashboard that is there and one that is not: the same answers, and none is made by asking."""
    await strict.member(f"dashboardId=there&token={token(sub='bert', dashboards={'there': 'editor'})}")
    answers = []
    for name in ("there", "nowhere"):
        answer = await strict.fetch("/api/realtime", headers=bearer(), body=post(name, "a"))
        goodbye = await turned_away(await strict.connect(f"dashboardId={name}&token={token()}"))
        answers.append((answer.code, answer.body, goodbye))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403
    assert answers[0][2] == ({"code": 1008, "reason": "Forbidden", "reconnect": False}, (1008, "Forbidden"))
    assert list(strict.server.rooms) == ["there"]


@pytest.mark.parametrize(
    ("type_", "payload"),
    [
        ("WIDGET_UPDATE", UPDATE),
        ("WIDGET_DELETE", {"widgetId": "w1"}),
        ("WIDGET_DELETE", {"widgetId": "nowhere"}),
        ("LAYOUT_UPDATE", {"layout": {"a": 1}}),
        ("LAYOUT_RESTORE", {"layoutId": "nowhere"}),
        ("WIDGET_BATCH", {"operations": [{"operationId": "a", "type": "WIDGET_UPDATE", "payload": UPDATE}]}),
        ("SYNC_UPDATE", {"operations": [{"operationId": "a", "type": "WIDGET_UPDATE", "payload": UPDATE}]}),
        ("CONFLICT_RESOLVED", {"conflictId": "c", "resolution": "local", "widgetId": "w1", "data": {}, "baseVersion": 1}),
    ],
)
async def test_a_viewer_changes_nothing(open_house: OpenHouse, type_: str, payload: Any) -> None:
    house = await open_house(auth="jwt", jwt_secret=SECRET)
    editor = await house.member(f"dashboardId=sales&token={token(sub='bert')}")
    await say(editor, "WIDGET_UPDATE", UPDATE, user="bert")
    assert (await hear(editor))["type"] == "ACK"
    viewer = await house.member(f"dashboardId=sales&token={token(dashboards={'sales': 'viewer'})}")
    await say(viewer, type_, payload)
    nack = (await hear(viewer))["payload"]
    assert (nack["code"], nack["error"]) == ("FORBIDDEN", "you may read this dashboard, not change it")
    await say(viewer, "SYNC_REQUEST", id_="m2")
    state = (await hear(viewer))["payload"]
    assert (state["seq"], state["layouts"], state["widgets"]["w1"]["data"]) == (1, {}, {"value": 1})


async def test_a_viewer_may_poll_and_not_write_by_post(strict: House) -> None:
    headers = bearer(dashboards={"sales": "viewer"})
    assert (await strict.fetch("/api/realtime", headers=headers, body=post("sales", "a"))).code == 403
    answer = await strict.fetch_json("/api/realtime", headers=headers, body={**post("sales"), "since": 0})
    assert answer["sync"]["seq"] == 0


async def test_the_post_of_an_editor_is_its_tokens_user(strict: House) -> None:
    answer = await strict.fetch_json("/api/realtime", headers=bearer(), body=post("sales", "a"))
    assert answer["results"][0]["status"] == "success"
    assert strict.server.rooms["sales"].dashboard.seq == 1


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        (None, 401),
        ({"dashboards": {"sales": "admin"}}, 403),
        ({"dashboards": {"s*": "admin"}}, 403),
        ({"dashboards": {"*": "editor"}}, 403),
        ({"dashboards": {"*": "admin"}}, 200),
    ],
)
async def test_statistics_are_for_admins_of_the_whole_server(strict: House, claims: dict[str, Any] | None, status: int) -> None:
    headers = bearer(**claims) if claims is not None else {}
    assert (await strict.fetch("/api/realtime/stats", headers=headers)).code == status


# Cookies


@pytest.mark.parametrize(
    ("origin", "status"),
    [(None, 401), ("own", 200), ("https://app.example.com", 200), ("https://evil.example.com", 403), ("null", 403)],
)
async def test_a_cookie_counts_only_where_a_known_page_sends_it(open_house: OpenHouse, origin: str | None, status: int) -> None:
    """A foreign page can have the browser add our cookies to what it sends; it cannot take the Origin header away."""
    house = await open_house(auth="jwt", jwt_secret=SECRET, allowed_origins=("https://app.example.com",))
    headers = {"Cookie": f"token={token()}"}
    if origin is not None:
        headers["Origin"] = house.base if origin == "own" else origin
    assert (await house.fetch("/api/realtime", headers=headers)).code == status
    assert (await house.fetch("/api/realtime", headers=headers, body=post("sales", "a"))).code == status


async def test_where_any_page_may_connect_none_is_known(open_house: OpenHouse) -> None:
    house = await open_house(auth="jwt", jwt_secret=SECRET, allowed_origins=("*",))
    headers = {"Cookie": f"token={token()}", "Origin": "https://evil.example.com"}
    assert (await house.fetch("/api/realtime", headers=headers)).code == 401
    payload, _ = await turned_away(
        await house.connect("dashboardId=sales", additional_headers={"Cookie": headers["Cookie"]}, origin=headers["Origin"])
    )
    assert payload["reason"] == "Unauthorized"
    assert (await house.fetch("/api/realtime", headers={**bearer(), "Origin": headers["Origin"]})).code == 200


# An issuer that does not answer


async def test_while_no_key_is_known_everybody_is_asked_to_come_back(open_house: OpenHouse) -> None:
    [nobody] = bind_sockets(0, "127.0.0.1")
    url = f"http://127.0.0.1:{nobody.getsockname()[1]}/keys"
    nobody.close()
    house = await open_house(auth="jwt", jwks_url=url, jwt_algorithms=("RS256",))
    text = forgery.token("RS256", forgery.private_key("RSA"))
    answer = await house.fetch("/api/realtime", headers={"Authorization": f"Bearer {text}"})
    assert (answer.code, json.loads(answer.body)["code"]) == (503, "UNAVAILABLE")
    assert 1 <= int(answer.headers["Retry-After"]) <= 5
    payload, end = await turned_away(await house.connect(f"token={text}"))
    assert (payload["reconnect"], end) == (True, (1013, "Try again later"))
    assert (await house.fetch("/api/realtime", headers={"Authorization": "Bearer x"})).code == 401


# An application's own rules


class RuledHouse(House):
    """With a rule of the application's own."""

    def __init__(self, rule: Authorize, **settings: Any) -> None:
        super().__init__(is_mounted=True, **settings)
        self.rule = rule

    async def start(self) -> None:
        self.server = await lifecycle.initialize_realtime_server(self.settings)
        [listening] = bind_sockets(0, "127.0.0.1")
        self.port = listening.getsockname()[1]
        self.http_server = HTTPServer(make_application(self.server, make_gate(self.settings, authorize=self.rule)))
        self.http_server.add_socket(listening)


def rule(identity: Identity, dashboard_id: str, action: str) -> bool:
    """Nobody writes to the archive; strangers see nothing; nobody administers."""
    return identity.user_id != "stranger" and action != "admin" and (dashboard_id, action) != ("archive", "write")


async def slow_rule(identity: Identity, dashboard_id: str, action: str) -> bool:
    await asyncio.sleep(0)
    return rule(identity, dashboard_id, action)


@pytest.fixture(params=[rule, slow_rule], ids=["function", "coroutine function"])
def ruled(request: pytest.FixtureRequest, io_loop: IOLoop) -> Any:
    house = RuledHouse(request.param, auth="jwt", jwt_secret=SECRET)
    io_loop.run_sync(house.start)
    yield house
    io_loop.run_sync(house.stop)


async def test_a_rule_takes_away_what_the_token_gives(ruled: House) -> None:
    everything = {"*": "admin"}
    connect = await hear(await ruled.connect(f"dashboardId=archive&token={token(dashboards=everything)}"))
    assert connect["payload"]["permissions"] == ["read"]
    connect = await hear(await ruled.connect(f"dashboardId=sales&token={token(dashboards=everything)}"))
    assert connect["payload"]["permissions"] == ["read", "write"]
    payload, _ = await turned_away(
        await ruled.connect(f"dashboardId=sales&token={token(sub='stranger', dashboards=everything)}")
    )
    assert payload["reason"] == "Forbidden"
    assert (await ruled.fetch("/api/realtime", headers=bearer(dashboards=everything), body=post("archive", "a"))).code == 403
    assert (await ruled.fetch("/api/realtime", headers=bearer(dashboards=everything), body=post("sales", "a"))).code == 200
    assert (await ruled.fetch("/api/realtime/stats", headers=bearer(dashboards=everything))).code == 403


async def test_a_rule_adds_nothing_to_what_the_token_gives(ruled: House) -> None:
    payload, _ = await turned_away(await ruled.connect(f"dashboardId=other&token={token()}"))
    assert payload["reason"] == "Forbidden"


async def test_who_may_not_read_may_do_nothing() -> None:
    gate = Gate(TrustAuthenticator(), authorize=lambda identity, dashboard_id, action: action != "read")
    assert await gate.permissions(Identity("anna", {"*": "admin"}), "sales") == ()


@pytest.mark.parametrize("answer", [False, None, 0, ""])
async def test_a_rule_that_says_nothing_says_no(answer: Any) -> None:
    gate = Gate(TrustAuthenticator(), authorize=lambda *_: answer)
    assert await gate.permissions(Identity("anna", {"*": "admin"}), "sales") == ()
    assert not await gate.may_administer(Identity("anna", {"*": "admin"}))


async def test_a_rule_is_asked_about_the_whole_server_by_a_star() -> None:
    asked: list[tuple[str, str, str]] = []

    def listen(identity: Identity, dashboard_id: str, action: str) -> bool:
        asked.append((identity.user_id, dashboard_id, action))
        return True

    gate = Gate(TrustAuthenticator(), authorize=listen)
    assert await gate.may_administer(Identity("anna", {"*": "admin"}))
    assert not await gate.may_administer(Identity("bert", {"sales": "admin"}))
    assert asked == [("anna", "*", "admin")]
