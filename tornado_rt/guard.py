"""How much one may ask of us: messages of a connection and of a user, handshakes of an address, connections of all of them.

PROTOCOL section 9, ``RT_RATE_LIMIT`` and its neighbours; 0 is off. Counts and refuses; says nothing to anybody, reads no clock.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field

from tornado_rt.core.limits import TokenBucket
from tornado_rt.errors import RateLimited

__all__ = ["Account", "Guard", "Pace", "Rates", "network_of", "weight_of"]

USER_BURST_SECONDS = 2.0  # a user may be that much ahead of its rate
STRIKES_PER_SECOND = 10.0  # refusals that an honest client with a bug may earn
STRIKES_BURST = 100
BYTES_A_MESSAGE = 4_096  # a larger one counts as several: made for it, 256 KiB take a tenth of a second to read
NETWORK_BITS = 64  # of IPv6: whoever has one address has all of such a network (RFC 6177)


def weight_of(size_bytes: int) -> int:
    """How many messages one of this size counts as."""
    return 1 + size_bytes // BYTES_A_MESSAGE


@dataclass(frozen=True, slots=True)
class Rates:
    """Per second; ``burst`` messages at once for a connection, ``max_waiting`` of which wait for the store.

    ``handshakes_per_second`` is for one address. A client keeps at most 100 operations pending unless told otherwise.
    """

    messages_per_second: float = 50.0
    burst: int = 100
    user_messages_per_second: float = 200.0
    handshakes_per_second: float = 0.0
    max_waiting: int = 1_000
    max_connections: int = 20_000
    max_connections_per_user: int = 50
    max_connections_per_address: int = 0


@dataclass(slots=True)
class Account:
    """What one user has in use: its connections, and a bucket that all of them and its POSTs share.

    ``shut_until`` is when a POST that was refused may come again; before that none is even read.
    """

    bucket: TokenBucket | None
    connections: int = 0
    shut_until: float = 0.0


@dataclass(slots=True)
class Pace:
    """What one connection has in use. ``waiting`` counts its messages that have not been judged yet."""

    account: Account
    bucket: TokenBucket | None
    strikes: TokenBucket | None
    waiting: int = 0


@dataclass(slots=True)
class _Address:
    bucket: TokenBucket | None
    connections: int = 0


@dataclass(slots=True)
class Guard:
    """Buckets and counts of one process. ``refused`` counts by what was exceeded; the names are a closed set."""

    rates: Rates
    connections: int = 0
    refused: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "connection",
                "user",
                "waiting",
                "strikes",
                "handshakes",
                "connections",
                "user_connections",
                "address_connections",
            ),
            0,
        )
    )
    _accounts: dict[str, Account] = field(default_factory=dict)
    _addresses: dict[str, _Address] = field(default_factory=dict)

    # Coming and going

    def knock(self, address: str, now: float) -> bool:
        """May a handshake from this address be looked at at all?"""
        if not self.rates.handshakes_per_second:
            return True
        bucket = self._address(address).bucket
        if bucket is not None and bucket.take(now):
            self.refused["handshakes"] += 1
            return False
        return True

    def has_room(self, user_id: str, address: str) -> bool:
        """Is there room for one more connection? To be asked before anything is done for it; a no is counted."""
        rates, account = self.rates, self._accounts.get(user_id)
        if rates.max_connections and self.connections >= rates.max_connections:
            self.refused["connections"] += 1
        elif rates.max_connections_per_user and account and account.connections >= rates.max_connections_per_user:
            self.refused["user_connections"] += 1
        elif rates.max_connections_per_address and self._address(address).connections >= rates.max_connections_per_address:
            self.refused["address_connections"] += 1
        else:
            return True
        return False

    def enter(self, user_id: str, address: str) -> bool:
        """Count a connection in, if there is room for it; ``leave`` is owed for each that was."""
        if not self.has_room(user_id, address):
            return False
        self.connections += 1
        self.account(user_id).connections += 1
        if self.rates.max_connections_per_address:
            self._address(address).connections += 1
        return True

    def leave(self, user_id: str, address: str) -> None:
        self.connections -= 1
        self.account(user_id).connections -= 1
        if self.rates.max_connections_per_address:
            self._address(address).connections -= 1

    def pace(self, user_id: str) -> Pace:
        """The buckets of a connection that begins."""
        rates = self.rates
        if not rates.messages_per_second:
            return Pace(self.account(user_id), None, None)
        bucket = TokenBucket(rates.messages_per_second, rates.burst)
        return Pace(self.account(user_id), bucket, TokenBucket(STRIKES_PER_SECOND, STRIKES_BURST))

    # Asking

    def charge(self, pace: Pace, now: float, count: float) -> None:
        """Charge a connection, and its user, with ``count`` messages. Raises ``RateLimited`` with the time to wait."""
        if pace.bucket is not None:
            wait = pace.bucket.take(now, count)
            if wait:
                raise self._refusal("connection", "too many messages on this connection", wait)
        if pace.account.bucket is not None:
            wait = pace.account.bucket.take(now, count)
            if wait:
                raise self._refusal("user", "too many messages of this user", wait)
        if self.rates.max_waiting and pace.waiting >= self.rates.max_waiting:
            raise self._refusal("waiting", "too many operations of this connection are waiting", 0.1)

    def charge_user(self, user_id: str, now: float, count: float) -> None:
        """The same for a POST, which has no connection; of 0, whether it is worth reading."""
        account = self.account(user_id)
        if now < account.shut_until:
            raise self._refusal("user", "too many messages of this user", account.shut_until - now)
        if account.bucket is not None and count:
            wait = account.bucket.take(now, count)
            if wait:
                account.shut_until = now + wait
                raise self._refusal("user", "too many messages of this user", wait)

    def strike(self, pace: Pace, now: float, count: float = 1) -> bool:
        """Count a refusal, of a large message several; True if it was one too many: then the connection should be ended."""
        if pace.strikes is not None and pace.strikes.take(now, count):
            self.refused["strikes"] += 1
            return True
        return False

    def tidy(self, now: float) -> None:
        """Forget users and addresses that have nothing in use."""
        for name, account in list(self._accounts.items()):
            if not account.connections and (account.bucket is None or account.bucket.is_full(now)):
                del self._accounts[name]
        for name, place in list(self._addresses.items()):
            if not place.connections and (place.bucket is None or place.bucket.is_full(now)):
                del self._addresses[name]

    def account(self, user_id: str) -> Account:
        account = self._accounts.get(user_id)
        if account is None:
            rate = self.rates.user_messages_per_second
            bucket = TokenBucket(rate, rate * USER_BURST_SECONDS) if rate else None
            account = self._accounts[user_id] = Account(bucket)
        return account

    def _address(self, address: str) -> _Address:
        name = network_of(address)
        place = self._addresses.get(name)
        if place is None:
            rate = self.rates.handshakes_per_second
            place = self._addresses[name] = _Address(TokenBucket(rate, rate * USER_BURST_SECONDS) if rate else None)
        return place

    def _refusal(self, scope: str, sentence: str, wait_seconds: float) -> RateLimited:
        self.refused[scope] += 1
        return RateLimited(sentence, retry_after_ms=max(1, math.ceil(round(wait_seconds * 1000, 3))))


def network_of(address: str) -> str:
    """What counts as one address: of IPv4 each, of IPv6 a network of 64 bits. What is neither stands for itself."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> NETWORK_BITS << NETWORK_BITS, NETWORK_BITS)))
