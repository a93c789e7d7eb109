"""Autobahn's cases against the frame loop, and the names inside Tornado that it leans on."""

from __future__ import annotations

import asyncio
import inspect
import json
import shutil
import socket
import sys
from collections import Counter
from pathlib import Path

import pytest
from tornado.httpserver import HTTPServer, _HTTPRequestContext
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.tcpserver import TCPServer
from tornado.util import _websocket_mask
from tornado.web import Application
from tornado.websocket import WebSocketHandler, WebSocketProtocol13, _WebSocketParams

from tornado_rt.wire import FrameLoop, encode_frame
from tornado_rt.wire.outbox import take_over

SECTIONS = ("1", "2", "3", "4", "5", "6", "7", "9", "10")  # 8 is reserved, 12 and 13 are compression, which we never agree to
KOSOKU = shutil.which("kosoku", path=str(Path(sys.executable).parent)) or shutil.which("kosoku")


class Echo(WebSocketHandler):
    """Sends back what it gets."""

    heard = False

    def get_websocket_protocol(self) -> FrameLoop:
        self.frame_loop = FrameLoop(self, max_message_bytes=1 << 24, accept_binary=True)
        return self.frame_loop

    def on_frame(self, raw: bytes) -> None:
        self.frame_loop.outbox.send(encode_frame(raw))

    def on_binary(self, raw: bytes) -> None:
        self.frame_loop.outbox.send(encode_frame(raw, 0x2))


@pytest.mark.skipif(KOSOKU is None, reason="kosoku is not installed")
def test_autobahns_cases_pass_strictly(io_loop: IOLoop, tmp_path: Path) -> None:
    async def drive() -> None:
        server = HTTPServer(Application([("/", Echo)]))
        server.listen(0, "127.0.0.1")
        port = next(iter(server._sockets.values())).getsockname()[1]
        cases = [argument for section in SECTIONS for argument in ("-i", f"{section}.*")]
        kosoku = await asyncio.create_subprocess_exec(
            str(KOSOKU), *cases, "-p", "4", "-o", str(tmp_path), f"127.0.0.1:{port}", stdout=asyncio.subprocess.DEVNULL
        )
        await kosoku.wait()
        server.stop()

    io_loop.run_sync(drive, timeout=100)
    (report,) = json.loads((tmp_path / "index.json").read_text()).values()
    passed = ("OK", "INFORMATIONAL")
    failed = {
        case: (verdict["behavior"], verdict["behaviorClose"])
        for case, verdict in report.items()
        if verdict["behavior"] not in passed or verdict["behaviorClose"] not in passed
    }
    assert failed == {}
    # All of them ran: the sections differ in size by much, so a missing one would not show in the sum alone.
    sizes = Counter(case.split(".")[0] for case in report)
    assert sizes == {"1": 16, "2": 11, "3": 7, "4": 10, "5": 20, "6": 145, "7": 37, "9": 54, "10": 1}


def test_the_names_inside_tornado_are_what_the_frame_loop_expects() -> None:
    def parameters(function: object) -> list[str]:
        return list(inspect.signature(function).parameters)  # type: ignore[arg-type]

    assert parameters(WebSocketProtocol13.__init__) == ["self", "handler", "mask_outgoing", "params"]
    assert parameters(WebSocketProtocol13._accept_connection) == ["self", "handler"]
    assert inspect.iscoroutinefunction(WebSocketProtocol13._accept_connection)
    assert parameters(WebSocketProtocol13._challenge_response) == ["self", "handler"]
    assert parameters(WebSocketProtocol13._write_frame) == ["self", "fin", "opcode", "data", "flags"]
    assert parameters(WebSocketProtocol13._abort) == ["self"]
    assert parameters(WebSocketProtocol13.close) == ["self", "code", "reason"]
    assert parameters(WebSocketHandler.get_websocket_protocol) == ["self"]
    assert parameters(WebSocketHandler.on_ws_connection_close) == ["self", "close_code", "close_reason"]
    assert parameters(WebSocketHandler.detach) == ["self"]
    assert _WebSocketParams().compression_options is None
    assert parameters(TCPServer._handle_connection) == ["self", "connection", "address"]
    assert parameters(_HTTPRequestContext.__init__) == ["self", "stream", "address", "protocol", "trusted_downstream"]
    assert parameters(_HTTPRequestContext._apply_xheaders) == ["self", "headers"]
    assert {"headers", "connection", "start_line"} <= set(parameters(HTTPServerRequest.__init__))
    assert _websocket_mask(b"\x01\x02\x03\x04", b"abcde") == bytes(
        a ^ b for a, b in zip(b"abcde", b"\x01\x02\x03\x04\x01", strict=True)
    )


def test_unmasking_is_tornados_c_function() -> None:
    assert _websocket_mask.__module__ == "tornado.speedups"


async def test_a_stream_can_be_taken_over(io_loop: IOLoop) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stream = IOStream(ours)
        theirs.sendall(b"head\r\n\r\nearly bytes")
        assert await stream.read_until(b"\r\n\r\n") == b"head\r\n\r\n"
        stream.read_bytes(100)  # makes the stream listen, as one that served a request does
        assert stream._state is not None
        stream._read_future = None
        assert take_over(stream) == (ours, b"early bytes")
        assert stream._state is None
        assert stream._read_buffer_size == len(stream._read_buffer) == 0
        assert ours.fileno() not in io_loop.handlers  # type: ignore[attr-defined]
        io_loop.selector_loop.add_reader(ours.fileno(), print)  # type: ignore[attr-defined]
        io_loop.selector_loop.remove_reader(ours.fileno())  # type: ignore[attr-defined]
