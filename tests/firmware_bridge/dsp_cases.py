"""Cases for the convolution kernels: drawn at random, run in C on an emulated board or on this machine.

`dsp_cases.c` reads: the number of cases and padding (two words), then for each case `FIELDS` words (`Case.header`) and the
bias, multiplier, shift, weights and input, each padded to eight bytes. It writes ticks, damage (whether bytes behind the
output or the scratch changed) and the output of each case.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.firmware_bridge import packing
from embridge_edge.hardware.boards import WARNINGS, Board, Built, build, instructions, run

ROOT = Path(__file__).resolve().parent.parent.parent
KERNELS = ROOT / "firmware_bridge" / "kernels"
PROGRAM = Path(__file__).with_suffix(".c")
SOURCES = (
    PROGRAM,
    *(KERNELS / f"{name}.c" for name in ("emb_pairs", "emb_pointwise_pairs", "emb_conv_pairs", "emb_depthwise_planes")),
)
FIELDS = 34
KINDS = ("pointwise", "conv", "depthwise")
ORDER = (
    "batches", "in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "kernel_h", "kernel_w", "stride_h", "stride_w",
    "dilation_h", "dilation_w", "pad_top", "pad_left", "in_zero",
)  # fmt: skip
"""Fields of a convolution behind the first twelve words; a depthwise one has its depth in place of out_c."""
ICOUNT_SHIFT = 6
LARGEST_ACCUMULATOR = 1 << 30

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Case:
    """One call of a kernel.

    Attributes:
        kind: "pointwise", "conv" or "depthwise".
        shape: the numbers that the parameter structure holds: rows, in_c and out_c of a pointwise product; of a
            convolution `ORDER` without in_zero, with `depth` where it is depthwise.
        inputs: int8, flat.
        weights: int8 [out, K]; depthwise [channels, kernel_h × kernel_w].
        bias: int32 [out].
        multiplier, shift: int32 [out].
        zero, least, most, in_zero: zero points and the range of the output.
        once: round once.
        in_place: the output takes the input's memory.
    """

    kind: str
    shape: Mapping[str, int]
    inputs: Array
    weights: Array
    bias: Array
    multiplier: Array
    shift: Array
    zero: int = 0
    least: int = -128
    most: int = 127
    in_zero: int = 0
    once: bool = False
    in_place: bool = False

    @property
    def positions(self) -> int:
        """Outputs of each channel."""
        if self.kind == "pointwise":
            return self.shape["rows"]
        return self.shape["batches"] * self.shape["out_h"] * self.shape["out_w"]

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those with padding too."""
        return self.positions * self.weights.size

    @property
    def scratch_bytes(self) -> int:
        """What the header of the kernels asks for."""
        quads = -(-self.weights.shape[1] // 4) * 4
        if self.kind == "pointwise":
            return quads * (2 if self.shape["rows"] < 3 or self.once else 6)
        if self.kind == "conv":
            return 7 * quads
        s = self.shape
        plane_h = (s["out_h"] - 1) * s["stride_h"] + (s["kernel_h"] - 1) * s["dilation_h"] + 1
        plane_w = (s["out_w"] - 1) * s["stride_w"] + s["kernel_w"]
        return plane_h * plane_w + 8

    def header(self) -> Array:
        """int32 [FIELDS]: kind, zero, min, max, once, in place, sizes, and the shape."""
        head = [KINDS.index(self.kind), self.zero, self.least, self.most, self.once, self.in_place, len(self.bias)]
        head += [self.inputs.size, self.stored_weights().nbytes, self.positions * len(self.bias), self.scratch_bytes, 0]
        if self.kind == "pointwise":
            head += [self.shape[name] for name in ("rows", "in_c", "out_c")]
        else:
            values = {**self.shape, "in_zero": self.in_zero}
            head += [values["depth" if name == "out_c" and self.kind == "depthwise" else name] for name in ORDER]
        return np.array(head + [0] * (FIELDS - len(head)), np.int32)

    def stored_weights(self) -> Array:
        """As the kernel wants them."""
        return self.weights if self.kind == "depthwise" else packing.pairs(self.weights)

    def encoded(self) -> bytes:
        """The case as dsp_cases.c reads it."""
        tables = (self.bias.astype("<i4"), self.multiplier.astype("<i4"), self.shift.astype(np.int8))
        parts = [np.pad(table, (0, len(table) % 2)) for table in tables]
        parts += [self.stored_weights(), self.inputs]
        return self.header().astype("<i4").tobytes() + b"".join(_padded(part.tobytes()) for part in parts)

    def __str__(self) -> str:
        options = f"once={self.once} in_place={self.in_place} zero={self.zero} in_zero={self.in_zero}"
        return f"{self.kind} {dict(self.shape)} {options} clamp={self.least}..{self.most}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a kernel did: its output, whether it wrote outside of its memory, and the instructions that it took (0: unknown)."""

    output: Array = field(repr=False)
    damaged: bool
    instructions: int


def encoded(cases: Sequence[Case]) -> bytes:
    """All cases as dsp_cases.c reads them."""
    return np.array([len(cases), 0], "<u4").tobytes() + b"".join(case.encoded() for case in cases)


def build_for(
    board: Board, folder: Path, optimise: str = "-O3", *, defines: Sequence[str] = (), extra_flags: Sequence[str] = ()
) -> Built:
    """The program for an emulated board."""
    flags = (*WARNINGS, *extra_flags)
    return build(
        board, SOURCES, folder=folder, includes=(KERNELS,), optimise=optimise, defines=defines, extra_flags=flags
    )


def run_on(board: Board, built: Built, cases: Sequence[Case], *, count: bool = False) -> list[Outcome]:
    """Outcomes on an emulated board; with `count` QEMU counts instructions."""
    shift = ICOUNT_SHIFT if count else None
    done = run(built.elf, board, data={board.input.origin: encoded(cases)}, icount_shift=shift, timeout_s=300)
    assert done.exit_status == 0, done.text
    return _decoded(done.output, cases, board if count else None)


def run_here(program: Path, cases: Sequence[Case]) -> list[Outcome]:
    """Outcomes of the portable kernels on this machine; see `build_here`."""
    done = subprocess.run([program], input=encoded(cases), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return _decoded(done.stdout, cases, None)


def build_here(folder: Path) -> Path:
    """The program for this machine, under the sanitizers."""
    made = folder / "dsp_cases"
    flags = [*WARNINGS, "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = ["gcc", *flags, "-DON_HOST", "-DEMB_PORTABLE", f"-I{KERNELS}", *map(str, SOURCES), "-o", str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


def _decoded(output: bytes, cases: Sequence[Case], board: Board | None) -> list[Outcome]:
    outcomes, at = [], 0
    for case in cases:
        ticks, damage = np.frombuffer(output, "<u4", 2, at)
        size = case.positions * len(case.bias)
        values = np.frombuffer(output, np.int8, size, at + 8)
        at += 8 + size
        outcomes.append(Outcome(values, bool(damage), instructions(int(ticks), board, ICOUNT_SHIFT) if board else 0))
    assert at == len(output)
    return outcomes


def _padded(values: bytes) -> bytes:
    return values + b"\0" * (-len(values) % 8)


def draw_case(rng: np.random.Generator, kind: str, shape: Mapping[str, int] | None = None) -> Case:
    """A case that keeps to what the generator promises to the kernels, or one of the extremes of that; of a given shape or any."""
    if shape is None:
        shape = _draw_pointwise(rng) if kind == "pointwise" else _draw_window(rng, kind)
    if kind == "pointwise":
        out_c, taps, sites = shape["out_c"], shape["in_c"], shape["rows"] * shape["in_c"]
    else:
        out_c = shape["in_c"] * shape["depth"] if kind == "depthwise" else shape["out_c"]
        taps = shape["kernel_h"] * shape["kernel_w"] * (1 if kind == "depthwise" else shape["in_c"])
        sites = shape["batches"] * shape["in_h"] * shape["in_w"] * shape["in_c"]
    weights = _draw_bytes(rng, (out_c, taps))
    if kind != "depthwise" and not packing.fits_pairs(weights):
        weights = np.maximum(weights, -127)
    sums = 128 * np.abs(weights.astype(np.int64)).sum(axis=1)
    room = LARGEST_ACCUMULATOR - 1 - sums
    bias = (
        rng.choice([-1, 1], out_c) * room
        if rng.random() < 0.1
        else (rng.normal(0, 1, out_c) * sums / 4).astype(np.int64)
    )
    typical = -np.round(np.log2(np.maximum(sums, 1) / 600)).astype(np.int64)
    extreme = rng.random() < 0.15
    shift = rng.integers(-31, 0, out_c) if extreme else np.clip(typical + rng.integers(-1, 2, out_c), -31, -1)
    multiplier = rng.integers(1 << 30, 1 << 31, out_c)
    if extreme:
        multiplier = rng.choice(np.array([1 << 30, (1 << 31) - 1, 0]), out_c)
    least, most = -128, 127
    if rng.random() < 0.3:
        least, most = sorted(int(value) for value in rng.integers(-128, 128, 2))
        least, most = ((-128, most), (least, 127), (least, most))[int(rng.integers(0, 3))]
    once = kind == "pointwise" and bool(rng.random() < 0.4)
    return Case(
        kind=kind,
        shape=shape,
        inputs=_draw_bytes(rng, (sites,)),
        weights=weights,
        bias=bias.astype(np.int32),
        multiplier=multiplier.astype(np.int32),
        shift=shift.astype(np.int32),
        zero=int(rng.choice([-128, 127, int(rng.integers(-128, 128))])),
        least=least,
        most=most,
        in_zero=int(rng.integers(-128, 128)),
        once=once,
        in_place=_may_be_in_place(kind, shape) and bool(rng.random() < 0.5),
    )


def _may_be_in_place(kind: str, shape: Mapping[str, int]) -> bool:
    if kind == "pointwise":
        return shape["out_c"] <= shape["in_c"]
    fits = kind == "depthwise" and shape["depth"] == 1 and shape["batches"] == 1
    return fits and shape["out_h"] * shape["out_w"] <= shape["in_h"] * shape["in_w"]


def _draw_bytes(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Any bytes, or small ones (whose sums meet halves often), or one extreme everywhere, or both extremes."""
    manner = rng.random()
    if manner < 0.5:
        return rng.integers(-128, 128, shape).astype(np.int8)
    if manner < 0.8:
        return rng.integers(-3, 4, shape).astype(np.int8)
    if manner < 0.93:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    return np.full(shape, rng.choice([-128, 127]), np.int8)


def _draw_pointwise(rng: np.random.Generator) -> dict[str, int]:
    rows = int(rng.choice([1, 2, 3, int(rng.integers(1, 12))]))
    return {"rows": rows, "in_c": int(rng.integers(1, 80)), "out_c": int(rng.integers(1, 24))}


def _draw_window(rng: np.random.Generator, kind: str) -> dict[str, int]:
    kernel_h, kernel_w = (int(value) for value in rng.integers(1, 6, 2))
    if kind == "depthwise":
        if rng.random() < 0.5:
            kernel_h = kernel_w = 3
        elif rng.random() < 0.4:
            kernel_h, kernel_w = 1, int(rng.integers(1, 20))
    stride_h, stride_w = (int(value) for value in rng.integers(1, 4, 2))
    dilation_h = int(rng.integers(1, 3))
    dilation_w = 1 if kind == "depthwise" or rng.random() < 0.7 else 2
    pad_top = int(rng.integers(0, (kernel_h - 1) * dilation_h + 1))
    pad_left = int(rng.integers(0, (kernel_w - 1) * dilation_w + 1))
    out_h, out_w = (int(value) for value in rng.integers(1, 9, 2))
    reach_h = (out_h - 1) * stride_h + (kernel_h - 1) * dilation_h + 1
    reach_w = (out_w - 1) * stride_w + (kernel_w - 1) * dilation_w + 1
    # Padding behind the input is what the window reaches beyond it, less than a kernel; an input may also be larger.
    in_h = max(1, reach_h - pad_top - int(rng.integers(0, kernel_h * dilation_h)) + int(rng.integers(0, 2)))
    in_w = max(1, reach_w - pad_left - int(rng.integers(0, kernel_w * dilation_w)) + int(rng.integers(0, 2)))
    in_c = int(rng.integers(1, 10))
    shape = {
        "batches": int(rng.choice([1, 1, 2])), "in_h": in_h, "in_w": in_w, "in_c": in_c, "out_h": out_h, "out_w": out_w,
        "kernel_h": kernel_h, "kernel_w": kernel_w, "stride_h": stride_h, "stride_w": stride_w,
        "dilation_h": dilation_h, "dilation_w": dilation_w, "pad_top": pad_top, "pad_left": pad_left,
    }  # fmt: skip
    return (
        {**shape, "depth": int(rng.choice([1, 1, 2]))}
        if kind == "depthwise"
        else {**shape, "out_c": int(rng.integers(1, 14))}
    )
