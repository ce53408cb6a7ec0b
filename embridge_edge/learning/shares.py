"""Which windows take part: drawn evenly over gestures and wearers, or a share of whole sessions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError

Index = npt.NDArray[np.int64]


def drawn_evenly(labels: Index, wearers: Index, most: int, seed: int) -> Index:
    """At most `most` windows, as even over gestures, and within a gesture over wearers, as the windows allow.

    Gestures take turns, and within a gesture its wearers, each time with another of their windows in random order, until
    `most` are drawn; who runs out is passed over. With one seed, fewer windows are always among more.

    Args:
        labels, wearers: int64 `[n]`.

    Returns: positions, int64 `[at most most]`, ascending.
    """
    if len(labels) <= most:
        return np.arange(len(labels))
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_cell = shuffled[np.lexsort((wearers[shuffled], labels[shuffled]))]
    turn = _turns(labels[by_cell], wearers[by_cell])
    by_gesture = by_cell[np.lexsort((turn, labels[by_cell]))]
    turn = _turns(labels[by_gesture])
    return np.sort(by_gesture[np.argsort(turn, kind="stable")][:most])


def nested_share(sessions: Index, wearers: Index, share: float, seed: int) -> Index:
    """The windows of about a share of all sessions, taken whole; a smaller share of the same seed lies within a larger one.

    Wearers take turns in a random order, each with one of their sessions in random order, until the sessions hold `share`
    of the windows: with little data, many wearers and few sessions of each. Nothing looks at gestures; one that only few
    sessions hold may be missing from a small share.

    Args:
        sessions, wearers: int64 `[n]`, of each training window; a session belongs to one wearer.
        share: of the windows, above 0 and at most 1.

    Returns: positions, int64, ascending; at least one session, and the fewest that hold the share.

    Raises:
        EdgeError: `share` is no share, or there is no window.
    """
    if not 0 < share <= 1:
        raise EdgeError(f"A share of the training data is above 0 and at most 1, not {share:g}; 0.4 means 40 %.")
    if not len(sessions):
        raise EdgeError("No training window to take a share of; check the labels and the split.")
    names, first, sizes = np.unique(sessions, return_index=True, return_counts=True)
    random = np.random.default_rng(seed)
    owners = np.unique(wearers[first], return_inverse=True)[1]
    owners = random.permutation(owners.max() + 1)[owners]
    shuffled = random.permutation(len(names))
    shuffled = shuffled[np.argsort(owners[shuffled], kind="stable")]
    order = shuffled[np.lexsort((owners[shuffled], _turns(owners[shuffled])))]
    enough = math.ceil(round(share * len(sessions), 6))
    taken = order[: int(np.searchsorted(np.cumsum(sizes[order]), enough)) + 1]
    return np.flatnonzero(np.isin(sessions, names[taken]))


def _turns(*keys: Index) -> Index:
    """0, 1, 2 … within each run of equal keys."""
    here = np.arange(len(keys[0]))
    if not len(here):
        return here
    changed = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    starts = np.concatenate([[True], changed])
    return here - np.maximum.accumulate(np.where(starts, here, 0))
