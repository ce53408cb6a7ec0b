"""`inspect` over the command line: what it prints, what it draws, and one line for everything that can be wrong."""

from __future__ import annotations

import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from embridge_edge import cli
from embridge_edge.recordings import Recording
from embridge_edge.recordings.emg2pose import write_emg2pose
from embridge_edge.verbs.inspect import inspect

LINE = "1,2,-3,4,5,-6,7,8,{label}\n"


def myo_file(path: Path, lines: int = 1000) -> Path:
    rng = np.random.default_rng(4)
    rows = rng.integers(-60, 60, (lines, 8))
    labels = np.arange(lines) // 250 % 2 * 3
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(",".join(map(str, (*row, label))) + "\n" for row, label in zip(rows, labels, strict=True)))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_text_says_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myo_file(tmp_path / "_readings_left_hand" / "12345-2" / "3.txt")
    status, out, err = run(capsys, "inspect", tmp_path)
    assert status == 0 and err == ""
    for said in ("myo-readings (1)", "8 channels at 200 Hz, in myo", "1: 12345", "left arm", "radial_deviation"):
        assert said in out
    assert "No problems." in out and "--out" in out


def test_channels_that_are_not_good_are_no_absence_of_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = myo_file(tmp_path / "a.txt")
    rows = [row.split(",") for row in path.read_text().split()]
    for at in range(100, 400):
        rows[at][2] = rows[at][4] = "-128"
    path.write_text("\n".join(",".join(row) for row in rows))
    _, out, _ = run(capsys, "inspect", path)
    assert "clipping" in out and "No problems." not in out
    assert "Everything could be read; not good: channels 3, 5." in out


def test_a_remark_is_no_absence_of_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = myo_file(tmp_path / "a.txt")
    lines = path.read_text().split()
    path.write_text("\n".join(line for pair in zip(lines, lines, strict=True) for line in pair))
    _, out, _ = run(capsys, "inspect", path)
    assert "of the samples repeat the one before" in out and "No problems." not in out
    assert "Everything could be read.\n" in out


def test_json_is_one_object_with_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = myo_file(tmp_path / "a.txt")
    path.write_text(path.read_text() + "1,2,3\n" + LINE.format(label=0))
    status, out, _ = run(capsys, "inspect", path, "--json")
    found = json.loads(out)
    assert status == 0 and found["duration_s"] == pytest.approx(5.005) and found["rates_hz"] == [200]
    assert found["problems"] == [{"file": "a.txt", "line": 1001, "what": "3 fields, 9 expected; line dropped"}]
    assert [gesture["name"] for gesture in found["gestures"]] == ["rest", "radial_deviation"]
    assert len(found["quality"]["channels"]) == 8


def test_amplitude_of_a_gesture_is_that_of_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    rng = np.random.default_rng(5)
    rows = np.concatenate([rng.normal(0, 4, (2000, 8)), rng.normal(0, 20, (2000, 8))]).round().astype(int)
    lines = [",".join(map(str, (*row, 0 if index < 2000 else 7))) for index, row in enumerate(rows)]
    path.write_text("\n".join(lines))
    rest, fist = inspect(path).gestures
    np.testing.assert_allclose(rest.rms, 4, rtol=0.1)
    np.testing.assert_allclose(fist.rms, 20, rtol=0.1)
    assert rest.seconds == fist.seconds == 10 and fist.repetitions == 1


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    path = myo_file(tmp_path / "a.txt")
    picture = tmp_path / f"seen{suffix}"
    status, out, _ = run(capsys, "inspect", path, "--out", picture)
    assert status == 0 and f"Picture: {picture}" in out
    first = picture.read_bytes()
    assert first.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")
    assert run(capsys, "inspect", path, "--out", picture)[0] == 2  # it exists
    assert run(capsys, "inspect", path, "--out", picture, "--force")[0] == 0
    assert picture.read_bytes() == first


def test_text_needs_no_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = myo_file(tmp_path / "a.txt")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    assert run(capsys, "inspect", path)[0] == 0
    assert "matplotlib" not in sys.modules
    status, _, err = run(capsys, "inspect", path, "--out", tmp_path / "a.png")
    assert status == 2 and 'pip install "embridge-edge[report]"' in err


def test_a_damaged_file_in_a_set_is_listed_and_the_rest_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    myo_file(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.bin").write_bytes(bytes(range(256)))
    status, out, _ = run(capsys, "inspect", tmp_path)
    assert status == 0 and "2 problems" in out and "b.txt: is empty" in out and "c.bin: " in out


def test_two_bands_in_one_folder_the_larger_is_described_and_the_other_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As training has it, which takes the larger and leaves the other out."""
    myo_file(tmp_path / "a.txt")  # 5 s
    emg = np.random.default_rng(1).normal(size=(9000, 16)).astype(np.float32)
    labels = (np.arange(9000) // 4500).astype(np.int16)
    write_emg2pose([Recording(emg, 1000.0, "V", "b", wearer="w", labels=labels, gestures=("rest", "fist"))], tmp_path)
    status, out, err = run(capsys, "inspect", tmp_path, "--json")
    found = json.loads(out)
    assert status == 0 and err == ""
    assert (found["channels"], found["rates_hz"], found["recordings"], found["duration_s"]) == (16, [1000], 1, 9)
    assert found["formats"] == {"emg2pose": 1} and list(found["wearers"]) == ["w"]
    assert found["problems"] == [
        {"file": "a.txt", "line": None, "what": "8 channels at 200 Hz (1 recording, 5.0 s), most have 16: left out"}
    ]


def test_values_that_are_no_number_are_counted_and_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emg = np.random.default_rng(1).normal(size=(4000, 4)).astype(np.float32)
    emg[100:105, 2] = np.nan
    monkeypatch.setattr(
        "embridge_edge.recordings.read_recordings", lambda *_, **__: iter([Recording(emg, 200.0, "V", "a")])
    )
    status, out, _ = run(capsys, "inspect", tmp_path)
    assert status == 0 and "5 values are no number" in out and out.count("nan") == 1
    status, out, _ = run(capsys, "inspect", tmp_path, "--json")
    quality = json.loads(out)["quality"]
    assert quality["nan"] == 5 and [channel["nan"] for channel in quality["channels"]] == [0, 0, 5, 0]
    assert not json.loads(out)["ok"]


def test_a_damaged_archive_in_a_folder_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myo_file(tmp_path / "b.txt")
    for suffix in ("gz", "bz2"):
        with tarfile.open(tmp_path / f"a.tar.{suffix}", f"w:{suffix}") as tar:  # type: ignore[call-overload]
            tar.add(tmp_path / "b.txt", "b.txt")
        whole = bytearray((tmp_path / f"a.tar.{suffix}").read_bytes())
        whole[len(whole) // 2] ^= 0xFF
        (tmp_path / f"a.tar.{suffix}").write_bytes(whole)
    status, out, _ = run(capsys, "inspect", tmp_path)
    assert status == 0 and "2 problems" in out
    assert "a.tar.gz: is truncated or damaged" in out and "a.tar.bz2: is truncated or damaged" in out


def empty(folder: Path) -> Path:
    (folder / "a.txt").write_text("")
    return folder / "a.txt"


def nothing_known(folder: Path) -> Path:
    (folder / "notes.txt").write_text("dear diary\n")
    return folder


def only_documentation(folder: Path) -> Path:
    (folder / "README.md").write_text("x")
    return folder


def mostly_corrupt(folder: Path) -> Path:
    (folder / "a.txt").write_text(LINE.format(label=0) * 30 + "x\n" * 100)
    return folder


def truncated_archive(folder: Path) -> Path:
    myo_file(folder / "set" / "a.txt")
    path = folder / "set.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        tar.add(folder / "set", "set")
    path.write_bytes(path.read_bytes()[:-200])
    return path


def truncated_zip(folder: Path) -> Path:
    path = folder / "a.zip"
    path.write_bytes(b"PK\x03\x04 and no more")
    return path


def truncated_tar(folder: Path) -> Path:
    """Cut between two members: every member that is left is whole."""
    for name in "ab":
        myo_file(folder / "set" / f"{name}.txt")
    with tarfile.open(folder / "set.tar", "w") as tar:
        tar.add(folder / "set" / "a.txt", "a.txt")
        end = tar.offset
        tar.add(folder / "set" / "b.txt", "b.txt")
    (folder / "set.tar").write_bytes((folder / "set.tar").read_bytes()[:end])
    return folder / "set.tar"


def truncated_hdf5(folder: Path) -> Path:
    (path,) = write_emg2pose([Recording(np.ones((5000, 4), np.float32), 2000.0, "V", "a")], folder)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def other_hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = 1
    return folder / "a.h5"


def truncated_mat(folder: Path) -> Path:
    savemat(folder / "a.mat", {"emg": np.ones((500, 16))})
    (folder / "a.mat").write_bytes((folder / "a.mat").read_bytes()[:2000])
    return folder / "a.mat"


def unclear_mat(folder: Path) -> Path:
    savemat(folder / "a.mat", {"emg": np.ones((500, 12))})
    return folder / "a.mat"


def mixed_channels(folder: Path) -> Path:
    for name, channels in (("a", 4), ("b", 8)):
        write_emg2pose([Recording(np.ones((500, channels), np.float32), 2000.0, "V", "a", wearer=name)], folder)
    return folder


def wrong_delimiter(folder: Path) -> Path:
    myo_file(folder / "a.txt")
    (folder / "recording.toml").write_text(
        '[file]\ncolumns = 9\ndelimiter = ";"\n[emg]\ncolumns = [0]\nrate_hz = 200\nunit = "V"\n'
    )
    return folder


def wrong_header(folder: Path) -> Path:
    (folder / "a.csv").write_text("t,e1,e2\n" + "1,2,3\n" * 20)
    (folder / "recording.toml").write_text('[file]\nheader = true\n[emg]\ncolumns = ["e9"]\nrate_hz = 1\nunit = "V"\n')
    return folder


def missing(folder: Path) -> Path:
    return folder / "nowhere"


BAD: dict[Callable[[Path], Path], tuple[str, ...]] = {
    missing: ("does not exist", "give a recording"),
    lambda folder: folder: ("holds nothing",),  # type: ignore[dict-item]
    empty: ("a.txt is empty",),
    nothing_known: ("notes.txt", "no known format", "dear diary", "recording.toml"),
    only_documentation: ("it holds only README.md",),
    mostly_corrupt: ("a.txt:31: 1 field", "9 expected", "100 of 130 lines"),
    truncated_archive: ("set.tar.xz is truncated",),
    truncated_zip: ("a.zip is truncated",),
    truncated_tar: ("set.tar is truncated",),
    truncated_hdf5: ("truncated or damaged HDF5", "fetch it again"),
    other_hdf5: ("without emg2pose/timeseries",),
    truncated_mat: ("truncated or damaged MAT",),
    unclear_mat: ("--format", "ninapro-db2", "ninapro-db7"),
    mixed_channels: ("b_1_001.hdf5 has 8 channels", "has 4"),
    wrong_delimiter: ("a.txt:1", "1 field when split at ';', 9 expected"),
    wrong_header: ("no column 'e9'", "t, e1, e2"),
}


@pytest.mark.parametrize("make", BAD, ids=lambda make: make.__name__.replace("<lambda>", "empty_folder"))
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], Path]
) -> None:
    status, out, err = run(capsys, "inspect", make(tmp_path), "--quiet")
    assert status == 2 and out == ""
    assert err.count("\n") == 1 and err.startswith("embridge-edge: ")
    for said in BAD[make]:
        assert said in err, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--format", "nonsense"), "choose one of"),
        (("--format", "missing.toml"), "missing.toml does not exist"),
        (("--format", "ninapro-db5"), "no HDF5 or MAT file"),
        (("--format", "openbci-hands"), "no column 'ch_1'"),
        (("--out", "a.gif"), "ends in .png, .svg, .pdf"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, str], said: str) -> None:
    status, _, err = run(capsys, "inspect", myo_file(tmp_path / "a.txt"), *arguments)
    assert status == 2 and said in err and err.count("\n") == 1


@pytest.mark.data
def test_real_archive(data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    archive = data / "myo_readings" / "right_64917.tar.xz"
    status, out, _ = run(capsys, "inspect", archive, "--quiet", "--out", tmp_path / "a.png")
    assert status == 0 and "64917-2/4.txt:346: 10 fields, 9 expected; 2 lines dropped" in out
    assert (tmp_path / "a.png").stat().st_size > 100_000


@pytest.mark.data
def test_truncated_real_archive(data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    whole = (data / "myo_readings" / "right_64917.tar.xz").read_bytes()
    (tmp_path / "cut.tar.xz").write_bytes(whole[: len(whole) // 2])
    status, _, err = run(capsys, "inspect", tmp_path / "cut.tar.xz", "--quiet")
    assert status == 2 and "cut.tar.xz is truncated or damaged" in err and err.count("\n") == 1


@pytest.mark.data
def test_openbci_hum_and_repeats_are_seen(data: Path) -> None:
    found = inspect(data / "openbci_hands" / "s_1")
    assert not found.ok
    assert all(channel.mains_hz == 60 and "mains" in channel.verdict for channel in found.quality.channels)
    assert 0.1 < found.quality.held_share < 0.2
    assert found.tracked_s > 400
    weak = [channel.verdict for channel in inspect(data / "openbci_hands" / "s_0").quality.channels]
    assert weak[:10] == [("good",)] * 10 and all("weak" in verdict for verdict in weak[10:])
