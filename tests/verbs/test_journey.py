"""The whole way on small recordings: train, distil, quantize, export, check, one verb after another."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge.artifacts import read_json
from embridge_edge.cli import run
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.recordings.emg2pose import write_emg2pose
from embridge_edge.recordings.recording import Recording
from tests.verbs.conftest import Edge

GESTURES = ("rest", "fist", "flexion")
RECIPE = """
name = "tiny"
target = "nrf52840"
[chain]
window_ms = 200.0
features = ["LOGRMS", "ZC"]
frame_ms = 50.0
[teacher]
emg_width = 16
emg_blocks = 1
pose_width = 16
pose_blocks = 1
query_blocks = 2
queries = 4
heads = 2
embedding = 8
[train]
pose_steps = 20
masked_steps = 10
steps = 60
batch = 32
[student]
widths = [16, 16]
kernels = [3, 3]
strides = [1, 1]
queries = 2
[distill]
steps = 80
batch = 32
teacher_windows = 500
[quantize]
windows = 64
[evaluate]
folds = 3
parity_windows = 50
"""


def recording(wearer: str, session: int, *, channels: int = 4, rate_hz: float = 200.0, pose: bool = False) -> Recording:
    """Two days of three repetitions of three gestures; each gesture is noise of another strength on each channel."""
    seconds = 1.2
    runs = [(label, repetition) for repetition in (1, 2, 3) for label in range(3)]
    count = round(seconds * rate_hz)
    labels = np.repeat([label for label, _ in runs], count).astype(np.int16)
    rng = np.random.default_rng([ord(wearer), session])
    strength = 1.0 + 4.0 * np.abs(np.sin(1.7 * (labels[:, None] + 2.0) * (1.0 + np.arange(channels))))
    angles = None
    if pose:
        angles = np.full((len(labels), 23), np.nan, np.float32)
        angles[:, :20] = np.sin(np.arange(len(labels))[:, None] / 50 + np.arange(20))
    return Recording(
        emg=(strength * rng.standard_normal((len(labels), channels))).astype(np.float32),
        rate_hz=rate_hz,
        unit="V",
        source=f"{wearer}{session}",
        wearer=wearer,
        session=str(session),
        day=session,
        labels=None if pose else labels,
        gestures=() if pose else GESTURES,
        repetitions=None if pose else np.repeat([repetition for _, repetition in runs], count).astype(np.int16),
        pose=angles,
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journey") / "recordings"
    write_emg2pose([recording(wearer, session) for wearer in "abc" for session in (1, 2)], folder)
    return folder


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    file.write_text(RECIPE)
    return file


@pytest.fixture(scope="module")
def made(data: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher, student, int8 and files, made by the verbs one after another on the split by session."""
    out = tmp_path_factory.mktemp("made")
    common = ["--data", str(data), "--recipe", str(recipe), "--quiet"]
    assert run(["train", *common, "--split", "session", "--out", str(out / "teacher")]) == 0
    assert run(["distill", str(out / "teacher"), *common, "--out", str(out / "student")]) == 0
    assert run(["quantize", str(out / "student"), *common, "--out", str(out / "int8")]) == 0
    assert run(["export", str(out / "int8"), "--quiet", "--out", str(out / "files")]) == 0
    return out


def test_quantize_and_export_give_the_same_bytes_again(made: Path, data: Path, recipe: Path, tmp_path: Path) -> None:
    """In another process, with other hashes of texts, more threads, another temporary folder and after another model."""
    (tmp_path / "temporary").mkdir()
    common = ["--data", str(data), "--recipe", str(recipe), "--quiet"]
    program = (
        "import sys, torch\ntorch.set_num_threads(2)\nfrom embridge_edge.cli import run\n"
        f"assert run(['export', {str(made / 'student')!r}, '--out', 'first', '--quiet']) == 0\n"
        f"assert run(['quantize', {str(made / 'student')!r}, *{common!r}, '--out', 'int8']) == 0\n"
        "assert run(['export', 'int8', '--out', 'files', '--quiet']) == 0\n"
    )
    changed = {"PYTHONHASHSEED": "77", "TMPDIR": str(tmp_path / "temporary"), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env={**os.environ, **changed}, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    for folder in ("int8", "files"):
        names = sorted(path.name for path in (made / folder).iterdir())
        assert names == sorted(path.name for path in (tmp_path / folder).iterdir())
        for name in names:
            assert (made / folder / name).read_bytes() == (tmp_path / folder / name).read_bytes(), f"{folder}/{name}"


CONTRACT = {"model", "data", "split", "metric", "value", "ci_low", "ci_high", "n", "n_groups"}


def assert_contract(results: list[dict[str, Any]]) -> None:
    assert results
    for row in results:
        assert set(row) >= CONTRACT
        assert row["split"] in ("session", "wearer", "day", "repetition")
        assert isinstance(row["n"], int) and isinstance(row["n_groups"], int)
        assert np.isfinite(row["value"])
        if row["metric"] not in ("mean_removed_error", "r2"):
            assert 0 <= row["value"] <= 1
        assert (row["ci_low"] is None) == (row["n_groups"] < 3)


def test_int8_that_flips_too_many_decisions_is_written_and_names_its_worst_layers(
    made: Path, data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "strict.toml"
    file.write_text(
        recipe.read_text().replace("windows = 64", 'windows = 64\nobserver = "entropy"')
        + "[gates]\nclass_flips = 0.0\n"
    )
    arguments = ["quantize", str(made / "student"), "--data", str(data), "--recipe", str(file), "--quiet"]
    assert run([*arguments, "--out", str(tmp_path / "int8")]) == 3
    printed = capsys.readouterr()
    assert "class flips" in printed.out and "error alone" in printed.out and "_conv_2d" in printed.out
    assert printed.err.count("\n") == 1 and "% of the decisions flip in int8 (allowed 0.00)" in printed.err
    stored = read_json(tmp_path / "int8" / "sensitivity.json")
    assert {"whole", "layers", "advice"} == set(stored) and len(stored["layers"]) > 3
    assert (tmp_path / "int8" / "student_int8.tflite").is_file()
    file.write_text(file.read_text().replace("class_flips = 0.0", "class_flips = false"))
    assert run([*arguments, "--out", str(tmp_path / "again"), "--layers", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] and report["limit"] is None and report["sensitivity"]["layers"]
    assert report["damage"]["class_flips"] > 0


def test_pruned_student_goes_the_rest_of_the_way_and_is_smaller(
    made: Path, data: Path, recipe: Path, edge: Edge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pruning.toml"
    file.write_text(recipe.read_text() + "[prune]\nsteps = 40\nwindows = 64\n[prune.layers]\nqueries = 1.0\n")
    common = ("--data", data, "--recipe", file)
    small = tmp_path / "small"
    found = edge("prune", made / "student", "--teacher", made / "teacher", *common, "--keep", "0.25", "--out", small)
    assert [(cut["layer"], cut["before"], cut["after"]) for cut in found["layers"]] == [
        ("blocks.0", 16, 4), ("blocks.1", 16, 4), ("queries", 2, 2)
    ]  # fmt: skip
    assert found["parameters_after"] < found["parameters_before"] and found["macs_after"] < found["macs_before"]
    assert found["steps"] == 40 and found["split"] == "session"
    about = read_json(small / "model.json")
    assert about["shape"]["widths"] == [4, 4]
    assert about["provenance"]["pruned"]["layers"] == found["layers"]
    assert about["provenance"]["parents"] == [
        read_json(made / name / "model.json")["tensors_sha256"] for name in ("student", "teacher")
    ]
    by = {(row["model"], row["metric"]): row for row in edge("check", small, "--data", data)["results"]}
    assert by["student", "balanced_accuracy"]["value"] > 0.6
    assert "has seen" in say(capsys, "check", small, "--data", data, "--split", "wearer")
    edge("quantize", small, *common, "--out", tmp_path / "int8")
    for name in ("student_int8.tflite", "student.tflite", "student.onnx"):
        assert (tmp_path / "int8" / name).stat().st_size < (made / "int8" / name).stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["int8", "pruning.toml", "small"]


def test_pruning_can_do_without_a_teacher_and_says_what_it_cut(
    made: Path, data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cutting.toml"
    file.write_text(recipe.read_text() + "[prune]\nsteps = 0\nkeep = 1.0\n")
    arguments = ["prune", made / "student", "--data", data, "--recipe", file]
    printed = say(capsys, *arguments, "--out", tmp_path / "half", "--keep", "0.5")
    assert re.search(r"^blocks\.0 +channels +16 +8$", printed, re.MULTILINE)
    assert "not distilled afterwards (split session)" in printed
    say(capsys, *arguments, "--out", tmp_path / "whole")
    for name in ("student", "teacher"):  # what nothing was cut from is what it was, tensor by tensor
        same = (tmp_path / "whole" / "model.safetensors").read_bytes() == (
            made / name / "model.safetensors"
        ).read_bytes()
        assert same == (name == "student")


def say(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """What a verb prints for people, on stdout or in its one line of refusal."""
    capsys.readouterr()
    code, printed = run([*map(str, arguments), "--quiet"]), capsys.readouterr()
    assert code in (0, 2), printed.err
    return printed.out if code == 0 else printed.err


@contextlib.contextmanager
def interrupted(monkeypatch: pytest.MonkeyPatch, steps: int, at: int) -> Iterator[None]:
    """Within it a training of so many steps is interrupted at one of them."""
    from embridge_edge.learning import loop

    rate_at = loop.Schedule.rate_at

    def stopping(self: loop.Schedule, step: int) -> float:
        if self.steps == steps and step == at:
            raise KeyboardInterrupt
        return rate_at(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY_S", -1.0)
        patch.setattr(loop.Schedule, "rate_at", stopping)
        yield


@pytest.mark.slow
def test_a_student_is_trained_with_rounding_where_the_recipe_asks_and_goes_on_when_interrupted(
    made: Path,
    data: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("nncf")
    file = tmp_path / "qat.toml"
    file.write_text(
        recipe.read_text().replace(
            "windows = 64", "windows = 64\nbias_correction = true\n[quantize.qat]\nsteps = 30\nshare = 0.5"
        )
    )
    common = ["--data", str(data), "--recipe", str(file), "--quiet"]
    assert run(["quantize", str(made / "student"), *common, "--json", "--out", str(tmp_path / "int8")]) == 0
    report = json.loads(capsys.readouterr().out)
    forms = {form["name"]: form for form in report["forms"]}
    assert list(forms) == ["float", "ptq", "qat", "qat_float"]
    assert forms["float"]["class_flips"] == forms["float"]["mean_removed_error"] == 0.0
    assert report["damage"]["class_flips"] == forms["qat"]["class_flips"] < 0.5
    assert all(0.6 < form["balanced_accuracy"] <= 1.0 for form in forms.values())
    trained, plain = (folder / "student_int8.tflite" for folder in (tmp_path / "int8", made / "int8"))
    assert trained.read_bytes() != plain.read_bytes()
    assert (tmp_path / "int8" / "student.tflite").read_bytes() != (made / "int8" / "student.tflite").read_bytes()
    assert run(["check", str(tmp_path / "int8"), "--data", str(data), "--quiet"]) == 0
    capsys.readouterr()
    again = ["quantize", str(made / "student"), *common, "--out", str(tmp_path / "again")]
    with interrupted(monkeypatch, 30, 20):
        assert run(again) == 130
    assert not (tmp_path / "again").exists() and (tmp_path / ".again.unfinished").is_dir()
    capsys.readouterr()
    assert run(again) == 0
    assert "int8, trained with rounding" in capsys.readouterr().out
    assert not (tmp_path / ".again.unfinished").exists()
    assert trained.read_bytes() == (tmp_path / "again" / "student_int8.tflite").read_bytes()


@pytest.mark.slow
def test_who_interrupts_the_judging_finds_nothing_that_looks_finished(
    made: Path, data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    again = ["quantize", str(made / "student"), "--data", str(data), "--recipe", str(recipe), "--quiet"]
    again += ["--out", str(tmp_path / "int8")]
    with monkeypatch.context() as patched:
        patched.setattr("embridge_edge.verbs.quantize.damage", stop)
        assert run(again) == 130
    assert not list(tmp_path.iterdir())
    assert run(again) == 0


@pytest.mark.slow
def test_16_bit_layers_are_searched_within_their_limits(
    made: Path, data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def quantized(more: str, name: str) -> dict[str, Any]:
        file = tmp_path / f"{name}.toml"
        file.write_text(recipe.read_text().replace("windows = 64", f"windows = 64\n{more}"))
        common = ["--data", str(data), "--recipe", str(file), "--quiet", "--json", "--out", str(tmp_path / name)]
        assert run(["quantize", str(made / "student"), *common]) == 0
        return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]

    start = 'wide = ["02_conv_2d"]\n'
    plain = quantized("", "plain")
    free = quantized(start + "[quantize.mix]\nwindows = 60\nlayers = 3\nleast_gain = 0.0", "free")
    assert plain["mixing"] == [] and free["mixing"][0]["wide"] == ["02_conv_2d"] and len(free["mixing"]) <= 3
    assert read_json(tmp_path / "free" / "quantized.json")["mixing"] == free["mixing"]
    errors = [mix["damage"]["mean_removed_error"] for mix in free["mixing"]]
    assert errors == sorted(errors, reverse=True)  # on windows of the training side
    none = quantized("[quantize.mix]\nwindows = 60\nwide_macs = 0", "none")
    assert [mix["wide"] for mix in none["mixing"]] == [[]]
    types = [
        [tensor.type for tensor in read_graph((tmp_path / name / "student_int8.tflite").read_bytes()).tensors]
        for name in ("plain", "none")
    ]
    assert types[0] == types[1] and "int16" not in types[0]
    named = ", ".join(f'"{name}"' for name in free["mixing"][-1]["wide"])
    given = quantized(f"wide = [{named}]", "given")
    assert given["damage"] == free["damage"]


def test_training_with_rounding_without_nncf_is_refused_before_anything_is_read(
    recipe: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    file = tmp_path / "qat.toml"
    file.write_text(recipe.read_text() + "[quantize.qat]\n")
    common = ["--data", tmp_path / "none", "--recipe", file, "--out", tmp_path / "out"]
    for verb in (["quantize", tmp_path / "student"], ["deploy"]):
        assert "needs NNCF (nncf is missing); install embridge-edge[qat]" in refused(*verb, *common)
    assert not (tmp_path / "out").exists()


def test_the_way_leaves_only_what_was_asked_for(made: Path) -> None:
    assert sorted(path.name for path in made.iterdir()) == ["files", "int8", "student", "teacher"]
    assert sorted(path.name for path in (made / "files").iterdir()) == [
        "student.onnx", "student.tflite", "student_int8.onnx", "student_int8.tflite"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "model"),
    [
        ("teacher", "teacher"),
        ("student", "student"),
        ("int8", "student_int8"),
        ("files", "student_int8"),
        ("files/student_int8.tflite", "student_int8"),
        ("files/student.tflite", "student_tflite"),
        ("files/student.onnx", "student_onnx"),
        ("files/student_int8.onnx", "student_int8_onnx"),
    ],
)
def test_whatever_was_made_can_be_checked(made: Path, data: Path, edge: Edge, what: str, model: str) -> None:
    found = edge("check", made / what, "--data", data)
    assert found["split"] == "session"
    assert_contract(found["results"])
    by = {(row["model"], row["metric"]): row for row in found["results"]}
    assert by["lda", "balanced_accuracy"]["value"] > 0.9
    assert by[model, "balanced_accuracy"]["value"] > 0.6
    assert by[model, "zero_shot_balanced_accuracy"]["n_groups"] == 3
    assert {"accuracy", "macro_f1"} <= {metric for name, metric in by if name == model}
    assert {row["model"] for row in found["confusions"]} == {"lda", model}


def test_model_of_one_split_is_refused_another_that_it_has_seen(
    made: Path, data: Path, refused: Callable[..., str]
) -> None:
    line = refused("check", made / "student", "--data", data, "--split", "wearer")
    assert "was trained with --split session and has seen" in line
    assert "has seen" in refused("check", made / "int8", "--data", data, "--split", "repetition")


def test_days_are_sessions_here_so_the_split_by_day_is_allowed(made: Path, data: Path, edge: Edge) -> None:
    found = edge("check", made / "student", "--data", data, "--split", "day")
    assert {row["split"] for row in found["results"]} == {"day"}


@pytest.mark.slow
@pytest.mark.parametrize("split", ["wearer", "day", "repetition"])
def test_every_split_can_be_trained_for_and_checked(
    data: Path, recipe: Path, edge: Edge, refused: Callable[..., str], tmp_path: Path, split: str
) -> None:
    common = ("--data", data, "--recipe", recipe)
    report = edge("train", *common, "--split", split, "--out", tmp_path / "teacher")
    assert report["split"] == split
    edge("distill", tmp_path / "teacher", *common, "--out", tmp_path / "student")
    for what in ("teacher", "student"):
        found = edge("check", tmp_path / what, "--data", data)
        assert found["split"] == split
        assert_contract(found["results"])
    if split != "day":
        assert "has seen" in refused("check", tmp_path / "student", "--data", data, "--split", "session")


def test_model_trained_on_everything_has_nothing_to_be_checked_on(
    data: Path, recipe: Path, edge: Edge, refused: Callable[..., str], tmp_path: Path
) -> None:
    report = edge("train", "--data", data, "--recipe", recipe, "--split", "none", "--out", tmp_path / "teacher")
    assert report["split"] == "none"
    assert "has seen" in refused("check", tmp_path / "teacher", "--data", data)
    line = refused(
        "deploy", "--data", data, "--recipe", recipe, "--checkpoint", tmp_path / "teacher", "--out", tmp_path / "o"
    )
    assert "leaves nothing to judge it on" in line


def test_student_knows_what_its_teacher_has_seen(
    data: Path, recipe: Path, edge: Edge, refused: Callable[..., str], made: Path, tmp_path: Path
) -> None:
    """The teacher saw session 1; a student distilled where session 1 is the last must not be judged on it."""
    (tmp_path / "first").mkdir()
    for file in data.glob("*_1_*.hdf5"):
        shutil.copy(file, tmp_path / "first")
    write_emg2pose([recording(wearer, 0) for wearer in "abc"], tmp_path / "first" / "earlier")
    edge("distill", made / "teacher", "--data", tmp_path / "first", "--recipe", recipe, "--out", tmp_path / "student")
    assert "has seen" in refused("check", tmp_path / "student", "--data", tmp_path / "first")


def test_models_are_compared_on_recordings_or_on_noise(made: Path, data: Path, edge: Edge) -> None:
    int8, floats = made / "files" / "student_int8.tflite", made / "files" / "student.tflite"
    noise = edge("check", int8, "--against", floats)
    assert noise["results"] == []
    assert "noise" in noise["comparison"]["inputs"]
    found = edge("check", int8, "--against", floats, "--data", data)["comparison"]
    assert found["class_flips"] <= 0.1
    assert 0 < found["mean_removed_error"] < 0.3
    qdq = edge("check", int8, "--against", made / "files" / "student_int8.onnx", "--data", data)
    assert qdq["files"]["step"] == pytest.approx(qdq["files"]["other_step"], rel=1e-6)  # one set of ranges
    assert qdq["comparison"]["class_flips"] <= 0.03 and qdq["files"]["max_steps"] <= 8
    assert qdq["files"]["ops"][1]["QuantizeLinear"] > 3
    same = edge("check", made / "student", "--against", made / "files" / "student.onnx", "--data", data)["comparison"]
    assert same["class_flips"] == 0.0
    assert same["mean_removed_error"] < 1e-3


def test_second_converter_refuses_layers_in_sixteen_bits_before_it_is_installed(
    made: Path,
    data: Path,
    recipe: Path,
    edge: Edge,
    refused: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EMBRIDGE_ENVIRONMENTS", str(tmp_path / "none"))
    wide = tmp_path / "wide.toml"
    wide.write_text(recipe.read_text().replace("windows = 64", 'windows = 64\nwide = ["*_conv_2d"]'))
    edge("quantize", made / "student", "--data", data, "--recipe", wide, "--out", tmp_path / "int8")
    edge("export", tmp_path / "int8", "--out", tmp_path / "ours")
    line = refused("export", tmp_path / "int8", "--converter", "onnx2tf", "--out", tmp_path / "theirs")
    assert "layers in 16 bits (*_conv_2d), which onnx2tf cannot single out" in line
    assert not (tmp_path / "none").exists() and not (tmp_path / "theirs").exists()


def test_file_that_is_not_what_was_asked_for_is_not_written(
    made: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    """Somebody's tool left one layer of the int8 model in a range that does not fit."""
    from embridge_edge.export import metadata
    from embridge_edge.export.quantized import load_quantized
    from embridge_edge.export.quantizing import quantized
    from embridge_edge.export.ranges import observed, ranges_of
    from embridge_edge.recipe import QuantizePlan

    shutil.copytree(made / "int8", tmp_path / "int8")
    model = load_quantized(made / "int8")
    ranges = ranges_of(model.float32, observed(model.float32, model.calibration), QuantizePlan())
    name = next(name for name in ranges if name.endswith("_conv_2d"))
    narrow = quantized(model.float32, ranges | {name: (0.0, 0.4 * ranges[name][1])})
    about = metadata.read(model.int8)
    assert about is not None
    (tmp_path / "int8" / "student_int8.tflite").write_bytes(metadata.attach(narrow, about))
    line = refused("export", tmp_path / "int8", "--out", tmp_path / "files")
    assert f"student_int8.tflite is not what was asked for: {name} holds 0 to " in line
    assert not (tmp_path / "files").exists()


@pytest.mark.slow
def test_second_converter_makes_the_same_files_and_check_says_how_far_apart_they_are(
    made: Path, data: Path, edge: Edge, tmp_path: Path, second_converter: None
) -> None:
    report = edge("export", made / "int8", "--converter", "onnx2tf", "--out", tmp_path / "theirs")
    assert {row["path"] for row in report["files"]} == {path.name for path in (made / "files").iterdir()}
    ours, theirs = (folder / "student_int8.tflite" for folder in (made / "files", tmp_path / "theirs"))
    assert ours.read_bytes() != theirs.read_bytes()
    found = edge("check", ours, "--against", theirs, "--data", data)
    assert str(theirs) in found["comparison"]["against"]  # their names alone are the same
    assert found["comparison"]["class_flips"] <= 0.02
    assert found["files"]["sizes"] == [path.stat().st_size for path in (ours, theirs)]
    assert found["files"]["max_steps"] <= 8 and found["files"]["within_one_step"] > 0.5
    assert found["files"]["ops"][0]["CONV_2D"] == found["files"]["ops"][1]["CONV_2D"]
    judged = edge("check", tmp_path / "theirs", "--data", data)
    assert_contract(judged["results"])
    edge("export", made / "student", "--converter", "onnx2tf", "--out", tmp_path / "floats")
    floats = edge(
        "check", tmp_path / "floats" / "student.tflite", "--against", made / "files" / "student.tflite", "--data", data
    )
    assert floats["comparison"]["class_flips"] == 0.0 and floats["files"]["max_steps"] is None
    assert floats["comparison"]["mean_removed_error"] < 1e-4


def test_layers_are_listed_worst_first(made: Path, data: Path, edge: Edge) -> None:
    for what in ("files", "files/student_int8.tflite"):
        layers = edge("check", made / what, "--layers", "--data", data)["layers"]
        assert len(layers) >= 3
        errors = [row["mean_removed_error"] for row in layers]
        assert errors == sorted(errors, reverse=True)
    named = edge("check", made / "int8", "--layers", "--against", made / "files" / "student.tflite")
    assert named["layers"] and named["comparison"]


def test_layers_need_an_int8_file_and_its_twin(made: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    assert "--layers needs an int8 .tflite" in refused("check", made / "student", "--layers")
    shutil.copy(made / "files" / "student_int8.tflite", tmp_path)
    assert "float twin" in refused("check", tmp_path / "student_int8.tflite", "--layers")


def test_bare_model_says_what_it_lacks(made: Path, data: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    from embridge_edge.compression.folding import folded
    from embridge_edge.export.tflite import to_tflite
    from embridge_edge.model.checkpoint import load_checkpoint

    student = load_checkpoint(made / "student")
    (tmp_path / "bare.tflite").write_bytes(to_tflite(folded(student), (1, *student.chain.input_shape)))
    line = refused("check", tmp_path / "bare.tflite", "--data", data)
    assert all(part in line for part in ("signal chain", "gesture labels", "provenance"))
    assert "profile" in line


def test_report_for_people_names_the_worst_class(made: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(made / "student"), "--data", str(data), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert "worst class" in printed.out
    assert "balanced_accuracy" in printed.out
    assert printed.err == ""


def wrong_calls(made: Path, data: Path, recipe: Path, tmp: Path) -> dict[str, tuple[list[str | Path], str]]:
    common: list[str | Path] = ["--data", data, "--recipe", recipe]
    out: list[str | Path] = ["--out", tmp / "out"]
    other = tmp / "other.toml"
    other.write_text(RECIPE.replace("window_ms = 200.0", "window_ms = 300.0"))
    filtered = tmp / "filtered.toml"
    filtered.write_text(RECIPE.replace("[chain]", "[chain]\nnotch_hz = 50.0"))
    nowhere = tmp / "nowhere.toml"
    nowhere.write_text(RECIPE.replace("nrf52840", "toaster"))
    held = tmp / "held.toml"
    held.write_text(RECIPE + '[windows]\nhold_out_gestures = ["wave"]\n')
    stem, poor = tmp / "stem.toml", tmp / "poor.toml"
    stem.write_text(RECIPE + '[prune.layers]\n"stem.*" = 0.5\n')
    poor.write_text(RECIPE + "[prune.budget]\nmacs = 10\n")
    teacher, student = made / "teacher", made / "student"
    wide, fast = tmp / "wide", tmp / "fast"
    write_emg2pose([recording("a", session, channels=5) for session in (1, 2)], wide)
    write_emg2pose([recording("a", session, rate_hz=400.0) for session in (1, 2)], fast)
    (tmp / "empty").mkdir()
    return {
        "no data": (["train", "--data", tmp / "none", "--recipe", recipe, *out], "does not exist"),
        "empty data": (["train", "--data", tmp / "empty", "--recipe", recipe, *out], "holds nothing"),
        "no recipe": (["train", "--data", data, "--recipe", "armband", *out], "choose one of armband-2khz, armband-m4"),
        "unknown target": (["deploy", "--data", data, "--recipe", nowhere, *out], "toaster"),
        "unknown gesture held out": (["train", "--data", data, "--recipe", held, *out], "holds out 'wave'"),
        "student as teacher": (["distill", student, *common, *out], "is a student, no teacher"),
        "teacher as student": (["quantize", teacher, *common, *out], "is a teacher; only a student"),
        "teacher pruned": (["prune", teacher, "--teacher", teacher, *common, *out], "is a teacher; only a student"),
        "pruned without a teacher": (["prune", student, *common, *out], "give the teacher with --teacher"),
        "student as the teacher of what is left": (
            ["prune", student, "--teacher", student, *common, *out], "is a student, no teacher"),
        "unknown layer": (["prune", student, "--teacher", teacher, "--data", data, "--recipe", stem, *out], "blocks.1, queries"),
        "too small a budget": (["prune", student, "--teacher", teacher, "--data", data, "--recipe", poor, *out], "still takes macs"),
        "teacher exported": (["export", teacher, *out], "is a teacher; only a student"),
        "recordings exported": (["export", data, *out], "neither a checkpoint nor a quantized model"),
        "file as checkpoint": (["distill", recipe, *common, *out], "is no checkpoint"),
        "other window": (["distill", teacher, "--data", data, "--recipe", other, *out], "window 40"),
        "other filter": (["distill", teacher, "--data", data, "--recipe", filtered, *out], "sections"),
        "other filter for int8": (["quantize", student, "--data", data, "--recipe", filtered, *out], "sections"),
        "five channels": (["distill", teacher, "--data", wide, "--recipe", recipe, *out], "channels 4"),
        "five channels for int8": (["quantize", student, "--data", wide, "--recipe", recipe, *out], "channels 4"),
        "five channels to check": (["check", student, "--data", wide], "channels 4"),
        "other rate to check": (["check", student, "--data", fast], "200"),
        "out among the data": (["train", *common, "--out", data / "model"], "lies inside"),
        "bundle among the data": (["deploy", *common, "--out", data / "bundle"], "lies inside"),
        "out is a file": (["train", *common, "--out", recipe], "is a file"),
        "out is full": (["train", *common, "--out", made], "not empty"),
        "foreign bundle": (["deploy", *common, "--out", made], "did not write"),
        "nothing to check with": (["check", student], "Nothing to check with"),
        "nothing to check": (["check", tmp / "none", "--data", data], "does not exist"),
        "data as model": (["check", data, "--data", data], "no checkpoint and no bundle"),
        "other input": (["check", student, "--against", teacher / "model.json"], "model.json"),
    }  # fmt: skip


CALLS = (
    "no data", "empty data", "no recipe", "unknown target", "unknown gesture held out", "student as teacher",
    "teacher as student", "teacher exported", "recordings exported", "file as checkpoint", "other window", "other filter",
    "other filter for int8", "five channels", "five channels for int8", "five channels to check", "other rate to check",
    "out among the data", "bundle among the data", "out is a file", "out is full", "foreign bundle", "nothing to check with",
    "nothing to check", "data as model", "other input", "teacher pruned", "pruned without a teacher",
    "student as the teacher of what is left", "unknown layer", "too small a budget",
)  # fmt: skip


def test_wrong_input_is_one_line_and_leaves_nothing(
    made: Path, data: Path, recipe: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    calls = wrong_calls(made, data, recipe, tmp_path)
    assert set(calls) == set(CALLS)
    before = sorted(tmp_path.rglob("*")), sorted(data.rglob("*")), sorted(made.rglob("*"))
    for name, (arguments, says) in calls.items():
        line = refused(*arguments)
        assert says in line, (name, line)
        assert (sorted(tmp_path.rglob("*")), sorted(data.rglob("*")), sorted(made.rglob("*"))) == before, name


def test_damaged_checkpoint_is_refused_by_every_verb(
    made: Path, data: Path, recipe: Path, refused: Callable[..., str], tmp_path: Path
) -> None:
    shutil.copytree(made / "student", tmp_path / "student")
    weights = tmp_path / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    common = ("--data", data, "--recipe", recipe, "--out", tmp_path / "out")
    for arguments in (
        ("distill", tmp_path / "student", *common),
        ("quantize", tmp_path / "student", *common),
        ("export", tmp_path / "student", "--out", tmp_path / "out"),
        ("check", tmp_path / "student", "--data", data),
    ):
        assert "model.safetensors" in refused(*arguments)
    assert not (tmp_path / "out").exists()


def test_full_disk_is_one_line_and_leaves_nothing(
    made: Path, refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as stream:
            stream.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space left on device" in refused("export", made / "int8", "--out", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_training_goes_on_to_the_same_bytes(
    made: Path,
    data: Path,
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "teacher"
    arguments = [
        "train",
        "--data",
        str(data),
        "--recipe",
        str(recipe),
        "--split",
        "session",
        "--out",
        str(out),
        "--quiet",
    ]
    with interrupted(monkeypatch, 60, 30):
        assert run(arguments) == 130
    assert capsys.readouterr().err.strip().count("\n") == 0
    assert not out.exists()
    assert run(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
    for name in ("model.safetensors", "model.json"):
        assert (out / name).read_bytes() == (made / "teacher" / name).read_bytes()


@pytest.mark.slow
def test_same_seed_same_int8_bytes(made: Path, data: Path, recipe: Path, tmp_path: Path) -> None:
    common = ["--data", str(data), "--recipe", str(recipe), "--quiet"]
    assert run(["train", *common, "--split", "session", "--out", str(tmp_path / "teacher")]) == 0
    assert run(["distill", str(tmp_path / "teacher"), *common, "--out", str(tmp_path / "student")]) == 0
    assert run(["quantize", str(tmp_path / "student"), *common, "--out", str(tmp_path / "int8")]) == 0
    for name in ("student_int8.tflite", "student.tflite", "student.onnx"):
        assert (tmp_path / "int8" / name).read_bytes() == (made / "int8" / name).read_bytes(), name


@pytest.mark.slow
def test_tracked_recordings_without_labels_go_the_whole_way(recipe: Path, edge: Edge, tmp_path: Path) -> None:
    data = tmp_path / "recordings"
    write_emg2pose([recording(wearer, session, pose=True) for wearer in "ab" for session in (1, 2)], data)
    common = ("--data", data, "--recipe", recipe)
    edge("train", *common, "--out", tmp_path / "teacher")
    edge("distill", tmp_path / "teacher", *common, "--out", tmp_path / "student")
    edge("quantize", tmp_path / "student", *common, "--out", tmp_path / "int8")
    found = edge("check", tmp_path / "int8", "--data", data)
    assert {(row["model"], row["metric"]) for row in found["results"]} == {("ridge", "r2"), ("student_int8", "r2")}
