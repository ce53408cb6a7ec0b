"""Which layer int8 hurts: each one quantized alone, and each one left float in a model that is quantized otherwise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compression.observers import Range
from embridge_edge.export.quantizing import can_be_wide, layers_of, quantized
from embridge_edge.export.running import run_tflite
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.progress import SILENT, Progress

Floats = npt.NDArray[np.float32]
Decide = Callable[[Floats], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Damage:
    """What quantizing costs at the model's output, over some windows.

    Attributes:
        mean_removed_error: RMS of the difference over RMS of the float output, each without its mean over windows.
        snr_db: energy of the float output over that of the difference.
        class_flips: share of windows that are decided differently; None where nothing decides.
    """

    mean_removed_error: float
    snr_db: float
    class_flips: float | None


@dataclass(frozen=True)
class LayerDamage:
    """One layer.

    Attributes:
        name: of the tensor that it writes. op: its kind. macs: its multiply-accumulates. weight_bytes: of its int8 constants.
        alone: when only it is quantized. without: when all others are, and it stays float. wide: when its output has 16 bits
            and all others 8; None where that cannot be.
    """

    name: str
    op: str
    macs: int
    weight_bytes: int
    alone: Damage
    without: Damage
    wide: Damage | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Sensitivity:
    """All layers, the one whose absence helps most first; the model with all of them quantized; which have 16 bits throughout."""

    whole: Damage
    layers: tuple[LayerDamage, ...]
    wide: tuple[str, ...] = ()

    @property
    def advice(self) -> str | None:
        """The recipe line that mends most of the damage; None where no layer's 16 bits mend a tenth of it."""
        best = min((one for one in self.layers if one.wide), key=lambda one: _error(one.wide), default=None)
        if best is None or _error(best.wide) > 0.9 * self.whole.mean_removed_error:
            return None
        named = ", ".join(f'"{name}"' for name in (*self.wide, best.name))
        return f"[quantize] wide = [{named}]"

    def to_json(self) -> dict[str, Any]:
        return {"whole": asdict(self.whole), "layers": [one.to_json() for one in self.layers], "advice": self.advice}


def _error(damage: Damage | None) -> float:
    return np.inf if damage is None else damage.mean_removed_error


def sensitivity(
    float_model: bytes,
    ranges: Mapping[str, Range],
    windows: Floats,
    decide: Decide | None = None,
    *,
    wide: Iterable[str] = (),
    progress: Progress = SILENT,
) -> Sensitivity:
    """Quantize each layer alone and all but each, and rank them.

    Args:
        float_model: from `to_tflite`. ranges: of every activation (`export.ranges.ranges_of`).
        windows: float32 `[n, T, C]`, some hundred real ones that are not those of the ranges.
        decide: outputs `[n, values]` to the gesture of each window. wide: layers whose outputs have 16 bits throughout.
    """
    exact = run_tflite(float_model, windows)
    already = tuple(wide)

    def damage(**how: Any) -> Damage:
        model = quantized(float_model, ranges, **how)
        return damage_of(exact, run_tflite(model, windows, "litert-ref"), decide)

    graph = read_graph(float_model)
    layers = layers_of(graph)
    found = []
    with progress.bar("sensitivity", len(layers), "layer") as advance:
        for name, op in layers.items():
            operands = [graph.tensors[index] for index in op.inputs[:2]]  # a bias is the third, and int32
            constants = [tensor for tensor in operands if tensor.is_constant]
            weights = sum(tensor.elements for tensor in constants)
            found.append(
                LayerDamage(
                    name,
                    op.name,
                    op.macs,
                    weights,
                    alone=damage(only=[name], wide=[name] if name in already else ()),
                    without=damage(wide=already, left_float=[name]),
                    wide=damage(wide=[*already, name]) if can_be_wide(graph, name) else None,
                )
            )
            advance(1)
    ranked = sorted(found, key=lambda one: one.without.mean_removed_error)
    return Sensitivity(damage(wide=already), tuple(ranked), already)


def damage_of(exact: Floats, got: Floats, decide: Decide | None = None) -> Damage:
    """How far one model's outputs are from another's, `[n, …]` each."""
    truth, other = (values.reshape(len(values), -1).astype(np.float64) for values in (exact, got))
    difference = other - truth
    centred, shifted = truth - truth.mean(axis=0), difference - difference.mean(axis=0)
    energy = np.square(difference).sum()
    return Damage(
        mean_removed_error=float(np.sqrt(np.square(shifted).sum() / max(np.square(centred).sum(), 1e-30))),
        snr_db=float(10.0 * np.log10(np.square(truth).sum() / max(energy, 1e-30))),
        class_flips=None if decide is None else float(np.mean(decide(exact) != decide(got))),
    )
