"""ONNX ops as functions of torch tensors, written with those that the quantizer knows: max(x, a·x) for LeakyRelu, say, which has no int8
kernel there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Array = npt.NDArray[Any]

INSTEAD: Mapping[str, str] = {
    "Attention": "opset 20 or an earlier one, where the exporter spells it out,",
    "Erf": "Gelu",
    "GRU": "convolutions with dilation (a TCN)",
    "LSTM": "convolutions with dilation (a TCN)",
    "Reciprocal": "a factor (Mul), or Softmax where it normalises",
    "RMSNormalization": "LayerNormalization, or opset 20, where the exporter spells it out,",
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
            raise UnfitError(f"its {key} are computed by the graph")
        return default


class UnfitError(Exception):
    """An op of the table in a form that it does not have there."""


Op = Callable[..., Any]
"""Takes its node and the node's inputs, and gives a tensor or a tuple of them."""


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


def _div(node: Node, x: Tensor, by: Tensor) -> Tensor:
    if 0 in node.constants:  # behind a convolution litert-torch 0.10 makes conv(x) / c of c / conv(x)
        raise UnfitError("it divides a constant by a tensor")
    return x / by


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


def is_square(node: Node) -> bool:
    return 1 in node.constants and bool(np.all(node.constants[1] == 2))


def _pow(node: Node, x: Tensor, power: Tensor) -> Tensor:
    return x * x if is_square(node) else torch.pow(x, power)


def _cast(node: Node, x: Tensor) -> Tensor:
    if node.attributes["to"] not in (1, 10, 11):  # float, float16, double
        raise UnfitError("it casts to integers")
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


def _edged(x: Tensor, pads: Sequence[int]) -> Tensor:
    """Padding with what is at the edge, which changes no maximum over a window that reaches it; int8 has no −∞ to pad with."""
    for at in range(len(pads) // 2):
        axis = x.dim() - len(pads) // 2 + at
        first, last = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        if pads[2 * at] or pads[2 * at + 1]:
            x = torch.cat([first] * pads[2 * at] + [x] + [last] * pads[2 * at + 1], dim=axis)
    return x


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
        raise UnfitError(f"it slides over {axes} axes; one or two can be converted")
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
        raise UnfitError("it has dilations")
    if node.op == "MaxPool":
        return functional.max_pool2d(_edged(x, slides.pads), slides.kernel, slides.strides)
    mean = functional.avg_pool2d(_padded(x, slides.pads), slides.kernel, slides.strides)
    counted, rounded = node.attributes.get("count_include_pad", 0), node.attributes.get("ceil_mode", 0)
    if not any(slides.pads) or (counted and not rounded):
        return mean
    if counted:
        raise UnfitError("it has ceil_mode and counts its padding")
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
    return -1.0 * cast(Tensor, _reduce(torch.amin)(node, -1.0 * x))


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
    axes: tuple[int, ...] = tuple(node.attributes.get("perm", reversed(range(x.dim()))))
    return x.permute(axes)


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
    index: list[Any] = [slice(None)] * x.dim()
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step < 1:
            raise UnfitError("it runs backwards")
        first, stop, _stride = slice(start, end).indices(x.shape[axis])
        index[axis] = slice(first, max(first, stop), step)
    return x[tuple(index)]


def _split(node: Node, x: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
    axis: int = node.attributes.get("axis", 0)
    parts, at = [], 0
    for size in node.given("split", 1) or _evenly(x.shape[axis], len(node.outputs)):
        parts.append(x.narrow(axis, at, size))
        at += size
    return tuple(parts)


def _evenly(length: int, parts: int) -> list[int]:
    most = -(-length // parts)
    return [min(most, length - at) for at in range(0, length, most)]


def _gather(node: Node, x: Tensor, which: Tensor) -> Tensor:
    if 1 not in node.constants:
        raise UnfitError("its indices are computed by the graph")
    axis, wanted = node.attributes.get("axis", 0), node.constants[1]
    at = (wanted % x.shape[axis]).tolist()
    if wanted.ndim == 0:  # a slice, which TFLite has in int8
        return x.select(axis, at)
    if wanted.ndim > 1:
        raise UnfitError("its indices have several axes")
    return torch.cat([x.narrow(axis, one, 1) for one in at], dim=axis)


def _pad(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    axes_before = x.dim() - 1 if node.lifted else x.dim()
    if node.attributes.get("mode", "constant") != "constant":
        raise UnfitError(f"its mode is {node.attributes['mode']}; pad with a constant")
    pads = node.given("pads", 1)
    axes = node.given("axes", 3, list(range(axes_before)))
    each = [[0, 0] for _ in range(axes_before)]
    for place, axis in enumerate(axes):
        each[axis % axes_before] = [pads[place], pads[place + len(axes)]]
    if min(map(min, each)) < 0:
        raise UnfitError("it pads by less than nothing; use Slice")
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
    axis = node.attributes["axis"] % (given[0].dim() - node.lifted)
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
    "Div": _div,
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
        "Identity", "LeakyRelu", "Log", "Max", "Mean", "Min", "Mul", "Neg", "PRelu", "Pad", "Pow", "Relu", "Sigmoid", "Sqrt",
        "Sub", "Sum", "Tanh",
    }
)  # fmt: skip
"""Ops that do the same to images of one row as to what these stand for, given that they know (`Node.lifted`)."""
