"""The compiled part of `prediction`: eight rows at once."""

from __future__ import annotations

from numba.extending import register_jitable

from embridge_edge.features.lanes import WIDTH, choose, gather, load, scatter, single, spread, store, wide

_BLOCK = 32
"""Terms of a sum in float32 before it goes to float64."""
_EXHAUSTED = 1e-10
"""Share of the power below which the residual is rounding: what is left cannot be predicted further."""


@register_jitable
def _cepstrum(a, order, theirs, c):  # type: ignore[no-untyped-def]
    for n in range(order):
        found = wide(0.0)
        if theirs:
            if order > 2:
                for k in range(1, n):
                    found += load(a, WIDTH * n) * load(c, WIDTH * (n - k)) * (1.0 - k / n)
        else:
            for k in range(1, n + 1):
                found += load(a, WIDTH * (k - 1)) * load(c, WIDTH * (n - k)) * (1.0 - k / (n + 1))
        found = wide(0.0) - load(a, WIDTH * n) - found
        if theirs and order == 2 and n == 1:
            found = wide(0.0)
        store(c, WIDTH * n, found)


def burg(base, offsets, length, order, cepstral, theirs, work, coefficients, out):  # type: ignore[no-untyped-def]
    """Columns: a_1 to a_order, then, where `cepstral` is set, c_1 to c_order.

    Args:
        theirs: LibEMG's recursion for c. work: float32, `8 × 2 length`. coefficients: float64, `8 × 2 order`.
    """
    behind = WIDTH * length
    other = WIDTH * order
    pairs = length - 1
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, 0)
        # Forward errors at 0, backward ones at `behind`; before the first stage both are the samples.
        product = wide(0.0)
        power = wide(0.0)
        for block in range(0, pairs, _BLOCK):
            product_here = spread(0.0)
            power_here = spread(0.0)
            for i in range(block, min(block + _BLOCK, pairs)):
                b = load(work, WIDTH * i)
                f = load(work, WIDTH * (i + 1))
                store(work, behind + WIDTH * i, b)
                product_here += b * f
                power_here += b * b + f * f
            product += wide(product_here)
            power += wide(power_here)
        least = power * _EXHAUSTED
        for stage in range(order):
            k = choose(power > least, product * -2.0 / power, wide(0.0))
            store(coefficients, WIDTH * stage, k)
            for j in range((stage + 1) // 2):
                mirror = stage - 1 - j
                left = load(coefficients, WIDTH * j)
                right = load(coefficients, WIDTH * mirror)
                store(coefficients, WIDTH * j, left + k * right)
                store(coefficients, WIDTH * mirror, right + k * left)
            if stage + 1 == order:
                break
            reflection = single(k)
            pairs_left = pairs - stage
            ahead = WIDTH * (stage + 1)
            f = load(work, ahead)
            b = load(work, behind)
            first_f = f + reflection * b
            before = b + reflection * f
            store(work, behind, before)
            product = wide(0.0)
            for block in range(1, pairs_left, _BLOCK):
                here = spread(0.0)
                for i in range(block, min(block + _BLOCK, pairs_left)):
                    f = load(work, ahead + WIDTH * i)
                    b = load(work, behind + WIDTH * i)
                    f, b = f + reflection * b, b + reflection * f
                    store(work, ahead + WIDTH * i, f)
                    store(work, behind + WIDTH * i, b)
                    here += f * before
                    before = b
                product += wide(here)
            lost = wide(first_f)
            left_over = wide(before)
            power = (1.0 - k * k) * power - left_over * left_over - lost * lost
        for j in range(order):
            scatter(single(load(coefficients, WIDTH * j)) + spoilt, first, j, out)
        if cepstral:
            cepstrum = coefficients[other:]
            _cepstrum(coefficients, order, theirs, cepstrum)
            for j in range(order):
                scatter(single(load(cepstrum, WIDTH * j)) + spoilt, first, order + j, out)
