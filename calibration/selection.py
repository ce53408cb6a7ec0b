"""Choosing the windows whose ranges int8 quantization takes over, and saying what they cover."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.learning.batches import EvenSampler
from embridge_edge.learning.windows import WindowSet

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

STRONGEST_SHARE = 0.25
"""Share of the calibration set that is taken from the strongest windows: min-max ranges are made by extremes, and EMG's
are rare (a range that misses them clips; the quantizer's own moving average cost 5.9 % class flips against 1.8 %)."""

_BATCH = 4096


@dataclass(frozen=True)
class ChannelRange:
    """Range of one input column in the calibration set and in the test windows, after normalisation."""

    channel: int
    calibration_low: float
    calibration_high: float
    test_low: float
    test_high: float
    saturated_share: float


@dataclass(frozen=True)
class Coverage:
    """What a calibration set covers.

    Attributes:
        windows, wearers, sessions: how many.
        rest_share: share of windows without a gesture or at rest. gesture_shares: share of each gesture.
        channels: ranges by input column; `saturated_share` is the share of test samples outside the calibration range of
            the whole input; an observer that leaves out extremes clips more.
    """

    windows: int
    wearers: int
    sessions: int
    rest_share: float
    gesture_shares: dict[str, float]
    channels: tuple[ChannelRange, ...]

    @property
    def saturated_share(self) -> float:
        """Share of all judged samples outside the calibration range of the whole input."""
        return float(np.mean([channel.saturated_share for channel in self.channels])) if self.channels else 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def refuse_uncovered(found: Coverage, windows: WindowSet, which: Index, most_saturated: float) -> None:
    """Refuse a calibration set that lacks a gesture or leaves too much outside its range.

    Args:
        found: what the set covers. which: the training windows that it was chosen from. most_saturated: share of judged samples
            that may be clipped.

    Raises:
        EdgeError: says what is lacking.
    """
    trained = np.unique(windows.labels[which])
    lacking = [
        windows.gestures[label] for label in trained if label >= 0 and not found.gesture_shares[windows.gestures[label]]
    ]
    if lacking:
        raise EdgeError(
            f"The calibration set of {found.windows} windows holds none of {', '.join(lacking)}; raise windows in the recipe's "
            "[quantize]."
        )
    if found.saturated_share > most_saturated:
        worst = max(found.channels, key=lambda channel: channel.saturated_share)
        raise EdgeError(
            f"{100 * found.saturated_share:.2f} % of the judged samples lie outside the calibration range (allowed "
            f"{100 * most_saturated:.2f}), most in column {worst.channel}: {worst.test_low:.3g} to {worst.test_high:.3g} beside "
            f"{worst.calibration_low:.3g} to {worst.calibration_high:.3g}; calibrate with more windows, or on more recordings."
        )


def select_windows(windows: WindowSet, which: Index, count: int, seed: int) -> Index:
    """Calibration windows: drawn evenly over gestures and wearers, with the strongest of a larger even draw among them.

    Args:
        which: int64, the training windows. count: how many to choose.

    Returns: sorted int64, at most `count` of `which`.

    Raises:
        EdgeError: there is nothing to choose from.
    """
    if not len(which):
        raise EdgeError("No training window to calibrate with; check --data and the split.")
    drawn = EvenSampler(windows, which, seed + 5).draw(0, 8 * count)
    pool, first = np.unique(drawn, return_index=True)
    strongest_count = min(len(pool), round(STRONGEST_SHARE * count))
    peaks = np.concatenate(
        [np.abs(windows.inputs(part)).max(axis=(1, 2)) for part in np.array_split(pool, max(1, len(pool) // _BATCH))]
    )
    strongest = pool[np.argsort(peaks, kind="stable")[len(pool) - strongest_count :]]
    # In the order of the draw, which is even: a gesture with few windows would drown among those that are drawn once.
    in_order = drawn[np.sort(first)]
    even = in_order[~np.isin(in_order, strongest)][: count - strongest_count]
    return np.union1d(strongest, even)


def coverage(windows: WindowSet, chosen: Index, test: Index) -> Coverage:
    """What the chosen windows cover, and how far the test windows reach beyond them."""
    low, high = _ranges(windows, chosen)
    test_low, test_high = _ranges(windows, test)
    outside = np.zeros(len(low))
    total = 0
    for part in np.array_split(test, max(1, len(test) // _BATCH)):
        x = windows.inputs(part)
        outside += ((x < low.min()) | (x > high.max())).sum(axis=(0, 1))
        total += x.shape[0] * x.shape[1]
    labels = windows.labels[chosen]
    names = windows.gestures
    shares = {name: float(np.mean(labels == index)) for index, name in enumerate(names)}
    return Coverage(
        windows=len(chosen),
        wearers=len(np.unique(windows.wearers[chosen])),
        sessions=len(np.unique(windows.sessions[chosen])),
        rest_share=shares.get("rest", 0.0) + float(np.mean(labels < 0)),
        gesture_shares=shares,
        channels=tuple(
            ChannelRange(
                channel,
                float(low[channel]),
                float(high[channel]),
                float(test_low[channel]),
                float(test_high[channel]),
                float(outside[channel] / max(1, total)),
            )
            for channel in range(len(low))
        ),
    )


def _ranges(windows: WindowSet, which: Index) -> tuple[Floats, Floats]:
    parts = [windows.inputs(part) for part in np.array_split(which, max(1, len(which) // _BATCH))]
    return np.min([part.min(axis=(0, 1)) for part in parts], axis=0), np.max(
        [part.max(axis=(0, 1)) for part in parts], axis=0
    )
