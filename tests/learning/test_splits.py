"""No sample is on both sides of a split, however a data set is put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import read_library
from embridge_edge.learning.splits import Split, make_splits, possible_splits, training_windows, validation_split
from embridge_edge.learning.windows import WindowSet
from embridge_edge.recipe import find_recipe
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.workflow import Job, provenance, refuse_leak


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
