"""From credentials to an identity: who is it, and what may it do where. Reads no requests: ``handlers`` bring what they found.

``authenticator`` has the contract, and the mode ``trust``; ``jwt_authenticator`` the mode for strangers. A token is taken apart
by ``compact``, its key comes from ``keys`` or ``remote_keys``, and ``claims`` says what it means.
"""

from __future__ import annotations

from tornado_rt.auth.authenticator import Authenticator, Credentials, TrustAuthenticator
from tornado_rt.auth.claims import MAX_LIFE_SECONDS
from tornado_rt.auth.compact import MAX_TOKEN_BYTES, Cause
from tornado_rt.auth.identity import EVERYWHERE, ROLES, Identity
from tornado_rt.auth.issuing import issue_token
from tornado_rt.auth.jwt_authenticator import REFUSAL, JwtAuthenticator
from tornado_rt.auth.keys import FixedKeySet, Key, KeySet, public_key, secret_key
from tornado_rt.auth.remote_keys import RemoteKeySet

__all__ = [
    "EVERYWHERE",
    "MAX_LIFE_SECONDS",
    "MAX_TOKEN_BYTES",
    "REFUSAL",
    "ROLES",
    "Authenticator",
    "Cause",
    "Credentials",
    "FixedKeySet",
    "Identity",
    "JwtAuthenticator",
    "Key",
    "KeySet",
    "RemoteKeySet",
    "TrustAuthenticator",
    "issue_token",
    "public_key",
    "secret_key",
]
