"""Float ONNX of any make → a torch module, so that it takes the same way to TFLite as our own students.

ONNX Runtime does the first half: its basic passes fold constants, shapes that are known, BatchNorms and Dropout, and find LayerNorm and
GELU in what older exporters made of them. What is left are few kinds of ops, which `onnx_ops` has as functions of torch tensors.

Convolutions over time are computed as those over images of one row, `[batch, channels, 1, time]`, and what lies between them stays so:
the converter turns images to channels last by itself, but puts a TRANSPOSE before and behind each convolution over time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.export.onnx_ops import FLOAT_ONLY, INSTEAD, OPS, POINTWISE, SPATIAL, Array, Node, is_square
from embridge_edge.export.onnx_patterns import with_gelu
from embridge_edge.quiet import silenced

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

OPSET = 20
"""Where Gelu is an op: ONNX Runtime finds it and LayerNorm only in models of an opset that has them. onnx brings older models up."""

OLDEST_OPSET = 13
"""What is read as it is where onnx cannot bring it up; before it, Softmax meant something else."""

NOT_WANTED = ("MatMulAddFusion",)
"""Basic passes of ONNX Runtime that make a graph worse here: this one puts two RESHAPEs around every Linear of a Transformer."""


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
    nodes = with_gelu([_node(raw, constants) for raw in graph.node if raw.op_type != "Constant"], output)
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
        if node.op in FLOAT_ONLY and not (node.op == "Pow" and is_square(node)):
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
