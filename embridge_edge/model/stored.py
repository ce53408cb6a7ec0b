"""Shapes of students as JSON holds them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from embridge_edge.errors import EdgeError


class StoredShape:
    """What every dataclass that is a student's shape has: a way into a checkpoint and out of it."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The shape that `to_dict` wrote.

        Raises:
            EdgeError: a field is missing, unknown or impossible.
        """
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        known = {field.name for field in fields}
        if unknown := sorted(set(values) - known):
            raise EdgeError(f"Unknown student field {unknown[0]!r}; choose among {', '.join(sorted(known))}.")
        needed = {field.name for field in fields if field.default is dataclasses.MISSING}
        if missing := sorted(needed - set(values)):
            raise EdgeError(f"The student lacks {' and '.join(missing)}; make the checkpoint again.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them, without those that follow from others."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()  # type: ignore[call-overload]
            if value is not None
        }
