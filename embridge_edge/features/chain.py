"""The signal chain: everything between the analogue-digital converter and the network, as one value.

A recipe says what is wanted in milliseconds and hertz (`ChainPlan`); for a recording's rate that resolves to numbers of
samples and filter coefficients (`SignalChain`), which is what travels inside every artifact.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError

Samples = npt.NDArray[np.float32]

_BATCH = 1024
"""Windows in memory at once: 20,000 of 400 ms, 16 channels at 2 kHz are a gigabyte."""


LIMIT = 8.0
"""Times the usual amplitude: beyond the crest factor of EMG, and with a gain of 1/16 the whole range of a Myo's int8."""

COMPANDERS = ("none", "root")

ARTEFACT_SHARE = 0.01
"""Share of the windows, the strongest, that normalisation leaves out: a knocked electrode is not the usual amplitude."""


@dataclass(frozen=True)
class ChainPlan:
    """What a recipe asks of the chain, free of any sample rate.

    Attributes:
        window_ms, hop_ms: length of the analysis window and distance between decisions.
        bandpass_hz: cut-offs of the causal Butterworth band-pass; None (`false` in a recipe file) leaves the band as it
            is. The upper one is at most 0.45 × the rate.
        order: order of the band-pass.
        notch_hz: mains frequency to notch out with its harmonics; None for no notch.
        notch_quality: Q of the notch at the mains frequency.
        features: names of features with one column per channel, or of groups of them; empty for raw samples.
        frame_ms: a window of features is a sequence of frames of this length; None is one frame, the window.
        compand: what raw samples go through after normalisation: "root", their square root with the sign kept, or "none". The steps of
            an int8 input are then finer for weak signals and coarser for strong ones, as the signals themselves are: at rest a linear
            one has hardly a step (docs/compression.md).
    """

    window_ms: float = 400.0
    hop_ms: float = 50.0
    bandpass_hz: tuple[float, float] | None = (20.0, 450.0)
    order: int = 4
    notch_hz: float | None = None
    notch_quality: float = 30.0
    features: tuple[str, ...] = ()
    frame_ms: float | None = None
    compand: Literal["none", "root"] = "none"

    def __post_init__(self) -> None:
        if self.compand not in COMPANDERS:
            raise EdgeError(f"Unknown compand {self.compand!r}; choose from {', '.join(COMPANDERS)}.")
        if self.features and self.compand != "none":
            raise EdgeError("compand is for raw samples, and the recipe's [chain] has features; leave one of them out.")
        if not 0 < self.hop_ms <= self.window_ms:
            raise EdgeError(f"hop_ms {self.hop_ms:g} must lie above 0 and not above window_ms {self.window_ms:g}.")
        if self.notch_hz is not None and not (self.notch_hz >= 1 and self.notch_quality > 0):
            raise EdgeError(
                f"notch_hz {self.notch_hz:g} must be 1 or more, notch_quality {self.notch_quality:g} above 0."
            )
        if self.order not in (2, 4, 6, 8):
            raise EdgeError(f"order {self.order} of the band-pass must be 2, 4, 6 or 8.")


@dataclass(frozen=True)
class SignalChain:
    """A chain for one sample rate and channel count: what a device runs.

    Attributes:
        rate_hz: sample rate in hertz.
        unit: unit of the samples that it takes.
        channels: index in the recording of each of the chain's channels: the channel order.
        sections: biquads (b0, b1, b2, a1, a2), float32 numbers.
        window, hop: samples.
        frame: samples in a feature frame; 0 for raw samples.
        features: names of features; empty for raw samples.
        offset, gain: normalisation of each column, (x − offset) × gain. Raw samples have offset 0 and one gain for all.
        limit: normalised values are clipped to ± this; an int8 input needs an end, and one artefact must not set it.
        compand: what they go through then, "none" or "root": sign(x) √|x|.
        resolved: what the recipe's times and frequencies became, for people.
    """

    rate_hz: float
    unit: str
    channels: tuple[int, ...]
    sections: tuple[tuple[float, float, float, float, float], ...]
    window: int
    hop: int
    frame: int
    features: tuple[str, ...]
    offset: tuple[float, ...]
    gain: tuple[float, ...]
    limit: float
    resolved: Mapping[str, Any]
    compand: str = "none"

    @property
    def largest(self) -> float:
        """The largest value of an input."""
        return float(np.sqrt(np.float32(self.limit))) if self.compand == "root" else self.limit

    @property
    def steps(self) -> int:
        """Length of the network's input in time steps: samples, or feature frames."""
        return self.window // self.frame if self.features else self.window

    @property
    def columns(self) -> int:
        """Width of the network's input: channels, or channels × features."""
        return len(self.channels) * max(1, len(self.features))

    @property
    def hops(self) -> int:
        """Hops in a window: its pose has a frame for each."""
        return max(1, self.window // self.hop)

    @property
    def hop_steps(self) -> int:
        """Time steps of the network's input that a hop brings, where the others are those of the window before; 0 where windows share
        none: one frame of features for a window, or a hop that is no whole number of frames."""
        if not self.features:
            return self.hop
        return self.hop // self.frame if self.steps > 1 and self.hop % self.frame == 0 else 0

    @property
    def input_shape(self) -> tuple[int, int]:
        """Shape `[steps, columns]` of one input of the network."""
        return self.steps, self.columns

    def filtered(self, emg: Samples, breaks: npt.NDArray[np.int64] | None = None) -> Samples:
        """Channels in order and filtered, float32 `[samples, channels]`; the filters start afresh at each break.

        Args:
            emg: float32 `[samples, recording channels]` in `unit`.
            breaks: sample indices at which the clock jumps.

        Raises:
            EdgeError: the recording has fewer channels than the chain wants.
        """
        from embridge_edge.features import filters

        if max(self.channels) >= emg.shape[1]:
            raise EdgeError(
                f"The chain takes {len(self.channels)} channels, the recording has {emg.shape[1]}; use the same band."
            )
        ordered = np.ascontiguousarray(emg[:, list(self.channels)], np.float32)
        if not (self.sections and len(ordered)):
            return ordered
        out = np.empty_like(ordered)
        edges = [0, *(int(b) for b in (breaks if breaks is not None else ()) if 0 < b < len(emg)), len(emg)]
        for start, stop in itertools.pairwise(edges):
            state = filters.state_for(self.sections, ordered[start])
            out[start:stop] = filters.run(self.sections, ordered[start:stop], state)
        return out

    def inputs(self, signal: Samples, starts: npt.NDArray[np.int64]) -> Samples:
        """Inputs of the network for windows of a filtered signal.

        Args:
            signal: float32 `[samples, channels]` as `filtered` gives it.
            starts: int64 `[n]`, first sample of each window.

        Returns: float32 `[n, steps, columns]`.
        """
        return self.normalised(self.columns_of(signal, starts))

    def samples(self, signal: Samples, starts: npt.NDArray[np.int64]) -> Samples:
        """The filtered samples of windows, before features and normalisation, float32 `[n, window, channels]`."""
        if not len(starts):
            return np.zeros((0, self.window, signal.shape[1]), np.float32)
        # A window is one block of the signal; copied whole it comes four times as fast as sample by sample.
        blocks = np.lib.stride_tricks.sliding_window_view(signal, (self.window, signal.shape[1]))[:, 0]
        return np.asarray(blocks[starts])

    def columns_of(self, signal: Samples, starts: npt.NDArray[np.int64]) -> Samples:
        """`inputs` before normalisation: raw samples or features, float32 `[n, steps, columns]`."""
        if not self.features:
            return self.samples(signal, starts)
        from embridge_edge.features.extraction import columns_at

        frames = (starts[:, None] + np.arange(self.steps) * self.frame).reshape(-1)
        found = columns_at(signal, frames, self.frame, self.features, self.rate_hz)
        return found.reshape(len(starts), self.steps, self.columns)

    def offline(self, emg: Samples, breaks: npt.NDArray[np.int64] | None = None) -> Samples:
        """What a device gives for a whole recording: the inputs of the windows at every hop, filters started at each break.

        `Stream` gives the same bits for any chunks. `inputs` takes windows one by one and may differ from it by 4 units in
        the last place where features are summed.

        Args:
            emg: float32 `[samples, recording channels]` in `unit`.
            breaks: sample indices at which the clock jumps.

        Returns: float32 `[n, steps, columns]`, segment after segment.

        Raises:
            EdgeError: the recording has fewer channels than the chain wants.
        """
        from embridge_edge.features.stream import Stream

        stream = Stream(self)
        edges = [0, *(int(b) for b in (breaks if breaks is not None else ()) if 0 < b < len(emg)), len(emg)]
        parts = []
        for start, stop in itertools.pairwise(edges):
            stream.interrupted()
            parts.append(stream.push(emg[start:stop]))
        return np.concatenate(parts)

    def normalised(self, columns: Samples) -> Samples:
        """(x − offset) × gain, clipped to ± limit, then companded; float32 of the same shape."""
        scaled = columns - _uniform(self.offset)
        scaled *= _uniform(self.gain)
        np.clip(scaled, -np.float32(self.limit), np.float32(self.limit), out=scaled)
        if self.compand == "root":
            np.copysign(np.sqrt(np.abs(scaled)), scaled, out=scaled)
        return scaled

    def fitted(self, signal: Samples, starts: npt.NDArray[np.int64]) -> SignalChain:
        """The chain with its normalisation taken from training windows.

        Raw samples get one gain for all channels, a power of two, so that a device shifts; features are standardised column
        by column.
        """
        parts = (self.columns_of(signal, part) for part in np.array_split(starts, max(1, -(-len(starts) // _BATCH))))
        if not self.features:
            powers = np.sort(np.concatenate([np.square(part, dtype=np.float64).mean(axis=(1, 2)) for part in parts]))
            rms = float(np.sqrt(powers[: max(1, round((1.0 - ARTEFACT_SHARE) * len(powers)))].mean()))
            gain = 2.0 ** -round(np.log2(rms)) if rms > 0 else 1.0
            return replace(self, offset=(0.0,) * self.columns, gain=(gain,) * self.columns)
        flat = np.concatenate([part.reshape(-1, self.columns).astype(np.float64) for part in parts])
        spread = flat.std(axis=0)
        gain_of = np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 1.0)
        return replace(self, offset=_as_single(flat.mean(axis=0)), gain=_as_single(gain_of))

    def to_dict(self) -> dict[str, Any]:
        """The chain as JSON can hold it; `from_dict` gives the same chain back, bit for bit."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> SignalChain:
        """The chain that `to_dict` stored.

        Raises:
            EdgeError: a field is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        stored = {"compand": "none", **stored}  # chains of before there was another
        if set(stored) != names:
            wrong = sorted(set(stored) ^ names)[0]
            raise EdgeError(f"The stored signal chain has no or an unknown field {wrong!r}; make the artifact again.")
        if stored["compand"] not in COMPANDERS:
            raise EdgeError(
                f"The stored signal chain compands by {stored['compand']!r}, which this version does not know; use a newer one."
            )
        as_tuple: dict[str, Any] = {
            key: tuple(tuple(item) if isinstance(item, list) else item for item in value)
            if isinstance(value, list)
            else value
            for key, value in stored.items()
        }
        return cls(**as_tuple)


def resolve(plan: ChainPlan, rate_hz: float, channels: int, unit: str) -> SignalChain:
    """The chain that a plan becomes for recordings of this rate, channel count and unit.

    Raises:
        EdgeError: no band remains at this rate, the filter is unstable or another one in float32, the window is too short, or a feature
            does not exist.
    """
    from embridge_edge.features import design
    from embridge_edge.features.checks import check_length, check_names, check_options

    sections = design.cascade(plan.bandpass_hz, plan.order, plan.notch_hz, plan.notch_quality, rate_hz).sections
    resolved: dict[str, Any] = {"rate_hz": rate_hz}
    if plan.bandpass_hz is not None:
        low, high = plan.bandpass_hz
        resolved["bandpass_hz"] = [low, min(high, design.NYQUIST_SHARE * rate_hz)]
    if plan.notch_hz is not None:
        harmonics = int(design.NYQUIST_SHARE * rate_hz / plan.notch_hz)
        resolved["notch_hz"] = [plan.notch_hz * (index + 1) for index in range(harmonics)]
    features = check_names(plan.features)
    hop = max(1, round(plan.hop_ms * rate_hz / 1000.0))
    window = max(hop, round(plan.window_ms * rate_hz / 1000.0))
    frame = 0
    if features:
        frame = window if plan.frame_ms is None else round(plan.frame_ms * rate_hz / 1000.0)
        if not 3 <= frame <= window:
            raise EdgeError(
                f"frame_ms {plan.frame_ms} is {frame} samples at {rate_hz:g} Hz; it needs 3 to {window} (the window)."
            )
        check_length(features, frame, channels, check_options(None))
    if window < 8:
        raise EdgeError(f"window_ms {plan.window_ms:g} is {window} samples at {rate_hz:g} Hz; at least 8 are needed.")
    resolved |= {"window_ms": 1000.0 * window / rate_hz, "hop_ms": 1000.0 * hop / rate_hz}
    if frame:
        resolved["frame_ms"] = 1000.0 * frame / rate_hz
    if plan.compand != "none":
        resolved["compand"] = plan.compand
    width = channels * max(1, len(features))
    return SignalChain(
        rate_hz=rate_hz,
        unit=unit,
        channels=tuple(range(channels)),
        sections=sections,
        window=window,
        hop=hop,
        frame=frame,
        features=features,
        offset=(0.0,) * width,
        gain=(1.0,) * width,
        limit=LIMIT,
        resolved=resolved,
        compand=plan.compand,
    )


def _uniform(values: tuple[float, ...]) -> npt.NDArray[np.float32] | np.float32:
    """The values as float32; one number where they are all the same, which numpy applies three times as fast."""
    return np.float32(values[0]) if len(set(values)) == 1 else np.asarray(values, np.float32)


def _as_single(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Numbers that float32 holds exactly, so that the stored chain is the one that runs."""
    return tuple(float(np.float32(value)) for value in values)
