"""What a sweep searches: the `[sweep]` table of a recipe as values, checked against the recipe before anything is trained."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from embridge_edge.errors import EdgeError

if TYPE_CHECKING:
    from embridge_edge.recipe import Recipe

OBJECTIVES: Mapping[str, str] = {
    "zs_harmonic": "harmonic mean of zs_all_seen and zs_all_unseen, per wearer",
    "zs_all_seen": "zero-shot balanced accuracy of the gestures trained on, among all gestures",
    "zs_all_unseen": "zero-shot balanced accuracy of the sweep's held-out gestures, among all gestures",
    "zs_unseen": "zero-shot balanced accuracy of the sweep's held-out gestures, among themselves",
    "lp_seen": "balanced accuracy of the linear head",
    "lp_seen_f1": "macro F1 of the linear head",
    "r2": "coefficient of determination of the joint angles read from the embedding",
}
"""Metrics that a sweep can go by, all of the inner division; each is a mean over wearers."""

NEED_HELD_OUT = ("zs_harmonic", "zs_all_unseen", "zs_unseen")

NOT_SWEPT = (
    "name",
    "target",
    "windows.hold_out_gestures",
    "windows.gestures_from",
    "windows.stage_groups",
    "student",
    "distill",
    "prune",
    "quantize",
    "package",
    "evaluate",
    "gates",
    "simulate",
    "benchmark",
    "arms",
)
"""Keys and tables of a recipe that a sweep leaves alone: they say how a teacher is judged or used, not how it is made."""

Value = Any
"""What a recipe's key may hold: a number, a text, true or false, a list; false for None, which TOML lacks."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; drawn evenly in the logarithm with `log`, on a grid with `step`."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise EdgeError(f"low {self.low} must be below high {self.high}.")
        if self.log and self.low <= 0:
            raise EdgeError(f"log needs low above 0, not {self.low}.")
        if self.log and self.step is not None:
            raise EdgeError("log and step exclude each other; leave one out.")
        if self.step is not None and (self.step <= 0 or (_exact(self.high) - _exact(self.low)) % _exact(self.step)):
            raise EdgeError(f"high {self.high} must be whole steps of {self.step} above low {self.low}.")

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that must be possible for all others to be."""
        return self.low, self.high

    def holds(self, value: Value) -> bool:
        """Whether a value can be drawn."""
        if not _is_number(value) or not self.low <= value <= self.high:
            return False
        return self.step is None or (_exact(value) - _exact(self.low)) % _exact(self.step) == 0

    def label(self, value: Value) -> Value:
        """How a study writes a value."""
        return value

    def value(self, label: Value) -> Value:
        """What `label` made a label of."""
        return label


@dataclass(frozen=True)
class Choices:
    """Values to choose from, in the order of the recipe."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if len(self.values) < 2:
            raise EdgeError("a list needs two values or more.")
        labels = [self.label(value) for value in self.values]
        if any(
            one in labels[:place] for place, one in enumerate(labels)
        ):  # 1 and true are equal, and have equal hashes
            raise EdgeError("a list names each value once.")

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values that must be possible: all of them."""
        return self.values

    def holds(self, value: Value) -> bool:
        """Whether a value can be drawn."""
        return self.label(value) in [self.label(one) for one in self.values]

    def label(self, value: Value) -> Value:
        """How a study writes a value: a list as its JSON text, because a study holds scalars only."""
        return json.dumps(value) if isinstance(value, list | tuple) else value

    def value(self, label: Value) -> Value:
        """What `label` made a label of."""
        return next(value for value in self.values if self.label(value) == label)


@dataclass(frozen=True)
class SweepPlan:
    """What is searched, and by what.

    Attributes:
        parameters: dotted key of the recipe ("train.temperature") to the values that it may take.
        fixed: dotted key to the value that it has in every trial, and not in the result: shorter trainings, say.
        objective: one of `OBJECTIVES`. direction: whether more of it is better.
        trials: trials of the study, over all workers.
        division: what the inner division holds out of the training side: each wearer's last "session", or every fourth
            "wearer".
        hold_out_gestures: gestures that the inner training does not see, for the objectives that judge unseen ones. The
            recipe's own held-out gestures take part neither in training nor in the objective.
        seeds: trainings per trial, whose scores are averaged.
        sampler: "tpe" or "random". seed: of the sampler.
        pruner: "median" gives a trial up whose mean over its first seeds is below the median of the others; "none".
        heartbeat_s: seconds between a worker's signs of life; one that is silent for six times that is taken as lost, and
            its trial is begun again.
    """

    parameters: Mapping[str, Range | Choices]
    fixed: Mapping[str, Value] = field(default_factory=dict)
    objective: str = "zs_harmonic"
    direction: Literal["maximize", "minimize"] = "maximize"
    trials: int = 40
    division: Literal["session", "wearer"] = "session"
    hold_out_gestures: tuple[str, ...] = ()
    seeds: int = 1
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0
    pruner: Literal["none", "median"] = "none"
    heartbeat_s: float = 10.0
    _choices: typing.ClassVar[Mapping[str, Sequence[str]]] = {
        "objective": tuple(OBJECTIVES),
        "direction": ("maximize", "minimize"),
        "division": ("session", "wearer"),
        "sampler": ("tpe", "random"),
        "pruner": ("none", "median"),
    }

    def __post_init__(self) -> None:
        if not self.parameters:
            raise EdgeError("parameters is empty; name keys of the recipe and the values that they may take.")
        for name, allowed in self._choices.items():
            if getattr(self, name) not in allowed:
                raise EdgeError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(allowed)}.")
        for name in ("trials", "seeds"):
            if getattr(self, name) < 1:
                raise EdgeError(f"{name} is {getattr(self, name)}; give 1 or more.")
        if not 0 <= self.seed < 2**31:
            raise EdgeError(f"seed is {self.seed}; give a number from 0 to 2147483647.")
        if not self.heartbeat_s > 0:
            raise EdgeError(f"heartbeat_s is {self.heartbeat_s:g}; give a number of seconds above 0.")
        if self.pruner == "median" and self.seeds < 2:
            raise EdgeError("pruner median compares trials after each seed; give seeds of 2 or more, or pruner none.")
        if self.objective in NEED_HELD_OUT and not self.hold_out_gestures:
            raise EdgeError(
                f"objective {self.objective} judges gestures that the training does not see; name some of the recordings' in "
                f"hold_out_gestures, or choose from {', '.join(name for name in OBJECTIVES if name not in NEED_HELD_OUT)}."
            )

        if self.objective == "zs_unseen" and len(self.hold_out_gestures) < 2:
            raise EdgeError(
                "objective zs_unseen chooses among held-out gestures; name two or more in hold_out_gestures."
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What trials must share to be compared, as JSON can hold it: all but how many there are and who watches them."""
        about = asdict(self)
        del about["trials"], about["heartbeat_s"]
        loaded: dict[str, Any] = json.loads(json.dumps(about))
        return loaded


def read_plan(table: object, place: str = "[sweep]") -> SweepPlan:
    """The plan that a recipe's `[sweep]` table describes.

    Args:
        table: as TOML gives it; `parameters` maps dotted keys, or tables of them, to a list or to low and high.
        place: what errors call the table.

    Raises:
        EdgeError: an unknown key, a value of the wrong type, or one that cannot be; names the allowed ones.
    """
    if not isinstance(table, Mapping):
        raise EdgeError(f"{place} must be a table.")
    known = [item.name for item in fields(SweepPlan)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise EdgeError(f"{place}: unknown key {key!r}; choose from {', '.join(known)}.")
        if key == "parameters":
            values[key] = _parameters(value, place)
        elif key == "fixed":
            values[key] = _leaves(value) if isinstance(value, Mapping) else _field(key, value, place)
        else:
            values[key] = _field(key, value, place)
    try:
        return SweepPlan(**{"parameters": {}, **values})
    except EdgeError as error:
        raise EdgeError(f"{place}: {error}") from None


def _field(name: str, value: object, place: str) -> Any:
    if name == "hold_out_gestures" and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if name in ("trials", "seeds", "seed") and type(value) is int:
        return value
    if name == "heartbeat_s" and _is_number(value):
        return float(typing.cast(float, value))
    if name in SweepPlan._choices and isinstance(value, str):
        return value
    wanted = {"hold_out_gestures": "a list of names", "heartbeat_s": "a number", "fixed": "a table"}
    raise EdgeError(
        f"{place}: {name} is {value!r}; give {wanted.get(name, 'a text' if name in SweepPlan._choices else 'a whole number')}."
    )


def _parameters(table: object, place: str, above: str = "") -> dict[str, Range | Choices]:
    """Dotted keys to what they may be; `"train.batch"` and a table `train` with `batch` in it are the same."""
    if not isinstance(table, Mapping):
        raise EdgeError(f"{place}: {above.rstrip('.') or 'parameters'} must be a table or a list.")
    found: dict[str, Range | Choices] = {}
    for name, value in table.items():
        key = above + name
        if isinstance(value, Mapping) and not {"low", "high"} & set(value):
            inner = _parameters(value, place, f"{key}.")
        else:
            inner = {key: _parameter(value, f"{place} {key}")}
        twice = set(inner) & set(found)
        if twice:
            raise EdgeError(f"{place}: {twice.pop()} is given twice; leave one out.")
        found |= inner
    return found


def _parameter(value: object, where: str) -> Range | Choices:
    try:
        if isinstance(value, list):
            return Choices(tuple(tuple(one) if isinstance(one, list) else one for one in value))
        if not isinstance(value, Mapping):
            raise EdgeError(f"{value!r} is no choice; give a list of values, or low and high.")
        known = [item.name for item in fields(Range)]
        for key, item in value.items():
            if key not in known:
                raise EdgeError(f"unknown key {key!r}; choose from {', '.join(known)}.")
            if type(item) is not bool if key == "log" else not _is_number(item):
                raise EdgeError(f"{key} is {item!r}; give {'true or false' if key == 'log' else 'a number'}.")
        missing = [key for key in ("low", "high") if key not in value]
        if missing:
            raise EdgeError(f"{missing[0]} is missing; give low and high.")
        return Range(**value)
    except EdgeError as error:
        raise EdgeError(f"{where}: {error}") from None


def check_plan(plan: SweepPlan, recipe: Recipe, place: str = "[sweep]") -> None:
    """Refuse a plan that cannot be carried out on a recipe, before anything is trained.

    Raises:
        EdgeError: a key that the recipe does not have or that a sweep leaves alone, values of the wrong type, or an end
            of a range that the recipe refuses.
    """
    for key, value in plan.fixed.items():
        where = f"{place} fixed, {key}"
        _check_key(key, recipe, where)
        if key in plan.parameters:
            raise EdgeError(f"{where}: it is among the parameters; leave one out.")
        _check_value(recipe, key, value, where)
    for key, allowed in plan.parameters.items():
        where = f"{place} {key}"
        _check_key(key, recipe, where)
        if isinstance(allowed, Range):
            kind = _number_kind(recipe, key)
            if kind is None:
                raise EdgeError(f"{where}: no number stands there; give a list of values instead of low and high.")
            numbers = {"low": allowed.low, "high": allowed.high, "step": allowed.step}
            for name, number in numbers.items():
                if kind is int and number is not None and type(number) is not int:
                    raise EdgeError(f"{where}: {name} is {number}; whole numbers stand there.")
        for value in allowed.ends:
            _check_value(recipe, key, value, where)
    both = set(plan.hold_out_gestures) & set(recipe.windows.hold_out_gestures)
    if both:
        raise EdgeError(
            f"{place}: {sorted(both)[0]!r} is held out by the recipe itself, and judging by it would show the test side; hold "
            "out another gesture."
        )


def _check_key(key: str, recipe: Recipe, where: str) -> None:
    known = sweepable(recipe)
    if key not in known:
        left_alone = any(key == name or key.startswith(f"{name}.") for name in NOT_SWEPT)
        near = [one for one in known if one.partition(".")[0] == key.partition(".")[0]]
        raise EdgeError(
            f"{where}: {'a sweep leaves this key alone' if left_alone else 'unknown key'}; choose from "
            f"{', '.join(near or known)}."
        )


def _check_value(recipe: Recipe, key: str, value: Value, where: str) -> None:
    from embridge_edge.recipe import varied

    try:
        varied(recipe, {key: value})
    except EdgeError as error:
        raise EdgeError(f"{where}: {_toml(value)} is impossible: {error}") from None


def sweepable(recipe: Recipe) -> dict[str, Value]:
    """Every dotted key of a recipe that a sweep may set, with the value that it has."""
    leaves = _leaves(recipe.to_dict())
    return {
        key: value
        for key, value in leaves.items()
        if not any(key == name or key.startswith(f"{name}.") for name in NOT_SWEPT)
    }


def overridden(table: Mapping[str, Any], values: Mapping[str, Value]) -> dict[str, Any]:
    """A nested table with other values under some dotted keys; tables that are missing are made."""
    made = dict(table)
    for key, value in values.items():
        first, _, rest = key.partition(".")
        if rest:
            made[first] = overridden(made.get(first, {}), {rest: value})
        else:
            made[first] = list(value) if isinstance(value, tuple) else value
    return made


def own_values(plan: SweepPlan, recipe: Recipe) -> dict[str, Value] | None:
    """The recipe's own values of the plan's parameters; None where one of them is not among those that may be drawn."""
    own = {key: False if value is None else value for key, value in sweepable(recipe).items() if key in plan.parameters}
    return own if all(allowed.holds(own[key]) for key, allowed in plan.parameters.items()) else None


def number_kinds(plan: SweepPlan, recipe: Recipe) -> dict[str, type]:
    """int or float for each parameter of a plan that is a range."""
    return {
        key: typing.cast(type, _number_kind(recipe, key))
        for key, allowed in plan.parameters.items()
        if isinstance(allowed, Range)
    }


def _number_kind(recipe: Recipe, key: str) -> type | None:
    """Whether whole numbers or any stand under a key; None for something else."""
    holder: Any = recipe
    *tables, last = key.split(".")
    for table in tables:
        holder = getattr(holder, table)
    hint = typing.get_type_hints(type(holder))[last]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in (int, float) if kind in options), None)


def _leaves(table: Mapping[str, Any], above: str = "") -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= _leaves(value, f"{above}{name}.")
        else:
            found[above + name] = tuple(value) if isinstance(value, list) else value
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _exact(value: float) -> Decimal:
    """A number as it is written: 0.3 is three times 0.1."""
    return Decimal(str(value))


def _toml(value: Value) -> str:
    return json.dumps(value)
