"""`bridge` over the command line: the contract of its JSON, its exit statuses, and what it refuses in one line."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge_edge import cli
from embridge_edge.errors import EdgeError
from embridge_edge.export import metadata
from embridge_edge.export.flatbuffer import pack, unpack
from embridge_edge.firmware_bridge import verifying
from embridge_edge.firmware_bridge.graph import IDENTIFIER, read_graph
from embridge_edge.firmware_bridge.verifying import Mismatch
from embridge_edge.verbs.bridge import bridge
from embridge_edge.verbs.packaging import RESERVED, Wanted, symbol_name
from tests.firmware_bridge.graphs import TANH, VALID, Network, convolution, pad, unary
from tests.tools import QEMU, needs

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
    needs(*QEMU)
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


@pytest.mark.slow
def test_an_emulated_target_of_ones_own_runs_on_the_core_of_its_kind(tmp_path: Path) -> None:
    needs(*QEMU)
    own = tmp_path / "own.toml"
    own.write_text('based_on = "qemu-m3"\nname = "own"\nram_kib = 64\n')
    report = bridge(written(tmp_path, fused().model()), str(own), tmp_path / "out", verify=1, measure=True)
    assert report.missed == ""
    assert report.selftests == {"host": True, "own": True}
    assert report.measured is not None
    assert report.measured.board == "qemu-m3"


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


def test_what_is_wrong_is_said_in_a_line_the_gravest_first(model: Path, tmp_path: Path) -> None:
    right = bridge(model, "host", tmp_path / "library", verify=1)
    assert right.verification is not None
    assert right.missed == ""
    nothing = dataclasses.replace(right.verification, tensors_checked=0)
    unequal = dataclasses.replace(nothing, mismatches=(Mismatch("host", 0, "Identity", 2, 5.0, 4.0, 1),))
    failed = dataclasses.replace(right, selftests={"host": True, "qemu-m4": False})
    assert failed.missed == "The package's self-test fails on qemu-m4; report this with the model."
    assert dataclasses.replace(failed, verification=nothing).missed.startswith("No tensor was compared")
    assert dataclasses.replace(failed, verification=unequal).missed.startswith("'Identity' differs on host for input 0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--target", "nowhere"], "Unknown target"),
        (["--target", "esp32-s3", "--measure"], "use --target qemu-m0"),
        (["--target", "host", "--measure"], "emulated"),
        (["--target", "host", "--address", "flash"], "0x08080000"),
        (["--target", "host", "--package-version", "one"], "version"),
        (["--target", "host", "--head", "linear"], "--head is for"),
        (["--target", "host", "--name", "3d"], "C identifier"),
        (["--target", "host", "--name", "emb_conv"], "another --name"),
        (["--target", "host", "--name", "string"], "another --name"),
        (["--target", "host", "--verify", "-1"], "--verify"),
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


def fused() -> Network:
    """PAD, CONV_2D and RELU that become one call, and an op that no output needs."""
    network = Network()
    given = network.input((1, 4, 4, 2))
    padded = pad(network, given, [(0, 0), (1, 1), (1, 1), (0, 0)])
    made = convolution(network, padded, 3, kernel=(3, 3), padding=VALID, called='*/ "conv" \\ \u202e\n')
    network.outputs = [unary(network, "RELU", made)]
    unary(network, "TANH", network.outputs[0], TANH)
    return network


def written(folder: Path, content: bytes, name: str = "net.tflite") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("profile", ["litert-ref", "tflm"])
def test_json_alone_is_on_stdout_and_names_what_is_not_compared(tmp_path: Path, profile: str) -> None:
    """In a process of its own, because runtimes print past Python."""
    network = fused()
    model = written(tmp_path, network.model(), 'it\'s "mine" $x.tflite')
    done = subprocess.run(
        [
            sys.executable, "-m", "embridge_edge", "bridge", str(model), "--target", "host", "--profile", profile,
            "--out", str(tmp_path / "out"), "--verify", "2", "--tflm", "--json", "--quiet",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    pad_output, conv_output, relu_output, unused = (outputs[0] for _, _, outputs, _, _ in network.ops)
    assert report["fused_tensors"] == [network.names[pad_output], network.names[conv_output]]
    assert report["left_out_tensors"] == [network.names[unused]]
    assert report["tensors_checked"] == 2
    assert network.outputs == [relu_output]


def test_files_for_tflm_know_every_op_of_the_model_fused_ones_included(tmp_path: Path) -> None:
    report = bridge(written(tmp_path, fused().model()), "host", tmp_path / "out", wanted=Wanted(tflm=True))
    (resolver,) = (path for path in report.files if path.endswith("_resolver.h"))
    text = (tmp_path / "out" / resolver).read_text()
    assert all(f"resolver->{method}()" in text for method in ("AddPad", "AddConv2D", "AddRelu", "AddTanh"))


def with_weights_behind(content: bytes) -> bytes:
    """The model with its constants behind the flatbuffer, as ai-edge-quantizer stores those of large models."""
    import flatbuffers

    model = unpack(content)
    stored = [(buffer, bytes(buffer.data)) for buffer in model.buffers if buffer.data is not None and len(buffer.data)]
    size = 0
    for _ in range(2):  # once to learn how long the flatbuffer is
        at = size + -size % 16
        for buffer, data in stored:
            buffer.data, buffer.offset, buffer.size = None, max(at, 2), len(data)
            at += len(data) + -len(data) % 16
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
        made = bytes(builder.Output())
        size = len(made)
    return made + bytes(-size % 16) + b"".join(data + bytes(-len(data) % 16) for _, data in stored)


@pytest.mark.parametrize("profile", ["litert-ref", "tflm"])
def test_weights_behind_the_flatbuffer_are_read_and_given_to_tflm_inline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], profile: str
) -> None:
    content = fused().model()
    model = written(tmp_path, with_weights_behind(content))
    assert read_graph(model).weights_at_offsets
    status, printed, _ = run(
        capsys, "bridge", model, "--target", "host", "--profile", profile, "--out", tmp_path / "out", "--verify", 3,
        "--tflm", "--json",
    )  # fmt: skip
    report = json.loads(printed)
    assert (status, report["tensors_checked"], report["selftests"]) == (0, 3, {"host": True})
    (array,) = (path for path in report["files"] if path.endswith("_model_data.cc"))
    listed = re.findall(r"0x([0-9a-f]{2})\b", (tmp_path / "out" / array).read_text())
    assert not read_graph(bytes.fromhex("".join(listed))).weights_at_offsets


def test_a_model_inside_the_folder_that_would_be_replaced_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "src").mkdir()
    model = written(tmp_path / "src", fused().model())
    status, _, said = run(capsys, "bridge", model, "--target", "host", "--out", tmp_path, "--force")
    assert (status, len(said.strip().splitlines())) == (2, 1)
    assert model.is_file()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    whole = fused().model()
    model = written(tmp_path, whole[: len(whole) // 2], "cut.tflite")
    with pytest.raises(EdgeError, match=r"cut\.tflite is (truncated or )?damaged"):
        bridge(model, "host", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["string", "int8", "size", "stdint", "emb_net", "8bit"])
def test_a_file_named_like_something_of_c_still_becomes_a_library(tmp_path: Path, name: str) -> None:
    report = bridge(written(tmp_path, fused().model(), f"{name}.tflite"), "host", tmp_path / "out", verify=1)
    assert report.program.name == f"model_{name}"
    assert report.selftests == {"host": True}


def test_reserved_names_are_those_of_the_compilers_headers_and_types() -> None:
    """Every one of them clashes with something: with a header of this machine's C library, or with a type of C."""
    include = [f"#include <{name}.h>" for name in ("stddef", "stdint", "sys/types")]
    for name in sorted(RESERVED):
        program = "\n".join([*include, f"typedef struct {{ int x; }} {name}_t;"])
        command = ["cc", "-std=c11", "-fsyntax-only", "-xc", "-"]
        clashes = subprocess.run(command, input=program, capture_output=True, text=True, check=False).returncode != 0
        header = subprocess.run(
            ["cc", "-std=c11", "-E", "-xc", "-"],
            input=f"#include <{name}.h>\n",
            capture_output=True,
            text=True,
            check=False,
        )
        assert clashes or header.returncode == 0, name


@pytest.mark.parametrize(
    "about",
    [
        {"chain": 5, "heads": [1]}, {"chain": None, "heads": True}, {"chain": [], "heads": "x"}, {"chain": {}, "heads": [{}]},
        {"chain": {"unit": "V"}, "heads": {"linear": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_metadata_that_is_no_chain_is_one_line(tmp_path: Path, about: dict[str, Any]) -> None:
    model = written(tmp_path, metadata.attach(fused().model(), about))
    with pytest.raises(EdgeError, match="again"):
        bridge(model, "host", tmp_path / "out")
    assert bridge(model, "host", tmp_path / "out", wanted=Wanted(network_only=True)).files


@pytest.mark.parametrize("arguments", [["--target", "qemu-m4", "--measure"], ["--target", "host", "--verify", "1"]])
def test_a_missing_tool_is_named_in_one_line_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    model = written(tmp_path, fused().model())
    monkeypatch.setenv("PATH", str(tmp_path))
    status, printed, said = run(capsys, "bridge", model, "--out", tmp_path / "out", *arguments, "--quiet")
    assert (status, printed) == (2, "")
    assert "install" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_temporary_files_vanish_whatever_happens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, scratch = written(tmp_path, fused().model()), tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    arguments = ("bridge", model, "--target", "host", "--verify", 1, "--quiet", "--out")
    assert run(capsys, *arguments, tmp_path / "good")[0] == 0

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verifying, "_first_mismatch", interrupted)
    assert run(capsys, *arguments, tmp_path / "stopped")[0] == 130
    monkeypatch.undo()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    monkeypatch.setenv("CC", "false")
    assert run(capsys, *arguments, tmp_path / "refused")[0] == 2
    assert list(scratch.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "net.tflite", "tmp"]


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
