"""The judge of histories says nothing about a sound server, and finds out each broken one."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.loadtest.toy import Break, play
from tornado_rt.loadtest.history import (
    Applied,
    Conflicted,
    Event,
    Finished,
    History,
    Invoked,
    Joined,
    Saw,
    Synced,
    check,
)

SEEDS = range(12)

log = logging.getLogger(__name__)

# Which rule must catch it. More rules may well speak: a lost operation also leaves a hole, or takes a client back.
CAUGHT_BY = {
    Break.ACK_BEFORE_COMMIT: {"lost", "misplaced"},
    Break.BROADCAST_BEFORE_COMMIT: {"lost", "split"},
    Break.NO_DEDUPLICATION: {"doubled"},
    Break.DUPLICATE_NOT_SAID: {"verdict"},
    Break.REORDERED_BROADCASTS: {"gap"},
    Break.REPEATED_BROADCAST: {"repeated"},
    Break.DROPPED_BROADCAST: {"gap"},
    Break.LOST_DELTA_ON_RESUME: {"gap"},
    Break.MERGED_FORGETS_DELETED: {"view"},
    Break.SNAPSHOT_ONE_FIELD_WRONG: {"view"},
    Break.STALE_OVERWRITE: {"stale"},
    Break.LATE_UPDATE_REVIVES: {"stale"},
    Break.NEEDLESS_CONFLICT: {"needless"},
    Break.REFUSED_BUT_APPLIED: {"doubled"},
    Break.SEQ_SKIPPED: {"hole", "gap"},
    Break.ACK_WITH_WRONG_SEQ: {"misplaced"},
    Break.CHANGES_DIFFER: {"split", "misplaced", "doubled"},
    Break.OTHER_ORDER_THAN_TIME: {"misplaced"},
    Break.CONFLICT_SHOWS_UNCOMMITTED: {"view", "verdict"},
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_sound_server_is_acquitted(seed: int) -> None:
    history = play(None, seed)
    counts = history.counts()
    assert counts["applied"] > 50
    assert counts["conflicted"] > 3
    assert counts["unanswered"] > 3
    assert [str(violation) for violation in check(history)] == []


@pytest.mark.parametrize("broken", Break)
def test_a_broken_server_is_found_out(broken: Break) -> None:
    rules = Counter(violation.rule for seed in SEEDS for violation in check(play(broken, seed)))
    assert CAUGHT_BY[broken] <= rules.keys(), rules


@pytest.mark.parametrize("broken", Break)
def test_most_runs_of_a_broken_server_are_enough_to_find_it_out(broken: Break) -> None:
    convicted = sum(bool(check(play(broken, seed))) for seed in SEEDS)
    assert convicted >= len(SEEDS) // 2


# -- single rules, on histories written by hand --------------------------------------------------------------------------


def update(
    client: str, op: str, seq: int, *, user: str = "ann", base: int | None = None, duplicate: bool = False, **data: object
) -> list[Event]:
    payload: dict[str, object] = {"widgetId": "w", "data": data}
    if base is not None:
        payload["baseVersion"] = base
    about = {"client": client, "dashboard": "d", "op": op, "user": user}
    return [
        Invoked(**about, device=client, type="WIDGET_UPDATE", payload=payload, epoch="e"),
        Applied(**about, epoch="e", seq=seq, duplicate=duplicate),
    ]


def joined(client: str, seq: int = 0) -> Event:
    return Joined(client=client, dashboard="d", epoch="e", seq=seq)


def final(seq: int, version: int | None = None, **data: object) -> Event:
    widgets = {"w": {"data": data, "version": version or seq}} if data else {}
    return Finished(client="end", dashboard="d", epoch="e", seq=seq, widgets=widgets)


def rules(events: list[Event]) -> set[str]:
    return {violation.rule for violation in check(events)}


def test_numbers_are_the_same_if_they_are_the_same_json() -> None:
    assert rules([joined("a"), *update("a", "1", 1, x=1.0), final(1, x=1)]) == set()
    assert rules([joined("a"), *update("a", "1", 1, x=True), final(1, x=1)]) == {"view"}


def test_an_acknowledged_operation_behind_the_end_is_lost() -> None:
    assert rules([joined("a"), *update("a", "1", 1, x=1), *update("a", "2", 2, x=2), final(1, x=1)]) == {"lost"}


def test_a_history_without_an_end_proves_nothing() -> None:
    assert rules([joined("a"), *update("a", "1", 1, x=1)]) == {"unfinished"}


def test_two_devices_of_one_user_conflict_and_one_device_never_does() -> None:
    laptop = [joined("laptop"), *update("laptop", "1", 1, x=1)]
    phone = [joined("phone", 1), *update("phone", "2", 2, base=0, x=2)]
    same = update("laptop", "3", 2, base=0, x=2)
    assert rules([*laptop, *phone, final(2, x=2)]) == {"stale"}
    assert rules([*laptop, *same, final(2, x=2)]) == set()


def test_the_same_value_on_both_sides_is_no_conflict() -> None:
    events = [joined("a"), *update("a", "1", 1, x=1), joined("b", 1), *update("b", "2", 2, user="bob", base=0, x=1)]
    assert rules([*events, final(2, x=1)]) == set()


def test_a_base_of_another_epoch_counts_as_nothing_seen() -> None:
    events = [joined("a"), *update("a", "1", 1, x=1), joined("b", 1), *update("b", "2", 2, user="bob", base=1, x=2)]
    assert rules([*events, final(2, x=2)]) == set()
    invoked = events[-2]
    assert isinstance(invoked, Invoked)
    invoked.epoch = "an older one"
    assert rules([*events, final(2, x=2)]) == {"stale"}


def test_what_was_sent_after_an_ack_stands_behind_it() -> None:
    first, second = update("a", "1", 2, x=1), update("b", "2", 1, user="bob", y=2)
    change = {"type": "WIDGET_UPDATE", "userId": "bob", "payload": {"widgetId": "w", "data": {"y": 2}}}
    heard = Saw(client="a", dashboard="d", epoch="e", seq=1, change=change)
    apart = [joined("a"), joined("b"), heard, *first, *second, final(2, x=1, y=2)]
    assert "order" in rules(apart)
    together = [joined("a"), joined("b"), first[0], second[0], second[1], heard, first[1], final(2, x=1, y=2)]
    assert rules(together) == set()


def test_an_operation_of_unknown_outcome_may_be_in_the_log_or_not() -> None:
    sent = update("a", "1", 0, x=1)[:1]
    assert rules([joined("a"), *sent, final(0)]) == set()
    assert rules([joined("a"), *sent, final(1, x=1)]) == set()
    assert rules([joined("a"), *sent, final(2, x=1)]) == {"hole"}


def test_which_of_two_equal_operations_without_a_verdict_it_was_is_not_guessed_at() -> None:
    def delete(op: str, base: int) -> Event:
        payload = {"widgetId": "w", "baseVersion": base}
        return Invoked(client="b", dashboard="d", op=op, user="bob", type="WIDGET_DELETE", payload=payload, epoch="e")

    gone = {"type": "WIDGET_DELETE", "userId": "bob", "payload": {"widgetId": "w"}}
    seen = [Saw(client="a", dashboard="d", epoch="e", seq=2, change=gone), final(2)]
    events = [joined("a"), *update("a", "1", 1, x=1), joined("b", 1)]
    assert rules([*events, delete("stale", 0), *seen]) == {"stale"}
    assert rules([*events, delete("stale", 0), delete("fresh", 1), *seen]) == set()


def test_a_hole_ends_at_the_next_snapshot_and_what_follows_is_judged() -> None:
    sent = update("a", "1", 0, x=1)[:1]
    snapshot = Synced(
        client="b", dashboard="d", epoch="e", seq=1, mode="snapshot", widgets={"w": {"data": {"x": 1}, "version": 1}}
    )
    events = [joined("a"), *sent, joined("b", 1), snapshot, *update("b", "2", 2, user="bob", y=2)]
    assert rules([*events, final(2, x=1, y=2)]) == set()
    assert rules([*events, final(2, x=1, y=3)]) == {"view"}


def test_a_repetition_after_ten_thousand_operations_may_be_judged_anew() -> None:
    events = [joined("a"), *update("a", "again", 1, x=0)]
    for seq in range(2, 10_001):
        events += update("a", str(seq), seq, x=seq)
    near = [*update("a", "again", 10_000 + 1, x=0), final(10_001, x=0)]
    assert rules([*events, *near]) == set()
    early = [*events[:200], *update("a", "again", 101, x=0), final(101, x=0)]
    assert {"doubled", "verdict"} <= rules(early)


def test_one_id_is_accepted_for_one_content() -> None:
    events = [joined("a"), *update("a", "1", 1, x=1), *update("a", "1", 2, x=2), final(2, x=2)]
    assert "verdict" in rules(events)


def test_a_view_that_a_client_shows_is_judged_at_its_position() -> None:
    events = [joined("a"), *update("a", "1", 1, x=1), *update("a", "2", 2, x=2), final(2, x=2)]
    shown = Synced(client="a", dashboard="d", epoch="e", seq=1, mode="view", widgets={"w": {"data": {"x": 1}}})
    assert rules([*events, shown]) == set()
    shown.seq = 2
    assert rules([*events, shown]) == {"view"}


def test_a_conflict_speaks_only_of_what_is_there() -> None:
    conflict = Conflicted(client="b", dashboard="d", op="2", user="bob", epoch="e", fields=["x"], current_version=1)
    conflict.remote = {"x": 1}
    events = [joined("a"), *update("a", "1", 1, x=1), joined("b", 1)]
    asked = update("b", "2", 0, user="bob", base=0, x=2)[:1]
    assert rules([*events, *asked, conflict, final(1, x=1)]) == set()
    conflict.remote = {"x": 7}
    assert rules([*events, *asked, conflict, final(1, x=1)]) == {"view"}
    conflict.remote, conflict.current_version = {"x": 1}, 2
    assert rules([*events, *asked, conflict, final(1, x=1)]) == {"lost"}


def test_a_restored_layout_is_the_layout_of_that_seq() -> None:
    def layout(op: str, seq: int, type_: str, **payload: object) -> list[Event]:
        about = {"client": "a", "dashboard": "d", "op": op, "user": "ann"}
        return [Invoked(**about, type=type_, payload=payload, epoch="e"), Applied(**about, epoch="e", seq=seq)]

    events = [joined("a"), *layout("1", 1, "LAYOUT_UPDATE", layout={"x": 1}), *layout("2", 2, "LAYOUT_UPDATE", layout={"y": 2})]
    undo = layout("3", 3, "LAYOUT_RESTORE", version=1)
    end = Finished(client="end", dashboard="d", epoch="e", seq=3, layouts={"default": {"layout": {"x": 1}, "version": 3}})
    assert rules([*events, *undo, end]) == set()
    end.layouts["default"]["layout"] = {"x": 1, "y": 2}
    assert rules([*events, *undo, end]) == {"view"}


def test_a_lost_log_is_a_loss_unless_new_epochs_are_allowed() -> None:
    events = [joined("a"), *update("a", "1", 1, x=1)]
    end = Finished(client="end", dashboard="d", epoch="another", seq=0)
    assert rules([*events, end]) == {"lost"}
    assert check([*events, end], new_epochs=True) == []


def test_sentences_are_capped_and_counted() -> None:
    events: list[Event] = [joined("a")]
    for seq in range(1, 101):
        events += update("a", str(seq), seq, x=seq)
    violations = check([*events, final(50, x=50)])
    assert len(violations) == 21
    assert violations[-1].sentence == "and 30 more of the kind"
    assert "'51'" in str(violations[0])


# -- the record ----------------------------------------------------------------------------------------------------------


def test_a_history_is_read_back_from_several_files_in_the_order_of_time(tmp_path: Path) -> None:
    whole = play(None, seed=1)
    paths = [tmp_path / "1.jsonl", tmp_path / "2.jsonl"]
    files = [History(path, keep=False) for path in paths]
    for event in whole:
        files["b" in event.client].record(event)
    for file in files:
        file.close()
    with paths[1].open("a") as torn:
        torn.write('{"kind":"saw","client":"b","da')
    again = History.read(*paths)
    assert sorted(map(str, again)) == sorted(map(str, whole))
    assert check(again) == []


def test_a_line_that_is_no_event_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('{"kind":"joined","client":"a","dashboard":"d","epoch":"e","seq":1}\n{"kind":"sung"}\n')
    with pytest.raises(ValueError, match=r"h\.jsonl:2"):
        History.read(path)


def test_a_hundred_thousand_operations_are_judged() -> None:
    rng, events = random.Random(7), [joined("a"), joined("b")]
    fields: dict[str, int] = {}
    for seq in range(1, 100_001):
        name = f"f{rng.randrange(20)}"
        fields[name] = seq
        events += update("a", str(seq), seq, **{name: seq})
        change = {"type": "WIDGET_UPDATE", "userId": "ann", "payload": {"widgetId": "w", "data": {name: seq}}}
        events.append(Saw(client="b", dashboard="d", epoch="e", seq=seq, change=change))
    events.pop(150_001)  # the broadcast of seq 50,000
    start = time.perf_counter()
    violations = check([*events, final(100_000, **fields)])
    log.info("judged in %.1f s", time.perf_counter() - start)
    assert [violation.sentence for violation in violations] == ["b got a broadcast of seq 50001 when it had only 49999"]
