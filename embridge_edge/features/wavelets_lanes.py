"""The compiled part of `wavelets`: eight rows at once."""

from __future__ import annotations

from numba.extending import register_jitable

from embridge_edge.features.lanes import (
    WIDTH,
    choose,
    gather,
    load,
    magnitude,
    scatter,
    single,
    spread,
    store,
    wide,
)
from embridge_edge.features.logarithm import log32

TAPS = 16
_BLOCK = 32
"""Terms of a sum in float32 before it goes to float64: an eighth of the cost, and a hundredth of the rounding."""
_FLOOR = 1e-10


@register_jitable
def _extend(work, start, count):  # type: ignore[no-untyped-def]
    """Mirror `count` values at both ends, edge values twice, and again where the ends are longer than the row."""
    if count >= TAPS - 1:
        end = start + WIDTH * (count - 1)
        for i in range(1, TAPS):
            store(work, start - WIDTH * i, load(work, start + WIDTH * (i - 1)))
            store(work, end + WIDTH * i, load(work, end - WIDTH * (i - 1)))
        return
    for i in range(1, TAPS):
        before = (i - 1) % (2 * count)
        before = min(before, 2 * count - 1 - before)
        after = (count - 1 + i) % (2 * count)
        after = min(after, 2 * count - 1 - after)
        store(work, start - WIDTH * i, load(work, start + WIDTH * before))
        store(work, start + WIDTH * (count - 1 + i), load(work, start + WIDTH * after))


@register_jitable
def _split(work, start, count, low, high, smooth, detail):  # type: ignore[no-untyped-def]
    """One level: from `count` values at `start` to (count + 15) / 2 at `smooth` and as many at `detail`."""
    made = (count + TAPS - 1) // 2
    i = 0
    # Four neighbours share each coefficient that is loaded; the last four overlap those before.
    while True:
        a = spread(0.0)
        b = spread(0.0)
        c = spread(0.0)
        d = spread(0.0)
        e = spread(0.0)
        f = spread(0.0)
        g = spread(0.0)
        h = spread(0.0)
        at = start + WIDTH * (2 * i + 1)
        for tap in range(TAPS):
            falling = spread(low[tap])
            rising = spread(high[tap])
            x = load(work, at)
            a += x * falling
            e += x * rising
            x = load(work, at + 2 * WIDTH)
            b += x * falling
            f += x * rising
            x = load(work, at + 4 * WIDTH)
            c += x * falling
            g += x * rising
            x = load(work, at + 6 * WIDTH)
            d += x * falling
            h += x * rising
            at -= WIDTH
        store(work, smooth + WIDTH * i, a)
        store(work, smooth + WIDTH * (i + 1), b)
        store(work, smooth + WIDTH * (i + 2), c)
        store(work, smooth + WIDTH * (i + 3), d)
        store(work, detail + WIDTH * i, e)
        store(work, detail + WIDTH * (i + 1), f)
        store(work, detail + WIDTH * (i + 2), g)
        store(work, detail + WIDTH * (i + 3), h)
        if i + 4 == made:
            return made
        i = min(i + 4, made - 4)


@register_jitable
def _describe(work, start, count, variance, entropy, nothing, spoilt, first, column, columns, out):  # type: ignore[no-untyped-def]
    """The four features of `count` coefficients, which are replaced by their squares."""
    energy = wide(0.0)
    path = wide(0.0)
    before = load(work, start)
    before = before * before
    for block in range(0, count, _BLOCK):
        sum_here = spread(0.0)
        path_here = spread(0.0)
        for i in range(block, min(block + _BLOCK, count)):
            x = load(work, start + WIDTH * i)
            x = x * x
            store(work, start + WIDTH * i, x)
            sum_here += x
            path_here += magnitude(x - before)
            before = x
        energy += wide(sum_here)
        path += wide(path_here)
    scatter(log32(single(energy + _FLOOR)) + spoilt, first, column, out)
    scatter(log32(single(path + _FLOOR)) + spoilt, first, 2 * columns + column, out)
    if variance:
        mean = single(energy * (1.0 / count))
        spread_out = wide(0.0)
        for block in range(0, count, _BLOCK):
            here = spread(0.0)
            for i in range(block, min(block + _BLOCK, count)):
                x = load(work, start + WIDTH * i) - mean
                here += x * x
            spread_out += wide(here)
        scatter(log32(single(spread_out * (1.0 / count) + _FLOOR)) + spoilt, first, columns + column, out)
    if entropy:
        share = spread(1.0) / single(energy)
        disorder = wide(0.0)
        for block in range(0, count, _BLOCK):
            here = spread(0.0)
            for i in range(block, min(block + _BLOCK, count)):
                p = load(work, start + WIDTH * i) * share
                here += choose(p > 0.0, p * log32(p), spread(nothing))
            disorder += wide(here)
        scatter(spoilt - single(disorder), first, 3 * columns + column, out)


def describe(base, offsets, length, levels, low, high, variance, entropy, nothing, work, out):  # type: ignore[no-untyped-def]
    """Columns: WENG, WV, WWL and WENT, each smooth part first, then the details from the coarsest to the finest.

    Args:
        low, high: float32 `[16]`, the filters. variance, entropy: whether WV and WENT are wanted; the others come for nothing.
        nothing: what 0 · log 0 is. work: float32, `8 × 3 × (longest + 32)`, `longest` being the length or 15.
    """
    room = WIDTH * (max(length, TAPS - 1) + 2 * TAPS)
    detail = 2 * room
    columns = levels + 1
    for first in range(0, len(offsets), WIDTH):
        here = WIDTH * (TAPS - 1)
        there = room + WIDTH * (TAPS - 1)
        spoilt = gather(base, offsets, first, length, work, here)
        count = length
        for level in range(levels):
            _extend(work, here, count)
            count = _split(work, here, count, low, high, there, detail)
            _describe(work, detail, count, variance, entropy, nothing, spoilt, first, levels - level, columns, out)
            here, there = there, here
        _describe(work, here, count, variance, entropy, nothing, spoilt, first, 0, columns, out)
