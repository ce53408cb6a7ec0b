"""The ring student folds and counts as its shape says, and no value crosses from one frame to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.errors import EdgeError
from embridge_edge.model.ring_student import RingShape, RingStudent
from embridge_edge.model.student import parameters_count
from embridge_edge.model.students import new_student, shape_of, stored_shape, token_width


def shape_with(
    hop: int, frames: int, blocks: list[tuple[int, int, int]], reader: list[tuple[int, int]], **rest: int
) -> RingShape:
    widths, kernels, strides = zip(*blocks, strict=True) if blocks else ((), (), ())
    reader_widths, reader_kernels = zip(*reader, strict=True)
    return RingShape(
        hop * frames, rest.pop("channels", 3), hop, widths, kernels, strides,
        reader_widths=reader_widths, reader_kernels=reader_kernels, **rest,
    )  # fmt: skip


WIDTHS = st.sampled_from([4, 6, 8])
SHAPES = st.builds(
    shape_with,
    hop=st.integers(1, 12),
    frames=st.integers(2, 6),
    blocks=st.lists(st.tuples(WIDTHS, st.integers(1, 5), st.integers(1, 2)), max_size=3),
    reader=st.lists(st.tuples(WIDTHS, st.integers(1, 4)), min_size=1, max_size=2),
    channels=st.integers(1, 6),
    width=WIDTHS,
    queries=st.integers(1, 3),
    embedding=st.integers(2, 8),
)


def trained(shape: RingShape) -> RingStudent:
    """A student whose norms have seen something."""
    torch.manual_seed(1)
    student = RingStudent(shape).train()
    for _ in range(3):
        student(3.0 * torch.randn(64, shape.steps, shape.channels) + 1.0)
    return student.eval()


@given(SHAPES)
@settings(max_examples=25, deadline=None)
def test_folding_changes_no_output_and_leaves_what_the_shape_counts(shape: RingShape) -> None:
    student = trained(shape)
    folded = fold_batchnorm(student)
    windows = torch.randn(16, shape.steps, shape.channels)
    with torch.no_grad():
        expected = student(windows)
        torch.testing.assert_close(folded(windows), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert student.tokens(windows).flatten(1).shape == (16, token_width(shape))
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert parameters_count(folded) == shape.parameters_count
    assert expected.shape == (16, shape.embedding)


@given(SHAPES)
@settings(max_examples=25, deadline=None)
def test_a_token_depends_on_its_own_frame_alone(shape: RingShape) -> None:
    student = trained(shape)
    windows = torch.randn(4, shape.steps, shape.channels)
    with torch.no_grad():
        ring = student.ring(windows)
        alone = student.ring(windows.reshape(4 * shape.frames, shape.hop, shape.channels))
    assert ring.shape == (4, 1, shape.frames, shape.width)
    torch.testing.assert_close(alone.reshape(ring.shape), ring, rtol=1e-5, atol=1e-5)


@given(SHAPES)
@settings(max_examples=20, deadline=None)
def test_shapes_survive_storing(shape: RingShape) -> None:
    assert shape_of(stored_shape(shape)) == shape
    assert stored_shape(shape)["family"] == "ring"
    assert isinstance(new_student(shape), RingStudent)


def test_a_decision_costs_a_token_and_the_reader_however_long_the_window() -> None:
    shape = RingShape(80, 8, 10)
    assert shape.macs == 8 * shape.token_macs + shape.reader_macs
    assert shape.hop_macs == shape.token_macs + shape.reader_macs
    longer = replace(shape, steps=160)
    assert longer.token_macs == shape.token_macs  # of a longer window only the reader sees more
    assert longer.macs - longer.hop_macs == 15 * shape.token_macs


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"hop": 12}, "A window of 80 time steps is not two or more whole hops of 12"),
        ({"hop": 80}, "not two or more whole hops of 80"),
        ({"queries": 0}, "queries must be whole numbers from 1 to 64, not 0"),
        ({"width": 2.0}, "width must be whole numbers from 1 to 1024, not 2.0"),
        ({"strides": (2, 3)}, "strides must be whole numbers from 1 to 2, not 3"),
        ({"kernels": (5,)}, "2 widths, 1 kernels and 2 strides"),
        ({"reader_kernels": ()}, "1 reader_widths and 0 reader_kernels"),
        ({"widths": 8}, "widths must be a list of whole numbers"),
        ({"steps": 1 << 20}, "too large for a student"),
    ],
)
def test_impossible_shapes_are_one_line(given: dict[str, Any], says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        new_student(RingShape(**{"steps": 80, "channels": 8, "hop": 10, **given}))


def test_a_stored_shape_without_its_hop_is_one_line() -> None:
    with pytest.raises(EdgeError, match="The student lacks hop; make the checkpoint again"):
        shape_of({"family": "ring", "steps": 80, "channels": 8})
