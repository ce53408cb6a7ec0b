"""Instructions per multiply-accumulate of the DSP kernels, for every convolution and dense layer of the MLPerf Tiny models.

    python benchmarks/kernels_m4.py models/ [--board qemu-m7] [--optimise=-Os]

Random weights and activations of each layer's shape run on an emulated board that counts instructions; they are no cycles.
Layers of the same shape are run once. Beside them stands what TensorFlow Lite Micro with CMSIS-NN takes for the whole model,
other ops included, so that the last column flatters by what those cost (a few per cent in these models).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embridge_edge.firmware_bridge.graph import Graph, read_graph
from embridge_edge.firmware_bridge.lowering.convolution import conv_2d, depthwise_conv_2d, fully_connected
from embridge_edge.firmware_bridge.lowering.site import Site
from embridge_edge.firmware_bridge.program import Step
from embridge_edge.hardware.boards import find_board, sizes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.firmware_bridge.dsp_cases import Case, build_for, draw_case, run_on

TFLM = {
    "qemu-m4": {
        "kws_ref_model": 7_699_734,
        "ad01_int8": 582_240,
        "vww_96_int8": 24_101_543,
        "str_ww_ref_model": 2_225_768,
    },
    "qemu-m7": {
        "kws_ref_model": 7_645_549,
        "ad01_int8": 582_541,
        "vww_96_int8": 24_025_158,
        "str_ww_ref_model": 2_187_085,
    },
}
"""Instructions per inference of TFLM with CMSIS-NN, the best of -O3, -O2 and -Os, GCC 12.2."""
LOWERINGS = {"CONV_2D": conv_2d, "DEPTHWISE_CONV_2D": depthwise_conv_2d, "FULLY_CONNECTED": fully_connected}
KINDS = {
    "emb_pointwise_pairs_s8": "pointwise",
    "emb_conv_pairs_s8": "conv",
    "emb_depthwise_planes_s8": "depthwise",
}
"""Kinds of cases by kernel; a layer that the generator leaves to another kernel ends the run with its name."""

Shape = tuple[str, tuple[tuple[str, int], ...]]
"""A kind of kernel and the numbers in its parameter structure."""


def layers(graph: Graph) -> list[Step]:
    """The model's convolutions and dense layers as calls of kernels."""
    sites = [Site(graph, op, "tflm", "pairs") for op in graph.ops if op.name in LOWERINGS]
    return [LOWERINGS[site.op.name](site) for site in sites]


def shape_of(step: Step) -> Shape:
    """What a case needs to know of a call."""
    numbers = {name: int(value) for name, value in step.parameters.items() if isinstance(value, int)}
    return KINDS[step.kernel], tuple(numbers.items())


def typical(shape: Shape) -> Case:
    """A case of this shape that rounds twice, clamps to int8 and does not work in place."""
    rng = np.random.default_rng(0)
    while True:
        case = draw_case(rng, shape[0], dict(shape[1]))
        if not case.once and not case.in_place and (case.least, case.most) == (-128, 127):
            return case


def label(shape: Shape) -> str:
    """The shape in a few characters."""
    kind, numbers = shape[0], dict(shape[1])
    if kind == "pointwise":
        return f"{kind} {numbers['rows']} rows, {numbers['in_c']} → {numbers['out_c']}"
    size = f"{numbers['in_h']}×{numbers['in_w']}×{numbers['in_c']}"
    out = numbers["in_c"] * numbers["depth"] if kind == "depthwise" else numbers["out_c"]
    window = f"{numbers['kernel_h']}×{numbers['kernel_w']}/{numbers['stride_h']}"
    return f"{kind} {window}, {size} → {numbers['out_h']}×{numbers['out_w']}×{out}"


def measure(shapes: Sequence[Shape], board_name: str, optimise: str) -> tuple[dict[Shape, int], dict[Shape, int]]:
    """Instructions and multiply-accumulates of each shape; prints what the kernels take in flash."""
    board = find_board(board_name)
    cases = [typical(shape) for shape in shapes]
    with tempfile.TemporaryDirectory() as folder:
        built = build_for(board, Path(folder), optimise)
        code = {made.stem.split("_", 1)[1]: text_bytes(made) for made in built.objects[1:]}
        print(f"{board_name} {optimise}: code {sum(code.values())} bytes", code)
        outcomes = run_on(board, built, cases, count=True)
    counted = {shape: outcome.instructions for shape, outcome in zip(shapes, outcomes, strict=True)}
    return counted, {shape: case.macs for shape, case in zip(shapes, cases, strict=True)}


def text_bytes(made: Path) -> int:
    """Code and constants in an object file."""
    return sizes(made).total(".text", ".rodata")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, help="folder of the MLPerf Tiny models")
    parser.add_argument("--board", default="qemu-m4", choices=["qemu-m4", "qemu-m7", "qemu-m33"])
    parser.add_argument("--optimise", default="-O3")
    arguments = parser.parse_args()
    models = {path.stem: layers(read_graph(path)) for path in sorted(arguments.models.glob("*.tflite"))}
    shapes = {model: Counter(shape_of(step) for step in steps) for model, steps in models.items()}
    counted, macs = measure(
        list(dict.fromkeys(shape for each in shapes.values() for shape in each)), arguments.board, arguments.optimise
    )
    shares = []
    for model, each in shapes.items():
        total, products = 0, 0
        kinds: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        print(f"\n{model}")
        for shape, times in each.items():
            print(f"  {times} × {label(shape):55} {counted[shape]:9,} {counted[shape] / macs[shape]:6.2f} per MAC")
            for sums in (kinds[shape[0]], kinds["total"]):
                sums[0] += times * counted[shape]
                sums[1] += times * macs[shape]
        total, products = kinds["total"]
        per_kind = ", ".join(f"{kind} {sums[0] / sums[1]:.2f} ({sums[0] / total:.0%})" for kind, sums in kinds.items())
        print(f"  per MAC: {per_kind}")
        print(f"  total {total:,} for {products:,} MACs", end="")
        if theirs := TFLM.get(arguments.board, {}).get(model):
            shares.append(total / theirs)
            print(f"; {total / theirs:.3f} of {theirs:,}", end="")
        print()
    if shares:
        print(f"\ngeometric mean {math.prod(shares) ** (1 / len(shares)):.3f}")


if __name__ == "__main__":
    main()
