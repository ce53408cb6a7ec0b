"""The quantized model: a student checkpoint and calibration windows become a float and an int8 graph, kept together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import folder_written_by_rename, read_json, write_json
from embridge_edge.compression.equalising import equalised
from embridge_edge.compression.folding import folded
from embridge_edge.compression.observers import Range
from embridge_edge.errors import EdgeError
from embridge_edge.export import metadata
from embridge_edge.export.mixing import Mix, mixes
from embridge_edge.export.onnx import to_onnx
from embridge_edge.export.quantizing import layers_named, quantize_tflite
from embridge_edge.export.ranges import observed, ranges_in, ranges_of
from embridge_edge.export.readback import Asked, refuse_unless_sound
from embridge_edge.export.ring import PART_FILES, Parts, parts_of, refuse_unless_equal
from embridge_edge.export.sensitivity import Decide
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.model.checkpoint import Checkpoint
from embridge_edge.model.student import Student
from embridge_edge.model.students import AnyStudent
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import QuantizePlan

if TYPE_CHECKING:
    from torch import nn

Floats = npt.NDArray[np.float32]
Tune = Callable[["nn.Module", AnyStudent], object]
"""Trains a student with rounding in it, which is given with the student that it was made from (`learning.rounding.tune_rounded`)."""


@dataclass(frozen=True)
class QuantizedModel:
    """A student in int8, its float twin, and what the ranges came from.

    Attributes:
        int8, float32: TFLite models with chain, labels and heads inside; the float one holds the weights that int8 rounds, which are
            the trained ones where it was trained with rounding.
        onnx: the float ONNX model, likewise.
        calibration: float32 `[n, steps, columns]`, the windows that set the ranges, already through the chain.
        coverage: what those windows cover (`calibration.selection.Coverage.to_json`).
        ranges: what each int8 activation holds, by name: `export` reads the file back against them.
        mixing: the curve of the search for layers with 16 bits, whose last point this model is; empty where nothing was searched.
    """

    int8: bytes
    float32: bytes
    onnx: bytes
    calibration: Floats
    coverage: Mapping[str, Any]
    ranges: Mapping[str, Range]
    mixing: tuple[Mix, ...] = ()

    @property
    def wide(self) -> tuple[str, ...]:
        """Layers whose outputs have 16 bits."""
        about = metadata.read(self.int8) or {}
        asked = about.get("provenance", {}).get("quantization", {}).get("wide", ())
        return layers_named(read_graph(self.float32), asked)

    @property
    def parts(self) -> Parts | None:
        """Token and reader of a ring student; None for any other."""
        return parts_of(self.int8)


@dataclass(frozen=True)
class Search:
    """On what a mix is searched: windows, float32 `[n, steps, columns]`, as the network takes them, and what decides."""

    windows: Floats
    decide: Decide | None = None
    progress: Progress = SILENT


def quantize_student(
    student: Checkpoint,
    calibration: Floats,
    coverage: Mapping[str, Any],
    plan: QuantizePlan,
    tune: Tune | None = None,
    search: Search | None = None,
) -> QuantizedModel:
    """Quantize weights per channel and activations per tensor to int8, int8 at both ends.

    Args:
        calibration: float32 `[n, steps, columns]`, inputs of the network.
        tune: what trains the student with rounding, for a plan with `qat`. search: for a plan with `mix`.
    """
    network, shape = _network(student, calibration, plan), (1, *student.chain.input_shape)
    about = student.child_metadata()
    if tune is None:
        return quantize_module(network, shape, about, calibration, coverage, plan, search=search)
    from embridge_edge.compression.qat import fake_quantized
    from embridge_edge.export.qat import carried, placed, start_corrected

    bare = to_tflite(network, shape)
    fake = fake_quantized(network, calibration)
    ranges = ranges_of(bare, observed(bare, calibration), plan)
    placement = placed(fake, ranges, calibration, bare)
    if plan.bias_correction:
        start_corrected(fake, placement, ranges, calibration, bare)
    tune(fake.network, network)
    network = fake.trained()
    made = carried(fake, placement, calibration)
    return _kept(network, shape, made.int8, made.float32, about, calibration, coverage, plan)


def plain_int8(student: Checkpoint, calibration: Floats, plan: QuantizePlan) -> bytes:
    """The int8 `.tflite` that `quantize_student` makes without training: bare, and for comparison alone, since nothing reads it back."""
    network = _network(student, calibration, plan)
    return quantize_tflite(to_tflite(network, (1, *student.chain.input_shape)), calibration, plan)


def _network(student: Checkpoint, calibration: Floats, plan: QuantizePlan) -> AnyStudent:
    network = folded(student)
    if not plan.equalise:
        return network
    import torch

    if not isinstance(network, Student):
        raise EdgeError(
            "equalise evens out the blocks of a convolutional student, and this one is of another family; leave it out of [quantize]."
        )
    return equalised(network, torch.from_numpy(calibration))


def quantize_module(
    network: nn.Module,
    shape: Sequence[int],
    about: Mapping[str, Any],
    calibration: Floats,
    coverage: Mapping[str, Any],
    plan: QuantizePlan,
    *,
    bare: bytes | None = None,
    most_transposes: int = 1,
    search: Search | None = None,
) -> QuantizedModel:
    """As `quantize_student`, for any module.

    Args:
        shape: of its input with a batch of one. about: metadata, with "provenance", for all files.
        bare: the module as float `.tflite`, where it was converted before. most_transposes: TRANSPOSE ops that the graph may hold.
    """
    bare = to_tflite(network, shape) if bare is None else bare
    curve: list[Mix] = []
    if search is not None and plan.mix is not None:
        ranges = ranges_of(bare, observed(bare, calibration), plan)
        start = layers_named(read_graph(bare), plan.wide)
        correct_on = calibration if plan.bias_correction else None
        curve = mixes(
            bare, ranges, search.windows, search.decide,
            plan=plan.mix, start=start, correct_on=correct_on, progress=search.progress,
        )  # fmt: skip
        plan = replace(plan, wide=curve[-1].wide)
    int8 = quantize_tflite(bare, calibration, plan, most_transposes=most_transposes)
    made = _kept(network, shape, int8, bare, about, calibration, coverage, plan)
    return replace(made, mixing=tuple(curve))


def _kept(
    network: nn.Module,
    shape: Sequence[int],
    int8: bytes,
    bare: bytes,
    about: Mapping[str, Any],
    calibration: Floats,
    coverage: Mapping[str, Any],
    plan: QuantizePlan,
) -> QuantizedModel:
    provenance = dict(about["provenance"]) | {
        "quantization": {"scheme": "static int8", **asdict(plan), "windows": len(calibration)}
    }
    ends = (tuple(shape[1:]), tuple(read_graph(bare).tensors[read_graph(bare).outputs[0]].shape[1:]))
    model = QuantizedModel(
        int8=metadata.attach(int8, {**about, "provenance": provenance}),
        float32=metadata.attach(bare, about),
        onnx=metadata.attach(to_onnx(network, shape), about),
        calibration=calibration,
        coverage=coverage,
        ranges=ranges_in(int8),
    )
    refuse_unless_sound("The int8 model", model.int8, Asked(*ends, int8=True, ranges=model.ranges), calibration)
    for name, content in (("The float TFLite model", model.float32), ("The ONNX model", model.onnx)):
        refuse_unless_sound(name, content, Asked(*ends, int8=False), calibration)
    if (parts := model.parts) is not None:
        refuse_unless_equal(model.int8, parts, calibration, model.ranges)
    return model


QUANTIZED_FILES = (
    "student_int8.tflite", "student.tflite", "student.onnx", "calibration.safetensors", "quantized.json", *PART_FILES,
)  # fmt: skip


def save_quantized(model: QuantizedModel, folder: Path) -> None:
    """Write the models, a ring student's parts, `calibration.safetensors` and `quantized.json` into a folder; whole or not at all."""
    from safetensors.numpy import save_file

    with folder_written_by_rename(folder) as temporary:
        (temporary / "student_int8.tflite").write_bytes(model.int8)
        (temporary / "student.tflite").write_bytes(model.float32)
        (temporary / "student.onnx").write_bytes(model.onnx)
        for name, content in ({} if (parts := model.parts) is None else parts.files()).items():
            (temporary / name).write_bytes(content)
        save_file({"windows": np.ascontiguousarray(model.calibration)}, temporary / "calibration.safetensors")
        about = {
            "coverage": dict(model.coverage),
            "ranges": {name: list(ends) for name, ends in model.ranges.items()},
            "mixing": [mix.to_json() for mix in model.mixing],
        }
        write_json(temporary / "quantized.json", about)


def load_quantized(folder: Path) -> QuantizedModel:
    """Read what `save_quantized` wrote.

    Raises:
        EdgeError: a file is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        about = read_json(folder / "quantized.json")
        return QuantizedModel(
            int8=(folder / "student_int8.tflite").read_bytes(),
            float32=(folder / "student.tflite").read_bytes(),
            onnx=(folder / "student.onnx").read_bytes(),
            calibration=load_file(folder / "calibration.safetensors")["windows"],
            coverage=about["coverage"],
            ranges={name: (ends[0], ends[1]) for name, ends in about["ranges"].items()},
            mixing=tuple(Mix.from_json(one) for one in about.get("mixing", ())),
        )
    except (FileNotFoundError, KeyError, SafetensorError) as error:
        raise EdgeError(f"{folder} is no quantized model ({error}); run quantize again.") from None
