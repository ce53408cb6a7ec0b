"""Rewriting a `.tflite`: weights inline and aligned, names that a reader understands."""

from __future__ import annotations

import struct
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.graph import IDENTIFIER, MACS, read_graph
from embridge_edge.firmware_bridge.schema import tflite_schema

ALIGNMENT = 16
ROLES = {1: "weights", 2: "bias"}

READER_ERRORS = (AttributeError, IndexError, OverflowError, TypeError, ValueError, struct.error)
"""What the schema's generated reader trips over in damaged bytes: offsets that lead outside (struct.error), lengths that are none
(ValueError, OverflowError), absent tables that it takes for granted (AttributeError, TypeError, IndexError)."""


def unpack(model: bytes) -> Any:
    """The model as the schema's mutable `ModelT`, with every buffer's bytes inline.

    Raises:
        EdgeError: the bytes are damaged or no TFLite model.
    """
    schema = tflite_schema()

    read_graph(model)  # Refuses what the generated reader would loop over or misread.
    try:
        unpacked = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    except READER_ERRORS:
        raise EdgeError("The TFLite model is truncated or damaged; export it again.") from None
    for buffer in unpacked.buffers:
        if buffer.offset > 1:
            buffer.data = as_array(model[buffer.offset : buffer.offset + buffer.size])
        buffer.offset = buffer.size = 0
    for subgraph in unpacked.subgraphs:
        for op in subgraph.operators or ():
            if op.largeCustomOptionsOffset > 1:
                raise EdgeError(
                    "The TFLite model keeps a custom op's options outside the flatbuffer; convert it without that op."
                )
    return unpacked


def as_array(data: bytes) -> Any:
    """The bytes as the array that the generated writer copies in one piece (a list it would write byte by byte)."""
    import numpy as np

    return np.frombuffer(data, dtype=np.uint8)


def pack(model: Any) -> bytes:
    """Write a `ModelT` with all weights inside the flatbuffer, each buffer at a multiple of 16 bytes.

    The schema asks for that alignment (`force_align: 16`), which the generated Python writer ignores; kernels that load
    16 bytes at once need it.
    """
    import flatbuffers

    model.buffers = [_AlignedBuffer(buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def repack_inline(model: bytes) -> bytes:
    """The same model with its weights inside the flatbuffer.

    ai-edge-quantizer stores the weights of models above 256 KiB behind the flatbuffer, at offsets. TensorFlow Lite
    Micro does not know these, runs without an error and returns garbage.

    Raises:
        EdgeError: the bytes are damaged or no TFLite model.
    """
    return pack(unpack(model))


def with_readable_names(model: bytes) -> bytes:
    """The same model with tensors named after their op: `03_conv_2d`, `03_conv_2d.weights`, `input`, `embedding`.

    The converter names them after Python classes (twenty to ninety characters each, with the defining module), so that
    the same weights give other bytes when a class moves. The names also match a float layer with its int8 one.
    """
    unpacked = unpack(model)
    graph = read_graph(model)
    names: dict[int, str] = {}
    for op in graph.ops:
        stem = f"{op.index:02d}_{op.name.lower().replace(':', '_')}"
        for position, index in enumerate(op.outputs):
            names.setdefault(index, stem if position == 0 else f"{stem}.{position}")
        for position, index in enumerate(op.inputs):
            if index >= 0 and graph.tensors[index].is_constant:
                role = ROLES.get(position, "constant") if op.name in MACS else f"constant{position}"
                names.setdefault(index, f"{stem}.{role}")
    for prefix, indices in (("input", graph.inputs), ("embedding", graph.outputs)):
        for position, index in enumerate(indices):
            names[index] = prefix if position == 0 else f"{prefix}.{position}"
    for index, tensor in enumerate(unpacked.subgraphs[0].tensors):
        tensor.name = names.get(index, f"unused.{index}").encode()
    return pack(unpacked)


class _AlignedBuffer:
    """Stands in for the schema's `BufferT` while it is written."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def Pack(self, builder: Any) -> Any:  # noqa: N802 - called by the generated writer
        schema = tflite_schema()

        vector = None
        if self.data is not None and len(self.data):
            content = bytes(self.data)
            builder.StartVector(1, len(content), ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            vector = builder.EndVector()
        schema.BufferStart(builder)
        if vector is not None:
            schema.BufferAddData(builder, vector)
        return schema.BufferEnd(builder)
