"""The student: its shape refuses what cannot be built, its counts are true, and folding changes nothing."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.errors import EdgeError
from embridge_edge.model.student import Student, StudentShape, parameters_count


def _with_lived_in_norms(shape: StudentShape) -> Student:
    torch.manual_seed(0)
    student = Student(shape).train()
    for _ in range(5):
        student(3 * torch.randn(16, shape.steps, shape.channels) + 1)
    return student.eval()


@pytest.mark.parametrize("block", ["conv", "separable"])
@pytest.mark.parametrize(("steps", "channels"), [(80, 8), (8, 80), (161, 3)])
def test_folding_the_norms_changes_nothing(steps: int, channels: int, block: str) -> None:
    student = _with_lived_in_norms(StudentShape.fitting(steps, channels, block=block))
    windows = torch.randn(7, steps, channels)
    folded = fold_batchnorm(student)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        torch.testing.assert_close(folded(windows), student(windows), rtol=1e-5, atol=1e-5)
    assert parameters_count(folded) == student.shape.parameters_count


def test_folding_leaves_the_student_as_it_was() -> None:
    student = Student(StudentShape(80, 8)).train()
    fold_batchnorm(student)
    assert student.training
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in student.modules())


def test_default_student_for_a_myo_window_is_small_enough() -> None:
    shape = StudentShape(80, 8)
    assert 57_000 <= shape.parameters_count <= 100_000
    assert shape.macs < 1_000_000
    assert Student(shape)(torch.zeros(3, 80, 8)).shape == (3, 64)


def test_every_weight_of_a_student_learns() -> None:
    for block in ("conv", "separable"):
        student = Student(StudentShape(40, 4, block=block))  # type: ignore[arg-type]
        student(torch.randn(8, 40, 4)).square().sum().backward()
        for name, parameter in student.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_shape_survives_its_dictionary() -> None:
    shape = StudentShape.fitting(800, 16, widths=(16, 32, 32, 48, 48), queries=2, embedding=32, block="separable")
    assert StudentShape.from_dict(shape.to_dict()) == shape


@given(
    steps=st.integers(2, 2000),
    channels=st.integers(1, 128),
    blocks=st.integers(1, 6),
    at_least=st.integers(2, 32),
)
@settings(max_examples=100, deadline=None)
def test_fitting_shape_keeps_the_steps_it_was_asked_for(steps: int, channels: int, blocks: int, at_least: int) -> None:
    shape = StudentShape.fitting(steps, channels, at_least=at_least, widths=(8,) * blocks)
    assert shape.pooled_steps >= min(at_least, steps)
    assert set(shape.strides) <= {1, 2}


@pytest.mark.parametrize(
    "change",
    [
        {"strides": (4, 1, 1, 1)},
        {"kernels": (5, 5)},
        {"kernels": (0, 5, 5, 5)},
        {"widths": (32, 64, 64, 0)},
        {"widths": 32},
        {"widths": ("a", 1, 1, 1)},
        {"queries": 0},
        {"embedding": 1},
        {"steps": 0},
        {"steps": 8},
        {"steps": True},
        {"channels": 1 << 20},
        {"block": "transformer"},
        {"colour": "blue"},
    ],
)
def test_impossible_shape_is_refused_in_one_line(change: dict[str, object]) -> None:
    with pytest.raises(EdgeError) as caught:
        StudentShape.from_dict({**StudentShape(80, 8).to_dict(), **change})
    assert "\n" not in str(caught.value)


def test_shape_without_its_window_is_refused() -> None:
    with pytest.raises(EdgeError, match="lacks channels and steps"):
        StudentShape.from_dict({"queries": 2})


def test_shape_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        StudentShape(80, 8).steps = 3  # type: ignore[misc]
