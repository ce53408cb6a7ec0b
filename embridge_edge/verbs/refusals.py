"""What `benchmark` refuses before anything is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embridge_edge.errors import EdgeError
from embridge_edge.recipe import Recipe, SimulatePlan, arm_recipe, arms_of
from embridge_edge.verbs.sides import sides_of

if TYPE_CHECKING:
    from embridge_edge.features.chain import SignalChain
    from embridge_edge.learning.windows import WindowSet


def simulation_of(plan: Recipe) -> SimulatePlan:
    """What the recipe simulates.

    Raises:
        EdgeError: nothing.
    """
    if plan.simulate is None:
        raise EdgeError(f"Recipe {plan.name} simulates nothing; give recordings with --data.")
    return plan.simulate


def simulated_chain(plan: Recipe) -> SignalChain:
    """The chain that the recipe becomes for its simulated recordings.

    Raises:
        EdgeError: the recipe simulates nothing, or its chain does not go with the rate.
    """
    from embridge_edge.features.chain import resolve

    simulation = simulation_of(plan)
    return resolve(plan.chain, simulation.rate_hz, simulation.channels, "V")


def refuse_impossible(plan: Recipe, chain: SignalChain) -> None:
    """Refuse an arm whose network cannot be, whatever the gestures.

    Raises:
        EdgeError: says of which arm.
    """
    from embridge_edge.learning.teacher import teacher_shape

    for name in plan.benchmark.arms:
        if arms_of(plan)[name].kind in ("network", "poses"):
            try:
                teacher_shape(chain, 0, arm_recipe(plan, name).teacher)
            except EdgeError as error:
                raise EdgeError(f"Arm {name}: {error}") from None


def refuse_unjudgeable(windows: WindowSet, recipe: Recipe) -> None:
    """Refuse a division in which zero-shot means nothing; one that holds out no gesture is judged on seen ones.

    Raises:
        EdgeError: a single unseen gesture, one that the recordings lack, or one without a pose.
    """
    import numpy as np

    from embridge_edge.gestures import read_library

    unseen = recipe.windows.hold_out_gestures
    if len(unseen) == 1:
        raise EdgeError(
            "The recipe holds out one gesture, which leaves nothing to choose between; name two or more, or none."
        )
    library = read_library()
    for name in unseen:
        if name not in windows.gestures:
            raise EdgeError(
                f"The recipe holds out {name!r}, which these recordings lack; they have {', '.join(windows.gestures)}."
            )
        if not windows.tracked and library.pose(name) is None:
            raise EdgeError(
                f"Gesture {name!r} has no pose, so it cannot be recognised unseen; add it to a gesture library."
            )
    sides = sides_of(windows, recipe)
    if not np.any(sides.split.train):
        raise EdgeError("Nothing is left to train on; hold out fewer wearers.")
