"""A foundation encoder on disk: `model.safetensors` and `model.json`, as every checkpoint; nothing is unpickled.

It is no `Checkpoint`: that one has the signal chain of one device and this encoder has none. What belongs to a device stands with each
of its sources and heads instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import folder_written_by_rename, read_json, sha256_of_file, write_json
from embridge_edge.errors import EdgeError
from embridge_edge.model.foundation_shape import FoundationShape
from embridge_edge.model.head import Head

if TYPE_CHECKING:
    from embridge_edge.model.foundation import FoundationEncoder

FORMAT = 1
KIND = "foundation"


@dataclass(frozen=True)
class Device:
    """What one source's recordings were made with, and what brings them to the encoder's scale.

    Attributes:
        gain: what samples in `unit` are multiplied with; None where the recipe has a running level (`scale_s`).
        hours: how much of it was seen in pre-training.
    """

    name: str
    channels: int
    rate_hz: float
    unit: str
    gain: float | None
    hours: float


@dataclass(frozen=True)
class FittedHead:
    """A head, and the device that it was fitted for: its rows fit every band, its decisions are about one."""

    device: Device
    head: Head


@dataclass(frozen=True)
class FoundationCheckpoint:
    """An encoder with all that is needed to run it on samples.

    Attributes:
        recipe: the `FoundationRecipe` as a table; its [signal] says how samples become windows.
        tensors: name to array, as in the network's state.
        sources: what it was pre-trained on. heads: fitted on its pooled output.
        sha256: of `model.safetensors`, once it has been written.
    """

    shape: FoundationShape
    recipe: Mapping[str, Any]
    tensors: Mapping[str, npt.NDArray[Any]]
    sources: tuple[Device, ...]
    heads: tuple[FittedHead, ...]
    provenance: Mapping[str, Any]
    sha256: str = ""

    def network(self) -> FoundationEncoder:
        """The encoder with its tensors, in evaluation mode.

        Raises:
            EdgeError: the tensors do not fit the shape.
        """
        import torch

        from embridge_edge.model.foundation import FoundationEncoder

        network = FoundationEncoder(self.shape)
        try:
            network.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in self.tensors.items()})
        except RuntimeError:
            raise EdgeError(
                "The checkpoint's tensors do not fit its shape; copy the folder again or pre-train it again."
            ) from None
        return network.eval()


def save_foundation(checkpoint: FoundationCheckpoint, folder: Path) -> None:
    """Write a checkpoint folder; it appears whole or not at all."""
    from safetensors.numpy import save_file

    with folder_written_by_rename(folder) as temporary:
        weights = temporary / "model.safetensors"
        save_file({name: np.array(array, order="C") for name, array in checkpoint.tensors.items()}, weights)
        about = {
            "format": FORMAT,
            "kind": KIND,
            "shape": checkpoint.shape.to_dict(),
            "recipe": dict(checkpoint.recipe),
            "sources": [asdict(source) for source in checkpoint.sources],
            "heads": [{"device": asdict(one.device), "head": one.head.to_dict()} for one in checkpoint.heads],
            "provenance": dict(checkpoint.provenance),
            "tensors_sha256": sha256_of_file(weights),
        }
        write_json(temporary / "model.json", about)


def load_foundation(folder: Path) -> FoundationCheckpoint:
    """Read a checkpoint folder.

    Raises:
        EdgeError: it is none, it is of another kind or format, or it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / "model.json").is_file():
        raise EdgeError(f"{folder} is no checkpoint (there is no model.json in it); give a folder that pretrain wrote.")
    about = read_json(folder / "model.json")
    if about.get("format") != FORMAT or about.get("kind") != KIND:
        raise EdgeError(
            f"{folder} has format {about.get('format')} and kind {about.get('kind')!r}, no {KIND} encoder of format {FORMAT}; "
            "give a folder that pretrain wrote."
        )
    weights = folder / "model.safetensors"
    if not weights.is_file() or sha256_of_file(weights) != about.get("tensors_sha256"):
        raise EdgeError(
            f"{weights} is missing or is not the file that was written with model.json; copy the folder again."
        )
    try:
        return FoundationCheckpoint(
            shape=FoundationShape.from_dict(about["shape"]),
            recipe=about["recipe"],
            tensors=load_file(weights),
            sources=tuple(_device(source) for source in about["sources"]),
            heads=tuple(FittedHead(_device(one["device"]), Head.from_dict(one["head"])) for one in about["heads"]),
            provenance=about["provenance"],
            sha256=about["tensors_sha256"],
        )
    except (SafetensorError, KeyError, TypeError, AttributeError) as error:
        raise EdgeError(f"{folder} is damaged ({error}); copy it again or pre-train it again.") from None


def _device(stored: Mapping[str, Any]) -> Device:
    return Device(**{item.name: stored[item.name] for item in fields(Device)})
