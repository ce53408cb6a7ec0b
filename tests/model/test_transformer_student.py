"""The Transformer student folds, converts and counts as its shape says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.errors import EdgeError
from embridge_edge.export.comparing import compare_runtimes
from embridge_edge.export.quantizing import quantize_tflite
from embridge_edge.export.running import run_tflite
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import macs, op_counts, read_graph
from embridge_edge.model.student import StudentShape, parameters_count
from embridge_edge.model.students import new_student, shape_of, stored_shape
from embridge_edge.model.transformer_student import Norm, TransformerShape, TransformerStudent

SHAPES = st.builds(
    TransformerShape,
    steps=st.integers(8, 40),
    channels=st.integers(1, 12),
    width=st.sampled_from([8, 16]),
    blocks=st.integers(1, 2),
    heads=st.sampled_from([1, 2, 4]),
    halvings=st.integers(0, 2),
    queries=st.integers(1, 3),
    query_blocks=st.integers(0, 1),
    embedding=st.integers(2, 8),
    norm=st.sampled_from(["batch", "layer"]),
)


def trained(shape: TransformerShape) -> TransformerStudent:
    """A student whose norms have seen something."""
    torch.manual_seed(1)
    student = TransformerStudent(shape).train()
    for _ in range(3):
        student(3.0 * torch.randn(64, shape.steps, shape.channels) + 1.0)
    return student.eval()


@given(SHAPES)
@settings(max_examples=25, deadline=None)
def test_folding_changes_no_output_and_leaves_what_the_shape_counts(shape: TransformerShape) -> None:
    student = trained(shape)
    folded = fold_batchnorm(student)
    windows = torch.randn(16, shape.steps, shape.channels)
    with torch.no_grad():
        expected = student(windows)
        torch.testing.assert_close(folded(windows), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert not any(isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d) for module in folded.modules())
    unused = 0 if shape.query_blocks else shape.queries * shape.width
    assert parameters_count(folded) - unused == shape.parameters_count
    assert student(windows).shape == (16, shape.embedding)


@given(SHAPES)
@settings(max_examples=20, deadline=None)
def test_shapes_survive_storing(shape: TransformerShape) -> None:
    assert shape_of(stored_shape(shape)) == shape
    old = StudentShape.fitting(80, 8)
    assert shape_of(old.to_dict()) == shape_of(stored_shape(old)) == old  # what was stored before there were families


@pytest.mark.parametrize("norm", ["batch", pytest.param("layer", marks=pytest.mark.slow)])
def test_int8_graph_moves_next_to_nothing_and_runs_alike_everywhere(norm: Norm) -> None:
    shape = TransformerShape(80, 8, width=16, blocks=1, heads=2, norm=norm)
    folded, windows = fold_batchnorm(trained(shape)), 2.0 * torch.randn(48, 80, 8).numpy()
    model = to_tflite(folded, (1, 80, 8))
    graph = read_graph(model)
    assert macs(graph) == shape.macs
    assert op_counts(graph)["TRANSPOSE"] == 1 and not {"SLICE", "SPLIT", "GATHER"} & set(op_counts(graph))
    assert ("MUL" in op_counts(graph)) == (norm == "layer")
    with torch.no_grad():
        exact = folded(torch.from_numpy(windows)).numpy()
    assert abs(run_tflite(model, windows) - exact).max() < 1e-4 * abs(exact).max()
    int8 = quantize_tflite(model, windows)
    assert compare_runtimes(int8, windows[:16], others=("tflm",)).max_steps <= 4


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"width": 10, "heads": 4}, "width 10 is no multiple of its heads 4"),
        ({"halvings": 6}, "6 halvings leave one token of 40 steps"),
        ({"norm": "instance"}, "Unknown norm 'instance' of the student; choose one of batch, layer"),
        ({"queries": 0}, "queries is 0; give a whole number of 1 or more"),
    ],
)
def test_impossible_shapes_are_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        new_student(TransformerShape(40, 8, **given))


def test_unknown_family_is_one_line() -> None:
    with pytest.raises(EdgeError, match="Unknown student family 'mamba'; choose one of conv, transformer"):
        shape_of({"family": "mamba", "steps": 8, "channels": 2})
