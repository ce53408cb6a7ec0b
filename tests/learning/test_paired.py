"""Differences in pairs: intervals equal a slow bootstrap's, cover what they promise, and say nothing without wearers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.learning.evaluation import Score
from embridge_edge.learning.paired import paired_difference, paired_differences, summary


def rows(arm: str, values: np.ndarray) -> list[Score]:
    """`values[wearer, seed]`."""
    return [
        Score(arm, seed, "g", "zs_unseen", f"w{wearer}", float(value))
        for (wearer, seed), value in np.ndenumerate(values)
        if np.isfinite(value)
    ]


def difference(ours: np.ndarray, theirs: np.ndarray):  # type: ignore[no-untyped-def]
    return paired_difference([*rows("a", ours), *rows("b", theirs)], "a", "b", "g", "zs_unseen")


def test_interval_is_that_of_a_slow_two_way_bootstrap() -> None:
    gaps = np.random.default_rng(0).normal(0.05, 0.1, (6, 3))
    found = difference(gaps, np.zeros_like(gaps))
    rng = np.random.default_rng(1)
    draws = [gaps[np.ix_(rng.integers(6, size=6), rng.integers(3, size=3))].mean() for _ in range(20_000)]
    assert found.value == pytest.approx(gaps.mean())
    assert (found.ci_low, found.ci_high) == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.004)
    assert (found.wearers, found.seeds) == (6, 3)


@given(st.integers(3, 8), st.integers(1, 4), st.integers(0, 1000), st.floats(-0.3, 0.3))
@settings(max_examples=30, deadline=None)
def test_verdict_follows_from_the_interval_and_turns_with_the_sign(
    wearers: int, seeds: int, seed: int, shift: float
) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.random((wearers, seeds)) + shift, rng.random((wearers, seeds))
    found, back = difference(ours, theirs), difference(theirs, ours)
    expected = "above" if found.ci_low > 0 else "below" if found.ci_high < 0 else "no difference"
    assert found.verdict == expected
    assert back.value == pytest.approx(-found.value)
    assert (back.ci_low, back.ci_high) == pytest.approx((-found.ci_high, -found.ci_low))
    assert {"above": "below", "below": "above"}.get(found.verdict, found.verdict) == back.verdict


def test_pairing_takes_out_what_wearers_and_seeds_share() -> None:
    rng = np.random.default_rng(0)
    common = rng.normal(0.5, 0.3, (8, 3))
    assert difference(common + 0.01, common).verdict == "above"
    assert difference(common, rng.permutation(common)).verdict == "no difference"


@pytest.mark.slow
def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Wearers and seeds drawn anew each time; ten of each, so that the bootstrap is not too narrow."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        gaps = 0.1 + rng.normal(0, 0.1, (10, 1)) + rng.normal(0, 0.1, (1, 10)) + rng.normal(0, 0.1, (10, 10))
        found = difference(gaps, np.zeros_like(gaps))
        hits += found.ci_low <= 0.1 <= found.ci_high
    assert 172 <= hits <= 198


def test_fewer_than_three_wearers_have_a_difference_but_no_verdict() -> None:
    found = difference(np.full((2, 3), 0.9), np.full((2, 3), 0.1))
    assert found.value == pytest.approx(0.8)
    assert (found.ci_low, found.ci_high, found.verdict) == (None, None, "too few wearers")


def test_only_what_both_have_counts() -> None:
    ours, theirs = np.full((4, 3), 0.6), np.full((4, 3), 0.5)
    ours[:, 2] = np.nan  # a seed that the arm was not trained with
    theirs[3, 0] = np.nan  # a wearer who lacks a seed
    found = difference(ours, theirs)
    assert (found.wearers, found.seeds) == (3, 2)
    assert found.value == pytest.approx(0.1)
    assert paired_difference(rows("a", ours), "a", "b", "g", "zs_unseen") is None


def test_pairs_without_rows_are_left_out() -> None:
    scores = [*rows("a", np.ones((3, 1))), *rows("b", np.zeros((3, 1)))]
    found = paired_differences(scores, [("a", "b"), ("a", "c")], "g", "zs_unseen")
    assert [(one.arm, one.reference) for one in found] == [("a", "b")]


def test_summary_is_the_mean_over_wearers_and_the_deviation_over_seeds() -> None:
    values = np.random.default_rng(0).random((5, 3))
    found = summary(rows("a", values), "a", "g", "zs_unseen")
    assert found is not None
    assert found.mean == pytest.approx(values.mean())
    assert found.deviation == pytest.approx(values.mean(axis=0).std(ddof=1))
    assert found.by_wearer == pytest.approx({f"w{place}": row.mean() for place, row in enumerate(values)})
    assert (found.seeds, found.wearers) == (3, 5)
    one = summary(rows("a", values[:, :1]), "a", "g", "zs_unseen")
    assert one is not None and one.deviation is None
    assert summary([], "a", "g", "zs_unseen") is None
