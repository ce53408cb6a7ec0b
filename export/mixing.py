"""Mixed precision: which layers get 16-bit activations, as a curve of damage against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compression.observers import Range
from embridge_edge.export.bias import corrected
from embridge_edge.export.quantizing import can_be_wide, layers_of, quantized, touching
from embridge_edge.export.running import run_tflite
from embridge_edge.export.sensitivity import Damage, Decide, damage_of
from embridge_edge.firmware_bridge.graph import peak_activation_bytes, read_graph
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import MixPlan

Floats = npt.NDArray[np.float32]


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

    Greedy, since layers are few and their errors nearly add up; every step tries all that are left. Where the start takes more than the
    plan allows, that is said, and nothing is added.

    Args:
        ranges: of every activation. windows: float32 `[n, T, C]`, real ones that are not those of the ranges.
        decide: outputs to gestures. plan: limits; None takes the default one. start: layers that have 16 bits from the first.
        correct_on: windows whose means the biases keep, where the model is to be corrected so. Layers are compared without that, which
            takes a run for each of them; every point of the curve is measured with it.

    Returns: the curve, from `start` on.
    """
    plan = plan or MixPlan()
    exact = run_tflite(float_model, windows)
    graph = read_graph(float_model)
    layers = {name: op for name, op in layers_of(graph).items() if can_be_wide(graph, name)}
    macs = {graph.tensors[op.outputs[0]].name: op.macs for op in graph.ops}

    def mix(wide: tuple[str, ...], correct_on: Floats | None = None) -> Mix:
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

    def as_written(found: Mix) -> Mix:
        return found if correct_on is None else mix(found.wide, correct_on)

    best = mix(tuple(start))
    curve = [as_written(best)]
    broken = _broken(best, plan)
    if broken:
        mend = "name fewer layers in wide" if start else "allow more, or take a smaller student"
        progress.say(f"warning: the search for 16-bit layers adds none, since at its start {broken}; {mend}.")
    with progress.bar("mixed precision", min(plan.layers, len(layers)), "layer") as advance:
        advance(len(best.wide))
        while not broken and len(best.wide) < plan.layers and best.damage.mean_removed_error > 0:
            left = [name for name in layers if name not in best.wide]
            tried = [one for name in left if not _broken(one := mix((*best.wide, name)), plan)]
            found = min(tried, key=lambda one: one.damage.mean_removed_error, default=None)
            if (
                found is None
                or found.damage.mean_removed_error > (1 - plan.least_gain) * best.damage.mean_removed_error
            ):
                break
            best = found
            curve.append(as_written(best))
            advance(1)
    return curve


def _broken(mix: Mix, plan: MixPlan) -> str:
    """The first limit of a plan that a mix goes beyond, in words; "" where it keeps to all."""
    for name, cost in (
        ("layers", len(mix.wide)),
        ("size_bytes", mix.size_bytes),
        ("peak_bytes", mix.peak_bytes),
        ("wide_macs", mix.wide_macs),
    ):
        most = getattr(plan, name)
        if most is not None and cost > most:
            return f"{name} is {cost:,}, and [quantize.mix] allows {most:,}"
    return ""
