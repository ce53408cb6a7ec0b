"""What a [sweep] table may say, and that everything else is refused before anything is trained."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.recipe import Recipe, TrainPlan, find_recipe, varied
from embridge_edge.studies import distributions
from embridge_edge.sweeping import (
    NOT_SWEPT,
    OBJECTIVES,
    Choices,
    Range,
    SweepPlan,
    check_plan,
    number_kinds,
    overridden,
    own_values,
    read_plan,
    sweepable,
)

RECIPE = Recipe("tiny", "host", train=TrainPlan(temperature=0.05, batch=64))
HELD = 'hold_out_gestures = ["fist"]\n'


def plan(text: str, top: str = HELD) -> SweepPlan:
    """A plan with some parameters, checked against the recipe."""
    made = read_plan(tomllib.loads(f"{top}\n[parameters]\n{text}"))
    check_plan(made, RECIPE)
    return made


def test_a_table_becomes_ranges_and_choices() -> None:
    made = plan(
        """
        "train.temperature" = { low = 0.02, high = 0.2, log = true }
        train.batch = [32, 64]
        teacher.queries = { low = 4, high = 32, step = 4 }
        chain.features = [["RMS"], ["LOGRMS", "ZC"]]
        train.most_passes = [false, 2.5]
        """
    )
    assert made.parameters == {
        "train.temperature": Range(0.02, 0.2, log=True),
        "train.batch": Choices((32, 64)),
        "train.most_passes": Choices((False, 2.5)),
        "teacher.queries": Range(4, 32, step=4),
        "chain.features": Choices((("RMS",), ("LOGRMS", "ZC"))),
    }
    assert number_kinds(made, RECIPE) == {"train.temperature": float, "teacher.queries": int}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('"train.temprature" = [0.1, 0.2]', "train.temprature: unknown key; choose from train.gain_jitter"),
        ('"nonsense" = [1, 2]', "nonsense: unknown key; choose from chain.window_ms"),
        ('"student.queries" = [1, 2]', "student.queries: a sweep leaves this key alone; choose from chain."),
        ('"windows.hold_out_gestures" = [["a"], ["b"]]', "a sweep leaves this key alone; choose from windows.guard_ms"),
        ('"train.batch" = [32, 1]', "train.batch: 1 is impossible: Recipe tiny, train: batch is 1; give 2 or more."),
        ('"train.batch" = [32, "many"]', 'train.batch: "many" is impossible:'),
        ('"train.batch" = [32.0, 64]', "train.batch: 32.0 is impossible:"),
        ('"train.best_query" = [true, 1]', "names each value once"),
        (
            '"train.temperature" = { low = 0.0, high = 0.2 }',
            "train.temperature: 0.0 is impossible: Recipe tiny, train: temperature is 0;",
        ),
        ('"train.mask_share" = { low = 0.1, high = 1.5 }', "train.mask_share: 1.5 is impossible"),
        ('"teacher.queries" = { low = 2.5, high = 8 }', "teacher.queries: low is 2.5; whole numbers stand there."),
        ('"train.best_query" = { low = 0, high = 1 }', "no number stands there; give a list of values"),
        ('"train.temperature" = { low = 0.2, high = 0.1 }', "low 0.2 must be below high 0.1."),
        ('"train.temperature" = { low = 0.2 }', "high is missing"),
        ('"train.temperature" = { low = 0.1, hi = 0.2 }', "unknown key 'hi'; choose from low, high, log, step."),
        ('"train.temperature" = { low = 0.1, high = inf }', "high is inf; give a number."),
        ('"train.weight_decay" = { low = 0.0, high = 0.2, log = true }', "log needs low above 0"),
        ('"train.noise" = { low = 0.1, high = 0.2, log = true, step = 0.1 }', "log and step exclude each other"),
        ('"train.noise" = { low = 0.0, high = 0.25, step = 0.1 }', "must be whole steps of 0.1"),
        ('"train.temperature" = { low = 0.1, high = 0.2, log = 1 }', "log is 1; give true or false."),
        ('"train.temperature" = 0.1', "0.1 is no choice; give a list of values, or low and high."),
        ('"train.temperature" = [0.1]', "a list needs two values or more."),
        ('"train.batch" = [8, 16]\n[parameters.train]\nbatch = [8, 16]', "train.batch is given twice"),
        ("", "parameters is empty"),
    ],
)
def test_impossible_parameters_are_one_line(text: str, says: str) -> None:
    with pytest.raises(EdgeError) as caught:
        plan(text)
    assert says in str(caught.value)
    assert str(caught.value).startswith("[sweep]") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("top", "says"),
    [
        ("trails = 3", "unknown key 'trails'; choose from parameters, fixed, objective, direction, trials"),
        ('objective = "accuracy"', "objective is 'accuracy'; choose from zs_harmonic, zs_all_seen"),
        ('objective = "zs_harmonic"', "name some of the recordings' in hold_out_gestures, or choose from zs_all_seen"),
        ('objective = "zs_unseen"\n' + HELD, "chooses among held-out gestures; name two or more"),
        ('direction = "up"', "choose from maximize, minimize"),
        ('division = "day"', "choose from session, wearer"),
        ("trials = 0", "trials is 0; give 1 or more"),
        ("trials = true", "trials is True; give a whole number"),
        ("seed = -1", "seed is -1"),
        ("heartbeat_s = 0", "heartbeat_s is 0"),
        ('heartbeat_s = "often"', "heartbeat_s is 'often'; give a number"),
        ('hold_out_gestures = "fist"', "hold_out_gestures is 'fist'; give a list of names"),
        ('pruner = "median"\n' + HELD, "give seeds of 2 or more"),
        ("parameters = 3", "must be a table"),
        ("fixed = 3", "fixed is 3; give a table"),
    ],
)
def test_impossible_plans_are_one_line(top: str, says: str) -> None:
    parameters = "" if top.startswith("parameters") else '\n[parameters]\n"train.batch" = [8, 16]'
    with pytest.raises(EdgeError) as caught:
        read_plan(tomllib.loads(top + parameters))
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_fixed_keys_are_checked_as_parameters_are() -> None:
    made = plan('"train.batch" = [8, 16]', HELD + '[fixed]\ntrain.steps = 40\nchain.features = ["RMS"]')
    assert made.fixed == {"train.steps": 40, "chain.features": ("RMS",)}
    assert made.identity["fixed"] == {"train.steps": 40, "chain.features": ["RMS"]}
    for fixed, says in (
        ("train.batch = 4", "[sweep] fixed, train.batch: it is among the parameters"),
        ("train.stepps = 4", "[sweep] fixed, train.stepps: unknown key; choose from train."),
        ("train.steps = 0.5", "[sweep] fixed, train.steps: 0.5 is impossible"),
        ('windows.gestures_from = "stages"', "a sweep leaves this key alone"),
    ):
        with pytest.raises(EdgeError) as caught:
            plan('"train.batch" = [8, 16]', HELD + f"[fixed]\n{fixed}")
        assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_recipes_own_test_gestures_are_not_judged_by() -> None:
    held = varied(RECIPE, {"windows.hold_out_gestures": ["fist"]})
    with pytest.raises(EdgeError, match="'fist' is held out by the recipe itself"):
        check_plan(plan('"train.batch" = [8, 16]'), held)


@pytest.mark.parametrize("name", ["quick", "armband-m4"])
def test_every_key_that_says_how_a_teacher_is_made_can_be_swept(name: str) -> None:
    known = sweepable(find_recipe(name))
    assert {key.partition(".")[0] for key in known} == {"chain", "windows", "teacher", "train"}
    assert not set(known) & set(NOT_SWEPT)


def test_own_values_are_known_where_they_can_be_drawn() -> None:
    inside = plan('"train.temperature" = { low = 0.02, high = 0.2 }\n"train.most_passes" = [false, 2.0]')
    assert own_values(inside, RECIPE) == {"train.temperature": 0.05, "train.most_passes": False}
    assert own_values(plan('"train.temperature" = { low = 0.1, high = 0.2 }'), RECIPE) is None
    assert own_values(plan('"train.noise" = { low = 0.1, high = 0.5, step = 0.2 }'), RECIPE) is None


def test_trials_and_heartbeat_do_not_make_another_study() -> None:
    text = '"train.batch" = [8, 16]'
    one = plan(text)
    assert plan(text, HELD + "trials = 7\nheartbeat_s = 1").identity == one.identity
    for top in ("seed = 1", "seeds = 2", 'objective = "lp_seen"', 'sampler = "random"', 'division = "wearer"'):
        assert plan(text, HELD + top).identity != one.identity
    assert plan('"train.batch" = [8, 32]').identity != one.identity


def test_every_objective_is_explained() -> None:
    assert set(OBJECTIVES) == set(SweepPlan._choices["objective"])


numbers = st.one_of(
    st.tuples(st.integers(1, 50), st.integers(1, 200), st.integers(1, 5)).map(
        lambda t: (t[0], t[0] + t[1] * t[2], t[2])
    ),
    st.tuples(st.integers(1, 50), st.integers(1, 40), st.sampled_from([0.1, 0.25, 0.05])).map(
        lambda t: (t[0] * t[2], round(t[0] * t[2] + t[1] * t[2], 2), t[2])
    ),
)


@given(numbers, st.sampled_from(["plain", "log", "step"]), st.integers(0, 2**31 - 1))
def test_what_is_drawn_is_among_what_may_be(ends: tuple[Any, Any, Any], kind: str, seed: int) -> None:
    from optuna.samplers import RandomSampler
    from optuna.study import create_study

    low, high, step = round(ends[0], 2), ends[1], ends[2]
    allowed = Range(low, high, log=kind == "log", step=step if kind == "step" else None)
    made = SweepPlan({"x": allowed}, objective="lp_seen")
    space = distributions(made, {"x": int if type(low) is int and type(high) is int else float})
    drawn = create_study(sampler=RandomSampler(seed=seed)).ask(space).params["x"]
    assert allowed.low <= drawn <= allowed.high
    if kind != "step" or type(drawn) is int:
        assert allowed.holds(drawn)


@given(st.dictionaries(st.sampled_from(["a", "b.c", "b.d", "e.f"]), st.integers() | st.lists(st.integers()).map(tuple)))
def test_overridden_tables_hold_the_values_and_leave_the_rest(values: dict[str, Any]) -> None:
    table = {"a": 1, "b": {"c": 2, "z": 3}}
    made = overridden(table, values)
    assert table == {"a": 1, "b": {"c": 2, "z": 3}}
    assert made["b"]["z"] == 3
    for key, value in values.items():
        first, _, rest = key.partition(".")
        found = made[first][rest] if rest else made[first]
        assert found == (list(value) if isinstance(value, tuple) else value)
