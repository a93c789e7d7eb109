"""Node and npm for the tests of the browser's side: what of them is there, and the packages that package.json pins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_node(*arguments: str, timeout_seconds: float = 100.0) -> None:
    """Run node in this folder; fails with its output. Skips where there is no node."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    done = subprocess.run([node, *arguments], cwd=HERE, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    if done.returncode:
        pytest.fail(f"node {' '.join(arguments)}\n{done.stdout}\n{done.stderr}", pytrace=False)


def package(name: str) -> Path:
    """The folder of a pinned package, installed the first time. Skips where there is neither the package nor npm."""
    folder = HERE / "node_modules" / name
    if not folder.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed")
        subprocess.run([npm, "ci", "--no-audit", "--no-fund", "--prefer-offline"], cwd=HERE, check=True, capture_output=True)
    return folder
