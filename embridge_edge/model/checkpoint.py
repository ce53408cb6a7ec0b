"""A checkpoint is a folder: `model.safetensors` holds the tensors, `model.json` everything else. Nothing is unpickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import folder_written_by_rename, read_json, sha256_of_file, write_json
from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import SignalChain
from embridge_edge.model.head import Head

if TYPE_CHECKING:
    from torch import nn

FORMATS: Mapping[str, int] = {"teacher": 2, "supervised": 2, "student": 1}
"""Kinds of checkpoints, and what their tensors mean. Teachers of format 1 had a patch stem that leaned to the front: the same tensors
compute something else today."""
CHECKPOINT_FILES = ("model.json", "model.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """A network with all that is needed to run it on samples.

    Attributes:
        kind: "teacher", "supervised" (the teacher's network trained on labels alone) or "student".
        shape: arguments of the network's shape class.
        tensors: name to array, as in the network's state.
        chain: signal chain with fitted normalisation.
        gestures: names, in the order of the training labels.
        heads: by kind ("linear", "poses", "regression"); the first is the one that ships.
        provenance: recipe, its hash, hash of the parents, seed, tool versions.
        sha256: of `model.safetensors`, once it has been written; what was made from it names that as its parent.
    """

    kind: str
    shape: Mapping[str, Any]
    tensors: Mapping[str, npt.NDArray[Any]]
    chain: SignalChain
    gestures: tuple[str, ...]
    heads: tuple[Head, ...]
    provenance: Mapping[str, Any]
    sha256: str = ""

    def metadata(self) -> dict[str, Any]:
        """What travels inside an exported artifact: chain, labels, heads and provenance."""
        return {
            "format": FORMATS[self.kind],
            "kind": self.kind,
            "chain": self.chain.to_dict(),
            "gestures": list(self.gestures),
            "heads": [head.to_dict() for head in self.heads],
            "provenance": dict(self.provenance),
        }

    def child_metadata(self) -> dict[str, Any]:
        """`metadata` for a file made from this checkpoint, which becomes its parent."""
        about = self.metadata()
        if self.shape.get("family") == "ring":
            about["ring"] = {"frames": self.shape["steps"] // self.shape["hop"], "hop": self.shape["hop"]}
        return {**about, "provenance": {**about["provenance"], "parents": [self.sha256]}}

    def network(self) -> nn.Module:
        """The network with its tensors, in evaluation mode.

        Raises:
            EdgeError: the tensors do not fit the shape.
        """
        import torch

        network = new_network(self.kind, self.shape)
        state = {name: torch.from_numpy(np.array(array)) for name, array in self.tensors.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        found = {name: tuple(tensor.shape) for name, tensor in state.items()}
        if expected != found:
            wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))[0]
            raise EdgeError(
                f"The checkpoint holds another architecture: {wrong} is {found.get(wrong, 'missing')}, "
                f"{expected.get(wrong, 'nothing')} expected; train it again."
            )
        network.load_state_dict(state)
        return network.eval()


def new_network(kind: str, shape: Mapping[str, Any]) -> nn.Module:
    """A fresh network of a kind and shape."""
    if kind == "student":
        from embridge_edge.model.students import new_student, shape_of

        return new_student(shape_of(shape))
    from embridge_edge.model.teacher import Teacher, TeacherShape

    return Teacher(TeacherShape.from_dict(shape))


def tensors_of(network: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """A network's state as arrays, for a `Checkpoint`."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint folder; it appears whole or not at all."""
    from safetensors.numpy import save_file

    with folder_written_by_rename(folder) as temporary:
        save_file(
            {name: np.array(array, order="C") for name, array in checkpoint.tensors.items()},
            temporary / "model.safetensors",
        )
        about = checkpoint.metadata() | {
            "shape": dict(checkpoint.shape),
            "tensors_sha256": sha256_of_file(temporary / "model.safetensors"),
        }
        write_json(temporary / "model.json", about)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint folder.

    Raises:
        EdgeError: it is none, it is damaged, or it was written by a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / "model.json").is_file():
        raise EdgeError(
            f"{folder} is no checkpoint (there is no model.json in it); give a folder that train or distill wrote."
        )
    about = read_json(folder / "model.json")
    kind = str(about.get("kind"))
    if kind not in FORMATS or about.get("format") != FORMATS[kind]:
        read = ", ".join(f"{name} of format {number}" for name, number in FORMATS.items())
        raise EdgeError(
            f"{folder} has format {about.get('format')} and kind {kind!r}; this version reads {read}: train it again."
        )
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_of_file(weights) != about.get("tensors_sha256"):
        raise EdgeError(
            f"{weights} is missing or is not the file that was written with model.json; copy the folder again."
        )
    try:
        tensors = load_file(weights)
        return Checkpoint(
            kind=about["kind"],
            shape=about["shape"],
            tensors=tensors,
            chain=SignalChain.from_dict(about["chain"]),
            gestures=tuple(about["gestures"]),
            heads=tuple(Head.from_dict(head) for head in about["heads"]),
            provenance=about["provenance"],
            sha256=about["tensors_sha256"],
        )
    except (SafetensorError, KeyError, TypeError) as error:
        raise EdgeError(f"{folder} is damaged ({error}); copy it again or train it again.") from None
