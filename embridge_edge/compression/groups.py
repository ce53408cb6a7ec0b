"""What of a student can only be cut together.

Units that are added to each other, or that one layer hands to the next, go at once from every layer that writes or reads them: the
dependency graph of Fang et al. (2023, DepGraph), written down for the families of students rather than traced.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.model.ring_student import RingShape
from embridge_edge.model.student import StudentBlock, StudentShape, blocks_plan
from embridge_edge.model.students import AnyShape
from embridge_edge.model.transformer_student import TransformerShape

Kind = Literal["channels", "hidden units", "heads", "queries"]
NORM = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Place:
    """Where a group's units stand along an axis of a tensor of `outer · units · inner` values: a unit has `inner` neighbours in each
    of `outer` runs.
    """

    tensor: str
    axis: int
    outer: int = 1
    inner: int = 1

    def along(self, units: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What holds for each unit, for each value of the axis."""
        return np.tile(np.repeat(units, self.inner), self.outer)


@dataclass(frozen=True)
class Gate:
    """An activation that carries the units: what a module reads or writes, as in `Place`."""

    module: str
    side: Literal["input", "output"]
    axis: int = -1
    outer: int = 1
    inner: int = 1


@dataclass(frozen=True)
class Group:
    """Units that can be cut, and all that goes with each.

    Attributes:
        name: of the layer that makes them. kind: what they are. units: how many.
        coupled: other layers that lose the same units.
        places: values of tensors. modules: for each unit, the layers that it has to itself (a head's query, key and value).
        gates: where scaling a unit says what it is worth.
    """

    name: str
    kind: Kind
    units: int
    coupled: tuple[str, ...]
    places: tuple[Place, ...]
    gates: tuple[Gate, ...]
    modules: tuple[tuple[str, ...], ...] = ()


def groups_of(shape: AnyShape) -> tuple[Group, ...]:
    """All groups of a student's shape. Neither the input's channels nor the embedding are among them: those are others' business.

    Raises:
        EdgeError: a student with LayerNorms, whose other units change where one is cut.
    """
    if isinstance(shape, TransformerShape) and shape.norm == "layer":
        raise EdgeError(
            'Pruning needs norms that fold, and this student has LayerNorms; set norm = "batch" in [student].'
        )
    if isinstance(shape, RingShape):
        return tuple(_ring_groups(shape))
    return tuple(_conv_groups(shape) if isinstance(shape, StudentShape) else _transformer_groups(shape))


def _normed(layer: str, *, outputs: bool) -> tuple[Place, ...]:
    """A `NormedConvolution` as the writer, or the reader, of units."""
    weight = Place(f"{layer}.convolution.weight", 0 if outputs else 1)
    return (weight, *(Place(f"{layer}.norm.{name}", 0) for name in NORM)) if outputs else (weight,)


def _conv_groups(shape: StudentShape) -> Iterator[Group]:
    plans, last, width = list(blocks_plan(shape)), len(shape.widths) - 1, shape.widths[-1]
    kept_together: list[list[int]] = []
    for index, plan in enumerate(plans):
        if StudentBlock.adds(plan):
            kept_together[-1].append(index)  # a residual adds channel by channel what the block before wrote
        else:
            kept_together.append([index])
    for blocks in kept_together:
        places: list[Place] = []
        depthwise: list[str] = []
        for index in blocks:
            places += _normed(f"blocks.{index}.layers.{len(plans[index]) - 1}", outputs=True)
            if index == last:
                places += [Place("scores.weight", 1), Place("embedding.weight", 1, outer=shape.queries)]
            elif len(plans[index + 1]) == 1:
                places += _normed(f"blocks.{index + 1}.layers.0", outputs=False)
            else:
                depthwise.append(f"blocks.{index + 1}.layers.0")
                places += [
                    *_normed(depthwise[-1], outputs=True),
                    *_normed(f"blocks.{index + 1}.layers.1", outputs=False),
                ]
        gates = tuple(Gate(f"blocks.{index}.layers.{len(plans[index]) - 1}", "output", axis=1) for index in blocks)
        coupled = (*(f"blocks.{index}" for index in blocks[1:]), *(f"{name} (depthwise)" for name in depthwise))
        yield Group(f"blocks.{blocks[0]}", "channels", shape.widths[blocks[0]], coupled, tuple(places), gates)
    queries = (Place("scores.weight", 0), Place("embedding.weight", 1, inner=width))
    yield Group("queries", "queries", shape.queries, (), queries, (Gate("embedding", "input", inner=width),))


def _ring_groups(shape: RingShape) -> Iterator[Group]:
    plan, width, queries = (*shape.token_plan, *shape.reader_plan), shape.read_width, shape.queries
    names = [f"token.{index}" for index in range(len(shape.token_plan))]
    names += [f"reader.{index}" for index in range(len(shape.reader_plan))]
    for index, (name, one) in enumerate(zip(names, plan, strict=True)):
        if index + 1 < len(names):
            read = _normed(f"{names[index + 1]}.0", outputs=False)
        else:
            read = (Place("scores.weight", 1), Place("embedding.weight", 1, outer=queries))
        places = (*_normed(f"{name}.0", outputs=True), *read)
        yield Group(name, "channels", one.outputs, (), places, (Gate(f"{name}.0", "output", axis=1),))
    read = (Place("scores.weight", 0), Place("embedding.weight", 1, inner=width))
    yield Group("queries", "queries", queries, (), read, (Gate("embedding", "input", inner=width),))


def _transformer_groups(shape: TransformerShape) -> Iterator[Group]:
    width, queries, last = shape.width, shape.queries, len(shape.stem) - 1
    for index, plan in enumerate(shape.stem[:-1]):
        places = (*_normed(f"stem.{index}.0", outputs=True), *_normed(f"stem.{index + 1}.0", outputs=False))
        yield Group(f"stem.{index}", "channels", plan.outputs, (), places, (Gate(f"stem.{index}.0", "output", axis=1),))
    names = [f"encoder.{index}" for index in range(shape.blocks)]
    names += [f"qformer.{index}" for index in range(shape.query_blocks)]
    stream = [*_normed(f"stem.{last}.0", outputs=True), Place("place", 1), Place("query", 1)]
    stream += [*_reader("scores", 1), Place("embedding.weight", 1, outer=queries)]
    readers = ["scores"]
    for name, block in zip(names, shape.attention, strict=True):
        stream += [*_reader(f"{name}.attend", 3 * block.heads), *_reader(f"{name}.widen", 1)]
        stream += [Place(f"{name}.{layer}.{kind}", 0) for layer in ("out", "narrow") for kind in ("weight", "bias")]
        readers += [f"{name}.attend", f"{name}.widen"]
        yield Group(
            f"{name}.heads",
            "heads",
            block.heads,
            (),
            (Place(f"{name}.out.weight", 1, inner=block.size),),
            (Gate(f"{name}.out", "input", inner=block.size),),
            tuple(
                tuple(f"{name}.attend.linears.{part * block.heads + head}" for part in range(3))
                for head in range(block.heads)
            ),
        )
        hidden = [Place(f"{name}.widen.linears.0.{kind}", 0) for kind in ("weight", "bias")]
        hidden.append(Place(f"{name}.narrow.weight", 1))
        gate = Gate(f"{name}.narrow", "input")
        yield Group(f"{name}.hidden", "hidden units", block.hidden, (), tuple(hidden), (gate,))
    gates = (*(Gate(name, "input") for name in readers), Gate("embedding", "input", outer=queries))
    yield Group("width", "channels", width, (f"stem.{last}", *names, "scores", "embedding"), tuple(stream), gates)
    places = (
        *(Place(f"scores.linears.0.{kind}", 0) for kind in ("weight", "bias")),
        Place("query", 0),
        Place("embedding.weight", 1, inner=width),
    )
    yield Group("queries", "queries", queries, (), places, (Gate("embedding", "input", inner=width),))


def _reader(layer: str, linears: int) -> list[Place]:
    """A `NormedLinear` as the reader of units."""
    norm = [Place(f"{layer}.norm.{name}", 0) for name in NORM]
    return norm + [Place(f"{layer}.linears.{index}.weight", 1) for index in range(linears)]
