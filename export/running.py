"""Running an exported artifact: LiteRT with XNNPACK, LiteRT's reference kernels, TFLM, ONNX Runtime."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.export.reading import Values, dequantize_values, quantize_values
from embridge_edge.firmware_bridge.graph import Graph, Tensor, activations, read_graph
from embridge_edge.firmware_bridge.interpreters import (
    died_elsewhere_of,
    litert_interpreter,
    run_elsewhere,
    tflm_interpreter,
)
from embridge_edge.quiet import silenced

Runtime = Literal["litert", "litert-ref", "tflm", "tflite-runtime", "tf-lite"]
RUNTIMES: tuple[Runtime, ...] = ("litert", "litert-ref", "tflm")
"""Those that run in this process."""

ELSEWHERE: Mapping[Runtime, str] = {"tflite-runtime": "tflite-runtime", "tf-lite": "tensorflow"}
"""Those that run in a process of their own, with their reference kernels, and the package that brings each."""


def run_tflite(model: Path | bytes, inputs: Values, runtime: Runtime = "litert", *, raw: bool = False) -> Values:
    """Run a model of one input and one output window by window (its batch of one is fixed in the graph).

    Args:
        model: a `.tflite` file or its bytes.
        inputs: windows `[n, T, C]`: float32, quantized here by the stored scale; or int8, taken as they are.
        runtime: "litert" (XNNPACK), "litert-ref" (LiteRT's reference kernels) or "tflm" (TensorFlow Lite Micro); or an older name of
            LiteRT, "tflite-runtime" or "tf-lite", with its reference kernels, in whichever Python has it (see `python_with`).
        raw: give an int8 model's outputs as int8 instead of real values.

    Returns:
        Outputs `[n, …]`, float32, or int8 with `raw`.

    Raises:
        EdgeError: the model is damaged or cannot run there, or the inputs do not fit it.
    """
    content, graph = _loaded(model)
    given, taken = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    windows = _as_the_model_takes_them(given, inputs)
    if runtime in ELSEWHERE:
        package = ELSEWHERE[runtime]
        outputs = run_elsewhere(python_with(package), package, content, windows)
    else:
        outputs = np.empty((len(windows), *taken.shape[1:]), dtype=_numpy_type(taken))
        invoke = _invoker(content, graph, runtime)
        for index in range(len(windows)):
            outputs[index] = invoke(windows[index : index + 1])[0]
    if raw or taken.is_float or not taken.scales:
        return outputs
    return dequantize_values(outputs, taken.scales[0], taken.zero_points[0])


@functools.cache
def python_with(package: str) -> Path:
    """A Python in which a package's TFLite interpreter has run a model: this one, or that of the TensorFlow converter's environment.

    Args:
        package: "ai-edge-litert", "tflite-runtime" or "tensorflow".

    Raises:
        EdgeError: there is none; says what each one died of.
    """
    from embridge_edge.export.onnx2tf import converter_environment

    environment = converter_environment()
    wrong = {}
    for python in (Path(sys.executable), *([environment.interpreter] if environment.is_ready else [])):
        died_of = died_elsewhere_of(python, package)
        if died_of is None:
            return python
        wrong[python] = died_of
    each = "; ".join(f"{python}: {died_of}" for python, died_of in wrong.items())
    what_next = (
        "ask doctor" if environment.is_ready else "export --converter onnx2tf makes an environment in which it does"
    )
    raise EdgeError(f"{package} works in no Python here ({each}); {what_next}.")


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
        raise EdgeError(f"Unknown runtime {runtime!r}; choose one of {', '.join((*RUNTIMES, *ELSEWHERE))}.")
    interpreter = litert_interpreter(content, reference=runtime == "litert-ref")
    given, taken = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def invoke(window: Values) -> Values:
        interpreter.set_tensor(given, window)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(taken))

    return invoke


def _tflm_invoker(content: bytes, graph: Graph) -> Callable[[Values], Values]:
    interpreter = tflm_interpreter(content, graph)

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
    interpreter = tflm_interpreter(content, graph)
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
    session = onnx_session(model)
    name = session.get_inputs()[0].name
    windows = np.ascontiguousarray(inputs, dtype=np.float32)
    try:
        return np.concatenate([np.asarray(session.run(None, {name: part})[0]) for part in _parts(windows, 256)])
    except Exception as error:
        raise EdgeError(
            f"ONNX Runtime cannot run the model ({one_line(error)}); use the model's signal chain."
        ) from None


def onnx_values(model: Path | bytes, inputs: Values) -> dict[str, Values]:
    """The input and what every node of an ONNX model writes, in order of execution: tensor name → values `[n, …]`.

    Args:
        inputs: windows `[n, T, C]`, float32.

    Raises:
        EdgeError: the model is damaged, or the inputs do not fit it.
    """
    from embridge_edge.export.onnx import parsed

    content = model if isinstance(model, bytes) else model.read_bytes()
    proto = parsed(content)
    given, taken = proto.graph.input[0].name, {value.name for value in proto.graph.output}
    constant = {tensor.name for tensor in proto.graph.initializer}
    names = [given]
    for node in proto.graph.node:
        if any(name and name not in constant for name in node.input):
            names += [name for name in node.output if name]
        else:
            constant |= set(node.output)
    proto.graph.output.extend(type(proto.graph.output[0])(name=name) for name in names[1:] if name not in taken)
    session = onnx_session(proto.SerializeToString(), optimised=False)
    windows = np.ascontiguousarray(inputs, dtype=np.float32)
    try:
        found = session.run(names[1:], {given: windows})
    except Exception as error:
        raise EdgeError(
            f"ONNX Runtime cannot run the model ({one_line(error)}); use the model's signal chain."
        ) from None
    return dict(zip(names, [windows, *map(np.asarray, found)], strict=True))


def onnx_invoker(model: Path | bytes) -> Callable[[Values], Values]:
    """A loaded model as a function of one window, one thread: for timing.

    Raises:
        EdgeError: the model is damaged or cannot run there.
    """
    session = onnx_session(model)
    name = session.get_inputs()[0].name
    return lambda window: np.asarray(session.run(None, {name: window})[0])


def onnx_session(model: Path | bytes, *, optimised: bool = True) -> Any:
    """An ONNX model loaded on ONNX Runtime's CPU provider, one thread.

    Args:
        optimised: let ONNX Runtime fuse; without, the graph runs as it is written.

    Raises:
        EdgeError: onnxruntime is missing, or the model is damaged.
    """
    try:
        with silenced():
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.inter_op_num_threads = 1
            options.log_severity_level = 4
            # Sums of products in 32 bits on x86 without VNNI too, as everywhere else: in 16 bits they saturate, and outputs of weights
            # in eight bits were up to 36 steps from LiteRT's; so they are 2. It costs a fifth of the time there.
            options.add_session_config_entry("session.x64quantprecision", "1")
            if not optimised:  # so that every tensor is there under its name
                options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            source = model if isinstance(model, bytes) else str(model)
            return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except ImportError as error:
        raise EdgeError(
            f"Running ONNX needs onnxruntime ({error.name} is missing); install embridge-edge[onnx]."
        ) from None
    except Exception as error:
        raise EdgeError(f"ONNX Runtime cannot load the model ({one_line(error)}); export it again.") from None


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
    interpreter = litert_interpreter(content, reference=True, preserve=True)
    tensors = [given, *activations(graph)]
    values: dict[str, list[Values]] = {tensor.name: [] for tensor in tensors}
    for index in range(len(windows)):
        interpreter.set_tensor(given.index, windows[index : index + 1])
        interpreter.invoke()
        for tensor in tensors:
            values[tensor.name].append(np.array(interpreter.get_tensor(tensor.index)))
    return {name: np.stack(each) for name, each in values.items()}
