"""The budget is kept, and used."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.compression.sizing import DEPTHS, NEARLY, STEPS_LEFT, WIDTHS, cost_of, largest_student
from embridge_edge.errors import EdgeError
from embridge_edge.model.student import Block, Student, StudentShape, parameters_count
from embridge_edge.model.students import stored_shape
from embridge_edge.recipe import StudentBudget
from embridge_edge.verbs.distill import DistillReport


@given(
    steps=st.sampled_from([16, 80, 400]),
    channels=st.sampled_from([8, 16, 48]),
    flash=st.sampled_from([20_000, 60_000, 96_000, 400_000]),
    macs=st.sampled_from([100_000, 300_000, 2_000_000]),
    block=st.sampled_from(["conv", "separable"]),
)
@settings(max_examples=40, deadline=None)
def test_budget_is_kept_and_nothing_larger_would(
    steps: int, channels: int, flash: int, macs: int, block: Block
) -> None:
    budget = StudentBudget(flash_bytes=flash, ram_bytes=40_000, macs=macs)
    try:
        shape = largest_student(steps, channels, 64, budget, block=block)
    except EdgeError as error:
        assert "the smallest takes" in str(error) and "\n" not in str(error)
        return
    cost = cost_of(shape)
    assert cost.flash_bytes <= flash and cost.ram_bytes <= 40_000 and cost.macs == shape.macs <= macs
    # Every step of the ladder by itself: none that keeps to the budget has many more parameters, and none of as many more operations.
    for depth, left, width in itertools.product(DEPTHS, STEPS_LEFT, WIDTHS[::3]):
        widths = (max(8, width // 2), *[width] * (depth - 1))
        kernels = (5, 5, 3, 3, 3, 3)[:depth]
        try:
            other = StudentShape.fitting(
                steps, channels, at_least=left, widths=widths, kernels=kernels, embedding=64, block=block
            )
        except EdgeError:
            continue
        if cost_of(other).over(budget):
            continue
        assert other.parameters_count * NEARLY <= shape.parameters_count
        assert other.macs <= shape.macs or other.parameters_count < shape.parameters_count


def test_few_frames_stride_where_operations_are_short() -> None:
    shape = largest_student(10, 48, 64, StudentBudget(flash_bytes=80_000, macs=300_000), queries=2)
    assert shape.strides[0] == 2 and len(shape.widths) > 2
    assert shape.parameters_count > 60_000 and shape.macs > 270_000


def test_no_limit_gives_the_largest_of_the_ladder() -> None:
    shape = largest_student(80, 8, 64, StudentBudget())
    assert len(shape.widths) == 6 and max(shape.widths) == 256


def test_weights_are_counted_as_the_network_has_them() -> None:
    shape = StudentShape.fitting(80, 8)
    biases = sum(shape.widths) + shape.embedding
    norms = 2 * sum(shape.widths)  # fold into weights, and leave a bias
    assert cost_of(shape).flash_bytes == parameters_count(Student(shape)) - norms - shape.embedding + 9 * biases


def test_impossible_budget_says_what_the_smallest_takes() -> None:
    with pytest.raises(EdgeError, match=r"the smallest takes flash_bytes [\d,]+ \(budget 100\) and macs"):
        largest_student(80, 8, 64, StudentBudget(flash_bytes=100, macs=100))


def test_distill_says_what_a_budget_became() -> None:
    shape = largest_student(80, 8, 64, StudentBudget(flash_bytes=20_000))
    report = DistillReport(Path("out"), stored_shape(shape), shape.parameters_count, shape.macs, 9, "session", ())
    widths, kernels = (" ".join(map(str, values)) for values in (shape.widths, shape.kernels))
    assert report.text().startswith(f"conv student: widths {widths}, kernels {kernels}, strides ")
    assert list(report.to_json()["shape"]["widths"]) == list(shape.widths)
