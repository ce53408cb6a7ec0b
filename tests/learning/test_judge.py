"""What models decided becomes numbers: over wearers, without held-out gestures, and zero-shot only where a pose is known."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from embridge_edge.learning.judge import ELSE, Answers, answer, joined, judge
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.head import make_head
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.rounding import balanced_accuracy_of


@pytest.fixture(scope="module")
def named(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> WindowSet:
    """Gestures rest, M4 (which has no pose) and fist, of three wearers."""
    return cut([recording(wearer, gestures=("rest", "M4", "fist")) for wearer in "abc"])


def test_gesture_without_a_pose_is_left_out_of_zero_shot(named: WindowSet) -> None:
    test = np.arange(len(named))
    truth = named.labels
    # Nearest pose is always right where a pose is known; M4 has none, so it cannot be.
    decided = np.where(truth == 2, 2, 0)
    found = judge(named, [Answers("teacher", "session", test, zero_shot=decided)], "d")
    assert found.value("teacher", "session", "zero_shot_balanced_accuracy") == 1.0
    (result,) = found.results
    assert result.n == int(np.isin(truth, [0, 2]).sum())
    assert result.n_groups == 3


def test_zero_shot_needs_two_poses_to_choose_between(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    windows = cut([recording(gestures=("rest", "M4", "M5"))])
    test = np.arange(len(windows))
    assert (
        judge(windows, [Answers("teacher", "session", test, zero_shot=np.zeros(len(test), np.int64))], "d").results
        == ()
    )


def test_held_out_gesture_counts_only_as_unseen(named: WindowSet) -> None:
    test, truth = np.arange(len(named)), named.labels
    answers = [
        Answers("teacher", "session", test, gestures=np.where(truth < 0, 0, truth), zero_shot=np.zeros_like(truth))
    ]
    found = judge(named, answers, "d", hold_out=("fist",))
    assert found.value("teacher", "session", "balanced_accuracy") == 1.0
    assert found.value("teacher", "session", "zero_shot_balanced_accuracy") == 1.0
    assert found.value("teacher", "session", "zero_shot_unseen_balanced_accuracy") == 0.0
    ((_, seen, held),) = [[sum(row) for row in table["counts"]] for table in found.confusions]
    assert (seen, held) == (int((truth == 1).sum()), 0)


def test_decision_for_a_gesture_that_the_recordings_lack_is_wrong_and_named(named: WindowSet) -> None:
    test = np.arange(len(named))
    head = make_head("linear", ["wave", "rest"], np.array([[1.0, 0], [0, 1]], np.float32), np.zeros(2, np.float32))
    one = answer("student", "session", named, test, np.tile(np.float32([[1.0, 0.0]]), (len(test), 1)), [head])
    assert one.gestures is not None
    assert set(one.gestures) == {-1}
    found = judge(named, [one], "d")
    assert found.value("student", "session", "balanced_accuracy") == 0.0
    (table,) = found.confusions
    assert table["gestures"] == ["rest", "M4", "fist", ELSE]
    assert [row[-1] for row in table["counts"]] == [int((named.labels == label).sum()) for label in (0, 1, 2)] + [0]


def test_every_wearer_weighs_the_same(named: WindowSet) -> None:
    test = np.concatenate(
        [np.flatnonzero(named.wearers == 0), np.flatnonzero((named.wearers == 1) & (named.labels == 2))]
    )
    decided = np.where(named.wearers[test] == 0, np.maximum(named.labels[test], 0), 0)
    found = judge(named, [Answers("student", "wearer", test, gestures=decided)], "d")
    assert found.value("student", "wearer", "accuracy") == 0.5
    assert [row["value"] for row in found.per_wearer if row["metric"] == "accuracy"] == [1.0, 0.0]


def test_int8_is_compared_with_its_float_twin(named: WindowSet) -> None:
    test = np.flatnonzero(named.labels >= 0)
    rng = np.random.default_rng(0)
    floats = rng.standard_normal((len(test), 5)).astype(np.float32)
    decided = named.labels[test].copy()
    flipped = decided.copy()
    flipped[::10] = (flipped[::10] + 1) % 3
    found = judge(
        named,
        [
            Answers("student", "session", test, gestures=decided, embeddings=floats),
            Answers("student_int8", "session", test, gestures=flipped, embeddings=floats + 3.0),
        ],
        "d",
    )
    assert found.value("student_int8", "session", "class_flips") == pytest.approx(0.1, abs=0.01)
    assert found.value("student_int8", "session", "mean_removed_error") == pytest.approx(0.0, abs=1e-6)
    assert found.value("student", "session", "class_flips") is None


def test_folds_are_joined_and_what_one_lacks_all_lack() -> None:
    one = Answers("student", "wearer", np.array([0, 1]), gestures=np.array([1, 1]), zero_shot=np.array([0, 0]))
    two = Answers("student", "wearer", np.array([2]), gestures=np.array([0]))
    both = joined([one, two])
    assert both.test.tolist() == [0, 1, 2]
    assert both.gestures is not None
    assert both.gestures.tolist() == [1, 1, 0]
    assert both.zero_shot is None


def test_angles_are_judged_wearer_by_wearer(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    windows = cut([recording(wearer, tracked=True, labelled=False) for wearer in "ab"])
    test = np.arange(len(windows))
    truth = windows.poses(test)[:, -1]
    angles = np.where((windows.wearers == 0)[:, None], truth, 0.0).astype(np.float32)
    found = judge(windows, [Answers("ridge", "session", test, angles=angles)], "d")
    values = {row["wearer"]: row["value"] for row in found.per_wearer}
    assert values["a"] == pytest.approx(1.0)
    assert values["b"] < 0.2


def test_forms_of_a_student_are_judged_as_the_report_judges_them(named: WindowSet) -> None:
    """A student that decides rightly for what it was trained on, and cannot choose the gesture that was held out."""
    which = np.flatnonzero(named.labels >= 0)
    held_out = named.gestures.index("fist")
    says = np.where(named.labels[which] == held_out, 0, named.labels[which])
    rows = np.eye(3, dtype=np.float32)
    student: Any = SimpleNamespace(heads=(make_head("linear", named.gestures, rows, np.zeros(3, np.float32)),))
    assert balanced_accuracy_of(student, named, which, rows[says], ()) == pytest.approx(2 / 3)
    assert balanced_accuracy_of(student, named, which, rows[says], ("fist",)) == 1.0
