"""Keys: for one family of algorithms each, strong enough, and never a private one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.auth.forgery import SECRET, jwk, pem, private_jwk, private_pem
from tornado_rt.auth import Key, public_key, secret_key
from tornado_rt.auth.keys import key_of_jwk

ANY = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]


@pytest.mark.parametrize("algorithms", [{"HS256", "RS256"}, {"RS256", "PS256"}, {"ES256", "EdDSA"}, set()])
def test_a_key_is_for_one_family(algorithms: set[str]) -> None:
    with pytest.raises(ValueError, match="one family"):
        Key(b"x", frozenset(algorithms))


def test_a_key_is_for_known_algorithms() -> None:
    with pytest.raises(ValueError, match="none is no algorithm"):
        Key(b"x", frozenset({"none"}))


@pytest.mark.parametrize(("algorithm", "length"), [("HS256", 32), ("HS384", 48), ("HS512", 64)])
def test_a_secret_is_as_long_as_its_hash(algorithm: str, length: int) -> None:
    """RFC 7518 section 3.2."""
    assert secret_key(SECRET[:length], [algorithm]).algorithms == {algorithm}
    with pytest.raises(ValueError, match=f"at least {length} bytes"):
        secret_key(SECRET[: length - 1], [algorithm])


def test_a_secret_is_no_public_key() -> None:
    with pytest.raises(ValueError, match="everybody may know"):
        secret_key(pem("RSA"), ["HS256"])
    with pytest.raises(ValueError, match="not for RS256"):
        secret_key(SECRET, ["RS256"])


@pytest.mark.parametrize(
    ("text", "algorithms", "said"),
    [
        (pem("RSA"), ["HS256"], "not for HS256"),
        (pem("RSA"), ["ES256"], "no key for ES256"),
        (pem("P-256"), ["RS256"], "no key for RS256"),
        (pem("P-256"), ["ES384"], "no key for ES384"),
        (pem("Ed25519"), ["RS256"], "no key for RS256"),
        (pem("RSA"), ["RS256", "PS256"], "one family"),
        (pem("weak RSA"), ["RS256"], "2048"),
        (private_pem("RSA"), ["RS256"], "private key"),
        ("-----BEGIN CERTIFICATE-----\nMIIC\n-----END CERTIFICATE-----", ["RS256"], "public key in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nMIIC\n-----END PUBLIC KEY-----", ["RS256"], "no key for RS256"),
        ("", ["RS256"], "public key in PEM"),
        ("ssh-rsa AAAA", ["RS256"], "public key in PEM"),
    ],
)
def test_public_keys_that_are_of_no_use(text: str, algorithms: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        public_key(text, algorithms)


def test_a_public_key_may_stand_in_one_line() -> None:
    key = public_key(pem("P-256").replace("\n", "\\n"), ["ES256"])
    assert key.material.public_numbers() == public_key(pem("P-256"), ["ES256"]).material.public_numbers()


@pytest.mark.parametrize(("kind", "algorithm"), [("RSA", "RS256"), ("RSA", "PS256"), ("P-256", "ES256"), ("Ed25519", "EdDSA")])
def test_members_of_a_set(kind: str, algorithm: str) -> None:
    key = key_of_jwk(jwk(kind, algorithm, kid="k1"), ANY)
    assert key is not None
    assert (key.algorithms, key.key_id) == ({algorithm}, "k1")


def test_a_member_without_alg_counts_for_one_family_of_its_kind() -> None:
    member = jwk("RSA", "RS256")
    del member["alg"]
    assert [
        key and key.algorithms
        for key in (key_of_jwk(member, ["RS256", "PS256", "RS512", "ES256"]), key_of_jwk(member, ["PS256"]))
    ] == [
        {"RS256", "RS512"},
        {"PS256"},
    ]
    assert key_of_jwk(member, ["ES256"]) is None


@pytest.mark.parametrize(
    "member",
    [
        None,
        "key",
        [],
        {},
        {"kty": "oct", "k": "c2VjcmV0LXRoYXQtZXZlcnlib2R5LWNhbi1yZWFkLWhlcmU", "alg": "HS256"},
        jwk("RSA", "RS256", alg="HS256"),
        jwk("RSA", "RS256", alg="RSA-OAEP"),
        jwk("RSA", "RS256", alg="ES256"),
        jwk("RSA", "RS256", alg="none"),
        jwk("RSA", "RS256", alg=7),
        jwk("RSA", "RS256", kty="EC"),
        jwk("RSA", "RS256", kty=["RSA"]),
        jwk("RSA", "RS256", use="enc"),
        jwk("RSA", "RS256", key_ops=["encrypt"]),
        jwk("RSA", "RS256", key_ops="verify"),
        jwk("RSA", "RS256", kid=7),
        private_jwk("RSA", "RS256"),
        private_jwk("P-256", "ES256"),
        private_jwk("Ed25519", "EdDSA"),
        jwk("RSA", "RS256", n="!!!"),
        jwk("RSA", "RS256", n=7),
        jwk("RSA", "RS256", e="AA"),
        jwk("weak RSA", "RS256"),
        jwk("P-256", "ES256", crv="P-384"),
        jwk("P-256", "ES256", crv="secp256k1"),
        jwk("P-256", "ES256", y="AAAA"),
        jwk("Ed25519", "EdDSA", crv="X25519"),
    ],
)
def test_members_that_are_no_key_of_ours(member: Any) -> None:
    assert key_of_jwk(member, [*ANY, "HS256"]) is None
