"""`export`: a student checkpoint or a quantized model to TFLite and ONNX files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from embridge_edge.artifacts import folder_written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, refuse_existing, show
from embridge_edge.verbs.workspace import refuse_around

if TYPE_CHECKING:
    from embridge_edge.compression.observers import Range
    from embridge_edge.export.support import OpSupport
    from embridge_edge.recipe import Recipe

Converter = Literal["litert-torch", "onnx2tf"]


@dataclass(frozen=True)
class ExportReport:
    """The files that were written, and their sizes in bytes.

    Attributes:
        ops: of each file, on which runtimes its ops run.
    """

    folder: Path
    files: dict[str, int]
    ops: dict[str, tuple[OpSupport, ...]]

    def text(self) -> str:
        """The files; of their ops those of the smallest one, what a microcontroller runs, that do not run everywhere as they are."""
        lines = [f"{self.folder / name}  {size:,} bytes" for name, size in self.files.items()]
        smallest = next((name for name in ("student_int8.tflite", "student.tflite") if name in self.ops), None)
        told = [one for one in self.ops.get(smallest or "", ()) if one.status == "lacks"]
        return "\n".join([*lines, *(f"  {smallest}: {one.text()}" for one in told)])

    def to_json(self) -> dict[str, Any]:
        ops = {name: [one.to_json() for one in found] for name, found in self.ops.items()}
        return {
            "folder": str(self.folder),
            "files": [{"path": name, "bytes": size, "ops": ops[name]} for name, size in self.files.items()],
        }


def export(
    model: Path,
    out: Path,
    *,
    converter: Converter = "litert-torch",
    force: bool = False,
    seed: int = 0,
    progress: Progress = SILENT,
) -> ExportReport:
    """Write a model as TFLite and ONNX, with chain, labels and heads inside each file.

    Args:
        model: a student checkpoint (float files), or the folder that quantize wrote (int8 files as well).
        out: folder for the files.
        converter: what makes the TFLite files. "onnx2tf" is a second opinion, to be compared with the first by check: it makes them
            from the ONNX file with TensorFlow, in an environment of its own that is made when it is first asked for.
        seed: taken for uniformity with the other verbs; nothing here is random.

    Raises:
        EdgeError: neither of both, or a conversion that fails or whose result differs from the original.
    """
    from embridge_edge.export.support import op_support

    refuse_existing(out, force, ("*.tflite", "*.onnx"))
    refuse_around(out, model)
    files = exported_files(model, converter, progress)
    with folder_written_by_rename(out) as temporary:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
    ops = {name: op_support(content) for name, content in files.items()}
    return ExportReport(out, {name: len(content) for name, content in files.items()}, ops)


def exported_files(
    model: Path, converter: Converter = "litert-torch", progress: Progress = SILENT, recipe: Recipe | None = None
) -> dict[str, bytes]:
    """The files that a student checkpoint or a quantized model becomes, by name; each has been read back.

    Args:
        recipe: what the files say that they were made by, and for which target, in the place of what the model says: parts of it
            that the model does not depend on may have changed since.

    Raises:
        EdgeError: it is neither, it cannot be converted, or a file is not what it was to be.
    """
    files = _files(model, recipe) if converter == "litert-torch" else _files_by_onnx2tf(model, progress)
    _refuse_unsound(model, files, ours=converter == "litert-torch")
    return files


def _files(model: Path, recipe: Recipe | None = None) -> dict[str, bytes]:
    from embridge_edge.compression.folding import folded
    from embridge_edge.export import metadata
    from embridge_edge.export.onnx import quantize_onnx, to_onnx
    from embridge_edge.export.quantized import load_quantized
    from embridge_edge.export.ring import parts_of
    from embridge_edge.export.tflite import to_tflite
    from embridge_edge.model.checkpoint import load_checkpoint

    if (model / "quantized.json").is_file():
        quantized = load_quantized(model)
        made = {
            "student.tflite": quantized.float32,
            "student_int8.tflite": quantized.int8,
            "student.onnx": quantized.onnx,
        }
        if any(metadata.read(content) is None for content in made.values()):
            raise EdgeError(f"{model} holds no signal chain; run quantize again.")
        if recipe is not None:
            made = {
                name: metadata.attach(content, under(metadata.read(content), recipe)) for name, content in made.items()
            }
        about = metadata.read(made["student_int8.tflite"]) or {}
        like = (made["student.tflite"], made["student_int8.tflite"])
        parts = parts_of(made["student_int8.tflite"])
        qdq = quantize_onnx(
            made["student.onnx"], quantized.calibration, seven_bit_weights=not _for_arm(about), like=like
        )
        return {**made, "student_int8.onnx": metadata.attach(qdq, about), **({} if parts is None else parts.files())}
    if not (model / "model.json").is_file():
        raise EdgeError(
            f"{model} is neither a checkpoint nor a quantized model; give a folder that distill or quantize wrote."
        )
    checkpoint = load_checkpoint(model)
    network, shape, about = folded(checkpoint), (1, *checkpoint.chain.input_shape), checkpoint.child_metadata()
    return {
        "student.tflite": metadata.attach(to_tflite(network, shape), about),
        "student.onnx": metadata.attach(to_onnx(network, shape), about),
    }


def under(about: Mapping[str, Any] | None, recipe: Recipe) -> dict[str, Any]:
    """Metadata of an artifact, with a recipe as that which it was made by."""
    found = dict(about or {})
    stamp = {"recipe": recipe.to_dict(), "recipe_sha256": recipe.sha256}
    return {**found, "provenance": {**found.get("provenance", {}), **stamp}}


def _for_arm(about: Mapping[str, Any]) -> bool:
    """Whether ONNX Runtime runs on an ARM core there: a phone or a small board, where weights in eight bits do not saturate."""
    from embridge_edge.hardware.target import find_target

    try:
        return find_target(str(about["provenance"]["recipe"]["target"])).kind in ("phone", "linux")
    except (KeyError, EdgeError):
        return False


def _files_by_onnx2tf(model: Path, progress: Progress) -> dict[str, bytes]:
    """The same files, with onnx2tf's in the place of the TFLite ones.

    Raises:
        EdgeError: the model has layers in 16 bits, which onnx2tf cannot single out, or it cannot be converted.
    """
    from embridge_edge.export import metadata
    from embridge_edge.export.onnx2tf import convert_onnx, converter_name
    from embridge_edge.export.quantized import load_quantized
    from embridge_edge.export.ring import PART_FILES

    calibration = None
    if (model / "quantized.json").is_file():
        quantized = load_quantized(model)
        calibration = quantized.calibration
        asked = (metadata.read(quantized.int8) or {}).get("provenance", {}).get("quantization", {})
        if asked.get("wide"):
            raise EdgeError(
                f"{model} has layers in 16 bits ({', '.join(asked['wide'])}), which onnx2tf cannot single out; quantize without "
                "wide to compare converters."
            )
    files = {
        name: content for name, content in _files(model).items() if name not in PART_FILES
    }  # those are cut from our own

    def with_metadata(made: bytes, ours: bytes, quantization: dict[str, Any] | None = None) -> bytes:
        about = metadata.read(ours)
        assert about is not None  # noqa: S101 (_files attached it)
        about.pop("ring", None)  # whether its graph can be cut is not known
        provenance = {**about["provenance"], "converter": converter_name()}
        if quantization is not None:
            provenance["quantization"] = quantization
        return metadata.attach(made, {**about, "provenance": provenance})

    made = convert_onnx(files["student.onnx"], calibration, progress=progress)
    files["student.tflite"] = with_metadata(made.float32, files["student.tflite"])
    if made.int8 is not None and calibration is not None:
        how = {"scheme": "static int8", "observer": "minmax", "windows": len(calibration)}
        files["student_int8.tflite"] = with_metadata(made.int8, files["student_int8.tflite"], how)
    return files


def _refuse_unsound(model: Path, files: dict[str, bytes], *, ours: bool) -> None:
    """Read every file back before one is written: its ends as the chain and the heads want them, its insides as they must be.

    Args:
        ours: whether the int8 file has the ranges that `quantize` kept; another converter takes its own.
    """
    import numpy as np

    from embridge_edge.export import metadata
    from embridge_edge.export.quantized import load_quantized
    from embridge_edge.export.quantizing import layers_named
    from embridge_edge.export.readback import Asked, refuse_unless_sound
    from embridge_edge.export.ring import PART_FILES, TOKEN_FILE, parts_of, refuse_unless_equal
    from embridge_edge.features.chain import SignalChain
    from embridge_edge.firmware_bridge.graph import read_graph

    graph = read_graph(files["student.tflite"])
    about = metadata.read(files["student.tflite"]) or {}
    given = SignalChain.from_dict(about["chain"]).input_shape
    taken = graph.tensors[graph.outputs[0]].shape[1:]
    if about["heads"]:
        taken = (len(about["heads"][0]["rows"][0]),)
    windows = np.random.default_rng(0).standard_normal((16, *given)).astype(np.float32)
    wide: tuple[str, ...] = ()
    ranges: Mapping[str, Range] = {}
    if (model / "quantized.json").is_file():
        kept = load_quantized(model)
        windows, ranges = kept.calibration, kept.ranges if ours else {}
        quantization = (metadata.read(files["student_int8.tflite"]) or {})["provenance"]["quantization"]
        wide = layers_named(graph, quantization.get("wide", ()))
    if TOKEN_FILE in files and (parts := parts_of(files["student_int8.tflite"])) is not None:
        refuse_unless_equal(files["student_int8.tflite"], parts, windows, ranges)
    for name, content in files.items():
        if name in PART_FILES:
            continue
        int8 = name.startswith("student_int8")
        tflite = int8 and metadata.is_tflite(content)
        asked = Asked(given, taken, int8, wide if tflite else (), ranges if tflite else {})
        refuse_unless_sound(name, content, asked, windows)


@click.command("export")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the files.")
@click.option(
    "--converter",
    type=click.Choice(get_args(Converter)),
    default="litert-torch",
    show_default=True,
    help="What makes the TFLite files; onnx2tf brings TensorFlow into an environment of its own, once.",
)
@common_options
def command(model: Path, out: Path, converter: Converter, common: Common) -> None:
    """Write MODEL, a student checkpoint or what quantize wrote, as TFLite and ONNX."""
    report = export(model, out, converter=converter, force=common.force, seed=common.seed, progress=common.progress)
    show(report, common)
