"""Q31 does what CMSIS does in plain integers, never overflows, and is as noisy as it says."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from embridge_edge.errors import EdgeError
from embridge_edge.features import design, filters, fixed_point

FULL = 2.0**31
ONE = fixed_point.quantise(design.high_pass(20.0, 2, 1000.0))


def plain(cascade: fixed_point.Q31Cascade, samples: list[int], state: list[list[int]]) -> list[int]:
    """arm_biquad_cascade_df1_q31 in integers without an end, so that nothing wraps and nothing saturates."""
    out = []
    for sample in samples:
        value = sample
        for (b0, b1, b2, a1, a2), (x1, x2, y1, y2), number in zip(
            cascade.coefficients, state, range(len(state)), strict=True
        ):
            result = (b0 * value + b1 * x1 + b2 * x2 + a1 * y1 + a2 * y2) >> (31 - cascade.post_shift)
            state[number] = [value, x1, result, y1]
            value = result
        out.append(value)
    return out


def as_sos(sections: filters.Sections) -> np.ndarray:
    return np.array([[b0, b1, b2, 1.0, a1, a2] for b0, b1, b2, a1, a2 in sections])


@st.composite
def designs(draw: st.DrawFn) -> design.Design:
    rate_hz = draw(st.sampled_from([200.0, 1000.0, 2000.0, 4000.0]))
    low = rate_hz * draw(st.floats(0.0025, 0.1))
    kind = draw(st.sampled_from(["band", "high", "low", "notch", "all"]))
    if kind == "high":
        return design.high_pass(low, draw(st.integers(1, 8)), rate_hz)
    if kind == "low":
        return design.low_pass(4 * low, draw(st.integers(1, 8)), rate_hz)
    notches = design.notch(50.0, draw(st.floats(2.0, 30.0)), rate_hz)
    if kind == "notch":
        return notches
    band = design.band_pass(low, 0.45 * rate_hz, draw(st.sampled_from([2, 4, 8])), rate_hz)
    return band + notches if kind == "all" else band


@given(made=designs(), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_bits_are_those_of_plain_integers(made: design.Design, seed: int) -> None:
    cascade = fixed_point.quantise(made)
    samples = np.random.default_rng(seed).integers(-(2**31), 2**31, (150, 2)).astype(np.int32)
    state = np.zeros((2, len(cascade.coefficients), 4), np.int32)
    out = fixed_point.run_q31(cascade, samples, state)
    assert out.dtype == np.int32
    for channel in range(2):
        expected_state = [[0] * 4 for _ in cascade.coefficients]
        assert out[:, channel].tolist() == plain(cascade, samples[:, channel].tolist(), expected_state)
        assert state[channel].tolist() == expected_state


@given(made=designs())
@settings(max_examples=30, deadline=None)
def test_the_worst_input_overflows_no_section(made: design.Design) -> None:
    cascade = fixed_point.quantise(made)
    scaled = [
        (b0 / 2**30, b1 / 2**30, b2 / 2**30, -a1 / 2**30, -a2 / 2**30) for b0, b1, b2, a1, a2 in cascade.coefficients
    ]
    if cascade.post_shift == 0:
        scaled = [tuple(value / 2.0 for value in section) for section in scaled]
    impulse = np.zeros(400)
    impulse[0] = 1.0
    for upto in range(1, len(scaled) + 1):
        response = signal.sosfilt(as_sos(tuple(scaled[:upto])), impulse)
        worst = np.where(response[::-1] >= 0, 2**31 - 1, -(2**31)).tolist()
        part = fixed_point.Q31Cascade(cascade.coefficients[:upto], cascade.post_shift, 0)
        reached = plain(part, worst, [[0] * 4 for _ in range(upto)])
        assert max(reached) < 2**31 - 1
        assert min(reached) > -(2**31)


@given(made=designs(), level=st.sampled_from([1.0, 1e-2, 1e-4]), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_difference_to_exact_arithmetic_stays_below_the_bound(made: design.Design, level: float, seed: int) -> None:
    cascade = fixed_point.quantise(made)
    noise = np.random.default_rng(seed).uniform(-level, level, (2000, 1)).astype(np.float32)
    samples = fixed_point.to_q31(noise, 1.0)
    out = fixed_point.run_q31(cascade, samples, np.zeros((1, len(cascade.coefficients), 4), np.int32))
    if not cascade.coefficients:
        np.testing.assert_array_equal(out, samples)
        return
    exact = signal.sosfilt(as_sos(cascade.as_sections()), samples / FULL, axis=0)
    given_ = out / FULL * 2.0**cascade.output_shift
    assert np.abs(given_ - exact).max() <= fixed_point.noise_floor(cascade).worst + 1e-12


@pytest.mark.parametrize(
    "made",
    [
        design.band_pass(20.0, 450.0, 4, 2000.0),
        design.band_pass(5.0, 450.0, 4, 2000.0) + design.notch(50.0, 30.0, 2000.0),
        design.high_pass(1.0, 2, 2000.0),
        design.low_pass(5.0, 4, 1000.0),
    ],
)
def test_noise_is_what_the_floor_says(made: design.Design) -> None:
    cascade = fixed_point.quantise(made)
    floor = fixed_point.noise_floor(cascade)
    samples = np.random.default_rng(0).integers(-(2**30), 2**30, (60_000, 1)).astype(np.int32)
    out = fixed_point.run_q31(cascade, samples, np.zeros((1, len(cascade.coefficients), 4), np.int32))
    exact = signal.sosfilt(as_sos(cascade.as_sections()), samples / FULL, axis=0)
    error = (out / FULL * 2.0**cascade.output_shift - exact)[10_000:]
    assert error.std() == pytest.approx(floor.rms, rel=0.15)
    assert error.mean() == pytest.approx(floor.offset, rel=0.1, abs=0.1 * floor.rms)
    assert "dB" in floor.text()


@given(made=designs())
@settings(max_examples=20, deadline=None)
def test_response_of_the_rounded_cascade_is_the_designed_one(made: design.Design) -> None:
    filters.check_stable(made, "q31")
    cascade = fixed_point.quantise(made)
    if not made.exact:
        return
    frequencies = np.linspace(0.0005, 0.4995, 500)
    _, wanted = signal.sosfreqz(as_sos(made.exact), frequencies, fs=1.0)
    _, given_ = signal.sosfreqz(as_sos(cascade.as_sections()), frequencies, fs=1.0)
    assert np.abs(given_ - wanted).max() < 1e-3
    for section in cascade.as_sections():
        assert np.abs(np.roots([1.0, *section[3:]])).max() < 1.0


@given(cuts=st.lists(st.integers(0, 120), max_size=6))
@settings(max_examples=25, deadline=None)
def test_chunks_give_what_the_whole_gives(cuts: list[int]) -> None:
    cascade = fixed_point.quantise(design.band_pass(20.0, 90.0, 4, 200.0) + design.notch(50.0, 30.0, 200.0))
    samples = np.random.default_rng(0).integers(-(2**31), 2**31, (120, 3)).astype(np.int32)
    whole = fixed_point.run_q31(cascade, samples, fixed_point.state_for_q31(cascade, samples[0]))
    state = fixed_point.state_for_q31(cascade, samples[0])
    parts = [fixed_point.run_q31(cascade, part, state) for part in np.split(samples, sorted(cuts))]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_constant_input_makes_no_step() -> None:
    cascade = fixed_point.quantise(design.band_pass(20.0, 450.0, 4, 2000.0) + design.notch(50.0, 30.0, 2000.0))
    floor = fixed_point.noise_floor(cascade)
    constant = np.full((3000, 2), 2**30, np.int32)
    out = fixed_point.run_q31(cascade, constant, fixed_point.state_for_q31(cascade, constant[0]))
    assert np.abs(out).max() / FULL * 2.0**cascade.output_shift <= floor.worst


def test_float32_and_q31_agree_on_a_signal() -> None:
    made = design.band_pass(20.0, 450.0, 4, 2000.0)
    noise = np.random.default_rng(0).uniform(-1.0, 1.0, (4000, 2)).astype(np.float32)
    cascade = fixed_point.quantise(made)
    words = fixed_point.run_q31(cascade, fixed_point.to_q31(noise, 2.0), np.zeros((2, 2, 4), np.int32))
    single = filters.run(made.sections, noise, np.zeros((2, 2, 2), np.float32))
    np.testing.assert_allclose(fixed_point.from_q31(words, 2.0, cascade), single, atol=2e-5)


def test_words_and_shares_of_full_scale() -> None:
    words = fixed_point.to_q31(np.array([[-5.0, -2.0, 0.0, 1.0, 2.0]], np.float32), 2.0)
    assert words.tolist() == [[-(2**31), -(2**31), 0, 2**30, 2**31 - 1]]
    np.testing.assert_allclose(fixed_point.from_q31(words, 2.0), [[-2.0, -2.0, 0.0, 1.0, 2.0]], rtol=1e-7)


def test_low_cut_off_is_refused_for_its_noise_and_named() -> None:
    with pytest.raises(EdgeError, match=r"too noisy in q31.*raise the high-pass cut-off 0.5 Hz") as caught:
        filters.check_stable(design.high_pass(0.5, 2, 4000.0), "q31")
    assert "\n" not in str(caught.value)
    with pytest.raises(EdgeError, match=r"too noisy in q31.*raise the cut-off near"):
        filters.check_stable(filters.high_pass(0.5, 2, 4000.0), "q31")
    filters.check_stable((), "q31")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fixed_point.quantise(((1.0, 0.0, 0.0, -2.0, 1.0),)), "unstable in q31"),
        (lambda: fixed_point.quantise(((1.0, 0.0, 0.0, -2.5, 1.2),)), "unstable in q31"),
        (lambda: fixed_point.quantise(design.band_pass(1e-6, 450.0, 4, 4000.0)), "in q31"),
        (lambda: fixed_point.quantise(design.notch(50.0, 30000.0, 4000.0)), "rings for more than"),
        (lambda: fixed_point.quantise(design.low_pass(0.02, 2, 4000.0)), "q31"),
        (lambda: fixed_point.quantise(((0.0, 0.0, 0.0, -1.0, 0.5),)), "no numerator"),
        (lambda: fixed_point.run_q31(ONE, np.zeros((9, 3), np.int32), np.zeros((2, 1, 4), np.int32)), "2 channels"),
        (lambda: fixed_point.run_q31(ONE, np.zeros((9, 2), np.int32), np.zeros((2, 2, 4), np.int32)), "1 biquads"),
        (lambda: fixed_point.to_q31(np.array([np.nan], np.float32), 1.0), "filters.mended"),
        (lambda: fixed_point.to_q31(np.array([1.0], np.float32), 0.0), "full_scale"),
    ],
)
def test_what_q31_cannot_hold_is_one_line(make: Callable[[], object], says: str) -> None:
    with pytest.raises(EdgeError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)
