"""What variants of a recipe reach on a validation session, with the test sessions left alone.

    python benchmarks/choose_recipe.py myo_readings/ --recipe armband-m4 --seeds 2 \\
        --vary distill.steps=8000 --vary distill.steps=8000,distill.weight_decay=0.02

Trains on each wearer's earlier sessions, judges on the second-to-last: the last ones, on which `deploy` reports, take no part. Prints
balanced accuracy (mean over wearers) of each model by its linear head, by a probe fitted afterwards and by the nearest pose. A variant that
changes nothing in [chain], [windows], [teacher] and [train] distils the same teacher. One thread: run two of them side by side.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from embridge_edge.learning.baselines import baseline_answers
from embridge_edge.learning.judge import answer, judge
from embridge_edge.learning.loop import Run
from embridge_edge.learning.probes import linear_head, probe_windows
from embridge_edge.learning.splits import make_splits, validation_split
from embridge_edge.learning.teacher import embed
from embridge_edge.model.checkpoint import Checkpoint
from embridge_edge.progress import Progress
from embridge_edge.recipe import Recipe, find_recipe, varied
from embridge_edge.tables import parsed_changes
from embridge_edge.verbs.workflow import Job, distill_checkpoint, job_for, read_windows, train_checkpoint


def scores(job: Job, name: str, model: Checkpoint, recipe: Recipe, seed: int) -> dict[str, float]:
    """Balanced accuracy by head, a mean over wearers."""
    network, windows = model.network(), job.windows.with_chain(model.chain)
    test = embed(network, windows, job.test)
    chosen = probe_windows(job.windows, job.train, recipe.evaluate.probe_windows, seed)
    probe = linear_head(embed(network, windows, chosen), windows.labels[chosen], windows.gestures)
    found = {}
    for how, heads in (("head", model.heads), ("probe", (probe,))):
        judged = judge(job.windows, [answer(name, "session", job.windows, job.test, test, heads)], "validation")
        for metric in ("balanced_accuracy", "zero_shot_balanced_accuracy"):
            value = judged.value(name, "session", metric)
            if value is not None:
                found["pose" if metric.startswith("zero") else how] = value
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--recipe", default="armband-m4")
    arguments.add_argument("--vary", action="append", default=[], metavar="SECTION.KEY=VALUE,…")
    arguments.add_argument("--seeds", type=int, default=1)
    arguments.add_argument("--models", default="supervised,teacher,student")
    asked = arguments.parse_args()
    base = find_recipe(asked.recipe)
    progress = Progress(quiet=False)
    jobs: dict[str, Job] = {}
    teachers: dict[str, Checkpoint] = {}
    judged: set[object] = set()
    print("| variant | model | seed | head | probe | pose |\n|---|---|---:|---:|---:|---:|", flush=True)
    for changes in ("", *asked.vary):
        recipe = varied(base, parsed_changes(changes))
        data_key = str((recipe.chain, recipe.windows))
        if data_key not in jobs:
            windows = read_windows(asked.data, recipe, None, progress)
            jobs[data_key] = job_for(windows, validation_split(windows, make_splits(windows, "session")[0]), recipe)
            job = jobs[data_key]
            lda = judge(job.windows, baseline_answers(job.windows, "session", job.train, job.test), "validation")
            print(f"| {changes} | lda | | {lda.value('lda', 'session', 'balanced_accuracy'):.4f} | | |", flush=True)
        job = jobs[data_key]
        for seed in range(asked.seeds):
            for kind in asked.models.split(","):
                key = str((data_key, recipe.teacher, recipe.train, kind, seed))
                run = Run(seed, kind, progress=progress)
                if kind == "student":
                    key = key.replace("student", "teacher")
                    if key not in teachers:
                        teachers[key] = train_checkpoint(job, recipe, replace(run, name="teacher"))
                    model = distill_checkpoint(job, teachers[key], recipe, run)
                else:
                    if key not in teachers:
                        teachers[key] = train_checkpoint(job, recipe, run, supervised=kind == "supervised")
                    model = teachers[key]
                if (key, recipe.distill, recipe.student) in judged:
                    continue  # under an earlier variant
                judged.add((key, recipe.distill, recipe.student))
                found = scores(job, kind, model, recipe, seed)
                cells = " | ".join(f"{found[how]:.4f}" if how in found else "" for how in ("head", "probe", "pose"))
                print(f"| {changes or 'as it is'} | {kind} | {seed} | {cells} |", flush=True)


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
