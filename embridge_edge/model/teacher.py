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
        emg_encoder: "transformer" or "convolutions".
        readout: "queries" (Q-Former), "cls" (one token of the EMG tower) or "mean" (of its tokens).
    """

    steps: int
    columns: int
    patch: int
    frames: int
    gestures: int
    readout: str
    emg_encoder: str
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
        if self.readout == "cls" and self.emg_encoder == "convolutions":
            raise EdgeError(
                'readout "cls" is a token among others, which convolutions over time do not have; set emg_encoder to "transformer", '
                "or another readout, in the recipe's [teacher]."
            )
        if self.readout == "mean" and self.embedding != self.emg_width:
            raise EdgeError(
                f'readout "mean" gives an embedding of emg_width {self.emg_width}, not {self.embedding}; change the recipe\'s '
                "[teacher]."
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
        stored = {
            "readout": "queries",
            "emg_encoder": "transformer",
            **stored,
        }  # checkpoints of before there was another
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

    def forward(self, tokens: Tensor, memory: Tensor | None, barred: Tensor | None = None) -> Tensor:
        """Args:
        tokens: `[batch, tokens, width]`. memory: EMG tokens; None leaves cross-attention out.
        barred: bool `[tokens, tokens]`, true where a token (row) must not attend to another (column).
        """
        normed = self.own_norm(tokens)
        tokens = tokens + self.own(normed, normed, normed, attn_mask=barred, need_weights=False)[0]
        if memory is not None and self.cross is not None and self.cross_norm is not None:
            tokens = tokens + self.cross(self.cross_norm(tokens), memory, memory, need_weights=False)[0]
        return tokens + self.forward_layers(self.forward_norm(tokens))  # type: ignore[no-any-return]


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

    def complete(self, read: Tensor, pose: Tensor) -> Tensor:
        """The second pass of masked pose reconstruction: pose tokens that may ask the queries' output, and nothing else.

        Both go through the self-attention and feed-forward layers; there is no EMG in it, and queries do not attend to pose
        tokens, so that everything that a pose token learns of the hand has come through `read`.

        Args:
            read: output of `forward`, `[batch, queries, width]`. pose: `[batch, frames, width]`, the hidden ones masked.

        Returns: pose tokens `[batch, frames, width]`.
        """
        queries, both = read.shape[1], torch.cat([read, pose], dim=1)
        barred = torch.zeros(both.shape[1], both.shape[1], dtype=torch.bool, device=both.device)
        barred[:queries, queries:] = True
        for block in self.blocks:
            both = block(both, None, barred)
        return self.norm(both[:, queries:])  # type: ignore[no-any-return]


class Teacher(nn.Module):
    """EMG to embeddings in the pose tower's space, read from the EMG tokens by queries or by one token.

    At inference only `emg`, the read-out and `project` are used; `pose` embeds the gesture library.
    """

    def __init__(self, shape: TeacherShape) -> None:
        super().__init__()
        self.shape = shape
        self.emg = EmgTower(
            shape.steps,
            shape.columns,
            shape.patch,
            shape.emg_width,
            shape.emg_blocks,
            shape.heads,
            shape.dropout,
            shape.emg_encoder,
        )
        self.pose = PoseTower(shape.frames, shape.pose_width, shape.pose_blocks, shape.heads, shape.embedding)
        self.project: nn.Module
        if shape.readout == "queries":
            self.qformer = QFormer(
                shape.queries, shape.pose_width, shape.emg_width, shape.query_blocks, shape.heads, shape.dropout
            )
            self.project = nn.Linear(shape.pose_width, shape.embedding)
        elif shape.readout == "cls":
            self.summary = nn.Parameter(0.02 * torch.randn(shape.emg_width))
            self.project = nn.Linear(shape.emg_width, shape.embedding)
        else:
            self.project = nn.Identity()
        self.labels = nn.Linear(shape.embedding, max(1, shape.gestures))

    def read(self, x: Tensor) -> Tensor:
        """EMG `[batch, steps, columns]` to what the read-out makes of it, `[batch, queries or 1, width]`."""
        if self.shape.readout == "queries":
            return self.qformer(self.emg(x))  # type: ignore[no-any-return]
        if self.shape.readout == "cls":
            return self.emg(x, self.summary)[:, :1]  # type: ignore[no-any-return]
        return self.emg(x).mean(dim=1, keepdim=True)  # type: ignore[no-any-return]

    def queries(self, x: Tensor) -> Tensor:
        """EMG `[batch, steps, columns]` to embeddings `[batch, queries or 1, embedding]`."""
        return self.project(self.read(x))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """EMG `[batch, steps, columns]` to the feature `[batch, embedding]`: the mean over the queries.

        The best query would need the pose, which is a leak at inference.
        """
        return self.queries(x).mean(dim=1)
