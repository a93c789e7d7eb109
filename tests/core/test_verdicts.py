"""At most once: the verdicts of recent operations (PROTOCOL section 5, 2)."""

from __future__ import annotations

import pytest

from tests.core.scene import ANNA, ANNA_PHONE, BERT, Scene, applied, batch, conflict, delete, update
from tornado_rt.core.operation import Outcome, Refused, Replayed, Resolution, Verdict
from tornado_rt.errors import IdReused, NotFound


def replayed(outcome: Outcome) -> Verdict:
    assert isinstance(outcome, Replayed), outcome
    return outcome.verdict


@pytest.fixture
def scene() -> Scene:
    """A widget ``w`` with ``value``, made by Anna at seq 1."""
    scene = Scene()
    scene.do(update(ANNA, {"value": 1, "title": "Sales"}))
    return scene


def test_a_retry_gets_the_first_verdict(scene: Scene) -> None:
    """It is not judged again, whatever happened since."""
    scene.do(update(ANNA, {"title": "Turnover"}))
    first = applied(scene.do(update(BERT, {"value": 2}, 1, id="op")))
    scene.do(update(ANNA, {"value": 7}))
    verdict = replayed(scene.do(update(BERT, {"value": 2}, 1, id="op")))
    assert (verdict.seq, verdict.merged) == (first.stamp.seq, ("title",))
    assert scene.fields()["value"] == 7


def test_a_retry_within_the_same_draft_is_one(scene: Scene) -> None:
    """A client that repeats before the commit gets one seq."""
    first, second = scene.together(update(BERT, {"value": 2}, id="op"), update(BERT, {"value": 2}, id="op"))
    assert replayed(second).seq == applied(first).stamp.seq
    assert scene.seq == 2


def test_a_retry_of_a_conflict_gets_the_conflict(scene: Scene) -> None:
    """Even where it would be none any more: the sender is told what it was told, or would have been."""
    scene.do(update(ANNA, {"value": 2}))
    conflict(scene.do(update(BERT, {"value": 3}, 1, id="op")))
    scene.do(update(BERT, {"value": 4}))
    verdict = replayed(scene.do(update(BERT, {"value": 3}, 1, id="op")))
    assert (verdict.seq, verdict.conflict) == (0, b'{"fields": ["value"]}')


def test_other_content_under_a_known_id_is_refused(scene: Scene) -> None:
    """ID_REUSED; the first verdict stands."""
    scene.do(update(BERT, {"value": 2}, id="op"))
    with pytest.raises(IdReused):
        scene.do(update(BERT, {"value": 3}, id="op"))
    assert replayed(scene.do(update(BERT, {"value": 2}, id="op"))).seq == 2


def test_ids_are_the_users_own(scene: Scene) -> None:
    """Another user's id is another id; another device of the same user repeats the same operation."""
    scene.do(update(ANNA, {"value": 2}, id="op"))
    applied(scene.do(update(BERT, {"value": 2}, id="op")))
    assert replayed(scene.do(update(ANNA_PHONE, {"value": 2}, id="op"))).seq == 2


def test_without_id_nothing_is_remembered(scene: Scene) -> None:
    """It cannot be repeated safely."""
    for _ in range(2):
        applied(scene.do(update(BERT, {"value": 2})))
    assert not scene.dashboard.verdicts


def test_refusals_are_not_remembered(scene: Scene) -> None:
    """What was refused may succeed later, under the same id."""
    with pytest.raises(NotFound):
        scene.do(delete(BERT, target="v", id="op"))
    scene.do(update(ANNA, {}, target="v"))
    applied(scene.do(delete(BERT, target="v", id="op")))


def test_verdicts_are_kept_for_24_hours(scene: Scene) -> None:
    """Younger than that; a later repeat is judged anew."""
    scene.do(update(BERT, {"value": 2}, id="op"))
    scene.now += 24 * 3600 - 1
    replayed(scene.do(update(BERT, {"value": 2}, id="op")))
    scene.now += 1
    assert applied(scene.do(update(BERT, {"value": 2}, id="op"))).stamp.seq == 3
    scene.now += 1
    assert replayed(scene.do(update(BERT, {"value": 2}, id="op"))).seq == 3


def test_the_last_10000_are_kept(scene: Scene) -> None:
    """The oldest goes when the 10,001st comes."""
    first = update(BERT, {"value": 2}, id="op-0")
    scene.together(first, *(update(BERT, {"value": 2}, id=f"op-{number}") for number in range(1, 10_000)))
    replayed(scene.do(first))
    scene.do(update(BERT, {"value": 2}, id="one more"))
    applied(scene.do(first))
    assert len(scene.dashboard.verdicts) == 10_000


def test_the_newest_of_the_remembered_are_those_judged_last() -> None:
    """An id that was judged anew after a day is among the newest, and outlives what came before it."""
    scene = Scene(verdict_count=2)
    scene.do(update(ANNA, {"a": 1}, id="old"))
    scene.now += 24 * 3600
    scene.do(update(ANNA, {"a": 1}, id="other"))
    scene.do(update(ANNA, {"a": 1}, id="old"))
    scene.do(update(ANNA, {"a": 1}, id="third"))
    replayed(scene.do(update(ANNA, {"a": 1}, id="old")))
    applied(scene.do(update(ANNA, {"a": 1}, id="other")))


class TestBatches:
    """Operations are counted to the leaves; the batch's own verdict comes on top."""

    def batch_of(self, number: int) -> object:
        return batch(BERT, *(update(BERT, {"n": number}, id=f"b{number}-{part}") for part in range(50)), id=f"b{number}")

    def test_10000_operations_in_batches_are_kept(self) -> None:
        """200 batches of 50 are 10,000 operations, and the first of them is still known as a whole and in its parts."""
        scene = Scene()
        scene.together(*(self.batch_of(number) for number in range(200)))  # type: ignore[arg-type]
        assert replayed(scene.do(self.batch_of(0))).seq == 1  # type: ignore[arg-type]
        assert replayed(scene.do(update(BERT, {"n": 0}, id="b0-0"))).seq == 1
        scene.do(self.batch_of(200))  # type: ignore[arg-type]
        assert ("bert", "b0-49") not in scene.dashboard.verdicts
        assert ("bert", "b1-0") in scene.dashboard.verdicts
        assert (scene.dashboard.batches, len(scene.dashboard.verdicts)) == (200 + 1, 10_000 + 201)

    def test_a_retried_batch_is_not_judged_again(self, scene: Scene) -> None:
        """Under its own id."""
        again = batch(BERT, update(BERT, {"value": 2}, id="part"), id="all")
        assert applied(scene.do(again)).stamp.seq == 2
        scene.do(update(ANNA, {"value": 3}))
        assert replayed(scene.do(again)).seq == 2
        assert scene.fields()["value"] == 3

    def test_its_operations_are_known_by_themselves(self, scene: Scene) -> None:
        """What is pending can go either way, and is applied once."""
        scene.do(batch(BERT, update(BERT, {"value": 2}, id="part")))
        assert replayed(scene.do(update(BERT, {"value": 2}, id="part"))).seq == 2
        assert replayed(scene.do(batch(BERT, update(BERT, {"value": 2}, id="part")))).seq == 2

    def test_what_was_applied_before_is_left_out(self, scene: Scene) -> None:
        """A batch of one known and one new operation applies the new one."""
        scene.do(update(BERT, {"value": 2}, id="known"))
        scene.do(update(ANNA, {"value": 5}))
        done = scene.do(batch(BERT, update(BERT, {"value": 2}, id="known"), update(BERT, {"x": 1}, id="new")))
        assert len(applied(done).changes) == 1
        assert scene.fields() == {"title": "Sales", "value": 5, "x": 1}

    def test_what_was_a_conflict_before_is_to_blame(self, scene: Scene) -> None:
        """Its verdict is still a conflict."""
        scene.do(update(ANNA, {"value": 2}))
        scene.do(update(BERT, {"value": 3}, 1, id="known"))
        refused = scene.do(batch(BERT, update(BERT, {"value": 3}, 1, id="known"), update(BERT, {"x": 1}, id="new")))
        assert isinstance(refused, Refused)
        assert replayed(refused.blame[0]).conflict is not None  # type: ignore[arg-type]
        assert scene.dashboard.verdict(("bert", "new")) is None

    def test_a_reused_id_is_to_blame(self, scene: Scene) -> None:
        """Within a batch it is no more allowed than outside."""
        scene.do(update(BERT, {"value": 2}, id="known"))
        refused = scene.do(batch(BERT, update(BERT, {"value": 9}, id="known")))
        assert isinstance(refused, Refused)
        assert isinstance(refused.blame[0], IdReused)


def test_a_retried_resolution_is_not_judged_again(scene: Scene) -> None:
    """Even where its conflict is no longer known: the connection that knew it is gone."""
    resolution = Resolution(BERT, "answer", 7, update(BERT, {"value": 3}, 1))
    applied(scene.do(resolution))
    assert replayed(scene.do(Resolution(BERT, "answer", 7, None, known=False))).seq == 2
