"""Are the scales of an integer graph such that they can be, and those that the ranges asked for?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from embridge_edge.compression.observers import Range
from embridge_edge.firmware_bridge.graph import Graph, Op, Tensor

MOVING = frozenset(
    {"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "QUANTIZE", "DEQUANTIZE", "PAD", "SLICE", "STRIDED_SLICE"}
)
"""Ops that hand values on as they are."""

BOUNDED = ("SOFTMAX", "LOGISTIC", "TANH", "Softmax", "Sigmoid", "Tanh")
"""Ops of TFLite and of ONNX whose range is fixed, and whose values stand at its ends by right."""

TYING = ("CONCATENATION", "PACK", "MAXIMUM", "MINIMUM")
"""Ops whose kernels want all that they read in the scale of what they write."""

KEEPING = frozenset(
    {
        "AVERAGE_POOL_2D",
        "MAX_POOL_2D",
        "REDUCE_MIN",
        "REDUCE_MAX",
        "SPLIT",
        "MIRROR_PAD",
        "SPACE_TO_DEPTH",
        "RESIZE_BILINEAR",
    }
    | {"RESIZE_NEAREST_NEIGHBOR", "GATHER", "GATHER_ND", "UNPACK", "BROADCAST_TO"}
)
"""Ops that compute or choose, and whose kernels want what they write in the scale of what they read."""

PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def _written(graph: Graph, op: Op) -> Tensor:
    return graph.tensors[op.outputs[0]]


def scale_faults(graph: Graph, ranges: Mapping[str, Range]) -> Iterator[str]:
    """Scales that cannot be, and those that are not what an activation's range asks for.

    Args:
        ranges: activation name to (least, largest) of the values that it was to hold.
    """
    for tensor in graph.tensors:
        integer = tensor.type in ("int8", "int16") or (tensor.type == "int32" and tensor.scales)
        if integer and not tensor.is_constant and not tensor.scales:
            yield f"{tensor.name} has no scale"
        if not all(np.isfinite(scale) and scale > 0 for scale in tensor.scales):
            yield f"{tensor.name} has a scale that is not positive"
        if len(tensor.scales) not in (0, 1, tensor.shape[tensor.axis] if tensor.shape else 1):
            yield f"{tensor.name} has {len(tensor.scales)} scales for {tensor.shape[tensor.axis]} channels"
    for op in graph.ops:
        operands = [graph.tensors[index] for index in op.inputs[1:] if index >= 0]
        if op.name in PRODUCTS and any(one.is_constant and any(one.zero_points) for one in operands):
            yield f"the weights of {_written(graph, op).name} have a zero point"
        if op.name in PRODUCTS and len(op.inputs) > 2 and op.inputs[2] >= 0:
            given, weights, bias = (graph.tensors[index] for index in op.inputs[:3])
            if given.scales and weights.scales and bias.scales:
                product = given.scales[0] * np.asarray(weights.scales)
                if not np.allclose(bias.scales, product, rtol=1e-5, atol=0):
                    yield f"the bias of {_written(graph, op).name} is not in steps of its input times its weights"
    for op in graph.ops:
        alike = [graph.tensors[index] for index in op.inputs if graph.tensors[index].type == _written(graph, op).type]
        if op.name in KEEPING and _written(graph, op).scales not in [one.scales for one in alike]:
            yield f"{_written(graph, op).name} is not in the scale of what {op.name} reads"
    fixed = {
        graph.tensors[index].name
        for op in graph.ops
        if op.name in MOVING or op.name in BOUNDED or op.name in KEEPING
        for index in op.outputs
    }
    tied = {index: _written(graph, op).name for op in graph.ops if op.name in TYING for index in op.inputs}
    for tensor in graph.tensors:
        if tensor.name in ranges and tensor.name not in fixed and tensor.scales and not tensor.is_float:
            yield from _range_fault(tensor, ranges[tied.get(tensor.index, tensor.name)])


def _range_fault(tensor: Tensor, asked: Range) -> Iterator[str]:
    """An integer range holds zero, and the asked one, and at the most two steps more: zero has to be a whole number of them."""
    limits = np.iinfo(tensor.type)
    scale, zero = tensor.scales[0], tensor.zero_points[0]
    held = ((limits.min - zero) * scale, (limits.max - zero) * scale)
    least, largest = min(asked[0], 0.0), max(asked[1], 0.0)
    if tensor.type == "int16":  # symmetric
        largest = max(-least, largest)
        least = -largest
    apart = max(abs(held[0] - least), abs(held[1] - largest))
    if apart > 2 * scale:
        yield f"{tensor.name} holds {held[0]:.4g} to {held[1]:.4g}, and {asked[0]:.4g} to {asked[1]:.4g} was asked for"
