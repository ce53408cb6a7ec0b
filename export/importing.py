"""Float ONNX of any make → a torch module, so that it takes the same way to TFLite as our own students.

ONNX Runtime does the first half: its basic passes fold constants, shapes that are known, BatchNorms and Dropout, and find LayerNorm and
GELU in what older exporters made of them. What is left are few kinds of ops, and `OPS` is a table of them; each is a function of torch
tensors, written with those that the quantizer knows: max(x, a·x) for LeakyRelu, say, which has no int8 kernel there.

Convolutions over time are computed as those over images of one row, `[batch, channels, 1, time]`, and what lies between them stays so:
the converter turns images to channels last by itself, but puts a TRANSPOSE before and behind each convolution over time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.quiet import silenced

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

Array = npt.NDArray[Any]

OPSET = 20
"""Where Gelu is an op: ONNX Runtime finds it and LayerNorm only in models of an opset that has them. onnx brings older models up."""

OLDEST_OPSET = 13
"""What is read as it is where onnx cannot bring it up; before it, Softmax meant something else."""

NOT_WANTED = ("MatMulAddFusion",)
"""Basic passes of ONNX Runtime that make a graph worse here: this one puts two RESHAPEs around every Linear of a Transformer."""

INSTEAD: Mapping[str, str] = {
    "GRU": "convolutions with dilation (a TCN)",
    "LSTM": "convolutions with dilation (a TCN)",
    "RNN": "convolutions with dilation (a TCN)",
    "Loop": "a fixed number of layers",
    "Scan": "a fixed number of layers",
    "If": "one of its branches",
    "ConvTranspose": "a convolution",
    "Einsum": "MatMul",
    "Resize": "pooling or a strided convolution",
    "Upsample": "pooling or a strided convolution",
    "InstanceNormalization": "BatchNorm",
    "GroupNormalization": "BatchNorm",
    "ArgMax": "the scores themselves: name them as the output",
    "TopK": "the scores themselves: name them as the output",
    "QuantizeLinear": "the float model, before its quantization",
    "DequantizeLinear": "the float model, before its quantization",
    "DFT": "features of the signal chain",
    "STFT": "features of the signal chain",
}
"""What to use in the place of an op that is not in `OPS`."""

FLOAT_ONLY: Mapping[str, str] = {
    "Elu": "Relu or LeakyRelu",
    "Exp": "Softmax or Sigmoid",
    "Log": "LOGRMS and other features of the signal chain",
    "LogSoftmax": "the scores before it: name them as the output",
    "Pow": "a product (Mul); only the second power is made one by itself",
}
"""Ops that TFLite has and the quantizer has not in int8, and what to use in their place."""


@dataclass(frozen=True)
class Node:
    """One op of an ONNX graph.

    Attributes:
        op: its type. name: for people. inputs, outputs: tensor names; "" where an optional input is absent.
        attributes: by name, as Python values. constants: values of those inputs that are constants, by position.
        lifted: whether its tensors over time come as images of one row.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    constants: Mapping[int, Array]
    lifted: bool = False

    def given(self, key: str, position: int, default: Any = None) -> Any:
        """What opsets moved from an attribute to a constant input: list, number or the default."""
        if key in self.attributes:
            return self.attributes[key]
        if position in self.constants:
            return self.constants[position].tolist()
        if position < len(self.inputs) and self.inputs[position]:
            raise _UnfitError(f"its {key} are computed by the graph")
        return default


class _UnfitError(Exception):
    """An op of the table in a form that it does not have there."""


class ImportedModel(nn.Module):
    """An ONNX graph between one input and one output.

    Takes `[batch, steps, columns]`, our layout, and gives `[batch, values]`.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        constants: Mapping[str, Array],
        source: str,
        arrange: Callable[[Tensor], Tensor],
        output: str,
    ) -> None:
        super().__init__()
        self.nodes, self.source, self.arrange, self.output = tuple(nodes), source, arrange, output
        self.places = {name: f"constant_{index}" for index, name in enumerate(constants)}
        for name, values in constants.items():
            self.register_buffer(self.places[name], torch.from_numpy(np.array(values)))

    def forward(self, windows: Tensor) -> Tensor:
        values = self.values(windows)
        for node in self.nodes:
            values.run(node)
        return values[self.output].flatten(1)

    def values(self, windows: Tensor) -> Values:
        """What is known before the first op."""
        constants = {name: cast(Tensor, getattr(self, place)) for name, place in self.places.items()}
        return Values({**constants, self.source: self.arrange(windows)}, frozenset(constants))


class Values:
    """Tensors by name while a graph is computed; those over time may be kept as images of one row."""

    def __init__(self, known: dict[str, Tensor], constants: frozenset[str]) -> None:
        self._known, self._constants = known, constants
        self._images: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._known:
            self._known[name] = self._images[name].squeeze(2)
        return self._known[name]

    def run(self, node: Node) -> None:
        """Compute one op."""
        images = self._as_images(node)
        given = images or [self[name] if name else None for name in node.inputs]
        found = OPS[node.op](replace(node, lifted=images is not None), *given)
        for name, value in zip(node.outputs, found if isinstance(found, tuple) else (found,), strict=False):
            (self._known if images is None else self._images)[name] = value

    def _as_images(self, node: Node) -> list[Tensor | None] | None:
        """The inputs as images, where the op can be computed so and gains by it."""
        first = node.inputs[0] if node.inputs else ""
        if node.op in SPATIAL:
            if first not in self._images:
                if self[first].dim() != 3:
                    return None
                self._images[first] = self[first].unsqueeze(2)
            return [self._images[first], *(self[name] if name else None for name in node.inputs[1:])]
        wanted = [name for name in node.inputs if name and name not in self._constants]
        if node.op not in POINTWISE or not wanted or any(name not in self._images for name in wanted):
            return None
        return [self._image(name) if name else None for name in node.inputs]

    def _image(self, name: str) -> Tensor:
        if name in self._images:
            return self._images[name]
        constant = self._known[name]
        return constant.unsqueeze(-2) if constant.dim() > 1 else constant


def import_onnx(
    model: ModelProto, source: str, shape: Sequence[int], arrange: Callable[[Tensor], Tensor], output: str
) -> ImportedModel:
    """The part of an ONNX model between one input and one tensor, as a torch module.

    Args:
        model: with its weights inside. source: name of the input. shape: its length of each axis, a batch of one.
        arrange: from windows `[batch, steps, columns]` to what the input takes. output: name of the tensor.

    Raises:
        EdgeError: an op that has no counterpart; names it and what to use in its place.
    """
    proto = _simplified(_upgraded(model), source, shape, output)
    graph = proto.graph
    constants = _constants(graph)
    nodes = [_node(raw, constants) for raw in graph.node if raw.op_type != "Constant"]
    _refuse_unknown(nodes)
    used = {name for node in nodes for name in node.inputs if name in constants}
    module = ImportedModel(nodes, {name: constants[name] for name in sorted(used)}, source, arrange, output)
    return module.eval()


def _upgraded(model: ModelProto) -> ModelProto:
    import onnx

    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    if opset >= OPSET:
        return model
    try:
        with silenced():
            return onnx.version_converter.convert_version(model, OPSET)
    except Exception as error:
        if opset >= OLDEST_OPSET:
            return model
        raise EdgeError(
            f"The model has ONNX opset {opset} and cannot be brought to {OPSET} ({one_line(error)}); export it with opset "
            f"{OLDEST_OPSET} or later."
        ) from None


def _simplified(model: ModelProto, source: str, shape: Sequence[int], output: str) -> ModelProto:
    """The part that leads to one output, with shapes fixed and everything constant folded by ONNX Runtime."""
    import onnx

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    (given,) = (value for value in graph.input if value.name == source)
    others = {value.name for value in graph.initializer}
    inputs = [onnx.helper.make_tensor_value_info(source, given.type.tensor_type.elem_type, list(shape))]
    inputs += [value for value in graph.input if value.name != source and value.name not in others]
    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.extend(inputs)
    graph.output.extend([onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)])
    try:
        with silenced(), tempfile.TemporaryDirectory() as folder:
            import onnxruntime

            written = Path(folder) / "simplified.onnx"
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.optimized_model_filepath = str(written)
            options.log_severity_level = 4
            onnxruntime.InferenceSession(
                fixed.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=NOT_WANTED
            )
            return onnx.load(written)
    except ImportError as error:
        raise EdgeError(
            f"Reading ONNX needs onnx and onnxruntime ({error.name} is missing); install embridge-edge[onnx]."
        ) from None
    except Exception as error:
        raise EdgeError(f"ONNX Runtime cannot load the model ({one_line(error)}); export it again.") from None


def _constants(graph: GraphProto) -> dict[str, Array]:
    from onnx import numpy_helper

    found = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for raw in graph.node:
        if raw.op_type == "Constant":
            attributes = _attributes(raw)
            value = attributes.get("value", next(iter(attributes.values()), None))
            if isinstance(value, str):
                raise EdgeError(f"Op {raw.name!r} (Constant) holds a text; export the model without it.")
            found[raw.output[0]] = np.asarray(value, np.float32 if isinstance(value, float) else None)
    return found


def _attributes(raw: Any) -> dict[str, Any]:
    from onnx import helper, numpy_helper

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return numpy_helper.to_array(value) if hasattr(value, "raw_data") else value

    return {one.name: plain(helper.get_attribute_value(one)) for one in raw.attribute}


def _node(raw: Any, constants: Mapping[str, Array]) -> Node:
    return Node(
        op=raw.op_type if raw.domain in ("", "ai.onnx") else f"{raw.domain}.{raw.op_type}",
        name=raw.name or raw.output[0],
        inputs=tuple(raw.input),
        outputs=tuple(raw.output),
        attributes=_attributes(raw),
        constants={at: constants[name] for at, name in enumerate(raw.input) if name in constants},
    )


def _refuse_unknown(nodes: Sequence[Node]) -> None:
    unknown = next((node for node in nodes if node.op not in OPS), None)
    if unknown is not None:
        instead = INSTEAD.get(unknown.op, "ops of the list in docs/models-of-others.md")
        raise EdgeError(
            f"Op {unknown.name!r} ({unknown.op}) cannot be converted to TFLite here; use {instead} in its place, or let the model "
            "teach a student with distill."
        )


def refuse_float_only(module: ImportedModel) -> None:
    """Refuse what would stay float in an int8 graph.

    Raises:
        EdgeError: names the op and what to use in its place.
    """
    for node in module.nodes:
        if node.op in FLOAT_ONLY and not (node.op == "Pow" and _is_square(node)):
            raise EdgeError(
                f"Op {node.name!r} ({node.op}) has no int8 kernel; use {FLOAT_ONLY[node.op]} in its place, or let the model teach a "
                "student with distill."
            )


def run_apart(module: ImportedModel, example: Tensor) -> None:
    """Run a module op by op, so that what cannot be computed is named.

    Raises:
        EdgeError: names the op, and why.
    """
    values = module.values(example)
    for node in module.nodes:
        try:
            values.run(node)
        except Exception as error:
            raise EdgeError(
                f"Op {node.name!r} ({node.op}) cannot be converted to TFLite here ({one_line(error)}); use another form of it, or let "
                "the model teach a student with distill."
            ) from None


# The ops. Each takes its node and the node's inputs, and gives a tensor or a tuple of them.

Op = Callable[..., Any]


def _plain(function: Callable[..., Tensor]) -> Op:
    """An op that is a function of its inputs and of nothing else."""
    return lambda node, *given: function(*given)


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Op:
    """An op of any number of inputs, two by two."""

    def run(node: Node, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = function(first, other)
        return first

    return run


def _smaller(a: Tensor, b: Tensor) -> Tensor:
    return -1.0 * torch.maximum(-1.0 * a, -1.0 * b)  # the quantizer knows no MINIMUM


def _clip(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    least, most = node.given("min", 1), node.given("max", 2)
    if (least, most) == (0, 6):
        return functional.relu6(x)
    if least is not None:
        x = torch.relu(x) if least == 0 else torch.maximum(x, torch.tensor(float(least)))
    return x if most is None else _smaller(x, torch.tensor(float(most)))


def _softmax(function: Callable[..., Tensor]) -> Op:
    return lambda node, x: function(x, dim=node.attributes.get("axis", -1))


def _gelu(node: Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.attributes.get("approximate", "none"))


def _elu(node: Node, x: Tensor) -> Tensor:
    return functional.elu(x, node.attributes.get("alpha", 1.0))


def _leaky(node: Node, x: Tensor) -> Tensor:
    slope = node.attributes.get("alpha", 0.01)
    return torch.maximum(x, slope * x) if slope <= 1 else -1.0 * torch.maximum(-1.0 * x, -slope * x)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    six = functional.relu6(6.0 * node.attributes.get("alpha", 0.2) * x + 6.0 * node.attributes.get("beta", 0.5))
    return six * (1.0 / 6.0)


def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    above = torch.relu(x)
    return above + slope * (x - above)


def _is_square(node: Node) -> bool:
    return 1 in node.constants and bool(np.all(node.constants[1] == 2))


def _pow(node: Node, x: Tensor, power: Tensor) -> Tensor:
    return x * x if _is_square(node) else torch.pow(x, power)


def _cast(node: Node, x: Tensor) -> Tensor:
    if node.attributes["to"] not in (1, 10, 11):  # float, float16, double
        raise _UnfitError("it casts to integers")
    return x.float()


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.t() if node.attributes.get("transA", 0) else a
    weights = b if node.attributes.get("transB", 0) else b.t()
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    scaled = weights if alpha == 1.0 else alpha * weights
    bias = None if c is None else beta * c if beta != 1.0 else c
    if bias is not None and bias.dim() == 1:
        return functional.linear(a, scaled, bias)
    product = functional.linear(a, scaled)
    return product if bias is None else product + bias


def _matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return functional.linear(a, b.t()) if 1 in node.constants and b.dim() == 2 else torch.matmul(a, b)


def _pads(node: Node, lengths: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]) -> list[int]:  # fmt: skip
    """Padding before and after each axis, axes in order."""
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * 2 * len(kernel)
    if auto == "NOTSET":
        pads = node.attributes.get("pads", [0] * 2 * len(kernel))
        return [pads[at + side * len(kernel)] for at in range(len(kernel)) for side in (0, 1)]
    found = []
    for length, size, stride, dilation in zip(lengths, kernel, strides, dilations, strict=True):
        total = max((-(-length // stride) - 1) * stride + (size - 1) * dilation + 1 - length, 0)
        less, more = total // 2, total - total // 2
        found += [less, more] if auto == "SAME_UPPER" else [more, less]
    return found


def _padded(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Padding as torch counts it: from the last axis backwards."""
    if not any(pads):
        return x
    backwards = [pads[2 * at + side] for at in reversed(range(len(pads) // 2)) for side in (0, 1)]
    return functional.pad(x, backwards, value=value)


@dataclass(frozen=True)
class _Sliding:
    """How a kernel slides over an image of two axes."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]


def _sliding(node: Node, x: Tensor, kernel: Sequence[int]) -> _Sliding:
    axes = len(kernel)
    if x.dim() != 4:
        raise _UnfitError(f"it slides over {axes} axes; one or two can be converted")
    strides, dilations = (list(node.attributes.get(name, [1] * axes)) for name in ("strides", "dilations"))
    lengths = x.shape[-axes:]
    pads = _pads(node, lengths, kernel, strides, dilations)
    if node.attributes.get("ceil_mode", 0):
        pads = _to_ceiling(pads, lengths, kernel, strides)
    if axes == 1:
        return _Sliding([1, *kernel], [1, *strides], [1, *dilations], [0, 0, *pads])
    return _Sliding(list(kernel), strides, dilations, pads)


def _conv(node: Node, x: Tensor, weights: Tensor, bias: Tensor | None = None) -> Tensor:
    slides = _sliding(node, x, weights.shape[2:])
    kernel = weights.unsqueeze(2) if weights.dim() == 3 else weights
    padded, groups = _padded(x, slides.pads), node.attributes.get("group", 1)
    return functional.conv2d(padded, kernel, bias, slides.strides, 0, slides.dilations, groups)


def _pool(node: Node, x: Tensor) -> Tensor:
    slides = _sliding(node, x, node.attributes["kernel_shape"])
    if any(one != 1 for one in slides.dilations):
        raise _UnfitError("it has dilations")
    if node.op == "MaxPool":
        return functional.max_pool2d(_padded(x, slides.pads, -torch.inf), slides.kernel, slides.strides)
    mean = functional.avg_pool2d(_padded(x, slides.pads), slides.kernel, slides.strides)
    counted, rounded = node.attributes.get("count_include_pad", 0), node.attributes.get("ceil_mode", 0)
    if not any(slides.pads) or (counted and not rounded):
        return mean
    if counted:
        raise _UnfitError("it has ceil_mode and counts its padding")
    inside = functional.avg_pool2d(_padded(torch.ones_like(x[:1, :1]), slides.pads), slides.kernel, slides.strides)
    return mean * (1.0 / inside)


def _to_ceiling(pads: Sequence[int], lengths: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[int]:  # fmt: skip
    found = list(pads)
    for at, (length, size, stride) in enumerate(zip(lengths, kernel, strides, strict=True)):
        rest = (length + found[2 * at] + found[2 * at + 1] - size) % stride
        found[2 * at + 1] += stride - rest if rest else 0
    return found


def _global_mean(node: Node, x: Tensor) -> Tensor:
    return x.mean(dim=(2, 3), keepdim=True)


def _global_max(node: Node, x: Tensor) -> Tensor:
    return functional.max_pool2d(x, tuple(x.shape[2:]))


def _largest(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    """ReduceMax, which the quantizer does not know, by what it does: ReduceMin."""
    return -1.0 * _reduce(torch.amin)(node, -1.0 * x)


def _reduce(reduce: Callable[..., Tensor]) -> Op:
    def run(node: Node, x: Tensor, *_: Tensor) -> Tensor:
        axes = node.given("axes", 1)
        if not axes and node.attributes.get("noop_with_empty_axes", 0):
            return x
        return reduce(x, dim=tuple(axes or range(x.dim())), keepdim=bool(node.attributes.get("keepdims", 1)))

    return run


def _batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    gain = scale / torch.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    wide = (1, -1) + (1,) * (x.dim() - 2)
    return x * gain.reshape(wide) + (bias - mean * gain).reshape(wide)


def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = node.attributes.get("axis", -1) % x.dim()
    return functional.layer_norm(x, tuple(x.shape[axis:]), scale, bias, node.attributes.get("epsilon", 1e-5))


def _reshape(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    asked = node.given("shape", 1)
    kept = node.attributes.get("allowzero", 0)
    return x.reshape([x.shape[at] if length == 0 and not kept else length for at, length in enumerate(asked)])


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.attributes.get("axis", 1) % (x.dim() + 1)
    return x.flatten(1) if axis == 1 else x.reshape(int(np.prod(x.shape[:axis])), -1)


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(tuple(node.attributes.get("perm", reversed(range(x.dim())))))


def _squeeze(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    axes = node.given("axes", 1)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    axes = node.given("axes", 1)
    for axis in sorted(one % (x.dim() + len(axes)) for one in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    starts, ends = node.given("starts", 1), node.given("ends", 2)
    axes = node.given("axes", 3, list(range(len(starts))))
    steps = node.given("steps", 4, [1] * len(starts))
    index = [slice(None)] * x.dim()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise _UnfitError("it runs backwards")
        begin, stop, _ = slice(start, end).indices(x.shape[axis])
        index[axis] = slice(begin, max(begin, stop), step)
    return x[tuple(index)]


def _split(node: Node, x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    axis, sizes = node.attributes.get("axis", 0), node.given("split", 1)
    even = -(-x.shape[axis] // len(node.outputs))
    return torch.split(x, sizes or even, dim=axis)


def _gather(node: Node, x: Tensor, which: Tensor) -> Tensor:
    if 1 not in node.constants:
        raise _UnfitError("its indices are computed by the graph")
    axis, wanted = node.attributes.get("axis", 0), node.constants[1]
    at = (wanted % x.shape[axis]).tolist()
    if wanted.ndim == 0:  # a slice, which TFLite has in int8
        return x.select(axis, at)
    if wanted.ndim > 1:
        raise _UnfitError("its indices have several axes")
    return torch.cat([x.narrow(axis, one, 1) for one in at], dim=axis)


def _pad(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    axes_before = x.dim() - 1 if node.lifted else x.dim()
    if node.attributes.get("mode", "constant") != "constant":
        raise _UnfitError(f"its mode is {node.attributes['mode']}; pad with a constant")
    pads = node.given("pads", 1)
    axes = node.given("axes", 3, list(range(axes_before)))
    each = [[0, 0] for _ in range(axes_before)]
    for place, axis in enumerate(axes):
        each[axis % axes_before] = [pads[place], pads[place + len(axes)]]
    if min(map(min, each)) < 0:
        raise _UnfitError("it pads by less than nothing; use Slice")
    if node.lifted:
        each.insert(2, [0, 0])
    return _padded(x, [one for pair in each for one in pair], float(node.given("value", 2, 0.0) or 0.0))


def _expand(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    asked = node.given("shape", 1)
    lead = [1] * max(0, len(asked) - x.dim())
    x = x.reshape([*lead, *x.shape])
    asked = [1] * (x.dim() - len(asked)) + asked
    return x.expand([have if want == 1 else want for have, want in zip(x.shape, asked, strict=True)])


def _concat(node: Node, *given: Tensor) -> Tensor:
    axis = node.attributes["axis"]
    return torch.cat(given, dim=axis + 1 if node.lifted and axis == 2 else axis)


def _mean_of(node: Node, *given: Tensor) -> Tensor:
    return cast(Tensor, _folded(torch.add)(node, *given)) / len(given)


OPS: Mapping[str, Op] = {
    "Abs": lambda node, x: torch.maximum(x, -1.0 * x),
    "Add": _plain(torch.add),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "Div": _plain(torch.div),
    "Dropout": lambda node, x, *_: x,
    "Elu": _elu,
    "Exp": _plain(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_mean,
    "GlobalMaxPool": _global_max,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _plain(functional.hardswish),
    "Identity": lambda node, x: x,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky,
    "Log": _plain(torch.log),
    "LogSoftmax": _softmax(functional.log_softmax),
    "MatMul": _matmul,
    "Max": _folded(torch.maximum),
    "MaxPool": _pool,
    "Mean": _mean_of,
    "Min": _folded(_smaller),
    "Mul": _plain(torch.mul),
    "Neg": lambda node, x: -1.0 * x,
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _pow,
    "Reciprocal": _plain(torch.reciprocal),
    "ReduceMax": _largest,
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "Relu": _plain(torch.relu),
    "Reshape": _reshape,
    "Sigmoid": _plain(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax(functional.softmax),
    "Split": _split,
    "Sqrt": _plain(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _plain(torch.sub),
    "Sum": _folded(torch.add),
    "Tanh": _plain(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
"""ONNX op to what it is in torch."""

SPATIAL = frozenset({"AveragePool", "Conv", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"})
"""Ops that slide over a window: computed on images, whatever they are given."""

POINTWISE = frozenset(
    {
        "Abs", "Add", "BatchNormalization", "Clip", "Concat", "Div", "Dropout", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSwish",
        "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "Relu", "Sigmoid",
        "Sqrt", "Sub", "Sum", "Tanh",
    }
)  # fmt: skip
"""Ops that do the same to images of one row as to what these stand for, given that they know (`Node.lifted`)."""
