"""One sweep in place of a timer for each connection, on a clock that the test moves."""

from __future__ import annotations

from tests.hall import Hall, Member
from tornado_rt.heartbeat import SLICES


def interval(hall: Hall) -> None:
    """A whole heartbeat interval passes."""
    for _ in range(SLICES):
        hall.clock.advance(hall.server.heartbeat.tick_seconds)
        hall.server.heartbeat.tick()


async def one(**options: float) -> tuple[Hall, Member]:
    hall = Hall(**options)
    (anna,) = await hall.people("anna")
    anna.socket.heard = False
    return hall, anna


async def test_everybody_is_pinged_once_an_interval_in_both_ways() -> None:
    """PROTOCOL section 3: a PING and a WebSocket ping frame, in one piece, with the dashboard's seq."""
    hall = Hall()
    members = await hall.people(*[f"user-{number}" for number in range(SLICES + 10)])
    members[0].update({"value": 1})
    await hall.quiet()
    for member in members:
        member.take()
        member.socket.pieces.clear()
    interval(hall)
    for member in members:
        (ping,) = member.take()
        assert (ping["type"], ping["userId"], ping["payload"]["seq"]) == ("PING", member.user, 1)
        assert ping["payload"]["serverTime"] == ping["timestamp"]
        assert (member.socket.pings, member.socket.pieces) == (1, [2])


async def test_no_sweep_is_for_all_at_once() -> None:
    hall = Hall()
    members = await hall.people(*["anna"] * SLICES * 3)
    hall.server.heartbeat.tick()
    assert sum(member.socket.pings for member in members) == 3


async def test_any_frame_is_a_sign_of_life() -> None:
    """The guide's bare browser snippet answers no PING and stays connected."""
    hall, anna = await one()
    for _ in range(10):
        anna.socket.heard = True
        interval(hall)
    assert anna.socket.closed_with is None
    assert anna.socket.pings == 10


async def silence(hall: Hall, member: Member) -> float:
    """Seconds until a member who says nothing is ended."""
    began = hall.clock.now
    while member.socket.closed_with is None:
        hall.clock.advance(hall.server.heartbeat.tick_seconds)
        hall.server.heartbeat.tick()
        assert hall.clock.now < began + 1_000
    return hall.clock.now - began


async def test_whoever_is_silent_is_ended_with_1013() -> None:
    """At the first sweep after the time is over."""
    hall, anna = await one()
    assert 60 < await silence(hall, anna) <= 60 + 25
    assert anna.socket.closed_with == (1013, "Heartbeat timeout")
    goodbye = anna.take()[-1]
    assert goodbye["type"] == "DISCONNECT"
    assert goodbye["payload"] == {"code": 1013, "reason": "Heartbeat timeout", "reconnect": True}
    assert hall.server.heartbeat.missed == 1


async def test_silence_counts_from_the_last_sign() -> None:
    hall, anna = await one()
    interval(hall)
    interval(hall)
    anna.socket.heard = True
    assert 60 < await silence(hall, anna) <= 60 + 2 * 25


async def test_whoever_left_is_not_looked_after() -> None:
    hall, anna = await one()
    anna.leave()
    for _ in range(4):
        interval(hall)
    assert (anna.socket.pings, anna.socket.closed_with, hall.server.heartbeat.missed) == (0, None, 0)


async def test_the_limit_of_silence_may_be_off() -> None:
    hall, anna = await one(heartbeat_timeout_seconds=0)
    for _ in range(20):
        interval(hall)
    assert (anna.socket.closed_with, anna.socket.pings) == (None, 20)


async def test_pings_may_be_off_and_silence_still_ends() -> None:
    hall, anna = await one(heartbeat_interval_seconds=0)
    await silence(hall, anna)
    assert (anna.socket.pings, anna.socket.closed_with) == (0, (1013, "Heartbeat timeout"))


async def test_a_ping_that_fills_the_socket_is_a_member_behind() -> None:
    hall, anna = await one()
    anna.socket.is_full = True
    interval(hall)
    assert anna.session in hall.server.hall.laggards
    assert anna.types() == ["PING"]


async def test_a_socket_that_takes_nothing_is_ended() -> None:
    """PROTOCOL section 5, 5: full for ``RT_SLOW_CONSUMER_TIMEOUT``. There is no room in it for a goodbye."""
    hall, anna = await one(slow_consumer_timeout_seconds=30.0)
    anna.socket.is_full = True
    anna.say("PING")
    anna.take()
    hall.clock.advance(30)
    hall.server.heartbeat.tick()
    assert not anna.socket.aborted
    hall.clock.advance(0.1)
    hall.server.heartbeat.tick()
    assert anna.socket.aborted
    assert (anna.take(), hall.server.heartbeat.stuck) == ([], 1)


async def test_a_socket_that_takes_anything_is_alive() -> None:
    """However slowly, and though it says nothing itself."""
    hall, anna = await one(slow_consumer_timeout_seconds=30.0)
    anna.socket.is_full = True
    interval(hall)
    anna.take()
    for _ in range(20):
        hall.clock.advance(25)
        anna.socket.progress += 1
        hall.server.heartbeat.tick()
    assert not anna.socket.aborted
    anna.socket.drain()
    for _ in range(SLICES):
        hall.server.heartbeat.tick()
    assert (anna.socket.closed_with, anna.socket.pings) == (None, 2)


async def test_a_slow_socket_may_be_let_be() -> None:
    hall, anna = await one(slow_consumer_timeout_seconds=0)
    anna.socket.is_full = True
    for _ in range(10):
        interval(hall)
    assert not anna.socket.aborted
