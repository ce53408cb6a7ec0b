"""The EMBridge teacher: EMG tower and Q-Former, aligned with a frozen pose tower."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from embridge_edge.errors import EdgeError
from embridge_edge.model.towers import FEED_FORWARD, EmgTower, PoseTower


@dataclass(frozen=True)
class TeacherShape:
    """Everything that fixes the teacher's tensors.

    Attributes:
        steps, columns: input of the EMG tower. patch: time steps in a patch. frames: pose frames in a window.
        gestures: rows of the label head; 0 for recordings without labels, whose one row is never trained.
    """

    steps: int
    columns: int
    patch: int
    frames: int
    gestures: int
    emg_width: int
    emg_blocks: int
    pose_width: int
    pose_blocks: int
    query_blocks: int
    queries: int
    heads: int
    embedding: int
    dropout: float

    def __post_init__(self) -> None:
        if not 1 <= self.patch <= self.steps:
            raise EdgeError(
                f"A patch of {self.patch} steps does not fit a window of {self.steps}; change patch_ms in the recipe."
            )
        for name in ("emg_width", "pose_width"):
            if getattr(self, name) % self.heads:
                raise EdgeError(
                    f"{name} {getattr(self, name)} is no multiple of heads {self.heads}; change the recipe's [teacher]."
                )
        if self.embedding > self.pose_width:
            raise EdgeError(
                f"embedding {self.embedding} is wider than pose_width {self.pose_width}; change the recipe's [teacher]."
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> TeacherShape:
        names = {item.name for item in fields(cls)}
        if set(stored) != names:
            raise EdgeError(
                f"The checkpoint's shape has no or an unknown {sorted(set(stored) ^ names)[0]!r}; train it again."
            )
        return cls(**stored)


class QFormerBlock(nn.Module):
    """Self-attention over the queries, then cross-attention to EMG tokens where the block has one, then feed-forward."""

    def __init__(self, width: int, memory_width: int | None, heads: int, dropout: float) -> None:
        super().__init__()
        self.own_norm = nn.LayerNorm(width)
        self.own = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_norm = nn.LayerNorm(width) if memory_width else None
        self.cross = (
            nn.MultiheadAttention(width, heads, dropout, kdim=memory_width, vdim=memory_width, batch_first=True)
            if memory_width
            else None
        )
        self.forward_norm = nn.LayerNorm(width)
        self.forward_layers = nn.Sequential(
            nn.Linear(width, FEED_FORWARD * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(FEED_FORWARD * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        normed = self.own_norm(queries)
        queries = queries + self.own(normed, normed, normed, need_weights=False)[0]
        if self.cross is not None and self.cross_norm is not None:
            queries = queries + self.cross(self.cross_norm(queries), memory, memory, need_weights=False)[0]
        return queries + self.forward_layers(self.forward_norm(queries))  # type: ignore[no-any-return]


class QFormer(nn.Module):
    """Learned queries that read EMG tokens: `[batch, tokens, memory_width]` to `[batch, queries, width]`.

    Cross-attention stands in every second block; self-attention starts from the pose encoder (`start_from`).
    """

    def __init__(self, queries: int, width: int, memory_width: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(0.2 * torch.randn(queries, width))
        self.blocks = nn.ModuleList(
            QFormerBlock(width, memory_width if index % 2 == 0 else None, heads, dropout) for index in range(blocks)
        )
        self.norm = nn.LayerNorm(width)

    def start_from(self, pose: PoseTower) -> None:
        """Copy the pose encoder's self-attention into the blocks, again from its start where it has fewer."""
        layers = pose.encoder.layers
        with torch.no_grad():
            for index, block in enumerate(self.blocks):
                source = layers[index % len(layers)]  # type: ignore[index, arg-type]
                block.own.load_state_dict(source.self_attn.state_dict())  # type: ignore[union-attr]
                block.own_norm.load_state_dict(source.norm1.state_dict())  # type: ignore[union-attr]

    def forward(self, memory: Tensor) -> Tensor:
        out = self.queries.expand(memory.shape[0], -1, -1)
        for block in self.blocks:
            out = block(out, memory)
        return self.norm(out)  # type: ignore[no-any-return]


class Teacher(nn.Module):
    """EMG to query embeddings in the pose tower's space.

    At inference only `emg`, `qformer` and `project` are used; `pose` embeds the gesture library.
    """

    def __init__(self, shape: TeacherShape) -> None:
        super().__init__()
        self.shape = shape
        self.emg = EmgTower(
            shape.steps, shape.columns, shape.patch, shape.emg_width, shape.emg_blocks, shape.heads, shape.dropout
        )
        self.pose = PoseTower(shape.frames, shape.pose_width, shape.pose_blocks, shape.heads, shape.embedding)
        self.qformer = QFormer(
            shape.queries, shape.pose_width, shape.emg_width, shape.query_blocks, shape.heads, shape.dropout
        )
        self.project = nn.Linear(shape.pose_width, shape.embedding)
        self.labels = nn.Linear(shape.embedding, max(1, shape.gestures))

    def queries(self, x: Tensor) -> Tensor:
        """EMG `[batch, steps, columns]` to query embeddings `[batch, queries, embedding]`."""
        return self.project(self.qformer(self.emg(x)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """EMG `[batch, steps, columns]` to the feature `[batch, embedding]`: the mean over the queries.

        The best query would need the pose, which is a leak at inference.
        """
        return self.queries(x).mean(dim=1)
