"""Numba functions that are compiled once per machine, and still run where nothing can be written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile `function` in nopython mode and keep the machine code in numba's cache folder.

    Where no cache folder can be written (a read-only container) it is compiled in each process instead.
    """
    try:
        kept: Function = numba.njit(cache=True, nogil=True)(function)
    except (RuntimeError, OSError):
        kept = numba.njit(nogil=True)(function)
    return kept
