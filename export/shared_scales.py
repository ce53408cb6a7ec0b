"""One set of ranges and biases for both int8 files: those of an int8 `.tflite`, found again in the ONNX graph of the same network."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.export.agreement import alike, in_order
from embridge_edge.export.running import layer_values, onnx_values
from embridge_edge.firmware_bridge.graph import read_graph

Floats = npt.NDArray[np.float32]
Scale = tuple[float, int]

MATCHED_WINDOWS = 2


def shared_scales(float_onnx: bytes, float_tflite: bytes, int8_tflite: bytes, windows: Floats) -> dict[str, Scale]:
    """Scale and zero point of the ONNX activations that hold the same values as an int8 tensor of the TFLite graph.

    The two converters name tensors differently and lay them out differently, but a tensor's values are the same in both: they are
    matched by these, sorted. An activation that only one of the graphs has (the sum before a fused ReLU) is absent, and so is one
    that the `.tflite` holds in 16 bits.

    Args:
        float_onnx, float_tflite: of one network. int8_tflite: made from `float_tflite`, with its names. windows: float32 `[n, T, C]`.

    Raises:
        EdgeError: the inputs or outputs do not match: the files are not of one network.
    """
    some = windows[:: -(-len(windows) // MATCHED_WINDOWS)]
    quantized = {
        tensor.name: (tensor.scales[0], tensor.zero_points[0])
        for tensor in read_graph(int8_tflite).tensors
        if tensor.type == "int8" and not tensor.is_constant and len(tensor.scales) == 1
    }
    known = [
        (in_order(values), quantized[name])
        for name, values in layer_values(float_tflite, some).items()
        if name in quantized
    ]
    found: dict[str, Scale] = {}
    values = onnx_values(float_onnx, some)
    for name, held in values.items():
        mine = in_order(held)
        match = next((scale for theirs, scale in known if mine.any() and alike(mine, theirs)), None)
        if match is not None:
            found[name] = match
    names = list(values)
    if not names or names[0] not in found or names[-1] not in found:
        raise EdgeError("The float ONNX and TFLite files are not of one network; run quantize again.")
    return found


def shared_biases(float_onnx: bytes, float_tflite: bytes, int8_tflite: bytes) -> bytes:
    """The float ONNX graph with the biases that the int8 TFLite graph adds, in real values: corrected ones, where they were corrected.

    Both converters leave a bias as it was, so that it is found by its values. One of zeros alone, as of layers without, is not.

    Args:
        float_onnx, float_tflite: of one network. int8_tflite: made from `float_tflite`, with its names.
    """
    from onnx import numpy_helper

    from embridge_edge.export.onnx import parsed

    exact, rounded = (
        {tensor.name: tensor for tensor in read_graph(file).tensors} for file in (float_tflite, int8_tflite)
    )
    added = {
        exact[name].array().tobytes(): tensor.array().ravel() * np.asarray(tensor.scales, np.float64)
        for name, tensor in rounded.items()
        if tensor.type in ("int32", "int64") and tensor.is_constant and tensor.scales and name in exact
    }
    proto = parsed(float_onnx)
    for one in proto.graph.initializer:
        values = numpy_helper.to_array(one)
        if values.ndim == 1 and values.any() and values.tobytes() in added:
            one.CopyFrom(numpy_helper.from_array(added[values.tobytes()].astype(np.float32), one.name))
    return bytes(proto.SerializeToString(deterministic=True))
