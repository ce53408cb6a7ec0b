"""Heads fitted on frozen embeddings: what decides, once the network is fixed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embridge_edge.gestures import POSE
from embridge_edge.learning.baselines import NEVER, lda_rows, ridge_rows
from embridge_edge.learning.batches import EvenSampler
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.head import Head, make_head

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def probe_windows(windows: WindowSet, which: Index, most: int, seed: int) -> Index:
    """Windows on which a head is fitted: at most `most`, drawn evenly over gestures and wearers."""
    return np.unique(EvenSampler(windows, which, seed + 4).draw(0, most)) if len(which) > most else which


def linear_head(embeddings: Floats, labels: Index, gestures: tuple[str, ...]) -> Head:
    """The linear probe: a linear discriminant with shrinkage and equal priors on the embedding.

    Args:
        embeddings: float32 `[n, embedding]`; labels: int64 `[n]`, ≥ 0.
    """
    weights, bias = lda_rows(embeddings, labels, len(gestures))
    return make_head("linear", gestures, weights, bias)


def trained_head(weights: Floats, bias: Floats, labels: Index, gestures: tuple[str, ...]) -> Head:
    """The label layer that was trained with the network, as a linear head.

    It decides better than a probe fitted afterwards, because the network was trained towards it (docs/numbers.md).

    Args:
        weights: float32 `[gestures, embedding]`; bias: float32 `[gestures]`; labels: int64 `[n]`, ≥ 0, what it was
            trained on: a gesture without a window never wins.
    """
    known = np.isin(np.arange(len(gestures)), labels)
    return make_head("linear", gestures, np.where(known[:, None], weights, 0.0), np.where(known, bias, NEVER))


def pose_head(pose_embeddings: Floats, gestures: tuple[str, ...]) -> Head | None:
    """Zero-shot rows: the pose tower's embedding of each gesture that has a pose; None where none has one."""
    known = np.asarray(np.isfinite(pose_embeddings).all(axis=1))
    if not known.any():
        return None
    names = tuple(name for name, has in zip(gestures, known, strict=True) if has)
    return make_head("poses", names, pose_embeddings[known], np.zeros(len(names), np.float32))


def regression_head(embeddings: Floats, poses: Floats) -> Head | None:
    """Ridge rows that read joint angles (radians) out of the embedding; None where no angle varies.

    Args:
        embeddings: float32 `[n, embedding]`; poses: float32 `[n, 23]`, NaN where unknown.
    """
    varying = np.array(
        [
            np.nanstd(poses[:, angle]) > 1e-3 if np.isfinite(poses[:, angle]).any() else False
            for angle in range(len(POSE))
        ]
    )
    if not varying.any():
        return None
    weights, bias = ridge_rows(embeddings, poses[:, varying])
    return make_head("regression", tuple(np.array(POSE)[varying]), weights, bias)
