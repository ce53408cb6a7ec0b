"""Models of others: an ONNX file and its description, which have to fit each other, run by ONNX Runtime as a teacher."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.features.chain import SignalChain
from embridge_edge.model.foreign import ForeignPlan, read_description

if TYPE_CHECKING:
    from onnx import ModelProto

Floats = npt.NDArray[np.float32]

BATCH = 256
"""Windows that ONNX Runtime is given together, where the model leaves its batch open."""

MOST_LISTED = 12


@dataclass(frozen=True)
class Port:
    """An input or output of a graph, or a tensor inside: its shape has None where an axis is free, and is None where it is unknown."""

    name: str
    shape: tuple[int | None, ...] | None
    type: str = "float32"

    def spelled(self) -> str:
        """Name and shape, for people."""
        if self.shape is None:
            return f"{self.name} (shape unknown)"
        return f"{self.name} [{', '.join('free' if length is None else str(length) for length in self.shape)}]"


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file with its weights.

    Attributes:
        sha256: of the file and of the files that hold its weights. inputs: those that need a value. outputs: of the graph.
        inner: tensors between ops, in order of execution, constants left out.
    """

    path: Path
    sha256: str
    proto: ModelProto = field(repr=False)
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    inner: tuple[Port, ...] = field(repr=False)


@dataclass(frozen=True)
class ForeignModel:
    """A model of others with its description, which fit each other."""

    file: OnnxFile
    plan: ForeignPlan

    @property
    def provenance(self) -> dict[str, Any]:
        """What an artifact made from it says of it."""
        return {"file": self.file.path.name, "sha256": self.file.sha256, "description": self.plan.to_dict()}

    @property
    def batch(self) -> int | None:
        """How many windows it takes at once; None for any number."""
        return self.port.shape[0] if self.port.shape else None

    @property
    def port(self) -> Port:
        """The input that takes windows."""
        return next(port for port in self.file.inputs if port.name == self.plan.input.name)

    def refuse_other_shape(self, chain: SignalChain) -> None:
        """Check that windows of a chain are what the input takes.

        Raises:
            EdgeError: says both shapes.
        """
        wanted, port = self.plan.input.shape(chain), self.port
        if port.shape is None:
            return
        rest = zip(port.shape[1:], wanted[1:], strict=False)
        if len(port.shape) != len(wanted) or any(mine not in (None, its) for mine, its in rest):
            raise EdgeError(
                f"{self.file.path} takes {port.spelled()}, but layout {list(self.plan.input.layout)} and the chain "
                f"({chain.steps} steps of {chain.columns} columns) give {list(wanted)}; correct layout, [chain] or [signal]."
            )

    def arranged(self, windows: Floats, chain: SignalChain) -> Floats:
        """Windows `[n, steps, columns]` as the input takes them."""
        return windows.transpose(self.plan.input.order).reshape(-1, *self.plan.input.shape(chain)[1:])


def open_foreign(path: Path, description: Path) -> ForeignModel:
    """Open an ONNX file and its description, and check that one names what the other has.

    Raises:
        EdgeError: a file is missing or damaged, or a name is not in the graph; the nearest ones are listed.
    """
    plan, file = read_description(description), read_onnx(path)
    inputs = {port.name: port for port in file.inputs}
    if plan.input.name not in inputs:
        raise EdgeError(
            f"{path} has no input {plan.input.name!r}; name one of {listed(inputs)} in [input] of {description}."
        )
    others = [name for name in inputs if name != plan.input.name]
    if others:
        raise EdgeError(f"{path} needs {', '.join(others)} besides the EMG; export it with those as constants.")
    if inputs[plan.input.name].type != "float32":
        raise EdgeError(f"{path} takes {inputs[plan.input.name].type} in {plan.input.name}; export it with float32.")
    known = [port.name for port in (*file.outputs, *file.inner)]
    for role, name in plan.outputs.named.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 3, 0.5)
            outputs = listed([port.name for port in file.outputs])
            instead = f"perhaps {listed(near)}" if near else "embridge-edge describe lists the tensors inside"
            raise EdgeError(
                f"{path} has no tensor {name!r}, which {description} names as {role}; its outputs are {outputs}; {instead}."
            )
    return ForeignModel(file, plan)


def read_onnx(path: Path) -> OnnxFile:
    """Read an ONNX file with weights that may lie beside it.

    Raises:
        EdgeError: it is missing or damaged, or a file of weights is.
    """
    from embridge_edge.export.onnx import parsed

    try:
        content = path.read_bytes()
    except OSError as error:
        raise EdgeError(f"Cannot read {path}: {error.strerror}; name an .onnx file.") from None
    damaged = EdgeError(f"{path} is no ONNX model, or is truncated; export it again.")
    try:
        proto = parsed(content)
    except EdgeError:
        raise damaged from None
    if not proto.opset_import:  # stands behind the graph
        raise damaged
    digest = hashlib.sha256(content)
    for name in _load_weights(proto, path):
        digest.update((path.parent / name).read_bytes())
    _refuse_broken_weights(proto, path)
    own = {one.name for one in proto.graph.initializer}
    return OnnxFile(
        path=path,
        sha256=digest.hexdigest(),
        proto=proto,
        inputs=tuple(_port(value) for value in proto.graph.input if value.name not in own),
        outputs=tuple(_port(value) for value in proto.graph.output),
        inner=_inner(proto),
    )


def _load_weights(proto: ModelProto, path: Path) -> list[str]:
    """Bring in weights that lie in files of their own; their names.

    Raises:
        EdgeError: a file is missing, too short, or elsewhere than beside the model.
    """
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    names = sorted({ExternalDataInfo(one).location for one in proto.graph.initializer if uses_external_data(one)})
    for name in names:
        if not (path.parent / name).is_file():
            raise EdgeError(f"{path} keeps weights in {name}, which is not beside it; copy both files.")
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:
        raise EdgeError(
            f"{path} keeps weights in files that cannot be read ({one_line(error)}); copy them again."
        ) from None
    return names


def _refuse_broken_weights(proto: ModelProto, path: Path) -> None:
    """Refuse weights that are fewer than their shape says, and NaN: ONNX Runtime computes with it, and an argmax hides it."""
    from onnx import numpy_helper

    constants = [node for node in proto.graph.node if node.op_type == "Constant"]
    held = [value.t for node in constants for value in node.attribute if value.HasField("t")]
    for one in (*proto.graph.initializer, *held):
        try:
            values = numpy_helper.to_array(one)
        except Exception:
            raise EdgeError(
                f"{path} holds fewer weights in {one.name!r} than their shape {list(one.dims)} says; copy the model and what lies beside "
                "it again."
            ) from None
        if values.dtype.kind == "f" and np.isnan(values).any():
            raise EdgeError(
                f"{path} has NaN in its weights {one.name!r}; export a checkpoint from before its training broke."
            )


def _port(value: Any) -> Port:
    import onnx

    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    shape = None
    if tensor.HasField("shape"):
        shape = tuple(
            axis.dim_value if axis.dim_value > 0 else None for axis in tensor.shape.dim
        )  # some write -1 for free
    return Port(value.name, shape, {"float": "float32"}.get(kind, kind))


def _inner(proto: ModelProto) -> tuple[Port, ...]:
    import onnx

    try:
        shaped = onnx.shape_inference.infer_shapes(proto).graph.value_info
    except Exception:  # shapes are for people here, and a graph without them runs as well
        shaped = []
    known = {value.name: _port(value) for value in shaped}
    ends = {value.name for value in proto.graph.output}
    written = [name for node in proto.graph.node if node.op_type != "Constant" for name in node.output]
    return tuple(known.get(name, Port(name, None)) for name in written if name and name not in ends)


def listed(names: Any) -> str:
    found = list(names)
    return ", ".join(found[:MOST_LISTED]) + (" …" if len(found) > MOST_LISTED else "")


def teaching(model: ForeignModel, chain: SignalChain, roles: tuple[str, ...]) -> Callable[[Floats], dict[str, Floats]]:
    """What a model says of windows, by role, computed by ONNX Runtime.

    Args:
        chain: whose windows are given, with the model's own normalisation. roles: "embedding", "tokens", "scores".

    Returns: a function of float32 `[n, steps, columns]`; it gives embeddings `[n, width]`, tokens `[n, tokens, width]` and scores
        `[n, gestures]`, as logits where the graph has them before a softmax at its end.

    Raises:
        EdgeError: here, a shape that does not fit; then, an output of another shape, or that is not finite.
    """
    model.refuse_other_shape(chain)
    tensors = {role: before_softmax(model.file.proto, name) if role == "scores" else name
               for role, name in model.plan.outputs.named.items() if role in roles}  # fmt: skip
    session = session_of(with_outputs(model.file.proto, list(tensors.values())))
    name, gestures = model.plan.input.name, len(model.plan.outputs.gestures)

    def say(windows: Floats) -> dict[str, Floats]:
        arranged, parts = model.arranged(windows, chain), []
        size = model.batch or BATCH
        for start in range(0, len(arranged), size):
            part = arranged[start : start + size]
            short = model.batch - len(part) if model.batch else 0
            fed = np.concatenate([part, np.repeat(part[-1:], short, axis=0)]) if short else part
            try:
                found = session.run(list(tensors.values()), {name: np.ascontiguousarray(fed)})
            except Exception as error:
                raise EdgeError(
                    f"ONNX Runtime cannot run {model.file.path} on windows of {list(fed.shape)} ({one_line(error)}); correct the "
                    "description, or export the model again."
                ) from None
            parts.append([np.asarray(each, np.float32)[: len(part)] for each in found])
        said = {role: np.concatenate([part[at] for part in parts]) for at, role in enumerate(tensors)}
        return {role: _checked(model, role, values, len(windows), gestures, windows) for role, values in said.items()}

    return say


def _checked(model: ForeignModel, role: str, values: Floats, count: int, gestures: int, windows: Floats) -> Floats:
    tensor = model.plan.outputs.named[role]
    if len(values) != count:
        raise EdgeError(f"{tensor} gives {list(values.shape)} for {count} windows; export the model with a batch axis.")
    if role == "tokens" and values.ndim != 3:
        raise EdgeError(
            f"{tensor} gives {list(values.shape)}, tokens are [batch, tokens, width]; name it as embedding."
        )
    flat = values if role == "tokens" else values.reshape(count, -1)
    if role == "scores" and flat.shape[1] != gestures:
        raise EdgeError(f"{tensor} gives {flat.shape[1]} scores, [outputs] names {gestures} gestures; name each once.")
    if not np.isfinite(flat).all():
        raise EdgeError(
            f"{model.file.path} gives NaN or infinity in {tensor} for windows between {windows.min():.3g} and {windows.max():.3g}; "
            "check [normalisation] and the unit."
        )
    return flat


def before_softmax(proto: ModelProto, name: str) -> str:
    """What a softmax is given, where one writes the tensor: the decisions are the same, and int8 keeps more of them apart."""
    for node in proto.graph.node:
        if name in node.output and node.op_type in ("Softmax", "LogSoftmax"):
            return str(node.input[0])
    return name


def with_outputs(proto: ModelProto, names: list[str]) -> ModelProto:
    """The model with other outputs, which may be any tensors of its graph."""
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    del changed.graph.output[:]
    changed.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in dict.fromkeys(names)
    )
    return changed


def session_of(proto: ModelProto) -> Any:
    """ONNX Runtime with a model."""
    from embridge_edge.export.running import onnx_session

    return onnx_session(proto.SerializeToString())
