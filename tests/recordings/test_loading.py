"""Reading the real recordings, recognising them by content, and descriptions of one's own."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE
from embridge_edge.recordings import ReadingLog, Recording, find_recordings, format_names, read_recordings
from embridge_edge.recordings.description import parse_description, shipped_descriptions

ROOT = Path(__file__).resolve().parents[2]
CURLED = POSE.index("index_pip_fe")


def read(path: Path, format: str | None = None) -> list[Recording]:
    return list(read_recordings(path, format))


@pytest.mark.data
def test_myo_readings(data: Path) -> None:
    found = read(data / "myo_readings" / "right_56912.tar.xz")
    assert len(found) == 40
    assert {recording.session for recording in found} == {"1", "2", "3", "4", "5"}
    first = found[1]
    assert (first.wearer, first.session, first.side, first.unit, first.rate_hz) == ("56912", "1", "right", "myo", 200)
    assert first.full_scale == 128 and first.pose is None
    assert first.gestures == (
        "rest",
        "flexion",
        "extension",
        "radial_deviation",
        "ulnar_deviation",
        "pronation",
        "supination",
        "fist",
    )
    assert first.labels is not None and set(np.unique(first.labels)) == {0, 1}


@pytest.mark.data
def test_sessions_may_start_at_zero(data: Path) -> None:
    found = read(data / "myo_readings" / "right_40052.tar.xz")
    assert {recording.session for recording in found} == {"0", "1", "2"}


@pytest.mark.data
def test_repetitions_follow_the_gesture_and_rest_goes_with_the_next(data: Path) -> None:
    recording = read(data / "myo_readings" / "right_56912.tar.xz")[1]
    assert recording.labels is not None and recording.repetitions is not None
    starts = np.flatnonzero(np.diff(recording.labels, prepend=-2))
    assert recording.labels[starts].tolist() == [0, 1] * 6
    assert recording.repetitions[starts].tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]


@pytest.mark.data
@pytest.mark.parametrize(
    ("archive", "member", "lines"),
    [
        ("right_19999", "19999-2/2.txt", [12322]),
        ("right_64917", "64917-1/2.txt", [1032, 1033]),
        ("right_64917", "64917-2/1.txt", [1996, 1997]),
        ("right_64917", "64917-2/4.txt", [346, 347]),
        ("right_64917", "64917-3/7.txt", [1347, 1348]),
    ],
)
def test_corrupt_lines_are_reported_and_leave_a_break(
    data: Path, tmp_path: Path, archive: str, member: str, lines: list[int]
) -> None:
    path = extracted(data / "myo_readings" / f"{archive}.tar.xz", member, tmp_path)
    recording = read(path)[0]
    assert recording.problems[0].line == lines[0]
    assert str(recording.problems[0]).startswith(f"{path.name}:{lines[0]}: ")
    assert recording.breaks.tolist() == [lines[0] - 1]
    assert recording.samples == len(path.read_bytes().split(b"\n")) - (path.read_bytes()[-1:] == b"\n") - len(lines)


@pytest.mark.data
def test_all_corrupt_files_are_the_five_known_ones(data: Path) -> None:
    found = {
        recording.source.split("_hand/")[1]
        for archive in ("right_19999", "right_64917")
        for recording in read(data / "myo_readings" / f"{archive}.tar.xz")
        if recording.problems
    }
    assert found == {"19999-2/2.txt", "64917-1/2.txt", "64917-2/1.txt", "64917-2/4.txt", "64917-3/7.txt"}


def extracted(archive: Path, member: str, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        name = next(name for name in tar.getnames() if name.endswith(member))
        stream = tar.extractfile(name)
        assert stream is not None
        path = folder / "holiday pictures" / "whatever.dat"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(stream.read())
    return path


@pytest.mark.data
def test_longterm_shift(data: Path) -> None:
    found = read(data / "longterm_shift" / "sub2.days1-10.tar.xz")
    assert len(found) == 880
    assert [recording.source for recording in found[:2]] == [
        f"sub2.days1-10.tar.xz:sub2/day1/D1M1T{trial}.csv" for trial in (1, 2)
    ]
    last = found[-1]
    assert (last.wearer, last.session, last.day, last.samples, last.unit) == ("sub2", "day10", 10, 300, "unknown")
    assert last.labels is not None and last.repetitions is not None
    assert last.gestures[last.labels[0]] == "supination+fist" and last.repetitions[0] == 4
    assert found[0].gestures[:3] == ("rest", "flexion", "extension")


@pytest.mark.data
def test_openbci_with_tracking(data: Path) -> None:
    found = {recording.session: recording for recording in read(data / "openbci_hands" / "s_1")}
    assert sorted(found) == ["1745107875", "1745108496", "1745109066", "1745109913"]
    clean = found["1745108496"]
    assert clean.unit == "V" and clean.rate_hz == 250 and clean.channels == 8
    np.testing.assert_allclose(clean.emg[0, :2], [254.07228e-6, 664.1597e-6], rtol=1e-6)
    assert clean.pose is not None and clean.labels is None
    known = np.isfinite(clean.pose[:, CURLED])
    assert 0.9 < known.mean() < 1.0  # 4 % of its angles are missing: the hand was lost
    assert not np.isfinite(clean.pose[:, POSE.index("wrist_flexion")]).any()
    assert not len(clean.breaks)


@pytest.mark.data
def test_lost_samples_are_seen_in_the_clock(data: Path) -> None:
    found = read(data / "openbci_hands" / "s_1" / "exg" / "data_1745107875.csv")[0]
    assert len(found.breaks) > 20
    assert min(found.breaks) > 100 * 250  # the first two minutes are whole
    (problem,) = [problem for problem in found.problems if "lost" in problem.what]
    lost = int(re.search(r"about (\d+) samples", problem.what).group(1))  # type: ignore[union-attr]
    assert 1000 < lost < 1800
    assert found.pose is not None  # found in ../angle


@pytest.mark.data
def test_openbci_in_one_file(data: Path) -> None:
    (recording,) = read(data / "openbci_hands" / "s_0")
    assert (recording.channels, recording.rate_hz, recording.session) == (16, 125, "1734156561")
    assert recording.pose is not None and recording.pose[0, CURLED] == 0  # curl 1 is straight


@pytest.mark.data
def test_myo_hands_lays_both_clocks_together(data: Path) -> None:
    (recording,) = read(data / "myo_hands")
    assert recording.rate_hz == 54 and abs(recording.duration_s - 624) < 2
    assert recording.pose is not None
    known = np.isfinite(recording.pose[:, CURLED])
    assert known.mean() > 0.98
    # EMG starts at 12:25:17.5 of a 12-hour clock, the tracking at 00:25:10.9: they run together from the start.
    assert known[54 * 5]
    fits = {shift: _linear_fit(recording, shift) for shift in (-20 * 54, 0, 20 * 54)}
    assert fits[0] > 0.4 and fits[0] > max(fits[-20 * 54], fits[20 * 54]) + 0.1


def _linear_fit(recording: Recording, shift: int) -> float:
    """R² on the last 30 % of curls from smoothed amplitudes that are shifted by some samples."""
    assert recording.pose is not None
    curls = recording.pose[:, [POSE.index(f"{finger}_mcp_fe") for finger in ("index", "middle", "ring", "pinky")]]
    kernel = np.ones(20) / 20
    amplitude = np.stack([np.convolve(channel, kernel, "same") for channel in np.abs(recording.emg).T], axis=1)
    inner = slice(3000, -3000)
    inputs, targets = np.roll(amplitude, shift, axis=0)[inner], curls[inner]
    known = np.isfinite(targets).all(axis=1)
    inputs = np.column_stack([inputs, np.sqrt(inputs), np.ones(len(inputs))])[known]
    targets = targets[known]
    cut = len(inputs) * 7 // 10
    weights = np.linalg.lstsq(inputs[:cut], targets[:cut], rcond=None)[0]
    error = targets[cut:] - inputs[cut:] @ weights
    return float(1 - (error**2).mean(axis=0).sum() / targets[cut:].var(axis=0).sum())


@pytest.mark.data
@pytest.mark.parametrize(
    ("place", "format_name"),
    [
        ("openbci_hands/s_1/exg/data_1745109913.csv", "openbci-hands"),
        ("openbci_hands/s_0/emg_mp_1734156561.csv", "openbci-hands-single"),
        ("myo_hands/EMG_data_20230622_003542.csv", "myo-hands"),
    ],
)
def test_recognised_by_content_under_an_unrelated_name(
    data: Path, tmp_path: Path, place: str, format_name: str
) -> None:
    folder = tmp_path / "holiday pictures"
    folder.mkdir()
    shutil.copy(data / place, folder / "x.dat")
    log = ReadingLog()
    (recording,) = read_recordings(folder, log=log)
    assert dict(log.formats) == {format_name: 1}
    assert (recording.wearer, recording.session) == ("unknown", "holiday pictures")


@pytest.mark.data
def test_myo_and_longterm_recognised_by_content(data: Path, tmp_path: Path) -> None:
    path = extracted(data / "myo_readings" / "left_44444.tar.xz", "44444-1/3.txt", tmp_path)
    assert read(path)[0].unit == "myo"
    path = extracted(data / "longterm_shift" / "sub1.days1-10.tar.xz", "D3M7T2.csv", tmp_path)
    (recording,) = read(path)
    assert recording.rate_hz == 200 and recording.labels is None
    assert "does not say which gesture" in recording.problems[0].what


def line(*values: object, delimiter: str = ",") -> str:
    return delimiter.join(str(value) for value in values) + "\n"


def test_the_example_in_the_documentation(tmp_path: Path) -> None:
    document = (ROOT / "docs" / "formats.md").read_text()
    toml = re.search(r"```toml\n(.*?)```", document, re.DOTALL).group(1)  # type: ignore[union-attr]
    rows = re.search(r"```text\n(.*?)```", document, re.DOTALL).group(1).split("\n")  # type: ignore[union-attr]
    (tmp_path / "recording.toml").write_text(toml)
    path = tmp_path / "anna" / "2" / "fist.csv"
    path.parent.mkdir(parents=True)
    body = "".join(line(2 * i, 12.5, -3, 8.25, 0.5, "relax" if i < 500 else "fist") for i in range(1000))
    path.write_text(rows[0] + "\n" + body)
    (recording,) = read(tmp_path)
    assert (recording.wearer, recording.session, recording.side, recording.unit) == ("anna", "2", "right", "V")
    np.testing.assert_allclose(recording.emg[0], [12.5e-6, -3e-6, 8.25e-6, 0.5e-6])
    assert recording.labels is not None and recording.gestures == ("rest", "fist", "open_hand")
    assert recording.labels.tolist() == [0] * 500 + [1] * 500
    assert recording.repetitions is not None and set(recording.repetitions) == {1}


OWN = """
[file]
columns = 3
[emg]
columns = [0, 1]
rate_hz = 100
unit = "mine"
[labels]
column = 2
"""


def test_description_beside_the_data_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("recording.toml", OWN)
        archive.writestr("b/10.txt", "1,2,5\n" * 50)
        archive.writestr("b/9.txt", "1,2,5\n" * 50)
    found = read(tmp_path / "set.zip")
    assert [recording.source for recording in found] == ["set.zip:b/9.txt", "set.zip:b/10.txt"]
    assert found[0].gestures == ("5",) and found[0].session == "b"
    assert [int(recording.repetitions[0]) for recording in found if recording.repetitions is not None] == [1, 2]


def test_format_by_file_comes_before_everything(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text(OWN.replace('"mine"', '"other"'))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "recording.toml").write_text(OWN)
    (tmp_path / "set" / "a.txt").write_text("1,2,5\n" * 50)
    assert read(tmp_path / "set")[0].unit == "mine"
    assert read(tmp_path / "set", str(tmp_path / "own.toml"))[0].unit == "other"


def test_gzip_archive_and_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / ".git").mkdir(parents=True)
    for name in ("a.txt", ".hidden.txt", ".git/b.txt", "README.md", "curated.txt", "LICENSE"):
        (folder / name).write_text("1,2,3,4,5,6,7,8,0\n" * 20)
    assert [recording.source for recording in read(folder)] == ["a.txt"]
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as tar:
        tar.add(folder, "set")
    assert [recording.source for recording in read(tmp_path / "set.tar.gz")] == ["set.tar.gz:set/a.txt"]


def test_find_is_cheap_and_sorted(tmp_path: Path) -> None:
    for name in ("10.txt", "9.txt", "a.tar.xz"):
        (tmp_path / name).write_bytes(lzma.compress(b"x") if name.endswith("xz") else b"1,2\n")
    found = find_recordings(tmp_path)
    assert [item.path.name for item in found] == ["9.txt", "10.txt", "a.tar.xz"]
    assert [item.is_archive for item in found] == [False, False, True]


def test_uneven_samples_are_laid_on_a_grid(tmp_path: Path) -> None:
    own = """
[file]
columns = 2
[emg]
columns = [1]
rate_hz = 100
unit = "mine"
[time]
kind = "irregular"
column = 0
unit = "s"
jump_ms = 50
"""
    (tmp_path / "recording.toml").write_text(own)
    rng = np.random.default_rng(0)
    time = np.cumsum(rng.uniform(0.006, 0.016, 400))
    time[200:] += 1.0
    (tmp_path / "a.txt").write_text("".join(line(t, 3 * t) for t in time))
    (recording,) = read(tmp_path)
    assert len(recording.breaks) == 1
    (problem,) = recording.problems
    jump_s = time[200] - time[0]
    assert problem.what == (
        f"the clock jumps once at {jump_s:.1f} s: {time[200] - time[199]:.2f} s without samples; breaks are set"
    )
    start, stop = (part for part in recording.segments())
    grid = time[0] + np.arange(start.stop) / 100
    np.testing.assert_allclose(recording.emg[start, 0], 3 * grid, rtol=1e-5)
    np.testing.assert_allclose(recording.emg[stop.start, 0], 3 * time[200], rtol=1e-5)


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ({300: 0.1}, "the clock jumps once at 3.1 s: about 10 samples (0.10 s) lost; breaks are set"),
        ({300: 0.012}, "the clock jumps once at 3.0 s: about 1 sample (0.01 s) lost; breaks are set"),
        (
            {300: 0.1, 500: 0.2},
            "the clock jumps 2 times between 3.1 and 5.3 s: about 30 samples (0.30 s) lost; breaks are set",
        ),
        ({300: 0.011, 301: 0.011}, "the clock jumps 2 times at 3.0 s: about 2 samples (0.02 s) lost; breaks are set"),
    ],
)
def test_lost_samples_are_told_in_whole_sentences(tmp_path: Path, gaps: dict[int, float], said: str) -> None:
    own = """
[file]
columns = 2
[emg]
columns = [1]
rate_hz = 100
unit = "mine"
[time]
column = 0
unit = "s"
jump_ms = 10
"""
    (tmp_path / "recording.toml").write_text(own)
    time = np.arange(1000) / 100
    for at, gap_s in gaps.items():
        time[at:] += gap_s
    (tmp_path / "a.txt").write_text("".join(line(t, index % 7) for index, t in enumerate(time)))
    (recording,) = read(tmp_path)
    assert recording.breaks.tolist() == list(gaps)
    assert [problem.what for problem in recording.problems] == [said]


def test_nan_rows_are_dropped_in_one_problem_and_leave_a_break(tmp_path: Path) -> None:
    rows = ["1,2,3,4,5,6,7,8,0"] * 60
    rows[20:25] = ["nan,2,3,4,5,6,7,8,0"] * 5
    (tmp_path / "a.txt").write_text("\n".join(rows))
    (recording,) = read(tmp_path)
    assert recording.samples == 55 and recording.breaks.tolist() == [20]
    (problem,) = recording.problems
    assert problem.line == 21 and "5 lines dropped" in problem.what


def test_sets_of_mixed_channels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text(OWN)
    (tmp_path / "a.txt").write_text("1,2,5\n" * 50)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recording.toml").write_text(OWN.replace("[0, 1]", "[0]"))
    (tmp_path / "b" / "b.txt").write_text("1,2,5\n" * 50)
    with pytest.raises(EdgeError, match=r"b/b\.txt has 1 channels, a\.txt has 2"):
        read(tmp_path)


def test_labels_without_names_are_what_is_written(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text(OWN)
    written = ["relax"] * 20 + ["05"] * 20 + [""] * 20 + ["-1"] * 20 + ["5"] * 20
    (tmp_path / "a.txt").write_text("".join(line(1, 2, name) for name in written))
    (recording,) = read(tmp_path)
    assert recording.gestures == ("relax", "05", "5") and not recording.problems
    assert recording.labels is not None
    assert recording.labels.tolist() == [0] * 20 + [1] * 20 + [-1] * 40 + [2] * 20


def test_a_label_column_full_of_different_values_is_none(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text(OWN)
    (tmp_path / "a.txt").write_text("".join(line(1, 2, 0.01 * at) for at in range(40_000)))
    with pytest.raises(EdgeError, match=r"a\.txt: column 2 has 40000 different values"):
        read(tmp_path)


def test_labels_that_flicker_are_counted_as_far_as_numbers_go(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text(OWN)
    (tmp_path / "a.txt").write_text("1,2,a\n1,2,b\n" * 40_000)
    (recording,) = read(tmp_path)
    assert recording.repetitions is not None
    assert recording.repetitions[[0, 1, 2, -1]].tolist() == [1, 1, 2, 32767]


def test_a_range_without_names_asks_for_numbers(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text(OWN + "range = [0, 7]\n")
    (tmp_path / "a.txt").write_text("1,2,5\n" * 50 + "1,2,9\n" + "1,2,x\n")
    (recording,) = read(tmp_path)
    assert recording.gestures == ("5",)
    assert [problem.what for problem in recording.problems] == [
        "a value is out of its range in column 2; line dropped",
        "a field is no number in column 2; line dropped",
    ]


def test_the_column_that_is_no_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text(
        OWN.replace("columns = 3", "header = true").replace("[0, 1]", '["e1", "e2"]').replace("= 2", '= "gesture"')
        + 'names = { 0 = "rest" }\n'
    )
    (tmp_path / "a.csv").write_text("e1,e2,gesture\n" + "1,2,fist\n" * 50)
    with pytest.raises(EdgeError, match=r"a\.csv:2: a field is no number in column 'gesture'; 50 of 50 lines"):
        read(tmp_path)


def test_scaled_values_stay_finite(tmp_path: Path) -> None:
    (tmp_path / "recording.toml").write_text(OWN.replace('unit = "mine"', 'unit = "mine"\nscale = 1e6'))
    (tmp_path / "a.txt").write_text("1,2,5\n" * 50 + "1e35,2,5\n" + "1e30,2,5\n")
    (recording,) = read(tmp_path)
    assert recording.samples == 51 and np.isfinite(recording.emg).all()
    assert "line dropped" in recording.problems[0].what


@pytest.mark.parametrize(("captured", "said"), [("20240131", "repetition 20240131"), ("²", None)])
def test_a_repetition_in_the_path_that_is_no_count(tmp_path: Path, captured: str, said: str | None) -> None:
    (tmp_path / "recording.toml").write_text(OWN + "[path]\npatterns = ['/trial_(?P<repetition>[^/]+)\\.txt$']\n")
    (tmp_path / f"trial_{captured}.txt").write_text("1,2,5\n" * 50)
    if said is None:
        assert set(read(tmp_path)[0].repetitions) == {1}  # type: ignore[arg-type]
    else:
        with pytest.raises(EdgeError, match=said):
            read(tmp_path)


def flipped(data: bytes, *, at: float) -> bytes:
    place = int(len(data) * at)
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


def packed(kind: str, folder: Path) -> bytes:
    rng = np.random.default_rng(0)
    rows = "".join(line(*row, 0) for row in rng.integers(-99, 99, (400, 8)))
    (folder / "x.txt").write_text(rows)
    path = folder / "packed"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(folder / "x.txt", "x.txt")
    else:
        with tarfile.open(path, f"w:{kind}") as tar:  # type: ignore[call-overload]
            tar.add(folder / "x.txt", "x.txt")
    return path.read_bytes()


@given(kind=st.sampled_from(["gz", "bz2", "xz", "zip"]), at=st.floats(0.0, 0.999), cut=st.booleans())
@settings(max_examples=120, deadline=None)
def test_a_damaged_archive_is_one_line_and_no_end_for_its_neighbours(
    tmp_path_factory: pytest.TempPathFactory, kind: str, at: float, cut: bool
) -> None:
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("set")
    whole = packed(kind, made)
    suffix = "zip" if kind == "zip" else f"tar.{kind}"
    (folder / f"a.{suffix}").write_bytes(whole[: int(len(whole) * at)] if cut else flipped(whole, at=at))
    shutil.copy(made / "x.txt", folder / "b.txt")
    log = ReadingLog()
    found = [recording.source for recording in read_recordings(folder, log=log)]
    assert found[-1] == "b.txt" and len(found) + len(log.problems) >= 2


def unreadable_zip(path: Path, *, flag: int = 0, method: int = 0) -> None:
    """A zip whose member is marked as encrypted, or as packed in a way that nobody knows."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "1,2\n")
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    for place in (6, central + 8):
        data[place] |= flag
    for place in (8, central + 10):
        data[place] = method
    path.write_bytes(bytes(data))


def test_a_zip_whose_places_are_wrong_is_damaged(tmp_path: Path) -> None:
    data = bytearray(packed("zip", tmp_path))
    end = data.index(b"PK\x05\x06")
    data[end + 16 : end + 20] = b"\xff\xff\xff\x7f"  # where the list of files is said to begin
    (tmp_path / "a.zip").write_bytes(bytes(data))
    with pytest.raises(EdgeError, match=r"a\.zip is truncated or damaged"):
        read(tmp_path / "a.zip")


@pytest.mark.parametrize(("how", "said"), [({"flag": 1}, "encrypted"), ({"method": 77}, "compression")])
def test_a_zip_that_python_cannot_read_says_so(tmp_path: Path, how: dict[str, int], said: str) -> None:
    unreadable_zip(tmp_path / "a.zip", **how)
    with pytest.raises(EdgeError, match=rf"a\.zip cannot be unpacked \(.*{said}.*unpack it yourself"):
        read(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_a_packed_file_without_a_tar_is_told_from_a_damaged_one(tmp_path: Path, kind: str) -> None:
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind]
    (tmp_path / f"rec.csv.{kind}").write_bytes(pack(b"1,2,3,4,5,6,7,8,0\n" * 200))
    with pytest.raises(EdgeError, match=rf"rec\.csv\.{kind} is packed but holds no tar; unpack it"):
        read(tmp_path)


def test_a_full_disk_is_no_damaged_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar.gz").write_bytes(packed("gz", tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        read(tmp_path / "a.tar.gz")


def test_without_a_log_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,2,3,4,5,6,7,8,0\n" * 50)
    (tmp_path / "b.txt").write_text("")
    with pytest.raises(EdgeError, match=r"b\.txt is empty"):
        read(tmp_path)
    log = ReadingLog()
    assert len(list(read_recordings(tmp_path, log=log))) == 1
    assert [problem.file for problem in log.problems] == ["b.txt"]


def test_shipped_descriptions_are_all_named_and_checked() -> None:
    assert set(shipped_descriptions()) <= set(format_names())
    assert all(description.fingerprint is not None for description in shipped_descriptions().values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rate_hz = 100", ""), "rate_hz is missing"),
        (("rate_hz = 100", "rate_hz = 0"), "rate_hz must be above 0"),
        (("columns = [0, 1]", "columns = [0, 3]"), "column 3 does not exist; a line has 3"),
        (("columns = [0, 1]", 'columns = ["e1"]'), "'e1' is named but"),
        (("columns = [0, 1]", "columns = [0, 0]"), "names a column twice"),
        (('unit = "mine"', 'unit = "mine"\ncolour = 1'), "unknown key 'colour'"),
        (("columns = 3\n", ""), "columns is missing"),
        (("columns = 3\n", 'columns = 3\ndelimiter = "ab"\n'), "delimiter must be one character"),
        (("column = 2", "column = 2\nfrom_path = 'x'"), "either column or from_path"),
        (("[labels]", "[path]\npatterns = ['(']\n[labels]"), "no regular expression"),
        (("[labels]", "[time]\ncolumn = 2\nformat = '%d'\n[labels]"), "must end in hours"),
        (("[labels]", "[pose]\ncurls = { nose = 2 }\n[labels]"), "unknown finger 'nose'"),
        (("[labels]", "[pose\n[labels]"), "no valid TOML"),
        (("[labels]", "[pose]\nfingers = { index = 5 }\n[labels]"), "index must be a table, not 5"),
        (("[labels]", "[pose]\nfingers = { index = { column = [], straight = 1, bent = 2 } }\n[labels]"), "one column"),
        (("[labels]", "[pose]\ncurls = { index = 1.5 }\n[labels]"), "index must be one column by name or number"),
        (("[labels]", "[pose]\ncurls = { index = [1] }\n[labels]"), "index must be one column by name or number"),
        (("[labels]", "[pose]\njoints = { wrist_flexion = true }\n[labels]"), "must be one column by name or number"),
        (("[labels]", "[time]\ncolumn = []\n[labels]"), "column must be one column by name or number, not []"),
        (("[labels]", "[time]\ncolumn = [0, 1]\n[labels]"), "column must be one column by name or number, not [0, 1]"),
        (("columns = [0, 1]", "columns = []"), "columns must be columns by name or number, not []"),
        (("rate_hz = 100", "rate_hz = 1e12"), "rate_hz must be above 0 and at most 1e+06, not 1000000000000.0"),
        (("rate_hz = 100", "rate_hz = 100\nscale = 1e300"), "scale must be"),
        (("rate_hz = 100", "rate_hz = 100\nrange = [nan, 1]"), "range must be [lowest, highest]"),
    ],
)
def test_a_wrong_description_says_where(change: tuple[str, str], message: str) -> None:
    with pytest.raises(EdgeError, match=re.escape(message)):
        parse_description(OWN.replace(*change), "own", "own.toml")


junk = st.recursive(
    st.sampled_from(["1", "-1", "1.5", "1e300", "nan", "true", '"x"', '""', '"ms"', '"("', "0", "99", "[]", "{}"]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | inner.map(lambda item: f"{{ index = {item} }}")
    ),
    max_leaves=4,
)
PLACES = {
    "file": ("delimiter", "decimal", "header", "columns"),
    "emg": ("columns", "rate_hz", "unit", "scale", "full_scale", "range", "whole_numbers"),
    "time": ("kind", "column", "unit", "format", "jump_ms"),
    "labels": ("column", "columns", "from_path", "names", "range", "rest", "companion"),
    "path": ("patterns", "wearer", "session", "day", "side"),
    "pose": ("curls", "fingers", "joints", "unit", "companion"),
    "recognise": ("header", "columns", "rows", "range", "whole_numbers", "labels"),
    "passed_over": ("header", "match", "time", "max_gap_ms", "whole_numbers", "look_in"),
}


@given(st.sampled_from([(table, key) for table, keys in PLACES.items() for key in keys]), junk)
@settings(max_examples=400, deadline=None)
def test_whatever_stands_behind_a_key_is_taken_or_refused_in_one_line(place: tuple[str, str], value: str) -> None:
    tables = {
        "file": {"columns": "3"},
        "emg": {"columns": "[0, 1]", "rate_hz": "100", "unit": '"mine"'},
        "labels": {"column": "2"},
    }
    table, key = place
    tables.setdefault(table, {})[key] = value
    text = "".join(
        f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in tables.items()
    )
    try:
        parse_description(text, "own", "own.toml")
    except EdgeError as error:
        assert str(error).startswith("own.toml") and "\n" not in str(error)
