"""Opening whatever a user points at: a checkpoint, a quantized model, a bundle, a TFLite or an ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.export.running import Runtime
    from embridge_edge.features.chain import SignalChain
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.model.head import Head

    Index = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float32]

BUNDLED = "student_int8.tflite"
"""The file that stands for a bundle or a quantized model."""


@dataclass(frozen=True)
class OpenModel:
    """A model that can be run, with all that it carries.

    Attributes:
        name: its name in results (teacher, supervised, student, student_int8 …).
        path: file or folder. input_shape: `[steps, columns]`.
        embed: float32 `[n, steps, columns]` to float32 `[n, embedding]`.
        chain, gestures, heads, provenance: None or empty for a model of other make.
    """

    name: str
    path: Path
    input_shape: tuple[int, ...]
    embed: Callable[[Floats], Floats]
    chain: SignalChain | None
    gestures: tuple[str, ...]
    heads: tuple[Head, ...]
    provenance: Mapping[str, Any]

    @property
    def lacks(self) -> list[str]:
        """What must be there for the model to be judged on recordings, and is not."""
        parts = (
            ("signal chain", self.chain),
            ("gesture labels or pose head", self.heads),
            ("provenance", self.provenance),
        )
        return [name for name, part in parts if not part]


def open_model(path: Path) -> OpenModel:
    """Open a model by path.

    Raises:
        EdgeError: there is nothing, or it is no model.
    """
    if not path.exists():
        raise EdgeError(f"{path} does not exist; give a checkpoint folder, a bundle, a .tflite or an .onnx file.")
    if (path / "model.json").is_file():
        return _from_checkpoint(path)
    return _from_artifact(artifact_in(path))


def artifact_in(path: Path) -> Path:
    """The file that stands for a bundle or a quantized model; a file stands for itself.

    Raises:
        EdgeError: a folder without it.
    """
    if not path.is_dir():
        return path
    if not (path / BUNDLED).is_file():
        raise EdgeError(
            f"{path} is no checkpoint and no bundle (there is no {BUNDLED} in it); give what train, distill, quantize or deploy "
            "wrote, or a file."
        )
    return path / BUNDLED


def _from_checkpoint(path: Path) -> OpenModel:
    from embridge_edge.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    network = checkpoint.network()

    def embed(inputs: Floats) -> Floats:
        import numpy as np
        import torch

        with torch.inference_mode():
            return np.concatenate([network(part).numpy() for part in torch.split(torch.from_numpy(inputs), 2048)])

    return OpenModel(
        checkpoint.kind,
        path,
        checkpoint.chain.input_shape,
        embed,
        checkpoint.chain,
        checkpoint.gestures,
        checkpoint.heads,
        checkpoint.provenance,
    )


def _from_artifact(path: Path) -> OpenModel:
    from embridge_edge.export.reading import read_artifact
    from embridge_edge.export.running import run_onnx, run_tflite
    from embridge_edge.features.chain import SignalChain
    from embridge_edge.model.head import Head

    artifact = read_artifact(path)
    about = artifact.metadata or {}
    content = path.read_bytes()
    int8 = artifact.input_type == "int8" or "quantization" in about.get("provenance", {})

    runtime: Runtime = "litert-ref" if int8 and _for_a_microcontroller(about) else "litert"

    def embed(inputs: Floats) -> Floats:
        result = run_tflite(content, inputs, runtime) if artifact.kind == "tflite" else run_onnx(content, inputs)
        return result.reshape(len(inputs), -1)

    suffix = "" if artifact.kind == "tflite" and int8 else f"_{artifact.kind}"
    return OpenModel(
        name=f"{about.get('kind', 'model')}{'_int8' if int8 else ''}{suffix}",
        path=path,
        input_shape=artifact.input_shape[1:],
        embed=embed,
        chain=SignalChain.from_dict(about["chain"]) if "chain" in about else None,
        gestures=tuple(about.get("gestures", ())),
        heads=tuple(Head.from_dict(head) for head in about.get("heads", ())),
        provenance=about.get("provenance", {}),
    )


def _for_a_microcontroller(about: Mapping[str, Any]) -> bool:
    """Whether the target's runtime computes as LiteRT's reference kernels do; XNNPACK, which phones run, does not."""
    from embridge_edge.hardware.target import find_target

    try:
        return find_target(str(about["provenance"]["recipe"]["target"])).kind in ("mcu", "emulated", "npu")
    except (KeyError, EdgeError):
        return True


def embed_windows(
    model: OpenModel, windows: WindowSet, which: Index, progress: Progress = SILENT, label: str = ""
) -> Floats:
    """A model's embeddings of windows, float32 `[n, embedding]`, through the chain that it carries."""
    import numpy as np

    if model.chain is None:
        raise EdgeError(f"{model.path} carries no signal chain; export it from a checkpoint.")
    fitted, parts = windows.with_chain(model.chain), []
    with progress.bar(label or f"running {model.name}", len(which), "window") as advance:
        for part in np.array_split(which, max(1, len(which) // 4096)):
            parts.append(model.embed(fitted.inputs(part)))
            advance(len(part))
    return np.concatenate(parts)
