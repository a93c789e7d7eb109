"""When two edits collide and when they do not: PROTOCOL section 4, sentence by sentence."""

from __future__ import annotations

import pytest

from tests.core.scene import ANNA, ANNA_PHONE, BERT, Scene, applied, batch, conflict, delete, layout, restore, update
from tornado_rt.errors import InvalidMessage, NotFound


@pytest.fixture
def scene() -> Scene:
    """A widget ``w`` with ``title`` and ``value``, made by Anna at seq 1."""
    scene = Scene()
    scene.do(update(ANNA, {"title": "Sales", "value": 1}))
    return scene


def test_without_base_version_the_last_writer_wins(scene: Scene) -> None:
    """No baseVersion: nothing is a conflict."""
    scene.do(update(BERT, {"value": 2}))
    applied(scene.do(update(ANNA, {"value": 3})))
    assert scene.fields()["value"] == 3


def test_an_edit_of_the_current_version_is_applied(scene: Scene) -> None:
    """No touched field was changed after baseVersion."""
    assert applied(scene.do(update(BERT, {"value": 2}, 1))).merged == ()


def test_different_fields_never_conflict_and_are_merged(scene: Scene) -> None:
    """Two people who edit different fields meet in ``merged``, not in a conflict."""
    scene.do(update(ANNA, {"title": "Turnover"}, 1))
    assert applied(scene.do(update(BERT, {"value": 2}, 1))).merged == ("title",)
    assert scene.fields() == {"title": "Turnover", "value": 2}


def test_a_removed_field_is_merged_with_too(scene: Scene) -> None:
    """Removing is changing."""
    scene.do(update(ANNA, {}, 1, unset=("title",)))
    assert applied(scene.do(update(BERT, {"value": 2}, 1))).merged == ("title",)


def test_what_both_set_alike_is_not_merged_with(scene: Scene) -> None:
    """``merged`` names *other* fields, not those that the operation touches itself."""
    scene.do(update(ANNA, {"title": "Turnover", "value": 2}, 1))
    assert applied(scene.do(update(BERT, {"value": 2}, 1))).merged == ("title",)


def test_different_tiles_of_a_layout_never_conflict() -> None:
    """Two people drag different tiles."""
    scene = Scene()
    scene.do(layout(ANNA, {"a": [0, 0], "b": [1, 0]}))
    scene.do(layout(ANNA, {"a": [2, 2]}, 1))
    assert applied(scene.do(layout(BERT, {"b": [3, 3]}, 1))).merged == ("a",)


def test_the_same_field_changed_meanwhile_is_a_conflict(scene: Scene) -> None:
    """Nothing is applied and no seq is taken; the conflict tells all that a person needs."""
    scene.do(update(ANNA, {"value": 2}, 1))
    found = conflict(scene.do(update(BERT, {"title": "Mine", "value": 3}, 1)))
    assert scene.seq == 2
    assert scene.fields() == {"title": "Sales", "value": 2}
    assert found.fields == ("value",)
    assert found.current_version == 2
    assert found.document is scene.document()
    assert found.operation.data == {"title": "Mine", "value": 3}
    assert found.newest is not None
    assert (found.newest.author, found.newest.seq) == (ANNA, 2)


def test_the_newest_of_several_changes_is_named(scene: Scene) -> None:
    """User and timestamp are the newest one's, of the fields that conflict."""
    scene.do(update(ANNA, {"value": 2}))
    scene.do(update(ANNA_PHONE, {"title": "Newest"}))
    scene.do(update(ANNA, {"other": 1}))
    found = conflict(scene.do(update(BERT, {"title": "x", "value": 9}, 1)))
    assert found.newest is not None
    assert found.newest.author is ANNA_PHONE
    assert found.current_version == 4


def test_the_same_value_on_both_sides_is_no_conflict(scene: Scene) -> None:
    """Both meant the same; 2 and 2.0 are the same JSON."""
    scene.do(update(ANNA, {"value": 2}, 1))
    applied(scene.do(update(BERT, {"value": 2.0}, 1)))


def test_true_and_one_are_different_values(scene: Scene) -> None:
    """``true`` is not 1."""
    scene.do(update(ANNA, {"value": True}, 1))
    conflict(scene.do(update(BERT, {"value": 1}, 1)))


def test_null_and_absent_are_different_values(scene: Scene) -> None:
    """``null`` is a value; a removed field has none."""
    scene.do(update(ANNA, {}, 1, unset=("value",)))
    conflict(scene.do(update(BERT, {"value": None}, 1)))


def test_both_removed_the_same_field(scene: Scene) -> None:
    """A field that is gone on both sides is the same on both."""
    scene.do(update(ANNA, {}, 1, unset=("value",)))
    applied(scene.do(update(BERT, {}, 1, unset=("value",))))


def test_setting_a_field_to_its_value_touches_it(scene: Scene) -> None:
    """A field remembers who last set it, also to the value it had."""
    scene.do(update(ANNA, {"value": 1}, 1))
    conflict(scene.do(update(BERT, {"value": 5}, 1)))


def test_one_device_never_conflicts_with_itself(scene: Scene) -> None:
    """A person who types fast sends a second edit before the first is acknowledged."""
    scene.do(update(BERT, {"value": 2}, 1))
    applied(scene.do(update(BERT, {"value": 3}, 1)))


def test_one_device_never_conflicts_with_itself_within_a_draft(scene: Scene) -> None:
    """The same, where both are judged together."""
    for outcome in scene.together(update(BERT, {"value": 2}, 1), update(BERT, {"value": 3}, 1)):
        applied(outcome)


def test_the_phone_conflicts_with_the_laptop(scene: Scene) -> None:
    """It is the device that is exempt, not the person."""
    scene.do(update(ANNA, {"value": 2}, 1))
    conflict(scene.do(update(ANNA_PHONE, {"value": 3}, 1)))


def test_the_same_device_id_of_another_user_is_another_device(scene: Scene) -> None:
    """User and device together are the author."""
    scene.do(update(ANNA, {"value": 2}, 1))
    stranger = type(ANNA)("mallory", ANNA.device)
    conflict(scene.do(update(stranger, {"value": 3}, 1)))


def test_unset_of_a_field_that_was_changed_is_a_conflict(scene: Scene) -> None:
    """Removing touches."""
    scene.do(update(ANNA, {"value": 2}, 1))
    assert conflict(scene.do(update(BERT, {}, 1, unset=("value",)))).fields == ("value",)


def test_setting_a_field_that_was_removed_is_a_conflict(scene: Scene) -> None:
    """A removed field leaves a tombstone."""
    scene.do(update(ANNA, {}, 1, unset=("value",)))
    assert conflict(scene.do(update(BERT, {"value": 2}, 1))).fields == ("value",)


def test_replace_touches_every_field_that_is_there(scene: Scene) -> None:
    """A field that ``replace`` would remove was changed meanwhile."""
    scene.do(update(ANNA, {"title": "Turnover"}, 1))
    assert conflict(scene.do(update(BERT, {"value": 1}, 1, replace=True))).fields == ("title",)


def test_replace_touches_fields_that_were_there(scene: Scene) -> None:
    """A replacement re-dates the tombstones of the document: whoever sets such a field on an older base collides."""
    scene.do(update(ANNA, {}, unset=("title",)))
    scene.do(update(BERT, {"value": 5}, replace=True))
    assert conflict(scene.do(update(ANNA_PHONE, {"title": "Back"}, 2))).fields == ("title",)


def test_replace_without_the_fields_that_were_removed_meanwhile(scene: Scene) -> None:
    """Both sides have no ``title``: the same."""
    scene.do(update(ANNA, {}, 1, unset=("title",)))
    applied(scene.do(update(BERT, {"value": 1}, 1, replace=True)))


def test_delete_of_what_another_device_changed_is_a_conflict(scene: Scene) -> None:
    """The fields are those that changed."""
    scene.do(update(ANNA, {"value": 2}, 1))
    found = conflict(scene.do(delete(BERT, 1)))
    assert found.fields == ("value",)
    assert found.document is not None
    assert scene.document().alive


def test_delete_of_what_was_emptied_meanwhile_is_a_conflict() -> None:
    """A change that leaves no field behind is a change."""
    scene = Scene()
    scene.do(update(ANNA, {}))
    scene.do(update(ANNA, {}))
    assert conflict(scene.do(delete(BERT, 1))).fields == ()


def test_delete_of_what_only_the_own_device_changed(scene: Scene) -> None:
    """The own changes are no reason."""
    scene.do(update(BERT, {"value": 2}, 1))
    applied(scene.do(delete(BERT, 1)))


def test_delete_without_base_version_just_deletes(scene: Scene) -> None:
    """Last writer wins for deletes, too."""
    scene.do(update(ANNA, {"value": 2}, 1))
    applied(scene.do(delete(BERT)))
    assert not scene.document().alive


def test_update_of_what_was_deleted_meanwhile_is_a_conflict(scene: Scene) -> None:
    """``remote: null``: the document is gone; all that was touched conflicts."""
    scene.do(delete(ANNA, 1))
    found = conflict(scene.do(update(BERT, {"value": 2}, 1, unset=("title",))))
    assert found.document is None
    assert found.fields == ("value", "title")
    assert found.current_version == 2
    assert found.newest is not None
    assert found.newest.author is ANNA


def test_own_deletions_count(scene: Scene) -> None:
    """A late update brings no widget back, not even one's own."""
    scene.do(delete(BERT, 1))
    conflict(scene.do(update(BERT, {"value": 2}, 1)))


def test_update_after_having_seen_the_deletion_makes_the_widget_anew(scene: Scene) -> None:
    """The deletion is not after baseVersion."""
    scene.do(delete(ANNA, 1))
    applied(scene.do(update(BERT, {"value": 2}, 2)))
    assert scene.fields() == {"value": 2}


def test_a_second_life_does_not_hide_the_deletion(scene: Scene) -> None:
    """Fields of the first life were removed with it; those of the second were set by another."""
    scene.do(delete(ANNA, 1))
    scene.do(update(ANNA, {"value": 7}))
    assert conflict(scene.do(update(BERT, {"title": "x"}, 1))).fields == ("title",)
    assert conflict(scene.do(update(BERT, {"value": 8}, 1))).fields == ("value",)
    applied(scene.do(update(BERT, {"title": "x"}, 2)))


def test_own_deletions_count_in_a_second_life(scene: Scene) -> None:
    """The own deletion removed ``title``; the late update must not slip it into the second life."""
    scene.do(delete(BERT, 1))
    scene.do(update(BERT, {"value": 7}))
    assert conflict(scene.do(update(BERT, {"title": "late"}, 1))).fields == ("title",)


def test_restoring_is_judged_like_a_replacement() -> None:
    """LAYOUT_RESTORE touches every field; the conflict tells what would have been written."""
    scene = Scene()
    scene.do(layout(ANNA, {"a": 1, "b": 1}))
    scene.do(layout(ANNA, {"a": 2}, 1))
    scene.do(layout(BERT, {"b": 2}, 1))
    found = conflict(scene.do(restore(ANNA, 1, 2)))
    assert found.fields == ("b",)
    assert found.operation.data == {"a": 1, "b": 1}
    assert applied(scene.do(restore(ANNA, 1, 3))).changes[0].restore == 1


def test_base_version_of_another_epoch_counts_as_zero(scene: Scene) -> None:
    """An old seq is never taken for a new one."""
    conflict(scene.do(update(BERT, {"value": 2}, 1, epoch="epoch-0")))
    conflict(scene.do(update(BERT, {"value": 2}, 99, epoch="epoch-0")))
    applied(scene.do(update(BERT, {"value": 2}, 1, epoch="epoch-1")))


def test_base_version_beyond_the_log_is_invalid(scene: Scene) -> None:
    """Nobody has seen what does not exist; provisional seqs of the same draft do not exist either."""
    with pytest.raises(InvalidMessage) as refusal:
        scene.together(update(ANNA, {"value": 3}), update(BERT, {"value": 2}, 2))
    assert refusal.value.details[0][0] == "payload.baseVersion"


def test_deleting_what_is_not_there_is_not_found(scene: Scene) -> None:
    """Never there, or gone already."""
    with pytest.raises(NotFound):
        scene.do(delete(ANNA, target="nowhere"))
    scene.do(delete(ANNA))
    with pytest.raises(NotFound):
        scene.do(delete(BERT, 1))


def test_resolving_with_the_current_version_as_base_settles_it(scene: Scene) -> None:
    """``local`` is the whole operation again with ``currentVersion`` as base; if the field moved on, it is a new conflict."""
    scene.do(update(ANNA, {"value": 2}, 1))
    found = conflict(scene.do(update(BERT, {"value": 3}, 1)))
    scene.do(update(ANNA, {"value": 4}))
    assert conflict(scene.do(update(BERT, {"value": 3}, found.current_version))).current_version == 3
    applied(scene.do(update(BERT, {"value": 3}, 3)))


class TestBelowTheFloor:
    """Where tombstones were dropped, nobody can say what was removed."""

    @pytest.fixture
    def scene(self) -> Scene:
        """``gone`` was deleted at 4 and ``w.title`` removed at 5; both tombstones were dropped at 7; the floor is 5."""
        scene = Scene(max_tombstones=1)
        scene.do(update(ANNA, {"a": 1}, target="gone"))
        scene.do(update(ANNA, {"title": "Sales", "value": 1}))
        scene.do(update(ANNA, {"a": 1}, target="last"))
        scene.do(delete(ANNA, target="gone"))
        scene.do(update(ANNA, {}, unset=("title",)))
        scene.do(update(ANNA, {"b": 1}, target="other"))
        scene.do(delete(ANNA, target="last"))
        assert scene.dashboard.floor == 5
        return scene

    def test_a_document_that_is_not_there_conflicts(self, scene: Scene) -> None:
        """It may have been deleted after the base."""
        found = conflict(scene.do(update(BERT, {"a": 2}, 3, target="gone")))
        assert (found.fields, found.document, found.current_version) == (("a",), None, 5)

    def test_a_field_that_is_not_there_conflicts(self, scene: Scene) -> None:
        """It may have been removed after the base."""
        assert conflict(scene.do(update(BERT, {"title": "x"}, 3))).fields == ("title",)

    def test_a_field_that_is_there_does_not(self, scene: Scene) -> None:
        """Its stamp says when it was set."""
        applied(scene.do(update(BERT, {"value": 2}, 3)))

    def test_at_the_floor_everything_is_known(self, scene: Scene) -> None:
        """Who has seen the seq of the last dropped tombstone has seen the removal."""
        applied(scene.do(update(BERT, {"a": 2, "title": "x"}, 5)))

    def test_its_resolution_is_not_below_the_floor(self, scene: Scene) -> None:
        """``currentVersion`` is a base that settles the conflict, even of a document that is older than the floor."""
        found = conflict(scene.do(update(BERT, {"new": 1}, 3, target="other")))
        assert found.current_version == 6
        scene.do(update(ANNA, {"c": 1}, target="more"))
        scene.do(delete(ANNA, target="more"))
        assert scene.dashboard.floor == 7
        found = conflict(scene.do(update(BERT, {"new": 1}, found.current_version, target="other")))
        assert found.current_version == 7
        applied(scene.do(update(BERT, {"new": 1}, found.current_version, target="other")))

    def test_a_new_widget_without_base_version_is_made(self, scene: Scene) -> None:
        """A client that makes a widget sends no baseVersion."""
        applied(scene.do(update(BERT, {"a": 2}, target="gone")))


class TestStrategies:
    """``RT_CONFLICT_STRATEGY`` and ``RT_CONFLICT_DETECTION``."""

    def collide(self, **limits: object) -> tuple[Scene, object]:
        scene = Scene(**limits)
        scene.do(update(ANNA, {"value": 1}))
        scene.do(update(ANNA, {"value": 2}, 1))
        return scene, scene.do(update(BERT, {"value": 3}, 1))

    def test_manual_leaves_it_to_the_person(self) -> None:
        """No side is taken."""
        _, outcome = self.collide()
        assert conflict(outcome).resolved is None  # type: ignore[arg-type]

    def test_remote_wins_settles_the_conflict_as_remote(self) -> None:
        """Nothing was applied, no answer is due."""
        scene, outcome = self.collide(conflict_strategy="remote-wins")
        assert conflict(outcome).resolved == "remote"  # type: ignore[arg-type]
        assert scene.fields() == {"value": 2}

    def test_local_wins_judges_as_if_without_base_version(self) -> None:
        """The last writer wins."""
        scene, outcome = self.collide(conflict_strategy="local-wins")
        applied(outcome)  # type: ignore[arg-type]
        assert scene.fields() == {"value": 3}

    def test_local_wins_still_refuses_a_base_beyond_the_log(self) -> None:
        """Such a base is a fault, not a conflict."""
        scene, _ = self.collide(conflict_strategy="local-wins")
        with pytest.raises(InvalidMessage):
            scene.do(update(BERT, {"value": 3}, 99))

    def test_detection_can_be_turned_off(self) -> None:
        """Then baseVersion means nothing, for deletes as well."""
        scene, outcome = self.collide(conflict_detection=False)
        applied(outcome)  # type: ignore[arg-type]
        scene.do(update(ANNA, {"value": 5}))
        applied(scene.do(delete(BERT, 1)))


def test_a_batch_may_touch_one_field_twice(scene: Scene) -> None:
    """Within a batch there is one device, so it does not conflict with itself."""
    applied(scene.do(batch(BERT, update(BERT, {"value": 2}, 1), update(BERT, {"value": 3}, 1))))
    assert scene.fields()["value"] == 3
