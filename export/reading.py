"""Opening an exported artifact and running it: LiteRT with XNNPACK, LiteRT's reference kernels, TFLM, ONNX Runtime."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.export import metadata as model_metadata
from embridge_edge.export.quiet import silenced
from embridge_edge.firmware_bridge.graph import Graph, Tensor, activations, peak_activation_bytes, read_graph

Runtime = Literal["litert", "litert-ref", "tflm"]
RUNTIMES: tuple[Runtime, ...] = ("litert", "litert-ref", "tflm")
Values = npt.NDArray[Any]
LARGEST_ARENA = 256 * 1024 * 1024


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


@dataclasses.dataclass(frozen=True)
class LayerError:
    """How far one int8 activation is from its float twin, over all inputs.

    Attributes:
        name: tensor name, the same in both models.
        op: the op that writes it.
        snr_db: energy of the float values over that of the difference, in decibels.
        cosine: between all float and all int8 values.
        mean_removed_error: RMS of the difference over RMS of the float values, both after taking each element's mean
            over the inputs away: what stays depends on the input, and only that can decide anything.
        clipped: share of the int8 values at either end of their range where the float value lies beyond it.
        shape: of the tensor.
    """

    name: str
    op: str
    snr_db: float
    cosine: float
    mean_removed_error: float
    clipped: float
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class RuntimePair:
    """Raw int8 outputs of one runtime against those of the reference.

    Attributes:
        runtime: which.
        max_steps: largest difference, in integer steps of the output.
        within_one_step: share of output values that differ by one step at most.
        equal: share of output values that are equal.
    """

    runtime: Runtime
    max_steps: int
    within_one_step: float
    equal: float


@dataclasses.dataclass(frozen=True)
class RuntimeComparison:
    """The same int8 model and inputs on several runtimes.

    Attributes:
        reference: what the others are compared with.
        pairs: one per other runtime.
        inputs: number of windows compared.
    """

    reference: Runtime
    pairs: tuple[RuntimePair, ...]
    inputs: int

    @property
    def max_steps(self) -> int:
        """Largest difference of any runtime."""
        return max((pair.max_steps for pair in self.pairs), default=0)

    @property
    def within_one_step(self) -> float:
        """Smallest share of values within one step."""
        return min((pair.within_one_step for pair in self.pairs), default=1.0)


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


def run_tflite(model: Path | bytes, inputs: Values, runtime: Runtime = "litert", *, raw: bool = False) -> Values:
    """Run a model of one input and one output window by window (its batch of one is fixed in the graph).

    Args:
        model: a `.tflite` file or its bytes.
        inputs: windows `[n, T, C]`: float32, quantized here by the stored scale; or int8, taken as they are.
        runtime: "litert" (XNNPACK), "litert-ref" (LiteRT's reference kernels) or "tflm" (TensorFlow Lite Micro).
        raw: give an int8 model's outputs as int8 instead of real values.

    Returns:
        Outputs `[n, …]`, float32, or int8 with `raw`.

    Raises:
        EdgeError: the model is damaged or cannot run there, or the inputs do not fit it.
    """
    content, graph = _loaded(model)
    given, taken = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    windows = _as_the_model_takes_them(given, inputs)
    outputs = np.empty((len(windows), *taken.shape[1:]), dtype=_numpy_type(taken))
    invoke = _invoker(content, graph, runtime)
    for index in range(len(windows)):
        outputs[index] = invoke(windows[index : index + 1])[0]
    if raw or taken.is_float or not taken.scales:
        return outputs
    return dequantize_values(outputs, taken.scales[0], taken.zero_points[0])


def _loaded(model: Path | bytes) -> tuple[bytes, Graph]:
    graph = read_graph(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise EdgeError(
            f"The model has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; only one of each is run here."
        )
    return (model if isinstance(model, bytes) else Path(model).read_bytes()), graph


def _as_the_model_takes_them(tensor: Tensor, inputs: Values) -> Values:
    if inputs.ndim != len(tensor.shape) or inputs.shape[1:] != tensor.shape[1:] or tensor.shape[0] != 1:
        raise EdgeError(
            f"The inputs are windows of {inputs.shape[1:]}, the model takes {tensor.shape[1:]}; use its signal chain."
        )
    if tensor.type == "int8" and tensor.scales and inputs.dtype != np.int8:
        return quantize_values(inputs, tensor.scales[0], tensor.zero_points[0])
    return np.ascontiguousarray(inputs, dtype=_numpy_type(tensor))


def _numpy_type(tensor: Tensor) -> np.dtype[Any]:
    from embridge_edge.firmware_bridge.graph import NUMPY_TYPES

    if tensor.type not in NUMPY_TYPES:
        raise EdgeError(f"{tensor.name} holds {tensor.type} values, which cannot be fed here; use float32 or int8.")
    return np.dtype(NUMPY_TYPES[tensor.type])


def tflite_invoker(model: Path | bytes, runtime: Runtime = "litert") -> Callable[[Values], Values]:
    """A loaded model of one input and one output as a function of one window, in the model's own type: for timing.

    Raises:
        EdgeError: the model is damaged or cannot run there.
    """
    return _invoker(*_loaded(model), runtime)


def _invoker(content: bytes, graph: Graph, runtime: Runtime) -> Callable[[Values], Values]:
    if runtime == "tflm":
        return _tflm_invoker(content, graph)
    if runtime not in RUNTIMES:
        raise EdgeError(f"Unknown runtime {runtime!r}; choose one of {', '.join(RUNTIMES)}.")
    interpreter = _litert(content, reference=runtime == "litert-ref")
    given, taken = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def invoke(window: Values) -> Values:
        interpreter.set_tensor(given, window)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(taken))

    return invoke


def _litert(content: bytes, *, reference: bool, preserve: bool = False) -> Any:
    try:
        with silenced():
            from ai_edge_litert import interpreter as litert

            resolver = litert.OpResolverType.BUILTIN_REF if reference else litert.OpResolverType.AUTO
            interpreter = litert.Interpreter(
                model_content=content,
                num_threads=1,
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=preserve,
            )
            interpreter.allocate_tensors()
            return interpreter
    except ImportError as error:
        raise EdgeError(
            f"Running TFLite needs ai-edge-litert ({error.name} is missing); install embridge-edge[tflite]."
        ) from None
    except (ValueError, RuntimeError) as error:
        raise EdgeError(f"LiteRT cannot run the model ({_one_line(error)}); check its ops.") from None


def _tflm(content: bytes, graph: Graph) -> Any:
    if graph.weights_at_offsets:
        raise EdgeError("The model keeps weights behind the flatbuffer, which TFLM reads as nothing; repack it first.")
    arena = max(1 << 20, 4 * peak_activation_bytes(graph) + (1 << 16))
    while True:
        try:
            with silenced():
                from tflite_micro import runtime as tflm

                return tflm.Interpreter.from_bytes(content, arena_size=arena)
        except ImportError as error:
            raise EdgeError(
                f"Running TFLM needs tflite-micro ({error.name} is missing); install embridge-edge[tflite]."
            ) from None
        except Exception as error:
            arena *= 4
            if arena > LARGEST_ARENA:
                raise EdgeError(
                    f"TFLM cannot load the model ({_one_line(error)}); it may lack a kernel for one of its ops."
                ) from None


def _tflm_invoker(content: bytes, graph: Graph) -> Callable[[Values], Values]:
    interpreter = _tflm(content, graph)

    def invoke(window: Values) -> Values:
        interpreter.set_input(window, 0)
        interpreter.invoke()
        return np.asarray(interpreter.get_output(0))

    return invoke


def tflm_arena_bytes(model: Path | bytes) -> int:
    """Arena that TFLM's own allocator reports after an inference on this machine.

    The host's pointers have eight bytes, a microcontroller's four: a Cortex-M needs somewhat less.

    Raises:
        EdgeError: the model is damaged or TFLM cannot run it.
    """
    content, graph = _loaded(model)
    interpreter = _tflm(content, graph)
    given = graph.tensors[graph.inputs[0]]
    with silenced() as printed:
        interpreter.set_input(np.zeros(given.shape, dtype=_numpy_type(given)), 0)
        interpreter.invoke()
        interpreter.print_allocations()
        printed.seek(0)
        text = printed.read().decode("utf-8", "replace")
    found = re.search(r"Arena allocation total (\d+) bytes", text)
    if found is None:
        raise EdgeError("TFLM reported no arena size; use another release of tflite-micro.")
    return int(found[1])


def run_onnx(model: Path | bytes, inputs: Values) -> npt.NDArray[np.float32]:
    """Run an ONNX model on ONNX Runtime's CPU provider, one thread.

    Args:
        model: an `.onnx` file or its bytes.
        inputs: windows `[n, T, C]`, float32.

    Returns:
        Outputs `[n, …]`.

    Raises:
        EdgeError: the model is damaged, or the inputs do not fit it.
    """
    session = _onnx_session(model)
    name = session.get_inputs()[0].name
    windows = np.ascontiguousarray(inputs, dtype=np.float32)
    try:
        return np.concatenate([np.asarray(session.run(None, {name: part})[0]) for part in _parts(windows, 256)])
    except Exception as error:
        raise EdgeError(
            f"ONNX Runtime cannot run the model ({_one_line(error)}); use the model's signal chain."
        ) from None


def onnx_invoker(model: Path | bytes) -> Callable[[Values], Values]:
    """A loaded model as a function of one window, one thread: for timing.

    Raises:
        EdgeError: the model is damaged or cannot run there.
    """
    session = _onnx_session(model)
    name = session.get_inputs()[0].name
    return lambda window: np.asarray(session.run(None, {name: window})[0])


def _onnx_session(model: Path | bytes) -> Any:
    try:
        with silenced():
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.log_severity_level = 4
            source = model if isinstance(model, bytes) else str(model)
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except ImportError as error:
        raise EdgeError(
            f"Running ONNX needs onnxruntime ({error.name} is missing); install embridge-edge[onnx]."
        ) from None
    except Exception as error:
        raise EdgeError(f"ONNX Runtime cannot load the model ({_one_line(error)}); export it again.") from None


def _parts(windows: Values, size: int) -> Iterator[Values]:
    for start in range(0, max(len(windows), 1), size):
        yield windows[start : start + size]


def layer_values(model: Path | bytes, inputs: Values) -> dict[str, Values]:
    """Every activation of a model on LiteRT's reference kernels, as the graph holds it (int8 stays int8).

    Args:
        model: a `.tflite` file or its bytes.
        inputs: windows `[n, T, C]`, as for `run_tflite`.

    Returns:
        Tensor name → values `[n, …]`, in order of execution.
    """
    content, graph = _loaded(model)
    given = graph.tensors[graph.inputs[0]]
    windows = _as_the_model_takes_them(given, inputs)
    interpreter = _litert(content, reference=True, preserve=True)
    tensors = [given, *activations(graph)]
    values: dict[str, list[Values]] = {tensor.name: [] for tensor in tensors}
    for index in range(len(windows)):
        interpreter.set_tensor(given.index, windows[index : index + 1])
        interpreter.invoke()
        for tensor in tensors:
            values[tensor.name].append(np.array(interpreter.get_tensor(tensor.index)))
    return {name: np.stack(each) for name, each in values.items()}


def layer_errors(float_model: Path | bytes, int8_model: Path | bytes, inputs: Values) -> list[LayerError]:
    """Compare every int8 activation with the float one of the same name, the worst by mean-removed error first.

    The quantizer keeps tensor names, so that layers match by name. What errs at a layer's input errs behind it too: the
    first layer in order of execution that is bad is the one to look at.

    Args:
        float_model: the model that was quantized.
        int8_model: what came out.
        inputs: windows `[n, T, C]`, float32; some dozens, real ones.

    Raises:
        EdgeError: the models do not share a tensor name, or one cannot run.
    """
    graph = read_graph(int8_model)
    writers = {graph.tensors[index].name: op.name for op in graph.ops for index in op.outputs}
    quantization = {tensor.name: tensor for tensor in activations(graph) if tensor.scales and not tensor.is_float}
    exact, integers = layer_values(float_model, inputs), layer_values(int8_model, inputs)
    errors = [
        _layer_error(tensor, writers[name], exact[name], integers[name])
        for name, tensor in quantization.items()
        if name in exact and exact[name].shape == integers[name].shape
    ]
    if not errors:
        raise EdgeError("The two models share no tensor name; give the float model that the int8 one was made from.")
    return sorted(errors, key=lambda error: -error.mean_removed_error)


def _layer_error(tensor: Tensor, op: str, exact: Values, integers: Values) -> LayerError:
    scale, zero_point = tensor.scales[0], tensor.zero_points[0]
    least, most = (-128 - zero_point) * scale, (127 - zero_point) * scale
    truth = exact.astype(np.float64)
    difference = dequantize_values(integers, scale, zero_point) - truth
    centred, centred_difference = truth - truth.mean(axis=0), difference - difference.mean(axis=0)
    got = truth + difference
    return LayerError(
        name=tensor.name,
        op=op,
        snr_db=10 * float(np.log10(_ratio(_energy(truth), _energy(difference)))),
        cosine=float((truth * got).sum() / max(np.sqrt(_energy(truth) * _energy(got)), 1e-30)),
        mean_removed_error=float(np.sqrt(_ratio(_energy(centred_difference), _energy(centred)))),
        clipped=float(((truth < least - scale / 2) | (truth > most + scale / 2)).mean()),
        shape=tensor.shape,
    )


def _energy(values: Values) -> float:
    return float(np.square(values).sum())


def _ratio(above: float, below: float) -> float:
    return min(max(above, 1e-30) / max(below, 1e-30), 1e30)


def compare_runtimes(
    int8_model: Path | bytes,
    inputs: Values,
    *,
    reference: Runtime = "litert-ref",
    others: Sequence[Runtime] = ("tflm", "litert"),
) -> RuntimeComparison:
    """Run an int8 model on several runtimes and count the steps between their raw outputs.

    LiteRT's reference kernels round once in FULLY_CONNECTED, TFLM twice: up to three steps on a few per cent of
    inferences is rounding, more is a defect (weights at offsets, a BATCH_MATMUL quantized per channel).

    Args:
        int8_model: a full int8 `.tflite`.
        inputs: windows `[n, T, C]`.
        reference: what the others are compared with.
        others: runtimes to compare.

    Raises:
        EdgeError: the model is not full int8 or cannot run.
    """
    graph = read_graph(int8_model)
    if any(graph.tensors[index].type != "int8" for index in (*graph.inputs, *graph.outputs)):
        raise EdgeError("Only full int8 models can be compared in integer steps; quantize inputs and outputs too.")
    expected = run_tflite(int8_model, inputs, reference, raw=True).astype(np.int16)
    pairs = []
    for runtime in others:
        steps = np.abs(run_tflite(int8_model, inputs, runtime, raw=True).astype(np.int16) - expected)
        pairs.append(
            RuntimePair(runtime, int(steps.max(initial=0)), float((steps <= 1).mean()), float((steps == 0).mean()))
        )
    return RuntimeComparison(reference, tuple(pairs), len(expected))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:157]}…"
