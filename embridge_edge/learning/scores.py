"""Scores over windows, averaged over wearers, with intervals by bootstrap over wearers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Result:
    """One number of a report.

    Attributes:
        model: who was judged (lda, teacher, supervised, student, student_int8 …).
        data: name of the data set.
        split: session, wearer, day or repetition.
        metric: what was measured; values are fractions unless the metric's name carries a unit.
        value: mean over wearers. ci_low, ci_high: 95 % bootstrap interval over wearers; None with fewer than three.
        n: windows. n_groups: wearers. spread: standard deviation between wearers.
    """

    model: str
    data: str
    split: str
    metric: str
    value: float
    ci_low: float | None
    ci_high: float | None
    n: int
    n_groups: int
    spread: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def per_wearer(wearers: Index, score: Callable[[npt.NDArray[np.bool_]], float]) -> npt.NDArray[np.float64]:
    """A score for each wearer, float64 `[wearers]`; `score` gets a mask over the windows."""
    return np.array([score(wearers == wearer) for wearer in np.unique(wearers)])


def summarise(
    model: str, data: str, split: str, metric: str, values: npt.NDArray[np.float64], n: int, seed: int = 0
) -> Result:
    """Mean over wearers with its bootstrap interval; wearers whose value is NaN (nothing to judge) are left out."""
    values = values[np.isfinite(values)]
    low: float | None = None
    high: float | None = None
    if len(values) >= 3:
        draws = np.random.default_rng(seed).integers(len(values), size=(BOOTSTRAP_DRAWS, len(values)))
        low, high = (float(edge) for edge in np.quantile(values[draws].mean(axis=1), (0.025, 0.975)))
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    value = float(values.mean()) if len(values) else float("nan")
    return Result(model, data, split, metric, value, low, high, n, len(values), spread)


def balanced_accuracy(truth: Index, decided: Index) -> float:
    """Mean recall over the classes that occur in `truth`: equal priors."""
    classes = np.unique(truth)
    return (
        float(np.mean([np.mean(decided[truth == label] == label) for label in classes]))
        if len(classes)
        else float("nan")
    )


def macro_f1(truth: Index, decided: Index) -> float:
    """Mean F1 over the classes that occur in `truth`."""
    scores = []
    for label in np.unique(truth):
        hits = np.sum((truth == label) & (decided == label))
        scores.append(2.0 * hits / (np.sum(truth == label) + np.sum(decided == label)))
    return float(np.mean(scores)) if scores else float("nan")


def confusion(truth: Index, decided: Index, classes: int) -> Index:
    """Counts `[truth, decided]`, int64 `[classes, classes]`."""
    table = np.zeros((classes, classes), np.int64)
    np.add.at(table, (truth, decided), 1)
    return table


def mean_removed_error(reference: Floats, other: Floats) -> float:
    """Relative root-mean-square error once each column's mean over the inputs is removed.

    What all inputs share says nothing about quantization: with it left in, a network whose output hardly depends on
    its input looks perfect.

    Args:
        reference, other: float32 `[n, columns]`.
    """
    centred = reference - reference.mean(axis=0)
    error = other - other.mean(axis=0) - centred
    power = float(np.mean(np.square(centred, dtype=np.float64)))
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64)) / power)) if power > 0 else float("nan")


def r2(truth: Floats, predicted: Floats) -> float:
    """Mean coefficient of determination over the columns of `truth` that vary; NaN on either side is left out.

    Args:
        truth, predicted: float32 `[n, columns]`.
    """
    scores = []
    for column in range(truth.shape[1]):
        known = np.isfinite(truth[:, column]) & np.isfinite(predicted[:, column])
        target = truth[known, column].astype(np.float64)
        if len(target) > 1 and target.std() > 1e-4:
            scores.append(
                1.0 - np.sum((target - predicted[known, column]) ** 2) / np.sum((target - target.mean()) ** 2)
            )
    return float(np.mean(scores)) if scores else float("nan")
