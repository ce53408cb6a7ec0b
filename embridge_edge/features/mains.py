"""Taking mains hum out of a signal as it arrives: a comb of notches, and a canceller that learns the hum.

A `Comb` costs the same however many harmonics there are, settles at once and needs a mains frequency that holds; it also
takes out 0 Hz. A `Canceller` follows the amplitude and phase of each harmonic in each channel, and the frequency, for a
few multiplications per harmonic; it is the one to take at low rates, where a period has few samples.

Both take one row after another and keep all memory in an explicit state, so that chunks give bit for bit what the whole
gives. A sample that is not a number, infinite or beyond ±1e30 gives NaN; the memory goes on as if the signal without hum
had been 0 there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.errors import EdgeError
from embridge_edge.features.design import NYQUIST_SHARE
from embridge_edge.features.filters import as_rows

Samples = npt.NDArray[np.float32]

MOST_TAPS = 16
"""Samples that a fraction of a sample is interpolated from: notches stay deep up to half of the rate's half."""

LEAST_DEPTH_DB = 20.0
"""A comb whose notch at the mains frequency is shallower is refused."""

MOST_HARMONICS = 32


@dataclass(frozen=True)
class Comb:
    """Notches at 0 Hz, the mains frequency and its multiples: H(z) = b·(1 − z^−D) / (1 − a·z^−D), D = rate / mains.

    b = 1/(1 + β), a = (1 − β)/(1 + β), β = tan(π / (2·quality)): each notch is mains/quality Hz wide between its −3 dB points
    (S. J. Orfanidis, "Introduction to Signal Processing", 1996). Where D is no whole number, z^−D is Lagrange's
    interpolation between up to 16 samples, which never amplifies, so that the comb is stable (T. I. Laakso et al., "Splitting
    the unit delay", 1996). It is exact at low frequencies only: at 1 kHz and 60 Hz the notches are 130 dB deep at first, 22 dB
    at a quarter of the rate and gone at half of it.

    Attributes:
        first: the shortest delay that the interpolation looks at, in samples.
        taps: weights of the delays first, first + 1, …; float32 numbers.
        forward, back: b and a.
    """

    first: int
    taps: tuple[float, ...]
    forward: float
    back: float

    def response(self, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
        """Complex gain at frequencies given as shares of the rate."""
        delays = self.first + np.arange(len(self.taps))
        delayed = np.exp(-2j * np.pi * np.outer(shares, delays)) @ np.asarray(self.taps)
        return np.asarray(self.forward * (1.0 - delayed) / (1.0 - self.back * delayed))


@dataclass
class CombState:
    """What a comb remembers: float32 `[longest delay, channels]`, and int64 `[1]`, the place of the oldest row in it."""

    line: Samples
    place: npt.NDArray[np.int64]


def comb(mains_hz: float, quality: float, rate_hz: float) -> Comb:
    """A comb for this mains frequency and rate.

    Raises:
        EdgeError: a number is not above 0, the rate is below 2 samples per period, the notches would touch (quality below
            1), or the rate has too few samples per period for a notch of 20 dB.
    """
    _check(mains_hz, rate_hz)
    if not (math.isfinite(quality) and quality >= 1.0):
        raise EdgeError(f"quality {quality:g} of the comb must be 1 or more: below that its notches touch.")
    delay = rate_hz / mains_hz
    whole = round(delay)
    beta = math.tan(math.pi / (2.0 * quality))
    forward, back = 1.0 / (1.0 + beta), (1.0 - beta) / (1.0 + beta)
    if abs(delay - whole) < 1e-9 * delay:
        return Comb(whole, (1.0,), _single(forward), _single(back))
    reach = min(MOST_TAPS // 2, math.floor(delay))
    first = math.floor(delay) - reach + 1
    places = first + np.arange(2 * reach, dtype=np.float64)
    taps = [math.prod((delay - other) / (own - other) for other in places if other != own) for own in places]
    made = Comb(first, tuple(_single(tap) for tap in taps), _single(forward), _single(back))
    depth = -20.0 * math.log10(max(abs(complex(made.response(np.array([mains_hz / rate_hz]))[0])), 1e-12))
    if depth < LEAST_DEPTH_DB:
        raise EdgeError(
            f"At {rate_hz:g} Hz a comb lowers {mains_hz:g} Hz by {depth:.0f} dB only, since {delay:.2f} samples are no whole "
            "period; use notch or the adaptive canceller."
        )
    return made


def comb_state(comb: Comb, first: Samples) -> CombState:
    """State that the comb would have had if the first sample `[channels]` had always been there: its output begins at 0."""
    length = comb.first + len(comb.taps) - 1
    level = np.where(_usable(first), first, np.float32(0)).astype(np.float32)
    line = np.repeat(-np.float32(comb.forward) * level[None], length, axis=0)
    return CombState(np.ascontiguousarray(line, np.float32), np.zeros(1, np.int64))


def run_comb(comb: Comb, samples: Samples, state: CombState) -> Samples:
    """Take the hum out of float32 `[samples, channels]`; `state` is advanced in place.

    With v[n] = a·y[n] − b·x[n] kept in the delay line, y[n] = b·x[n] + v[n − D].

    Raises:
        EdgeError: the samples do not have the state's channels.
    """
    ready = as_rows(samples, state.line.shape[1], np.float32)
    out = np.empty_like(ready)
    taps = np.asarray(comb.taps, np.float32)
    _comb(taps, comb.first, np.float32(comb.forward), np.float32(comb.back), ready, state.line, state.place, out)
    return out


@dataclass(frozen=True)
class Canceller:
    """Learns the hum as a sum of sinusoids and subtracts it: least mean squares with quadrature references.

    For harmonic k of phase θ, hum = Σ c_k·cos kθ + s_k·sin kθ, e = x − hum, and after each sample
    c_k += 2μ·e·cos kθ, s_k += 2μ·e·sin kθ (B. Widrow et al., "Adaptive noise cancelling: principles and applications", 1975).
    Each harmonic is then a notch with its pole at radius 1 − μ, 1/(π·settle_s) Hz wide, with the time constant `settle_s`
    (J. R. Glover, "Adaptive noise canceling applied to sinusoidal interferences", 1977). Between the notches its gain is
    1/(1 − μ·harmonics), which `level` takes back: the output is level·e.

    θ advances by the mains frequency, which may drift: where it is off, (c_k, s_k) turn by k times the difference. Every
    `period` samples the turn since the last time, by least squares over all harmonics and channels, is put right by one
    sixteenth, no further than `follow` from the nominal frequency. The frequency is one for all channels.

    All arithmetic is +, −, ×, ÷ on float32, so that a device reproduces it.

    Attributes:
        harmonics: number of sinusoids, 1 for the mains frequency alone.
        step: 2μ. level: 1 − μ·harmonics. turn: cosine and sine of the nominal phase step. period: samples between two looks at the frequency.
        follow: furthest deviation of the phase step in radians per sample; 0 keeps the nominal frequency.
        mains_hz, rate_hz: what it was made for.
    """

    harmonics: int
    step: float
    level: float
    turn: tuple[float, float]
    period: int
    follow: float
    mains_hz: float
    rate_hz: float


@dataclass
class CancellerState:
    """What a canceller has learnt.

    Attributes:
        weights, before: float32 `[harmonics, 2, channels]`, c and s, now and when the frequency was last looked at.
        phase: float32 `[5]`, cos θ, sin θ, cosine and sine of the phase step, and its deviation in radians.
        count: int64 `[1]`, samples since the frequency was last looked at.
    """

    weights: Samples
    before: Samples
    phase: Samples
    count: npt.NDArray[np.int64]


def canceller(
    mains_hz: float, rate_hz: float, settle_s: float = 0.25, follow_hz: float = 0.5, harmonics: int | None = None
) -> Canceller:
    """A canceller for this mains frequency and rate. The signal should have no large offset: put it after a high-pass.

    Args:
        settle_s: time constant in seconds; the notches are 1/(π·settle_s) Hz wide, 1.3 Hz for 0.25 s.
        follow_hz: how far the frequency may be from `mains_hz`; 0 keeps it there.
        harmonics: how many, the mains frequency included; None for all below 0.45 × the rate, 32 at most.

    Raises:
        EdgeError: a number is impossible, the mains frequency lies above 0.45 × the rate, or `settle_s` is too short for
            so many harmonics (it must be above 4 samples for each, and above half a period).
    """
    _check(mains_hz, rate_hz)
    room = min(MOST_HARMONICS, math.floor(NYQUIST_SHARE * rate_hz / mains_hz))
    if room < 1:
        raise EdgeError(
            f"{mains_hz:g} Hz lies above 0.45 × the rate of {rate_hz:g} Hz; record faster or leave the canceller out."
        )
    count = room if harmonics is None else harmonics
    if not 1 <= count <= room:
        raise EdgeError(f"harmonics {count} must be 1 to {room} for {mains_hz:g} Hz at {rate_hz:g} Hz.")
    shortest = max(4.0 * count / rate_hz, 0.5 / mains_hz)
    if not (math.isfinite(settle_s) and settle_s > shortest):
        raise EdgeError(
            f"settle_s {settle_s:g} must be above {shortest:.4f} s for {count} harmonics at {rate_hz:g} Hz."
        )
    if not 0.0 <= follow_hz <= 0.05 * mains_hz:
        raise EdgeError(
            f"follow_hz {follow_hz:g} must be 0 to {0.05 * mains_hz:g}, a twentieth of the mains frequency."
        )
    settle = settle_s * rate_hz
    angle = 2.0 * math.pi * mains_hz / rate_hz
    return Canceller(
        harmonics=count,
        step=_single(2.0 / settle),
        level=_single(1.0 - count / settle),
        turn=(_single(math.cos(angle)), _single(math.sin(angle))),
        period=max(1, round(settle / 4.0)),
        follow=_single(2.0 * math.pi * follow_hz / rate_hz),
        mains_hz=mains_hz,
        rate_hz=rate_hz,
    )


def canceller_state(canceller: Canceller, channels: int) -> CancellerState:
    """A canceller that has learnt nothing yet."""
    shape = (canceller.harmonics, 2, channels)
    phase = np.array([1.0, 0.0, *canceller.turn, 0.0], np.float32)
    return CancellerState(np.zeros(shape, np.float32), np.zeros(shape, np.float32), phase, np.zeros(1, np.int64))


def run_canceller(canceller: Canceller, samples: Samples, state: CancellerState) -> Samples:
    """Take the hum out of float32 `[samples, channels]`; `state` is advanced in place.

    Raises:
        EdgeError: the samples do not have the state's channels.
    """
    ready = as_rows(samples, state.weights.shape[2], np.float32)
    out = np.empty_like(ready)
    turn = np.asarray(canceller.turn, np.float32)
    _cancel(
        np.float32(canceller.step), np.float32(canceller.level), turn, canceller.period, np.float32(canceller.follow), ready,
        state.weights, state.before, state.phase, state.count, out,
    )  # fmt: skip
    return out


def frequency_hz(canceller: Canceller, state: CancellerState) -> float:
    """The mains frequency that the canceller has found."""
    return canceller.mains_hz + float(state.phase[4]) * canceller.rate_hz / (2.0 * math.pi)


def _check(mains_hz: float, rate_hz: float) -> None:
    if not (math.isfinite(rate_hz) and rate_hz > 0 and math.isfinite(mains_hz) and mains_hz > 0):
        raise EdgeError(f"Mains at {mains_hz:g} Hz and a rate of {rate_hz:g} Hz must both be above 0.")
    if rate_hz < 2.0 * mains_hz:
        raise EdgeError(f"At {rate_hz:g} Hz the mains frequency {mains_hz:g} Hz cannot be told; record faster.")


def _usable(samples: Samples) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(samples) <= np.float32(1e30))


def _single(value: float) -> float:
    return float(np.float32(value))


@compiled("void(float32[::1],int64,float32,float32,float32[:,::1],float32[:,::1],int64[::1],float32[:,::1])")
def _comb(taps: Any, first: Any, forward: Any, back: Any, samples: Any, line: Any, place: Any, out: Any) -> None:
    count, channels = samples.shape
    length = line.shape[0]
    here = place[0]
    for index in range(count):
        for channel in range(channels):
            out[index, channel] = np.float32(0.0)
        for tap in range(taps.shape[0]):
            at = here - first - tap
            if at < 0:
                at += length
            weight = taps[tap]
            for channel in range(channels):
                out[index, channel] += weight * line[at, channel]
        for channel in range(channels):
            value = samples[index, channel]
            delayed = out[index, channel]
            usable = abs(value) <= np.float32(1e30)
            passed = forward * value
            result = passed + delayed
            out[index, channel] = result if usable else np.float32(np.nan)
            line[here, channel] = back * result - passed if usable else delayed
        here += 1
        if here == length:
            here = 0
    place[0] = here


@compiled(
    "void(float32,float32,float32[::1],int64,float32,float32[:,::1],float32[:,:,::1],float32[:,:,::1],float32[::1],"
    "int64[::1],float32[:,::1])",
    error_model="numpy",
)
def _cancel(
    step: Any,
    level: Any,
    turn: Any,
    period: Any,
    follow: Any,
    samples: Any,
    weights: Any,
    before: Any,
    phase: Any,
    count: Any,
    out: Any,
) -> None:
    rows, channels = samples.shape
    harmonics = weights.shape[0]
    half = np.float32(0.5)
    one = np.float32(1.0)
    cosine, sine, turn_cosine, turn_sine, drift = phase[0], phase[1], phase[2], phase[3], phase[4]
    since = count[0]
    for index in range(rows):
        for channel in range(channels):
            out[index, channel] = samples[index, channel]
        c, s = cosine, sine
        for harmonic in range(harmonics):
            for channel in range(channels):
                out[index, channel] -= weights[harmonic, 0, channel] * c + weights[harmonic, 1, channel] * s
            c, s = c * cosine - s * sine, s * cosine + c * sine
        c, s = cosine, sine
        for harmonic in range(harmonics):
            along, across = step * c, step * s
            for channel in range(channels):
                usable = abs(samples[index, channel]) <= np.float32(1e30)
                error = out[index, channel] if usable else np.float32(0.0)
                weights[harmonic, 0, channel] += along * error
                weights[harmonic, 1, channel] += across * error
            c, s = c * cosine - s * sine, s * cosine + c * sine
        for channel in range(channels):
            usable = abs(samples[index, channel]) <= np.float32(1e30)
            out[index, channel] = level * out[index, channel] if usable else np.float32(np.nan)
        cosine, sine = cosine * turn_cosine - sine * turn_sine, sine * turn_cosine + cosine * turn_sine
        # One step of Newton's keeps the length at 1 without a square root.
        mend = np.float32(1.5) - half * (cosine * cosine + sine * sine)
        cosine, sine = cosine * mend, sine * mend
        since += 1
        if since == period:
            since = 0
            turned = np.float32(0.0)
            weight = np.float32(0.0)
            for harmonic in range(harmonics):
                order = np.float32(harmonic + 1)
                for channel in range(channels):
                    c_now, s_now = weights[harmonic, 0, channel], weights[harmonic, 1, channel]
                    c_then, s_then = before[harmonic, 0, channel], before[harmonic, 1, channel]
                    turned += order * (s_then * c_now - c_then * s_now)
                    weight += order * order * half * (c_now * c_now + s_now * s_now + c_then * c_then + s_then * s_then)
                    before[harmonic, 0, channel] = c_now
                    before[harmonic, 1, channel] = s_now
            if weight > np.float32(0.0):
                drift += turned / (weight * np.float32(16 * period))
                drift = min(max(drift, -follow), follow)
                # Two terms of each series: the deviation is below 0.16, the error below what float32 resolves there.
                square = drift * drift
                small_cosine = one - half * square * (one - square / np.float32(12.0))
                small_sine = drift * (one - square / np.float32(6.0) * (one - square / np.float32(20.0)))
                turn_cosine = turn[0] * small_cosine - turn[1] * small_sine
                turn_sine = turn[1] * small_cosine + turn[0] * small_sine
    phase[0], phase[1], phase[2], phase[3], phase[4] = cosine, sine, turn_cosine, turn_sine, drift
    count[0] = since
