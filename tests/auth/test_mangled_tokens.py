"""Tokens that nobody made on purpose: whatever comes, the answer is an identity that makes sense, or one refusal."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.auth.forgery import CLAIMS, NOW, authenticator, raw_token, token
from tornado_rt.auth import ROLES, Credentials, Identity
from tornado_rt.errors import Forbidden, Unauthorized
from tornado_rt.protocol.messages import is_valid_id

GOOD = token()
HEADER = {"alg": "HS256", "typ": "JWT"}
LETTERS = "ABab01-_.=+/ \n\x00é%"


def judged(text: str) -> Identity | None:
    """None for a refusal; every refusal is counted, once."""
    judge = authenticator()
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            identity = runner.run(judge.identify(Credentials(query_token=text)))
        except (Unauthorized, Forbidden):
            assert sum(judge.failures.values()) == 1
            return None
    assert sum(judge.failures.values()) == 0
    return identity


def check(identity: Identity) -> None:
    assert is_valid_id(identity.user_id)
    assert identity.expires_at is not None
    assert NOW < identity.expires_at <= NOW + 30 * 86_400 + 10
    assert all(is_valid_id(name) and role in ROLES for name, role in identity.roles.items())
    assert identity.token_id is None or is_valid_id(identity.token_id)


mangled = st.one_of(
    st.text(max_size=60),
    st.tuples(st.integers(0, len(GOOD)), st.integers(0, 4), st.text(LETTERS, max_size=3)).map(
        lambda cut: GOOD[: cut[0]] + cut[2] + GOOD[cut[0] + cut[1] :]
    ),
    st.permutations(GOOD.split(".")).map(".".join),
    st.lists(st.sampled_from([*GOOD.split("."), ""]), max_size=5).map(".".join),
)


@settings(max_examples=300, deadline=None)
@given(mangled)
@example(GOOD)
def test_a_mangled_token_is_the_good_one_or_nobodys(text: str) -> None:
    identity = judged(text)
    assert (identity is not None) == (text == GOOD)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.integers(NOW - 20, NOW + 20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["sub", "exp", "nbf", "iat", "aud", "iss", "jti", "dashboards"])
roles = st.dictionaries(
    st.sampled_from(["sales", "ops-*", "*", "", "a\n"]), st.sampled_from([*ROLES, "owner", None]), max_size=3
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(names, json_values | roles, max_size=4))
@example({})
@example({"dashboards": {"*": "admin"}})
def test_signed_claims_of_any_kind_make_sense_or_nobody(claims: dict[str, Any]) -> None:
    """An issuer's mistakes are refused as well, and never by an exception that nobody expects."""
    identity = judged(raw_token(HEADER, json.dumps({**CLAIMS, **claims}).encode()))
    if identity is not None:
        check(identity)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "cty"]), json_values, max_size=3))
@example({"typ": "at+jwt"})
def test_headers_of_any_kind_change_nothing_of_what_is_signed(header: dict[str, Any]) -> None:
    identity = judged(raw_token(json.dumps({**HEADER, **header}).encode(), CLAIMS))
    assert identity is None or (identity.user_id == "anna" and header.get("alg", "HS256") == "HS256")
