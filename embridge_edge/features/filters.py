"""Causal biquad filters: designed once in double precision, run in float32 exactly as a device runs them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from embridge_edge.errors import EdgeError

NYQUIST_SHARE = 0.45
"""Highest cut-off as a share of the sample rate: above it a biquad's response near Nyquist is no longer what was asked."""

Sections = tuple[tuple[float, float, float, float, float], ...]
"""Biquads in cascade, each (b0, b1, b2, a1, a2) with a0 = 1; the coefficients are float32 numbers."""

Samples = npt.NDArray[np.float32]


def band_pass(low_hz: float, high_hz: float, order: int, rate_hz: float) -> Sections:
    """Butterworth band-pass of `order` (even: order/2 biquads rise, order/2 fall), as a cascade of biquads.

    Raises:
        EdgeError: no band is left between `low_hz` and 0.45 × the rate.
    """
    from scipy.signal import butter

    ceiling = NYQUIST_SHARE * rate_hz
    high = min(high_hz, ceiling)
    if not 0 < low_hz < high:
        raise EdgeError(
            f"At {rate_hz:g} Hz no band remains between {low_hz:g} Hz and {high:g} Hz (0.45 × the rate at most); "
            "lower bandpass_hz in the recipe or record faster."
        )
    return _as_sections(butter(order // 2, [low_hz, high], btype="bandpass", fs=rate_hz, output="sos"))


def high_pass(low_hz: float, order: int, rate_hz: float) -> Sections:
    """Butterworth high-pass of `order`, as a cascade of biquads."""
    from scipy.signal import butter

    if not 0 < low_hz < NYQUIST_SHARE * rate_hz:
        raise EdgeError(
            f"At {rate_hz:g} Hz a high-pass at {low_hz:g} Hz leaves nothing; lower it in the recipe or record faster."
        )
    return _as_sections(butter(order, low_hz, btype="highpass", fs=rate_hz, output="sos"))


def notch(mains_hz: float, quality: float, rate_hz: float) -> Sections:
    """One notch at the mains frequency and at each harmonic below 0.45 × the rate."""
    from scipy.signal import iirnotch

    sections: list[list[float]] = []
    frequency = mains_hz
    while frequency <= NYQUIST_SHARE * rate_hz:
        b, a = iirnotch(frequency, quality * frequency / mains_hz, fs=rate_hz)
        sections.append([*b, *a])
        frequency += mains_hz
    return _as_sections(np.array(sections)) if sections else ()


def _as_sections(sos: npt.NDArray[np.float64]) -> Sections:
    single = np.asarray(sos, np.float32)
    return tuple((float(s[0]), float(s[1]), float(s[2]), float(s[4]), float(s[5])) for s in single)


def check_stable(sections: Sections) -> None:
    """Refuse a cascade with a pole on or outside the unit circle once its coefficients are float32.

    Raises:
        EdgeError: names the section. (The triangle of Jury: |a2| < 1 and |a1| < 1 + a2.)
    """
    for number, (_, _, _, a1, a2) in enumerate(sections):
        if not (abs(a2) < 1.0 and abs(a1) < 1.0 + a2):
            raise EdgeError(
                f"Filter section {number} is unstable in float32 (a1 {a1:.8f}, a2 {a2:.8f}); raise its lowest cut-off."
            )


def state_for(sections: Sections, first: Samples) -> Samples:
    """State that a filter would have had if the first sample had always been there: no step at the start.

    Args:
        first: float32 `[channels]`.

    Returns: float32 `[channels, sections, 2]`.
    """
    state = np.zeros((first.shape[0], len(sections), 2), np.float32)
    level = first.astype(np.float32)
    for index, (b0, b1, b2, a1, a2) in enumerate(np.asarray(sections, np.float32)):
        out = level * ((b0 + b1 + b2) / (np.float32(1) + a1 + a2))
        state[:, index, 1] = b2 * level - a2 * out
        state[:, index, 0] = b1 * level - a1 * out + state[:, index, 1]
        level = out
    return state


def run(sections: Sections, samples: Samples, state: Samples) -> Samples:
    """Filter float32 `[samples, channels]`; `state` is advanced in place, so that chunks give what the whole gives."""
    if not sections:
        return samples
    coefficients = np.asarray(sections, np.float32)
    return np.asarray(_run(coefficients, np.ascontiguousarray(samples, np.float32), state))


@njit(cache=True, nogil=True)
def _run(coefficients, samples, state):  # type: ignore[no-untyped-def]
    """Transposed direct form II, sample by sample: one rounding order, offline and on a device."""
    count, channels = samples.shape
    out = np.empty_like(samples)
    for channel in range(channels):
        for index in range(count):
            value = samples[index, channel]
            for section in range(coefficients.shape[0]):
                b0, b1, b2, a1, a2 = coefficients[section]
                result = b0 * value + state[channel, section, 0]
                state[channel, section, 0] = b1 * value - a1 * result + state[channel, section, 1]
                state[channel, section, 1] = b2 * value - a2 * result
                value = result
            out[index, channel] = value
    return out
