"""No sample is on both sides of a split, however a data set is put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning import near
from embridge_edge.learning.near import Near, near_gestures, poses_near
from embridge_edge.learning.splits import (
    Split,
    SplitLeaks,
    later_split,
    make_splits,
    named_split,
    near_windows,
    possible_splits,
    training_windows,
    validation_split,
)
from embridge_edge.learning.windows import WindowSet, chunks
from embridge_edge.recipe import find_recipe
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.seen import refuse_leak
from embridge_edge.verbs.workflow import Job, provenance

WINDOW, HOP = 40, 10


def samples(windows: WindowSet, which: np.ndarray, *, moved: bool) -> np.ndarray:
    """Which samples some windows touch; `moved` lets each go as far to the right as training may move it."""
    touched = np.zeros(len(windows.signal), bool)
    for window in np.flatnonzero(which) if which.dtype == bool else which:
        reach = min(windows.slack[window], windows.chain.hop - 1) if moved else 0
        touched[windows.starts[window] : windows.starts[window] + windows.chain.window + reach] = True
    return touched


def assert_apart(windows: WindowSet, split: Split) -> None:
    train = samples(windows, training_windows(windows, split), moved=True)
    assert not (train & samples(windows, split.test, moved=False)).any()
    assert split.test.any()


run = st.tuples(st.sampled_from([-1, 0, 1, 2]), st.integers(5, 150))


@given(
    runs=st.lists(run, min_size=3, max_size=8),
    repetitions=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    days=st.lists(st.sampled_from([None, 1, 2, 3]), min_size=6, max_size=6),
    tracked=st.booleans(),
    name=st.sampled_from(["session", "day", "wearer", "repetition"]),
)
@settings(max_examples=60, deadline=None)
def test_no_sample_is_on_both_sides(
    recording: Callable[..., Recording],
    cut: Callable[..., WindowSet],
    runs: list[tuple[int, int]],
    repetitions: list[int],
    days: list[int | None],
    tracked: bool,
    name: str,
) -> None:
    runs = [*runs, (1, 60)]
    counts = [*repetitions, 1][: len(runs)]
    windows = cut(
        [
            recording(wearer, session, runs, day=days[place], repetitions=counts, tracked=tracked)
            for place, (wearer, session) in enumerate((w, s) for w in "abc" for s in "12")
        ]
    )
    try:
        splits = make_splits(windows, name, folds=2)
    except EdgeError:
        assert name in ("day", "repetition")
        return
    for split in splits:
        assert not (split.train & split.test).any()
        if split.test.any():
            assert_apart(windows, split)


def test_wearer_folds_partition_the_people_whatever_the_order_of_reading(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    names = ["p3", "p1", "p2", "p5", "p4"]
    by_order = []
    for order in (names, sorted(names)):
        windows = cut([recording(name, "1", [(0, 60)]) for name in order])
        splits = make_splits(windows, "wearer", folds=3)
        assert len(splits) == 3
        assert (sum(split.test.astype(int) for split in splits) == 1).all()
        for split in splits:
            assert (split.train == ~split.test).all()
            assert_apart(windows, split)
        by_order.append([{windows.wearer_names[i] for i in np.unique(windows.wearers[split.test])} for split in splits])
    assert by_order[0] == by_order[1]


def test_validation_looks_at_training_sessions_only(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    windows = cut([recording(name[0], name[1:], [(0, 60)]) for name in ("a1", "a2", "a10", "b1", "b2", "c1")])
    split = make_splits(windows, "session")[0]
    inner = validation_split(windows, split)
    assert_apart(windows, inner)
    assert not (split.test & (inner.train | inner.test)).any()
    assert ((inner.train | inner.test) == split.train).all()
    tested = {windows.session_names[place] for place in np.unique(windows.sessions[inner.test])}
    assert len(tested) == 1  # of a, whose last is 10; b has one session left to train on, c never had two
    with pytest.raises(EdgeError, match="No wearer has two sessions"):
        validation_split(windows, inner)


def test_folds_are_no_more_than_wearers(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    windows = cut([recording(name, "1", [(0, 60)]) for name in "ab"])
    assert len(make_splits(windows, "wearer", folds=5)) == 2
    with pytest.raises(EdgeError, match="one wearer"):
        make_splits(cut([recording()]), "wearer")


@pytest.mark.parametrize("order", [["1", "2", "10"], ["10", "2", "1"], ["2", "10", "1"]])
def test_last_session_is_the_last_by_natural_order(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], order: list[str]
) -> None:
    windows = cut([recording("a", session, [(0, 60)]) for session in order])
    (split,) = make_splits(windows, "session")
    assert {windows.session_names[i] for i in np.unique(windows.sessions[split.test])} == {"a/10"}
    assert_apart(windows, split)


def test_last_session_is_the_last_day_where_days_are_known(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    windows = cut([recording("a", "x", [(0, 60)], day=2), recording("a", "y", [(0, 60)], day=1)])
    (split,) = make_splits(windows, "session")
    assert {windows.session_names[i] for i in np.unique(windows.sessions[split.test])} == {"a/x"}


def test_wearer_with_one_session_only_trains(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    windows = cut([recording("a", "1"), recording("a", "2"), recording("b", "1")])
    (split,) = make_splits(windows, "session")
    assert split.train[windows.wearers == 1].all()
    with pytest.raises(EdgeError, match="second session"):
        make_splits(cut([recording()]), "session")


def test_day_split_tests_later_days_of_each_wearer_and_leaves_unknown_ones_out(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    windows = cut(
        [
            recording("a", "1", [(0, 60)], day=1),
            recording("a", "2", [(0, 60)], day=4),
            recording("b", "1", [(0, 60)], day=3),
            recording("b", "2", [(0, 60)]),
        ]
    )
    (split,) = make_splits(windows, "day")
    sides = {
        windows.session_names[session]: (split.train[windows.sessions == session][0], split.test[windows.sessions == session][0])
        for session in range(4)
    }  # fmt: skip
    assert sides == {"a/1": (True, False), "a/2": (False, True), "b/1": (True, False), "b/2": (False, False)}


@pytest.mark.parametrize("days", [(None, None), (1, 1)])
def test_day_split_needs_a_second_day_of_one_wearer(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], days: tuple[int | None, int | None]
) -> None:
    windows = cut(
        [recording("a", "1", day=days[0]), recording("a", "2", day=days[1]), recording("b", "1", day=days[0])]
    )
    with pytest.raises(EdgeError, match="second day"):
        make_splits(windows, "day")
    assert possible_splits(windows)[0] == "session"


def test_one_day_each_is_no_split_by_day(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    windows = cut([recording("a", "1", day=1), recording("b", "1", day=2), recording("b", "2", day=2)])
    assert possible_splits(windows) == ["session"]


def test_repetition_split_tests_the_last_third(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    runs = [(label, 120) for _ in range(6) for label in (1, 2)]
    windows = cut([recording(runs=runs, repetitions=[n for n in range(1, 7) for _ in range(2)])])
    (split,) = make_splits(windows, "repetition")
    assert set(windows.lowest_repetitions[split.test]) == {5, 6}
    assert set(windows.highest_repetitions[split.train]) == {1, 2, 3, 4}
    assert_apart(windows, split)
    assert possible_splits(windows) == ["repetition"]
    with pytest.raises(EdgeError, match="no repetitions"):
        make_splits(cut([recording()]), "repetition")


def rounds(**numbers: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Runs and repetitions of a session that makes each gesture so often in a row, rest before every one."""
    names = ("rest", "fist", "flexion", "extension")
    made = [(names.index(name), number) for name, count in numbers.items() for number in range(1, count + 1)]
    return [run for label, _ in made for run in ((0, 120), (label, 120))], [n for _, n in made for _ in range(2)]


FOUR = ("rest", "fist", "flexion", "extension")


def test_each_gesture_is_tested_on_the_last_third_of_its_own_repetitions(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    runs, repetitions = rounds(fist=6, flexion=6, extension=2)
    windows = cut([recording(runs=runs, repetitions=repetitions, gestures=FOUR)])
    (split,) = make_splits(windows, "repetition")
    assert_apart(windows, split)
    for side, expected in ((split.test, [{5, 6}, {5, 6}, {2}]), (split.train, [{1, 2, 3, 4}, {1, 2, 3, 4}, {1}])):
        found = [set(windows.lowest_repetitions[side & (windows.labels == label)]) for label in (1, 2, 3)]
        assert found == expected


def test_rest_is_on_the_side_of_the_gesture_that_follows_it(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    runs, repetitions = rounds(fist=6, extension=2)
    windows = cut([recording(runs=[*runs, (0, 120)], repetitions=[*repetitions, 2], gestures=FOUR)])
    (split,) = make_splits(windows, "repetition")
    edges = np.concatenate([[0], np.cumsum([count for _, count in [*runs, (0, 120)]])])
    tested = [
        bool(split.test[(windows.labels == 0) & (windows.starts >= start) & (windows.starts < stop)].all())
        for start, stop in zip(edges[0::2], edges[1::2], strict=False)
    ]
    assert tested == [False] * 4 + [True] * 2 + [False, True, True]


def test_a_gesture_that_is_made_once_only_trains(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    runs, repetitions = rounds(fist=1, flexion=1)
    with pytest.raises(EdgeError, match="no repetitions"):
        make_splits(cut([recording(runs=runs, repetitions=repetitions)]), "repetition")
    with pytest.raises(EdgeError, match="allow no split"):
        possible_splits(cut([recording(runs=runs, repetitions=repetitions)]))


def test_files_of_one_gesture_each_split_by_the_number_in_their_path(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    """Rest in files of its own, as in longterm_shift, goes by its own repetitions."""
    files = [recording(runs=[(label, 80)], repetitions=[n], gestures=FOUR) for label in (0, 1, 2) for n in (1, 2, 3, 4)]
    windows = cut(files)
    (split,) = make_splits(windows, "repetition")
    for label in (0, 1, 2):
        assert set(windows.lowest_repetitions[split.test & (windows.labels == label)]) == {4}
        assert set(windows.lowest_repetitions[split.train & (windows.labels == label)]) == {1, 2, 3}


def remembered(windows: WindowSet, split: str | None) -> dict[str, Any]:
    """The provenance of a model that is trained on `windows` under `split`."""
    chosen = None if split is None else make_splits(windows, split)[0]
    job = Job(windows, chosen, training_windows(windows, chosen), read_library())
    return provenance(job, find_recipe("armband-m4"), 0, ())


def test_a_model_is_not_judged_on_repetitions_that_it_was_trained_on(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    def session(**numbers: int) -> WindowSet:
        runs, repetitions = rounds(**numbers)
        return cut([recording(runs=runs, repetitions=repetitions, gestures=FOUR)])

    whole, copy = session(fist=6, flexion=6, extension=2), session(fist=3, flexion=3, extension=2)
    refuse_leak(remembered(whole, "repetition"), whole, make_splits(whole, "repetition")[0])
    refuse_leak(remembered(copy, "repetition"), copy, make_splits(copy, "repetition")[0])
    refuse_leak(remembered(copy, "repetition"), whole, make_splits(whole, "repetition")[0])
    with pytest.raises(EdgeError, match="repetition 3 of 'fist' in a/1 …"):
        refuse_leak(remembered(whole, "repetition"), copy, make_splits(copy, "repetition")[0])
    student = remembered(copy, "repetition")  # of a teacher that has seen more, which its student knows through it
    student["seen_sessions"] = [*student["seen_sessions"], *remembered(whole, "repetition")["seen_sessions"]]
    with pytest.raises(EdgeError, match="repetition 3 of 'fist' in a/1 …"):
        refuse_leak(student, copy, make_splits(copy, "repetition")[0])
    with pytest.raises(EdgeError, match="--split none"):
        refuse_leak(remembered(whole, None), whole, make_splits(whole, "repetition")[0])


def test_sessions_of_which_some_repetitions_were_seen_are_seen(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    runs, repetitions = rounds(fist=3)
    windows = cut([recording("a", name, runs, repetitions=repetitions, gestures=FOUR) for name in "12"])
    other = cut([recording("b", name, runs, repetitions=repetitions, gestures=FOUR) for name in "12"])
    stored = remembered(windows, "repetition")
    with pytest.raises(EdgeError, match=r"test sessions of --split session \(a/2 …\)"):
        refuse_leak(stored, windows, make_splits(windows, "session")[0])
    refuse_leak(stored, other, make_splits(other, "session")[0])
    refuse_leak(remembered(windows, "session"), other, make_splits(other, "repetition")[0])


def test_what_cannot_be_split_says_so(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    with pytest.raises(EdgeError, match="allow no split"):
        possible_splits(cut([recording()]))


def test_five_wearers_allow_folds(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    windows = cut([recording(name, session, [(0, 60)]) for name in "abcde" for session in "12"])
    assert possible_splits(windows) == ["session", "wearer"]


@given(st.lists(run, min_size=3, max_size=8))
@settings(max_examples=40, deadline=None)
def test_held_out_gesture_is_never_in_a_training_window(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], runs: list[tuple[int, int]]
) -> None:
    made = recording(runs=[*runs, (0, 200)])
    windows = cut([made], hold_out_gestures=("fist", "not there"))
    assert made.labels is not None
    touched = samples(windows, training_windows(windows, None), moved=True)[: len(made.labels)]
    assert not (touched & (made.labels == 1)).any()


def test_window_without_label_and_pose_does_not_train(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    unknown = cut([recording(runs=[(0, 300), (1, 300)], gestures=("M3", "M4"))])
    assert (unknown.labels[training_windows(unknown, None)] >= 0).all()
    assert len(training_windows(cut([recording(labelled=False)]), None)) == 0
    tracked = cut([recording(labelled=False, tracked=True)])
    assert len(training_windows(tracked, None)) == len(tracked)


def placed(made: Recording, partition: str, generalization: str = "", stage: str = "fists") -> Recording:
    return replace(made, partition=partition, generalization=generalization, stage=stage)


@pytest.fixture(scope="module")
def divided(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> WindowSet:
    """Every cell of emg2pose's division: known and new wearers, known and new stages, some of each to validate on."""
    runs = [(0, 60)]
    return cut(
        [
            placed(recording("a", "1", runs), "train"),
            placed(recording("b", "1", runs), "train", stage="pinches"),
            placed(recording("c", "1", runs), "val", "user"),
            placed(recording("d", "1", runs), "test", "user"),
            placed(recording("a", "1", runs), "test", "stage", "counting"),
            placed(recording("b", "1", runs), "val", "stage", "throwing"),
            placed(recording("d", "1", runs), "test", "user_stage", "counting"),
            recording("e", "1", runs),
        ]
    )


@pytest.mark.parametrize(
    ("name", "tested", "validated"),
    [
        ("emg2pose_user", {("d", "fists")}, {("c", "fists")}),
        ("emg2pose_stage", {("a", "counting")}, {("b", "throwing")}),
        ("emg2pose_user_stage", {("d", "counting")}, {("c", "fists"), ("b", "throwing")}),
    ],
)
def test_splits_of_emg2pose_are_its_own(
    divided: WindowSet, name: str, tested: set[tuple[str, str]], validated: set[tuple[str, str]]
) -> None:
    def who(side: np.ndarray) -> set[tuple[str, str]]:
        pairs = np.unique(np.stack([divided.wearers[side], divided.stages[side]]), axis=1).T.tolist()
        return {(divided.wearer_names[wearer], divided.stage_names[stage]) for wearer, stage in pairs}

    (split,) = make_splits(divided, name)
    assert_apart(divided, split)
    assert (split.name, who(split.train), who(split.test)) == (name, {("a", "fists"), ("b", "pinches")}, tested)
    inner = validation_split(divided, split)
    assert (who(inner.train), who(inner.test)) == (who(split.train), validated)
    assert name in possible_splits(divided)


@pytest.mark.parametrize(
    ("name", "train", "test", "says"),
    [
        (
            "emg2pose_user",
            ("a", "fists"),
            ("a", "counting"),
            "emg2pose_user would leak: wearer 'a' is in training and in",
        ),
        ("emg2pose_stage", ("a", "fists"), ("a", "fists"), "emg2pose_stage would leak: stage 'fists'"),
        ("emg2pose_user_stage", ("a", "fists"), ("b", "fists"), "emg2pose_user_stage would leak: stage 'fists'"),
        ("emg2pose_user_stage", ("a", "fists"), ("a", "counting"), "emg2pose_user_stage would leak: wearer 'a'"),
    ],
)
def test_split_of_emg2pose_that_leaks_is_refused(
    recording: Callable[..., Recording],
    cut: Callable[..., WindowSet],
    name: str,
    train: tuple[str, str],
    test: tuple[str, str],
    says: str,
) -> None:
    kind = name.removeprefix("emg2pose_")
    windows = cut(
        [
            placed(recording(train[0]), "train", stage=train[1]),
            placed(recording(test[0], "2"), "test", kind, test[1]),
        ]
    )
    with pytest.raises(SplitLeaks, match=says):
        make_splits(windows, name)


def test_split_of_emg2pose_needs_its_table(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    with pytest.raises(EdgeError, match=r"No recording to train on by a metadata\.csv"):
        make_splits(cut([recording()]), "emg2pose_user")
    trained = cut([placed(recording("a", name), "train") for name in "12"])
    with pytest.raises(EdgeError, match="No recording to test on that is new in user and stage"):
        make_splits(trained, "emg2pose_user_stage")
    assert possible_splits(trained) == ["session"]


def test_a_custom_of_the_data_set_says_which_repetitions_are_tested(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    runs, repetitions = rounds(fist=6, flexion=6, extension=1)
    made = recording(runs=runs, repetitions=repetitions, gestures=FOUR)
    windows = cut([replace(made, test_repetitions=(2, 5))])
    (split,) = make_splits(windows, "repetition")
    assert_apart(windows, split)
    assert set(windows.lowest_repetitions[split.test]) == set(windows.highest_repetitions[split.test]) == {2, 5}
    assert set(windows.lowest_repetitions[split.train & (windows.labels >= 0)]) == {1, 3, 4, 6}
    assert (split.train | split.test)[windows.lowest_repetitions == windows.highest_repetitions].all()
    assert possible_splits(windows) == ["repetition"]
    (other,) = make_splits(windows, "repetition", test_repetitions=(6,))
    assert set(windows.lowest_repetitions[other.test]) == {6}
    (plain,) = make_splits(cut([made]), "repetition")
    assert set(windows.lowest_repetitions[plain.test & (windows.labels == 1)]) == {5, 6}
    (asked,) = make_splits(cut([made]), "repetition", test_repetitions=(2, 5))
    np.testing.assert_array_equal(asked.test, split.test)


@pytest.mark.parametrize(
    ("tested", "says"),
    [
        ((7, 9), r"No window lies in repetition 7, 9; .* up to 6"),
        ((0,), "repetition 0"),
        (range(1, 7), "none to train on"),
    ],
)
def test_repetitions_that_nobody_made_cannot_be_tested(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], tested: Sequence[int], says: str
) -> None:
    runs, repetitions = rounds(fist=6)
    windows = cut([recording(runs=runs, repetitions=repetitions, gestures=FOUR)])
    with pytest.raises(EdgeError, match=says):
        make_splits(windows, "repetition", test_repetitions=tested)
    without = cut([replace(recording(), test_repetitions=(2, 5))])
    with pytest.raises(EdgeError, match="no repetitions of a gesture"):
        make_splits(without, "repetition")
    with pytest.raises(EdgeError, match="allow no split"):
        possible_splits(without)


@given(
    runs=st.lists(run, min_size=3, max_size=8),
    numbers=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    tested=st.sets(st.integers(1, 5), min_size=1, max_size=3),
    tracked=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_no_sample_of_a_tested_repetition_trains(
    recording: Callable[..., Recording],
    cut: Callable[..., WindowSet],
    runs: list[tuple[int, int]],
    numbers: list[int],
    tested: set[int],
    tracked: bool,
) -> None:
    runs = [*runs, (1, 60)]
    made = recording(runs=runs, repetitions=[*numbers, 1][: len(runs)], tracked=tracked)
    windows = cut([made])
    assert made.repetitions is not None
    try:
        (split,) = make_splits(windows, "repetition", test_repetitions=sorted(tested))
    except EdgeError:
        return
    assert_apart(windows, split)
    inside = np.isin(made.repetitions, sorted(tested))
    assert not inside[samples(windows, training_windows(windows, split), moved=True)[: len(inside)]].any()
    assert inside[samples(windows, split.test, moved=False)[: len(inside)]].all()


def test_wearers_are_split_by_name(people: WindowSet) -> None:
    split = named_split(people, ("b",))
    assert split.name == "wearer"
    assert {people.wearer_names[place] for place in np.unique(people.wearers[split.test])} == {"b"}
    np.testing.assert_array_equal(split.train, ~split.test)
    assert_apart(people, split)
    narrow = named_split(people, ("b",), ("c",), "unseen")
    assert narrow.name == "unseen"
    np.testing.assert_array_equal(narrow.train, people.wearers == people.wearer_names.index("c"))
    assert not (narrow.train & narrow.test).any()


@pytest.mark.parametrize(
    ("test", "train", "says"),
    [
        (("b", "zoe"), None, "Unknown wearer 'zoe'; these recordings have a, b, c"),
        (("b",), ("a", "zoe"), "Unknown wearer 'zoe'"),
        (("b", "c"), ("a", "b"), "Wearer 'b' would train and test"),
        ((), None, "no wearer to test on"),
        (("a", "b", "c"), None, "no wearer to train on"),
        (("a",), (), "no wearer to train on"),
    ],
)
def test_names_that_make_no_split_are_refused(
    people: WindowSet, test: tuple[str, ...], train: tuple[str, ...] | None, says: str
) -> None:
    with pytest.raises(EdgeError, match=says):
        named_split(people, test, train)


@given(
    seed=st.integers(0, 50),
    near_rad=st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    missing=st.sampled_from([0.0, 0.3, 0.9]),
    size=st.sampled_from([1, 7, 1 << 16]),
)
@settings(max_examples=40, deadline=None)
def test_near_windows_are_those_that_pass_a_pose(
    recording: Callable[..., Recording],
    cut: Callable[..., WindowSet],
    seed: int,
    near_rad: float,
    missing: float,
    size: int,
) -> None:
    rng = np.random.default_rng(seed)
    made = recording(runs=[(0, 90), (1, 130)], tracked=True, breaks=[100])
    assert made.pose is not None
    made.pose[rng.random(made.pose.shape) < missing] = np.nan
    windows = cut([made])
    poses = rng.normal(0.0, 0.7, (3, len(POSE))).astype(np.float32)
    poses[0, rng.random(len(POSE)) < 0.5] = np.nan
    poses[1] = windows.pose_track[len(windows.pose_track) // 2]
    which = rng.permutation(len(windows))[: rng.integers(1, len(windows) + 1)]

    def passes(window: int) -> bool:
        first = windows.starts[window] // windows.chain.hop
        last = first + windows.frames + (1 if windows.slack[window] else 0)
        for frame in windows.pose_track[first:last]:
            for pose in poses:
                both = np.isfinite(frame) & np.isfinite(pose)
                if both.any() and np.sqrt(np.mean((frame[both].astype(float) - pose[both]) ** 2)) <= near_rad + 1e-7:
                    return True
        return False

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(near, "chunks", lambda count: chunks(count, size))
        found = poses_near(windows, which, poses, near_rad)
    assert found.tolist() == [passes(window) for window in which]


def test_what_passes_a_held_out_pose_does_not_train(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    """Free movement, without a label, goes through a fist in its middle; so does every way to or from one."""
    library = read_library()
    made = recording(runs=[(-1, 600)], tracked=True)
    fist = library.pose("fist")
    assert fist is not None and made.pose is not None
    made.pose[:] = library.pose("extension")
    made.pose[300:360] = fist + 0.05
    windows = cut([made, recording("b", runs=[(0, 200), (1, 200), (0, 200)])], hold_out_gestures=("fist",))
    close = near_gestures(library, ("fist",), 0.1)
    kept, out = training_windows(windows, None, close), near_windows(windows, None, close)
    np.testing.assert_array_equal(np.sort(np.concatenate([kept, out])), training_windows(windows, None))
    free = out[windows.wearers[out] == 0]
    reach = windows.starts[free]
    assert len(free) and (reach + WINDOW + HOP > 300).all() and (reach < 360).all()
    assert set(windows.wearers[kept].tolist()) == {0, 1}
    frames = windows.starts[kept][:, None] // HOP + np.arange(windows.frames)
    away = np.sqrt(np.nanmean((windows.pose_track[frames] - fist) ** 2, axis=2))
    assert away.min() > 0.1


def test_nothing_can_be_kept_away_from_a_gesture_without_a_pose() -> None:
    library = read_library()
    with pytest.raises(EdgeError, match="Gesture 'M3' has no pose in the library"):
        near_gestures(library, ("fist", "M3"), 0.2)
    with pytest.raises(EdgeError, match="knows no angle"):
        Near(np.full((1, len(POSE)), np.nan, np.float32), 0.2)
    with pytest.raises(EdgeError, match=r"shape \[23\]"):
        Near(np.zeros(len(POSE), np.float32), 0.2)
    with pytest.raises(EdgeError, match="near_rad is -1"):
        near_gestures(library, ("fist",), -1.0)


@given(share=st.floats(0.05, 0.9))
@settings(max_examples=20, deadline=None)
def test_later_split_shares_no_sample_even_where_training_moves_a_window(people: WindowSet, share: float) -> None:
    split = later_split(people, share)
    assert not (split.train & split.test).any()
    for session in range(len(people.session_names)):
        own = people.sessions == session
        ends = people.starts[own & split.train] + people.chain.window + np.minimum(
            people.slack[own & split.train], people.chain.hop - 1
        )  # fmt: skip
        firsts = people.starts[own & split.test]
        assert len(firsts)
        assert not len(ends) or ends.max() <= firsts.min()
        assert len(firsts) == pytest.approx(share * own.sum(), abs=1)
