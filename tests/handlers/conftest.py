"""A whole server in this process, listening as ``tornado-rt serve`` does, and people who come by socket or HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from websockets.asyncio.client import ClientConnection, connect

from tornado_rt import lifecycle
from tornado_rt.app import make_application, make_gate
from tornado_rt.config import Settings
from tornado_rt.server import RealtimeServer

Message = dict[str, Any]


class House:
    """``is_mounted`` serves by way of an ordinary Tornado application, as where the routes are a part of another one."""

    def __init__(self, *, is_mounted: bool = False, **settings: Any) -> None:
        self.settings = Settings(**{"store": "memory://", "port": 0, **settings})
        self.is_mounted = is_mounted
        self.server: RealtimeServer
        self.http_server: HTTPServer
        self.sockets: list[ClientConnection] = []

    async def start(self) -> None:
        self.server = await lifecycle.initialize_realtime_server(self.settings)
        listening = lifecycle._bind(self.settings.port, "127.0.0.1")
        self.port = listening[0].getsockname()[1]
        if self.is_mounted:
            self.http_server = HTTPServer(make_application(self.server, make_gate(self.settings)))
            self.http_server.add_sockets(listening)
        else:
            self.http_server = lifecycle._listen(self.server, listening, make_gate(self.settings))

    async def stop(self) -> None:
        for socket in self.sockets:
            await socket.close()
        await lifecycle.shutdown_realtime_server(0.0)
        self.http_server.stop()
        await self.http_server.close_all_connections()
        await asyncio.sleep(0)

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def fetch(self, path: str, **request: Any) -> HTTPResponse:
        """Any answer is a value."""
        if isinstance(request.get("body"), dict):
            request["body"] = json.dumps(request["body"])
            request["method"] = "POST"
            request["headers"] = {"Content-Type": "application/json", **request.get("headers", {})}
        return await AsyncHTTPClient().fetch(
            HTTPRequest(self.base + path, allow_nonstandard_methods=True, **request), raise_error=False
        )

    async def fetch_json(self, path: str, **request: Any) -> Any:
        answer = await self.fetch(path, **request)
        assert answer.code == 200, answer.body
        return json.loads(answer.body)

    async def raw(self, text: str) -> tuple[int, dict[str, str], bytes]:
        """Send these lines; the answer's status, its headers in lower case, its body."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(text.replace("HOST", f"127.0.0.1:{self.port}").replace("\n", "\r\n").encode())
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        writer.close()
        return int(line.split()[1]), headers, body

    async def connect(self, query: str = "userId=anna", **options: Any) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.port}/api/realtime?{query}"
        options = {"proxy": None, "ping_interval": None, "compression": None, **options}
        socket = await connect(url, **options)
        self.sockets.append(socket)
        return socket

    async def member(self, query: str = "userId=anna", **options: Any) -> ClientConnection:
        """A connection whose CONNECT has been heard."""
        socket = await self.connect(query, **options)
        assert (await hear(socket))["type"] == "CONNECT"
        return socket


async def hear(socket: ClientConnection) -> Message:
    message: Message = json.loads(await socket.recv())
    return message


async def say(socket: ClientConnection, type_: str, payload: Any = None, id_: str = "m1", user: str = "anna") -> None:
    await socket.send(json.dumps({"type": type_, "id": id_, "userId": user, "payload": payload or {}}))


async def ended(socket: ClientConnection) -> tuple[int | None, str | None]:
    """Wait for the end; the close code and reason that came."""
    await socket.wait_closed()
    return socket.close_code, socket.close_reason


async def turned_away(socket: ClientConnection) -> tuple[Message, tuple[int | None, str | None]]:
    """The one message before the end, which must be DISCONNECT, and the end."""
    goodbye = await hear(socket)
    assert goodbye["type"] == "DISCONNECT"
    return goodbye["payload"], await ended(socket)


OpenHouse = Callable[..., Awaitable[House]]


@pytest.fixture
def open_house(io_loop: IOLoop) -> Iterator[OpenHouse]:
    """Opens a server with these settings; it is closed with the test."""
    houses: list[House] = []

    async def open_(**settings: Any) -> House:
        house = House(**settings)
        await house.start()
        houses.append(house)
        return house

    yield open_
    for house in houses:
        io_loop.run_sync(house.stop)


@pytest.fixture(params=["serve", "mounted"])
def house(request: pytest.FixtureRequest, io_loop: IOLoop, open_house: OpenHouse) -> House:
    """A server in both forms: by itself, and mounted into a Tornado application."""
    opened: House = io_loop.run_sync(partial(open_house, is_mounted=request.param == "mounted"))
    return opened
