"""Those who are not signed in, or not for this: what they hear at every door, and what they do not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from tornado.httpclient import HTTPResponse
from websockets.exceptions import InvalidStatus

from tests.abuse.fortress import PAGE, Fortress, Json
from tests.auth.forgery import SECRET, hmac_sha256, pem, raw_token, token
from tornado_rt.auth import REFUSAL

UNAUTHORIZED = {"code": 1008, "reason": "Unauthorized", "reconnect": False}
FORBIDDEN = {"code": 1008, "reason": "Forbidden", "reconnect": False}
OPERATION = {"operationId": "evil", "type": "WIDGET_UPDATE", "payload": {"widgetId": "w1", "data": {"value": 666}}}
EVIL = {"type": "SYNC", "dashboardId": "sales", "operations": [OPERATION]}


def claims(**more: Any) -> Json:
    return {"sub": "anna", "exp": int(time.time()) + 600, "dashboards": {"*": "admin"}, **more}


BAD_TOKENS: dict[str, Callable[[], str]] = {
    "none": lambda: "",
    "a name": lambda: "anna",
    "unsigned": lambda: raw_token({"alg": "none"}, claims(), lambda _: b""),
    "signed by a secret of one's own": lambda: token(key="x" * 32, **claims()),
    "signed by a public key": lambda: raw_token({"alg": "HS256"}, claims(), hmac_sha256(pem("RSA").encode())),
    "with a key of its own": lambda: raw_token({"alg": "HS256", "jwk": {"kty": "oct", "k": "eA"}}, claims(), hmac_sha256(b"x")),
    "with a way to another file": lambda: raw_token({"alg": "HS256", "kid": "../../dev/null"}, claims(), hmac_sha256(b"")),
    "expired": lambda: token(**claims(exp=int(time.time()) - 60)),
    "for ever": lambda: token(**claims(exp=10**30)),
    "another service's": lambda: token(**claims(aud="payroll")),
    "nobody's": lambda: token(**claims(sub="")),
    "a line break's": lambda: token(**claims(sub="anna\r\nSet-Cookie: a=b")),
    "of an unheard-of role": lambda: token(**claims(dashboards={"*": "owner"})),
    "said twice": lambda: raw_token({"alg": "HS256"}, b'{"sub":"anna","sub":"boss","exp":%d}' % (time.time() + 60)),
    "of eight kilobytes": lambda: token(**claims(note="x" * 8_192)),
    "with ANSI in it": lambda: "\x1b[31m.e30.x",
}


def heard(answer: HTTPResponse) -> tuple[int, Any]:
    return answer.code, json.loads(answer.body)


@pytest.mark.parametrize("kind", BAD_TOKENS)
async def test_a_bad_token_is_nobodys_at_every_door(fortress: Fortress, kind: str) -> None:
    """One body for all causes, by HTTP and by WebSocket."""
    text = BAD_TOKENS[kind]()
    fortress.tokens.extend(filter(lambda part: len(part) > 8, [text.rpartition(".")[2]]))
    headers = {"Authorization": f"Bearer {text}"} if text.isprintable() else {}
    nobody = (401, {"error": REFUSAL, "code": "UNAUTHORIZED"})
    for path, body in [("", None), ("", EVIL), ("/stats", None), ("/revoke", {"userId": "witness"})]:
        more = {"method": "POST", "body": json.dumps(body)} if body else {}
        answer = await fortress.process.fetch(
            f"/api/realtime{path}", headers={**headers, "Content-Type": "application/json"}, **more
        )
        assert heard(answer) == nobody
    assert await fortress.turned_away("dashboardId=sales", additional_headers=headers) == (UNAUTHORIZED, (1008, "Unauthorized"))


async def test_all_places_of_a_token_are_judged_alike(fortress: Fortress) -> None:
    bad = token(key="x" * 32, **claims())
    fortress.tokens.append(bad.rpartition(".")[2])
    places: list[tuple[str, Json]] = [
        (f"token={bad}", {}),
        ("", {"subprotocols": ["bearer", bad]}),
        ("", {"additional_headers": {"Cookie": f"token={bad}"}, "origin": PAGE}),
        ("userId=witness", {}),
        ("", {"additional_headers": {"Cookie": "userId=witness"}}),
        ("", {"additional_headers": {"Authorization": "Bearer witness"}}),
    ]
    for query, options in places:
        payload, end = await fortress.turned_away(f"dashboardId=sales&{query}", **options)
        assert (payload, end) == (UNAUTHORIZED, (1008, "Unauthorized"))


async def test_a_bad_token_is_not_made_good_by_a_good_one_elsewhere(fortress: Fortress) -> None:
    payload, _ = await fortress.turned_away("token=x&dashboardId=sales", additional_headers=fortress.bearer())
    assert payload == UNAUTHORIZED


async def test_another_dashboard_is_forbidden_whether_it_exists_or_not(fortress: Fortress) -> None:
    hearing = []
    for dashboard in ("sales", "there-is-none"):
        headers = fortress.bearer(dashboards={"ops": "admin"})
        hearing.append(await fortress.turned_away(f"dashboardId={dashboard}", additional_headers=headers))
        body = json.dumps({**EVIL, "dashboardId": dashboard})
        answer = await fortress.process.fetch(
            "/api/realtime", method="POST", body=body, headers={**headers, "Content-Type": "application/json"}
        )
        hearing.append(heard(answer))
    assert hearing[:2] == hearing[2:]
    assert hearing[0] == (FORBIDDEN, (1008, "Forbidden"))
    assert (hearing[1][0], hearing[1][1]["code"]) == (403, "FORBIDDEN")


async def test_a_reader_writes_nothing_by_post(fortress: Fortress) -> None:
    said = []
    for target in ("w1", "nothing"):
        operation = {**OPERATION, "payload": {"widgetId": target, "data": {}}}
        headers = {**fortress.bearer(dashboards={"sales": "viewer"}), "Content-Type": "application/json"}
        body = json.dumps({**EVIL, "operations": [operation]})
        said.append(heard(await fortress.process.fetch("/api/realtime", method="POST", body=body, headers=headers)))
    assert said[0] == said[1]
    assert (said[0][0], said[0][1]["code"]) == (403, "FORBIDDEN")


@pytest.mark.parametrize("dashboards", [{"sales": "admin"}, {"sales*": "admin"}, {"*": "editor"}])
@pytest.mark.parametrize("path", ["stats", "revoke"])
async def test_what_is_about_the_whole_server_is_for_its_admins(fortress: Fortress, path: str, dashboards: Json) -> None:
    headers = {**fortress.bearer(dashboards=dashboards), "Content-Type": "application/json"}
    more = {"method": "POST", "body": '{"userId":"witness"}'} if path == "revoke" else {}
    status, body = heard(await fortress.process.fetch(f"/api/realtime/{path}", headers=headers, **more))
    assert (status, body["code"]) == (403, "FORBIDDEN")


async def test_metrics_are_not_there_for_strangers(fortress: Fortress) -> None:
    assert (await fortress.process.fetch("/metrics")).code in (401, 403, 404)


# Pages


ORIGINS = [
    "https://evil.test",
    "null",
    "file://",
    "https://app.example.com.evil.test",
    "https://app.example.com:8443",
    "http://app.example.com",
    "https://APP.example.com@evil.test",
    "https://app.example.com/",
    "https://[",
    "//app.example.com",
    "chrome-extension://abcdef",
    " ",
]


@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_foreign_page_is_403_before_anything_else(fortress: Fortress, origin: str) -> None:
    """Whatever it brings along; and no header lets it read that."""
    headers = {**fortress.bearer(), "Origin": origin, "Content-Type": "application/json"}
    for path, more in [
        ("/api/realtime", {}),
        ("/api/realtime", {"method": "POST", "body": json.dumps(EVIL)}),
        ("/api/realtime", {"method": "OPTIONS"}),
        ("/api/realtime/stats", {}),
        ("/healthz", {}),
        ("/", {}),
        ("/nothing", {}),
    ]:
        answer = await fortress.process.fetch(path, headers=headers, **more)
        assert (answer.code, json.loads(answer.body)["code"]) == (403, "FORBIDDEN"), path
        assert "Access-Control-Allow-Origin" not in answer.headers
    with pytest.raises(InvalidStatus) as refused:
        await fortress.turned_away("dashboardId=sales", additional_headers={**fortress.bearer(), "Origin": origin})
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test", "dash.example.com.evil.test", "0x7f000001"])
async def test_a_foreign_host_is_421(fortress: Fortress, host: str) -> None:
    """Also with an Origin that is equal to it: DNS rebinding."""
    head = f"GET /api/realtime HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nConnection: close\r\n\r\n"
    answer = await fortress.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"MISDIRECTED" in answer


@pytest.mark.parametrize("origin", [None, "https://evil.test", "null"])
async def test_a_cookie_alone_lets_no_page_act_for_its_visitor(fortress: Fortress, origin: str | None) -> None:
    headers = {"Cookie": f"token={fortress.token()}", "Content-Type": "application/json"}
    if origin is not None:
        headers["Origin"] = origin
    answer = await fortress.process.fetch("/api/realtime", method="POST", body=json.dumps(EVIL), headers=headers)
    assert answer.code == (401 if origin is None else 403)


async def test_a_form_of_another_page_cannot_post(fortress: Fortress) -> None:
    """What a form can send without asking first is not JSON."""
    for kind in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch",
        "",
    ):
        headers = {**fortress.bearer(), "Content-Type": kind}
        for path in ("", "/revoke"):
            bearer = fortress.bearer("boss", {"*": "admin"}) if path else {}
            answer = await fortress.process.fetch(
                f"/api/realtime{path}", method="POST", body=json.dumps(EVIL), headers={**headers, **bearer}
            )
            assert (answer.code, json.loads(answer.body)["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


# Names and headers that are meant to harm the log


HOSTILE = ["a\nFORGED level=error", "\x1b[2J\x1b[31mred", "\u202egnp.exe", "x" * 128, "\u2028", "\ud800"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_in_tokens_and_queries_cannot_forge_a_line(fortress: Fortress, name: str) -> None:
    query = quote(name, errors="surrogatepass")
    for place in ("dashboardId", "deviceId", "epoch", "userId", "since"):
        answer = await fortress.raw(
            f"GET /api/realtime?{place}={query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        assert answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "header", ["X-Request-Id", "User-Agent", "Cookie", "Authorization", "Sec-WebSocket-Protocol", "X-Forwarded-For"]
)
@pytest.mark.parametrize("size", [1_000, 65_536])
async def test_long_headers_are_worth_one_line_at_most(fortress: Fortress, header: str, size: int) -> None:
    head = (
        f"GET /api/realtime HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}: \x1b[31m{SECRET}{'x' * size}\r\n\r\n"
    )
    answer = await fortress.raw(head.encode())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
