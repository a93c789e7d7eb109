"""The life of a real process: it listens, is told to stop, stops; and the guide's one server in a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.conftest import THIS_PYTHON, ServerProcess, StartServer, clean_environment
from tornado_rt import lifecycle
from tornado_rt.config import Settings


async def join(server: ServerProcess, user: str = "anna") -> ClientConnection:
    url = f"ws://127.0.0.1:{server.port}/api/realtime?userId={user}"
    member = await connect(url, proxy=None, ping_interval=None, compression=None)
    assert (await hear(member))["type"] == "CONNECT"
    return member


async def hear(member: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await member.recv())
    return message


async def hear_the_end(member: ClientConnection) -> tuple[list[dict[str, Any]], int | None]:
    """All that still comes, and the close code."""
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(await hear(member))
    return messages, member.close_code


async def update(member: ClientConnection, value: int, user: str = "anna") -> None:
    payload = {"widgetId": "w", "data": {"value": value}}
    await member.send(json.dumps({"type": "WIDGET_UPDATE", "id": f"m{value}", "userId": user, "payload": payload}))


async def status_of(server: ServerProcess) -> int:
    return await asyncio.get_running_loop().run_in_executor(None, server.process.wait, 20)


async def test_sigterm_ends_it_in_peace(start_server: StartServer) -> None:
    """What is in flight is answered, everybody gets a slot and 1012, the status is 0, and nothing is lost."""
    server = start_server("--store", "sqlite:///rt.db", "--accept-rate-per-second", "10")
    anna, bert = await join(server), await join(server, "bert")
    for value in range(20):
        await update(anna, value)
    await hear(anna)  # the first ACK: the rest is being worked on
    server.process.send_signal(signal.SIGTERM)
    (said, code), (heard, other) = await asyncio.gather(hear_the_end(anna), hear_the_end(bert))
    assert (code, other) == (1012, 1012)
    assert await status_of(server) == 0
    goodbyes = [said.pop(), heard.pop()]
    assert {goodbye["type"] for goodbye in goodbyes} == {"DISCONNECT"}
    assert sorted(goodbye["payload"]["retryAfterMs"] for goodbye in goodbyes) == [100, 200]
    acknowledged = 1 + sum(message["type"] == "ACK" for message in said)
    again = start_server("--store", "sqlite:///rt.db")
    url = f"{again.url}/api/realtime?userId=anna"
    body = json.dumps({"type": "SYNC", "operations": [], "since": 0})
    answer = await AsyncHTTPClient().fetch(url, method="POST", body=body, headers={"Content-Type": "application/json"})
    assert json.loads(answer.body)["sync"]["seq"] >= acknowledged
    assert {line["event"] for line in server.log} >= {"listening", "stopping", "draining", "stopped"}


async def test_clients_that_never_pause_do_not_hold_it_up(start_server: StartServer) -> None:
    """Long before the grace is over; and each hears why."""
    unlimited = ("--rate-limit-per-second", "0", "--rate-burst", "0", "--user-rate-limit-per-second", "0")
    server = start_server("--store", "sqlite:///rt.db", "--shutdown-grace-seconds", "60", *unlimited)
    anna = await join(server)

    async def chatter() -> None:
        for value in range(1_000_000):
            await update(anna, value)
            await asyncio.sleep(0)

    talking = asyncio.ensure_future(chatter())
    await hear(anna)
    server.process.send_signal(signal.SIGTERM)
    said, code = await hear_the_end(anna)
    assert code == 1012
    assert said[-1]["type"] == "DISCONNECT"
    assert await status_of(server) == 0
    talking.cancel()
    await asyncio.wait([talking])


async def test_a_second_signal_ends_it_at_once(start_server: StartServer) -> None:
    """Though a client that reads nothing would still have the whole grace."""
    server = start_server("--store", "memory://", "--shutdown-grace-seconds", "600")
    with socket.create_connection(("127.0.0.1", server.port)) as deaf:
        deaf.sendall(
            b"GET /api/realtime?userId=anna HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b" 101 " in deaf.recv(100)
        server.process.send_signal(signal.SIGTERM)
        while not any(line["event"] == "draining" for line in server.log):
            await asyncio.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert await status_of(server) == 1
    assert not any("Traceback" in json.dumps(line) for line in server.log)


async def test_while_it_drains_it_listens(start_server: StartServer) -> None:
    """Newcomers are turned away in words, not by a closed port: a socket by 1013, a POST and ``/readyz`` by 503."""
    server = start_server("--store", "memory://", "--shutdown-grace-seconds", "600")
    with socket.create_connection(("127.0.0.1", server.port)) as deaf:
        deaf.sendall(
            b"GET /api/realtime?userId=anna HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert b" 101 " in deaf.recv(100)
        server.process.send_signal(signal.SIGTERM)
        while not any(line["event"] == "draining" for line in server.log):
            await asyncio.sleep(0.01)
        assert (await AsyncHTTPClient().fetch(f"{server.url}/readyz", raise_error=False)).code == 503
        answer = await AsyncHTTPClient().fetch(
            f"{server.url}/api/realtime?userId=anna",
            method="POST",
            body='{"type":"SYNC","operations":[]}',
            headers={"Content-Type": "application/json"},
            raise_error=False,
        )
        assert answer.code == 503
        assert "Retry-After" in answer.headers
        late = await connect(f"ws://127.0.0.1:{server.port}/api/realtime?userId=bert", proxy=None)
        (goodbye,), code = await hear_the_end(late)
        assert (goodbye["type"], goodbye["payload"]["reason"], code) == ("DISCONNECT", "Try again later", 1013)


def test_a_port_in_use_is_a_sentence_and_status_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = subprocess.run(
            [*THIS_PYTHON, "serve", "--port", str(port), "--store", "sqlite:///rt.db"],
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.returncode == 2
    assert f"port {port} is in use" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "rt.db").exists(), "it asked for the port first"


def test_an_address_that_is_not_here_is_a_sentence(tmp_path: Path) -> None:
    ended = subprocess.run(
        [*THIS_PYTHON, "serve", "--port", "0", "--host", "192.0.2.1", "--store", "memory://"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert "192.0.2.1" in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_forms_with_files_are_not_taken_apart(start_server: StartServer) -> None:
    server = start_server("--store", "memory://")
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    body = '--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--\r\n'
    answer = await AsyncHTTPClient().fetch(
        f"{server.url}/healthz", method="POST", headers=headers, body=body, raise_error=False
    )
    assert (answer.code, json.loads(answer.body)["code"]) == (405, "METHOD_NOT_ALLOWED")


# As many connections as there are files for


def test_no_more_connections_than_files() -> None:
    """In a process of its own: a limit that was lowered cannot be raised again."""
    code = """
import resource
from tornado_rt.lifecycle import SPARE_FILES, _raise_file_limit
for max_connections in (20_000, 0, 40):
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, SPARE_FILES + 56))
    possible = _raise_file_limit(max_connections)
    print("possible", max_connections, possible, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=clean_environment())
    lines = ended.stdout.splitlines()
    assert lines[-3:] == ["possible 20000 56 56", "possible 0 56 56", "possible 40 40 40"]
    assert sum("too_few_files" in line for line in lines) == 1


def test_where_files_abound_the_setting_counts() -> None:
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] > 300
    assert lifecycle._raise_file_limit(50) == 50


# The guide's one server


@pytest.fixture
def no_server_left() -> Iterator[None]:
    yield
    assert not lifecycle.is_realtime_server_running()


async def test_one_server_in_a_process(no_server_left: None) -> None:
    assert not lifecycle.is_realtime_server_running()
    with pytest.raises(RuntimeError, match="initialize_realtime_server"):
        lifecycle.get_realtime_server()
    server = await lifecycle.initialize_realtime_server(Settings(store="memory://"))
    assert lifecycle.is_realtime_server_running()
    assert lifecycle.get_realtime_server() is server
    with pytest.raises(RuntimeError, match="already"):
        await lifecycle.initialize_realtime_server(Settings(store="memory://"))
    await lifecycle.shutdown_realtime_server(0)
    with pytest.raises(RuntimeError):
        lifecycle.get_realtime_server()
    await lifecycle.shutdown_realtime_server(0)


async def test_after_a_shutdown_there_may_be_another(no_server_left: None, tmp_path: Path) -> None:
    """On the same file, which the first has let go of."""
    settings = Settings(store=f"sqlite:///{tmp_path}/rt.db")
    for seq in (1, 2):
        server = await lifecycle.initialize_realtime_server(settings)
        operation = {"operationId": f"o{seq}", "type": "WIDGET_UPDATE", "payload": {"widgetId": "w", "data": {"value": seq}}}
        assert (await server.apply("board", operation, user_id="robot"))["seq"] == seq
        await lifecycle.shutdown_realtime_server(1)
