"""Which windows train and which test. Windows that overlap are never on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.learning.windows import WindowSet

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Split:
    """One division of the windows.

    Attributes:
        name: "session", "wearer", "day" or "repetition".
        fold: number of the fold; 0 where there is but one.
        train, test: bool `[windows]`; no window is in both.
    """

    name: str
    fold: int
    train: Mask
    test: Mask


def possible_splits(windows: WindowSet) -> list[str]:
    """The splits that a data set allows: day, else session, else repetition; and wearer with five or more people."""
    people = _sessions_by_wearer(windows)
    found = []
    if len(np.unique(windows.days[windows.days >= 0])) > 1:
        found.append("day")
    elif any(len(sessions) > 1 for sessions in people):
        found.append("session")
    elif windows.last_repetitions.max() > 1:
        found.append("repetition")
    if len(people) >= 5:
        found.append("wearer")
    if not found:
        raise EdgeError("These recordings allow no split: one session without repetitions; record a second session.")
    return found


def make_splits(windows: WindowSet, name: str, folds: int = 5) -> list[Split]:
    """The split `name` of a data set.

    * session: train on all sessions but each wearer's last, test on the last (wearers with one session only train).
    * day: train on each wearer's first day, test on the others.
    * wearer: `folds` folds over wearers, dealt out in the order of their names: the same for every seed.
    * repetition: test on the last third of the repetitions of each session.

    Raises:
        EdgeError: the data set does not allow the split.
    """
    if name == "wearer":
        return _by_wearer(windows, folds)
    if name == "repetition":
        # A window that reaches from a training into a test repetition belongs to neither side.
        first, last = (
            _late_repetitions(windows, which) for which in (windows.first_repetitions, windows.last_repetitions)
        )
        return [Split(name, 0, ~first & ~last, first & last)]
    test = _last_session(windows) if name == "session" else _later_days(windows)
    return [Split(name, 0, ~test, test)]


def training_windows(windows: WindowSet, split: Split | None, hold_out: Sequence[str] = ()) -> Index:
    """Indices of the windows that a model may be trained on: on the training side, no sample of a held-out gesture in them,
    and a label or a pose known.

    Args:
        split: None trains on everything.
    """
    allowed = np.ones(len(windows), np.bool_) if split is None else split.train.copy()
    unseen = [windows.gestures.index(name) for name in hold_out if name in windows.gestures]
    for labels in (windows.first_labels, windows.last_labels):
        allowed &= ~np.isin(labels, unseen)
    posed = np.isfinite(windows.pose_track[windows.starts // windows.chain.hop]).any(axis=1)
    return np.flatnonzero(allowed & ((windows.labels >= 0) | posed))


def _sessions_by_wearer(windows: WindowSet) -> list[npt.NDArray[np.int64]]:
    return [np.unique(windows.sessions[windows.wearers == wearer]) for wearer in range(len(windows.wearer_names))]


def _last_session(windows: WindowSet) -> Mask:
    last = [sessions[-1] for sessions in _sessions_by_wearer(windows) if len(sessions) > 1]
    if not last:
        raise EdgeError("No wearer has a second session; use --split repetition or wearer.")
    return np.isin(windows.sessions, last)


def _later_days(windows: WindowSet) -> Mask:
    if windows.days.max() < 0 or len(np.unique(windows.days)) < 2:
        raise EdgeError("These recordings carry no days; use --split session, repetition or wearer.")
    first = np.array([windows.days[windows.wearers == wearer].min() for wearer in range(len(windows.wearer_names))])
    return windows.days > first[windows.wearers]


def _late_repetitions(windows: WindowSet, repetitions: Index) -> Mask:
    """Which of `repetitions` lie in the last third of their session's."""
    late = np.zeros(len(windows), np.bool_)
    for session in range(len(windows.session_names)):
        own = windows.sessions == session
        highest = int(windows.last_repetitions[own].max(initial=-1))
        if highest > 1:
            late |= own & (repetitions > highest - max(1, highest // 3))
    if not late.any():
        raise EdgeError("These recordings carry no repetitions; use --split session or wearer.")
    return late


def _by_wearer(windows: WindowSet, folds: int) -> list[Split]:
    count = len(windows.wearer_names)
    folds = min(folds, count)
    if folds < 2:
        raise EdgeError("These recordings come from one wearer; use --split session or repetition.")
    order = np.argsort(np.array(windows.wearer_names))
    held = [np.isin(windows.wearers, order[fold::folds]) for fold in range(folds)]
    return [Split("wearer", fold, ~test, test) for fold, test in enumerate(held)]
