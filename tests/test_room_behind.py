"""Members whose sockets are full: at most one catch-up, then what they are owed (PROTOCOL section 5, 5)."""

from __future__ import annotations

from tests.hall import Hall, Member, troubled


async def fallen_behind(hall: Hall) -> tuple[Member, Member]:
    """Bert's socket takes one more change, the first, and is full; Anna goes on."""
    anna, bert = await hall.people("anna", "bert")
    bert.socket.is_full = True
    anna.update({"value": 1, "old": 1})
    await hall.quiet()
    assert bert.types() == ["WIDGET_UPDATE"]
    return anna, bert


async def test_whoever_is_behind_is_told_nothing() -> None:
    hall = Hall()
    anna, bert = await fallen_behind(hall)
    for turn in range(50):
        anna.update({"value": turn})
    await hall.quiet()
    assert bert.take() == []
    assert hall.server.get_stats()["behind"] == 1
    assert bert.socket.behind


async def test_one_merged_catch_up_brings_it_up_to_date() -> None:
    hall = Hall()
    anna, bert = await fallen_behind(hall)
    anna.update({"value": 2}, unset=["old"])
    anna.update({"x": 1}, "other")
    anna.say("WIDGET_DELETE", {"widgetId": "other"})
    anna.say("LAYOUT_UPDATE", {"layout": {"a": 1}})
    await hall.quiet()
    bert.socket.pieces.clear()
    bert.socket.drain()
    (catch_up,) = bert.take()
    assert bert.socket.pieces == [1]
    assert (catch_up["type"], catch_up["userId"], "correlationId" in catch_up) == ("SYNC_UPDATE", "bert", False)
    at = hall.clock.timestamp()
    assert catch_up["payload"] == {
        "fromSeq": 1,
        "seq": 5,
        "widgets": {"w": {"data": {"value": 2}, "version": 2, "updatedAt": at, "updatedBy": "anna"}},
        "layouts": {"default": {"layout": {"a": 1}, "version": 5, "updatedAt": at, "updatedBy": "anna", "history": [5]}},
        "deleted": {"widgets": ["other"], "layouts": []},
    }
    anna.update({"value": 3})
    await hall.quiet()
    assert [message["payload"]["seq"] for message in bert.take()] == [6]
    assert hall.server.get_stats()["behind"] == 0


async def test_nothing_missed_is_no_catch_up() -> None:
    hall = Hall()
    _, bert = await fallen_behind(hall)
    bert.socket.drain()
    assert bert.take() == []


async def test_the_answers_it_is_owed_come_after_the_catch_up() -> None:
    """It is not read from while it is behind; but what it had said before is judged all the same."""
    hall, store = troubled()
    anna, bert = await hall.people("anna", "bert")
    anna.update({"value": 1})
    await hall.quiet()
    anna.take(), bert.take()
    store.hold()
    anna.update({"value": 8})
    await store.waiting.wait()
    mine = bert.update({"value": 7}, baseVersion=1)
    other = bert.update({"own": 1})
    bert.socket.is_full = True
    bert.say("PING")
    assert bert.types() == ["PONG"]
    store.gate.set()
    await hall.quiet()
    assert bert.take() == []
    bert.socket.drain()
    catch_up, conflict, ack = bert.take()
    assert bert.socket.pieces[-1] == 3
    assert (catch_up["type"], catch_up["payload"]["fromSeq"], catch_up["payload"]["seq"]) == ("SYNC_UPDATE", 1, 3)
    assert catch_up["payload"]["widgets"]["w"]["data"] == {"value": 8, "own": 1}
    assert (conflict["type"], conflict["correlationId"]) == ("CONFLICT_DETECTED", mine)
    assert (ack["correlationId"], ack["payload"]) == (other, {"received": True, "version": 3, "seq": 3})


async def test_a_catch_up_that_fills_the_socket_again_is_followed_by_another() -> None:
    hall = Hall()
    anna, bert = await fallen_behind(hall)
    anna.update({"value": 2})
    await hall.quiet()
    bert.socket.behind = False
    assert bert.socket.on_drained is not None
    bert.socket.on_drained()  # the socket is still small: the catch-up alone fills it
    assert bert.types() == ["SYNC_UPDATE"]
    anna.update({"value": 3})
    await hall.quiet()
    assert bert.take() == []
    bert.socket.drain()
    (catch_up,) = bert.take()
    assert (catch_up["payload"]["fromSeq"], catch_up["payload"]["seq"]) == (2, 3)


async def test_a_sender_that_falls_behind_by_its_own_ack_is_caught_up() -> None:
    hall = Hall()
    anna, bert = await hall.people("anna", "bert")
    anna.socket.is_full = True
    anna.update({"value": 1})
    await hall.quiet()
    assert anna.types() == ["ACK"]
    bert.update({"value": 2})
    await hall.quiet()
    anna.socket.drain()
    (catch_up,) = anna.take()
    assert (catch_up["payload"]["fromSeq"], catch_up["payload"]["seq"]) == (1, 2)


async def test_a_connection_that_is_behind_from_the_start_misses_nothing() -> None:
    """Its CONNECT alone fills the socket."""
    hall = Hall()
    (anna,) = await hall.people("anna")
    room = await hall.server.enter("board")
    bert = await hall.join("bert", since=0)
    bert.socket.is_full = True
    bert.socket.send(b"")
    room.falls_behind(bert.session)
    bert.take()
    anna.update({"value": 1})
    await hall.quiet()
    bert.socket.drain()
    (catch_up,) = bert.take()
    assert (catch_up["payload"]["fromSeq"], catch_up["payload"]["seq"]) == (0, 1)


async def test_below_the_floor_it_gets_a_snapshot() -> None:
    """PROTOCOL section 4: nobody can say any more what was removed since."""
    hall = Hall(limits={"max_tombstones": 2})
    anna, bert = await fallen_behind(hall)
    for turn in range(4):
        anna.update({"value": turn}, f"w{turn}")
        anna.say("WIDGET_DELETE", {"widgetId": f"w{turn}"})
    await hall.quiet()
    bert.socket.drain()
    (snapshot,) = bert.take()
    assert (snapshot["type"], snapshot["payload"]["mode"], "correlationId" in snapshot) == ("SYNC_RESPONSE", "snapshot", False)
    assert (snapshot["payload"]["seq"], list(snapshot["payload"]["widgets"])) == (9, ["w"])


async def test_whoever_leaves_while_behind_is_forgotten() -> None:
    hall = Hall()
    _, bert = await fallen_behind(hall)
    bert.leave()
    assert hall.server.get_stats()["behind"] == 0
    assert hall.server.hall.laggards == set()
    bert.socket.drain()
    assert bert.take() == []


async def test_a_room_stays_while_its_only_member_is_behind() -> None:
    """Or that member would be caught up from a room that hears of nothing any more: a silent gap."""
    hall = Hall()
    anna, bert = await fallen_behind(hall)
    anna.leave()
    hall.clock.advance(61)
    hall.server._evict_idle_rooms()
    carl = await hall.join("carl")
    carl.take()
    bert.socket.drain()
    carl.update({"value": 5})
    await hall.quiet()
    assert [message["payload"]["seq"] for message in bert.take()] == [2]


async def test_a_free_message_is_lost_on_who_is_behind() -> None:
    """PROTOCOL section 7: not kept."""
    hall = Hall()
    anna, bert = await fallen_behind(hall)
    for member in (anna, bert):
        member.take()
        member.socket.is_free = True
    assert hall.server.broadcast({"type": "SYNC_UPDATE", "payload": {"note": 1}}) == 1
    bert.socket.drain()
    assert (anna.types(), bert.types()) == (["SYNC_UPDATE"], [])
