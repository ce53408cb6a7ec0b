"""Covariances are numpy's, their logarithms scipy's, and distances are log-Euclidean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import logm

from embridge_edge.errors import EdgeError
from embridge_edge.features import multichannel, spectra
from embridge_edge.features.rows import Rows

SHAPES = [(3, 1, 5), (2, 8, 40), (2, 16, 400), (4, 3, 17)]


def windows(shape: tuple[int, int, int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((shape[1], shape[1])) @ rng.standard_normal(shape)
    return (mixed * 20 + 7).astype(np.float32)


def logarithm(matrix: np.ndarray) -> np.ndarray:
    channels = len(matrix)
    held = logm(matrix + 1e-3 * np.trace(matrix) / channels * np.eye(channels))
    return np.array([held[i, j] * (1 if i == j else np.sqrt(2)) for i in range(channels) for j in range(i, channels)])


@pytest.mark.parametrize("shape", SHAPES)
def test_covariance(shape: tuple[int, int, int]) -> None:
    x = windows(shape)
    found = multichannel.multichannel(Rows.of_windows(x), ["COVARIANCE", "LOGCOVARIANCE"], 200.0)
    assert found["COVARIANCE"].shape == found["LOGCOVARIANCE"].shape == (shape[0], multichannel.columns(shape[1]))
    for index, window in enumerate(x):
        expected = np.cov(window.astype(np.float64), bias=True).reshape(shape[1], shape[1])
        upper = expected[np.triu_indices(shape[1])]
        np.testing.assert_allclose(found["COVARIANCE"][index], upper, rtol=1e-5, atol=1e-5 * np.abs(upper).max())
        np.testing.assert_allclose(found["LOGCOVARIANCE"][index], logarithm(expected), atol=2e-3)


@pytest.mark.parametrize(("shape", "rate_hz"), [((2, 8, 40), 200.0), ((2, 16, 400), 2000.0), ((3, 2, 50), 1000.0)])
def test_multivariate_power_frequency(shape: tuple[int, int, int], rate_hz: float) -> None:
    x = windows(shape)
    found = multichannel.multichannel(Rows.of_windows(x), ["MPF"], rate_hz)["MPF"]
    length = shape[2]
    size = 1 << (length - 1).bit_length()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    held = (x - x.mean(axis=2, keepdims=True)).astype(np.float64) * hann
    spectrum = np.fft.rfft(held, size) * np.sqrt(2 / (size * (hann**2).sum()))
    frequency = np.arange(size // 2 + 1) * rate_hz / size
    bands = spectra.bands(rate_hz, length)
    width = multichannel.columns(shape[1])
    assert found.shape == (shape[0], len(bands) * width)
    powers = spectra.spectral(Rows.of_windows(x), ["BANDPOWER"], rate_hz)["BANDPOWER"]
    for index in range(shape[0]):
        for band, (low, high) in enumerate(bands):
            part = spectrum[index][:, (frequency >= low) & (frequency < high)]
            matrix = (part @ part.conj().T).real
            diagonal = powers.reshape(shape[0], shape[1], -1)[index, :, band]
            np.testing.assert_allclose(diagonal, np.diag(matrix), rtol=1e-4)
            values = found[index, band * width : (band + 1) * width]
            np.testing.assert_allclose(values, logarithm(matrix), atol=5e-3)


def test_distances_are_log_euclidean() -> None:
    x = windows((2, 8, 40))
    found = multichannel.multichannel(Rows.of_windows(x), ["LOGCOVARIANCE"], 200.0)["LOGCOVARIANCE"]
    matrices = [np.cov(window.astype(np.float64), bias=True) for window in x]
    logs = [logm(matrix + 1e-3 * np.trace(matrix) / 8 * np.eye(8)) for matrix in matrices]
    assert np.linalg.norm(found[0] - found[1]) == pytest.approx(np.linalg.norm(logs[0] - logs[1]), rel=1e-4)


def test_a_window_has_the_same_bits_alone_and_among_others() -> None:
    x = np.random.default_rng(0).standard_normal((300, 8, 40)).astype(np.float32)
    whole = multichannel.multichannel(Rows.of_windows(x), multichannel.NAMES, 200.0)
    for count in (1, 3, 40):
        part = multichannel.multichannel(Rows.of_windows(x[-count:]), multichannel.NAMES, 200.0)
        for name in multichannel.NAMES:
            assert part[name].tobytes() == whole[name][-count:].tobytes()


def test_edges() -> None:
    x = windows((3, 4, 40))
    clean = multichannel.multichannel(Rows.of_windows(x), multichannel.NAMES, 200.0)
    x[0, 1, 5], x[1] = np.nan, 3.0
    found = multichannel.multichannel(Rows.of_windows(x), multichannel.NAMES, 200.0)
    for name in multichannel.NAMES:
        assert np.isfinite(found[name][1]).all()
        assert found[name][2].tobytes() == clean[name][2].tobytes()
    taking_part = [1 in pair for pair in zip(*np.triu_indices(4), strict=True)]
    np.testing.assert_array_equal(np.isnan(found["COVARIANCE"][0]), taking_part)
    assert np.isnan(found["LOGCOVARIANCE"][0]).all()
    assert np.isnan(found["MPF"][0]).all()
    assert not found["COVARIANCE"][1].any()
    none = multichannel.multichannel(Rows.of_windows(x[:0]), multichannel.NAMES, 200.0)
    assert [none[name].shape for name in multichannel.NAMES] == [(0, 10), (0, 10), (0, 20)]
    with pytest.raises(EdgeError, match="MPF needs windows of 8 samples"):
        multichannel.multichannel(Rows.of_windows(x[:, :, :7]), ["MPF"], 200.0)
