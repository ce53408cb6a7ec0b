"""How often a gesture has been made, counted over the files of a session; and which repetition rest belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Track = npt.NDArray[np.int16]

MOST_REPETITIONS = int(np.iinfo(np.int16).max)


@dataclass
class Repetitions:
    """How often each gesture of each session has been seen: counts go on from one file of a session to the next."""

    seen: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def count(self, labels: Track, gestures: Sequence[str], rest: str | None, wearer: str, session: str) -> Track:
        """Number of the repetition that each sample belongs to, from 1; 0 where unlabelled.

        A run of one label is a repetition. Rest takes the number of the gesture that follows it in the file; a file
        of rest alone counts for itself.
        """
        result = np.zeros(len(labels), np.int16)
        edges = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]])
        runs = list(pairwise(edges))
        names = [None if labels[start] < 0 else gestures[labels[start]] for start, _ in runs]
        active = any(name not in (None, rest) for name in names)
        for (start, stop), name in zip(runs, names, strict=True):
            if name is None or (name == rest and active):
                continue
            key = (wearer, session, name)
            self.seen[key] = self.seen.get(key, 0) + 1
            result[start:stop] = min(self.seen[key], MOST_REPETITIONS)
        return with_rest_numbered(labels, result, gestures.index(rest)) if rest in gestures else result


def with_rest_numbered(labels: Track, repetitions: Track, rest: int) -> Track:
    """The numbers of the repetitions, where rest (the label `rest`) takes that of the gesture that follows it.

    After the last gesture it takes the number of the one before, so that a split by repetition gives each part rest of
    its own. Where there is nothing but rest, and outside rest, the numbers stay.

    Args:
        labels, repetitions: int16 `[samples]`; a sample counts for a gesture where both are known (above −1 and 0).
    """
    counted = (labels >= 0) & (labels != rest) & (repetitions > 0)
    if not counted.any():
        return repetitions
    at = np.flatnonzero(counted)
    following = at[np.minimum(np.searchsorted(at, np.arange(len(labels))), len(at) - 1)]
    return np.where(labels == rest, repetitions[following], repetitions).astype(np.int16)
