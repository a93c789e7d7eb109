"""Who somebody is, in ``trust`` mode: the guide's order, and nothing that is no name (PROTOCOL section 1)."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from tornado_rt.auth import Credentials, Identity, TrustAuthenticator
from tornado_rt.errors import Unauthorized
from tornado_rt.handlers.gate import credentials_of


class Nowhere:
    """A connection, as far as a request asks for one."""

    context = None

    def set_close_callback(self, _: object) -> None: ...


def credentials(uri: str = "/api/realtime", **headers: str) -> Credentials:
    line = RequestStartLine("GET", uri, "HTTP/1.1")
    named = HTTPHeaders({name.replace("_", "-"): value for name, value in {"Host": "localhost", **headers}.items()})
    return credentials_of(HTTPServerRequest(start_line=line, headers=named, connection=Nowhere()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (Credentials("query", None, "bearer", "protocol", "cookie"), "query"),
        (Credentials(None, None, "bearer", "protocol", "cookie"), "bearer"),
        (Credentials(None, None, None, "protocol", "cookie"), "protocol"),
        (Credentials(None, None, None, None, "cookie"), "cookie"),
    ],
)
async def test_the_first_that_is_there_counts(found: Credentials, name: str) -> None:
    identity = await TrustAuthenticator().identify(found)
    assert identity.user_id == name
    assert identity.permissions_on("any") == ("read", "write", "admin")
    assert identity.is_admin


@pytest.mark.parametrize("name", [None, "", "a\nb", "\x1b[31m", "x" * 129, "a\u200bb"])
async def test_no_name_is_nobody(name: str | None) -> None:
    with pytest.raises(Unauthorized):
        await TrustAuthenticator().identify(Credentials(query_user_id=name))


async def test_a_bad_name_is_not_made_good_by_the_next_place() -> None:
    with pytest.raises(Unauthorized):
        await TrustAuthenticator().identify(Credentials(query_user_id="", bearer="anna"))


def test_an_admin_of_one_dashboard_is_none_of_the_server() -> None:
    assert not Identity("anna", {"board": "admin"}).is_admin


def test_where_credentials_stand() -> None:
    assert credentials("/?userId=q%20%C3%A9&token=t").query_user_id == "q é"
    assert credentials("/?userId=q&token=t").query_token == "t"
    assert credentials(Authorization="Bearer anna").bearer == "anna"
    assert credentials(Authorization="bearer  anna ").bearer == "anna"
    assert credentials(Cookie="userId=anna; token=t").cookie_user_id == "anna"
    assert credentials(Cookie="userId=anna; token=t").cookie_token == "t"
    assert credentials(Sec_WebSocket_Protocol="bearer, anna").subprotocol_token == "anna"


def test_the_last_of_several_counts() -> None:
    assert credentials("/?userId=a&userId=b").query_user_id == "b"


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Authorization", "Basic YW5uYTpi"),
        ("Authorization", "Bearer"),
        ("Authorization", "Bearer "),
        ("Cookie", "userIdentity=anna"),
        ("Cookie", ";;;"),
        ("Sec_WebSocket_Protocol", "chat, anna"),
        ("Sec_WebSocket_Protocol", "bearer"),
        ("Sec_WebSocket_Protocol", "bearer, a, b"),
    ],
)
def test_what_is_no_credential(header: str, value: str) -> None:
    assert credentials(**{header: value}) == Credentials()


async def test_a_name_that_is_no_text_is_nobody() -> None:
    """A replacement character in its place would let two different names be the same user."""
    with pytest.raises(Unauthorized):
        await TrustAuthenticator().identify(credentials("/?userId=%ff"))
