"""A ring student through the verbs: distilled, quantized, cut, exported, checked; a bundle that holds its parts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.artifacts import sha256_of_file
from embridge_edge.cli import run
from embridge_edge.export import metadata
from embridge_edge.export.ring import PART_FILES
from embridge_edge.export.running import run_tflite
from embridge_edge.recordings.emg2pose import write_emg2pose
from tests.verbs.conftest import Edge
from tests.verbs.test_deploy import RECIPE, recording

RING = RECIPE.replace(
    "[student]\n", '[student]\nfamily = "ring"\nwidth = 8\nreader_widths = [12]\nreader_kernels = [3]\n'
).replace("steps = 100\n", "steps = 40\n").replace("steps = 150\n", "steps = 60\n")  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ring") / "recordings"
    write_emg2pose([recording(wearer, session) for wearer in "abc" for session in (1, 2)], folder)
    (folder.parent / "ring.toml").write_text(RING)
    return folder


@pytest.fixture(scope="module")
def made(data: Path) -> Path:
    """Teacher, student, int8 and files, made by the verbs one after another."""
    out = data.parent
    common = ["--data", str(data), "--recipe", str(out / "ring.toml"), "--quiet"]
    assert run(["train", *common, "--split", "session", "--out", str(out / "teacher")]) == 0
    assert run(["distill", str(out / "teacher"), *common, "--out", str(out / "student")]) == 0
    assert run(["quantize", str(out / "student"), *common, "--out", str(out / "int8")]) == 0
    assert run(["export", str(out / "int8"), "--quiet", "--out", str(out / "files")]) == 0
    return out


def test_quantize_and_export_write_the_parts_beside_the_whole(made: Path) -> None:
    shape = json.loads((made / "student" / "model.json").read_text())["shape"]
    assert (shape["family"], shape["steps"], shape["hop"], shape["width"]) == ("ring", 40, 10, 8)
    for folder in ("int8", "files"):
        files = {path.name for path in (made / folder).iterdir()}
        assert {"student_int8.tflite", "student.tflite", "student.onnx", *PART_FILES} <= files
    for name in (*PART_FILES, "student_int8.tflite"):
        assert (made / "files" / name).read_bytes() == (made / "int8" / name).read_bytes()
    whole, (token, reader) = made / "files" / "student_int8.tflite", (made / "files" / name for name in PART_FILES)
    for part in (token, reader):
        about = metadata.read(part)
        assert about is not None and about["provenance"]["parents"] == [sha256_of_file(whole)]
    windows = np.random.default_rng(0).integers(-128, 128, (20, 40, 4)).astype(np.int8)
    tokens = run_tflite(token, windows.reshape(80, 10, 4), "litert-ref", raw=True)
    found = run_tflite(reader, tokens.reshape(20, 4, 8), "litert-ref", raw=True)
    np.testing.assert_array_equal(found, run_tflite(whole, windows, "litert-ref", raw=True))


def test_whole_is_judged_like_any_student_and_profiles_say_what_a_decision_costs(
    made: Path, data: Path, edge: Edge, refused: Callable[..., str]
) -> None:
    checked = edge("check", made / "int8", "--data", data, "--against", made / "student")
    assert {row["model"] for row in checked["results"]} >= {"student", "student_int8"}
    profiled = edge("profile", made / "files" / "student_int8.tflite", "--target", "nrf52840")
    ring = profiled["ring"]
    assert ring["frames"] == 4 and ring["hop"] == 10
    assert profiled["cost"]["macs"] == ring["whole_macs"] == 4 * ring["token_macs"] + ring["reader_macs"]
    assert ring["macs"] == ring["token_macs"] + ring["reader_macs"]
    part = edge("profile", made / "files" / "token_int8.tflite", "--target", "nrf52840")
    assert part["cost"]["macs"] == ring["token_macs"] and part["ring"] is None
    assert "lacks a signal chain" in refused("check", made / "files" / "token_int8.tflite", "--data", data)


@pytest.mark.slow
def test_pruned_ring_students_stay_ring_students(made: Path, data: Path, tmp_path: Path, edge: Edge) -> None:
    (tmp_path / "prune.toml").write_text(RING + "[prune]\nsteps = 10\n")
    common = ("--data", data, "--recipe", tmp_path / "prune.toml")
    edge("prune", made / "student", "--teacher", made / "teacher", *common, "--out", tmp_path / "pruned")
    edge("quantize", tmp_path / "pruned", *common, "--out", tmp_path / "int8")
    assert all((tmp_path / "int8" / name).is_file() for name in PART_FILES)
    assert (tmp_path / "int8" / "token_int8.tflite").stat().st_size < (
        made / "int8" / "token_int8.tflite"
    ).stat().st_size


@pytest.mark.parametrize(
    ("chain", "says"),
    [
        ("window_ms = 220.0", "A window of 44 samples is not two or more whole hops of 10, which a ring student needs; set window_ms"),
        ("window_ms = 200.0\nhop_ms = 200.0", "A window of 40 samples is not two or more whole hops of 40"),
        ('window_ms = 200.0\nfeatures = ["RMS"]', "A ring student needs frames that windows share, and these share none; set frame_ms"),
        ('window_ms = 200.0\nfeatures = ["RMS"]\nframe_ms = 40.0', "A ring student needs frames that windows share"),
    ],
)  # fmt: skip
def test_windows_that_are_no_whole_hops_are_refused_before_anything_is_trained(
    data: Path, tmp_path: Path, refused: Callable[..., str], chain: str, says: str
) -> None:
    (tmp_path / "wrong.toml").write_text(RING.replace("window_ms = 200.0", chain))
    line = refused("deploy", "--data", data, "--recipe", tmp_path / "wrong.toml", "--out", tmp_path / "bundle")
    assert says in line


def test_distill_refuses_them_before_the_teacher_speaks(
    made: Path, data: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    recipe = tmp_path / "features.toml"
    recipe.write_text(RECIPE.replace("window_ms = 200.0", "window_ms = 220.0").replace("steps = 100", "steps = 2"))
    common = ["--data", str(data), "--quiet"]
    assert (
        run(["train", *common, "--recipe", str(recipe), "--split", "session", "--out", str(tmp_path / "teacher")]) == 0
    )
    (tmp_path / "wrong.toml").write_text(RING.replace("window_ms = 200.0", "window_ms = 220.0"))
    line = refused(
        "distill", tmp_path / "teacher", *common, "--recipe", tmp_path / "wrong.toml", "--out", tmp_path / "student"
    )
    assert "not two or more whole hops of 10" in line


@pytest.mark.slow
def test_bundle_holds_the_parts_and_its_manifest_knows_where_they_come_from(
    data: Path, tmp_path: Path, edge: Edge
) -> None:
    recipe = tmp_path / "ring.toml"
    recipe.write_text(RING.replace('splits = ["session", "wearer"]', 'splits = ["session"]'))
    out = tmp_path / "bundle"
    common = ["deploy", "--data", str(data), "--out", str(out), "--quiet", "--recipe"]
    assert run([*common, str(recipe)]) in (0, 3)
    files = {row["path"]: row for row in json.loads((out / "manifest.json").read_text())["files"]}
    for name in PART_FILES:
        assert files[name]["kind"] == "tflite_int8"
        assert files[name]["parents"] == [files["student_int8.tflite"]["sha256"]]
    edge("verify", out)
    report = json.loads((out / "report.json").read_text())
    rows = {row["path"]: row for row in report["artifacts"]}
    whole, token, reader = (rows[name] for name in ("student_int8.tflite", "token_int8.tflite", "reader_int8.tflite"))
    assert whole["macs"] == 4 * token["macs"] + reader["macs"]
    assert whole["parameters"] == token["parameters"] + reader["parameters"]
    assert f"{token['macs'] + reader['macs']:,} MACs per decision" in report["target"]["notes"]
    assert f"{token['macs'] + reader['macs']:,} MACs per decision" in (out / "MODEL_CARD.md").read_text("utf-8")
    recipe.write_text(RECIPE.replace('splits = ["session", "wearer"]', 'splits = ["session"]'))
    assert run([*common, str(recipe)]) in (0, 3)  # another family in the same folder leaves no part behind
    assert not any((out / name).exists() for name in PART_FILES)
    edge("verify", out)
