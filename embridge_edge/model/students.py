"""The students' families: which network a stored shape belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.model.ring_student import RingShape, RingStudent
from embridge_edge.model.student import Student, StudentShape
from embridge_edge.model.transformer_student import TransformerShape, TransformerStudent

AnyShape = StudentShape | TransformerShape | RingShape
AnyStudent = Student | TransformerStudent | RingStudent

FAMILIES: Mapping[str, type[AnyShape]] = {
    "conv": StudentShape,
    "transformer": TransformerShape,
    "ring": RingShape,
}


def shape_of(stored: Mapping[str, Any]) -> AnyShape:
    """The shape that `stored_shape` wrote; one without a family is of the first, which had no name.

    Raises:
        EdgeError: an unknown family, or a field that it does not have.
    """
    values = dict(stored)
    family = values.pop("family", "conv")
    if family not in FAMILIES:
        raise EdgeError(f"Unknown student family {family!r}; choose one of {', '.join(FAMILIES)}.")
    return FAMILIES[family].from_dict(values)


def stored_shape(shape: AnyShape) -> dict[str, Any]:
    """A shape and its family, as JSON can hold them."""
    family = next(name for name, kind in FAMILIES.items() if isinstance(shape, kind))
    return {"family": family, **shape.to_dict()}


def new_student(shape: AnyShape) -> AnyStudent:
    """An untrained student."""
    if isinstance(shape, RingShape):
        return RingStudent(shape)
    return Student(shape) if isinstance(shape, StudentShape) else TransformerStudent(shape)


def token_width(shape: AnyShape) -> int:
    """Values that a student's queries have gathered before the embedding."""
    if isinstance(shape, RingShape):
        return shape.queries * shape.read_width
    return shape.queries * (shape.widths[-1] if isinstance(shape, StudentShape) else shape.width)
