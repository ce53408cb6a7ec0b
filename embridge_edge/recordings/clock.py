"""Timestamps: to seconds, to the places where samples are missing, and to an even grid."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.compiled import compiled
from embridge_edge.recordings.description import CLOCK_CODES, ClockRule

Seconds = npt.NDArray[np.float64]


def seconds(groups: npt.NDArray[np.float64], rule: ClockRule) -> Seconds:
    """Seconds from the numbers of a timestamp, float64 `[rows, groups]`.

    A clock without a date that passes midnight (or noon, if it has twelve hours) goes on counting.
    """
    if not rule.format:
        return np.asarray(groups[:, 0] * rule.unit_s)
    parts = np.zeros((6, len(groups)))
    for index, code in enumerate(rule.codes):
        parts[CLOCK_CODES[code]] = groups[:, index]
    if "I" in rule.codes:
        parts[3] %= 12.0
    time = parts[3] * 3600.0 + parts[4] * 60.0 + parts[5]
    if rule.period_s is None:
        dates, which = np.unique(parts[:3].astype(np.int64), axis=1, return_inverse=True)
        days = [_day(*(int(value) for value in date)) for date in dates.T]
        return np.asarray(time + 86400.0 * np.array(days, np.float64)[which.ravel()])
    turns = np.zeros(len(time))
    turns[1:] = np.cumsum(np.diff(time) < -rule.period_s / 2)
    return np.asarray(time + turns * rule.period_s)


def _day(year: int, month: int, day: int) -> int:
    try:
        return datetime.date(year + 2000 if year < 100 else year, max(1, month), day).toordinal()
    except ValueError:
        return 0


def lay_beside(companion: Seconds, rule: ClockRule, own: Seconds, own_rule: ClockRule) -> Seconds:
    """The companion's times on the clock of `own`: where either repeats, the nearest turn is meant.

    A clock with a date and one without are compared by their time of day, and one of twelve hours by its half day.
    """
    periods = [period for period in (rule.period_s, own_rule.period_s) if period is not None]
    if not periods or not len(companion) or not len(own):
        return companion
    period = min(periods)
    turns = np.round((np.median(own) - np.median(companion)) / period)
    return np.asarray(companion + turns * period)


@dataclass(frozen=True)
class ClockFindings:
    """What a clock says about the samples.

    Attributes:
        jumps: indices of the samples before which time is missing.
        lost_s: how much is missing in all.
        rate_hz: median number of samples per second over stretches of a second.
        backwards: index of the first sample that is stamped earlier than the one before it, or None.
    """

    jumps: npt.NDArray[np.int64]
    lost_s: float
    rate_hz: float
    backwards: int | None


def study(time: Seconds, rate_hz: float, jump_ms: float) -> ClockFindings:
    """Find where the clock runs ahead of evenly sampled data, at once or creeping, by more than `jump_ms`.

    A smoothed clock hides where single samples were lost; then a jump is put wherever the missing time has added up.
    """
    samples = len(time)
    if samples < 3:
        return ClockFindings(np.zeros(0, np.int64), 0.0, rate_hz, None)
    step = np.diff(time)
    early = np.flatnonzero(step < -1e-9)
    stretch = max(1, min(round(rate_hz), samples - 1))
    passed = time[stretch::stretch] - time[:-stretch:stretch][: len(time[stretch::stretch])]
    usual = float(np.median(passed)) / stretch
    if not usual > 0:
        return ClockFindings(np.zeros(0, np.int64), 0.0, rate_hz, int(early[0]) + 1 if len(early) else None)
    found, lost = np.empty(samples, np.int64), np.zeros(1)
    count = _jumps(np.ascontiguousarray(time), usual, jump_ms / 1000.0, found, lost)
    return ClockFindings(found[:count].copy(), float(lost[0]), 1.0 / usual, int(early[0]) + 1 if len(early) else None)


@compiled("int64(float64[::1],float64,float64,int64[::1],float64[::1])")
def _jumps(time: Any, usual_s: float, jump_s: float, found: Any, lost: Any) -> int:
    """Where `time` has run away from an even clock of step `usual_s` by more than `jump_s`, counted anew each time.

    The samples go to `found`, what is missing in seconds to `lost[0]`. Returns: how many they are.
    """
    count = 0
    lost[0] = 0.0
    level = 0.0
    for i in range(len(time)):
        moved = time[i] - time[0] - usual_s * i - level
        if abs(moved) > jump_s:
            found[count] = i
            count += 1
            lost[0] += max(0.0, moved)
            level += moved
    return count


def gaps(time: Seconds, jump_ms: float) -> npt.NDArray[np.int64]:
    """Indices of the samples of an uneven clock that come more than `jump_ms` after the one before, or before it."""
    step = np.diff(time)
    return np.flatnonzero((step > jump_ms / 1000.0) | (step < 0)) + 1


def interpolate(
    grid: Seconds, time: Seconds, values: npt.NDArray[np.float32], max_gap_s: float = float("inf")
) -> npt.NDArray[np.float32]:
    """Values `[rows, columns]` at the times `grid`, by straight lines; NaN outside, at NaN and in long gaps."""
    result = np.full((len(grid), values.shape[1]), np.nan, np.float32)
    if not len(time):
        return result
    order = np.argsort(time, kind="stable") if (np.diff(time) < 0).any() else slice(None)
    time, values = time[order], values[order]
    after = np.clip(np.searchsorted(time, grid, side="right"), 1, max(1, len(time) - 1))
    inside = (grid >= time[0]) & (grid <= time[-1])
    if len(time) > 1:
        inside &= time[after] - time[after - 1] <= max_gap_s
    for column in range(values.shape[1]):
        result[inside, column] = np.interp(grid[inside], time, values[:, column])
    return result
