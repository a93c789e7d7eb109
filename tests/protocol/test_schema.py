"""The published documents are what their standards want, and whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tornado_rt.protocol.messages import MessageType
from tornado_rt.protocol.schema import asyncapi, openapi

STANDARDS = Path(__file__).parent / "standards"


def validator(name: str) -> Any:
    schema = json.loads((STANDARDS / name).read_text())
    return jsonschema.validators.validator_for(schema)(schema)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from references(part)


def resolve(document: Any, reference: str) -> Any:
    assert reference.startswith("#/")
    for step in reference[2:].split("/"):
        document = document[step]
    return document


DOCUMENTS = {"asyncapi-3.0.0.json": asyncapi(), "openapi-3.1.json": openapi()}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_is_valid_by_its_standard(name: str) -> None:
    validator(name).validate(DOCUMENTS[name])


def test_the_standards_refuse_what_is_wrong() -> None:
    """The check above can fail."""
    wrong = asyncapi()
    wrong["operations"]["send"]["action"] = "publish"
    assert not validator("asyncapi-3.0.0.json").is_valid(wrong)
    wrong = openapi()
    del wrong["info"]["title"]
    assert not validator("openapi-3.1.json").is_valid(wrong)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_reference_leads_somewhere(name: str) -> None:
    found = set(references(DOCUMENTS[name]))
    assert found
    assert all(resolve(DOCUMENTS[name], reference) for reference in found)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_schema_is_left_unused(name: str) -> None:
    schemas = DOCUMENTS[name]["components"]["schemas"]
    used = {reference.rpartition("/")[2] for reference in references(DOCUMENTS[name])}
    assert set(schemas) == used & set(schemas)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_schema_is_a_schema(name: str) -> None:
    for schema in DOCUMENTS[name]["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_all_sixteen_types_are_there() -> None:
    messages = DOCUMENTS["asyncapi-3.0.0.json"]["components"]["messages"]
    assert {message["name"] for message in messages.values()} == {*MessageType, "any"}


def test_an_operation_names_only_messages_of_its_channel() -> None:
    document = DOCUMENTS["asyncapi-3.0.0.json"]
    channel = {f"#/channels/realtime/messages/{name}" for name in document["channels"]["realtime"]["messages"]}
    named = [each["$ref"] for operation in document["operations"].values() for each in operation["messages"]]
    assert sorted(named) == sorted(channel)


def test_the_documents_are_made_anew_each_time() -> None:
    """A caller may change what it got."""
    asyncapi()["info"]["title"] = "mine"
    assert asyncapi()["info"]["title"] == "tornado_rt"
