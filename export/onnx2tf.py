"""ONNX → TFLite by onnx2tf and TensorFlow, a second opinion beside litert-torch: run as a process in an environment of its own."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.export.agreement import LARGEST_CONVERSION_ERROR, conversion_error
from embridge_edge.export.environments import Environment, interpreter_of
from embridge_edge.export.flatbuffer import with_readable_names
from embridge_edge.export.onnx import parsed
from embridge_edge.export.running import run_onnx, run_tflite
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.progress import SILENT, Progress

Floats = npt.NDArray[np.float32]

INSTEAD = "export without --converter onnx2tf"
COMPARED_WINDOWS = 16
TERMINAL_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Converted:
    """What the second converter made.

    Attributes:
        float32: `.tflite`. int8: `.tflite` with int8 at both ends; None where there was nothing to calibrate with.
        converter: its name and version.
    """

    float32: bytes
    int8: bytes | None
    converter: str


@functools.cache
def converter_environment() -> Environment:
    """onnx2tf with TensorFlow, as `constraints-tensorflow.txt` pins them; tflite-runtime is there to be compared with."""
    text = files("embridge_edge.export").joinpath("constraints-tensorflow.txt").read_text(encoding="utf-8")
    return Environment(
        name="onnx2tf",
        title="the TensorFlow converter's environment",
        packages=("onnx2tf", "tensorflow", "tf-keras", "tflite-runtime"),
        constraints="".join(line for line in text.splitlines(keepends=True) if not line.startswith("#")),
        python=(3, 11),
        proof="import onnx2tf, tensorflow",
        room_mib=4096,  # 2.6 GiB when made; pip unpacks beside its downloads meanwhile
    )


def converter_name() -> str:
    """The converter and its pinned version, as provenance names it."""
    pinned = re.search(r"^onnx2tf==(\S+)$", converter_environment().constraints, re.MULTILINE)
    assert pinned is not None  # noqa: S101 - a test reads the file
    return f"onnx2tf {pinned[1]}"


def convert_onnx(onnx: bytes, calibration: Floats | None = None, *, progress: Progress = SILENT) -> Converted:
    """Convert float ONNX to TFLite with onnx2tf, in its own environment, which is made where it is not there yet.

    TensorFlow's quantizer takes min-max ranges of the calibration windows; weights get a scale per channel. Tensors are named as
    `to_tflite` names them.

    Args:
        onnx: one input `[batch, T, C]`, one output. calibration: float32 `[n, T, C]`; None makes the float file alone.

    Raises:
        EdgeError: the environment cannot be made, the converter fails, or what it made computes something else.
    """
    shape = _shape(parsed(onnx))
    if calibration is not None and (calibration.ndim != len(shape) or calibration.shape[1:] != shape[1:]):
        raise EdgeError(
            f"Calibration windows are {calibration.shape[1:]}, but the model takes {shape[1:]}; use the model's signal chain."
        )
    python = interpreter_of(converter_environment(), progress)
    with tempfile.TemporaryDirectory(prefix="onnx2tf.") as folder:
        made = _run(python, Path(folder), onnx, calibration, progress)
    windows = np.random.default_rng(0).standard_normal((COMPARED_WINDOWS, *shape[1:])).astype(np.float32)
    windows = windows if calibration is None else calibration[:: -(-len(calibration) // COMPARED_WINDOWS)]
    _refuse_other_numbers(onnx, made.float32, windows)
    return made


def _shape(proto: Any) -> tuple[int, ...]:
    if len(proto.graph.input) != 1 or len(proto.graph.output) != 1:
        raise EdgeError("The ONNX model has several inputs or outputs; only one of each is converted here.")
    return tuple(axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim)


def _run(python: Path, folder: Path, onnx: bytes, calibration: Floats | None, progress: Progress) -> Converted:
    name = parsed(onnx).graph.input[0].name
    (folder / "model.onnx").write_bytes(_of_one_window(onnx))
    # -kat: the input keeps its axes. -nuo: with its optimiser, onnx2tf takes the window's time axis for channels and fails.
    command = [str(python), "-m", "onnx2tf", "-i", "model.onnx", "-o", "made", "-kat", name, "-nuo", "-n"]
    if calibration is not None:
        np.save(folder / "windows.npy", np.ascontiguousarray(calibration, np.float32))
        neither_shifted_nor_scaled = [
            f"{'[' * calibration.ndim}{value}{']' * calibration.ndim}" for value in ("0.0", "1.0")
        ]
        command += ["-oiqt", "-qt", "per-channel", "-iqd", "int8", "-oqd", "int8"]
        command += ["-cind", name, "windows.npy", *neither_shifted_nor_scaled]
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONNOUSERSITE": "1"}
    progress.say("converting with onnx2tf")
    done = subprocess.run(
        command, cwd=folder, env=kept | quiet, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        said = _reason((done.stdout + b"\n" + done.stderr).decode("utf-8", "replace"), done.returncode)
        raise EdgeError(f"onnx2tf cannot convert this model ({said}); {INSTEAD}.")
    return Converted(
        _made(folder / "made" / "model_float32.tflite"),
        None if calibration is None else _made(folder / "made" / "model_full_integer_quant.tflite"),
        converter_name(),
    )


def _of_one_window(onnx: bytes) -> bytes:
    """The same model for one window at a time: TFLite's graphs have a fixed batch of one."""
    proto = parsed(onnx)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 1
    del proto.graph.value_info[:]  # says otherwise
    return bytes(proto.SerializeToString(deterministic=True))


def _made(path: Path) -> bytes:
    if not path.is_file():
        raise EdgeError(f"onnx2tf ended well and made no {path.name}; {INSTEAD}.")
    model = with_readable_names(path.read_bytes())
    foreign = sorted({op.name.removeprefix("CUSTOM:") for op in read_graph(model).ops if op.name.startswith("CUSTOM:")})
    if foreign:
        raise EdgeError(f"onnx2tf left ops that no TFLite runtime has ({', '.join(foreign)}); {INSTEAD}.")
    return model


def _reason(text: str, status: int) -> str:
    """Of all that the converter says, the exception: its own lines that begin with ERROR are advice for every case."""
    lines = [line.strip() for line in TERMINAL_COLOURS.sub("", text).splitlines() if line.strip()]
    at = next((place for place, line in enumerate(lines) if re.match(r"[\w.]*(?:Error|Exception)\b:", line)), None)
    if at is None:
        return one_line(EdgeError(lines[-1] if lines else f"it ended with status {status}"))
    # Keras puts what happened below the line that says where.
    said = lines[at + 1] if lines[at].endswith(").") and at + 1 < len(lines) else lines[at]
    where = next((line for line in lines if line.startswith("ERROR: onnx_op_name:")), "").removeprefix(
        "ERROR: onnx_op_name: "
    )
    return one_line(EdgeError(f"{f'at {where}: ' if where else ''}{said}"))


def _refuse_other_numbers(onnx: bytes, made: bytes, windows: Floats) -> None:
    error = conversion_error(run_onnx(onnx, windows), run_tflite(made, windows))
    if not error <= LARGEST_CONVERSION_ERROR:
        raise EdgeError(
            f"What onnx2tf made differs from the ONNX model by {error:.1e} of its largest output (allowed "
            f"{LARGEST_CONVERSION_ERROR:.0e}); {INSTEAD}."
        )
