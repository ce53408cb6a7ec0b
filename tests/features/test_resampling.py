"""The even grid: what interpolation promises, breaks where the clock jumps, and the same in chunks of any size."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import BarycentricInterpolator

from embridge_edge.errors import EdgeError
from embridge_edge.features.resampling import Resampled, Resampler, resample


def jittered(samples: int, jitter: float, seed: int = 0) -> np.ndarray:
    return np.arange(samples) + np.random.default_rng(seed).uniform(-jitter, jitter, samples)


@given(
    gaps=st.lists(
        st.one_of(
            st.floats(0.3, 1.8),
            st.sampled_from([0.0, 1e-9, -0.3, 3.0, 3.01, 50.0, -50.0, np.nan, np.inf]),
        ),
        max_size=60,
    ),
    cuts=st.lists(st.integers(0, 60), max_size=10),
    rate_hz=st.sampled_from([0.3, 1.0, 7.3]),
    bad=st.sets(st.integers(0, 59), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_chunks_give_what_the_whole_gives(gaps: list[float], cuts: list[int], rate_hz: float, bad: set[int]) -> None:
    steps = np.array(gaps)
    time = np.cumsum(np.where(np.isfinite(steps), steps, 1.0))
    time[~np.isfinite(steps)] = steps[~np.isfinite(steps)]
    samples = np.random.default_rng(1).standard_normal((len(time), 2)).astype(np.float32)
    for index in bad:
        samples[index : index + 1, 1] = np.nan
    whole = resample(time, samples, rate_hz, 3.0)
    resampler = Resampler(rate_hz, 2, 3.0)
    edges = [0, *sorted(min(cut, len(time)) for cut in cuts), len(time)]
    parts = [resampler.push(time[start:stop], samples[start:stop]) for start, stop in itertools.pairwise(edges)]
    parts.append(resampler.finish())
    np.testing.assert_array_equal(np.concatenate([part.values for part in parts]), whole.values)
    np.testing.assert_array_equal(np.concatenate([part.time for part in parts]), whole.time)
    np.testing.assert_array_equal(np.concatenate([part.breaks for part in parts]), whole.breaks)
    assert np.isfinite(whole.values[:, 0]).all()
    assert np.isfinite(whole.time).all()
    # Within a stretch the grid is even; no stretch reaches beyond its samples.
    inside = np.setdiff1d(np.arange(1, len(whole.time)), whole.breaks)
    np.testing.assert_allclose(whole.time[inside] - whole.time[inside - 1], 1.0 / rate_hz, atol=1e-9)
    bound = 4.0 * np.nanmax(np.abs(samples), initial=0.0) * (1 + 1e-5)
    assert np.abs(whole.values[:, 0]).max(initial=0.0) <= bound


@pytest.mark.parametrize(("band", "limit_db"), [(0.1, -100.0), (0.2, -58.0), (0.3, -34.0), (0.4, -18.0)])
def test_error_on_band_limited_signals_is_the_documented_one(band: float, limit_db: float) -> None:
    rng = np.random.default_rng(0)
    frequencies, phases = rng.uniform(0, band, 60), rng.uniform(0, 2 * np.pi, 60)

    def sinusoids(time: np.ndarray) -> np.ndarray:
        return np.cos(2 * np.pi * np.outer(time, frequencies) + phases).sum(axis=1)[:, None] / np.sqrt(30)

    time = jittered(4000, 0.2)
    made = resample(time, sinusoids(time).astype(np.float32), 1.37, 5.0)
    exact = sinusoids(made.time)
    inner = slice(20, -20)
    error_db = 10 * np.log10(np.mean((made.values - exact)[inner] ** 2) / np.mean(exact[inner] ** 2))
    assert error_db < limit_db
    lines = np.interp(made.time, time, sinusoids(time)[:, 0])[:, None]
    assert error_db < 10 * np.log10(np.mean((lines - exact)[inner] ** 2) / np.mean(exact[inner] ** 2)) - 6.0


def test_values_are_those_of_the_polynomial_through_eight_samples() -> None:
    time = jittered(40, 0.2, seed=3)
    samples = np.random.default_rng(4).standard_normal((40, 1)).astype(np.float32)
    made = resample(time, samples, 2.0, 5.0)
    for at, value in zip(made.time, made.values[:, 0], strict=True):
        left = int(np.searchsorted(time, at, side="right")) - 1
        if 3 <= left <= 35 and at not in time:
            around = slice(left - 3, left + 5)
            expected = BarycentricInterpolator(time[around], samples[around, 0])(at)
            assert value == pytest.approx(float(expected), abs=1e-5)


def test_even_clock_comes_out_as_it_went_in() -> None:
    samples = np.random.default_rng(0).standard_normal((300, 3)).astype(np.float32)
    made = resample(7.0 + np.arange(300) / 256.0, samples, 256.0, 0.1)
    np.testing.assert_array_equal(made.values, samples)
    assert made.breaks.tolist() == []


def test_gap_is_a_break_and_is_not_bridged() -> None:
    time = np.concatenate([np.arange(50) / 100.0, 2.003 + np.arange(30) / 100.0, 1.0 + np.arange(20) / 100.0])
    samples = np.arange(100, dtype=np.float32)[:, None]
    made = resample(time, samples, 100.0, 0.05)
    assert made.breaks.tolist() == [50, 80]
    np.testing.assert_allclose(made.time, time, atol=1e-9)
    np.testing.assert_allclose(made.values, samples, atol=1e-3)
    near = resample(time[:80], samples[:80], 100.0, 5.0)
    assert near.breaks.tolist() == []
    assert len(near.values) == 230


def test_samples_that_are_late_or_without_a_time_are_dropped_and_counted() -> None:
    time = np.array([0.0, 1.0, 1.0, np.nan, 2.0, 1.5, 3.0, np.inf, 4.0])
    resampler = Resampler(1.0, 1, 2.5)
    first = resampler.push(time, np.arange(9, dtype=np.float32)[:, None])
    last = resampler.finish()
    assert resampler.dropped == 4
    assert np.concatenate([first.values, last.values])[:, 0].tolist() == [0.0, 1.0, 4.0, 6.0, 8.0]


def test_bad_value_stays_in_its_channel_and_near_its_time() -> None:
    samples = np.ones((60, 2), np.float32)
    samples[30, 1] = np.inf
    made = resample(jittered(60, 0.1), samples, 1.0, 5.0)
    assert np.isfinite(made.values[:, 0]).all()
    lost = np.flatnonzero(np.isnan(made.values[:, 1]))
    assert 1 <= len(lost) <= 9
    assert np.isfinite(np.delete(made.values[:, 1], lost)).all()


def test_lag_is_four_samples() -> None:
    resampler = Resampler(100.0, 1, 1.0)
    made = [len(resampler.push(np.array([index / 100.0]), np.zeros((1, 1), np.float32)).values) for index in range(20)]
    assert made == [0] * 4 + [1] * 16
    assert len(resampler.finish().values) == 4


def test_nothing_gives_nothing() -> None:
    made = resample(np.zeros(0), np.zeros((0, 2), np.float32), 100.0, 1.0)
    assert isinstance(made, Resampled)
    assert made.values.shape == (0, 2)
    alone = resample(np.array([5.0]), np.full((1, 1), 3.0, np.float32), 100.0, 1.0)
    assert (alone.time.tolist(), alone.values.tolist()) == ([5.0], [[3.0]])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Resampler(0.0, 1, 1.0),
        lambda: Resampler(100.0, 0, 1.0),
        lambda: Resampler(100.0, 1, 0.0),
        lambda: Resampler(100.0, 1, float("inf")),
        lambda: Resampler(100.0, 2, 1.0).push(np.zeros(3), np.zeros((3, 1), np.float32)),
        lambda: Resampler(100.0, 2, 1.0).push(np.zeros(2), np.zeros((3, 2), np.float32)),
        lambda: resample(np.zeros(3), np.zeros(3, np.float32), 100.0, 1.0),
    ],
)
def test_impossible_parameters_are_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(EdgeError) as caught:
        make()
    assert "\n" not in str(caught.value)
