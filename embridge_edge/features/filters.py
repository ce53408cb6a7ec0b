"""Causal biquad filters: designed once in double precision, run in float32 exactly as a device runs them.

A sample that is not a number, infinite or beyond ±1e30 would stay in the memory of a recursive filter for ever. `run`
skips it: the output there is NaN, so that no feature is computed from what was not measured, and the state stays what it
was, so that the next good sample is filtered as usual. `mended` is for whoever must go on without a hole.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.errors import EdgeError
from embridge_edge.features import design
from embridge_edge.features.design import DEVIATION_DB, NYQUIST_SHARE, Design, Sections, check_stable

__all__ = [
    "DEVIATION_DB",
    "LARGEST",
    "NYQUIST_SHARE",
    "Design",
    "Sections",
    "as_rows",
    "band_pass",
    "check_stable",
    "high_pass",
    "low_pass",
    "mended",
    "notch",
    "run",
    "state_for",
]

LARGEST = np.float32(1e30)
"""Greatest magnitude of a sample: squares and sums of what lies beyond would overflow float32 inside the filter."""

Number = TypeVar("Number", np.float32, np.int32)

_FEW = 8
"""Rows below which turning the state round costs more than many channels at once save."""

Samples = npt.NDArray[np.float32]


def band_pass(low_hz: float, high_hz: float, order: int, rate_hz: float) -> Sections:
    """`design.band_pass`, rounded to float32."""
    return design.band_pass(low_hz, high_hz, order, rate_hz).sections


def high_pass(low_hz: float, order: int, rate_hz: float) -> Sections:
    """`design.high_pass`, rounded to float32."""
    return design.high_pass(low_hz, order, rate_hz).sections


def low_pass(high_hz: float, order: int, rate_hz: float) -> Sections:
    """`design.low_pass`, rounded to float32."""
    return design.low_pass(high_hz, order, rate_hz).sections


def notch(mains_hz: float, quality: float, rate_hz: float) -> Sections:
    """`design.notch`, rounded to float32: one biquad for each harmonic below 0.45 × the rate."""
    return design.notch(mains_hz, quality, rate_hz).sections


def state_for(sections: Sections, first: Samples) -> Samples:
    """State that a filter would have had if the first sample had always been there: no step at the start.

    Args:
        first: float32 `[channels]`; a sample that is not a number, infinite or beyond ±1e30 counts as 0.

    Returns: float32 `[channels, sections, 2]`.
    """
    state = np.zeros((first.shape[0], len(sections), 2), np.float32)
    level = first.astype(np.float32)
    level[~(np.abs(level) <= LARGEST)] = 0.0
    for index, (b0, b1, b2, a1, a2) in enumerate(np.asarray(sections, np.float32)):
        out = level * ((b0 + b1 + b2) / (np.float32(1) + a1 + a2))
        state[:, index, 1] = b2 * level - a2 * out
        state[:, index, 0] = b1 * level - a1 * out + state[:, index, 1]
        level = out
    return state


def run(sections: Sections, samples: Samples, state: Samples) -> Samples:
    """Filter float32 `[samples, channels]`; `state` is advanced in place, so that chunks give what the whole gives.

    A sample that is not a number, infinite or beyond ±1e30 gives NaN and leaves the state of its channel as it is.

    Returns: float32 `[samples, channels]`; the samples themselves where there is no section.

    Raises:
        EdgeError: the samples do not have the state's channels, or the state is another filter's.
    """
    if not sections:
        return samples
    coefficients = np.asarray(sections, np.float32)
    ready = as_rows(samples, len(state), np.float32)
    if state.shape[1:] != (len(sections), 2):
        raise EdgeError(
            f"The state {list(state.shape)} is not that of {len(sections)} biquads; make one with state_for."
        )
    out = np.empty_like(ready)
    if ready.shape[1] == 1 or len(ready) < _FEW or not _all_usable(ready.reshape(-1)):
        _by_channel(coefficients, ready, state, out)
    else:
        inner = np.ascontiguousarray(state.transpose(2, 1, 0))
        _by_row(coefficients, ready, inner[0], inner[1], out)
        state[:] = inner.transpose(2, 1, 0)
    return out


def mended(samples: Samples, last: Samples) -> tuple[Samples, npt.NDArray[np.int64]]:
    """Samples with the last good one held in place of each that is not a number, infinite or beyond ±1e30.

    Args:
        samples: float32 `[samples, channels]`, left as they are.
        last: float32 `[channels]`, what is held at the start (zeros for a fresh stream); brought up to date in place, so
            that chunks give what the whole gives.

    Returns: float32 `[samples, channels]`, and int64 `[channels]`, how many were replaced.

    Raises:
        EdgeError: the samples do not have the channels of `last`.
    """
    out = as_rows(samples, len(last), np.float32).copy()
    replaced = np.zeros(out.shape[1], np.int64)
    _hold(out, last, replaced)
    return out, replaced


def as_rows(samples: npt.NDArray[Any], channels: int, dtype: type[Number]) -> npt.NDArray[Number]:
    """Samples as compiled code takes them: `[samples, channels]` of this type, in the order of memory.

    Raises:
        EdgeError: they have another shape.
    """
    ready = np.require(samples, dtype, ["C", "W"])
    if ready.ndim != 2 or ready.shape[1] != channels:
        raise EdgeError(f"The filter takes samples [samples, {channels} channels], not {list(ready.shape)}.")
    return ready


@compiled("void(float32[:,::1],float32[::1],int64[::1])")
def _hold(samples: Any, last: Any, replaced: Any) -> None:
    for index in range(samples.shape[0]):
        for channel in range(samples.shape[1]):
            value = samples[index, channel]
            if abs(value) <= np.float32(1e30):
                last[channel] = value
            else:
                samples[index, channel] = last[channel]
                replaced[channel] += 1


@compiled("boolean(float32[::1])")
def _all_usable(samples: Any) -> Any:
    """Whether each sample is a number of at most 1e30; counted without a branch, so that it vectorises."""
    usable = 0
    for index in range(samples.shape[0]):
        usable += abs(samples[index]) <= np.float32(1e30)
    return usable == samples.shape[0]


@compiled("void(float32[:,::1],float32[:,::1],float32[:,:,::1],float32[:,::1])")
def _by_channel(coefficients: Any, samples: Any, state: Any, out: Any) -> None:
    """Transposed direct form II, sample by sample: one rounding order, offline and on a device."""
    count, channels = samples.shape
    for channel in range(channels):
        for index in range(count):
            value = samples[index, channel]
            if not abs(value) <= np.float32(1e30):
                out[index, channel] = np.float32(np.nan)
                continue
            for section in range(coefficients.shape[0]):
                b0, b1, b2, a1, a2 = coefficients[section]
                result = b0 * value + state[channel, section, 0]
                state[channel, section, 0] = b1 * value - a1 * result + state[channel, section, 1]
                state[channel, section, 1] = b2 * value - a2 * result
                value = result
            out[index, channel] = value


@compiled("void(float32[:,::1],float32[:,::1],float32[:,::1],float32[:,::1],float32[:,::1])")
def _by_row(coefficients: Any, samples: Any, early: Any, late: Any, out: Any) -> None:
    """`_by_channel` for samples that are all usable, the channels innermost: the same sums, many channels at once.

    `early` and `late` hold the two numbers of the state, `[sections, channels]` each.
    """
    count, channels = samples.shape
    for index in range(count):
        row = out[index]
        for channel in range(channels):
            row[channel] = samples[index, channel]
        for section in range(coefficients.shape[0]):
            b0, b1, b2, a1, a2 = coefficients[section]
            first = early[section]
            second = late[section]
            for channel in range(channels):
                value = row[channel]
                result = b0 * value + first[channel]
                first[channel] = b1 * value - a1 * result + second[channel]
                second[channel] = b2 * value - a2 * result
                row[channel] = result
