"""Structured pruning: a trained student with fewer channels, hidden units, heads and queries, which is simply a smaller student."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.compression.groups import Gate, Group, Kind, groups_of
from embridge_edge.compression.sizing import cost_of
from embridge_edge.errors import EdgeError
from embridge_edge.model.ring_student import RingShape
from embridge_edge.model.student import StudentBlock, StudentShape, blocks_plan
from embridge_edge.model.students import AnyShape, AnyStudent, new_student
from embridge_edge.model.transformer_student import NormedLinear, TransformerShape
from embridge_edge.recipe import Importance, PrunePlan, StudentBudget

Index = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]

STEP = 4
"""Channels and hidden units are kept in fours, since int8 kernels take four at a time."""

LADDER = 64
"""A budget is met by the greatest of this many shares."""

CHUNK = 128


@dataclass(frozen=True)
class Cut:
    """What pruning left of a group."""

    layer: str
    kind: Kind
    before: int
    after: int
    coupled: tuple[str, ...]


@dataclass(frozen=True)
class Pruned:
    """A smaller student, and what was cut."""

    student: AnyStudent
    cuts: tuple[Cut, ...]


def cut(student: AnyStudent, kept: Mapping[str, Index]) -> AnyStudent:
    """A student without some units. It computes what the given one does when the layers that write those units give 0.

    Heads and queries that go take their share of a softmax with them: where queries attend to each other (`query_blocks`), one that
    gives 0 is not quite without effect on the others.

    Args:
        kept: indices of the units that stay, by the name of their group; all units of a group that is not named.
    """
    groups = groups_of(student.shape)
    stays = {
        group.name: np.isin(np.arange(group.units), kept.get(group.name, np.arange(group.units))) for group in groups
    }
    tensors = {name: tensor.detach().clone() for name, tensor in student.state_dict().items()}
    for group in groups:
        _settle_constants(student, tensors, group, torch.from_numpy(~stays[group.name]))
    keep: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}
    for group in groups:
        for place in group.places:
            along = place.along(stays[group.name])
            keep[place.tensor, place.axis] = keep.get((place.tensor, place.axis), np.True_) & along
    for (name, axis), along in keep.items():
        tensors[name] = tensors[name].index_select(axis, torch.from_numpy(np.flatnonzero(along)))
    for group in groups:
        tensors = _without_modules(tensors, group, stays[group.name])
    smaller = new_student(_cut_shape(student.shape, {name: int(units.sum()) for name, units in stays.items()}))
    smaller.load_state_dict(tensors)
    return smaller.train(student.training)


def _settle_constants(student: AnyStudent, tensors: dict[str, Tensor], group: Group, gone: Tensor) -> None:
    """Give what a norm makes of a unit of zeros, which is a constant, to the layers behind it."""
    for place in group.places:
        layer, _, name = place.tensor.rpartition(".norm.")
        if name != "bias":
            continue
        module = student.get_submodule(layer)
        norm = cast(nn.BatchNorm1d | nn.BatchNorm2d, module.norm)
        silent = norm.bias - norm.weight * cast(Tensor, norm.running_mean) / torch.sqrt(
            cast(Tensor, norm.running_var) + norm.eps
        )
        given = torch.where(gone, silent.detach(), 0.0)
        if isinstance(module, NormedLinear):
            for index in range(len(module.linears)):
                tensors[f"{layer}.linears.{index}.bias"] += tensors[f"{layer}.linears.{index}.weight"] @ given
        elif layer.endswith(".layers.0") and (behind := f"{layer[:-1]}1.convolution.weight") in tensors:
            # A depthwise convolution of nothing; the pointwise one behind it takes the constant off its running mean.
            mean = f"{layer[:-1]}1.norm.running_mean"
            tensors[mean] = tensors[mean] - tensors[behind][:, :, 0, 0] @ torch.relu(given)


def _without_modules(tensors: dict[str, Tensor], group: Group, stays: npt.NDArray[np.bool_]) -> dict[str, Tensor]:
    """Drop the layers that units have to themselves, and number those that are left."""
    if not group.modules or stays.all():
        return tensors
    parts = range(len(group.modules[0]))
    left = [group.modules[unit][part] for part in parts for unit in np.flatnonzero(stays)]
    numbered = {name: f"{name.rpartition('.')[0]}.{index}" for index, name in enumerate(left)}
    owned = {name for names in group.modules for name in names}
    found = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        if module not in owned:
            found[name] = tensor
        elif module in numbered:
            found[f"{numbered[module]}.{kind}"] = tensor
    return found


def _cut_shape(shape: AnyShape, counts: Mapping[str, int]) -> AnyShape:
    """The shape with so many units in each group.

    Raises:
        EdgeError: a residual would come or go.
    """
    if isinstance(shape, TransformerShape):
        names = [f"encoder.{index}" for index in range(shape.blocks)]
        names += [f"qformer.{index}" for index in range(shape.query_blocks)]
        return dataclasses.replace(
            shape,
            width=counts["width"],
            queries=counts["queries"],
            stem_widths=tuple(counts[f"stem.{index}"] for index in range(len(shape.stem) - 1)),
            head_size=shape.attention[0].size,
            block_heads=tuple(counts[f"{name}.heads"] for name in names),
            hidden=tuple(counts[f"{name}.hidden"] for name in names),
        )
    if isinstance(shape, RingShape):
        return dataclasses.replace(
            shape,
            widths=tuple(counts[f"token.{index}"] for index in range(len(shape.widths))),
            width=counts[f"token.{len(shape.widths)}"],
            reader_widths=tuple(counts[f"reader.{index}"] for index in range(len(shape.reader_widths))),
            queries=counts["queries"],
        )
    widths: list[int] = []
    for index in range(len(shape.widths)):
        widths.append(counts.get(f"blocks.{index}", widths[-1] if widths else 0))
    smaller = dataclasses.replace(shape, widths=tuple(widths), queries=counts["queries"])
    if residuals(smaller) != residuals(shape):
        raise EdgeError(
            f"With widths {widths} two blocks that differ would be equally wide, and be added to each other; keep one unit more."
        )
    return smaller


def residuals(shape: StudentShape) -> tuple[bool, ...]:
    """Which blocks add what they read."""
    return tuple(StudentBlock.adds(plan) for plan in blocks_plan(shape))


def importance(student: AnyStudent, windows: Tensor, kind: Importance) -> dict[str, Scores]:
    """What each unit of each group is worth; comparable within a group.

    | kind | a unit's worth |
    |---|---|
    | taylor | squared change of the embedding when it goes, to first order: E (∂(v · embedding) / ∂gate)², with a gate of 1 at the
      unit's activation and v of random signs. Molchanov et al. (2019) with the embedding in the loss's place: needs no labels |
    | norm | L2 norm of all its weights, norms folded: the scale of BatchNorm times the weights it writes, and those that read it |

    Args:
        windows: float32 `[n, T, C]`, inputs of the network.
    """
    return _taylor(student, windows) if kind == "taylor" else _norm(student)


def _norm(student: AnyStudent) -> dict[str, Scores]:
    tensors = {name: tensor.double().numpy() for name, tensor in fold_batchnorm(student).state_dict().items()}
    found = {}
    for group in groups_of(student.shape):
        squares = np.zeros(group.units)
        for place in group.places:
            if place.tensor in tensors and tensors[place.tensor].ndim > 1:
                values = np.moveaxis(np.square(tensors[place.tensor]), place.axis, 0)
                totals = values.reshape(place.outer, group.units, place.inner, -1)
                squares += totals.sum(axis=(0, 2, 3))
        for unit, names in enumerate(group.modules):
            squares[unit] += sum(np.square(tensors[f"{name}.weight"]).sum() for name in names)
        found[group.name] = np.sqrt(squares)
    return found


def _taylor(student: AnyStudent, windows: Tensor) -> dict[str, Scores]:
    groups, network = groups_of(student.shape), copy.deepcopy(student).eval()
    signs = torch.Generator().manual_seed(0)
    totals = {group.name: np.zeros(group.units) for group in groups}
    for start in range(0, len(windows), CHUNK):
        part = windows[start : start + CHUNK]
        gates = {group.name: torch.ones(len(part), group.units, requires_grad=True) for group in groups}
        handles = [_gated(network, gate, gates[group.name]) for group in groups for gate in group.gates]
        try:
            embedding = network(part)
        finally:
            for handle in handles:
                handle.remove()
        drawn = torch.randint(0, 2, embedding.shape, generator=signs) * 2.0 - 1.0
        slopes = torch.autograd.grad((embedding * drawn).sum(), list(gates.values()))
        for name, slope in zip(gates, slopes, strict=True):
            totals[name] += slope.double().square().sum(dim=0).numpy()
    return {name: total / len(windows) for name, total in totals.items()}


def _gated(network: nn.Module, gate: Gate, values: Tensor) -> Any:
    """Scale a group's units of one activation, each window by its own gates `[n, units]`."""

    def scaled(x: Tensor) -> Tensor:
        along = values.repeat_interleave(gate.inner, dim=1).repeat(1, gate.outer)
        shape = [len(x), *[1] * (x.ndim - 1)]
        shape[gate.axis] = along.shape[1]
        return x * along.reshape(shape)

    module = network.get_submodule(gate.module)
    if gate.side == "input":
        return module.register_forward_pre_hook(lambda _, inputs: (scaled(inputs[0]),))
    return module.register_forward_hook(lambda _, __, output: scaled(output))


def counts_for(shape: AnyShape, plan: PrunePlan) -> dict[str, int]:
    """How many units of each group stay.

    Raises:
        EdgeError: a pattern of the plan matches no group, or nothing that can be cut keeps to the budget.
    """
    names = [group.name for group in groups_of(shape)]
    for pattern in plan.layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise EdgeError(f"[prune] layers names {pattern!r}, and this student has {', '.join(names)}.")
    if plan.budget is None:
        return _counts(shape, plan, plan.keep)
    if not isinstance(shape, StudentShape):
        raise EdgeError(
            "A budget is for a convolutional student, and this one is of another family; give [prune] keep."
        )
    return _within(shape, plan, plan.budget)


def _within(shape: StudentShape, plan: PrunePlan, budget: StudentBudget) -> dict[str, int]:
    for rung in range(LADDER, 0, -1):
        counts = _counts(shape, plan, rung / LADDER)
        smaller = cast(StudentShape, _cut_shape(shape, counts))
        cost = cost_of(smaller)
        if not (over := cost.over(budget)):
            return counts
    taken = " and ".join(f"{name} {getattr(cost, name):,} (budget {getattr(budget, name):,})" for name in over)
    raise EdgeError(f"Pruned to the least, the student still takes {taken}; distil a smaller one, or raise the budget.")


def _counts(shape: AnyShape, plan: PrunePlan, keep: float) -> dict[str, int]:
    groups = groups_of(shape)
    counts = {}
    for group in groups:
        matching = [share for pattern, share in plan.layers.items() if fnmatchcase(group.name, pattern)]
        step = STEP if group.kind in ("channels", "hidden units") else 1
        share = matching[-1] if matching else keep
        wanted = step * round(share * group.units / step) if share < 1 else group.units
        counts[group.name] = min(group.units, max(step, wanted))
    if isinstance(shape, StudentShape):
        _keep_apart(shape, groups, counts)
    return counts


def _keep_apart(shape: StudentShape, groups: Sequence[Group], counts: dict[str, int]) -> None:
    """Leave the wider of two neighbours a step more where they would become equally wide and a residual appear."""
    channels = [group for group in groups if group.kind == "channels"]
    changed = shape.block == "separable"
    while changed:
        changed = False
        for one, other in pairwise(channels):
            if one.units != other.units and counts[one.name] == counts[other.name]:
                wider = one if one.units > other.units else other
                counts[wider.name] = min(wider.units, counts[wider.name] + STEP)
                changed = True


def prune(student: AnyStudent, windows: Tensor, plan: PrunePlan) -> Pruned:
    """Cut the least important units of each group.

    Args:
        windows: float32 `[n, T, C]`, inputs of the network, on which units are judged.

    Raises:
        EdgeError: see `counts_for`.
    """
    groups, counts = groups_of(student.shape), counts_for(student.shape, plan)
    worth = importance(student, windows, plan.importance)
    kept = {name: np.sort(np.argsort(-worth[name], kind="stable")[:count]) for name, count in counts.items()}
    cuts = tuple(Cut(group.name, group.kind, group.units, counts[group.name], group.coupled) for group in groups)
    return Pruned(cut(student, kept), cuts)
