"""Ethos-U: what Vela compiles, what it leaves on the processor, and that the table of ops says the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embridge_edge.api import profile
from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.export.quantizing import quantize_tflite
from embridge_edge.export.support import op_support
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import op_counts, read_graph
from embridge_edge.hardware import vela
from embridge_edge.hardware.target import all_targets, find_target
from embridge_edge.hardware.vela import estimate
from tests.export.conftest import Exported

ACCELERATORS = [target.name for target in all_targets() if target.kind == "npu"]
SHAPE = (1, 20, 8)


class OneOp(nn.Module):
    """A convolution and an op behind it."""

    def __init__(self, op: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.op, self.first, self.other = op, nn.Linear(8, 12), nn.Linear(8, 12)

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.first(x), self.other(x)
        made: Tensor = {
            "ADD": lambda: y + z,
            "BATCH_MATMUL": lambda: y.transpose(1, 2) @ z,
            "DIV": lambda: y / (z * z + 4.0),
            "GELU": lambda: nn.functional.gelu(y),
            "LOGISTIC": lambda: torch.sigmoid(y),
            "MAXIMUM": lambda: torch.maximum(y, z),
            "MEAN": lambda: y.mean(dim=1),
            "MUL": lambda: y * z,
            "REDUCE_MIN": lambda: y.amin(dim=1),
            "SOFTMAX": lambda: y.softmax(dim=-1),
            "SUB": lambda: y - z,
            "TANH": lambda: torch.tanh(y),
        }[self.op]()
        return made


OPS = (
    "ADD",
    "BATCH_MATMUL",
    "DIV",
    "GELU",
    "LOGISTIC",
    "MAXIMUM",
    "MEAN",
    "MUL",
    "REDUCE_MIN",
    "SOFTMAX",
    "SUB",
    "TANH",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ACCELERATORS)
def test_convolutional_student_runs_on_the_accelerator_alone(name: str, exported: Exported) -> None:
    npu = find_target(name).npu
    assert npu is not None
    found = estimate(exported.int8_tflite, npu)
    assert found.cpu_ops == 0 < found.npu_ops
    assert 0 < found.npu_cycles <= found.cycles
    assert found.sram_bytes > 0
    weights = read_graph(exported.int8_tflite).weight_bytes
    assert 0.5 * weights < found.off_chip_bytes < 2 * weights + 100_000
    assert find_target(name).clock_mhz == found.clock_mhz
    assert found.vela in " ".join(find_target(name).notes)  # the version whose estimates these are


@pytest.mark.slow
def test_what_stays_on_the_processor_is_named_and_ends_with_status_3(
    exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "student.tflite"
    file.write_bytes(exported.float_tflite)
    assert run(["profile", str(file), "--target", "ethos-u55-128", "--quiet"]) == 3
    line = capsys.readouterr().err
    assert (
        "ops stay on the processor beside ethos-u55-128 (" in line
        and "FULLY_CONNECTED embedding" in line
        and line.count("\n") == 1
    )


@pytest.mark.slow
@pytest.mark.parametrize("op", OPS)
def test_table_of_ops_says_what_vela_does(op: str) -> None:
    windows = np.random.default_rng(0).standard_normal((32, *SHAPE[1:])).astype(np.float32)
    model = quantize_tflite(to_tflite(OneOp(op).eval(), SHAPE), windows, most_transposes=9)
    assert op in op_counts(read_graph(model))
    lacks = {one.op for one in op_support(model) if one.runtime == "ethos-u" and one.status == "lacks"}
    npu = find_target("ethos-u55-128").npu
    assert npu is not None
    on_cpu = {what.partition(" ")[0] for what in estimate(model, npu).on_cpu}
    assert lacks & {op} == on_cpu & {op}


def test_without_vela_the_extra_is_named(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vela, "find_spec", lambda name: None)
    npu = find_target("ethos-u55-128").npu
    assert npu is not None
    with pytest.raises(EdgeError, match=r"install embridge-edge\[npu\]"):
        estimate(exported.int8_tflite, npu)


@pytest.mark.slow
def test_model_that_vela_cannot_read_is_one_line() -> None:
    npu = find_target("ethos-u55-128").npu
    assert npu is not None
    with pytest.raises(EdgeError, match="Vela cannot compile this model for ethos-u55-128") as raised:
        estimate(b"\x1c\x00\x00\x00TFL3" + b"\x00" * 64, npu)
    assert "\n" not in str(raised.value)


def test_onnx_and_c_are_refused_for_an_accelerator(exported: Exported, tmp_path: Path) -> None:
    onnx, tflite = tmp_path / "student.onnx", tmp_path / "student_int8.tflite"
    onnx.write_bytes(exported.int8_onnx)
    tflite.write_bytes(exported.int8_tflite)
    with pytest.raises(EdgeError, match=r"for which no ONNX is compiled; profile the \.tflite"):
        profile(onnx, target="ethos-u85-256")
    assert run(["bridge", str(tflite), "--target", "ethos-u85-256", "--out", str(tmp_path / "c"), "--quiet"]) == 2
    assert not (tmp_path / "c").exists()
