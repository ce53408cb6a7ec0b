"""What the places of a block's record are, for `sliding` and what is compiled for it."""

from __future__ import annotations

from collections.abc import Mapping

from embridge_edge.features.sums import SUMS

WITHIN = -1
PLAIN, STEP, BEND, HIGHEST, CROSSINGS, LARGE_CROSSINGS, OTHER = range(7)
"""A STEP is followed by the term that reaches before the block, which the sum itself leaves out; a BEND by the two terms that do,
of the block's first sample and of its second. OTHER has to do with places beside it, see `sliding_lanes`."""

BESIDE: Mapping[int, int] = {PLAIN: 0, STEP: 1, BEND: 2, HIGHEST: 0, CROSSINGS: 0, LARGE_CROSSINGS: 0, OTHER: 0}
"""Places that follow one of these."""


def kind_of(name: str) -> int:
    """What holds a sum of SUMS; "spoilt" is 0 or NaN."""
    if name == "spoilt":
        return PLAIN
    if name in ("opened", "closed") or name.startswith(("reference", "centred")):
        return OTHER
    own = {"highest": HIGHEST, "crossings": CROSSINGS, "large_crossings": LARGE_CROSSINGS}
    return own.get(name, (PLAIN, STEP, BEND)[SUMS[name].reach])
