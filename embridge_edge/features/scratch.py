"""Room for a kernel to work in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_LINE = 64
"""Bytes in a cache line: eight numbers that cross from one to the next take twice as long."""


def scratch(count: int, dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
    """An array of `count` numbers of any value that begins with a cache line."""
    size = np.dtype(dtype).itemsize
    held = np.empty(count * size + _LINE, np.uint8)
    start = -held.ctypes.data % _LINE
    return held[start : start + count * size].view(dtype)
