"""The main job on real input: people on one dashboard, edits flowing, the server killed in between, nothing lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, async_playwright, expect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.faults.process import ServerProcess

CHROMIUM = "/usr/bin/chromium"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """On a file and a port that outlive it."""
    process = ServerProcess(f"sqlite:///{tmp_path}/rt.db", tmp_path / "server.log")
    yield process
    process.close()


class Script:
    """Some thirty lines as anybody might write them: send edits, keep what is not acknowledged, come back with ``since``.

    What it holds is made from what it hears alone. ``seqs`` are the places that it has heard, its own at their ACKs.
    """

    def __init__(self, server: ServerProcess, user: str, edits: int) -> None:
        self.server = server
        self.user = user
        self.to_send = [self.edit(number) for number in range(edits)]
        self.pending: dict[str, dict[str, Any]] = {}
        self.acknowledged: dict[str, int] = {}
        self.widgets: dict[str, dict[str, Any]] = {}
        self.position = 0
        self.epoch = ""
        self.reconnects = -1
        self.progress = asyncio.Event()

    def edit(self, number: int) -> dict[str, Any]:
        """One field that both of them write to their own key of, and a widget that is this edit's own."""
        parts = [
            {"operationId": f"{self.user}-{number}-a", "type": "WIDGET_UPDATE", "payload": payload}
            for payload in [{"widgetId": "shared", "data": {self.user: number}}]
        ] + [
            {
                "operationId": f"{self.user}-{number}-b",
                "type": "WIDGET_UPDATE",
                "payload": {"widgetId": f"{self.user}-{number}", "data": {"number": number}},
            }
        ]
        payload = {"operations": parts}
        return {"type": "WIDGET_BATCH", "id": f"{self.user}-{number}", "userId": self.user, "payload": payload}

    async def run(self) -> None:
        """Until everything is acknowledged."""
        while self.to_send or self.pending:
            try:
                async with self.connection() as socket:
                    await self.talk(socket)
            except (ConnectionClosed, OSError):
                await asyncio.sleep(0.02)  # the server is gone; it is restarted by the test

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[ClientConnection]:
        query = f"userId={self.user}&deviceId={self.user}&dashboardId=job&since={self.position}&epoch={self.epoch or 'none'}"
        url = f"ws://127.0.0.1:{self.server.port}/api/realtime?{query}"
        async with connect(url, proxy=None, ping_interval=None, compression=None) as socket:
            first = json.loads(await socket.recv())["payload"]
            self.reconnects += 1
            self.epoch = first["epoch"]
            self.take_sync(first["sync"])
            yield socket

    async def talk(self, socket: ClientConnection) -> None:
        for message in self.pending.values():
            await socket.send(json.dumps(message))
        while self.to_send or self.pending:
            while self.to_send and len(self.pending) < 4:
                message = self.to_send.pop(0)
                self.pending[message["id"]] = message
                await socket.send(json.dumps(message))
            self.hear(json.loads(await socket.recv()))

    async def listen(self, until: int) -> None:
        """Hear of what the others still do."""
        while self.position < until:
            async with self.connection() as socket:
                while self.position < until:
                    self.hear(json.loads(await socket.recv()))

    def hear(self, message: dict[str, Any]) -> None:
        payload = message["payload"]
        if message["type"] == "ACK":
            sent = self.pending.pop(message["correlationId"])
            seq = self.acknowledged[sent["id"]] = payload["seq"]
            assert all(result["status"] == "success" for result in payload["results"]), payload
            if seq > self.position:  # a late ACK tells of what was heard of already
                self.take_change(seq, [part["payload"] for part in sent["payload"]["operations"]])
            self.progress.set()
        elif message["type"] == "WIDGET_BATCH":
            self.take_change(payload["seq"], [part["payload"] for part in payload["operations"]])

    def take_change(self, seq: int, payloads: list[dict[str, Any]]) -> None:
        assert seq == self.position + 1, "a gap, or something twice"
        self.position = seq
        for payload in payloads:
            self.widgets.setdefault(payload["widgetId"], {}).update(payload["data"])

    def take_sync(self, sync: dict[str, Any]) -> None:
        if sync["mode"] == "delta":
            for change in sync["operations"]:
                self.take_change(change["seq"], [part["payload"] for part in change["payload"]["operations"]])
        else:
            if sync["mode"] == "snapshot":
                assert self.position == 0, "the log is the same one, so there is no need to begin anew"
                self.widgets = {}
            self.widgets.update({name: doc["data"] for name, doc in sync["widgets"].items()})
        self.position = sync["seq"]

    async def progressed(self, count: int) -> None:
        """Wait until so many edits are acknowledged."""
        while len(self.acknowledged) < count:
            self.progress.clear()
            await self.progress.wait()


async def test_two_scripts_and_kill_9_in_between(server: ServerProcess) -> None:
    """Every acknowledged edit is there, once; both see the same; nothing was skipped on the way."""
    edits = 100
    await server.start()
    scripts = [Script(server, "anna", edits), Script(server, "bert", edits)]
    running = asyncio.gather(*[script.run() for script in scripts])
    for reached in (25, 60):
        await asyncio.wait([running, asyncio.ensure_future(scripts[0].progressed(reached))], return_when="FIRST_COMPLETED")
        assert not running.done(), "it was over before it was cut"
        server.kill()
        await server.start()
    await running
    for script in scripts:
        await script.listen(2 * edits)
        assert script.reconnects >= 2
        assert sorted(script.acknowledged) == sorted(f"{script.user}-{number}" for number in range(edits))
    anna, bert = scripts
    assert anna.position == bert.position == 2 * edits, "one seq for each edit: none lost, none twice"
    assert len({*anna.acknowledged.values(), *bert.acknowledged.values()}) == 2 * edits
    expected = {f"{user}-{number}": {"number": number} for user in ("anna", "bert") for number in range(edits)}
    expected["shared"] = {"anna": edits - 1, "bert": edits - 1}
    assert anna.widgets == bert.widgets == expected
    newcomer = Script(server, "carl", 0)
    async with newcomer.connection():
        assert newcomer.widgets == expected


# In the browser


@asynccontextmanager
async def windows(server: ServerProcess, *users: str) -> AsyncIterator[list[Page]]:
    """The plainest page there is, each time as another person; none says anything to the console."""
    said: list[str] = []
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        pages = []
        for user in users:
            page = await browser.new_page()
            await page.add_init_script("Math.random = () => 0.05")  # how long a page waits before it comes back
            page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            await page.goto(f"{server.base}/static/plain.html?userId={user}")
            await expect(page.get_by_role("status")).to_contain_text("live")
            pages.append(page)
        yield pages
        await browser.close()
    # That the server was not there is not the page's mistake, and browsers cannot be kept from saying so.
    assert [text for text in said if "WebSocket connection to" not in text] == []


async def test_two_windows_see_each_other_over_a_restart(server: ServerProcess) -> None:
    """What one types the other shows; killed and started again, both come back by themselves, with what is new."""
    await server.start()
    async with windows(server, "anna", "bert") as (anna, bert):
        await anna.get_by_label("Value").fill("41")
        await expect(bert.get_by_label("Value")).to_have_value("41")
        await bert.get_by_role("button", name="one more").click()
        await expect(anna.get_by_label("Value")).to_have_value("42")
        await expect(anna.get_by_role("listitem").first).to_contain_text("42bert")
        server.kill()
        for page in (anna, bert):
            await expect(page.get_by_role("status")).to_contain_text("cut off")
        await bert.get_by_role("button", name="one more").click()  # it waits, and goes when the server is there again
        await server.start()
        for page in (anna, bert):
            await expect(page.get_by_role("status")).to_contain_text("live", timeout=30_000)
        for page in (anna, bert):
            await expect(page.get_by_label("Value")).to_have_value("43")
        await anna.get_by_role("button", name="one less").click()
        await expect(bert.get_by_label("Value")).to_have_value("42")
