"""Chains emitted as C, compiled for this machine, and run beside the Python stream."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.features import Stream
from embridge_edge.features.chain import ChainPlan, SignalChain, resolve
from embridge_edge.firmware_bridge.chain import Network, Quantization, RawSamples, emit_chain
from embridge_edge.firmware_bridge.host_build import WARNINGS, compile_shared, load_shared, write_files
from embridge_edge.model.head import Head, make_head

HERE = Path(__file__).parent / "c"
MORE_WARNINGS = ("-Wdouble-promotion", "-Wfloat-conversion")
"""No double, not even in passing."""


@dataclass(frozen=True)
class Found:
    """What came of samples: inputs `[n, steps, columns]`, the stand-in's outputs, decisions, columns of the last channel."""

    inputs: npt.NDArray[np.int8]
    outputs: npt.NDArray[np.int8]
    decisions: npt.NDArray[np.void]
    columns: npt.NDArray[np.float32]


class Compiled:
    """A chain as a shared library, with one context."""

    def __init__(
        self, library: ctypes.CDLL, chain: SignalChain, head: Head, network: Network, samples: RawSamples
    ) -> None:
        self.chain, self.head, self.network, self.samples = chain, head, network, samples
        self.library = library
        for name, kind in (
            ("harness_size", ctypes.c_size_t),
            ("harness_run", ctypes.c_size_t),
            ("emb_push", ctypes.c_size_t),
        ):
            getattr(library, name).restype = kind
        library.emb_lost.restype = ctypes.c_uint32
        library.emb_label.restype = ctypes.c_char_p
        self.context = self.fresh()

    @property
    def decision(self) -> np.dtype[np.void]:
        scores = len(self.head.names)
        return np.dtype(
            [
                ("number", "u4"),
                ("first", "u4"),
                ("index", "i4"),
                ("score", "f4"),
                ("margin", "f4"),
                ("scores", "f4", (scores,)),
            ]
        )

    def fresh(self) -> ctypes.Array[ctypes.c_char]:
        context = ctypes.create_string_buffer(self.library.harness_size() + 16)
        self.library.emb_init(context)
        return context

    def as_samples(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.signedinteger]:
        return np.ascontiguousarray(counts, np.int16 if self.samples.bits == 16 else np.int32)

    def run(self, counts: npt.NDArray[np.int64], chunks: Sequence[int] | None = None) -> Found:
        """Push in chunks of at most a hop and poll; the context is a fresh one."""
        given, hop = self.as_samples(counts), self.chain.hop
        sizes = list(chunks or ())
        while sum(sizes) < len(given):
            sizes.append(min(hop, len(given) - sum(sizes)))
        most = max(0, (len(given) - self.chain.window) // hop + 1)
        inputs = np.zeros((most, *self.chain.input_shape), np.int8)
        outputs = np.zeros((most, self.head.rows.shape[1]), np.int8)
        decisions = np.zeros(most, self.decision)
        columns = np.zeros((most, max(1, len(self.chain.features))), np.float32)
        self.context = self.fresh()
        pushed = np.array(sizes, np.uint32)
        count = self.library.harness_run(
            self.context, *(ctypes.c_void_p(array.ctypes.data) for array in (given, pushed)), ctypes.c_size_t(len(pushed)),
            *(ctypes.c_void_p(array.ctypes.data) for array in (inputs, outputs, decisions, columns)),
        )  # fmt: skip
        assert count == most
        return Found(inputs, outputs, decisions, columns)

    def push(self, context: object, counts: npt.NDArray[np.int64]) -> int:
        given = self.as_samples(counts)
        return int(self.library.emb_push(context, ctypes.c_void_p(given.ctypes.data), ctypes.c_size_t(len(given))))

    def poll(self, context: object) -> np.void | None:
        decision = np.zeros(1, self.decision)
        if not self.library.emb_poll(context, ctypes.c_void_p(decision.ctypes.data)):
            return None
        return decision[0]

    def as_unit(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Counts as the Python chain takes them."""
        return counts.astype(np.float32) * np.float32(self.samples.unit_per_count)

    def expected(self, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """The network's inputs by the Python stream."""
        real = Stream(self.chain).push(self.as_unit(counts))
        return self.network.input.quantised(real)


def emitted(
    folder: Path, chain: SignalChain, samples: RawSamples, head: Head | None = None, network: Network | None = None
) -> list[Path]:
    """Write the library of a chain beside the stand-in for its network; its C files."""
    write_files(emit_chain(chain, head or some_head(), network or some_network(chain), samples), folder)
    shutil.copy(HERE / "emb_model.h", folder)
    return sorted(folder.glob("*.c"))


def compiled(
    folder: Path,
    chain: SignalChain,
    samples: RawSamples | None = None,
    head: Head | None = None,
    network: Network | None = None,
    flags: Sequence[str] = ("-O2",),
) -> Compiled:
    """The library of a chain, loaded."""
    samples, head, network = samples or RawSamples(), head or some_head(), network or some_network(chain)
    sources = [*emitted(folder, chain, samples, head, network), HERE / "harness.c"]
    library = compile_shared(sources, folder / "chain.so", includes=(folder,), flags=(*flags, *MORE_WARNINGS))
    return Compiled(load_shared(library), chain, head, network, samples)


def program(
    folder: Path, sources: Sequence[Path], flags: Sequence[str], compiler: str = "cc", standard: str = "-std=c99"
) -> Path:
    """A program of this machine."""
    path = folder / "program"
    command = [
        compiler,
        standard,
        *WARNINGS,
        *MORE_WARNINGS,
        *flags,
        f"-I{folder}",
        "-o",
        str(path),
        *map(str, sources),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def emg_like(samples: int, channels: int, seed: int = 0, amplitude: float = 20.0) -> npt.NDArray[np.int64]:
    """Whole numbers with bursts, silence and flat pieces."""
    random = np.random.default_rng(seed)
    level = np.repeat(random.choice([0.0, 0.3, 1.0, 2.0], samples // 50 + 1), 50)[:samples, None]
    return np.round(amplitude * level * random.standard_normal((samples, channels))).astype(np.int64)


def raw_chain(rate_hz: float = 200.0, channels: int = 8, **plan: Any) -> SignalChain:
    """The armband recipes' chain for a Myo: signed roots of raw samples, band-pass from 5 Hz."""
    made = resolve(ChainPlan(**{"bandpass_hz": (5.0, 450.0), "compand": "root", **plan}), rate_hz, channels, "myo")
    return replace(made, gain=(1 / 32,) * made.columns)


def feature_chain(rate_hz: float, channels: int, counts: npt.NDArray[np.int64], **plan: Any) -> SignalChain:
    """A chain of features, normalised by what these samples give."""
    made = resolve(ChainPlan(**plan), rate_hz, channels, "adc")
    starts = np.arange(0, len(counts) - made.window, made.hop)
    return made.fitted(made.filtered(counts.astype(np.float32)), starts)


def some_head(kind: str = "linear", rows: int = 5, embedding: int = 24, seed: int = 0) -> Head:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((rows, embedding)).astype(np.float32)
    names = tuple(f"gesture {index}" for index in range(rows))
    return make_head(kind, names, weights, random.standard_normal(rows).astype(np.float32))


def some_network(chain: SignalChain) -> Network:
    """Quantization as the exporter chooses it: the whole range of the normalised values."""
    return Network(Quantization(chain.largest / 127, -3), Quantization(0.02, 5))


def stand_in(inputs: npt.NDArray[np.int8], embedding: int = 24) -> npt.NDArray[np.int8]:
    """What `emb_model.h` beside this file computes: `[windows, steps, columns]` to `[windows, embedding]`."""
    flat = inputs.reshape(len(inputs), -1).astype(np.int64)
    weights = (7 * np.arange(flat.shape[1])[:, None] + 13 * np.arange(embedding)) % 11 - 5
    return (np.trunc(flat @ weights / 8).astype(np.int64)).astype(np.int8)
