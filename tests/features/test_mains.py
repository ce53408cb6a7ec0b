"""Comb and canceller: the notches that their formulas promise, in chunks of any size, on real hum and without harm to EMG."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from embridge_edge.errors import EdgeError
from embridge_edge.features import filters, mains

COMB = mains.comb(50.0, 30.0, 1000.0)
LEARNER = mains.canceller(50.0, 1000.0)


def noise(samples: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


def hum(samples: int, mains_hz: float, rate_hz: float) -> np.ndarray:
    time = np.arange(samples) / rate_hz
    levels = {1: 5.0, 2: 1.0, 3: 2.0, 5: 1.0}
    whole = sum(
        level * np.cos(2 * np.pi * order * mains_hz * time + order)
        for order, level in levels.items()
        if order * mains_hz < 0.45 * rate_hz
    )
    return np.asarray(whole)[:, None]


def power(samples: np.ndarray, rate_hz: float, mains_hz: float, near: bool) -> np.ndarray:
    """Power of each channel within 1 Hz of the mains frequency, or further than 4 Hz from it and all its harmonics."""
    frequencies, density = signal.welch(samples.astype(np.float64), rate_hz, nperseg=int(2 * rate_hz), axis=0)
    away = np.abs(frequencies - mains_hz * np.round(frequencies / mains_hz))
    chosen = np.abs(frequencies - mains_hz) <= 1.01 if near else (away > 4.0) & (frequencies > 15.0)
    return np.asarray(density[chosen].sum(axis=0))


@pytest.mark.parametrize(("mains_hz", "rate_hz"), [(50.0, 200.0), (50.0, 1000.0), (60.0, 2400.0)])
def test_whole_period_comb_is_scipys(mains_hz: float, rate_hz: float) -> None:
    made = mains.comb(mains_hz, 30.0, rate_hz)
    samples = noise(3000, 2)
    still = mains.comb_state(made, np.zeros(2, np.float32))
    b, a = signal.iircomb(mains_hz, 30.0, ftype="notch", fs=rate_hz)
    expected = signal.lfilter(b, a, samples.astype(np.float64), axis=0)
    np.testing.assert_allclose(mains.run_comb(made, samples, still), expected, atol=2e-5)


@pytest.mark.parametrize(("mains_hz", "rate_hz"), [(60.0, 250.0), (60.0, 1000.0), (50.0, 2048.0), (60.0, 2148.1481)])
def test_fractional_comb_is_stable_and_has_the_response_it_tells(mains_hz: float, rate_hz: float) -> None:
    made = mains.comb(mains_hz, 30.0, rate_hz)
    impulse = np.zeros((2**13, 1), np.float32)
    impulse[0] = 1.0
    out = mains.run_comb(made, impulse, mains.comb_state(made, np.zeros(1, np.float32)))[:, 0]
    shares = np.arange(2**12 + 1) / 2**13
    np.testing.assert_allclose(np.fft.rfft(out.astype(np.float64)), made.response(shares), atol=2e-4)
    delays = made.first + np.arange(len(made.taps))
    assert np.abs(np.exp(-2j * np.pi * np.outer(shares, delays)) @ np.array(made.taps)).max() < 1.0 + 1e-6
    assert 20 * np.log10(np.abs(made.response(np.array([mains_hz / rate_hz]))[0])) < -20.0
    assert np.abs(made.response(shares)).max() < 1.0 + 1e-6


@given(
    rate_hz=st.sampled_from([200.0, 250.0, 1000.0, 2000.0]),
    mains_hz=st.sampled_from([50.0, 60.0]),
    cuts=st.lists(st.integers(0, 150), max_size=8),
    bad=st.lists(st.tuples(st.integers(0, 149), st.integers(0, 2)), max_size=4),
    whole_canceller=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_chunks_give_what_the_whole_gives(
    rate_hz: float, mains_hz: float, cuts: list[int], bad: list[tuple[int, int]], whole_canceller: bool
) -> None:
    samples = noise(150, 3) + hum(150, mains_hz, rate_hz).astype(np.float32)
    for index, channel in bad:
        samples[index, channel] = np.nan
    parts = np.split(samples, sorted(cuts))
    if whole_canceller or (mains_hz, rate_hz) == (60.0, 200.0):
        made = mains.canceller(mains_hz, rate_hz, settle_s=0.05)
        learnt, again = mains.canceller_state(made, 3), mains.canceller_state(made, 3)
        whole = mains.run_canceller(made, samples, learnt)
        chunked = [mains.run_canceller(made, part, again) for part in parts]
        np.testing.assert_array_equal(again.weights, learnt.weights)
        np.testing.assert_array_equal(again.phase, learnt.phase)
    else:
        comb = mains.comb(mains_hz, 30.0, rate_hz)
        whole = mains.run_comb(comb, samples, mains.comb_state(comb, samples[0]))
        state = mains.comb_state(comb, samples[0])
        chunked = [mains.run_comb(comb, part, state) for part in parts]
    np.testing.assert_array_equal(np.concatenate(chunked), whole)
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(samples))


def test_comb_starts_without_a_step_and_survives_a_bad_sample() -> None:
    made = mains.comb(60.0, 30.0, 1000.0)
    constant = np.full((500, 2), 1000.0, np.float32)
    constant[40, 1] = np.inf
    out = mains.run_comb(made, constant, mains.comb_state(made, constant[0]))
    assert np.isnan(out[40, 1])
    out[40, 1] = 0.0
    assert np.abs(out).max() < 0.01


def test_canceller_is_the_notch_of_its_theory() -> None:
    """Glover 1977: with quadrature references the loop from input to error is a linear filter that does not change."""
    made = mains.canceller(50.0, 1000.0, settle_s=0.1, follow_hz=0.0, harmonics=1)
    samples = noise(2000, 2)
    out = mains.run_canceller(made, samples, mains.canceller_state(made, 2))
    cosine = np.cos(2 * np.pi * 50.0 / 1000.0)
    mu = 1.0 / (0.1 * 1000.0)
    forward, back = [1.0, -2 * cosine, 1.0], [1.0, -(2 - 2 * mu) * cosine, 1 - 2 * mu]
    expected = (1 - mu) * signal.lfilter(forward, back, samples.astype(np.float64), axis=0)
    np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize("true_hz", [49.6, 50.0, 50.3])
def test_canceller_finds_the_frequency_and_leaves_the_emg(true_hz: float) -> None:
    rate_hz, samples = 2000.0, 30_000
    band = filters.band_pass(20.0, 450.0, 4, rate_hz)
    emg = filters.run(band, noise(samples, 4), np.zeros((4, len(band), 2), np.float32))
    mixed = (emg + hum(samples, true_hz, rate_hz)).astype(np.float32)
    made = mains.canceller(50.0, rate_hz)
    state = mains.canceller_state(made, 4)
    out = mains.run_canceller(made, mixed, state)[10_000:]
    assert mains.frequency_hz(made, state) == pytest.approx(true_hz, abs=0.02)
    before, after = power(mixed[10_000:], rate_hz, 50.0, True), power(out, rate_hz, 50.0, True)
    assert (10 * np.log10(after / before)).max() < -20.0
    change = 10 * np.log10(power(out, rate_hz, true_hz, False) / power(emg[10_000:], rate_hz, true_hz, False))
    assert np.abs(change).max() < 0.2


@pytest.mark.parametrize(("mains_hz", "rate_hz"), [(50.0, 2000.0), (60.0, 2000.0), (60.0, 250.0)])
def test_comb_takes_the_hum_and_leaves_the_emg(mains_hz: float, rate_hz: float) -> None:
    samples = int(15 * rate_hz)
    band = filters.band_pass(20.0, 450.0, 4, rate_hz)
    emg = filters.run(band, noise(samples, 4), np.zeros((4, len(band), 2), np.float32))
    mixed = (emg + hum(samples, mains_hz, rate_hz)).astype(np.float32)
    made = mains.comb(mains_hz, 30.0, rate_hz)
    settled = slice(int(5 * rate_hz), None)
    out = mains.run_comb(made, mixed, mains.comb_state(made, mixed[0]))[settled]
    change = 10 * np.log10(power(out, rate_hz, mains_hz, True) / power(mixed[settled], rate_hz, mains_hz, True))
    assert change.max() < -15.0
    change = 10 * np.log10(power(out, rate_hz, mains_hz, False) / power(emg[settled], rate_hz, mains_hz, False))
    assert np.abs(change).max() < 0.2


@pytest.mark.parametrize("frequency", [49.8, 50.2])
def test_following_is_what_keeps_a_drifting_line_down(frequency: float) -> None:
    mixed = (0.1 * noise(16_000, 2) + hum(16_000, frequency, 1000.0)).astype(np.float32)
    left = []
    for follow_hz in (0.5, 0.0):
        made = mains.canceller(50.0, 1000.0, follow_hz=follow_hz)
        state = mains.canceller_state(made, 2)
        left.append(float(mains.run_canceller(made, mixed, state)[8000:].std()))
        assert abs(mains.frequency_hz(made, state) - 50.0) <= follow_hz + 1e-4
    assert left[0] < 0.12 < 1.0 < left[1]


def test_silence_stays_silent() -> None:
    made = mains.canceller(50.0, 1000.0)
    state = mains.canceller_state(made, 2)
    assert not mains.run_canceller(made, np.zeros((5000, 2), np.float32), state).any()
    assert mains.frequency_hz(made, state) == 50.0
    assert float(np.hypot(*state.phase[:2])) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.data
def test_hum_of_real_recordings_goes_down(data: Path) -> None:
    """60 Hz of the OpenBCI recordings, 24 to 30 dB above the rest; what is left in 59 to 61 Hz is EMG for the most part."""
    from embridge_edge.recordings.loading import read_recordings

    (recording,) = read_recordings(data / "openbci_hands" / "s_1" / "exg" / "data_1745109066.csv")
    rate_hz = recording.rate_hz
    assert rate_hz == 250.0
    high = filters.high_pass(10.0, 4, rate_hz)
    emg = filters.run(high, recording.emg, filters.state_for(high, recording.emg[0]))
    settled = slice(int(10 * rate_hz), None)
    before = power(emg[settled], rate_hz, 60.0, True)
    outside = power(emg[settled], rate_hz, 60.0, False)
    canceller, comb = mains.canceller(60.0, rate_hz), mains.comb(60.0, 30.0, rate_hz)
    for out in (
        mains.run_canceller(canceller, emg, mains.canceller_state(canceller, recording.channels)),
        mains.run_comb(comb, emg, mains.comb_state(comb, emg[0])),
    ):
        change = 10 * np.log10(power(out[settled], rate_hz, 60.0, True) / before)
        assert np.median(change) < -16.0
        assert change.max() < -8.0
        assert np.abs(10 * np.log10(power(out[settled], rate_hz, 60.0, False) / outside)).max() < 0.2


@pytest.mark.parametrize(
    "make",
    [
        lambda: mains.comb(60.0, 30.0, 200.0),
        lambda: mains.comb(60.0, 30.0, 100.0),
        lambda: mains.comb(50.0, 0.5, 1000.0),
        lambda: mains.comb(0.0, 30.0, 1000.0),
        lambda: mains.comb(50.0, float("nan"), 1000.0),
        lambda: mains.run_comb(COMB, np.zeros((9, 3), np.float32), mains.comb_state(COMB, np.zeros(2, np.float32))),
        lambda: mains.run_canceller(LEARNER, np.zeros((9, 3), np.float32), mains.canceller_state(LEARNER, 2)),
        lambda: mains.canceller(60.0, 125.0),
        lambda: mains.canceller(50.0, float("inf")),
        lambda: mains.canceller(50.0, 1000.0, settle_s=0.01),
        lambda: mains.canceller(50.0, 1000.0, follow_hz=3.0),
        lambda: mains.canceller(50.0, 1000.0, harmonics=0),
        lambda: mains.canceller(50.0, 1000.0, harmonics=10),
    ],
)
def test_impossible_parameters_are_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(EdgeError) as caught:
        make()
    assert "\n" not in str(caught.value)
