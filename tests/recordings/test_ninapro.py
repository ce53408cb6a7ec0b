"""NinaPro files of each database, in both kinds of MAT, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import read_library
from embridge_edge.learning.splits import make_splits, training_windows
from embridge_edge.learning.windows import cut_windows
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings import ReadingLog, read_recordings


def content(channels: int, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(2)
    stimulus = np.repeat([0, 1, 0, 5, 0], 100)[:, None].astype(np.int8)
    repetition = np.repeat([0, 1, 0, 1, 0], 100)[:, None].astype(np.int8)
    emg = rng.integers(-128, 128, (500, channels)).astype(np.float64)
    return {"emg": emg, "restimulus": stimulus, "rerepetition": repetition, "subject": 3, "exercise": 2, **more}


def save_73(path: Path, values: dict[str, Any]) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, value in values.items():
            file[key] = np.atleast_2d(value).T
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")


@pytest.mark.parametrize(
    ("channels", "more", "name", "rate_hz", "unit"),
    [
        (10, {}, "ninapro-db1", 100, "ninapro-db1"),
        (16, {}, "ninapro-db5", 200, "myo"),
        (12, {"acc": np.zeros((500, 36))}, "ninapro-db2", 2000, "V"),
        (12, {"acc": np.zeros((500, 36)), "gyro": np.zeros((500, 36))}, "ninapro-db7", 2000, "V"),
    ],
)
@pytest.mark.parametrize("version", ["5", "7.3"])
def test_database_is_told_by_what_is_in_the_file(
    tmp_path: Path, channels: int, more: dict[str, Any], name: str, rate_hz: float, unit: str, version: str
) -> None:
    values = content(channels, **more)
    (savemat if version == "5" else save_73)(tmp_path / "S3_E2_A1.mat", values)
    log = ReadingLog()
    (recording,) = read_recordings(tmp_path, log=log)
    assert dict(log.formats) == {name: 1}
    assert (recording.rate_hz, recording.unit, recording.wearer) == (rate_hz, unit, "3")
    assert recording.gestures == ("rest", "exercise 2 stimulus 1", "exercise 2 stimulus 5")
    assert recording.labels is not None and recording.repetitions is not None
    assert recording.labels[[50, 150, 350]].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(recording.emg, values["emg"].astype(np.float32))


def test_rest_takes_the_number_of_the_movement_that_follows(tmp_path: Path) -> None:
    """NinaPro numbers rest 0; a split by repetition must find rest of every repetition."""
    stimulus = np.repeat([0, 5, 0, 5, 0, 6, 0], 60)
    repetition = np.repeat([0, 1, 0, 2, 0, 1, 0], 60)
    emg = np.random.default_rng(2).integers(-128, 128, (len(stimulus), 16)).astype(np.float64)
    emg[70] = np.nan
    savemat(tmp_path / "a.mat", {"emg": emg, "restimulus": stimulus, "rerepetition": repetition})
    (recording,) = read_recordings(tmp_path)
    assert recording.repetitions is not None
    assert recording.repetitions[[30, 100, 150, 200, 270, 330, 400]].tolist() == [1, 1, 2, 2, 1, 1, 1]
    assert recording.breaks.tolist() == [70]


@pytest.mark.parametrize(("channels", "tested"), [(16, (2, 5)), (10, (2, 5, 7))])
def test_repetitions_that_are_tested_by_custom(tmp_path: Path, channels: int, tested: tuple[int, ...]) -> None:
    """Half a second of rest and one of movement, ten times: windows of each side lie in their repetitions alone."""
    stimulus = np.tile(np.repeat([0, 5], [100, 200]), 10)
    repetition = np.repeat(np.arange(1, 11), 300) * (stimulus > 0)
    emg = np.random.default_rng(2).integers(-128, 128, (len(stimulus), channels)).astype(np.float64)
    savemat(tmp_path / "S1_E2_A1.mat", {"emg": emg, "restimulus": stimulus, "rerepetition": repetition})
    windows = cut_windows(
        read_recordings(tmp_path), ChainPlan(window_ms=200.0, bandpass_hz=None), WindowPlan(), read_library()
    )
    assert windows.test_repetitions == tested
    (split,) = make_splits(windows, "repetition")
    assert set(windows.lowest_repetitions[split.test]) == set(windows.highest_repetitions[split.test]) == set(tested)
    trained = training_windows(windows, split)
    assert set(windows.lowest_repetitions[trained]) == set(range(1, 11)) - set(tested)
    for side in (split.test, trained):
        assert set(windows.labels[side]) >= {0, 1}  # rest and the movement


def test_without_repetitions_there_is_no_custom(tmp_path: Path) -> None:
    values = content(16)
    del values["rerepetition"]
    savemat(tmp_path / "a.mat", values)
    (recording,) = read_recordings(tmp_path)
    assert recording.repetitions is None and recording.test_repetitions == ()


def test_no_rate_is_guessed(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", content(12))
    with pytest.raises(EdgeError, match="--format, one of ninapro-db2, ninapro-db7"):
        list(read_recordings(tmp_path))
    (recording,) = read_recordings(tmp_path, "ninapro-db7")
    assert recording.rate_hz == 2000
    savemat(tmp_path / "a.mat", content(9))
    with pytest.raises(EdgeError, match="9 channels do not say"):
        list(read_recordings(tmp_path))


def test_the_glove_makes_no_pose(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", content(16, glove=np.ones((500, 22))))
    (recording,) = read_recordings(tmp_path)
    assert recording.pose is None
    assert "not calibrated joint angles" in recording.problems[0].what


def test_truncated_and_foreign_mat(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", content(16), do_compression=True)
    whole = (tmp_path / "a.mat").read_bytes()
    for share in (0.05, 0.5, 0.95):
        (tmp_path / "a.mat").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(EdgeError, match=r"^a\.mat "):
            list(read_recordings(tmp_path / "a.mat"))
    savemat(tmp_path / "a.mat", {"emg2": 1})
    with pytest.raises(EdgeError, match="no variable 'emg'"):
        list(read_recordings(tmp_path / "a.mat"))
    savemat(tmp_path / "a.mat", content(16) | {"restimulus": np.zeros((9, 1))})
    with pytest.raises(EdgeError, match="stimulus has 9 samples, emg has 500"):
        list(read_recordings(tmp_path / "a.mat"))
