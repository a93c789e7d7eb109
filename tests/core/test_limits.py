"""How much a dashboard may hold: LIMIT_EXCEEDED says so and changes nothing. How fast one may ask (PROTOCOL sections 3, 9)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.scene import ANNA, BERT, Scene, applied, batch, delete, layout, restore, update
from tornado_rt.core.document import json_size
from tornado_rt.core.journal import dump
from tornado_rt.core.limits import TokenBucket
from tornado_rt.core.operation import Operation, Refused
from tornado_rt.errors import LimitExceeded


def exceeds(scene: Scene, operation: Operation) -> LimitExceeded:
    """Refused, and nothing changed, neither what is committed nor the draft."""
    before = dump(scene.dashboard)
    draft = scene.draft()
    with pytest.raises(LimitExceeded) as refusal:
        draft.decide(operation)
    assert dump(scene.dashboard) == before
    assert (draft.seq, draft.documents, draft.accepted, draft.verdicts) == (scene.seq, {}, [], {})
    return refusal.value


def test_widgets_are_counted() -> None:
    """A widget more than there may be is refused; one that is there can be changed, and one deleted makes room."""
    scene = Scene(max_widgets=2)
    for target in ("a", "b"):
        scene.do(update(ANNA, {"x": 1}, target=target))
    exceeds(scene, update(ANNA, {"x": 1}, target="c"))
    applied(scene.do(update(ANNA, {"x": 2}, target="a")))
    scene.do(delete(ANNA, target="a"))
    applied(scene.do(update(ANNA, {"x": 1}, target="c")))
    exceeds(scene, update(ANNA, {"x": 1}, target="a"))


def test_layouts_are_counted_apart_from_widgets() -> None:
    """Each kind has its own limit."""
    scene = Scene(max_widgets=1, max_layouts=1)
    scene.do(layout(ANNA, {}))
    exceeds(scene, layout(ANNA, {}, target="second"))
    applied(scene.do(update(ANNA, {})))


def test_fields_are_counted_as_they_will_be() -> None:
    """A field that is set anew or removed in the same operation does not count twice."""
    scene = Scene(max_fields=3)
    scene.do(update(ANNA, {"a": 1, "b": 1, "c": 1}))
    assert exceeds(scene, update(ANNA, {"d": 1})).details[0][0] == "payload.data"
    applied(scene.do(update(ANNA, {"a": 2, "b": 2, "c": 2})))
    applied(scene.do(update(ANNA, {"d": 1}, unset=("a",))))
    applied(scene.do(update(ANNA, {"e": 1, "f": 1, "g": 1}, replace=True)))
    exceeds(scene, update(ANNA, {"a": 1, "b": 1, "c": 1, "d": 1}, replace=True))
    exceeds(scene, layout(ANNA, {"a": 1, "b": 1, "c": 1, "d": 1}))


def test_a_document_may_be_exactly_as_large_as_the_limit() -> None:
    """A byte more is too much, however it comes together."""
    most = json_size({"a": "x" * 10, "b": "y" * 10})
    scene = Scene(max_document_bytes=most)
    scene.do(update(ANNA, {"a": "x" * 10}))
    exceeds(scene, update(ANNA, {"b": "y" * 11}))
    applied(scene.do(update(ANNA, {"b": "y" * 10})))
    exceeds(scene, update(ANNA, {"a": "x" * 11}))
    applied(scene.do(update(ANNA, {"a": "x" * 11}, unset=("b",))))


def test_many_small_changes_do_not_add_up_to_a_large_document() -> None:
    """What counts is the document, not what was ever sent to it."""
    scene = Scene(max_document_bytes=100, max_dashboard_bytes=150)
    for number in range(200):
        applied(scene.do(update(ANNA, {"value": number})))


def test_many_small_changes_leave_room_for_others() -> None:
    """What was ever sent to one widget keeps no other one out."""
    scene = Scene(max_dashboard_bytes=100)
    for number in range(8):
        scene.do(update(ANNA, {"value": number}, target="busy"))
    applied(scene.do(update(ANNA, {"a": "x" * 50}, target="other")))


def test_a_dashboard_may_be_exactly_as_large_as_the_limit() -> None:
    """All living documents together."""
    each = json_size({"a": "x" * 10})
    scene = Scene(max_dashboard_bytes=2 * each)
    scene.do(update(ANNA, {"a": "x" * 10}, target="a"))
    exceeds(scene, update(ANNA, {"a": "x" * 11}, target="b"))
    applied(scene.do(update(ANNA, {"a": "x" * 10}, target="b")))
    exceeds(scene, layout(ANNA, {}))
    scene.do(delete(ANNA, target="a"))
    applied(scene.do(layout(ANNA, {"a": "x" * 10})))


def test_restoring_is_held_to_the_limits_too() -> None:
    """The layout may have been larger once."""
    scene = Scene()
    scene.do(layout(ANNA, {"a": "x" * 100}))
    scene.do(layout(ANNA, {"a": "x"}))
    scene.limits = Scene(max_document_bytes=50).limits
    assert exceeds(scene, restore(ANNA, 1)).details[0][0] == "payload.layout"


def test_a_limit_of_zero_is_off() -> None:
    """PROTOCOL section 9."""
    scene = Scene(max_widgets=0, max_layouts=0, max_fields=0, max_document_bytes=0, max_dashboard_bytes=0)
    applied(scene.do(update(ANNA, {f"f{number}": "x" * 100 for number in range(1_000)})))
    applied(scene.do(layout(ANNA, {})))


def test_a_batch_over_the_limit_is_refused_whole() -> None:
    """Its operations count together."""
    scene = Scene(max_widgets=2)
    refused = scene.do(batch(ANNA, *(update(ANNA, {}, target=target) for target in "abc")))
    assert isinstance(refused, Refused)
    assert {index: type(blame) for index, blame in refused.blame.items()} == {2: LimitExceeded}
    assert scene.seq == 0


def test_a_draft_counts_what_it_has_accepted() -> None:
    """The limit holds within a draft as well."""
    scene = Scene(max_widgets=1)
    draft = scene.draft()
    draft.decide(update(ANNA, {}, target="a"))
    with pytest.raises(LimitExceeded):
        draft.decide(update(BERT, {}, target="b"))


FIELDS = st.dictionaries(st.sampled_from("abc"), st.text("xäЖ", max_size=12) | st.integers(0, 10**6), max_size=3)
CHANGES = st.tuples(st.sampled_from(["u", "v"]), FIELDS, st.sampled_from("abcd"), st.booleans(), st.booleans())


@given(st.lists(CHANGES, max_size=30))
def test_sizes_are_judged_as_if_all_were_weighed(changes: list[Any]) -> None:
    """The upper bounds that spare the weighing never let too much in and never keep out what would fit."""
    most_document, most_dashboard = 40, 64
    scene = Scene(max_document_bytes=most_document, max_dashboard_bytes=most_dashboard)
    expected: dict[str, dict[str, Any]] = {}
    for target, data, removed, is_replacement, is_deletion in changes:
        if is_deletion and target in expected:
            scene.do(delete(ANNA, target=target))
            del expected[target]
            continue
        unset = () if removed in data or is_replacement else (removed,)
        after = dict(data) if is_replacement else expected.get(target, {}) | data
        for name in unset:
            after.pop(name, None)
        total = sum(json_size(fields) for name, fields in expected.items() if name != target) + json_size(after)
        operation = update(ANNA, data, target=target, unset=unset, replace=is_replacement)
        if json_size(after) > most_document or total > most_dashboard:
            exceeds(scene, operation)
        else:
            applied(scene.do(operation))
            expected[target] = after
    living = {document.target: document for document in scene.dashboard.living()}
    assert {target: document.fields for target, document in living.items()} == expected
    assert scene.dashboard.size >= sum(json_size(fields) for fields in expected.values())
    assert (scene.dashboard.widgets, scene.dashboard.layouts) == (len(expected), 0)
    replayed = scene.replayed()
    assert (replayed.widgets, replayed.size >= sum(json_size(fields) for fields in expected.values())) == (len(expected), True)


# Buckets


class NaiveBucket:
    """Tokens that are counted, as everybody imagines a bucket; below 0 while something too large is paid off."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.tokens, self.at = burst, 0.0

    def take(self, now: float, count: float) -> float:
        self.tokens, self.at = min(self.burst, self.tokens + (now - self.at) * self.rate), now
        if count <= self.tokens or self.tokens == self.burst:
            self.tokens -= count
            return 0.0
        return (min(count, self.burst) - self.tokens) / self.rate


# Sums of such times are exact, so the two can be held against each other without a margin.
TICKS = st.integers(0, 256).map(lambda tick: tick / 64)
TAKES = st.lists(st.tuples(TICKS, st.integers(1, 12)), max_size=60)


@given(st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0]), st.integers(1, 8), TAKES)
def test_a_bucket_is_what_everybody_imagines(rate: float, burst: int, takes: list[tuple[float, int]]) -> None:
    """The same answers as by counting, and the same time to wait where there is too little."""
    bucket, naive, now = TokenBucket(rate, burst), NaiveBucket(rate, burst), 1.0
    for pause, count in takes:
        now += pause
        assert bucket.take(now, count) == naive.take(now, count)
        assert bucket.is_full(now) is (naive.tokens == burst)


@given(st.floats(0.1, 10_000), st.integers(1, 1_000), st.lists(st.floats(0, 3), max_size=200))
def test_nobody_gets_more_than_the_rate_and_one_burst(rate: float, burst: int, pauses: list[float]) -> None:
    """Whatever the clock says: over any time, ``rate`` times as long and ``burst`` more."""
    bucket, now, taken = TokenBucket(rate, burst), 1_000.0, 0
    for pause in pauses:
        now += pause
        taken += not bucket.take(now)
        assert taken <= (now - 1_000) * rate + burst + 1e-6 * rate


@given(st.floats(0.1, 10_000), st.integers(1, 100), st.integers(0, 200))
def test_whoever_waits_as_long_as_he_is_told_gets_in(rate: float, burst: int, before: int) -> None:
    """And not before."""
    bucket, wait = TokenBucket(rate, burst), 0.0
    for _ in range(burst + 1 + before):
        wait = bucket.take(5.0)
    assert wait == bucket.take(5.0) > 0
    assert bucket.take(5.0 + wait / 2) > 0
    assert bucket.take(5.0 + wait) == 0
