"""From an op of the graph to the call of a kernel: one function per TFLite op, kept in `LOWERINGS`."""

from embridge_edge.firmware_bridge.lowering.site import Site, refuse
from embridge_edge.firmware_bridge.lowering.table import LOWERINGS, lower_op

__all__ = ["LOWERINGS", "Site", "lower_op", "refuse"]
