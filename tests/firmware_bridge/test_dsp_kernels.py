"""The kernels of Cortex-M4, M7 and M33 give the bits of the portable ones, which give those of their definition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embridge_edge.hardware.boards import BOARDS
from tests.firmware_bridge.dsp_cases import (
    KINDS,
    Array,
    Case,
    Outcome,
    build_for,
    build_here,
    draw_case,
    run_here,
    run_on,
)
from tests.tools import QEMU, needs

SEED = 20240229
CASES = 450


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    rng = np.random.default_rng(SEED)
    return [draw_case(rng, KINDS[number % len(KINDS)]) for number in range(CASES)]


@pytest.fixture(scope="module")
def portable(cases: Sequence[Case], tmp_path_factory: pytest.TempPathFactory) -> list[Outcome]:
    needs("gcc")
    return run_here(build_here(tmp_path_factory.mktemp("here")), cases)


def assert_same(cases: Sequence[Case], found: Sequence[Outcome], expected: Sequence[Array]) -> None:
    for case, outcome, values in zip(cases, found, expected, strict=True):
        assert not outcome.damaged, f"wrote outside of its memory: {case}"
        wrong = np.flatnonzero(outcome.output != values)
        assert not wrong.size, f"{wrong.size} of {values.size} differ, first at {wrong[0]}: {case}"


@pytest.mark.parametrize(
    ("board", "optimise"),
    [
        ("qemu-m4", "-O3"),
        *(pytest.param(board, "-O3", marks=pytest.mark.slow) for board in ("qemu-m7", "qemu-m33")),
        *(pytest.param(board, "-Os", marks=pytest.mark.slow) for board in ("qemu-m4", "qemu-m7", "qemu-m33")),
    ],
)
def test_cores_equal_the_portable_kernels(
    board: str, optimise: str, cases: list[Case], portable: list[Outcome], tmp_path: Path
) -> None:
    needs(*QEMU)
    found = run_on(BOARDS[board], build_for(BOARDS[board], tmp_path, optimise), cases)
    assert_same(cases, found, [outcome.output for outcome in portable])


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-O0",), ("-O2", "-fno-omit-frame-pointer"), ("-O2", "-fPIC")])
def test_assembler_leaves_the_compiler_its_registers(
    flags: tuple[str, ...], cases: list[Case], portable: list[Outcome], tmp_path: Path
) -> None:
    needs(*QEMU)
    board = BOARDS["qemu-m4"]
    found = run_on(board, build_for(board, tmp_path, flags[0], extra_flags=flags[1:]), cases)
    assert_same(cases, found, [outcome.output for outcome in portable])


def test_portable_kernels_equal_their_definition(cases: list[Case], portable: list[Outcome]) -> None:
    assert_same(cases, portable, [defined(case) for case in cases])


def test_cases_reach_what_they_are_for(cases: list[Case]) -> None:
    outputs = [defined(case) for case in cases]
    assert sum(len(np.unique(values)) > 5 for values in outputs) > CASES / 3
    for kind in KINDS:
        mine = [case for case in cases if case.kind == kind]
        assert {case.in_place for case in mine} == ({False} if kind == "conv" else {False, True})
        assert {case.positions % 3 for case in mine} == {0, 1, 2}
        assert {case.weights.shape[1] % 4 for case in mine} == {0, 1, 2, 3}
        assert {len(case.bias) % 2 for case in mine} == {0, 1}
        assert any((case.weights == -128).any() and (case.inputs == -128).all() for case in mine)
        assert min(case.shift.min() for case in mine) == -31
    assert any(case.once for case in cases)


@pytest.mark.slow
def test_a_product_takes_less_than_an_instruction_per_multiplication(tmp_path: Path) -> None:
    needs(*QEMU)
    board = BOARDS["qemu-m4"]
    case = draw_case(np.random.default_rng(SEED), "pointwise", {"rows": 12, "in_c": 128, "out_c": 128})
    rows = Case(**{**vars(case), "once": False, "in_place": False, "least": -128, "most": 127})
    fast, slow = (
        run_on(board, build_for(board, tmp_path / name, defines=defines), [rows], count=True)[0].instructions
        for name, defines in {"dsp": (), "portable": ("EMB_PORTABLE",)}.items()
    )
    assert fast < 0.9 * rows.macs
    assert slow > 3 * fast


@given(
    st.integers(1 - 2**30, 2**30 - 1),
    st.integers(2**30, 2**31 - 1) | st.just(0),
    st.integers(-31, -1),
    st.integers(-128, 127),
    st.booleans(),
)
@example(2**30 - 1, 2**31 - 1, -1, 127, True)
@example(1 - 2**30, 2**31 - 1, -1, -128, False)
@example(-1, 2**30, -1, 0, False)
def test_short_requantization_equals_the_definition(
    accumulator: int, multiplier: int, shift: int, zero: int, once: bool
) -> None:
    high = (2 * accumulator * multiplier + (0 if once else 2**31)) >> 32
    assert -(2**31) <= high + (high >> 31) < 2**31
    high += 0 if once else high >> 31
    short = min(127, max(-128, ((high >> (-1 - shift)) + 2 * zero + 1) >> 1))
    assert short == min(127, max(-128, int(scaled(np.array([accumulator]), multiplier, shift, once)[0]) + zero))


def scaled(accumulators: Array, multiplier: int, shift: int, once: bool) -> Array:
    """accumulators × multiplier × 2^(shift − 31) for shift < 0, rounded once half up, or twice: half up, then half away from zero."""
    products = accumulators.astype(np.int64) * multiplier
    if once:
        return (products + (1 << (30 - shift))) >> (31 - shift)
    high = (products + (1 << 30)) >> 31
    return np.sign(high) * ((np.abs(high) + (1 << (-shift - 1))) >> -shift)


def defined(case: Case) -> Array:
    """The output, int8, from the definition of each op."""
    sums = patches(case).astype(np.int64)
    weights = case.weights.astype(np.int64)
    depth = case.shape.get("depth", 1)
    columns = []
    for channel, taps in enumerate(weights):
        inputs = sums[:, channel // depth] if case.kind == "depthwise" else sums
        total = inputs @ taps + int(case.bias[channel])
        values = scaled(total, int(case.multiplier[channel]), int(case.shift[channel]), case.once) + case.zero
        columns.append(np.clip(values, case.least, case.most).astype(np.int8))
    return np.stack(columns, axis=1).reshape(-1)


def patches(case: Case) -> Array:
    """What each output sees: int8 [positions, K], depthwise [positions, in_c, K]."""
    s = case.shape
    if case.kind == "pointwise":
        return case.inputs.reshape(s["rows"], s["in_c"])
    given = case.inputs.reshape(s["batches"], s["in_h"], s["in_w"], s["in_c"])
    span_h = (s["out_h"] - 1) * s["stride_h"] + (s["kernel_h"] - 1) * s["dilation_h"] + 1
    span_w = (s["out_w"] - 1) * s["stride_w"] + (s["kernel_w"] - 1) * s["dilation_w"] + 1
    field = np.full(
        (s["batches"], s["pad_top"] + max(span_h, s["in_h"]), s["pad_left"] + max(span_w, s["in_w"]), s["in_c"]),
        case.in_zero,
        np.int8,
    )
    field[:, s["pad_top"] : s["pad_top"] + s["in_h"], s["pad_left"] : s["pad_left"] + s["in_w"]] = given
    at_y = np.arange(s["out_h"])[:, None] * s["stride_h"] + np.arange(s["kernel_h"]) * s["dilation_h"]
    at_x = np.arange(s["out_w"])[:, None] * s["stride_w"] + np.arange(s["kernel_w"]) * s["dilation_w"]
    seen = field[:, at_y][:, :, :, at_x]  # batch, out_h, kernel_h, out_w, kernel_w, in_c
    if case.kind == "conv":
        return seen.transpose(0, 1, 3, 2, 4, 5).reshape(case.positions, -1)
    return seen.transpose(0, 1, 3, 5, 2, 4).reshape(case.positions, s["in_c"], -1)
