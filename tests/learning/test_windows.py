"""Windows count by the rule of the protocol, never cross a clock jump, and survive the disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning.columns import FileColumns
from embridge_edge.learning.windows import KINDS, WindowSet, cut_windows
from embridge_edge.recipe import WindowPlan
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
    # Held out afterwards, as `benchmark` does for one division after the other, it is the same.
    plain = cut([made], guard_ms=guard_ms, ramp_ms=ramp_ms)
    assert not plain.held_out.any()
    np.testing.assert_array_equal(plain.holding_out(("fist",)).held_out, windows.held_out)
    assert not plain.holding_out(("wave",)).held_out.any()


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


def streamed(recordings: Iterable[Recording], folder: Path, chain: ChainPlan | None = None) -> WindowSet:
    """What `cut` gives, written to a folder while the recordings come."""
    chain = chain or ChainPlan(window_ms=200.0, hop_ms=50.0, bandpass_hz=None)
    return cut_windows(recordings, chain, WindowPlan(), read_library(), folder)


def assert_same(one: WindowSet, other: WindowSet) -> None:
    """Everything is equal, bit for bit, and of the same kind."""
    for name, value in vars(one).items():
        again = getattr(other, name)
        if isinstance(value, np.ndarray):
            assert again.dtype == value.dtype == KINDS[name], name
            assert again.shape == value.shape, name
            assert again.tobytes() == value.tobytes(), name  # NaN as well
        else:
            assert again == value, name


class Broken(Exception):
    pass


some_recordings = st.lists(
    st.fixed_dictionaries(
        {
            "wearer": st.sampled_from("abc"),
            "session": st.sampled_from("123"),
            "runs": st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2]), st.integers(1, 170)), min_size=1, max_size=4),
            "day": st.none() | st.integers(1, 40),
            "breaks": st.sets(st.integers(1, 400), max_size=3).map(sorted),
            "tracked": st.booleans(),
            "labelled": st.booleans(),
        }
    ),
    min_size=1,
    max_size=5,
)


@given(
    made=some_recordings,
    numbers=st.lists(st.integers(0, 6), min_size=4, max_size=4),
    stages=st.lists(st.sampled_from(["", "fists", "pinches"]), min_size=5, max_size=5),
    bandpass=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_folder_holds_what_memory_holds(
    recording: Callable[..., Recording],
    cut: Callable[..., WindowSet],
    tmp_path_factory: pytest.TempPathFactory,
    made: list[dict[str, Any]],
    numbers: list[int],
    stages: list[str],
    bandpass: bool,
) -> None:
    recordings = [
        replace(
            recording(**one, repetitions=numbers[: len(one["runs"])]),
            stage=stage,
            partition="test" if stage else "train",
            generalization="stage" if stage else "",
            test_repetitions=(2, 5),
        )
        for one, stage in zip(made, stages, strict=False)
    ]
    chain = ChainPlan(window_ms=200.0, hop_ms=50.0, bandpass_hz=(20.0, 90.0) if bandpass else None)
    folder = tmp_path_factory.mktemp("cut") / "windows"
    try:
        kept = cut(recordings, chain=chain)
    except EdgeError:
        with pytest.raises(EdgeError, match="shorter than one window"):
            streamed(iter(recordings), folder, chain)
        assert list(folder.parent.iterdir()) == []
        return
    stored = streamed(iter(recordings), folder, chain)
    assert_same(kept, stored)
    assert_same(kept, WindowSet.load(folder))
    assert isinstance(stored.signal, np.memmap) and isinstance(stored.labels, np.memmap)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [*(f"{name}.npy" for name in KINDS), "windows.json"]
    )
    which = np.arange(len(kept))[::-3]
    np.testing.assert_array_equal(stored.inputs(which), kept.inputs(which))
    np.testing.assert_array_equal(stored.poses(which), kept.poses(which))
    for frame in (0, 1, -1):
        np.testing.assert_array_equal(stored.poses_at(which, frame), kept.poses(which)[:, frame])
        np.testing.assert_array_equal(
            stored.posed(frame), np.isfinite(kept.poses_at(np.arange(len(kept)), frame)).any(1)
        )


def test_the_largest_of_several_bands_is_in_the_folder(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], tmp_path: Path
) -> None:
    made = [
        replace(recording("a", channels=5), rate_hz=250.0),
        recording("b"),
        replace(recording("c", channels=5), rate_hz=250.0),
    ]
    stored = streamed(made, tmp_path / "windows")
    assert_same(cut(made), stored)
    assert stored.wearer_names == ("a", "c")
    assert [problem.what for problem in stored.problems] == [
        "4 channels at 200 Hz, most have 5 channels at 250 Hz: left out"
    ]
    assert not any(path.is_dir() for path in (tmp_path / "windows").iterdir())


def test_a_folder_is_replaced_whole_or_not_at_all(recording: Callable[..., Recording], tmp_path: Path) -> None:
    folder = tmp_path / "windows"
    before = streamed([recording("a")], folder)

    def breaking() -> Iterator[Recording]:
        yield recording("b")
        raise Broken

    with pytest.raises(Broken):
        streamed(breaking(), folder)
    assert_same(before, WindowSet.load(folder))
    assert list(tmp_path.iterdir()) == [folder]
    streamed([recording("b")], folder)
    assert WindowSet.load(folder).wearer_names == ("b",)
    assert before.wearer_names == ("a",) and np.isfinite(before.signal).all()  # what is open stays readable


def test_full_disk_is_one_line_and_leaves_nothing(recording: Callable[..., Recording], tmp_path: Path) -> None:
    """A limit on the size of files, which the kernel sets as strictly as a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, limits[1]))
    try:
        with pytest.raises(EdgeError, match=r"^Cannot write .*windows: File too large; free space"):
            streamed((recording(str(number)) for number in range(40)), tmp_path / "windows")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["missing", "cut", "garbage", "older"])
def test_damaged_folder_is_one_line(recording: Callable[..., Recording], tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "windows"
    streamed([recording()], folder)
    file = folder / "signal.npy"
    if damage == "missing":
        (folder / "stages.npy").unlink()
    elif damage == "older":
        about = json.loads((folder / "windows.json").read_text())
        del about["stage_names"]
        (folder / "windows.json").write_text(json.dumps(about))
    else:
        file.write_bytes(file.read_bytes()[:5000] if damage == "cut" else b"x" * 5000)
    with pytest.raises(
        EdgeError, match=r"holds no windows that this version can open \(.*\); remove it and run again\.$"
    ):
        WindowSet.load(folder)


def test_appended_rows_are_an_npy_file_of_any_length(tmp_path: Path) -> None:
    kinds = {"a": np.float32, "b": np.int16}
    blocks = [np.arange(6, dtype=np.float64).reshape(3, 2) + place for place in range(5)]
    with FileColumns(tmp_path / "some", kinds) as columns:
        for block in blocks:
            columns.append({"a": block, "b": block[:, 0]})
    with FileColumns(tmp_path / "none", kinds):
        pass
    whole = np.load(tmp_path / "some" / "a.npy", mmap_mode="r")
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, np.concatenate(blocks))
    assert np.load(tmp_path / "some" / "b.npy").shape == (15,)
    assert np.load(tmp_path / "none" / "b.npy").shape == (0,)


def test_index_of_a_window_is_narrow(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    windows = cut([recording()])
    index = [getattr(windows, name) for name in KINDS if name not in ("signal", "pose_track")]
    assert sum(array.nbytes for array in index) / len(windows) == 51


def test_stages_take_the_place_of_gestures(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    made = [
        replace(recording("a", labelled=False, tracked=True, runs=[(0, 200)]), stage=stage)
        for stage in ("fists", "pinches", "", "counting")
    ]
    plain = cut(made, gestures_from="stages")
    assert plain.gestures == ("fists", "pinches", "counting")
    named = [plain.gestures[label] if label >= 0 else "" for label in plain.labels]
    assert named == [plain.stage_names[stage] for stage in plain.stages]
    groups = {"power": ("fists", "counting"), "precision": ("pinches",), "other": ("not there",)}
    grouped = cut(made, gestures_from="stages", stage_groups=groups, hold_out_gestures=("precision",))
    assert grouped.gestures == ("power", "precision")
    np.testing.assert_array_equal(grouped.held_out, plain.labels == 1)
    np.testing.assert_array_equal(grouped.holding_out(("power",)).held_out, np.isin(plain.labels, (0, 2)))
    np.testing.assert_array_equal(grouped.labels, np.array([0, 1, -1, 0])[plain.stages])
    with pytest.raises(EdgeError, match="stages fists, pinches, counting"):
        cut(made, gestures_from="stages", stage_groups={"other": ("not there",)})
    with pytest.raises(EdgeError, match="'fists' twice"):
        WindowPlan(gestures_from="stages", stage_groups={"a": ("fists",), "b": ("fists",)})
    with pytest.raises(EdgeError, match="needs gestures_from"):
        WindowPlan(stage_groups={"a": ("fists",)})


PEAK = """
import sys
from pathlib import Path
import numpy as np
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning.windows import cut_windows
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings.recording import Recording

count, folder = int(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None

def made():
    rng = np.random.default_rng(0)
    for number in range(count):
        emg = rng.standard_normal((20_000, 16), np.float32)
        pose = rng.standard_normal((20_000, len(POSE)), np.float32)
        yield Recording(emg, 2000.0, "V", f"{number}", wearer=str(number % 7), session=str(number), pose=pose)

windows = cut_windows(made(), ChainPlan(), WindowPlan(), read_library(), folder)
print(windows.signal.nbytes, *(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
# VmHWM rather than ru_maxrss of getrusage, which begins with the peak of the process that started this one.


def peak(count: int, folder: Path | None) -> tuple[int, int]:
    """Bytes of signal that were cut, and the peak of resident memory of the process that did it."""
    call = [sys.executable, "-c", PEAK, str(count), *([str(folder)] if folder else [])]
    done = subprocess.run(call, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    signal_bytes, kib = map(int, done.stdout.split())
    return signal_bytes, kib << 10


@pytest.mark.slow
def test_memory_is_flat_as_recordings_grow(tmp_path: Path) -> None:
    """Eight times the recordings: what grows may be names and the allocator's, less than two recordings; never the signal."""
    few, many = (peak(count, tmp_path / str(count)) for count in (10, 80))
    added = many[0] - few[0]
    assert added > 80e6
    of_a_recording = few[0] // 10
    assert many[1] - few[1] < 2 * of_a_recording
    assert peak(80, None)[1] - peak(10, None)[1] > 0.9 * added  # the measure sees what is kept in memory
