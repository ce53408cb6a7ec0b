"""How much working memory the kernels of a core with vectors (M55) make use of: more than they need, for fewer instructions.

What they do with it stands in `kernels/emb_rows.c` and `kernels/emb_depthwise_patches.c`. More than these sizes is never used; with less
they are slower and give the same bits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

VECTOR = 16
"""Bytes of a vector."""
ROWS = 32
"""Rows of inputs that are copied aside at once."""
FEW_ROWS = 6
"""Rows below which weights are not rearranged."""
DEPTHWISE_BYTES = 2048
"""For a depthwise convolution: as many strips as fit, one at least."""
DEPTHWISE_TABLES = 304
"""Weights of sixteen channels and where the taps lie."""
FEW_PRODUCTS = 50
"""Products per channel below which a depthwise convolution is not rearranged."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis of a depthwise convolution; lengths in samples."""

    given: int
    out: int
    kernel: int
    stride: int
    dilation: int
    pad: int

    @property
    def reach(self) -> int:
        """Samples that the kernel spans."""
        return (self.kernel - 1) * self.dilation + 1


def pointwise(rows: int, in_c: int, out_c: int, *, in_place: bool, once: bool) -> int:
    """Bytes for `emb_pointwise_rows_s8`."""
    beside = 4 * up_to(in_c, VECTOR) if rows >= FEW_ROWS and out_c >= 4 and not once else 0
    return beside + (min(rows, ROWS) * in_c + VECTOR - 1 if in_place else 0)


def convolution(taps: int, outputs: int) -> int:
    """Bytes for `emb_conv_rows_s8`; `taps` inputs make one of `outputs` positions."""
    return 4 * up_to(taps, VECTOR) + min(ROWS, outputs) * taps + VECTOR - 1


def depthwise(fields: Mapping[str, int]) -> int:
    """Bytes for `emb_depthwise_rows_s8`, from the fields of its structure."""
    height, width = (
        Axis(*(fields[name] for name in (f"in_{a}", f"out_{a}", f"kernel_{a}", f"stride_{a}", f"dilation_{a}", pad)))
        for a, pad in (("h", "pad_top"), ("w", "pad_left"))
    )
    taller = (height.out, height.given) > (width.out, width.given)
    strips, short = _strips(height, width), _strips(width, height)
    if not taller:
        strips, short = short, strips
    if strips > DEPTHWISE_BYTES and 0 < short < strips:
        strips = short  # The kernel takes short lines where one strip of long ones does not fit.
    few = height.out * width.out * height.kernel * width.kernel < FEW_PRODUCTS and fields["depth"] == 1
    return fields["in_c"] if few else max(fields["in_c"], strips)


def _strips(line: Axis, across: Axis) -> int:
    """Bytes for strips of outputs along the longer axis; 0 where the kernel is too large for them."""
    if (across.given, across.out, across.kernel, across.pad) == (1, 1, 1, 0):
        if line.reach + (min(line.out, 4) - 1) * line.stride > VECTOR:
            return 0
        blocks, strips = -(-line.out // 4), 1
        lines = (blocks - 1) * line.stride + 4
    elif line.reach + line.stride <= 4 and across.reach + across.stride <= 4:
        blocks, strips = -(-line.out // 2), -(-across.out // 2)
        lines = max(line.out - 2, 0) * line.stride + 4
    elif line.reach <= 4 and across.reach <= 4:
        blocks, strips = -(-line.out // 4), across.out
        lines = (line.out - 1) * line.stride + 4
    else:
        return 0
    strip = 8 * blocks + 4 * VECTOR * lines
    return DEPTHWISE_TABLES + max(1, min(strips, (DEPTHWISE_BYTES - DEPTHWISE_TABLES) // strip)) * strip


def up_to(length: int, multiple: int) -> int:
    """The next multiple."""
    return -(-length // multiple) * multiple
