"""Real Fourier transform of eight rows at once, in float32, for use inside compiled functions.

A library's transform of many short rows pays for a plan, a copy and a layout per call, and vectorises within a row. Here each
lane is a row (see `lanes`), so that every instruction does eight rows and a row's bits do not depend on its neighbours.

Even and odd samples are the real and imaginary parts of half as many complex numbers (Sorensen, Jones, Heideman and Burrus,
"Real-valued fast Fourier transform algorithms", IEEE TASSP 35(6), 1987), whose transform is the self-sorting one of Stockham
("High-speed convolution and correlation", AFIPS 28, 1966) in steps of four and, where needed, one of two.
"""

from __future__ import annotations

from numba.extending import register_jitable

from embridge_edge.features.lanes import WIDTH, load, spread_from, store

_IMAGINARY = WIDTH
_PAIR = 2 * WIDTH
"""Numbers between one complex value of the eight rows and the next: eight real parts, then eight imaginary ones."""


@register_jitable(forceinline=True)
def _crossed(work, source, apart):  # type: ignore[no-untyped-def]
    """The transform of four complex numbers that lie `apart`."""
    ar = load(work, source)
    ai = load(work, source + _IMAGINARY)
    br = load(work, source + apart)
    bi = load(work, source + apart + _IMAGINARY)
    cr = load(work, source + 2 * apart)
    ci = load(work, source + 2 * apart + _IMAGINARY)
    dr = load(work, source + 3 * apart)
    di = load(work, source + 3 * apart + _IMAGINARY)
    even_r = ar + cr
    even_i = ai + ci
    odd_r = br + dr
    odd_i = bi + di
    ar = ar - cr
    ai = ai - ci
    cr = bi - di
    ci = dr - br
    return even_r + odd_r, even_i + odd_i, ar + cr, ai + ci, even_r - odd_r, even_i - odd_i, ar - cr, ai - ci


@register_jitable(forceinline=True)
def _four(work, source, apart, target, step):  # type: ignore[no-untyped-def]
    """Four numbers that lie `apart` to their transform, `step` apart."""
    ar, ai, br, bi, cr, ci, dr, di = _crossed(work, source, apart)
    store(work, target, ar)
    store(work, target + _IMAGINARY, ai)
    store(work, target + step, br)
    store(work, target + step + _IMAGINARY, bi)
    store(work, target + 2 * step, cr)
    store(work, target + 2 * step + _IMAGINARY, ci)
    store(work, target + 3 * step, dr)
    store(work, target + 3 * step + _IMAGINARY, di)


@register_jitable(forceinline=True)
def _four_turned(work, source, apart, target, step, ur, ui, vr, vi, wr, wi):  # type: ignore[no-untyped-def]
    """The same, with the last three turned by the roots of unity u, v and w."""
    ar, ai, br, bi, cr, ci, dr, di = _crossed(work, source, apart)
    store(work, target, ar)
    store(work, target + _IMAGINARY, ai)
    store(work, target + step, br * ur - bi * ui)
    store(work, target + step + _IMAGINARY, br * ui + bi * ur)
    store(work, target + 2 * step, cr * vr - ci * vi)
    store(work, target + 2 * step + _IMAGINARY, cr * vi + ci * vr)
    store(work, target + 3 * step, dr * wr - di * wi)
    store(work, target + 3 * step + _IMAGINARY, dr * wi + di * wr)


@register_jitable
def _quarter_first(work, x, y, points, inner):  # type: ignore[no-untyped-def]
    """The first step of four: `points` complex numbers from x on to y."""
    apart = points // 4 * _PAIR
    w = 0
    for source in range(x, x + apart, _PAIR):
        _four_turned(
            work,
            source,
            apart,
            y + 4 * (source - x),
            _PAIR,
            spread_from(inner, w),
            spread_from(inner, w + 1),
            spread_from(inner, w + 2),
            spread_from(inner, w + 3),
            spread_from(inner, w + 4),
            spread_from(inner, w + 5),
        )
        w += 6


@register_jitable
def _quarter(work, x, y, points, stride, inner, w):  # type: ignore[no-untyped-def]
    """A further step of four: `stride` interleaved transforms of `points` complex numbers from x on to y."""
    part = points // 4
    step = stride * _PAIR
    apart = part * step
    for k in range(0, step, _PAIR):
        _four(work, x + k, apart, y + k, step)
    for p in range(1, part):
        w += 6
        ur = spread_from(inner, w)
        ui = spread_from(inner, w + 1)
        vr = spread_from(inner, w + 2)
        vi = spread_from(inner, w + 3)
        wr = spread_from(inner, w + 4)
        wi = spread_from(inner, w + 5)
        source = x + p * step
        target = y + 4 * p * step
        for k in range(0, step, _PAIR):
            _four_turned(work, source + k, apart, target + k, step, ur, ui, vr, vi, wr, wi)


@register_jitable
def _transform(work, size, inner):  # type: ignore[no-untyped-def]
    """Complex transform of `size / 2` pairs of samples; returns where in `work` the result begins."""
    x = 0
    y = WIDTH * size
    points = size // 2
    stride = 1
    at = 0
    if points >= 4:
        _quarter_first(work, x, y, points, inner)
        at = 6 * (points // 4)
        points //= 4
        stride = 4
        x, y = y, x
    while points >= 4:
        _quarter(work, x, y, points, stride, inner, at)
        at += 6 * (points // 4)
        points //= 4
        stride *= 4
        x, y = y, x
    if points == 2:
        apart = stride * _PAIR
        for i in range(0, apart, WIDTH):
            left = load(work, x + i)
            right = load(work, x + i + apart)
            store(work, y + i, left + right)
            store(work, y + i + apart, left - right)
        x = y
    return x


@register_jitable(forceinline=True)
def _pair(work, z, half, k, outer):  # type: ignore[no-untyped-def]
    """Bins k and half − k of the real transform from the complex one at z: real and imaginary part of each."""
    near = z + k * _PAIR
    far = z + (half - k) * _PAIR
    ar = load(work, near)
    ai = load(work, near + _IMAGINARY)
    br = load(work, far)
    bi = load(work, far + _IMAGINARY)
    even_r = (ar + br) * 0.5
    even_i = (ai - bi) * 0.5
    odd_r = (ai + bi) * 0.5
    odd_i = (br - ar) * 0.5
    wr = spread_from(outer, 2 * k)
    wi = spread_from(outer, 2 * k + 1)
    turned_r = odd_r * wr - odd_i * wi
    turned_i = odd_r * wi + odd_i * wr
    return even_r + turned_r, even_i + turned_i, even_r - turned_r, turned_i - even_i


@register_jitable
def power(work, size, inner, outer, out):  # type: ignore[no-untyped-def]
    """|X|² of the bins 0 to size/2 of eight rows: work[out + 8 k + l] is bin k of row l.

    Args:
        work: float32, begins with `16 × size` of which the first half holds the samples, work[8 i + l] for sample i of row l; these
            are overwritten.
        size: a power of two, 2 or more.
        inner, outer: roots of unity as `spectra.turns(size)` gives them.
        out: where in `work`, past those, the `8 × (size / 2 + 1)` results go.
    """
    z = _transform(work, size, inner)
    half = size // 2
    r = load(work, z)
    i = load(work, z + _IMAGINARY)
    sum_all = r + i
    alternating = r - i
    store(work, out, sum_all * sum_all)
    store(work, out + half * WIDTH, alternating * alternating)
    for k in range(1, size // 4 + 1):
        r, i, s, j = _pair(work, z, half, k, outer)
        store(work, out + k * WIDTH, r * r + i * i)
        store(work, out + (half - k) * WIDTH, s * s + j * j)


@register_jitable
def spectrum(work, size, inner, outer, out):  # type: ignore[no-untyped-def]
    """X of the bins 1 to size/2 − 1 of eight rows: its parts are work[out + 16 k + l] and work[out + 16 k + 8 + l].

    All else is as in `power`, the results are `8 × size`.
    """
    z = _transform(work, size, inner)
    half = size // 2
    for k in range(1, size // 4 + 1):
        r, i, s, j = _pair(work, z, half, k, outer)
        store(work, out + k * _PAIR, r)
        store(work, out + k * _PAIR + _IMAGINARY, i)
        store(work, out + (half - k) * _PAIR, s)
        store(work, out + (half - k) * _PAIR + _IMAGINARY, j)
