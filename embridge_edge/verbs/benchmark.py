"""`benchmark`: EMBridge, its parts and its baselines side by side on the same recordings."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.artifacts import write_json
from embridge_edge.errors import EdgeError
from embridge_edge.hardware.host import host_facts, usable_cores
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import Recipe, arm_recipe, arms_of, find_recipe
from embridge_edge.verbs.comparing import Held, Trial, divisions, permuted_library
from embridge_edge.verbs.options import Common, common_options, show
from embridge_edge.verbs.processes import do_all
from embridge_edge.verbs.refusals import refuse_impossible, refuse_unjudgeable, simulated_chain, simulation_of
from embridge_edge.verbs.scoring import read_scores
from embridge_edge.verbs.sides import kept_stages, sides_of
from embridge_edge.verbs.workflow import about_data, recordings_step, versions, windows_step
from embridge_edge.verbs.workspace import Workspace, fingerprint, refuse_inside

if TYPE_CHECKING:
    from embridge_edge.learning.evaluation import Score
    from embridge_edge.learning.windows import WindowSet

WORK = "work"
WRITTEN = ("benchmark.json", "benchmark.md", "benchmark.html")
SIMULATED = "simulated"


@dataclass(frozen=True)
class BenchmarkReport:
    """What was compared; `content` is what `benchmark.json` holds."""

    out: Path
    content: dict[str, Any]

    def text(self) -> str:
        from embridge_edge.report.benchmarked import terminal_text

        return f"{terminal_text(self.content)}\n{self.out / 'benchmark.html'}"

    def to_json(self) -> dict[str, Any]:
        return {"out": str(self.out), **self.content}


def benchmark(
    recipe: str,
    out: Path,
    *,
    data: Path | None = None,
    format: str | None = None,
    arms: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    force: bool = False,
    progress: Progress = SILENT,
) -> BenchmarkReport:
    """Train and judge the recipe's arms, every one with every seed, and write the table.

    Pre-training is shared between arms. Steps whose inputs did not change since the last call with the same `out` are not run
    again, and an interrupted training goes on where it stopped.

    Args:
        recipe: name or file. out: folder of the tables. data: recordings; None simulates those of the recipe's [simulate].
        arms, seeds: instead of the recipe's.

    Raises:
        EdgeError: wrong recipe or recordings, an unknown arm, a gesture without a pose, or `out` holds something else.
    """
    started = time.monotonic()
    plan = _narrowed(find_recipe(recipe), arms, seeds)
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / WORK).is_dir() and not force):
        raise EdgeError(
            f"{out} holds something that benchmark did not write; choose another --out, or use it with --force."
        )
    known = arms_of(plan)
    for name in (*plan.benchmark.arms, plan.benchmark.reference, *plan.benchmark.share_arms):
        arm_recipe(plan, name)
    if data is not None:
        refuse_inside(out, data)
    if data is None:
        refuse_impossible(plan, simulated_chain(plan))  # before minutes go into people
    workspace = Workspace(out / WORK, progress)
    source = _simulated(plan, workspace) if data is None else data
    title = SIMULATED if data is None else data.resolve().name
    stamp = fingerprint(source, format)
    data_sha256 = recordings_step(workspace, source, format, stamp, "hashed")
    uncut = replace(plan, windows=replace(plan.windows, hold_out_gestures=()))  # each division holds out its own
    windows, key = windows_step(workspace, source, uncut, format, stamp, "windows")
    refuse_impossible(plan, windows.chain)
    sets = _permuted(windows, uncut, workspace, source, format, stamp) | {None: (workspace.folder / "windows", key)}
    trials: list[Trial] = []
    held_out = divisions(plan, kept_stages(windows, plan))
    for held in held_out:
        refuse_unjudgeable(windows, held.recipe(plan))
        trials += _trials(held, plan, workspace, sets, data_sha256)
    if any(known[name].start == SIMULATED for name in plan.benchmark.arms):
        trials = _beside_simulated(trials, plan, workspace)
    starts = tuple(
        dict.fromkeys(known[name].start_arm for name in plan.benchmark.arms if known[name].start == SIMULATED)
    )
    first = {trial.seed: trial for trial in reversed(trials)}
    towers = [replace(trial, arms=(), starts=starts if first[trial.seed] is trial else ()) for trial in trials]
    workspace.minutes += do_all(towers, usable_cores())
    singles = [replace(trial, arms=(arm,)) for trial in trials for arm in trial.arms]
    done = do_all(singles, usable_cores())
    workspace.minutes += [row for row in done if not row["cached"]]
    read = [_rows(trial) for trial in singles]
    content: dict[str, Any] = {
        "title": f"{plan.name} on {title}",
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "recipe": plan.to_dict(),
        "recipe_sha256": plan.sha256,
        "data": {**about_data(windows, title), "sha256": data_sha256},
        "divisions": [{"name": held.tag, "unseen": list(held.unseen)} for held in held_out],
        "groups": _groups(windows, held_out[0].recipe(plan)),
        "seeds": list(plan.benchmark.seeds),
        "reference": plan.benchmark.reference,
        "arms": {name: known[name].title for name in plan.benchmark.arms},
        "scores": [
            row.to_json() | ({"division": trial.held.tag} if len(held_out) > 1 else {})
            for trial, (rows, _) in zip(singles, read, strict=True)
            for row in rows
        ],
        "notes": list(dict.fromkeys(note for _, notes in read for note in notes)),
        "frozen": _frozen(plan, data),
        "minutes": workspace.minutes,
        "wall_minutes": (time.monotonic() - started) / 60.0,
        "host": host_facts().__dict__,
        "versions": versions(),
    }
    _write(content, out)
    return BenchmarkReport(out, content)


def _narrowed(plan: Recipe, arms: Sequence[str] | None, seeds: Sequence[int] | None) -> Recipe:
    chosen = replace(
        plan.benchmark,
        arms=tuple(arms or plan.benchmark.arms),
        seeds=tuple(plan.benchmark.seeds if seeds is None else seeds),
    )
    return replace(plan, benchmark=chosen)


def _simulated(plan: Recipe, workspace: Workspace) -> Path:
    """The recipe's simulated recordings."""
    from dataclasses import asdict

    from embridge_edge.verbs.synth import synth

    asked = asdict(simulation_of(plan))

    def make(folder: Path) -> None:
        synth(
            folder / SIMULATED,
            never_free=plan.windows.hold_out_gestures,
            progress=workspace.progress,
            **asked,
        )

    folder, _ = workspace.step("recordings", [asked, plan.windows.hold_out_gestures], make)
    return folder / SIMULATED


def _permuted(
    windows: WindowSet, plan: Recipe, workspace: Workspace, source: Path, format: str | None, stamp: str
) -> dict[int | None, tuple[Path, str]]:
    """For each seed the windows with poses dealt out to other gestures, where an arm wants them: folder and key.

    Raises:
        EdgeError: the poses were measured, so that they belong to windows and not to gestures.
    """
    from embridge_edge.gestures import read_library

    arms = arms_of(plan)
    if not any(arms[name].permuted_poses for name in plan.benchmark.arms):
        return {}
    if windows.tracked:
        raise EdgeError(
            "The poses of these recordings were measured, not taken from gestures; leave out the arm 'permuted'."
        )
    found: dict[int | None, tuple[Path, str]] = {}
    for seed in plan.benchmark.seeds:
        name = f"permuted{seed}.windows"
        library = permuted_library(read_library(), windows.gestures, seed)
        _, key = windows_step(workspace, source, plan, format, stamp, name, library)
        found[seed] = (workspace.folder / name, key)
    return found


def _trials(
    held: Held, plan: Recipe, workspace: Workspace, sets: Mapping[int | None, tuple[Path, str]], data_sha256: str
) -> list[Trial]:
    """The jobs of one division: with each seed, the arms on all training data, and those of the data-efficiency curve."""
    arms = arms_of(plan)
    trials: list[Trial] = []
    for seed in plan.benchmark.seeds:
        folder, key = sets[None]
        plain = tuple(name for name in plan.benchmark.arms if not arms[name].permuted_poses)
        trial = Trial(held, plain, workspace.folder, folder, key, plan, data_sha256, seed, workspace.progress)
        trials.append(trial)
        if seed in sets:
            folder, key = sets[seed]
            dealt = tuple(name for name in plan.benchmark.arms if arms[name].permuted_poses)
            trials.append(replace(trial, arms=dealt, windows=folder, key=key, pose_seed=seed))
        shared = tuple(name for name in plan.benchmark.share_arms if name in plan.benchmark.arms)
        trials += [replace(trial, arms=shared, share=share) for share in plan.benchmark.shares]
    return trials


def _beside_simulated(trials: list[Trial], plan: Recipe, workspace: Workspace) -> list[Trial]:
    """The jobs, told where the windows of the simulated wearers are."""
    source = _simulated(plan, workspace)
    _, key = windows_step(workspace, source, plan, None, fingerprint(source), f"{SIMULATED}.windows")
    return [replace(trial, simulated=workspace.folder / f"{SIMULATED}.windows", simulated_key=key) for trial in trials]


def _groups(windows: WindowSet, plan: Recipe) -> dict[str, int]:
    """Wearers in each group that is tested."""
    import numpy as np

    return {name: len(np.unique(windows.wearers[mask])) for name, mask in sides_of(windows, plan).groups.items()}


def _rows(trial: Trial) -> tuple[list[Score], list[str]]:
    """The rows of a trial's one arm, and what is to be said beside them."""
    from embridge_edge.learning.evaluation import at_share

    rows, notes = read_scores(trial.scores_of(trial.arms[0]))
    return (rows, notes) if trial.share == 1.0 else (at_share(rows, trial.share), notes)


def _frozen(plan: Recipe, data: Path | None) -> list[dict[str, Any]]:
    """What was fixed before the first comparison."""
    if data is not None or plan.simulate is None:
        return []
    return [{"what": key, "value": value} for key, value in vars(plan.simulate).items()]


def _write(content: dict[str, Any], out: Path) -> None:
    """Write the tables; the JSON is last, so that its presence means that they are whole."""
    from embridge_edge.artifacts import written_by_rename
    from embridge_edge.report.benchmarked import markdown, write_benchmark_page

    for name in WRITTEN:
        (out / name).unlink(missing_ok=True)
    with written_by_rename(out / "benchmark.md") as temporary:
        temporary.write_text(markdown(content), encoding="utf-8")
    write_benchmark_page(content, out / "benchmark.html")
    write_json(out / "benchmark.json", content)


@click.command("benchmark")
@click.option("--recipe", required=True, help="Name of a recipe, or a recipe file.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the tables.")
@click.option("--data", type=click.Path(path_type=Path), help="Recordings; by default what the recipe simulates.")
@click.option("--format", help="Name of a format, or a description file; by default recognised by content.")
@click.option("--arms", help="Names separated by commas, instead of the recipe's.")
@click.option("--seeds", type=click.IntRange(1, 1000), help="So many seeds from 0, instead of the recipe's.")
@common_options
def command(
    recipe: str, out: Path, data: Path | None, format: str | None, arms: str | None, seeds: int | None, common: Common
) -> None:
    """Compare EMBridge with its baselines and without each of its parts.

    Every arm trains with every seed on the same recordings and is judged on wearers, sessions and gestures that it has not
    seen. What did not change is not run again.
    """
    report = benchmark(
        recipe,
        out,
        data=data,
        format=format,
        arms=None if arms is None else [name.strip() for name in arms.split(",") if name.strip()],
        seeds=None if seeds is None else list(range(common.seed, common.seed + seeds)),
        force=common.force,
        progress=common.progress,
    )
    show(report, common)
