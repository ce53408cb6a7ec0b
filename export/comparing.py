"""How far two runs of a model are apart: layer by layer, and runtime by runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embridge_edge.errors import EdgeError
from embridge_edge.export.metadata import is_tflite
from embridge_edge.export.onnx import onnx_ops_and_step
from embridge_edge.export.reading import Values, dequantize_values
from embridge_edge.export.running import Runtime, layer_values, run_onnx, run_tflite
from embridge_edge.firmware_bridge.graph import Tensor, activations, op_counts, read_graph


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
        runtime: which; "onnxruntime" for the int8 ONNX file of the same network.
        max_steps: largest difference, in integer steps of the output.
        within_one_step: share of windows in which no output differs by more than one step.
        equal: share of windows in which all outputs are equal.
        class_flips: share of windows that are decided differently; None where nothing decides.
    """

    runtime: Runtime | Literal["onnxruntime"]
    max_steps: int
    within_one_step: float
    equal: float
    class_flips: float | None


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
        """Smallest share of windows within one step."""
        return min((pair.within_one_step for pair in self.pairs), default=1.0)


@dataclasses.dataclass(frozen=True)
class FilePair:
    """Two files of one model, by two converters, for two runtimes or by two recipes, on the same windows.

    Attributes:
        sizes: bytes of each file. ops: how often each has an op.
        step: real value of one integer step of the first one's output; None, as all that follows, where either holds no integers there.
        other_step: of the second one's.
        max_steps: largest difference of an output, in steps of the first.
        mean_steps: mean absolute difference, likewise.
        within_one_step: share of windows in which no output differs by more than one step.
    """

    sizes: tuple[int, int]
    ops: tuple[dict[str, int], dict[str, int]]
    step: float | None = None
    other_step: float | None = None
    max_steps: float | None = None
    mean_steps: float | None = None
    within_one_step: float | None = None

    @property
    def ops_apart(self) -> dict[str, tuple[int, int]]:
        """The ops of which one has more than the other, with both numbers."""
        one, two = self.ops
        return {
            name: (one.get(name, 0), two.get(name, 0))
            for name in sorted({*one, *two})
            if one.get(name) != two.get(name)
        }

    def text(self) -> str:
        apart = ", ".join(f"{name} {one} and {two}" for name, (one, two) in self.ops_apart.items())
        lines = [
            f"  {self.sizes[0]:,} and {self.sizes[1]:,} bytes; " + (f"ops apart: {apart}" if apart else "the same ops")
        ]
        if self.max_steps is not None and self.within_one_step is not None and self.step is not None:
            lines.append(
                f"  outputs at most {self.max_steps:.4g} steps of {self.step:.4g} apart, {self.mean_steps:.3g} in the mean; "
                f"{100 * self.within_one_step:.2f} % of the windows within one step (the other's steps are {self.other_step:.4g})"
            )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "ops_apart": self.ops_apart}


def compare_files(first: Path, second: Path, outputs: Values, other_outputs: Values) -> FilePair:
    """What two model files differ in, `.tflite` or `.onnx`, and by how many integer steps their outputs do.

    Args:
        outputs: real values that the first gives, `[n, values]`. other_outputs: the second's, of the same windows.

    Raises:
        EdgeError: one is damaged.
    """
    (ops, step), (other_ops, other_step) = (_ops_and_step(path) for path in (first, second))
    sizes = first.stat().st_size, second.stat().st_size
    if step is None or other_step is None:
        return FilePair(sizes, (ops, other_ops))
    steps = np.abs(outputs.astype(np.float64) - other_outputs) / step
    # Both are whole numbers of their own steps, in float32: a step that is one in a million too long is still one.
    within = float((steps.max(axis=1, initial=0) <= 1 + 1e-4).mean())
    return FilePair(sizes, (ops, other_ops), step, other_step, float(steps.max(initial=0)), float(steps.mean()), within)


def _ops_and_step(path: Path) -> tuple[dict[str, int], float | None]:
    """How often each op occurs, and what an integer step of the output is worth; None where it holds no integers."""
    content = path.read_bytes()
    if is_tflite(content):
        graph = read_graph(content)
        end = graph.tensors[graph.outputs[0]]
        return op_counts(graph), end.scales[0] if end.scales and not end.is_float else None
    return onnx_ops_and_step(content)


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
    int8_onnx: Path | bytes | None = None,
    decide: Callable[[Values], Values] | None = None,
) -> RuntimeComparison:
    """Run an int8 model on several runtimes and count the steps between their raw outputs.

    LiteRT's reference kernels round once in FULLY_CONNECTED, TFLM twice: up to three steps on a few per cent of
    inferences is rounding, more is a defect (weights at offsets, a BATCH_MATMUL quantized per channel).

    Args:
        int8_model: a full int8 `.tflite`.
        inputs: windows `[n, T, C]`.
        reference: what the others are compared with.
        others: runtimes to compare.
        int8_onnx: the same network as an int8 ONNX file, to compare on ONNX Runtime in steps of the `.tflite`.
        decide: real outputs `[n, values]` to the gesture of each window, `[n]`.

    Raises:
        EdgeError: the model is not full int8 or cannot run.
    """
    graph = read_graph(int8_model)
    given = graph.tensors[graph.outputs[0]]
    if any(graph.tensors[index].type != "int8" for index in (*graph.inputs, *graph.outputs)):
        raise EdgeError("Only full int8 models can be compared in integer steps; quantize inputs and outputs too.")

    def run(runtime: Runtime) -> tuple[Values, Values | None]:
        raw = run_tflite(int8_model, inputs, runtime, raw=True)
        raw = raw.reshape(len(raw), -1)
        real = dequantize_values(raw, given.scales[0], given.zero_points[0])
        return raw.astype(np.int16), None if decide is None else decide(real)

    def run_the_other_file(model: Path | bytes) -> tuple[Values, Values | None]:
        real = run_onnx(model, inputs)
        real = real.reshape(len(real), -1)
        return np.rint(real / given.scales[0]) + given.zero_points[0], None if decide is None else decide(real)

    expected, decided = run(reference)
    found: list[tuple[Runtime | Literal["onnxruntime"], tuple[Values, Values | None]]] = [
        (runtime, run(runtime)) for runtime in others
    ]
    if int8_onnx is not None:
        found.append(("onnxruntime", run_the_other_file(int8_onnx)))
    pairs = []
    for runtime, (raw, its) in found:
        steps = np.abs(raw - expected).max(axis=1, initial=0)
        flips = None if its is None else float(np.mean(its != decided))
        pairs.append(
            RuntimePair(
                runtime, int(steps.max(initial=0)), float((steps <= 1).mean()), float((steps == 0).mean()), flips
            )
        )
    return RuntimeComparison(reference, tuple(pairs), len(expected))
