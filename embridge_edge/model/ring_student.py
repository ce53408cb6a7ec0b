"""The student for long windows and short hops: one part turns a frame, the samples of a hop, into a token; one reads a ring of tokens.

Both are one graph in training, conversion and quantization. A device runs them apart (`export.ring`): each hop brings one token, which
stays in the ring until it is as old as the window, so that the work of a decision grows with the hop and not with the window.
"""

from __future__ import annotations

import dataclasses
from typing import cast

import torch
from torch import Tensor, nn

from embridge_edge.errors import EdgeError
from embridge_edge.model.stored import StoredShape
from embridge_edge.model.student import (
    LARGEST_INPUT,
    LARGEST_KERNEL,
    LARGEST_WIDTH,
    Convolution,
    NormedConvolution,
    check_whole,
)


@dataclasses.dataclass(frozen=True)
class RingShape(StoredShape):
    """What fixes a ring student's graph.

    Attributes:
        steps, channels: the input window.
        hop: time steps of a frame, those that one hop of the chain brings; a window is a whole number of them.
        widths, kernels, strides: of the convolutions that turn a frame into its token, over the time steps of that frame alone. One more
            takes what steps they leave to one.
        width: of a token.
        reader_widths, reader_kernels: of the convolutions that go over the tokens of a window.
        queries: learned queries that read the tokens. embedding: length of the output.

    Raises:
        EdgeError: the numbers cannot make a student.
    """

    steps: int
    channels: int
    hop: int
    widths: tuple[int, ...] = (32, 64)
    kernels: tuple[int, ...] = (5, 3)
    strides: tuple[int, ...] = (2, 2)
    width: int = 64
    reader_widths: tuple[int, ...] = (64,)
    reader_kernels: tuple[int, ...] = (3,)
    queries: int = 4
    embedding: int = 64

    def __post_init__(self) -> None:
        for name, most in (
            ("widths", LARGEST_WIDTH), ("kernels", LARGEST_KERNEL), ("strides", 2), ("reader_widths", LARGEST_WIDTH),
            ("reader_kernels", LARGEST_KERNEL),
        ):  # fmt: skip
            values = getattr(self, name)
            if not isinstance(values, list | tuple):
                raise EdgeError(f"The student's {name} must be a list of whole numbers; correct the recipe.")
            object.__setattr__(self, name, tuple(values))
            for value in values:
                check_whole(name, value, 1, most)
        for name, least, most in (
            ("steps", 2, LARGEST_INPUT), ("channels", 1, LARGEST_INPUT), ("hop", 1, LARGEST_INPUT), ("width", 1, LARGEST_WIDTH),
            ("queries", 1, 64), ("embedding", 2, LARGEST_WIDTH),
        ):  # fmt: skip
            check_whole(name, getattr(self, name), least, most)
        if not len(self.widths) == len(self.kernels) == len(self.strides):
            raise EdgeError(
                f"The student has {len(self.widths)} widths, {len(self.kernels)} kernels and {len(self.strides)} "
                "strides; give one of each per block."
            )
        if not len(self.reader_widths) == len(self.reader_kernels) > 0:
            raise EdgeError(
                f"The student has {len(self.reader_widths)} reader_widths and {len(self.reader_kernels)} reader_kernels; give one "
                "of each per convolution over the tokens, and one convolution at least."
            )
        if self.steps * self.channels > LARGEST_INPUT:
            raise EdgeError(
                f"A window of {self.steps} x {self.channels} values is too large for a student; shorten the window."
            )
        if self.steps % self.hop or self.frames < 2:
            raise EdgeError(
                f"A window of {self.steps} time steps is not two or more whole hops of {self.hop}, which a ring student needs; set "
                "window_ms to a multiple of hop_ms."
            )

    @property
    def frames(self) -> int:
        """Frames of a window: the tokens in the ring."""
        return self.steps // self.hop

    @property
    def token_plan(self) -> tuple[Convolution, ...]:
        """The convolutions that turn a frame into its token, in order; the last leaves one time step."""
        found, inputs, left = [], self.channels, self.hop
        for outputs, kernel, stride in zip(self.widths, self.kernels, self.strides, strict=True):
            after = -(-left // stride)
            found.append(Convolution(inputs, outputs, kernel, stride, 1, left, after))
            inputs, left = outputs, after
        return (*found, Convolution(inputs, self.width, left, 1, 1, left, 1))

    @property
    def reader_plan(self) -> tuple[Convolution, ...]:
        """The convolutions over the tokens, in order."""
        found, inputs = [], self.width
        for outputs, kernel in zip(self.reader_widths, self.reader_kernels, strict=True):
            found.append(Convolution(inputs, outputs, kernel, 1, 1, self.frames, self.frames))
            inputs = outputs
        return tuple(found)

    @property
    def read_width(self) -> int:
        """Width of what the queries read."""
        return self.reader_widths[-1]

    @property
    def token_macs(self) -> int:
        """Multiply-accumulates of one token."""
        return sum(_macs(one) for one in self.token_plan)

    @property
    def reader_macs(self) -> int:
        """Multiply-accumulates from a full ring to the embedding."""
        pooling = 2 * self.frames * self.read_width * self.queries
        return sum(_macs(one) for one in self.reader_plan) + pooling + self.queries * self.read_width * self.embedding

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a whole window, as the converted graph has them."""
        return self.frames * self.token_macs + self.reader_macs

    @property
    def hop_macs(self) -> int:
        """Multiply-accumulates of a decision where the tokens of earlier frames are kept."""
        return self.token_macs + self.reader_macs

    @property
    def token_parameters_count(self) -> int:
        """Weights and biases of what turns a frame into its token, norms folded."""
        return sum(one.kernel * one.inputs * one.outputs + one.outputs for one in self.token_plan)

    @property
    def parameters_count(self) -> int:
        """Weights and biases of the deployed graph, norms folded."""
        reader = sum(one.kernel * one.inputs * one.outputs + one.outputs for one in self.reader_plan)
        pooled = self.queries * self.read_width
        return self.token_parameters_count + reader + pooled + pooled * self.embedding + self.embedding


class RingStudent(nn.Module):
    """EMG window or feature frames `[B, T, C]` → embedding `[B, D]`, not normalised.

    Frames lie along the height of an image whose width is time within a frame: kernels are one frame high, so that no value crosses
    from one to another, and the same weights serve for any number of frames.
    """

    def __init__(self, shape: RingShape) -> None:
        super().__init__()
        self.shape = shape
        self.token = nn.Sequential(*(nn.Sequential(NormedConvolution(one), nn.ReLU()) for one in shape.token_plan))
        self.reader = nn.Sequential(*(nn.Sequential(NormedConvolution(one), nn.ReLU()) for one in shape.reader_plan))
        self.scores = nn.Linear(shape.read_width, shape.queries, bias=False)
        self.embedding = nn.Linear(shape.queries * shape.read_width, shape.embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, windows: Tensor) -> Tensor:
        return self.embed(self.tokens(windows))

    def ring(self, windows: Tensor) -> Tensor:
        """Whole frames `[B, K hop, C]`, for any K, to their tokens `[B, 1, K, width]`."""
        hop = self.shape.hop
        frames = windows.reshape(-1, windows.shape[1] // hop, hop, self.shape.channels)
        values: Tensor = self.token(frames.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        # [B, K, 1, W] to [B, 1, K, W] moves no byte: the seam at which `export.ring` cuts the graph.
        return values.reshape(-1, 1, windows.shape[1] // hop, self.shape.width)

    def read(self, ring: Tensor) -> Tensor:
        """Tokens of a window `[B, 1, K, width]` to what each query has gathered, `[B, 1, queries, read_width]`."""
        values = self.reader(ring.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        attention = torch.softmax(self.scores(values).permute(0, 1, 3, 2), dim=-1)
        return torch.matmul(attention, values)

    def tokens(self, windows: Tensor) -> Tensor:
        """Windows `[B, T, C]` to what each query has gathered, `[B, 1, queries, read_width]`: the student's tokens in distillation."""
        return self.read(self.ring(windows))

    def embed(self, tokens: Tensor) -> Tensor:
        """What the queries gathered to the embedding `[B, D]`."""
        return cast(Tensor, self.embedding(tokens.flatten(1)))


def _macs(one: Convolution) -> int:
    return one.steps_out * one.kernel * one.inputs * one.outputs
