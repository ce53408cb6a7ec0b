"""The signal chain: causal filters, windows, features and normalisation, the same offline and sample by sample.

`chain` holds the value that travels inside every artifact, `filters` designs and runs biquads, `catalogue` says which features
there are, `extract` computes them of windows and `slide` of a signal; `FeatureStream` and `Stream` do so on samples as they
arrive. Nothing here knows of recordings or models.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embridge_edge.features.catalogue import FEATURES, GROUPS
    from embridge_edge.features.extraction import extract
    from embridge_edge.features.sliding import FeatureStream, slide
    from embridge_edge.features.stream import Stream

__all__ = ["FEATURES", "GROUPS", "FeatureStream", "Stream", "extract", "slide"]

_PLACES = {
    "FEATURES": "catalogue",
    "GROUPS": "catalogue",
    "extract": "extraction",
    "slide": "sliding",
    "FeatureStream": "sliding",
    "Stream": "stream",
}


def __getattr__(name: str) -> Any:
    """What the package offers is imported when it is asked for: numpy and compiled code cost a command its start."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value
