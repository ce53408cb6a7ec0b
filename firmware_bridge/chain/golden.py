"""Samples with what must come of them, as tables that firmware compares itself with at boot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import SignalChain
from embridge_edge.features.stream import Stream
from embridge_edge.firmware_bridge.chain.emission import Network, RawSamples, input_channels, rows_given
from embridge_edge.firmware_bridge.chain.features import plan_of
from embridge_edge.firmware_bridge.chain.literals import float_literal, table
from embridge_edge.model.head import Head

Bytes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Golden:
    """A stretch of samples and all that comes of it.

    Attributes:
        counts: int32 `[frames, channels of a frame]`, what the converter gave.
        inputs: int8 `[windows, steps, columns]`, what the network must be given; of windows of tokens the newest hop, `[windows, hop
            steps, columns]`.
        outputs: int8 `[windows, embedding]`, what it must answer.
        scores: float32 `[windows, rows of the head]`.
        indices: int64 `[windows]`, the winners; -1 for joint angles.
        advance: rows of a network's input between one window and the next; all of them where windows share none.
    """

    counts: npt.NDArray[np.int32]
    inputs: Bytes
    outputs: Bytes
    scores: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]
    advance: int


def make_golden(
    chain: SignalChain,
    head: Head,
    network: Network,
    samples: RawSamples,
    counts: npt.ArrayLike,
    run: Callable[[Bytes], Bytes],
) -> Golden:
    """What the Python chain, a network and the head make of samples.

    Args:
        counts: whole numbers `[frames, channels of a frame]`; a window and some hops of a real recording, in which something happens.
        run: the int8 network: `[windows, steps, columns]` to `[windows, embedding]`, for example LiteRT's reference kernels.

    Raises:
        EdgeError: the samples are of another shape, do not fit the sample type, or are shorter than a window.
    """
    given = np.asarray(counts)
    limits = np.iinfo(np.int16 if samples.bits == 16 else np.int32)
    if given.ndim != 2 or given.dtype.kind not in "iu" or given.shape[1] != input_channels(chain, samples):
        raise EdgeError(
            f"Golden samples must be whole numbers [frames, {input_channels(chain, samples)}], not {given.dtype} "
            f"{list(given.shape)}."
        )
    if len(given) < chain.window:
        raise EdgeError(f"Golden samples must hold a window of {chain.window} frames, not {len(given)}; give more.")
    if given.min() < limits.min or given.max() > limits.max:
        raise EdgeError(f"Golden samples do not fit {samples.bits} bits; use RawSamples(bits=32).")
    real = Stream(chain).push(given.astype(np.float32) * np.float32(samples.unit_per_count))
    inputs = network.input.quantised(real)
    outputs = np.asarray(run(inputs), np.int8).reshape(len(inputs), -1)
    if outputs.shape[1] != head.rows.shape[1]:
        raise EdgeError(
            f"The network gives {outputs.shape[1]} values, the head takes {head.rows.shape[1]}; use its own."
        )
    scores = exact_scores(head, network, outputs)
    indices = np.full(len(scores), -1) if head.kind == "regression" else scores.argmax(axis=1)
    rows = rows_given(chain, network)
    advance = rows if network.tokens else _advance(chain)
    return Golden(
        given.astype(np.int32), inputs[:, -rows:], outputs, scores.astype(np.float32), indices.astype(np.int64), advance
    )


def exact_scores(head: Head, network: Network, outputs: Bytes) -> npt.NDArray[np.float64]:
    """Scores of the head for int8 outputs of the network, float64 `[windows, rows]`: sums in whole numbers, as in C."""
    sums = (outputs.astype(np.int64) - network.output.zero_point) @ head.rows.astype(np.int64).T
    step = float(np.float32(network.output.scale))
    return np.asarray(sums * (head.scale.astype(np.float64) * step) + head.bias.astype(np.float64))


def emit_golden(golden: Golden) -> dict[str, str]:
    """`emb_selftest.c` and its tables `emb_golden.h`, beside the files of `emit_chain`.

    With them `int emb_selftest(emb_t *)` exists: EMB_SELFTEST_PASSED (0), or what differs first. It starts the context afresh.
    """
    windows = len(golden.inputs)
    shared = [golden.inputs[window, : golden.advance] for window in range(windows - 1)]
    rows = np.concatenate([*shared, golden.inputs[-1]])
    parts = [
        "/* Generated: samples, and what the Python chain and the host's network make of them; do not edit. */",
        '#ifndef EMB_GOLDEN_H\n#define EMB_GOLDEN_H\n\n#include "emb.h"',
        f"#define EMB_GOLDEN_FRAMES {len(golden.counts)}\n"
        f"#define EMB_GOLDEN_WINDOWS {windows}\n"
        f"#define EMB_GOLDEN_ADVANCE {golden.advance} /* rows from one window to the next */",
        _rows("emb_sample_t", "emb_golden_samples", "EMB_FRAME_CHANNELS", golden.counts),
        _rows("int8_t", "emb_golden_rows", "EMB_COLUMNS", rows),
        _rows("int8_t", "emb_golden_outputs", "EMB_EMBEDDING", golden.outputs),
        _rows("float", "emb_golden_scores", "EMB_SCORES", golden.scores),
        f"static const int emb_golden_indices[] = {{\n{table(map(str, golden.indices.tolist()))}\n}};",
        "#endif\n",
    ]
    return {
        "emb_golden.h": "\n\n".join(parts),
        "emb_selftest.c": (files(__package__) / "c" / "emb_selftest.c").read_text("utf-8"),
    }


def _rows(kind: str, name: str, width: str, values: npt.NDArray[Any]) -> str:
    write = float_literal if values.dtype.kind == "f" else str
    rows = [f"    {{\n{table(map(write, row), ' ' * 8)}\n    }}," for row in values.tolist()]
    return f"static const {kind} {name}[][{width}] = {{\n" + "\n".join(rows) + "\n};"


def _advance(chain: SignalChain) -> int:
    if not chain.features:
        return chain.hop
    if plan_of(chain).anew:
        return chain.steps
    return 1 if chain.steps == 1 else chain.hop // chain.frame
