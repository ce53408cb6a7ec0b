"""The compiled part of `ranks`: eight rows at once."""

from __future__ import annotations

from numba.extending import register_jitable

from embridge_edge.features.lanes import WIDTH, bits, floats, gather, least, load, most, scatter, single, store, wide


@register_jitable
def _flipped(x):  # type: ignore[no-untyped-def]
    """The bits of float32 as integers of the same order, and back: below 0 all bits but the sign turn over.

    Besides ordering a NaN, whole numbers have a minimum that LLVM does not rewrite as a store under a mask, which is slow.
    """
    return x ^ ((x >> 31) & 0x7FFFFFFF)


@register_jitable
def _sort(work, count):  # type: ignore[no-untyped-def]
    """Sort each lane upwards by merge exchange: which samples are compared depends on `count` alone, so nothing branches.

    Batcher, "Sorting networks and their applications", AFIPS 32, 1968; in the form for any count of Knuth, "The Art of Computer
    Programming", volume 3, 1998, algorithm 5.2.2M.
    """
    for i in range(count):
        store(work, WIDTH * i, floats(_flipped(bits(load(work, WIDTH * i)))))
    top = 1
    while 2 * top < count:
        top *= 2
    p = top
    while p > 0:
        q = top
        r = 0
        apart = p
        while True:
            for block in range(r, count - apart, 2 * p):
                for i in range(block, min(block + p, count - apart)):
                    low = bits(load(work, WIDTH * i))
                    high = bits(load(work, WIDTH * (i + apart)))
                    store(work, WIDTH * i, floats(least(low, high)))
                    store(work, WIDTH * (i + apart), floats(most(low, high)))
            if q == p:
                break
            apart = q - p
            q //= 2
            r = p
        p //= 2


def scale(base, offsets, length, work, out):  # type: ignore[no-untyped-def]
    """The second L-moment of each row into the only column; `work` is float32, `8 × length`."""
    step = 2.0 / (length - 1)
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, 0)
        _sort(work, length)
        found = wide(0.0)
        for i in range(length):
            x = floats(_flipped(bits(load(work, WIDTH * i))))
            found += wide(x) * (step * i - 1.0)
        scatter(single(found * (1.0 / length)) + spoilt, first, 0, out)
