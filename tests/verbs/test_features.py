"""`features` over the command line: the table is what `slide` gives, an interrupted run goes on, errors are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet
import pytest

import embridge_edge.features
from embridge_edge import __version__, cli
from embridge_edge.errors import EdgeError
from embridge_edge.features import filters, slide
from embridge_edge.recordings import read_recordings
from embridge_edge.verbs import tabulating
from embridge_edge.verbs.features import features

WINDOW, HOP = 40, 10
ASKED = ["--set", "HTD,AR", "--window-ms", "200", "--hop-ms", "50", "--quiet"]
NAMES = ("MAV", "ZC", "SSC", "WL", "AR")


def myo_file(path: Path, lines: int = 1000, seed: int = 0, bad_line: int | None = None) -> Path:
    """A Myo's counts at 200 Hz: rest and flexion in turns of 250 samples."""
    rows = np.random.default_rng(seed).integers(-60, 60, (lines, 8))
    labels = np.arange(lines) // 250 % 2
    text = [",".join(map(str, (*row, label))) for row, label in zip(rows, labels, strict=True)]
    if bad_line is not None:
        text[bad_line] = "1,2,3"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(text))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three recordings of two wearers."""
    for number, name in enumerate(("1-1/a.txt", "1-2/a.txt", "2-1/a.txt")):
        myo_file(tmp_path / "data" / name, 1000 + 100 * number, number)
    return tmp_path / "data"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def columns_of(path: Path) -> dict[str, Any]:
    found = pyarrow.parquet.read_table(path)
    return {name: np.array(found[name].to_pylist()) for name in found.column_names}


def assert_is_slide(table: dict[str, Any], source: str, features: dict[str, Any], start: np.ndarray) -> None:
    rows = table["recording"] == source
    assert rows.sum() == len(start)
    np.testing.assert_array_equal(table["start_s"][rows], start / 200.0)
    names = [name for name in table if name.partition("_")[0] in NAMES]
    values = np.stack([table[name][rows] for name in names], axis=1).astype(np.float32)
    np.testing.assert_array_equal(values, np.concatenate([features[name] for name in NAMES], axis=1))


@pytest.mark.parametrize("compat", [None, "libemg"])
def test_the_table_holds_what_slide_gives(tmp_path: Path, data: Path, compat: str | None) -> None:
    report = features(data, tmp_path / "out.parquet", names=["HTD", "AR"], window_ms=200, hop_ms=50, compat=compat)
    table = columns_of(tmp_path / "out.parquet")
    recordings = list(read_recordings(data))
    assert report.recordings == 3 and report.windows == len(table["start_s"]) and report.columns == 8 * 8
    assert list(table)[6:15] == [*(f"MAV_c{channel}" for channel in range(8)), "ZC_c0"]
    assert list(table)[-8:] == [f"AR_c{channel}_{k}" for channel in (6, 7) for k in (1, 2, 3, 4)]
    for recording in recordings:
        expected = slide(recording.emg, NAMES, 200.0, WINDOW, HOP, compat=compat)
        start = np.arange(0, recording.samples - WINDOW + 1, HOP)
        assert_is_slide(table, recording.source, expected, start)


def test_both_kinds_of_file_hold_the_same(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "features", data, *ASKED, "--out", tmp_path / "out.parquet")[0] == 0
    assert run(capsys, "features", data, *ASKED, "--out", tmp_path / "out.h5")[0] == 0
    table = columns_of(tmp_path / "out.parquet")
    with h5py.File(tmp_path / "out.h5") as file:
        names = list(file["columns"].asstr()[:])
        assert names == list(table)[6:]
        np.testing.assert_array_equal(
            file["features"][:], np.stack([table[name] for name in names], 1).astype(np.float32)
        )
        for name in ("recording", "wearer", "session", "label"):
            assert file[name].asstr()[:].tolist() == table[name].tolist()
        np.testing.assert_array_equal(file["start_s"][:], table["start_s"])
        np.testing.assert_array_equal(file["repetition"][:], table["repetition"])
        in_hdf5 = json.loads(file["embridge_edge"].asstr()[()])
    in_parquet = json.loads(pyarrow.parquet.read_metadata(tmp_path / "out.parquet").metadata[b"embridge_edge"])
    assert in_hdf5 == in_parquet
    assert in_parquet["version"] == __version__
    assert in_parquet["features"] == list(NAMES) and in_parquet["columns"] == names
    assert (in_parquet["rate_hz"], in_parquet["window"], in_parquet["hop"]) == (200.0, WINDOW, HOP)
    assert in_parquet["sources"] == ["1-1/a.txt", "1-2/a.txt", "2-1/a.txt"]


def test_a_label_is_what_all_samples_of_the_window_say(tmp_path: Path, data: Path) -> None:
    features(data, tmp_path / "out.parquet", names=["MAV", "WL"], window_ms=200, hop_ms=50)
    table = columns_of(tmp_path / "out.parquet")
    (first, *_) = read_recordings(data)
    rows = table["recording"] == first.source
    assert set(table["wearer"]) == {"1", "2"} and set(table["session"][rows]) == {"1"}
    assert first.labels is not None and first.repetitions is not None
    for start, label, repetition in zip(
        np.round(table["start_s"][rows] * 200).astype(int), table["label"][rows], table["repetition"][rows], strict=True
    ):
        held = set(first.labels[start : start + WINDOW].tolist())
        assert label == (first.gestures[held.pop()] if len(held) == 1 else "")
        rounds = set(first.repetitions[start : start + WINDOW].tolist())
        assert repetition == (rounds.pop() if len(rounds) == 1 else 0)


def test_no_window_reaches_over_a_break(tmp_path: Path) -> None:
    path = myo_file(tmp_path / "a.txt", 500, bad_line=213)
    report = features(path, tmp_path / "out.parquet", names=["HTD", "AR"], window_ms=200, hop_ms=50)
    table = columns_of(tmp_path / "out.parquet")
    (recording,) = read_recordings(path)
    assert recording.breaks.tolist() == [213] and len(report.problems) == 1
    parts = [slide(recording.emg[piece], NAMES, 200.0, WINDOW, HOP) for piece in recording.segments()]
    expected = {name: np.concatenate([part[name] for part in parts]) for name in NAMES}
    start = np.concatenate([np.arange(0, 213 - WINDOW + 1, HOP), np.arange(213, 499 - WINDOW + 1, HOP)])
    assert_is_slide(table, "a.txt", expected, start)


def test_filters_run_causally_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = myo_file(tmp_path / "a.txt", 500)
    out = tmp_path / "out.parquet"
    assert run(capsys, "features", path, *ASKED, "--bandpass", 20, 80, "--notch", 50, "--out", out)[0] == 0
    (recording,) = read_recordings(path)
    sections = filters.band_pass(20, 80, 4, 200.0) + filters.notch(50, 30.0, 200.0)
    filtered = filters.run(sections, recording.emg, filters.state_for(sections, recording.emg[0]))
    expected = slide(filtered, NAMES, 200.0, WINDOW, HOP)
    assert_is_slide(columns_of(out), "a.txt", expected, np.arange(0, 500 - WINDOW + 1, HOP))


def test_options_reach_the_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = myo_file(tmp_path / "a.txt", 300), tmp_path / "out.parquet"
    asked = ["features", path, *ASKED, "--set", "WAMP,AR", "--option", "WAMP_threshold=12.5", "--option", "AR_order=2"]
    assert run(capsys, *asked, "--threads", 2, "--out", out)[0] == 0
    (recording,) = read_recordings(path)
    expected = slide(recording.emg, ["WAMP", "AR"], 200.0, WINDOW, HOP, options={"WAMP_threshold": 12.5, "AR_order": 2})
    table = columns_of(out)
    np.testing.assert_array_equal(table["WAMP_c3"].astype(np.float32), expected["WAMP"][:, 3])
    np.testing.assert_array_equal(table["AR_c7_2"].astype(np.float32), expected["AR"][:, 15])


def test_threads_change_nothing(tmp_path: Path, data: Path) -> None:
    for threads in (1, 2, 5):
        features(data, tmp_path / f"{threads}.parquet", names=["HTD"], window_ms=200, hop_ms=50, threads=threads)
    assert len({path.read_bytes() for path in tmp_path.glob("*.parquet")}) == 1


def test_json_is_one_object(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "empty.txt").write_text("")
    status, out, err = run(capsys, "features", data, *ASKED, "--out", tmp_path / "out.parquet", "--json")
    found = json.loads(out)
    assert status == 0 and err == ""
    assert found["out"] == str(tmp_path / "out.parquet")
    assert (found["recordings"], found["windows"], found["columns"]) == (3, 97 + 107 + 117, 64)
    assert found["features"] == list(NAMES)
    assert (found["rate_hz"], found["channels"], found["window"], found["hop"]) == (200.0, 8, WINDOW, HOP)
    assert found["duration_s"] == pytest.approx(16.5) and 0 < found["seconds"] < 120
    assert found["compat"] is None and found["resumed"] == 0 and found["too_short"] == 0
    assert len(found["problems"]) == 1 and "empty.txt" in found["problems"][0]


def test_text_says_what_was_written(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    myo_file(data / "2-2" / "short.txt", 39)
    status, out, _ = run(capsys, "features", data, *ASKED, "--out", tmp_path / "out.h5", "--compat", "libemg")
    assert status == 0
    for said in ("321 windows × 64 columns in", "8 channels at 200 Hz", "MAV, ZC, SSC, WL, AR", "libemg", "1 of 4 rec"):
        assert said in out


@pytest.mark.parametrize("suffix", [".parquet", ".h5"])
def test_an_interrupted_run_goes_on(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    out, whole = tmp_path / f"out{suffix}", tmp_path / f"whole{suffix}"
    assert run(capsys, "features", data, *ASKED, "--out", whole)[0] == 0
    monkeypatch.setattr(tabulating, "KEEP_AFTER_S", 0.0)
    computed: list[int] = []

    def counted(signal: Any, *rest: Any, **named: Any) -> Any:
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(len(signal))
        return slide(signal, *rest, **named)

    monkeypatch.setattr(embridge_edge.features, "slide", counted)
    status, printed, err = run(capsys, "features", data, *ASKED, "--out", out)
    assert status == 130 and printed == "" and err.strip().count("\n") == 0 and "run the same command again" in err
    assert not out.exists()
    (state,) = (path for path in tmp_path.iterdir() if path.name.startswith(f".{out.name}"))
    assert state.name == f".{out.name}.unfinished" and len(list(state.iterdir())) == 2
    computed.clear()
    status, printed, _ = run(capsys, "features", data, *ASKED, "--out", out, "--json")
    assert status == 0 and json.loads(printed)["resumed"] == 2
    assert computed == [1200]
    assert not state.exists()
    if suffix == ".parquet":
        assert out.read_bytes() == whole.read_bytes()
    else:
        with h5py.File(out) as one, h5py.File(whole) as other:
            np.testing.assert_array_equal(one["features"][:], other["features"][:])


def test_finished_parts_of_something_else_are_not_used(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabulating, "KEEP_AFTER_S", 0.0)
    out = tmp_path / "out.parquet"
    state = tmp_path / ".out.parquet.unfinished"
    monkeypatch.setattr(tabulating.FinishedParts, "forget", lambda self: None)
    assert run(capsys, "features", data, *ASKED, "--out", out)[0] == 0
    kept = sorted(state.iterdir())
    assert len(kept) == 3
    for changed in (["--hop-ms", "60"], ["--compat", "libemg"], ["--option", "AR_order=3"], ["--notch", "50"]):
        _, printed, _ = run(capsys, "features", data, *ASKED, *changed, "--out", out, "--json", "--force")
        assert json.loads(printed)["resumed"] == 0, changed
    kept[0].write_bytes(b"damaged")
    myo_file(data / "2-1" / "a.txt", 1200, seed=9)
    _, printed, _ = run(capsys, "features", data, *ASKED, "--out", out, "--json", "--force")
    assert json.loads(printed)["resumed"] == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--out", "{folder}/out.csv"], "use a name that ends in .parquet or .h5"),
        (["--set", "HTD,MAX"], "Unknown feature 'MAX'; choose from MAV,"),
        (["--set", ","], "No feature given"),
        (["--window-ms", "60000"], "No window of 60000 ms fits: the longest stretch without a break"),
        (["--window-ms", "1"], "--window-ms 1 is less than a sample at 200 Hz"),
        (["--window-ms", "0"], "--window-ms 0: give a length"),
        (["--hop-ms", "-5"], "--hop-ms -5: give a length"),
        (["--hop-ms", "nan"], "--hop-ms nan: give a length"),
        (["--window-ms", "10"], "needs windows of at least"),
        (["--threads", "0"], "--threads must be a whole number, 1 or more, not 0."),
        (["--option", "AR_order"], "write NAME=VALUE"),
        (["--option", "WAMP=1"], "Unknown option 'WAMP'"),
        (["--option", "AR_order=0"], "AR_order"),
        (
            ["--option", "CC_order=4"],
            "None of the features asked for uses CC_order; leave it out, or ask for CC as well.",
        ),
        (["--compat", "libemg", "--option", "ZC_threshold=1"], "LibEMG's ZC has no threshold"),
        (["--compat", "matlab"], "'matlab' is not"),
        (["--bandpass", "90", "20"], "the lower one first"),
        (["--bandpass", "95", "200"], "no band remains"),
        (["--notch", "120"], "leave it out"),
        (["--out", "{folder}/data/out.h5"], "lies inside"),
        (["--out", "{folder}"], "is a folder"),
        (["--out", "{folder}/data/1-1/a.txt/out.h5"], "lies inside"),
        (["--notch", "nan"], "--notch nan: give the mains frequency"),
        (["--bandpass", "nan", "50"], "give two frequencies in hertz"),
    ],
)
def test_wrong_input_is_one_line(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], changed: list[str], said: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    arguments = [item.format(folder=tmp_path) for item in changed]
    status, out, err = run(capsys, "features", data, *ASKED, "--out", tmp_path / "out.h5", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1 and said in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"names": None}, "Features are named by texts"),
        ({"names": []}, "No feature given"),
        ({"window_ms": "200"}, "--window-ms 200: give a length"),
        ({"hop_ms": None}, "--hop-ms None: give a length"),
        ({"threads": 2.5}, "--threads must be a whole number"),
        ({"options": ["AR_order"]}, "Options are given by name"),
        ({"options": {"CC_order": 3}}, "ask for CC as well"),
        ({"bandpass_hz": 20.0}, "give two frequencies"),
        ({"bandpass_hz": (20.0, 50.0, 80.0)}, "give two frequencies"),
        ({"notch_hz": "50"}, "give the mains frequency"),
    ],
)
def test_wrong_types_are_one_line_in_python_too(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    asked: dict[str, Any] = {"names": ["HTD"], "window_ms": 200.0, "hop_ms": 50.0}
    with pytest.raises(EdgeError, match=said):
        features(tmp_path / "nowhere", tmp_path / "out.h5", **(asked | changed))


def test_a_recording_is_not_replaced_by_its_features(tmp_path: Path) -> None:
    path = myo_file(tmp_path / "a.txt").rename(tmp_path / "a.h5")
    before = path.read_bytes()
    with pytest.raises(EdgeError, match="which is read; choose another --out"):
        features(path, path, names=["HTD"], window_ms=200, hop_ms=50, force=True)
    assert path.read_bytes() == before


def test_a_table_is_replaced_only_with_force(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.parquet"
    out.write_text("mine")
    status, _, err = run(capsys, "features", data, *ASKED, "--out", out)
    assert status == 2 and "--force" in err and out.read_text() == "mine"
    assert run(capsys, "features", data, *ASKED, "--out", out, "--force")[0] == 0
    assert len(columns_of(out)["MAV_c0"]) == 321


def described(folder: Path, rate_hz: float, unit: str) -> None:
    myo_file(folder / "a.txt", 300)
    (folder / "recording.toml").write_text(
        f'[file]\ncolumns = 9\n[emg]\ncolumns = [0, 1, 2, 3, 4, 5, 6, 7]\nrate_hz = {rate_hz}\nunit = "{unit}"\n'
    )


@pytest.mark.parametrize(("rate_hz", "unit", "said"), [(250.0, "V", "one rate"), (200.0, "V", "one unit")])
def test_recordings_of_two_kinds_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate_hz: float, unit: str, said: str
) -> None:
    described(tmp_path / "data" / "a", 200.0, "myo")
    described(tmp_path / "data" / "b", rate_hz, unit)
    status, _, err = run(capsys, "features", tmp_path / "data", *ASKED, "--out", tmp_path / "out.parquet")
    assert status == 2 and said in err and "give them apart" in err
    assert not (tmp_path / "out.parquet").exists()


def test_hdf5_needs_no_pyarrow(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = run(capsys, "features", data, *ASKED, "--out", tmp_path / "out.parquet")
    assert status == 2 and "pip install 'embridge-edge[features]'" in err
    assert run(capsys, "features", data, *ASKED, "--out", tmp_path / "out.h5")[0] == 0


def test_a_second_process_starts_without_numba(tmp_path: Path, data: Path) -> None:
    """What makes the command quick: machine code is loaded, and no compiler."""
    code = (
        "import sys\nfrom embridge_edge.cli import run\nstatus = run(sys.argv[1:])\n"
        "print(status, *{'numba', 'scipy', 'tqdm'} & set(sys.modules))"
    )
    for out in ("first.parquet", "second.parquet"):
        arguments = ["features", str(data), *ASKED, "--set", "HTD", "--out", str(tmp_path / out)]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
