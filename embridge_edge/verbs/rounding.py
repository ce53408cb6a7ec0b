"""A student in float, quantized as it is, and trained with rounding: what each says on the same windows, beside each other."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from embridge_edge.errors import EdgeError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.export.quantized import QuantizedModel
    from embridge_edge.export.sensitivity import Damage, Decide
    from embridge_edge.features.chain import SignalChain
    from embridge_edge.learning.windows import WindowSet
    from embridge_edge.model.checkpoint import Checkpoint
    from embridge_edge.model.head import Head
    from embridge_edge.recipe import QuantizePlan, Recipe

    Floats = npt.NDArray[np.float32]
    Index = npt.NDArray[np.int64]


class Deployed(Protocol):
    """What decides about gestures: a checkpoint, or a model of others."""

    @property
    def chain(self) -> SignalChain:
        """Signal chain with normalisation."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """What turns an embedding into a gesture."""


@dataclass(frozen=True)
class Form:
    """One form of a student.

    Attributes:
        name: of `report.words.FORMS`.
        damage: against the float student that was given, over `windows` windows.
        balanced_accuracy: mean over wearers, of the windows with a gesture that was trained on; None where there is none, or no labels.
    """

    name: str
    windows: int
    damage: Damage
    balanced_accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "windows": self.windows,
            **asdict(self.damage),
            "balanced_accuracy": self.balanced_accuracy,
        }


def refuse_without_nncf(recipe: Recipe) -> None:
    """Say before anything is trained that a recipe's training with rounding cannot be done here.

    Raises:
        EdgeError: NNCF is not installed, and the recipe has [quantize.qat].
    """
    if recipe.quantize.qat is not None and importlib.util.find_spec("nncf") is None:
        raise EdgeError(
            "The recipe's [quantize.qat] needs NNCF (nncf is missing); install embridge-edge[qat], or leave the table out."
        )


def forms_of(
    student: Checkpoint,
    model: QuantizedModel,
    windows: WindowSet,
    which: Index,
    plan: QuantizePlan,
    hold_out: Sequence[str] = (),
) -> tuple[Form, ...]:
    """The float student, what quantizing it as it is makes of it, and what training with rounding made of it.

    Args:
        student: as it was given. model: made from it under `plan`, which has `qat`.
        windows, which: recordings in the student's chain, and which of their windows to judge on. hold_out: gestures that
            nobody trained on.
    """
    import numpy as np
    import torch

    from embridge_edge.compression.folding import folded
    from embridge_edge.export.quantized import plain_int8
    from embridge_edge.export.running import run_tflite
    from embridge_edge.export.sensitivity import damage_of

    inputs = windows.inputs(which)
    with torch.no_grad():
        exact = np.asarray(folded(student)(torch.from_numpy(inputs)).numpy())
    plain = plain_int8(student, model.calibration, replace(plan, qat=None))
    said = {
        "float": exact,
        "ptq": run_tflite(plain, inputs, "litert-ref"),
        "qat": run_tflite(model.int8, inputs, "litert-ref"),
        "qat_float": run_tflite(model.float32, inputs),
    }
    decide = decider(student)
    return tuple(
        Form(
            name,
            len(which),
            damage_of(exact, one, decide),
            balanced_accuracy_of(student, windows, which, one, hold_out),
        )
        for name, one in said.items()
    )


def advised(line: str | None, trained: bool) -> str | None:
    """What to try, given the recipe line that mends most: it gives a layer 16 bits, which trained ranges do not have."""
    if not trained:
        return line
    return "more steps in [quantize.qat]" + (f", or without it {line}" if line else "")


def decider(student: Deployed) -> Decide | None:
    """What turns a student's embeddings into decisions; None where it has no head that decides."""
    return decision(student.heads)


def decision(heads: Sequence[Head]) -> Decide | None:
    """What of some heads decides."""
    return next((head.decide for head in heads if head.kind in ("linear", "poses")), None)


def balanced_accuracy_of(
    student: Checkpoint, windows: WindowSet, which: Index, embeddings: Floats, hold_out: Sequence[str]
) -> float | None:
    """As the report judges: gestures that nobody trained on are not counted."""
    from embridge_edge.learning.judge import answer, judge

    one = answer("form", "", windows, which, embeddings, student.heads)
    return judge(windows, [one], "", hold_out).value("form", "", "balanced_accuracy")


def lines_of(forms: tuple[Form, ...]) -> list[str]:
    """The forms as a table for the terminal; nothing where there are none."""
    from embridge_edge.report.words import form_name

    if not forms:
        return []
    lines = [f"  {f'on {forms[0].windows} windows':28} mean-removed error  class flips  balanced accuracy"]
    for form in forms:
        flips = "–" if form.damage.class_flips is None else f"{100 * form.damage.class_flips:.2f} %"
        right = "–" if form.balanced_accuracy is None else f"{form.balanced_accuracy:.3f}"
        lines.append(f"  {form_name(form.name):28} {form.damage.mean_removed_error:18.3f} {flips:>12} {right:>18}")
    return lines
