"""Ranges from what activations hold: each observer by its own criterion, whatever the chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embridge_edge.compression.observers import (
    MOVING,
    OBSERVERS,
    STEPS,
    Observed,
    Observer,
    Range,
    observe,
    range_of,
    squared_error,
)
from embridge_edge.errors import EdgeError

Floats = npt.NDArray[np.float32]

WINDOWS = arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 40)), elements=st.floats(-100, 100, width=32))


def seen(windows: Floats, chunk: int = 4) -> Observed:
    def passes() -> Iterator[Mapping[str, Floats]]:
        return ({"x": windows[start : start + chunk]} for start in range(0, len(windows), chunk))

    return observe(passes)["x"]


def real_error(values: Floats, one: Range) -> float:
    """Mean squared error of values that int8 rounds and clips, value by value."""
    scale = (one[1] - one[0]) / STEPS
    rounded = one[0] + scale * np.round((np.clip(values, *one) - one[0]) / scale)
    return float(np.mean(np.square(values - rounded)))


@given(windows=WINDOWS, observer=st.sampled_from(OBSERVERS))
@settings(max_examples=120, deadline=None)
def test_every_range_holds_zero_and_never_more_than_all_values(windows: Floats, observer: Observer) -> None:
    low, high = range_of(seen(windows), observer)
    assert min(0.0, windows.min()) - 1e-4 <= low <= 0.0 <= high <= max(0.0, windows.max()) + 1e-4
    assert type(low) is float and type(high) is float


@given(windows=WINDOWS, chunk=st.integers(1, 6), observer=st.sampled_from(OBSERVERS))
@settings(max_examples=60, deadline=None)
def test_chunks_do_not_matter(windows: Floats, chunk: int, observer: Observer) -> None:
    assert range_of(seen(windows, chunk), observer) == range_of(seen(windows, len(windows)), observer)


@given(WINDOWS)
@settings(max_examples=60, deadline=None)
def test_minmax_and_moving_average_are_what_their_names_say(windows: Floats) -> None:
    assert range_of(seen(windows), "minmax") == (min(0.0, windows.min()), max(0.0, windows.max()))
    low, high = (getattr(windows[0], end)().astype(float) for end in ("min", "max"))
    for window in windows[1:]:
        low, high = MOVING * low + (1 - MOVING) * window.min(), MOVING * high + (1 - MOVING) * window.max()
    assert range_of(seen(windows), "moving_average") == pytest.approx((min(0.0, low), max(0.0, high)))


def heavy(count: int = 20_000, seed: int = 0) -> Floats:
    """Values as EMG has them: rare ones are many times the usual."""
    return np.random.default_rng(seed).standard_t(2.5, (count // 100, 100)).astype(np.float32)


@pytest.mark.parametrize("share", [0.99, 0.999, 0.9999])
def test_percentile_leaves_out_that_share_of_the_values(share: float) -> None:
    values = heavy()
    low, high = range_of(seen(values), "percentile", share)
    inside = np.mean((values >= low) & (values <= high))
    assert share <= inside <= share + 0.5 * (1 - share) + 1e-4
    if share < 0.9999:
        assert high < values.max() and low > values.min()


def test_a_one_sided_activation_is_cut_at_its_end_only() -> None:
    values = np.maximum(heavy(), 0.0)
    for observer in OBSERVERS:
        assert range_of(seen(values), observer)[0] == 0.0


def test_least_squared_error_is_the_least_that_counting_values_one_by_one_finds() -> None:
    values = np.random.default_rng(0).standard_normal((200, 500)).astype(np.float32)
    values[0, 0] = 20.0  # one value of a hundred thousand
    one = seen(values)
    best, whole = range_of(one, "mse"), range_of(one, "minmax")
    assert best[1] < 19.0 and real_error(values, best) < 0.9 * real_error(values, whole)
    for candidate in ((best[0] * a, best[1] * b) for a in (0.8, 1.0, 1.25) for b in (0.8, 1.0, 1.25)):
        assert real_error(values, best) <= 1.02 * real_error(values, candidate)
    assert squared_error(one, whole) == pytest.approx(real_error(values, whole), rel=0.1)


def test_even_values_are_not_clipped_by_their_error() -> None:
    values = np.random.default_rng(1).uniform(-3.0, 5.0, (100, 500)).astype(np.float32)
    low, high = range_of(seen(values), "mse")
    assert low == pytest.approx(values.min(), rel=0.04) and high == pytest.approx(values.max(), rel=0.04)


def test_entropy_cuts_rare_values_and_keeps_the_bulk() -> None:
    values = heavy(200_000)
    low, high = range_of(seen(values), "entropy")
    assert np.percentile(values, 90) < high < values.max() and values.min() < low < np.percentile(values, 10)


def test_silence_has_a_range_of_nothing() -> None:
    for observer in OBSERVERS:
        assert range_of(seen(np.zeros((3, 4), np.float32)), observer) == (0.0, 0.0)


def test_what_cannot_be_is_one_line() -> None:
    with pytest.raises(EdgeError, match="Unknown observer 'median'; choose one of minmax"):
        range_of(seen(heavy()), "median")  # type: ignore[arg-type]
    with pytest.raises(EdgeError, match=r"keeps a share of 1\.5"):
        range_of(seen(heavy()), "percentile", 1.5)
    with pytest.raises(EdgeError, match="never observed"):
        range_of(Observed(), "minmax")


@pytest.mark.parametrize("observer", OBSERVERS)
def test_infinity_of_a_padded_maximum_says_nothing_and_nan_is_refused(observer: Observer) -> None:
    windows = np.random.default_rng(0).standard_normal((6, 40)).astype(np.float32)
    padded = np.concatenate([windows, np.full((6, 3), -np.inf, np.float32)], axis=1)
    assert range_of(seen(padded), observer) == pytest.approx(range_of(seen(windows), observer))
    windows[3, 5] = np.nan
    with pytest.raises(EdgeError, match="holds no finite value"):
        range_of(seen(windows), observer)
