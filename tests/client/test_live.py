"""The client against the real server: processes that are killed, sockets that are blocked, logs that are lost."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.test_queue import PROGRAM
from tornado_rt.client import (
    Change,
    ClientStoppedError,
    ConflictError,
    ConnectionState,
    Edit,
    OperationState,
    QueueFullError,
    RealtimeClient,
    RefusedError,
)
from tornado_rt.errors import ConflictUnknown, TooLarge

Start = Callable[..., Any]


def client(server: Any, user_id: str, **options: Any) -> RealtimeClient:
    """A client that comes back quickly."""
    options = {"reconnect_delay": 0.02, "connect_timeout": 10.0, "random": lambda: 0.5, **options}
    return RealtimeClient(server if isinstance(server, str) else server.url, user_id=user_id, **options)


async def until(rt: RealtimeClient, reached: Callable[[], bool]) -> None:
    """Wait for something that an event of the client brings about."""
    done = asyncio.Event()
    ends = [rt.on(name, lambda _: reached() and done.set()) for name in ("state", "sync", "change", "operation")]
    if not reached():
        await done.wait()
    for end in ends:
        end()


async def test_two_clients_see_each_other(start_server: Start) -> None:
    """Edits, batches, layouts, undo and deletes reach the other; both stand at the same position."""
    server = start_server("--store", "memory://")
    async with client(server, "ada") as ada, client(server, "bob") as bob:
        first = await ada.update("w1", {"value": 1, "title": "x"})
        assert (first.seq, first.version) == (1, 1)
        await until(bob, lambda: bob.position == 1)
        second = await bob.update("w1", {"value": 2})
        results = await ada.batch([Edit.update("w2", {"a": 1}), Edit.update("w3", {"a": 1})])
        assert [result.seq for result in results] == [second.seq + 1 if second.seq else 0] * 2
        results = await bob.batch([Edit.update(f"q{number}", {"a": 1}) for number in range(3)], atomic=False)
        assert [result.seq for result in results] == [4, 5, 6]
        await ada.update_layout({"w1": {"x": 0}})
        await ada.update_layout({"w1": {"x": 5}})
        await ada.restore_layout()
        await ada.delete("w3")
        await ada.delete("never-there")
        await until(bob, lambda: bob.position == 10)
        await until(ada, lambda: ada.position == 10)
        assert ada.widgets == bob.widgets
        assert bob.widgets["w1"] == {"value": 2, "title": "x"}
        assert ada.layouts == bob.layouts == {"default": {"w1": {"x": 0}}}
        assert ada.pending == bob.pending == []


async def test_changes_tell_what_happened(start_server: Start) -> None:
    """Own changes and those of others, in their order, each once; the iteration ends with the client."""
    server = start_server("--store", "memory://")
    heard: list[Change] = []

    async def listen(rt: RealtimeClient) -> None:
        async for change in rt.changes():
            heard.append(change)

    async with client(server, "ada") as ada, client(server, "bob") as bob:
        listening = asyncio.ensure_future(listen(bob))
        await asyncio.sleep(0)
        await ada.update("w1", {"value": 1})
        await until(bob, lambda: bob.position == 1)
        await bob.update("w2", {"value": 2})
    await listening
    assert [(each.seq, each.user_id, each.is_own, each.documents) for each in heard] == [
        (1, "ada", False, (("widget", "w1"),)),
        (2, "bob", True, (("widget", "w2"),)),
    ]


async def test_conflicts_are_offered_and_resolved(start_server: Start) -> None:
    """An edit that began earlier than somebody else's of the same field; each way to settle it."""
    server = start_server("--store", "memory://")
    async with client(server, "ada") as ada, client(server, "bob") as bob:
        await ada.update("w1", {"value": 0})
        began = ada.position
        for choice, data, expected in (("local", {}, 1), ("remote", {}, 2), ("merged", {"data": {"value": 12}}, 12)):
            await until(bob, lambda: bob.position == ada.position)
            await bob.update("w1", {"value": 2})
            with pytest.raises(ConflictError) as caught:
                await ada.update("w1", {"value": 1}, base_version=began)
            assert caught.value.conflict.remote == {"value": 2}
            assert ada.conflicts == [caught.value.conflict]
            await ada.resolve(caught.value.conflict.id, choice, **data)
            assert ada.widgets["w1"] == {"value": expected}
            assert ada.conflicts == []
        with pytest.raises(ConflictUnknown):
            await ada.resolve("never", "local")


async def test_refusals_are_errors_and_roll_back(start_server: Start) -> None:
    """What the server will not do is not shown any more."""
    server = start_server("--store", "memory://", "--max-widgets", "1")
    async with client(server, "ada") as ada:
        await ada.update("w1", {"value": 1})
        operation = ada.submit(Edit.update("w2", {"value": 1}))
        assert "w2" in ada.widgets
        with pytest.raises(RefusedError) as caught:
            await operation
        assert caught.value.code == "LIMIT_EXCEEDED"
        assert list(ada.widgets) == ["w1"]
        assert ada.failed == [operation]
        await ada.delete("w1")
        ada.retry(operation)
        assert (await operation).seq == 3
        assert operation.state is OperationState.CONFIRMED
        with pytest.raises(TooLarge):
            ada.submit(Edit.update("w1", {"value": "x" * 300_000}))


async def test_requests(start_server: Start) -> None:
    """Any message may be sent and its answer awaited; a NACK is an error."""
    server = start_server("--store", "memory://")
    async with client(server, "ada") as ada:
        assert (await ada.request("PING"))["type"] == "PONG"
        assert (await ada.request("SYNC_REQUEST", {"since": 0}))["payload"]["mode"] == "snapshot"
        with pytest.raises(RefusedError, match="UNKNOWN_TYPE"):
            await ada.request("NO_SUCH_TYPE")


async def test_a_killed_server_loses_nothing_and_doubles_nothing(start_server: Start) -> None:
    """kill -9 three times under writes: every operation is confirmed, once, at a place of its own, and all is there."""
    options = ("--store", "sqlite:///rt.db", "--rate-limit-per-second", "0", "--user-rate-limit-per-second", "0")
    server = start_server(*options)
    async with client(server, "ada", max_queue_size=10_000) as ada:
        operations = []
        for number in range(300):
            operations.append(ada.submit(Edit.update(f"w{number % 7}", {f"f{number}": number})))
            if number % 100 == 50:
                await operations[number - 20]
                server.process.kill()
                server.process.wait()
                server = start_server(*options, "--port", str(server.port))
            if number % 10 == 0:
                await asyncio.sleep(0)
        results = [await operation for operation in operations]
        assert sorted(result.seq for result in results) == list(range(1, 301))
        async with client(server, "bob") as bob:
            assert bob.widgets == ada.widgets
            assert sum(len(fields) for fields in bob.widgets.values()) == 300


async def test_a_new_log_is_taken_as_it_is(start_server: Start) -> None:
    """A memory store that was restarted has another epoch: the old documents go, what waited is applied to the new log."""
    server = start_server("--store", "memory://")
    async with client(server, "ada") as ada:
        await ada.update("w1", {"value": 1})
        epoch = ada.epoch
        server.process.kill()
        server.process.wait()
        operation = ada.submit(Edit.update("w2", {"value": 2}))
        assert ada.widgets == {"w1": {"value": 1}, "w2": {"value": 2}}
        start_server("--store", "memory://", "--port", str(server.port))
        await operation
        assert ada.epoch != epoch
        assert ada.widgets == {"w2": {"value": 2}}


async def test_what_a_dead_process_left_is_delivered_by_the_next(start_server: Start, tmp_path: Path) -> None:
    """A client without a server is killed; another process with its queue delivers, once."""
    path = tmp_path / "queue"
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), "http://127.0.0.1:9"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        device = process.stdout.readline().strip()
        process.kill()
    server = start_server("--store", "memory://")
    async with client(server, "ada", queue_path=path) as ada:
        assert ada.device_id == device
        await until(ada, lambda: not ada.pending)
        assert ada.widgets == {f"w{number}": {"value": number} for number in range(5)}
        assert ada.position == 5
    async with client(server, "ada", queue_path=path) as ada:
        assert ada.pending == []


class Proxy:
    """Between a client and a server; lets no WebSocket through while ``blocks`` is set, as some offices' proxies do."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.blocks = True
        self.blocked = 0
        self.posts = 0
        self.tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> str:
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.carry(reader, writer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if b"upgrade: websocket" in head.lower() and self.blocks:
                self.blocked += 1
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            else:
                self.posts += head.startswith(b"POST")
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
                far_writer.write(head.replace(f":{self.port}".encode(), f":{self.target}".encode()))
                await asyncio.gather(_pipe(reader, far_writer), _pipe(far_reader, writer))
        writer.close()

    @property
    def port(self) -> int:
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_without_sockets_it_works_by_post(start_server: Start) -> None:
    """A proxy lets no WebSocket through: edits go and come by POST; when it does, the socket takes over."""
    server = start_server("--store", "memory://")
    proxy = Proxy(server.port)
    url = await proxy.start()
    async with client(server, "bob") as bob:
        await bob.update("w1", {"value": 1})
        async with client(url, "ada", sync_interval=0.05, retry_delay=0.01) as ada:
            assert ada.widgets == {"w1": {"value": 1}}
            assert ada.state is not ConnectionState.CONNECTED
            result = await ada.update("w1", {"value": 2})
            assert result.seq == 2
            await until(bob, lambda: bob.position == 2)
            await bob.update("w2", {"value": 3})
            await until(ada, lambda: ada.position == 3)
            assert ada.widgets == bob.widgets == {"w1": {"value": 2}, "w2": {"value": 3}}
            with pytest.raises(RefusedError, match="INVALID_MESSAGE"):
                await ada.update("bad\x07", {"value": 1})
            await ada.batch([Edit.update(f"w{number}", {"value": number}) for number in range(120)], atomic=False)
            assert proxy.posts > 5
            assert proxy.blocked >= 1
            proxy.blocks = False
            await until(ada, lambda: ada.state is ConnectionState.CONNECTED)
            await ada.update("w2", {"value": 4})
            await until(bob, lambda: bob.position == ada.position)
            assert ada.widgets == bob.widgets
    await proxy.stop()


async def test_an_unwelcome_client_stops_visibly(start_server: Start) -> None:
    """1008 Unauthorized is no reason to try for ever."""
    server = start_server("--store", "memory://")
    rt = client(server, "bad\x07name")
    errors: list[str] = []
    rt.on("error", errors.append)
    with pytest.raises(ClientStoppedError):
        async with rt:
            raise AssertionError("it was let in")
    assert errors == ["the server refused the connection for good"]


async def test_nobody_there(unused_tcp_port: int) -> None:
    """The time for the first connection can be bounded, and so can the attempts; every delay has its jitter."""
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with pytest.raises(TimeoutError):
        async with client(url, "ada", connect_timeout=0.05):
            raise AssertionError("there is no server")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    rt = client(url, "ada", reconnect_attempts=4, reconnect_delay=1.0, sync_interval=1e6, retry_attempts=0, sleep=sleep)
    with pytest.raises(ClientStoppedError, match="no connection"):
        async with rt:
            raise AssertionError("there is no server")
    assert [seconds for seconds in slept if seconds < 1e6] == [0.5, 1.0, 2.0, 4.0]
    with pytest.raises(ClientStoppedError):
        rt.submit(Edit.update("w", {"a": 1}))


async def test_offline_a_full_queue_refuses(unused_tcp_port: int) -> None:
    """The new one is refused, the old ones stay; messages have a queue of their own; who waited is told at the end."""
    rt = client(f"http://127.0.0.1:{unused_tcp_port}", "ada", max_queue_size=2, max_message_queue_size=1)
    await rt.start()
    operations = [rt.submit(Edit.update("w1", {"a": 1})), rt.submit(Edit.update("w2", {"a": 2}))]
    with pytest.raises(QueueFullError):
        rt.submit(Edit.update("w3", {"a": 3}))
    rt.send("PING")
    with pytest.raises(QueueFullError):
        rt.send("PING")
    waiting = asyncio.ensure_future(_outcome(operations[0]))
    await asyncio.sleep(0)
    assert rt.widgets == {"w1": {"a": 1}, "w2": {"a": 2}}
    await rt.close()
    assert isinstance(await waiting, ClientStoppedError)
    assert operations[0].state is OperationState.PENDING


async def _outcome(operation: Awaitable[Any]) -> Any:
    try:
        return await operation
    except Exception as error:
        return error


@pytest.fixture
def unused_tcp_port() -> int:
    """A port on which nobody listens."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
