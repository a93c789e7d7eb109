"""Programs for a process that can be killed, or its disk taken away: ``python -m tests.store.child NAME DATABASE``.

Each writes JSON lines; the tests judge by those.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.store.lodgings import commit, numbered, texts, until
from tornado_rt.errors import Unavailable
from tornado_rt.store.base import Committed
from tornado_rt.store.sqlite import SqliteStore


def say(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


async def attempt(store: SqliteStore, text: str, dashboard: str = "d") -> dict[str, Any]:
    """What became of a commit, as plain values."""
    try:
        outcome = await commit(store, numbered(text, text), dashboard=dashboard)
    except Unavailable as refusal:
        return {"refused": refusal.message, "outcome_unknown": refusal.outcome_unknown}
    assert isinstance(outcome, Committed)
    return {"seq": outcome.first_seq}


async def write(store: SqliteStore, faults: Path) -> None:
    """Says what is acknowledged, on three dashboards at once, until it is killed."""

    async def work(dashboard: str) -> None:
        number = (await store.open(dashboard)).seq
        while True:
            number += 1
            await attempt(store, f"r{number}", dashboard)
            say(dashboard=dashboard, seq=number)

    await asyncio.gather(*map(work, ("a", "b", "c")))


async def fill_up(store: SqliteStore, faults: Path) -> None:
    """The disk is full, and then it is not."""
    say(before=await attempt(store, "one"))
    (faults / "full").touch()
    say(full=await attempt(store, "two"), fault=store.fault, log=texts(await store.open("d")))
    (faults / "full").unlink()
    await until(lambda: store.fault is None)  # nobody writes: it finds out by itself
    say(after=await attempt(store, "three"), log=texts(await store.open("d")))
    await store.close()


async def break_down(store: SqliteStore, faults: Path) -> None:
    """The disk fails, for good."""
    say(before=await attempt(store, "one"))
    (faults / "broken").touch()
    group = await asyncio.gather(attempt(store, "two", "e"), attempt(store, "two", "f"))
    say(group=group, fatal=await asyncio.wait_for(fatal.get(), 5), fault=store.fault)
    (faults / "broken").unlink()  # a disk that says yes again is not to be trusted
    say(after=await attempt(store, "three"), log=texts(await store.open("d")))
    await store.close()


async def main(program: Callable[[SqliteStore, Path], Awaitable[None]], database: str) -> None:
    store = SqliteStore(database, lambda: "epoch", time.time, on_fatal=fatal.put_nowait)
    await store.start()
    await program(store, Path(os.environ.get("DISK_FAULTS", ".")))


fatal: asyncio.Queue[str] = asyncio.Queue()

if __name__ == "__main__":
    asyncio.run(main(globals()[sys.argv[1]], sys.argv[2]))
