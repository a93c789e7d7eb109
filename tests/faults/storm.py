"""Several clients at work on several dashboards while something bad happens; then the settled end, and the judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlencode

from websockets.asyncio.client import connect

from tests.faults.driver import Driver, Json
from tests.faults.process import ServerProcess
from tornado_rt.loadtest.history import History, Violation, check

SETTLE_SECONDS = 60.0
BREAK_OFF_SECONDS = 3.0

# name, user, how: ann works on two devices, dan can only POST, and all of them do that now and then
CAST = (("a1", "ann", {}), ("a2", "ann", {}), ("b", "bob", {}), ("c", "cyd", {"post": False}), ("d", "dan", {"socket": False}))


class Storm:
    """``drivers`` write as fast as they are answered until ``settle``; ``history`` has everything."""

    def __init__(self, server: ServerProcess, path: Path, *, seed: int, dashboards: int = 2) -> None:
        self.server = server
        self.history = History(path)
        self.drivers = [
            Driver(f"{name}@{number}", user, f"board-{number}", server.api, self.history, seed, **how)
            for number in range(dashboards)
            for name, user, how in CAST
        ]

    @contextlib.asynccontextmanager
    async def blowing(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(driver.run()) for driver in self.drivers]
        try:
            yield
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await asyncio.gather(*(driver.hang_up() for driver in self.drivers))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.history.close()

    @property
    def verdicts(self) -> int:
        return sum(driver.verdicts for driver in self.drivers)

    async def more_verdicts(self, count: int) -> None:
        """Wait until so many more operations have been answered."""
        wanted = self.verdicts + count
        await self.until(lambda: self.verdicts >= wanted)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that only an answer to one of the drivers can bring about."""
        async with asyncio.timeout(SETTLE_SECONDS):
            while not condition():
                waits = [asyncio.ensure_future(driver.changed.wait()) for driver in self.drivers]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for driver, wait in zip(self.drivers, waits, strict=True):
                    wait.cancel()
                    driver.changed.clear()

    async def oversleep(self, sleepers: list[Driver], missed: int) -> None:
        """Some leave, and come back when so many operations of their dashboards have gone by."""
        for sleeper in sleepers:
            await sleeper.nap()
        left_at = {sleeper.dashboard: sleeper.position for sleeper in sleepers}
        reached = {sleeper.dashboard: 0 for sleeper in sleepers}

        def gone_by() -> bool:
            for driver in self.drivers:
                reached[driver.dashboard] = max(reached[driver.dashboard], driver.position)
            return all(reached[dashboard] >= seq + missed for dashboard, seq in left_at.items())

        await self.until(gone_by)
        for sleeper in sleepers:
            sleeper.wake()

    async def break_off(self) -> None:
        """Stop as things are, and note how the server has it: for servers that may never settle."""
        for driver in self.drivers:
            driver.composing = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BREAK_OFF_SECONDS):
                for driver in self.drivers:
                    await driver.until(lambda driver=driver: driver.is_done)  # type: ignore[misc]
        await self._finish()

    async def settle(self) -> None:
        """No new operations; wait for all verdicts, and until everybody has everything; then note how it all stands."""
        for driver in self.drivers:
            driver.composing = False
        async with asyncio.timeout(SETTLE_SECONDS):
            for driver in self.drivers:
                await driver.until(lambda driver=driver: driver.is_done)  # type: ignore[misc]
        finals = await self._finish()
        async with asyncio.timeout(SETTLE_SECONDS):
            for driver in self.drivers:
                seq = finals[driver.dashboard]["seq"]
                await driver.until(lambda driver=driver, seq=seq: driver.position >= seq)  # type: ignore[misc]
                driver.show()

    async def _finish(self) -> dict[str, Json]:
        finals: dict[str, Json] = {}
        for driver in self.drivers:
            if driver.dashboard not in finals:
                finals[driver.dashboard] = await snapshot_of(self.server, driver.dashboard)
                driver.witness.finished(finals[driver.dashboard])
        return finals

    def judged(self) -> list[Violation]:
        return check(self.history)


async def snapshot_of(server: ServerProcess, dashboard: str) -> Json:
    """A dashboard as the server has it now: the payload of a SYNC_RESPONSE."""
    query = urlencode({"userId": "auditor", "dashboardId": dashboard, "since": 0})
    async with connect(f"ws{server.api.removeprefix('http')}?{query}", max_size=None, proxy=None) as socket:
        sync: Json = json.loads(await socket.recv())["payload"]["sync"]
        return sync
