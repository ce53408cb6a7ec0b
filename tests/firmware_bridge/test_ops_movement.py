"""Ops that move values: every one gives the oracles' bits for every shape and option, and refuses a file that lies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.lowering.view import View
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import Alias, Profile, Step
from embridge_edge.firmware_bridge.verifying import seeded_inputs, verify_host
from tests.firmware_bridge.single_op import (
    WARNINGS,
    Spec,
    Values,
    assert_matches,
    by_kernels,
    constant,
    lowered,
    model_of,
    random_values,
)

EXAMPLES = settings(max_examples=25, derandomize=True, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)
BOTH: tuple[Profile, ...] = ("litert-ref", "tflm")
LITERT: tuple[Profile, ...] = ("litert-ref",)
TYPES = st.sampled_from(["int8", "int8", "int16"])


def shapes(least: int = 1, most: int = 4, length: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(1, length), min_size=least, max_size=most).map(tuple)


def _spec(shape: Sequence[int], kind: str = "int8", data: Values | None = None) -> Spec:
    return Spec(tuple(shape), kind, 0.25, 7 if kind == "int8" else 0, data=data)


def _values(rng: np.random.Generator, *specs: Spec) -> list[list[Values]]:
    return [[random_values(rng, spec.shape, np.dtype(spec.type).type) for spec in specs]]


@EXAMPLES
@given(SEEDS, shapes(), TYPES)
def test_slice(seed: int, shape: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(seed)
    begin = [int(rng.integers(0, length)) for length in shape]
    size = [int(rng.integers(1, length - first + 1)) for length, first in zip(shape, begin, strict=True)]
    given_size = [
        -1 if first + count == length and rng.random() < 0.5 else count
        for first, count, length in zip(begin, size, shape, strict=True)
    ]
    x = _spec(shape, kind)
    model = model_of("SLICE", [x, constant(begin), constant(given_size)], [_spec(size, kind)], ("SliceOptions", {}))
    assert_matches(model, _values(rng, x))


@EXAMPLES
@given(SEEDS, shapes(), TYPES)
def test_strided_slice(seed: int, shape: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(seed)
    begin, end, strides, masks, out = [], [], [], {"beginMask": 0, "endMask": 0, "shrinkAxisMask": 0}, []
    for axis, length in enumerate(shape):
        stride = int(rng.choice([-2, -1, 1, 1, 2, 3]))
        first, last = int(rng.integers(-length - 1, length + 2)), int(rng.integers(-length - 1, length + 2))
        if rng.random() < 0.25 and len(shape) - len(out) > 1:
            first, stride = int(rng.integers(-length, length)), 1
            masks["shrinkAxisMask"] |= 1 << axis
            taken = 0
        else:
            masked = [None if rng.random() < 0.3 else bound for bound in (first, last)]
            if not range(*slice(*masked, stride).indices(length)):
                masked = [None, None]
            masks["beginMask"] |= (masked[0] is None) << axis
            masks["endMask"] |= (masked[1] is None) << axis
            taken = len(range(*slice(*masked, stride).indices(length)))
            out.append(taken)
        begin.append(first)
        end.append(last)
        strides.append(stride)
    x = _spec(shape, kind)
    inputs = [x, constant(begin), constant(end), constant(strides)]
    model = model_of("STRIDED_SLICE", inputs, [_spec(out, kind)], ("StridedSliceOptions", masks))
    assert_matches(model, _values(rng, x))


def test_strided_slice_with_ellipsis_and_new_axis() -> None:
    x = _spec((3, 4, 5))
    inputs = [x, constant([0, 0, 1]), constant([0, 0, 4]), constant([1, 1, 2])]
    masks = {"ellipsisMask": 1, "newAxisMask": 2}
    model = model_of("STRIDED_SLICE", inputs, [_spec((3, 4, 1, 2))], ("StridedSliceOptions", masks))
    rng = np.random.default_rng(0)
    assert_matches(model, _values(rng, x), LITERT)  # TFLM has neither


@EXAMPLES
@given(SEEDS, shapes(length=4), st.integers(1, 4), st.booleans(), TYPES)
def test_split(seed: int, shape: tuple[int, ...], count: int, equal: bool, kind: str) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape), len(shape)))
    sizes = [2] * count if equal else [int(size) for size in rng.integers(1, 4, count)]
    outputs = []
    for size in sizes:
        part = list(shape)
        part[axis] = size
        outputs.append(_spec(part, kind))
    whole = list(shape)
    whole[axis] = sum(sizes)
    x = _spec(whole, kind)
    if equal:
        model = model_of("SPLIT", [constant(axis), x], outputs, ("SplitOptions", {"numSplits": count}))
    else:
        inputs = [x, constant(sizes), constant(axis)]
        model = model_of("SPLIT_V", inputs, outputs, ("SplitVOptions", {"numSplits": count}))
    assert_matches(model, _values(rng, x))


@EXAMPLES
@given(SEEDS, shapes(length=4), st.integers(1, 4), st.booleans(), TYPES)
def test_concatenation(seed: int, shape: tuple[int, ...], count: int, stored: bool, kind: str) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(0, len(shape)))
    inputs, lengths = [], 0
    for position in range(count):
        part = list(shape)
        part[axis] = int(rng.integers(1, 4))
        lengths += part[axis]
        data = random_values(rng, part, np.dtype(kind).type) if stored and position == 1 else None
        inputs.append(_spec(part, kind, data))
    whole = list(shape)
    whole[axis] = lengths
    options = {"axis": axis - len(shape) if rng.random() < 0.5 else axis}
    model = model_of("CONCATENATION", inputs, [_spec(whole, kind)], ("ConcatenationOptions", options))
    assert_matches(model, _values(rng, *(spec for spec in inputs if spec.data is None)))


@EXAMPLES
@given(SEEDS, shapes(most=3), st.integers(1, 4), TYPES)
def test_pack_and_unpack(seed: int, shape: tuple[int, ...], count: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(-len(shape) - 1, len(shape) + 1))
    whole = list(shape)
    whole.insert(axis % (len(shape) + 1), count)
    parts, joined = [_spec(shape, kind) for _ in range(count)], _spec(whole, kind)
    packed = model_of("PACK", parts, [joined], ("PackOptions", {"axis": axis, "valuesCount": count}))
    assert_matches(packed, _values(rng, *parts))
    parts = [_spec(shape, kind) for _ in range(count)]
    unpacked = model_of("UNPACK", [joined], parts, ("UnpackOptions", {"axis": axis, "num": count}))
    assert_matches(unpacked, _values(rng, joined))


@EXAMPLES
@given(SEEDS, shapes(most=5, length=4), TYPES)
def test_transpose(seed: int, shape: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(seed)
    order = [int(axis) for axis in rng.permutation(len(shape))]
    x = _spec(shape, kind)
    out = _spec([shape[axis] for axis in order], kind)
    model = model_of("TRANSPOSE", [x, constant(order)], [out], ("TransposeOptions", {}))
    assert_matches(model, _values(rng, x))


@EXAMPLES
@given(SEEDS, shapes(length=4), TYPES)
def test_pad(seed: int, shape: tuple[int, ...], kind: str) -> None:
    rng = np.random.default_rng(seed)
    amounts = rng.integers(0, 3, (len(shape), 2)) * (rng.random((len(shape), 1)) < 0.6)
    x = _spec(shape, kind)
    out = _spec([length + int(sum(amount)) for length, amount in zip(shape, amounts, strict=True)], kind)
    assert_matches(model_of("PAD", [x, constant(amounts)], [out], ("PadOptions", {})), _values(rng, x))
    value = _spec((1,), kind, random_values(rng, (1,), np.dtype(kind).type))
    model = model_of("PADV2", [x, constant(amounts), value], [out], ("PadV2Options", {}))
    assert_matches(model, _values(rng, x))


@EXAMPLES
@given(SEEDS, shapes(length=5), st.integers(0, 1))
def test_mirror_pad(seed: int, shape: tuple[int, ...], mode: int) -> None:
    rng = np.random.default_rng(seed)
    amounts = np.array([rng.integers(0, length - (1 - mode) + 1, 2) for length in shape])
    amounts *= rng.random((len(shape), 1)) < 0.6
    x = _spec(shape)
    out = _spec([length + int(sum(amount)) for length, amount in zip(shape, amounts, strict=True)])
    model = model_of("MIRROR_PAD", [x, constant(amounts)], [out], ("MirrorPadOptions", {"mode": mode}))
    assert_matches(model, _values(rng, x))


@EXAMPLES
@given(SEEDS, shapes(), shapes(0, 2, 4), TYPES, st.booleans())
def test_gather(seed: int, shape: tuple[int, ...], indexed: tuple[int, ...], kind: str, even: bool) -> None:
    rng = np.random.default_rng(seed)
    axis = int(rng.integers(0, len(shape)))
    indices = rng.integers(0, shape[axis], indexed).astype(np.int32)
    if even:  # constant steps need no table
        indices = np.arange(math.prod(indexed)).reshape(indexed) % shape[axis]
    x = _spec(shape, kind)
    out = _spec((*shape[:axis], *indexed, *shape[axis + 1 :]), kind)
    options = {"axis": axis - len(shape) if rng.random() < 0.5 else axis}
    model = model_of("GATHER", [x, constant(indices)], [out], ("GatherOptions", options))
    assert_matches(model, _values(rng, x), BOTH if kind == "int8" else LITERT)  # TFLM gathers int8 and float32


@EXAMPLES
@given(SEEDS, st.integers(1, 2), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_depth_to_space_and_back(seed: int, batches: int, height: int, width: int, depth: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    deep = _spec((batches, height, width, depth * block**2))
    flat = _spec((batches, height * block, width * block, depth))
    for op, x, out in (("DEPTH_TO_SPACE", deep, flat), ("SPACE_TO_DEPTH", flat, deep)):
        name = "".join(part.title() for part in op.split("_")) + "Options"
        assert_matches(model_of(op, [x], [out], (name, {"blockSize": block})), _values(rng, x))


@EXAMPLES
@given(SEEDS, shapes(most=3, length=3), st.integers(0, 2))  # TFLM broadcasts to five axes at most
def test_broadcast_to_and_tile(seed: int, shape: tuple[int, ...], missing: int) -> None:
    rng = np.random.default_rng(seed)
    repeats = [int(count) for count in rng.integers(1, 4, len(shape))]
    x = _spec(shape)
    out = _spec([length * count for length, count in zip(shape, repeats, strict=True)])
    model = model_of("TILE", [x, constant(repeats)], [out], ("TileOptions", {}))
    assert_matches(model, _values(rng, x), LITERT)  # TFLM has no TILE
    narrow = _spec([1 if rng.random() < 0.5 else length for length in shape])
    wide = [*(int(length) for length in rng.integers(1, 4, missing)), *shape]
    model = model_of("BROADCAST_TO", [narrow, constant(wide)], [_spec(wide)], version=2)
    assert_matches(model, _values(rng, narrow))


@EXAMPLES
@given(SEEDS, shapes())
def test_reverse_v2(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    x = _spec(shape)
    axis = int(rng.integers(0, len(shape)))
    model = model_of("REVERSE_V2", [x, constant([axis])], [_spec(shape)], ("ReverseV2Options", {}))
    assert_matches(model, _values(rng, x), LITERT)


@EXAMPLES
@given(SEEDS, shapes(most=4))
def test_reshape_moves_nothing(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    flat = (math.prod(shape),)
    x, options = _spec(shape), ("ReshapeOptions", {"newShape": list(flat)})
    model = model_of("RESHAPE", [x, constant(flat)], [_spec(flat)], options)
    assert [type(step) for step in lowered(model, "tflm")] == [Alias]
    assert_matches(model, _values(rng, x))


@pytest.mark.parametrize("kind", ["int32", "float32"])
def test_other_types_move_too(kind: str) -> None:
    x, out = Spec((2, 3, 4), kind, None), Spec((4, 2, 3), kind, None)
    values = np.random.default_rng(0).integers(-(2**31), 2**31 - 1, x.shape, np.int32).view(kind)
    model = model_of("TRANSPOSE", [x, constant([2, 0, 1])], [out], ("TransposeOptions", {}))
    ((found,),) = by_kernels(model, "litert-ref", [[values]])
    np.testing.assert_array_equal(found.view(np.int32), values.transpose(2, 0, 1).view(np.int32))


def test_rows_that_lie_together_are_one_copy() -> None:
    model = model_of(
        "SLICE", [_spec((4, 8, 3)), constant([1, 0, 0]), constant([2, 8, 3])], [_spec((2, 8, 3))], ("SliceOptions", {})
    )
    (step,) = lowered(model, "tflm")
    assert isinstance(step, Step)
    assert (step.parameters["run"], step.parameters["lengths"]) == (48, "{1, 1, 1, 1, 1}")


def test_axis_of_length_one_moves_nothing() -> None:
    model = model_of(
        "TRANSPOSE", [_spec((1, 6, 1, 3)), constant([1, 2, 0, 3])], [_spec((6, 1, 1, 3))], ("TransposeOptions", {})
    )
    assert lowered(model, "tflm") == (Alias(2, 0),)


@given(shapes(), st.data())
def test_view_is_what_numpy_would_take(shape: tuple[int, ...], data: st.DataObject) -> None:
    array = np.arange(math.prod(shape)).reshape(shape)
    view = View.of(shape)
    for axis, length in enumerate(shape):
        first = data.draw(st.integers(0, length - 1))
        view = view.part(axis, first, length - first)
        array = array[(slice(None),) * axis + (slice(first, None),)]
    order = data.draw(st.permutations(range(len(shape))))
    view, array = view.order(order), array.transpose(order)
    found = [
        view.first + sum(i * step for i, step in zip(index, view.steps, strict=True))
        for index in itertools.product(*map(range, view.lengths))
    ]
    assert found == array.reshape(-1).tolist()


def _concatenated(**changes: Any) -> bytes:
    return model_of(
        "CONCATENATION",
        [_spec((2, 3)), changes.get("second", _spec((2, 4)))],
        [changes.get("output", _spec((2, 7)))],
        ("ConcatenationOptions", {"axis": changes.get("axis", 1), "fusedActivationFunction": changes.get("fused", 0)}),
    )


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (_concatenated(output=_spec((2, 8))), "fill 7 of 8"),
        (_concatenated(output=_spec((2, 6))), "longer than 6"),
        (_concatenated(second=_spec((3, 4))), "should be"),
        (_concatenated(second=Spec((2, 4), scale=0.5, zero=7)), "another scale"),
        (_concatenated(second=Spec((2, 4), "int16", 0.25)), "it turns int16 into int8"),
        (_concatenated(axis=2), "none of 2"),
        (_concatenated(fused=1), "fused activation"),
        (
            model_of("SLICE", [_spec((4,)), constant([2]), constant([3])], [_spec((3,))], ("SliceOptions", {})),
            "takes 3",
        ),
        (
            model_of("SLICE", [_spec((4,)), constant([-1]), constant([2])], [_spec((2,))], ("SliceOptions", {})),
            "from -1",
        ),
        (
            model_of("TRANSPOSE", [_spec((2, 3)), constant([0, 0])], [_spec((2, 2))], ("TransposeOptions", {})),
            "is no order",
        ),
        (
            model_of(
                "TRANSPOSE", [_spec((2, 3)), Spec((2,), "int32", None)], [_spec((3, 2))], ("TransposeOptions", {})
            ),
            "computed at run time",
        ),
        (
            model_of("TRANSPOSE", [_spec((2, 3)), constant([1, 0])], [_spec((2, 3))], ("TransposeOptions", {})),
            "it moves",
        ),
        (model_of("GATHER", [_spec((4,)), constant([4])], [_spec((1,))], ("GatherOptions", {})), "outside 0 … 3"),
        (model_of("GATHER", [_spec((4,)), constant([-1])], [_spec((1,))], ("GatherOptions", {})), "outside 0 … 3"),
        (
            model_of("PAD", [_spec((4,)), constant([[1, -1]])], [_spec((4,))], ("PadOptions", {})),
            "does not fit",
        ),
        (
            model_of("MIRROR_PAD", [_spec((4,)), constant([[4, 0]])], [_spec((8,))], ("MirrorPadOptions", {"mode": 0})),
            "pad less",
        ),
        (
            model_of(
                "SPLIT", [constant(0), _spec((5,))], [_spec((2,)), _spec((2,))], ("SplitOptions", {"numSplits": 2})
            ),
            "does not divide",
        ),
    ],
)
def test_file_that_lies_is_refused(model: bytes, words: str) -> None:
    with pytest.raises(EdgeError, match=words):
        lowered(model, "tflm")


_STORED = _spec((2, 1), data=np.array([[1], [2]], np.int8))
_SEVERAL = {
    "concatenation": model_of(
        "CONCATENATION", [_spec((2, 3)), _spec((2, 4)), _STORED], [_spec((2, 8))], ("ConcatenationOptions", {"axis": 1})
    ),
    "split": model_of(
        "SPLIT", [constant(1), _spec((2, 6))], [_spec((2, 2)) for _ in range(3)], ("SplitOptions", {"numSplits": 3})
    ),
    "mirror_pad": model_of(
        "MIRROR_PAD", [_spec((2, 3)), constant([[1, 0], [0, 2]])], [_spec((3, 5))], ("MirrorPadOptions", {"mode": 0})
    ),
    "transpose": model_of(
        "TRANSPOSE", [_spec((2, 3, 4)), constant([2, 0, 1])], [_spec((4, 2, 3))], ("TransposeOptions", {})
    ),
}


@pytest.mark.parametrize("name", _SEVERAL)
@pytest.mark.parametrize("profile", BOTH)
def test_generated_library_moves_as_the_oracle_does(name: str, profile: Profile) -> None:
    content = _SEVERAL[name]
    graph = read_graph(content)
    program = make_program(graph, "net", profile, "rows")
    found, _ = verify_host(program, content, list(seeded_inputs(graph, 5)), flags=WARNINGS)
    assert found.ok
    assert found.tensors_checked == 5 * len(graph.outputs)
