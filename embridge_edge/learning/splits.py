"""Which windows train and which test. Windows that overlap are never on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.learning.windows import WindowSet
from embridge_edge.recordings.store import natural

REST = "rest"
"""The gesture that comes between the others."""

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
    elif (_sides_by_repetition(windows) > 0).any():
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
    * repetition: test on the last third of each gesture's repetitions in a session, with the rest that goes with them;
      gestures that are made once only train, and so does what belongs to no repetition.

    Raises:
        EdgeError: the data set does not allow the split.
    """
    if name == "wearer":
        return _by_wearer(windows, folds)
    if name == "repetition":
        sides = _sides_by_repetition(windows)
        if not (sides > 0).any():
            raise EdgeError("There are no repetitions of a gesture within a session; use --split session or wearer.")
        return [Split(name, 0, sides < 0, sides > 0)]
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


def repeated_gestures(windows: WindowSet) -> Index:
    """Whose repetition each window lies in, int64 `[windows]`, an index into the gestures: its own, for rest that of the
    gesture which it comes before (or else after) under the same number. −1 where a window has no gesture or rest of
    several repetitions.
    """
    owners = windows.labels.copy()
    if REST not in windows.gestures:
        return owners
    resting = windows.labels == windows.gestures.index(REST)
    before, after = _nearest(windows, (windows.labels >= 0) & ~resting)
    for near in (before, after):  # the later of the two has the last word
        numbered = (windows.lowest_repetitions[near] <= windows.lowest_repetitions) & (
            windows.highest_repetitions[near] >= windows.highest_repetitions
        )
        owners = np.where(resting & (near >= 0) & numbered, windows.labels[near], owners)
    owners[resting & (windows.lowest_repetitions != windows.highest_repetitions)] = -1
    return owners


def _sides_by_repetition(windows: WindowSet) -> Index:
    """On which side of the split by repetition each window is: −1 train, 1 test, 0 neither.

    A window without a gesture, as between rest and a gesture, is on the side on which its neighbours with one both are.
    No sample is on both sides: two windows of one gesture that share a sample share its repetition, and a window without
    a gesture shares samples only with those between its neighbours, and with these.
    """
    owners = repeated_gestures(windows)
    place = windows.sessions * len(windows.gestures) + owners
    last_trained = np.full(len(windows.session_names) * max(1, len(windows.gestures)), np.iinfo(np.int64).max)
    counted = (
        (owners >= 0) & (windows.lowest_repetitions == windows.highest_repetitions) & (windows.lowest_repetitions > 0)
    )
    found = np.unique(np.stack([place[counted], windows.lowest_repetitions[counted]]), axis=1)
    for one in np.unique(found[0]):
        numbers = found[1, found[0] == one]
        if len(numbers) > 1:
            last_trained[one] = numbers[-1 - max(1, len(numbers) // 3)]
    limit = np.where(owners >= 0, last_trained[place], -1)
    unnumbered = windows.highest_repetitions <= 0
    early = unnumbered | ((owners >= 0) & (windows.highest_repetitions <= limit))
    late = (owners >= 0) & (windows.lowest_repetitions > limit)
    sides = late.astype(np.int64) - early
    clear = (windows.labels >= 0) | unnumbered
    before, after = _nearest(windows, clear)
    left, right = (np.where(near >= 0, sides[near], sides[other]) for near, other in ((before, after), (after, before)))
    between = np.where((left == right) & ((before >= 0) | (after >= 0)), left, 0)
    return np.where(clear, sides, between)


def _nearest(windows: WindowSet, which: Mask) -> tuple[Index, Index]:
    """Of each window the nearest of `which` in its session, itself or before it, and itself or after it; −1 for none."""
    here = np.arange(len(windows))
    before = np.maximum.accumulate(np.where(which, here, -1))
    after = np.minimum.accumulate(np.where(which, here, len(windows))[::-1])[::-1]
    after = np.where(after < len(windows), after, -1)
    before, after = (np.where(windows.sessions[near] == windows.sessions, near, -1) for near in (before, after))
    return before, after


def _by_wearer(windows: WindowSet, folds: int) -> list[Split]:
    count = len(windows.wearer_names)
    folds = min(folds, count)
    if folds < 2:
        raise EdgeError("These recordings come from one wearer; use --split session or repetition.")
    order = np.argsort(np.array(windows.wearer_names))
    held = [np.isin(windows.wearers, order[fold::folds]) for fold in range(folds)]
    return [Split("wearer", fold, ~test, test) for fold, test in enumerate(held)]
