"""One encoder for any band: a token per channel and temporal patch, whatever the number of channels and the sample rate.

What makes it independent of the device is what enters a token (docs/foundation.md says what was measured):

* the logarithm of the patch's power, whole and in bins of 1000 / patch_ms Hz, taken from the samples at their own rate
  against cosines in physical time (`PatchBasis`); a bin that a rate does not reach is 0 and said to be missing;
* the electrode's angle around the limb and the patch's time in milliseconds, never an index of either.

A Transformer encoder attends over all tokens of a window. Its output is pooled into the mean and the first Fourier moments
around the limb, so that a head of one size fits every band. For one device the angles, times and missing bins are constants:
one bias a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_edge.errors import EdgeError
from embridge_edge.features.design import NYQUIST_SHARE
from embridge_edge.model.foundation_shape import FoundationShape
from embridge_edge.model.towers import FEED_FORWARD, encoder

POWER_FLOOR = 1e-4
"""Added to a power before its logarithm: 40 dB below the level that the scale brings recordings to, which is where
the last bit of a Myo's int8 lies below its usual contraction."""

PERIODS_MS = (100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0)
"""Periods of the sinusoids that say when a patch is: from two patches of 50 ms to beyond any window of control."""


@dataclass(frozen=True)
class PatchBasis:
    """How windows of one rate and length become spectra of their patches.

    Attributes:
        samples: int64 `[patches, most]`, which samples a patch holds: those whose middle lies in it, so that patches need no whole
            number of them (125 Hz has 6 or 7 in 50 ms). The last is repeated where a patch has fewer than the most.
        mean: float32 `[patches, most]`, 1 / count, 0 where repeated.
        waves: float32 `[patches, most, 2 × bins]`, 2 / count × cosines, then sines, of whole cycles in a patch at the samples'
            own times; 0 where the rate does not reach.
        reached: float32 `[1 + bins]`, 1 for what this rate knows of a patch.
    """

    samples: Tensor
    mean: Tensor
    waves: Tensor
    reached: Tensor

    @property
    def patches(self) -> int:
        return int(self.samples.shape[0])

    def spectra(self, x: Tensor) -> Tensor:
        """Samples `[batch, steps, channels]` to log amplitudes `[batch, channels, patches, 1 + bins]`, 0 where not reached."""
        parts = x.transpose(1, 2)[:, :, self.samples]
        whole = (parts.square() * self.mean).sum(dim=-1, keepdim=True)
        cosines, sines = torch.einsum("bcps,psk->bcpk", parts, self.waves).chunk(2, dim=-1)
        # A tone of amplitude a has the power a²/2.
        power = torch.cat([whole, 0.5 * (cosines.square() + sines.square())], dim=-1)
        return 0.5 * torch.log(power + POWER_FLOOR) * self.reached


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # kept for later calls, which may need gradients
def patch_basis(
    rate_hz: float, steps: int, patch_ms: float, highest_hz: float, device: torch.device | None = None
) -> PatchBasis:
    """The basis for windows of `steps` samples; what is left behind the last whole patch, to half a sample, takes no part.

    Raises:
        EdgeError: the window holds no patch, or a patch fewer than two samples.
    """
    patches = int((steps + 0.5) / rate_hz * 1000.0 / patch_ms + 1e-9)
    if patches < 1:
        raise EdgeError(
            f"A window of {steps} samples at {rate_hz:g} Hz holds no patch of {patch_ms:g} ms; shorten patch_ms."
        )
    middles = (np.arange(steps) + 0.5) * 1000.0 / rate_hz / patch_ms
    owner = np.minimum(np.floor(middles + 1e-9).astype(np.int64), patches)
    own = [np.flatnonzero(owner == patch) for patch in range(patches)]
    if min(map(len, own)) < 2:
        raise EdgeError(f"A patch of {patch_ms:g} ms has fewer than 2 samples at {rate_hz:g} Hz; lengthen patch_ms.")
    most = max(map(len, own))
    samples = np.stack([np.pad(indices, (0, most - len(indices)), mode="edge") for indices in own])
    mean = np.stack([np.where(np.arange(most) < len(indices), 1.0 / len(indices), 0.0) for indices in own])
    cycles = np.arange(1, int(highest_hz * patch_ms / 1000.0 + 1e-9) + 1)
    phase = 2.0 * np.pi * (middles[samples] - np.arange(patches)[:, None])[..., None] * cycles
    reached = cycles * 1000.0 / patch_ms <= NYQUIST_SHARE * rate_hz
    waves = np.concatenate([np.cos(phase) * reached, np.sin(phase) * reached], axis=-1) * 2.0 * mean[..., None]
    known = np.concatenate([[1.0], reached])
    return PatchBasis(
        torch.from_numpy(samples).to(device),
        *(torch.from_numpy(array.astype(np.float32)).to(device) for array in (mean, waves, known)),
    )


def ring(channels: int, device: torch.device | None = None) -> Tensor:
    """Angles of the electrodes of a band that are spread evenly around the limb, float32 radians `[channels]`."""
    return 2.0 * math.pi * torch.arange(channels, device=device) / channels


class FoundationEncoder(nn.Module):
    """EMG of any band to tokens and to one pooled vector.

    Every method takes the sample rate of its input, and optionally the electrodes' angles (radians, `[channels]` or
    `[batch, channels]`; evenly around the limb by default) and which channels are `present` (bool, of the same shape): an absent one
    changes nothing and is pooled nowhere.
    """

    def __init__(self, shape: FoundationShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Linear(shape.contents, shape.width)
        self.reach = nn.Linear(shape.contents, shape.width, bias=False)
        self.place = nn.Linear(2 * (shape.harmonics + len(PERIODS_MS)), shape.width, bias=False)
        self.hidden = nn.Parameter(0.02 * torch.randn(shape.width))
        self.encoder = encoder(shape.width, shape.blocks, shape.heads, 0.0)
        self.decoder = nn.Linear(shape.width, shape.contents)

    def basis(self, x: Tensor, rate_hz: float) -> PatchBasis:
        """The basis of windows `[batch, steps, channels]` at this rate."""
        return patch_basis(rate_hz, x.shape[1], self.shape.patch_ms, self.shape.highest_hz, x.device)

    def forward(self, x: Tensor, rate_hz: float, angles: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Samples `[batch, steps, channels]`, scaled to a usual level of 1, to the pooled output `[batch, embedding]`."""
        basis = self.basis(x, rate_hz)
        return self.pooled(self.tokens(basis.spectra(x), basis.reached, angles, present), angles, present)

    def tokens(
        self,
        spectra: Tensor,
        reached: Tensor,
        angles: Tensor | None = None,
        present: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Spectra `[batch, channels, patches, 1 + bins]` to tokens `[batch, channels, patches, width]`.

        Args:
            hidden: bool `[batch, channels, patches]`, the tokens whose content is replaced by a learned vector.
        """
        batch, channels, patches, _ = spectra.shape
        content = self.embed(spectra)
        if hidden is not None:
            content = torch.where(hidden[..., None], self.hidden, content)
        tokens = (
            content
            + self.reach(reached)
            + self.place(self._places(patches, ring(channels, spectra.device) if angles is None else angles))
        )
        absent = None
        if present is not None:
            absent = ~present.expand(batch, channels)[..., None].expand(-1, -1, patches).reshape(batch, -1)
        out: Tensor = self.encoder(tokens.reshape(batch, channels * patches, -1), src_key_padding_mask=absent)
        return out.reshape(batch, channels, patches, -1)

    def pooled(self, tokens: Tensor, angles: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Tokens `[batch, channels, patches, width]` to `[batch, embedding]`: their mean over time, and over the channels the
        mean and its first moments cos mθ, sin mθ."""
        channels = tokens.shape[1]
        theta = ring(channels, tokens.device) if angles is None else angles
        waves = torch.cat([torch.ones_like(theta)[..., None], _harmonics(theta, self.shape.moments)], dim=-1)
        waves = waves.expand(len(tokens), -1, -1)
        if present is None:
            waves = waves / channels
        else:
            there = present.expand(len(tokens), channels)[..., None].to(tokens.dtype)
            waves = waves * there / there.sum(dim=1, keepdim=True).clamp(min=1.0)
        return torch.einsum("bcd,bcw->bwd", tokens.mean(dim=2), waves).flatten(1)

    def masked_error(
        self,
        x: Tensor,
        rate_hz: float,
        hidden: Tensor,
        angles: Tensor | None = None,
        present: Tensor | None = None,
        *,
        loss: str = "smooth_l1",
    ) -> tuple[Tensor, Tensor]:
        """Error of the hidden tokens' spectra as the others foretell them, over what the rate reaches.

        Args:
            x: samples `[batch, steps, channels]`. hidden: bool `[batch, channels, patches]`. loss: "mse" or "smooth_l1".

        Returns: the sum over each window, and how many numbers it is over, `[batch]` each.
        """
        basis = self.basis(x, rate_hz)
        spectra = basis.spectra(x)
        foretold = self.decoder(self.tokens(spectra, basis.reached, angles, present, hidden))
        wanted = hidden if present is None else hidden & present.expand(hidden.shape[:2])[..., None]
        weights = wanted[..., None] * basis.reached
        measure = functional.mse_loss if loss == "mse" else functional.smooth_l1_loss
        error = measure(foretold, spectra, reduction="none") * weights
        return error.sum(dim=(1, 2, 3)), weights.sum(dim=(1, 2, 3))

    def _places(self, patches: int, angles: Tensor) -> Tensor:
        """Sinusoids of angle and time, `[channels, patches, columns]`, behind a batch where the angles have one."""
        around = _harmonics(angles, self.shape.harmonics)
        middles = (torch.arange(patches, device=angles.device) + 0.5) * self.shape.patch_ms
        phase = 2.0 * math.pi * middles[:, None] / torch.tensor(PERIODS_MS, device=angles.device)
        times = torch.cat([phase.sin(), phase.cos()], dim=-1)
        shape = (*around.shape[:-1], patches, -1)
        return torch.cat([around[..., None, :].expand(shape), times.expand(shape)], dim=-1)


def macs(shape: FoundationShape, channels: int, patches: int) -> int:
    """Multiply-accumulates of the encoder for one window: products of matrices, the patches' spectra left out."""
    tokens = channels * patches
    linear = (4 + 2 * FEED_FORWARD) * shape.width**2
    attention = 2 * tokens * shape.width
    return tokens * (shape.contents * shape.width + shape.blocks * (linear + attention))


def _harmonics(angles: Tensor, count: int) -> Tensor:
    """cos θ … cos nθ, sin θ … sin nθ, `[..., 2 × count]`."""
    phase = angles[..., None] * torch.arange(1, count + 1, device=angles.device)
    return torch.cat([phase.cos(), phase.sin()], dim=-1)
