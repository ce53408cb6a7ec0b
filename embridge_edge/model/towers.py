"""The two Transformer encoders over temporal patches, each with the light decoder of its masked pre-training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from embridge_edge.gestures import POSE

ANGLES = len(POSE)

FEED_FORWARD = 2
"""Width of the feed-forward layers over the width of the tokens. The paper does not say; 2 with ReLU trains about twice as
fast on a CPU as the usual 4 with GELU."""

LEAST_SPREAD = 1e-3
"""Directions of the pose embedding that vary less than this share of the leading one are not scaled up: they are noise."""


def encoder(width: int, blocks: int, heads: int, dropout: float) -> nn.Module:
    """A pre-norm Transformer encoder, `[batch, tokens, width]` to the same."""
    layer = nn.TransformerEncoderLayer(width, heads, FEED_FORWARD * width, dropout, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, blocks, norm=nn.LayerNorm(width), enable_nested_tensor=False)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation over the batch of all processes, so that two with half the batch each train as one does.

    torch's own synchronised layer works on GPUs alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        from torch import distributed

        if not self.training or not distributed.is_available() or not distributed.is_initialized():
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        over, world = (0, 2, 3), distributed.get_world_size()
        mean = all_reduce(x.mean(dim=over)) / world  # type: ignore[no-untyped-call]
        centred = x - mean[:, None, None]
        variance = all_reduce(centred.square().mean(dim=over)) / world  # type: ignore[no-untyped-call]
        with torch.no_grad():
            count = world * x.numel() / x.shape[1]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(variance * (count / max(1.0, count - 1.0)), self.momentum)  # type: ignore[union-attr, arg-type]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        scale = self.weight * (variance + self.eps).rsqrt()
        normed: Tensor = centred * scale[:, None, None] + self.bias[:, None, None]
        return normed


class PatchStem(nn.Module):
    """Samples to one token a patch: strided convolutions with batch normalisation and ReLU.

    A token must hold the strength of the signal whatever its phase, which a linear map of raw samples does not give. What
    the stem alone is worth has not been measured (`docs/numbers.md`). Convolutions look a little over both edges of a patch,
    evenly, so that a window is read to its end; what is hidden is therefore hidden in the samples, before the stem.
    """

    def __init__(self, columns: int, patch: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        left, inputs, outputs, kernel = patch, columns, min(width, 32), 7
        while left > 1 or not layers:
            stride = 2 if left % 2 == 0 and left > 2 else left
            outputs = width if stride == left else outputs
            size = max(kernel, stride) if left > 1 else 1
            layers += [
                nn.Conv2d(inputs, outputs, (1, size), (1, stride), (0, (size - stride + 1) // 2), bias=False),
                BatchNorm(outputs),
                nn.ReLU(),
            ]
            left, inputs, outputs, kernel = left // stride, outputs, min(2 * outputs, width), 5
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, steps, columns]` to `[batch, tokens or a few more, width]`."""
        return self.layers(x.unsqueeze(1).permute(0, 3, 1, 2)).squeeze(2).transpose(1, 2)  # type: ignore[no-any-return]


class ResidualConvolutions(nn.Module):
    """An encoder of residual blocks over time, `[batch, tokens, width]` to the same: in each two convolutions with batch
    normalisation (He et al. 2016). With few recordings it learns in a fraction of a Transformer's steps.
    """

    def __init__(self, width: int, blocks: int, dropout: float) -> None:
        super().__init__()

        def convolution() -> list[nn.Module]:
            return [nn.Conv2d(width, width, (1, 3), padding=(0, 1), bias=False), BatchNorm(width)]

        self.blocks = nn.ModuleList(
            nn.Sequential(*convolution(), nn.ReLU(), nn.Dropout(dropout), *convolution()) for _ in range(blocks)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        values = tokens.unsqueeze(1).permute(0, 3, 1, 2)
        for block in self.blocks:
            values = torch.relu(values + block(values))
        return values.squeeze(2).transpose(1, 2)


class EmgTower(nn.Module):
    """EMG to tokens: one a patch of `patch` time steps, by a convolutional stem, then an encoder: a Transformer, or convolutions.

    Masked pre-training (embridge: half of the patches hidden, mean squared error on those) goes through `reconstruct`.
    """

    def __init__(
        self,
        steps: int,
        columns: int,
        patch: int,
        width: int,
        blocks: int,
        heads: int,
        dropout: float,
        kind: str = "transformer",
    ) -> None:
        super().__init__()
        self.patch = patch
        self.tokens = steps // patch
        self.embed = PatchStem(columns, patch, width)
        self.position = nn.Parameter(0.02 * torch.randn(self.tokens, width))
        self.hidden = nn.Parameter(torch.zeros(columns))
        self.encoder = (
            ResidualConvolutions(width, blocks, dropout)
            if kind == "convolutions"
            else encoder(width, blocks, heads, dropout)
        )
        self.decoder = nn.Linear(width, patch * columns)

    def forward(self, x: Tensor, summary: Tensor | None = None) -> Tensor:
        """`[batch, steps, columns]` to tokens `[batch, tokens, width]`; steps beyond the last whole patch are left out.

        Args:
            summary: `[width]`, one more token that takes part in every block; it comes out in front of the others.
        """
        tokens = self.embed(x[:, : self.tokens * self.patch])[:, : self.tokens] + self.position
        if summary is not None:
            tokens = torch.cat([summary.expand(len(x), 1, -1), tokens], dim=1)
        return self.encoder(tokens)  # type: ignore[no-any-return]

    def reconstruction_error(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Sum of squared errors over the hidden patches of each window, a mean over a patch's samples: `[batch]`.

        Args:
            hidden: bool `[batch, tokens]`.
        """
        x = x[:, : self.tokens * self.patch]
        seen = torch.where(hidden.repeat_interleave(self.patch, dim=1)[..., None], self.hidden, x)
        error: Tensor = (self.decoder(self(seen)) - x.reshape(*hidden.shape, -1)).square().mean(dim=-1)
        return (error * hidden).sum(dim=1)


class PoseTower(nn.Module):
    """Pose track to one vector: a token per pose frame, a Transformer encoder, the mean over its tokens.

    An angle that nobody measured is NaN: it enters as 0 with a flag, and is left out of the loss. The embedding is
    centred and whitened along the leading directions of the training poses (`fit_projection`). Without that the fingers, 15
    of the angles that move, drown the wrist: canonical rest and radial deviation stand at a cosine of .96, whitened at .5.
    """

    mean: Tensor
    directions: Tensor

    def __init__(self, frames: int, width: int, blocks: int, heads: int, embedding: int) -> None:
        super().__init__()
        self.frames = frames
        self.embedding = embedding
        self.embed = nn.Linear(2 * ANGLES, width)
        self.position = nn.Parameter(0.02 * torch.randn(frames, width))
        self.hidden = nn.Parameter(0.02 * torch.randn(width))
        self.encoder = encoder(width, blocks, heads, 0.0)
        self.decoder = nn.Linear(width, ANGLES)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("directions", torch.eye(width, embedding))

    def tokens(self, pose: Tensor) -> Tensor:
        """`[batch, frames, 23]` in radians to `[batch, frames, width]`."""
        return self.encoder(self._embedded(pose) + self.position)  # type: ignore[no-any-return]

    def forward(self, pose: Tensor) -> Tensor:
        """`[batch, frames, 23]` in radians, NaN where unknown, to unit vectors `[batch, embedding]`."""
        centred = (self.tokens(pose).mean(dim=1) - self.mean) @ self.directions
        return nn.functional.normalize(centred, dim=-1)

    def fit_projection(self, poses: Tensor, *, whitened: bool = True) -> None:
        """Set mean and directions from training poses `[n, frames, 23]`: principal components, largest first.

        Args:
            whitened: scale them to equal spread.
        """
        with torch.no_grad():
            pooled = torch.cat([self.tokens(part).mean(dim=1) for part in torch.split(poses, 4096)])
            self.mean.copy_(pooled.mean(dim=0))
            _, spreads, rows = torch.linalg.svd((pooled - self.mean).double(), full_matrices=False)
            variances = spreads.square()[: self.embedding]
            directions = rows[: self.embedding].T
            signs = torch.sign(directions[directions.abs().argmax(dim=0), torch.arange(directions.shape[1])])
            scale = (variances / variances[0]).clamp(min=LEAST_SPREAD).rsqrt()
            scale = scale if whitened else torch.ones_like(scale)
            self.directions.zero_()
            self.directions[:, : directions.shape[1]] = (
                directions * signs * scale
            ).float()  # a component's sign is arbitrary

    def reconstruction_error(self, pose: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of squared errors over the known angles of the hidden frames, and their number: `[batch]` each.

        Args:
            hidden: bool `[batch, frames]`.
        """
        read = self.decoder(self.encoder(self.hidden_tokens(pose, hidden, self.hidden)))
        return angle_error(read, pose, hidden)

    def hidden_tokens(self, pose: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
        """Tokens before the encoder, `[batch, frames, width]`, with `mask` `[width]` in place of the hidden frames."""
        return torch.where(hidden[..., None], mask, self._embedded(pose)) + self.position

    def _embedded(self, pose: Tensor) -> Tensor:
        known = torch.isfinite(pose)
        return self.embed(torch.cat([torch.nan_to_num(pose), known.to(pose.dtype)], dim=-1))  # type: ignore[no-any-return]


def angle_error(read: Tensor, pose: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of squared errors over the known angles of the hidden frames, and how many these are: `[batch]` each.

    Args:
        read, pose: `[batch, frames, 23]` in radians, `pose` NaN where unknown. hidden: bool `[batch, frames]`.
    """
    known = torch.isfinite(pose) & hidden[..., None]
    error = (read - torch.nan_to_num(pose)).square() * known
    return error.sum(dim=(1, 2)), known.sum(dim=(1, 2))
