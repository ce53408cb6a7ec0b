"""Rows of an arm: every metric asks what its name says, of each wearer alone."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.preprocessing import StandardScaler

from embridge_edge.errors import EdgeError
from embridge_edge.learning import linear_probe
from embridge_edge.learning.evaluation import Embedded, Score, at_share, averaged, evaluate, harmonic_mean
from embridge_edge.learning.linear_probe import fit_probe
from embridge_edge.learning.zero_shot import PoseLibrary

UNSEEN = np.array([3, 4])
NAMES = ("ann", "bob", "cyd")
GESTURES = 5


def embedded(seed: int, n: int = 300, wearers: tuple[int, ...] = (0, 1, 2), noise: float = 1.0) -> Embedded:
    """Five gestures, each noise around its own corner."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(GESTURES, size=n)
    rows = 2.0 * np.eye(GESTURES, 8)[labels] + noise * rng.standard_normal((n, 8))
    return Embedded(rows.astype(np.float32), labels, rng.choice(wearers, size=n))


LIBRARY = PoseLibrary(np.eye(GESTURES, 8, dtype=np.float32), np.arange(GESTURES))


def by_name(rows: list[Score], group: str) -> Mapping[tuple[str, str], float]:
    found = {(row.metric, row.wearer): row.value for row in rows if row.group == group}
    assert len(found) == sum(row.group == group for row in rows)
    return found


def test_every_row_is_what_a_few_lines_of_scikit_learn_give() -> None:
    train, test = embedded(0), embedded(1)
    rows = evaluate("embridge", 7, train, {"seen_wearers": test}, LIBRARY, UNSEEN, NAMES)
    found = by_name(rows, "seen_wearers")
    assert {(row.arm, row.seed) for row in rows} == {("embridge", 7)}
    names = ["lp_seen", "lp_unseen", "zs_seen", "zs_unseen", "zs_all_seen", "zs_all_unseen", "zs_harmonic"]
    assert {metric for metric, _ in found} == {name + suffix for name in names for suffix in ("", "_f1")}
    hidden = np.isin(test.labels, UNSEEN)
    scaler = StandardScaler().fit(train.embeddings[~np.isin(train.labels, UNSEEN)])
    probe = LogisticRegression(C=1.0, class_weight="balanced", max_iter=300).fit(
        scaler.transform(train.embeddings[~np.isin(train.labels, UNSEEN)]),
        train.labels[~np.isin(train.labels, UNSEEN)],
    )
    for place, name in enumerate(NAMES):
        own = (test.wearers == place) & ~hidden
        decided = probe.predict(scaler.transform(test.embeddings[own]))
        assert found["lp_seen", name] == pytest.approx(balanced_accuracy_score(test.labels[own], decided))
        assert found["lp_seen_f1", name] == pytest.approx(f1_score(test.labels[own], decided, average="macro"))
        nearest = np.argmax(test.embeddings[:, :GESTURES], axis=1)
        assert found["zs_all_seen", name] == pytest.approx(balanced_accuracy_score(test.labels[own], nearest[own]))
        own = (test.wearers == place) & hidden
        among = 3 + np.argmax(test.embeddings[own][:, 3:5], axis=1)
        assert found["zs_unseen", name] == pytest.approx(balanced_accuracy_score(test.labels[own], among))
        parts = found["zs_all_seen", name], found["zs_all_unseen", name]
        assert found["zs_harmonic", name] == pytest.approx(2 / (1 / parts[0] + 1 / parts[1]))


def test_unseen_wearers_are_judged_by_the_same_probe() -> None:
    train = embedded(0, wearers=(0, 1))
    tests = {"seen_wearers": embedded(1, wearers=(0, 1)), "unseen_wearers": embedded(2, wearers=(2,))}
    rows = evaluate("a", 0, train, tests, LIBRARY, UNSEEN, NAMES)
    assert {wearer for _, wearer in by_name(rows, "unseen_wearers")} == {"cyd"}
    alone = evaluate("a", 0, train, {"unseen_wearers": tests["unseen_wearers"]}, LIBRARY, UNSEEN, NAMES)
    assert alone == [row for row in rows if row.group == "unseen_wearers"]


def test_without_poses_there_is_no_zero_shot_row() -> None:
    rows = evaluate("supervised", 0, embedded(0), {"seen_wearers": embedded(1)}, None, UNSEEN, NAMES)
    assert {row.metric for row in rows} == {"lp_seen", "lp_unseen", "lp_seen_f1", "lp_unseen_f1"}


def test_gesture_without_a_pose_is_left_out_of_zero_shot_and_stays_in_the_probe() -> None:
    test = embedded(1)
    library = LIBRARY.only(np.array([0, 1, 3, 4]))
    found = by_name(evaluate("a", 0, embedded(0), {"g": test}, library, UNSEEN, NAMES), "g")
    own = (test.wearers == 0) & np.isin(test.labels, [0, 1])
    expected = balanced_accuracy_score(test.labels[own], np.argmax(test.embeddings[own][:, :2], axis=1))
    assert found["zs_seen", "ann"] == pytest.approx(expected)
    assert ("lp_seen", "ann") in found


def test_one_unseen_gesture_is_judged_among_all_but_not_alone() -> None:
    rows = evaluate("a", 0, embedded(0), {"g": embedded(1)}, LIBRARY, np.array([4]), NAMES)
    metrics = {row.metric for row in rows}
    assert {"zs_all_unseen", "zs_harmonic"} <= metrics
    assert not {"zs_unseen", "lp_unseen"} & metrics


def test_a_wearer_without_windows_has_no_row() -> None:
    rows = evaluate("a", 0, embedded(0), {"g": embedded(1, wearers=(1,))}, LIBRARY, UNSEEN, NAMES)
    assert {row.wearer for row in rows} == {"bob"}
    empty = embedded(1).only(np.zeros(300, bool))
    assert evaluate("a", 0, embedded(0), {"g": empty}, LIBRARY, UNSEEN, NAMES) == []


def test_evaluation_is_repeatable() -> None:
    first, second = (evaluate("a", 0, embedded(0), {"g": embedded(1)}, LIBRARY, UNSEEN, NAMES) for _ in range(2))
    assert first == second


def test_probe_weighs_gestures_alike_whatever_their_frequency() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [970, 30])
    rows = (labels[:, None] + rng.standard_normal((1000, 1))).astype(np.float32)
    probe = fit_probe(rows, labels, np.zeros(1000, np.int64))
    edge = -(probe.bias[1] - probe.bias[0]) / (probe.weights[1, 0] - probe.weights[0, 0])
    assert edge == pytest.approx(0.5, abs=0.2)
    np.testing.assert_allclose(np.exp(probe.log_probabilities(rows)).sum(axis=1), 1.0)


def test_probe_is_fitted_on_an_even_draw_where_there_are_too_many_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(linear_probe, "MOST_WINDOWS", 60)
    real = linear_probe._logistic
    monkeypatch.setattr(linear_probe, "_logistic", lambda x, y: seen.append(np.bincount(y)) or real(x, y))
    train = embedded(0)
    fit_probe(train.embeddings, train.labels, train.wearers)
    assert seen[0].tolist() == [12] * 5


def test_probe_of_one_gesture_decides_for_it_and_of_none_is_one_line() -> None:
    rows = np.ones((4, 2), np.float32)
    probe = fit_probe(rows, np.full(4, 9), np.zeros(4, np.int64))
    assert probe.decide(rows).tolist() == [9] * 4
    with pytest.raises(EdgeError, match="No window to fit"):
        fit_probe(rows[:0], np.zeros(0, np.int64), np.zeros(0, np.int64))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"embeddings": np.full((4, 2), np.nan, np.float32)}, "NaN or infinity"),
        ({"labels": np.array([0, 1, -1, 0])}, "unlabelled window"),
        ({"labels": np.zeros(3, np.int64)}, "do not go with 3 labels"),
    ],
)
def test_arrays_that_cannot_be_judged_are_one_line(change: dict[str, np.ndarray], says: str) -> None:
    right = {"embeddings": np.zeros((4, 2), np.float32), "labels": np.zeros(4, np.int64), "wearers": np.zeros(4, int)}
    Embedded(**right)
    with pytest.raises(EdgeError, match=says):
        Embedded(**right | change)


@given(st.floats(0, 1), st.floats(0, 1))
def test_harmonic_mean_lies_between_and_near_the_smaller(one: float, other: float) -> None:
    mean = harmonic_mean(one, other)
    assert min(one, other) * (1 - 1e-9) <= mean <= (one * other) ** 0.5 * (1 + 1e-9) or mean == 0.0
    assert (mean == 0.0) == (one == 0 or other == 0 or one * other == 0.0)


def test_rows_of_several_divisions_become_each_wearers_mean() -> None:
    rows = [Score("a", 0, "g", "zs_unseen", "ann", value) for value in (0.2, 0.4, 0.9)]
    rows += [Score("a", 0, "g", "zs_unseen", "bob", 0.3), Score("a", 1, "g", "zs_unseen", "ann", 1.0)]
    found = averaged(rows)
    assert {(row.seed, row.wearer): pytest.approx(row.value) for row in found} == {
        (0, "ann"): 0.5,
        (0, "bob"): 0.3,
        (1, "ann"): 1.0,
    }


def test_rows_of_a_share_name_it() -> None:
    assert at_share([Score("a", 0, "g", "zs_unseen", "ann", 0.5)], 0.4)[0].metric == "zs_unseen@40"
