"""Key sets of an issuer, over a real local server: rotation, silence, rubbish, and how often it is asked."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from tests.auth.forgery import CLAIMS, authenticator, cause_of, hmac_sha256, jwk, pem, private_key, raw_token, token
from tests.hall import Clock
from tornado_rt.auth import Identity, JwtAuthenticator, RemoteKeySet
from tornado_rt.errors import Unavailable

ALGORITHMS = ("RS256", "ES256")
GOOD_KEYS = json.dumps({"keys": [jwk("RSA/1", "RS256", kid="1")]}).encode()


class Issuer:
    """Publishes ``keys``. ``gate`` closed: it takes requests and does not answer. ``answer`` in place of keys: anything."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk("RSA/1", "RS256", kid="1")]
        self.answer: tuple[int, dict[str, str], bytes] | None = None
        self.requests = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        [listening] = bind_sockets(0, "127.0.0.1")
        self.port = listening.getsockname()[1]
        paths = [("/keys", KeysHandler, {"issuer": self}), ("/elsewhere", ElsewhereHandler)]
        self.server = HTTPServer(Application(paths, log_function=lambda _: None))
        self.server.add_socket(listening)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/keys"

    async def stop(self) -> None:
        """Nobody is there any more: connections are refused."""
        self.gate.set()
        self.server.stop()
        await self.server.close_all_connections()


class KeysHandler(RequestHandler):
    def initialize(self, issuer: Issuer) -> None:
        self.issuer = issuer

    async def get(self) -> None:
        issuer = self.issuer
        issuer.requests += 1
        issuer.asked.set()
        await issuer.gate.wait()
        status, headers, body = issuer.answer or (200, {}, json.dumps({"keys": issuer.keys}).encode())
        self.set_status(status)
        for name, value in headers.items():
            self.set_header(name, value)
        self.write(body)


class ElsewhereHandler(RequestHandler):
    """Where a redirection leads: there are good keys, and nobody is to come for them."""

    def get(self) -> None:
        self.write(GOOD_KEYS)


class Scene:
    """An issuer, and somebody who judges by its keys on a clock of his own."""

    def __init__(self, issuer: Issuer, timeout_seconds: float = 5.0) -> None:
        self.issuer = issuer
        self.clock = Clock()
        self.key_set = RemoteKeySet(issuer.url, ALGORITHMS, monotonic=self.clock.monotonic, timeout_seconds=timeout_seconds)
        self.judge: JwtAuthenticator = authenticator(keys=self.key_set, algorithms=ALGORITHMS)

    async def identify(self, number: str = "1") -> Identity:
        return await self.judge.renew(signed_by(number))

    async def cause(self, number: str) -> str:
        return await cause_of(self.judge, signed_by(number))


def signed_by(number: str, key_id: str | None = "") -> str:
    """A token by the issuer's RSA key of this number, which it names; ``key_id`` None names none."""
    names = {"kid": number if key_id == "" else key_id} if key_id is not None else {}
    return token("RS256", private_key(f"RSA/{number}"), names)


@pytest.fixture
def issuer(io_loop: IOLoop) -> Iterator[Issuer]:
    async def make() -> Issuer:
        return Issuer()

    made = io_loop.run_sync(make)
    yield made
    io_loop.run_sync(made.stop)


@pytest.fixture
def scene(issuer: Issuer) -> Scene:
    return Scene(issuer)


async def test_keys_are_fetched_once_when_they_are_first_needed(scene: Scene) -> None:
    assert scene.issuer.requests == 0
    everybody = await asyncio.gather(*(scene.identify() for _ in range(50)))
    assert {each.user_id for each in everybody} == {"anna"}
    await scene.identify()
    assert (scene.issuer.requests, scene.key_set.fetches, scene.key_set.failed_fetches) == (1, 1, 0)


async def test_every_kind_of_key_in_a_set(scene: Scene) -> None:
    scene.issuer.keys = [{"kty": "oct", "k": "AA"}, "rubbish", jwk("RSA/1", "RS256", kid="1"), jwk("P-256", "ES256", kid="2")]
    await scene.identify()
    assert (await scene.judge.renew(token("ES256", private_key("P-256"), {"kid": "2"}))).user_id == "anna"
    assert await cause_of(scene.judge, token("ES256", private_key("P-256"), {"kid": "1"})) == "unknown_key"


async def test_a_key_of_the_set_is_not_taken_for_a_secret(scene: Scene) -> None:
    scene.issuer.keys.append({"kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0LXRoYXQtZXZlcnlib2R5LWNhbi1yZWFk"})
    judge = authenticator(keys=scene.key_set, algorithms=[*ALGORITHMS, "HS256"])
    for header, secret in (({"kid": "1"}, pem("RSA/1").encode()), ({"kid": "s"}, b"secret-that-everybody-can-read")):
        assert await cause_of(judge, raw_token({"alg": "HS256", **header}, CLAIMS, hmac_sha256(secret))) == "unknown_key"


async def test_a_token_that_names_no_key_is_tried_by_all_that_fit(scene: Scene) -> None:
    scene.issuer.keys = [jwk(f"RSA/{number}", "RS256", kid=number) for number in "12"]
    assert (await scene.judge.renew(signed_by("2", key_id=None))).user_id == "anna"
    assert await cause_of(scene.judge, signed_by("3", key_id=None)) == "signature"


# Rotation


async def test_a_new_key_is_found_and_a_made_up_one_asks_once_a_minute(scene: Scene) -> None:
    await scene.identify("1")
    scene.issuer.keys = [jwk("RSA/2", "RS256", kid="2")]
    scene.clock.advance(60)
    assert (await scene.identify("2")).user_id == "anna"
    assert scene.issuer.requests == 2
    for _ in range(20):
        assert await scene.cause("3") == "unknown_key"
    scene.clock.advance(59)
    assert await scene.cause("3") == "unknown_key"
    assert scene.issuer.requests == 2
    scene.clock.advance(1)
    assert await scene.cause("3") == "unknown_key"
    assert scene.issuer.requests == 3


async def test_a_withdrawn_key_is_good_for_ten_minutes_more_at_most(scene: Scene) -> None:
    await scene.identify("1")
    scene.issuer.keys = [jwk("RSA/2", "RS256", kid="2")]
    scene.clock.advance(600)
    await scene.identify("1")
    scene.clock.advance(1)
    assert await scene.cause("1") == "unknown_key"


async def test_a_key_that_was_exchanged_under_the_same_name(scene: Scene) -> None:
    await scene.identify("1")
    scene.issuer.keys = [jwk("RSA/2", "RS256", kid="1")]
    scene.clock.advance(601)
    assert (await scene.judge.renew(signed_by("2", key_id="1"))).user_id == "anna"
    assert await scene.cause("1") == "signature"


# Silence


async def test_without_any_keys_nobody_is_judged_and_everybody_may_come_back(scene: Scene) -> None:
    """`Unauthorized` would tell them never to."""
    await scene.issuer.stop()
    with pytest.raises(Unavailable) as caught:
        await scene.identify()
    assert caught.value.retry_after_ms == 5_000
    assert not any(scene.judge.failures.values())
    with pytest.raises(Unavailable):
        await scene.identify()
    assert scene.key_set.fetches == 1
    scene.clock.advance(5)
    with pytest.raises(Unavailable):
        await scene.identify()
    assert (scene.key_set.fetches, scene.key_set.failed_fetches) == (2, 2)


async def test_when_the_issuer_is_down_the_last_good_set_stays(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    await scene.identify()
    await scene.issuer.stop()
    scene.clock.advance(86_400)
    assert (await scene.identify()).user_id == "anna"
    assert [(record.levelname, "the last one stays" in record.getMessage()) for record in caplog.records] == [("WARNING", True)]
    with pytest.raises(Unavailable):
        await scene.identify("2")  # it may be good: nobody can say
    assert scene.key_set.failed_fetches == 1
    scene.clock.advance(60)
    assert (await scene.identify()).user_id == "anna"
    assert scene.key_set.failed_fetches == 2


async def test_a_slow_issuer_makes_nobody_wait_whose_key_is_known(scene: Scene) -> None:
    await scene.identify("1")
    scene.issuer.keys.append(jwk("RSA/2", "RS256", kid="2"))
    scene.issuer.gate.clear()
    scene.issuer.asked.clear()
    scene.clock.advance(60)
    newcomer = asyncio.ensure_future(scene.identify("2"))
    await scene.issuer.asked.wait()
    for _ in range(10):
        assert (await scene.identify("1")).user_id == "anna"
    assert not newcomer.done()
    scene.issuer.gate.set()
    assert (await newcomer).user_id == "anna"
    assert scene.issuer.requests == 2


async def test_who_gives_up_waiting_takes_nothing_from_the_others(scene: Scene) -> None:
    scene.issuer.gate.clear()
    first, second = (asyncio.ensure_future(scene.identify()) for _ in range(2))
    await scene.issuer.asked.wait()
    first.cancel()
    scene.issuer.gate.set()
    assert (await second).user_id == "anna"
    assert first.cancelled()


async def test_an_issuer_that_never_answers_is_given_up(issuer: Issuer) -> None:
    issuer.gate.clear()
    with pytest.raises(Unavailable):
        await Scene(issuer, timeout_seconds=0.05).identify()


# Rubbish


@pytest.mark.parametrize(
    "answer",
    [
        (500, {}, b""),
        (404, {}, b'{"keys":[]}'),
        (302, {"Location": "/elsewhere"}, b""),
        (200, {}, b""),
        (200, {}, b"<html>"),
        (200, {}, b"\xff\xfe"),
        (200, {}, b"[]"),
        (200, {}, b"null"),
        (200, {}, b'{"keys":{}}'),
        (200, {}, b'{"keys":[]}'),
        (200, {}, b'{"keys":[{"kty":"oct","k":"AA"}]}'),
        (200, {}, b'{"keys":' + b"[" * 30_000 + b"]" * 30_000 + b"}"),
        (200, {}, b'{"keys":[' + b" " * 65_536 + b"]}"),
        (200, {"Content-Encoding": "gzip"}, gzip.compress(GOOD_KEYS)),
        (200, {"X-Large": "x" * 20_000}, b"{}"),
    ],
    ids=range(15),
)
async def test_an_answer_without_a_usable_key_changes_nothing(scene: Scene, answer: Any) -> None:
    await scene.identify()
    scene.issuer.answer = answer
    scene.clock.advance(601)
    assert (await scene.identify()).user_id == "anna"
    assert scene.key_set.failed_fetches == 1
    scene.issuer.answer = None
    scene.clock.advance(60)
    await scene.identify()
    assert scene.key_set.failed_fetches == 1


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b" " * 8_192),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"2000\r\n" + b" " * 8_192 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", b" " * 8_192),
        (b"HTTP/1.1 200 OK\r\n", b"X-Endless: x\r\n" * 500),
        (b"", b"x" * 8_192),
        (b"\x00\xff\r\n\r\n", b""),
    ],
    ids=["until the end", "chunked", "announced", "headers", "no HTTP", "rubbish"],
)
async def test_an_endless_answer_is_cut_off(head: bytes, more: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has put himself in the issuer's place gets no memory of ours."""
    caplog.set_level(logging.ERROR)
    sent = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        try:
            while more and sent < 64 * 1024 * 1024:
                writer.write(more)
                sent += len(more)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    key_set = RemoteKeySet(
        f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", ALGORITHMS, monotonic=Clock().monotonic, timeout_seconds=20
    )
    with pytest.raises(Unavailable):
        await key_set.find("RS256", "1")
    server.close()
    assert key_set.failed_fetches == 1
    assert sent < 64 * 1024 * 1024


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/", "http://[::1]:1/", "http://nobody.invalid/", "http://" + "x" * 70 + ".test/"]
)
async def test_an_address_where_nobody_is(url: str) -> None:
    key_set = RemoteKeySet(url, ALGORITHMS, monotonic=Clock().monotonic)
    with pytest.raises(Unavailable):
        await key_set.find("RS256", None)
    assert key_set.failed_fetches == 1
