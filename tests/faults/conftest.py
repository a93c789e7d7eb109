"""Servers for the fault tests, each gone when its test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.process import MUTANT, ServerProcess


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Makes a server, not yet started, on the SQLite file ``tmp_path/rt.db``; with ``mutations``, the mutant server."""
    servers: list[ServerProcess] = []

    def make(mutations: str = "", store: str = f"sqlite:///{tmp_path}/rt.db", **options: Any) -> ServerProcess:
        if mutations:
            options["program"] = (str(MUTANT), mutations)
        server = ServerProcess(store, tmp_path / "server.log", **options)
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def server(make_server: Callable[..., ServerProcess]) -> ServerProcess:
    return make_server()
