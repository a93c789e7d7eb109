"""Every conversation of tests/wire/conversations holds for the Python client, and its servers speak the protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.client.talk import Talk, frames
from tornado_rt.protocol.codec import decode_server
from tornado_rt.protocol.server_messages import Envelope

CONVERSATIONS = sorted((Path(__file__).parent.parent / "wire" / "conversations").glob("*.json"))


def _read(path: Path) -> dict[str, Any]:
    conversation: dict[str, Any] = json.loads(path.read_text())
    return conversation


def test_there_are_conversations() -> None:
    """The rest would pass without any."""
    assert len(CONVERSATIONS) >= 40


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_conversation(path: Path) -> None:
    """The client says, shows and keeps what the conversation tells."""
    Talk(_read(path)).run()


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_frames_are_of_the_protocol(path: Path) -> None:
    """What the servers of the conversations send are messages of the protocol, but for those made to be none."""
    for frame in frames(_read(path)):
        decoded = decode_server(json.dumps(frame).encode())
        assert isinstance(decoded, Envelope) == (path.stem == "freeform-broadcast" and frame["type"] != "CONNECT"), frame
