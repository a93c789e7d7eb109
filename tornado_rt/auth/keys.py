"""The keys by which tokens are checked: each good for one family of algorithms, so that none is taken for another's.

A public key that is used as a shared secret is the classic forgery (RFC 8725 section 2.1). Knows where a key comes from only
as bytes or JSON; fetching is ``remote_keys``'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

import jwt
from jwt.algorithms import get_default_algorithms

__all__ = ["ALGORITHMS", "FixedKeySet", "Key", "KeySet", "key_of_jwk", "public_key", "secret_key"]

# Algorithm -> family, and what a secret must at least be long: as its hash (RFC 7518 section 3.2).
ALGORITHMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(("HS256", "HS384", "HS512"), "HMAC"),
        **dict.fromkeys(("RS256", "RS384", "RS512"), "RSA"),
        **dict.fromkeys(("PS256", "PS384", "PS512"), "RSA-PSS"),
        **dict.fromkeys(("ES256", "ES384", "ES512"), "ECDSA"),
        "EdDSA": "EdDSA",
    }
)
_SECRET_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
_RSA_ALGORITHMS: Final = tuple(name for name, family in ALGORITHMS.items() if family.startswith("RSA"))
# What a JWK of this kind and curve may be used with (RFC 7518 section 3.1, RFC 8037 section 3.1). None has "oct": a secret that
# can be fetched is none.
_JWK_ALGORITHMS: Final[Mapping[tuple[str, str | None], tuple[str, ...]]] = MappingProxyType(
    {
        ("RSA", None): _RSA_ALGORITHMS,
        ("EC", "P-256"): ("ES256",),
        ("EC", "P-384"): ("ES384",),
        ("EC", "P-521"): ("ES512",),
        ("OKP", "Ed25519"): ("EdDSA",),
        ("OKP", "Ed448"): ("EdDSA",),
    }
)


@dataclass(frozen=True, slots=True)
class Key:
    """``material`` is bytes of a secret, or a public key as PyJWT holds it. ``key_id`` None: tokens name it as they like."""

    material: Any
    algorithms: frozenset[str]
    key_id: str | None = None

    def __post_init__(self) -> None:
        if unknown := self.algorithms - ALGORITHMS.keys():
            raise ValueError(f"{', '.join(sorted(unknown))} is no algorithm for signed tokens")
        if len({ALGORITHMS[name] for name in self.algorithms}) != 1:
            raise ValueError("a key is for the algorithms of one family")


class KeySet(Protocol):
    """Where the keys are."""

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        """The keys that may have signed such a token; none if it is nobody's.

        Raises ``Unavailable`` where that cannot be said now.
        """
        ...


class FixedKeySet:
    """Keys that stay as long as the process; ``kid`` says nothing of them."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    async def find(self, algorithm: str, key_id: str | None) -> Sequence[Key]:
        return [key for key in self._keys if algorithm in key.algorithms]


def secret_key(secret: str, algorithms: Iterable[str]) -> Key:
    """A shared secret. Raises ``ValueError`` with what it must be."""
    key = Key(secret.encode(), frozenset(algorithms))
    for name in sorted(key.algorithms):
        if ALGORITHMS[name] != "HMAC":
            raise ValueError(f"a secret is not for {name}")
        if len(key.material) < _SECRET_BYTES[name]:
            raise ValueError(f"it must be at least {_SECRET_BYTES[name]} bytes long for {name}")
        try:
            get_default_algorithms()[name].prepare_key(key.material)
        except jwt.InvalidKeyError:
            raise ValueError("it is a public key or a certificate, which everybody may know, and no secret") from None
    return key


def public_key(pem: str, algorithms: Iterable[str]) -> Key:
    """A public key in PEM; ``\\n`` may stand for a line's end, as environments like it. Raises ``ValueError``."""
    pem = pem.replace("\\n", "\n").strip()
    if "PRIVATE KEY" in pem:
        raise ValueError("it is a private key; the server needs the public one, and nobody but the issuer the private one")
    if not pem.startswith(("-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PUBLIC KEY-----")):
        raise ValueError("it must be a public key in PEM, beginning with -----BEGIN PUBLIC KEY-----")
    names = sorted(algorithms)
    material: Any = None
    for name in names:
        if ALGORITHMS.get(name) == "HMAC":
            raise ValueError(f"a public key is not for {name}")
        try:
            material = get_default_algorithms()[name].prepare_key(pem)
        except (jwt.PyJWTError, ValueError, TypeError):
            raise ValueError(f"it is no key for {name}") from None
        if sentence := get_default_algorithms()[name].check_key_length(material):
            raise ValueError(sentence)
    return Key(material, frozenset(names))


def key_of_jwk(jwk: object, algorithms: Iterable[str]) -> Key | None:
    """A member of a key set (RFC 7517 section 4), None if it is not for checking tokens with one of ``algorithms``.

    Without ``alg`` it counts for what its kind may do, of one family alone.
    """
    if not isinstance(jwk, dict) or jwk.get("use", "sig") != "sig" or "d" in jwk:
        return None
    operations, key_id = jwk.get("key_ops", ["verify"]), jwk.get("kid")
    if not isinstance(operations, list) or "verify" not in operations or not isinstance(key_id, str | None):
        return None
    kind = str(jwk.get("kty"))
    possible = _JWK_ALGORITHMS.get((kind, None if kind == "RSA" else str(jwk.get("crv"))), ())
    wanted = [name for name in algorithms if name in possible and jwk.get("alg", name) == name]
    if not wanted:
        return None
    try:
        read = jwt.PyJWK(jwk, wanted[0])
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if read.Algorithm.check_key_length(read.key) is not None:
        return None
    return Key(read.key, frozenset(name for name in wanted if ALGORITHMS[name] == ALGORITHMS[wanted[0]]), key_id)
