"""The entrance reads headers by itself; it must read them as Tornado does, or leave them to it."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from tornado.httputil import HTTPHeaders, HTTPInputError

from tornado_rt.wire.entrance import _read_headers

NAMES = st.sampled_from(["Host", "host", "COOKIE", "x-a", "Sec-WebSocket-Key", "a b", "", "ä", "x\x00", "a_b.c~"])
VALUES = st.text("ab ,;=\t\r\n\x00\x7f\x80\xff:", max_size=12)
ENDS = st.sampled_from(["\r\n"] * 8 + ["\n", "\r", "\r\n\r\n", "\r\n "])
LINES = st.lists(st.tuples(NAMES, st.sampled_from([":", ": ", " :", ""]), VALUES, ENDS).map("".join), max_size=6)


def tornados(lines: str) -> list[tuple[str, str]] | None:
    try:
        return sorted(HTTPHeaders.parse(lines).get_all())
    except HTTPInputError:
        return None


@given(LINES)
@example(["Host: a\r\n", "X-Twice: 1\r\n", "x-twice:\t2 \r\n", "X-Empty:\r\n"])
def test_what_it_reads_is_what_tornado_reads(lines: list[str]) -> None:
    head = "".join(lines) + "\r\n"
    headers = _read_headers(head)
    if headers is not None:
        assert sorted(headers.get_all()) == tornados(head)
        assert "\r\n\r\n" not in head[:-4], "the head ends where the first empty line is"


def test_ordinary_headers_are_not_left_to_tornado() -> None:
    headers = _read_headers("Host: a.example\r\nX-Twice: 1\r\nx-twice:\t2 \r\nX-Empty:\r\nCookie: a=b; c=\xe9\r\n\r\n")
    assert headers is not None
    assert sorted(headers.get_all()) == [
        ("Cookie", "a=b; c=\xe9"),
        ("Host", "a.example"),
        ("X-Empty", ""),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
    ]
    assert headers["X-Twice"] == "1,2"
