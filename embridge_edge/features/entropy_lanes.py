"""The compiled part of `entropy`: eight rows at once."""

from __future__ import annotations

import math

from numba.extending import register_jitable

from embridge_edge.features.lanes import (
    WIDTH,
    choose,
    gather,
    item,
    least,
    load,
    magnitude,
    most,
    root,
    single,
    spread,
    store,
    whole,
    wide,
)
from embridge_edge.features.logarithm import decay32

_NEVER = 2.0**-52
"""Added to both counts, so that none is 0."""


@register_jitable
def _deviation(work, length):  # type: ignore[no-untyped-def]
    """Standard deviation of each row, exactly 0 for equal samples."""
    level = wide(0.0)
    lowest = load(work, 0)
    highest = lowest
    for i in range(length):
        x = load(work, WIDTH * i)
        level += wide(x)
        lowest = least(x, lowest)
        highest = most(x, highest)
    mean = level * (1.0 / length)
    power = wide(0.0)
    for i in range(length):
        x = wide(load(work, WIDTH * i)) - mean
        power += x * x
    return choose(highest > lowest, single(root(power * (1.0 / length))), spread(0.0))


def sample(base, offsets, length, dimension, tolerance, work, out):  # type: ignore[no-untyped-def]
    """Sample entropy of each row into the only column; `work` is float32, `8 × length`."""
    none = whole(spread(0.0))
    shorter = none + (dimension - 1)
    longer = none + dimension
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, 0)
        deviation = _deviation(work, length)
        within = deviation * tolerance
        short = none
        long = none
        for lag in range(1, length - dimension + 1):
            run = none
            distance = WIDTH * lag
            short_here = none
            long_here = none
            last_short = none
            last_long = none
            for at in range(0, WIDTH * (length - lag), WIDTH):
                same = magnitude(load(work, at) - load(work, at + distance)) <= within
                # A mask is −1 where true, so that taking it off counts; runs of matches are as long as the patterns they hold.
                run = (run - same) & same
                last_short = run > shorter
                last_long = run > longer
                short_here -= last_short
                long_here -= last_long
            # Each pair counts from both its ends, but the last pattern of a row is never one that others are compared with.
            short += short_here + short_here + last_short
            long += long_here + long_here + last_long
        for lane in range(min(WIDTH, len(offsets) - first)):
            out[first + lane, 0] = item(spoilt, lane)
            if item(deviation, lane) > 0.0:
                share = 1.0 / (length - dimension - 1.0)
                often = item(short, lane) * share / (length - dimension)
                rarely = item(long, lane) * share / (length - dimension - 1.0)
                out[first + lane, 0] += math.log((often + _NEVER) / (rarely + _NEVER))


@register_jitable
def _raised(top, bottom, level, size, power):  # type: ignore[no-untyped-def]
    """The distance of two patterns, to `power`, whose differences are at most, at least and in sum this."""
    mean = level * (1.0 / size)
    distance = most(top - mean, mean - bottom)
    raised = distance
    for _ in range(1, power):
        raised = raised * distance
    return raised


@register_jitable
def _likeness(work, start, count, rate):  # type: ignore[no-untyped-def]
    """Sum of exp(rate · x); but half of the last one, as no pattern is compared with the last one of a row."""
    found = wide(0.0)
    for i in range(count):
        found += wide(decay32(load(work, start + WIDTH * i) * rate))
    return found - wide(decay32(load(work, start + WIDTH * (count - 1)) * rate)) * 0.5


def fuzzy(base, offsets, length, dimension, tolerance, power, undefined, work, out):  # type: ignore[no-untyped-def]
    """Fuzzy entropy of each row into the only column.

    Args:
        undefined: the result for equal samples. work: float32, `8 × 4 length`.
    """
    gap = WIDTH * length
    near = 2 * gap
    far = 3 * gap
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, 0)
        deviation = _deviation(work, length)
        rate = spread(-1.0) / (deviation * tolerance)
        short = wide(0.0)
        long = wide(0.0)
        for lag in range(1, length - dimension + 1):
            pairs = length - lag
            for i in range(pairs):
                store(work, gap + WIDTH * i, load(work, WIDTH * i) - load(work, WIDTH * (i + lag)))
            for i in range(pairs - dimension + 1):
                at = gap + WIDTH * i
                top = load(work, at)
                bottom = top
                level = top
                for _ in range(1, dimension):
                    at += WIDTH
                    x = load(work, at)
                    top = most(x, top)
                    bottom = least(x, bottom)
                    level += x
                store(work, near + WIDTH * i, _raised(top, bottom, level, dimension, power))
                # Past the last pattern of the longer ones this reads the room after the differences; nothing uses the result.
                x = load(work, at + WIDTH)
                x = _raised(most(x, top), least(x, bottom), level + x, dimension + 1, power)
                store(work, far + WIDTH * i, x)
            short += _likeness(work, near, pairs - dimension + 1, rate)
            if pairs > dimension:
                long += _likeness(work, far, pairs - dimension, rate)
        for lane in range(min(WIDTH, len(offsets) - first)):
            if item(deviation, lane) > 0.0:
                templates = length - dimension
                often = 2.0 * item(short, lane) / (templates - 1.0) / templates
                rarely = 2.0 * item(long, lane) / (templates - 2.0) / (templates - 1.0)
                out[first + lane, 0] = math.log((often + _NEVER) / (rarely + _NEVER)) + item(spoilt, lane)
            else:
                out[first + lane, 0] = undefined + item(spoilt, lane)
