"""What an accepted operation does to documents, tombstones and layouts' histories, and that nothing else does anything."""

from __future__ import annotations

import pytest

from tests.core.scene import ANNA, BERT, EPOCH, Scene, applied, batch, conflict, delete, layout, restore, update
from tornado_rt.core.draft import Draft
from tornado_rt.core.journal import dump
from tornado_rt.core.operation import Refused, Resolution, Settled
from tornado_rt.errors import ClientFault, ConflictUnknown, InvalidMessage, NotFound


@pytest.fixture
def scene() -> Scene:
    """A widget ``w`` with ``title`` and ``value``, made by Anna at seq 1."""
    scene = Scene()
    scene.do(update(ANNA, {"title": "Sales", "value": 1}))
    return scene


class TestFields:
    """PROTOCOL section 4: ``data`` is merged field by field."""

    def test_a_named_field_gets_the_value_and_the_others_stay(self, scene: Scene) -> None:
        """The merge."""
        scene.do(update(BERT, {"value": 2, "unit": "EUR"}))
        assert scene.fields() == {"title": "Sales", "value": 2, "unit": "EUR"}

    def test_values_are_not_merged_further_down(self, scene: Scene) -> None:
        """Only top-level keys are fields."""
        scene.do(update(ANNA, {"options": {"a": 1, "b": 1}}))
        scene.do(update(ANNA, {"options": {"a": 2}}))
        assert scene.fields()["options"] == {"a": 2}

    def test_null_is_a_value(self, scene: Scene) -> None:
        """Dashboards show nulls; this is not RFC 7396."""
        scene.do(update(BERT, {"value": None}))
        assert scene.fields() == {"title": "Sales", "value": None}

    def test_unset_removes(self, scene: Scene) -> None:
        """The field is gone, not null."""
        scene.do(update(BERT, {"unit": "EUR"}, unset=("value",)))
        assert scene.fields() == {"title": "Sales", "unit": "EUR"}

    def test_unset_of_what_never_was_leaves_no_tombstone(self, scene: Scene) -> None:
        """Nothing was removed."""
        applied(scene.do(update(BERT, {}, unset=("nothing",))))
        assert scene.dashboard.tombstones == {}

    def test_replace_makes_data_the_whole_document(self, scene: Scene) -> None:
        """What is not named is removed."""
        scene.do(update(BERT, {"value": 2}, replace=True))
        assert scene.fields() == {"value": 2}

    def test_an_empty_update_makes_an_empty_widget(self) -> None:
        """A document may have no fields."""
        scene = Scene()
        scene.do(update(ANNA, {}))
        assert scene.fields() == {}

    def test_delete_removes_the_whole_document(self, scene: Scene) -> None:
        """And a second life begins with nothing of the first."""
        scene.do(delete(BERT))
        assert not scene.document().alive
        scene.do(update(BERT, {"value": 2}))
        assert scene.fields() == {"value": 2}

    def test_each_field_remembers_who_set_it_last_and_when(self, scene: Scene) -> None:
        """Its version is the seq of the operation."""
        scene.do(update(BERT, {"value": 1}))
        stamps = scene.document().stamps
        assert (stamps["title"].seq, stamps["title"].author) == (1, ANNA)
        assert (stamps["value"].seq, stamps["value"].author) == (2, BERT)
        assert scene.document().stamp.seq == 2

    def test_widgets_and_layouts_of_one_name_are_two_documents(self, scene: Scene) -> None:
        """They have separate keys."""
        scene.do(layout(ANNA, {"tile": 1}, target="w"))
        assert scene.fields() == {"title": "Sales", "value": 1}
        assert scene.fields("layout:w") == {"tile": 1}


class TestSeqs:
    """There is one clock: the seq."""

    def test_accepted_operations_get_adjacent_seqs(self, scene: Scene) -> None:
        """In the order in which they were judged."""
        outcomes = scene.together(update(ANNA, {"a": 1}), update(BERT, {"b": 1}))
        assert [applied(outcome).stamp.seq for outcome in outcomes] == [2, 3]
        assert scene.seq == 3

    def test_a_conflict_takes_no_seq(self, scene: Scene) -> None:
        """The operation after it gets the one that it would have had."""
        scene.do(update(ANNA, {"value": 2}))
        first, second = scene.together(update(BERT, {"value": 3}, 1), update(BERT, {"unit": "EUR"}, 1))
        conflict(first)
        assert applied(second).stamp.seq == 3

    def test_a_draft_that_is_thrown_away_leaves_no_trace(self, scene: Scene) -> None:
        """Documents, counts and verdicts are as before, and the next draft decides as if there had been none."""
        before = dump(scene.dashboard)
        draft = scene.draft()
        draft.decide(update(BERT, {"value": 9}, id="lost"))
        draft.decide(delete(BERT))
        draft.decide(layout(BERT, {"tile": 1}))
        assert dump(scene.dashboard) == before
        assert applied(scene.do(update(BERT, {"value": 9}, id="lost"))).stamp.seq == 2

    def test_reads_tell_the_committed_versions_of_what_was_looked_at(self, scene: Scene) -> None:
        """A store compares them with its own; what the draft itself wrote does not count, nor who read it again."""
        scene.do(update(ANNA, {"a": 1}, target="v"))
        draft = scene.draft()
        draft.decide(update(BERT, {"value": 2}))
        draft.decide(batch(BERT, update(BERT, {"value": 3}), delete(BERT, target="v"), delete(BERT, target="none")))
        draft.decide(batch(BERT, update(BERT, {"value": 4}), update(BERT, {}, target="new")))
        assert draft.reads == {"widget:w": 1, "widget:v": 2, "widget:none": 0, "widget:new": 0}


class TestTombstones:
    """The newest 1,000 are kept; the operation that makes one more drops the oldest, and its entry says which."""

    def test_the_operation_that_makes_one_more_drops_the_oldest(self) -> None:
        """Exactly 1,000 are kept by default."""
        scene = Scene(max_fields=0)
        scene.do(update(ANNA, {f"f{number}": number for number in range(1_001)}))
        last = scene.do(update(ANNA, {}, unset=tuple(f"f{number}" for number in range(1_000))))
        assert applied(last).dropped == ()
        assert (len(scene.dashboard.tombstones), scene.dashboard.floor) == (1_000, 0)
        last = scene.do(update(ANNA, {}, unset=("f1000",)))
        assert applied(last).dropped == (("widget:w", "f0"),)
        assert (len(scene.dashboard.tombstones), scene.dashboard.floor) == (1_000, 2)

    def test_a_deleted_document_is_forgotten_with_its_tombstone(self) -> None:
        """Nothing of it is left."""
        scene = Scene(max_tombstones=1)
        for target in ("a", "b"):
            scene.do(update(ANNA, {"x": 1}, target=target))
        scene.do(delete(ANNA, target="a"))
        assert applied(scene.do(delete(ANNA, target="b"))).dropped == (("widget:a", None),)
        assert scene.dashboard.view("widget:a") is None
        assert scene.dashboard.floor == 3

    def test_a_removed_field_is_forgotten_with_its_tombstone(self) -> None:
        """The document does not remember it either."""
        scene = Scene(max_tombstones=1)
        scene.do(update(ANNA, {"a": 1, "b": 1}))
        scene.do(update(ANNA, {}, unset=("a",)))
        scene.do(update(ANNA, {}, unset=("b",)))
        assert list(scene.document().stamps) == ["b"]

    def test_a_field_set_again_has_no_tombstone(self, scene: Scene) -> None:
        """It is there."""
        scene.do(update(ANNA, {}, unset=("value",)))
        scene.do(update(ANNA, {"value": 2}))
        assert scene.dashboard.tombstones == {}

    def test_a_field_removed_again_becomes_one_of_the_newest(self) -> None:
        """Its tombstone is as old as its last removal."""
        scene = Scene(max_tombstones=2)
        scene.do(update(ANNA, {"a": 1, "b": 1, "c": 1}))
        scene.do(update(ANNA, {}, unset=("a",)))
        scene.do(update(ANNA, {}, unset=("b",)))
        scene.do(update(ANNA, {}, unset=("a",)))
        assert applied(scene.do(update(ANNA, {}, unset=("c",)))).dropped == (("widget:w", "b"),)

    def test_a_deletion_stands_for_the_removed_fields(self, scene: Scene) -> None:
        """One tombstone in place of many, and none is lost by it."""
        scene.do(update(ANNA, {}, unset=("title",)))
        scene.do(delete(ANNA))
        assert list(scene.dashboard.tombstones) == [("widget:w", None)]
        assert scene.dashboard.floor == 0

    def test_the_tombstone_of_the_first_life_is_kept_in_the_second(self, scene: Scene) -> None:
        """And forgotten on its own, without harm to the living."""
        scene.do(delete(ANNA))
        scene.do(update(ANNA, {"value": 2}))
        assert list(scene.dashboard.tombstones) == [("widget:w", None)]
        scene.limits = Scene(max_tombstones=1).limits
        scene.do(update(ANNA, {}, unset=("value",)))
        assert scene.document().died is None
        assert scene.document().alive

    def test_a_batch_drops_what_is_too_much_when_it_is_complete(self) -> None:
        """A tombstone that the batch itself removes or renews need not make room."""
        scene = Scene(max_tombstones=1)
        scene.do(update(ANNA, {"a": 1, "b": 1}))
        scene.do(update(ANNA, {}, unset=("a",)))
        done = scene.do(batch(BERT, update(BERT, {}, unset=("b",)), update(BERT, {"a": 2})))
        assert applied(done).dropped == ()
        assert dump(scene.replayed()) == dump(scene.dashboard)


class TestLayouts:
    """LAYOUT_RESTORE and the history it draws on."""

    @pytest.fixture
    def scene(self) -> Scene:
        """The default layout at seqs 1, 3 and 4, a widget at 2."""
        scene = Scene(layout_history=3)
        scene.do(layout(ANNA, {"a": 1}))
        scene.do(update(ANNA, {"value": 1}))
        scene.do(layout(ANNA, {"b": 1}))
        scene.do(layout(ANNA, {"a": 2}))
        return scene

    def versions(self, scene: Scene) -> list[int]:
        return [stamp.seq for stamp, _ in scene.document("layout:default").history]

    def test_the_undo_of_a_change_is_its_version_less_one(self, scene: Scene) -> None:
        """The layout as it stood at seq 3."""
        done = applied(scene.do(restore(ANNA, 3)))
        assert scene.fields("layout:default") == {"a": 1, "b": 1}
        assert (done.stamp.seq, done.changes[0].restore) == (5, 3)

    def test_a_seq_between_two_versions_means_the_older(self, scene: Scene) -> None:
        """At seq 2 the layout stood as written at 1; the tile that came later is removed."""
        assert applied(scene.do(restore(ANNA, 2))).changes[0].restore == 1
        assert scene.fields("layout:default") == {"a": 1}

    def test_without_version_the_last_change_is_undone(self, scene: Scene) -> None:
        """As before the last change."""
        scene.do(restore(ANNA))
        assert scene.fields("layout:default") == {"a": 1, "b": 1}

    def test_restoring_is_a_new_version_that_can_be_undone(self, scene: Scene) -> None:
        """Nothing is ever taken out of the past."""
        scene.do(restore(ANNA, 1))
        scene.do(restore(ANNA))
        assert scene.fields("layout:default") == {"a": 2, "b": 1}

    def test_history_keeps_so_many_versions_beside_the_current_one(self, scene: Scene) -> None:
        """``layout_history`` of them can be brought back; an older one is NOT_FOUND."""
        assert self.versions(scene) == [1, 3, 4]
        scene.do(layout(ANNA, {"a": 3}))
        assert self.versions(scene) == [1, 3, 4, 5]
        scene.do(layout(ANNA, {"a": 4}))
        assert self.versions(scene) == [3, 4, 5, 6]
        with pytest.raises(NotFound):
            scene.do(restore(ANNA, 2))
        applied(scene.do(restore(ANNA, 3)))

    def test_a_layout_with_one_version_has_nothing_to_go_back_to(self) -> None:
        """NOT_FOUND, as is a layout that never was."""
        scene = Scene()
        scene.do(layout(ANNA, {"a": 1}))
        with pytest.raises(NotFound):
            scene.do(restore(ANNA))
        with pytest.raises(NotFound):
            scene.do(restore(ANNA, target="none"))
        with pytest.raises(NotFound):
            scene.do(restore(ANNA, 0))

    def test_a_version_beyond_the_log_is_invalid(self, scene: Scene) -> None:
        """It has not happened yet."""
        with pytest.raises(InvalidMessage):
            scene.do(restore(ANNA, 5))

    def test_a_version_of_another_epoch_is_not_found(self, scene: Scene) -> None:
        """An old seq is never taken for a new one."""
        with pytest.raises(NotFound):
            scene.do(restore(ANNA, 3, epoch="epoch-0"))
        applied(scene.do(restore(ANNA, 3, epoch=EPOCH)))

    def test_a_batch_makes_one_version_of_a_layout(self, scene: Scene) -> None:
        """However often it touches it."""
        scene.do(batch(ANNA, layout(ANNA, {"a": 7}), layout(ANNA, {"b": 7})))
        assert self.versions(scene) == [1, 3, 4, 5]
        scene.do(restore(ANNA))
        assert scene.fields("layout:default") == {"a": 2, "b": 1}

    def test_widgets_keep_no_history(self, scene: Scene) -> None:
        """Only layouts can be restored."""
        scene.do(update(ANNA, {"value": 2}))
        assert scene.document().history == []


class TestBatches:
    """WIDGET_BATCH: all or none, with one seq."""

    def test_all_share_one_seq(self, scene: Scene) -> None:
        """And one stamp."""
        done = applied(scene.do(batch(BERT, update(BERT, {"value": 2}, 1), update(BERT, {"x": 1}, target="v"))))
        assert (done.stamp.seq, scene.seq, len(done.changes)) == (2, 2, 2)
        assert scene.document().stamp is scene.document("widget:v").stamp

    def test_each_sees_what_those_before_it_did(self, scene: Scene) -> None:
        """Make, change and delete in one batch."""
        scene.do(batch(BERT, update(BERT, {"x": 1}, target="v"), update(BERT, {"y": 1}, target="v"), delete(BERT)))
        assert scene.fields("widget:v") == {"x": 1, "y": 1}
        assert not scene.document().alive

    def test_one_refusal_refuses_all(self, scene: Scene) -> None:
        """The state is as before, and only the guilty is blamed."""
        before = dump(scene.dashboard)
        refused = scene.do(batch(BERT, update(BERT, {"value": 2}), delete(BERT, target="none"), update(BERT, {"x": 1})))
        assert isinstance(refused, Refused)
        assert {index: type(blame) for index, blame in refused.blame.items()} == {1: NotFound}
        assert dump(scene.dashboard) == before

    def test_one_conflict_refuses_all(self, scene: Scene) -> None:
        """The blame is the conflict itself; all the guilty are found at once."""
        scene.do(update(ANNA, {"value": 2}))
        guilty = update(BERT, {"value": 3}, 1)
        refused = scene.do(batch(BERT, update(BERT, {"unit": "EUR"}, 1), guilty, update(BERT, {}, 99)))
        assert isinstance(refused, Refused)
        assert set(refused.blame) == {1, 2}
        assert conflict(refused.blame[1]).operation is guilty  # type: ignore[arg-type]
        assert isinstance(refused.blame[2], InvalidMessage)
        assert "unit" not in scene.fields()

    def test_merged_names_the_fields_of_all(self, scene: Scene) -> None:
        """Each once."""
        scene.do(update(ANNA, {"title": "Turnover"}))
        done = scene.do(batch(BERT, update(BERT, {"value": 2}, 1), update(BERT, {"unit": "EUR"}, 1)))
        assert applied(done).merged == ("title",)

    def test_a_refused_batch_leaves_the_draft_as_it_was(self, scene: Scene) -> None:
        """Later operations of the same draft are judged as if it had not been."""
        draft = scene.draft()
        draft.decide(batch(BERT, delete(BERT), delete(BERT, target="none"), id="refused"))
        assert applied(draft.decide(update(ANNA, {"value": 2}, 1))).stamp.seq == 2
        assert draft.verdict(("bert", "refused")) is None
        assert (draft.widgets, draft.tombstones) == (1, None)


class TestResolutions:
    """CONFLICT_RESOLVED, once it is clear what it comes down to."""

    def resolution(self, operation: object, known: bool = True) -> Resolution:
        return Resolution(BERT, "resolution", 7, operation, version=2, known=known)  # type: ignore[arg-type]

    def test_remote_changes_nothing(self, scene: Scene) -> None:
        """The document stands at the version that the person has seen."""
        assert scene.do(self.resolution(None)) == Settled(self.resolution(None), 2)
        assert scene.seq == 1

    def test_local_and_merged_are_operations(self, scene: Scene) -> None:
        """Applied with the conflict's current version as base, told as an ordinary update."""
        scene.do(update(ANNA, {"value": 2}))
        done = applied(scene.do(self.resolution(update(BERT, {"value": 3}, 2))))
        assert [change.type for change in done.changes] == ["WIDGET_UPDATE"]
        assert scene.fields()["value"] == 3

    def test_what_moved_on_meanwhile_conflicts_anew(self, scene: Scene) -> None:
        """The conflict belongs to the resolution that was sent."""
        scene.do(update(ANNA, {"value": 2}))
        scene.do(update(ANNA, {"value": 4}))
        resolution = self.resolution(update(BERT, {"value": 3}, 2))
        assert conflict(scene.do(resolution)).request is resolution

    def test_an_unknown_conflict_is_refused(self, scene: Scene) -> None:
        """CONFLICT_UNKNOWN says what to send instead."""
        with pytest.raises(ConflictUnknown, match="baseVersion"):
            scene.do(self.resolution(None, known=False))


def test_a_refusal_leaves_the_draft_as_it_was(scene: Scene) -> None:
    """Whatever is raised, nothing was changed."""
    draft: Draft = scene.draft()
    for request in (
        delete(BERT, target="none"),
        update(BERT, {"value": 9}, 99),
        restore(BERT),
        Resolution(BERT, "r", 0, None, known=False),
    ):
        with pytest.raises(ClientFault):
            draft.decide(request)
    assert (draft.seq, draft.documents, draft.verdicts, draft.accepted) == (1, {}, {}, [])
