import json
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.gestures import read_library
from embridge_edge.recordings.emg2pose import read_emg2pose
from embridge_edge.verbs.synth import synth

SHORT = {"wearers": 1, "sessions": 1, "seconds": 4.0, "channels": 8, "rate_hz": 200.0, "gestures": ("rest", "fist")}


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.hdf5"))


def test_recordings_survive_the_files(tmp_path: Path) -> None:
    report = synth(tmp_path / "out", **SHORT | {"sessions": 2, "wearers": 2})
    assert report.recordings == 4
    assert (tmp_path / "out" / "metadata.csv").is_file()
    read = [read_emg2pose(path) for path in files(tmp_path / "out")]
    assert {(one.wearer, one.session) for one in read} == {("w001", "1"), ("w001", "2"), ("w002", "1"), ("w002", "2")}
    for one in read:
        assert one.emg.shape == (800, 8)
        assert one.rate_hz == 200.0
        assert one.unit == "myo"
        assert one.gestures == ("rest", "fist")
        assert one.labels is not None
        assert set(np.unique(one.labels)) == {-1, 0, 1}
        assert one.repetitions is not None
        assert one.pose is not None
        assert np.isfinite(one.pose).all()


def test_same_seed_gives_identical_files_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        synth(tmp_path / name, seed=seed, **SHORT)
    (one,), (same,), (other,) = (files(tmp_path / name) for name in "abc")
    assert one.read_bytes() == same.read_bytes()
    assert one.read_bytes() != other.read_bytes()


def test_a_wearer_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    synth(tmp_path / "one", **SHORT)
    synth(tmp_path / "three", **SHORT | {"wearers": 3})
    assert files(tmp_path / "one")[0].read_bytes() == files(tmp_path / "three")[0].read_bytes()


def test_a_full_folder_is_refused_and_replaced_with_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    arguments = ["synth", "--out", str(tmp_path), "--wearers", "1", "--sessions", "1", "--seconds", "2", "--quiet"]
    arguments += ["--channels", "8", "--rate-hz", "200", "--gestures", "rest,fist"]
    assert run(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--force" in error
    assert (tmp_path / "notes.txt").is_file()
    assert run([*arguments, "--force"]) == 2
    assert "notes.txt" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"
    (tmp_path / "notes.txt").rename(tmp_path / "old.hdf5")
    assert run([*arguments, "--force", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["unit"] == "myo"
    assert said["recordings"] == 1
    assert not (tmp_path / "old.hdf5").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"wearers": 0}, "--wearers 0"),
        ({"sessions": 0}, "--sessions 0"),
        ({"seconds": 1.0}, "--seconds 1"),
        ({"seconds": float("nan")}, "--seconds nan"),
        ({"seed": -1}, "--seed -1"),
        ({"channels": 3}, "4 to 64 channels"),
        ({"rate_hz": 50.0}, "100 to 8000 Hz"),
        ({"gestures": ("fist", "wave")}, "Unknown gesture 'wave'"),
        ({"gestures": ()}, "No gesture given"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(tmp_path: Path, changed: dict[str, object], said: str) -> None:
    with pytest.raises(EdgeError, match=said) as caught:
        synth(tmp_path / "out", **SHORT | changed)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(EdgeError, match="is a file"):
        synth(tmp_path / "out", force=True, **SHORT)


def test_too_short_for_all_gestures_says_how_long_it_takes(tmp_path: Path) -> None:
    report = synth(tmp_path / "out", **SHORT | {"gestures": None})
    assert report.fewest_repetitions == 0
    assert f"--seconds {report.enough_seconds}" in report.text()


def test_free_movement_borrows_nothing_from_gestures_it_never_shows(tmp_path: Path) -> None:
    """Free movement comes nearest to a pose where it may borrow it."""
    shape = {"wearers": 1, "sessions": 1, "seconds": 60.0, "channels": 8, "rate_hz": 200.0, "free_share": 0.9}
    names = ("rest", "victory")
    near = {}
    for name, never in (("with", ()), ("without", ("victory",))):
        report = synth(tmp_path / name, gestures=names, never_free=never, **shape)
        assert report.free_share == 0.9
        (made,) = (read_emg2pose(path) for path in files(tmp_path / name))
        assert made.pose is not None
        assert made.labels is not None
        target = read_library().poses(names)[1]
        free = made.pose[made.labels < 0][:, :20]
        near[name] = np.sqrt(np.mean((free - target[:20]) ** 2, axis=1)).min()
    assert near["without"] > near["with"]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"free_share": 1.0}, "--free-share 1: give a share from 0 to 0.9"),
        ({"never_free": ("wave",)}, "Unknown gesture"),
    ],
)
def test_wrong_free_movement_is_one_line(tmp_path: Path, changed: dict[str, object], says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        synth(tmp_path / "out", **SHORT | changed)
