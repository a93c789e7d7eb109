"""The real server, as it stands on the internet: production, signed tokens. And those who come to harm it.

Every case of this folder runs between two looks at it (``Fortress.unharmed``): its state is what it was, its log has at most
one line more, without traceback, token or secret, and nobody is left connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.auth import forgery
from tests.auth.forgery import SECRET
from tests.faults.process import SERVE, ServerProcess

Json = dict[str, Any]
ANSWER_SECONDS = 20.0
PAGE = "https://app.example.com"  # a page that may connect
SETTINGS = {
    "HOST": "127.0.0.1",
    "RT_ENV": "production",
    "RT_AUTH": "jwt",
    "RT_JWT_SECRET": SECRET,
    "RT_ALLOWED_HOSTS": "dash.example.com",
    "RT_ALLOWED_ORIGINS": PAGE,
    "RT_DEMO": "1",
    "RT_LOG_FORMAT": "json",
    "RT_RATE_LIMIT": "50",
    "RT_USER_RATE_LIMIT": "200",
    "RT_MAX_MESSAGE_BYTES": "65536",
}
CONFINED = """
import resource, sys
from tornado_rt import lifecycle
from tornado_rt.cli import main
patience, files = float(sys.argv[1]), int(sys.argv[2])
if patience:
    lifecycle.HEAD_SECONDS = lifecycle.BODY_SECONDS = patience
if files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
sys.exit(main(["serve", *sys.argv[3:]]))
"""


class Fortress:
    """``witness`` is an admin, who has written something on the dashboard ``sales`` that must stay as it is."""

    def __init__(self, folder: Path, *, patience_seconds: float = 0, max_files: int = 0, **settings: str) -> None:
        """``patience_seconds`` in place of half a minute, and ``max_files`` in place of many thousands."""
        is_confined = patience_seconds or max_files
        program = ("-c", CONFINED, str(patience_seconds), str(max_files)) if is_confined else SERVE
        store = f"sqlite:///{folder}/rt.db"
        self.process = ServerProcess(store, folder / "server.log", program=program, settings={**SETTINGS, **settings})
        self.tokens: list[str] = [SECRET]
        self.witness: Speaker

    # Life

    async def start(self) -> None:
        await self.process.start()
        async with self.speaker("witness", {"*": "admin"}) as witness:
            await witness.ask("WIDGET_UPDATE", {"widgetId": "w1", "data": {"title": "Orders", "value": 1}})
            await witness.ask("LAYOUT_UPDATE", {"layout": {"x": 1}})

    @property
    def port(self) -> int:
        return self.process.port

    @property
    def base(self) -> str:
        return self.process.base

    # Three looks

    @contextlib.asynccontextmanager
    async def unharmed(self, max_lines: int = 1) -> AsyncIterator[None]:
        before, begin = await self.state(), self.process.log.stat().st_size
        yield
        after = await self.state()
        assert after == before
        self.check_log(begin, max_lines)

    async def state(self) -> Json:
        """Everything that there is, and who is connected beside the one who asks: nobody, as soon as all have been closed."""
        async with asyncio.timeout(ANSWER_SECONDS), self.speaker("witness", {"*": "admin"}, is_patient=True) as witness:
            sync = (await witness.ask("SYNC_REQUEST", {}))["payload"]
            while True:
                stats = await self.stats()
                if stats["clientCount"] == 1:
                    break
                await asyncio.sleep(0.02)
        kept = {name: sync[name] for name in ("epoch", "seq", "widgets", "layouts")}
        return {**kept, "faults": stats["faults"]}

    async def stats(self) -> Json:
        answer = await self.process.fetch("/api/realtime/stats", headers=self.bearer("witness", {"*": "admin"}))
        stats: Json = json.loads(answer.body)
        return stats

    def check_log(self, begin: int, max_lines: int) -> None:
        with self.process.log.open() as log:
            log.seek(begin)
            text = log.read()
        lines = [json.loads(line) for line in text.splitlines()]  # one that is not JSON is a traceback
        assert len(lines) <= max_lines, lines
        assert [line for line in lines if line.get("level") == "error" or "exception" in line] == []
        assert [line for line in lines if any(len(str(value)) > 256 for value in line.values())] == []
        assert [token for token in self.tokens if token in text] == []
        assert all(line.isprintable() for line in text.splitlines())

    # Tokens

    def token(self, user: str = "anna", dashboards: Json | None = None, **claims: Any) -> str:
        """A good one, unless ``claims`` say otherwise; ``sales`` may be edited with it."""
        given = {"sub": user, "exp": int(time.time()) + 600, "dashboards": dashboards or {"sales": "editor"}, **claims}
        text = forgery.token(**given)
        self.tokens.append(text.rpartition(".")[2])
        return text

    def bearer(self, user: str = "anna", dashboards: Json | None = None, **claims: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(user, dashboards, **claims)}"}

    # Coming by

    @contextlib.asynccontextmanager
    async def speaker(
        self,
        user: str = "anna",
        dashboards: Json | None = None,
        *,
        dashboard: str = "sales",
        is_patient: bool = False,
        **options: Any,
    ) -> AsyncIterator[Speaker]:
        """Somebody with a connection, whose CONNECT has been heard; if ``is_patient``, after being told to come later."""
        options.setdefault("additional_headers", self.bearer(user, dashboards))
        async with self.socket(f"dashboardId={dashboard}", **options) as socket:
            speaker = Speaker(socket, user)
            greeting = await speaker.hear()
            if greeting["type"] == "CONNECT":
                yield speaker
                return
        assert is_patient, greeting
        await asyncio.sleep(0.2)
        async with self.speaker(user, dashboards, dashboard=dashboard, is_patient=True, **options) as speaker:
            yield speaker

    def socket(self, query: str, **options: Any) -> connect:
        url = f"ws://127.0.0.1:{self.port}/api/realtime?{query}"
        return connect(url, **{"proxy": None, "ping_interval": None, "compression": None, "max_size": None, **options})

    async def turned_away(self, query: str, **options: Any) -> tuple[Json, tuple[int, str]]:
        """The DISCONNECT that greets somebody, and the end."""
        async with self.socket(query, **options) as socket:
            said, end = await Speaker(socket, "").end()
        (goodbye,) = said
        assert goodbye["type"] == "DISCONNECT"
        return goodbye["payload"], end

    async def raw(self, data: bytes, *, more: Iterable[bytes] = (), pause: float = 0.0) -> bytes:
        """Send these bytes, then ``more`` of them with pauses; all that comes until the server closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            answer = asyncio.ensure_future(reader.read())
            for piece in more:
                await asyncio.wait([answer], timeout=pause)
                if answer.done() or writer.is_closing():
                    break
                writer.write(piece)
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except ConnectionError:
            return b""
        finally:
            writer.close()


class Speaker:
    """Says one thing at a time, and hears what comes back."""

    def __init__(self, socket: ClientConnection, user: str) -> None:
        self.socket = socket
        self.user = user
        self._count = 0

    async def hear(self) -> Json:
        """The next message that is no heartbeat."""
        async with asyncio.timeout(ANSWER_SECONDS):
            while (message := json.loads(await self.socket.recv()))["type"] == "PING":
                pass
        heard: Json = message
        return heard

    async def ask(self, type_: str, payload: Any = None, **envelope: Any) -> Json:
        """Send a message; the next that comes must be its answer."""
        self._count += 1
        id_ = f"{self.user}-{self._count}-{os.urandom(4).hex()}"  # never one that the server has heard before
        whole = {"type": type_, "id": id_, "userId": self.user, "payload": payload or {}, **envelope}
        answer = await self.ask_raw(json.dumps(whole))
        assert answer["correlationId"] == id_
        return answer

    async def ask_raw(self, text: str) -> Json:
        await self.socket.send(text)
        return await self.hear()

    async def end(self) -> tuple[list[Json], tuple[int, str]]:
        """Read to the end: what was said, and the close code and reason."""
        said = []
        try:
            while True:
                said.append(await self.hear())
        except ConnectionClosed as closed:
            if closed.rcvd is None:
                raise AssertionError("the connection was cut without a close frame") from closed
            return said, (closed.rcvd.code, closed.rcvd.reason)
