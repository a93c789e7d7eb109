"""How the demo page bears load: `.venv/bin/python -m scripts.measure_page`. Prints figures, for a machine that is quiet."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from playwright.async_api import CDPSession, Page

from tests.browser.windows import CLIENT, Windows, memory_server, until, windows
from tornado_rt.client import Edit, RealtimeClient

WIDGETS = 50
UPDATES_PER_SECOND = 1_000
SECONDS = 10
MAX_OPERATIONS = 50
TICK_SECONDS = 0.01
COLD_LOADS = 5

# Long tasks are those over 50 ms.
WATCH = """() => {
  window.longTasks = [];
  const keep = (list) => longTasks.push(...list.getEntries().map((each) => each.duration));
  new PerformanceObserver(keep).observe({type: 'longtask'});
}"""
# From the navigation until the first number of the server can be changed.
INTERACTIVE = """() => new Promise((done) => {
  const look = () => document.querySelector('input.value') ? done(performance.now()) : setTimeout(look, 2);
  look();
})"""


async def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = memory_server(Path(directory))
        await server.start()
        try:
            async with windows(server) as desk:
                await cold_loads(desk)
                await load(desk)
        finally:
            server.close()


async def cold_loads(desk: Windows) -> None:
    await (await desk.open("anna")).close()  # it has filled the dashboard
    times = []
    for _ in range(COLD_LOADS):
        page = await (await desk.context()).new_page()
        await page.goto(f"{desk.server.base}/?userId=ben", wait_until="commit")
        times.append(await page.evaluate(INTERACTIVE))
        await page.close()
    rounded = [round(each) for each in times]
    print(f"cold page until a number can be changed: median {statistics.median(times):.0f} ms of {rounded}")


async def load(desk: Windows) -> None:
    async with RealtimeClient(desk.server.base, user_id="load") as client:
        for start in range(0, WIDGETS, 25):
            await client.batch([Edit.update(f"w{n}", {"title": f"Figure {n}", "value": n}) for n in range(start, start + 25)])
        page = await desk.open("anna")
        await page.evaluate(WATCH)
        session = await page.context.new_cdp_session(page)
        await session.send("Performance.enable", {"timeDomain": "threadTicks"})
        before, busy, started = client.position, await busy_seconds(session), time.monotonic()
        await send(client)
        seconds = time.monotonic() - started
        await until(page, f"{CLIENT}.position >= {client.position}")
        lag = time.monotonic() - started - seconds
        await tell(page, (client.position - before) / seconds, lag, (await busy_seconds(session) - busy) / seconds)


async def send(client: RealtimeClient) -> None:
    """At a steady pace, by the clock, in messages of what a tick brings."""
    started, sent = time.monotonic(), 0
    while (elapsed := time.monotonic() - started) < SECONDS:
        due = min(int(elapsed * UPDATES_PER_SECOND), sent + MAX_OPERATIONS)
        operations = [
            {
                "operationId": f"load-{n}",
                "type": "WIDGET_UPDATE",
                "payload": {"widgetId": f"w{n % WIDGETS}", "data": {"value": n}},
            }
            for n in range(sent, due)
        ]
        if operations:
            await client.request("SYNC_UPDATE", {"operations": operations})
        sent = due
        await asyncio.sleep(TICK_SECONDS)


async def busy_seconds(session: CDPSession) -> float:
    """What the page's main thread has computed; unlike long tasks, other work on the machine does not spoil it."""
    metrics = (await session.send("Performance.getMetrics"))["metrics"]
    return sum(each["value"] for each in metrics if each["name"] == "TaskDuration")


async def tell(page: Page, rate: float, lag_seconds: float, busy: float) -> None:
    tasks = sorted(await page.evaluate("longTasks"), reverse=True)
    print(f"{rate:.0f} updates/s over {WIDGETS} widgets for {SECONDS} s, {lag_seconds * 1000:.0f} ms behind at the end")
    longest = [round(each) for each in tasks[:5]]
    print(f"main thread busy for {busy:.0%} of the time; long tasks: {len(tasks)}, the longest {longest} ms")


if __name__ == "__main__":
    asyncio.run(main())
