"""Burg's method gives the coefficients of the process, and the cepstrum is that of the filter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from embridge_edge.errors import EdgeError
from embridge_edge.features.prediction import prediction
from embridge_edge.features.rows import Rows


def burg(x: np.ndarray, order: int) -> np.ndarray:
    """Each stage's reflection from the errors themselves, in float64."""
    forward, backward = x[1:].astype(np.float64), x[:-1].astype(np.float64)
    a = np.ones(1)
    for _ in range(order):
        reflection = -2 * forward @ backward / (forward @ forward + backward @ backward)
        a = np.append(a, 0.0) + reflection * np.append(a, 0.0)[::-1]
        forward, backward = (forward + reflection * backward)[1:], (backward + reflection * forward)[:-1]
    return a[1:]


@given(
    length=st.integers(33, 200),
    rows=st.integers(0, 10),
    order=st.integers(1, 11),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-5, 1.0, 100.0]),
)
@settings(max_examples=60, deadline=None)
def test_coefficients(length: int, rows: int, order: int, seed: int, scale: float) -> None:
    x = (np.random.default_rng(seed).standard_normal((rows, length)) * scale).astype(np.float32)
    found = prediction(Rows.of_windows(x[:, None, :]), ["AR", "CC"], {"AR_order": order})
    assert found["AR"].shape == (rows, order)
    assert found["CC"].shape == (rows, 4)
    for row, values in zip(x, found["AR"], strict=True):
        np.testing.assert_allclose(values, burg(row, order), rtol=1e-4, atol=1e-5)


def test_a_band_limited_signal_at_a_high_rate() -> None:
    noise = np.random.default_rng(1).standard_normal((12, 1200))
    x = signal.sosfilt(signal.butter(2, [20, 450], "bandpass", fs=2000, output="sos"), noise)[:, 800:]
    x = (x * 1e-4).astype(np.float32)
    found = prediction(Rows.of_windows(x[:, None, :]), ["AR", "AR9"])
    for index, row in enumerate(x):
        np.testing.assert_allclose(found["AR"][index], burg(row, 4), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["AR9"][index], burg(row, 9), rtol=1e-4, atol=1e-4)


def test_the_process_is_found() -> None:
    a = np.array([1.0, -1.2, 0.8, -0.1])
    x = signal.lfilter([1.0], a, np.random.default_rng(0).standard_normal(30_000)).astype(np.float32)
    found = prediction(Rows.of_windows(x[None, None]), ["AR"], {"AR_order": 3})["AR"][0]
    np.testing.assert_allclose(found, a[1:], atol=0.02)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 7])
def test_cepstrum_is_that_of_the_filter(order: int) -> None:
    x = np.random.default_rng(order).standard_normal((5, 1, 100)).astype(np.float32)
    found = prediction(Rows.of_windows(x), ["AR", "CC"], {"AR_order": order, "CC_order": order})
    filters = np.concatenate([np.ones((5, 1)), found["AR"]], axis=1)
    # Twice the real cepstrum at positive times is that of a filter with all poles inside the circle.
    cepstrum = np.fft.irfft(-np.log(np.abs(np.fft.rfft(filters, 4096))) * 2, 4096)[:, 1 : order + 1]
    np.testing.assert_allclose(found["CC"], cepstrum, atol=1e-5)


@pytest.mark.parametrize("order", [1, 2, 3, 4, 7])
def test_libemgs_recursion(order: int) -> None:
    x = np.random.default_rng(order).standard_normal((5, 1, 100)).astype(np.float32)
    a = prediction(Rows.of_windows(x), ["AR"], {"AR_order": order})["AR"].astype(np.float64)
    found = prediction(Rows.of_windows(x), ["CC"], {"CC_order": order}, "libemg")["CC"]
    expected = np.zeros_like(a)
    expected[:, 0] = -a[:, 0]
    for p in range(1, order if order > 2 else 0):
        held = sum((a[:, p] * expected[:, p - k] * (1 - k / p) for k in range(1, p)), np.zeros(5))
        expected[:, p] = -a[:, p] - held
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_a_row_has_the_same_bits_alone_and_among_others(count: int) -> None:
    x = np.random.default_rng(4).standard_normal((20, 1, 50)).astype(np.float32)
    whole = prediction(Rows.of_windows(x), ["AR", "AR9", "CC"])
    part = prediction(Rows.of_windows(x[-count:]), ["AR", "AR9", "CC"])
    for name in whole:
        assert part[name].tobytes() == whole[name][-count:].tobytes()


@pytest.mark.parametrize("compat", [None, "libemg"])
def test_edges(compat: str | None) -> None:
    x = np.zeros((4, 1, 40), np.float32)
    x[1, 0, 7], x[2, 0, 39], x[3] = np.nan, np.inf, 100.0
    found = prediction(Rows.of_windows(x), ["AR", "AR9"], {}, compat)
    for name, order in (("AR", 4), ("AR9", 9)):
        assert not found[name][0].any()
        assert np.isnan(found[name][1:3]).all()
        np.testing.assert_allclose(found[name][3], [-1.0] + [0.0] * (order - 1), atol=1e-6)
    with pytest.raises(EdgeError, match="AR9 of order 9 needs windows of 10 samples"):
        prediction(Rows.of_windows(x[:, :, :9]), ["AR9"])
