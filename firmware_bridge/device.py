"""A model with its signal chain and head as one C library: samples in, decisions out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import SignalChain
from embridge_edge.features.stream import Stream
from embridge_edge.firmware_bridge.chain import (
    Network,
    Quantization,
    RawSamples,
    emit_chain,
    emit_golden,
    make_golden,
)
from embridge_edge.firmware_bridge.chain.emission import input_channels
from embridge_edge.firmware_bridge.graph import Graph
from embridge_edge.model.head import Head

NAME = "emb"
"""Prefix of the chain's symbols, and name of the package."""
NETWORK_NAME = "emb_model"
"""Prefix of the network's symbols, which the chain calls."""
GOLDEN_HOPS = 3
LOUDEST = 24
"""Powers of two that are tried for the amplitude of golden samples, from one count on."""

Bytes = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Device:
    """What runs on a device besides the network.

    Attributes:
        chain: from samples to the network's input.
        head: from its output to a decision.
        network: scales of both.
        samples: how samples come from the converter.
    """

    chain: SignalChain
    head: Head
    network: Network
    samples: RawSamples


def stored_chain(about: Mapping[str, Any]) -> tuple[SignalChain, list[Head]]:
    """The signal chain and the heads that a model's metadata holds under "chain" and "heads".

    Raises:
        EdgeError: they are not what an export writes.
    """
    try:
        return SignalChain.from_dict(about["chain"]), [Head.from_dict(head) for head in about.get("heads", ())]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise EdgeError(
            "The model's metadata holds a signal chain or a head that cannot be read; export it again, or use --network-only."
        ) from None


def device_of(
    about: Mapping[str, Any], graph: Graph, samples: RawSamples, head_kind: str | None = None, tokens: int = 0
) -> Device:
    """The device of a model, from the metadata that it carries.

    Args:
        about: metadata with "chain" and "heads".
        head_kind: which of its heads; None for the first.
        tokens: how many the network keeps in a ring; 0 where it takes whole windows, as the graph does.

    Raises:
        EdgeError: the graph is not the one that the metadata describes, or there is no such head.
    """
    chain, heads = stored_chain(about)
    chosen = [head for head in heads if head_kind in (None, head.kind)]
    if not chosen:
        kinds = ", ".join(head.kind for head in heads) or "none"
        raise EdgeError(f"The model has no head {head_kind or ''}; it has {kinds}: choose one, or use --network-only.")
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise EdgeError("A model with a signal chain has one input and one output; use --network-only.")
    given, taken = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    if given.shape[1:] != chain.input_shape or given.type != "int8" or taken.type != "int8":
        raise EdgeError(
            f"The chain gives int8 windows of {chain.input_shape}, the model takes {given.type} {given.shape[1:]}; "
            "quantize it to int8, or use --network-only."
        )
    network = Network(
        Quantization(given.scales[0], given.zero_points[0]), Quantization(taken.scales[0], taken.zero_points[0]), tokens
    )
    return Device(chain, chosen[0], network, samples)


def device_library(device: Device, network: Mapping[str, str], run: Callable[[Bytes], Bytes]) -> dict[str, str]:
    """Every file of the library, self-test included: headers that an application includes below `include/`.

    Args:
        network: files of the network's own library, named `NETWORK_NAME`.
        run: the int8 network: whole windows `[windows, steps, columns]` to `[windows, embedding]`.

    Raises:
        EdgeError: the chain or the head has no C.
    """
    golden = make_golden(device.chain, device.head, device.network, device.samples, golden_counts(device), run)
    chain = {**emit_chain(device.chain, device.head, device.network, device.samples), **emit_golden(golden)}
    public = _included_by("emb.h", chain)
    taken = {path.rpartition("/")[2] for path in network} & set(chain)
    if taken:
        raise EdgeError(f"Both the chain and the kernels have a file {sorted(taken)[0]}; report this.")
    placed = {f"{'include' if name in public else 'src'}/{name}": text for name, text in chain.items()}
    return {**network, **placed, f"include/{NAME}_selftest.h": _SELFTEST_HEADER}


_SELFTEST_HEADER = """/* emb_selftest is declared with the rest. */
#ifndef EMB_SELFTEST_H
#define EMB_SELFTEST_H

#include "emb.h"

#endif
"""


def usage(device: Device) -> str:
    """C that shows how the library is called."""
    channels = input_channels(device.chain, device.samples)
    return f"""#include <emb.h>

static emb_t emb;

emb_init(&emb); /* once */

/* where samples arrive, an interrupt for example: frames of {channels} channels, {device.chain.rate_hz:g} frames a second */
emb_push(&emb, samples, frames);

/* in the main loop */
emb_decision_t decision;
while (emb_poll(&emb, &decision)) {{
    ... emb_label(decision.index), decision.margin ...
}}"""


def golden_counts(device: Device, seed: int = 0) -> npt.NDArray[np.int32]:
    """Samples for the self-test: seeded noise with bursts, as loud as fills the network's input best.

    Returns: int32 `[frames, channels]`, a window and some hops.
    """
    chain, samples = device.chain, device.samples
    frames = chain.window + GOLDEN_HOPS * chain.hop
    draw = np.random.default_rng(seed)
    noise = draw.normal(size=(frames, input_channels(chain, samples)))
    bursts = 0.2 + np.abs(np.sin(np.linspace(0, 3 * np.pi, frames)))[:, None]
    limits = np.iinfo(np.int16 if samples.bits == 16 else np.int32)

    def scaled(power: int) -> npt.NDArray[np.int32]:
        return np.clip(np.rint(noise * bursts * 2.0**power), limits.min, limits.max).astype(np.int32)

    def filled(power: int) -> float:
        """Share of the input's values that are neither at an end of int8 nor at its zero."""
        real = Stream(chain).push(scaled(power).astype(np.float32) * np.float32(samples.unit_per_count))
        values = device.network.input.quantised(real)
        return float(((values > -128) & (values < 127) & (values != device.network.input.zero_point)).mean())

    return scaled(max(range(LOUDEST), key=filled))


def _included_by(name: str, files: Mapping[str, str]) -> set[str]:
    """The header and all that it includes, of these files."""
    found: set[str] = set()
    wanted = [name]
    while wanted:
        header = wanted.pop()
        if header in files and header not in found:
            found.add(header)
            wanted += re.findall(r'#include "(\w+\.h)"', files[header])
    return found
