"""The compiled part of `spectra`: eight rows at once."""

from __future__ import annotations

from numba.extending import register_jitable

from embridge_edge.features.fourier import power, spectrum
from embridge_edge.features.lanes import (
    WIDTH,
    choose,
    gather,
    load,
    most,
    root,
    scatter,
    single,
    spread,
    store,
    wide,
)
from embridge_edge.features.logarithm import exp32, log32


@register_jitable
def _pad(work, length, size):  # type: ignore[no-untyped-def]
    for i in range(length, size):
        store(work, WIDTH * i, spread(0.0))


@register_jitable
def _two_thirds(x):  # type: ignore[no-untyped-def]
    """x to the power of 2/3: a rough cube root, then one step of Newton's."""
    near = exp32(log32(x) * (1.0 / 3.0))
    near = near - (near - x / (near * near)) * (1.0 / 3.0)
    return choose(x > 0.0, near * near, spread(0.0))


def describe(  # type: ignore[no-untyped-def]
    base,
    offsets,
    length,
    size,
    inner,
    outer,
    median,
    frequencies,
    mean,
    weights,
    moment,
    level,
    bins,
    silent,
    work,
    out,
):
    """Columns: MDF, MNF, MNP, SM, then DFTR's bands; the first four only where `median`, `mean`, `level` or `moment` is set.

    Args:
        frequencies, weights: float64 `[size / 2]`, hertz of each bin and what SM weighs it with.
        bins: int64 `[bands × 2]`, first bin of each band and the one after its last.
        silent: mean and median frequency of a row without power, and DFTR of a band without bins.
        work: float32, `8 × (2 size + size / 2 + 1)`.
    """
    half = size // 2
    powers = 2 * WIDTH * size
    shrink = 1.0 / length
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, 0)
        _pad(work, length, size)
        power(work, size, inner, outer, powers)
        total = wide(0.0)
        if median or mean or level:
            for k in range(half):
                total += wide(load(work, powers + WIDTH * k))
            scatter(single(total * (shrink * shrink / half)) + spoilt, first, 2, out)
        if median:
            running = wide(0.0)
            at = wide(0.0)
            middle = total * 0.5
            for k in range(half):
                running += wide(load(work, powers + WIDTH * k))
                at = choose(running > middle, at, at + 1.0)
            place = choose(total > 0.0, at * frequencies[1] if half > 1 else at * 0.0, wide(silent))
            scatter(single(place) + spoilt, first, 0, out)
        if mean:
            weighted = wide(0.0)
            for k in range(half):
                weighted += wide(load(work, powers + WIDTH * k)) * frequencies[k]
            scatter(single(choose(total > 0.0, weighted / total, wide(silent))) + spoilt, first, 1, out)
        if moment:
            weighted = wide(0.0)
            for k in range(half):
                weighted += wide(load(work, powers + WIDTH * k)) * weights[k]
            scatter(single(weighted * (shrink * shrink)) + spoilt, first, 3, out)
        for band in range(len(bins) // 2):
            start = bins[2 * band]
            stop = bins[2 * band + 1]
            found = spread(silent)
            if stop > start:
                found = spread(0.0)
                for k in range(start, stop):
                    found += root(load(work, powers + WIDTH * k))
                found = _two_thirds(found * (shrink / (stop - start)))
            scatter(found + spoilt, first, 4 + band, out)


@register_jitable
def _window(work, length, weights):  # type: ignore[no-untyped-def]
    """Take each row's mean off and weigh its samples."""
    level = wide(0.0)
    for i in range(length):
        level += wide(load(work, WIDTH * i))
    mean = single(level * (1.0 / length))
    for i in range(length):
        store(work, WIDTH * i, (load(work, WIDTH * i) - mean) * weights[i])


def band_powers(base, offsets, length, size, inner, outer, weights, scale, bins, work, out):  # type: ignore[no-untyped-def]
    """Columns: for each band `scale` times the sum of |X|²; `work` as in `describe`."""
    powers = 2 * WIDTH * size
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, 0)
        _window(work, length, weights)
        _pad(work, length, size)
        power(work, size, inner, outer, powers)
        for band in range(len(bins) // 2):
            level = spread(0.0)
            for k in range(bins[2 * band], bins[2 * band + 1]):
                level += load(work, powers + WIDTH * k)
            scatter(level * scale + spoilt, first, band, out)


def frames(base, offsets, length, size, inner, outer, weights, step, scale, floor, work, out):  # type: ignore[no-untyped-def]
    """Columns: for each frame, for each bin from 0 to size/2, log of `scale` |X|², `floor` at least.

    Args:
        weights: float32 `[frame]`. work: float32, `8 × (2 size + size / 2 + 1 + length)`.
    """
    frame = len(weights)
    bins = size // 2 + 1
    powers = 2 * WIDTH * size
    samples = WIDTH * (2 * size + bins)
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, samples)
        for number in range((length - frame) // step + 1):
            at = number * step
            for i in range(frame):
                store(work, WIDTH * i, load(work, samples + WIDTH * (at + i)) * weights[i])
            _pad(work, frame, size)
            power(work, size, inner, outer, powers)
            for k in range(bins):
                level = log32(most(load(work, powers + WIDTH * k) * scale, spread(floor)))
                scatter(level + spoilt, first, number * bins + k, out)


def spectra(base, offsets, length, size, inner, outer, weights, start, stop, work, out):  # type: ignore[no-untyped-def]
    """Columns: real parts of the bins `start` to `stop`, the last left out, then their imaginary parts.

    Args:
        work: float32, `8 × 3 size`.
    """
    count = stop - start
    parts = 2 * WIDTH * size
    for first in range(0, len(offsets), WIDTH):
        spoilt = gather(base, offsets, first, length, work, 0)
        _window(work, length, weights)
        _pad(work, length, size)
        spectrum(work, size, inner, outer, parts)
        for k in range(count):
            at = 2 * WIDTH * (start + k)
            scatter(load(work, parts + at) + spoilt, first, k, out)
            scatter(load(work, parts + at + WIDTH) + spoilt, first, count + k, out)
