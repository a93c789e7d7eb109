"""The floor that the tests stand on: it must give way where it should."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent

SAMPLE = """
import asyncio
import logging
import pytest

loops = []

def test_an_error_that_nobody_looked_at_fails_the_test():
    logging.getLogger("tornado.application").error("something escaped")

@pytest.mark.logs_errors
def test_one_that_is_expected_does_not():
    logging.getLogger("asyncio").error("as expected")

async def test_an_exception_in_a_callback_fails_the_test():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)

async def test_a_task_that_is_left_behind_is_cancelled():
    asyncio.ensure_future(asyncio.Event().wait())

async def test_a_task_that_failed_unseen_fails_the_test():
    async def fail():
        raise ValueError("unseen")
    asyncio.ensure_future(fail())
    await asyncio.sleep(0)

async def test_loops_are_not_shared_one():
    loops.append(asyncio.get_running_loop())

async def test_loops_are_not_shared_two():
    assert asyncio.get_running_loop() not in loops

async def test_waiting_for_ever_fails_the_test():
    await asyncio.Event().wait()
"""


def test_the_fixtures_fail_what_should_fail_and_nothing_else(tmp_path: Path) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path / "conftest.py")
    shutil.copy(TESTS.parent / "setup.cfg", tmp_path / "setup.cfg")
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--async-test-timeout=0.2", "-rA", "test_sample.py"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    verdicts = {
        line.split("::")[1].split(" ")[0]: line.split(" ")[0] for line in ended.stdout.splitlines() if "::test_" in line
    }
    assert verdicts == {
        "test_an_error_that_nobody_looked_at_fails_the_test": "ERROR",
        "test_one_that_is_expected_does_not": "PASSED",
        "test_an_exception_in_a_callback_fails_the_test": "ERROR",
        "test_a_task_that_is_left_behind_is_cancelled": "PASSED",
        "test_a_task_that_failed_unseen_fails_the_test": "ERROR",
        "test_loops_are_not_shared_one": "PASSED",
        "test_loops_are_not_shared_two": "PASSED",
        "test_waiting_for_ever_fails_the_test": "FAILED",
    }, ended.stdout
