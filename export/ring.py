"""A ring student's graph cut in two: one that turns the newest frame into a token, one that reads the ring of tokens.

The cut goes through the file: both parts hold the whole's own weights, scales and zero points, so that token by token they compute what
the whole computes on a window, bit for bit.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compression.observers import Range
from embridge_edge.errors import EdgeError
from embridge_edge.export import metadata
from embridge_edge.export.flatbuffer import as_array, pack, unpack
from embridge_edge.export.readback import Asked, refuse_unless_sound
from embridge_edge.export.reading import Values, dequantize_values, quantize_values
from embridge_edge.export.running import Runtime, run_tflite
from embridge_edge.firmware_bridge.graph import Graph, macs, read_graph, ring_seam
from embridge_edge.firmware_bridge.schema import tflite_schema

TOKEN_FILE, READER_FILE = "token_int8.tflite", "reader_int8.tflite"
PART_FILES = (TOKEN_FILE, READER_FILE)
COMPARED_WINDOWS = 16
"""Windows on which the parts are held to the whole before they are written."""

_WITHIN_FRAMES = frozenset({"RESHAPE", "CONV_2D", "DEPTHWISE_CONV_2D", "PAD", "QUANTIZE"})
"""Ops that, with kernels of height one, take no value from one frame to another."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parts:
    """The two halves of a ring student, and how they are joined.

    Attributes:
        token: `.tflite`, a frame `[1, hop, columns]` to its token `[1, width]`.
        reader: `.tflite`, the tokens of a window `[1, frames, width]`, the oldest first, to the embedding `[1, D]`.
        frames, hop, width: tokens in the ring, time steps of a frame, values of a token.
        token_macs, reader_macs: multiply-accumulates of each. whole_macs: of the whole window at once.
    """

    token: bytes
    reader: bytes
    frames: int
    hop: int
    width: int
    token_macs: int
    reader_macs: int
    whole_macs: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a decision: one token, and the ring read."""
        return self.token_macs + self.reader_macs

    def files(self) -> dict[str, bytes]:
        """Both by their file names."""
        return {TOKEN_FILE: self.token, READER_FILE: self.reader}

    def text(self) -> str:
        """The cost of a decision in both forms."""
        return (
            f"{self.macs:,} MACs per decision: a token of {self.hop} steps {self.token_macs:,}, the reader of {self.frames} tokens "
            f"{self.reader_macs:,}; the whole window at once {self.whole_macs:,}"
        )

    def to_json(self) -> dict[str, int]:
        names = ("frames", "hop", "width", "token_macs", "reader_macs", "macs", "whole_macs")
        return {name: getattr(self, name) for name in names}


def is_ring(about: Mapping[str, Any] | None) -> bool:
    """Whether a model's metadata says that it is a whole ring student, which can be cut."""
    return bool(about and "ring" in about and about.get("kind") == "student")


def parts_of(model: bytes) -> Parts | None:
    """The parts of a `.tflite` whose metadata says that it is a ring student, with metadata of their own; None for any other.

    Raises:
        EdgeError: it says so and cannot be cut.
    """
    if not metadata.is_tflite(model):
        return None
    about = metadata.read(model)
    if about is None or not is_ring(about):
        return None
    parts = cut(model)
    said = about["ring"]
    if said != {"frames": parts.frames, "hop": parts.hop}:
        raise EdgeError(
            f"The model's metadata says {said} of its ring, its graph has {parts.frames} frames of {parts.hop} steps; export it again."
        )
    provenance = {**about.get("provenance", {}), "parents": [hashlib.sha256(model).hexdigest()]}

    def described(part: bytes, kind: str) -> bytes:
        return metadata.attach(part, {"kind": kind, "ring": said, "provenance": provenance})

    return replace(parts, token=described(parts.token, "token"), reader=described(parts.reader, "reader"))


def cut(model: bytes) -> Parts:
    """Cut a ring student's `.tflite` at the tokens, float or int8.

    Raises:
        EdgeError: the graph has no such place, or what comes before it is not frame by frame.
    """
    graph = read_graph(model)
    seam = _seam(graph)
    given, tokens = graph.tensors[graph.inputs[0]], graph.tensors[graph.ops[seam].inputs[0]]
    frames, width = tokens.shape[1], tokens.shape[3]
    hop = given.shape[1] // frames
    _refuse_unless_cuttable(graph, seam, frames)
    token, reader = unpack(model), unpack(model)
    _resize(token, graph, seam, frames, hop, width)
    _keep(token, graph, range(seam + 1), graph.inputs, graph.ops[seam].outputs, ("input", "token"))
    reader.subgraphs[0].tensors[tokens.index].shape = [1, frames, width]
    reader.subgraphs[0].tensors[tokens.index].shapeSignature = None
    _keep(reader, graph, range(seam, len(graph.ops)), (tokens.index,), graph.outputs, ("tokens", "embedding"))
    first, second = pack(token), pack(reader)
    return Parts(first, second, frames, hop, width, macs(read_graph(first)), macs(read_graph(second)), macs(graph))


def _seam(graph: Graph) -> int:
    """The op at the tokens."""
    seam = ring_seam(graph)
    if seam is None:
        raise EdgeError(
            "The graph has no ring of tokens at which it could be cut; convert a student of the family ring."
        )
    return seam.index


def _refuse_unless_cuttable(graph: Graph, seam: int, frames: int) -> None:
    given = graph.tensors[graph.inputs[0]]
    tokens = graph.tensors[graph.ops[seam].inputs[0]]
    if len(given.shape) != 3 or given.shape[1] % frames:
        raise EdgeError(f"A window {given.shape} is not {frames} whole frames; convert a student of the family ring.")
    if not tokens.is_float and tokens.type != "int8":
        raise EdgeError(
            f"The tokens ({tokens.name}) are {tokens.type}, and the ring holds int8; leave the layers before them out of wide."
        )
    before = graph.ops[:seam]
    written = {index for op in before for index in op.outputs} | set(graph.inputs)
    for op in before:
        data = [graph.tensors[index] for index in (*op.inputs, *op.outputs) if index >= 0]
        weights = [one for one in data[1:2] if one.is_constant and op.name.endswith("CONV_2D")]
        by_frame = all(one.is_constant or one.index in graph.inputs or one.shape[:2] == (1, frames) for one in data)
        if op.name not in _WITHIN_FRAMES or not by_frame or any(one.shape[1] != 1 for one in weights):
            raise EdgeError(
                f"{op.name} {graph.tensors[op.outputs[0]].name} does not go frame by frame, so that no token can be cut out; "
                "use a student of the family ring."
            )
    reading = {index for op in graph.ops[seam + 1 :] for index in op.inputs} & written
    if reading or set(graph.outputs) & written:
        raise EdgeError("The graph reads more of its frames than their tokens; use a student of the family ring.")


def _resize(model: Any, graph: Graph, seam: int, frames: int, hop: int, width: int) -> None:
    """Give the ops up to the seam one frame in the place of all."""
    tensors = model.subgraphs[0].tensors
    for index in {index for op in graph.ops[: seam + 1] for index in (*op.inputs, *op.outputs) if index >= 0}:
        tensor = graph.tensors[index]
        if tensor.is_constant:
            continue
        tensors[index].shape = [1, hop, *tensor.shape[2:]] if index in graph.inputs else [1, 1, *tensor.shape[2:]]
        tensors[index].shapeSignature = None
    tensors[graph.ops[seam].outputs[0]].shape = [1, width]
    schema = tflite_schema()
    for op in graph.ops[: seam + 1]:
        if op.name != "RESHAPE":
            continue
        shape = np.asarray(tensors[op.outputs[0]].shape, np.int32)
        changed = model.subgraphs[0].operators[op.index]
        if changed.builtinOptions is not None:
            changed.builtinOptions.newShape = shape
        if len(op.inputs) > 1:  # another tensor than before, since the reader's ops may share it
            told = copy.copy(tensors[op.inputs[1]])
            told.shape, told.shapeSignature, told.buffer = [len(shape)], None, len(model.buffers)
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = as_array(shape.astype("<i4").tobytes())
            changed.inputs = [changed.inputs[0], len(tensors)]
            tensors.append(told)


def _keep(
    model: Any, graph: Graph, ops: range, inputs: Sequence[int], outputs: Sequence[int], names: tuple[str, str]
) -> None:
    """Leave some ops of a model, with the tensors, buffers and kinds of ops that they need and no others."""
    subgraph = model.subgraphs[0]
    subgraph.operators = [subgraph.operators[index] for index in ops]
    wanted = [*inputs, *outputs, *(int(i) for op in subgraph.operators for i in (*op.inputs, *op.outputs) if i >= 0)]
    place = {index: at for at, index in enumerate(dict.fromkeys(wanted))}
    subgraph.tensors = [subgraph.tensors[index] for index in place]
    buffers = {index: at for at, index in enumerate(dict.fromkeys([0, *(one.buffer for one in subgraph.tensors)]))}
    model.buffers = [model.buffers[index] for index in buffers]
    for tensor in subgraph.tensors:
        tensor.buffer = buffers[tensor.buffer]
    kinds = {index: at for at, index in enumerate(dict.fromkeys(op.opcodeIndex for op in subgraph.operators))}
    model.operatorCodes = [model.operatorCodes[index] for index in kinds]
    for op in subgraph.operators:
        op.opcodeIndex = kinds[op.opcodeIndex]
        op.inputs, op.outputs = ([place.get(int(i), -1) for i in part] for part in (op.inputs, op.outputs))
    subgraph.inputs, subgraph.outputs = ([place[index] for index in part] for part in (inputs, outputs))
    for index, name in zip((inputs[0], outputs[0]), names, strict=True):
        subgraph.tensors[place[index]].name = name.encode()
    model.signatureDefs, model.metadata, model.metadataBuffer = [], [], None


def run_parts(parts: Parts, windows: Values, runtime: Runtime = "litert-ref") -> Values:
    """What token and reader make of windows, each of which brings all of its frames: as `run_tflite` with `raw` on the whole.

    Args:
        windows: `[n, T, columns]` in the model's own type.
    """
    frames = windows.reshape(len(windows) * parts.frames, parts.hop, -1)
    tokens = run_tflite(parts.token, frames, runtime, raw=True)
    return run_tflite(parts.reader, tokens.reshape(len(windows), parts.frames, parts.width), runtime, raw=True)


def refuse_unless_equal(model: bytes, parts: Parts, windows: Floats, ranges: Mapping[str, Range]) -> None:
    """Refuse parts that are not what was asked for, or that say something else than the whole on a window.

    Args:
        model: the int8 whole. windows: float32 `[n, T, C]`, for calibration. ranges: what activations were to hold, by name.

    Raises:
        EdgeError: says what differs.
    """
    graph = read_graph(model)
    given, seam = graph.tensors[graph.inputs[0]], graph.tensors[graph.ops[_seam(graph)].inputs[0]]
    embedding = graph.tensors[graph.outputs[0]].shape[1:]
    frames = windows.reshape(-1, parts.hop, windows.shape[2])
    integers = quantize_values(windows[:COMPARED_WINDOWS], given.scales[0], given.zero_points[0])
    tokens = run_tflite(
        parts.token, quantize_values(frames, given.scales[0], given.zero_points[0]), "litert-ref", raw=True
    )
    real = dequantize_values(tokens, seam.scales[0], seam.zero_points[0]).reshape(-1, parts.frames, parts.width)
    for name, part, inputs, output in (
        (TOKEN_FILE, parts.token, frames, (parts.width,)),
        (READER_FILE, parts.reader, real, embedding),
    ):
        named = {tensor.name for tensor in read_graph(part).tensors}
        known = {key: ends for key, ends in ranges.items() if key in named}
        refuse_unless_sound(name, part, Asked(inputs.shape[1:], output, int8=True, ranges=known), inputs)
    if not np.array_equal(run_parts(parts, integers), run_tflite(model, integers, "litert-ref", raw=True)):
        raise EdgeError("Token and reader say something else than the whole model; report this with the model.")
