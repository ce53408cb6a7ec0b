"""Mixed precision: which layers get 16-bit activations, as a curve of damage against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compression.observers import Range
from embridge_edge.errors import EdgeError
from embridge_edge.export.bias import corrected
from embridge_edge.export.quantizing import can_be_wide, layers_of, quantized, touching
from embridge_edge.export.running import run_tflite
from embridge_edge.export.sensitivity import Damage, Decide, damage_of
from embridge_edge.firmware_bridge.graph import peak_activation_bytes, read_graph
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import MixPlan

Floats = npt.NDArray[np.float32]

LEAST_GAIN = 0.02
"""A layer that takes less than this share off the damage is not worth its bytes: it is within what another seed changes."""


@dataclass(frozen=True)
class Mix:
    """One point of the curve.

    Attributes:
        wide: layers whose outputs have 16 bits, in the order in which they were taken.
        damage: against the float model. size_bytes: of the file. peak_bytes: activations alive at once.
        wide_macs: multiply-accumulates with a 16-bit operand, of `macs` in all.
    """

    wide: tuple[str, ...]
    damage: Damage
    size_bytes: int
    peak_bytes: int
    wide_macs: int
    macs: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Mix:
        """What `to_json` gave."""
        return cls(**{**stored, "wide": tuple(stored["wide"]), "damage": Damage(**stored["damage"])})


def mixes(
    float_model: bytes,
    ranges: Mapping[str, Range],
    windows: Floats,
    decide: Decide | None = None,
    *,
    plan: MixPlan | None = None,
    start: Sequence[str] = (),
    correct_on: Floats | None = None,
    progress: Progress = SILENT,
) -> list[Mix]:
    """Take layers to 16 bits one after the other, each time the one that helps most, as long as it helps and the plan allows it.

    Greedy, since layers are few and their errors nearly add up; every step tries all that are left.

    Args:
        ranges: of every activation. windows: float32 `[n, T, C]`, real ones that are not those of the ranges.
        decide: outputs to gestures. plan: limits; None takes the default one. start: layers that have 16 bits from the first.
        correct_on: windows whose means the biases keep, where the model is to be corrected so; None leaves biases alone.

    Returns: the curve, from `start` on.

    Raises:
        EdgeError: already `start` takes more than the plan allows.
    """
    plan = plan or MixPlan()
    exact = run_tflite(float_model, windows)
    graph = read_graph(float_model)
    layers = {name: op for name, op in layers_of(graph).items() if can_be_wide(graph, name)}

    macs = {graph.tensors[op.outputs[0]].name: op.macs for op in graph.ops}

    def mix(wide: tuple[str, ...]) -> Mix:
        model = quantized(float_model, ranges, wide=wide)
        if correct_on is not None:
            model = corrected(model, float_model, correct_on)
        return Mix(
            wide,
            damage_of(exact, run_tflite(model, windows, "litert-ref"), decide),
            len(model),
            peak_activation_bytes(read_graph(model)),
            sum(macs[name] for name in touching(graph, wide)),
            sum(macs.values()),
        )

    curve = [mix(tuple(start))]
    for name, most, cost in _limits(curve[0], plan):
        if most is not None and cost > most:
            raise EdgeError(
                f"{name} of [quantize.mix] is {most:,}, and the model takes {cost:,} before any layer is added; allow it as much, or "
                "give it a smaller student."
            )
    limit = min(plan.layers, len(layers))
    with progress.bar("mixed precision", limit, "layer") as advance:
        advance(len(curve[-1].wide))
        while len(curve[-1].wide) < limit:
            left = [name for name in layers if name not in curve[-1].wide]
            tried = [one for name in left if _allowed(one := mix((*curve[-1].wide, name)), plan)]
            best = min(tried, key=lambda one: one.damage.mean_removed_error, default=None)
            if best is None or best.damage.mean_removed_error > (1 - LEAST_GAIN) * curve[-1].damage.mean_removed_error:
                break
            curve.append(best)
            advance(1)
    return curve


def _limits(mix: Mix, plan: MixPlan) -> tuple[tuple[str, int | None, int], ...]:
    """Name, limit and cost of all that a plan can limit."""
    names = ("size_bytes", "peak_bytes", "wide_macs")
    return tuple((name, getattr(plan, name), getattr(mix, name)) for name in names)


def _allowed(mix: Mix, plan: MixPlan) -> bool:
    return all(most is None or cost <= most for _, most, cost in _limits(mix, plan))
