"""Cross-layer equalisation: neighbouring convolutions share out a channel's scale so that int8 has fewer steps to waste.

ReLU lets a positive factor through: what one layer divides a channel by, the next multiplies. Nagel et al. (2019) choose factors by
the weights of both; here weights have a scale per output channel and activations one for all channels, so that the factor weighs
a channel's activation against the weights that read it, as SmoothQuant (Xiao et al. 2023) does for transformers.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from embridge_edge.model.student import Student, StudentBlock

SHARE = 0.5
"""How much of a channel's excess goes into the weights behind it: 0 leaves all with the activation, 1 evens activations out."""

LARGEST_FACTOR = 16.0


def equalised(student: Student, windows: Tensor) -> Student:
    """A copy of a folded student that computes the same with more even channels.

    Args:
        student: folded (`compression.folding`). windows: float32 `[n, T, C]`, by which channels are measured.
    """
    evened = copy.deepcopy(student).eval()
    for first, second in _pairs(evened):
        peaks = _peaks(evened, first, windows)
        weights = second.weight.detach().abs()
        reading = weights.flatten(1).amax(dim=1) if second.groups > 1 else weights.amax(dim=(0, 2, 3))
        _move(first, second, _factors(peaks, reading))
    return evened


def _pairs(student: Student) -> list[tuple[nn.Conv2d, nn.Conv2d]]:
    """Convolutions of which the second alone reads the first, behind a ReLU: not where a residual reads it too or adds to it."""
    found = []
    blocks = [cast(StudentBlock, block) for block in student.blocks]
    for block in blocks:
        found += list(pairwise(cast(nn.Conv2d, layer.convolution) for layer in block.layers))
    for before, behind in pairwise(blocks):
        if not (before.residual or behind.residual):
            found.append(
                (cast(nn.Conv2d, before.layers[-1].convolution), cast(nn.Conv2d, behind.layers[0].convolution))
            )
    return found


def _peaks(student: Student, layer: nn.Conv2d, windows: Tensor) -> Tensor:
    """The greatest output of each channel of a layer, `[channels]`, behind its ReLU."""
    found: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, out: found.append(torch.relu(out).amax(dim=(0, 2, 3))))
    try:
        with torch.no_grad():
            student(windows)
    finally:
        hook.remove()
    return found[0]


def _factors(peaks: Tensor, reading: Tensor) -> Tensor:
    """What each channel is divided by; 1 for one that is silent or not read."""
    alive = (peaks > 0) & (reading > 0)
    factors = torch.where(alive, peaks.clamp(min=1e-12) ** SHARE / reading.clamp(min=1e-12) ** (1 - SHARE), 1.0)
    usual = factors[alive].log().mean().exp() if bool(alive.any()) else torch.ones(())
    return torch.where(alive, factors / usual, 1.0).clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)


def _move(first: nn.Conv2d, second: nn.Conv2d, factors: Tensor) -> None:
    with torch.no_grad():
        first.weight /= factors[:, None, None, None]
        if first.bias is not None:
            first.bias /= factors
        second.weight *= factors[:, None, None, None] if second.groups > 1 else factors[None, :, None, None]
