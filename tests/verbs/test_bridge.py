"""`bridge` over the command line: the contract of its JSON, its exit statuses, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge import cli
from embridge_edge.errors import EdgeError
from embridge_edge.export.flatbuffer import pack, unpack
from embridge_edge.firmware_bridge import verifying
from embridge_edge.verbs.bridge import Wanted, bridge, symbol_name

KEYS = {
    "model", "target", "profile", "inputs_checked", "tensors_checked", "mismatches", "instructions", "per_op",
    "code_flash_bytes", "const_bytes", "ram_bytes", "stack_bytes",
}  # fmt: skip


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.run([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture
def model(models: Path) -> Path:
    return models / "ad01_int8.tflite"


def test_json_says_what_was_checked_and_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "library"
    status, printed, said = run(
        capsys, "bridge", model, "--target", "host", "--profile", "tflm", "--out", out, "--verify", 5, "--json"
    )
    report: dict[str, Any] = json.loads(printed)
    assert status == 0
    assert set(report) >= KEYS
    assert (report["inputs_checked"], report["tensors_checked"], report["mismatches"]) == (5, 50, 0)
    assert report["instructions"] is None
    assert report["per_op"] == []
    assert json.loads((out / "bridge.json").read_text()) == report
    assert all((out / name).is_file() for name in report["files"])
    assert "comparing 5 inputs" in said


@pytest.mark.slow
def test_an_emulated_target_is_compared_and_counted_there(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, printed, _ = run(
        capsys, "bridge", model, "--target", "qemu-m4", "--profile", "tflm", "--out", tmp_path / "library",
        "--verify", 3, "--measure", "--json", "--quiet",
    )  # fmt: skip
    report = json.loads(printed)
    assert status == 0
    assert (report["inputs_checked"], report["tensors_checked"], report["mismatches"]) == (3, 60, 0)
    assert report["instructions"] == report["first_instructions"] > report["per_op"][0]["instructions"] > 0
    assert [step["macs"] for step in report["per_op"]] == [81920, 16384, 16384, 16384, 1024, 1024, *[16384] * 3, 81920]
    assert report["emulated"] == "qemu-m4"
    assert report["selftests"] == {"host": True, "qemu-m4": True}
    assert report["sizes"]["ok"]
    assert min(report[key] for key in ("code_flash_bytes", "const_bytes", "ram_bytes", "stack_bytes")) > 0


def test_a_difference_is_status_3_and_everything_is_written(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reference is made wrong, since the library is not: the fourth layer's third value."""
    true_oracle = verifying.oracle_for

    def wrong(*arguments: Any) -> Any:
        oracle = true_oracle(*arguments)

        def changed(inputs: Any) -> Any:
            tensors = oracle(inputs)
            index = sorted(tensors)[3]
            tensors[index].reshape(-1)[2] ^= 1
            return tensors

        return changed

    monkeypatch.setattr(verifying, "oracle_for", wrong)
    out = tmp_path / "library"
    status, printed, said = run(
        capsys, "bridge", model, "--target", "host", "--out", out, "--verify", 2, "--json", "--quiet"
    )
    report = json.loads(printed)
    assert status == 3
    assert report["mismatches"] == 2
    assert report["first_mismatches"][0]["at"] == 2
    assert "element 2" in said
    assert len(said.strip().splitlines()) == 1
    assert (out / "bridge.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "nowhere"], "Unknown target"),
        (["--target", "esp32-s3", "--measure"], "use --target qemu-m0"),
        (["--target", "host", "--measure"], "emulated"),
        (["--target", "host", "--address", "flash"], "0x08080000"),
        (["--target", "host", "--package-version", "one"], "version"),
        (["--target", "host", "--name", "3d"], "C identifier"),
        (["--target", "host", "--name", "emb_conv"], "another --name"),
        (["--target", "host", "--profile", "best"], "litert-ref"),
    ],
)
def test_wrong_arguments_are_one_line_and_write_nothing(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    status, printed, said = run(capsys, "bridge", model, "--out", tmp_path / "library", *arguments)
    assert (status, printed) == (2, "")
    assert words in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "library").exists()


def test_a_folder_with_something_else_is_not_replaced(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    status, _, said = run(capsys, "bridge", model, "--target", "host", "--out", tmp_path, "--force")
    assert status == 2
    assert "mine.txt" in said
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_no_model_and_no_tflite_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "not.tflite").write_bytes(b"nothing of the kind")
    for name in ("missing.tflite", "not.tflite"):
        status, _, said = run(capsys, "bridge", tmp_path / name, "--target", "host", "--out", tmp_path / "out")
        assert status == 2
        assert name in said or "TFLite" in said


def test_a_float_model_is_refused_by_layer(model: Path, tmp_path: Path) -> None:
    changed = unpack(model.read_bytes())
    for tensor in changed.subgraphs[0].tensors:
        if tensor.name == b"Identity":
            tensor.type = 0
    path = tmp_path / "float.tflite"
    path.write_bytes(pack(changed))
    with pytest.raises(EdgeError, match=r"Layer 'Identity' \(FULLY_CONNECTED, op 9\): its output is float32"):
        bridge(path, "host", tmp_path / "out")


def test_names_are_made_of_the_files(tmp_path: Path) -> None:
    assert symbol_name(None, Path("kws_ref_model.tflite")) == "kws_ref_model"
    assert symbol_name(None, Path("3-D Läufer (int8).tflite")) == "model_3_d_l_ufer_int8"
    assert symbol_name("net", Path("x.tflite")) == "net"
    assert len(symbol_name(None, Path("a" * 99))) == 40


def test_python_and_the_command_line_write_the_same_files(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = bridge(model, "qemu-m7", tmp_path / "a", wanted=Wanted(profile="tflm"))
    run(capsys, "bridge", model, "--target", "qemu-m7", "--profile", "tflm", "--out", tmp_path / "b")
    for name in report.files:
        assert np.array_equal((tmp_path / "a" / name).read_bytes(), (tmp_path / "b" / name).read_bytes())
