"""Spectral features are what numpy and scipy say, for any length, and a row's bits do not depend on its neighbours."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from embridge_edge.errors import EdgeError
from embridge_edge.features import spectra
from embridge_edge.features.rows import Rows

PLAIN = ("MDF", "MNF", "MNP", "SM", "DFTR")


def windows(count: int, channels: int, length: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, channels, length)) * rng.uniform(1e-3, 50.0)).astype(np.float32)


def powers(x: np.ndarray, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    size = max(2, 1 << (x.shape[-1] - 1).bit_length())
    spectrum = np.fft.rfft(x.astype(np.float64), size)[..., : size // 2] / x.shape[-1]
    return np.abs(spectrum) ** 2, np.arange(size // 2) * rate_hz / size


@given(
    length=st.integers(2, 300) | st.sampled_from([400, 512, 513, 1000]),
    count=st.integers(0, 3),
    channels=st.integers(1, 9),
    rate_hz=st.sampled_from([200.0, 1000.0, 2000.0]),
    order=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_plain_features(length: int, count: int, channels: int, rate_hz: float, order: int, seed: int) -> None:
    x = windows(count, channels, length, seed)
    found = spectra.spectral(Rows.of_windows(x), PLAIN, rate_hz, {"SM_order": order})
    power, frequency = powers(x.reshape(-1, length), rate_hz)
    for name in PLAIN:
        assert found[name].dtype == np.float32
        assert found[name].shape[0] == count * channels
    whole = power.sum(axis=1)
    np.testing.assert_allclose(found["MNP"][:, 0], power.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["MNF"][:, 0], (power * frequency).sum(axis=1) / whole, rtol=1e-5)
    np.testing.assert_allclose(found["SM"][:, 0], (power * frequency**order).sum(axis=1), rtol=1e-5)
    running = np.cumsum(power, axis=1)
    # Where the bin before comes within rounding of one half, either of the two is right.
    for share in (0.5 - 1e-6, 0.5 + 1e-6):
        near = np.argmax(running > whole[:, None] * share, axis=1) if count else np.zeros(0, int)
        if share < 0.5:
            assert (found["MDF"][:, 0] >= frequency[near] - 1e-3).all()
        else:
            assert (found["MDF"][:, 0] <= frequency[near] + 1e-3).all()
    edges = [20, 92, 163, 235, 305, 378, 450]
    column = 0
    for low, high in itertools.pairwise(edges):
        if high >= rate_hz / 2:
            continue
        inside = (frequency > low) & (frequency < high)
        level = np.sqrt(power[:, inside]).mean(axis=1) ** (2 / 3) if inside.any() else np.zeros(len(power))
        np.testing.assert_allclose(found["DFTR"][:, column], level, rtol=1e-5)
        column += 1
    assert found["DFTR"].shape[1] == column == len(spectra.dftr_bands(rate_hz))


@pytest.mark.parametrize(("length", "rate_hz"), [(8, 200.0), (40, 200.0), (100, 1000.0), (400, 2000.0), (37, 500.0)])
def test_band_powers_are_scipys_periodogram(length: int, rate_hz: float) -> None:
    x = windows(3, 2, length) + 5.0
    found = spectra.spectral(Rows.of_windows(x), ["BANDPOWER"], rate_hz)["BANDPOWER"]
    size = 1 << (length - 1).bit_length()
    frequency, density = signal.periodogram(x.reshape(6, length).astype(np.float64), rate_hz, "hann", size)
    edges = spectra.bands(rate_hz, length)
    assert found.shape == (6, len(edges))
    for column, (low, high) in enumerate(edges):
        assert high <= 0.45 * rate_hz + 1e-9
        inside = (frequency >= low) & (frequency < high)
        np.testing.assert_allclose(found[:, column], density[:, inside].sum(axis=1) * rate_hz / size, rtol=2e-5)


def test_bands_that_are_left() -> None:
    assert spectra.bands(2000.0, 400) == [(20, 60), (60, 120), (120, 200), (200, 300), (300, 450)]
    assert spectra.bands(200.0, 40) == [(20, 60), (60, 90)]
    assert spectra.bands(40.0, 40) == []
    assert spectra.band_bins(200.0, 40).tolist() == [7, 20, 20, 29]


@pytest.mark.parametrize(("length", "rate_hz"), [(40, 200.0), (400, 2000.0), (90, 1000.0)])
def test_short_time_spectra(length: int, rate_hz: float) -> None:
    x = windows(2, 3, length)
    found = spectra.spectral(Rows.of_windows(x), ["STFT"], rate_hz)["STFT"]
    frames, bins = spectra.stft_shape(rate_hz, length)
    frame = max(8, round(0.032 * rate_hz))
    hann = signal.get_window("hann", frame)
    expected = []
    for start in range(0, length - frame + 1, frame // 2):
        piece = x.reshape(6, length)[:, start : start + frame].astype(np.float64) * hann
        expected.append(np.log(np.abs(np.fft.rfft(piece, 2 * (bins - 1))) ** 2 / hann.sum() ** 2))
    assert len(expected) == frames
    np.testing.assert_allclose(found.reshape(6, frames, bins), np.stack(expected, axis=1), atol=2e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 9, 1000])
@pytest.mark.parametrize("length", [40, 400])
def test_a_row_has_the_same_bits_alone_and_among_others(count: int, length: int) -> None:
    x = windows(1000, 1, length)
    names = [*PLAIN, "BANDPOWER", "STFT"]
    whole = spectra.spectral(Rows.of_windows(x), names, 2000.0 if length == 400 else 250.0)
    start = 1000 - count
    part = spectra.spectral(Rows.of_windows(x[start:]), names, 2000.0 if length == 400 else 250.0)
    for name in names:
        assert part[name].tobytes() == whole[name][start:].tobytes()


def test_rows_of_a_signal_need_no_copy() -> None:
    stream = np.random.default_rng(1).standard_normal((4, 300)).astype(np.float32)
    starts = np.array([0, 13, 260], np.int64)
    found = spectra.spectral(Rows.of_signal(stream, starts, 40), ["MNF"], 200.0)["MNF"]
    cut = np.stack([stream[:, start : start + 40] for start in starts])
    assert found.tobytes() == spectra.spectral(Rows.of_windows(cut), ["MNF"], 200.0)["MNF"].tobytes()


def test_silent_windows() -> None:
    rows = Rows.of_windows(np.zeros((2, 3, 40), np.float32))
    names = [*PLAIN, "BANDPOWER", "STFT"]
    for name, values in spectra.spectral(rows, names, 200.0).items():
        assert np.isfinite(values).all()
        assert name == "STFT" or not values.any()
    theirs = spectra.spectral(rows, PLAIN, 200.0, {}, "libemg")
    assert np.isnan(theirs["MDF"]).all()
    assert np.isnan(theirs["MNF"]).all()
    assert not theirs["MNP"].any()
    assert not theirs["SM"].any()
    assert not theirs["DFTR"].any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("compat", [None, "libemg"])
def test_a_spoilt_row_is_nan_and_no_other(value: float, compat: str | None) -> None:
    x = windows(3, 4, 45)
    names = [*PLAIN, "BANDPOWER", "STFT"]
    clean = spectra.spectral(Rows.of_windows(x), names, 1000.0, {}, compat)
    x[1, 2, 44] = value
    spoilt = spectra.spectral(Rows.of_windows(x), names, 1000.0, {}, compat)
    for name in names:
        assert np.isnan(spoilt[name][6]).all()
        assert np.delete(spoilt[name], 6, axis=0).tobytes() == np.delete(clean[name], 6, axis=0).tobytes()


def test_short_windows_are_refused() -> None:
    with pytest.raises(EdgeError, match="MDF needs windows of 2 samples"):
        spectra.spectral(Rows.of_windows(np.ones((1, 1, 1), np.float32)), ["MDF"], 200.0)
    with pytest.raises(EdgeError, match="STFT needs 64 samples"):
        spectra.spectral(Rows.of_windows(np.ones((1, 1, 63), np.float32)), ["STFT"], 2000.0)
