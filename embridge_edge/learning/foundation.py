"""Masked pre-training of the foundation encoder on recordings of several sources, and small heads on what it gives.

A source is what one band recorded: one rate, one number of channels. A step of the training takes its windows from one source, so
nothing is padded: on a CPU that is what costs least (docs/foundation.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import GestureLibrary, read_library
from embridge_edge.learning.batches import EvenSampler
from embridge_edge.learning.foundation_recipe import HeadPlan, PretrainPlan, SignalPlan
from embridge_edge.learning.loop import Run, Schedule, fit
from embridge_edge.learning.probes import linear_head, probe_windows, trained_head
from embridge_edge.learning.windows import WindowSet, chunks, cut_windows
from embridge_edge.learning.world import World
from embridge_edge.model.foundation import FoundationEncoder, ring
from embridge_edge.model.foundation_shape import FoundationShape
from embridge_edge.model.head import Head
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import WindowPlan
from embridge_edge.recordings.recording import Recording

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Band = tuple[int, float, str]
"""Channels, rate in hertz, unit: what one encoder input shares."""

SETTLE_S = 2.0
"""A running level needs signal before it says anything: a device waits so long after it was put on."""

QUIETEST = 1e-20
"""Power that silence counts as, relative to nothing: keeps the logarithm finite."""

STEADY = 1e-4
"""A column of the pooled output that spreads less than this, relative to the widest, is rounding: a moment that so few electrodes
cannot have, such as sin 2θ of four. It gets no weight; a discriminant would scale it up."""

LIMIT = 64.0
"""Samples are clipped to ± this many times the usual level: an artefact is not worth more."""


@dataclass(frozen=True)
class Source:
    """What one band recorded.

    Attributes:
        name: of the folder, with channels and rate where it holds several bands.
        windows: filtered signal and windows, with whatever labels there are.
        gains: float32 `[windows]`, what each window is multiplied with.
    """

    name: str
    windows: WindowSet
    gains: Floats

    @property
    def rate_hz(self) -> float:
        return self.windows.chain.rate_hz

    @property
    def channels(self) -> int:
        return len(self.windows.chain.channels)

    @property
    def hours(self) -> float:
        return len(self.windows.signal) / self.rate_hz / 3600.0

    def inputs(self, which: Index) -> Tensor:
        """Scaled samples of windows, float32 `[n, steps, channels]`."""
        chain = self.windows.chain
        samples = self.windows.signal[self.windows.starts[which][:, None] + np.arange(chain.window)]
        return torch.from_numpy(np.clip(samples * self.gains[which][:, None, None], -LIMIT, LIMIT))


def sources_of(
    name: str, read: Callable[[], Iterable[Recording]], plan: SignalPlan, folder: Path | None = None
) -> list[Source]:
    """The sources that a set of recordings holds, one for each band (channels, rate and unit), the longest first.

    Args:
        read: begins to read the recordings, once for each band.
        folder: keeps the windows while they are cut, with one recording in memory at a time; None keeps all in memory.

    Raises:
        EdgeError: there is no recording, or none of a band is as long as a window.
    """
    bands: list[Band] = []

    def of_band(number: int) -> Iterator[Recording]:
        for recording in read():
            band = recording.channels, recording.rate_hz, recording.unit
            if band not in bands:
                bands.append(band)
            if band == bands[number]:
                yield recording

    cut: list[WindowSet] = []
    library = read_library()
    while len(cut) < max(1, len(bands)):
        place = None if folder is None else folder / f"band-{len(cut)}"
        cut.append(_cut(name, of_band(len(cut)), plan, library, place))
    return _sources(name, cut, plan)


def load_sources(name: str, folder: Path, plan: SignalPlan) -> list[Source]:
    """The sources that `sources_of` kept in a folder; their arrays stay on disk.

    Raises:
        EdgeError: the folder is damaged, or of another version.
    """
    return _sources(name, [WindowSet.load(place) for place in sorted(folder.glob("band-*"))], plan)


def _sources(name: str, cut: list[WindowSet], plan: SignalPlan) -> list[Source]:
    found = []
    for windows in cut:
        chain = windows.chain
        band = f"{name}, {len(chain.channels)} × {chain.rate_hz:g} Hz in {chain.unit}"
        source = Source(name if len(cut) == 1 else band, windows, np.ones(len(windows), np.float32))
        found.append(scaled(source, plan.scale_s))
    return sorted(found, key=lambda source: -source.hours)


def _cut(
    name: str, recordings: Iterator[Recording], plan: SignalPlan, library: GestureLibrary, folder: Path | None
) -> WindowSet:
    first = next(recordings, None)
    if first is None:
        raise EdgeError(f"{name} holds no recording; give a folder with recordings in --data.")
    low, high = plan.bandpass_hz
    chain = ChainPlan(
        window_ms=plan.window_ms,
        hop_ms=plan.hop_ms,
        bandpass_hz=(min(low, 0.1 * first.rate_hz), high),
        notch_hz=plan.notch_hz,
    )
    return cut_windows(itertools.chain([first], recordings), chain, WindowPlan(guard_ms=plan.guard_ms), library, folder)


def scaled(source: Source, scale_s: float | None, which: Index | None = None) -> Source:
    """The source with the gains that bring it to a usual level of 1.

    Args:
        scale_s: time constant of the running level; None takes one level for the whole source, from the windows `which`
            (all by default).
    """
    windows = source.windows
    levels = np.log(np.maximum(_hop_powers(windows), QUIETEST))
    if scale_s is None:
        chosen = levels if which is None else levels[which]
        level = np.full(len(levels), np.mean(chosen) if len(chosen) else 0.0)
    else:
        level = running_level(levels, windows.sessions, windows.chain.hop / windows.chain.rate_hz, scale_s)
    return replace(source, gains=np.exp(-0.5 * level).astype(np.float32))


def running_level(
    levels: npt.NDArray[np.float64], sessions: Index, hop_s: float, scale_s: float
) -> npt.NDArray[np.float64]:
    """What a device knows of its usual level before each window, float64 `[windows]`.

    An exponential mean of the log power of one hop a window, since the band was put on, made unbiased at its start (as Adam does);
    a window's own hop takes no part. Within `SETTLE_S` of the start it is the mean of those seconds: nothing is decided before they are over.

    Args:
        levels: log power of each window's first hop, in the order of recording; sessions: int64, which donning.
        scale_s: time constant in seconds.
    """
    from scipy.signal import lfilter

    share = 1.0 - math.exp(-hop_s / scale_s)
    settle = max(1, round(SETTLE_S / hop_s))
    out = np.empty(len(levels))
    for session in np.unique(sessions):
        own = np.flatnonzero(sessions == session)
        seen = lfilter([share], [1.0, share - 1.0], levels[own])
        seen /= 1.0 - (1.0 - share) ** np.arange(1, len(own) + 1)
        known = np.minimum(settle, len(own))
        out[own[known:]] = seen[known - 1 : -1]
        out[own[:known]] = seen[known - 1]
    return out


def _hop_powers(windows: WindowSet) -> npt.NDArray[np.float64]:
    """Mean power over the channels in the first hop of each window, float64 `[windows]`."""
    hop = windows.chain.hop
    hops = len(windows.signal) // hop
    powers = np.empty(hops)
    for part in chunks(hops):  # the signal may lie on disk
        samples = windows.signal[part.start * hop : part.stop * hop]
        powers[part] = np.square(samples).mean(axis=1, dtype=np.float64).reshape(-1, hop).mean(axis=1)
    return np.asarray(powers[windows.starts // hop])


class SourceSampler:
    """Draws a source by its hours, then windows evenly; the draw of a step depends on (seed, step) alone."""

    def __init__(self, sources: Sequence[Source], which: Sequence[Index], power: float, seed: int) -> None:
        """Begin.

        Args:
            which: for each source, the windows that may be drawn.

        Raises:
            EdgeError: a source has no window.
        """
        for source, own in zip(sources, which, strict=True):
            if not len(own):
                raise EdgeError(f"{source.name} has no window to train on; leave this source out.")
        hours = np.array(
            [source.hours * len(own) / len(source.windows) for source, own in zip(sources, which, strict=True)]
        )
        weights = hours**power
        self.shares = weights / weights.sum()
        self._which = which
        self._seed = seed

    def draw(self, step: int, count: int) -> tuple[int, Index]:
        """Number of the source, and indices of `count` of its windows."""
        random = np.random.default_rng([self._seed, step])
        number = int(random.choice(len(self.shares), p=self.shares))
        own = self._which[number]
        return number, own[random.integers(len(own), size=count)]


def draw_hidden(
    batch: int, channels: int, patches: int, plan: PretrainPlan, rand: Callable[..., Tensor] = torch.rand
) -> Tensor:
    """Which tokens are hidden, bool `[batch, channels, patches]`: some one by one, and some channels whole.

    Args:
        rand: gives uniform numbers of a shape; that of a `World` gives this process's part.
    """
    return (rand(batch, channels, patches) < plan.mask_share) | (rand(batch, channels, 1) < plan.channel_share)


def pretrain_encoder(
    sources: Sequence[Source], which: Sequence[Index], shape: FoundationShape, plan: PretrainPlan, run: Run
) -> FoundationEncoder:
    """Train an encoder to foretell hidden tokens; neither labels nor poses take part.

    Args:
        which: for each source, the windows that may be seen.

    Raises:
        EdgeError: a source has no window, or a patch too few samples at its rate.
    """
    torch.manual_seed(run.seed)
    network = FoundationEncoder(shape)
    sampler = SourceSampler(sources, which, plan.sampling_power, run.seed)
    world = run.world
    for source in sources:  # a rate that does not go with the patches is found before hours have passed
        network.basis(source.inputs(np.zeros(1, np.int64)), source.rate_hz)

    def loss(draw: int) -> Tensor:
        number, drawn = sampler.draw(draw, plan.batch)
        source = sources[number]
        return masked_loss(network, world.to(source.inputs(world.part(drawn))), source.rate_hz, plan, world)

    fit(
        network,
        loss,
        Schedule(plan.steps, plan.learning_rate, plan.weight_decay),
        seed=run.seed,
        label=f"{run.name}: masked",
        saved=run.saved("masked", shape.to_dict(), asdict(plan), [source.name for source in sources]),
        progress=run.progress,
        world=world,
    )
    return network


def masked_loss(network: FoundationEncoder, x: Tensor, rate_hz: float, plan: PretrainPlan, world: World) -> Tensor:
    """Mean error over a batch's hidden tokens.

    Args:
        x: this process's part of the batch, samples `[batch / processes, steps, channels]`.
    """
    batch, _, channels = x.shape
    x = x * (plan.gain_jitter * world.randn(batch, 1, 1)).exp()
    angles = ring(channels, x.device) + math.radians(plan.turn_deg) * world.randn(batch, 1)
    hidden = draw_hidden(batch, channels, network.basis(x, rate_hz).patches, plan, world.rand)
    error, count = network.masked_error(x, rate_hz, hidden, angles, loss=plan.loss)
    mean: Tensor = world.gather(error).sum() / world.gather(count).sum().clamp(min=1.0)
    return mean


def foretold_share(network: FoundationEncoder, source: Source, which: Index, plan: PretrainPlan, seed: int) -> float:
    """How much of the variance of hidden tokens the encoder foretells: 1 is all, 0 no more than each bin's mean.

    Args:
        which: windows to try it on, at most 1024 of which are drawn.
    """
    random = np.random.default_rng([seed, 1])
    x = source.inputs(random.choice(which, size=min(1024, len(which)), replace=False))
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        basis = network.basis(x, source.rate_hz)
        hidden = draw_hidden(len(x), source.channels, basis.patches, plan)
        error, count = network.masked_error(x, source.rate_hz, hidden, loss="mse")
        variance = float(basis.spectra(x)[hidden][:, basis.reached > 0].var(dim=0, correction=0).mean())
    return 1.0 - float(error.sum() / count.sum().clamp(min=1.0)) / max(variance, 1e-12)


def embed_windows(
    network: FoundationEncoder, source: Source, which: Index, progress: Progress = SILENT, label: str = "embedding"
) -> Floats:
    """Pooled output for windows, float32 `[n, embedding]`."""
    parts = []
    with torch.inference_mode(), progress.bar(label, len(which), "window") as advance:
        for part in np.array_split(which, max(1, -(-len(which) // 512))):
            parts.append(network(source.inputs(part), source.rate_hz).numpy())
            advance(len(part))
    return np.concatenate(parts)


def fit_head(
    network: FoundationEncoder, source: Source, which: Index, plan: HeadPlan, run: Run
) -> tuple[FoundationEncoder, Head]:
    """A linear head on the pooled output, on labelled windows; with `finetune_steps` the encoder is trained on with it.

    Args:
        which: windows that may be used; those without a label are left out.

    Returns: the encoder (the same one, or a fine-tuned copy) and its head.

    Raises:
        EdgeError: fewer than two gestures are labelled.
    """
    windows = source.windows
    labelled = which[windows.labels[which] >= 0]
    if len(np.unique(windows.labels[labelled])) < 2:
        raise EdgeError(
            f"{source.name} has fewer than two labelled gestures to tell apart; give labelled recordings for the head."
        )
    chosen = probe_windows(windows, labelled, plan.probe_windows, run.seed)
    embeddings = embed_windows(network, source, chosen, run.progress)
    if plan.finetune_steps:
        return _finetuned(network, source, labelled, embeddings, plan, run)
    spread = embeddings.std(axis=0)
    embeddings[:, spread < STEADY * spread.max()] = 0.0
    return network, linear_head(embeddings, windows.labels[chosen], windows.gestures)


class _Classifier(nn.Module):
    """Encoder and label layer; between them the standardisation of the embeddings that fine-tuning starts from."""

    mean: Tensor
    spread: Tensor

    def __init__(self, encoder: FoundationEncoder, embeddings: Tensor, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.labels = nn.Linear(encoder.shape.embedding, classes)
        self.register_buffer("mean", embeddings.mean(dim=0))
        spread = embeddings.std(dim=0)
        self.register_buffer("spread", torch.where(spread < STEADY * spread.max(), torch.inf, spread))

    def forward(self, x: Tensor, rate_hz: float) -> Tensor:
        return self.labels((self.encoder(x, rate_hz) - self.mean) / self.spread)  # type: ignore[no-any-return]

    def rows(self) -> tuple[Floats, Floats]:
        """Weights and bias on the encoder's own output."""
        with torch.no_grad():
            weights = self.labels.weight / self.spread
            return weights.numpy(), (self.labels.bias - weights @ self.mean).numpy()


def _finetuned(
    network: FoundationEncoder, source: Source, which: Index, embeddings: Floats, plan: HeadPlan, run: Run
) -> tuple[FoundationEncoder, Head]:
    windows = source.windows
    torch.manual_seed(run.seed)
    tuned = FoundationEncoder(network.shape)
    tuned.load_state_dict(network.state_dict())
    tuned.hidden.requires_grad_(False)
    tuned.decoder.requires_grad_(False)
    classifier = _Classifier(tuned, torch.from_numpy(embeddings), len(windows.gestures))
    sampler = EvenSampler(windows, which, run.seed + 5)

    world = run.world

    def loss(draw: int) -> Tensor:
        mine = world.part(sampler.draw(draw, plan.batch))
        scores = classifier(world.to(source.inputs(mine)), source.rate_hz)
        labels = world.to(torch.from_numpy(windows.labels[mine]))
        return functional.cross_entropy(world.gather(scores), world.gather(labels))

    fit(
        classifier,
        loss,
        Schedule(plan.finetune_steps, plan.learning_rate, 0.0),
        seed=run.seed,
        label=f"{run.name}: fine-tuning",
        saved=run.saved("finetuned", network.shape.to_dict(), asdict(plan), source.name),
        progress=run.progress,
        world=world,
    )
    weights, bias = classifier.rows()
    return tuned, trained_head(weights, bias, windows.labels[which], windows.gestures)
