"""Convolutions as values: run on an emulated Cortex-M55, on this machine, and by their definition.

`mve_cases.c` reads cases as `Case.packed` writes them, and runs each twice: with the input and with the weights where memory
ends, so that whoever reads behind them faults. Scratch and output stand between bytes that must not change.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge.graph import Graph, Op
from embridge_edge.firmware_bridge.host_build import compile_shared, load_shared
from embridge_edge.firmware_bridge.lowering import workspace
from embridge_edge.hardware.boards import BOARDS, WARNINGS, Built, build, instructions, run

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Kernel = Literal["pointwise", "conv", "depthwise"]

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "firmware_bridge" / "kernels"
FILES = ("rows", "pointwise_rows", "conv_rows", "depthwise_rows", "depthwise_patches")
SOURCES = tuple(KERNELS / f"emb_{name}.c" for name in FILES)
PROGRAM = Path(__file__).with_name("mve_cases.c")
BOARD = BOARDS["qemu-m55"]
ICOUNT_SHIFT = 8
BUFFER_BYTES = 2 << 20
DEPTHWISE_FIELDS = (
    "in_h", "in_w", "in_c", "out_h", "out_w", "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w",
)  # fmt: skip
"""Of the kernel's structure, as `Shape` calls them too."""


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a kernel's structure says; for "pointwise" in_h × in_w is the number of rows."""

    kernel: Kernel
    in_h: int
    in_w: int
    in_c: int
    out_c: int
    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Top, bottom, left, right."""
    groups: int = 1
    batches: int = 1
    once: bool = False

    @property
    def out_h(self) -> int:
        return (self.in_h + sum(self.pads[:2]) - (self.kernel_h - 1) * self.dilation_h - 1) // self.stride_h + 1

    @property
    def out_w(self) -> int:
        return (self.in_w + sum(self.pads[2:]) - (self.kernel_w - 1) * self.dilation_w - 1) // self.stride_w + 1

    @property
    def input(self) -> tuple[int, int, int, int]:
        return self.batches, self.in_h, self.in_w, self.in_c

    @property
    def output(self) -> tuple[int, int, int, int]:
        return self.batches, self.out_h, self.out_w, self.out_c

    @property
    def weights(self) -> tuple[int, ...]:
        if self.kernel == "depthwise":
            return self.kernel_h, self.kernel_w, self.out_c
        return self.out_c, self.kernel_h, self.kernel_w, self.in_c // self.groups

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those with padding included."""
        return int(np.prod(self.output)) * self.taps

    @property
    def taps(self) -> int:
        """Products of an output."""
        return int(np.prod(self.weights)) // self.out_c

    def least_scratch(self, in_place: bool = False) -> int:
        """Bytes without which a kernel does not run."""
        if self.kernel == "pointwise":
            return self.in_c if in_place else 0
        return self.in_c if self.kernel == "depthwise" else self.taps

    def given_scratch(self, in_place: bool = False) -> int:
        """Bytes that the generator gives it on a core with vectors."""
        if self.kernel == "pointwise":
            rows = self.batches * self.in_h * self.in_w
            return workspace.pointwise(rows, self.in_c, self.out_c, in_place=in_place, once=self.once)
        if self.kernel == "conv":
            return workspace.convolution(self.taps, self.out_h * self.out_w)
        shape = {name: getattr(self, name) for name in DEPTHWISE_FIELDS}
        pads = {"pad_top": self.pads[0], "pad_left": self.pads[2]}
        return workspace.depthwise({**shape, **pads, "depth": self.out_c // self.in_c})


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A shape with everything else that decides its output.

    Attributes:
        given: int8 input `[batches, in_h, in_w, in_c]`; what lies around it is `in_zero`.
        weights: int8, as the shape says.
        bias, multiplier, shift: per output channel.
        scratch_bytes: what the kernel is given.
        says_scratch: what `scratch_bytes` of its structure says.
        in_place: whether the output takes the input's memory.
    """

    shape: Shape
    given: Int8
    weights: Int8
    bias: Int32
    multiplier: Int32
    shift: Int8
    zero: int
    least: int
    most: int
    in_zero: int
    scratch_bytes: int
    says_scratch: int
    in_place: bool = False

    def packed(self) -> bytes:
        """As `case_t` and its tables."""
        s = self.shape
        tables = b"".join(a.tobytes() for a in (self.bias, self.multiplier, self.shift, self.weights, self.given))
        tables += bytes(-len(tables) % 8)
        words = [
            ("pointwise", "conv", "depthwise").index(s.kernel), self.given.nbytes, int(np.prod(s.output)),
            self.scratch_bytes, self.says_scratch, int(self.in_place),
            s.out_c, self.weights.nbytes, self.zero, self.least, self.most, int(s.once),
            s.batches * s.in_h * s.in_w, s.batches, s.in_h, s.in_w, s.in_c, s.out_h, s.out_w, s.out_c,
            s.kernel_h, s.kernel_w, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w, s.pads[0], s.pads[2], s.groups,
            s.out_c // s.in_c if s.kernel == "depthwise" else 1, self.in_zero,
        ]  # fmt: skip
        size = 4 * (len(words) + 1) + len(tables)
        return np.array([size, *words], "<i4").tobytes() + tables


def defined(case: Case) -> Int8:
    """The output by the definition of the op and of TFLite's requantization, in Python's whole numbers."""
    s = case.shape
    top, bottom, left, right = s.pads
    padded = np.pad(
        case.given.astype(np.int64), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=case.in_zero
    )
    sums = np.zeros(s.output, np.int64) + case.bias
    for ky in range(s.kernel_h):
        for kx in range(s.kernel_w):
            y, x = ky * s.dilation_h, kx * s.dilation_w
            rows = slice(y, y + (s.out_h - 1) * s.stride_h + 1, s.stride_h)
            columns = slice(x, x + (s.out_w - 1) * s.stride_w + 1, s.stride_w)
            seen = padded[:, rows, columns]
            if s.kernel == "depthwise":
                sums += np.repeat(seen, s.out_c // s.in_c, axis=3) * case.weights[ky, kx]
            else:
                for group, part in enumerate(np.split(seen, s.groups, axis=3)):
                    channels = slice(group * s.out_c // s.groups, (group + 1) * s.out_c // s.groups)
                    sums[..., channels] += part @ case.weights[channels, ky, kx].astype(np.int64).T
    assert np.abs(sums).max() < 1 << 31
    scaled = _scaled_once(sums, case) if s.once else _scaled_twice(sums, case)
    return np.clip(scaled + case.zero, case.least, case.most).astype(np.int8)


def _scaled_once(sums: npt.NDArray[np.int64], case: Case) -> npt.NDArray[np.int64]:
    total = 31 - case.shift.astype(np.int64)
    return (sums * case.multiplier + (np.int64(1) << (total - 1))) >> total


def _scaled_twice(sums: npt.NDArray[np.int64], case: Case) -> npt.NDArray[np.int64]:
    shift = case.shift.astype(np.int64)
    left = (sums << np.maximum(shift, 0)).astype(np.int32).astype(np.int64)
    high = (left * case.multiplier + (1 << 30)) >> 31
    right = np.maximum(-shift, 0)
    half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
    return np.sign(high) * ((np.abs(high) + half) >> right)


def compiled_for_host(folder: Path, *flags: str) -> ctypes.CDLL:
    """The portable kernels and `run_case` as a shared library."""
    path = folder / "cases.so"
    compile_shared([*SOURCES, PROGRAM], path, includes=[KERNELS], flags=("-O2", *flags))
    return load_shared(path)


def on_host(library: ctypes.CDLL, case: Case) -> Int8:
    """The output of the portable kernels."""
    packed = case.packed()
    given = ctypes.create_string_buffer(case.given.nbytes)
    output = given if case.in_place else ctypes.create_string_buffer(int(np.prod(case.shape.output)))
    scratch = ctypes.create_string_buffer(case.scratch_bytes) if case.scratch_bytes else None
    library.run_case(packed, given, output, scratch)
    size = int(np.prod(case.shape.output))
    return np.frombuffer(output.raw[:size], np.int8).reshape(case.shape.output)


def compiled_for_board(folder: Path, optimise: str = "-O2", defines: Sequence[str] = ()) -> Built:
    """The MVE kernels and the program that runs cases."""
    end = BOARD.ram.end
    return build(
        BOARD, [*SOURCES, PROGRAM], folder=folder, includes=[KERNELS], optimise=optimise, extra_flags=WARNINGS,
        defines=["ON_BOARD", f"BUFFER_BYTES={BUFFER_BYTES}", f"RAM_END_ADDRESS={end:#x}u", *defines],
    )  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
    """What the board did with a case: outputs with the input, then with the weights at the end of memory."""

    outputs: tuple[Int8, Int8]
    instructions: int


def on_board(built: Built, cases: Sequence[Case]) -> list[Measured]:
    """All cases in one run, each twice."""
    blob = b"".join(case.packed() for case in cases) + bytes(8)
    done = run(built.elf, BOARD, data={BOARD.input.origin: blob}, icount_shift=ICOUNT_SHIFT, timeout_s=300)
    assert done.exit_status == 0, done.text
    at, measured = 0, []
    for case in cases:
        size, outputs, ticks = int(np.prod(case.shape.output)), [], []
        for _ in range(2):
            ticks.append(int.from_bytes(done.output[at : at + 4], "little"))
            outputs.append(np.frombuffer(done.output, np.int8, size, at + 4).reshape(case.shape.output))
            at += 4 + size
        measured.append(Measured((outputs[0], outputs[1]), instructions(ticks[0], BOARD, ICOUNT_SHIFT)))
    return measured


def draw_shape(rng: np.random.Generator, kernel: Kernel) -> Shape:
    """A small shape of any kind."""

    def some(*choices: int) -> int:
        return int(rng.choice(choices))

    in_h, in_w = some(1, 2, 3, 5, 8, 13), some(1, 2, 3, 4, 7, 12)
    if kernel == "pointwise":
        in_c = int(rng.integers(1, 70))
        return Shape(kernel, in_h, in_w, in_c, int(rng.integers(1, 34)), once=bool(rng.random() < 0.25))
    if rng.random() < 0.3:  # a column or a row: over time
        in_h, in_w = (some(4, 9, 17, 30), 1) if rng.random() < 0.5 else (1, some(4, 9, 17, 30))
    kernel_h = 1 if in_h == 1 else some(1, 2, 3, 4, 5)
    kernel_w = 1 if in_w == 1 else some(1, 2, 3, 3, 5)
    if 1 in (in_h, in_w) and rng.random() < 0.3:  # a kernel of up to sixteen taps
        kernel_h, kernel_w = (1 if in_h == 1 else some(7, 10, 15)), (1 if in_w == 1 else some(7, 10, 15))
    dilation_h, dilation_w = some(1, 1, 2), some(1, 1, 3)
    reach_h, reach_w = (kernel_h - 1) * dilation_h + 1, (kernel_w - 1) * dilation_w + 1
    pads = [0, 0, 0, 0]
    if rng.random() < 0.6:
        pads = [int(rng.integers(0, reach)) for reach in (reach_h, reach_h, reach_w, reach_w)]
    pads[1] += max(0, reach_h - in_h - pads[0] - pads[1])
    pads[3] += max(0, reach_w - in_w - pads[2] - pads[3])
    groups = some(1, 1, 1, 2, 3) if kernel == "conv" else 1
    in_c = groups * some(1, 2, 3, 5, 8, 16, 20) if kernel == "conv" else some(1, 3, 4, 15, 16, 20, 33)
    out_c = groups * some(1, 3, 4, 6, 8, 13) if kernel == "conv" else in_c * some(1, 1, 1, 2, 3)
    return Shape(
        kernel, in_h, in_w, in_c, out_c, kernel_h, kernel_w, some(1, 1, 2, 3), some(1, 1, 2, 3), dilation_h, dilation_w,
        (pads[0], pads[1], pads[2], pads[3]), groups, some(1, 1, 2),
    )  # fmt: skip


def draw_case(rng: np.random.Generator, shape: Shape, *, usual: bool = False) -> Case:
    """Everything else at random, extremes among it.

    Args:
        usual: as in a layer of a model: ReLU, shifts to the right, the generator's scratch.
    """

    largest = 127 if usual else int(rng.choice([127, 127, 127, 2]))

    def values(size: tuple[int, ...]) -> Int8:
        extreme = None if usual else rng.choice([None, None, None, -128, 127])
        drawn = rng.integers(-largest - 1, largest + 1, size, np.int8)
        return drawn if extreme is None or largest < 127 else np.full(size, extreme, np.int8)

    channels = shape.out_c
    limit = shape.taps * largest * 16
    bias = rng.integers(-limit, limit + 1, channels).astype(np.int32)
    multiplier = rng.integers(1 << 30, 1 << 31, channels).astype(np.int32)
    if not usual and rng.random() < 0.3:  # halves, which are where ways to round differ
        multiplier[:] = 1 << 30
    # Outputs of all sizes: the sums have about this many bits more than the output.
    bits = max(int(np.log2(shape.taps**0.5 * largest**2 / 3)) - 6, 2)
    shift = (rng.integers(-1, 3, channels) - bits).astype(np.int8)
    zero = -128 if usual else int(rng.choice([-128, -7, 0, 5, 127]))
    least, most = -128, 127
    if not usual:
        if rng.random() < 0.15:
            shift[rng.integers(channels, size=3)] = rng.choice([0, 0, 1, 2])
        if rng.random() < 0.1:
            multiplier[rng.integers(channels)], shift[rng.integers(channels)] = 0, 0
        if rng.random() < 0.1:
            shift[rng.integers(channels)] = -31
        least = int(rng.choice([-128, zero, max(zero - 20, -128)]))
        most = int(rng.choice([127, min(zero + 50, 127)]))
    in_place = not usual and shape.kernel == "pointwise" and channels <= shape.in_c and bool(rng.random() < 0.4)
    least_scratch, scratch = shape.least_scratch(in_place), shape.given_scratch(in_place)
    if not usual and rng.random() < 0.5:  # less, and more than the generator ever gives: a kernel takes what there is
        scratch = int(rng.integers(least_scratch, 2 * max(least_scratch, scratch) + 1))
    says_nothing = scratch == least_scratch and rng.random() < 0.5
    return Case(
        shape, values(shape.input), values(shape.weights), bias, multiplier, shift, zero, least, max(most, least),
        int(rng.integers(-128, 128)), scratch, 0 if says_nothing else scratch, in_place,
    )  # fmt: skip


def layers(graph: Graph) -> Iterator[tuple[Shape, bool]]:
    """The products and convolutions of a model, as the generator lowers them, and whether they have a ReLU."""
    for op in graph.ops:
        if op.macs:
            yield _layer(graph, op), op.options["fusedActivationFunction"] == 1


def _layer(graph: Graph, op: Op) -> Shape:
    given, weights, out = (graph.tensors[index].shape for index in (*op.inputs[:2], op.outputs[0]))
    if op.name == "FULLY_CONNECTED":
        return Shape("pointwise", 1, given[0], given[1], weights[0], once=True)
    kernel, stride = weights[1:3], (op.options["strideH"], op.options["strideW"])
    pads = [0, 0, 0, 0]
    if op.options["padding"] == 0:
        for axis in range(2):
            total = max((out[1 + axis] - 1) * stride[axis] + kernel[axis] - given[1 + axis], 0)
            pads[2 * axis : 2 * axis + 2] = total // 2, total - total // 2
    margins = (pads[0], pads[1], pads[2], pads[3])
    if op.name == "DEPTHWISE_CONV_2D" and given[2] == out[2] == kernel[1] == 1:  # a column lies down
        return Shape("depthwise", 1, given[1], given[3], out[3], 1, kernel[0], 1, stride[0], pads=(0, 0, *margins[:2]))
    if op.name == "DEPTHWISE_CONV_2D":
        return Shape("depthwise", *given[1:], out[3], *kernel, *stride, pads=margins)
    name: Kernel = "pointwise" if (*kernel, *stride) == (1, 1, 1, 1) else "conv"
    return Shape(name, *given[1:], out[3], *kernel, *stride, pads=margins)
