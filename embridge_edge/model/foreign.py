"""The description of a model of others: what its inputs and outputs are, and what happens to EMG before it."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan, SignalChain
from embridge_edge.recipe import SPLITS
from embridge_edge.tables import build

Floats = npt.NDArray[np.float32]
Index = npt.NDArray[np.int64]

AXES = ("batch", "time", "channels", "one")
_BATCH = 1024


@dataclass(frozen=True)
class InputPlan:
    """The tensor that takes windows.

    Attributes:
        name: in the graph.
        layout: what each axis is: "batch", "time" (samples, or feature frames), "channels" (or columns: features of all channels, in
            the chain's order), or "one", an axis of length 1. An axis left out has length 1.
    """

    name: str
    layout: tuple[str, ...]

    def __post_init__(self) -> None:
        unknown = [axis for axis in self.layout if axis not in AXES]
        if unknown:
            raise EdgeError(f"Unknown axis {unknown[0]!r} in layout; choose from {', '.join(AXES)}.")
        twice = [axis for axis in AXES[:3] if self.layout.count(axis) > 1]
        if twice:
            raise EdgeError(f"layout names {twice[0]!r} twice; name each axis once.")
        if self.layout[:1] != ("batch",):
            raise EdgeError('layout must begin with "batch"; export the model with a batch axis in front.')

    def shape(self, chain: SignalChain) -> tuple[int, ...]:
        """Length of each axis for one window under a chain.

        Raises:
            EdgeError: an axis is left out that is longer than 1.
        """
        lengths = {"batch": 1, "one": 1, "time": chain.steps, "channels": chain.columns}
        for axis in ("time", "channels"):
            if axis not in self.layout and lengths[axis] > 1:
                raise EdgeError(f"layout leaves out {axis!r}, of which the chain gives {lengths[axis]}; name it.")
        return tuple(lengths[axis] for axis in self.layout)

    @property
    def order(self) -> tuple[int, ...]:
        """How the axes of windows `[batch, time, channels]` are permuted; those that are left out have length 1 and come last."""
        named = [axis for axis in self.layout if axis != "one"]
        return tuple(AXES.index(axis) for axis in (*named, *(axis for axis in AXES[:3] if axis not in named)))


@dataclass(frozen=True)
class OutputPlan:
    """What the model gives: names of tensors, which need not be outputs of the graph.

    Attributes:
        embedding: `[batch, …]`, what gestures are told apart by. tokens: `[batch, tokens, width]`.
        scores: `[batch, gestures]`, before or behind a softmax. gestures: their names, in order.
    """

    embedding: str | None = None
    tokens: str | None = None
    scores: str | None = None
    gestures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.named:
            raise EdgeError("[outputs] names no tensor; give embedding, tokens or scores.")
        if bool(self.gestures) != bool(self.scores):
            raise EdgeError("[outputs] needs scores and gestures together: the scores' names, in order.")
        if len(set(self.gestures)) < len(self.gestures):
            raise EdgeError("[outputs] names a gesture twice; give each of the scores a name of its own.")

    @property
    def named(self) -> dict[str, str]:
        """Tensor by role, as far as they are named."""
        roles = {"embedding": self.embedding, "tokens": self.tokens, "scores": self.scores}
        return {role: name for role, name in roles.items() if name}


@dataclass(frozen=True)
class SignalPlan:
    """The samples that the chain begins with: those of the recordings, and refused where they are others."""

    rate_hz: float
    channels: int
    unit: str

    def __post_init__(self) -> None:
        if self.rate_hz <= 0 or self.channels < 1:
            raise EdgeError(f"[signal] has {self.channels} channels at {self.rate_hz:g} Hz; give what the model takes.")


@dataclass(frozen=True)
class NormalisationPlan:
    """(x − offset) × gain, clipped to ± limit; one number for all columns, or one for each.

    Attributes:
        limit: None takes the power of two above all that the training windows hold: an int8 input needs an end.
    """

    offset: float | tuple[float, ...] = 0.0
    gain: float | tuple[float, ...] = 1.0
    limit: float | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit <= 0:
            raise EdgeError(f"limit is {self.limit:g}; give a number above 0.")
        if 0.0 in (self.gain if isinstance(self.gain, tuple) else (self.gain,)):
            raise EdgeError("gain is 0, which leaves nothing of the signal; give another number.")


@dataclass(frozen=True)
class ForeignPlan:
    """A model's description.

    Attributes:
        chain: in a recipe's terms. split: the split that it was trained with; None where that is not known.
    """

    input: InputPlan
    outputs: OutputPlan
    signal: SignalPlan
    chain: ChainPlan
    normalisation: NormalisationPlan = field(default_factory=NormalisationPlan)
    split: str | None = None

    def __post_init__(self) -> None:
        if self.split not in (None, "none", *SPLITS):
            raise EdgeError(f"Unknown split {self.split!r} in the description; choose from {', '.join(SPLITS)}, none.")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def refuse_other_signal(self, chain: SignalChain) -> None:
        """Refuse recordings that the model does not take.

        Raises:
            EdgeError: another rate, number of channels or unit.
        """
        for name, mine, its in (
            ("rate_hz", self.signal.rate_hz, chain.rate_hz),
            ("channels", self.signal.channels, len(chain.channels)),
            ("unit", self.signal.unit, chain.unit),
        ):
            if mine != its:
                raise EdgeError(
                    f"The description has {name} {mine!r}, the recordings have {its!r}; use those of the model's band, or correct "
                    "the description."
                )

    def fitted(self, chain: SignalChain, signal: Floats, starts: Index) -> SignalChain:
        """The chain with the model's own normalisation.

        Args:
            chain: as the plan resolves for the recordings. signal, starts: training windows, for the limit where none is given.

        Raises:
            EdgeError: not as many numbers as columns.
        """
        widened: dict[str, Any] = {}
        for name in ("offset", "gain"):
            values = getattr(self.normalisation, name)
            if isinstance(values, float):
                values = (values,) * chain.columns
            if len(values) != chain.columns:
                raise EdgeError(
                    f"[normalisation] has {len(values)} numbers in {name}, the chain {chain.columns} columns."
                )
            widened[name] = tuple(float(np.float32(value)) for value in values)
        open_ended = replace(chain, **widened, limit=float(np.finfo(np.float32).max))
        limit = self.normalisation.limit or _power_above(open_ended, signal, starts)
        return replace(open_ended, limit=limit)


def _power_above(chain: SignalChain, signal: Floats, starts: Index) -> float:
    largest = 0.0
    for part in np.array_split(starts, max(1, -(-len(starts) // _BATCH))):
        largest = max(largest, float(np.abs(chain.inputs(signal, part)).max(initial=0.0)))
    return float(2.0 ** np.ceil(np.log2(largest))) if largest > 0 else 1.0


def read_description(file: Path) -> ForeignPlan:
    """A description from its TOML file.

    Raises:
        EdgeError: no such file, no TOML, an unknown or missing key, or a value that makes no sense.
    """
    described: ForeignPlan = build(ForeignPlan, _table(file), f"Description {file}")
    return described


def _table(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8", errors="replace"))
    except OSError as error:
        raise EdgeError(
            f"Cannot read the description {file}: {error.strerror}; embridge-edge describe writes one to fill in."
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise EdgeError(f"Description {file} is not valid TOML: {error}.") from None
