"""Every verb as a function of the same name: `from embridge_edge.api import deploy`.

A verb's module is loaded when its function is first asked for, so that light verbs stay light.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from embridge_edge.cli import VERBS

__all__ = list(VERBS)


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in VERBS:
        raise AttributeError(f"module 'embridge_edge.api' has no attribute {name!r}")
    function: Callable[..., Any] = getattr(import_module(f"embridge_edge.verbs.{name}"), name)
    return function
