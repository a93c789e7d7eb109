"""One raw connection, a message at a time, for tests that want to see each answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

Json = dict[str, Any]
ANSWER_SECONDS = 20.0


class Line:
    """``connect`` is the server's first message; ``heard`` keeps what nobody was waiting for."""

    def __init__(self, socket: ClientConnection, user: str) -> None:
        self.socket = socket
        self.user = user
        self.connect: Json = {}
        self.heard: list[Json] = []
        self._ids = (f"{user}-{number}" for number in itertools.count(1))

    async def send(self, type_: str, payload: Json, id_: str = "") -> str:
        id_ = id_ or next(self._ids)
        await self.socket.send(json.dumps({"type": type_, "id": id_, "userId": self.user, "payload": payload}))
        return id_

    async def receive(self) -> Json:
        """The next message that is no heartbeat."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                message: Json = json.loads(await self.socket.recv())
                if message["type"] != "PING":
                    return message

    async def answer_to(self, id_: str) -> Json:
        """The message that answers ``id_``."""
        for message in self.heard:
            if message.get("correlationId") == id_:
                self.heard.remove(message)
                return message
        while (message := await self.receive()).get("correlationId") != id_:
            self.heard.append(message)
        return message

    async def ask(self, type_: str, payload: Json, id_: str = "") -> Json:
        return await self.answer_to(await self.send(type_, payload, id_))

    async def update(self, widget: str, id_: str = "", **data: Any) -> Json:
        return await self.ask("WIDGET_UPDATE", {"widgetId": widget, "data": data}, id_)

    async def snapshot(self) -> Json:
        """The payload of a SYNC_RESPONSE with everything."""
        payload: Json = (await self.ask("SYNC_REQUEST", {}))["payload"]
        return payload

    async def end(self) -> tuple[list[Json], int, str]:
        """Read to the end: what was said, and the close code and reason."""
        said, self.heard = self.heard, []
        try:
            while True:
                said.append(await self.receive())
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise AssertionError("the connection was cut without a close frame") from closed
            return said, closed.rcvd.code, closed.rcvd.reason


@contextlib.asynccontextmanager
async def on_line(api: str, user: str = "ann", dashboard: str = "board", **query: Any) -> AsyncIterator[Line]:
    """``api`` is the address of ``/api/realtime``. A server that turns us away leaves its DISCONNECT in ``connect``."""
    url = f"ws{api.removeprefix('http')}?{urlencode({'userId': user, 'dashboardId': dashboard, **query})}"
    async with connect(url, max_size=None, ping_interval=None, compression=None, proxy=None) as socket:
        line = Line(socket, user)
        line.connect = await line.receive()
        yield line
