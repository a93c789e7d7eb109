"""The wheel, in an environment that has nothing else: every file is in it, and the server starts and serves its page."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

import tornado_rt

PROJECT = Path(__file__).parent.parent
PACKAGE = PROJECT / "tornado_rt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the working tree without touching it."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((PROJECT / name).read_bytes())
    for path in PACKAGE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            target = source / path.relative_to(PROJECT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(built), str(source)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    [wheel] = built.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("tornado_rt/")}
    ours = {str(path.relative_to(PROJECT)) for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert packed == ours
    assert "tornado_rt/py.typed" in packed


def test_the_wheel_bears_the_version_of_the_package(wheel: Path) -> None:
    assert wheel.name.startswith(f"tornado_rt-{tornado_rt.__version__}-py3-none-any")


@pytest.mark.timeout(400)
def test_the_installed_server_serves_its_page(wheel: Path, tmp_path: Path, start_server: Any) -> None:
    """Dependencies come from the index, as they would for a user."""
    bare = tmp_path / "bare"
    venv.create(bare, with_pip=True)
    quiet = ["--quiet", "--disable-pip-version-check"]
    subprocess.run([bare / "bin" / "python", "-m", "pip", "install", *quiet, str(wheel)], check=True, timeout=350)
    # An empty environment: the working tree must not stand in for what the wheel lacks.
    server = start_server("--store", "memory://", command=[str(bare / "bin" / "tornado-rt")], env={"PATH": "/usr/bin:/bin"})
    with urllib.request.urlopen(f"{server.url}/") as page:
        assert page.headers["Content-Type"].startswith("text/html")
        assert b"<html" in page.read().lower()
    for path in sorted(path for path in (PACKAGE / "static").rglob("*") if path.is_file() and path.suffix != ".html"):
        with urllib.request.urlopen(f"{server.url}/static/{path.relative_to(PACKAGE / 'static')}") as file:
            assert file.read() == path.read_bytes()
    assert server.stop() == 0
