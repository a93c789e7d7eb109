"""How the process speaks to its operator: one renderer for our own log and for Tornado's, with nothing secret or unprintable.

Events are facts (``client_connected``, ``batch_committed``) with values beside them; a single message is never worth a line.
Knows nothing of what the events mean.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterable
from typing import Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["clean", "configure", "scrub_url"]

MAX_VALUE_CHARACTERS: Final = 256
MAX_ITEMS: Final = 32
MASK: Final = "***"

_SECRET_NAMES = r"(?:[a-z0-9_.-]*(?:token|secret|password|passwd|api_?key|authorization|cookie|credentials?))"
_SECRET_KEY: Final = re.compile(_SECRET_NAMES, re.IGNORECASE)
_ASSIGNED: Final = re.compile(r"((?:^|[?&;\s\"'(,])" + _SECRET_NAMES + r"=)[^&;#\s\"'<>]*", re.IGNORECASE)
_HEADER: Final = re.compile(
    r"\b((?:set-)?cookie|(?:proxy-)?authorization|sec-websocket-protocol)(['\"]?\s*[:=]\s*)[^\r\n]*", re.IGNORECASE
)
_BEARER: Final = re.compile(r"\b(bearer[\s,]+)[^\s,;\"']+", re.IGNORECASE)
_USERINFO: Final = re.compile(r"([a-z][a-z0-9+.-]{0,31}://)[^/\s?#]*@", re.IGNORECASE)
_JWT: Final = re.compile(r"\beyJ[\w-]{8,}(?:\.[\w-]*){0,2}")
# C0 and C1 controls (ANSI sequences begin with one), line separators, and the marks that turn the direction of writing.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def configure(
    level: str,
    style: Literal["auto", "text", "json"],
    *,
    secrets: Iterable[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up structlog and the standard library's logging, once, at the start of the process.

    ``style`` "auto" is text in a terminal, else JSON, one object a line. ``secrets`` are values that must not appear in any
    line, wherever they come from. ``stream`` is standard error unless given.
    """
    stream = sys.stderr if stream is None else stream
    as_text = style == "text" or (style == "auto" and stream.isatty())
    shared = _shared_processors(as_text=as_text, secrets=secrets)
    renderer = _renderer(as_text=as_text, colors=as_text and stream.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        cache_logger_on_first_use=True,
    )
    _route_standard_logging(threshold, stream, shared, renderer)


def scrub_url(url: str) -> str:
    """The address with ``***`` in place of tokens in its query and of a user and password before the host."""
    return _ASSIGNED.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}@", url))


def clean(text: str) -> str:
    """One printable line of at most 256 characters without credentials (``…`` marks a cut)."""
    # Cut first, with room for what masks remove: a value of 64 KiB must not cost as much as it is long.
    text = text[: 4 * MAX_VALUE_CHARACTERS]
    text = _HEADER.sub(rf"\1\2{MASK}", scrub_url(text))
    text = _JWT.sub(MASK, _BEARER.sub(rf"\1{MASK}", text))
    text = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    return text if len(text) <= MAX_VALUE_CHARACTERS else text[: MAX_VALUE_CHARACTERS - 1] + "…"


class _Scrubber:
    """The processor through which every value goes before it is rendered."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: self._value(key, value) for key, value in event.items()}

    def _value(self, key: str, value: object) -> object:
        if value is None or isinstance(value, bool | int | float):
            return value
        if _SECRET_KEY.fullmatch(key):
            return MASK
        if key == "exception":  # a traceback keeps its lines; each is cleaned by itself
            return "\n".join(map(self._text, str(value).splitlines()))
        if isinstance(value, dict):
            return {self._text(str(name)): self._value(str(name), item) for name, item in list(value.items())[:MAX_ITEMS]}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._value("", item) for item in list(value)[:MAX_ITEMS]]
        return self._text(value if isinstance(value, str) else repr(value) if isinstance(value, bytes) else str(value))

    def _text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return clean(text)


def _shared_processors(*, as_text: bool, secrets: Iterable[str]) -> list[Processor]:
    clock = (
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False) if as_text else structlog.processors.TimeStamper(fmt="iso")
    )
    return [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        clock,
        structlog.processors.format_exc_info,
        _Scrubber(secrets),
    ]


def _renderer(*, as_text: bool, colors: bool) -> Processor:
    if as_text:
        return structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=28)
    return structlog.processors.JSONRenderer(ensure_ascii=False)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that a second call of ``configure`` finds and replaces it, and leaves the handlers of others alone."""


def _route_standard_logging(threshold: int, stream: TextIO, shared: list[Processor], renderer: Processor) -> None:
    handler = _Handler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    # A line per request is a line per message for clients that poll; failures (4xx, 5xx) are warnings and errors.
    # And a line for each malformed request would let any stranger fill the disk.
    for name in ("tornado.access", "tornado.general"):
        logging.getLogger(name).setLevel(logging.NOTSET if threshold <= logging.DEBUG else logging.WARNING)
    logging.captureWarnings(True)
