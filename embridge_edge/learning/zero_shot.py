"""Zero-shot: the gesture whose poses lie nearest to an EMG embedding. No EMG label takes part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

NEIGHBOURS = 10

_CHUNK = 2048


@dataclass(frozen=True)
class PoseLibrary:
    """Poses that stand for gestures.

    Attributes:
        embeddings: float32 `[m, embedding]`, of poses by the pose tower, in the space that EMG embeddings are aligned to.
        labels: int64 `[m]`, the gesture of each.
    """

    embeddings: Floats
    labels: Index

    def only(self, labels: Index) -> PoseLibrary:
        """The poses of these gestures alone."""
        kept = np.isin(self.labels, labels)
        return PoseLibrary(self.embeddings[kept], self.labels[kept])

    def gestures(self) -> Index:
        """The labels that occur, int64, ascending."""
        return np.unique(self.labels)


def balanced_library(library: PoseLibrary, most_each: int, seed: int) -> PoseLibrary:
    """As many poses of every gesture: what occurs twice is kept once, then each gives what the poorest has, at most `most_each`.

    Many windows of a labelled gesture share one canonical pose, and k-nearest neighbours count votes: copies would outvote
    a gesture that has fewer. Canonical poses come out as one per gesture.

    Args:
        most_each: poses of a gesture; drawn without replacement.
    """
    rows = np.concatenate([library.labels[:, None], library.embeddings], axis=1)
    distinct = np.sort(np.unique(rows, axis=0, return_index=True)[1])
    labels = library.labels[distinct]
    gestures, counts = np.unique(labels, return_counts=True)
    each = min([most_each, *counts.tolist()])
    random = np.random.default_rng(seed)
    drawn = [random.permutation(distinct[labels == gesture])[:each] for gesture in gestures]
    kept = np.sort(np.concatenate([*drawn, np.zeros(0, np.int64)]))
    return PoseLibrary(library.embeddings[kept], library.labels[kept])


def decide_by_poses(embeddings: Floats, library: PoseLibrary, neighbours: int = NEIGHBOURS) -> Index:
    """The gesture with the most votes among the k nearest poses by cosine, k = min(`neighbours`, poses in the library).

    The pose of rank r = 1 … k votes with 1 + 2⁻ʳ. All the additions together are below 1, so the majority decides; of
    gestures with equally many votes, the sums of different powers of two differ, and the one that holds the nearest of
    their poses wins. So there is no tie, and with one pose per gesture the nearest decides. Poses that are equally near
    rank in the library's order.

    Args:
        embeddings: float32 `[n, embedding]`; lengths do not matter.

    Returns: labels, int64 `[n]`.

    Raises:
        EdgeError: the library is empty.
    """
    if not len(library.labels):
        raise EdgeError("The pose library is empty, so nothing can be recognised by its pose; give gestures poses.")
    k = min(neighbours, len(library.labels))
    gestures, column = np.unique(library.labels, return_inverse=True)
    poses = of_unit_length(library.embeddings)
    votes = 1.0 + 0.5 ** np.arange(1, k + 1)
    decided = np.empty(len(embeddings), np.int64)
    for start in range(0, len(embeddings), _CHUNK):
        nearest = column[_nearest(of_unit_length(embeddings[start : start + _CHUNK]) @ poses.T, k)]
        counted = np.zeros((len(nearest), len(gestures)))
        np.add.at(counted, (np.arange(len(nearest))[:, None], nearest), votes)
        decided[start : start + _CHUNK] = gestures[np.argmax(counted, axis=1)]
    return decided


def _nearest(similarity: Floats, k: int) -> Index:
    """Columns of the k largest values of each row, largest first, equal ones in the order of columns, int64 `[rows, k]`."""
    if k == similarity.shape[1]:
        return np.asarray(np.argsort(-similarity, axis=1, kind="stable"))
    found = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
    found.sort(axis=1)
    values = np.take_along_axis(similarity, found, axis=1)
    found = np.take_along_axis(found, np.argsort(-values, axis=1, kind="stable"), axis=1)
    # A partition takes any of the columns that equal the k-th; where there are more of them than places, sort in full.
    open_rows = np.flatnonzero((similarity >= values.min(axis=1, keepdims=True)).sum(axis=1) > k)
    found[open_rows] = np.argsort(-similarity[open_rows], axis=1, kind="stable")[:, :k]
    return found


def of_unit_length(rows: Floats) -> Floats:
    """Rows divided by their length, float32; a row of zeros stays one."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, np.finfo(np.float32).tiny), np.float32)
