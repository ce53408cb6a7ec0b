"""Ops that move values and change none: slices, joins, transpositions, padding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from embridge_edge.firmware_bridge.graph import NUMPY_TYPES, Tensor
from embridge_edge.firmware_bridge.lowering.site import Site, refuse
from embridge_edge.firmware_bridge.lowering.view import View
from embridge_edge.firmware_bridge.program import Alias, Constant, Step, int_array

MOVED = ("int8", "int16", "int32", "float32")
"""Types that can be moved."""

MOVE_AXES = 5
TAKE_AXES = 4
LARGEST = 1 << 31
"""Bytes of a tensor, exclusive: steps and offsets are kept in 32 bits."""


def slice_(site: Site) -> Step | Alias:
    """SLICE: a box of the input."""
    given, output = _operands(site)
    begin, size = (_numbers(site, position, what) for position, what in ((1, "begin"), (2, "size")))
    if not len(begin) == len(size) == len(given.shape):
        refuse(site, f"its begin and size do not fit {given.shape}", "export the model again")
    view = View.of(given.shape)
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        length = given.shape[axis]
        taken = length - first if count == -1 else count
        if first < 0 or taken < 1 or first + taken > length:
            refuse(site, f"it takes {taken} from {first} of {length} along axis {axis}", "export the model again")
        view = view.part(axis, first, taken)
    return _moved(site, given, output, view, View.of(output.shape))


def strided_slice(site: Site) -> Step | Alias:
    """STRIDED_SLICE, with all its masks."""
    given, output = _operands(site)
    begin, end, strides = (_numbers(site, i, what) for i, what in ((1, "begin"), (2, "end"), (3, "strides")))
    if not len(begin) == len(end) == len(strides):
        refuse(site, "its begin, end and strides differ in length", "export the model again")
    if site.option("offset"):
        refuse(site, "its end is given relative to its begin", "export it with an absolute end")
    masked = {
        name: {i for i in range(len(begin)) if site.option(f"{name}Mask") >> i & 1}
        for name in ("begin", "end", "ellipsis", "newAxis", "shrinkAxis")
    }
    if len(masked["ellipsis"]) > 1 or masked["begin"] & masked["shrinkAxis"]:
        refuse(site, "its masks contradict each other", "export the model again")
    consumed = len(begin) - len(masked["ellipsis"]) - len(masked["newAxis"] - masked["ellipsis"])
    if consumed > len(given.shape):
        refuse(site, f"it slices more axes than {given.shape} has", "export the model again")
    view, axis = View.of(given.shape), 0
    kept: list[int] = []  # axes of the input, in order
    lengths: list[int] = []  # of the output, new axes included
    for i in range(len(begin)):
        if i in masked["ellipsis"]:
            skipped = range(axis, axis + len(given.shape) - consumed)
            kept += skipped
            lengths += [given.shape[j] for j in skipped]
            axis += len(skipped)
            continue
        if i in masked["newAxis"]:
            lengths.append(1)
            continue
        length = given.shape[axis]
        if i in masked["shrinkAxis"]:
            first = begin[i] + length if begin[i] < 0 else begin[i]
            if not 0 <= first < length or strides[i] < 1:
                refuse(site, f"it takes element {begin[i]} of {length} along axis {axis}", "export the model again")
            view = view.part(axis, first, 1)
        else:
            if strides[i] == 0:
                refuse(site, "one of its strides is 0", "export the model again")
            bounds = (None if i in masked["begin"] else begin[i], None if i in masked["end"] else end[i])
            taken = range(*slice(*bounds, strides[i]).indices(length))
            if not taken:
                refuse(site, f"it takes nothing along axis {axis}", "export the model without the op")
            view = view.part(axis, taken.start, len(taken), taken.step)
            kept.append(axis)
            lengths.append(len(taken))
        axis += 1
    kept += range(axis, len(given.shape))
    lengths += given.shape[axis:]
    _expect(site, output, lengths)
    source = view.order(kept)
    return _moved(site, given, output, source, View.of(source.lengths))


def split(site: Site) -> tuple[Step, ...] | Alias:
    """SPLIT: equal parts along an axis."""
    given = _moving(site, site.activation_only(site.input(1), "input"))
    axis = _axis(site, _numbers(site, 0, "axis"), len(given.shape))
    count = _count(site, "numSplits", len(site.op.outputs))
    if given.shape[axis] % count:
        refuse(site, f"{given.shape[axis]} does not divide into {count} parts", "export the model again")
    return _parts(site, given, axis, [given.shape[axis] // count] * count)


def split_v(site: Site) -> tuple[Step, ...] | Alias:
    """SPLIT_V: parts of given lengths along an axis."""
    given = _moving(site, site.activation_only(site.input(0), "input"))
    _count(site, "numSplits", len(site.op.outputs))
    sizes = _numbers(site, 1, "sizes")
    axis = _axis(site, _numbers(site, 2, "axis"), len(given.shape))
    rest = given.shape[axis] - sum(size for size in sizes if size != -1)
    sizes = [rest if size == -1 else size for size in sizes]
    if min(sizes, default=0) < 1 or sum(sizes) != given.shape[axis] or len(sizes) != len(site.op.outputs):
        refuse(site, f"its sizes {sizes} do not fit {given.shape[axis]}", "export the model again")
    return _parts(site, given, axis, sizes)


def unpack(site: Site) -> tuple[Step, ...] | Alias:
    """UNPACK: one output for each element of an axis, without the axis."""
    given = _moving(site, site.activation_only(site.input(0), "input"))
    axis = _axis(site, [site.option("axis")], len(given.shape))
    if given.shape[axis] != _count(site, "num", len(site.op.outputs)):
        refuse(site, f"it has {len(site.op.outputs)} outputs for {given.shape[axis]}", "export the model again")
    without = (*given.shape[:axis], *given.shape[axis + 1 :])
    axes = [i for i in range(len(given.shape)) if i != axis]
    moves = []
    for position in range(len(site.op.outputs)):
        output = _taking(site, given, site.output(position))
        _expect(site, output, without)
        source = View.of(given.shape).part(axis, position, 1).order(axes)
        moves.append(_moved(site, given, output, source, View.of(without)))
    return _several(moves)


def pack(site: Site) -> tuple[Step, ...] | Alias:
    """PACK: the inputs along a new axis."""
    output = _moving(site, site.output())
    axis = _axis(site, [site.option("axis")], len(output.shape))
    if _count(site, "valuesCount", len(site.op.inputs)) != output.shape[axis]:
        refuse(site, f"it has {len(site.op.inputs)} inputs for {output.shape[axis]}", "export the model again")
    axes = [i for i in range(len(output.shape)) if i != axis]
    moves = []
    for position in range(len(site.op.inputs)):
        given = site.input(position)
        _taking(site, given, output)
        target = View.of(output.shape).part(axis, position, 1).order(axes)
        if given.shape != target.lengths:
            refuse(site, f"its input {given.shape} should be {target.lengths}", "export the model again")
        moves.append(_moved(site, given, output, View.of(given.shape), target))
    return _several(moves)


def concatenation(site: Site) -> tuple[Step, ...] | Alias:
    """CONCATENATION: the inputs one behind the other along an axis."""
    output = _moving(site, site.output())
    axis = _axis(site, [site.option("axis")], len(output.shape))
    if site.option("fusedActivationFunction"):
        refuse(site, "it has a fused activation", "use a separate op")
    moves, begin = [], 0
    for position in range(len(site.op.inputs)):
        given = site.input(position)
        _taking(site, given, output)
        if len(given.shape) != len(output.shape) or given.shape[axis] < 1:
            refuse(site, f"its input {given.shape} does not fit {output.shape}", "export the model again")
        if begin + given.shape[axis] > output.shape[axis]:
            refuse(site, f"its inputs are longer than {output.shape[axis]}", "export the model again")
        target = View.of(output.shape).part(axis, begin, given.shape[axis])
        if given.shape != target.lengths:
            refuse(site, f"its input {given.shape} should be {target.lengths}", "export the model again")
        moves.append(_moved(site, given, output, View.of(given.shape), target))
        begin += given.shape[axis]
    if begin != output.shape[axis]:
        refuse(site, f"its inputs fill {begin} of {output.shape[axis]}", "export the model again")
    return _several(moves)


def transpose(site: Site) -> Step | Alias:
    """TRANSPOSE: the axes in another order."""
    given, output = _operands(site)
    order = _numbers(site, 1, "permutation")
    order = [axis + len(order) if axis < 0 else axis for axis in order]
    if sorted(order) != list(range(len(given.shape))):
        refuse(site, f"{order} is no order of {len(given.shape)} axes", "export the model again")
    source = View.of(given.shape).order(order)
    return _moved(site, given, output, source, View.of(output.shape))


def reverse_v2(site: Site) -> Step | Alias:
    """REVERSE_V2: some axes backwards."""
    given, output = _operands(site)
    source = View.of(given.shape)
    axes = {_axis(site, [axis], len(given.shape)) for axis in _numbers(site, 1, "axis")}
    for axis in axes:
        source = source.part(axis, given.shape[axis] - 1, given.shape[axis], -1)
    return _moved(site, given, output, source, View.of(output.shape))


def depth_to_space(site: Site) -> Step | Alias:
    """DEPTH_TO_SPACE: blocks of channels become blocks of pixels."""
    given, output = _operands(site)
    block = _block(site, given, output)
    batches, height, width, channels = given.shape
    if channels % block**2:
        refuse(site, f"its block {block} does not divide {channels} channels", "export the model again")
    _expect(site, output, (batches, height * block, width * block, channels // block**2))
    target = View.of(output.shape).split(2, block).split(1, block)  # batch, y, block y, x, block x, channel
    source = View.of(given.shape).split(3, channels // block).split(4, channels // block**2)
    return _moved(site, given, output, source.order((0, 1, 3, 2, 4, 5)), target)


def space_to_depth(site: Site) -> Step | Alias:
    """SPACE_TO_DEPTH: blocks of pixels become blocks of channels."""
    given, output = _operands(site)
    block = _block(site, given, output)
    batches, height, width, channels = given.shape
    if height % block or width % block:
        refuse(site, f"its block {block} does not divide {height}×{width}", "export the model again")
    _expect(site, output, (batches, height // block, width // block, channels * block**2))
    source = View.of(given.shape).split(2, block).split(1, block)
    target = View.of(output.shape).split(3, channels * block).split(4, channels)
    return _moved(site, given, output, source, target.order((0, 1, 3, 2, 4, 5)))


def broadcast_to(site: Site) -> Step | Alias:
    """BROADCAST_TO: axes of length one repeated."""
    given, output = _operands(site)
    _expect(site, output, _numbers(site, 1, "shape"))
    missing = len(output.shape) - len(given.shape)
    if missing < 0 or any(
        length not in (1, wanted) for length, wanted in zip(given.shape, output.shape[missing:], strict=True)
    ):
        refuse(site, f"{given.shape} does not broadcast to {output.shape}", "export the model again")
    shape = (1,) * missing + given.shape
    whole = View.of(shape)
    steps = tuple(0 if length == 1 else step for length, step in zip(shape, whole.steps, strict=True))
    return _moved(site, given, output, View(0, output.shape, steps), View.of(output.shape))


def tile(site: Site) -> Step | Alias:
    """TILE: the input repeated along its axes."""
    given, output = _operands(site)
    repeats = _numbers(site, 1, "multiples")
    if len(repeats) != len(given.shape) or min(repeats, default=1) < 1:
        refuse(site, f"its multiples {repeats} do not fit {given.shape}", "export the model again")
    _expect(site, output, [length * count for length, count in zip(given.shape, repeats, strict=True)])
    source, target = View.of(given.shape), View.of(output.shape)
    for axis in reversed(range(len(given.shape))):
        target = target.split(axis, given.shape[axis])
    lengths = itertools.chain.from_iterable(zip(repeats, given.shape, strict=True))
    steps = itertools.chain.from_iterable((0, step) for step in source.steps)
    return _moved(site, given, output, View(0, tuple(lengths), tuple(steps)), target)


def pad(site: Site) -> Step:
    """PAD and PADV2: a border of one value; the zero point where none is given."""
    given, output = _operands(site)
    amounts = _amounts(site, given, output)
    stored = site.optional(2)
    value = output.zero_points[0] if output.scales else 0
    if stored is not None:
        _taking(site, stored, output)
        values = site.constant(2, "value")
        if values.size != 1:
            refuse(site, f"its value has the shape {stored.shape}", "export the model again")
        value = int(values.reshape(-1).view(np.int32 if stored.is_float else values.dtype)[0])
    target = View.of(output.shape)
    for axis, (before, _) in enumerate(amounts):
        target = target.part(axis, before, given.shape[axis])
    bits = 8 * _bytes(given)
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel=f"emb_pad_{bits}",
        source="emb_pad.c",
        structure="emb_pad_t",
        parameters={
            "move": _runs(site, given, output, View.of(given.shape), target),
            "bytes": output.size_bytes,
            "value": value,
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"{list(given.shape)} → {list(output.shape)}",
    )


def mirror_pad(site: Site) -> Step:
    """MIRROR_PAD: a border that mirrors the input, its edge once (REFLECT) or twice (SYMMETRIC)."""
    given, output = _operands(site)
    amounts = _amounts(site, given, output)
    mode = site.option("mode")
    if mode not in (0, 1):
        refuse(site, f"its mode {mode} is unknown", "use REFLECT or SYMMETRIC")
    axes = []
    for axis, (before, behind) in enumerate(amounts):
        length = given.shape[axis]
        if max(before, behind) > length - (1 - mode):
            refuse(site, f"it mirrors {max(before, behind)} of {length} along axis {axis}", "pad less")
        axes.append(np.pad(_indices(site, length), (before, behind), mode="symmetric" if mode else "reflect"))
    return _taken(site, given, output, axes)


def gather(site: Site) -> Step | Alias:
    """GATHER: elements of an axis by constant indices."""
    given, output = _operands(site)
    axis = _axis(site, [site.option("axis")], len(given.shape))
    indices = site.constant(1, "list of indices")
    if site.option("batchDims"):
        refuse(site, "its indices differ from batch to batch", "use one list of indices")
    if indices.dtype.kind not in "iu" or indices.size == 0:
        refuse(site, f"its indices are {indices.dtype} of shape {indices.shape}", "use int32 indices")
    wanted = indices.astype(np.int64).reshape(-1)
    if wanted.min() < 0 or wanted.max() >= given.shape[axis]:
        refuse(site, f"an index lies outside 0 … {given.shape[axis] - 1}", "export the model again")
    _expect(site, output, (*given.shape[:axis], *indices.shape, *given.shape[axis + 1 :]))
    steps = np.unique(np.diff(wanted))
    if len(steps) <= 1:
        step = int(steps[0]) if len(steps) else 1
        source = View.of(given.shape).part(axis, int(wanted[0]), len(wanted), step)
        return _moved(site, given, output, source, View.of(source.lengths))
    axes = [wanted if i == axis else _indices(site, length) for i, length in enumerate(given.shape)]
    return _taken(site, given, output, axes)


def _moved(site: Site, given: Tensor, output: Tensor, source: View, target: View) -> Step | Alias:
    """The move from the source's elements to the target's, both of the same lengths."""
    if source.lengths != target.lengths:
        refuse(site, f"it moves {source.lengths} into {target.lengths}", "export the model again")
    runs = _runs(site, given, output, source, target)
    if not given.is_constant and runs["run"] == given.size_bytes == output.size_bytes:
        return Alias(output.index, given.index)
    stored = Constant(given.array().reshape(-1), "table") if given.is_constant else None
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_move" if stored is None else "emb_move_table",
        source="emb_move.c",
        structure="emb_move_t" if stored is None else "emb_move_table_t",
        parameters=runs if stored is None else {"move": runs, "table": stored},
        inputs=() if stored is not None else (given.index,),
        outputs=(output.index,),
        comment=f"{list(given.shape)} → {list(output.shape)}",
    )


def _runs(site: Site, given: Tensor, output: Tensor, source: View, target: View) -> dict[str, Any]:
    """The fields of `emb_move_t`: neighbouring axes joined wherever they lie together on both sides."""
    size = _bytes(given)
    axes: list[list[int]] = []  # length, step of the source, step of the target
    for length, read, write in zip(source.lengths, source.steps, target.steps, strict=True):
        if length == 1:
            continue
        if axes and axes[-1][1] == read * length and axes[-1][2] == write * length:
            axes[-1] = [axes[-1][0] * length, read, write]
        else:
            axes.append([length, read, write])
    together = bool(axes) and axes[-1][1] == axes[-1][2] == 1
    run = axes.pop()[0] if together else 1
    if len(axes) > MOVE_AXES:
        refuse(site, f"it moves along {len(axes)} axes", f"split it into ops of {MOVE_AXES} axes")
    axes = [[1, 0, 0]] * (MOVE_AXES - len(axes)) + axes
    return {
        "run": run * size,
        "in_first": source.first * size,
        "out_first": target.first * size,
        "lengths": _braces(length for length, _, _ in axes),
        "in_steps": _braces(step * size for _, step, _ in axes),
        "out_steps": _braces(step * size for _, _, step in axes),
    }


def _taken(site: Site, given: Tensor, output: Tensor, axes: Sequence[np.ndarray[Any, Any]]) -> Step:
    """Output elements from the indices along each axis; axes that stay as they are are joined."""
    size = _bytes(given)
    joined: list[tuple[bool, np.ndarray[Any, Any]]] = []
    for indices, length, step in zip(axes, given.shape, View.of(given.shape).steps, strict=True):
        whole = len(indices) == length and bool((indices == np.arange(length)).all())
        offsets = indices.astype(np.int64) * step
        if joined and whole and joined[-1][0]:
            before = joined.pop()[1]
            site.lengths(table=len(before) * len(offsets))
            offsets = (before[:, np.newaxis] + offsets).reshape(-1)
        joined.append((whole, offsets))
    run = len(joined.pop()[1]) if joined[-1][0] else 1
    if len(joined) > TAKE_AXES:
        refuse(site, f"it takes from {len(joined)} axes", f"split it into ops of {TAKE_AXES} axes")
    tables = [np.zeros(1, np.int64)] * (TAKE_AXES - len(joined)) + [offsets for _, offsets in joined]
    return Step(
        op=site.op.index,
        layer=site.layer,
        kernel="emb_take",
        source="emb_take.c",
        structure="emb_take_t",
        parameters={
            "run": run * size,
            "lengths": _braces(len(offsets) for offsets in tables),
            **{f"offsets_{axis}": int_array(offsets * size, np.uint32, "table") for axis, offsets in enumerate(tables)},
        },
        inputs=(given.index,),
        outputs=(output.index,),
        comment=f"{list(given.shape)} → {list(output.shape)}",
    )


def _indices(site: Site, length: int) -> np.ndarray[Any, Any]:
    return np.arange(site.lengths(axis=length)["axis"])


def _parts(site: Site, given: Tensor, axis: int, sizes: Sequence[int]) -> tuple[Step, ...] | Alias:
    moves, begin = [], 0
    for position, size in enumerate(sizes):
        output = _taking(site, given, site.output(position))
        source = View.of(given.shape).part(axis, begin, size)
        _expect(site, output, source.lengths)
        moves.append(_moved(site, given, output, source, View.of(output.shape)))
        begin += size
    return _several(moves)


def _several(moves: Sequence[Step | Alias]) -> tuple[Step, ...] | Alias:
    """The moves in a row; one that moves nothing is the only one."""
    (first, *_) = moves
    return first if isinstance(first, Alias) else tuple(move for move in moves if isinstance(move, Step))


def _operands(site: Site) -> tuple[Tensor, Tensor]:
    given = _moving(site, site.activation_only(site.input(0), "input"))
    return given, _taking(site, given, site.output())


def _moving(site: Site, tensor: Tensor) -> Tensor:
    site.typed(tensor, "input", MOVED)
    if tensor.elements == 0 or tensor.size_bytes >= LARGEST:
        refuse(site, f"its shape {tensor.shape} is empty or too large", "export the model again")
    return tensor


def _taking(site: Site, given: Tensor, output: Tensor) -> Tensor:
    """The output, which must hold what the input holds."""
    _moving(site, output)
    if given.type != output.type:
        refuse(site, f"it turns {given.type} into {output.type}", "use CAST or QUANTIZE")
    if given.scales != output.scales or given.zero_points != output.zero_points:
        refuse(site, "its output has another scale than its input", "quantize the model again, or use QUANTIZE")
    if len(given.scales) > 1:
        refuse(site, "its input is quantized per channel", "quantize activations with one scale for the tensor")
    return output


def _numbers(site: Site, position: int, what: str) -> list[int]:
    """The whole numbers of a constant input, as a list."""
    values = site.constant(position, what)
    if values.dtype.kind not in "iu":
        refuse(site, f"its {what} is {values.dtype}", "export the model again")
    return [int(value) for value in values.reshape(-1)]


def _count(site: Site, option: str, found: int) -> int:
    """How many tensors there are, which the option must say as well."""
    if site.option(option) != found:
        refuse(site, f"it has {found} tensors where its options say {site.option(option)}", "export the model again")
    return found


def _axis(site: Site, values: Sequence[int], count: int) -> int:
    """An axis counted from the front."""
    if len(values) != 1 or not -count <= values[0] < count:
        refuse(site, f"its axis {list(values)} is none of {count}", "export the model again")
    return values[0] % count


def _amounts(site: Site, given: Tensor, output: Tensor) -> list[tuple[int, int]]:
    """Elements before and behind each axis."""
    numbers = _numbers(site, 1, "padding")
    if len(numbers) != 2 * len(given.shape) or min(numbers, default=0) < 0:
        refuse(site, f"its padding {numbers} does not fit {given.shape}", "export the model again")
    amounts = list(zip(numbers[0::2], numbers[1::2], strict=True))
    _expect(site, output, [sum(amount) + length for amount, length in zip(amounts, given.shape, strict=True)])
    return amounts


def _block(site: Site, given: Tensor, output: Tensor) -> int:
    block = site.option("blockSize")
    if block < 1 or len(given.shape) != 4 or len(output.shape) != 4:
        refuse(site, f"its block {block} does not fit {given.shape}", "export the model again")
    return int(block)


def _expect(site: Site, output: Tensor, shape: Sequence[int]) -> None:
    if tuple(shape) != output.shape:
        refuse(site, f"its output {output.shape} should be {tuple(shape)}", "export the model again")


def _bytes(tensor: Tensor) -> int:
    return np.dtype(NUMPY_TYPES[tensor.type]).itemsize


def _braces(numbers: Any) -> str:
    """An array inside a structure, as C writes it."""
    return f"{{{', '.join(str(int(number)) for number in numbers)}}}"


LOWERINGS: Mapping[str, Callable[[Site], Step | Alias | tuple[Step, ...]]] = {
    "BROADCAST_TO": broadcast_to,
    "CONCATENATION": concatenation,
    "DEPTH_TO_SPACE": depth_to_space,
    "GATHER": gather,
    "MIRROR_PAD": mirror_pad,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "REVERSE_V2": reverse_v2,
    "SLICE": slice_,
    "SPACE_TO_DEPTH": space_to_depth,
    "SPLIT": split,
    "SPLIT_V": split_v,
    "STRIDED_SLICE": strided_slice,
    "TILE": tile,
    "TRANSPOSE": transpose,
    "UNPACK": unpack,
}
