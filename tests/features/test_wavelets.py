"""The decomposition is PyWavelets', rebuilt here with numpy, and the features are LibEMG's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features import wavelets
from embridge_edge.features.rows import Rows


def decompose(x: np.ndarray, levels: int) -> list[np.ndarray]:
    """Smooth part and details from the coarsest to the finest of one row, in float64."""
    low = np.array(wavelets.LOW)
    high = low[::-1] * np.array([-1, 1] * 8)
    details = []
    smooth = x.astype(np.float64)
    for _ in range(levels):
        mirrored = np.pad(smooth, 15, "symmetric")
        count = (len(smooth) + 15) // 2
        smooth, detail = (np.convolve(mirrored, taps)[16 : 16 + 2 * count : 2] for taps in (low, high))
        details.append(detail)
    return [smooth, *reversed(details)]


def features(coefficients: np.ndarray) -> dict[str, float]:
    squares = coefficients**2
    shares = squares / squares.sum()
    return {
        "WENG": np.log(squares.sum() + 1e-10),
        "WV": np.log(squares.var() + 1e-10),
        "WWL": np.log(np.abs(np.diff(squares)).sum() + 1e-10),
        "WENT": -(shares * np.log(shares)).sum(),
    }


def moves(coefficients: np.ndarray, by: float) -> dict[str, float]:
    """How far features (WENT aside, without their logarithm) may move, to the first order, where each coefficient moves `by` at most.

    A coefficient carries the rounding of those that it was computed from, which may be a thousand times as large, and squares that are
    nearly equal, as those of two samples are, leave little else in WV and WWL.
    """
    squares = coefficients**2
    energy = squares.sum()
    each = 2 * by * np.abs(coefficients) + by**2
    return {
        "WENG": each.sum(),
        "WV": 4 * energy * each.mean(),
        "WWL": 2 * each.sum(),
        "WENT": (each * (1 - np.log(squares / energy))).sum() / energy + each.sum() / energy * np.log(len(squares) + 1),
    }


def test_the_filter_is_orthonormal() -> None:
    low = np.array(wavelets.LOW)
    assert low.sum() == pytest.approx(np.sqrt(2.0), abs=1e-12)
    products = np.correlate(low, low, "full")[15::2]
    np.testing.assert_allclose(products, [1.0] + [0.0] * 7, atol=1e-11)
    # Eight vanishing moments: the high-pass filter is blind to polynomials up to the seventh power.
    high = low[::-1] * np.array([-1, 1] * 8)
    for power in range(8):
        assert abs((high * np.linspace(-1.0, 1.0, 16) ** power).sum()) < 1e-8


def test_values_of_libemg() -> None:
    """What LibEMG 2.0.3 with PyWavelets 1.9.0 gives for these samples at 200 Hz."""
    x = np.array([((i * i * 37 + 11 * i) % 53) - 26 for i in range(40)], np.float32)
    found = wavelets.wavelet(Rows.of_windows(x[None, None]), wavelets.NAMES, 200.0, "libemg")
    expected = {
        "WENG": [8.526566, 6.762981, 9.240751, 9.009009, 8.544188, 8.723259],
        "WV": [9.997242, 9.058834, 13.333828, 13.117512, 11.993481, 11.489331],
        "WWL": [7.341265, 6.89699, 8.756754, 9.292091, 8.770106, 8.541172],
        "WENT": [2.601899, 1.793429, 1.999675, 1.967541, 2.248957, 2.644501],
    }
    for name in wavelets.NAMES:
        np.testing.assert_allclose(found[name][0], expected[name], atol=2e-5)


@given(
    length=st.integers(2, 120) | st.sampled_from([400, 401]),
    rows=st.integers(0, 10),
    rate_hz=st.sampled_from([8.0, 100.0, 200.0, 2000.0]),
    seed=st.integers(0, 99),
)
@example(length=2, rows=1, rate_hz=2000.0, seed=22)
@example(length=2, rows=3, rate_hz=2000.0, seed=24)
@example(length=2, rows=1, rate_hz=2000.0, seed=8)
@settings(max_examples=50, deadline=None)
def test_any_length(length: int, rows: int, rate_hz: float, seed: int) -> None:
    x = (np.random.default_rng(seed).standard_normal((rows, length)) * 30).astype(np.float32)
    found = wavelets.wavelet(Rows.of_windows(x[:, None, :]), wavelets.NAMES, rate_hz)
    levels = wavelets.levels(rate_hz)
    assert all(found[name].shape == (rows, levels + 1) for name in wavelets.NAMES)
    for index, row in enumerate(x):
        whole = decompose(row, levels)
        largest = max(float(np.abs(coefficients).max()) for coefficients in whole)
        for column, coefficients in enumerate(whole):
            moved = moves(coefficients, 1e-6 * largest)
            for name, value in features(coefficients).items():
                if name == "WENT":
                    assert found[name][index, column] == pytest.approx(value, abs=1e-4 + moved[name])
                else:
                    exact = pytest.approx(np.exp(value), rel=1e-4, abs=1e-12 + moved[name])
                    assert np.exp(found[name][index, column]) == exact


def test_features_that_were_not_asked_for_change_nothing() -> None:
    rows = Rows.of_windows(np.random.default_rng(0).standard_normal((3, 2, 40)).astype(np.float32))
    whole = wavelets.wavelet(rows, wavelets.NAMES, 200.0)
    for name in wavelets.NAMES:
        alone = wavelets.wavelet(rows, [name], 200.0)
        assert list(alone) == [name]
        assert alone[name].tobytes() == whole[name].tobytes()


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_row_has_the_same_bits_alone_and_among_others(count: int) -> None:
    x = np.random.default_rng(4).standard_normal((20, 1, 50)).astype(np.float32)
    whole = wavelets.wavelet(Rows.of_windows(x), wavelets.NAMES, 200.0)
    part = wavelets.wavelet(Rows.of_windows(x[-count:]), wavelets.NAMES, 200.0)
    for name in whole:
        assert part[name].tobytes() == whole[name][-count:].tobytes()


def test_edges() -> None:
    x = np.zeros((4, 1, 40), np.float32)
    x[1, 0, 7], x[2, 0, 39], x[3] = np.nan, np.inf, 100.0
    found = wavelets.wavelet(Rows.of_windows(x), wavelets.NAMES, 200.0)
    for name in wavelets.NAMES:
        assert np.isfinite(found[name][[0, 3]]).all()
        assert np.isnan(found[name][1:3]).all()
    np.testing.assert_allclose(found["WENG"][0], np.log(1e-10), rtol=1e-6)
    assert not found["WENT"][0].any()
    theirs = wavelets.wavelet(Rows.of_windows(x), wavelets.NAMES, 200.0, "libemg")
    assert np.isnan(theirs["WENT"][0]).all()
    assert theirs["WV"][0].tobytes() == found["WV"][0].tobytes()
    assert [wavelets.levels(rate_hz) for rate_hz in (8.0, 200.0, 1000.0, 2000.0)] == [1, 5, 7, 8]
    with pytest.raises(EdgeError, match="7 Hz a wavelet decomposition has no level"):
        wavelets.wavelet(Rows.of_windows(x), ["WV"], 7.0)
    with pytest.raises(EdgeError, match="WENG needs windows of 2 samples"):
        wavelets.wavelet(Rows.of_windows(x[:, :, :1]), ["WENG"], 200.0)
