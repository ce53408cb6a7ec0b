"""Instructions per element of elementwise ops, pools, reductions and SOFTMAX on the emulated boards.

    python benchmarks/kernels_arithmetic.py [--board qemu-m4] [--optimise=-O3]

Random inputs; the compiled library is the one that a user gets. TFLM with CMSIS-NN takes 82 instructions for an element of ADD on
the M4 and 14 on the M55 (GCC 12.2, the same boards).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from embridge_edge.firmware_bridge.emulated import measure  # noqa: E402
from embridge_edge.firmware_bridge.graph import read_graph  # noqa: E402
from embridge_edge.firmware_bridge.passes import make_program  # noqa: E402
from embridge_edge.hardware.boards import find_board  # noqa: E402
from tests.firmware_bridge.single_op import Spec, constant, model_of, random_values  # noqa: E402

SHAPE = (32, 16, 16)


def _pairwise(op: str, table: str, second: tuple[int, ...] = SHAPE) -> bytes:
    given = [Spec(SHAPE, scale=0.1, zero=3), Spec(second, scale=0.3, zero=-5)]
    return model_of(op, given, [Spec(SHAPE, scale=0.3, zero=2)], (table, {}))


def _pool(op: str, shape: tuple[int, ...], window: tuple[int, int]) -> bytes:
    output = (1, shape[1] // window[0], shape[2] // window[1], shape[3])
    fields = {"padding": 1, "filterHeight": window[0], "filterWidth": window[1]}
    fields |= {"strideH": window[0], "strideW": window[1]}
    return model_of(op, [Spec(shape)], [Spec(output)], ("Pool2DOptions", fields))


def _mean(axis: int, output: tuple[int, ...]) -> bytes:
    return model_of("MEAN", [Spec((1, 125, 64)), constant([axis], np.int32)], [Spec(output)], ("ReducerOptions", {}))


def _softmax(shape: tuple[int, int]) -> bytes:
    output = Spec(shape, scale=1 / 256, zero=-128)
    return model_of("SOFTMAX", [Spec(shape, scale=0.1)], [output], ("SoftmaxOptions", {"beta": 1.0}))


MODELS: dict[str, bytes] = {
    "ADD of one shape": _pairwise("ADD", "AddOptions"),
    "ADD of a row of 16": _pairwise("ADD", "AddOptions", (16,)),
    "SUB of one shape": _pairwise("SUB", "SubOptions"),
    "SUB of one per row of 16": _pairwise("SUB", "SubOptions", (32, 16, 1)),
    "MUL of one shape": _pairwise("MUL", "MulOptions"),
    "MAXIMUM of one shape": model_of("MAXIMUM", [Spec(SHAPE), Spec(SHAPE)], [Spec(SHAPE)]),
    "SQUARED_DIFFERENCE": _pairwise("SQUARED_DIFFERENCE", "SquaredDifferenceOptions"),
    "LOGISTIC (a table)": model_of(
        "LOGISTIC", [Spec((1, 8192), scale=0.1)], [Spec((1, 8192), scale=1 / 256, zero=-128)]
    ),
    "AVERAGE_POOL_2D 25×5 of 64": _pool("AVERAGE_POOL_2D", (1, 25, 5, 64), (25, 5)),
    "AVERAGE_POOL_2D 2×2 of 16": _pool("AVERAGE_POOL_2D", (1, 24, 24, 16), (2, 2)),
    "MAX_POOL_2D 2×2 of 16": _pool("MAX_POOL_2D", (1, 24, 24, 16), (2, 2)),
    "MEAN over time": _mean(1, (1, 64)),
    "MEAN over channels": _mean(2, (1, 125)),
    "SOFTMAX of 12": _softmax((1, 12)),
    "SOFTMAX of 64 rows of 64": _softmax((64, 64)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", default="qemu-m4")
    parser.add_argument("--optimise", default="-O3")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print(f"{'instructions per element of the input':40s} {arguments.board} {arguments.optimise}")
    for name, content in MODELS.items():
        program = make_program(read_graph(content), "bench", "tflm", "rows")
        tensors = [program.graph.tensors[index] for index in program.graph.inputs]
        inputs = [random_values(rng, tensor.shape) for tensor in tensors]
        measured = measure(program, find_board(arguments.board), inputs, arguments.optimise)
        print(f"{name:40s} {measured.steps[0].instructions / tensors[0].elements:8.2f}")


if __name__ == "__main__":
    main()
