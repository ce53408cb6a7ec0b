"""Rows of LDA and ridge are scikit-learn's, and rounding them to int8 changes next to no decision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE
from embridge_edge.learning.baselines import baseline_answers, lda_rows, ridge_rows, time_domain_features
from embridge_edge.learning.probes import linear_head, pose_head, probe_windows, regression_head, trained_head
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.head import Head, make_head
from embridge_edge.recordings.recording import Recording


def clouds(classes: int, seed: int = 0, width: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes of unequal size."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size=800, p=rng.dirichlet(np.full(classes, 3.0)))
    labels[:classes] = np.arange(classes)
    means = rng.standard_normal((classes, width))
    mixing = rng.standard_normal((width, width))
    return (means[labels] @ mixing + 1.2 * rng.standard_normal((800, width)) @ mixing).astype(np.float32), labels


@pytest.mark.parametrize("classes", [2, 3, 8])
def test_lda_rows_decide_as_scikit_learn_does(classes: int) -> None:
    features, labels = clouds(classes)
    weights, bias = lda_rows(features, labels, classes)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(classes, 1 / classes))
    expected = lda.fit(features.astype(np.float64), labels).predict(features.astype(np.float64))
    assert np.mean(np.argmax(features @ weights.T + bias, axis=1) == expected) >= 0.998  # float32 rows


@pytest.mark.parametrize("present", [[1], [0, 3], [0, 2, 4]])
def test_gesture_without_a_window_never_wins(present: list[int]) -> None:
    features, labels = clouds(len(present))
    named = np.array(present)[labels]
    weights, bias = lda_rows(features, named, 5)
    decided = np.argmax(100 * features @ weights.T + bias, axis=1)
    assert set(decided) <= set(present)
    head = linear_head(features, named, ("a", "b", "c", "d", "e"))
    assert set(head.decide(features)) <= set(present)
    assert np.mean(head.decide(features) == named) > (0.99 if len(present) == 1 else 0.5)


def test_dead_channel_does_no_harm() -> None:
    features, labels = clouds(3)
    features[:, 4] = 0.0
    weights, bias = lda_rows(features, labels, 3)
    assert np.isfinite(weights).all()
    assert np.mean(np.argmax(features @ weights.T + bias, axis=1) == labels) > 0.6


def test_ridge_rows_are_scikit_learns_on_standardised_features() -> None:
    features, _ = clouds(3)
    rng = np.random.default_rng(1)
    targets = (features[:, :2] @ rng.standard_normal((2, 3)) + 5).astype(np.float32)
    targets[::7, 1] = np.nan
    targets[:, 2] = np.nan
    weights, bias = ridge_rows(features, targets, strength=3.0)
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    for output in (0, 1):
        known = np.isfinite(targets[:, output])
        expected = Ridge(alpha=3.0).fit(scaled[known], targets[known, output]).predict(scaled)
        np.testing.assert_allclose(features @ weights[output] + bias[output], expected, atol=1e-3)
    assert not weights[2].any()
    assert bias[2] == 0


def test_constant_feature_gets_no_weight_from_ridge() -> None:
    features, _ = clouds(3)
    features[:, 0] = 7.0
    weights, _ = ridge_rows(features, features[:, 1:2])
    assert abs(weights[0, 0]) < 1e-9


@pytest.mark.parametrize("correlated", [0.0, 30.0])
@pytest.mark.parametrize("classes", [2, 5, 9])
def test_rounded_rows_decide_as_the_float_rows_do(classes: int, correlated: float) -> None:
    features, labels = clouds(classes, seed=classes, width=32)
    random = np.random.default_rng(classes)
    common = random.normal(size=(len(features), 4)) @ random.normal(size=(4, 32))  # large directions that tell nothing
    features = (features + correlated * common).astype(np.float32)
    weights, bias = lda_rows(features, labels, classes)
    floats = np.argmax(features @ weights.T + bias, axis=1)
    head = make_head("linear", [str(n) for n in range(classes)], weights, bias)
    assert head.rows.dtype == np.int16
    assert np.mean(head.decide(features) == floats) >= 0.99
    again = Head.from_dict(head.to_dict())
    np.testing.assert_array_equal(again.scores(features), head.scores(features))


def test_silent_row_and_unknown_kind() -> None:
    head = make_head("linear", ["a", "b"], np.array([[0.0, 0.0], [1.0, -2.0]], np.float32), np.zeros(2, np.float32))
    assert head.rows.tolist() == [[0, 0], [16384, -32767]]
    assert np.isfinite(head.scale).all()
    with pytest.raises(EdgeError, match="Unknown head 'svm'; choose from linear"):
        make_head("svm", [], np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


@pytest.mark.parametrize(
    "damage",
    [{"rows": [[300]]}, {"rows": [["x"]]}, {"scale": None}, {"names": None}, {"rows": [[1, 2]]}, {"kind": "svm"}],
)
def test_damaged_head_is_one_line(damage: dict[str, object]) -> None:
    sound = make_head("linear", ["a", "b"], np.ones((2, 3), np.float32), np.zeros(2, np.float32)).to_dict()
    with pytest.raises(EdgeError, match="damaged"):
        Head.from_dict({**sound, **damage})
    del sound["bias"]
    with pytest.raises(EdgeError, match="damaged"):
        Head.from_dict(sound)


def test_regression_head_reads_the_angles_that_vary() -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((500, 8)).astype(np.float32)
    poses = np.full((500, len(POSE)), np.nan, np.float32)
    poses[:, 5] = embeddings[:, 0]
    poses[:, 6] = 0.2
    poses[100:, 20] = -embeddings[100:, 1]
    head = regression_head(embeddings, poses)
    assert head is not None
    assert head.names == (POSE[5], POSE[20])
    np.testing.assert_allclose(head.scores(embeddings), embeddings[:, :2] * [1, -1], atol=0.05)
    assert regression_head(embeddings, np.full((500, len(POSE)), np.nan, np.float32)) is None


def test_trained_head_never_names_a_gesture_that_it_was_not_taught() -> None:
    random = np.random.default_rng(0)
    weights, bias = random.normal(size=(3, 4)).astype(np.float32), np.array([0.0, 50.0, 0.0], np.float32)
    head = trained_head(weights, bias, np.array([0, 2, 2]), ("a", "b", "c"))
    decided = head.decide(random.normal(size=(200, 4)).astype(np.float32))
    assert set(decided) == {0, 2}
    assert head.kind == "linear"
    rounded = weights - head.rows * head.scale[:, None]
    np.testing.assert_allclose(rounded[[0, 2]], 0.0, atol=head.scale.max() / 2)


def test_pose_head_leaves_gestures_without_a_pose_out() -> None:
    rows = np.eye(3, dtype=np.float32)
    rows[1] = np.nan
    head = pose_head(rows, ("rest", "M3", "fist"))
    assert head is not None
    assert head.names == ("rest", "fist")
    assert head.decide(np.array([[1, 0, 0], [0, 0, 1]], np.float32)).tolist() == [0, 1]
    assert pose_head(np.full((2, 3), np.nan, np.float32), ("M3", "M4")) is None


def test_probe_windows_are_training_windows_and_even(people: WindowSet) -> None:
    which = np.flatnonzero(people.labels >= 0)[::2]
    assert probe_windows(people, which, 10_000, 0) is which
    few = probe_windows(people, which, 30, 0)
    assert len(few) <= 30
    assert set(few) <= set(which)
    assert set(people.labels[few]) == set(people.labels[which])


def test_features_of_many_windows_come_in_batches(people: WindowSet) -> None:
    which = np.tile(np.arange(len(people)), 20)
    assert len(which) > 4096
    got = time_domain_features(people, which)
    np.testing.assert_array_equal(got[: len(people)], time_domain_features(people, np.arange(len(people))))
    np.testing.assert_array_equal(got[-len(people) :], got[: len(people)])


def test_baselines_answer_what_the_data_allow(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    labelled = cut([recording("a", session) for session in "12"])
    train, test = np.flatnonzero(labelled.sessions == 0), np.flatnonzero(labelled.sessions == 1)
    (lda,) = baseline_answers(labelled, "session", train, test)
    known = labelled.labels[test] >= 0
    assert lda.gestures is not None
    assert np.mean(lda.gestures[known] == labelled.labels[test][known]) > 0.9
    tracked = cut([recording("a", session, tracked=True, labelled=False) for session in "12"])
    train, test = np.flatnonzero(tracked.sessions == 0), np.flatnonzero(tracked.sessions == 1)
    (ridge,) = baseline_answers(tracked, "session", train, test)
    assert ridge.model == "ridge"
    assert ridge.angles is not None
    assert np.isfinite(ridge.angles).all()
