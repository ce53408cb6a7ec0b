"""Who and what a benchmark trains on, and who and what it tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embridge_edge.errors import EdgeError
from embridge_edge.recipe import Recipe

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.learning.splits import Split
    from embridge_edge.learning.windows import WindowSet

    Mask = npt.NDArray[np.bool_]

GROUPS = ("seen_wearers", "unseen_wearers")


@dataclass(frozen=True)
class Sides:
    """Which windows train and which test.

    Attributes:
        split: the training side, and everything that is tested. groups: bool `[windows]` by group.
        shown: bool `[windows]`, where windows may be shown of a test wearer (few-shot), though the network has not seen them:
            the training side of wearers that are never trained on. late: the test side, of all wearers.
    """

    split: Split
    groups: dict[str, Mask]
    shown: Mask
    late: Mask


def sides_of(windows: WindowSet, recipe: Recipe) -> Sides:
    """The benchmark's division of people and sessions: the last so many wearers are never trained on, the others are tested
    on what the recipe's first split (else the first that the data allow) keeps for testing.

    Raises:
        EdgeError: there are no such wearers, or nothing is left to train on.
    """
    import numpy as np

    from embridge_edge.learning.splits import Split, later_split
    from embridge_edge.recordings.store import natural

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
    groups = {GROUPS[0]: own.test & ~new, GROUPS[1]: new}
    groups = {name: mask for name, mask in groups.items() if mask.any()}
    if (own.train & own.test).any():
        raise EdgeError(f"The split {own.name} has windows on both sides; choose another in [evaluate] splits.")
    split = Split(own.name, 0, own.train & ~new, np.logical_or.reduce(list(groups.values())))
    return Sides(split, groups, own.train & new, own.test)


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
