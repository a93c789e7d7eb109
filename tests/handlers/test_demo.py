"""The page at ``/``: there where it is wanted, whole, and nothing from elsewhere."""

from __future__ import annotations

import re

import pytest

from tests.handlers.conftest import House, OpenHouse
from tornado_rt.handlers.demo import STATIC


@pytest.mark.parametrize("path", ["/", "/static/plain.html"])
async def test_the_page_and_all_that_it_names_are_there(house: House, path: str) -> None:
    page = await house.fetch(path)
    assert page.code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.body.decode())
    assert named
    for name in named:
        if not name.startswith(("?", "#")):
            assert re.match(r"/(static/|$)", name)
            assert (await house.fetch(name)).code == 200


@pytest.mark.parametrize("is_mounted", [False, True])
async def test_the_operator_may_turn_it_off(open_house: OpenHouse, is_mounted: bool) -> None:
    house = await open_house(is_mounted=is_mounted, demo=False)
    assert (await house.fetch("/")).code == 404
    assert (await house.fetch("/healthz")).code == 200


async def test_files_are_looked_up_anew(house: House) -> None:
    """A page of one version with a script of another would speak to the server in two tongues."""
    first = await house.fetch("/static/demo.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await house.fetch("/static/demo.js", headers={"If-None-Match": first.headers["Etag"]})
    assert (again.code, again.body) == (304, b"")


async def test_an_address_with_the_hash_of_its_file_holds_for_good(house: House) -> None:
    page = (await house.fetch("/")).body.decode()
    versioned = re.findall(r'"(/static/[^"]+\?v=[0-9a-f]+)"', page)
    assert [path.partition("?")[0] for path in versioned] == ["/static/demo.css", "/static/demo.js"]
    for path in versioned:
        assert "immutable" in (await house.fetch(path)).headers["Cache-Control"]
        stale = await house.fetch(path[:-1] + ("0" if path[-1] != "0" else "1"))
        assert (stale.code, stale.headers["Cache-Control"]) == (200, "no-cache"), "what is there is not what the address names"


async def test_every_module_that_the_page_needs_at_once_is_loaded_ahead(house: House) -> None:
    """A browser that meets the names one behind the other waits for each; and one module under two addresses would be two."""
    ahead = set(re.findall(r'modulepreload" href="([^"]+)"', (await house.fetch("/")).body.decode()))
    imported = set()
    waiting = [STATIC / "demo.js"]
    while waiting:
        script = waiting.pop()
        for name in re.findall(r'(?m)^import (?:.* from )?"(\.[^"]+)";', script.read_text()):
            waiting.append((script.parent / name).resolve())
            imported.add("/static/" + waiting[-1].relative_to(STATIC).as_posix())
    assert imported == ahead
    for path in imported:
        assert (await house.fetch(path)).headers["Content-Type"].startswith(("text/javascript", "application/javascript"))


def test_the_page_asks_nothing_of_other_sites() -> None:
    for path in STATIC.rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            assert not re.search(r"https?://(?!www\.w3\.org/)", path.read_text()), path


def test_the_page_obeys_its_own_policy() -> None:
    """``default-src 'self'`` lets no script, style or handler stand in the page itself."""
    for page in STATIC.glob("*.html"):
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", page.read_text())
