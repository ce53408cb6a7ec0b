"""Which windows train and which test. Windows that overlap are never on both sides."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import REST
from embridge_edge.learning.near import Near, poses_near
from embridge_edge.learning.windows import WindowSet
from embridge_edge.recordings.recording import GENERALIZATIONS, PARTITIONS
from embridge_edge.recordings.store import natural

EMG2POSE_SPLITS: Mapping[str, str] = {
    "emg2pose_user": "user",
    "emg2pose_stage": "stage",
    "emg2pose_user_stage": "user_stage",
}
"""Splits that come with a data set, by what its test recordings are new in (`generalization` in emg2pose's metadata.csv)."""

SPLIT_NEEDS: Mapping[str, str] = {
    "session": "a wearer with two sessions",
    "wearer": "two wearers",
    "day": "a wearer with recordings of two known days",
    "repetition": "a gesture that is repeated within a session",
    "emg2pose_user": "the metadata.csv of emg2pose, with test recordings of held-out users",
    "emg2pose_stage": "the metadata.csv of emg2pose, with test recordings of held-out stages",
    "emg2pose_user_stage": "the metadata.csv of emg2pose, with test recordings of held-out users in held-out stages",
}
"""What recordings must hold for each split of `make_splits`."""

Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]


class SplitLeaks(EdgeError):
    """A split that was asked for has the same wearer or stage on both sides."""


@dataclass(frozen=True)
class Split:
    """One division of the windows.

    Attributes:
        name: "session", "wearer", "day", "repetition" or one of `EMG2POSE_SPLITS`.
        fold: number of the fold; 0 where there is but one.
        train, test: bool `[windows]`; no window is in both.
    """

    name: str
    fold: int
    train: Mask
    test: Mask


def possible_splits(windows: WindowSet) -> list[str]:
    """The splits that a data set allows: those that come with it, else day, else session, else repetition, and wearer with
    five or more people.
    """
    given = [name for name in EMG2POSE_SPLITS if _stated(windows, "test", name).any()]
    if given:
        return given
    people = _sessions_by_wearer(windows)
    found = []
    if _later_days(windows).any():
        found.append("day")
    elif any(len(sessions) > 1 for sessions in people):
        found.append("session")
    elif (_repetition_sides(windows, None) > 0).any():
        found.append("repetition")
    if len(people) >= 5:
        found.append("wearer")
    if not found:
        raise EdgeError(
            "These recordings allow no split: one session without repetitions; record a second session, or train on all "
            "of it with --split none."
        )
    return found


def allowed_splits(windows: WindowSet) -> list[str]:
    """The splits that can be made of a data set, useful or not."""
    found = []
    for name in SPLIT_NEEDS:
        with contextlib.suppress(EdgeError):
            make_splits(windows, name)
            found.append(name)
    return found


def make_splits(
    windows: WindowSet, name: str, folds: int = 5, test_repetitions: Sequence[int] | None = None
) -> list[Split]:
    """The split `name` of a data set.

    * session: train on all sessions but each wearer's last by day and name, test on the last (wearers with one session
      only train).
    * day: train on each wearer's first day, test on the others; recordings of an unknown day are left out.
    * wearer: `folds` folds over wearers, dealt out in the order of their names: the same for every seed.
    * repetition: test on the repetitions `test_repetitions`, by default those of the data set's custom (NinaPro: 2 and 5);
      where it has none, on the last third of each gesture's repetitions in a session, with the rest that goes with them,
      and gestures that are made once only train. What belongs to no repetition trains.
    * emg2pose_user, emg2pose_stage, emg2pose_user_stage: the division that comes with the data; train on its training
      recordings, test on those that are new in wearer, in stage or in both. Its validation recordings are in neither.

    Raises:
        EdgeError: the data set does not allow the split.
        SplitLeaks: the division that comes with the data has a wearer or a stage on both sides, which it says it has not.
    """
    if name in EMG2POSE_SPLITS:
        return [_by_metadata(windows, name)]
    if name == "wearer":
        return _by_wearer(windows, folds)
    if name == "repetition":
        sides = _repetition_sides(windows, test_repetitions)
        if not (sides > 0).any():
            raise EdgeError(_no_repetitions(windows, test_repetitions or windows.test_repetitions))
        if not (sides < 0).any():
            raise EdgeError("Every repetition is tested, which leaves none to train on; test fewer of them.")
        return [Split(name, 0, sides < 0, sides > 0)]
    if name == "session":
        test = _last_session(windows)
        return [Split(name, 0, ~test, test)]
    test = _later_days(windows)
    if not test.any():
        raise EdgeError("No wearer has a recording of a second day; use --split session, repetition or wearer.")
    return [Split(name, 0, ~test & (windows.days >= 0), test)]


def later_split(windows: WindowSet, share: float) -> Split:
    """The end of every session as a test, for recordings that allow nothing better: windows that reach over the cut are in neither.

    Args:
        share: of each session's windows, above 0 and below 1.
    """
    train, test = (np.zeros(len(windows), np.bool_) for _ in range(2))
    for session in range(len(windows.session_names)):
        own = np.flatnonzero(windows.sessions == session)
        if len(own) < 2:
            continue
        cut = windows.starts[own[min(len(own) - 1, round((1.0 - share) * len(own)))]]
        test[own] = windows.starts[own] >= cut
        # A training window may be moved by up to a hop, and still has to end before the cut.
        train[own] = windows.starts[own] + windows.chain.window + windows.chain.hop <= cut
    return Split("later", 0, train, test)


def named_split(
    windows: WindowSet,
    test_wearers: Sequence[str],
    train_wearers: Sequence[str] | None = None,
    name: str = "wearer",
) -> Split:
    """A split by names of wearers.

    Args:
        train_wearers: None trains on everybody else.
        name: what the split is called; under "wearer", models are refused to be judged on wearers that they have seen.

    Raises:
        EdgeError: a name that the recordings lack, or nobody on one side.
        SplitLeaks: a wearer on both.
    """
    known = windows.wearer_names
    both = sorted(set(test_wearers) & set(train_wearers or ()), key=natural)
    if both:
        raise SplitLeaks(f"Wearer {both[0]!r} would train and test ({len(both)} on both sides); name each on one side.")
    for wearer in (*test_wearers, *(train_wearers or ())):
        if wearer not in known:
            raise EdgeError(f"Unknown wearer {wearer!r}; these recordings have {_some(known)}.")
    test = np.isin(windows.wearers, [known.index(wearer) for wearer in test_wearers])
    train = ~test
    if train_wearers is not None:
        train = np.isin(windows.wearers, [known.index(wearer) for wearer in train_wearers])
    for side, what in ((test, "test on"), (train, "train on")):
        if not side.any():
            raise EdgeError(f"There is no wearer to {what}; these recordings have {_some(known)}.")
    return Split(name, 0, train, test)


def _some(names: Sequence[str]) -> str:
    """A list for a message, cut where it is long."""
    return ", ".join(names[:12]) + (f" … ({len(names)} in all)" if len(names) > 12 else "")


def validation_split(windows: WindowSet, split: Split) -> Split:
    """A division of the training side of `split`, for choosing a recipe without looking at the test side.

    Where the split comes with the data it trains on the same and tests on the validation recordings that are new in the
    same way (on all of them where none is marked so). Else it trains on each wearer's sessions but the last of those that
    `split` trains on, and tests on that one.

    Raises:
        EdgeError: no wearer has two sessions on the training side.
    """
    if split.name in EMG2POSE_SPLITS:
        marked = _stated(windows, "val", split.name)
        test = marked if marked.any() else windows.partitions == PARTITIONS.index("val")
        if test.any():
            return Split(split.name, split.fold, split.train, test)
    last: list[int] = []
    for sessions in _sessions_by_wearer(windows):
        own = [one for one in sessions if split.train[windows.sessions == one].any()]
        last += own[-1:] if len(own) > 1 else []
    if not last:
        raise EdgeError("No wearer has two sessions to train on; record more of them to choose a recipe by.")
    test = split.train & np.isin(windows.sessions, last)
    return Split("session", split.fold, split.train & ~test, test)


def training_windows(windows: WindowSet, split: Split | None, near: Near | None = None) -> Index:
    """Indices of the windows that a model may be trained on: on the training side, nothing of a held-out gesture in them,
    and a label or a pose known.

    Args:
        split: None trains on everything.
        near: leave out windows whose pose comes near one of these poses; `near_windows` gives them.
    """
    which = _trainable(windows, split)
    return which if near is None else which[~poses_near(windows, which, near.poses, near.near_rad)]


def near_windows(windows: WindowSet, split: Split | None, near: Near) -> Index:
    """Indices of the windows that `training_windows` leaves out because of `near` alone: to be counted, or looked at."""
    which = _trainable(windows, split)
    return which[poses_near(windows, which, near.poses, near.near_rad)]


def unlabelled_windows(windows: WindowSet, split: Split | None) -> Index:
    """Indices of the windows on the training side that have neither label nor pose: only masked pre-training can use them."""
    return np.flatnonzero(_allowed(windows, split) & (windows.labels < 0) & ~windows.posed(0))


def _trainable(windows: WindowSet, split: Split | None) -> Index:
    return np.flatnonzero(_allowed(windows, split) & ((windows.labels >= 0) | windows.posed(0)))


def _allowed(windows: WindowSet, split: Split | None) -> Mask:
    everything = np.ones(len(windows), np.bool_) if split is None else split.train
    return everything & ~windows.held_out


def _sessions_by_wearer(windows: WindowSet) -> list[list[int]]:
    """Sessions of each wearer in the order of their days, then of their names: "2" before "10"."""
    found, first = np.unique(windows.sessions, return_index=True)
    by_wearer: list[list[tuple[Any, ...]]] = [[] for _ in windows.wearer_names]
    for one, at in zip(found.tolist(), first.tolist(), strict=True):
        by_wearer[windows.wearers[at]].append((int(windows.days[at]), natural(windows.session_names[one]), one))
    return [[one for _, _, one in sorted(own)] for own in by_wearer]


def _last_session(windows: WindowSet) -> Mask:
    last = [sessions[-1] for sessions in _sessions_by_wearer(windows) if len(sessions) > 1]
    if not last:
        raise EdgeError("No wearer has a second session; use --split repetition or wearer.")
    return np.isin(windows.sessions, last)


def _later_days(windows: WindowSet) -> Mask:
    latest = np.iinfo(windows.days.dtype).max
    first = np.full(len(windows.wearer_names), latest)
    np.minimum.at(first, windows.wearers, np.where(windows.days >= 0, windows.days, latest))
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


def _repetition_sides(windows: WindowSet, tested: Sequence[int] | None) -> Index:
    """On which side of the split by repetition each window is: −1 train, 1 test, 0 neither."""
    numbers = windows.test_repetitions if tested is None else tested
    return _sides_by_number(windows, numbers) if numbers else _sides_by_thirds(windows)


def _no_repetitions(windows: WindowSet, tested: Sequence[int]) -> str:
    most = int(windows.highest_repetitions.max())
    if tested and most > 0:
        return f"No window lies in repetition {_some(list(map(str, tested)))}; these recordings have repetitions up to {most}."
    return "There are no repetitions of a gesture within a session; use --split session or wearer."


def _sides_by_number(windows: WindowSet, tested: Sequence[int]) -> Index:
    """The sides where the same repetitions of every gesture are tested: −1 train, 1 test, 0 neither.

    A window goes by the repetitions that lie between the lowest and the highest of its samples, and is on a side where all
    of them are; so that no sample is on both.
    """
    most = max(0, int(windows.highest_repetitions.max()))
    is_tested = np.isin(np.arange(most + 1), [number for number in tested if number > 0])
    up_to = np.concatenate([[0], np.cumsum(is_tested)])  # how many of the numbers below each are tested
    low, high = np.maximum(windows.lowest_repetitions, 0), np.maximum(windows.highest_repetitions, 0)
    inside = up_to[high.astype(np.int64) + 1] - up_to[low]
    return np.asarray((inside == high - low + 1).astype(np.int64) - (inside == 0))


def _sides_by_thirds(windows: WindowSet) -> Index:
    """The sides where the last third of each gesture's repetitions in a session is tested: −1 train, 1 test, 0 neither.

    A window without a gesture, as between rest and a gesture, is on the side on which its neighbours with one both are.
    No sample is on both sides: two windows of one gesture that share a sample share its repetition, and a window without
    a gesture shares samples only with those between its neighbours, and with these.
    """
    owners = repeated_gestures(windows)
    place = windows.sessions.astype(np.int64) * len(windows.gestures) + owners
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


def _stated(windows: WindowSet, partition: str, name: str) -> Mask:
    """Windows that the division which comes with the data puts into `partition` for the split `name`."""
    kind = GENERALIZATIONS.index(EMG2POSE_SPLITS[name])
    return np.asarray((windows.partitions == PARTITIONS.index(partition)) & (windows.generalizations == kind))


def _by_metadata(windows: WindowSet, name: str) -> Split:
    kind = EMG2POSE_SPLITS[name]
    train, test = windows.partitions == PARTITIONS.index("train"), _stated(windows, "test", name)
    for side, what in ((train, "to train on"), (test, f"to test on that is new in {kind.replace('_', ' and ')}")):
        if not side.any():
            raise EdgeError(
                f"No recording {what} by a metadata.csv; give emg2pose's beside its files, or another --split."
            )
    for what, is_new, names, index in (
        ("wearer", "user" in kind, windows.wearer_names, windows.wearers),
        ("stage", "stage" in kind, windows.stage_names, windows.stages),
    ):
        shared = np.intersect1d(index[train], index[test])
        if is_new and len(shared):
            raise SplitLeaks(
                f"--split {name} would leak: {what} {names[shared[0]]!r} is in training and in test recordings ({len(shared)} "
                "are in both); mend metadata.csv, or choose another --split."
            )
    return Split(name, 0, np.asarray(train), test)
