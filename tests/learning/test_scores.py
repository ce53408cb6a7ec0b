"""Scores equal those of scikit-learn where it has them, and keep their promises where it has not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from embridge_edge.learning import scores

pytestmark = pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")

decisions = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 4), min_size=n, max_size=n), st.lists(st.integers(0, 4), min_size=n, max_size=n)
    )
)


@given(decisions)
@settings(max_examples=60, deadline=None)
def test_decisions_are_scored_as_by_scikit_learn(drawn: tuple[list[int], list[int]]) -> None:
    truth, decided = (np.array(side, np.int64) for side in drawn)
    assert scores.balanced_accuracy(truth, decided) == pytest.approx(metrics.balanced_accuracy_score(truth, decided))
    labels = np.unique(truth)
    assert scores.macro_f1(truth, decided) == pytest.approx(
        metrics.f1_score(truth, decided, labels=labels, average="macro", zero_division=0)
    )
    np.testing.assert_array_equal(
        scores.confusion(truth, decided, 5), metrics.confusion_matrix(truth, decided, labels=range(5))
    )


def test_nothing_to_score_is_nan() -> None:
    none = np.zeros(0, np.int64)
    assert np.isnan(scores.balanced_accuracy(none, none))
    assert np.isnan(scores.macro_f1(none, none))


def test_r2_equals_scikit_learns_where_angles_vary() -> None:
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((50, 4)).astype(np.float32)
    predicted = (truth + 0.5 * rng.standard_normal((50, 4))).astype(np.float32)
    assert scores.r2(truth, predicted) == pytest.approx(metrics.r2_score(truth, predicted), rel=1e-5)
    truth[:, 1] = 0.3  # constant: no share of a variance that is not there
    kept = [0, 2, 3]
    assert scores.r2(truth, predicted) == pytest.approx(metrics.r2_score(truth[:, kept], predicted[:, kept]), rel=1e-5)
    truth[:, 2] = np.nan
    truth[:10, 0] = np.nan
    expected = np.mean(
        [metrics.r2_score(truth[10:, 0], predicted[10:, 0]), metrics.r2_score(truth[:, 3], predicted[:, 3])]
    )
    assert scores.r2(truth, predicted) == pytest.approx(expected, rel=1e-5)


def test_angle_that_a_model_does_not_read_leaves_the_others_their_score() -> None:
    truth = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    predicted = truth.copy()
    predicted[:, 1] = np.nan
    assert scores.r2(truth, predicted) == pytest.approx(1.0)
    assert np.isnan(scores.r2(truth, np.full_like(truth, np.nan)))


@given(shift=st.floats(-1e3, 1e3, width=32), scale=st.floats(0.125, 128, width=32), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_mean_removed_error_ignores_what_all_inputs_share(shift: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.standard_normal((80, 6)).astype(np.float32)
    other = reference + 0.1 * rng.standard_normal((80, 6)).astype(np.float32)
    error = scores.mean_removed_error(reference, other)
    assert 0.05 < error < 0.2
    offset = np.float32(shift) * np.arange(6, dtype=np.float32)
    assert scores.mean_removed_error(reference + offset, other - offset) == pytest.approx(error, rel=0.02)
    assert scores.mean_removed_error(scale * reference, scale * other) == pytest.approx(error, rel=1e-3)


def test_mean_removed_error_of_a_constant_output_is_one_and_of_an_equal_one_zero() -> None:
    reference = 100 + np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    assert scores.mean_removed_error(reference, reference) == 0.0
    constant = np.broadcast_to(reference.mean(axis=0), reference.shape).astype(np.float32)
    assert scores.mean_removed_error(reference, constant) == pytest.approx(1.0, rel=1e-3)
    assert np.isnan(scores.mean_removed_error(np.ones((5, 2), np.float32), np.ones((5, 2), np.float32)))


def test_interval_is_by_bootstrap_over_wearers_and_repeatable() -> None:
    values = np.array([0.2, 0.5, 0.6, 0.9, np.nan])
    one = scores.summarise("lda", "d", "session", "accuracy", values, 1000, seed=3)
    assert one == scores.summarise("lda", "d", "session", "accuracy", values, 1000, seed=3)
    assert one.value == pytest.approx(0.55)
    assert one.n_groups == 4
    assert one.n == 1000
    assert one.spread == pytest.approx(np.std(values[:4], ddof=1))
    assert one.ci_low is not None and one.ci_high is not None
    assert 0.2 < one.ci_low < one.value < one.ci_high < 0.9
    # The interval is that of the mean of four people, however many windows each has.
    assert one.ci_high - one.ci_low == pytest.approx(2 * 1.96 * np.std(values[:4]) / 2, rel=0.15)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_wearers_have_no_interval(count: int) -> None:
    found = scores.summarise("lda", "d", "session", "accuracy", np.full(count, 0.5), 10)
    assert (found.ci_low, found.ci_high) == (None, None)
    assert (found.spread is None) == (count == 1)


def test_a_wearer_with_many_windows_weighs_no_more() -> None:
    wearers = np.array([0] * 99 + [7])
    right = np.array([1.0] * 99 + [0.0])
    np.testing.assert_array_equal(scores.per_wearer(wearers, lambda own: float(right[own].mean())), [1.0, 0.0])
