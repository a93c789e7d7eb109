"""The real server as a process of its own, to be killed, stopped and started again on the same port and file."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest, HTTPResponse

import tornado_rt

SERVE = ("-m", "tornado_rt", "serve")
MUTANT = Path(__file__).with_name("mutant_server.py")
PACKAGE_PARENT = str(Path(tornado_rt.__file__).parent.parent)  # it need not be installed
START_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    """A server must not outlive a test run that was killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ServerProcess:
    """``program`` are the interpreter's arguments in place of ``-m tornado_rt serve``; ``settings`` are more environment."""

    def __init__(
        self, store: str, log: Path, *, program: Sequence[str] = SERVE, settings: Mapping[str, str] | None = None
    ) -> None:
        self.port = free_port()
        self.log = log
        self.store_file = Path(store.removeprefix("sqlite:///"))
        self._command = [sys.executable, *program, "--port", str(self.port), "--store", store]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RT_")}
        usual = {"PYTHONPATH": PACKAGE_PARENT, "RT_RATE_LIMIT": "0", "RT_USER_RATE_LIMIT": "0"}
        self._environment = {**kept, **usual, **(settings or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        return f"{self.base}/api/realtime"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Returns when the server says that it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, preexec_fn=_die_with_parent
            )
        await self.until_status(200)

    async def until_status(self, status: int) -> None:
        """Wait until ``/readyz`` answers with ``status``."""
        async with asyncio.timeout(START_SECONDS):
            while (await self.readiness()) != status:
                if self.process.poll() is not None:
                    raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
                await asyncio.sleep(0.02)

    async def readiness(self) -> int:
        """The status of ``/readyz``; 0 where nobody answers."""
        try:
            return (await self.fetch("/readyz")).code
        except OSError:
            return 0

    async def fetch(self, path: str, **request: Any) -> HTTPResponse:
        """Any HTTP answer is a value. Raises ``OSError`` where there is none."""
        try:
            return await AsyncHTTPClient().fetch(HTTPRequest(self.base + path, **request), raise_error=False)
        except HTTPClientError as error:  # 599: timed out, or closed in the midst
            raise ConnectionError(str(error)) from error

    def kill(self) -> None:
        """As ``kill -9`` does. Returns when the process is gone."""
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()

    async def ended(self, seconds: float) -> int:
        """Wait for the process to end; its exit status."""
        return await asyncio.get_running_loop().run_in_executor(None, self.process.wait, seconds)

    def close(self) -> None:
        """For the end of a test, whatever state it left things in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
