"""`embridge-edge profile`: on two tiny models of this suite's own, and on the MLPerf Tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from embridge_edge.cli import run
from embridge_edge.errors import EdgeError
from embridge_edge.hardware.probes import ONNX_RELU, TFLITE_RELU
from embridge_edge.verbs.profile import profile

pytest.importorskip("ai_edge_litert", reason="needs embridge-edge[tflite]")
pytest.importorskip("onnxruntime", reason="needs embridge-edge[onnx]")


@pytest.fixture
def relu(tmp_path: Path) -> Path:
    """y = ReLU(x) on float32 [1, 2], by somebody else."""
    path = tmp_path / "relu.tflite"
    path.write_bytes(TFLITE_RELU)
    return path


@pytest.fixture
def relu_onnx(tmp_path: Path) -> Path:
    path = tmp_path / "relu.onnx"
    path.write_bytes(ONNX_RELU)
    return path


def a_board(folder: Path, **changes: float) -> str:
    path = folder / "board.toml"
    lines = ['based_on = "nrf52840"', 'name = "board"', *(f"{key} = {value}" for key, value in changes.items())]
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_bare_model_is_measured_on_both_runtimes_of_the_host(relu: Path) -> None:
    report = profile(relu, repeats=20, budget_s=1)
    assert report.ok
    assert [item.runtime.partition(",")[0] for item in report.latencies] == ["LiteRT", "TFLM"]
    for item in report.latencies:
        assert item.latency is not None
        assert item.latency.n == 20
        assert 0 < item.latency.min_ms <= item.latency.p50_ms <= item.latency.p99_ms
        assert item.latency.source == "host wall clock"
        assert item.latency.cpu
    assert (report.precision, report.model_bytes) == ("float32", len(TFLITE_RELU))
    assert any("Made elsewhere" in note for note in report.notes)


def test_counts_are_those_of_the_graph(relu: Path) -> None:
    cost = profile(relu, repeats=1).cost
    assert cost is not None
    assert (cost.macs, cost.weight_bytes, cost.peak_activation_bytes) == (0, 0, 16)
    assert (dict(cost.ops), cost.float_ops) == ({"RELU": 1}, ("RELU",))


def test_onnx_is_measured_on_onnx_runtime(relu_onnx: Path) -> None:
    report = profile(relu_onnx, repeats=5)
    (measured,) = report.latencies
    assert measured.runtime.startswith("ONNX Runtime")
    assert measured.latency is not None
    assert (report.precision, report.cost, report.fit) == ("float32", None, None)


def test_board_that_is_not_attached_gets_a_fit_and_no_latency(relu: Path) -> None:
    report = profile(relu, target="stm32l4r5")
    assert report.ok
    assert report.latencies == ()
    assert report.fit is not None
    assert report.fit.ram_bytes == report.arena_bytes
    assert report.fit.flash_bytes == len(TFLITE_RELU)
    text = report.text()
    assert "No board attached: latency on stm32l4r5 is not measured, and none is estimated." in text
    assert " ms" not in text


def test_phone_that_is_not_attached_gets_no_latency(relu: Path) -> None:
    report = profile(relu, target="phone-arm64")
    assert (report.latencies, report.fit, report.ok) == ((), None, True)


def test_model_that_does_not_fit_ends_with_status_3_and_by_how_much(
    relu: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = a_board(relu.parent, application_ram_kib=255.75)
    assert run(["profile", str(relu), "--target", board, "--json"]) == 3
    captured = capsys.readouterr()
    assert json.loads(captured.out)["fit"]["ok"] is False
    assert captured.err.startswith("embridge-edge: relu.tflite does not fit: board:")
    assert "KiB too much; choose a smaller student or a larger target." in captured.err
    assert captured.err.count("\n") == 1


def test_microcontroller_runs_no_onnx(relu_onnx: Path) -> None:
    with pytest.raises(EdgeError, match="nrf52840 is a microcontroller, which runs no ONNX"):
        profile(relu_onnx, target="nrf52840")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "is empty"), (b"no model at all", "model"), (TFLITE_RELU[:100], "truncated"), (ONNX_RELU[:20], "onnx|ONNX")],
)
def test_file_that_is_no_model_is_one_line_with_status_2(
    tmp_path: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    assert run(["profile", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert any(word in captured.err for word in says.split("|"))


def test_json_is_one_object_with_units_in_its_keys(relu: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["profile", str(relu), "--repeats", "3", "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert captured.err == ""
    assert told["latencies"][0]["latency"]["p50_ms"] > 0
    assert told["arena_bytes"] > told["cost"]["peak_activation_bytes"]
    assert told["host"]["cpu"]


# MACs, and the arena of TFLM with CMSIS-NN on an emulated Cortex-M4, whose pointers are half as long as the host's.
MLPERF_TINY = {
    "kws_ref_model.tflite": (2_656_768, 22_832),
    "ad01_int8.tflite": (264_192, 3_024),
    "vww_96_int8.tflite": (7_489_664, 100_720),
    "str_ww_ref_model.tflite": (826_368, 16_608),
}


@pytest.mark.data
@pytest.mark.parametrize("name", MLPERF_TINY)
def test_mlperf_tiny_model_costs_what_is_known(models: Path, name: str) -> None:
    macs, arena_on_m4_bytes = MLPERF_TINY[name]
    report = profile(models / name, repeats=3)
    assert report.cost is not None
    assert report.cost.macs == macs
    assert (report.precision, report.cost.float_ops, report.lacking_ops) == ("int8", (), ())
    assert report.arena_bytes is not None
    assert arena_on_m4_bytes <= report.arena_bytes <= 1.4 * arena_on_m4_bytes
    assert all(item.latency is not None for item in report.latencies)
    assert profile(models / name, target="nrf52840").ok
