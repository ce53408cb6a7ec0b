"""How the sums of successive blocks of samples become those of windows; the compiled part of `sliding`."""

from __future__ import annotations

from numba.extending import register_jitable

from embridge_edge.features.records import BEND, CROSSINGS, HIGHEST, LARGE_CROSSINGS, PLAIN, STEP


@register_jitable
def _copy(given, out):  # type: ignore[no-untyped-def]
    for place in range(given.shape[0]):
        for channel in range(given.shape[1]):
            out[place, channel] = given[place, channel]


@register_jitable
def _join_powers(first, reference, most, a, b, out):  # type: ignore[no-untyped-def]
    """Sums of powers of x − reference, put together around the reference of `a`; from the highest down, as each needs the lower."""
    count = b[0, 0]
    for channel in range(a.shape[1]):
        shift = b[reference, channel] - a[reference, channel]
        one = b[first, channel]
        two = b[first + 1, channel] if most >= 2 else 0.0
        three = b[first + 2, channel] if most >= 3 else 0.0
        if most >= 4:
            out[first + 3, channel] = a[first + 3, channel] + (
                b[first + 3, channel]
                + shift * (4.0 * three + shift * (6.0 * two + shift * (4.0 * one + count * shift)))
            )
        if most >= 3:
            out[first + 2, channel] = a[first + 2, channel] + (
                three + shift * (3.0 * two + shift * (3.0 * one + count * shift))
            )
        if most >= 2:
            out[first + 1, channel] = a[first + 1, channel] + (two + shift * (2.0 * one + count * shift))
        out[first, channel] = a[first, channel] + (one + count * shift)
        out[reference, channel] = a[reference, channel]


@register_jitable
def _join_crossings(kinds, opened, closed, limit, a, b, out):  # type: ignore[no-untyped-def]
    """Crossings within, and the one between the last sample of `a` that is not zero and the first of `b`."""
    for place in range(kinds.shape[0]):
        kind = kinds[place]
        if kind in (CROSSINGS, LARGE_CROSSINGS):
            least = 0.0 if kind == CROSSINGS else limit
            for channel in range(a.shape[1]):
                left, right = a[closed, channel], b[opened, channel]
                apart = ((left < 0.0) & (right > 0.0)) | ((left > 0.0) & (right < 0.0))
                out[place, channel] = a[place, channel] + (b[place, channel] + (apart & (abs(right - left) > least)))
    for channel in range(a.shape[1]):
        left, right = a[opened, channel], b[opened, channel]
        out[opened, channel] = left if left != 0.0 else right
        left, right = a[closed, channel], b[closed, channel]
        out[closed, channel] = right if right != 0.0 else left


@register_jitable
def _join(kinds, places, limit, a, b, out):  # type: ignore[no-untyped-def]
    """The record of two blocks that follow each other; the first place is the number of samples. `out` may be `a`."""
    if a[0, 0] == 0.0:
        _copy(b, out)
        return
    if b[0, 0] == 0.0:
        _copy(a, out)
        return
    single = a[0, 0] == 1.0
    if places[3] >= 0:
        _join_powers(places[3], places[2], places[4], a, b, out)
    if places[0] >= 0:
        _join_crossings(kinds, places[0], places[1], limit, a, b, out)
    channels = a.shape[1]
    for place in range(kinds.shape[0]):
        kind = kinds[place]
        if kind == PLAIN:
            for channel in range(channels):
                out[place, channel] = a[place, channel] + b[place, channel]
        elif kind == HIGHEST:
            for channel in range(channels):
                out[place, channel] = max(a[place, channel], b[place, channel])
        elif kind == STEP:
            for channel in range(channels):
                out[place, channel] = a[place, channel] + (b[place, channel] + b[place + 1, channel])
                out[place + 1, channel] = a[place + 1, channel]
        elif kind == BEND and single:
            # The first term of b reaches before a, and belongs to the second sample of both.
            for channel in range(channels):
                out[place, channel] = a[place, channel] + (b[place, channel] + b[place + 2, channel])
                out[place + 1, channel] = a[place + 1, channel]
                out[place + 2, channel] = b[place + 1, channel]
        elif kind == BEND:
            for channel in range(channels):
                both = b[place + 1, channel] + b[place + 2, channel]
                out[place, channel] = a[place, channel] + (b[place, channel] + both)
                out[place + 1, channel] = a[place + 1, channel]
                out[place + 2, channel] = a[place + 2, channel]


def advance(kinds, places, limit, hops, head, blocks, done, pending, group, suffixes, prefix, windows):  # type: ignore[no-untyped-def]
    """Take the records of blocks and give those of the windows that they complete.

    A window is `hops` hops and, where `head` is true, the head of one more; a hop then is two blocks, its head and its rest. Hops are
    joined in groups of so many: what a group ends with from each of its hops on, and what the next one begins with up to each of
    its hops, together make each window (van Herk, "A fast algorithm for local minimum and maximum filters on rectangular and
    octagonal kernels", Pattern Recognition Letters 13(7), 1992): three joins for a hop, however long the window.

    Args:
        kinds: int64 `[places]`, see `records`. places: int64, where the first sample that is not zero lies, the last one, the first of
            all and the sum of x less that one, −1 for none; then up to which power these go. limit: of large crossings.
        blocks: float64 `[blocks, places, channels]`. done: how many came before.
        pending, prefix: float64 `[places, channels]`. group, suffixes: `[hops, places, channels]`; all are kept between calls.
        windows: float64 `[windows, places, channels]`, filled.

    Returns: how many windows there were.
    """
    found = 0
    for index in range(blocks.shape[0]):
        block = done + index
        if head and block % 2 == 0:
            # The head of a hop completes the window of the hops before it.
            hop = block // 2
            _copy(blocks[index], pending)
            if hop >= hops:
                if hops == 0:
                    _copy(pending, windows[found])
                else:
                    start = (hop - hops) % hops
                    if start == 0:
                        _copy(suffixes[0], windows[found])
                    else:
                        _join(kinds, places, limit, suffixes[start], prefix, windows[found])
                    _join(kinds, places, limit, windows[found], pending, windows[found])
                found += 1
        elif hops > 0:
            hop = block // 2 if head else block
            place = hop % hops
            if head:
                _join(kinds, places, limit, pending, blocks[index], group[place])
            else:
                _copy(blocks[index], group[place])
            if place == 0:
                _copy(group[0], prefix)
            else:
                _join(kinds, places, limit, prefix, group[place], prefix)
            if place == hops - 1:
                _copy(group[place], suffixes[place])
                for before in range(hops - 2, -1, -1):
                    _join(kinds, places, limit, group[before], suffixes[before + 1], suffixes[before])
            if not head and hop >= hops - 1:
                start = (hop - hops + 1) % hops
                if start == 0:
                    _copy(suffixes[0], windows[found])
                else:
                    _join(kinds, places, limit, suffixes[start], prefix, windows[found])
                found += 1
    return found
