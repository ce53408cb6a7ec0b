"""Labels of the columns of features that have several: of one channel, or of a window where a column belongs to no channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Labels = Callable[[int, float, int, Mapping[str, Any]], list[str]]
"""Labels from the channels, the rate in hertz, the samples in a window, and all options."""


def count(most: int) -> Labels:
    """1 to `most`."""
    return lambda channels, rate_hz, length, options: [str(k + 1) for k in range(most)]


def orders(option: str) -> Labels:
    """1 to what an option says."""
    return lambda channels, rate_hz, length, options: [str(k + 1) for k in range(options[option])]


def slopes(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """One from each segment of MAVSLP to the next."""
    return [str(k + 1) for k in range(options["MAVSLP_segment"] - 1)]


def pairs(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """Pairs of different channels, and those of the differences."""
    found = [f"{a}_{b}" for a in range(channels) for b in range(a + 1, channels)]
    return [*found, *(f"{pair}_d" for pair in found)]


def upper(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """The upper triangle of a matrix of channels, row by row."""
    return [f"{a}_{b}" for a in range(channels) for b in range(a, channels)]


def dftr_bands(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """Bands of DFTR below half the rate."""
    from embridge_edge.features import spectra

    return _in_hertz(spectra.dftr_bands(rate_hz))


def bands(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """Bands of BANDPOWER that hold a bin."""
    from embridge_edge.features import spectra

    return _in_hertz(spectra.bands(rate_hz, length))


def upper_of_bands(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """`upper` for each of `bands`."""
    both = bands(channels, rate_hz, length, options), upper(channels, rate_hz, length, options)
    return [f"{band}_{pair}" for band in both[0] for pair in both[1]]


def frames(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """Bins of each frame of STFT."""
    from embridge_edge.features import spectra

    count, bins = spectra.stft_shape(rate_hz, length)
    return [f"{frame}_{bin_}" for frame in range(count) for bin_ in range(bins)]


def levels(channels: int, rate_hz: float, length: int, options: Mapping[str, Any]) -> list[str]:
    """The smooth part of the wavelet decomposition, then its details from the coarsest to the finest."""
    from embridge_edge.features import wavelets

    depth = wavelets.levels(rate_hz)
    return [f"a{depth}", *(f"d{level}" for level in range(depth, 0, -1))]


def _in_hertz(edges: list[tuple[float, float]]) -> list[str]:
    return [f"{low:g}-{high:g}Hz" for low, high in edges]
