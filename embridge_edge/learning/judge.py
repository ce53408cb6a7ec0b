"""Decisions of models on test windows, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning import scores
from embridge_edge.learning.scores import Result
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.head import Head

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

FLOAT_OF = {"student_int8": "student"}
"""Which model is the float twin of a quantized one, unless said otherwise."""


ELSE = "(another gesture)"
"""In a confusion: the model decided for a gesture that these recordings do not have."""


@dataclass(frozen=True)
class Answers:
    """What one model said about test windows of one split.

    Attributes:
        model, split: who, on what.
        test: int64 `[n]`, indices of the windows.
        gestures: int64 `[n]`, decided gesture as an index into the data set's; None for a model without classes.
        zero_shot: int64 `[n]`, the gesture whose pose is nearest; None without poses.
        angles: float32 `[n, 23]`, joint angles in radians, NaN where not read out; None without tracking.
        embeddings: float32 `[n, embedding]`; None for a model without an embedding.
    """

    model: str
    split: str
    test: Index
    gestures: Index | None = None
    zero_shot: Index | None = None
    angles: Floats | None = None
    embeddings: Floats | None = None


@dataclass(frozen=True)
class Judgement:
    """Numbers, confusions and their spread over wearers, as `report.json` holds them."""

    results: tuple[Result, ...] = ()
    confusions: tuple[dict[str, Any], ...] = ()
    per_wearer: tuple[dict[str, Any], ...] = field(default=())

    def value(self, model: str, split: str, metric: str) -> float | None:
        """One number, None where it was not measured."""
        found = [r.value for r in self.results if (r.model, r.split, r.metric) == (model, split, metric)]
        return found[0] if found else None


def answer(
    model: str, split: str, windows: WindowSet, test: Index, embeddings: Floats, heads: Iterable[Head]
) -> Answers:
    """Apply heads to the embeddings of test windows."""
    decided: dict[str, Any] = {}
    for head in heads:
        if head.kind == "regression":
            angles = np.full((len(test), len(POSE)), np.nan, np.float32)
            angles[:, [POSE.index(name) for name in head.names]] = head.scores(embeddings)
            decided["angles"] = angles
        else:
            places = np.array([windows.gestures.index(name) if name in windows.gestures else -1 for name in head.names])
            decided["zero_shot" if head.kind == "poses" else "gestures"] = places[head.decide(embeddings)]
    return Answers(model, split, test, embeddings=embeddings, **decided)


def joined(answers: Sequence[Answers]) -> Answers:
    """The answers of all folds of a split as one."""

    def column(name: str) -> Any:
        parts = [getattr(one, name) for one in answers]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    names = ("test", "gestures", "zero_shot", "angles", "embeddings")
    return Answers(answers[0].model, answers[0].split, **{name: column(name) for name in names})


def judge(
    windows: WindowSet,
    answers: Sequence[Answers],
    data: str,
    hold_out: Sequence[str] = (),
    seed: int = 0,
    twins: Mapping[str, str] = FLOAT_OF,
) -> Judgement:
    """Scores of all answers of one split; every score is a mean over wearers.

    Args:
        answers: one per model, folds already joined. hold_out: gestures that nobody trained on.
        twins: model to the one that its class flips and mean-removed error are counted against.
    """
    results: list[Result] = []
    confusions: list[dict[str, Any]] = []
    per_wearer: list[dict[str, Any]] = []
    unseen = np.array([windows.gestures.index(name) for name in hold_out if name in windows.gestures], np.int64)
    library = read_library()
    posed = np.array([place for place, name in enumerate(windows.gestures) if library.pose(name) is not None], np.int64)
    by_model = {one.model: one for one in answers}

    def add(one: Answers, metric: str, wearers: Index, values: npt.NDArray[np.float64], count: int) -> None:
        if not len(values) or not np.isfinite(values).any():
            return
        results.append(scores.summarise(one.model, data, one.split, metric, values, count, seed))
        per_wearer.extend(
            {
                "model": one.model,
                "split": one.split,
                "metric": metric,
                "wearer": windows.wearer_names[wearer],
                "value": float(value),
                "n": int(np.sum(wearers == wearer)),
            }
            for wearer, value in zip(np.unique(wearers), values, strict=True)
        )

    for one in answers:
        truth, wearers = windows.labels[one.test], windows.wearers[one.test]
        seen = (truth >= 0) & ~np.isin(truth, unseen)
        if one.gestures is not None and seen.any():
            people = wearers[seen]
            for metric, function in (
                ("balanced_accuracy", scores.balanced_accuracy),
                ("accuracy", lambda t, d: float(np.mean(t == d))),
                ("macro_f1", scores.macro_f1),
            ):
                values = _each(people, truth[seen], one.gestures[seen], function)
                add(one, metric, people, values, int(seen.sum()))
            names, decided = list(windows.gestures), one.gestures[seen]
            if (decided < 0).any():  # the model knows a gesture that these recordings lack
                names, decided = [*names, ELSE], np.where(decided < 0, len(names), decided)
            table = scores.confusion(truth[seen], decided, len(names))
            confusions.append({"model": one.model, "split": one.split, "gestures": names, "counts": table.tolist()})
        if one.zero_shot is not None:
            for metric, mask in (
                ("zero_shot_balanced_accuracy", np.isin(truth, posed) & ~np.isin(truth, unseen)),
                ("zero_shot_unseen_balanced_accuracy", np.isin(truth, posed) & np.isin(truth, unseen)),
            ):
                if mask.any() and len(posed) > 1:
                    values = _each(wearers[mask], truth[mask], one.zero_shot[mask], scores.balanced_accuracy)
                    add(one, metric, wearers[mask], values, int(mask.sum()))
        if one.angles is not None:
            last = windows.poses_at(one.test)
            angles = one.angles
            values = scores.per_wearer(wearers, lambda own, angles=angles, last=last: scores.r2(last[own], angles[own]))  # type: ignore[misc]
            add(one, "r2", wearers, values, len(one.test))
        twin = by_model.get(twins.get(one.model, ""))
        if twin is not None:
            if one.gestures is not None and twin.gestures is not None and seen.any():
                flips = scores.per_wearer(
                    wearers[seen],
                    lambda own, a=one.gestures[seen], b=twin.gestures[seen]: float(np.mean(a[own] != b[own])),  # type: ignore[misc]
                )
                add(one, "class_flips", wearers[seen], flips, int(seen.sum()))
            if one.embeddings is not None and twin.embeddings is not None:
                errors = scores.per_wearer(
                    wearers,
                    lambda own, a=twin.embeddings, b=one.embeddings: scores.mean_removed_error(a[own], b[own]),  # type: ignore[misc]
                )
                add(one, "mean_removed_error", wearers, errors, len(one.test))
    return Judgement(tuple(results), tuple(confusions), tuple(per_wearer))


def _each(wearers: Index, truth: Index, decided: Index, function: Any) -> npt.NDArray[np.float64]:
    return scores.per_wearer(wearers, lambda own: function(truth[own], decided[own]))
