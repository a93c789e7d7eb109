"""Two people, each in a window of a real Chromium, on one dashboard of a real server: what each sees, and what is asked."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, WebSocketRoute, expect

from tests.browser.windows import (
    CLIENT,
    chromium,
    cut,
    dialog,
    figure,
    file_server,
    has_status,
    is_live,
    memory_server,
    note,
    position,
    press,
    rejoin,
    title_of,
    titles,
    until,
    windows,
    write,
)
from tests.faults.process import ServerProcess
from tornado_rt.client import RealtimeClient


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = memory_server(tmp_path)
    yield process
    process.close()


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[ServerProcess]:
    """One that notices silence soon, so that its clients do."""
    process = file_server(tmp_path, RT_HEARTBEAT_INTERVAL="1", RT_HEARTBEAT_TIMEOUT="5")
    yield process
    process.close()


async def test_what_one_types_the_other_shows(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        await figure(anna, "Crew on watch").fill("41")  # without leaving the field: a pause is enough
        await expect(figure(ben, "Crew on watch")).to_have_value("41")
        await press(ben, "Crew on watch: one more").click()
        await expect(figure(anna, "Crew on watch")).to_have_value("42")
        await write(note(ben), "Fog until ten.")
        await expect(note(anna)).to_have_value("Fog until ten.")
        await write(title_of(anna, "boats"), "Boats at sea")
        await expect(figure(ben, "Boats at sea")).to_have_value("7")
        await anna.get_by_label("State of 10:20").select_option("Late")
        await expect(ben.get_by_label("State of 10:20")).to_have_value("Late")
        await expect(anna.get_by_role("listitem").filter(has_text="ben set Crew on watch to 42")).to_be_visible()


async def test_when_both_edit_one_field_the_later_is_asked(server: ServerProcess, browser: str) -> None:
    """Who was there first sees no question; who comes later decides, and both show what he chose."""
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        await cut(ben)
        await write(figure(ben, "Crew on watch"), "30")
        await write(note(ben), "Ben's note")
        await write(figure(anna, "Crew on watch"), "20")
        await write(note(anna), "Anna's note")
        await expect(ben.locator("rt-pending-badge")).to_contain_text("2 pending")
        await is_live(anna)
        await rejoin(ben)
        await expect(dialog(ben)).to_contain_text("Two changes to “Crew on watch” (1 of 2)")
        await expect(dialog(ben).get_by_role("row", name="value")).to_have_text("value3020")
        await expect(dialog(ben)).to_contain_text("anna changed it too at ")
        await expect(figure(ben, "Crew on watch")).to_have_value("20")  # what stands, until he has chosen
        await press(ben, "Keep mine").click()
        await expect(dialog(ben)).to_contain_text("Two changes to “Watch note” (2 of 2)")
        await press(ben, "Keep theirs").click()
        await expect(dialog(ben)).to_be_hidden()
        for page in (anna, ben):
            await expect(figure(page, "Crew on watch")).to_have_value("30")
            await expect(note(page)).to_have_value("Anna's note")
        await expect(dialog(anna)).to_be_hidden()


async def test_different_fields_meet_without_a_question(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        await cut(ben)
        await write(title_of(ben, "crew"), "People on watch")
        await ben.get_by_label("State of 09:40").select_option("Left")
        await write(figure(anna, "Crew on watch"), "20")
        await anna.get_by_label("State of 10:05").select_option("Boarding")
        await is_live(anna)
        await rejoin(ben)
        await is_live(ben)
        for page in (anna, ben):
            await expect(figure(page, "People on watch")).to_have_value("20")
            await expect(page.get_by_label("State of 09:40")).to_have_value("Left")
            await expect(page.get_by_label("State of 10:05")).to_have_value("Boarding")
            await expect(dialog(page)).to_be_hidden()


async def test_a_conflict_is_settled_by_the_keyboard_alone(server: ServerProcess, browser: str) -> None:
    """Focus goes into the dialog, to no button that the next key would press, stays in it, and comes back."""
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        await cut(ben)
        await write(figure(ben, "Crew on watch"), "30")
        await write(figure(anna, "Crew on watch"), "20")
        await is_live(anna)
        await figure(ben, "Boats under way").focus()
        await ben.evaluate("document.querySelector('rt-dashboard').connect()")
        await expect(dialog(ben)).to_be_visible()
        await ben.keyboard.press("Space")  # he was typing
        await expect(dialog(ben).get_by_role("heading")).to_be_focused()
        met = []
        for _ in range(8):
            await ben.keyboard.press("Tab")
            met.append(
                await ben.evaluate(
                    "document.activeElement.shadowRoot?.activeElement?.textContent ?? document.activeElement.tagName"
                )
            )
        assert [name for name in met if name != "BODY"][:5] == ["×", "Keep theirs", "Edit and merge", "Keep mine", "×"], met
        await press(ben, "Edit and merge").focus()
        await ben.keyboard.press("Enter")
        await expect(ben.get_by_label("Merged value")).to_be_focused()
        await ben.keyboard.type("x")
        await ben.keyboard.press("Enter")
        await expect(dialog(ben).get_by_role("alert")).to_have_text("value must be a number.")
        await ben.keyboard.press("Backspace")
        await ben.keyboard.press("Backspace")
        await ben.keyboard.type("5")
        await ben.keyboard.press("Enter")
        await expect(dialog(ben)).to_be_hidden()
        await expect(figure(ben, "Boats under way")).to_be_focused()
        for page in (anna, ben):
            await expect(figure(page, "Crew on watch")).to_have_value("35")


async def test_escape_keeps_theirs(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        await cut(ben)
        await write(figure(ben, "Crew on watch"), "30")
        await write(figure(anna, "Crew on watch"), "20")
        await is_live(anna)
        await rejoin(ben)
        await expect(dialog(ben)).to_be_visible()
        await ben.keyboard.press("Escape")
        await expect(dialog(ben)).to_be_hidden()
        await is_live(ben)
        for page in (anna, ben):
            await expect(figure(page, "Crew on watch")).to_have_value("20")


@pytest.mark.parametrize("end", ["kill", "terminate"])
async def test_the_server_goes_and_comes_back(durable: ServerProcess, browser: str, end: str) -> None:
    """What is changed meanwhile is shown at once, told as pending, and there once in the end, in all windows."""
    await durable.start()
    async with windows(durable, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        before = await position(anna)
        getattr(durable, end)()
        await durable.ended(20)
        for page in (anna, ben):
            await expect(page.locator("rt-sync-indicator")).not_to_have_attribute("data-status", "live")
        await write(figure(anna, "Crew on watch"), "31")
        await write(figure(ben, "Boats under way"), "9")
        await write(note(ben), "Written in the dark.")
        await expect(ben.locator("rt-pending-badge")).to_contain_text("2 ")
        await durable.start()
        for page in (anna, ben):
            await is_live(page)
            await expect(figure(page, "Crew on watch")).to_have_value("31")
            await expect(figure(page, "Boats under way")).to_have_value("9")
            await expect(note(page)).to_have_value("Written in the dark.")
            await expect(page.locator("rt-pending-badge")).to_be_hidden()
            assert await position(page) == before + 3, "each of the three once"


async def test_a_server_that_freezes_is_noticed_and_gets_everything_once(durable: ServerProcess, browser: str) -> None:
    """No close arrives: only silence tells. What had been sent may have been applied, or not."""
    await durable.start()
    async with windows(durable, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        before = await position(anna)
        durable.process.send_signal(signal.SIGSTOP)
        await write(figure(anna, "Crew on watch"), "31")
        await has_status(anna, "syncing")
        await expect(figure(anna, "Crew on watch")).to_have_value("31")
        await expect(anna.locator("rt-sync-indicator")).not_to_have_attribute("data-status", "syncing", timeout=10_000)
        await write(note(anna), "Written while it slept.")
        durable.process.send_signal(signal.SIGCONT)
        for page in (anna, ben):
            await is_live(page)
            await expect(figure(page, "Crew on watch")).to_have_value("31")
            await expect(note(page)).to_have_value("Written while it slept.")
        assert await position(anna) == await position(ben) == before + 2


class Proxy:
    """Something between a page and the server that lets all through, or nothing but files."""

    def __init__(self, *, blocks_posts: bool = True) -> None:
        self.is_blocking = False
        self.blocks_posts = blocks_posts

    async def stand_before(self, page: Page) -> None:
        await page.context.route("**/api/realtime?**", self._post)
        await page.context.route_web_socket("**/api/realtime?**", self._socket)

    async def _post(self, route: Route) -> None:
        await (route.abort() if self.is_blocking and self.blocks_posts else route.continue_())

    async def _socket(self, socket: WebSocketRoute) -> None:
        if self.is_blocking:
            await socket.close(code=1006)
        else:
            socket.connect_to_server()


async def test_a_page_reloaded_while_offline_keeps_its_queue(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        proxy = Proxy()
        await proxy.stand_before(ben)
        proxy.is_blocking = True
        await ben.reload()
        await has_status(ben, "offline")
        before = await position(anna)
        await ben.evaluate("document.querySelector('rt-dashboard').client.update('crew', {value: 12})")
        await ben.reload()
        await expect(ben.locator("rt-pending-badge")).to_contain_text("1 ")
        await expect(ben.get_by_role("spinbutton")).to_have_value("12")
        proxy.is_blocking = False
        await is_live(ben)
        for page in (anna, ben):
            await expect(figure(page, "Crew on watch")).to_have_value("12")
        assert await position(anna) == before + 1


async def test_what_was_just_typed_outlives_the_page(server: ServerProcess, browser: str) -> None:
    """Reloaded in the very moment, before the pause that tells that a value is meant."""
    await server.start()
    async with windows(server, browser) as desk:
        anna = await desk.open("anna")
        await figure(anna, "Crew on watch").fill("12")
        await anna.reload()
        await expect(figure(anna, "Crew on watch")).to_have_value("12")
        await is_live(anna)


async def test_where_no_socket_gets_through_posts_do_the_work(server: ServerProcess, browser: str) -> None:
    """Sending and receiving; the indicator says so."""
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        proxy = Proxy(blocks_posts=False)
        proxy.is_blocking = True
        await proxy.stand_before(ben)
        await ben.reload()
        await ben.evaluate("document.querySelector('rt-dashboard').options = {syncInterval: 300}")
        await has_status(ben, "fallback")
        await write(figure(anna, "Crew on watch"), "17")
        await expect(figure(ben, "Crew on watch")).to_have_value("17")
        await write(figure(ben, "Crew on watch"), "18")
        await expect(figure(anna, "Crew on watch")).to_have_value("18")
        await expect(ben.locator("rt-sync-indicator")).to_contain_text("By HTTP")


async def test_tiles_are_dragged_and_the_move_is_undone(server: ServerProcess, browser: str) -> None:
    """With the pointer and with the keyboard; whoever undoes it, both see it."""
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        first = await titles(anna)
        await press(anna, "Move Wind at the pier").hover()
        await anna.mouse.down()
        box = await anna.locator("[widget-id=passengers]").bounding_box()
        assert box is not None
        await anna.mouse.move(box["x"] + 90, box["y"] + 60, steps=6)
        await anna.mouse.up()
        dragged = ["Wind at the pier", *(title for title in first if title != "Wind at the pier")]
        for page in (anna, ben):
            await expect(page.locator("input.title").first).to_have_value("Wind at the pier")
            assert await titles(page) == dragged
        grip = press(ben, "Move Crew on watch")
        await grip.focus()
        await ben.keyboard.press("ArrowUp")
        await expect(grip).to_be_focused()
        await expect(anna.locator("input.title").nth(-1)).to_have_value("Boats under way")
        await press(ben, "Undo move").click()
        await expect(anna.locator("input.title").nth(-1)).to_have_value("Crew on watch")
        assert await titles(anna) == dragged
        await press(anna, "Undo move").click()
        for page in (anna, ben):
            await expect(page.locator("input.title").first).to_have_value("People aboard")
            assert await titles(page) == first
            await expect(press(page, "Undo move")).to_be_disabled()


async def test_escape_lets_a_dragged_tile_go_home(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        anna = await desk.open("anna")
        first, before = await titles(anna), await position(anna)
        await press(anna, "Move Wind at the pier").hover()
        await anna.mouse.down()
        await anna.mouse.move(120, 260, steps=4)
        await expect(anna.locator(".lifted")).to_be_visible()
        await anna.keyboard.press("Escape")
        await expect(anna.locator(".lifted")).to_have_count(0)
        await anna.mouse.up()
        assert await titles(anna) == first
        assert await position(anna) == before


MARKUP = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script>'


async def test_what_people_write_does_no_harm(server: ServerProcess, browser: str) -> None:
    """Markup, names that objects have of their own, values of the wrong kind, and far too much of everything."""
    await server.start()
    async with windows(server, browser) as desk:
        anna = await desk.open("anna")
        async with RealtimeClient(server.base, user_id=MARKUP) as mallory:
            await mallory.update("crew", {"title": MARKUP, "unit": MARKUP, "recent": [MARKUP, None, {}], "decimals": 1e9})
            await mallory.update("note", {"text": MARKUP})
            await mallory.update("boats", {"title": "long " * 2_000})
            await mallory.update("wind", {"title": {"an": "object"}, "value": "no number", "drift": "much"})
            await mallory.update("load", {"series": ["__proto__", "Aboard", 7], "Aboard": [1, "2", None, 3]})
            await mallory.update(
                "departures", {"rows": [[MARKUP, None, 7], "no row"], "columns": "none", "choices": [MARKUP, {}]}
            )
            await mallory.update("__proto__", json.loads('{"__proto__": {"harmed": 1}, "constructor": 1, "toString": "x"}'))
            await mallory.update(MARKUP, {"value": 1e300, "title": "\u202e right to left"})
            await mallory.update_layout(
                json.loads('{"__proto__": {"at": 0.5, "w": 99}, "crew": "no place", "wind": {"at": "first"}}')
            )
            last = await mallory.update("boats", {"value": 5})
        await until(anna, f"{CLIENT}.position >= {last.seq}")
        await expect(anna.locator("[widget-id=boats] input.value")).to_have_value("5")
        await expect(anna.locator('[widget-id="__proto__"]')).to_be_visible()
        await expect(note(anna)).to_have_value(MARKUP)
        assert await anna.evaluate("window.harmed ?? ({}).harmed ?? null") is None
        assert await anna.locator("rt-dashboard img:not(.mark), rt-dashboard script").count() == 0
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert await anna.evaluate(overflow) == 0
        await write(figure(anna, "People aboard"), "1")  # and everything still works
        await is_live(anna)
        await anna.reload()
        await is_live(anna)
        await expect(figure(anna, "People aboard")).to_have_value("1")
        assert await anna.evaluate(overflow) == 0
        assert await anna.evaluate("window.harmed ?? ({}).harmed ?? null") is None


async def test_the_switch_makes_the_figures_move_in_all_windows(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        anna, ben = await desk.open("anna"), await desk.open("ben")
        before = await position(ben)
        switch = anna.get_by_role("switch", name="Figures move")
        await switch.click()
        await expect(switch).to_have_attribute("aria-checked", "true")
        await until(ben, f"{CLIENT}.position >= {before + 10}")
        await expect(ben.get_by_role("listitem").filter(has_text="harbour-feed changed 5 tiles")).to_be_visible()
        await switch.click()
        await expect(switch).to_have_attribute("aria-checked", "false")
