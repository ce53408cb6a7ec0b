"""How often a gesture has been made, counted over the files of a session; and which repetition rest belongs to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Track = npt.NDArray[np.int16]


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
