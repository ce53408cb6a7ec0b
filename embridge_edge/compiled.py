"""Numba functions that are compiled once per machine, and still run where nothing can be written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, overload

from embridge_edge.machine_code import Kernel, jit

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def compiled(given: Function) -> Function: ...


@overload
def compiled(given: str, **options: Any) -> Callable[[Function], Function]: ...


def compiled(given: Any, **options: Any) -> Any:
    """Compile a function in nopython mode, free of the interpreter's lock, and keep the machine code.

    `@compiled` alone compiles for whatever types it is called with, through numba's cache. `@compiled("void(float32[::1])")`
    compiles for this signature and loads without numba (see `machine_code`); `options` are those of `numba.njit`.
    """
    if not isinstance(given, str):
        return jit(given, nogil=True)

    def decorate(function: Function) -> Any:
        used = [function.__globals__.get(name) for name in function.__code__.co_names]
        others = {path for item in used if isinstance(item, Kernel) for path in item.sources}
        own = Path(function.__code__.co_filename)
        return Kernel(
            function.__module__, function.__name__, given, (own, *sorted(others - {own})), function, **options
        )

    return decorate
