"""Signed tokens: what is taken, and that every known trick is refused, for the right cause and in the same words.

RFC 7519, RFC 8725.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.auth.forgery import (
    CLAIMS,
    NOW,
    SECRET,
    authenticator,
    cause_of,
    hmac_sha256,
    identity_by,
    jwk,
    pem,
    private_key,
    raw_token,
    token,
)
from tests.hall import Clock
from tornado_rt.auth import Cause, Credentials, FixedKeySet, JwtAuthenticator, public_key, secret_key
from tornado_rt.errors import Forbidden, Unauthorized

HEADER = {"alg": "HS256", "typ": "JWT"}
YEAR_10_30 = 10**30


def by_public_key(kind: str, *algorithms: str) -> JwtAuthenticator:
    return authenticator(keys=FixedKeySet([public_key(pem(kind), algorithms)]), algorithms=algorithms)


# What is taken


async def test_a_token_says_who_and_where_and_until_when() -> None:
    identity = await identity_by(token(jti="token-1", iat=NOW - 5))
    assert identity.user_id == "anna"
    assert identity.permissions_on("sales") == ("read", "write")
    assert identity.permissions_on("other") == ()
    assert (identity.token_id, identity.issued_at) == ("token-1", NOW - 5)
    assert identity.expires_at == CLAIMS["exp"] + 10  # the leeway


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_shared_secrets(algorithm: str) -> None:
    keys = FixedKeySet([secret_key(SECRET, [algorithm])])
    assert (await identity_by(token(algorithm), keys=keys, algorithms=[algorithm])).user_id == "anna"


@pytest.mark.parametrize(
    ("kind", "algorithm"),
    [("RSA", "RS256"), ("RSA", "RS512"), ("RSA", "PS256"), ("P-256", "ES256"), ("P-384", "ES384"), ("Ed25519", "EdDSA")],
)
async def test_public_keys(kind: str, algorithm: str) -> None:
    judge = by_public_key(kind, algorithm)
    assert (await judge.renew(token(algorithm, private_key(kind)))).user_id == "anna"
    assert await cause_of(judge, token(algorithm, private_key(f"{kind}/another"))) == "signature"


async def test_the_first_token_that_is_there_counts_and_a_page_speaks_before_its_cookie() -> None:
    places = ("query_token", "bearer", "subprotocol_token", "cookie_token")
    credentials = {place: token(sub=place) for place in places}
    for place in places:
        assert (await authenticator().identify(Credentials(**credentials))).user_id == place
        del credentials[place]


async def test_a_bad_token_is_not_made_good_by_the_next_place() -> None:
    for bad in ("", "x"):
        with pytest.raises(Unauthorized):
            await authenticator().identify(Credentials(query_token=bad, bearer=token()))


async def test_names_that_trust_mode_believes_are_none() -> None:
    judge = authenticator()
    with pytest.raises(Unauthorized):
        await judge.identify(Credentials(query_user_id="anna", cookie_user_id="anna"))
    assert judge.failures["missing"] == 1
    with pytest.raises(Unauthorized):
        await judge.identify(Credentials(bearer="anna"))


async def test_a_user_id_beside_the_token_must_be_its_own() -> None:
    judge = authenticator()
    assert (await judge.identify(Credentials(query_user_id="anna", bearer=token()))).user_id == "anna"
    for other in ("bert", "Anna", ""):
        with pytest.raises(Unauthorized):
            await judge.identify(Credentials(query_user_id=other, bearer=token()))
    assert judge.failures["other_user"] == 3


async def test_nobody_hears_why_he_was_refused_and_the_log_holds_no_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tornado_rt.auth")
    text = token(exp=NOW - 60)
    assert await cause_of(authenticator(), text) == "expired"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("DEBUG", "token refused: expired")]


def test_the_causes_are_a_closed_set() -> None:
    assert authenticator().failures == dict.fromkeys(Cause, 0)


# Signatures


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", ""])
@pytest.mark.parametrize("signature", [b"", b"x"])
async def test_no_algorithm_is_no_signature(name: str, signature: bytes) -> None:
    text = raw_token({"alg": name}, CLAIMS, lambda _: signature)
    assert await cause_of(authenticator(), text) in ("algorithm", "malformed")


@pytest.mark.parametrize("algorithms", [["none"], ["HS256", "none"], ["HS257"], []])
def test_no_server_can_be_told_to_take_none(algorithms: list[str]) -> None:
    with pytest.raises(ValueError, match="algorithms must be some of"):
        authenticator(algorithms=algorithms)


async def test_a_public_key_is_not_taken_for_a_secret() -> None:
    """The classic: a forger signs by HMAC with what everybody may know (RFC 8725 section 2.1)."""
    for algorithms in (("RS256",), ("RS256", "RS512")):
        judge = by_public_key("RSA", *algorithms)
        for public in (pem("RSA"), pem("RSA").strip(), jwk("RSA", "RS256")["n"]):
            forged = raw_token(HEADER, CLAIMS, hmac_sha256(public.encode()))
            assert await cause_of(judge, forged) == "algorithm"


async def test_an_algorithm_that_is_accepted_is_still_not_for_every_key() -> None:
    """Both families are accepted, each key for its own: HMAC by the bytes of the RSA key finds none."""
    keys = FixedKeySet([public_key(pem("RSA"), ["RS256"])])
    judge = authenticator(keys=keys, algorithms=["RS256", "HS256"])
    assert await cause_of(judge, raw_token(HEADER, CLAIMS, hmac_sha256(pem("RSA").encode()))) == "unknown_key"


async def test_a_header_that_names_another_algorithm_than_the_signature() -> None:
    judge = authenticator(keys=FixedKeySet([secret_key(SECRET, ["HS256", "HS512"])]), algorithms=["HS256", "HS512"])
    assert await cause_of(judge, raw_token({"alg": "HS512"}, CLAIMS)) == "signature"


async def test_claims_that_were_changed_after_signing() -> None:
    header, _, signature = token().split(".")
    _, claims, _ = token(sub="boss").split(".")
    assert await cause_of(authenticator(), f"{header}.{claims}.{signature}") == "signature"


async def test_a_signature_has_one_spelling() -> None:
    """The last letter of 32 bytes in base64 has two bits to spare; a token must not have four names."""
    text = token()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = text[:-1] + letters[letters.index(text[-1]) ^ 1]
    assert await cause_of(authenticator(), twin) == "signature"


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "../../../../dev/null"},
        {"kid": "' OR 1=1 --"},
        {"kid": "another"},
        {"kid": ""},
        {"jwk": jwk("RSA/forger", "RS256")},
        {"jku": "https://forger.example.com/keys"},
        {"x5u": "https://forger.example.com/chain"},
        {"x5c": ["MIIC"]},
    ],
)
async def test_a_token_cannot_bring_or_choose_its_key(header: dict[str, Any]) -> None:
    judge = by_public_key("RSA", "RS256")
    assert await cause_of(judge, token("RS256", private_key("RSA/forger"), header)) == "signature"
    assert (await judge.renew(token("RS256", private_key("RSA"), header))).user_id == "anna"


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "crit": ["exp"], "exp": 1},
        {**HEADER, "crit": []},
        {**HEADER, "b64": False, "crit": ["b64"]},
        {**HEADER, "b64": True},
        {**HEADER, "kid": 7},
        {**HEADER, "kid": ["a"]},
        {**HEADER, "kid": "x" * 257},
        b'{"alg":"HS256","alg":"HS256"}',
        b'{"alg":"none","alg":"HS256"}',
        b"[]",
        b'"HS256"',
        b"{",
        b"\xff",
        b'{"alg":"HS256","x":' + b"[" * 3_000 + b"]" * 3_000 + b"}",
        b'{"alg":"HS256","x":' + b"9" * 5_000 + b"}",
    ],
)
async def test_headers_that_are_none(header: Any) -> None:
    assert await cause_of(authenticator(), raw_token(header, CLAIMS)) == "malformed"


@pytest.mark.parametrize("header", [{}, {"alg": None}, {"alg": ["HS256"]}, {"alg": {"HS256": 1}}, {"alg": "hs256"}])
async def test_headers_without_a_known_algorithm(header: Any) -> None:
    assert await cause_of(authenticator(), raw_token(header, CLAIMS)) == "algorithm"


# Form and size


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        " ",
        "\x00",
        "é.é.é",
        "a b.c.d",
        "Bearer x.y.z",
        "\ud800.a.b",
        "%41.b.c",
    ],
)
async def test_what_is_no_token(text: str) -> None:
    assert await cause_of(authenticator(), text) == "malformed"


@pytest.mark.parametrize(("before", "after"), [("", "\n"), (" ", ""), ("", "="), ("", "."), ("Bearer ", "")])
async def test_a_token_with_something_around_it(before: str, after: str) -> None:
    assert await cause_of(authenticator(), before + token() + after) == "malformed"


async def test_a_token_has_8_kib_at_most() -> None:
    most = authenticator()
    fitting = next(text for n in range(5_800, 6_200) if len(text := token(note="x" * n)) in (8_191, 8_192))
    assert (await most.renew(fitting)).user_id == "anna"
    assert await cause_of(most, token(note="x" * 6_200)) == "too_large"
    assert await cause_of(most, "x" * 10_000_000) == "too_large"


@pytest.mark.parametrize(
    "payload",
    [
        b'{"sub":"anna","sub":"boss","exp":1700003600,"dashboards":{}}',
        b'{"sub":"anna","exp":1,"exp":1700003600,"dashboards":{}}',
        b'{"sub":"anna","exp":1700003600,"dashboards":{"a":"viewer","a":"admin"}}',
        b'{"sub":"anna","exp":1700003600,"dashboards":{},"other":{"a":1,"a":2}}',
        b'{"sub":"anna","exp":NaN,"dashboards":{}}',
        b'{"sub":"anna","exp":Infinity,"dashboards":{}}',
        b'{"sub":"anna","exp":1700003600,"dashboards":{},"deep":' + b'{"a":' * 16 + b"1" + b"}" * 16 + b"}",
        b'{"sub":"anna","exp":1700003600,"dashboards":{},"deep":' + b"[" * 2_500 + b"]" * 2_500 + b"}",
        b'{"sub":"anna","exp":1700003600,"dashboards":{}} ,',
        b'\xef\xbb\xbf{"sub":"anna","exp":1700003600,"dashboards":{}}',
        b"[]",
        b"null",
        b"anna",
        b"\xff\xfe",
        token().encode(),
    ],
)
async def test_claims_that_two_readers_could_read_differently(payload: bytes) -> None:
    assert await cause_of(authenticator(), raw_token(HEADER, payload)) == "malformed"


async def test_ordinary_depth_is_allowed() -> None:
    deep: Any = 1
    for _ in range(15):
        deep = {"a": deep}
    assert (await identity_by(token(deep=deep))).user_id == "anna"


# Claims


@pytest.mark.parametrize(
    "sub",
    [None, "", "a\nb", "a\rb", "\x1b[31manna", "x" * 129, "\ud800", "a\u200bb", "\u202eanna", 7, True, ["anna"], {"a": 1}],
)
async def test_subjects_that_are_no_user(sub: Any) -> None:
    claims = {**CLAIMS, "sub": sub}
    assert await cause_of(authenticator(), raw_token(HEADER, claims)) == "subject"


async def test_a_subject_is_required() -> None:
    assert await cause_of(authenticator(), token(sub=None)) == "subject"


@pytest.mark.parametrize("name", ["__proto__", "Jörg & Söhne", "x" * 128, " a "])
async def test_names_that_may_be_odd(name: str) -> None:
    assert (await identity_by(token(sub=name))).user_id == name


@pytest.mark.parametrize(
    ("times", "cause"),
    [
        ({"exp": None}, "times"),
        ({"exp": "1700003600"}, "times"),
        ({"exp": True}, "times"),
        ({"exp": [NOW + 60]}, "times"),
        ({"exp": 10**400}, "times"),
        ({"exp": -(10**400)}, "times"),
        ({"exp": YEAR_10_30}, "life"),
        ({"exp": 1e300}, "life"),
        ({"exp": NOW + 30 * 86_400 + 1}, "life"),
        ({"exp": NOW + 60, "iat": NOW + 60 - 30 * 86_400 - 1}, "life"),
        ({"exp": NOW + 60, "iat": -1}, "life"),
        ({"exp": NOW - 10}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": -YEAR_10_30}, "expired"),
        ({"nbf": NOW + 11}, "not_yet_valid"),
        ({"nbf": YEAR_10_30}, "not_yet_valid"),
        ({"nbf": "0"}, "times"),
        ({"iat": NOW + 11}, "not_yet_valid"),
        ({"iat": False}, "times"),
        ({"iat": -(10**400)}, "times"),
    ],
)
async def test_times_that_are_not_now(times: dict[str, Any], cause: str) -> None:
    claims = {name: value for name, value in {**CLAIMS, **times}.items() if value is not None}
    assert await cause_of(authenticator(), raw_token(HEADER, claims)) == cause


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
async def test_a_time_of_null_or_beyond_a_float_is_none(name: str) -> None:
    claims = {**CLAIMS, name: None}
    assert await cause_of(authenticator(), raw_token(HEADER, claims)) == "times"
    text = b'{"sub":"anna","exp":1700003600,"dashboards":{},"%b":1e400}'.replace(
        b'"exp":1700003600,', b"" if name == "exp" else b'"exp":1700003600,'
    )
    assert await cause_of(authenticator(), raw_token(HEADER, text % name.encode())) == "times"


async def test_the_leeway_is_ten_seconds_and_the_clock_is_handed_in() -> None:
    clock = Clock()
    judge = authenticator(clock=clock.time)
    text = token(exp=NOW + 5, nbf=NOW + 10, iat=NOW + 10)
    identity = await judge.renew(text)
    assert identity.expires_at == NOW + 15
    clock.advance(14.9)
    await judge.renew(text)
    clock.advance(0.1)  # `expires_at` itself is too late
    assert await cause_of(judge, text) == "expired"


@pytest.mark.parametrize("times", [{"exp": NOW + 30 * 86_400}, {"exp": NOW + 60, "iat": NOW + 60 - 30 * 86_400}])
async def test_a_token_may_live_for_thirty_days(times: dict[str, int]) -> None:
    assert (await identity_by(token(**times))).user_id == "anna"


async def test_fractions_of_seconds_are_times() -> None:
    assert (await identity_by(token(exp=NOW + 0.5))).expires_at == NOW + 10.5


@pytest.mark.parametrize(
    ("asked", "said", "is_good"),
    [
        (None, None, True),
        (None, "realtime", False),  # for somebody else, whoever that is (RFC 7519 section 4.1.3)
        (None, [], True),
        ("realtime", "realtime", True),
        ("realtime", ["other", "realtime"], True),
        ("realtime", None, False),
        ("realtime", "other", False),
        ("realtime", "realtime2", False),
        ("realtime", ["realtime", 7], False),
        ("realtime", {"realtime": 1}, False),
        ("realtime", 7, False),
        ("realtime", "", False),
    ],
)
async def test_audiences(asked: str | None, said: Any, is_good: bool) -> None:
    judge = authenticator(audience=asked)
    if is_good:
        await judge.renew(token(aud=said))
    else:
        assert await cause_of(judge, token(aud=said)) == "audience"


@pytest.mark.parametrize(
    "said", [None, "https://other.example.com", "https://login.example.com/", 7, ["https://login.example.com"]]
)
async def test_issuers(said: Any) -> None:
    judge = authenticator(issuer="https://login.example.com")
    claims = {**CLAIMS, "iss": said} if said is not None else dict(CLAIMS)
    assert await cause_of(judge, raw_token(HEADER, claims)) == "issuer"
    assert (await judge.renew(token(iss="https://login.example.com"))).user_id == "anna"


@pytest.mark.parametrize("jti", [7, "", "a\nb", "x" * 129, ["a"]])
async def test_ids_of_tokens_that_are_none(jti: Any) -> None:
    assert await cause_of(authenticator(), token(jti=jti)) == "token_id"


# Dashboards


@pytest.mark.parametrize(
    "claim",
    [
        None,
        "*",
        ["sales"],
        [],
        7,
        {"": "viewer"},
        {"a\nb": "viewer"},
        {"x" * 129: "viewer"},
        {"sales": "owner"},
        {"sales": "Editor"},
        {"sales": None},
        {"sales": ["viewer"]},
        {"sales": "viewer", "ops": {}},
    ],
)
async def test_a_malformed_claim_is_not_passed_over(claim: Any) -> None:
    """It may have been meant to narrow what a default would give."""
    judge = authenticator(default_role="admin")
    assert await cause_of(judge, raw_token(HEADER, {**CLAIMS, "dashboards": claim})) == "dashboards"


@pytest.mark.parametrize(("role", "permissions"), [("viewer", ("read",)), ("admin", ("read", "write", "admin"))])
async def test_a_token_without_the_claim_has_the_default_role_everywhere(role: str, permissions: tuple[str, ...]) -> None:
    identity = await identity_by(token(dashboards=None), default_role=role)
    assert identity.permissions_on("any") == permissions
    assert identity.is_admin == (role == "admin")
    assert (await identity_by(token(), default_role=role)).permissions_on("any") == ()


async def test_without_a_default_role_it_is_refused_and_told_so() -> None:
    judge = authenticator()
    with pytest.raises(Forbidden, match="RT_JWT_DEFAULT_ROLE"):
        await judge.renew(token(dashboards=None))
    assert judge.failures["no_role"] == 1


async def test_an_empty_claim_allows_nothing() -> None:
    assert (await identity_by(token(dashboards={}), default_role="admin")).permissions_on("sales") == ()
