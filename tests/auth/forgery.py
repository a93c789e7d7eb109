"""An issuer's keys, and a forger's tools: tokens of every kind, good ones and such as no library would make."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from jwt.algorithms import get_default_algorithms

from tests.hall import Clock
from tornado_rt.auth import FixedKeySet, Identity, JwtAuthenticator, secret_key
from tornado_rt.auth.jwt_authenticator import REFUSAL
from tornado_rt.errors import Unauthorized

SECRET = "correct horse battery staple, and then some more of it to sign by"
NOW = int(Clock().time())
CLAIMS: Mapping[str, Any] = {"sub": "anna", "exp": NOW + 3_600, "dashboards": {"sales": "editor"}}


@functools.cache
def private_key(kind: str) -> Any:
    """A key pair of an issuer; the same one for each name."""
    match kind.partition("/")[0]:
        case "RSA":
            return rsa.generate_private_key(65_537, 2_048)
        case "weak RSA":
            return rsa.generate_private_key(65_537, 1_024)
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def pem(kind: str) -> str:
    """The public half."""
    return private_key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def private_pem(kind: str) -> str:
    return private_key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def jwk(kind: str, algorithm: str, **members: Any) -> dict[str, Any]:
    """The public half as a member of a key set."""
    found: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(private_key(kind).public_key(), as_dict=True)
    found.pop("key_ops", None)
    return {**found, "use": "sig", "alg": algorithm, **members}


def private_jwk(kind: str, algorithm: str) -> dict[str, Any]:
    """A member that no issuer should ever publish: whoever reads it can sign."""
    found: dict[str, Any] = get_default_algorithms()[algorithm].to_jwk(private_key(kind), as_dict=True)
    found.pop("key_ops", None)
    return found


def token(algorithm: str = "HS256", key: Any = SECRET, header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A proper token; a claim of None is left out."""
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode(body, key, algorithm, header)


def hmac_sha256(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda text: hmac.digest(secret, text, hashlib.sha256)


def raw_token(header: Any, payload: Any, sign: Callable[[bytes], bytes] | None = None) -> str:
    """A token of whatever is given, bytes as they are, all else as JSON; signed with the secret unless told otherwise."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)]
    text = b".".join(map(_encode, parts))
    return (text + b"." + _encode((sign or hmac_sha256(SECRET.encode()))(text))).decode()


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def authenticator(**options: Any) -> JwtAuthenticator:
    """One that knows the secret and the time."""
    keys = options.pop("keys", None) or FixedKeySet([secret_key(SECRET, ["HS256"])])
    return JwtAuthenticator(keys, **{"algorithms": ["HS256"], "clock": Clock().time, **options})


async def cause_of(judge: JwtAuthenticator, text: str) -> str:
    """Why a token is refused, as counted. Whoever sent it hears the same words whatever it is."""
    before = dict(judge.failures)
    with pytest.raises(Unauthorized) as caught:
        await judge.renew(text)
    assert (caught.value.message, caught.value.details, caught.value.__cause__) == (REFUSAL, (), None)
    [cause] = [cause for cause, count in judge.failures.items() if count != before[cause]]
    assert judge.failures[cause] == before[cause] + 1
    return cause


async def identity_by(text: str, **options: Any) -> Identity:
    return await authenticator(**options).renew(text)
