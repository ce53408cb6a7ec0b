"""What an arm of the benchmark is worth: its frozen embeddings, judged wearer by wearer. Arrays in, rows out; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.learning.linear_probe import fit_probe
from embridge_edge.learning.scores import balanced_accuracy, macro_f1
from embridge_edge.learning.zero_shot import PoseLibrary, decide_by_poses

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

F1 = "_f1"
"""Suffix of a metric's name where it is macro F1; without it, balanced accuracy."""


@dataclass(frozen=True)
class Embedded:
    """Labelled windows as a frozen network sees them.

    Attributes:
        embeddings: float32 `[n, embedding]`, finite.
        labels: int64 `[n]`, ≥ 0, index of the gesture. wearers: int64 `[n]`, index of the wearer.
    """

    embeddings: Floats
    labels: Index
    wearers: Index

    def __post_init__(self) -> None:
        if self.embeddings.ndim != 2 or not len(self.embeddings) == len(self.labels) == len(self.wearers):
            raise EdgeError(
                f"Embeddings of shape {self.embeddings.shape} do not go with {len(self.labels)} labels and "
                f"{len(self.wearers)} wearers; give one row, one label and one wearer per window."
            )
        if not np.isfinite(self.embeddings).all():
            raise EdgeError("Embeddings hold NaN or infinity: the training diverged; lower its learning rate.")
        if len(self.labels) and self.labels.min() < 0:
            raise EdgeError("An unlabelled window cannot be judged; leave out windows whose label is below 0.")

    def only(self, mask: npt.NDArray[np.bool_] | Index) -> Embedded:
        """The windows of a mask or of positions."""
        return Embedded(self.embeddings[mask], self.labels[mask], self.wearers[mask])


@dataclass(frozen=True)
class Score:
    """One number: what one wearer's windows gave under one arm trained with one seed.

    Attributes:
        group: "seen_wearers" or "unseen_wearers". metric: see `evaluate`, `few_shot` and `attribute_scores`.
        value: a fraction.
    """

    arm: str
    seed: int
    group: str
    metric: str
    wearer: str
    value: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Judged:
    """Under which names the rows of one group stand."""

    arm: str
    seed: int
    group: str
    wearer_names: Sequence[str]

    def rows(
        self, metric: str, test: Embedded, decided: Index, mask: npt.NDArray[np.bool_] | None = None
    ) -> list[Score]:
        """Balanced accuracy and macro F1 of each wearer over the windows of `mask`; a wearer without any has no row.

        Args:
            decided: int64 `[n]`, one for each window of `test`.
        """
        masked = np.ones(len(test.labels), bool) if mask is None else mask
        found = []
        for wearer in np.unique(test.wearers[masked]):
            own = masked & (test.wearers == wearer)
            for suffix, function in (("", balanced_accuracy), (F1, macro_f1)):
                found.append(self.row(metric + suffix, wearer, function(test.labels[own], decided[own])))
        return found

    def row(self, metric: str, wearer: int | np.int64, value: float) -> Score:
        return Score(self.arm, self.seed, self.group, metric, self.wearer_names[int(wearer)], float(value))


def evaluate(
    arm: str,
    seed: int,
    train: Embedded,
    tests: Mapping[str, Embedded],
    library: PoseLibrary | None,
    unseen: Index,
    wearer_names: Sequence[str],
) -> list[Score]:
    """Linear probe and zero-shot of one arm, for each wearer, as balanced accuracy and (suffix `_f1`) macro F1.

    | metric | who decides | among | on windows of |
    |---|---|---|---|
    | lp_seen, lp_unseen | a linear probe fitted on `train` | the seen or the unseen gestures | the same |
    | zs_seen, zs_unseen | the nearest poses | the seen or the unseen gestures | the same |
    | zs_all_seen, zs_all_unseen | the nearest poses | all gestures | the seen or the unseen gestures |
    | zs_harmonic | harmonic mean of the last two, for each wearer | | |

    Rest, like whatever is not in `unseen`, counts as seen. F1 of zs_all_seen counts no window of an unseen gesture that is
    taken for a seen one, and the other way round. Windows of gestures without a pose are left out of every zero-shot row, and a
    metric with fewer than two gestures to choose between has no row.

    Args:
        train: windows on which probes are fitted. The network has not seen the unseen gestures among them; the probe among
            the unseen is fitted on them.
        tests: windows to judge, by group. library: poses of seen and unseen gestures; None for an arm without a pose space.
        unseen: int64, labels of the gestures that the network was not trained on. wearer_names: what wearers' numbers mean.
    """
    parts = {"seen": ~np.isin(train.labels, unseen), "unseen": np.isin(train.labels, unseen)}
    probes = {
        name: fit_probe(train.embeddings[part], train.labels[part], train.wearers[part], seed)
        for name, part in parts.items()
        if len(np.unique(train.labels[part])) > 1
    }
    found: list[Score] = []
    for group, test in tests.items():
        judged = Judged(arm, seed, group, wearer_names)
        hidden = np.isin(test.labels, unseen)
        for name, probe in probes.items():
            mask = (hidden if name == "unseen" else ~hidden) & np.isin(test.labels, probe.classes)
            found += judged.rows(f"lp_{name}", test, probe.decide(test.embeddings), mask)
        if library is not None:
            found += _zero_shot(judged, test, library, unseen)
    return found


def _zero_shot(judged: Judged, test: Embedded, library: PoseLibrary, unseen: Index) -> list[Score]:
    posed = library.gestures()
    known = np.isin(test.labels, posed)
    hidden = np.isin(test.labels, unseen)
    found: list[Score] = []
    for name, mask, gestures in (
        ("seen", known & ~hidden, np.setdiff1d(posed, unseen)),
        ("unseen", known & hidden, np.intersect1d(posed, unseen)),
    ):
        if len(gestures) > 1 and mask.any():
            part = test.only(mask)
            found += judged.rows(f"zs_{name}", part, decide_by_poses(part.embeddings, library.only(gestures)))
    if len(posed) > 1 and known.any():
        part = test.only(known)
        decided = decide_by_poses(part.embeddings, library)
        found += among_all(judged, "zs", part, decided, hidden[known])
    return found


def among_all(judged: Judged, route: str, test: Embedded, decided: Index, hidden: npt.NDArray[np.bool_]) -> list[Score]:
    """Rows ROUTE_all_seen, ROUTE_all_unseen and ROUTE_harmonic of decisions among all gestures.

    Args:
        hidden: bool `[n]`, windows of unseen gestures.
    """
    seen = judged.rows(f"{route}_all_seen", test, decided, ~hidden)
    unseen = judged.rows(f"{route}_all_unseen", test, decided, hidden)
    by_name = {(row.metric.replace("_all_unseen", "_all_seen"), row.wearer): row.value for row in unseen}
    both = [(row, by_name[row.metric, row.wearer]) for row in seen if (row.metric, row.wearer) in by_name]
    harmonic = [
        replace(row, metric=row.metric.replace("_all_seen", "_harmonic"), value=harmonic_mean(row.value, other))
        for row, other in both
    ]
    return [*seen, *unseen, *harmonic]


def harmonic_mean(one: float, other: float) -> float:
    """2ab / (a + b) of two fractions; 0 where either is 0."""
    return 2.0 * one * other / (one + other) if one > 0 and other > 0 else 0.0


def averaged(scores: Iterable[Score]) -> list[Score]:
    """One row for each arm, seed, group, metric and wearer: the mean over rows that agree in these.

    For benchmarks on several divisions of the gestures (such as all pairs held out in turn): put the rows of all of them
    together, and a wearer's row becomes his mean over the divisions.
    """
    values: dict[tuple[str, int, str, str, str], list[float]] = {}
    for row in scores:
        values.setdefault((row.arm, row.seed, row.group, row.metric, row.wearer), []).append(row.value)
    return [Score(*key, float(np.mean(parts))) for key, parts in values.items()]


def at_share(scores: Iterable[Score], share: float) -> list[Score]:
    """The rows of an arm trained on a share of the data, their metrics named METRIC@PERCENT, as zs_unseen@40."""
    return [replace(row, metric=f"{row.metric}@{100 * share:g}") for row in scores]
