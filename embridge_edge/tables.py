"""Dataclasses from tables, as TOML and JSON hold them: every key and every type is checked."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal

from embridge_edge.errors import EdgeError


def build(kind: type[Any], table: object, place: str) -> Any:
    """A dataclass from a table.

    Args:
        kind: whose fields are numbers, texts, lists, dataclasses, or mappings of names to any of these. place: for errors.

    Raises:
        EdgeError: a key that the dataclass does not have, one that is missing, a value of the wrong type; the allowed are listed.
    """
    if not isinstance(table, Mapping):
        raise EdgeError(f"{place} must be a table.")
    known = {item.name: item for item in fields(kind)}
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise EdgeError(f"{place}: unknown key {key!r}; choose from {', '.join(known)}.")
        values[key] = _value(value, hints[key], f"{place}, {key}")
    for key, item in known.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise EdgeError(f"{place}: {key} is missing.")
    return kind(**values)


def _value(value: Any, hint: Any, where: str) -> Any:
    """A field's value: a table for a plan, tables by name for a mapping of plans, else a number, text or list."""
    options = [one for one in typing.get_args(hint) or (hint,) if isinstance(one, type) and is_dataclass(one)]
    if typing.get_origin(hint) is Mapping or hint is Mapping:
        if not isinstance(value, Mapping):
            raise EdgeError(f"{where} must be a table.")
        inner = typing.get_args(hint)[1]
        return {name: _value(one, inner, f"{where}.{name}") for name, one in value.items()}
    if options and typing.get_origin(hint) is types.UnionType and (value is None or value is False):
        return None
    if options:
        return build(options[0], value, where)
    return value if hint is Any else _typed(value, hint, where)


def _typed(value: Any, hint: Any, where: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if option is type(None) and (value is None or value is False):  # TOML has no null
            return None
        if typing.get_origin(option) is Literal and isinstance(value, str):
            return value  # the plan says which there are
        if option is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if option in (int, str, bool) and type(value) is option:
            return value
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)
            count = len(value) if inner[-1] is Ellipsis else len(inner)
            if len(value) == count:
                return tuple(_typed(item, inner[0], where) for item in value)
    raise EdgeError(f"{where}: {value!r} is not of type {getattr(hint, '__name__', hint)}.")
