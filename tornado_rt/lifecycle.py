"""Listening, signals, the end; and the guide's one server per process. The only module-level state is that server."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import resource
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from tornado.httputil import ParseBodyConfig, ParseMultipartConfig, set_parse_body_config
from tornado.netutil import bind_sockets

from tornado_rt.app import make_application, make_gate, make_server
from tornado_rt.errors import StartFault
from tornado_rt.handlers.gate import Gate
from tornado_rt.handlers.visitor import admitting
from tornado_rt.server import RealtimeServer
from tornado_rt.wire import Entrance

if TYPE_CHECKING:
    from tornado_rt.config import Settings

__all__ = [
    "get_realtime_server",
    "initialize_realtime_server",
    "is_realtime_server_running",
    "serve",
    "shutdown_realtime_server",
]

log = structlog.get_logger(__name__)

LISTEN_BACKLOG = 2_048  # with 128, five hundred handshakes at once waited five seconds
SPARE_FILES = 200  # descriptors kept free of WebSockets
LAST_FILES = 100  # and of any connection at all: for the store, and for telling newcomers that there is no room
HEAD_SECONDS = 30.0  # in which the head of a request must have come
BODY_SECONDS = 10.0  # and its body
SWITCH_SECONDS = 0.0005  # how long the store's thread may wait for the interpreter, at most

_server: RealtimeServer | None = None


async def initialize_realtime_server(settings: Settings, on_fatal: Callable[[str], None] | None = None) -> RealtimeServer:
    """Make the process's server and open its store. Raises ``StartFault``; ``RuntimeError`` if there is one already."""
    global _server
    if _server is not None:
        raise RuntimeError("the realtime server of this process is running already")
    server = make_server(settings, on_fatal or (lambda sentence: log.critical("store_failed", reason=sentence)))
    await server.initialize()
    _server = server
    return server


def get_realtime_server() -> RealtimeServer:
    """The process's server. Raises ``RuntimeError`` before ``initialize_realtime_server`` and after the shutdown."""
    if _server is None:
        raise RuntimeError("the realtime server of this process is not running: call initialize_realtime_server first")
    return _server


async def shutdown_realtime_server(grace_seconds: float = 10.0) -> None:
    """Drain and close the process's server, if there is one."""
    global _server
    server, _server = _server, None
    if server is not None:
        await server.shutdown(grace_seconds)


def is_realtime_server_running() -> bool:
    return _server is not None and _server.is_running


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; returns the exit status: 0, or 1 after the store failed for good. Raises ``StartFault``."""
    with contextlib.suppress(ImportError):
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(settings))
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    sys.setswitchinterval(SWITCH_SECONDS)
    # Nothing here takes forms with files, and taking them apart has been a way to attack servers more than once.
    set_parse_body_config(ParseBodyConfig(multipart=ParseMultipartConfig(enabled=False)))
    settings = settings.model_copy(update={"max_connections": _raise_file_limit(settings.max_connections)})
    status = 0
    stop = asyncio.Event()

    def fail(sentence: str) -> None:
        nonlocal status
        status = 1
        log.critical("store_failed", reason=sentence)
        stop.set()

    gate = make_gate(settings)  # a key that is of no use is found before anything is opened
    sockets = _bind(settings.port, settings.host)
    try:
        server = await initialize_realtime_server(settings, fail)
        http_server = _listen(server, sockets, gate)
    except BaseException:
        for each in sockets:
            each.close()
        raise
    _handle_signals(stop)
    _calm_collector()
    log.info("listening", host=settings.host, port=sockets[0].getsockname()[1], durability=server.store.durability)
    await stop.wait()
    log.info("stopping", grace_seconds=settings.shutdown_grace_seconds)
    await shutdown_realtime_server(0.0 if status else settings.shutdown_grace_seconds)
    http_server.stop()
    await http_server.close_all_connections()
    log.info("stopped")
    return status


def _calm_collector() -> None:
    """Look for cycles seldom: an operation leaves some ten objects behind, and none in a cycle.

    At Python's own pace the collector took a third of the CPU with a hundred busy dashboards; at this one a few percent.
    """
    gc.collect()
    gc.freeze()  # what lives as long as the process need not be looked through again
    gc.set_threshold(50_000, 20, 50)


def _bind(port: int, host: str) -> list[socket.socket]:
    try:
        return bind_sockets(port, host or None, backlog=LISTEN_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartFault(f"port {port} is in use: stop what uses it, or choose another with --port or PORT") from error
        raise StartFault(f"cannot listen on {host}:{port}: {error.strerror}") from error


def _listen(server: RealtimeServer, sockets: list[socket.socket], gate: Gate) -> Entrance:
    """Bounds for those who send slowly, endlessly or not at all (headers 16 KiB, bodies 1 MiB)."""
    http_server = Entrance(
        make_application(server, gate),
        idle_connection_timeout=HEAD_SECONDS,
        body_timeout=BODY_SECONDS,
        max_header_size=16 * 1024,
        max_body_size=1024 * 1024,
    )
    http_server.max_files = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - LAST_FILES)
    http_server.expect("/api/realtime", admitting(server, gate))
    http_server.add_sockets(sockets)
    return http_server


def _handle_signals(stop: asyncio.Event) -> None:
    """The first SIGTERM or SIGINT ends the process in peace, a second one at once."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            log.warning("stopped_at_once", reason="a second signal")
            raise SystemExit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


def _raise_file_limit(max_connections: int) -> int:
    """Every connection is a file; take as many as the system lets us have.

    Returns how many connections that is, at most ``max_connections`` (0: as many as can be): one too many is to be told so, and
    that takes a file too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max_connections + SPARE_FILES if max_connections else hard
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    possible = max(1, soft - SPARE_FILES)
    if max_connections <= possible:
        return max_connections or possible
    log.warning("too_few_files", open_files=soft, max_connections=max_connections, possible=possible)
    return possible
