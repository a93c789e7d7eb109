"""The protocol as documents for machines, made from the models: AsyncAPI 3 for the socket, OpenAPI 3.1 for the HTTP calls.

Knows models and the two document formats; not which handler serves what.
"""

from __future__ import annotations

from collections.abc import Iterable
from inspect import getdoc
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from tornado_rt.protocol.http_bodies import ErrorAnswer, RevokeAnswer, StatsAnswer, StatusAnswer, SyncAnswer
from tornado_rt.protocol.messages import ClientMessage, Revoke, SyncPost
from tornado_rt.protocol.server_messages import Envelope, ServerMessage

__all__ = ["asyncapi", "openapi"]

VERSION: Final = "1.0.0"  # of the protocol: CONNECT's ``protocol`` is its first part
PATH: Final = "/api/realtime"
FREE_FORM: Final = "FreeForm"

# No free-form message bears these types: what ``broadcast()`` sends is about documents, or of a type of the application's own.
_CONNECTION_TYPES: Final = ("CONNECT", "DISCONNECT", "PING", "PONG", "SYNC_RESPONSE", "CONFLICT_DETECTED", "ACK", "NACK")

_QUERY: Final[dict[str, str]] = {
    "userId": "who connects, where the server trusts its clients",
    "token": "a signed token that says who connects, where it does not",
    "dashboardId": "the dashboard to join; `default` if absent",
    "since": "the last seq that the client has in full, to get what it missed",
    "epoch": "the epoch that `since` counts in",
    "deviceId": "a random id that the client keeps with its queue",
}

Json = dict[str, Any]

_SECURITY: Final[dict[str, dict[str, str]]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "a signed token; a user id, where the server trusts its clients",
    },
    "token": {"type": "apiKey", "in": "query", "name": "token"},
    "tokenCookie": {"type": "apiKey", "in": "cookie", "name": "token", "description": "counts beside a known Origin alone"},
    "userId": {"type": "apiKey", "in": "query", "name": "userId", "description": "where the server trusts its clients"},
    "userIdCookie": {"type": "apiKey", "in": "cookie", "name": "userId", "description": "where the server trusts its clients"},
}


def client_models() -> tuple[type[BaseModel], ...]:
    """The model of every message that a client may send."""
    return _members(ClientMessage)


def server_models() -> tuple[type[BaseModel], ...]:
    """The model of every message that a server sends, but for the free-form ones."""
    return _members(ServerMessage)


def asyncapi() -> Json:
    """The socket as an AsyncAPI 3.0 document, told from the server's side: it *receives* what clients send."""
    inward = {f"client.{_type_of(model)}": model for model in client_models()}
    outward = {f"server.{_type_of(model)}": model for model in server_models()}
    schemas = _schemas([*inward.values(), *outward.values()], keep_discriminators=False)
    schemas[FREE_FORM] = _free_form_schema()
    messages = {name: _message(_type_of(model), model.__name__, getdoc(model)) for name, model in (inward | outward).items()}
    messages["server.free-form"] = _message("any", FREE_FORM, getdoc(Envelope))
    return {
        "asyncapi": "3.0.0",
        "info": _info("WebSocket: one JSON object a text frame, both ways. The first message is the server's CONNECT."),
        "defaultContentType": "application/json",
        "channels": {
            "realtime": {
                "address": PATH,
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "query": _query_schema()}},
            }
        },
        "operations": {
            "receive": _operation("receive", "What a client says.", inward),
            "send": _operation("send", "What the server says.", [*outward, "server.free-form"]),
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def openapi() -> Json:
    """The HTTP calls beside the socket as an OpenAPI 3.1 document."""
    bodies: list[type[BaseModel]] = [SyncPost, StatusAnswer, SyncAnswer, StatsAnswer, Revoke, RevokeAnswer, ErrorAnswer]
    return {
        "openapi": "3.1.0",
        "info": _info("HTTP: the fallback for when no socket can be had, and what operators ask."),
        "security": [{name: []} for name in _SECURITY],
        "paths": {
            PATH: {
                "get": _call("Whether the server is ready, and where its socket is", _answer(StatusAnswer), 401),
                "post": {
                    **_call(
                        "Operations without a socket; with `since`, also what was missed",
                        _answer(SyncAnswer),
                        *(400, 401, 403, 413, 415, 429, 503),
                    ),
                    "requestBody": {"required": True, "content": _content(SyncPost)},
                },
            },
            f"{PATH}/stats": {"get": _call("Who is connected", _answer(StatsAnswer), 401, 403)},
            f"{PATH}/revoke": {
                "post": {
                    **_call(
                        "For admins: close connections, and refuse their tokens from now on",
                        _answer(RevokeAnswer),
                        *(400, 401, 403, 413, 415, 429, 503),
                    ),
                    "requestBody": {"required": True, "content": _content(Revoke)},
                }
            },
            f"{PATH}/schema": {"get": _open_call("The socket's messages as an AsyncAPI document")},
            f"{PATH}/openapi": {"get": _open_call("This document")},
            "/healthz": {"get": _open_call("Whether the process lives")},
            "/readyz": {"get": _open_call("Whether it can serve: not while draining, nor without its store", 503)},
        },
        "components": {
            "schemas": _schemas(bodies, keep_discriminators=True),
            "securitySchemes": dict(_SECURITY),
        },
    }


# -- parts of both -----------------------------------------------------------------------------------------------------------


def _members(union: Any) -> tuple[type[BaseModel], ...]:
    """The models of an annotated, discriminated union."""
    members: tuple[type[BaseModel], ...] = get_args(get_args(union)[0])
    return members


def _type_of(model: type[BaseModel]) -> str:
    """The message type that a model is for: the one value of its ``type``."""
    literal: str = get_args(model.model_fields["type"].annotation)[0]
    return literal


def _info(description: str) -> Json:
    return {"title": "tornado_rt", "version": VERSION, "description": description, "license": {"name": "MIT"}}


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _schemas(models: Iterable[type[BaseModel]], *, keep_discriminators: bool) -> Json:
    """The schemas of ``models`` and of all that they hold, by name."""
    _, top = models_json_schema(
        [(model, "validation") for model in models], by_alias=True, ref_template="#/components/schemas/{model}"
    )
    schemas: Json = _tidy(top["$defs"], keep_discriminators)
    return schemas


def _tidy(node: Any, keep_discriminators: bool) -> Any:
    """Without titles that repeat names and defaults of null; AsyncAPI also knows ``discriminator`` only as a plain name."""
    if isinstance(node, list):
        return [_tidy(part, keep_discriminators) for part in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _tidy(part, keep_discriminators)
        for key, part in node.items()
        if not (key == "title" and isinstance(part, str))
        and not (key == "default" and part is None)
        and (keep_discriminators or not (key == "discriminator" and isinstance(part, dict) and "mapping" in part))
    }


# -- AsyncAPI ----------------------------------------------------------------------------------------------------------------


def _message(name: str, schema: str, description: str | None) -> Json:
    message: Json = {
        "name": name,
        "payload": {"$ref": f"#/components/schemas/{schema}"},
        "correlationId": {"location": "$message.payload#/correlationId"},
    }
    return message | ({"description": description} if description else {})


def _operation(action: str, summary: str, names: Iterable[str]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/realtime"},
        "summary": summary,
        "messages": [{"$ref": f"#/channels/realtime/messages/{name}"} for name in names],
    }


def _free_form_schema() -> Json:
    """An Envelope that is none of the other messages: a message about documents without a seq, or of an unknown type."""
    schema: Json = _tidy(Envelope.model_json_schema(by_alias=True), keep_discriminators=False)
    schema["properties"]["type"] = {"type": "string", "not": {"enum": list(_CONNECTION_TYPES)}}
    schema["properties"]["payload"] = {"type": "object", "not": {"required": ["seq"]}}
    return schema


def _query_schema() -> Json:
    return {"type": "object", "properties": {name: {"type": "string", "description": text} for name, text in _QUERY.items()}}


# -- OpenAPI -----------------------------------------------------------------------------------------------------------------


def _content(model: type[BaseModel]) -> Json:
    return {"application/json": {"schema": _ref(model)}}


def _answer(model: type[BaseModel]) -> Json:
    return {"description": getdoc(model) or "", "content": _content(model)}


def _call(summary: str, answer: Json, *refusals: int) -> Json:
    responses = {"200": answer}
    for status in refusals:
        responses[str(status)] = {"description": "Refused", "content": _content(ErrorAnswer)}
        if status in (429, 503):
            responses[str(status)]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return {"summary": summary, "responses": responses}


def _open_call(summary: str, *refusals: int) -> Json:
    """A call that needs no identity and answers some JSON object."""
    answer = {"description": "A JSON object", "content": {"application/json": {"schema": {"type": "object"}}}}
    return _call(summary, answer, *refusals) | {"security": []}
