"""From the values that an activation takes over calibration windows to the range that int8 gives it.

int8 has 255 steps between the ends of a range: a range that holds every value spends them on the rarest, a narrower one clips those
and is finer for the rest. Which is better depends on the tensor and is measured, not assumed (docs/compression.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError

Floats = npt.NDArray[np.float32]
Counts = npt.NDArray[np.float64]
Range = tuple[float, float]

Observer = Literal["minmax", "moving_average", "percentile", "mse", "entropy"]
OBSERVERS: tuple[Observer, ...] = get_args(Observer)

BINS = 2048
STEPS = 255
MOVING = 0.95
"""Weight of what came before in the moving average of each window's extremes: that of the TFLite quantizer."""

NARROWEST = 0.2
"""No observer gives a range of less than this share of the whole one: what clips more has lost the signal, whatever the criterion."""


@dataclass
class Observed:
    """What is kept of the values of one activation: the sum of all calibration windows, not the windows.

    Attributes:
        low, high: least and greatest value of all. mean_low, mean_high: moving averages of each window's own.
        counts: float64 `[BINS]`, values in bins of equal width between low and high.
    """

    low: float = np.inf
    high: float = -np.inf
    mean_low: float = np.nan
    mean_high: float = np.nan
    counts: Counts = field(default_factory=lambda: np.zeros(BINS))

    def see_extremes(self, values: Floats) -> None:
        """First pass: `[windows, …]`. Infinity is what a maximum is padded with, and says nothing about a range; NaN stays and is refused."""
        flat = values.reshape(len(values), -1)
        finite = ~np.isinf(flat)
        lows = flat.min(axis=1, where=finite, initial=np.inf)
        highs = flat.max(axis=1, where=finite, initial=-np.inf)
        self.low, self.high = float(np.minimum(self.low, lows.min())), float(np.maximum(self.high, highs.max()))
        for low, high in zip(lows[finite.any(axis=1)].tolist(), highs[finite.any(axis=1)].tolist(), strict=True):
            first = np.isnan(self.mean_low)
            self.mean_low = low if first else MOVING * self.mean_low + (1 - MOVING) * low
            self.mean_high = high if first else MOVING * self.mean_high + (1 - MOVING) * high

    def count(self, values: Floats) -> None:
        """Second pass, when low and high are known."""
        if self.high > self.low:
            places = (values[~np.isinf(values)].astype(np.float64) - self.low) * (BINS / (self.high - self.low))
            self.counts += np.bincount(np.minimum(places.astype(np.int64), BINS - 1), minlength=BINS)

    @property
    def centres(self) -> Counts:
        """Middle of each bin."""
        edges = np.linspace(self.low, self.high, BINS + 1)
        return np.asarray((edges[1:] + edges[:-1]) / 2)


def observe(passes: Callable[[], Iterable[Mapping[str, Floats]]]) -> dict[str, Observed]:
    """What activations hold, in two passes over the calibration windows.

    Args:
        passes: gives, each time it is called, the same chunks of windows: activation name to float32 `[windows, …]`.
    """
    found: dict[str, Observed] = {}
    for chunk in passes():
        for name, values in chunk.items():
            found.setdefault(name, Observed()).see_extremes(values)
    for chunk in passes():
        for name, values in chunk.items():
            found[name].count(values)
    return found


def range_of(seen: Observed, observer: Observer, share: float = 0.9999) -> Range:
    """The range of an activation; it holds 0, which padding and ReLU need exactly.

    | observer | range |
    |---|---|
    | minmax | of all values |
    | moving_average | of each window's extremes, averaged with factor .95: what the TFLite quantizer does by itself |
    | percentile | leaves out 1 − `share` of the values, half of it at each end |
    | mse | the least squared error of values rounded and clipped to it |
    | entropy | the least Kullback-Leibler divergence of the values' distribution from the rounded one (Migacz 2017) |

    Raises:
        EdgeError: an unknown observer, a share that is none, or an activation that was not observed.
    """
    if observer not in OBSERVERS:
        raise EdgeError(f"Unknown observer {observer!r}; choose one of {', '.join(OBSERVERS)}.")
    if not np.isfinite([seen.low, seen.high]).all():
        raise EdgeError("An activation was never observed, or holds no finite value; give calibration windows.")
    if observer == "moving_average":
        return _with_zero(seen.mean_low, seen.mean_high)
    whole = _with_zero(seen.low, seen.high)
    if observer == "minmax" or not seen.counts.any():
        return whole
    if observer == "percentile":
        if not 0.5 < share <= 1:
            raise EdgeError(f"The percentile observer keeps a share of {share:g}; give more than 0.5, up to 1.")
        return _percentile(seen, share)
    cost = squared_error if observer == "mse" else divergence
    candidates = list(_candidates(whole))
    costs = [cost(seen, one) for one in candidates]
    return candidates[int(np.argmin(costs))]


def _with_zero(low: float, high: float) -> Range:
    return min(low, 0.0), max(high, 0.0)


def _percentile(seen: Observed, share: float) -> Range:
    edges = np.linspace(seen.low, seen.high, BINS + 1)
    below = np.concatenate([[0.0], np.cumsum(seen.counts)]) / seen.counts.sum()
    left = (1.0 - share) / 2.0
    # A one-sided activation (behind a ReLU) has its least value in many places: nothing is cut there.
    low = edges[max(0, int(np.searchsorted(below, left, side="right")) - 1)]
    high = edges[min(BINS, int(np.searchsorted(below, 1.0 - left, side="left")))]
    return _with_zero(float(low), float(high))


def _candidates(whole: Range) -> Iterable[Range]:
    """Ranges to try: each end drawn in by itself, and both together."""
    low, high = whole
    shares = np.geomspace(NARROWEST, 1.0, 33)[::-1]
    lows = [low] if low == 0.0 else [float(low * share) for share in shares]
    highs = [high] if high == 0.0 else [float(high * share) for share in shares]
    return ((one, other) for one in lows for other in highs)


def squared_error(seen: Observed, candidate: Range) -> float:
    """Mean squared error of the observed values, rounded to 255 steps of a range and clipped at its ends."""
    centres = seen.centres
    scale = (candidate[1] - candidate[0]) / STEPS or 1.0
    rounded = candidate[0] + scale * np.round((np.clip(centres, *candidate) - candidate[0]) / scale)
    # Within a bin, and within a step, values are spread evenly: what rounding leaves of a bin centre alone would be 0 for a step
    # that is finer than a bin.
    inside = (centres >= candidate[0]) & (centres <= candidate[1])
    error = np.where(inside, scale**2 / 12.0, np.square(centres - rounded))
    return float((seen.counts * error).sum() / seen.counts.sum())


def divergence(seen: Observed, candidate: Range) -> float:
    """Kullback-Leibler divergence of the distribution, clipped to a range, from the same rounded to 255 steps of it."""
    centres = seen.centres
    inside = (centres >= candidate[0]) & (centres <= candidate[1])
    if inside.sum() < STEPS:
        return np.inf
    counts = seen.counts[inside].copy()
    levels = np.minimum(np.arange(len(counts)) * STEPS // len(counts), STEPS - 1)
    filled = counts > 0
    in_level = np.bincount(levels, counts, STEPS)
    used = np.bincount(levels, filled, STEPS)
    rounded = np.where(filled, (in_level / np.maximum(used, 1))[levels], 0.0)
    counts[0] += seen.counts[centres < candidate[0]].sum()
    counts[-1] += seen.counts[centres > candidate[1]].sum()
    p, q = counts / counts.sum(), np.maximum(rounded, 1e-12) / max(rounded.sum(), 1e-12)
    some = p > 0
    return float((p[some] * np.log(p[some] / q[some])).sum())
