"""The kernels of the Cortex-M55 give the bits of the portable ones, and these follow the definition of their ops."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.hardware.boards import Built
from tests.firmware_bridge.mve_cases import (
    SOURCES,
    Case,
    Shape,
    compiled_for_board,
    compiled_for_host,
    defined,
    draw_case,
    draw_shape,
    layers,
    on_board,
    on_host,
)
from tests.tools import ARM, QEMU, needs

SEED = 5
CASES = 600
MARGINS = (1, 1, 1, 1)
WITH_ANY_SCRATCH = (
    Shape("depthwise", 9, 10, 33, 33, 3, 3, pads=MARGINS),
    Shape("depthwise", 12, 11, 17, 34, 3, 3, 2, 2, pads=MARGINS),
    Shape("conv", 9, 10, 3, 9, 3, 3, pads=MARGINS),
    Shape("conv", 1, 40, 7, 12, 1, 5, 1, 2, pads=(0, 0, 2, 2)),
)
"""Shapes that are run with several sizes of scratch, from the least to twice what the generator gives."""


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    rng = np.random.default_rng(SEED)
    kernels = ("pointwise", "conv", "depthwise")
    drawn = [draw_case(rng, draw_shape(rng, kernels[number % 3])) for number in range(CASES)]
    for shape in WITH_ANY_SCRATCH:
        sizes = np.linspace(shape.least_scratch(), 2 * shape.given_scratch(), 12).astype(int)
        drawn += [_with_scratch(draw_case(rng, shape), int(size)) for size in sizes]
    return drawn


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    needs(*ARM)
    return compiled_for_board(tmp_path_factory.mktemp("board"))


def assert_equal(case: Case, found: np.ndarray, what: str) -> None:
    wrong = np.argwhere(found != defined(case))
    assert not len(wrong), f"{what}: {len(wrong)} of {found.size} differ, first at {wrong[0]}: {case}"


def test_portable_kernels_follow_the_definition(cases: list[Case], tmp_path: Path) -> None:
    needs("cc")
    library = compiled_for_host(tmp_path, "-fsanitize=undefined", "-fno-sanitize-recover")
    for case in cases:
        assert_equal(case, on_host(library, case), "portable")


@pytest.mark.slow
@pytest.mark.parametrize("optimise", ["-O0", "-Os", "-O2", "-O3"])
def test_vector_kernels_follow_the_definition_and_stay_inside_their_memory(
    optimise: str, cases: list[Case], tmp_path: Path
) -> None:
    needs(*QEMU)
    for case, measured in zip(cases, on_board(compiled_for_board(tmp_path, optimise), cases), strict=True):
        for found, what in zip(measured.outputs, ("input last in memory", "weights last in memory"), strict=True):
            assert_equal(case, found, what)


def test_vector_kernels_call_nothing_but_memcpy_and_memset(built: Built) -> None:
    needs("arm-none-eabi-nm")
    objects = [str(path) for path in built.objects[: len(SOURCES)]]
    listing = subprocess.run(["arm-none-eabi-nm", *objects], capture_output=True, text=True, check=True).stdout
    symbols = [line.split()[-2:] for line in listing.splitlines() if len(line.split()) >= 2]
    missing = {name for kind, name in symbols if kind == "U"}
    made = {name for kind, name in symbols if kind == "T"}
    assert missing - made <= {"memcpy", "memset"}
    kernels = {f"emb_{name}_s8" for name in ("rows", "pointwise_rows", "conv_rows", "depthwise_rows")}
    assert made == kernels | {"emb_depthwise_patches"}
    assert not [name for kind, name in symbols if kind in "bBdDC"], "only constants may be static"


@pytest.mark.parametrize(
    ("shape", "scratch", "most"),
    [
        # Instructions per multiply-accumulate; measured .189, .169, 1.109, .874, .349 (docs/kernels-m55.md).
        (Shape("pointwise", 25, 5, 64, 64), None, 0.20),
        (Shape("pointwise", 1, 1, 640, 128, once=True), None, 0.18),
        (Shape("depthwise", 25, 5, 64, 64, 3, 3, pads=MARGINS), None, 1.15),
        (Shape("depthwise", 25, 5, 64, 64, 3, 3, pads=MARGINS), 3968, 0.95),  # two strips of long lines
        (Shape("conv", 49, 10, 1, 64, 10, 4, 2, 2, pads=(4, 5, 1, 1)), None, 0.39),
    ],
)
def test_layers_take_no_more_instructions_than_documented(
    shape: Shape, scratch: int | None, most: float, built: Built
) -> None:
    needs("qemu-system-arm")
    case = draw_case(np.random.default_rng(SEED), shape, usual=True)
    (measured,) = on_board(built, [case if scratch is None else _with_scratch(case, scratch)])
    assert measured.instructions / shape.macs <= most


def test_more_scratch_costs_fewer_instructions(built: Built) -> None:
    needs("qemu-system-arm")
    rng = np.random.default_rng(SEED)
    fast, slow = [], []
    for kernel, size in (("pointwise", 1), ("conv", 3), ("depthwise", 3)):
        shape = Shape(kernel, 9, 8, 16, 16, size, size)  # type: ignore[arg-type]
        fast.append(draw_case(rng, shape, usual=True))
        slow.append(_with_scratch(fast[-1], shape.least_scratch()))
    measured = [outcome.instructions for outcome in on_board(built, [*fast, *slow])]
    assert all(few < many for few, many in zip(measured[:3], measured[3:], strict=True)), measured


def _with_scratch(case: Case, size: int) -> Case:
    return dataclasses.replace(case, scratch_bytes=size, says_scratch=size)


def test_models_are_made_of_layers_that_the_benchmark_knows(models: Path) -> None:
    for path in sorted(models.glob("*.tflite")):
        graph = read_graph(path)
        assert sum(shape.macs for shape, _ in layers(graph)) == sum(op.macs for op in graph.ops)
