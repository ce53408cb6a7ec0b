"""A recipe is data: what is wrong in it is one line, and it survives being stored in an artifact."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.catalogue import FEATURES
from embridge_edge.features.chain import ChainPlan
from embridge_edge.hardware.target import find_target
from embridge_edge.recipe import (
    SPLITS,
    DistillPlan,
    EvaluatePlan,
    GatePlan,
    Recipe,
    StudentPlan,
    TrainPlan,
    WindowPlan,
    arm_recipe,
    find_recipe,
    recipe_from_dict,
    shipped_recipes,
)
from embridge_edge.verbs.workflow import shortened


def test_the_promised_recipes_are_shipped() -> None:
    assert {"armband-m4", "armband-m7", "phone", "demo"} <= set(shipped_recipes())


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipe_loads_names_a_target_and_survives_json(name: str) -> None:
    recipe = find_recipe(name)
    assert recipe.name == name
    assert find_target(recipe.target).name == recipe.target
    again = recipe_from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.sha256 == recipe.sha256


some = st.floats(0.01, 100.0)


@given(
    st.builds(
        Recipe,
        name=st.text(max_size=5),
        target=st.text(max_size=5),
        chain=st.builds(
            ChainPlan,
            window_ms=st.floats(50, 900),
            hop_ms=st.floats(1, 50),
            bandpass_hz=st.none() | st.tuples(some, some),
            notch_hz=st.none() | st.sampled_from([50.0, 60.0]),
            features=st.lists(st.sampled_from(sorted(FEATURES)), max_size=3).map(tuple),
        ),
        windows=st.builds(WindowPlan, guard_ms=some, hold_out_gestures=st.lists(st.text(max_size=3)).map(tuple)),
        train=st.builds(TrainPlan, steps=st.integers(1, 9), learning_rate=some, best_query=st.booleans()),
        student=st.integers(1, 4).map(lambda n: StudentPlan(widths=(8,) * n, kernels=(3,) * n, strides=(2,) * n)),
        distill=st.builds(DistillPlan, pose_weight=some),
        evaluate=st.builds(EvaluatePlan, splits=st.lists(st.sampled_from(SPLITS)).map(tuple)),
        gates=st.builds(GatePlan, int8_loss=st.none() | some, tflite_bytes=st.none() | st.integers(0, 9)),
    )
)
@settings(max_examples=50, deadline=None)
def test_any_recipe_survives_json(recipe: Recipe) -> None:
    again = recipe_from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.sha256 == recipe.sha256


def test_unknown_recipe_lists_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="Unknown recipe 'armband'; choose one of armband-2khz, armband-m4"):
        find_recipe("armband")
    with pytest.raises(EdgeError, match="or give a file"):
        find_recipe(str(tmp_path))


BASE = 'name = "mine"\ntarget = "nrf52840"\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BASE + "colour = 1", "unknown key 'colour'; choose from name, target, chain"),
        (BASE + "[train]\nstep = 1", "train: unknown key 'step'; choose from gain_jitter, .*pose_steps"),
        (BASE + "[train]\nsteps = 1.5", "train, steps: 1.5 is not of type int"),
        (BASE + "[train]\nsteps = true", "True is not of type int"),
        (BASE + "[train]\nbest_query = 1", "1 is not of type bool"),
        (BASE + "[train]\nlearning_rate = '1e-3'", "not of type float"),
        (BASE + "[train]\nlearning_rate = nan", "not of type float"),
        (BASE + "[train]\nlearning_rate = inf", "not of type float"),
        (BASE + "[train]\ntemperature = 0.0", "temperature is 0"),
        (BASE + "[train]\nbatch = 0", r"Recipe .*, train: batch is 0; give 2 or more"),
        (BASE + "[train]\nsteps = -1", "steps is -1"),
        (BASE + "[train]\nmask_share = 1.0", "mask_share"),
        (BASE + "[teacher]\nheads = 0", "heads is 0"),
        (BASE + "[teacher]\ndropout = 1.0", "dropout is 1"),
        (BASE + "[student]\nwidths = [8, 8]", "one of each per block"),
        (BASE + "[student]\nwidths = [8]\nkernels = [3]\nstrides = [4]", "strides of 1 or 2"),
        (BASE + "[student]\nwidths = [8]\nkernels = [3]\nstrides = [0]", "strides is"),
        (BASE + "[student]\nwidths = 8", "not of type tuple"),
        (BASE + "[distill]\nteacher_windows = 0", "teacher_windows is 0"),
        (BASE + "[quantize]\nobserver = 'mean'", "Recipe .*, quantize: Unknown observer 'mean'; choose from minmax"),
        (BASE + "[quantize]\nwindows = 0", "windows is 0"),
        (BASE + "[quantize.qat]\nsteps = 0", "steps is 0"),
        (BASE + "[quantize.qat]\nshare = 0.0", r"quantize, qat: share is 0; give more than 0, up to 1"),
        (BASE + "[quantize.qat]\nlearning_rate = 0.0", r"quantize, qat: learning_rate is 0; give more than 0"),
        (BASE + "[quantize]\nwide = ['01*']\n[quantize.qat]", "leave wide and mix out of the recipe, or qat"),
        (BASE + "[quantize.mix]\n[quantize.qat]", "leave wide and mix out of the recipe, or qat"),
        (
            BASE + "[student]\nfamily = 'transformer'\n[quantize]\nequalise = true",
            r"equalise in \[quantize\] is for a convolutional",
        ),
        (
            BASE + "[student]\nfamily = 'transformer'\n[prune]\nbudget = { macs = 1 }",
            r"budget in \[prune\] is for a convolutional",
        ),
        (BASE + "[evaluate]\nsplits = ['week']", "Unknown split 'week'; choose from session"),
        (BASE + "[evaluate]\nsplits = 'day'", "not of type tuple"),
        (BASE + "[evaluate]\nfolds = 1", "folds is 1"),
        (BASE + "[evaluate]\nfold_share = 0.0", "fold_share is 0"),
        (BASE + "[windows]\nguard_ms = -1.0", "guard_ms is -1"),
        (BASE + "[chain]\nbandpass_hz = [20.0]", "not of type"),
        (BASE + "[chain]\nhop_ms = 0.0", "hop_ms 0"),
        (BASE + "[chain]\nwindow_ms = inf", "not of type float"),
        (BASE + "chain = 1", "chain must be a table"),
        ("name = 'mine'", "target is missing"),
        ("name = ", "is not valid TOML"),
        ("\0", "is not valid TOML"),
    ],
)
def test_wrong_recipe_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(EdgeError, match=says) as caught:
        find_recipe(str(tmp_path / "mine.toml"))
    assert "\n" not in str(caught.value)


def test_whole_number_counts_as_a_float_and_hashes_alike(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(BASE + "[chain]\nwindow_ms = 200")
    (tmp_path / "b.toml").write_text(BASE + "[chain]\nwindow_ms = 200.0")
    one, two = (find_recipe(str(tmp_path / name)) for name in ("a.toml", "b.toml"))
    assert one == two
    assert one.sha256 == two.sha256


def test_false_leaves_what_may_be_left_open(tmp_path: Path) -> None:
    file = tmp_path / "open.toml"
    file.write_text('name = "x"\ntarget = "host"\n[chain]\nbandpass_hz = false\n[gates]\nclass_flips = false\n')
    recipe = find_recipe(str(file))
    assert recipe.chain.bandpass_hz is None
    assert recipe.gates.class_flips is None
    file.write_text('name = "x"\ntarget = "host"\n[chain]\nwindow_ms = false\n')
    with pytest.raises(EdgeError, match="window_ms"):
        find_recipe(str(file))


@pytest.mark.parametrize(
    ("share", "windows", "expected"),
    [
        (1.0, 10**6, (300, 2000)),
        (0.5, 10**6, (150, 1000)),
        (1.0, 64_000, (75, 500)),
        (0.5, 64_000, (38, 250)),
        (1.0, 1, (1, 1)),
    ],
)
def test_few_windows_are_not_trained_on_for_long(share: float, windows: int, expected: tuple[int, int]) -> None:
    plan = shortened(TrainPlan(pose_steps=300, steps=2000, batch=256, most_passes=2.0), share, windows)
    assert (plan.pose_steps, plan.steps) == expected
    assert shortened(TrainPlan(steps=2000), 1.0, 1).steps == 2000


def test_stored_recipe_that_is_damaged_is_one_line() -> None:
    with pytest.raises(EdgeError, match="The stored recipe: target is missing"):
        recipe_from_dict({"name": "x"})


ARMS = """
[arms.long]
title = "CPEP, more steps"
base = "cpep"
changes = { "train.steps" = 7, "train.temperature" = 0.5 }

[arms.longer]
title = "CPEP, still more steps"
base = "long"
changes = { "train.steps" = 9 }

[arms.round]
title = "Round"
base = "about"
changes = {}

[arms.about]
title = "About"
base = "round"
changes = {}

[arms.lost]
title = "Lost"
base = "cpepp"
changes = {}
"""


def test_an_arm_changes_what_the_arm_it_is_based_on_left(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text('name = "a"\ntarget = "host"\n' + ARMS)
    recipe = find_recipe(str(file))
    cpep, long, longer = (arm_recipe(recipe, name) for name in ("cpep", "long", "longer"))
    assert (long.train.steps, long.train.temperature, long.teacher.readout) == (7, 0.5, "cls")
    assert longer.train == replace(long.train, steps=9)
    assert longer.teacher == cpep.teacher
    with pytest.raises(EdgeError, match=r"Arm 'round' is based on itself \(round on about on round\)"):
        arm_recipe(recipe, "round")
    with pytest.raises(EdgeError, match=r"Unknown arm 'cpepp'; choose from .*cpep"):
        arm_recipe(recipe, "lost")
