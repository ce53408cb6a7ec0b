"""Biquads do what scipy's do, start without a step, and refuse what cannot be built."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from embridge_edge.errors import EdgeError
from embridge_edge.features import filters


def as_sos(sections: filters.Sections) -> np.ndarray:
    return np.array([[b0, b1, b2, 1.0, a1, a2] for b0, b1, b2, a1, a2 in sections])


@given(
    rate_hz=st.sampled_from([200.0, 250.0, 1000.0, 2000.0, 4000.0]),
    order=st.sampled_from([2, 4, 6, 8]),
    notched=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_cascade_equals_scipys(rate_hz: float, order: int, notched: bool, seed: int) -> None:
    sections = filters.band_pass(20.0, 450.0, order, rate_hz) + (filters.notch(50.0, 30.0, rate_hz) if notched else ())
    filters.check_stable(sections)
    noise = np.random.default_rng(seed).standard_normal((500, 3)).astype(np.float32)
    state = np.zeros((3, len(sections), 2), np.float32)
    out = filters.run(sections, noise, state)
    expected = signal.sosfilt(as_sos(sections), noise.astype(np.float64), axis=0)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=2e-4 * max(1.0, np.abs(expected).max()))


def test_float32_coefficients_keep_the_band() -> None:
    sections = filters.band_pass(20.0, 450.0, 4, 2000.0)
    frequencies, response = signal.sosfreqz(as_sos(sections), [5.0, 20.0, 100.0, 450.0, 900.0], fs=2000.0)
    gains_db = 20 * np.log10(np.abs(response))
    assert gains_db[0] < -20
    assert gains_db[1] == pytest.approx(-3.01, abs=0.05)
    assert gains_db[2] == pytest.approx(0.0, abs=0.1)
    assert gains_db[3] == pytest.approx(-3.01, abs=0.05)
    assert gains_db[4] < -20
    assert len(frequencies) == 5


def test_priming_equals_scipys_steady_state() -> None:
    sections = filters.band_pass(20.0, 90.0, 4, 200.0) + filters.notch(50.0, 30.0, 200.0)
    level = np.array([3.0, -100.0, 0.0], np.float32)
    expected = signal.sosfilt_zi(as_sos(sections))[None] * level[:, None, None]
    np.testing.assert_allclose(filters.state_for(sections, level), expected, atol=2e-3)


@pytest.mark.parametrize("rate_hz", [200.0, 2000.0])
def test_constant_input_makes_no_step(rate_hz: float) -> None:
    sections = filters.band_pass(20.0, 450.0, 4, rate_hz) + filters.notch(50.0, 30.0, rate_hz)
    constant = np.full((300, 2), 1000.0, np.float32)
    out = filters.run(sections, constant, filters.state_for(sections, constant[0]))
    assert np.abs(out).max() < 0.05  # of 1000: rounding only; without priming the first value is some hundred


@given(cuts=st.lists(st.integers(1, 199), unique=True, max_size=8))
@settings(max_examples=25, deadline=None)
def test_chunks_give_what_the_whole_gives(cuts: list[int]) -> None:
    sections = filters.band_pass(20.0, 90.0, 4, 200.0)
    noise = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    whole = filters.run(sections, noise, filters.state_for(sections, noise[0]))
    state = filters.state_for(sections, noise[0])
    parts = [filters.run(sections, part, state) for part in np.split(noise, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_notch_takes_every_harmonic_below_the_ceiling() -> None:
    assert len(filters.notch(50.0, 30.0, 200.0)) == 1  # 50 Hz; 100 Hz lies above 0.45 × 200 Hz
    sections = filters.notch(50.0, 30.0, 1000.0)
    assert len(sections) == 9
    _, response = signal.sosfreqz(as_sos(sections), [50.0, 75.0, 100.0, 450.0], fs=1000.0)
    assert np.abs(response[[0, 2, 3]]).max() < 0.01
    assert abs(response[1]) > 0.9
    assert filters.notch(60.0, 30.0, 100.0) == ()


def test_ceiling_is_a_share_of_the_rate() -> None:
    assert filters.band_pass(20.0, 450.0, 4, 200.0) == filters.band_pass(20.0, 90.0, 4, 200.0)


@pytest.mark.parametrize(("low", "high", "rate_hz"), [(20.0, 450.0, 40.0), (450.0, 20.0, 2000.0), (0.0, 90.0, 200.0)])
def test_no_band_left_is_one_line(low: float, high: float, rate_hz: float) -> None:
    with pytest.raises(EdgeError, match="no band remains") as caught:
        filters.band_pass(low, high, 4, rate_hz)
    assert "\n" not in str(caught.value)


def test_high_pass_that_leaves_nothing_is_one_line() -> None:
    assert len(filters.high_pass(20.0, 4, 200.0)) == 2
    with pytest.raises(EdgeError, match="leaves nothing"):
        filters.high_pass(95.0, 4, 200.0)


def test_section_that_float32_makes_unstable_is_refused() -> None:
    sections = filters.band_pass(0.002, 450.0, 8, 4000.0)
    assert np.abs(np.roots([1.0, *sections[-1][3:]])).max() > 0.999
    with pytest.raises(EdgeError, match=r"section \d is unstable in float32"):
        filters.check_stable(sections)
    with pytest.raises(EdgeError, match="section 0 is unstable"):
        filters.check_stable(((1.0, 0.0, 0.0, -2.0, 1.0),))
