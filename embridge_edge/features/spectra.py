"""Features of the spectrum: mean and median frequency, moments, bands, short frames.

`MDF MNF MNP SM DFTR` share one transform of the bare window, padded with zeros to the next power of two; P_k is |X_k|² over the
squared length, k from 0 to half the padded length, that bin left out, f_k its frequency. `BANDPOWER` and `STFT` weigh the samples
with Hann's window first. All arithmetic is float32, sums over bins float64; see `fourier` for the transform.

A NaN or an infinity in a row makes every value of that row NaN.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.rows import Rows
from embridge_edge.features.scratch import scratch
from embridge_edge.machine_code import kernel

Samples = npt.NDArray[np.float32]

NAMES = ("MDF", "MNF", "MNP", "SM", "DFTR", "BANDPOWER", "STFT")
LEAST = {"MDF": 2, "MNF": 2, "MNP": 2, "SM": 2, "DFTR": 2, "BANDPOWER": 8, "STFT": 8}
"""Samples that a window must have; STFT needs a whole frame, which `stft_shape` checks."""

DFTR_EDGES_HZ = (20.0, 92.0, 163.0, 235.0, 305.0, 378.0, 450.0)
"""LibEMG's edges, which step by 71 to 73 Hz but once by 70. A bin on an edge belongs to no band."""
BAND_EDGES_HZ = (20.0, 60.0, 120.0, 200.0, 300.0, 450.0)
BAND_SHARE = 0.45
"""Highest edge of a band as a share of the sample rate, as for the chain's filters."""
FRAME_S = 0.032
FRAME_LEAST = 8
POWER_FLOOR = np.float32(1e-18)
"""Least power of which a logarithm is taken: the square of the floor for amplitudes."""

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
_HERE = "embridge_edge.features.spectra_lanes"
_HEAD = "float32[::1], int64[::1], int64, int64, float32[::1], float32[::1]"
_describe = kernel(
    f"{_HERE}:describe",
    f"void({_HEAD}, boolean, float64[::1], boolean, float64[::1], boolean, boolean, int64[::1], float32, float32[::1], "
    "float32[:, ::1])",
    **_OPTIONS,
)
_band_powers = kernel(
    f"{_HERE}:band_powers",
    f"void({_HEAD}, float32[::1], float32, int64[::1], float32[::1], float32[:, ::1])",
    **_OPTIONS,
)
_frames = kernel(
    f"{_HERE}:frames",
    f"void({_HEAD}, float32[::1], int64, float32, float32, float32[::1], float32[:, ::1])",
    **_OPTIONS,
)
_spectra = kernel(
    f"{_HERE}:spectra",
    f"void({_HEAD}, float32[::1], int64, int64, float32[::1], float32[:, ::1])",
    **_OPTIONS,
)


def size_for(length: int) -> int:
    """The next power of two, 2 at least: what `length` samples are padded to with zeros."""
    return max(2, 1 << (length - 1).bit_length())


@lru_cache(maxsize=32)
def turns(size: int) -> tuple[Samples, Samples]:
    """Roots of unity for a transform of `size` real samples: of the steps in their order, and of the last one."""
    steps: list[npt.NDArray[np.float64]] = [np.zeros(0)]
    left = size // 2
    while left >= 4:
        angles = -2.0 * np.pi * np.arange(left // 4) / left
        steps.append(np.stack([f(m * angles) for m in (1, 2, 3) for f in (np.cos, np.sin)], axis=1).reshape(-1))
        left //= 4
    angles = -2.0 * np.pi * np.arange(size // 4 + 1) / size
    outer = np.stack([np.cos(angles), np.sin(angles)], axis=1).reshape(-1)
    return np.concatenate(steps).astype(np.float32), outer.astype(np.float32)


@lru_cache(maxsize=32)
def _hann(length: int) -> Samples:
    """Hann's window, periodic: its first sample is 0 and would follow the last one again."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(length) / length)).astype(np.float32)


def dftr_bands(rate_hz: float) -> list[tuple[float, float]]:
    """Edges in hertz of DFTR's bands: those whose upper edge lies below half the rate; none below 184 Hz."""
    return [(low, high) for low, high in itertools.pairwise(DFTR_EDGES_HZ) if high < rate_hz / 2]


def bands(rate_hz: float, length: int) -> list[tuple[float, float]]:
    """Edges in hertz of the bands of BANDPOWER and MPF that hold a bin of a window of `length` samples.

    20–60, 60–120, 120–200, 200–300 and 300–450 Hz, cut at 0.45 × the rate.
    """
    return [band for band, _ in _bands(rate_hz, length)]


def band_bins(rate_hz: float, length: int) -> npt.NDArray[np.int64]:
    """For each of `bands` its first bin and the one after its last, int64 `[bands × 2]`; low ≤ frequency < high."""
    return np.array([bins for _, bins in _bands(rate_hz, length)], np.int64).reshape(-1)


def _bands(rate_hz: float, length: int) -> list[tuple[tuple[float, float], tuple[int, int]]]:
    ceiling = BAND_SHARE * rate_hz
    frequencies = np.arange(size_for(length) // 2) * (rate_hz / size_for(length))
    found = []
    for low, upper in itertools.pairwise(BAND_EDGES_HZ):
        high = min(upper, ceiling)
        first, last = (int(np.searchsorted(frequencies, edge)) for edge in (low, high))
        if high > low and last > first:
            found.append(((low, high), (first, last)))
    return found


def stft_shape(rate_hz: float, length: int) -> tuple[int, int]:
    """Frames and bins of STFT; its columns are frame by frame, bin by bin, the bin at k · rate / 2(bins − 1) Hz.

    Raises:
        EdgeError: the window is shorter than one frame of 32 ms.
    """
    frame, step, size = _frame(rate_hz)
    if length < frame:
        raise EdgeError(
            f"STFT needs {frame} samples (a frame of 32 ms) at {rate_hz:g} Hz, the windows have {length}; lengthen them."
        )
    return (length - frame) // step + 1, size // 2 + 1


def _frame(rate_hz: float) -> tuple[int, int, int]:
    frame = max(FRAME_LEAST, round(FRAME_S * rate_hz))
    return frame, frame // 2, size_for(frame)


def spectral(
    rows: Rows,
    names: Collection[str],
    rate_hz: float,
    options: Mapping[str, Any] | None = None,
    compat: str | None = None,
) -> dict[str, Samples]:
    """Spectral features of each row, one transform for all of the first five.

    * MDF: median frequency, the lowest f_k up to which more than half of Σ P lies; hertz. MNF: mean frequency Σ f P / Σ P; hertz.
      MNP: mean of P; unit². SM: spectral moment Σ f^order P with option SM_order (2); unit² Hz^order. (Phinyomark, Phukpattaranont
      and Limsakul, "Feature reduction and selection for EMG signal classification", Expert Systems with Applications 39(8), 2012.)
    * DFTR: mean of √P in bands to the power of 2/3, a column per band of `dftr_bands`; unit^⅔. (He, Zhang, Sheng, Li and Zhu,
      "Invariant surface EMG feature against varying contraction level for myoelectric control based on muscle coordination", IEEE
      JBHI 19(3), 2015.)
    * BANDPOWER: power in each of `bands`, the sum over its bins of the one-sided periodogram of the window without its mean,
      weighed with Hann's window; unit². Bands that cover the spectrum add up to the variance, apart from the weighing.
    * STFT: natural logarithm of |X|² / (Σ w)² in frames of 32 ms (8 samples at least) weighed with Hann's window, padded to a power
      of two, half a frame apart; POWER_FLOOR at least. Columns as `stft_shape` says.

    A row without power has MDF, MNF and the rest 0, and a band of DFTR without a bin is 0. With compat="libemg" those MDF, MNF and
    DFTR are NaN; LibEMG itself raises an IndexError for MDF.

    Returns: float32 `[rows, columns]` for each name, one column where nothing else is said.

    Raises:
        EdgeError: windows that are too short (see LEAST).
    """
    found: dict[str, Samples] = {}
    for name in names:
        if rows.length < LEAST[name]:
            raise EdgeError(f"{name} needs windows of {LEAST[name]} samples, not {rows.length}; lengthen the window.")
    plain = [name for name in ("MDF", "MNF", "MNP", "SM", "DFTR") if name in names]
    if plain:
        silent = np.float32(np.nan if compat == "libemg" else 0.0)
        found.update(_plain(rows, plain, rate_hz, int((options or {}).get("SM_order", 2)), silent))
    if "BANDPOWER" in names:
        size, weights = size_for(rows.length), _hann(rows.length)
        bins = band_bins(rate_hz, rows.length)
        out = np.empty((len(rows.offsets), len(bins) // 2), np.float32)
        work = scratch(8 * (2 * size + size // 2 + 1))
        scale = 2.0 / (size * float(np.sum(weights.astype(np.float64) ** 2)))
        _band_powers(rows.base, rows.offsets, rows.length, size, *turns(size), weights, scale, bins, work, out)
        found["BANDPOWER"] = out
    if "STFT" in names:
        count, bins_of_frame = stft_shape(rate_hz, rows.length)
        frame, step, size = _frame(rate_hz)
        weights = _hann(frame)
        out = np.empty((len(rows.offsets), count * bins_of_frame), np.float32)
        work = scratch(8 * (2 * size + size // 2 + 1 + rows.length))
        scale = 1.0 / float(np.sum(weights.astype(np.float64))) ** 2
        _frames(rows.base, rows.offsets, rows.length, size, *turns(size), weights, step, scale, POWER_FLOOR, work, out)
        found["STFT"] = out
    return found


def _plain(rows: Rows, names: list[str], rate_hz: float, order: int, silent: np.float32) -> dict[str, Samples]:
    size = size_for(rows.length)
    frequencies = np.arange(size // 2) * (rate_hz / size)
    bins: list[int] = []
    if "DFTR" in names:
        for low, high in dftr_bands(rate_hz):
            inside = np.flatnonzero((frequencies > low) & (frequencies < high))
            bins += [int(inside[0]), int(inside[-1]) + 1] if len(inside) else [0, 0]
    out = np.empty((len(rows.offsets), 4 + len(bins) // 2), np.float32)
    work = scratch(8 * (2 * size + size // 2 + 1))
    _describe(
        rows.base,
        rows.offsets,
        rows.length,
        size,
        *turns(size),
        "MDF" in names,
        frequencies,
        "MNF" in names,
        frequencies**order,
        "SM" in names,
        "MNP" in names,
        np.array(bins, np.int64),
        silent,
        work,
        out,
    )
    columns = {"MDF": slice(0, 1), "MNF": slice(1, 2), "MNP": slice(2, 3), "SM": slice(3, 4), "DFTR": slice(4, None)}
    return {name: out[:, columns[name]] for name in names}


def cross_bins(rows: Rows, start: int, stop: int) -> Samples:
    """Bins `start` to `stop`, the last left out, of each row without its mean, weighed with Hann's window.

    Returns: float32 `[rows, 2, bins]`, real parts and imaginary parts, scaled so that the sum of |X|² is power in unit².
    """
    size, weights = size_for(rows.length), _hann(rows.length)
    out = np.empty((len(rows.offsets), 2 * (stop - start)), np.float32)
    work = scratch(8 * 3 * size)
    scale = np.sqrt(2.0 / (size * float(np.sum(weights.astype(np.float64) ** 2))))
    scaled = (weights * scale).astype(np.float32)
    _spectra(rows.base, rows.offsets, rows.length, size, *turns(size), scaled, start, stop, work, out)
    return out.reshape(-1, 2, stop - start)
