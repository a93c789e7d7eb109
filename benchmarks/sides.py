"""The servers under measurement, each a subprocess on one core, and the load client on another; knows no scenario."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
# On the disk of the working tree, not in /tmp, which may be memory: a durable server has to pay for its disk.
BENCH_DIR = ROOT / ".bench"
LOAD_SOURCES = ("load.c", "load_run.h", "load_messages.h", "load_options.h", "load_wire.h", "load_measure.h")
LOAD_FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")
START_TIMEOUT_SECONDS = 20
STOP_TIMEOUT_SECONDS = 15

SideName = Literal["node", "durable", "memory", "guarded"]
Options = dict[str, str | int | float]  # of the load client: name without dashes -> value
SIDE_TITLES: dict[SideName, str] = {
    "node": "node + ws, state in memory",
    "durable": "tornado_rt, SQLite with synchronous=FULL",
    "memory": "tornado_rt, memory://",
    "guarded": "tornado_rt, SQLite with synchronous=FULL, every limit on",
}
# The peer has no limits, so ours are off.
NO_LIMITS = {
    "RT_RATE_LIMIT": "0",
    "RT_RATE_BURST": "0",
    "RT_USER_RATE_LIMIT": "0",
    "RT_MAX_CONNECTIONS": "0",
    "RT_MAX_CONNECTIONS_PER_USER": "0",
}
# Each of them counted for every message, and so high that none refuses one.
HIGH_LIMITS = {
    "RT_RATE_LIMIT": "10000000",
    "RT_RATE_BURST": "10000000",
    "RT_USER_RATE_LIMIT": "10000000",
    "RT_MAX_CONNECTIONS": "15000",
    "RT_MAX_CONNECTIONS_PER_USER": "15000",
    "RT_MAX_CONNECTIONS_PER_IP": "15000",
}


class BenchFault(Exception):
    """A sentence for the person at the terminal: something is missing, or a run went wrong."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core serves and which core loads."""

    server: int
    load: int

    @classmethod
    def of_this_machine(cls) -> Cores:
        allowed = sorted(os.sched_getaffinity(0))
        return cls(allowed[0], allowed[-1])

    @property
    def apart(self) -> bool:
        return self.server != self.load


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: its process, its port, and the directory with its store and log."""

    side: SideName
    process: subprocess.Popen[bytes]
    port: int
    directory: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def get_json(self, path: str) -> dict[str, Any]:
        """The JSON at ``path``; an empty dict if the server has no such page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                body: dict[str, Any] = json.load(answer)
                return body
        except (OSError, ValueError):
            return {}

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def build_load() -> Path:
    """Compiles the load client, if its sources are newer than what is there."""
    binary = BENCH_DIR / "load"
    sources = [HERE / name for name in LOAD_SOURCES]
    if binary.exists() and binary.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return binary
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise BenchFault(
            "A C compiler is missing: the load client is benchmarks/load.c (Debian: apt-get install gcc libc6-dev)."
        )
    BENCH_DIR.mkdir(exist_ok=True)
    subprocess.run([compiler, *LOAD_FLAGS, "-o", str(binary), str(sources[0])], check=True)
    return binary


def prepare_peer() -> None:
    """Sees that the peer has node and its one package; installs that once from the lock file."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise BenchFault("node is missing: it runs the peer of the benchmark, benchmarks/peers/ws_server.mjs (Debian: nodejs).")
    if (HERE / "peers/node_modules/ws/package.json").exists():
        return
    if npm is None:
        raise BenchFault("npm is missing, and benchmarks/peers has no node_modules yet (Debian: apt-get install npm).")
    print("Installing the peer's package (npm ci in benchmarks/peers)", flush=True)
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund"], cwd=HERE / "peers", capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise BenchFault(f"npm ci in benchmarks/peers failed:\n{done.stderr.strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _command(side: SideName, port: int, directory: Path) -> list[str]:
    if side == "node":
        return ["node", str(HERE / "peers/ws_server.mjs"), str(port)]
    store = "memory://" if side == "memory" else f"sqlite:///{directory}/bench.db"
    return [sys.executable, "-m", "tornado_rt", "serve", "--port", str(port), "--store", store]


def _environment(side: SideName) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("RT_") and name not in ("PORT", "HOST", "DYNO", "REDIS_URL")
    }
    limits = HIGH_LIMITS if side == "guarded" else NO_LIMITS
    return {**kept, **limits, "RT_ENV": "development", "PYTHONPATH": str(ROOT)}


def start(side: SideName, directory: Path, cores: Cores) -> Running:
    """Starts ``side`` pinned to the server's core, and waits until it answers.

    Raises:
        BenchFault: it ended, or did not answer within START_TIMEOUT_SECONDS; with the end of what it said.
    """
    port = _free_port()
    log_path = directory / f"{side}.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            _command(side, port, directory),
            cwd=directory,
            env=_environment(side),
            stdout=log,
            stderr=log,
            preexec_fn=partial(os.sched_setaffinity, 0, {cores.server}),
        )
    running = Running(side, process, port, directory)
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if _answers(port):
            return running
        time.sleep(0.05)
    if process.poll() is None:
        running.stop()
    said = log_path.read_text(errors="replace")[-2000:]
    raise BenchFault(f"The server '{side}' did not come up. It said:\n{said}")


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


@contextmanager
def served(side: SideName, cores: Cores) -> Iterator[Running]:
    """A fresh server with an empty store, gone afterwards with everything it wrote."""
    with fresh_directory() as directory:
        running = start(side, directory, cores)
        try:
            yield running
        finally:
            running.stop()


@contextmanager
def fresh_directory() -> Iterator[Path]:
    BENCH_DIR.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BENCH_DIR, prefix="run-") as name:
        yield Path(name)


@dataclass(slots=True)
class Load:
    """One run of the load client against a server; ``finish`` gives what it has measured."""

    process: subprocess.Popen[str]
    server: Running
    began: tuple[float, float, float, float]

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def finish(self, timeout_seconds: float) -> dict[str, Any]:
        """What the load client printed, and ``other_cores``: how much of the machine neither server nor load has used.

        Raises:
            BenchFault: it failed or took too long.
        """
        try:
            out, said = self.process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise BenchFault(f"The load client was not done after {timeout_seconds:.0f} s.") from None
        if self.process.returncode or not out.strip():
            raise BenchFault(f"The load client failed: {said.strip()[-500:]}")
        measured: dict[str, Any] = json.loads(out)
        began, ended = self.began, _clocks(self.server.pid)
        elapsed, busy, served_cpu, loaded = (after - before for before, after in zip(began, ended, strict=True))
        measured["other_cores"] = round(max(0.0, busy - served_cpu - loaded) / elapsed, 3)
        if said.strip():
            measured["said"] = said.strip()[-300:]
        return measured


def begin_load(server: Running, cores: Cores, options: Options) -> Load:
    """Starts the load client with ``options`` against ``server``, pinned to the load's core."""
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    began = _clocks(server.pid)
    process = subprocess.Popen(
        [str(build_load()), "--port", str(server.port), "--pid", str(server.pid), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(os.sched_setaffinity, 0, {cores.load}),
    )
    return Load(process, server, began)


def _clocks(pid: int) -> tuple[float, float, float, float]:
    """Now; CPU seconds that the machine, the process ``pid`` and our ended children have used."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq = (int(field) for field in fields[:7])
    try:
        of_server = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        server_cpu = (int(of_server[11]) + int(of_server[12])) / ticks
    except OSError:
        server_cpu = 0.0
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.monotonic(), (user + nice + system + irq + softirq) / ticks, server_cpu, children.ru_utime + children.ru_stime
