"""Biquads do what scipy's do, start without a step, and refuse what cannot be built."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from embridge_edge.errors import EdgeError
from embridge_edge.features import design, filters


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


@given(cuts=st.lists(st.integers(0, 200), max_size=8))
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
    with pytest.raises(EdgeError, match=r"no band remains|is none") as caught:
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


@st.composite
def designs(draw: st.DrawFn) -> design.Design:
    """Filters whose corners are no lower than a 400th of the rate, which both precisions must hold."""
    rate_hz = draw(st.sampled_from([200.0, 250.0, 1000.0, 2148.1481, 4000.0]))
    kind = draw(st.sampled_from(["band", "high", "low", "notch", "band and notch"]))
    low = rate_hz * draw(st.floats(0.0025, 0.1))
    if kind == "high":
        return design.high_pass(low, draw(st.integers(1, 8)), rate_hz)
    if kind == "low":
        return design.low_pass(min(10 * low, 0.45 * rate_hz), draw(st.integers(1, 8)), rate_hz)
    notches = design.notch(draw(st.floats(45.0, 65.0)), draw(st.floats(5.0, 60.0)), rate_hz)
    if kind == "notch":
        return notches
    band = design.band_pass(low, rate_hz * draw(st.floats(0.2, 0.5)), draw(st.sampled_from([2, 4, 6, 8])), rate_hz)
    return band + notches if kind == "band and notch" else band


@given(made=designs())
@settings(max_examples=60, deadline=None)
def test_every_filter_of_the_allowed_ranges_is_stable_and_has_the_designed_response(made: design.Design) -> None:
    filters.check_stable(made)
    for section in made.sections:
        assert np.abs(np.roots([1.0, *section[3:]])).max() < 1.0
    frequencies = np.linspace(0.0005, 0.4995, 700) * made.rate_hz
    if not made.exact:
        return
    _, wanted = signal.sosfreqz(as_sos(made.exact), frequencies, fs=made.rate_hz)
    _, given_ = signal.sosfreqz(as_sos(made.sections), frequencies, fs=made.rate_hz)
    passed = np.abs(wanted) > np.abs(wanted).max() * 0.71
    assert np.abs(20 * np.log10(np.abs(given_[passed]) / np.abs(wanted[passed]))).max() < 0.5


@pytest.mark.parametrize("order", [1, 2, 3, 4, 8])
def test_corners_of_high_and_low_pass_are_3_db_points(order: int) -> None:
    for made, stopped in ((design.high_pass(30.0, order, 1000.0), 3.0), (design.low_pass(30.0, order, 1000.0), 300.0)):
        _, response = signal.sosfreqz(as_sos(made.sections), [30.0, stopped], fs=1000.0)
        levels = 20 * np.log10(np.abs(response))
        assert levels[0] == pytest.approx(-3.01, abs=0.02)
        assert levels[1] < -19.0 * order


def test_stable_but_useless_filter_is_refused_and_the_cut_off_is_named() -> None:
    useless = design.high_pass(0.05, 2, 4000.0)
    assert np.abs(np.roots([1.0, *useless.sections[0][3:]])).max() < 1.0
    with pytest.raises(EdgeError, match=r"dB off in the pass band.*raise the high-pass cut-off 0.05 Hz") as caught:
        filters.check_stable(useless)
    assert "\n" not in str(caught.value)
    filters.check_stable(design.high_pass(0.5, 2, 4000.0))
    with pytest.raises(EdgeError, match=r"lower the quality 30000 of the notch at 50 Hz"):
        filters.check_stable(design.notch(50.0, 30000.0, 4000.0))
    with pytest.raises(EdgeError, match=r"raise the lower cut-off 0.05 Hz"):
        filters.check_stable(design.band_pass(0.05, 450.0, 8, 4000.0) + design.notch(50.0, 30.0, 4000.0))


def plain(sections: filters.Sections, samples: np.ndarray, state: np.ndarray) -> np.ndarray:
    """Transposed direct form II one operation at a time, each rounded to float32."""
    out = np.empty_like(samples)
    for channel in range(samples.shape[1]):
        for index in range(len(samples)):
            value = samples[index, channel]
            if not np.abs(value) <= np.float32(1e30):
                out[index, channel] = np.nan
                continue
            for section, five in enumerate(sections):
                b0, b1, b2, a1, a2 = (np.float32(number) for number in five)
                result = b0 * value + state[channel, section, 0]
                state[channel, section, 0] = b1 * value - a1 * result + state[channel, section, 1]
                state[channel, section, 1] = b2 * value - a2 * result
                value = result
            out[index, channel] = value
    return out


@given(
    rows=st.sampled_from([1, 7, 8, 40]),
    channels=st.sampled_from([1, 2, 3, 8, 16, 17, 33]),
    bad=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 32)), max_size=4),
    value=st.sampled_from([np.nan, np.inf, -np.inf, 2e30, -3e38]),
)
@settings(max_examples=25, deadline=None)
def test_every_channel_has_the_bits_of_the_plain_recursion(
    rows: int, channels: int, bad: list[tuple[int, int]], value: float
) -> None:
    sections = filters.band_pass(20.0, 450.0, 4, 2000.0)
    noise = np.random.default_rng(channels).standard_normal((rows, channels)).astype(np.float32)
    for index, channel in bad:
        if index >= rows:
            continue
        noise[index, channel % channels] = value
    state = filters.state_for(sections, noise[0])
    assert np.isfinite(state).all()
    expected_state = state.copy()
    out = filters.run(sections, noise, state)
    np.testing.assert_array_equal(out, plain(sections, noise, expected_state))
    np.testing.assert_array_equal(state, expected_state)


def test_a_bad_sample_is_a_hole_and_not_the_end_of_the_stream() -> None:
    sections = filters.band_pass(20.0, 90.0, 4, 200.0)
    noise = np.random.default_rng(0).standard_normal((400, 3)).astype(np.float32)
    holed = noise.copy()
    holed[100, 1] = np.nan
    clean = filters.run(sections, noise, filters.state_for(sections, noise[0]))
    out = filters.run(sections, holed, filters.state_for(sections, holed[0]))
    np.testing.assert_array_equal(out[:, [0, 2]], clean[:, [0, 2]])
    assert np.flatnonzero(np.isnan(out[:, 1])).tolist() == [100]
    without = filters.run(sections, np.delete(noise[:, 1:2], 100, axis=0), filters.state_for(sections, noise[0, 1:2]))
    np.testing.assert_array_equal(np.delete(out[:, 1], 100), without[:, 0])


@given(
    cuts=st.lists(st.integers(0, 60), max_size=6),
    bad=st.lists(st.tuples(st.integers(0, 59), st.integers(0, 1)), max_size=20),
)
@settings(max_examples=40, deadline=None)
def test_mended_holds_the_last_good_sample_and_counts(cuts: list[int], bad: list[tuple[int, int]]) -> None:
    samples = np.random.default_rng(2).standard_normal((60, 2)).astype(np.float32)
    for index, channel in bad:
        samples[index, channel] = np.nan if index % 2 else np.inf
    last = np.zeros(2, np.float32)
    parts = [filters.mended(part, last) for part in np.split(samples, sorted(cuts))]
    out = np.concatenate([part for part, _ in parts])
    held = np.zeros(2, np.float32)
    for index in range(60):
        held = np.where(np.isfinite(samples[index]), samples[index], held)
        np.testing.assert_array_equal(out[index], held)
    np.testing.assert_array_equal(sum(count for _, count in parts), (~np.isfinite(samples)).sum(axis=0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: design.band_pass(20.0, 450.0, 3, 2000.0),
        lambda: design.band_pass(20.0, 450.0, 4, float("nan")),
        lambda: design.band_pass(float("nan"), 450.0, 4, 2000.0),
        lambda: design.high_pass(20.0, 0, 2000.0),
        lambda: design.high_pass(20.0, 2, -1.0),
        lambda: design.low_pass(950.0, 2, 2000.0),
        lambda: design.low_pass(0.0, 2, 2000.0),
        lambda: design.low_pass(20.0, 9, 2000.0),
        lambda: design.notch(0.0, 30.0, 2000.0),
        lambda: design.notch(50.0, 0.0, 2000.0),
        lambda: design.notch(1.0, 30.0, 2000.0),
        lambda: design.notch(50.0, 30.0, 2000.0) + design.notch(50.0, 30.0, 1000.0),
        lambda: filters.check_stable((), "float16"),
        lambda: filters.run(
            ((1.0, 0.0, 0.0, 0.0, 0.0),), np.zeros((9, 3), np.float32), np.zeros((2, 1, 2), np.float32)
        ),
        lambda: filters.run(((1.0, 0.0, 0.0, 0.0, 0.0),), np.zeros(9, np.float32), np.zeros((2, 1, 2), np.float32)),
        lambda: filters.run(
            ((1.0, 0.0, 0.0, 0.0, 0.0),), np.zeros((9, 2), np.float32), np.zeros((2, 2, 2), np.float32)
        ),
        lambda: filters.mended(np.zeros((9, 3), np.float32), np.zeros(2, np.float32)),
    ],
)
def test_impossible_filter_is_one_line(make: Callable[[], object]) -> None:
    with pytest.raises(EdgeError) as caught:
        make()
    assert "\n" not in str(caught.value)
