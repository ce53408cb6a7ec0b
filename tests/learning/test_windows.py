"""Windows count by the rule of the protocol, never cross a clock jump, and survive the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import POSE
from embridge_edge.learning.windows import WindowSet
from embridge_edge.recordings.recording import Problem, Recording

WINDOW, HOP, GUARD = 40, 10, 60  # samples: 200 ms, 50 ms, 300 ms at 200 Hz

Runs = st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2]), st.integers(1, 170)), min_size=1, max_size=6)


def counted(labels: np.ndarray, first: int, guard: int) -> int:
    """The protocol, word by word: the label of a window that counts, −1 for one that does not."""
    inside = labels[first : first + WINDOW]
    if len(set(inside.tolist())) != 1 or inside[0] < 0:
        return -1
    changes = [sample for sample in range(1, len(labels)) if labels[sample] != labels[sample - 1]]
    for sample in range(first, first + WINDOW):
        if any(change <= sample < change + guard for change in changes):
            return -1
    return int(inside[0])


@given(runs=Runs, breaks=st.sets(st.integers(1, 400), max_size=2), guard_ms=st.sampled_from([0.0, 100.0, 300.0]))
@settings(max_examples=60, deadline=None)
def test_windows_count_by_the_protocol(
    recording: Callable[..., Recording],
    cut: Callable[..., WindowSet],
    runs: list[tuple[int, int]],
    breaks: set[int],
    guard_ms: float,
) -> None:
    runs = [*runs, (0, WINDOW)]
    made = recording(runs=runs, breaks=sorted(breaks))
    try:
        windows = cut([made], guard_ms=guard_ms)
    except EdgeError:
        assert all(part.stop - part.start < WINDOW for part in made.segments())
        return
    assert made.labels is not None
    expected: list[tuple[int, int, int, int]] = []
    base = 0
    repeated = made.labels
    for part in made.segments():
        length = part.stop - part.start
        if length < WINDOW:
            continue
        for first in range(part.start, part.stop - WINDOW + 1, HOP):
            last, slack = first + WINDOW - 1, 0
            while last + slack + 1 < part.stop and repeated[last + slack + 1] == repeated[last]:
                slack += 1
            label = counted(made.labels, first, round(guard_ms * 0.2))
            expected.append((base + first - part.start, label, slack, first))
        base += -(-length // HOP) * HOP
    assert windows.starts.tolist() == [start for start, *_ in expected]
    assert windows.labels.tolist() == [label for _, label, *_ in expected]
    assert windows.slack.tolist() == [slack for *_, slack, _ in expected]
    for start, (*_, first) in zip(windows.starts, expected, strict=True):
        np.testing.assert_array_equal(windows.signal[start : start + WINDOW], made.emg[first : first + WINDOW])


@given(runs=Runs, guard_ms=st.sampled_from([0.0, 300.0]), ramp_ms=st.sampled_from([0.0, 150.0, 500.0]))
@settings(max_examples=40, deadline=None)
def test_held_out_gesture_is_in_no_other_window_not_even_its_tail(
    recording: Callable[..., Recording],
    cut: Callable[..., WindowSet],
    runs: list[tuple[int, int]],
    guard_ms: float,
    ramp_ms: float,
) -> None:
    made = recording(runs=[*runs, (0, WINDOW)])
    windows = cut([made], guard_ms=guard_ms, ramp_ms=ramp_ms, hold_out_gestures=("fist",))
    assert made.labels is not None
    tail = round(max(guard_ms, ramp_ms) * 0.2)
    touched = [
        bool((made.labels[max(0, start - tail) : start + WINDOW] == 1).any()) for start in windows.starts.tolist()
    ]
    assert windows.held_out.tolist() == touched


def test_a_moved_window_never_reaches_another_label_or_repetition(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    made = recording(runs=[(0, 95), (1, 95), (1, 60), (2, 130)], repetitions=[1, 1, 2, 2])
    windows = cut([made])
    assert made.labels is not None and made.repetitions is not None
    last = windows.starts + WINDOW - 1
    np.testing.assert_array_equal(made.labels[last], made.labels[last + windows.slack])
    np.testing.assert_array_equal(made.repetitions[last], made.repetitions[last + windows.slack])
    assert windows.slack.max() > HOP


def test_repetitions_are_those_of_all_samples_of_a_window(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    windows = cut([recording(runs=[(0, 60), (1, 15), (2, 60)], repetitions=[1, 3, 2])])
    over = (windows.starts > 60 - WINDOW) & (windows.starts < 60)
    assert over.any()
    assert (windows.highest_repetitions[over] == 3).all()
    assert (windows.lowest_repetitions[over] == 1).all()
    assert windows.highest_repetitions[0] == windows.lowest_repetitions[0] == 1
    assert set(cut([recording()]).highest_repetitions) == {-1}


@pytest.mark.parametrize("length", [40, 41, 49, 50, 99])
def test_pose_track_fits_every_window_of_a_padded_segment(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], length: int
) -> None:
    windows = cut([recording(runs=[(1, length)]), recording(session="2", runs=[(2, length)], tracked=False)])
    poses = windows.poses(np.arange(len(windows)))
    assert poses.shape == (len(windows), WINDOW // HOP, len(POSE))
    assert np.isfinite(poses).all()
    first, second = poses[windows.sessions == 0], poses[windows.sessions == 1]
    assert (
        len(np.unique(first.reshape(-1, len(POSE)), axis=0))
        == len(np.unique(second.reshape(-1, len(POSE)), axis=0))
        == 1
    )
    assert not np.allclose(first[0, 0], second[0, 0])


def test_tracked_pose_is_that_in_the_middle_of_each_hop(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    made = recording(runs=[(0, 130)], tracked=True, labelled=False)
    windows = cut([made])
    assert made.pose is not None
    assert windows.tracked
    assert windows.gestures == ()
    assert set(windows.labels) == {-1}
    for window, start in enumerate(windows.starts):
        middles = start + HOP // 2 + HOP * np.arange(4)
        np.testing.assert_array_equal(windows.poses(np.array([window]))[0], made.pose[middles])


def test_windows_survive_the_disk(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], tmp_path: Path
) -> None:
    made = replace(recording(day=3, repetitions=[1, 2, 3]), problems=(Problem("a.csv", 7, "no number"),))
    windows = cut([made, recording("b")])
    windows.save(tmp_path)
    again = WindowSet.load(tmp_path)
    for name, value in vars(windows).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(getattr(again, name), value)
            assert getattr(again, name).dtype == value.dtype, name
        elif name != "chain":
            assert getattr(again, name) == value, name
    which = np.arange(len(windows))
    np.testing.assert_array_equal(again.inputs(which), windows.inputs(which))
    assert isinstance(again.signal, np.memmap)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"rate_hz": 250.0}, "250 Hz"), ({"unit": "V"}, "V as its unit"), ({"channels": 5}, "5 channels")],
)
def test_recordings_that_do_not_go_together_are_refused(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], change: dict[str, Any], says: str
) -> None:
    other = recording("b", channels=5) if "channels" in change else replace(recording("b"), **change)
    with pytest.raises(EdgeError, match=says) as caught:
        cut([recording(), other])
    assert "b-1" in str(caught.value)


def test_too_short_or_no_recordings_are_refused(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    with pytest.raises(EdgeError, match="shorter than one window of 200 ms"):
        cut([recording(runs=[(0, 39)])])
    with pytest.raises(EdgeError, match="No recording"):
        cut([])
    with pytest.raises(EdgeError, match="no band remains"):
        cut([replace(recording(), rate_hz=30.0)], chain=ChainPlan())


def test_the_filter_starts_afresh_behind_a_clock_jump(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    chain = ChainPlan(window_ms=200.0, hop_ms=50.0)
    whole = recording(runs=[(0, 200)])
    jumped = replace(whole, breaks=np.array([100]))
    behind = replace(whole, emg=whole.emg[100:], labels=np.zeros(100, np.int16), session="2")
    one, two = cut([jumped], chain=chain), cut([behind], chain=chain)
    np.testing.assert_array_equal(one.signal[100:], two.signal)
