"""Weights as the kernels want them in flash; `kernels/emb_convolution.h` says what each layout means."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.program import Layout
from embridge_edge.hardware.target import Target

Weights = npt.NDArray[np.int8]

PAIR_LIMIT = 1 << 23
"""A pair's upper sum is read from the upper 24 bits of a 32-bit accumulator."""

PAIRED_CORES = ("cortex-m4", "cortex-m7", "cortex-m33")


def layout_for(target: Target) -> Layout:
    """How weights are stored for a target's core: in pairs where its multiplier takes two 16-bit halves at once."""
    if "mve" in target.flags:
        return "vectors"
    return "pairs" if target.core in PAIRED_CORES and "dsp" in target.flags else "rows"


def fits_pairs(rows: Weights) -> bool:
    """Whether int8 `[out, K]` can be stored in pairs: every sum stays below 2²³ and every pair fits sixteen bits."""
    sums = np.abs(rows.astype(np.int64)).sum(axis=1) * 128
    if (sums >= PAIR_LIMIT).any():
        return False
    upper, lower = _split(rows)
    return not ((upper == -128) & (lower < 0)).any()


def pairs(rows: Weights) -> npt.NDArray[np.uint32]:
    """int8 `[out, K]` → one word for two channels and two inputs, uint32 `[ceil(out / 2) · ceil(K / 4) · 2]`.

    Use only where `fits_pairs` holds.
    """
    upper, lower = _split(rows)
    count = -(-rows.shape[1] // 4)
    halves = np.zeros((len(upper), count * 4), np.int16)
    halves[:, : rows.shape[1]] = 256 * upper.astype(np.int32) + lower
    words = halves.reshape(len(upper), count, 4)[:, :, [0, 2, 1, 3]]
    return np.ascontiguousarray(words).astype("<i2").view("<u4").astype(np.uint32).reshape(-1)


def planes(weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Depthwise weights `[kernel_h, kernel_w, channels]` → `[channels, kernel_h, kernel_w]`."""
    return np.ascontiguousarray(np.moveaxis(weights, -1, 0))


def _split(rows: Weights) -> tuple[Weights, Weights]:
    even = rows[0::2]
    odd = np.zeros_like(even)
    odd[: len(rows) // 2] = rows[1::2]
    return even, odd
