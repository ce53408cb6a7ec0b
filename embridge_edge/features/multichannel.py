"""Features of all channels of a window together: covariance, its logarithm, and the same in bands of frequency.

A symmetric positive definite matrix is a point in a curved space; its matrix logarithm lays that out flat, so that a linear model
may be fitted to the numbers (Arsigny, Fillard, Pennec and Ayache, "Log-Euclidean metrics for fast and simple calculus on diffusion
tensors", Magnetic Resonance in Medicine 56(2), 2006).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features import spectra
from embridge_edge.features.rows import Rows
from embridge_edge.features.scratch import scratch
from embridge_edge.machine_code import kernel

Samples = npt.NDArray[np.float32]
Matrices = npt.NDArray[np.floating[Any]]

NAMES = ("COVARIANCE", "LOGCOVARIANCE", "MPF")
LEAST = {"COVARIANCE": 2, "LOGCOVARIANCE": 2, "MPF": 8}

SHRINKAGE = 1e-3
"""Share of the mean variance that is added to each variance: fewer samples than channels leave a matrix without a logarithm."""
POWER_FLOOR = 1e-18
"""Least eigenvalue of which a logarithm is taken, unit²: what a silent window has."""

_BATCH = 256
"""Windows whose spectra are in memory at once."""

_covariance = kernel(
    "embridge_edge.features.multichannel_lanes:covariance",
    "void(float32[::1], int64[::1], int64, int64, float32[::1], float32[:, ::1])",
    error_model="numpy",
    _nrt=False,
)


def columns(channels: int) -> int:
    """Columns of a symmetric matrix's upper triangle: (0, 0), (0, 1), …, (1, 1), …"""
    return channels * (channels + 1) // 2


def multichannel(rows: Rows, names: Collection[str], rate_hz: float) -> dict[str, Samples]:
    """Features of all channels of a window; LibEMG has none of them.

    * COVARIANCE: upper triangle of C = 1/N Σ (x − mean)(x − mean)ᵀ row by row, the diagonal included, so that it holds VAR; unit².
    * LOGCOVARIANCE: upper triangle of log(C + s I) with s = 1e-3 × trace C / channels, logarithm of the matrix, natural; numbers
      off the diagonal × √2, so that the Euclidean distance of two results is the log-Euclidean distance of the matrices.
    * MPF, multivariate power-frequency features: for each of `spectra.bands` the co-spectrum of each pair of channels,
      S_ij = Σ_k Re(X_i[k] conj X_j[k]) over the band's bins, X being the transform of the window without its mean, weighed with Hann's
      window; the diagonal is BANDPOWER. Of S the same upper triangle of the logarithm as above, band by band. After the features
      of Kaifosh, Reardon and CTRL-labs at Reality Labs, "A generic non-invasive neuromotor interface for human-computer interaction",
      Nature 645, 2025, who average short frames over time, have six bands that overlap and leave out distant pairs of channels;
      ours averages over the bins of one frame, and keeps all pairs.

    Eigenvalues are at least POWER_FLOOR before their logarithm, so that silent windows stay finite. A NaN or an infinity in a channel
    makes COVARIANCE NaN where the channel takes part, the others for the whole window.

    Returns: float32 `[windows, columns(channels)]` for each name, MPF `[windows, bands × columns(channels)]`.

    Raises:
        EdgeError: windows that are too short (see LEAST).
    """
    for name in names:
        if rows.length < LEAST[name]:
            raise EdgeError(f"{name} needs windows of {LEAST[name]} samples, not {rows.length}; lengthen the window.")
    found: dict[str, Samples] = {}
    if "COVARIANCE" in names or "LOGCOVARIANCE" in names:
        upper = np.empty((rows.windows, columns(rows.channels)), np.float32)
        room = -(-rows.length // 8) * 8
        work = scratch(rows.channels * room)
        _covariance(rows.base, rows.offsets, rows.length, rows.channels, work, upper)
        if "COVARIANCE" in names:
            found["COVARIANCE"] = upper
        if "LOGCOVARIANCE" in names:
            matrices = np.empty((rows.windows, rows.channels, rows.channels), np.float64)
            at = np.triu_indices(rows.channels)
            matrices[:, at[0], at[1]] = upper
            matrices[:, at[1], at[0]] = upper
            found["LOGCOVARIANCE"] = _logarithm(matrices)
    if "MPF" in names:
        found["MPF"] = _cross_spectra(rows, rate_hz)
    return found


def _cross_spectra(rows: Rows, rate_hz: float) -> Samples:
    bins = spectra.band_bins(rate_hz, rows.length)
    width = columns(rows.channels)
    out = np.empty((rows.windows, len(bins) // 2 * width), np.float32)
    if not len(bins):
        return out
    start, stop = int(bins[0]), int(bins[-1])
    for first in range(0, rows.windows, _BATCH):
        part = rows.part(first, first + _BATCH)
        parts = spectra.cross_bins(part, start, stop).reshape(part.windows, rows.channels, 2, stop - start)
        for band in range(len(bins) // 2):
            held = parts[..., bins[2 * band] - start : bins[2 * band + 1] - start].astype(np.float64)
            held = held.reshape(part.windows, rows.channels, -1)
            out[first : first + _BATCH, band * width : (band + 1) * width] = _logarithm(held @ held.transpose(0, 2, 1))
    return out


def _logarithm(matrices: npt.NDArray[np.float64]) -> Samples:
    """Upper triangle of the logarithm of shrunk symmetric matrices `[n, channels, channels]`; NaN for one that is not finite."""
    channels = matrices.shape[1]
    finite = np.asarray(np.isfinite(matrices).all(axis=(1, 2)))
    held = np.where(finite[:, None, None], matrices, np.eye(channels))
    shrinkage = np.trace(held, axis1=1, axis2=2) * (SHRINKAGE / max(channels, 1))
    values, vectors = np.linalg.eigh(held + shrinkage[:, None, None] * np.eye(channels))
    logs = np.log(np.maximum(values, POWER_FLOOR))
    found = (vectors * logs[:, None, :]) @ vectors.transpose(0, 2, 1)
    at = np.triu_indices(channels)
    scale = np.where(at[0] == at[1], 1.0, np.sqrt(2.0))
    return np.where(finite[:, None], found[:, at[0], at[1]] * scale, np.nan).astype(np.float32)
