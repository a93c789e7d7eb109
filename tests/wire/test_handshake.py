"""What is a handshake and what is not (RFC 6455 section 4.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.wire.conftest import Harness


async def test_the_accept_value_is_the_one_of_the_rfc(harness: Harness) -> None:
    _, answer = await harness.request(harness.handshake(key="dGhlIHNhbXBsZSBub25jZQ=="))
    assert answer.startswith("HTTP/1.1 101 Switching Protocols\r\n")
    assert "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n" in answer.lower()
    assert "sec-websocket-protocol" not in answer.lower()
    assert "sec-websocket-extensions" not in answer.lower()


async def test_a_subprotocol_that_was_selected_is_named(harness: Harness) -> None:
    _, answer = await harness.request(harness.handshake(extra="Sec-WebSocket-Protocol: bearer, secret\n"))
    assert "sec-websocket-protocol: bearer\r\n" in answer.lower()


async def test_compression_is_not_agreed_to(harness: Harness) -> None:
    _, answer = await harness.request(harness.handshake(extra="Sec-WebSocket-Extensions: permessage-deflate\n"))
    assert answer.startswith("HTTP/1.1 101 ")
    assert "sec-websocket-extensions" not in answer.lower()


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("c2hvcnQ=", id="short"),
        pytest.param("dGhlIHNhbXBsZSBub25jZSBhbmQgbW9yZQ==", id="long"),
        pytest.param("dGhlIHNhbXBsZSBub25jZQ!=", id="not base64"),
        pytest.param("dGhlIHNhbXBsZSBub25jZTEy", id="18 bytes in 24 characters"),
    ],
)
async def test_a_bad_key_is_refused(harness: Harness, key: str) -> None:
    _, answer = await harness.request(harness.handshake(key=key))
    assert answer.startswith("HTTP/1.1 400 ")


async def test_a_key_given_twice_is_refused(harness: Harness) -> None:
    _, answer = await harness.request(harness.handshake(extra="Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"))
    assert answer.startswith("HTTP/1.1 400 ")


async def test_http_1_0_cannot_be_upgraded(harness: Harness) -> None:
    _, answer = await harness.request(harness.handshake(http="1.0"))
    assert " 400 " in answer.splitlines()[0]


@pytest.mark.parametrize("version", ["8", "7", "14", "", "013"])
async def test_another_version_is_told_ours(harness: Harness, version: str) -> None:
    _, answer = await harness.request(harness.handshake(version=version))
    assert answer.startswith("HTTP/1.1 426 ")
    assert "sec-websocket-version: 13\r\n" in answer.lower()


async def test_a_plain_get_is_no_handshake(harness: Harness) -> None:
    _, answer = await harness.request(f"GET / HTTP/1.1\nHost: 127.0.0.1:{harness.port}\n\n")
    assert answer.startswith("HTTP/1.1 400 ")
