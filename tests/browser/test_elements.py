"""Each of the five elements by itself on an empty page of a real server, and all of them before an examiner, axe-core."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

import tornado_rt
from tests.browser.npm import package
from tests.browser.windows import Windows, chromium, cut, dialog, figure, is_live, memory_server, press, rejoin, windows, write
from tests.faults.process import ServerProcess
from tornado_rt.client import RealtimeClient

STATIC = Path(tornado_rt.__file__).parent / "static"
DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "browser.md"
ELEMENTS_BYTES = 10_000  # gzipped, as it is shipped


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = memory_server(tmp_path, RT_MAX_FIELDS="3")
    yield process
    process.close()


# The files


def test_weight() -> None:
    weight = len(gzip.compress((STATIC / "elements.js").read_bytes(), 9))
    assert weight <= ELEMENTS_BYTES, f"{weight} bytes"


def test_nothing_parses_html_or_makes_code() -> None:
    """Then no value that somebody writes can become either."""
    sinks = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|setHTML|document\.write|DOMParser|createContextualFragment|srcdoc|eval\(|Function\("
    )
    for script in STATIC.rglob("*.js"):
        assert not sinks.search(script.read_text()), script


# An examiner


async def faults(page: Page) -> list[str]:
    """What axe-core finds, as ``impact rule: where``."""
    await page.evaluate((package("axe-core") / "axe.min.js").read_text())
    found = await page.evaluate("axe.run({resultTypes: ['violations']}).then((result) => result.violations)")
    return [f"{each['impact']} {each['id']}: {[node['target'] for node in each['nodes']]}" for each in found]


@pytest.mark.parametrize(
    "look", [{}, {"color_scheme": "dark"}, {"viewport": {"width": 390, "height": 844}}], ids=["light", "dark", "phone"]
)
async def test_axe_finds_no_fault(browser: str, tmp_path: Path, look: dict[str, Any]) -> None:
    """In the page, in the panels, and in the dialog in both of its forms."""
    server = memory_server(tmp_path)
    try:
        await server.start()
        async with windows(server, browser) as desk:
            anna, ben = await desk.open("anna"), await desk.open("ben", **look)
            assert await faults(ben) == []
            await cut(ben)
            await write(figure(ben, "Crew on watch"), "30")
            await write(figure(anna, "Crew on watch"), "20")
            await is_live(anna)
            await expect(ben.locator("rt-pending-badge")).to_be_visible()
            for panel in ("rt-pending-badge", "rt-sync-indicator"):
                await ben.locator(f"{panel} >> button").first.click()
                await expect(ben.locator(f"{panel} >> [popover]")).to_be_visible()
                assert await faults(ben) == []
                await ben.keyboard.press("Escape")
            await rejoin(ben)
            await expect(dialog(ben)).to_be_visible()
            assert await faults(ben) == []
            await press(ben, "Edit and merge").click()
            assert await faults(ben) == []
    finally:
        server.close()


# As the documents show them


async def test_the_example_of_the_documents_works(server: ServerProcess, browser: str) -> None:
    """What stands in docs/browser.md, served as a page of somebody's own."""
    [example] = re.findall(r"```html\n(<!doctype html>.*?)```", DOCUMENT.read_text(), re.DOTALL)
    await server.start()
    async with windows(server, browser) as desk, RealtimeClient(server.base, user_id="ben", dashboard_id="sales") as ben:
        page = await (await desk.context()).new_page()
        page.on("pageerror", lambda error: desk.said.append(str(error)))
        await page.route("**/example", lambda route: route.fulfill(body=example, content_type="text/html"))
        await page.goto(f"{server.base}/example")
        await is_live(page)
        await press(page, "One more").click()
        await press(page, "One more").click()
        await expect(page.get_by_role("heading")).to_have_text("Orders")
        await expect(page.get_by_role("status").filter(has_text="2")).to_be_visible()
        await is_live(page)
        assert ben.widgets == {"orders": {"title": "Orders", "value": 2}}


# Each by itself

BUILD = """async ([inside, attributes, options]) => {
  await import('/static/elements.js');
  const make = ([name, its, ...children]) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(its)) node.setAttribute(key, value);
    node.append(...children.map((child) => typeof child === 'string' ? child : make(child)));
    return node;
  };
  window.told = [];
  const plain = (key, value) => ['client', 'operation', 'conflict', 'error'].includes(key) ? undefined : value;
  const hear = ({ type, detail }) => told.push([type, JSON.parse(JSON.stringify(detail, plain))]);
  const types = ['initialized', 'error', 'status', 'operation-complete', 'operation-fail', 'conflict-resolved', 'update',
    'sync'];
  for (const type of types)
    document.addEventListener(`rt-${type}`, hear);
  const dashboard = make(['rt-dashboard', attributes, ...inside]);
  dashboard.options = options;
  document.body.replaceChildren(dashboard);
}"""


async def bare(
    desk: Windows, *inside: list[Any], user: str = "anna", options: dict[str, Any] | None = None, **attributes: str
) -> Page:
    """A page with nothing but a dashboard and these elements in it, each as ``[name, attributes, *children]``."""
    page = await (await desk.context()).new_page()
    page.on("pageerror", lambda error: desk.said.append(str(error)))
    await page.goto(f"{desk.server.base}/healthz")
    given = {"auto-connect": "", "user-id": user, **{name.replace("_", "-"): value for name, value in attributes.items()}}
    await page.evaluate(BUILD, [list(inside), given, options or {}])
    return page


async def told(page: Page, name: str) -> list[dict[str, Any]]:
    """The details of the events of that name."""
    events: list[tuple[str, dict[str, Any]]] = await page.evaluate("told")
    return [detail for each, detail in events if each == name]


async def test_a_widget_shows_its_fields_in_plain_html(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        widget = ["rt-widget", {"widget-id": "w"}, ["b", {"data-field": "title"}, "?"], ["output", {"data-field": "value"}]]
        page = await bare(desk, widget, dashboard_id="board")
        await expect(page.locator("b")).to_have_text("")
        async with RealtimeClient(server.base, user_id="ben", dashboard_id="board") as ben:
            await ben.update("w", {"title": "<i>Orders</i>", "value": 42})
            await expect(page.locator("b")).to_have_text("<i>Orders</i>")
            await expect(page.locator("output")).to_have_text("42")
            await expect(page.locator("rt-widget")).to_have_attribute("data-synced", "true")
            await ben.delete("w")
            await expect(page.locator("b")).to_have_text("")
        updates = [each["data"] for each in await told(page, "rt-update")]
        assert updates == [None, {"title": "<i>Orders</i>", "value": 42}, None]
        assert [each["dashboardId"] for each in await told(page, "rt-initialized")] == ["board"]


async def test_a_widget_hands_its_fields_to_render_or_to_its_child(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        page = await bare(desk, ["rt-widget", {"widget-id": "a"}, ["p", {}]], ["rt-widget", {"widget-id": "b"}, ["p", {}]])
        render = "(data, self) => self.textContent = data?.value"
        await page.evaluate(f"void (document.querySelector('[widget-id=b]').render = {render})")
        async with RealtimeClient(server.base, user_id="ben") as ben:
            await ben.update("a", {"value": 1})
            await ben.update("b", {"value": 2})
        await expect(page.locator("[widget-id=b]")).to_have_text("2")
        assert await page.evaluate("document.querySelector('[widget-id=a] p').data.value") == 1


async def test_an_own_change_shows_at_once_or_when_it_is_confirmed(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        output = ["output", {"data-field": "value"}]
        page = await bare(
            desk,
            ["rt-widget", {"widget-id": "w", "optimistic": ""}, output],
            ["rt-widget", {"widget-id": "w"}, output],
        )
        quick, careful = page.locator("rt-widget").nth(0), page.locator("rt-widget").nth(1)
        await expect(quick).to_have_attribute("data-synced", "true")
        await page.evaluate("document.querySelector('rt-dashboard').disconnect()")
        await page.evaluate("document.querySelector('rt-widget').update({value: 7})")
        await expect(quick.locator("output")).to_have_text("7")
        await expect(careful.locator("output")).to_have_text("")
        await expect(quick).to_have_attribute("data-synced", "false")
        await page.evaluate("document.querySelector('rt-dashboard').connect()")
        await expect(careful.locator("output")).to_have_text("7")
        await expect(careful).to_have_attribute("data-synced", "true")
        assert [each["version"] for each in await told(page, "rt-sync")][-2:] == [1, 1]


async def test_a_refused_change_can_be_retried_or_rolled_back(server: ServerProcess, browser: str) -> None:
    """The server takes three fields; the badge lists the refusal until the person has said what is to become of it."""
    await server.start()
    async with windows(server, browser) as desk:
        badge = ["rt-pending-badge", {"show-details": "", "max-display": "1"}]
        page = await bare(desk, badge, ["rt-widget", {"widget-id": "w", "optimistic": ""}, ["output", {"data-field": "a"}]])
        element = page.locator("rt-pending-badge")
        await expect(page.locator("rt-widget")).to_have_attribute("data-synced", "true")
        await expect(element).to_be_hidden()
        await page.evaluate("document.querySelector('rt-widget').update({a: 1, b: 2, c: 3, d: 4})")
        await page.evaluate("document.querySelector('rt-dashboard').client.update('v', {a: 1, b: 2, c: 3, d: 4})")
        await expect(element).to_contain_text("2 failed")
        await element.locator("button").first.click()
        rows = page.get_by_role("listitem")
        await expect(rows).to_have_count(1)
        await expect(rows).to_contain_text("Change w")
        await expect(rows).to_contain_text("failed")
        await expect(element).to_contain_text("and 1 more")
        await press(page, "Retry").click()
        await expect(element).to_contain_text("2 failed")  # it is refused again, and stands behind the other now
        await press(page, "Roll back").click()
        await expect(element).to_contain_text("1 failed")
        await press(page, "Roll back").click()
        await expect(element).to_be_hidden()
        assert len(await told(page, "rt-operation-fail")) == 3
        assert len(await told(page, "rt-error")) == 2, "the widget's own two refusals"
        await page.evaluate("document.querySelector('rt-widget').update({a: 5})")
        await expect(page.locator("output")).to_have_text("5")
        await expect(page.locator("rt-widget")).to_have_attribute("data-synced", "true")
        assert len(await told(page, "rt-operation-complete")) == 1


@pytest.mark.parametrize(("rule", "stands"), [("local", 2), ("remote", 1), ("", 1)])
async def test_conflicts_can_be_settled_by_a_rule(server: ServerProcess, browser: str, rule: str, stands: int) -> None:
    await server.start()
    async with windows(server, browser) as desk, RealtimeClient(server.base, user_id="ben") as ben:
        await ben.update("w", {"value": 0})
        widget = ["rt-widget", {"widget-id": "w"}, ["output", {"data-field": "value"}]]
        page = await bare(desk, ["rt-conflict-dialog", {"auto-resolve": rule}], widget)
        await expect(page.locator("output")).to_have_text("0")
        await page.evaluate("document.querySelector('rt-dashboard').disconnect()")
        await page.evaluate("document.querySelector('rt-widget').update({value: 2})")
        await ben.update("w", {"value": 1})
        await page.evaluate("document.querySelector('rt-dashboard').connect()")
        await expect(page.locator("output")).to_have_text(str(stands))
        await expect(page.locator("rt-widget")).to_have_attribute("data-synced", "true")
        [settled] = await told(page, "rt-conflict-resolved")
        assert (settled["choice"], settled["by"]) == (rule or "remote", "rule")


async def test_over_a_deleted_widget_the_dialog_asks_too(server: ServerProcess, browser: str) -> None:
    """Keeping mine brings all of it back."""
    await server.start()
    async with windows(server, browser) as desk, RealtimeClient(server.base, user_id="ben") as ben:
        await ben.update("w", {"title": "Orders", "value": 0})
        page = await bare(
            desk, ["rt-conflict-dialog", {}], ["rt-widget", {"widget-id": "w"}, ["output", {"data-field": "value"}]]
        )
        await expect(page.locator("output")).to_have_text("0")
        await page.evaluate("document.querySelector('rt-dashboard').disconnect()")
        await page.evaluate("document.querySelector('rt-widget').update({value: 2})")
        await ben.delete("w")
        await page.evaluate("document.querySelector('rt-dashboard').connect()")
        await expect(dialog(page)).to_contain_text("ben deleted it at")
        await expect(dialog(page).get_by_role("row", name="value")).to_contain_text("they deleted it")
        await press(page, "Edit and merge").click()
        await page.get_by_label("Merged value").fill("3")
        await press(page, "Save merged").click()
        await expect(page.locator("output")).to_have_text("3")
        await expect(page.locator("rt-widget")).to_have_attribute("data-synced", "true")
        assert ben.widgets == {"w": {"title": "Orders", "value": 3}}


async def test_another_dashboard_is_another_client_for_all_elements(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk, RealtimeClient(server.base, user_id="ben", dashboard_id="second") as ben:
        await ben.update("w", {"value": 2})
        page = await bare(
            desk,
            ["rt-sync-indicator", {"show-details": ""}],
            ["rt-widget", {"widget-id": "w"}, ["output", {"data-field": "value"}]],
        )
        await expect(page.locator("rt-sync-indicator")).to_have_attribute("data-status", "live")
        await expect(page.locator("output")).to_have_text("")
        await page.evaluate("document.querySelector('rt-dashboard').setAttribute('dashboard-id', 'second')")
        await expect(page.locator("output")).to_have_text("2")


async def test_without_auto_connect_it_waits_to_be_told(server: ServerProcess, browser: str) -> None:
    await server.start()
    async with windows(server, browser) as desk:
        page = await bare(desk, ["rt-sync-indicator", {}], auto_connect="false")
        await expect(page.locator("rt-sync-indicator")).to_have_attribute("data-status", "offline")
        await page.evaluate("document.querySelector('rt-dashboard').connect()")
        await expect(page.locator("rt-sync-indicator")).to_have_attribute("data-status", "live")
        assert [each["status"] for each in await told(page, "rt-status")] == ["offline", "live"]
