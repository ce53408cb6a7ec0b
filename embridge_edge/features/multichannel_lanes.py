"""The compiled part of `multichannel`: eight samples of a channel at once."""

from __future__ import annotations

from numba.extending import register_jitable

from embridge_edge.features.lanes import WIDTH, load, spread, total


@register_jitable
def _centre(base, offset, length, work, start, room):  # type: ignore[no-untyped-def]
    """Copy a row without its mean, zeros after it."""
    level = 0.0
    for i in range(length):
        level += base[offset + i]
    level /= length
    for i in range(length):
        work[start + i] = base[offset + i] - level
    for i in range(length, room):
        work[start + i] = 0.0


def covariance(base, offsets, length, channels, work, out):  # type: ignore[no-untyped-def]
    """Upper triangle of each window's covariance; `work` is float32, `channels × length` with each length rounded up to eights."""
    room = (length + WIDTH - 1) // WIDTH * WIDTH
    for window in range(out.shape[0]):
        for channel in range(channels):
            _centre(base, offsets[window * channels + channel], length, work, channel * room, room)
        column = 0
        for left in range(channels):
            for right in range(left, channels):
                found = spread(0.0)
                for i in range(0, room, WIDTH):
                    found += load(work, left * room + i) * load(work, right * room + i)
                out[window, column] = total(found) / length
                column += 1
