"""The HTTP door, call by call of PROTOCOL section 6, and every refusal in the one shape."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tornado.httpclient import HTTPResponse

from tests.handlers.conftest import House, OpenHouse, hear, say, turned_away
from tornado_rt.app import make_application
from tornado_rt.auth import Credentials, Identity
from tornado_rt.errors import Forbidden, Unavailable
from tornado_rt.handlers.gate import Gate
from tornado_rt.protocol.http_bodies import ErrorAnswer, StatsAnswer, StatusAnswer, SyncAnswer

FRAMES = Path(__file__).parent.parent / "wire" / "frames"
ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
ANNA = {"Authorization": "Bearer anna"}


def sync(*operations: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "SYNC", "operations": list(operations), **more}


def update(id_: str = "o1", **payload: Any) -> dict[str, Any]:
    return {"operationId": id_, "type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {"value": 1}, **payload}}


def refused(answer: HTTPResponse, status: int, code: str) -> dict[str, Any]:
    """An error in the one shape; its body."""
    assert answer.code == status, answer.body
    assert answer.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = json.loads(answer.body)
    ErrorAnswer.model_validate_json(answer.body, by_alias=True)
    assert body["code"] == code
    assert re.search(r"\w", body["error"])
    assert set(body) <= {"error", "code", "details", "retryAfterMs"}
    return body


# The guide's own calls, word for word


def guides(name: str) -> Any:
    return json.loads((FRAMES / f"{name}.json").read_text())["frame"]


CURL_STATUS = """curl -X GET http://localhost:3000/api/realtime \\
  -H "Authorization: Bearer test-user"
"""
CURL_SYNC = """curl -X POST http://localhost:3000/api/realtime \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer test-user" \\
  -d '{
    "type": "SYNC",
    "operations": [
      {
        "operationId": "op-1",
        "type": "WIDGET_UPDATE",
        "payload": {
          "widgetId": "widget-1",
          "data": { "value": 42 }
        }
      }
    ]
  }'
"""
CURL_STATS = "curl http://localhost:3000/api/realtime/stats"


async def curl(house: House, command: str) -> Any:
    """What the guide's command prints, on another port."""
    words = shlex.split(command.replace("\\\n", "").replace("localhost:3000", f"localhost:{house.port}"))
    assert words[0] == "curl"
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--noproxy", "*", "-4", *words[1:], stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(output)


async def test_the_guides_status(house: House) -> None:
    answer = await curl(house, CURL_STATUS)
    assert set(answer) == set(guides("guide-status"))
    assert (answer["status"], answer["userId"]) == ("ready", "test-user")
    assert answer["wsUrl"] == f"ws://localhost:{house.port}/api/realtime"
    assert re.fullmatch(ISO, answer["timestamp"])


async def test_the_guides_sync(house: House) -> None:
    watching = await house.member("userId=anna")
    answer = await curl(house, CURL_SYNC)
    assert answer["success"] is True
    (result,) = answer["results"]
    assert (result["operationId"], result["status"], result["type"]) == ("op-1", "success", "WIDGET_UPDATE")
    assert re.fullmatch(ISO, answer["timestamp"])
    assert re.fullmatch(ISO, result["timestamp"])
    change = await hear(watching)
    assert (change["userId"], change["payload"]["data"]) == ("test-user", {"value": 42})


async def test_the_guides_stats(house: House) -> None:
    socket = await house.member("userId=user-123")
    await say(socket, "PING", user="user-123")
    await hear(socket)
    answer = await curl(house, CURL_STATS)
    assert set(answer) >= set(guides("guide-stats"))
    (client,) = answer["clients"]
    assert set(client) >= set(guides("guide-stats")["clients"][0])
    assert (client["userId"], client["messageCount"], client["isAlive"]) == ("user-123", 1, True)
    StatsAnswer.model_validate_json(json.dumps(answer), by_alias=True)


# GET


async def test_the_status_says_where_the_socket_is(open_house: OpenHouse) -> None:
    house = await open_house(public_url="https://dash.example.com")
    answer = await house.fetch_json("/api/realtime?userId=anna")
    StatusAnswer.model_validate_json(json.dumps(answer), by_alias=True)
    assert answer["wsUrl"] == "wss://dash.example.com/api/realtime"


async def test_the_status_follows_the_server(house: House) -> None:
    await house.server.store.close()
    assert (await house.fetch_json("/api/realtime?userId=anna"))["status"] == "degraded"
    house.server.is_draining = True
    assert (await house.fetch_json("/api/realtime?userId=anna"))["status"] == "draining"


@pytest.mark.parametrize(("path", "request_"), [("/api/realtime", {}), ("/api/realtime", {"body": sync()})])
async def test_without_identity_it_is_401(house: House, path: str, request_: dict[str, Any]) -> None:
    answer = await house.fetch(path, **request_)
    refused(answer, 401, "UNAUTHORIZED")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("path", "root"), [("/api/realtime/schema", "asyncapi"), ("/api/realtime/openapi", "openapi")])
async def test_the_protocol_describes_itself(house: House, path: str, root: str) -> None:
    assert (await house.fetch_json(path))[root].startswith("3.")


# POST


async def test_a_post_is_judged_like_a_socket_and_brings_what_was_missed(house: House) -> None:
    socket = await house.member("userId=bert&dashboardId=board")
    for turn in range(2):
        await say(socket, "WIDGET_UPDATE", {"widgetId": "w", "data": {"value": turn}}, f"m{turn}", "bert")
        epoch = (await hear(socket))["payload"] and house.server.store.epoch
    body = sync(update(baseVersion=1), update("o2", data={"mine": 1}), dashboardId="board", since=1, epoch=epoch)
    answer = await house.fetch_json("/api/realtime", body=body, headers=ANNA)
    SyncAnswer.model_validate_json(json.dumps(answer), by_alias=True)
    assert answer["success"] is True
    assert [result.get("seq") for result in answer["results"]] == [3, 4]
    assert [change["seq"] for change in answer["sync"]["operations"]] == [2, 3, 4]


async def test_a_conflict_by_post(house: House) -> None:
    for turn in range(2):
        body = sync(update(f"x{turn}", data={"value": turn}))
        await house.fetch_json("/api/realtime?userId=bert", body=body)
    answer = await house.fetch_json("/api/realtime", body=sync(update(data={"value": 9}, baseVersion=1)), headers=ANNA)
    assert answer["success"] is False
    assert answer["results"][0]["conflict"]["remote"] == {"value": 1}


async def test_a_device_is_the_same_by_post_and_socket(house: House) -> None:
    socket = await house.member("userId=anna&deviceId=d1")
    for turn in range(2):
        await say(socket, "WIDGET_UPDATE", {"widgetId": "w", "data": {"value": turn}}, f"m{turn}")
        await hear(socket)
    body = sync(update(data={"value": 9}, baseVersion=1), deviceId="d1")
    assert (await house.fetch_json("/api/realtime", body=body, headers=ANNA))["success"] is True


@pytest.mark.parametrize(
    ("body", "code", "path"),
    [
        ("{", "INVALID_JSON", None),
        ("", "INVALID_JSON", None),
        ("[]", "INVALID_MESSAGE", None),
        ('{"type":"SYNC"}', "INVALID_MESSAGE", "operations"),
        ('{"type":"PUSH","operations":[]}', "INVALID_MESSAGE", "type"),
        ('{"type":"SYNC","operations":[{"type":"WIDGET_UPDATE","payload":{}}]}', "INVALID_MESSAGE", "operations[0]"),
        ('{"type":"SYNC","operations":[],"since":NaN}', "INVALID_JSON", None),
    ],
)
async def test_a_body_that_makes_no_sense_is_400(house: House, body: str, code: str, path: str | None) -> None:
    headers = {**ANNA, "Content-Type": "application/json"}
    answer = refused(await house.fetch("/api/realtime", method="POST", body=body, headers=headers), 400, code)
    if path is not None:
        assert any(detail["path"].startswith(path) for detail in answer["details"])


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp", None],
)
async def test_another_media_type_is_415(house: House, content_type: str | None) -> None:
    headers = {**ANNA, **({"Content-Type": content_type} if content_type else {})}
    body = "--x--" if content_type and "multipart" in content_type else json.dumps(sync(update()))
    refused(await house.fetch("/api/realtime", method="POST", body=body, headers=headers), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert house.server.rooms == {}


async def test_a_charset_does_no_harm(house: House) -> None:
    headers = {**ANNA, "Content-Type": "Application/JSON; charset=utf-8"}
    assert (await house.fetch("/api/realtime", method="POST", body=json.dumps(sync()), headers=headers)).code == 200


@pytest.mark.parametrize("size", [262_145, 1_200_000, 3_000_000])
async def test_a_body_that_is_too_long_is_413(house: House, size: int) -> None:
    """However long it says that it is; and it need not be sent for that."""
    headers = {**ANNA, "Content-Type": "application/json"}
    answer = await house.fetch("/api/realtime", method="POST", body="x" * size, headers=headers)
    refused(answer, 413, "TOO_LARGE")


async def test_a_body_that_is_announced_is_not_waited_for(house: House) -> None:
    head = (
        "POST /api/realtime?userId=anna HTTP/1.1\nHost: HOST\nContent-Type: application/json\nContent-Length: 50000000000\n\n"
    )
    status, _, body = await house.raw(head)
    assert (status, json.loads(body)["code"]) == (413, "TOO_LARGE")


async def test_nobody_need_send_a_body_to_hear_that_he_is_nobody(house: House) -> None:
    head = "POST /api/realtime HTTP/1.1\nHost: HOST\nContent-Type: application/json\nContent-Length: 1000\n\n"
    status, _, body = await house.raw(head)
    assert (status, json.loads(body)["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("length", ["-1", "1e3", "4, 5", "9" * 5000])
async def test_a_length_that_is_none_is_400(house: House, length: str) -> None:
    head = f"POST /api/realtime?userId=anna HTTP/1.1\nHost: HOST\nContent-Type: application/json\nContent-Length: {length}\n\n"
    status, _, _ = await house.raw(head)
    assert status in (400, 413)


async def test_a_body_in_chunks_that_is_too_long_is_413(house: House) -> None:
    chunk = f"{30_000:x}\n{'x' * 30_000}\n"
    head = "POST /api/realtime?userId=anna HTTP/1.1\nHost: HOST\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n"
    status, _, body = await house.raw(f"{head}{chunk * 9}0\n\n")
    assert (status, json.loads(body)["code"]) == (413, "TOO_LARGE")


async def test_a_body_in_chunks_is_taken(house: House) -> None:
    text = json.dumps(sync(update()))
    chunks = f"{len(text[:40]):x}\n{text[:40]}\n{len(text[40:]):x}\n{text[40:]}\n0\n\n"
    head = "POST /api/realtime?userId=anna HTTP/1.1\nHost: HOST\nContent-Type: application/json\nTransfer-Encoding: chunked\n\n"
    status, _, body = await house.raw(head + chunks)
    assert (status, json.loads(body)["success"]) == (200, True)


async def test_too_many_operations_are_413(house: House) -> None:
    operations = [update(f"o{number}") for number in range(51)]
    refused(await house.fetch("/api/realtime", body=sync(*operations), headers=ANNA), 413, "TOO_LARGE")


@pytest.mark.parametrize("is_mounted", [False, True])
async def test_a_draining_server_is_503_with_retry_after(open_house: OpenHouse, is_mounted: bool) -> None:
    house = await open_house(is_mounted=is_mounted, accept_rate_per_second=0.4)
    house.server.is_draining = True
    answer = await house.fetch("/api/realtime", body=sync(update()), headers=ANNA)
    assert refused(answer, 503, "UNAVAILABLE")["retryAfterMs"] == 2500
    assert answer.headers["Retry-After"] == "3"


async def test_a_store_that_cannot_be_read_is_503_with_retry_after(house: House) -> None:
    await house.server.store.close()
    answer = await house.fetch("/api/realtime", body=sync(update()), headers=ANNA)
    refused(answer, 503, "UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_a_mistake_of_ours_is_500_and_says_nothing_of_itself(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("the secret of the bug")

    monkeypatch.setattr(house.server, "get_stats", fail)
    with capture_logs() as logs:
        answer = await house.fetch("/api/realtime/stats")
    assert [(line["event"], line["path"]) for line in logs] == [("request_failed", "/api/realtime/stats")]
    assert "secret" not in refused(answer, 500, "INTERNAL")["error"]
    assert house.server.hall.faults == 1


# Who may


class Reader:
    """An authenticator that lets everybody read ``board``, and nothing else; names that are refusals are raised."""

    async def identify(self, credentials: Credentials) -> Identity:
        name = credentials.query_user_id or "nobody"
        refusal = {"stranger": Forbidden, "later": Unavailable}.get(name)
        if refusal is not None:
            raise refusal("not you, or not now")
        return Identity(name, {"board": "viewer"})

    async def renew(self, token: str) -> Identity:
        return Identity(token, {"board": "viewer"})


@pytest.fixture
def narrow(open_house: OpenHouse) -> OpenHouse:
    """A house where everybody may read one dashboard."""

    async def open_() -> House:
        house = await open_house(is_mounted=True)
        gate = Gate(Reader(), open_stats=False)
        house.http_server.request_callback = make_application(house.server, gate)  # type: ignore[assignment]
        return house

    return open_


async def test_whoever_may_only_read_may_poll(narrow: OpenHouse) -> None:
    house = await narrow()
    answer = await house.fetch_json("/api/realtime?userId=anna", body=sync(dashboardId="board", since=0))
    assert answer["sync"]["mode"] == "snapshot"


@pytest.mark.parametrize("body", [sync(update(), dashboardId="board"), sync(dashboardId="other"), sync()])
async def test_what_one_may_not_is_403(narrow: OpenHouse, body: dict[str, Any]) -> None:
    house = await narrow()
    refused(await house.fetch("/api/realtime?userId=anna", body=body), 403, "FORBIDDEN")
    assert "other" not in house.server.rooms


async def test_stats_may_be_for_admins(narrow: OpenHouse) -> None:
    refused(await (await narrow()).fetch("/api/realtime/stats"), 403, "FORBIDDEN")


async def test_a_socket_to_a_dashboard_that_is_not_allowed_is_forbidden(narrow: OpenHouse) -> None:
    house = await narrow()
    goodbye = await hear(await house.connect("userId=anna&dashboardId=other"))
    assert goodbye["payload"] == {"code": 1008, "reason": "Forbidden", "reconnect": False}
    connect = await hear(await house.connect("userId=anna&dashboardId=board"))
    assert connect["payload"]["permissions"] == ["read"]


@pytest.mark.parametrize(
    ("name", "status", "code", "close"),
    [("stranger", 403, "FORBIDDEN", (1008, "Forbidden")), ("later", 503, "UNAVAILABLE", (1013, "Try again later"))],
)
async def test_who_cannot_be_identified_is_told_why(
    narrow: OpenHouse, name: str, status: int, code: str, close: tuple[int, str]
) -> None:
    house = await narrow()
    refused(await house.fetch(f"/api/realtime?userId={name}", body=sync(dashboardId="board")), status, code)
    goodbye, end = await turned_away(await house.connect(f"userId={name}"))
    assert (goodbye["code"], goodbye["reason"]) == end == close


# Any path


async def test_what_is_not_there_is_404(house: House) -> None:
    for path in ("/nothing", "/api/realtime/", "/api", "/static/nothing.js"):
        refused(await house.fetch(path), 404, "NOT_FOUND")
    refused(await house.fetch("/static/../server.py"), 403, "FORBIDDEN")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/realtime", "GET, HEAD, POST, OPTIONS"),
        ("DELETE", "/api/realtime", "GET, HEAD, POST, OPTIONS"),
        ("PATCH", "/healthz", "GET, HEAD, OPTIONS"),
        ("POST", "/api/realtime/stats", "GET, HEAD, OPTIONS"),
        ("POST", "/", "GET, HEAD, OPTIONS"),
    ],
)
async def test_another_method_is_405(house: House, method: str, path: str, allowed: str) -> None:
    answer = await house.fetch(path, method=method, body="" if method == "POST" else None, headers=ANNA)
    refused(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/api/realtime?userId=anna", "/healthz", "/readyz", "/", "/static/demo.js"])
async def test_head_is_get_without_the_body(house: House, path: str) -> None:
    """RFC 9110 section 9.1: every general-purpose server supports both."""
    head, get = await house.fetch(path, method="HEAD"), await house.fetch(path)
    assert (head.code, head.body) == (200, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert head.headers["Content-Length"] == get.headers["Content-Length"]


async def test_every_answer_is_safe_to_show(house: House) -> None:
    for path in ("/api/realtime?userId=anna", "/nothing", "/", "/static/demo.js"):
        headers = (await house.fetch(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Server" not in headers


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1.evil.test:80", "", "localhost.", "[::2]"])
async def test_a_foreign_host_is_421(house: House, host: str) -> None:
    for path in ("/", "/healthz", "/api/realtime?userId=anna", "/nothing"):
        status, headers, body = await house.raw(f"GET {path} HTTP/1.1\nHost: {host}\n\n")
        assert (status, json.loads(body)["code"]) == (421, "MISDIRECTED")
        assert headers["content-type"] == "application/json"


async def test_hosts_may_be_listed(open_house: OpenHouse) -> None:
    house = await open_house(allowed_hosts="dash.example.com,*.example.org")
    for host, status in {
        "dash.example.com": 200,
        "DASH.example.com:8080": 200,
        "a.example.org": 200,
        "example.org": 421,
    }.items():
        assert (await house.fetch("/healthz", headers={"Host": host})).code == status, host


# CORS


async def test_the_allowed_origins_are_answered(open_house: OpenHouse) -> None:
    house = await open_house(allowed_origins="https://app.example.com")
    origin = {"Origin": "https://app.example.com"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    answer = await house.fetch("/api/realtime", method="OPTIONS", headers=asked)
    assert answer.code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    assert "content-type" in answer.headers["Access-Control-Allow-Headers"].lower()
    assert "Origin" in answer.headers["Vary"]
    answer = await house.fetch("/api/realtime", body=sync(), headers={**origin, **ANNA})
    assert (answer.code, answer.headers["Access-Control-Allow-Origin"]) == (200, "https://app.example.com")
    answer = await house.fetch("/nothing", headers=origin)
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example.com"


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
async def test_others_are_403_and_hear_nothing(house: House, method: str) -> None:
    body = json.dumps(sync(update())) if method == "POST" else None
    headers = {**ANNA, "Origin": "https://evil.test", "Content-Type": "application/json"}
    answer = await house.fetch("/api/realtime", method=method, body=body, headers=headers)
    refused(answer, 403, "FORBIDDEN")
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert house.server.rooms == {}
