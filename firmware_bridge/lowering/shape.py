"""Ops that change a tensor's shape and none of its bytes."""

from __future__ import annotations

from embridge_edge.firmware_bridge.lowering.site import Site, refuse
from embridge_edge.firmware_bridge.program import Alias


def reshape(site: Site) -> Alias:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the output is the input."""
    given, output = site.activation_only(site.input(0), "input"), site.output()
    if given.elements != output.elements or given.type != output.type:
        refuse(site, f"it turns {given.shape} into {output.shape}", "export the model again")
    if given.scales != output.scales or given.zero_points != output.zero_points:
        refuse(site, "its output has another scale than its input", "quantize the model again")
    return Alias(output.index, given.index)
