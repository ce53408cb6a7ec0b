"""Zero-shot by words: attributes of a gesture are read out of its EMG, and the gesture that has them is decided for.

This is direct attribute prediction (Lampert, Nickisch and Harmeling 2009): one logistic regression per attribute, fitted on
seen gestures, then the gesture whose attributes are most probable together. It was chosen over the closed form of
Romera-Paredes and Torr (2015), whose score of a gesture without attributes is always 0 (rest has none), and which spreads an
attribute that cannot be learnt over the others; here it is left out, and named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.learning.evaluation import Embedded, Judged, Score, among_all
from embridge_edge.learning.linear_probe import LinearProbe, fit_probe
from embridge_edge.learning.shares import drawn_evenly

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

MOST_WINDOWS = 20_000


@dataclass(frozen=True)
class AttributeModel:
    """What reads attributes out of an embedding.

    Attributes:
        attributes: names of those that were learnt. probes: one for each, over classes 0 (without) and 1 (with).
        unlearnable: names of those that all seen gestures have, or none: nothing shows what they look like.
        gestures: bool `[gestures, learnt attributes]`, of all gestures, row = label.
    """

    attributes: tuple[str, ...]
    probes: tuple[LinearProbe, ...]
    unlearnable: tuple[str, ...]
    gestures: Flags

    def log_likelihood(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """Log probability that all attributes are as each gesture has them, float64 `[n, gestures]`.

        Probes are fitted with balanced classes, so an attribute's prior is one half, and drops out.
        """
        scores = np.zeros((len(embeddings), len(self.gestures)))
        for column, probe in enumerate(self.probes):
            scores += probe.log_probabilities(embeddings)[:, self.gestures[:, column].astype(np.int64)]
        return scores

    def decide(self, embeddings: Floats, among: Index) -> Index:
        """The most probable of the gestures `among`, int64 `[n]`; of gestures that cannot be told apart, the first."""
        return np.asarray(among[np.argmax(self.log_likelihood(embeddings)[:, among], axis=1)])

    def alike(self, among: Index) -> list[tuple[int, ...]]:
        """Groups of gestures whose learnt attributes are the same, so that none but the first is ever decided for."""
        groups: dict[bytes, list[int]] = {}
        for label in among:
            groups.setdefault(self.gestures[label].tobytes(), []).append(int(label))
        return [tuple(group) for group in groups.values() if len(group) > 1]


def fit_attributes(
    train: Embedded, attributes: Sequence[str], gestures: Flags, unseen: Index, seed: int = 0
) -> AttributeModel:
    """Fit one logistic regression per attribute on windows of seen gestures.

    Args:
        train: labelled windows; those of unseen gestures are left out here.
        attributes: names. gestures: bool `[gestures, attributes]`, row = label (`GestureLibrary.attribute_rows`).
        unseen: int64, labels that no window may show.

    Raises:
        EdgeError: rows are missing, or no window of a seen gesture is left, or no attribute varies.
    """
    if gestures.shape[1:] != (len(attributes),) or (len(train.labels) and train.labels.max() >= len(gestures)):
        raise EdgeError(
            f"Attributes of shape {gestures.shape} do not go with {len(attributes)} names and the label "
            f"{train.labels.max(initial=0)}; give one row per gesture."
        )
    seen = train.only(~np.isin(train.labels, unseen))
    if not len(seen.labels):
        raise EdgeError("No window of a seen gesture to learn attributes from; check the labels and the split.")
    chosen = seen.only(drawn_evenly(seen.labels, seen.wearers, MOST_WINDOWS, seed))
    present = gestures[np.unique(chosen.labels)]
    varies = np.asarray(present.any(axis=0) & ~present.all(axis=0))
    if not varies.any():
        raise EdgeError("No attribute differs between the seen gestures, so none can be learnt; give them others.")
    probes = tuple(
        fit_probe(chosen.embeddings, gestures[chosen.labels, column].astype(np.int64), chosen.wearers, seed)
        for column in np.flatnonzero(varies)
    )
    return AttributeModel(
        tuple(name for name, kept in zip(attributes, varies, strict=True) if kept),
        probes,
        tuple(name for name, kept in zip(attributes, varies, strict=True) if not kept),
        gestures[:, varies],
    )


def attribute_scores(
    arm: str,
    seed: int,
    model: AttributeModel,
    tests: Mapping[str, Embedded],
    unseen: Index,
    wearer_names: Sequence[str],
) -> list[Score]:
    """Rows attr_seen, attr_unseen, attr_all_seen, attr_all_unseen and attr_harmonic, defined as the zs_ rows of `evaluate`.

    Args:
        tests: windows to judge, by group, with labels that have a row in the model.
    """
    everything = np.arange(len(model.gestures))
    found: list[Score] = []
    for group, test in tests.items():
        judged = Judged(arm, seed, group, wearer_names)
        hidden = np.isin(test.labels, unseen)
        for name, mask, among in (
            ("seen", ~hidden, np.setdiff1d(everything, unseen)),
            ("unseen", hidden, np.intersect1d(everything, unseen)),
        ):
            if len(among) > 1 and mask.any():
                part = test.only(mask)
                found += judged.rows(f"attr_{name}", part, model.decide(part.embeddings, among))
        if len(test.labels):
            found += among_all(judged, "attr", test, model.decide(test.embeddings, everything), hidden)
    return found
