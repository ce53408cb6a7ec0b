"""Recipes: what to do for a target, as data. `recipes/*.toml` are shipped; a path to a file of one's own works as well."""

from __future__ import annotations

import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from embridge_edge.artifacts import sha256_of
from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan

SPLITS = ("session", "wearer", "day", "repetition")


def _at_least(plan: object, least: float, *names: str) -> None:
    """Refuse a number, or one in a list, that is too small to mean anything."""
    for name in names:
        value = getattr(plan, name)
        if any(one < least for one in (value if isinstance(value, tuple) else (value,))):
            raise EdgeError(f"{name} is {value} in the recipe; give {least:g} or more.")


def _check_training(plan: TrainPlan | DistillPlan) -> None:
    _at_least(plan, 2, "batch")
    _at_least(plan, 0, "gain_jitter", "channel_jitter", "rotation", "noise", "channel_drop", "label_smoothing")
    if plan.most_passes is not None and plan.most_passes <= 0:
        raise EdgeError(f"most_passes is {plan.most_passes:g} in the recipe; give a number above 0.")
    if isinstance(plan, TrainPlan) and plan.temperature <= 0:
        raise EdgeError(f"temperature is {plan.temperature:g} in the recipe; give a number above 0.")


@dataclass(frozen=True)
class WindowPlan:
    """Which windows count.

    Attributes:
        guard_ms: a window counts for its gesture when all its samples lie at least this long behind a change of label.
        ramp_ms: how long a hand takes from one canonical pose to the next.
        hold_out_gestures: gestures that no training step sees; they are judged by their pose alone.
    """

    guard_ms: float = 300.0
    ramp_ms: float = 300.0
    hold_out_gestures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _at_least(self, 0, "guard_ms", "ramp_ms")


@dataclass(frozen=True)
class TeacherPlan:
    """Shape of the EMBridge teacher. Widths are in features, blocks are Transformer blocks.

    `patch_ms` is the length of an EMG patch (one frame for a chain with features). Queries and blocks as the paper gives
    them; widths are unknown there (the sibling CPEP has 256) and sized here for two cores.
    """

    patch_ms: float = 50.0
    emg_width: int = 64
    emg_blocks: int = 4
    pose_width: int = 64
    pose_blocks: int = 2
    query_blocks: int = 4
    queries: int = 16
    heads: int = 4
    embedding: int = 64
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _at_least(self, 1, "emg_width", "emg_blocks", "pose_width", "pose_blocks", "query_blocks", "queries", "heads")
        _at_least(self, 1, "embedding")
        if not 0 <= self.dropout < 1:
            raise EdgeError(f"dropout is {self.dropout:g} in the recipe; give 0 or more and less than 1.")


@dataclass(frozen=True)
class Augmentation:
    """How EMG is varied while training; everything acts on the normalised input. Values were chosen on `myo_readings`, training on
    each person's first session and looking at the second-to-last: gains and rotation were .006 above
    none there, which is within the difference between two seeds (.013); they are kept because they slow overfitting.

    Attributes:
        gain_jitter: standard deviation of the logarithm of a gain common to all channels (load, electrode contact).
        channel_jitter: the same for each channel by itself.
        rotation: standard deviation of a rotation of the band, in electrode distances; raw samples of a ring of electrodes.
        noise: standard deviation of added white noise.
        channel_drop: share of channels silenced (a lifted electrode).
        time_shift: whether a window starts anywhere within its hop.
    """

    gain_jitter: float = 0.2
    channel_jitter: float = 0.3
    rotation: float = 0.4
    noise: float = 0.0
    channel_drop: float = 0.0
    time_shift: bool = True


@dataclass(frozen=True)
class TrainPlan(Augmentation):
    """How the teacher learns: masked pre-training of both towers, then alignment.

    Attributes:
        pose_steps, masked_steps, steps: optimisation steps of pose pre-training, EMG pre-training and alignment.
        most_passes: where `steps` of `batch` windows would be more passes over the training windows than this, all three are
            cut in proportion: few recordings need less time, and are overfitted by more. None never cuts.
        batch: windows in a batch; gestures and wearers are drawn evenly.
        learning_rate: peak of a one-cycle schedule.
        mask_share: share of patches hidden in pre-training (the paper: half).
        temperature: τ of InfoNCE.
        pose_weight, label_weight: weights of InfoNCE and of the cross-entropy of a linear head on the labels.
        label_smoothing: of that cross-entropy.
        best_query: align the query closest to its pose (the paper); else the mean over queries.
    """

    pose_steps: int = 300
    masked_steps: int = 300
    steps: int = 2000
    most_passes: float | None = None
    batch: int = 256
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    mask_share: float = 0.5
    temperature: float = 0.07
    pose_weight: float = 1.0
    label_weight: float = 1.0
    label_smoothing: float = 0.05
    best_query: bool = True

    def __post_init__(self) -> None:
        _at_least(self, 0, "pose_steps", "masked_steps", "learning_rate", "weight_decay", "pose_weight", "label_weight")
        _at_least(self, 1, "steps")
        _check_training(self)
        if not 0 < self.mask_share < 1:
            raise EdgeError(f"mask_share is {self.mask_share:g} in the recipe; give a share between 0 and 1.")


@dataclass(frozen=True)
class StudentPlan:
    """Shape of the student: convolutions that fold, few-query attention pooling. One width, kernel and stride per block."""

    widths: tuple[int, ...] = (32, 64, 64, 64)
    kernels: tuple[int, ...] = (5, 5, 3, 3)
    strides: tuple[int, ...] = (1, 2, 2, 1)
    queries: int = 4

    def __post_init__(self) -> None:
        _at_least(self, 1, "widths", "kernels", "strides", "queries")
        if not len(self.widths) == len(self.kernels) == len(self.strides) > 0 or max(self.strides) > 2:
            raise EdgeError(
                f"The student has widths {list(self.widths)}, kernels {list(self.kernels)} and strides "
                f"{list(self.strides)} in the recipe; give one of each per block, strides of 1 or 2."
            )


@dataclass(frozen=True)
class DistillPlan(Augmentation):
    """How the student learns from the teacher's embedding, the pose embeddings and the labels.

    Attributes: as those of `TrainPlan`; `teacher_weight` weighs 1 − cosine to the teacher's embedding, which is computed for
        `teacher_windows` windows.
    """

    steps: int = 3000
    most_passes: float | None = None
    batch: int = 256
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    teacher_weight: float = 1.0
    pose_weight: float = 0.5
    label_weight: float = 1.0
    label_smoothing: float = 0.05
    teacher_windows: int = 100_000

    def __post_init__(self) -> None:
        _at_least(self, 0, "learning_rate", "weight_decay", "teacher_weight", "pose_weight", "label_weight")
        _at_least(self, 1, "steps", "teacher_windows")
        _check_training(self)


@dataclass(frozen=True)
class QuantizePlan:
    """Post-training quantization: how many calibration windows, which ranges."""

    windows: int = 512
    observer: Literal["minmax", "moving_average"] = "minmax"

    def __post_init__(self) -> None:
        _at_least(self, 1, "windows")
        if self.observer not in ("minmax", "moving_average"):
            raise EdgeError(f"Unknown observer {self.observer!r}; choose minmax or moving_average.")


@dataclass(frozen=True)
class EvaluatePlan:
    """On what the models are judged.

    Attributes:
        splits: which splits; empty takes those that the recordings allow (day, else session, else repetition; and wearer
            where there are five or more).
        folds: folds over wearers.
        fold_share: training steps in a fold as a share of those of the shipped model.
        probe_windows: training windows for the linear probe, drawn evenly.
        parity_windows: windows on which runtimes are compared.
    """

    splits: tuple[str, ...] = ()
    folds: int = 5
    fold_share: float = 0.3
    probe_windows: int = 40_000
    parity_windows: int = 1000

    def __post_init__(self) -> None:
        _at_least(self, 2, "folds")
        if not 0 < self.fold_share <= 1:
            raise EdgeError(f"fold_share is {self.fold_share:g} in the recipe; give a share above 0, up to 1.")
        _at_least(self, 1, "probe_windows", "parity_windows")
        for split in self.splits:
            if split not in SPLITS:
                raise EdgeError(f"Unknown split {split!r}; choose from {', '.join(SPLITS)}.")


@dataclass(frozen=True)
class GatePlan:
    """Limits whose breach ends `deploy` with status 3. None, `false` in a recipe file, leaves one open."""

    student_balanced_accuracy: float | None = None
    int8_loss: float | None = 0.01
    class_flips: float | None = 0.03
    tflite_bytes: int | None = 128_000
    parity_max_steps: int | None = 3
    parity_within_one: float | None = 0.97
    parity_class_flips: float | None = 0.005


@dataclass(frozen=True)
class Recipe:
    """Everything that `deploy` does for a target."""

    name: str
    target: str
    chain: ChainPlan = field(default_factory=ChainPlan)
    windows: WindowPlan = field(default_factory=WindowPlan)
    teacher: TeacherPlan = field(default_factory=TeacherPlan)
    train: TrainPlan = field(default_factory=TrainPlan)
    student: StudentPlan = field(default_factory=StudentPlan)
    distill: DistillPlan = field(default_factory=DistillPlan)
    quantize: QuantizePlan = field(default_factory=QuantizePlan)
    evaluate: EvaluatePlan = field(default_factory=EvaluatePlan)
    gates: GatePlan = field(default_factory=GatePlan)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sha256(self) -> str:
        return sha256_of(self.to_dict())


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        path.name.removesuffix(".toml")
        for path in files("embridge_edge.recipes").iterdir()
        if path.name.endswith(".toml")
    )


def find_recipe(name: str) -> Recipe:
    """A shipped recipe by name, or a recipe file by path.

    Raises:
        EdgeError: no such recipe, no TOML, an unknown key or a value of the wrong type; the allowed ones are listed.
    """
    if name in shipped_recipes():
        text, place = files("embridge_edge.recipes").joinpath(f"{name}.toml").read_text("utf-8"), name
    elif Path(name).is_file():
        text, place = Path(name).read_text("utf-8", errors="replace"), name
    else:
        raise EdgeError(f"Unknown recipe {name!r}; choose one of {', '.join(shipped_recipes())}, or give a file.")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise EdgeError(f"Recipe {place} is not valid TOML: {error}.") from None
    recipe: Recipe = _build(Recipe, table, f"Recipe {place}")
    return recipe


def recipe_from_dict(stored: Mapping[str, Any]) -> Recipe:
    """The recipe that `Recipe.to_dict` stored in an artifact."""
    recipe: Recipe = _build(Recipe, stored, "The stored recipe")
    return recipe


def _build(kind: type[Any], table: object, place: str) -> Any:
    """A dataclass from a table, every key and type checked."""
    if not isinstance(table, Mapping):
        raise EdgeError(f"{place} must be a table.")
    known = {item.name: item for item in fields(kind)}
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise EdgeError(f"{place}: unknown key {key!r}; choose from {', '.join(known)}.")
        where = f"{place}, {key}"
        values[key] = _build(hints[key], value, where) if is_dataclass(hints[key]) else _typed(value, hints[key], where)
    for key, item in known.items():
        if key not in values and item.default is MISSING and item.default_factory is MISSING:
            raise EdgeError(f"{place}: {key} is missing.")
    return kind(**values)


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
