"""emg2pose files: what is written is read again, and what others wrote is understood."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE
from embridge_edge.recordings import Recording, read_recordings
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
        group.create_dataset("timeseries", data=series, chunks=(1024,))
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
