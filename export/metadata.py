"""One JSON object inside a model file: signal chain, labels, head, provenance. Who has the file has all of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embridge_edge.artifacts import canonical_json
from embridge_edge.errors import EdgeError
from embridge_edge.export.flatbuffer import READER_ERRORS, as_array, pack, unpack
from embridge_edge.firmware_bridge.graph import IDENTIFIER
from embridge_edge.firmware_bridge.schema import tflite_schema

TFLITE_NAME = b"EMBRIDGE_EDGE"
ONNX_KEY = "embridge_edge"


def attach(model: bytes, metadata: Mapping[str, Any]) -> bytes:
    """The model with `metadata` in it, in place of what it held before; weights stay inline and aligned.

    Args:
        model: bytes of a `.tflite` or `.onnx`.
        metadata: what JSON can hold, without NaN.

    Raises:
        EdgeError: the bytes are no model, or the metadata is no JSON.
    """
    try:
        text = canonical_json(dict(metadata))
    except (TypeError, ValueError) as error:
        raise EdgeError(f"The metadata is no JSON object ({error}); give numbers, texts, lists and objects.") from None
    return _into_tflite(model, text) if is_tflite(model) else _into_onnx(model, text)


def read(path: Path | bytes) -> dict[str, Any] | None:
    """The metadata of a `.tflite` or `.onnx`, or None where a model of other make carries none.

    Raises:
        EdgeError: the file is missing or damaged, or its metadata is no JSON object.
    """
    if isinstance(path, bytes):
        model, name = path, "The model"
    else:
        try:
            model, name = path.read_bytes(), str(path)
        except OSError as error:
            raise EdgeError(f"Cannot read {path}: {error.strerror}; name a .tflite or .onnx file.") from None
    text = _from_tflite(model) if is_tflite(model) else _from_onnx(model)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise EdgeError(f"{name} holds damaged metadata; export it again.")
    return value


def is_tflite(model: bytes) -> bool:
    """Whether the bytes say that they are a `.tflite`."""
    return model[4:8] == IDENTIFIER


def _into_tflite(model: bytes, text: str) -> bytes:
    schema = tflite_schema()

    unpacked = unpack(model)
    entries = list(unpacked.metadata or ())
    mine = next((entry for entry in entries if entry.name == TFLITE_NAME), None)
    if mine is None:
        mine = schema.MetadataT(name=TFLITE_NAME, buffer=len(unpacked.buffers))
        unpacked.buffers.append(schema.BufferT())
        entries.append(mine)
    unpacked.buffers[mine.buffer].data = as_array(text.encode())
    unpacked.metadata = entries
    return pack(unpacked)


def _from_tflite(model: bytes) -> bytes | None:
    schema = tflite_schema()

    try:
        root = schema.Model.GetRootAs(model)
        for entry in (root.Metadata(index) for index in range(root.MetadataLength())):
            if entry.Name() == TFLITE_NAME:
                return bytes(root.Buffers(entry.Buffer()).DataAsNumpy())
    except READER_ERRORS:
        raise EdgeError("The TFLite model is truncated or damaged; export it again.") from None
    return None


def _into_onnx(model: bytes, text: str) -> bytes:
    from embridge_edge.export.onnx import parsed

    proto = parsed(model)
    kept = [entry for entry in proto.metadata_props if entry.key != ONNX_KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    proto.metadata_props.add(key=ONNX_KEY, value=text)
    return bytes(proto.SerializeToString(deterministic=True))


def _from_onnx(model: bytes) -> str | None:
    from embridge_edge.export.onnx import parsed

    return next((entry.value for entry in parsed(model).metadata_props if entry.key == ONNX_KEY), None)
