"""Signals with a known fault get the word for it, and good ones get none."""

from __future__ import annotations

import numpy as np
import pytest

from embridge_edge.recordings import Recording
from embridge_edge.recordings.quality import measure

RATE = 1000.0


def noise(channels: int = 4, seconds: float = 20.0, rate_hz: float = RATE) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(int(seconds * rate_hz), channels)).astype(np.float32)


def recording(emg: np.ndarray, rate_hz: float = RATE, **more: object) -> Recording:
    return Recording(emg.astype(np.float32), rate_hz, "V", "a", **more)  # type: ignore[arg-type]


def verdicts(emg: np.ndarray, **more: object) -> list[tuple[str, ...]]:
    return [channel.verdict for channel in measure(recording(emg, **more)).channels]


def test_noise_is_good() -> None:
    quality = measure(recording(noise()))
    assert quality.ok and quality.held == 0 and quality.breaks == 0
    np.testing.assert_allclose(quality.rms, 1.0, rtol=0.02)
    assert all((channel.mains_share or 0) < 0.01 for channel in quality.channels)


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_hum_is_measured_and_named(mains_hz: float) -> None:
    emg = noise()
    time = np.arange(len(emg)) / RATE
    emg[:, 1] += np.sqrt(2) * np.sin(2 * np.pi * (mains_hz + 0.1) * time)  # as much power as the noise
    channel = measure(recording(emg)).channels[1]
    assert channel.verdict == ("mains",) and channel.mains_hz == mains_hz
    assert channel.mains_share == pytest.approx(0.5, abs=0.05)


def test_low_rates_show_no_mains() -> None:
    channel = measure(recording(noise(rate_hz=54), rate_hz=54.0)).channels[0]
    assert channel.mains_share is None and channel.mains_hz is None and channel.verdict == ("good",)


def test_dead_stuck_weak_and_offset() -> None:
    emg = noise(8)
    emg[:, 0] = 0.25
    emg[5000:7000, 1] = emg[5000, 1]
    emg[:, 2] *= 0.01
    emg[:, 3] += 100
    assert verdicts(emg)[:5] == [("dead",), ("stuck",), ("weak",), ("offset",), ("good",)]


def test_clipping_with_and_without_a_known_range() -> None:
    emg = noise()
    emg[:, 0] = np.clip(3 * emg[:, 0], -1.5, 1.5)
    assert verdicts(emg)[0] == ("clipping",)
    assert verdicts(emg, full_scale=1.5)[0] == ("clipping",)
    assert verdicts(emg, full_scale=15.0)[0] == ("good",)
    assert measure(recording(emg, full_scale=1.5)).channels[0].clipped_share == pytest.approx(0.617, abs=0.02)


def test_held_samples_and_breaks_are_counted() -> None:
    emg = np.repeat(noise(seconds=10), 2, axis=0)
    quality = measure(recording(emg, breaks=np.array([100, 200])))
    assert quality.held_share == pytest.approx(0.5, abs=0.01) and quality.breaks == 2


def test_sums_of_parts_are_those_of_the_whole() -> None:
    emg = noise(seconds=30)
    whole, parts = measure(recording(emg)), measure(recording(emg[:10000])) + measure(recording(emg[10000:]))
    np.testing.assert_allclose(whole.rms, parts.rms, rtol=1e-6)
    np.testing.assert_allclose(whole.power_density, parts.power_density, rtol=1e-6)
    assert whole.samples == parts.samples and whole.frames == parts.frames


def test_nan_is_counted_and_does_not_spread() -> None:
    emg = noise()
    emg[7, 0] = np.nan
    emg[8, 0] = np.inf
    quality = measure(recording(emg)) + measure(recording(emg))
    assert quality.nan.tolist() == [4, 0, 0, 0] and np.isfinite(quality.rms).all()
    assert [channel.verdict for channel in quality.channels] == [("nan",), ("good",), ("good",), ("good",)]
    assert quality.channels[0].nan == 4 and not quality.ok


def test_one_sample_is_enough_not_to_fail() -> None:
    assert measure(recording(np.ones((1, 2)))).samples == 1
