"""The phone's and the accelerator's student: convolutions to tokens, a Transformer encoder, a Q-Former, built for int8.

Norms are BatchNorms that fold into the Linear behind them, unless LayerNorms are asked for, which stay in the graph as ops of their
own and have gained nothing (docs/numbers.md). Feed-forward layers have ReLU, since microcontroller runtimes lack GELU.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_edge.errors import EdgeError
from embridge_edge.model.stored import StoredShape
from embridge_edge.model.student import Convolution, NormedConvolution

Norm = Literal["batch", "layer"]
NORMS: tuple[Norm, ...] = ("batch", "layer")
STEM_KERNEL = 5
FEED_FORWARD = 2


@dataclasses.dataclass(frozen=True)
class TransformerShape(StoredShape):
    """What fixes a Transformer student's graph.

    Attributes:
        steps, channels: the input window. width: of tokens. blocks: of the encoder. heads: of its attention.
        halvings: convolutions of stride 2 in the stem; a token then stands for 2 ** halvings steps.
        queries: learned queries that read the tokens. query_blocks: self-attention blocks over what they have read.
        embedding: length of the output.
        norm: "batch", which folds, or "layer".
        stem_widths: of the stem's convolutions but the last, whose width is the tokens'. head_size: values of a head.
        block_heads, hidden: heads, and width of the feed-forward layer, of each block: the encoder's, then those over the queries.
            These four are None, and follow from width and heads, until a student is pruned (`compression.pruning`).

    Raises:
        EdgeError: the numbers cannot make a student.
    """

    steps: int
    channels: int
    width: int = 64
    blocks: int = 2
    heads: int = 4
    halvings: int = 3
    queries: int = 4
    query_blocks: int = 1
    embedding: int = 64
    norm: Norm = "batch"
    stem_widths: tuple[int, ...] | None = None
    head_size: int | None = None
    block_heads: tuple[int, ...] | None = None
    hidden: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, least in (
            ("steps", 2), ("channels", 1), ("width", 4), ("blocks", 1), ("heads", 1), ("halvings", 0), ("queries", 1),
            ("query_blocks", 0), ("embedding", 2),
        ):  # fmt: skip
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise EdgeError(f"The student's {name} is {value!r}; give a whole number of {least} or more.")
        if self.norm not in NORMS:
            raise EdgeError(f"Unknown norm {self.norm!r} of the student; choose one of {', '.join(NORMS)}.")
        if self.head_size is None and self.width % self.heads:
            raise EdgeError(f"The student's width {self.width} is no multiple of its heads {self.heads}; change one.")
        blocks = self.blocks + self.query_blocks
        for name, count in (
            ("stem_widths", max(0, self.halvings - 1)),
            ("block_heads", blocks),
            ("hidden", blocks),
        ):
            if (given := getattr(self, name)) is None:
                continue
            if len(given) != count or any(not isinstance(value, int) or value < 1 for value in given):
                raise EdgeError(f"The student's {name} are {list(given)}; give {count} whole numbers of 1 or more.")
            object.__setattr__(self, name, tuple(given))
        if self.tokens < 2:
            raise EdgeError(f"{self.halvings} halvings leave one token of {self.steps} steps; use fewer.")

    @property
    def tokens(self) -> int:
        """Tokens of a window."""
        return self.stem[-1].steps_out

    @property
    def stem(self) -> tuple[Convolution, ...]:
        """The convolutions of the stem; one without a stride where nothing is halved."""
        found, steps, inputs = [], self.steps, self.channels
        for index in range(max(1, self.halvings)):
            stride = 2 if self.halvings else 1
            after = -(-steps // stride)
            outputs = self.width if index >= self.halvings - 1 else self._stem_width(index)
            found.append(Convolution(inputs, outputs, STEM_KERNEL, stride, 1, steps, after))
            steps, inputs = after, outputs
        return tuple(found)

    def _stem_width(self, index: int) -> int:
        return max(8, self.width // 2) if self.stem_widths is None else self.stem_widths[index]

    @property
    def attention(self) -> tuple[AttentionPlan, ...]:
        """The self-attention blocks: the encoder's over the tokens, then those over the queries."""
        count = self.blocks + self.query_blocks
        heads = self.block_heads or (self.heads,) * count
        hidden = self.hidden or (FEED_FORWARD * self.width,) * count
        size = self.head_size or self.width // self.heads
        return tuple(AttentionPlan(self.width, *one, size, self.norm) for one in zip(heads, hidden, strict=True))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one window, as the converted graph has them."""
        convolutions = sum(one.steps_out * one.kernel * one.inputs * one.outputs for one in self.stem)
        rows = [self.tokens] * self.blocks + [self.queries] * self.query_blocks
        blocks = sum(block.macs(count) for block, count in zip(self.attention, rows, strict=True))
        reading = 2 * self.tokens * self.width * self.queries
        return convolutions + blocks + reading + self.queries * self.width * self.embedding

    @property
    def parameters_count(self) -> int:
        """Weights and biases of the deployed graph, norms folded where they can be."""
        convolutions = sum(one.kernel * one.inputs * one.outputs + one.outputs for one in self.stem)
        width = self.width
        blocks = sum(block.parameters_count for block in self.attention)
        places = self.tokens * width + (self.queries * width if self.query_blocks else 0)
        reading = self.queries * width + self.queries
        out = self.queries * width * self.embedding + self.embedding
        own = 0 if self.norm == "batch" else 2 * width * (2 * len(self.attention) + 1)
        return convolutions + places + blocks + reading + out + own


@dataclasses.dataclass(frozen=True)
class AttentionPlan:
    """One self-attention block: width of its tokens, heads, width of its feed-forward layer, values of a head, kind of its norms."""

    width: int
    heads: int
    hidden: int
    size: int
    norm: Norm = "batch"

    def macs(self, rows: int) -> int:
        """Multiply-accumulates over so many tokens."""
        inner = self.heads * self.size
        return rows * self.width * (4 * inner + 2 * self.hidden) + 2 * rows * rows * inner

    @property
    def parameters_count(self) -> int:
        """Weights and biases, norms folded."""
        inner = self.heads * self.size
        return 3 * inner * (self.width + 1) + self.width * (inner + 1) + self.hidden * (2 * self.width + 1) + self.width


class NormedLinear(nn.Module):
    """A norm over the last axis, then Linears, into which a BatchNorm folds: `[…, inputs]` to one tensor for each.

    In training they are one product; the deployed graph has one layer for each, so that nothing has to be cut apart.
    """

    def __init__(self, inputs: int, *outputs: int, norm: Norm = "batch") -> None:
        super().__init__()
        self.norm: nn.Module = nn.BatchNorm1d(inputs) if norm == "batch" else nn.LayerNorm(inputs)
        self.linears = nn.ModuleList(nn.Linear(inputs, count) for count in outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if not isinstance(self.norm, nn.BatchNorm1d):
            normed = self.norm(x)
            return tuple(linear(normed) for linear in self.linears)
        normed = self.norm(x.reshape(-1, x.shape[-1]))
        linears = [cast(nn.Linear, linear) for linear in self.linears]
        weight, bias = (torch.cat([getattr(one, name) for one in linears]) for name in ("weight", "bias"))
        whole = functional.linear(normed, weight, bias).reshape(*x.shape[:-1], -1)
        return torch.split(whole, [one.out_features for one in linears], dim=-1)

    def fold(self) -> None:
        """Put a BatchNorm into the Linears: y = W (γ (x − μ) / σ + β) + b. A LayerNorm stays."""
        if not isinstance(norm := self.norm, nn.BatchNorm1d):
            return
        with torch.no_grad():
            scale = norm.weight / torch.sqrt(cast(Tensor, norm.running_var) + norm.eps)
            shift = norm.bias - cast(Tensor, norm.running_mean) * scale
            for linear in (cast(nn.Linear, one) for one in self.linears):
                linear.bias.add_(linear.weight @ shift)
                linear.weight.mul_(scale)
        self.norm = nn.Identity()


class AttentionBlock(nn.Module):
    """Self-attention and feed-forward, each behind a norm and with a residual; `[B, T, W]` to the same.

    A head has Linears of its own: splitting one product into heads takes five ops that only move values (TRANSPOSE, SLICE), which an
    accelerator may leave to the processor. The usual 1/√d is part of the query's weights when it is folded.
    """

    def __init__(self, plan: AttentionPlan) -> None:
        super().__init__()
        self.heads = plan.heads
        self.attend = NormedLinear(plan.width, *[plan.size] * (3 * plan.heads), norm=plan.norm)
        self.out = nn.Linear(plan.heads * plan.size, plan.width)
        self.widen = NormedLinear(plan.width, plan.hidden, norm=plan.norm)
        self.narrow = nn.Linear(plan.hidden, plan.width)
        self.scale = plan.size**-0.5

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attend(x)
        queries, keys, values = (parts[place : place + self.heads] for place in range(0, 3 * self.heads, self.heads))
        read = [self._head(*one) for one in zip(queries, keys, values, strict=True)]
        x = x + cast(Tensor, self.out(torch.cat(read, dim=-1)))
        return x + cast(Tensor, self.narrow(torch.relu(self.widen(x)[0])))

    def _head(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.transpose(-2, -1)
        return torch.softmax(scores if self.scale == 1.0 else self.scale * scores, dim=-1) @ value

    def fold(self) -> None:
        """Put the norms and the scale of the scores into the Linears."""
        self.attend.fold()
        self.widen.fold()
        with torch.no_grad():
            for query in (cast(nn.Linear, one) for one in self.attend.linears[: self.heads]):
                query.weight.mul_(self.scale)
                query.bias.mul_(self.scale)
        self.scale = 1.0


class TransformerStudent(nn.Module):
    """EMG window or feature frames `[B, T, C]` → embedding `[B, D]`, not normalised."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.shape = shape
        self.stem = nn.Sequential(*(nn.Sequential(NormedConvolution(one), nn.ReLU()) for one in shape.stem))
        self.place = nn.Parameter(0.02 * torch.randn(shape.tokens, shape.width))
        self.encoder = nn.Sequential(*(AttentionBlock(plan) for plan in shape.attention[: shape.blocks]))
        self.scores = NormedLinear(shape.width, shape.queries, norm=shape.norm)
        self.query = nn.Parameter(0.02 * torch.randn(shape.queries, shape.width))
        self.qformer = nn.Sequential(*(AttentionBlock(plan) for plan in shape.attention[shape.blocks :]))
        self.embedding = nn.Linear(shape.queries * shape.width, shape.embedding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, windows: Tensor) -> Tensor:
        return self.embed(self.tokens(windows))

    def tokens(self, windows: Tensor) -> Tensor:
        """Windows `[B, T, C]` to what each query makes of them, `[B, queries, width]`."""
        values = self.stem(windows.unsqueeze(1).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).squeeze(1)
        values = self.encoder(values + self.place)
        attention = torch.softmax(self.scores(values)[0].transpose(1, 2), dim=-1)
        read = attention @ values
        return cast(Tensor, self.qformer(read + self.query)) if self.shape.query_blocks else read

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens to the embedding `[B, D]`."""
        return cast(Tensor, self.embedding(tokens.flatten(1)))
