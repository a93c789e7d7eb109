"""The queue in a file: what was not acknowledged outlives its process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tornado_rt.client.edit import Edit
from tornado_rt.client.operation import Operation
from tornado_rt.client.queue import FileQueue, QueueInUseError

PROGRAM = """
import asyncio, sys
from tornado_rt.client import Edit, RealtimeClient

async def main(path, url):
    rt = RealtimeClient(url, user_id="ada", queue_path=path)
    await rt.start()
    for number in range(5):
        rt.submit(Edit.update(f"w{number}", {"value": number}))
    print(rt.device_id, flush=True)
    await asyncio.sleep(3600)

asyncio.run(main(*sys.argv[1:]))
"""


def operation(name: str, value: int = 1) -> Operation:
    return Operation(name, (Edit.update("w", {"value": value}).based_on(4, "e"),), shown={"value": value})


def test_what_was_put_is_there_in_its_order(tmp_path: Path) -> None:
    """Dropped ones are not, exchanged ones stand where the old ones stood."""
    queue = FileQueue(tmp_path / "queue", "ada", "default")
    for name in ("a", "b", "c"):
        queue.put(operation(name))
    queue.drop("a")
    queue.exchange("b", operation("d", 2))
    queue.put(operation("c", 3))
    queue.close()
    again = FileQueue(tmp_path / "queue", "ada", "default")
    assert [(each.id, each.shown) for each in again.load()] == [("d", {"value": 2}), ("c", {"value": 3})]
    again.close()


def test_users_dashboards_and_devices_do_not_mix(tmp_path: Path) -> None:
    """One file serves several, one after the other; each has a device of its own that stays the same."""
    devices = {}
    for who in (("ada", "default"), ("ada", "other"), ("bob", "default")):
        queue = FileQueue(tmp_path / "queue", *who)
        queue.put(operation("-".join(who)))
        devices[who] = queue.device_id
        queue.close()
    assert len(set(devices.values())) == 3
    for who, device in devices.items():
        queue = FileQueue(tmp_path / "queue", *who)
        assert [each.id for each in queue.load()] == ["-".join(who)]
        assert queue.device_id == device
        queue.close()
    named = FileQueue(tmp_path / "queue", "ada", "default", "my-device")
    assert (named.device_id, named.load()) == ("my-device", [])
    named.close()


def test_a_file_in_use_is_a_sentence(tmp_path: Path) -> None:
    """Two at once would take each other's operations for their own."""
    queue = FileQueue(tmp_path / "queue", "ada", "default")
    with pytest.raises(QueueInUseError, match="in use by another process"):
        FileQueue(tmp_path / "queue", "ada", "default")
    queue.close()
    FileQueue(tmp_path / "queue", "ada", "default").close()


def test_a_killed_process_leaves_its_operations(tmp_path: Path) -> None:
    """kill -9 of a client that never had a server: all it was given is in the file, under the same device."""
    path = tmp_path / "queue"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), "http://127.0.0.1:9"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    with process:
        assert process.stdout is not None
        device = process.stdout.readline().strip()
        process.kill()
    queue = FileQueue(path, "ada", "default")
    assert queue.device_id == device
    assert [each.edits[0].data for each in queue.load()] == [{"value": number} for number in range(5)]
    assert json.dumps([each.wire for each in queue.load()])
    queue.close()
