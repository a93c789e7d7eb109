"""Every golden frame is read as it says, keeps what it holds, and is an instance of the published schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from tornado_rt.errors import ClientFault
from tornado_rt.protocol import http_bodies
from tornado_rt.protocol.codec import decode, decode_post, decode_server, encode_json
from tornado_rt.protocol.messages import MessageType
from tornado_rt.protocol.schema import asyncapi, client_models, openapi, server_models
from tornado_rt.protocol.server_messages import Envelope

FRAMES = {path.stem: json.loads(path.read_text()) for path in sorted((Path(__file__).parent / "frames").glob("*.json"))}
READ = {"client": decode, "post": decode_post, "server": decode_server}
ASYNCAPI = asyncapi()
OPENAPI = openapi()


def select(*directions: str, refused: bool = False) -> Any:
    names = [name for name, golden in FRAMES.items() if golden["direction"] in directions and ("refused" in golden) is refused]
    return pytest.mark.parametrize("name", names)


def text_of(golden: dict[str, Any]) -> bytes:
    return golden["text"].encode() if "text" in golden else json.dumps(golden["frame"], ensure_ascii=False).encode()


def what_is_kept(golden: dict[str, Any]) -> dict[str, Any]:
    """The frame less the fields that it says are ignored."""
    frame = json.loads(json.dumps(golden["frame"]))
    for path in golden.get("ignored", ()):
        *way, last = path.split(".")
        part = frame
        for step in way:
            part = part[step]
        del part[last]
    return frame


def dump(model: BaseModel) -> Any:
    return model.model_dump(by_alias=True, exclude_unset=True, mode="json")


@select("client", "post", "server")
def test_a_frame_is_read_whole(name: str) -> None:
    """Nothing that the protocol names is lost between the bytes and the model."""
    golden = FRAMES[name]
    message = READ[golden["direction"]](text_of(golden))
    assert isinstance(message, Envelope) is golden.get("freeForm", False)
    assert dump(message) == what_is_kept(golden)


@select("answer")
def test_an_answer_is_read_whole(name: str) -> None:
    golden = FRAMES[name]
    model: type[BaseModel] = getattr(http_bodies, golden["model"])
    assert dump(model.model_validate_json(text_of(golden))) == what_is_kept(golden)


@select("client", "post", refused=True)
def test_a_wrong_frame_is_refused_with_its_code_and_path(name: str) -> None:
    golden = FRAMES[name]
    with pytest.raises(ClientFault) as caught:
        READ[golden["direction"]](text_of(golden))
    refusal = caught.value
    path = refusal.details[0][0] if refusal.details else None
    assert {"code": refusal.code, "path": path} == golden["refused"]
    assert refusal.message.endswith(".")


def instance_of(document: dict[str, Any], schema: dict[str, Any], value: Any) -> bool:
    return jsonschema.Draft202012Validator({**schema, "components": document["components"]}).is_valid(value)


def fitting(action: str, frame: Any) -> list[str]:
    """The names of the AsyncAPI messages of one direction that a frame is an instance of."""
    references = [each["$ref"].rpartition("/")[2] for each in ASYNCAPI["operations"][action]["messages"]]
    messages = ASYNCAPI["components"]["messages"]
    return [name for name in references if instance_of(ASYNCAPI, messages[name]["payload"], frame)]


@select("client", "server")
def test_a_frame_is_exactly_one_message_of_the_schema(name: str) -> None:
    """AsyncAPI: every message is valid against one, and only one, of the operation's messages."""
    golden = FRAMES[name]
    kind = "free-form" if golden.get("freeForm") else golden["frame"]["type"]
    action = "receive" if golden["direction"] == "client" else "send"
    assert fitting(action, golden["frame"]) == [f"{golden['direction']}.{kind}"]


# What JSON Schema does not say here: relations between fields, and how a number or a level is written.
BEYOND_SCHEMA = {"set-and-unset", "operation-twice", "operation-twice-nested", "deep-value", "deep-frame"} | {
    "conflict-merged-without-data",
    "conflict-not-self-contained",
}


@select("client", refused=True)
def test_a_refused_frame_is_no_message_of_the_schema(name: str) -> None:
    golden = FRAMES[name]
    if "frame" in golden:
        assert bool(fitting("receive", golden["frame"])) is (name.removeprefix("refused-") in BEYOND_SCHEMA)


@select("post", "answer")
def test_a_body_is_an_instance_of_the_http_schema(name: str) -> None:
    golden = FRAMES[name]
    model = golden.get("model", "SyncPost")
    assert instance_of(OPENAPI, {"$ref": f"#/components/schemas/{model}"}, golden["frame"])


def test_every_type_has_a_frame_in_every_direction_that_it_goes() -> None:
    shown = {
        (golden["direction"], type(READ[golden["direction"]](text_of(golden)))) for golden in FRAMES.values() if is_read(golden)
    }
    wanted = {("client", model) for model in client_models()} | {("server", model) for model in server_models()}
    assert wanted <= shown
    assert {golden["frame"].get("type") for golden in FRAMES.values() if is_read(golden)} >= set(MessageType)


def is_read(golden: dict[str, Any]) -> bool:
    return golden["direction"] in ("client", "server") and "refused" not in golden


@select("client", "server")
def test_what_was_read_can_be_written_and_read_again(name: str) -> None:
    golden = FRAMES[name]
    read = READ[golden["direction"]]
    message = read(text_of(golden))
    assert read(encode_json(dump(message))) == message
