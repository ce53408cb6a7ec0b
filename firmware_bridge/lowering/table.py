"""Which function lowers which op."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping

from embridge_edge.firmware_bridge.lowering import (
    elementwise,
    lstm,
    matmul,
    movement,
    pooling,
    quantize,
    reduction,
    shape,
    sixteen,
    softmax,
    transpose_conv,
    unary,
)
from embridge_edge.firmware_bridge.lowering.site import Site, refuse
from embridge_edge.firmware_bridge.program import Alias, Step

Lowered = Step | Alias | tuple[Step, ...]
"""One call, none, or several in a row: one per input of CONCATENATION, one per output of SPLIT."""

Lowering = Callable[[Site], Lowered]

LOWERINGS: Mapping[str, Lowering] = {
    "EXPAND_DIMS": shape.reshape,
    "RESHAPE": shape.reshape,
    "SQUEEZE": shape.reshape,
    **lstm.LOWERINGS,
    **matmul.LOWERINGS,
    **movement.LOWERINGS,
    **sixteen.LOWERINGS,
    **transpose_conv.LOWERINGS,
    **elementwise.LOWERINGS,
    **pooling.LOWERINGS,
    **quantize.LOWERINGS,
    **reduction.LOWERINGS,
    **softmax.LOWERINGS,
    **unary.LOWERINGS,
}

INSTEAD: Mapping[str, str] = {
    "ARG_MAX": "take the largest output in the application",
    "BATCH_TO_SPACE_ND": "export dilated convolutions with their own dilation",
    "CALL_ONCE": "export a graph without variables",
    "CAST": "quantize the whole graph to int8",
    "COS": "compute it before the graph",
    "DIV": "multiply by the reciprocal of a constant",
    "EMBEDDING_LOOKUP": "use GATHER with constant indices",
    "GATHER_ND": "use GATHER or STRIDED_SLICE",
    "IF": "export a graph without control flow",
    "L2_NORMALIZATION": "normalise after the graph",
    "LOG_SOFTMAX": "use SOFTMAX, or take the logarithm in the application",
    "POW": "use MUL for a square, RSQRT for a root",
    "REDUCE_PROD": "multiply in the graph (MUL)",
    "RESIZE_BILINEAR": "use TRANSPOSE_CONV",
    "RESIZE_NEAREST_NEIGHBOR": "use TILE or TRANSPOSE_CONV",
    "SELECT_V2": "multiply by a mask",
    "SIN": "compute it before the graph",
    "SPACE_TO_BATCH_ND": "export dilated convolutions with their own dilation",
    "SQRT": "multiply by RSQRT, which int8 has",
    "SQUARE": "multiply the tensor by itself (MUL)",
    "WHILE": "unroll the loop before exporting; for a recurrent layer use UNIDIRECTIONAL_SEQUENCE_LSTM or convolutions",
}
"""What to use in the place of ops that people ask for."""


def lower_op(site: Site) -> Lowered:
    """What an op becomes.

    Raises:
        EdgeError: the op, one of its types or shapes is not supported; the message names the layer and what to use in its place.
    """
    lowering = LOWERINGS.get(site.op.name)
    if lowering is None:
        refuse(site, "no kernel for this op", instead_of(site.op.name))
    return lowering(site)


def instead_of(name: str) -> str:
    """What to do in the place of an op that has no kernel, as an imperative."""
    if name in INSTEAD:
        return INSTEAD[name]
    if name.startswith("CUSTOM:"):
        return "convert the model without custom ops, with TFLite's builtin ones alone"
    near = difflib.get_close_matches(name, LOWERINGS, n=2)
    return f"use {' or '.join(near)}" if near else "use ops of the list in docs/firmware.md"
