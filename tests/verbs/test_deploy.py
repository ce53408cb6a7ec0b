"""`deploy` on small recordings: a bundle whose manifest is true, that is made once, and that goes on where it stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge.artifacts import sha256_of_file
from embridge_edge.cli import run
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.recordings.emg2pose import write_emg2pose
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.workspace import Workspace, content_hash, fingerprint, refuse_around, refuse_inside

GESTURES = ("rest", "fist", "flexion")
RECIPE = """
name = "tiny"
target = "nrf52840"
[chain]
window_ms = 200.0
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
steps = 100
batch = 32
[student]
widths = [16, 16]
kernels = [3, 3]
strides = [2, 1]
queries = 2
[distill]
steps = 150
batch = 32
teacher_windows = 500
[quantize]
windows = 64
[evaluate]
splits = ["session", "wearer"]
folds = 2
parity_windows = 50
[package]
unit_per_count = 1e-3
verify = 1
[gates]
class_flips = 0.5
int8_loss = 0.5
"""


def recording(wearer: str, session: int) -> Recording:
    """Three repetitions of three gestures, told apart by which channels are strong."""
    labels = np.repeat(np.tile(np.arange(3), 3), 240).astype(np.int16)
    rng = np.random.default_rng([ord(wearer), session])
    strength = 1.0 + 4.0 * np.abs(np.sin(1.7 * (labels[:, None] + 2.0) * (1.0 + np.arange(4))))
    return Recording(
        emg=(strength * rng.standard_normal((len(labels), 4))).astype(np.float32),
        rate_hz=200.0,
        unit="V",
        source=f"{wearer}{session}",
        wearer=wearer,
        session=str(session),
        labels=labels,
        gestures=GESTURES,
        repetitions=np.repeat([1, 2, 3], 720).astype(np.int16),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "recordings"
    write_emg2pose([recording(wearer, session) for wearer in "abc" for session in (1, 2)], folder)
    return folder


@pytest.fixture(scope="module")
def recipe(data: Path) -> Path:
    file = data.parent / "tiny.toml"
    file.write_text(RECIPE)
    return file


def deploy(data: Path, recipe: Path, out: Path, *more: str) -> int:
    return run(["deploy", "--data", str(data), "--recipe", str(recipe), "--out", str(out), "--quiet", *more])


@pytest.fixture(scope="module")
def bundle(data: Path, recipe: Path) -> Path:
    out = data.parent / "bundle"
    assert deploy(data, recipe, out) == 0
    return out


@pytest.fixture
def again(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may go on with."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8"))  # type: ignore[no-any-return]


def ran(out: Path) -> set[str]:
    """The steps that the last run did not take from an earlier one."""
    return {row["step"] for row in read(out / "report.json")["minutes"] if not row["cached"]} - {"all"}


@pytest.mark.slow
def test_manifest_is_true(bundle: Path, data: Path) -> None:
    manifest = read(bundle / "manifest.json")
    files = manifest["files"]
    assert {"path", "sha256", "bytes", "kind", "parents", "reproducible"} == set(files[0])
    listed = {row["path"] for row in files}
    there = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert listed == {name for name in there if not name.startswith("work/")} - {"manifest.json"}
    assert {row["path"] for row in files if not row["reproducible"]} == {"report.json", "report.html"}
    hashes = {row["sha256"] for row in files} | {manifest["data_sha256"]}
    for row in files:
        assert sha256_of_file(bundle / row["path"]) == row["sha256"], row["path"]
        assert row["parents"], row["path"]
        assert set(row["parents"]) <= hashes, row["path"]
    assert manifest["data_sha256"] == content_hash(data)
    assert manifest["seed"] == 0
    assert manifest["recipe"]["name"] == "tiny"
    assert {"torch", "numpy", "embridge-edge", "safetensors", "flatbuffers"} <= set(manifest["versions"])
    hash_of = {row["path"]: row["sha256"] for row in files}
    assert manifest["parents"] == {
        "recordings": manifest["data_sha256"],
        "teacher": hash_of["teacher/model.safetensors"],
        "student": hash_of["student/model.safetensors"],
        "quantized_model": hash_of["student_int8.tflite"],
        "given_checkpoint": None,
    }
    assert run(["verify", str(bundle), "--quiet"]) == 0


@pytest.mark.slow
def test_files_name_the_same_parents_as_the_manifest(bundle: Path) -> None:
    """What an artifact says of itself, when it has left its bundle, and what the manifest says."""
    from embridge_edge.export import metadata

    manifest = read(bundle / "manifest.json")
    parents = {row["path"]: row["parents"] for row in manifest["files"]}
    for name in ("student.tflite", "student_int8.tflite", "student.onnx", "student_int8.onnx"):
        about = metadata.read(bundle / name)
        assert about is not None
        assert set(about["provenance"]["parents"]) <= set(parents[name])
        assert about["provenance"]["recipe_sha256"] == manifest["recipe_sha256"]
    for kind in ("teacher", "supervised", "student"):
        own = read(bundle / kind / "model.json")["provenance"]["parents"]
        assert set(own) <= set(parents[f"{kind}/model.json"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which lets a process choose its cores")
def test_two_runs_in_different_places_give_the_same_artifacts(
    bundle: Path, data: Path, recipe: Path, tmp_path: Path
) -> None:
    """Another folder, temporary folder, time, hash seed, more threads and one core: the same bytes but for the measurements."""
    elsewhere = tmp_path / "else where"
    shutil.copytree(data, elsewhere / data.name)  # the files' times change, and with them the keys of the steps
    (elsewhere / "temporary").mkdir()
    command = [sys.executable, "-m", "embridge_edge", "deploy", "--data", data.name, "--recipe", str(recipe), "--quiet"]
    changed = {
        "PYTHONHASHSEED": "77",
        "TMPDIR": str(elsewhere / "temporary"),
        "TZ": "Asia/Tokyo",
        "LC_ALL": "C",
        "OMP_NUM_THREADS": "2",
    }
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # which the process that is started takes over
    try:
        done = subprocess.run(
            [*command, "--out", "bundle"],
            cwd=elsewhere,
            env={**os.environ, **changed},
            capture_output=True,
            check=False,
        )
    finally:
        os.sched_setaffinity(0, cores)
    assert done.returncode == 0, done.stderr.decode()
    one, two = (read(folder / "manifest.json") for folder in (bundle, elsewhere / "bundle"))
    for first, second in zip(one["files"], two["files"], strict=True):
        assert first["path"] == second["path"]
        assert first["reproducible"] == second["reproducible"]
        if first["reproducible"]:
            assert (bundle / first["path"]).read_bytes() == (elsewhere / "bundle" / first["path"]).read_bytes(), first[
                "path"
            ]
    assert one["artifacts_sha256"] == two["artifacts_sha256"]
    differing = {"files", "manifest_sha256"}
    assert {key: one[key] for key in one.keys() - differing} == {key: two[key] for key in two.keys() - differing}


@pytest.mark.slow
def test_card_says_what_the_report_says(bundle: Path) -> None:
    card = (bundle / "MODEL_CARD.md").read_text("utf-8")
    report = read(bundle / "report.json")
    (shipped,) = [
        row
        for row in report["results"]
        if (row["model"], row["split"], row["metric"]) == ("student_int8", "session", "balanced_accuracy")
    ]
    assert f"{100 * shipped['value']:.1f} % ({100 * shipped['ci_low']:.1f}–{100 * shipped['ci_high']:.1f})" in card
    assert f"{(bundle / 'student_int8.tflite').stat().st_size:,}" in card
    assert sha256_of_file(bundle / "student_int8.tflite") in card
    assert "Licence of the recordings: not known" in card
    assert report["created"][:10] not in card


@pytest.mark.slow
def test_report_holds_every_model_on_every_split(bundle: Path) -> None:
    report = read(bundle / "report.json")
    value = {(row["model"], row["split"], row["metric"]): row for row in report["results"]}
    for split in ("session", "wearer"):
        for model in ("lda", "teacher", "student", "student_int8"):
            row = value[model, split, "balanced_accuracy"]
            assert 0.3 < row["value"] <= 1
            assert row["n_groups"] == 3
    assert ("supervised", "session", "balanced_accuracy") in value
    assert value["student_int8", "session", "class_flips"]["value"] < 0.2
    assert value["student_int8", "session", "mean_removed_error"]["value"] < 0.5
    assert all(gate["ok"] for gate in report["gates"])
    tested = {row["wearer"] for row in report["per_wearer"] if (row["model"], row["split"]) == ("student", "wearer")}
    assert tested == {"a", "b", "c"}
    int8 = report["quantization"]
    by_name = {layer["name"]: layer for layer in int8["sensitivity"]["layers"]}
    assert by_name.keys() <= {layer["name"] for layer in int8["layers"]}
    whole = int8["sensitivity"]["whole"]["mean_removed_error"]
    assert all(0 <= layer["without"]["mean_removed_error"] < 2 * whole for layer in by_name.values())
    page = (bundle / "report.html").read_text("utf-8")
    assert "<html" in page and "The layers that int8 hurts most" in page


@pytest.mark.slow
def test_second_run_runs_nothing_again(again: Path, data: Path, recipe: Path) -> None:
    before = read(again / "manifest.json")["files"]
    assert deploy(data, recipe, again) == 0
    assert ran(again) == set()
    after = read(again / "manifest.json")["files"]
    for one, two in zip(before, after, strict=True):
        assert one["path"] == two["path"]
        assert one["sha256"] == two["sha256"] or one["kind"] == "report"


@pytest.mark.slow
def test_another_target_and_other_gates_change_what_files_say_and_train_nothing(
    again: Path, data: Path, tmp_path: Path
) -> None:
    from embridge_edge.export import metadata

    changed = tmp_path / "phone.toml"
    before = (again / "student_int8.onnx").read_bytes()
    changed.write_text(RECIPE.replace("class_flips = 0.5", "class_flips = 0.9"))
    assert deploy(data, changed, again) == 0
    assert ran(again) == {"exported", "measured", "package"}
    assert "android/build.gradle.kts" not in read(again / "report.json")["package"]["files"]
    manifest = read(again / "manifest.json")
    assert read(again / "student" / "model.json")["provenance"]["recipe_sha256"] == manifest["recipe_sha256"]
    changed.write_text(RECIPE.replace('target = "nrf52840"', 'target = "phone-arm64"'))
    assert deploy(data, changed, again) == 0
    assert not {step for step in ran(again) if "teacher" in step or "student" in step}
    manifest = read(again / "manifest.json")
    assert manifest["recipe"]["target"] == "phone-arm64"
    assert (again / "package" / "android" / "src" / "main" / "assets" / "model_int8.tflite").read_bytes() == (
        again / "student_int8.tflite"
    ).read_bytes()
    for name in ("student.tflite", "student_int8.tflite", "student.onnx", "student_int8.onnx"):
        about = metadata.read(again / name)
        assert about is not None
        assert about["provenance"]["recipe_sha256"] == manifest["recipe_sha256"]
    for kind in ("teacher", "supervised", "student"):
        assert read(again / kind / "model.json")["provenance"]["recipe_sha256"] == manifest["recipe_sha256"]
    weights = [model_weights(content) for content in (before, (again / "student_int8.onnx").read_bytes())]
    assert (
        max(map(abs, weights[0])) <= 64 < max(map(abs, weights[1]))
    )  # seven bits where kernels of a PC saturate, eight on a phone


def model_weights(content: bytes) -> list[int]:
    """All int8 weights of an ONNX model, without zero points."""
    import onnx
    from onnx import TensorProto, numpy_helper

    initializers = onnx.load_from_string(content).graph.initializer
    return [
        int(value) for one in initializers if one.data_type == TensorProto.INT8 and len(one.dims) > 1
        for value in numpy_helper.to_array(one).reshape(-1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("[prune.layers]\n'encoder.*' = 0.5\n", "layers names 'encoder.*', and this student has"),
        ("[prune]\nbudget = { flash_bytes = 100 }\n", "Pruned to the least"),
    ],
)
def test_what_cannot_be_pruned_so_is_refused_before_anything_is_trained(
    data: Path, tmp_path: Path, more: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = tmp_path / "tiny.toml", tmp_path / "out"
    file.write_text(RECIPE + more)
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    given = ["deploy", "--data", str(data), "--recipe", str(file), "--out", str(out), "--force"]
    assert run(given) == 2
    printed = capsys.readouterr().err
    assert says in printed.splitlines()[-1]
    assert "holds other files; they are no part of the bundle" in printed
    assert not list((out / "work").glob("*teacher*")) and (out / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"unit_per_count = 1e-3\n": ""},
            "The recordings are in volts, and the recipe wants a C package: say what one count",
        ),
        ({'target = "nrf52840"': 'target = "ethos-u55-128"'}, "ethos-u55-128 runs what Vela compiles, and no C"),
        ({"verify = 1": "sample_bits = 24"}, "sample_bits"),
        ({"unit_per_count = 1e-3": "unit_per_count = 1e30"}, "leave full scale within float32"),
        (
            {
                "[student]\nwidths = [16, 16]\nkernels = [3, 3]\nstrides = [2, 1]": '[student]\nfamily = "transformer"\nwidth = 16'
            },
            "its weights are computed at run time; use BATCH_MATMUL. Either set family to conv or ring in [student], or leave",
        ),
    ],
)
def test_a_package_that_cannot_be_is_refused_before_anything_is_trained(
    data: Path, tmp_path: Path, changes: dict[str, str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, text = tmp_path / "tiny.toml", RECIPE
    for before, after in changes.items():
        text = text.replace(before, after)
    file.write_text(text)
    assert deploy(data, file, tmp_path / "out") == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out" / "work").glob("*teacher*"))


def stopped(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_package_without_a_compiler_is_refused_before_anything_is_trained(
    data: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    assert deploy(data, recipe, tmp_path / "out") == 2
    assert "A C compiler is needed to check generated code" in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "out" / "work").glob("*teacher*"))
    # Nor where a package was possible on the machine that ran before.
    monkeypatch.delenv("CC")
    with monkeypatch.context() as patched:
        patched.setattr("embridge_edge.verbs.deploy.do_all", stopped)
        assert deploy(data, recipe, tmp_path / "out") == 130
    assert (tmp_path / "out" / "work" / "package.tried" / "step.json").is_file()
    monkeypatch.setenv("CC", "no-such-compiler")
    assert deploy(data, recipe, tmp_path / "out") == 2
    assert "A C compiler is needed to check generated code" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_package_is_the_model_that_ships_and_goes_with_its_table(again: Path, data: Path, tmp_path: Path) -> None:
    digest = sha256_of_file(again / "student_int8.tflite")
    about = read(again / "report.json")["package"]
    assert about["inputs_checked"] == 1 and about["mismatches"] == 0 and about["selftests"] == {"host": True}
    held = {one["path"]: one for one in read(again / "manifest.json")["files"] if one["path"].startswith("package/")}
    assert {"package/CMakeLists.txt", "package/LICENSE"} <= held.keys() and "package/bridge.json" not in held
    assert all(one["parents"] == [digest] for one in held.values())
    assert {f"package/{name}" for name in about["files"]} == held.keys()
    changed = tmp_path / "tiny.toml"
    changed.write_text(RECIPE.replace("[package]\nunit_per_count = 1e-3\nverify = 1\n", ""))
    assert deploy(data, changed, again) == 0
    assert not (again / "package").exists() and read(again / "report.json")["package"] == {}
    assert not [one for one in read(again / "manifest.json")["files"] if one["path"].startswith("package/")]


@pytest.mark.slow
def test_16_bit_layers_are_searched_where_the_recipe_says_so(again: Path, data: Path, tmp_path: Path) -> None:
    changed = tmp_path / "tiny.toml"
    without = RECIPE.replace("[package]\nunit_per_count = 1e-3\nverify = 1\n", "")
    started = without.replace("windows = 64", 'windows = 64\nwide = ["02_conv_2d"]')
    changed.write_text(started + "[quantize.mix]\nwindows = 60\nlayers = 3\nleast_gain = 0.0\n")
    assert deploy(data, changed, again) == 0
    curve = read(again / "report.json")["quantization"]["mixing"]
    assert len(curve) <= 3 and curve[0]["wide"] == ["02_conv_2d"]
    errors = [mix["damage"]["mean_removed_error"] for mix in curve]
    assert errors == sorted(errors, reverse=True)
    types = {
        tensor.name: tensor.type
        for tensor in read_graph((again / "student_int8.tflite").read_bytes()).tensors
        if not tensor.is_constant
    }
    assert {types[name] for name in curve[-1]["wide"]} == {"int16"}
    page = (again / "report.html").read_text("utf-8")
    assert ("Mixed precision: what each further layer" in page) == (len(curve) > 1)


@pytest.mark.slow
def test_recordings_within_the_bundle_are_refused(data: Path, recipe: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "out" / "recordings")
    assert deploy(tmp_path / "out" / "recordings", recipe, tmp_path / "out", "--force") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"recordings"}


@pytest.mark.slow
def test_what_a_killed_run_left_and_an_old_signature_are_gone_after_the_next(
    again: Path, data: Path, recipe: Path
) -> None:
    """`kill -9` leaves temporary files, which verify would refuse as files that no manifest lists."""
    left = [again / ".manifest.json.ab12_xyz.json", again / "student" / ".model.json.00000000.json"]
    others = again / ".manifest.json.mine"
    for path in (*left, others, again / "manifest.json.sig"):
        path.write_text("half")
    assert run(["verify", str(again)]) == 3
    (data / "LICENSE").write_text("\n  MIT License\nCopyright …\n", "utf-8")
    try:
        assert deploy(data, recipe, again) == 0
    finally:
        (data / "LICENSE").unlink()
    assert not [path for path in left if path.exists()]
    assert not (again / "manifest.json.sig").exists()
    assert others.exists()
    others.unlink()
    assert run(["verify", str(again)]) == 0
    assert "LICENSE lies with them and begins “MIT License”" in (again / "MODEL_CARD.md").read_text("utf-8")


@pytest.mark.slow
def test_disk_that_fills_up_at_the_manifest_leaves_none(
    again: Path, data: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith(".manifest.json"):
            plain(path, content[:100])
            raise OSError(28, "No space left on device")
        return plain(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert deploy(data, recipe, again) == 2
    assert "No space left" in capsys.readouterr().err
    assert not [path for path in again.iterdir() if "manifest" in path.name]
    assert run(["verify", str(again)]) == 3


@pytest.mark.slow
def test_run_that_fails_leaves_no_manifest_over_other_files(
    again: Path, data: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embridge_edge.errors import EdgeError
    from embridge_edge.verbs import deploy as module

    def full(*_: object) -> None:
        raise EdgeError("The disk is full.")

    monkeypatch.setattr(module, "parity", full)
    assert deploy(data, recipe, again, "--seed", "5") == 2
    assert not (again / "manifest.json").exists()
    assert not (again / "report.json").exists()
    assert run(["verify", str(again)]) == 3
    monkeypatch.undo()
    assert deploy(data, recipe, again) == 0
    test_manifest_is_true(again, data)


def test_checkpoint_that_is_none_is_refused_before_anything_is_read(data: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert deploy(data, recipe, out, "--checkpoint", str(tmp_path / "nothere")) == 2
    assert not out.exists()


def test_another_seed_trains_again(again: Path, data: Path, recipe: Path) -> None:
    before = sha256_of_file(again / "student_int8.tflite")
    assert deploy(data, recipe, again, "--seed", "1") == 0
    assert {"session.teacher", "session.student", "session.int8", "wearer-1.teacher", "session.judged"} <= ran(again)
    assert "windows" not in ran(again)
    assert sha256_of_file(again / "student_int8.tflite") != before


@pytest.mark.slow
def test_a_change_reaches_the_steps_that_depend_on_it_and_no_others(again: Path, data: Path, tmp_path: Path) -> None:
    changed = tmp_path / "tiny.toml"
    changed.write_text(RECIPE.replace("windows = 64", "windows = 60"))
    assert deploy(data, changed, again) == 0
    made = ran(again)
    assert {"session.int8", "session.int8.heard", "session.judged", "exported", "measured", "sensitivity"} <= made
    assert not {step for step in made if "teacher" in step or "student" in step or step == "windows"}
    # Three folds instead of two: fold 0 has the same number and other people.
    changed.write_text(RECIPE.replace("windows = 64", "windows = 60").replace("folds = 2", "folds = 3"))
    assert deploy(data, changed, again) == 0
    assert {"wearer-0.teacher", "wearer-0.student", "wearer-2.int8", "wearer.judged"} <= ran(again)
    assert not {step for step in ran(again) if step.startswith("session.")}


@pytest.mark.slow
def test_student_is_pruned_where_the_recipe_says_so(again: Path, data: Path, tmp_path: Path) -> None:
    before = (again / "student_int8.tflite").stat().st_size
    changed = tmp_path / "tiny.toml"
    changed.write_text(RECIPE + "[prune]\nsteps = 40\n")
    assert deploy(data, changed, again) == 0
    assert {"session.student", "wearer-1.student", "session.int8"} <= ran(again)
    assert not {step for step in ran(again) if "teacher" in step}
    about = read(again / "student" / "model.json")
    assert about["shape"]["widths"] == [8, 8] and about["shape"]["queries"] == 1
    assert about["provenance"]["pruned"]["steps"] == 40
    assert (again / "student_int8.tflite").stat().st_size < before


@pytest.mark.slow
def test_where_the_recipe_trains_with_rounding_the_report_has_both_int8_models(
    again: Path, data: Path, tmp_path: Path
) -> None:
    pytest.importorskip("nncf")
    before = sha256_of_file(again / "student_int8.tflite")
    changed = tmp_path / "qat.toml"
    changed.write_text(RECIPE.replace("windows = 64", "windows = 64\n[quantize.qat]\nsteps = 20"))
    assert deploy(data, changed, again) == 0
    assert "session.int8" in ran(again) and not {"session.teacher", "session.student"} & ran(again)
    assert sha256_of_file(again / "student_int8.tflite") != before
    forms = {form["name"]: form for form in read(again / "report.json")["quantization"]["forms"]}
    assert list(forms) == ["float", "ptq", "qat", "qat_float"]
    assert forms["float"]["class_flips"] == 0.0 < forms["qat"]["mean_removed_error"]
    assert "int8, trained with rounding" in (again / "report.html").read_text("utf-8")
    manifest = read(again / "manifest.json")
    hash_of, parents = ({row["path"]: row[key] for row in manifest["files"]} for key in ("sha256", "parents"))
    for name in ("student.tflite", "student_int8.tflite", "student.onnx", "student_int8.onnx"):
        # The weights of all four were trained, on the recordings, from ranges of the calibration windows.
        assert {hash_of["calibration.safetensors"], manifest["data_sha256"]} <= set(parents[name]), name


@pytest.mark.slow
def test_missed_gate_is_status_3_with_its_name_and_the_bundle_is_written(
    again: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = tmp_path / "strict.toml"
    strict.write_text(RECIPE + "tflite_bytes = 10\nstudent_balanced_accuracy = 0.01\n")
    (again / "manifest.json").unlink()
    assert deploy(data, strict, again, "--json") == 3
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "1 gates missed: tflite_bytes" in printed.err or "1 gate missed: tflite_bytes" in printed.err
    assert json.loads(printed.out)["ok"] is False
    assert (again / "manifest.json").is_file()
    missed = [gate["name"] for gate in read(again / "report.json")["gates"] if not gate["ok"]]
    assert missed == ["tflite_bytes"]


@pytest.mark.slow
def test_interrupted_deploy_goes_on_to_the_same_bytes(bundle: Path, data: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "embridge_edge", "deploy", "--data", str(data), "--recipe", str(recipe)]
    with subprocess.Popen(
        [*command, "--out", str(out), "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (a job in the background ignores it)
    ) as process:
        waited = time.monotonic()
        while not (out / "work" / "session.teacher").is_dir():
            assert process.poll() is None
            assert time.monotonic() - waited < 240
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
        printed, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert printed == ""
    assert errors.strip().count("\n") == 0, errors
    assert "Interrupted" in errors
    assert not (out / "manifest.json").exists()
    assert deploy(data, recipe, out) == 0
    assert not {"windows", "session.teacher"} & ran(out)
    for name in ("student_int8.tflite", "student_int8.onnx", "teacher/model.safetensors"):
        assert (out / name).read_bytes() == (bundle / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which tells a process that its parent has ended")
def test_nothing_goes_on_training_when_deploy_is_killed(data: Path, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    command = [sys.executable, "-m", "embridge_edge", "deploy", "--data", str(data), "--recipe", str(recipe)]
    process = subprocess.Popen([*command, "--out", str(out), "--quiet"], start_new_session=True)
    started = time.monotonic()
    while not (out / "work" / "session.teacher").is_dir():
        assert process.poll() is None
        assert time.monotonic() - started < 240
        time.sleep(0.05)
    process.terminate()
    process.wait(10)
    killed = time.monotonic()
    with pytest.raises(ProcessLookupError):  # no process of its group is left
        while time.monotonic() - killed < 20:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.slow
def test_a_teacher_that_is_given_is_not_trained_and_must_not_have_seen_the_test_side(
    bundle: Path, data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "given"
    assert deploy(data, recipe, out, "--checkpoint", str(bundle / "teacher")) == 0
    assert {row["split"] for row in read(out / "report.json")["results"]} == {"session"}
    given = sha256_of_file(bundle / "teacher" / "model.safetensors")
    assert read(out / "manifest.json")["parents"]["given_checkpoint"] == given
    assert (out / "teacher" / "model.safetensors").read_bytes() == (
        bundle / "teacher" / "model.safetensors"
    ).read_bytes()
    for file in data.glob("*_2_*.hdf5"):  # session 1, on which it was trained, is now the last
        (tmp_path / "other").mkdir(exist_ok=True)
        shutil.copy(data / file.name.replace("_2_", "_1_"), tmp_path / "other")
    write_emg2pose([recording(wearer, 0) for wearer in "abc"], tmp_path / "other" / "earlier")
    capsys.readouterr()
    assert deploy(tmp_path / "other", recipe, tmp_path / "leak", "--checkpoint", str(bundle / "teacher")) == 2
    assert "has seen" in capsys.readouterr().err


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    from embridge_edge.progress import SILENT

    return Workspace(tmp_path / "work", SILENT)


Make = Callable[[Path], None]


def test_step_is_done_once_per_inputs(workspace: Workspace) -> None:
    calls: list[int] = []

    def make(folder: Path) -> None:
        calls.append(1)
        (folder / "file").write_text(str(len(calls)))

    folder, key = workspace.step("a", [1, ("x",)], make)
    assert workspace.step("a", [1, ["x"]], make) == (folder, key)
    assert len(calls) == 1
    _, other = workspace.step("a", [2], make)
    assert other != key
    assert (folder / "file").read_text() == "2"
    assert [row["cached"] for row in workspace.minutes] == [False, True, False]


def test_step_that_fails_leaves_what_was_there(workspace: Workspace) -> None:
    folder, _ = workspace.step("a", 1, lambda made: (made / "file").write_text("sound") and None)

    def fail(made: Path) -> None:
        (made / "file").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.step("a", 2, fail)
    assert (folder / "file").read_text() == "sound"
    assert [path.name for path in workspace.folder.iterdir()] == ["a"]


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"key": 1}'])
def test_step_whose_note_is_damaged_is_done_again(workspace: Workspace, damage: str) -> None:
    folder, _ = workspace.step("a", 1, lambda made: None)
    (folder / "step.json").write_text(damage)
    workspace.step("a", 1, lambda made: None)
    assert [row["cached"] for row in workspace.minutes] == [False, False]


def test_fingerprint_follows_the_files_and_what_describes_them(tmp_path: Path) -> None:
    data, description = tmp_path / "data", tmp_path / "mine.toml"
    data.mkdir()
    (data / "a.csv").write_text("1")
    description.write_text("x")
    first = fingerprint(data, str(description))
    assert fingerprint(data, str(description)) == first
    assert fingerprint(data) != first
    description.write_text("y")
    assert fingerprint(data, str(description)) != first
    before = fingerprint(data)
    (data / "a.csv").write_text("11")
    assert fingerprint(data) != before
    alone = fingerprint(data / "a.csv")
    (data / "recording.toml").write_text("x")
    assert fingerprint(data / "a.csv") != alone


def test_nothing_is_written_among_the_recordings(tmp_path: Path) -> None:
    from embridge_edge.errors import EdgeError

    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    refuse_inside(tmp_path / "database", tmp_path / "data")
    for out in (tmp_path / "data", tmp_path / "data" / "x", tmp_path / "link" / "x", tmp_path / "data" / ".." / "data"):
        with pytest.raises(EdgeError, match="lies inside"):
            refuse_inside(out, tmp_path / "data")


def test_folder_that_holds_what_is_read_is_not_replaced(tmp_path: Path) -> None:
    from embridge_edge.errors import EdgeError

    (tmp_path / "project" / "data").mkdir(parents=True)
    refuse_around(tmp_path / "project" / "model", tmp_path / "project" / "data")
    for out in (tmp_path / "project", tmp_path / "project" / "data", tmp_path / "project" / "data" / ".."):
        with pytest.raises(EdgeError, match="which is read"):
            refuse_around(out, tmp_path / "project" / "data")
