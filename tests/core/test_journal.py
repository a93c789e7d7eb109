"""What is written about an outcome, and that the log folds back into exactly what was."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.scene import ANNA, AT, BERT, EPOCH, Scene, applied, batch, conflict, delete, layout, restore, update
from tornado_rt.core.dashboard import Dashboard
from tornado_rt.core.document import Author
from tornado_rt.core.journal import conflict_record, dump, fold, load, record, text_of
from tornado_rt.core.operation import Replayed
from tornado_rt.protocol.codec import broadcast, change


@pytest.fixture
def scene() -> Scene:
    """A bit of everything, eleven seqs long and with conflicts in between."""
    scene = Scene(max_tombstones=3, layout_history=2)
    scene.do(update(ANNA, {"title": "Zoë\n\t\u0000", "value": 1}, id="a1"))
    scene.do(layout(ANNA, {"a": [0, 0], "b": None}, id="a2"))
    scene.do(update(BERT, {"value": 2}, 1, id="b1"))
    scene.do(update(ANNA, {"value": 3}, 1, id="a3"))
    scene.do(layout(BERT, {"a": [1, 1]}, unset=("b",)))
    scene.do(batch(ANNA, update(ANNA, {"x": 1}, target="v", id="a5"), delete(ANNA, id="a6"), id="a4"))
    scene.do(restore(ANNA, 2))
    scene.do(update(BERT, {"value": 4}, replace=True, id="b2"))
    scene.do(update(BERT, {"y": 1}, target="v", unset=("x",)))
    scene.do(update(ANNA, {"z": 1}, 4, target="v"))
    scene.do(layout(BERT, {"c": 1}, replace=True))
    scene.do(batch(BERT, delete(BERT, target="v"), update(BERT, {"q": 1}, target="v")))
    assert scene.seq == 11
    return scene


class TestRecord:
    """A record is one line: what only the server needs, a tab, and the change as it is told."""

    def test_the_change_is_told_as_the_protocol_says(self) -> None:
        """PROTOCOL section 3, WIDGET_UPDATE from the server; ``unset`` and ``replace`` only where they were sent."""
        scene = Scene()
        done = applied(scene.do(update(ANNA, {"value": 1}, id="op", unset=("old",))))
        assert json.loads(change(text_of(record(done)), 17)) == {
            "type": "WIDGET_UPDATE",
            "userId": "anna",
            "timestamp": AT,
            "payload": {"widgetId": "w", "data": {"value": 1}, "unset": ["old"], "version": 17, "seq": 17},
            "seq": 17,
        }

    def test_a_layout_is_told_with_its_own_names(self) -> None:
        """``layoutId`` and ``layout``."""
        done = applied(Scene().do(layout(ANNA, {"a": 1}, replace=True)))
        payload = json.loads(change(text_of(record(done)), 1))["payload"]
        assert payload == {"layoutId": "default", "layout": {"a": 1}, "replace": True, "version": 1, "seq": 1}

    def test_a_deletion_is_told_without_data(self) -> None:
        """``widgetId, version, seq``."""
        scene = Scene()
        scene.do(update(ANNA, {}))
        payload = json.loads(change(text_of(record(applied(scene.do(delete(ANNA))))), 2))["payload"]
        assert payload == {"widgetId": "w", "version": 2, "seq": 2}

    def test_a_restoration_is_told_with_the_whole_layout(self) -> None:
        """And with the version that it brought back; whoever applies it needs no history."""
        scene = Scene()
        scene.do(layout(ANNA, {"a": 1}))
        scene.do(layout(ANNA, {"b": 2}))
        text = text_of(record(applied(scene.do(restore(ANNA)))))
        said = json.loads(broadcast(text, 3, EPOCH))
        assert said["type"] == "LAYOUT_RESTORE"
        assert said["payload"] == {"layoutId": "default", "layout": {"a": 1}, "restoredFrom": 1, "version": 3, "seq": 3}

    def test_a_batch_is_told_as_changes_with_one_seq(self) -> None:
        """``operations: [Change...], seq``."""
        done = applied(Scene().do(batch(ANNA, update(ANNA, {"x": 1}), layout(ANNA, {}))))
        payload = json.loads(change(text_of(record(done)), 5))["payload"]
        assert payload["seq"] == 5
        assert [(inner["type"], inner["seq"], inner["payload"]["version"]) for inner in payload["operations"]] == [
            ("WIDGET_UPDATE", 5, 5),
            ("LAYOUT_UPDATE", 5, 5),
        ]

    @given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
    def test_no_text_breaks_out_of_its_line(self, name: str, value: str) -> None:
        """Newlines, tabs, NULs and quotes in any name or value; what is read back is what was written."""
        scene = Scene()
        author = Author(name, name)
        done = applied(scene.do(update(author, {name: value}, target=name, unset=(f"{name}!",), id=name)))
        line = record(done)
        assert b"\n" not in line
        assert line.count(b"\t") == 1
        payload = json.loads(change(text_of(line), 1))["payload"]
        assert (payload["widgetId"], payload["data"], payload["unset"]) == (name, {name: value}, [f"{name}!"])
        assert dump(scene.replayed()) == dump(scene.dashboard)
        assert scene.replayed().verdicts == scene.dashboard.verdicts

    def test_a_conflicts_record_holds_what_was_sent(self) -> None:
        """It is kept for the verdict alone."""
        scene = Scene()
        scene.do(update(ANNA, {"value": 1}))
        found = conflict(scene.draft().decide(update(BERT, {"value": 2}, 0, id="op")))
        assert text_of(conflict_record(found, b'{"conflictId":"c"}')) == b'{"conflictId":"c"}'


class TestFold:
    """fold(log) equals the state."""

    def test_the_log_folds_to_the_state(self, scene: Scene) -> None:
        """Fields, stamps, tombstones, floor and histories."""
        assert scene.dashboard.floor > 0
        assert dump(scene.replayed()) == dump(scene.dashboard)

    def test_counts_are_those_of_the_living(self, scene: Scene) -> None:
        """They are no part of the dump and must hold all the same."""
        for dashboard in (scene.dashboard, scene.replayed(), load(dump(scene.dashboard), EPOCH)):
            assert (dashboard.widgets, dashboard.layouts) == (2, 1)

    def test_the_log_folds_to_the_same_verdicts(self, scene: Scene) -> None:
        """In the same order, so that the same ones are forgotten next."""
        replayed = scene.replayed()
        assert list(replayed.verdicts.items()) == list(scene.dashboard.verdicts.items())
        assert replayed.batches == scene.dashboard.batches == 1

    def test_old_verdicts_are_left_out(self, scene: Scene) -> None:
        """Older than ``oldest``."""
        dashboard = Dashboard(EPOCH)
        fold(dashboard, [(seq, body, float(seq)) for seq, body, _ in scene.log if seq], scene.limits, 6.0)
        assert list(dashboard.verdicts) == [("bert", "b2")]

    def test_records_up_to_the_seq_count_for_their_verdicts_alone(self, scene: Scene) -> None:
        """A snapshot holds the state; the log before it, the verdicts."""
        dashboard = load(json.loads(json.dumps(dump(scene.dashboard))), EPOCH)
        fold(dashboard, scene.log, scene.limits, 0.0)
        assert dump(dashboard) == dump(scene.dashboard)
        assert dashboard.verdicts == scene.dashboard.verdicts

    @pytest.mark.parametrize("cut", range(12))
    def test_snapshot_and_tail_equal_the_log(self, scene: Scene, cut: int) -> None:
        """Wherever the log is cut."""
        before = Dashboard(EPOCH)
        fold(before, [entry for entry in scene.log if 0 < entry[0] <= cut], scene.limits, 0.0)
        after = load(json.loads(json.dumps(dump(before))), EPOCH)
        fold(after, [entry for entry in scene.log if entry[0] > cut], scene.limits, 0.0)
        assert dump(after) == dump(scene.dashboard)

    def test_what_a_batch_left_out_keeps_its_own_verdict(self) -> None:
        """It was applied before, under a seq of its own."""
        scene = Scene()
        scene.do(update(ANNA, {"a": 1}, id="known"))
        scene.do(batch(ANNA, update(ANNA, {"a": 1}, id="known"), update(ANNA, {"b": 1}, id="new"), id="all"))
        assert scene.replayed().verdicts == scene.dashboard.verdicts
        assert scene.replayed().verdicts["anna", "known"].seq == 1

    def test_a_snapshot_remembers_the_deletion_through_a_second_life(self) -> None:
        """What collides before it is written down collides after it was read back."""
        scene = Scene()
        scene.do(update(ANNA, {"title": "Sales"}))
        scene.do(delete(ANNA))
        scene.do(update(ANNA, {"value": 7}))
        scene.dashboard = load(json.loads(json.dumps(dump(scene.dashboard))), EPOCH)
        assert conflict(scene.do(update(BERT, {"title": "x"}, 1))).fields == ("title",)

    def test_life_goes_on_after_a_fold(self, scene: Scene) -> None:
        """The same decisions as if nothing had happened, down to which layout can be restored."""
        scene.dashboard = load(json.loads(json.dumps(dump(scene.replayed()))), EPOCH)
        applied(scene.do(restore(ANNA)))
        applied(scene.do(batch(ANNA, layout(ANNA, {"a": 2}), layout(ANNA, {"b": 2}))))
        applied(scene.do(delete(BERT)))
        assert dump(scene.replayed()) == dump(scene.dashboard)


class TestAdoption:
    """A draft's seqs are provisional; they are moved where others wrote in between."""

    def test_foreign_entries_come_first(self) -> None:
        """Fold what others wrote, then adopt: stamps, verdicts and counts are those of the log."""
        scene = Scene(max_tombstones=1)
        scene.do(update(ANNA, {"a": 1, "b": 1}))
        draft = scene.draft()
        outcomes = [
            draft.decide(update(ANNA, {}, unset=("a",), id="op")),
            draft.decide(layout(ANNA, {"tile": 1})),
            draft.decide(update(ANNA, {"c": 1}, id="op2")),
        ]
        other = Scene(max_tombstones=1)
        fold(other.dashboard, scene.log, scene.limits, 0.0)
        other.do(update(BERT, {"x": 1}, target="theirs", id="theirs"))
        other.do(layout(BERT, {"x": 1}, target="theirs"))
        other.do(update(BERT, {}, target="theirs", unset=("x",)))
        fold(scene.dashboard, other.log, scene.limits, 0.0)
        scene.log += other.log
        scene.dashboard.adopt(draft, 5)
        scene.log += [(applied(outcome).stamp.seq, record(applied(outcome)), scene.now) for outcome in outcomes]
        assert [applied(outcome).stamp.seq for outcome in outcomes] == [5, 6, 7]
        replayed = scene.replayed()
        assert dump(scene.dashboard) == dump(replayed)
        assert scene.dashboard.verdicts == replayed.verdicts
        assert (scene.dashboard.widgets, scene.dashboard.layouts) == (replayed.widgets, replayed.layouts) == (2, 2)
        assert scene.dashboard.size >= sum(document.weigh() for document in scene.dashboard.living())
        again = scene.do(update(ANNA, {}, unset=("a",), id="op"))
        assert isinstance(again, Replayed)
        assert again.verdict.seq == 5

    def test_a_conflicts_verdict_has_no_seq_to_move(self) -> None:
        """It stays without one."""
        scene = Scene()
        scene.do(update(ANNA, {"a": 1}))
        draft = scene.draft()
        found = conflict(draft.decide(update(BERT, {"a": 2}, 0, id="op")))
        draft.remember(found.request, 0, conflict=b"{}")
        other = Scene()
        fold(other.dashboard, scene.log, scene.limits, 0.0)
        other.do(update(BERT, {}, target="theirs"))
        fold(scene.dashboard, other.log, scene.limits, 0.0)
        scene.dashboard.adopt(draft, 3)
        assert scene.seq == 2
        assert scene.dashboard.verdicts["bert", "op"].seq == 0


class TestChangedSince:
    """Catching up costs what changed, not how long one was away."""

    def test_documents_that_changed_after_a_seq(self, scene: Scene) -> None:
        """The living and the dead."""
        scene.do(delete(BERT))
        changed = {document.name: document.alive for document in scene.dashboard.changed_since(10)}
        assert changed == {"widget:v": True, "widget:w": False}

    def test_nothing_changed_after_the_last(self, scene: Scene) -> None:
        """Who is up to date gets nothing."""
        assert list(scene.dashboard.changed_since(scene.seq)) == []
