"""Who and what a benchmark trains on, and who and what it tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embridge_edge.errors import EdgeError
from embridge_edge.recipe import Recipe
from embridge_edge.recordings.recording import GENERALIZATIONS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.learning.splits import Split
    from embridge_edge.learning.windows import WindowSet

    Mask = npt.NDArray[np.bool_]

GROUPS = ("seen_wearers", "unseen_wearers")

_NEW_STAGE = tuple(GENERALIZATIONS.index(name) for name in ("stage", "user_stage"))


@dataclass(frozen=True)
class Sides:
    """Which windows train and which test.

    Attributes:
        split: the training side, and everything that is tested. Of the training side networks see what holds no held-out
            gesture; probes and libraries see all. groups: bool `[windows]` by group.
        shown: bool `[windows]`, where windows may be shown of a test wearer (few-shot), though the network has not seen them:
            the training side of wearers that are never trained on. late: the test side, of all wearers.
    """

    split: Split
    groups: dict[str, Mask]
    shown: Mask
    late: Mask


def sides_of(windows: WindowSet, recipe: Recipe) -> Sides:
    """The benchmark's division of people and sessions: the last so many wearers are never trained on, the others are tested
    on what the recipe's first split (else the first that the data allow) keeps for testing. Where stages stand for gestures and
    a division comes with the data, it is that one.

    Raises:
        EdgeError: there are no such wearers, nothing is left to train on, or the division keeps a stage that the recipe does not.
    """
    import numpy as np

    from embridge_edge.learning.splits import Split, later_split
    from embridge_edge.recordings.store import natural

    if kept_stages(windows, recipe):
        return _divided(windows, recipe)
    plan = recipe.benchmark
    names = sorted(windows.wearer_names, key=natural)
    if plan.unseen_wearers >= len(names):
        raise EdgeError(
            f"unseen_wearers is {plan.unseen_wearers} in the recipe, and these recordings have {len(names)} wearers; leave some "
            "to train on."
        )
    unseen = names[len(names) - plan.unseen_wearers :]
    new = np.isin(windows.wearers, [windows.wearer_names.index(name) for name in unseen])
    own = later_split(windows, plan.later_share) if plan.later_share else _given(windows, recipe)
    of_days = {name: own.test & ~new & np.isin(windows.days, days) for name, days in plan.days.items()}
    groups = {**(of_days or {GROUPS[0]: own.test & ~new}), GROUPS[1]: new}
    groups = {name: mask for name, mask in groups.items() if mask.any()}
    if not groups:
        days = np.unique(windows.days[own.test & (windows.days >= 0)])
        known = ", ".join(map(str, days.tolist())) or "unknown"
        raise EdgeError(f"No tested window is of a day that the recipe's [benchmark.days] names; theirs are {known}.")
    if (own.train & own.test).any():
        raise EdgeError(f"The split {own.name} has windows on both sides; choose another in [evaluate] splits.")
    split = Split(own.name, 0, own.train & ~new, np.logical_or.reduce(list(groups.values())))
    return Sides(split, groups, own.train & new, own.test)


def kept_stages(windows: WindowSet, recipe: Recipe) -> tuple[str, ...]:
    """The stages, or groups of them, that the division of a data set keeps from training; none where it has no such division, or
    stages are no gestures to the recipe.
    """
    import numpy as np

    if recipe.windows.gestures_from != "stages":
        return ()
    new = np.isin(windows.generalizations, _NEW_STAGE) & (windows.labels >= 0)
    return tuple(windows.gestures[label] for label in np.unique(windows.labels[new]))


def _divided(windows: WindowSet, recipe: Recipe) -> Sides:
    """The division that comes with the data (emg2pose): probes and libraries learn the stages that networks have not seen from
    wearers that they have; what is judged is wearers that nobody has seen.
    """
    import numpy as np

    from embridge_edge.learning.splits import EMG2POSE_SPLITS, Split, make_splits, possible_splits

    leaking = [name for name in kept_stages(windows, recipe) if name not in recipe.windows.hold_out_gestures]
    if leaking:
        raise EdgeError(
            f"The division of these recordings keeps {leaking[0]!r} from training, which the recipe does not hold out; add it to "
            "hold_out_gestures, or leave that empty to hold out what the division keeps."
        )
    possible = [name for name in possible_splits(windows) if name in EMG2POSE_SPLITS]
    by_name = {name: make_splits(windows, name)[0] for name in possible}
    tests = [split.test for name, split in by_name.items() if name != "emg2pose_stage"]
    if not tests:
        raise EdgeError(
            "The division of these recordings has no test recordings of held-out users; add files of generalization user or "
            "user_stage."
        )
    new = np.logical_or.reduce(tests)
    shown = by_name["emg2pose_stage"].test if "emg2pose_stage" in by_name else np.zeros_like(new)
    split = Split("emg2pose", 0, by_name[possible[0]].train | shown, new)
    return Sides(split, {GROUPS[1]: new}, np.zeros_like(new), new)


def _given(windows: WindowSet, recipe: Recipe) -> Split:
    """The recipe's first split, or the first that the data allow, but by wearer: that is what unseen wearers are for."""
    from embridge_edge.learning.splits import make_splits, possible_splits

    chosen = [name for name in recipe.evaluate.splits or possible_splits(windows) if name != "wearer"]
    if not chosen:
        raise EdgeError(
            "These recordings have one session of each wearer and no repetitions; record a second session, or set later_share in "
            "the recipe's [benchmark]."
        )
    return make_splits(windows, chosen[0], recipe.evaluate.folds)[0]
