"""Dataclasses from tables, as TOML and JSON hold them: every key and every type is checked."""

from __future__ import annotations

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from embridge_edge.errors import EdgeError


def build(kind: type[Any], table: object, place: str) -> Any:
    """A dataclass from a table.

    Args:
        kind: whose fields are numbers, texts, lists, dataclasses, or mappings of names to any of these. place: for errors.

    Raises:
        EdgeError: a key that the dataclass does not have, one that is missing, a value of the wrong type or one that
            the dataclass refuses; the place is named, and what is allowed.
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
    try:
        return kind(**values)
    except EdgeError as error:
        raise EdgeError(f"{place}: {error}") from None


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


def at_least(plan: object, least: float, *names: str) -> None:
    """Refuse a number of a recipe's plan, or one in a list, that is too small to mean anything; None is no number."""
    for name in names:
        value = getattr(plan, name)
        if any(one is not None and one < least for one in (value if isinstance(value, tuple) else (value,))):
            raise EdgeError(f"{name} is {value}; give {least:g} or more.")


def one_of(plan: object, name: str, choices: tuple[str, ...]) -> None:
    """Refuse a word of a recipe's plan that is none of those there are."""
    if getattr(plan, name) not in choices:
        raise EdgeError(f"Unknown {name} {getattr(plan, name)!r}; choose from {', '.join(choices)}.")


def shipped_tables(package: str) -> list[str]:
    """Names of the TOML files that come with a package's folder."""
    return sorted(path.name.removesuffix(".toml") for path in files(package).iterdir() if path.name.endswith(".toml"))


def read_table(package: str, name: str, what: str) -> dict[str, Any]:
    """A shipped TOML file by name, or one's own by path, unchecked.

    Args:
        package: where the shipped ones lie, dotted. what: for errors, such as "recipe".

    Raises:
        EdgeError: there is none of that name, or it is no TOML.
    """
    shipped = shipped_tables(package)
    if name in shipped:
        text = files(package).joinpath(f"{name}.toml").read_text("utf-8")
    elif Path(name).is_file():
        text = Path(name).read_text("utf-8", errors="replace")
    else:
        raise EdgeError(f"Unknown {what} {name!r}; choose one of {', '.join(shipped)}, or give a file.")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EdgeError(f"{what.capitalize()} {name} is not valid TOML: {error}.") from None


def changed(table: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's table with some of its keys changed, in place.

    Args:
        changes: dotted keys, such as "train.steps", to values.

    Raises:
        EdgeError: a key that the table does not have.
    """
    for place, value in changes.items():
        section, _, key = place.partition(".")
        if not isinstance(table.get(section), dict) or key not in table[section]:
            raise EdgeError(f"Unknown recipe key {place!r}; write section.key, as train.steps.")
        table[section][key] = value
    return table


def parsed_changes(text: str) -> dict[str, Any]:
    """Changes written as `section.key=value,…`, values as in TOML but for lists, whose commas are semicolons.

    Raises:
        EdgeError: one that is not written so.
    """
    found: dict[str, Any] = {}
    for change in filter(None, text.split(",")):
        place, _, value = change.partition("=")
        try:
            found[place] = tomllib.loads(f"value = {value.replace(';', ',')}")["value"]
        except tomllib.TOMLDecodeError:
            raise EdgeError(
                f"Cannot read the change {change!r}; write section.key=value, with the value as in TOML."
            ) from None
    return found
