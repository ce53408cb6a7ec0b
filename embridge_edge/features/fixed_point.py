"""The biquad cascade in 32-bit integers, as CMSIS-DSP's arm_biquad_cascade_df1_q31 runs it.

Each biquad is a direct form I with a 64-bit accumulator,

    y[n] = (b0·x[n] + b1·x[n−1] + b2·x[n−2] + a1·y[n−1] + a2·y[n−2]) >> (31 − post_shift),

in which a1 and a2 carry the opposite sign of a textbook's, all coefficients are divided by 2^post_shift to fit into Q31,
and the shift rounds down. CMSIS wraps where a result leaves 32 bits, `run_q31` saturates; the scaling that `quantise`
chooses makes sure that neither ever happens, so that both give the same bits.

Scaling: the largest value that a biquad can reach for any input within full scale is Σ|h|, the L1 norm of the impulse
response up to it (L. B. Jackson, "On the interaction of roundoff noise and dynamic range in digital filters", 1970), and
every rounding before it adds at most its own L1 norm in steps. `quantise` scales the numerator of each biquad so that
this sum stays below full scale; the product of all scales is 2^−output_shift, which whoever reads the output undoes.

Noise: each shift rounds down by 0 to 1 step, on average by half a step, and its error passes 1/A(z) of its own biquad and
all that follow. So there is an offset, Σ −½·g(1), and a noise, √(Σ‖g‖²/12), with g the response from each rounding to the
output. Both grow with (rate/cut-off)²: `noise_floor` gives them. That the errors are independent of the signal holds while
it moves over many steps; for a constant input they may repeat (limit cycles), within the `worst` that is also given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.errors import EdgeError
from embridge_edge.features.design import Design, Section, Sections, remedy
from embridge_edge.features.filters import as_rows

Words = npt.NDArray[np.int32]

STEP = 2.0**-31
"""One step of Q31 as a share of full scale."""

LONGEST = 2**21
"""Samples of an impulse response that are summed; a filter that rings longer is refused."""


@dataclass(frozen=True)
class Q31Cascade:
    """Biquads in cascade for arm_biquad_cascade_df1_q31.

    Attributes:
        coefficients: for each biquad (b0, b1, b2, −a1, −a2) × 2^(31 − post_shift), int32.
        post_shift: CMSIS's postShift, the same for all biquads.
        output_shift: the output is 2^−output_shift of what the designed filter gives.
    """

    coefficients: tuple[tuple[int, int, int, int, int], ...]
    post_shift: int
    output_shift: int

    def as_sections(self) -> Sections:
        """The rounded biquads as numbers (b0, b1, b2, a1, a2), with the output's scale put right in the last one."""
        unit = 2.0 ** (self.post_shift - 31)
        found: list[Section] = []
        for number, (b0, b1, b2, a1, a2) in enumerate(self.coefficients):
            scale = unit * (2.0**self.output_shift if number == len(self.coefficients) - 1 else 1.0)
            found.append((b0 * scale, b1 * scale, b2 * scale, -a1 * unit, -a2 * unit))
        return tuple(found)


@dataclass(frozen=True)
class SectionNoise:
    """What the rounding in one biquad adds to the output; shares of full scale of the designed filter's output.

    Attributes:
        rms: standard deviation. offset: mean. worst: bound on the magnitude.
    """

    rms: float
    offset: float
    worst: float


@dataclass(frozen=True)
class NoiseFloor:
    """What rounding adds to the output of a Q31 cascade; shares of full scale of the designed filter's output.

    Attributes:
        rms: standard deviation. offset: mean. worst: bound on the magnitude, for any input.
        of_section: the part of each biquad.
    """

    rms: float
    offset: float
    worst: float
    of_section: tuple[SectionNoise, ...]

    def text(self) -> str:
        """One line for people, in decibels below full scale."""
        return (
            f"noise {_decibels(self.rms):.0f} dB, offset {_decibels(abs(self.offset)):.0f} dB, "
            f"never above {_decibels(self.worst):.0f} dB (full scale is 0 dB)"
        )


def _decibels(share: float) -> float:
    return 20.0 * math.log10(max(share, 1e-30))


def quantise(sections: Sections | Design) -> Q31Cascade:
    """Round a cascade to Q31 and scale it so that no biquad overflows for any input within full scale.

    Each biquad gets the largest scale that is safe, the last one what is missing to a power of two. Numerators like
    (1, −2, 1) keep their proportions exactly, so that zeros at 0 Hz and at half the rate stay there.

    Raises:
        EdgeError: a rounded pole lies on or outside the unit circle, the filter rings for more than 2 million samples,
            or a biquad has no numerator. Names the biquad, and the cut-off to raise where a design is given.
    """
    exact = sections.exact if isinstance(sections, Design) else sections
    if not exact:
        return Q31Cascade((), 0, 0)
    largest = max(max(abs(a1), abs(a2)) for *_, a1, a2 in exact)
    leads = [section[0] or max(section[:3], key=abs) for section in exact]
    shapes = [[b / lead if lead else 0.0 for b in section[:3]] for section, lead in zip(exact, leads, strict=True)]
    if not all(leads):
        raise EdgeError(f"Filter section {leads.index(0.0)} has no numerator; design it again.")
    post_shift = 1 if largest >= 1.0 - STEP else 0
    unit = 2.0 ** (31 - post_shift)
    poles: list[tuple[int, int]] = []
    for number, (*_, a1, a2) in enumerate(exact):
        whole = round(-a1 * unit), round(-a2 * unit)
        back, further = whole[0] / unit, whole[1] / unit
        fits = all(-(2**31) <= value < 2**31 for value in whole)
        if not (fits and abs(further) < 1.0 and abs(back) < 1.0 - further):
            raise EdgeError(
                f"Filter section {number} is unstable in q31 (a1 {-back:.9f}, a2 {-further:.9f}); "
                f"{remedy(sections, number)} or sample slower."
            )
        poles.append(whole)
    impulse = np.zeros(_ringing(poles, unit, sections))
    impulse[0] = 1.0
    signal, noises = impulse, [np.zeros(0)] * 0
    total = math.prod(leads)
    found: list[tuple[int, int, int, int, int]] = []
    output_shift = 0
    for number, ((back, further), shape) in enumerate(zip(poles, shapes, strict=True)):
        denominator = (1.0, -back / unit, -further / unit)
        own = _filtered((1.0, 0.0, 0.0), denominator, impulse)
        signal = _filtered(shape, denominator, signal)
        noises = [_filtered(shape, denominator, noise) for noise in noises]
        room = 1.0 - 1e-6 - _l1(own) * STEP
        widest = max(abs(value) for value in shape)
        scale = room / (_l1(signal) + STEP * sum(_l1(noise) for noise in noises))
        scale = min(scale, (1.0 - 2.0 * STEP) * 2.0**post_shift / widest)
        if not scale > 0:
            raise EdgeError(
                f"Filter section {number} fills the whole of q31 with its own rounding; {remedy(sections, number)}."
            )
        if number < len(exact) - 1:
            factor = scale
        else:
            output_shift = math.ceil(math.log2(abs(total) / scale))
            factor = total * 2.0**-output_shift
        first = round(factor * unit)
        if first == 0:
            raise EdgeError(
                f"Filter section {number} has a numerator below one step of q31; {remedy(sections, number)} or sample slower."
            )
        b0, b1, b2 = (round(first * value) for value in shape)
        found.append((b0, b1, b2, back, further))
        total *= unit / first
        signal = signal * (first / unit)
        noises = [noise * (first / unit) for noise in noises] + [own]
    return Q31Cascade(tuple(found), post_shift, output_shift)


def noise_floor(cascade: Q31Cascade) -> NoiseFloor:
    """What rounding adds to the output; see the head of this module for the formulas and what they take for granted.

    L. B. Jackson, "Roundoff-noise analysis for fixed-point digital filters realized in cascade or parallel form", 1970.
    """
    unit = 2.0 ** (31 - cascade.post_shift)
    impulse = np.zeros(_ringing([(a1, a2) for *_, a1, a2 in cascade.coefficients], unit, ()))
    impulse[:1] = 1.0
    # From the last biquad to the first: the response from behind each to the output, and through its own 1/A before that.
    noises: list[npt.NDArray[np.float64]] = []
    for *forward, back, further in reversed(cascade.coefficients):
        denominator = (1.0, -back / unit, -further / unit)
        noises.insert(0, _filtered((1.0, 0.0, 0.0), denominator, impulse))
        impulse = _filtered([b / unit for b in forward], denominator, impulse)
    scale = STEP * 2.0**cascade.output_shift
    each = tuple(
        SectionNoise(
            scale * math.sqrt(float(np.dot(noise, noise)) / 12.0), -0.5 * scale * float(noise.sum()), scale * _l1(noise)
        )
        for noise in noises
    )
    rms = math.sqrt(sum(item.rms**2 for item in each))
    return NoiseFloor(rms, sum(item.offset for item in each), sum(item.worst for item in each), each)


def state_for_q31(cascade: Q31Cascade, first: Words) -> Words:
    """State that the cascade would have had if the first sample had always been there: no step at the start.

    CMSIS starts from zeros; a device that wants the same start copies these numbers into its state.

    Args:
        first: int32 `[channels]`.

    Returns: int32 `[channels, sections, 4]`, x[n−1] x[n−2] y[n−1] y[n−2] of each biquad.
    """
    state = np.zeros((len(first), len(cascade.coefficients), 4), np.int32)
    level = np.asarray(first, np.int32)
    unit = 2 ** (31 - cascade.post_shift)
    for index, (b0, b1, b2, a1, a2) in enumerate(cascade.coefficients):
        state[:, index, :2] = level[:, None]
        gain = (b0 + b1 + b2) / (unit - a1 - a2)
        level = np.clip(np.floor(level * gain), -(2.0**31), 2.0**31 - 1.0).astype(np.int32)
        state[:, index, 2:] = level[:, None]
    return state


def run_q31(cascade: Q31Cascade, samples: Words, state: Words) -> Words:
    """Filter int32 `[samples, channels]`; `state` is advanced in place, so that chunks give what the whole gives.

    Args:
        samples: Q31, see `to_q31`.
        state: int32 `[channels, sections, 4]`, from `state_for_q31`, or zeros as on a device.

    Returns: int32 `[samples, channels]`, 2^−output_shift of the designed filter's output.

    Raises:
        EdgeError: the samples do not have the state's channels, or the state is another filter's.
    """
    ready = as_rows(samples, len(state), np.int32)
    if state.shape[1:] != (len(cascade.coefficients), 4):
        raise EdgeError(
            f"The state {list(state.shape)} is not that of {len(cascade.coefficients)} biquads; make one with state_for_q31."
        )
    out = np.empty_like(ready)
    coefficients = np.asarray(cascade.coefficients, np.int32).reshape(-1, 5)
    _cascade(coefficients, 31 - cascade.post_shift, ready, state, out)
    return out


def to_q31(samples: npt.NDArray[np.float32], full_scale: float) -> Words:
    """Samples as shares of `full_scale` in Q31, rounded to the nearest and saturated; int32 of the same shape.

    Raises:
        EdgeError: a sample is not a number or infinite (integers have no such thing; `filters.mended` holds the last good
            one), or `full_scale` is not above 0.
    """
    if not (math.isfinite(full_scale) and full_scale > 0):
        raise EdgeError(f"full_scale {full_scale:g} must be above 0: the largest magnitude that the converter gives.")
    if not np.isfinite(samples).all():
        raise EdgeError("A sample is not a number or infinite, which Q31 cannot hold; use filters.mended first.")
    steps = np.rint(np.asarray(samples, np.float64) * (2.0**31 / full_scale))
    return np.clip(steps, -(2.0**31), 2.0**31 - 1.0).astype(np.int32)


def from_q31(words: Words, full_scale: float, cascade: Q31Cascade | None = None) -> npt.NDArray[np.float32]:
    """Q31 as float32 of the same shape in the unit of `full_scale`; with `cascade`, of its output, the scale put right."""
    shift = 0 if cascade is None else cascade.output_shift
    return (words * (full_scale * 2.0 ** (shift - 31))).astype(np.float32)


def _ringing(poles: list[tuple[int, int]], unit: float, sections: Sections | Design) -> int:
    """Samples until the slowest biquad has died down to 1e-12, with room for several that are alike."""
    longest = 64
    for number, (back, further) in enumerate(poles):
        radius = max(abs(np.roots([1.0, -back / unit, -further / unit])))
        samples = 64 + math.ceil(28.0 / max(-math.log(min(max(radius, 1e-12), 1.0 - 1e-15)), 1e-12))
        if samples > LONGEST:
            raise EdgeError(
                f"Filter section {number} rings for more than {LONGEST} samples in q31; {remedy(sections, number)}."
            )
        longest = max(longest, samples)
    return longest


def _l1(response: npt.NDArray[np.float64]) -> float:
    return float(np.abs(response).sum())


def _filtered(
    forward: list[float] | tuple[float, ...], back: tuple[float, float, float], signal: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    from scipy.signal import lfilter

    return np.asarray(lfilter(forward, back, signal), np.float64)


@compiled("void(int32[:,::1],int64,int32[:,::1],int32[:,:,::1],int32[:,::1])")
def _cascade(coefficients: Any, shift: Any, samples: Any, state: Any, out: Any) -> None:
    for channel in range(samples.shape[1]):
        for index in range(samples.shape[0]):
            value = np.int64(samples[index, channel])
            for section in range(coefficients.shape[0]):
                total = np.int64(coefficients[section, 0]) * value
                total += np.int64(coefficients[section, 1]) * np.int64(state[channel, section, 0])
                total += np.int64(coefficients[section, 2]) * np.int64(state[channel, section, 1])
                total += np.int64(coefficients[section, 3]) * np.int64(state[channel, section, 2])
                total += np.int64(coefficients[section, 4]) * np.int64(state[channel, section, 3])
                result = min(max(total >> shift, -(1 << 31)), (1 << 31) - 1)
                state[channel, section, 1] = state[channel, section, 0]
                state[channel, section, 0] = value
                state[channel, section, 3] = state[channel, section, 2]
                state[channel, section, 2] = result
                value = result
            out[index, channel] = value
