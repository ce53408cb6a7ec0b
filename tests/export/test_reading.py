"""Artifacts: what is put into a file comes out of it, and a bad file is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.export import metadata
from embridge_edge.export.comparing import compare_runtimes, layer_errors
from embridge_edge.export.reading import dequantize_values, quantize_values, read_artifact
from embridge_edge.export.running import run_onnx, run_tflite
from embridge_edge.firmware_bridge.graph import read_graph

if TYPE_CHECKING:
    from conftest import Exported

METADATA = {"chain": {"rate_hz": 200.0, "channels": 8}, "labels": ["rest", "poing fermé ✊"], "head": [[1, -2], [3, 4]]}


def test_tflite_artifact_says_what_it_takes_and_gives(exported: Exported, tmp_path: Path) -> None:
    path = tmp_path / "student.tflite"
    path.write_bytes(metadata.attach(exported.int8_tflite, METADATA))
    artifact = read_artifact(path)
    assert (artifact.kind, artifact.input_shape, artifact.output_shape) == ("tflite", (1, 80, 8), (1, 64))
    assert (artifact.input_type, artifact.output_type) == ("int8", "int8")
    assert artifact.input_scale is not None
    assert artifact.input_scale * 255 == pytest.approx(np.ptp(exported.calibration), rel=1e-5)
    assert artifact.metadata == METADATA
    assert artifact.size_bytes == path.stat().st_size


@pytest.mark.parametrize("which", ["float_onnx", "int8_onnx"])
def test_onnx_artifact_has_a_free_batch(exported: Exported, tmp_path: Path, which: str) -> None:
    path = tmp_path / "student.onnx"
    path.write_bytes(metadata.attach(getattr(exported, which), METADATA))
    artifact = read_artifact(path)
    assert (artifact.kind, artifact.input_shape, artifact.output_shape) == ("onnx", (0, 80, 8), (0, 64))
    assert (artifact.input_type, artifact.input_scale) == ("float32", None)
    assert artifact.metadata == METADATA
    assert b"batch" in path.read_bytes()
    np.testing.assert_array_equal(
        run_onnx(path, exported.windows[:5]), run_onnx(getattr(exported, which), exported.windows[:5])
    )


@pytest.mark.parametrize("runtime", ["litert", "litert-ref", "tflm"])
def test_metadata_changes_no_output(exported: Exported, runtime: str) -> None:
    with_metadata = metadata.attach(exported.int8_tflite, METADATA)
    np.testing.assert_array_equal(
        run_tflite(with_metadata, exported.windows[:9], runtime, raw=True),  # type: ignore[arg-type]
        run_tflite(exported.int8_tflite, exported.windows[:9], runtime, raw=True),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("which", ["int8_tflite", "float_onnx"])
def test_metadata_is_replaced_not_added(exported: Exported, which: str) -> None:
    model = getattr(exported, which)
    twice = metadata.attach(metadata.attach(model, {"a": "x" * 999}), METADATA)
    assert metadata.read(model) is None
    assert metadata.read(twice) == METADATA
    assert twice == metadata.attach(model, METADATA)


def test_model_of_other_make_has_no_metadata(models: Path) -> None:
    for path in sorted(models.glob("*.tflite")):
        artifact = read_artifact(path)
        assert artifact.metadata is None
        assert artifact.input_type == "int8"
        assert metadata.read(metadata.attach(path.read_bytes(), METADATA)) == METADATA


def test_models_of_other_make_run_alike_on_both_reference_runtimes(models: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("kws_ref_model", "ad01_int8", "str_ww_ref_model"):
        path = models / f"{name}.tflite"
        shape = read_artifact(path).input_shape
        windows = rng.integers(-128, 128, (4, *shape[1:]), dtype=np.int8)
        assert compare_runtimes(path, windows, others=("tflm",)).max_steps <= 3


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_metadata_that_json_cannot_hold_is_refused(exported: Exported, value: object) -> None:
    with pytest.raises(EdgeError, match="no JSON"):
        metadata.attach(exported.int8_tflite, {"value": value})


def test_raw_outputs_are_the_quantized_real_ones(exported: Exported) -> None:
    raw = run_tflite(exported.int8_tflite, exported.windows[:20], raw=True)
    graph = read_graph(exported.int8_tflite)
    taken, given = graph.tensors[graph.outputs[0]], graph.tensors[graph.inputs[0]]
    assert raw.dtype == np.int8
    np.testing.assert_allclose(
        run_tflite(exported.int8_tflite, exported.windows[:20]),
        dequantize_values(raw, taken.scales[0], taken.zero_points[0]),
    )
    quantized = quantize_values(exported.windows[:20], given.scales[0], given.zero_points[0])
    np.testing.assert_array_equal(run_tflite(exported.int8_tflite, quantized, raw=True), raw)


@given(steps=st.integers(-128, 127), scale=st.floats(1e-4, 10), zero_point=st.integers(-128, 127))
@settings(max_examples=200, deadline=None)
def test_quantizing_undoes_dequantizing(steps: int, scale: float, zero_point: int) -> None:
    real = dequantize_values(np.array([steps], np.int8), scale, zero_point)
    assert quantize_values(real, scale, zero_point)[0] == steps


def test_quantizing_rounds_half_away_from_zero_and_saturates() -> None:
    got = quantize_values(np.array([0.5, -0.5, 1.5, 2.5, 1e9, -1e9]), 1.0, 0)
    np.testing.assert_array_equal(got, [1, -1, 2, 3, 127, -128])


@pytest.mark.parametrize("name", ["student.tflite", "student.onnx"])
@pytest.mark.parametrize("content", [b"", b"x", b"\0\0\0\0TFL3", b"neither fish nor flesh" * 99, b"\x08\x07"])
def test_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EdgeError) as caught:
        read_artifact(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.parametrize("which", ["int8_tflite", "float_tflite", "float_onnx", "int8_onnx"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_truncated_file_is_refused_in_one_line(exported: Exported, tmp_path: Path, which: str, share: float) -> None:
    model = getattr(exported, which)
    path = tmp_path / "model"
    path.write_bytes(model[: int(share * len(model))])
    with pytest.raises(EdgeError) as caught:
        read_artifact(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="Cannot read"):
        read_artifact(tmp_path / "none.tflite")
    with pytest.raises(EdgeError, match="Cannot read"):
        metadata.read(tmp_path / "none.tflite")


@given(place=st.integers(8, 80_000), word=st.binary(min_size=4, max_size=4))
@settings(max_examples=40, deadline=None)
def test_damaged_artifact_is_refused_or_read(exported: Exported, place: int, word: bytes) -> None:
    model = bytearray(metadata.attach(exported.int8_tflite, METADATA))
    model[place : place + 4] = word
    try:
        metadata.read(bytes(model))
        metadata.attach(bytes(model), METADATA)
    except EdgeError as error:
        assert "\n" not in str(error)


def test_windows_of_another_chain_are_refused(exported: Exported) -> None:
    wrong = np.zeros((2, 80, 9), np.float32)
    with pytest.raises(EdgeError, match="signal chain"):
        run_tflite(exported.int8_tflite, wrong)
    with pytest.raises(EdgeError, match="signal chain"):
        run_onnx(exported.float_onnx, wrong)


def test_wrong_questions_are_refused(exported: Exported, models: Path) -> None:
    with pytest.raises(EdgeError, match="Unknown runtime"):
        run_tflite(exported.int8_tflite, exported.windows, "tpu")  # type: ignore[arg-type]
    with pytest.raises(EdgeError, match="full int8"):
        compare_runtimes(exported.float_tflite, exported.windows)
    with pytest.raises(EdgeError):
        layer_errors(exported.float_tflite, models / "kws_ref_model.tflite", exported.windows)
