"""The browser's client on node's own test runner, its types under tsc, and what it weighs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import tornado_rt
from tests.browser.npm import package, run_node

STATIC = Path(tornado_rt.__file__).parent / "static"
REALTIME_BYTES = 12 * 1024  # gzipped, as it is shipped


def test_client() -> None:
    """Unit tests, among them every conversation of tests/wire/conversations."""
    run_node("--test", "unit/")


def test_types() -> None:
    """A program that uses all of the types is taken; one that misuses them is not."""
    run_node(str(package("typescript") / "bin" / "tsc"), "--project", "types")


def test_weight() -> None:
    weight = len(gzip.compress((STATIC / "realtime.js").read_bytes(), 9))
    assert weight <= REALTIME_BYTES, f"{weight} bytes"


def test_package() -> None:
    """The folder is a package for npm: of the same version, needing nothing, with all the files that it names."""
    described = json.loads((STATIC / "package.json").read_text())
    assert described["version"] == tornado_rt.__version__
    assert "dependencies" not in described
    named = [path for export in described["exports"].values() for path in export.values()]
    assert sorted(Path(path).name for path in named) == sorted(described["files"])
    for path in named:
        assert (STATIC / path).is_file(), path
