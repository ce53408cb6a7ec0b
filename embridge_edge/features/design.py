"""Biquads designed in double precision, and the check that what is left of them after rounding is still the filter.

Everything here runs once, on the host. `Design` is what scipy gives; `Design.sections` is what a float32 target runs,
`fixed_point.quantise` makes what a Q31 target runs.

How low a cut-off f may lie depends on the word length. The poles of a high-pass sit 2πf/rate from 1, so that coefficients
must resolve (2πf/rate)² beside 2: float32 numbers there are 1.2e-7 apart, Q31 coefficients 9.3e-10. What limits Q31 is the
rounding of its output, which comes back amplified by (rate/2πf)². `check_stable` lets through, for Butterworth filters,

    lowest cut-off in Hz        float32              Q31
    at a rate of            1 kHz    4 kHz     1 kHz    4 kHz
    high-pass, order 2       0.08      0.3       1.3      5.0
    high-pass, order 4       0.11      0.5       1.3      5.1
    band-pass, order 4       0.08      0.3       1.3      5.0
    low-pass, order 2        0.16      0.6       0.9      3.6

Float32 rounds as well, by a share of what the sections hold, offset included. Measured on a high-pass of order 2 in
transposed direct form II: noise of 2.4e-6 of the signal's RMS at 20 Hz of 2 kHz, 5e-5 at 5 Hz of 4 kHz, 1.6e-3 at 0.5 Hz of
4 kHz; with a constant offset of 100 times the signal, 2e-4, 4e-3 and 0.14. That is not refused, since it depends on the
signal: a low cut-off at a high rate wants its offset taken away first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError

NYQUIST_SHARE = 0.45
"""Highest cut-off as a share of the sample rate: above it a biquad's response near Nyquist is no longer what was asked."""

DEVIATION_DB = 0.5
"""A rounded filter may differ by so much from the designed one, anywhere in the pass band (where that is within 3 dB)."""

NOISE_SHARE = 2.0**-16
"""Most noise and offset that a Q31 cascade may add, as a share of full scale: no more than a 16-bit converter's step."""

PRECISIONS = ("float32", "q31")

Section = tuple[float, float, float, float, float]
"""(b0, b1, b2, a1, a2) with a0 = 1: y[n] = b0·x[n] + b1·x[n−1] + b2·x[n−2] − a1·y[n−1] − a2·y[n−2]."""

Sections = tuple[Section, ...]
"""Biquads in cascade, each (b0, b1, b2, a1, a2) with a0 = 1; the coefficients are float32 numbers."""


@dataclass(frozen=True)
class Design:
    """A cascade of biquads in double precision. `a + b` is a, then b.

    Attributes:
        rate_hz: sample rate in hertz.
        exact: the biquads, not rounded.
        remedies: for each biquad what to change where it cannot be built, for errors.
    """

    rate_hz: float
    exact: Sections
    remedies: tuple[str, ...]

    @property
    def sections(self) -> Sections:
        """The biquads rounded to float32."""
        return tuple(_five(np.asarray(section, np.float32)) for section in self.exact)

    def __add__(self, other: Design) -> Design:
        if self.rate_hz != other.rate_hz:
            raise EdgeError(
                f"Filters for {self.rate_hz:g} Hz and {other.rate_hz:g} Hz cannot follow one another; design both for one rate."
            )
        return Design(self.rate_hz, self.exact + other.exact, self.remedies + other.remedies)


def band_pass(low_hz: float, high_hz: float, order: int, rate_hz: float) -> Design:
    """Butterworth band-pass of `order` (2, 4, 6 or 8: order/2 rise, order/2 fall).

    Source: S. Butterworth, "On the theory of filter amplifiers", 1930; bilinear transform by scipy.signal.butter.

    Args:
        low_hz: lower −3 dB point. high_hz: upper one; at most 0.45 × the rate is taken.

    Raises:
        EdgeError: no band is left between `low_hz` and 0.45 × the rate; the order or the rate is impossible.
    """
    from scipy.signal import butter

    _check_rate(rate_hz)
    if order not in (2, 4, 6, 8):
        raise EdgeError(f"order {order} of the band-pass must be 2, 4, 6 or 8.")
    ceiling = NYQUIST_SHARE * rate_hz
    high = min(high_hz, ceiling)
    if not 0 < low_hz < high_hz:
        raise EdgeError(
            f"The band-pass from {low_hz:g} to {high_hz:g} Hz is none; give cut-offs above 0, the lower one first."
        )
    if low_hz >= high:
        raise EdgeError(
            f"At {rate_hz:g} Hz no band remains between {low_hz:g} Hz and {high:g} Hz (0.45 × the rate at most); "
            "lower the band-pass or record faster."
        )
    sos = butter(order // 2, [low_hz, high], btype="bandpass", fs=rate_hz, output="sos")
    middle = math.sqrt(low_hz * high)
    remedies = [
        f"raise the lower cut-off {low_hz:g} Hz" if _pole_share(section) * rate_hz < middle else _widen(low_hz, high)
        for section in _sections(sos)
    ]
    return Design(rate_hz, _sections(sos), tuple(remedies))


def _widen(low_hz: float, high_hz: float) -> str:
    return f"set the cut-offs {low_hz:g} Hz and {high_hz:g} Hz further apart, the upper one first"


def high_pass(low_hz: float, order: int, rate_hz: float) -> Design:
    """Butterworth high-pass of `order` 1 to 8 with its −3 dB point at `low_hz`.

    Raises:
        EdgeError: `low_hz` is not between 0 and 0.45 × the rate; the order or the rate is impossible.
    """
    from scipy.signal import butter

    _check_rate(rate_hz)
    _check_order(order, "high-pass")
    if not 0 < low_hz < NYQUIST_SHARE * rate_hz:
        raise EdgeError(
            f"At {rate_hz:g} Hz a high-pass at {low_hz:g} Hz leaves nothing; lower it in the recipe or record faster."
        )
    sections = _sections(butter(order, low_hz, btype="highpass", fs=rate_hz, output="sos"))
    return Design(rate_hz, sections, (f"raise the high-pass cut-off {low_hz:g} Hz",) * len(sections))


def low_pass(high_hz: float, order: int, rate_hz: float) -> Design:
    """Butterworth low-pass of `order` 1 to 8 with its −3 dB point at `high_hz`.

    Raises:
        EdgeError: `high_hz` is not between 0 and 0.45 × the rate; the order or the rate is impossible.
    """
    from scipy.signal import butter

    _check_rate(rate_hz)
    _check_order(order, "low-pass")
    if not 0 < high_hz <= NYQUIST_SHARE * rate_hz:
        raise EdgeError(
            f"At {rate_hz:g} Hz a low-pass must lie above 0 Hz and not above {NYQUIST_SHARE * rate_hz:g} Hz (0.45 × the "
            f"rate), not at {high_hz:g} Hz; lower it or leave it out."
        )
    sections = _sections(butter(order, high_hz, btype="lowpass", fs=rate_hz, output="sos"))
    return Design(rate_hz, sections, (f"raise the low-pass cut-off {high_hz:g} Hz",) * len(sections))


def notch(mains_hz: float, quality: float, rate_hz: float) -> Design:
    """One notch at the mains frequency and at each harmonic below 0.45 × the rate, all of width `mains_hz / quality` Hz.

    Source: scipy.signal.iirnotch, after S. J. Orfanidis, "Introduction to Signal Processing", 1996. No harmonic below
    0.45 × the rate gives no biquad.

    Raises:
        EdgeError: a frequency or the quality is not above 0, or there are more than 64 harmonics.
    """
    from scipy.signal import iirnotch

    _check_rate(rate_hz)
    if not (mains_hz > 0 and math.isfinite(mains_hz) and quality > 0 and math.isfinite(quality)):
        raise EdgeError(f"A notch needs a frequency and a quality above 0, not {mains_hz:g} Hz and {quality:g}.")
    if NYQUIST_SHARE * rate_hz / mains_hz > 64:
        raise EdgeError(
            f"Notches at {mains_hz:g} Hz and its harmonics would be more than 64 at {rate_hz:g} Hz; use a comb instead."
        )
    sections: list[Section] = []
    remedies: list[str] = []
    frequency = mains_hz
    while frequency <= NYQUIST_SHARE * rate_hz:
        b, a = iirnotch(frequency, quality * frequency / mains_hz, fs=rate_hz)
        sections.append((float(b[0]), float(b[1]), float(b[2]), float(a[1]), float(a[2])))
        remedies.append(f"lower the quality {quality:g} of the notch at {frequency:g} Hz")
        frequency += mains_hz
    return Design(rate_hz, tuple(sections), tuple(remedies))


def cascade(
    bandpass_hz: tuple[float, float] | None, order: int, notch_hz: float | None, quality: float, rate_hz: float
) -> Design:
    """A band-pass, then a notch with its harmonics, as far as they are asked for; checked for float32.

    Raises:
        EdgeError: no band remains at this rate, or the rounded filter is unstable or another one.
    """
    asked = Design(rate_hz, (), ())
    if bandpass_hz is not None:
        asked += band_pass(*bandpass_hz, order, rate_hz)
    if notch_hz is not None:
        asked += notch(notch_hz, quality, rate_hz)
    check_stable(asked)
    return asked


def check_stable(sections: Sections | Design, precision: str = "float32") -> None:
    """Refuse a cascade that, once its coefficients are rounded for the target, is unstable or no longer what was designed.

    Looked at, on the rounded coefficients: that all poles lie inside the unit circle (Jury's triangle: |a2| < 1 and
    |a1| < 1 + a2); that the response differs by at most 0.5 dB from the designed one wherever that is within 3 dB of its
    greatest value; for Q31, that noise and offset stay below 2⁻¹⁶ of full scale.

    Args:
        sections: a `Design`, or biquads that are float32 numbers already: their own design is then unknown, and they are
            the reference for the response.
        precision: "float32" (transposed direct form II) or "q31" (`fixed_point.quantise`).

    Raises:
        EdgeError: names the section, and the cut-off to raise where the design is given; or the precision is unknown.
    """
    if precision not in PRECISIONS:
        raise EdgeError(f"Unknown precision {precision!r} of a filter; known are {', '.join(PRECISIONS)}.")
    exact = sections.exact if isinstance(sections, Design) else sections
    if not exact:
        return
    if precision == "float32":
        rounded = sections.sections if isinstance(sections, Design) else sections
        _check_poles(rounded, sections, precision)
        _check_response(rounded, sections, precision)
        return
    from embridge_edge.features import fixed_point

    cascade = fixed_point.quantise(sections)
    rounded = cascade.as_sections()
    _check_response(rounded, sections, precision)
    floor = fixed_point.noise_floor(cascade)
    added = floor.rms + abs(floor.offset)
    if added > NOISE_SHARE:
        worst = int(np.argmax([abs(each.offset) + each.rms for each in floor.of_section]))
        raise EdgeError(
            f"Filter section {worst} is too noisy in q31: offset and noise are {added:.2e} of full scale, "
            f"at most {NOISE_SHARE:.2e}; {remedy(sections, worst)} or sample slower."
        )


def _check_poles(rounded: Sections, sections: Sections | Design, precision: str) -> None:
    for number, (_, _, _, a1, a2) in enumerate(rounded):
        if not (abs(a2) < 1.0 and abs(a1) < 1.0 + a2):
            raise EdgeError(
                f"Filter section {number} is unstable in {precision} (a1 {a1:.8f}, a2 {a2:.8f}); "
                f"{remedy(sections, number)} or sample slower."
            )


def _check_response(rounded: Sections, sections: Sections | Design, precision: str) -> None:
    exact = sections.exact if isinstance(sections, Design) else sections
    shares = _frequencies(exact)
    wanted = np.array([_response(section, shares) for section in exact])
    given = np.array([_response(section, shares) for section in rounded])
    whole = np.abs(wanted.prod(axis=0))
    passed = whole >= whole.max() / math.sqrt(2.0)
    with np.errstate(divide="ignore"):
        apart = 20.0 * np.log10(np.abs(given[:, passed]) / np.abs(wanted[:, passed]))
    # The sections of a Q31 cascade are scaled one against another; only their product must be right.
    sums = apart.sum(axis=0)
    place = int(np.argmax(np.abs(sums)))
    if not abs(sums[place]) <= DEVIATION_DB:
        level = np.median(apart, axis=1)
        worst = int(np.argmax(np.abs(apart[:, place] - level)))
        raise EdgeError(
            f"Filter section {worst} is not the designed one in {precision}: {abs(sums[place]):.2f} dB off in the pass band, "
            f"at most {DEVIATION_DB:g} dB; {remedy(sections, worst)} or sample slower."
        )


def remedy(sections: Sections | Design, number: int) -> str:
    """What to change where biquad `number` cannot be built."""
    if isinstance(sections, Design):
        return sections.remedies[number]
    return f"raise the cut-off near {_pole_share(sections[number]):.2g} × the rate"


def _frequencies(sections: Sections) -> npt.NDArray[np.float64]:
    """Shares of the rate at which a response is looked at: even, logarithmic, and close together around each pole."""
    parts = [np.linspace(0.0, 0.5, 513), np.geomspace(1e-7, 0.5, 512)]
    for section in sections:
        for pole in np.roots([1.0, *section[3:]]):
            width = max(1.0 - abs(pole), 1e-9) / (2.0 * np.pi)
            parts.append(abs(np.angle(pole)) / (2.0 * np.pi) + width * np.linspace(-4.0, 4.0, 65))
    shares = np.concatenate(parts)
    return np.unique(shares[(shares >= 0.0) & (shares <= 0.5)])


def _response(section: Section, shares: npt.NDArray[np.float64]) -> npt.NDArray[np.complex128]:
    b0, b1, b2, a1, a2 = section
    back = np.exp(-2j * np.pi * shares)
    response: npt.NDArray[np.complex128] = (b0 + back * (b1 + back * b2)) / (1.0 + back * (a1 + back * a2))
    # A zero on the unit circle has no level; the pass band never holds one, and the logarithm must not see it.
    return np.where(np.abs(response) > 1e-30, response, 1e-30)


def _pole_share(section: Section) -> float:
    """Natural frequency of a section's slowest pole as a share of the rate: |ln p| / 2π."""
    poles = [pole for pole in np.roots([1.0, *section[3:]]) if abs(pole) > 1e-12]
    return float(min((abs(np.log(complex(pole))) for pole in poles), default=np.pi) / (2.0 * np.pi))


def _sections(sos: npt.NDArray[np.float64]) -> Sections:
    return tuple(_five(np.delete(row, 3)) for row in np.asarray(sos, np.float64))


def _five(row: npt.NDArray[np.float64] | npt.NDArray[np.float32]) -> Section:
    b0, b1, b2, a1, a2 = (float(value) for value in row)
    return b0, b1, b2, a1, a2


def _check_rate(rate_hz: float) -> None:
    if not (math.isfinite(rate_hz) and rate_hz > 0):
        raise EdgeError(f"A filter needs a sample rate above 0 Hz, not {rate_hz:g}.")


def _check_order(order: int, what: str) -> None:
    if order not in range(1, 9):
        raise EdgeError(f"order {order} of the {what} must be 1 to 8.")
