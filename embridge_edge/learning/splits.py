"""Which windows train and which test. Windows that overlap are never on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.learning.windows import WindowSet
from embridge_edge.recordings.store import natural

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
    if _later_days(windows).any():
        found.append("day")
    elif any(len(sessions) > 1 for sessions in people):
        found.append("session")
    elif windows.highest_repetitions.max() > 1:
        found.append("repetition")
    if len(people) >= 5:
        found.append("wearer")
    if not found:
        raise EdgeError(
            "These recordings allow no split: one session without repetitions; record a second session, or train on all "
            "of it with --split none."
        )
    return found


def make_splits(windows: WindowSet, name: str, folds: int = 5) -> list[Split]:
    """The split `name` of a data set.

    * session: train on all sessions but each wearer's last by day and name, test on the last (wearers with one session
      only train).
    * day: train on each wearer's first day, test on the others; recordings of an unknown day are left out.
    * wearer: `folds` folds over wearers, dealt out in the order of their names: the same for every seed.
    * repetition: test on the last third of the repetitions of each session.

    Raises:
        EdgeError: the data set does not allow the split.
    """
    if name == "wearer":
        return _by_wearer(windows, folds)
    if name == "repetition":
        # A window that reaches from a training into a test repetition belongs to neither side.
        lowest, highest = (
            _late_repetitions(windows, which) for which in (windows.lowest_repetitions, windows.highest_repetitions)
        )
        return [Split(name, 0, ~highest, lowest)]
    if name == "session":
        test = _last_session(windows)
        return [Split(name, 0, ~test, test)]
    test = _later_days(windows)
    if not test.any():
        raise EdgeError("No wearer has a recording of a second day; use --split session, repetition or wearer.")
    return [Split(name, 0, ~test & (windows.days >= 0), test)]


def validation_split(windows: WindowSet, split: Split) -> Split:
    """A division of the training side of `split` by session, for choosing a recipe without looking at the test side.

    Trains on each wearer's sessions but the last of those that `split` trains on, and tests on that one.

    Raises:
        EdgeError: no wearer has two sessions on the training side.
    """
    last: list[int] = []
    for sessions in _sessions_by_wearer(windows):
        own = [one for one in sessions if split.train[windows.sessions == one].any()]
        last += own[-1:] if len(own) > 1 else []
    if not last:
        raise EdgeError("No wearer has two sessions to train on; record more of them to choose a recipe by.")
    test = split.train & np.isin(windows.sessions, last)
    return Split("session", split.fold, split.train & ~test, test)


def training_windows(windows: WindowSet, split: Split | None) -> Index:
    """Indices of the windows that a model may be trained on: on the training side, nothing of a held-out gesture in them,
    and a label or a pose known.

    Args:
        split: None trains on everything.
    """
    allowed = np.ones(len(windows), np.bool_) if split is None else split.train.copy()
    allowed &= ~windows.held_out
    posed = np.isfinite(windows.pose_track[windows.starts // windows.chain.hop]).any(axis=1)
    return np.flatnonzero(allowed & ((windows.labels >= 0) | posed))


def _sessions_by_wearer(windows: WindowSet) -> list[list[int]]:
    """Sessions of each wearer in the order of their days, then of their names: "2" before "10"."""
    by_wearer = []
    for wearer in range(len(windows.wearer_names)):
        sessions, first = np.unique(np.where(windows.wearers == wearer, windows.sessions, -1), return_index=True)
        own = [
            (int(windows.days[at]), natural(windows.session_names[one]), int(one))
            for one, at in zip(sessions, first, strict=True)
            if one >= 0
        ]
        by_wearer.append([one for _, _, one in sorted(own)])
    return by_wearer


def _last_session(windows: WindowSet) -> Mask:
    last = [sessions[-1] for sessions in _sessions_by_wearer(windows) if len(sessions) > 1]
    if not last:
        raise EdgeError("No wearer has a second session; use --split repetition or wearer.")
    return np.isin(windows.sessions, last)


def _later_days(windows: WindowSet) -> Mask:
    known = np.where(windows.days >= 0, windows.days, np.iinfo(np.int64).max)
    first = np.full(len(windows.wearer_names), np.iinfo(np.int64).max)
    np.minimum.at(first, windows.wearers, known)
    return np.asarray(windows.days > first[windows.wearers])


def _late_repetitions(windows: WindowSet, repetitions: Index) -> Mask:
    """Which of `repetitions` lie in the last third of their session's."""
    late = np.zeros(len(windows), np.bool_)
    for session in range(len(windows.session_names)):
        own = windows.sessions == session
        highest = int(windows.highest_repetitions[own].max(initial=-1))
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
