"""The microcontroller student: a small convolutional net with few-query attention pooling, built for int8."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, Self, cast

import torch
from torch import nn
from torch.nn import functional

from embridge_edge.errors import EdgeError
from embridge_edge.model.stored import StoredShape

Block = Literal["conv", "separable"]
BLOCKS: tuple[Block, ...] = ("conv", "separable")
LARGEST_WIDTH = 1024
LARGEST_KERNEL = 31
LARGEST_INPUT = 1 << 20


@dataclasses.dataclass(frozen=True)
class StudentShape(StoredShape):
    """What fixes a student's graph; everything else about it is weights.

    Attributes:
        steps: time steps of the input window (raw samples or feature frames).
        channels: values per time step (electrodes, or features of all electrodes).
        widths: output channels of each block.
        kernels: kernel length of each block, in time steps of its input.
        strides: stride of each block, 1 or 2 (a stride of 4 aborts Vela on Ethos-U55 and U65).
        queries: learned queries of the attention pooling.
        embedding: length of the output.
        block: "conv", or "separable" (depthwise and pointwise with a residual; the first block stays as it is).

    Raises:
        EdgeError: the numbers cannot make a student.
    """

    steps: int
    channels: int
    widths: tuple[int, ...] = (32, 64, 64, 64)
    kernels: tuple[int, ...] = (5, 5, 5, 5)
    strides: tuple[int, ...] = (2, 2, 1, 2)
    queries: int = 4
    embedding: int = 64
    block: Block = "conv"

    def __post_init__(self) -> None:
        for name in ("widths", "kernels", "strides"):
            try:
                object.__setattr__(self, name, tuple(getattr(self, name)))
            except TypeError:
                raise EdgeError(f"The student's {name} must be a list of whole numbers; correct the recipe.") from None
        if self.block not in BLOCKS:
            raise EdgeError(f"Unknown student block {self.block!r}; choose one of {', '.join(BLOCKS)}.")
        if not len(self.widths) == len(self.kernels) == len(self.strides) > 0:
            raise EdgeError(
                f"The student has {len(self.widths)} widths, {len(self.kernels)} kernels and {len(self.strides)} "
                "strides; give one of each per block."
            )
        for name, least, most in (
            ("steps", 2, LARGEST_INPUT),
            ("channels", 1, LARGEST_INPUT),
            ("queries", 1, 64),
            ("embedding", 2, LARGEST_WIDTH),
        ):
            check_whole(name, getattr(self, name), least, most)
        for name, most in (("widths", LARGEST_WIDTH), ("kernels", LARGEST_KERNEL), ("strides", 2)):
            for value in getattr(self, name):
                check_whole(name, value, 1, most)
        if self.steps * self.channels > LARGEST_INPUT:
            raise EdgeError(
                f"A window of {self.steps} x {self.channels} values is too large for a student; shorten the window."
            )
        if self.pooled_steps < 2:
            raise EdgeError(
                f"The strides {self.strides} leave one of {self.steps} time steps, but pooling needs two; "
                "use fewer strides of 2."
            )

    @classmethod
    def fitting(cls, steps: int, channels: int, *, at_least: int = 8, **rest: Any) -> Self:
        """A shape for this window whose strides halve the time axis while at least `at_least` steps remain."""
        blocks = len(rest.get("widths", cls.widths))
        if "kernels" not in rest and blocks != len(cls.kernels):
            rest["kernels"] = (5,) * blocks
        if "strides" not in rest:
            strides, left = [], steps
            for _ in range(blocks):
                halves = -(-left // 2) >= at_least
                strides.append(2 if halves else 1)
                left = -(-left // 2) if halves else left
            rest["strides"] = tuple(strides)
        return cls(steps, channels, **rest)

    @property
    def steps_after(self) -> tuple[int, ...]:
        """Time steps after each block (SAME padding, so the ceiling of steps over stride)."""
        after, left = [], self.steps
        for stride in self.strides:
            left = -(-left // stride)
            after.append(left)
        return tuple(after)

    @property
    def pooled_steps(self) -> int:
        """Time steps that the attention pooling sees."""
        return self.steps_after[-1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one window, counted as `firmware_bridge.graph.macs` counts the converted graph."""
        convolutions = sum(
            layer.steps_out * layer.kernel * (layer.outputs if layer.groups > 1 else layer.inputs * layer.outputs)
            for layer in convolution_plan(self)
        )
        pooling = 2 * self.pooled_steps * self.widths[-1] * self.queries
        return convolutions + pooling + self.queries * self.widths[-1] * self.embedding

    @property
    def parameters_count(self) -> int:
        """Weights and biases of the deployed graph, that is after `compression.folding`."""
        convolutions = sum(
            layer.kernel * (layer.outputs if layer.groups > 1 else layer.inputs * layer.outputs) + layer.outputs
            for layer in convolution_plan(self)
        )
        pooled = self.queries * self.widths[-1]
        return convolutions + pooled + pooled * self.embedding + self.embedding


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of the plan: channels in and out, kernel, stride, groups, and time steps in and out."""

    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    steps_in: int
    steps_out: int


def convolution_plan(shape: StudentShape) -> tuple[Convolution, ...]:
    """The convolutions of a student in order of execution."""
    return tuple(layer for block in blocks_plan(shape) for layer in block)


def blocks_plan(shape: StudentShape) -> Iterator[tuple[Convolution, ...]]:
    """The convolutions of each block."""
    inputs, steps = shape.channels, shape.steps
    for index, (outputs, kernel, stride) in enumerate(zip(shape.widths, shape.kernels, shape.strides, strict=True)):
        after = -(-steps // stride)
        if shape.block == "conv" or index == 0:
            yield (Convolution(inputs, outputs, kernel, stride, 1, steps, after),)
        else:
            yield (
                Convolution(inputs, inputs, kernel, stride, inputs, steps, after),
                Convolution(inputs, outputs, 1, 1, 1, after, after),
            )
        inputs, steps = outputs, after


class NormedConvolution(nn.Module):
    """Convolution over time with SAME padding and BatchNorm; `[B, C, 1, T]` in and out, channels last in memory."""

    def __init__(self, plan: Convolution) -> None:
        super().__init__()
        # TFLite's SAME puts the odd step behind. Padding that way, and not by the symmetric `padding=` of Conv2d, lets
        # the converter fold it: with `padding=2` three of four convolutions got a PAD op of their own.
        total = max((plan.steps_out - 1) * plan.stride + plan.kernel - plan.steps_in, 0)
        self.padding = (total // 2, total - total // 2)
        self.convolution: nn.Module = nn.Conv2d(
            plan.inputs, plan.outputs, (1, plan.kernel), stride=(1, plan.stride), groups=plan.groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(plan.outputs)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        if self.padding != (0, 0):
            values = functional.pad(values, self.padding)
        return cast(torch.Tensor, self.norm(self.convolution(values)))


class StudentBlock(nn.Module):
    """Convolutions with a ReLU behind each, and a residual where a separable block changes neither length nor width."""

    def __init__(self, plan: tuple[Convolution, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(NormedConvolution(layer) for layer in plan)
        self.residual = self.adds(plan)

    @staticmethod
    def adds(plan: tuple[Convolution, ...]) -> bool:
        """Whether a block with these convolutions adds what it reads to what it computes."""
        return len(plan) > 1 and plan[0].inputs == plan[-1].outputs and plan[0].steps_in == plan[-1].steps_out

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result = values
        for index, layer in enumerate(self.layers):
            result = layer(result)
            if self.residual and index == len(self.layers) - 1:
                result = result + values
            result = torch.relu(result)
        return result


class Student(nn.Module):
    """EMG window or feature frames `[B, T, C]` → embedding `[B, D]`, not normalised.

    Nothing in it resists int8: the norms are BatchNorms that fold into the convolutions, the activations are ReLUs, and
    the learned queries are one Linear that scores every time step, so that no BATCH_MATMUL gets a constant operand.
    """

    # Conv2d on [B, C, 1, T], reached by unsqueeze and permute from channels-last input, converts with one TRANSPOSE
    # (the scores of 4 x 10 values, which softmax needs along the last axis); Conv1d on [B, C, T] converts with five. It
    # trains faster too, since the permuted input already is what oneDNN calls channels last: 38 against 51 ms a step
    # of 256 windows of 80 x 8, forward, backward and AdamW, on one x86-64 core.

    def __init__(self, shape: StudentShape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.Sequential(*(StudentBlock(plan) for plan in blocks_plan(shape)))
        width = shape.widths[-1]
        # A bias would add the same to every time step of a query, and softmax over time takes that out again.
        self.scores = nn.Linear(width, shape.queries, bias=False)
        self.embedding = nn.Linear(shape.queries * width, shape.embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.embed(self.tokens(windows))

    def tokens(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows `[B, T, C]` to what each query has gathered, `[B, 1, queries, width]`."""
        # Four axes all the way, [B, 1, T', C]: with three, the converted graph has one RESHAPE more.
        values = self.blocks(windows.unsqueeze(1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        attention = torch.softmax(self.scores(values).permute(0, 1, 3, 2), dim=-1)
        return torch.matmul(attention, values)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens to the embedding `[B, D]`."""
        return cast(torch.Tensor, self.embedding(tokens.flatten(1)))


def parameters_count(module: nn.Module) -> int:
    """Trainable values of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def check_whole(name: str, value: object, least: int, most: int) -> None:
    """Refuse a field of a student's shape that is no whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise EdgeError(
            f"The student's {name} must be whole numbers from {least} to {most}, not {value!r}; correct the recipe."
        )
