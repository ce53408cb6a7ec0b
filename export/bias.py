"""Bias correction: what rounding weights and inputs shifts a layer's outputs by, on average, is taken off its bias (Nagel 2019)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embridge_edge.export.flatbuffer import as_array, pack, unpack
from embridge_edge.export.reading import dequantize_values
from embridge_edge.export.running import layer_values
from embridge_edge.firmware_bridge.graph import NUMPY_TYPES, Graph, Op, read_graph

Floats = npt.NDArray[np.float32]

BIASED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
LEAST_OPEN = 0.1
"""A channel that ReLU closes more than nine times of ten is corrected as if it were open once in ten: its mean says little."""

MOST_WINDOWS = 256
NO_ACTIVATION = 0
"""In TFLite's schema."""


def corrected(model: bytes, float_model: bytes, windows: Floats) -> bytes:
    """The integer model with its biases shifted so that every channel's mean is that of the float model, layer by layer.

    Layers are taken in order of execution, each behind those before it that are corrected already. Behind a fused ReLU a shift moves
    only what is open, which the share of open values accounts for.

    Args:
        model: quantized from `float_model`, with the same tensor names. windows: float32 `[n, T, C]`, for calibration.
    """
    graph = read_graph(model)
    layers = biased(graph)
    some = windows[:: -(-len(windows) // MOST_WINDOWS)]
    exact = layer_values(float_model, some)
    for op in layers:
        out = graph.tensors[op.outputs[0]]
        if out.name not in exact or out.is_float:
            continue
        got = dequantize_values(layer_values(model, some)[out.name], out.scales[0], out.zero_points[0])
        wanted = exact[out.name]
        shift = _by_channel(wanted) - _by_channel(got)
        open_share = np.maximum(_by_channel(wanted > 0), LEAST_OPEN) if _has_relu(op) else 1.0
        model = _with_bias(model, graph, op, shift / open_share)
    return model


def biased(graph: Graph) -> list[Op]:
    """The layers that add a bias, in order of execution: inputs are values, weights, bias."""
    return [op for op in graph.ops if op.name in BIASED and len(op.inputs) > 2 and op.inputs[2] >= 0]


def _by_channel(values: npt.NDArray[np.number | np.bool_]) -> Floats:
    """Mean over windows and places, `[channels]`."""
    return np.asarray(np.mean(values.reshape(-1, values.shape[-1]), axis=0), np.float32)


def _has_relu(op: Op) -> bool:
    return bool(op.options.get("fusedActivationFunction", NO_ACTIVATION) != NO_ACTIVATION)


def _with_bias(model: bytes, graph: Graph, op: Op, shift: Floats) -> bytes:
    given, weights, bias = (graph.tensors[index] for index in op.inputs[:3])
    steps = np.round(shift / (given.scales[0] * np.asarray(weights.scales)))
    unpacked = unpack(model)
    buffer = unpacked.buffers[unpacked.subgraphs[0].tensors[bias.index].buffer]
    kind = np.dtype(NUMPY_TYPES[bias.type])
    limits = np.iinfo(kind)
    shifted = np.frombuffer(bytes(buffer.data), kind).astype(np.float64) + steps
    buffer.data = as_array(np.clip(shifted, limits.min, limits.max).astype(kind).tobytes())
    return pack(unpacked)
