"""Windows of a real Chromium on a real server, each a person's, and where things stand in them; what a page complains of."""

from __future__ import annotations

import asyncio
import re
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, BrowserContext, Locator, Page, async_playwright, expect

from tests.faults.process import ServerProcess

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-component-update",
    "--disable-sync",
    # A page that a test itself gives out has no address, so Chromium takes loopback for somebody else's network.
    "--disable-features=LocalNetworkAccessChecks,LocalNetworkAccessChecksWebSockets",
]
CLIENT = "document.querySelector('rt-dashboard').client"
# That a server was not there is not the page's mistake, and a browser cannot be kept from saying so.
UNREACHABLE = re.compile(
    r"WebSocket connection to|Failed to load resource: (net::ERR_|the server responded with a status of 503)"
)


class Windows:
    """``said`` is what the pages wrote to the console as warning or error, and the exceptions that nobody caught."""

    def __init__(self, browser: Browser, server: ServerProcess) -> None:
        self.browser = browser
        self.server = server
        self.said: list[str] = []
        self.contexts: list[BrowserContext] = []

    async def context(self, **options: Any) -> BrowserContext:
        """A browser of its own, as it were; ``open`` opens a window in it."""
        context = await self.browser.new_context(**{"viewport": {"width": 1280, "height": 1000}, **options})
        self.contexts.append(context)
        await context.add_init_script("Math.random = () => 0.05")  # how long a page waits before it comes back
        return context

    async def open(self, user: str, context: BrowserContext | None = None, **options: Any) -> Page:
        """A window on the dashboard ``default``, live."""
        page = await (context or await self.context(**options)).new_page()
        page.on("console", lambda message: self._hear(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.said.append(str(error)))
        await page.goto(f"{self.server.base}/?userId={user}")
        await is_live(page)
        await expect(page.locator("rt-widget").first).to_be_visible()
        return page

    def _hear(self, text: str) -> None:
        if not UNREACHABLE.search(text):
            self.said.append(text)


@asynccontextmanager
async def windows(server: ServerProcess, address: str | None = None) -> AsyncIterator[Windows]:
    """In the Chromium at ``address``, or in one of their own. At the end no page may have complained."""
    async with async_playwright() as playwright:
        if address is None:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        else:
            browser = await playwright.chromium.connect_over_cdp(address)
        opened = Windows(browser, server)
        try:
            yield opened
        finally:
            for context in opened.contexts:
                await context.close()
            await browser.close()
    assert opened.said == []


@contextmanager
def chromium(profile: Path) -> Iterator[str]:
    """One Chromium for many tests, since it takes longer to start than a test to run; gives its address."""
    command = [CHROMIUM, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", *ARGUMENTS, "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if found := re.search(r"DevTools listening on (ws://\S+)", line):
                    threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits for a reader
                    yield found[1]
                    break
            else:
                raise AssertionError(f"{CHROMIUM} did not start")
        finally:
            process.terminate()


def memory_server(tmp_path: Path, **settings: str) -> ServerProcess:
    return ServerProcess("memory://", tmp_path / "server.log", settings=settings)


def file_server(tmp_path: Path, **settings: str) -> ServerProcess:
    """On a file and a port that outlive it."""
    return ServerProcess(f"sqlite:///{tmp_path}/rt.db", tmp_path / "server.log", settings=settings)


# Where things stand


def figure(page: Page, title: str) -> Locator:
    return page.get_by_role("spinbutton", name=title, exact=True)


def title_of(page: Page, widget_id: str) -> Locator:
    return page.get_by_label(f"Title of {widget_id}", exact=True)


def note(page: Page) -> Locator:
    return page.get_by_role("textbox", name="Watch note", exact=True)


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def press(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


async def write(field: Locator, text: str) -> None:
    """Type and leave the field, which sends it at once."""
    await field.fill(text)
    await field.blur()


async def cut(page: Page) -> None:
    await press(page, "Cut the connection").click()
    await has_status(page, "offline")


async def rejoin(page: Page) -> None:
    await press(page, "Rejoin").click()


async def has_status(page: Page, status: str) -> None:
    await expect(page.locator("rt-sync-indicator")).to_have_attribute("data-status", status, timeout=20_000)


async def is_live(page: Page) -> None:
    """Connected, nothing pending."""
    await has_status(page, "live")
    await until(page, f"{CLIENT}.pending.length === 0")


async def until(page: Page, condition: str) -> None:
    """Wait for what no element shows. Playwright's own way needs ``eval``, which the page's policy forbids."""
    async with asyncio.timeout(20):
        while not await page.evaluate(condition):
            await asyncio.sleep(0.02)


async def position(page: Page) -> int:
    """The seq of the last change that the page has: it counts every operation once."""
    seq: int = await page.evaluate(f"{CLIENT}.position")
    return seq


async def titles(page: Page) -> list[str]:
    """Of the tiles, in the order that they stand in."""
    return [str(await each.input_value()) for each in await page.locator("input.title").all()]
