"""Torch module → float `.tflite` → full int8 `.tflite` that LiteRT and TensorFlow Lite Micro run alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.export.flatbuffer import repack_inline, with_readable_names
from embridge_edge.firmware_bridge.graph import Graph, float_ops, op_counts, read_graph
from embridge_edge.quiet import silenced

if TYPE_CHECKING:
    import torch

Observer = Literal["minmax", "moving_average"]
OBSERVERS: tuple[Observer, ...] = ("minmax", "moving_average")
Ranges = Mapping[str, tuple[float, float]]
# Float kernels of two libraries: a student of four convolutions differs by 1e-6 of the largest output.
LARGEST_CONVERSION_ERROR = 1e-4


def to_tflite(module: torch.nn.Module, example_shape: Sequence[int]) -> bytes:
    """Convert a module to a float `.tflite` with readable tensor names and compare both on random input.

    Args:
        module: in evaluation mode, one input, one output; fold its BatchNorms first.
        example_shape: of the input with its batch axis, such as (1, T, C); fixed in the file.

    Raises:
        EdgeError: litert-torch is missing, cannot convert the module, or what it made computes something else.
    """
    import torch

    from embridge_edge.export.running import run_tflite

    if module.training:
        raise EdgeError("The module is in training mode; call eval() and fold its BatchNorms before converting it.")
    shape = tuple(int(length) for length in example_shape)
    example = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    with torch.no_grad():
        expected = module(example).numpy()
    model = with_readable_names(_converted(module, example))
    actual = run_tflite(model, example.numpy())
    scale = float(np.abs(expected).max()) or 1.0
    error = float(np.abs(actual - expected).max()) / scale if actual.shape == expected.shape else float("inf")
    if not error <= LARGEST_CONVERSION_ERROR:
        raise EdgeError(
            f"The converted model differs from the torch module by {error:.1e} of its largest output (allowed "
            f"{LARGEST_CONVERSION_ERROR:.0e}); check the module for ops that depend on the batch or on training."
        )
    return model


def _converted(module: torch.nn.Module, example: torch.Tensor) -> bytes:
    try:
        with silenced():
            import litert_torch
            from litert_torch import progress

            shown = progress.config.show_progress
            progress.config.show_progress = False
            try:
                return bytes(litert_torch.convert(module, (example,)).model_content())
            finally:
                progress.config.show_progress = shown
    except ImportError as error:
        raise EdgeError(
            f"Converting to TFLite needs litert-torch ({error.name} is missing); install embridge-edge[tflite]."
        ) from None
    except Exception as error:
        raise EdgeError(
            f"litert-torch cannot convert this module ({one_line(error)}); simplify it to supported ops."
        ) from None


def tensor_ranges(
    float_model: bytes, calibration: npt.NDArray[np.float32], observer: Observer = "minmax"
) -> dict[str, tuple[float, float]]:
    """Least and largest value of every activation of a float model over calibration windows.

    Args:
        float_model: from `to_tflite`.
        calibration: windows `[n, T, C]` (or whatever the model takes, behind the window axis).
        observer: "minmax" over all windows; "moving_average" of each window's extremes with factor .95, which is the
            quantizer's own default and clips EMG (mean-removed error .20 against .03 on real recordings).

    Returns:
        Tensor name → (least, largest).

    Raises:
        EdgeError: the windows do not fit the model, or hold no or no finite values.
    """
    windows = _checked_windows(read_graph(float_model), calibration)
    statistics = _statistics(float_model, windows, observer)
    return {
        name: (float(np.min(values["min"])), float(np.max(values["max"])))
        for name, values in statistics.items()
        if "min" in values and "max" in values
    }


def quantize_tflite(
    float_model: bytes,
    calibration: npt.NDArray[np.float32],
    observer: Observer = "minmax",
    *,
    ranges: Ranges | None = None,
    most_transposes: int = 1,
) -> bytes:
    """Quantize a float `.tflite` to full int8, inputs and outputs included, and check that nothing stayed float.

    Weights are int8 per output channel, but a constant operand of BATCH_MATMUL (learned queries of several heads fold
    into one) per tensor: scales per channel would run along the contraction axis, where LiteRT and TFLM were 60 steps
    apart, against 2 with one scale. The same input gives the same bytes.

    Args:
        float_model: from `to_tflite`.
        calibration: windows `[n, T, C]`, float32, in the unit that the model takes.
        observer: how window extremes become a range; see `tensor_ranges`.
        ranges: tensor name → (least, largest), in place of what the observer found (learned or clipped ranges).
        most_transposes: TRANSPOSE ops that the graph may hold.

    Raises:
        EdgeError: the windows do not fit, a range is named that is not there, or the result is not full int8.
    """
    graph = read_graph(float_model)
    windows = _checked_windows(graph, calibration)
    statistics = _statistics(float_model, windows, observer)
    for name, (least, largest) in (ranges or {}).items():
        if name not in statistics:
            raise EdgeError(f"No activation is named {name!r}; choose among {', '.join(sorted(statistics))}.")
        if not (np.isfinite([least, largest]).all() and least < largest):
            raise EdgeError(
                f"The range of {name!r} runs from {least} to {largest}; give a smaller and a larger number."
            )
        like = statistics[name]["min"]
        statistics[name] = {
            **statistics[name],
            "min": np.full_like(like, least, dtype=np.float32),
            "max": np.full_like(like, largest, dtype=np.float32),
        }
    model = repack_inline(_quantized(float_model, statistics))
    refuse_unless_int8(read_graph(model), most_transposes)
    return model


def refuse_unless_int8(graph: Graph, most_transposes: int = 1) -> None:
    """Check what a microcontroller needs: int8 in and out, no float op, few TRANSPOSEs, weights inside.

    Raises:
        EdgeError: one of these is not so.
    """
    if left := float_ops(graph):
        names = ", ".join(sorted({op.name for op in left}))
        raise EdgeError(
            f"{len(left)} ops stayed float ({names}); replace them in the student by ops with an int8 kernel."
        )
    for index in (*graph.inputs, *graph.outputs):
        if graph.tensors[index].type != "int8":
            raise EdgeError(
                f"{graph.tensors[index].name} is {graph.tensors[index].type}, not int8; "
                "quantize inputs and outputs too."
            )
    if (transposes := op_counts(graph).get("TRANSPOSE", 0)) > most_transposes:
        raise EdgeError(
            f"The graph holds {transposes} TRANSPOSE ops, more than {most_transposes}; "
            "keep the module channels last from its input on."
        )
    if graph.weights_at_offsets:
        raise EdgeError(
            "Weights stand behind the flatbuffer, where TensorFlow Lite Micro does not look; repack the model."
        )


def _checked_windows(graph: Graph, calibration: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    windows = np.ascontiguousarray(calibration, dtype=np.float32)
    shape = graph.tensors[graph.inputs[0]].shape
    if windows.ndim != len(shape) or windows.shape[1:] != shape[1:]:
        raise EdgeError(
            f"Calibration windows are {windows.shape[1:]}, the model takes {shape[1:]}; use the model's signal chain."
        )
    if not len(windows):
        raise EdgeError("There are no calibration windows; give at least one, better some hundred of several wearers.")
    if not np.isfinite(windows).all():
        raise EdgeError("Calibration windows hold NaN or infinity; drop these windows.")
    return windows


def _recipe() -> Any:
    from ai_edge_quantizer import qtyping, recipe_manager

    recipe = recipe_manager.RecipeManager()
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    recipe.add_static_config(regex=".*", operation_name=every, activation_num_bits=8, weight_num_bits=8)
    recipe.add_static_config(
        regex=".*",
        operation_name=qtyping.TFLOperationName.BATCH_MATMUL,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=qtyping.QuantGranularity.TENSORWISE,
    )
    return recipe


def _statistics(float_model: bytes, windows: npt.NDArray[np.float32], observer: Observer) -> dict[str, Any]:
    if observer not in OBSERVERS:
        raise EdgeError(f"Unknown observer {observer!r}; choose one of {', '.join(OBSERVERS)}.")
    try:
        with silenced():
            from ai_edge_quantizer import calibrator
            from ai_edge_quantizer.utils import qsv_utils

            update = {"minmax": qsv_utils.min_max_update, "moving_average": qsv_utils.moving_average_update}[observer]
            calibration = calibrator.Calibrator(float_model, num_threads=1, qsv_update_func=update)
            signature, (name,) = _signature(calibration)
            calibration.calibrate({signature: [{name: window[None]} for window in windows]}, _recipe())
            return dict(calibration.get_model_qsvs())
    except ImportError as error:
        raise _missing_quantizer(error) from None


def _signature(calibration: Any) -> tuple[str, list[str]]:
    (signature, ends), *_ = calibration.get_signature_list().items()
    return signature, list(ends["inputs"])


def _quantized(float_model: bytes, statistics: dict[str, Any]) -> bytes:
    try:
        with silenced():
            from ai_edge_quantizer import quantizer

            made = quantizer.Quantizer(float_model, _recipe().get_quantization_recipe())
            result = made.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
            return bytes(result.quantized_model)
    except ImportError as error:
        raise _missing_quantizer(error) from None
    except (ValueError, RuntimeError) as error:
        raise EdgeError(
            f"The model cannot be quantized ({one_line(error)}); check its ops with the float model."
        ) from None


def _missing_quantizer(error: ImportError) -> EdgeError:
    return EdgeError(
        f"Quantizing TFLite needs ai-edge-quantizer ({error.name} is missing); install embridge-edge[tflite]."
    )
