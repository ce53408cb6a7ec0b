"""A signal chain and a head as the files of a C library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features import spectra
from embridge_edge.features.chain import SignalChain
from embridge_edge.firmware_bridge.chain.features import WAMP_LIMIT, Plan, calls, plan_of
from embridge_edge.firmware_bridge.chain.literals import float_literal, pair_literal, pair_parts, table, text_literal
from embridge_edge.model.head import Head

CONFIG_VERSION = 2
"""What `emb.h` compares with the EMB_CONFIG_VERSION of emb_config.h."""

LONGEST_EMBEDDING = 512
"""So many products of an int16 and an int8 fit an int32 (see `Head`)."""

_CHUNK = 64
"""Samples of a channel that are filtered at once: 256 bytes, and the cost of entering the filter is a few per cent."""

_SHARED = (
    "emb.h",
    "emb_filter.c",
    "emb_float.h",
    "emb_head.c",
    "emb_internal.h",
    "emb_pair.c",
    "emb_pair.h",
    "emb_state.h",
    "emb_stream.c",
)
_OF_FEATURES = ("emb_blocks.c", "emb_blocks.h", "emb_features.c", "emb_formulas.h", "emb_whole.h")


@dataclass(frozen=True)
class Quantization:
    """int8 q stands for (q − zero_point) × scale."""

    scale: float
    zero_point: int

    def __post_init__(self) -> None:
        if not (0 < self.scale < math.inf) or not -128 <= self.zero_point <= 127:
            raise EdgeError(
                f"An int8 tensor with scale {self.scale:g} and zero point {self.zero_point} has no values; "
                "the scale must be above 0, the zero point from -128 to 127."
            )

    def quantised(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
        """float32 values as int8 of the same shape, halves away from zero, saturated: TFLite's QUANTIZE, and what the C does."""
        steps = values / np.float32(self.scale)
        rounded = np.copysign(np.floor(np.abs(steps) + np.float32(0.5)), steps) + self.zero_point
        return np.asarray(np.clip(rounded, -128, 127), np.int8)


@dataclass(frozen=True)
class Network:
    """The ends of the int8 network: one input `[steps, columns]`, one output, the embedding.

    Attributes:
        tokens: how many it keeps in a ring, where it is given the rows of each hop once (`firmware_bridge.ring`); 0 where it is given
            whole windows.
    """

    input: Quantization
    output: Quantization
    tokens: int = 0


@dataclass(frozen=True)
class RawSamples:
    """How samples come from the converter.

    Attributes:
        bits: 16 or 32, of the signed integers that `emb_push` takes.
        unit_per_count: what one count is in the chain's unit; 1 where that is the device's own.
        channels: in a frame; None for as many as the chain reads.
        ring_frames: room between the interrupt and the main loop, a power of two; None for twice the hop or more.
        patient: give the ring a second, and a window and a hop at least, where a scheduler or a radio hands samples over in bursts.
    """

    bits: int = 16
    unit_per_count: float = 1.0
    channels: int | None = None
    ring_frames: int | None = None
    patient: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (16, 32):
            raise EdgeError(f"Samples of {self.bits} bits are none of 16 or 32; choose the next larger one.")
        if not 0 < self.unit_per_count < 2.0 ** (62 - self.bits):
            raise EdgeError(
                f"unit_per_count {self.unit_per_count:g} must be above 0 and leave full scale within float32."
            )
        if self.ring_frames is not None and (self.ring_frames < 1 or self.ring_frames & (self.ring_frames - 1)):
            raise EdgeError(f"ring_frames {self.ring_frames} must be a power of two.")


def emit_chain(chain: SignalChain, head: Head, network: Network, samples: RawSamples) -> dict[str, str]:
    """The C library of a chain and a head: text of each file by its name, all for one folder.

    It includes `emb_model.h`, which whoever emits the network provides: the type `emb_model_t`, `emb_model_init(m)`,
    `emb_model_input(m)`, `emb_model_invoke(m)` and `emb_model_output(m)`; for a network with a ring of tokens `emb_model_advance(m)`, too,
    which is called for every hop that does not yet complete a window.

    Args:
        head: its rows go over the network's output.

    Raises:
        EdgeError: a feature has no C yet; a chain in volts without their scale; a head that does not fit its sums; a ring of tokens for
            windows that are no whole hops.
    """
    _check(chain, head, samples)
    rows_given(chain, network)
    plan = plan_of(chain) if chain.features else None
    config = [*_sizes(chain, head, network, samples, plan), *(_feature_sizes(chain, plan, samples) if plan else [])]
    return {
        **{name: (files(__package__) / "c" / name).read_text("utf-8") for name in _needed_files(plan)},
        "emb_config.h": _config_text(config),
        "emb_tables.c": _tables(chain, head, network, samples, plan),
    }


def input_channels(chain: SignalChain, samples: RawSamples) -> int:
    """Numbers in a frame that `emb_push` takes."""
    return max(chain.channels) + 1 if samples.channels is None else samples.channels


def ring_frames(chain: SignalChain, samples: RawSamples) -> int:
    """Frames that the ring holds: two hops at least, so that one can come in while one is worked on; a second for the patient."""
    least = max(2 * chain.hop, chain.window + chain.hop, math.ceil(chain.rate_hz)) if samples.patient else 2 * chain.hop
    return samples.ring_frames or 1 << (least - 1).bit_length()


def rows_given(chain: SignalChain, network: Network) -> int:
    """Rows of the network's input: of a window, or of a hop where the network keeps tokens of the hops before.

    Raises:
        EdgeError: its tokens are not those of a window's hops.
    """
    if not network.tokens:
        return chain.steps
    if (
        not chain.hop_steps
        or chain.window != network.tokens * chain.hop
        or chain.steps != network.tokens * chain.hop_steps
    ):
        raise EdgeError(
            f"The network keeps {network.tokens} tokens, and a window of {chain.window} samples is not that many hops of {chain.hop}; "
            "export the model again."
        )
    return chain.hop_steps


def rows_kept(chain: SignalChain, plan: Plan | None, network: Network) -> int:
    """Rows of the network's input that are kept from one of its inputs to the next."""
    if network.tokens:
        return rows_given(chain, network)
    if plan is None or plan.anew or chain.steps > 1:
        return chain.steps
    # A window is complete some frames after its own one is, where the frame is shorter.
    return 1 + (chain.window - chain.frame) // chain.hop


def _check(chain: SignalChain, head: Head, samples: RawSamples) -> None:
    if chain.unit == "V" and samples.unit_per_count == 1.0:
        raise EdgeError("The chain takes volts; say how many volts one count of the converter is (unit_per_count).")
    if chain.unit != "V" and samples.unit_per_count != 1.0:
        raise EdgeError(f"The chain takes counts ({chain.unit}); unit_per_count must be 1.")
    if input_channels(chain, samples) <= max(chain.channels) or input_channels(chain, samples) > 256:
        raise EdgeError(
            f"Frames of {input_channels(chain, samples)} channels do not hold channel {max(chain.channels)}; "
            "give the number of channels that the converter has, 256 at most."
        )
    if head.rows.shape[1] > LONGEST_EMBEDDING:
        raise EdgeError(
            f"The head sums over {head.rows.shape[1]} values; its int32 holds {LONGEST_EMBEDDING}: use a shorter embedding."
        )
    if not len(head.names):
        raise EdgeError("The head has no rows; fit it to some gestures first.")


def _needed_files(plan: Plan | None) -> tuple[str, ...]:
    if plan is None:
        return _SHARED
    found = [*_SHARED, *_OF_FEATURES]
    found += ["emb_spectrum.c"] if plan.spectrum else []
    found += ["emb_entropy.c"] if plan.entropy else []
    found += ["emb_ranks.c"] if plan.ranks else []
    return tuple(found)


Defines = list[tuple[str, str | int, str]]
"""Name, value and meaning of macros."""


def _sizes(chain: SignalChain, head: Head, network: Network, samples: RawSamples, plan: Plan | None) -> Defines:
    in_order = chain.channels == tuple(range(input_channels(chain, samples)))
    return [
        ("EMB_CONFIG_VERSION", CONFIG_VERSION, "of this file, see emb.h"),
        ("EMB_SAMPLE_BITS", samples.bits, "of emb_sample_t"),
        ("EMB_FRAME_CHANNELS", input_channels(chain, samples), "numbers in a frame given to emb_push"),
        ("EMB_CHANNELS", len(chain.channels), "of these, the ones that are used"),
        ("EMB_CHANNELS_AS_GIVEN", int(in_order), "whether these are all, in their order"),
        ("EMB_RING", ring_frames(chain, samples), "frames between emb_push and emb_poll, a power of two"),
        ("EMB_UNIT", float_literal(samples.unit_per_count), f"{chain.unit} per count"),
        ("EMB_SECTIONS", len(chain.sections), "biquads"),
        ("EMB_WINDOW", chain.window, f"samples at {chain.rate_hz:g} Hz"),
        ("EMB_HOP", chain.hop, "samples between decisions"),
        ("EMB_CHUNK", min(_CHUNK, chain.hop), "samples of a channel that are filtered at once"),
        ("EMB_STEPS", rows_given(chain, network), "rows of the network's input"),
        ("EMB_COLUMNS", chain.columns, "and its columns"),
        ("EMB_ROWS", rows_kept(chain, plan, network), "rows that are kept"),
        (
            "EMB_TOKENS",
            network.tokens,
            "of a window, where the network is given each hop once; 0 where it is given windows",
        ),
        ("EMB_LIMIT", float_literal(chain.limit), "normalised values are clipped to +- this"),
        ("EMB_ROOT", int(chain.compand == "root"), "whether their square roots are taken then, with the sign kept"),
        ("EMB_LARGEST", float_literal(chain.largest), "value of the network's input before it is rounded"),
        ("EMB_INPUT_SCALE", float_literal(network.input.scale), "of the network's input"),
        ("EMB_INPUT_ZERO_POINT", _signed(network.input.zero_point), ""),
        ("EMB_OUTPUT_ZERO_POINT", _signed(network.output.zero_point), "of the embedding"),
        ("EMB_EMBEDDING", head.rows.shape[1], "values in it"),
        ("EMB_SCORES", len(head.names), "rows of the head"),
        ("EMB_REGRESSION", int(head.kind == "regression"), "whether these are joint angles"),
        ("EMB_FEATURES", len(chain.features), "of each channel; 0 for raw samples"),
    ]


def _feature_sizes(chain: SignalChain, plan: Plan, samples: RawSamples) -> Defines:
    found: Defines = [
        ("EMB_FRAME", plan.frame, "samples of a frame of features"),
        ("EMB_STRIDE", plan.stride, "samples from one span of frames that are completed together to the next"),
        ("EMB_HOPS", plan.hops, "strides in a span"),
        ("EMB_HEAD", plan.head, "and samples more"),
        ("EMB_GROUP", plan.group, "strides whose sums are kept"),
        ("EMB_BLOCK", plan.block, "samples that are added up at once, at most"),
        ("EMB_FIRST_BLOCK", plan.head or plan.stride, "and the first time"),
        ("EMB_FRAMES_ANEW", int(plan.anew), "whether all frames of a window are computed when it is complete"),
        ("EMB_HELD", plan.held, "samples of each channel that are kept"),
        ("EMB_WORK", plan.work, "numbers of room for features of whole frames"),
        ("EMB_HAS_SUMS", int(plan.sums), ""),
        ("EMB_BLOCK_SUMS", int(plan.sums and not plan.anew), "whether sums of blocks are joined"),
        ("EMB_LEVEL_SUMS(X)", _each(plan.level), "sums over samples"),
        ("EMB_STEP_SUMS(X)", _each(plan.step), "over differences"),
        ("EMB_BEND_SUMS(X)", _each(plan.bend), "over second differences"),
        ("EMB_HAS_LARGE_STEPS", int("large_steps" in plan.others), ""),
        ("EMB_HAS_TURNS", int("turns" in plan.others), ""),
        ("EMB_HAS_CROSSINGS", int("crossings" in plan.others), ""),
        ("EMB_HAS_HIGHEST", int("highest" in plan.others), ""),
        ("EMB_HAS_LOG_ONE", int("log_one" in plan.others), ""),
        ("EMB_HAS_LOGARITHMS", int(plan.logarithms), "whether the logarithms of samples are added up as well"),
        ("EMB_CENTRED", plan.centred, "highest power of x less the first sample"),
        ("EMB_CENTRED_SCALE", float_literal(_centred_scale(samples)), "so that its fourth power fits float32"),
        ("EMB_WAMP_LIMIT", float_literal(WAMP_LIMIT), f"step that WAMP counts, {chain.unit}"),
        ("EMB_SPECTRUM", plan.spectrum, "samples of the Fourier transform"),
        ("EMB_HAS_ENTROPY", int(plan.entropy), ""),
        ("EMB_HAS_RANKS", int(plan.ranks), ""),
    ]
    less_1 = math.log(max(1, plan.frame - 1))
    found += _pair("EMB_LOG_COUNT_LESS_1", less_1, "log(EMB_FRAME - 1)")
    found += _pair("EMB_SHARE", 1.0 / plan.frame, "1 / EMB_FRAME")
    found += _pair("EMB_RANK_STEP", 2.0 / (plan.frame - 1), "2 / (EMB_FRAME - 1)")
    if plan.spectrum:
        hertz, share = chain.rate_hz / plan.spectrum, 1.0 / plan.frame
        found += _pair("EMB_BIN_HZ", hertz, "hertz between bins")
        found += _pair("EMB_MEAN_POWER", share * share / (plan.spectrum // 2), "1 / (EMB_FRAME^2 bins)")
        found += _pair("EMB_MOMENT", share * share * hertz * hertz, "EMB_BIN_HZ^2 / EMB_FRAME^2")
    return found


def _each(names: Sequence[str]) -> str:
    return " ".join(f"X({name})" for name in names)


def _pair(name: str, value: float, meaning: str) -> Defines:
    high, low = pair_parts(value)
    return [(f"{name}_HI", high, meaning), (f"{name}_LO", _signed_text(low), "")]


def _centred_scale(samples: RawSamples) -> float:
    """A power of two that brings full scale to 2¹⁶ for 16 bits and 2²⁴ for 32: the fourth power of twice that fits float32."""
    full = samples.unit_per_count * 2.0 ** (samples.bits - 1)
    return 2.0 ** ((16 if samples.bits == 16 else 24) - math.ceil(math.log2(full)))


def _signed(value: int) -> str:
    return _signed_text(str(value))


def _signed_text(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def _config_text(defines: Defines) -> str:
    lines = [
        f"#define {name} {value}".rstrip() + (f" /* {meaning} */" if meaning else "")
        for name, value, meaning in defines
    ]
    return "\n".join(
        [
            "/* Generated from the signal chain inside a model; do not edit. */",
            "#ifndef EMB_CONFIG_H",
            "#define EMB_CONFIG_H",
            "",
            *lines,
            "",
            "#endif",
            "",
        ]
    )


def _tables(chain: SignalChain, head: Head, network: Network, samples: RawSamples, plan: Plan | None) -> str:
    parts = [
        "/* Generated from the signal chain and the head inside a model; do not edit. */",
        '#include "emb_internal.h"',
    ]
    if plan is not None:
        parts[-1] += '\n#include "emb_formulas.h"\n#include "emb_whole.h"'
    if chain.sections:
        parts.append(_array("emb_biquad_t", "emb_biquads", "EMB_SECTIONS", _biquads(chain)))
    parts.append(_array("uint8_t", "emb_channels", "EMB_CHANNELS", map(str, chain.channels)))
    parts.append(_array("float", "emb_offset", "EMB_COLUMNS", map(float_literal, chain.offset)))
    parts.append(_array("float", "emb_gain", "EMB_COLUMNS", map(float_literal, chain.gain)))
    rows = [f"{{\n{table(map(str, row), ' ' * 8)}\n    }}" for row in head.rows.tolist()]
    parts.append("const int16_t emb_head_rows[EMB_SCORES][EMB_EMBEDDING] = {\n    " + ",\n    ".join(rows) + ",\n};")
    sums = head.rows.astype(np.int64).sum(axis=1)
    parts.append(_array("int32_t", "emb_head_sums", "EMB_SCORES", map(str, sums.tolist())))
    step = float(np.float32(network.output.scale))
    scales = [pair_literal(float(scale) * step) for scale in head.scale]
    parts.append(_array("emb_pair_t", "emb_head_scale", "EMB_SCORES", scales))
    parts.append(_array("float", "emb_head_bias", "EMB_SCORES", map(float_literal, head.bias)))
    parts.append(_array("char *const", "emb_labels", "EMB_SCORES", map(text_literal, head.names)))
    if plan is not None:
        parts += _feature_code(plan)
    return "\n\n".join(parts) + "\n"


def _array(kind: str, name: str, size: str, items: Any) -> str:
    return f"const {kind} {name}[{size}] = {{\n{table(items)}\n}};"


def _biquads(chain: SignalChain) -> list[str]:
    """Coefficients, and the gain at 0 Hz in float32 as `filters.state_for` has it."""
    found = []
    for section in np.asarray(chain.sections, np.float32):
        b0, b1, b2, a1, a2 = section
        level = (b0 + b1 + b2) / (np.float32(1) + a1 + a2)
        found.append("{" + ", ".join(map(float_literal, [*section, level])) + "}")
    return found


def _feature_code(plan: Plan) -> list[str]:
    parts = []
    if plan.spectrum:
        inner, outer = spectra.turns(plan.spectrum)
        for name, values in (("emb_turns", inner), ("emb_last_turns", outer)):
            parts.append(_free_array(name, values))
    body = "\n".join(f"    {line}" for line in calls(plan))
    unused = "\n".join(f"    (void){name};" for name in ("sums", "samples", "work"))
    parts.append(
        "void emb_columns(const emb_sums_t *sums, const float *samples, float *work, float *columns)\n"
        f"{{\n{body}\n{unused}\n}}"
    )
    return parts


def _free_array(name: str, values: npt.NDArray[np.float32]) -> str:
    # A transform of two samples has no roots for steps of four; C has no empty array.
    items = list(map(float_literal, values)) or ["0.0f"]
    return f"extern const float {name}[];\nconst float {name}[] = {{\n{table(items)}\n}};"
