"""What to do for a foundation encoder, as data: `recipes/foundation/*.toml` are shipped; a file of one's own works as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from embridge_edge.artifacts import sha256_of
from embridge_edge.errors import EdgeError
from embridge_edge.model.foundation_shape import LOSSES, FoundationShape
from embridge_edge.tables import at_least, build, one_of, read_table, shipped_tables


@dataclass(frozen=True)
class SignalPlan:
    """What is cut out of recordings, free of any sample rate.

    Attributes:
        window_ms, hop_ms: length of a window and distance between windows.
        bandpass_hz: cut-offs of the causal band-pass; the upper is at most 0.45 × a recording's rate, the lower at most 0.1 ×
            (an under-sampled stream would have no band left).
        notch_hz: mains frequency to notch out with its harmonics; `false` for none.
        guard_ms: a labelled window counts when all its samples lie at least this long behind a change of label.
        scale_s: time constant of the running level that every window is divided by. None (`false`) divides by one level for
            each source, taken from its training windows: prompted recordings come in a fixed order, and a running level tells
            which gestures went before.
    """

    window_ms: float = 400.0
    hop_ms: float = 50.0
    bandpass_hz: tuple[float, float] = (20.0, 450.0)
    notch_hz: float | None = None
    guard_ms: float = 300.0
    scale_s: float | None = None

    def __post_init__(self) -> None:
        at_least(self, 0, "guard_ms")
        at_least(self, 1, "scale_s")


@dataclass(frozen=True)
class PretrainPlan:
    """Masked pre-training: tokens are hidden, and what was in them is foretold from the others.

    Attributes:
        steps, batch: optimisation steps, and windows in each; a step takes all of its windows from one source.
        learning_rate: peak of a one-cycle schedule.
        mask_share: share of tokens hidden one by one. channel_share: share of channels hidden whole.
        loss: "mse" or "smooth_l1" on the hidden tokens' log amplitudes.
        sampling_power: a source is drawn in proportion to its hours to this power: 1 as long as it is, 0 all alike.
        gain_jitter: standard deviation of the logarithm of a window's gain.
        turn_deg: standard deviation of the angle by which a window's electrodes are said to be turned.
    """

    steps: int = 1000
    batch: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    mask_share: float = 0.4
    channel_share: float = 0.15
    loss: str = "smooth_l1"
    sampling_power: float = 0.5
    gain_jitter: float = 0.1
    turn_deg: float = 15.0

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch")
        at_least(self, 0, "learning_rate", "weight_decay", "sampling_power", "gain_jitter", "turn_deg")
        for name in ("mask_share", "channel_share"):
            if not 0 <= getattr(self, name) < 1:
                raise EdgeError(f"{name} is {getattr(self, name):g}; give 0 or more and less than 1.")
        if not self.mask_share + self.channel_share > 0:
            raise EdgeError("mask_share and channel_share are both 0; nothing would be hidden: raise one.")
        one_of(self, "loss", LOSSES)


@dataclass(frozen=True)
class HeadPlan:
    """The small head on the pooled output.

    Attributes:
        probe_windows: training windows of a linear probe, drawn evenly over gestures and wearers.
        finetune_steps: 0 leaves the encoder as it is; else it is trained on together with the head, for so many steps.
        batch, learning_rate: of the fine-tuning.
    """

    probe_windows: int = 40_000
    finetune_steps: int = 0
    batch: int = 128
    learning_rate: float = 3e-4

    def __post_init__(self) -> None:
        at_least(self, 2, "probe_windows", "batch")
        at_least(self, 0, "finetune_steps", "learning_rate")


@dataclass(frozen=True)
class FoundationRecipe:
    """Everything that `pretrain` does."""

    name: str
    signal: SignalPlan = field(default_factory=SignalPlan)
    encoder: FoundationShape = field(default_factory=FoundationShape)
    pretrain: PretrainPlan = field(default_factory=PretrainPlan)
    head: HeadPlan = field(default_factory=HeadPlan)

    def __post_init__(self) -> None:
        if self.encoder.patch_ms > self.signal.window_ms:
            raise EdgeError(
                f"patch_ms {self.encoder.patch_ms:g} is longer than window_ms {self.signal.window_ms:g}; change the recipe."
            )
        if self.signal.window_ms % self.encoder.patch_ms:
            raise EdgeError(
                f"window_ms {self.signal.window_ms:g} is no multiple of patch_ms {self.encoder.patch_ms:g}; change the recipe."
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def sha256(self) -> str:
        return sha256_of(self.to_dict())


RECIPES = "embridge_edge.recipes.foundation"


def shipped_foundation_recipes() -> list[str]:
    """Names of the foundation recipes that come with the package."""
    return shipped_tables(RECIPES)


def find_foundation_recipe(name: str) -> FoundationRecipe:
    """A shipped foundation recipe by name, or a file by path.

    Raises:
        EdgeError: no such recipe, no TOML, an unknown key or a value of the wrong type; the allowed ones are listed.
    """
    recipe: FoundationRecipe = build(FoundationRecipe, read_table(RECIPES, name, "foundation recipe"), f"Recipe {name}")
    return recipe


def foundation_recipe_from_dict(stored: Mapping[str, Any]) -> FoundationRecipe:
    """The recipe that `FoundationRecipe.to_dict` stored in an artifact."""
    recipe: FoundationRecipe = build(FoundationRecipe, stored, "The stored recipe")
    return recipe
