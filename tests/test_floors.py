"""Imports only go down the stairs: which room may know which other, and which library each may use."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tornado_rt"

HALL = (
    "answers",
    "events",
    "guard",
    "heartbeat",
    "intake",
    "picture",
    "reception",
    "revocations",
    "room",
    "server",
    "session",
    "submission",
    "telling",
)
FLOORS: dict[str, int] = {
    **dict.fromkeys(("__init__", "errors", "config", "protocol"), 0),
    "core": 1,
    **dict.fromkeys(("store", "auth", "metrics", "log", "wire"), 2),
    **dict.fromkeys(HALL, 3),
    **dict.fromkeys(("handlers", "routes"), 4),
    **dict.fromkeys(("app", "lifecycle", "cli", "__main__"), 5),
}
# What an annex, which stands beside the house, may know of it.
ANNEXES = {"client": {"errors", "protocol"}, "loadtest": {"errors", "protocol", "client"}}

LIBRARIES: dict[str, set[str]] = {
    "config": {"pydantic", "pydantic_core", "pydantic_settings"},
    "protocol": {"pydantic", "pydantic_core"},
    "auth": {"jwt", "tornado"},
    "metrics": {"prometheus_client"},
    "log": {"structlog"},
    "wire": {"tornado"},
    "store": {"redis"},
    **{room: {"structlog"} for room in HALL},
    "handlers": {"tornado", "structlog"},
    "routes": {"tornado"},
    "app": {"tornado"},
    "lifecycle": {"tornado", "structlog", "uvloop"},
    "cli": {"tornado", "structlog"},
    "client": {"tornado"},
    "loadtest": {"tornado", "rich", "yaml", "hdrh", "pandas", "matplotlib"},
}
# The rules are pure: the same decisions come out of the same log, whenever and wherever it is read.
IMPURE = {"asyncio", "time", "datetime", "random", "secrets", "uuid", "os", "io", "pathlib", "logging", "socket", "threading"}

MODULES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> Iterator[str]:
    """Every imported module by its full name, also those inside functions and under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "tornado_rt":
                yield from (f"tornado_rt.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def fault_of(room: str, imported: str) -> str | None:
    top, _, rest = imported.partition(".")
    if top == "tornado_rt":
        return inside_fault(room, rest.partition(".")[0])
    if top in sys.stdlib_module_names:
        return f"{top} has no place among pure rules" if room == "core" and top in IMPURE else None
    return None if top in LIBRARIES.get(room, set()) else f"{room} may not use the library {top}"


def inside_fault(room: str, other: str) -> str | None:
    if other == room or other in ("__version__", ""):
        return None
    if room in ANNEXES:
        return None if other in ANNEXES[room] else f"the annex {room} may not know {other}"
    if other in ANNEXES:
        return None if FLOORS[room] == 5 else f"only the top floor may know the annex {other}"
    if other not in FLOORS:
        return f"{other} stands on no floor"
    if FLOORS[other] > FLOORS[room]:
        return f"{room} (floor {FLOORS[room]}) looks up to {other} (floor {FLOORS[other]})"
    if FLOORS[room] == 2 and FLOORS[other] == 2:
        return f"the tools {room} and {other} may not know each other"
    if other == "config" and FLOORS[room] < 5:
        return f"only the top floor reads settings, not {room}"
    return None


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_imports_only_go_down_the_stairs(path: Path) -> None:
    room = room_of(path)
    assert room in FLOORS or room in ANNEXES, f"{room} stands on no floor: add it to the table, and to CONTRIBUTING.md"
    faults = {fault for imported in imports_of(path) if (fault := fault_of(room, imported))}
    assert not faults


@pytest.mark.parametrize("path", MODULES, ids=[str(path.relative_to(PACKAGE)) for path in MODULES])
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), "a module begins with a sentence that says what the room is"


def test_every_room_stands_in_contributing() -> None:
    text = (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    rooms = (FLOORS.keys() | ANNEXES.keys()) - {"__init__", "__main__", "metrics"}
    assert [room for room in sorted(rooms) if f"`{room}`" not in text] == []


def test_no_floor_holds_a_room_that_is_gone() -> None:
    built = {room_of(path) for path in MODULES}
    assert FLOORS.keys() | ANNEXES.keys() == built | {"metrics"}  # metrics have their place, and are not built yet


@pytest.mark.parametrize(
    ("room", "imported"),
    [
        ("core", "tornado_rt.store.base"),
        ("core", "time"),
        ("core", "pydantic"),
        ("store", "tornado_rt.wire"),
        ("server", "tornado_rt.handlers.socket"),
        ("server", "tornado_rt.config"),
        ("room", "tornado.websocket"),
        ("client", "tornado_rt.core"),
        ("handlers", "tornado_rt.client"),
    ],
)
def test_the_stairs_can_be_climbed_the_wrong_way(room: str, imported: str) -> None:
    """The guard itself: each of these would be a fault."""
    assert fault_of(room, imported)
