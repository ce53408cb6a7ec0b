"""The people that `benchmark --recipe tiny` compares on are fixed: who changes the simulator or the recipe makes new ones.

The figures in the documentation belong to these. If they change on purpose, measure the table again, and say so beside it.
"""

from __future__ import annotations

import numpy as np
import pytest

from embridge_edge.gestures import read_library
from embridge_edge.recipe import SimulatePlan, find_recipe
from embridge_edge.synthesis.armband import choose_armband
from embridge_edge.synthesis.session import make_wearer, simulate_session

PLAN = find_recipe("tiny")

# Standard deviation of four channels in µV, and the mean of four angles in radians, over 20 s.
FIRST = ([70.657, 204.048, 85.142, 226.570], [0.2502, 0.6106, 0.5449, 0.7634])
LAST = ([34.675, 31.959, 13.294, 54.681], [0.2184, 0.5126, 0.4799, 0.6630])


def test_the_recipe_says_what_it_said_before_the_first_comparison() -> None:
    expected = SimulatePlan(
        wearers=20, sessions=3, seconds=240.0, channels=16, rate_hz=2000.0, free_share=0.5, seed=2026
    )
    assert PLAN.simulate == expected
    assert PLAN.windows.hold_out_gestures == ("point", "pinch", "ulnar_deviation", "supination")
    assert PLAN.benchmark.unseen_wearers == 6
    assert PLAN.benchmark.seeds == (0, 1, 2)


@pytest.mark.parametrize(("wearer", "session", "known"), [(1, 1, FIRST), (20, 3, LAST)])
def test_its_people_are_the_same(wearer: int, session: int, known: tuple[list[float], list[float]]) -> None:
    plan = PLAN.simulate
    assert plan is not None
    library = read_library()
    names = tuple(library.gestures)
    made = simulate_session(
        make_wearer(wearer, plan.seed),
        session,
        choose_armband(plan.channels, plan.rate_hz),
        names,
        library.poses(names).astype(float),
        20.0,
        plan.free_share,
        never_free=PLAN.windows.hold_out_gestures,
    )
    assert made.pose is not None
    np.testing.assert_allclose(made.emg.std(axis=0)[::4] * 1e6, known[0], rtol=1e-3)
    np.testing.assert_allclose(made.pose.mean(axis=0)[[0, 6, 10, 14]], known[1], atol=1e-3)
