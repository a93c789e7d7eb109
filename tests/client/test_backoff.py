"""When a client comes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_rt.client.backoff import Backoff, Verdict, after_close
from tornado_rt.errors import Close


def test_delays_double_to_thirty_seconds() -> None:
    """With the worst luck: 1, 2, 4, 8, 16, 30, 30 ..."""
    backoff = Backoff(lambda: 1.0)
    assert [backoff.delay_seconds() for _ in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_every_delay_has_full_jitter(chances: list[float]) -> None:
    """Each lies anywhere between 0 and its ceiling, the first one too."""
    source = iter(chances)
    backoff = Backoff(lambda: next(source))
    for number, chance in enumerate(chances):
        assert backoff.delay_seconds() == chance * min(30.0, 2.0 ** min(number, 30))


def test_attempts_may_have_an_end() -> None:
    """The guide's five, and then no more."""
    backoff = Backoff(lambda: 0.5, attempts=5)
    assert [backoff.delay_seconds() is None for _ in range(7)] == [False] * 5 + [True] * 2


def test_a_connection_that_lasted_starts_the_delays_anew() -> None:
    """One that is closed at once does not, so it is not hammered."""
    backoff = Backoff(lambda: 1.0)
    assert [backoff.delay_seconds(lived) for lived in (0.1, 0.1, 0.1, 60.0, 0.1)] == [1, 2, 4, 1, 2]


def test_the_slot_of_the_server_replaces_the_delay() -> None:
    """Without jitter: the server has dealt them out."""
    backoff = Backoff(lambda: 1.0)
    assert backoff.delay_seconds(0.1, 12_345) == 12.345
    assert backoff.delay_seconds(0.1, 0) == 0.0


@pytest.mark.parametrize("close", list(Close))
def test_disconnect_decides(close: Close) -> None:
    """Every end that the server knows, told by DISCONNECT."""
    disconnect = {"code": close.code, "reason": close.reason, "reconnect": close.reconnect}
    verdict = after_close(close.code, close.reason, disconnect)
    assert verdict == Verdict(close.reconnect, close is Close.TOKEN_EXPIRED)


@pytest.mark.parametrize("close", list(Close))
def test_without_disconnect_1008_ends_the_attempts(close: Close) -> None:
    """All else reconnects; an expired token is renewed."""
    verdict = after_close(close.code, close.reason, None)
    assert verdict.reconnect == (close.code != 1008 or close is Close.TOKEN_EXPIRED)


def test_a_socket_that_just_vanished_is_tried_again() -> None:
    """No close frame, no code."""
    assert after_close(None, None, None).reconnect
