"""The pictures of docs/images, taken anew by `.venv/bin/python -m scripts.take_pictures` in a Chromium of its own."""

from __future__ import annotations

import asyncio
import random
import tempfile
from pathlib import Path

from playwright.async_api import Page, expect

from tests.browser.windows import (
    Windows,
    cut,
    dialog,
    figure,
    is_live,
    memory_server,
    note,
    press,
    rejoin,
    windows,
    write,
)
from tornado_rt.cli.demo_feed import next_fields
from tornado_rt.client import Edit, RealtimeClient

IMAGES = Path(__file__).parent.parent / "docs" / "images"
WIDE = {"width": 1280, "height": 940}
PHONE = {"width": 390, "height": 844}
NOTE = (
    "Swell is easing. Gannet goes to berth 2 from noon, Fulmar stays at 4.\n\n"
    "School party of {} on the 10:20: keep the upper deck free.\n\nDiver at the east mole until 14:00. Slow, no wake."
)


async def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        server = memory_server(Path(directory))
        await server.start()
        try:
            async with windows(server) as desk:
                await take(desk)
        finally:
            server.close()


async def take(desk: Windows) -> None:
    """The same moment of a busy morning in every look, then a conflict."""
    anna = await desk.open("anna", viewport=WIDE)
    cleo = await desk.open("cleo", viewport=WIDE, color_scheme="dark")
    ben = await desk.open("ben", viewport=PHONE, is_mobile=True, has_touch=True, device_scale_factor=2)
    await press(cleo, "Boats under way: one more").click()
    await write(note(ben), NOTE.format("62"))
    await cleo.get_by_label("State of 10:05").select_option("Boarding")
    await write(figure(ben, "Crew on watch"), "24")
    await feed(desk)
    for page in (anna, ben, cleo):
        await is_live(page)
    await shoot(anna, "light", is_whole=True)
    await shoot(cleo, "dark", is_whole=True)
    await shoot(ben, "phone")
    await conflict(anna, cleo)


async def feed(desk: Windows) -> None:
    """Some rounds of what `tornado-rt demo-feed` does, the same ones each time."""
    chance = random.Random(11).random
    async with RealtimeClient(desk.server.base, user_id="harbour-feed") as client:
        for _ in range(24):
            moves = {widget_id: next_fields(fields, chance) for widget_id, fields in client.widgets.items()}
            await client.batch([Edit.update(widget_id, data) for widget_id, data in moves.items() if data], atomic=False)


async def conflict(anna: Page, cleo: Page) -> None:
    await cut(cleo)
    await write(figure(cleo, "Crew on watch"), "26")
    await write(note(cleo), NOTE.format("62, and two teachers,").replace("berth 2", "berth 3"))
    await write(figure(anna, "Crew on watch"), "22")
    await write(note(anna), NOTE.format("58"))
    await is_live(anna)
    await rejoin(cleo)
    await expect(dialog(cleo)).to_contain_text("(1 of 2)")
    await press(cleo, "Keep mine").click()
    await expect(dialog(cleo)).to_contain_text("(2 of 2)")
    await shoot(cleo, "conflict")


async def shoot(page: Page, name: str, *, is_whole: bool = False) -> None:
    await page.mouse.move(2, 2)
    await page.evaluate("document.fonts.ready.then(() => { document.activeElement.blur(); scrollTo(0, 0); })")
    await page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished.catch(() => {})))")
    await page.screenshot(path=IMAGES / f"{name}.png", full_page=is_whole)


if __name__ == "__main__":
    asyncio.run(main())
