"""The shape of the foundation encoder, free of torch so that a recipe can be read without it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from embridge_edge.errors import EdgeError
from embridge_edge.tables import at_least

LOSSES = ("mse", "smooth_l1")
"""Losses of the masked pre-training."""


@dataclass(frozen=True)
class FoundationShape:
    """Everything that fixes the encoder's tensors; nothing in it depends on a device.

    Attributes:
        patch_ms: length of a patch. highest_hz: end of the last spectral bin; bins are 1000 / patch_ms Hz wide.
        width, blocks, heads: of the Transformer encoder.
        harmonics: how many of the electrode's angle a token knows, sin and cos of each.
        moments: Fourier moments around the limb in the pooled output, beside the mean.
    """

    patch_ms: float = 50.0
    highest_hz: float = 450.0
    width: int = 64
    blocks: int = 3
    heads: int = 4
    harmonics: int = 4
    moments: int = 3

    def __post_init__(self) -> None:
        at_least(self, 1, "width", "blocks", "heads", "harmonics")
        at_least(self, 0, "moments")
        if self.width % self.heads:
            raise EdgeError(f"width {self.width} is no multiple of heads {self.heads}; change the recipe's [encoder].")
        if not 10.0 <= self.patch_ms <= 1000.0:
            raise EdgeError(f"patch_ms is {self.patch_ms:g}; give 10 to 1000.")
        if self.bins < 1:
            raise EdgeError(
                f"highest_hz {self.highest_hz:g} is below the first bin of a patch, {1000.0 / self.patch_ms:g} Hz; raise it or "
                "patch_ms."
            )

    @property
    def bins(self) -> int:
        """Spectral bins of a patch: whole cycles in it, from one up."""
        return int(self.highest_hz * self.patch_ms / 1000.0 + 1e-9)

    @property
    def contents(self) -> int:
        """Numbers that a patch enters with: its whole power and that of each bin."""
        return 1 + self.bins

    @property
    def embedding(self) -> int:
        """Columns of the pooled output."""
        return self.width * (1 + 2 * self.moments)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> FoundationShape:
        """The shape that `to_dict` stored.

        Raises:
            EdgeError: a field is missing or unknown.
        """
        names = {item.name for item in fields(cls)}
        if set(stored) != names:
            raise EdgeError(
                f"The checkpoint's shape has no or an unknown {sorted(set(stored) ^ names)[0]!r}; pre-train it again."
            )
        return cls(**stored)
