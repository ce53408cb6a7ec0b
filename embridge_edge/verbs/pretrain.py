"""`pretrain`: unlabelled recordings of several sources to a foundation encoder, and a small head on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge import __version__
from embridge_edge.errors import EdgeError
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import SPLITS
from embridge_edge.verbs.options import Common, common_options, refuse_existing, show

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from embridge_edge.learning.foundation import Source
    from embridge_edge.learning.foundation_recipe import FoundationRecipe
    from embridge_edge.learning.loop import Run
    from embridge_edge.model.foundation_checkpoint import Device, FoundationCheckpoint
    from embridge_edge.verbs.workspace import Workspace

    Index = npt.NDArray[np.int64]

DEFAULT_RECIPE = "small"

JUDGED_WINDOWS = 40_000
"""Test windows on which a head is judged, at most, drawn evenly over gestures and wearers."""


@dataclass(frozen=True)
class SourceRow:
    """One source of the pre-training.

    Attributes:
        drawn_share: share of the steps that take their windows from it.
        foretold: share of the variance of hidden tokens that the encoder foretells, on windows that it was trained on.
        macs: multiply-accumulates of the encoder for a window of this band.
    """

    name: str
    channels: int
    rate_hz: float
    hours: float
    drawn_share: float
    foretold: float
    macs: int


@dataclass(frozen=True)
class HeadRow:
    """A head and what it is worth on recordings that neither it nor (unless `seen`) the pre-training has seen.

    Attributes:
        balanced_accuracy, lda: mean over wearers of the head, and of LDA on five time-domain features of the same windows; None
            where nothing was kept for judging.
        seen: the encoder had seen the test side, without its labels.
    """

    source: str
    split: str
    gestures: tuple[str, ...]
    balanced_accuracy: float | None
    lda: float | None
    windows: int
    finetuned: bool
    seen: bool

    def text(self) -> str:
        about = f"head for {self.source}: {len(self.gestures)} gestures{', fine-tuned' if self.finetuned else ''}"
        if self.balanced_accuracy is None or self.lda is None:
            return f"{about}; nothing was kept for judging it"
        seen = "; pre-training has seen these recordings without labels" if self.seen else ""
        return (
            f"{about}; balanced accuracy {self.balanced_accuracy:.3f} (LDA {self.lda:.3f}) on {self.windows:,} windows of "
            f"split {self.split}{seen}"
        )


@dataclass(frozen=True)
class PretrainReport:
    """What was pre-trained, on what, and where it is."""

    checkpoint: Path
    recipe: str
    parameters: int
    embedding: int
    sources: tuple[SourceRow, ...]
    head: HeadRow | None

    def text(self) -> str:
        lines = [
            f"foundation encoder, recipe {self.recipe}: {self.parameters:,} parameters, {self.embedding} columns pooled"
        ]
        lines += [
            f"  {row.name}: {row.channels} channels at {row.rate_hz:g} Hz, {row.hours:.2f} h, {100 * row.drawn_share:.0f} % of the "
            f"steps, foretells {row.foretold:.2f} of the hidden variance, {row.macs / 1e6:.1f} million MACs a window"
            for row in self.sources
        ]
        lines += [self.head.text()] if self.head else []
        return "\n".join([*lines, str(self.checkpoint)])

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "checkpoint": str(self.checkpoint)}


def pretrain(
    data: Sequence[Path],
    out: Path,
    *,
    recipe: str | None = None,
    head: Path | None = None,
    split: str | None = None,
    start: Path | None = None,
    format: str | None = None,
    seed: int = 0,
    force: bool = False,
    progress: Progress = SILENT,
) -> PretrainReport:
    """Train one encoder on recordings of any channel counts and rates, without labels; then fit a small head, if asked.

    An interrupted training goes on where it stopped when it is called again with the same arguments. Started by `torchrun` or
    Slurm, the processes share every batch, and the first of them reads the recordings and writes the checkpoint.

    Args:
        data: sources, each a file, an archive or a folder. out: folder for the checkpoint.
        recipe: name or file of a foundation recipe; None takes "small", or with `start` the one stored there.
        head: labelled recordings to fit a linear head on. Where they are among `data` too, the pre-training does not see
            what is kept for judging.
        split: what is kept for judging the head; None takes the first that the recordings allow, "none" keeps nothing.
        start: a folder that this verb wrote: its encoder is taken instead of training one; of the recipe only [head] counts then.

    Raises:
        EdgeError: wrong recipe, recordings or checkpoint, or `out` holds something already.
    """
    from embridge_edge.learning.loop import Run, key_of
    from embridge_edge.model.checkpoint import CHECKPOINT_FILES
    from embridge_edge.model.foundation_checkpoint import load_foundation, save_foundation
    from embridge_edge.verbs.train import forget
    from embridge_edge.verbs.workspace import Workspace, fingerprint, refuse_around, refuse_inside

    _check_arguments(data, head, start)
    refuse_existing(out, force, CHECKPOINT_FILES)
    read = list(dict.fromkeys([*data, *([head] if head else [])]))
    for path in read:
        refuse_inside(out, path)
        refuse_around(out, path)
    begun = load_foundation(start) if start else None
    plan = _plan(recipe, begun)
    state = out.parent / f".{out.name}.unfinished"
    stamps = [fingerprint(path, format) for path in read]
    key = key_of(__version__, stamps, plan.to_dict(), len(data), split, begun.sha256 if begun else None, seed)
    run = Run(seed, out.name, state, key, progress)
    world = run.world
    workspace = Workspace(state, progress if world.first else SILENT)
    if not world.first:  # the windows are there once the first process has cut them
        world.barrier()
    sets = [_read(path, number, plan, format, workspace) for number, path in enumerate(read)]
    if world.first:
        world.barrier()
    trial = _trial(sets[read.index(head)], split) if head else None
    rows: tuple[SourceRow, ...] = ()
    if begun is None:
        begun, rows = _pretrained(sets[: len(data)], trial, plan, run)
    head_row = None
    if trial is not None:
        begun, head_row = _with_head(begun, trial, plan, run)
    if world.first:
        save_foundation(begun, out)
    world.barrier()
    if world.first:
        forget(state)
    return PretrainReport(
        checkpoint=out,
        recipe=plan.name,
        parameters=sum(tensor.size for tensor in begun.tensors.values()),
        embedding=begun.shape.embedding,
        sources=rows,
        head=head_row,
    )


@dataclass(frozen=True)
class _Set:
    """The recordings at one path: their sources, the longest first, and what their content hashes to."""

    sources: tuple[Source, ...]
    sha256: str


@dataclass(frozen=True)
class _Trial:
    """What a head is fitted on and judged by.

    Attributes:
        sha256: of the recordings. train, test: indices of windows; none to test where everything trains.
    """

    source: Source
    sha256: str
    split: str
    train: Index
    test: Index


def _check_arguments(data: Sequence[Path], head: Path | None, start: Path | None) -> None:
    if start is not None and data:
        raise EdgeError("--start takes an encoder as it is, --data trains one; give one of them.")
    if start is None and not data:
        raise EdgeError("Nothing to learn from; give recordings with --data, or an encoder with --start.")
    if start is not None and head is None:
        raise EdgeError("--start without --head changes nothing; give labelled recordings with --head.")


def _plan(recipe: str | None, begun: FoundationCheckpoint | None) -> FoundationRecipe:
    """The recipe that was asked for; with an encoder to start from, that encoder's with the [head] that was asked for."""
    from embridge_edge.learning.foundation_recipe import find_foundation_recipe, foundation_recipe_from_dict

    asked = find_foundation_recipe(recipe or DEFAULT_RECIPE)
    if begun is None:
        return asked
    stored = foundation_recipe_from_dict(begun.recipe)
    return stored if recipe is None else replace(stored, head=asked.head)


def _read(path: Path, number: int, plan: FoundationRecipe, format: str | None, workspace: Workspace) -> _Set:
    """Sources of one path; their windows lie in the workspace and are cut anew only when something has changed."""
    from embridge_edge.learning.foundation import load_sources, sources_of
    from embridge_edge.recordings.loading import read_recordings
    from embridge_edge.verbs.workspace import content_hash, fingerprint

    name = path.resolve().name

    def make(folder: Path) -> None:
        sources_of(
            name,
            lambda: read_recordings(path, format, workspace.progress, several_devices=True),
            plan.signal,
            folder,
        )

    folder, _ = workspace.step(f"windows-{number}", [fingerprint(path, format), plan.to_dict()["signal"]], make)
    return _Set(tuple(load_sources(name, folder, plan.signal)), content_hash(path, format))


def _trial(recordings: _Set, split: str | None) -> _Trial:
    """Divide labelled recordings for a head; of several bands the longest is taken.

    Raises:
        EdgeError: the recordings do not allow the split.
    """
    import numpy as np

    from embridge_edge.learning.splits import make_splits, possible_splits

    source = recordings.sources[0]
    if split == "none":
        return _Trial(source, recordings.sha256, split, np.arange(len(source.windows)), np.zeros(0, np.int64))
    division = make_splits(source.windows, split or possible_splits(source.windows)[0])[0]
    test = np.flatnonzero(division.test & (source.windows.labels >= 0))
    return _Trial(source, recordings.sha256, division.name, np.flatnonzero(division.train), test)


def _pretrained(
    sets: Sequence[_Set], trial: _Trial | None, plan: FoundationRecipe, run: Run
) -> tuple[FoundationCheckpoint, tuple[SourceRow, ...]]:
    """Pre-train on everything but what a head will be judged by."""
    import numpy as np

    from embridge_edge.learning.foundation import SourceSampler, foretold_share, pretrain_encoder, scaled
    from embridge_edge.model.checkpoint import tensors_of
    from embridge_edge.model.foundation import macs
    from embridge_edge.model.foundation_checkpoint import FoundationCheckpoint
    from embridge_edge.verbs.workflow import versions

    sources, which, kept_back = [], [], {}
    for recordings in sets:
        for source in recordings.sources:
            own = np.arange(len(source.windows))
            if trial is not None and recordings.sha256 == trial.sha256 and source.name == trial.source.name:
                own, kept_back = trial.train, {trial.sha256: trial.split}
            which.append(own)
            sources.append(scaled(source, plan.signal.scale_s, own))
    network = pretrain_encoder(sources, which, plan.encoder, plan.pretrain, run)
    shares = SourceSampler(sources, which, plan.pretrain.sampling_power, run.seed).shares
    patches = round(plan.signal.window_ms / plan.encoder.patch_ms)
    rows = tuple(
        SourceRow(
            source.name,
            source.channels,
            source.rate_hz,
            source.hours * len(own) / len(source.windows),
            float(share),
            foretold_share(network, source, own, plan.pretrain, run.seed),
            macs(plan.encoder, source.channels, patches),
        )
        for source, own, share in zip(sources, which, shares, strict=True)
    )
    checkpoint = FoundationCheckpoint(
        shape=plan.encoder,
        recipe=plan.to_dict(),
        tensors=tensors_of(network),
        sources=tuple(_device(source, plan, row.hours) for source, row in zip(sources, rows, strict=True)),
        heads=(),
        provenance={
            "recipe_sha256": plan.sha256,
            "seed": run.seed,
            "parents": [recordings.sha256 for recordings in sets],
            "kept_back": kept_back,
            "versions": versions(),
        },
    )
    return checkpoint, rows


def _with_head(
    begun: FoundationCheckpoint, trial: _Trial, plan: FoundationRecipe, run: Run
) -> tuple[FoundationCheckpoint, HeadRow]:
    """The checkpoint with one more head; fine-tuning changes the encoder, and the heads that it had go."""
    from embridge_edge.learning.foundation import embed_windows, fit_head, scaled
    from embridge_edge.learning.probes import probe_windows
    from embridge_edge.model.checkpoint import tensors_of
    from embridge_edge.model.foundation_checkpoint import FittedHead

    source = scaled(trial.source, plan.signal.scale_s, trial.train)
    network, head = fit_head(begun.network(), source, trial.train, plan.head, run)
    fitted = FittedHead(_device(source, plan, 0.0), head)
    finetuned = plan.head.finetune_steps > 0
    made = replace(
        begun,
        recipe=plan.to_dict(),
        tensors=tensors_of(network),
        heads=(*(() if finetuned else begun.heads), fitted),
    )
    origin = begun.provenance
    seen = trial.sha256 in origin.get("parents", ()) and origin.get("kept_back", {}).get(trial.sha256) != trial.split
    accuracy = lda = None
    test = probe_windows(source.windows, trial.test, JUDGED_WINDOWS, run.seed) if len(trial.test) else trial.test
    if len(test):
        accuracy = _accuracy(source, test, head.decide(embed_windows(network, source, test, run.progress)))
        lda = _lda_accuracy(source, trial, test, plan, run)
    row = HeadRow(source.name, trial.split, source.windows.gestures, accuracy, lda, len(test), finetuned, seen)
    return made, row


def _lda_accuracy(source: Source, trial: _Trial, test: Index, plan: FoundationRecipe, run: Run) -> float:
    import numpy as np

    from embridge_edge.learning.baselines import lda_rows, time_domain_features
    from embridge_edge.learning.probes import probe_windows

    windows = source.windows
    labelled = trial.train[windows.labels[trial.train] >= 0]
    chosen = probe_windows(windows, labelled, plan.head.probe_windows, run.seed)
    weights, bias = lda_rows(time_domain_features(windows, chosen), windows.labels[chosen], len(windows.gestures))
    return _accuracy(source, test, np.argmax(time_domain_features(windows, test) @ weights.T + bias, axis=1))


def _accuracy(source: Source, which: Index, decided: Index) -> float:
    """Balanced accuracy, a mean over wearers."""
    from embridge_edge.learning.scores import balanced_accuracy, per_wearer

    truth = source.windows.labels[which]
    values = per_wearer(source.windows.wearers[which], lambda mask: balanced_accuracy(truth[mask], decided[mask]))
    return float(values.mean())


def _device(source: Source, plan: FoundationRecipe, hours: float) -> Device:
    from embridge_edge.model.foundation_checkpoint import Device

    gain = float(source.gains[0]) if plan.signal.scale_s is None else None
    return Device(source.name, source.channels, source.rate_hz, source.windows.chain.unit, gain, hours)


@click.command("pretrain")
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A source: a recording, an archive or a folder; may be given several times.",
)
@click.option("--recipe", help=f"Name of a foundation recipe, or a file; {DEFAULT_RECIPE} by default.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the checkpoint.")
@click.option("--head", type=click.Path(path_type=Path), help="Labelled recordings to fit a small head on.")
@click.option(
    "--split",
    type=click.Choice([*SPLITS, "none"]),
    help="What to keep for judging the head; by default what they allow.",
)
@click.option("--start", type=click.Path(path_type=Path), help="An encoder to take as it is, instead of training one.")
@click.option("--format", help="Name of a format, or a description file; by default recognised by content.")
@common_options
def command(
    data: tuple[Path, ...],
    recipe: str | None,
    out: Path,
    head: Path | None,
    split: str | None,
    start: Path | None,
    format: str | None,
    common: Common,
) -> None:
    """Train one encoder on unlabelled recordings of several bands, and fit a small head on it."""
    report = pretrain(
        data,
        out,
        recipe=recipe,
        head=head,
        split=split,
        start=start,
        format=format,
        seed=common.seed,
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
