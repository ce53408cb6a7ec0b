"""What masked pre-training is worth to a linear probe: the table of docs/foundation.md.

    embridge-edge synth --out build/sim --wearers 12 --sessions 1 --seconds 90 --seed 5
    python benchmarks/foundation_table.py myo_readings/ longterm_shift/ openbci_hands/ myo_hands/ build/sim \\
        --judge myo_readings longterm_shift --seeds 2 --out build/foundation

Arms, all of one shape and judged by the same probe (a linear discriminant with shrinkage and equal priors, fitted on labelled
training windows): `lda` on five time-domain features; `spectra`, what enters the encoder, pooled as its output is; `random`, the
encoder as it is born; `own`, pre-trained on the judged source alone; `all`, pre-trained on every source, with equally many windows.
With `--finetune` also `random+`, `own+` and `all+`: the same trained on with labels.

One division serves every arm and never shows a test window to any pre-training. Of a source with five or more wearers, those whose number
in the order of names is s modulo 4 are unseen in seed s; of the others the last session is unseen, and the sessions before it train. Of a
source with days the first trains, the others are unseen. A source that is not judged trains whole.
With `--validate` the test sides are left out and the last training session is judged instead: for choosing a recipe.

Values are balanced accuracies over all windows with a gesture (every `--every`-th), means over wearers and seeds with the standard deviation over
wearers; `-` rows compare two arms wearer by wearer with a 95 % bootstrap interval over wearers. What is finished is kept in --out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from embridge_edge.artifacts import sha256_of, write_json
from embridge_edge.learning.baselines import lda_rows, time_domain_features
from embridge_edge.learning.foundation import (
    Source,
    embed_windows,
    fit_head,
    foretold_share,
    pretrain_encoder,
    scaled,
    sources_of,
)
from embridge_edge.learning.foundation_recipe import (
    FoundationRecipe,
    find_foundation_recipe,
    foundation_recipe_from_dict,
)
from embridge_edge.learning.loop import Run
from embridge_edge.learning.probes import probe_windows
from embridge_edge.learning.scores import balanced_accuracy, per_wearer
from embridge_edge.learning.splits import make_splits, possible_splits, validation_split
from embridge_edge.model.foundation import FoundationEncoder
from embridge_edge.progress import Progress
from embridge_edge.recordings.loading import read_recordings
from embridge_edge.tables import changed, parsed_changes

Index = npt.NDArray[np.int64]
PARTS = 4
"""Wearers are dealt into so many parts, one of which is unseen."""


@dataclass(frozen=True)
class Division:
    """Windows of one source that may be learned from, and groups of windows that are judged."""

    train: Index
    groups: dict[str, Index]


def divide(source: Source, seed: int, *, judged: bool, validate: bool, every: int) -> Division:
    """The division of a source for a seed; a source that is not judged trains whole."""
    windows = source.windows
    everything = np.arange(len(windows))
    if not judged:
        return Division(everything, {})
    labelled = windows.labels >= 0
    thin = everything % every == 0
    groups: dict[str, npt.NDArray[np.bool_]] = {}
    names = possible_splits(windows)
    held = np.zeros(len(windows), np.bool_)
    if "wearer" in names:
        held = windows.wearers % PARTS == seed % PARTS
        groups["unseen wearers"] = held
    within = "day" if "day" in names else "session"
    split = make_splits(windows, within)[0]
    if validate:
        split = validation_split(windows, split)
        groups = {}
    train = split.train & ~held
    groups[f"unseen {within}s"] = split.test & ~held
    return Division(
        np.flatnonzero(train), {name: np.flatnonzero(mask & labelled & thin) for name, mask in groups.items()}
    )


def judged_by_wearer(source: Source, which: Index, decided: Index) -> dict[str, float]:
    """Balanced accuracy of each wearer."""
    windows = source.windows
    truth, wearers = windows.labels[which], windows.wearers[which]
    values = per_wearer(wearers, lambda mask: balanced_accuracy(truth[mask], decided[mask]))
    return {windows.wearer_names[w]: float(v) for w, v in zip(np.unique(wearers), values, strict=True)}


def pooled_spectra(network: FoundationEncoder, source: Source, which: Index) -> npt.NDArray[np.float32]:
    """What enters the encoder, pooled as its output is: what the encoder must beat."""
    parts = []
    with torch.inference_mode():
        for part in np.array_split(which, max(1, len(which) // 1024)):
            x = source.inputs(part)
            parts.append(network.pooled(network.basis(x, source.rate_hz).spectra(x)).numpy())
    pooled = np.concatenate(parts)
    return pooled[:, pooled.std(axis=0) > 0]


class Bench:
    """Sources, divisions and a folder of what is finished."""

    def __init__(
        self, sources: Sequence[Source], divisions: Sequence[Division], recipe: FoundationRecipe, arguments: Any
    ):
        self.sources, self.divisions, self.recipe = sources, divisions, recipe
        self.out, self.finetune = arguments.out, arguments.finetune
        self.progress = Progress(quiet=False)

    def rows(self, seed: int) -> list[dict[str, Any]]:
        """Scores of all arms for one seed: {arm, source, group, seed, wearers}."""
        found = []
        judged = [n for n, division in enumerate(self.divisions) if division.groups]
        networks = {"random": self.fresh(seed), "all": self.pretrained(list(range(len(self.sources))), seed, "all")}
        for number in judged:
            source, division = self.sources[number], self.divisions[number]
            own = self.pretrained([number], seed, source.name)
            arms: dict[str, FoundationEncoder | None] = {"lda": None, "spectra": None, **networks, "own": own}
            for arm, network in arms.items():
                began = time.process_time()
                scores = self.judge(arm, network or networks["random"], source, division, seed, 0)
                self.progress.say(f"{source.name} {arm} seed {seed}: {time.process_time() - began:.0f} s")
                found += [{"arm": arm, "seed": seed, **score} for score in scores]
            if self.finetune:
                for arm in ("random", "own", "all"):
                    network = arms[arm]
                    assert network is not None
                    for score in self.judge(f"{arm}+", network, source, division, seed, self.finetune):
                        found.append({"arm": f"{arm}+", "seed": seed, **score})
            for arm, network in (("own", own), ("all", networks["all"])):
                for group, which in division.groups.items():
                    share = foretold_share(network, source, which, self.recipe.pretrain, seed)
                    print(
                        f"  {source.name}, {group}: {arm} foretells {share:.2f} of the hidden variance, seed {seed}",
                        flush=True,
                    )
        return found

    def judge(
        self, arm: str, network: FoundationEncoder, source: Source, division: Division, seed: int, finetune: int
    ) -> list[dict[str, Any]]:
        windows = source.windows
        labelled = division.train[windows.labels[division.train] >= 0]
        chosen = probe_windows(windows, labelled, self.recipe.head.probe_windows, seed)
        decide: Any
        if finetune:
            plan = replace(self.recipe.head, finetune_steps=finetune)
            tuned, head = fit_head(network, source, labelled, plan, Run(seed, arm, progress=self.progress))
            decide = lambda which: head.decide(embed_windows(tuned, source, which))  # noqa: E731
        else:
            if arm == "lda":
                columns: Any = lambda which: time_domain_features(windows, which)  # noqa: E731
            elif arm == "spectra":
                columns = lambda which: pooled_spectra(network, source, which)  # noqa: E731
            else:
                columns = lambda which: embed_windows(network, source, which)  # noqa: E731
            weights, bias = lda_rows(columns(chosen), windows.labels[chosen], len(windows.gestures))
            decide = lambda which: np.argmax(columns(which) @ weights.T + bias, axis=1)  # noqa: E731
        return [
            {"source": source.name, "group": group, "wearers": judged_by_wearer(source, which, decide(which))}
            for group, which in division.groups.items()
        ]

    def fresh(self, seed: int) -> FoundationEncoder:
        torch.manual_seed(seed)
        return FoundationEncoder(self.recipe.encoder).eval()

    def pretrained(self, numbers: list[int], seed: int, name: str) -> FoundationEncoder:
        """An encoder pre-trained on some of the sources; kept on disk."""
        from safetensors.torch import load_file, save_file

        sources = [self.sources[n] for n in numbers]
        which = [self.divisions[n].train for n in numbers]
        about = [self.recipe.to_dict(), seed, [s.name for s in sources], [sha256_of(w.tolist()) for w in which]]
        file = self.out / f"{sha256_of(about)[:16]}.safetensors"
        if file.is_file():
            network = self.fresh(seed)
            network.load_state_dict(load_file(file))
            return network
        began = time.process_time()
        run = Run(seed, f"{name}, seed {seed}", self.out / "unfinished" / file.stem, progress=self.progress)
        network = pretrain_encoder(sources, which, self.recipe.encoder, self.recipe.pretrain, run)
        seconds = time.process_time() - began
        windows = self.recipe.pretrain.steps * self.recipe.pretrain.batch
        print(f"pre-trained on {name}: {seconds / 60:.1f} core-minutes, {windows / seconds:.0f} windows/s", flush=True)
        self.out.mkdir(parents=True, exist_ok=True)
        save_file(network.state_dict(), file)
        return network


def table(rows: list[dict[str, Any]], against: Sequence[tuple[str, str]]) -> str:
    """Markdown: arms down, source and group across; then differences of arms by wearer."""
    places = list(dict.fromkeys((row["source"], row["group"]) for row in rows))
    arms = list(dict.fromkeys(row["arm"] for row in rows))

    def values(arm: str, place: tuple[str, str]) -> dict[tuple[int, str], float]:
        """By seed and wearer."""
        return {
            (row["seed"], wearer): value
            for row in rows
            if row["arm"] == arm and (row["source"], row["group"]) == place
            for wearer, value in row["wearers"].items()
        }

    lines = [
        "| balanced accuracy | " + " | ".join(f"{source}, {group}" for source, group in places) + " |",
        "|---|" + "---:|" * len(places),
    ]
    for arm in arms:
        cells = []
        for place in places:
            found = values(arm, place)
            seeds = [np.mean([v for (s, _), v in found.items() if s == seed]) for seed in sorted({s for s, _ in found})]
            spread = np.std(list(found.values()), ddof=1) if len(found) > 1 else 0.0
            cells.append(f"{np.mean(seeds):.3f} ± {spread:.2f} ({', '.join(f'{one:.3f}' for one in seeds)})")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    for one, other in against:
        if one not in arms or other not in arms:
            continue
        cells = []
        for place in places:
            mine, its = values(one, place), values(other, place)
            by_wearer: dict[str, list[float]] = {}
            for (seed, wearer), value in mine.items():
                by_wearer.setdefault(wearer, []).append(value - its[seed, wearer])
            differences = np.array([np.mean(own) for own in by_wearer.values()])
            draws = np.random.default_rng(0).integers(len(differences), size=(5000, len(differences)))
            low, high = np.quantile(differences[draws].mean(axis=1), (0.025, 0.975))
            verdict = "no difference" if low <= 0.0 <= high else ("above" if low > 0 else "below")
            cells.append(f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}] {verdict}")
        lines.append(f"| {one} − {other} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", nargs="+", type=Path)
    arguments.add_argument("--judge", nargs="+", default=["myo_readings", "longterm_shift"], help="names of folders")
    arguments.add_argument("--recipe", default="small")
    arguments.add_argument("--vary", default="", help="section.key=value,…")
    arguments.add_argument("--seeds", type=int, default=2)
    arguments.add_argument("--every", type=int, default=4)
    arguments.add_argument("--finetune", type=int, default=0, help="steps of fine-tuning; 0 for none")
    arguments.add_argument("--validate", action="store_true")
    arguments.add_argument("--out", type=Path, default=Path("build/foundation"))
    given = arguments.parse_args()
    torch.set_num_threads(1)
    recipe = foundation_recipe_from_dict(
        changed(find_foundation_recipe(given.recipe).to_dict(), parsed_changes(given.vary))
    )
    unscaled = []
    for path in given.data:
        unscaled += sources_of(path.name, lambda path=path: read_recordings(path, several_devices=True), recipe.signal)
    rows = []
    for seed in range(given.seeds):
        divisions = [
            divide(source, seed, judged=source.name in given.judge, validate=given.validate, every=given.every)
            for source in unscaled
        ]
        sources = [
            scaled(source, recipe.signal.scale_s, division.train)
            for source, division in zip(unscaled, divisions, strict=True)
        ]
        for source, division in zip(sources, divisions, strict=True):
            groups = {name: len(which) for name, which in division.groups.items()}
            print(
                f"seed {seed}: {source.name}, {source.hours:.2f} h, {len(division.train)} windows to train on, {groups}",
                flush=True,
            )
        rows += Bench(sources, divisions, recipe, given).rows(seed)
        write_json(given.out / f"rows-{recipe.sha256[:8]}{'-validate' * given.validate}.json", {"rows": rows})
    print(f"\nrecipe {recipe.name} {given.vary}, {'validation' if given.validate else 'test'}, {given.seeds} seeds\n")
    print(
        table(
            rows,
            (
                ("all", "random"),
                ("own", "random"),
                ("all", "own"),
                ("all", "lda"),
                ("all", "spectra"),
                ("all+", "random+"),
            ),
        )
    )


if __name__ == "__main__":
    main()
