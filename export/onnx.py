"""Torch module → float ONNX → int8 ONNX (quantize-dequantize pairs), for phones, PCs and boards with ONNX Runtime."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.export.agreement import LARGEST_CONVERSION_ERROR, conversion_error
from embridge_edge.quiet import silenced

if TYPE_CHECKING:
    import torch

OPSET = 18
BATCH_AXIS = "batch"


def to_onnx(module: torch.nn.Module, example_shape: Sequence[int]) -> bytes:
    """Convert a module to float ONNX, opset 18, and compare both on random input with another batch than the example's.

    Args:
        module: in evaluation mode, one input, one output; fold its BatchNorms first.
        example_shape: of the input with its batch axis, such as (1, T, C). The batch axis becomes free, named "batch".

    Raises:
        EdgeError: onnx is missing, the module cannot be converted, or what came out computes something else.
    """
    import torch

    from embridge_edge.export.running import run_onnx

    if module.training:
        raise EdgeError("The module is in training mode; call eval() and fold its BatchNorms before converting it.")
    # Two windows, since the exporter takes an axis of length one for a constant.
    shape = (2, *(int(length) for length in example_shape[1:]))
    example = torch.from_numpy(np.random.default_rng(0).standard_normal((3, *shape[1:])).astype(np.float32))
    model = _converted(module, example[:2])
    with torch.no_grad():
        expected = module(example).numpy()
    error = conversion_error(expected, run_onnx(model, example.numpy()))
    if not error <= LARGEST_CONVERSION_ERROR:
        raise EdgeError(
            f"The converted ONNX model differs from the torch module by {error:.1e} of its largest output (allowed "
            f"{LARGEST_CONVERSION_ERROR:.0e}); check the module for ops that depend on the batch or on training."
        )
    return model


def _converted(module: torch.nn.Module, example: torch.Tensor) -> bytes:
    import torch

    try:
        with silenced():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["input"],
                output_names=["embedding"],
                dynamic_shapes=({0: torch.export.Dim(BATCH_AXIS, min=1)},),
            )
            assert program is not None  # noqa: S101 - says what dynamo=True returns
            proto: Any = program.model_proto
    except ImportError as error:
        raise _missing(error) from None
    except Exception as error:
        raise EdgeError(f"torch cannot convert this module to ONNX ({one_line(error)}); simplify it.") from None
    _strip_traces(proto)
    return bytes(proto.SerializeToString(deterministic=True))


def _strip_traces(proto: Any) -> None:
    """Take out what the exporter says about itself: stack traces with the paths of the machine it ran on."""
    graphs = [proto.graph]
    for graph in graphs:
        for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]
            item.ClearField("doc_string")
    for function in proto.functions:
        for item in (function, *function.node):
            del item.metadata_props[:]
            item.ClearField("doc_string")
    del proto.metadata_props[:]
    proto.ClearField("doc_string")


def quantize_onnx(
    float_model: bytes,
    calibration: npt.NDArray[np.float32],
    *,
    seven_bit_weights: bool = True,
    like: tuple[bytes, bytes] | None = None,
) -> bytes:
    """Quantize float ONNX to int8 by quantize-dequantize pairs: weights per channel, float in and out.

    Args:
        float_model: from `to_onnx`.
        calibration: windows `[n, T, C]`, float32, in the unit that the model takes.
        seven_bit_weights: keep weights within ±64. On x86 without VNNI, ONNX Runtime adds pairs of products in 16 bits
            that saturate: eight bits raise the mean-removed error on real recordings from .033 to .056 there, unless the session has
            `session.x64quantprecision` set. On ARM eight bits are better: at most 2 steps from LiteRT instead of 10.
        like: the float `.tflite` of the same network and the int8 one that was made from it: activations take its scales, so that
            both int8 files stand on one set of ranges, and layers with eight-bit weights its biases. None, and activations that it
            lacks, take min-max ranges.

    Raises:
        EdgeError: onnxruntime is missing, the windows do not fit the model, or the bytes are no ONNX model.
    """
    from embridge_edge.export.shared_scales import shared_biases, shared_scales

    proto = parsed(float_model)
    windows = np.ascontiguousarray(calibration, dtype=np.float32)
    axes = proto.graph.input[0].type.tensor_type.shape.dim
    wanted = tuple(axis.dim_value for axis in axes[1:])
    if windows.ndim != len(axes) or windows.shape[1:] != wanted:
        raise EdgeError(
            f"Calibration windows are {windows.shape[1:]}, but the model takes {wanted}; use the model's signal chain."
        )
    if not len(windows) or not np.isfinite(windows).all():
        raise EdgeError("Calibration needs at least one window and only finite values; drop windows with NaN.")
    input_name = proto.graph.input[0].name
    try:
        with silenced(), tempfile.TemporaryDirectory() as folder:
            from onnxruntime import quantization
            from onnxruntime.quantization.shape_inference import quant_pre_process

            source, prepared, written = (Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "int8"))
            source.write_bytes(float_model)  # Given a ModelProto, it looks for the weights in a file of its own.
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            scales = {} if like is None else shared_scales(prepared.read_bytes(), *like, windows)
            if like is not None and not seven_bit_weights:  # corrections for eight bits made seven worse
                prepared.write_bytes(shared_biases(prepared.read_bytes(), *like))
            quantization.quantize_static(
                str(prepared),
                str(written),
                _windows_reader(input_name, windows),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=seven_bit_weights,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                calibrate_method=quantization.CalibrationMethod.MinMax,
                extra_options={
                    "TensorQuantOverrides": {
                        name: [{"scale": np.array(scale, np.float32), "zero_point": np.array(zero_point, np.int8)}]
                        for name, (scale, zero_point) in scales.items()
                    }
                },
            )
            quantized = parsed(written.read_bytes())
    except ImportError as error:
        raise _missing(error) from None
    except EdgeError:
        raise
    except Exception as error:
        raise EdgeError(
            f"ONNX Runtime cannot quantize this model ({one_line(error)}); check it with the float model."
        ) from None
    _strip_traces(quantized)
    return bytes(quantized.SerializeToString(deterministic=True))


def parsed(model: bytes) -> Any:
    """The bytes as an `onnx.ModelProto`.

    Raises:
        EdgeError: onnx is missing, or the bytes are no ONNX model.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    except ImportError as error:
        raise _missing(error) from None
    try:
        proto = onnx.load_model_from_string(model)
    except (DecodeError, ValueError, RuntimeError):
        raise EdgeError("The file is no ONNX or TFLite model, or is truncated; export it again.") from None
    if not proto.ir_version or not proto.graph.node or not proto.graph.input or not proto.graph.output:
        raise EdgeError("The file is no ONNX or TFLite model, or is truncated; export it again.")
    return proto


def onnx_ops_and_step(model: bytes) -> tuple[dict[str, int], float | None]:
    """How often each op occurs; and what a step of the output is worth where it comes out of a quantize-dequantize pair.

    Raises:
        EdgeError: the bytes are no ONNX model.
    """
    from onnx import numpy_helper

    graph = parsed(model).graph
    last = next((node for node in graph.node if graph.output[0].name in node.output), None)
    step = None
    if last is not None and last.op_type == "DequantizeLinear":
        scales = [numpy_helper.to_array(one) for one in graph.initializer if one.name == last.input[1]]
        step = float(scales[0]) if scales and scales[0].ndim == 0 else None
    return dict(collections.Counter(node.op_type for node in graph.node).most_common()), step


def _windows_reader(name: str, windows: npt.NDArray[np.float32]) -> Any:
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(windows)

        def get_next(self) -> dict[str, Any] | None:
            window = next(self.rest, None)
            return None if window is None else {name: window[None]}

    return Reader()


def _missing(error: ImportError) -> EdgeError:
    return EdgeError(
        f"ONNX needs onnx, onnxscript and onnxruntime ({error.name} is missing); install embridge-edge[onnx]."
    )
