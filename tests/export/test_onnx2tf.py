"""The second converter agrees with the first; what it says when it fails is one line."""

from __future__ import annotations

import dataclasses
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from embridge_edge.errors import EdgeError
from embridge_edge.export import onnx2tf
from embridge_edge.export.comparing import compare_files, compare_runtimes
from embridge_edge.export.environments import PLACE
from embridge_edge.export.onnx import to_onnx
from embridge_edge.export.onnx2tf import convert_onnx, converter_environment, converter_name
from embridge_edge.export.running import run_tflite
from embridge_edge.firmware_bridge.graph import float_ops, macs, read_graph

if TYPE_CHECKING:
    from conftest import Exported


@pytest.mark.slow
def test_both_converters_make_the_same_model(exported: Exported, second_converter: None, tmp_path: Path) -> None:
    theirs = convert_onnx(exported.float_onnx, exported.calibration)
    assert theirs.int8 is not None
    assert convert_onnx(exported.float_onnx, exported.calibration) == theirs  # byte by byte
    windows, ends = exported.windows, []
    np.testing.assert_allclose(run_tflite(theirs.float32, windows), exported.embeddings(), rtol=1e-4, atol=1e-4)
    for model in (exported.int8_tflite, theirs.int8):
        graph = read_graph(model)
        assert float_ops(graph) == () and macs(graph) == exported.folded.shape.macs
        ends.append(
            [(graph.tensors[index].name, graph.tensors[index].shape) for index in (*graph.inputs, *graph.outputs)]
        )
    assert ends[0] == ends[1]
    assert compare_runtimes(theirs.int8, windows, others=("tflm",)).max_steps <= 3
    files = []
    for name, model in (("ours", exported.int8_tflite), ("theirs", theirs.int8)):
        files.append(tmp_path / f"{name}.tflite")
        files[-1].write_bytes(model)
    mine, its = (run_tflite(file, windows, "litert-ref") for file in files)
    found = compare_files(files[0], files[1], mine, its)
    assert found.max_steps is not None and found.max_steps <= 3
    assert found.within_one_step is not None and found.within_one_step > 0.9
    assert (exported.decisions(mine) != exported.decisions(its)).mean() <= 0.01
    assert found.ops_apart == {"RESHAPE": (4, 2)}


@pytest.mark.slow
def test_op_that_only_tensorflow_has_is_refused_by_name(second_converter: None) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Flatten(), torch.nn.Linear(160, 4))
    with pytest.raises(EdgeError, match=r"ops that no TFLite runtime has \(FlexErf\); export without --converter"):
        convert_onnx(to_onnx(module.eval(), (1, 10, 8)), np.zeros((4, 10, 8), np.float32))


SAYS = {
    "deep in keras": (
        r"""
import sys
print("\x1b[31mERROR:\x1b[0m The trace log is below.")
print('ValueError: Exception encountered when calling layer "tf.nn.convolution" (type TFOpLambda).\n')
print("Depth of output (32) is not a multiple of the number of groups (10)")
print("\x1b[31mERROR:\x1b[0m onnx_op_name: node_conv2d")
print("\x1b[31mERROR:\x1b[0m Read this and deal with it.")
sys.exit(1)
""",
        r"onnx2tf cannot convert this model \(at node_conv2d: Depth of output \(32\) is not a multiple of the number of groups "
        r"\(10\)\); export without --converter onnx2tf\.",
    ),
    "an exception": ("raise RuntimeError('no kernel for this')", r"model \(RuntimeError: no kernel for this\); export"),
    "a signal": (
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        r"model \(it ended with status -9\); export",
    ),
    "well, with nothing made": ("print('done')", r"onnx2tf ended well and made no model_float32\.tflite; export"),
}


@pytest.mark.parametrize("how", SAYS)
def test_converter_that_ends_badly_is_one_line_and_prints_nothing(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    """A package of the same name in a real environment stands for the converter, which takes minutes to install."""
    code, says = SAYS[how]
    with zipfile.ZipFile(tmp_path / "onnx2tf-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("onnx2tf/__init__.py", "")
        wheel.writestr("onnx2tf/__main__.py", code)
        wheel.writestr("onnx2tf-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: onnx2tf\nVersion: 1.0\n")
        wheel.writestr("onnx2tf-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("onnx2tf-1.0.dist-info/RECORD", "")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), (PLACE, str(tmp_path / "made"))):
        monkeypatch.setenv(name, value)
    instead = dataclasses.replace(
        converter_environment(),
        packages=("onnx2tf",),
        python=sys.version_info[:2],
        proof="",
        room_mib=1,
        constraints="",
    )
    monkeypatch.setattr(onnx2tf, "converter_environment", lambda: instead)
    monkeypatch.setattr(onnx2tf, "converter_name", lambda: "onnx2tf 1.0")
    capfd.readouterr()
    with pytest.raises(EdgeError, match=says) as caught:
        convert_onnx(exported.float_onnx, exported.calibration)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_windows_of_another_chain_are_refused_before_anything_is_made(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path / "none"))
    with pytest.raises(EdgeError, match=r"windows are \(80, 9\), but the model takes \(80, 8\)"):
        convert_onnx(exported.float_onnx, np.zeros((4, 80, 9), np.float32))
    assert not (tmp_path / "none").exists()


def test_pins_name_the_converter_and_all_that_is_installed() -> None:
    environment = converter_environment()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in environment.constraints.splitlines()}
    assert set(environment.packages) <= pinned
    assert converter_name() == "onnx2tf 1.29.24"
