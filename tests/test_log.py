"""The log: one voice for our events and Tornado's, one printable line each, nothing secret in any of them."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from tornado_rt import log

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    """Logging is the process's: put it back for the tests after this one."""
    root, access = logging.getLogger(), logging.getLogger("tornado.access")
    handlers, level, access_level = list(root.handlers), root.level, access.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    access.setLevel(access_level)
    logging.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def as_json(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(level: str = "info", style: Any = "json", **more: Any) -> io.StringIO:
    stream = io.StringIO()
    log.configure(level, style, stream=stream, **more)
    return stream


# --- shape


def test_json_is_one_object_a_line_with_time_level_and_context() -> None:
    stream = configured()
    structlog.contextvars.bind_contextvars(process="p1")
    structlog.get_logger().bind(client_id="c1").info("client_connected", user_id="anna", members=3)
    [line] = as_json(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "client_connected",
        "level": "info",
        "process": "p1",
        "client_id": "c1",
        "user_id": "anna",
        "members": 3,
    }


def test_tornado_speaks_through_the_same_renderer() -> None:
    stream = configured()
    logging.getLogger("tornado.general").warning("Could not %s", "open")
    [line] = as_json(stream)
    assert (line["event"], line["level"], line["logger"]) == ("Could not open", "warning", "tornado.general")


def test_python_warnings_are_logged() -> None:
    stream = configured()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old habit", stacklevel=1)
    assert "old habit" in stream.getvalue()


def test_auto_is_text_in_a_terminal_and_json_elsewhere() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    log.configure("info", "auto", stream=terminal)
    structlog.get_logger().info("client_connected", user_id="anna")
    log.configure("info", "auto", stream=pipe)
    structlog.get_logger().info("client_connected", user_id="anna")
    assert not terminal.getvalue().startswith("{")
    assert "client_connected" in terminal.getvalue()
    assert as_json(pipe)[0]["user_id"] == "anna"


def test_text_in_a_file_has_no_colours() -> None:
    stream = configured(style="text")
    structlog.get_logger().warning("client_slow", user_id="anna")
    assert "\x1b" not in stream.getvalue()
    assert "user_id=anna" in stream.getvalue()


def test_levels_below_the_threshold_say_nothing() -> None:
    stream = configured("warning")
    structlog.get_logger().info("client_connected")
    logging.getLogger("asyncio").info("hello")
    assert stream.getvalue() == ""


def test_a_served_request_is_no_line_but_a_failed_one_is() -> None:
    stream = configured("info")
    access = logging.getLogger("tornado.access")
    access.info("200 GET /api/realtime")
    access.warning("404 GET /x")
    assert [line["event"] for line in as_json(stream)] == ["404 GET /x"]


def test_debug_shows_every_request() -> None:
    stream = configured("debug")
    logging.getLogger("tornado.access").info("200 GET /api/realtime")
    assert "200 GET" in stream.getvalue()


def test_configuring_again_replaces_the_handler_and_leaves_others() -> None:
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    first, second = configured(), configured()
    logging.getLogger("asyncio").warning("once")
    assert first.getvalue() == ""
    assert len(as_json(second)) == 1
    assert other in logging.getLogger().handlers


def test_a_traceback_keeps_its_lines_and_loses_its_secrets() -> None:
    stream = configured(secrets=["s3cr3t"])
    try:
        raise ValueError("token=abc s3cr3t \x1b[2J")
    except ValueError:
        structlog.get_logger().exception("handler_failed")
        logging.getLogger("tornado.application").warning("Uncaught", exc_info=True)
    for line in as_json(stream):
        assert line["exception"].splitlines()[0] == "Traceback (most recent call last):"
        assert line["exception"].splitlines()[-1] == r"ValueError: token=*** *** \x1b[2J"


# --- what must not be seen


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("GET /api/realtime?userId=anna&token=abc.def&since=3", "GET /api/realtime?userId=anna&token=***&since=3"),
        ("/?access_token=abc", "/?access_token=***"),
        ("HTTPServerRequest(uri='/x?token=abc', method='GET')", "HTTPServerRequest(uri='/x?token=***', method='GET')"),
        ("connecting with password=abc", "connecting with password=***"),
        ("Authorization: Bearer abc", "Authorization: ***"),
        ("{'Cookie': 'token=abc; userId=anna'}", "{'Cookie': ***"),
        ("sent bearer, abc back", "sent bearer, *** back"),
        ("redis://user:pass@host:6379/0 is away", "redis://***@host:6379/0 is away"),
        (f"no claim in {JWT}", "no claim in ***"),
    ],
)
def test_credentials_are_masked_wherever_they_stand(said: str, written: str) -> None:
    assert log.clean(said) == written


def test_values_under_telling_names_and_known_secrets_are_masked() -> None:
    stream = configured(secrets=["correct-horse", ""])
    structlog.get_logger().info(
        "started", token="abc", jwt_secret="abc", headers={"Authorization": "abc", "Host": "a.test"}, note=["a correct-horse b"]
    )
    [line] = as_json(stream)
    assert (line["token"], line["jwt_secret"]) == ("***", "***")
    assert line["headers"] == {"Authorization": "***", "Host": "a.test"}
    assert line["note"] == ["a *** b"]


def test_nothing_in_a_value_can_forge_a_line_or_paint_the_terminal() -> None:
    stream = configured(style="text")
    structlog.get_logger().info("client_connected", user_id="anna\n12:00:00 [info] admin_connected\x1b[31m\x9b\u202e")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().isascii()
    assert stream.getvalue().rstrip("\n").isprintable()


def test_a_long_value_is_cut_at_256_characters() -> None:
    stream = configured()
    structlog.get_logger().info("client_connected", user_id="x" * 65_536, items=list(range(1000)))
    [line] = as_json(stream)
    assert len(line["user_id"]) == 256
    assert line["user_id"].endswith("…")
    assert len(line["items"]) == 32


def test_a_url_loses_its_token_and_password_alone() -> None:
    scrubbed = log.scrub_url("wss://anna:pw@a.test/api/realtime?dashboardId=d&token=abc#x")
    assert scrubbed == "wss://***@a.test/api/realtime?dashboardId=d&token=***#x"
    assert log.scrub_url("/api/realtime?userId=anna") == "/api/realtime?userId=anna"


@given(st.text())
def test_whatever_is_said_becomes_one_short_printable_line(said: str) -> None:
    written = log.clean(said)
    assert len(written) <= 256
    assert "\n" not in written
    assert "\x1b" not in written
    written.encode()


@given(
    st.text(alphabet=st.characters(exclude_categories=("C", "Z")), min_size=1).filter(
        lambda text: not set(text) & set("&;#\"'<>")
    )
)
def test_no_part_of_a_token_in_a_query_survives(token: str) -> None:
    assert log.clean(f"GET /api/realtime?token={token}&x=1") == "GET /api/realtime?token=***&x=1"
