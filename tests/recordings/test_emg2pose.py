"""emg2pose files: what is written is read again, and what others wrote is understood."""

from __future__ import annotations

import tarfile
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning.splits import make_splits, possible_splits, training_windows
from embridge_edge.learning.windows import cut_windows
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings import ReadingLog, Recording, read_recordings
from embridge_edge.recordings.emg2pose import read_emg2pose, write_emg2pose

KIND = np.dtype([("time", "<f8"), ("joint_angles", "<f8", (20,)), ("emg", "<f4", (16,))])


def standard_file(path: Path, rows: int = 4000) -> np.ndarray:
    rng = np.random.default_rng(1)
    series = np.zeros(rows, KIND)
    series["time"] = 100 + np.arange(rows) / 2000
    series["joint_angles"] = rng.normal(size=(rows, 20))
    series["joint_angles"][10:20] = 0
    series["emg"] = rng.normal(size=(rows, 16))
    with h5py.File(path, "w") as file:
        group = file.create_group("emg2pose")
        group.create_dataset("timeseries", data=series, chunks=(min(rows, 1024),))
        group.attrs.update(
            {"session": "s7", "user": "u3", "stage": "fist", "side": "left", "start": 100.0, "end": 102.0}
        )
        group.attrs.update({"sample_rate": 2000.0, "num_channels": 16, "filename": "x"})
    return series


def test_published_layout(tmp_path: Path) -> None:
    series = standard_file(tmp_path / "a.hdf5")
    (recording,) = read_recordings(tmp_path)
    assert (recording.wearer, recording.session, recording.side, recording.rate_hz) == ("u3", "s7", "left", 2000)
    assert recording.unit == "emg2pose" and recording.labels is None
    np.testing.assert_array_equal(recording.emg, series["emg"])
    assert recording.pose is not None
    assert np.isnan(recording.pose[10:20]).all()  # tracking failures
    assert np.isnan(recording.pose[:, 20:]).all()  # no wrist
    np.testing.assert_allclose(recording.pose[20:, :20], series["joint_angles"][20:], rtol=1e-6)


def test_clock_jumps_become_breaks(tmp_path: Path) -> None:
    standard_file(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        series = file["emg2pose/timeseries"][:]
        series["time"][1000:] += 1
        file["emg2pose/timeseries"][:] = series
    recording = read_emg2pose(tmp_path / "a.hdf5")
    assert recording.breaks.tolist() == [1000]
    assert recording.problems[0].what == "the clock jumps once, at sample 1000; breaks are set"


def test_samples_without_a_number_are_dropped_from_files_of_our_own_as_well(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    made = Recording(
        emg=rng.normal(size=(100, 4)).astype(np.float32),
        rate_hz=200.0,
        unit="myo",
        source="a",
        labels=(np.arange(100) // 50).astype(np.int16),
        gestures=("rest", "fist"),
        repetitions=(np.arange(100) // 25).astype(np.int16),
        pose=rng.normal(size=(100, len(POSE))).astype(np.float32),
        breaks=np.array([10, 60], np.int64),
    )
    (path,) = write_emg2pose([made], tmp_path)
    with h5py.File(path, "r+") as file:
        series = file["emg2pose/timeseries"][:]
        series["emg"][30, 2] = np.nan
        series["emg"][31, 0] = np.inf
        file["emg2pose/timeseries"][:] = series
    found = read_emg2pose(path)
    kept = np.delete(np.arange(100), [30, 31])
    assert found.labels is not None and found.repetitions is not None and found.pose is not None
    for name in ("emg", "labels", "repetitions"):
        np.testing.assert_array_equal(getattr(found, name), getattr(made, name)[kept])
    np.testing.assert_allclose(found.pose, made.pose[kept], atol=2e-6)
    assert found.breaks.tolist() == [10, 30, 58]
    assert "2 samples" in found.problems[0].what and "the first is 30" in found.problems[0].what


def assert_same(a: Recording, b: Recording) -> None:
    for name in ("rate_hz", "unit", "wearer", "session", "day", "side", "gestures", "full_scale"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("emg", "labels", "repetitions", "breaks"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), name)
    assert (a.pose is None) == (b.pose is None)
    if a.pose is not None and b.pose is not None:
        np.testing.assert_allclose(a.pose, b.pose, atol=2e-6)


@given(
    samples=st.integers(1, 60),
    channels=st.integers(1, 17),
    pose=st.sampled_from(["none", "full", "gaps", "fingers", "straight"]),
    labelled=st.booleans(),
    day=st.none() | st.integers(1, 99),
    name=st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text and text.isprintable()),
    seed=st.integers(0, 99),
)
@example(samples=1, channels=1, pose="none", labelled=False, day=None, name="AUTHORS", seed=0)
@settings(deadline=None, max_examples=40)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    samples: int,
    channels: int,
    pose: str,
    labelled: bool,
    day: int | None,
    name: str,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    track = None if pose == "none" else rng.normal(size=(samples, len(POSE))).astype(np.float32)
    if track is not None and pose == "gaps":
        track[rng.random(samples) < 0.3] = np.nan
        track[0] = 1
    if track is not None and pose == "fingers":
        track[:, 20:] = np.nan
    if track is not None and pose == "straight":
        track[:, :20] = 0
    recording = Recording(
        emg=rng.normal(size=(samples, channels)).astype(np.float32),
        rate_hz=float(rng.choice([54, 200, 2000])),
        unit="myo",
        source="somewhere.txt",
        wearer=name,
        session=name,
        day=day,
        side=str(rng.choice(["left", "right", "unknown"])),
        labels=rng.integers(-1, 2, samples).astype(np.int16) if labelled else None,
        gestures=("rest", "fïst") if labelled else (),
        repetitions=rng.integers(0, 4, samples).astype(np.int16) if labelled else None,
        pose=track,
        breaks=np.array([samples // 2] if samples > 2 else [], np.int64),
        full_scale=128.0 if labelled else None,
    )
    folder = tmp_path_factory.mktemp("written")
    paths = write_emg2pose([recording, recording], folder)
    assert len(set(paths)) == 2
    found = list(read_recordings(folder))
    assert len(found) == 2
    for again in found:
        assert_same(recording, again)
    rows = (folder / "metadata.csv").read_text().splitlines()
    assert len(rows) == 3 and {"user", "session", "stage", "side", "split"} <= set(rows[0].split(","))


def test_memory_stays_below_twice_the_recording(tmp_path: Path) -> None:
    standard_file(tmp_path / "a.hdf5", rows=400_000)
    read_emg2pose(tmp_path / "a.hdf5")
    tracemalloc.start()
    try:
        recording = read_emg2pose(tmp_path / "a.hdf5")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert recording.pose is not None
    assert peak < 2 * (recording.emg.nbytes + recording.pose.nbytes)


def test_truncated_and_foreign_hdf5(tmp_path: Path) -> None:
    standard_file(tmp_path / "a.hdf5")
    whole = (tmp_path / "a.hdf5").read_bytes()
    for share in (0.01, 0.3, 0.9):
        (tmp_path / "cut.hdf5").write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(EdgeError, match=r"cut\.hdf5 is truncated or damaged"):
            read_emg2pose(tmp_path / "cut.hdf5")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(EdgeError, match=r"without emg2pose/timeseries \(it holds images\)"):
        read_emg2pose(tmp_path / "other.hdf5")


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    def recordings():  # type: ignore[no-untyped-def]
        yield Recording(np.zeros((5, 2), np.float32), 100.0, "V", "a")
        raise EdgeError("the source broke")

    with pytest.raises(EdgeError, match="the source broke"):
        write_emg2pose(recordings(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["unknown_1_001.hdf5"]


COLUMNS = "session,user,stage,start,end,side,filename,moving_hand,held_out_user,held_out_stage,split,generalization"


def row(name: str, split: str = "train", generalization: str = "", **of: str) -> str:
    """A row as the data set's table has it; `standard_file` is of session s7, user u3, stage fist, left."""
    values = {"session": "s7", "user": "u3", "stage": "fist", "side": "left"} | of
    new = generalization.split("_")
    return ",".join(
        [
            *(values[name] for name in ("session", "user", "stage")),
            *("100.0", "102.0", values["side"], name, "left"),
            *(str("user" in new), str("stage" in new), split, generalization),
        ]
    )


def test_metadata_says_where_a_recording_stands(tmp_path: Path) -> None:
    places = {
        "a": ("train", ""),
        "b": ("val", "stage"),
        "c": ("test", "user"),
        "d": ("test", "user_stage"),
    }
    (tmp_path / "data").mkdir()
    for name in (*places, "e"):
        standard_file(tmp_path / "data" / f"{name}.hdf5", rows=50)
    rows = [row(name, *place) for name, place in places.items()]
    (tmp_path / "metadata.csv").write_bytes(
        ("\ufeff" + "\n".join([COLUMNS, *rows])).encode()
    )  # above, with a byte order mark
    found = {recording.source: recording for recording in read_recordings(tmp_path)}
    for name, place in places.items():
        recording = found[f"data/{name}.hdf5"]
        assert (recording.partition, recording.generalization, recording.stage) == (*place, "fist")
        assert recording.problems == ()
    left = found["data/e.hdf5"]
    assert (left.partition, left.generalization) == ("", "")
    assert [problem.what for problem in left.problems] == ["metadata.csv has no row for it; it is in no split"]
    (alone,) = read_recordings(tmp_path / "data" / "c.hdf5")
    assert (alone.partition, alone.stage) == ("", "fist")


def test_metadata_of_a_single_file_and_of_an_archive(tmp_path: Path) -> None:
    standard_file(tmp_path / "c.hdf5", rows=50)
    (tmp_path / "metadata.csv").write_text(f"{COLUMNS}\n{row('c', 'test', 'user')}\n")
    (alone,) = read_recordings(tmp_path / "c.hdf5")
    assert (alone.partition, alone.generalization) == ("test", "user")
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        for name in ("c.hdf5", "metadata.csv"):
            archive.add(tmp_path / name, f"mini/{name}")
    (packed,) = read_recordings(tmp_path / "all.tar")
    assert (packed.partition, packed.generalization) == ("test", "user")


def test_metadata_without_file_names_goes_by_what_it_has(tmp_path: Path) -> None:
    standard_file(tmp_path / "a.hdf5", rows=50)
    columns = "user,session,stage,side,moving_hand,held_out_user,held_out_stage,split,generalization"
    lines = ["u3,s7,fist,left,left,True,False,test,user", "u3,s7,fist,right,left,False,False,train,"]
    (tmp_path / "metadata.csv").write_text("\n".join([columns, *lines]))
    (recording,) = read_recordings(tmp_path)
    assert (recording.partition, recording.generalization) == ("test", "user")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{COLUMNS}\n{row('a', 'training')}", r"metadata\.csv:2: split 'training' is none of train, val, test"),
        (
            f"{COLUMNS}\n{row('a')}\n{row('b', 'test', 'users')}",
            r"csv:3: generalization 'users' is none of user, stage",
        ),
        (f"{COLUMNS}\n{row('a')}\n{row('a', 'test', 'user')}", r"csv:3: the recording stands in another split above"),
        (f"{COLUMNS}\ns7,u3", r"csv:2: split None is none of"),
        ("file,subject\na,1", r"metadata\.csv has no column 'split' \(it has file, subject\)"),
        ("user,split\nu3,train", r"metadata\.csv has no column 'session'"),
        ("", r"no column 'split' \(it has none\)"),
    ],
)
def test_metadata_that_cannot_be_followed_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    standard_file(tmp_path / "a.hdf5", rows=50)
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(EdgeError, match=says):
        list(read_recordings(tmp_path))
    log = ReadingLog()
    with pytest.raises(EdgeError, match=says):  # nothing else is in the set
        list(read_recordings(tmp_path, log=log))
    assert [problem.file for problem in log.problems] == ["a.hdf5"]


@given(
    places=st.lists(
        st.sampled_from([("train", ""), ("val", "user"), ("test", "user"), ("test", "stage"), ("test", "user_stage")]),
        min_size=1,
        max_size=4,
    ),
    stage=st.sampled_from(["", "FingerPinches1", "Wiggling, spreading"]),
)
@settings(deadline=None, max_examples=15)
def test_division_survives_writing(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[str, str]], stage: str
) -> None:
    folder = tmp_path_factory.mktemp("written")
    made = [
        Recording(
            emg=np.ones((5, 2), np.float32),
            rate_hz=100.0,
            unit="V",
            source="x",
            session=str(number),
            stage=stage,
            partition=partition,
            generalization=new_in,
        )
        for number, (partition, new_in) in enumerate(places)
    ]
    write_emg2pose(made, folder)
    found = sorted(read_recordings(folder), key=lambda recording: int(recording.session))
    assert [(one.stage, one.partition, one.generalization) for one in found] == [(stage, *place) for place in places]


def test_published_layout_is_divided_and_trained_by_its_table(tmp_path: Path) -> None:
    """From HDF5 files and metadata.csv to the windows of each side."""
    rows = [COLUMNS]
    for name, user, stage, *place in (
        ("a", "u1", "fist", "train", ""),
        ("b", "u2", "pinch", "train", ""),
        ("c", "u3", "fist", "test", "user"),
        ("d", "u1", "counting", "test", "stage"),
        ("e", "u4", "fist", "val", "user"),
    ):
        standard_file(tmp_path / f"{name}.hdf5")
        with h5py.File(tmp_path / f"{name}.hdf5", "r+") as file:
            file["emg2pose"].attrs.update({"user": user, "stage": stage, "filename": name})
        rows.append(row(name, *place, user=user, stage=stage))
    (tmp_path / "metadata.csv").write_text("\n".join(rows) + "\n")
    windows = cut_windows(
        read_recordings(tmp_path), ChainPlan(), WindowPlan(), read_library(), tmp_path.with_name("cut")
    )
    assert windows.stage_names == ("fist", "pinch", "counting")
    for name, wearers in (("emg2pose_user", {"u3"}), ("emg2pose_stage", {"u1"})):
        (split,) = make_splits(windows, name)
        assert {windows.wearer_names[place] for place in windows.wearers[split.test]} == wearers
        trained = training_windows(windows, split)
        assert {windows.wearer_names[place] for place in windows.wearers[trained]} == {"u1", "u2"}
        assert not split.test[trained].any()
    assert possible_splits(windows) == ["emg2pose_user", "emg2pose_stage"]
