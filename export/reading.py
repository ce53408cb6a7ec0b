"""What an exported artifact says about itself, and its integers as real values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.export import metadata as model_metadata
from embridge_edge.firmware_bridge.graph import Tensor, read_graph

Values = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Artifact:
    """What a model file says about itself.

    Attributes:
        path: the file.
        kind: "tflite" or "onnx".
        input_shape: of the first input with its batch axis; 0 where an axis is free.
        output_shape: of the first output, likewise.
        input_type: "float32", "int8" …
        input_scale: real value of one integer step, None for float inputs.
        input_zero_point: integer that means zero, None for float inputs.
        output_type: as `input_type`.
        output_scale: as `input_scale`.
        output_zero_point: as `input_zero_point`.
        metadata: the JSON object that `metadata.attach` put in, None for a model of other make.
        size_bytes: of the file.
    """

    path: Path
    kind: Literal["tflite", "onnx"]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_type: str
    input_scale: float | None
    input_zero_point: int | None
    output_type: str
    output_scale: float | None
    output_zero_point: int | None
    metadata: dict[str, Any] | None
    size_bytes: int


def read_artifact(path: Path) -> Artifact:
    """Open a `.tflite` or `.onnx` file, whatever its name, and say what it takes and gives.

    Raises:
        EdgeError: the file is missing, truncated, damaged or no model.
    """
    path = Path(path)
    try:
        model = path.read_bytes()
    except OSError as error:
        raise EdgeError(f"Cannot read {path}: {error.strerror}; name a .tflite or .onnx file.") from None
    if not model:
        raise EdgeError(f"{path} is empty; export it again.")
    try:
        return _read_tflite(path, model) if model_metadata.is_tflite(model) else _read_onnx(path, model)
    except EdgeError as error:
        raise EdgeError(f"{path}: {error}") from None


def _read_tflite(path: Path, model: bytes) -> Artifact:
    graph = read_graph(model)
    if not graph.inputs or not graph.outputs:
        raise EdgeError("The model has no input or no output; export it again.")
    given, taken = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    return Artifact(
        path=path,
        kind="tflite",
        input_shape=given.shape,
        output_shape=taken.shape,
        input_type=given.type,
        input_scale=_scale(given),
        input_zero_point=_zero_point(given),
        output_type=taken.type,
        output_scale=_scale(taken),
        output_zero_point=_zero_point(taken),
        metadata=model_metadata.read(model),
        size_bytes=len(model),
    )


def _scale(tensor: Tensor) -> float | None:
    return tensor.scales[0] if tensor.scales and not tensor.is_float else None


def _zero_point(tensor: Tensor) -> int | None:
    return tensor.zero_points[0] if tensor.scales and not tensor.is_float else None


def _read_onnx(path: Path, model: bytes) -> Artifact:
    import onnx

    from embridge_edge.export.onnx import parsed

    proto = parsed(model)

    def described(value: Any) -> tuple[tuple[int, ...], str]:
        tensor = value.type.tensor_type
        return tuple(axis.dim_value for axis in tensor.shape.dim), onnx.TensorProto.DataType.Name(
            tensor.elem_type
        ).lower()

    input_shape, input_type = described(proto.graph.input[0])
    output_shape, output_type = described(proto.graph.output[0])
    return Artifact(
        path=path,
        kind="onnx",
        input_shape=input_shape,
        output_shape=output_shape,
        input_type={"float": "float32"}.get(input_type, input_type),
        input_scale=None,
        input_zero_point=None,
        output_type={"float": "float32"}.get(output_type, output_type),
        output_scale=None,
        output_zero_point=None,
        metadata=model_metadata.read(model),
        size_bytes=len(model),
    )


def quantize_values(values: Values, scale: float, zero_point: int) -> npt.NDArray[np.int8]:
    """Real values → int8, rounded half away from zero as TFLite's QUANTIZE does, saturated."""
    steps = np.asarray(values, dtype=np.float32) / np.float32(scale)
    rounded = np.copysign(np.floor(np.abs(steps) + np.float32(0.5)), steps) + zero_point
    return np.asarray(np.clip(rounded, -128, 127), dtype=np.int8)


def dequantize_values(values: Values, scale: float, zero_point: int) -> npt.NDArray[np.float32]:
    """int8 → real values."""
    return ((np.asarray(values, dtype=np.float32) - zero_point) * np.float32(scale)).astype(np.float32)
