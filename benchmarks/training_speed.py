"""How many windows a second each stage of training takes, on one core and on two, beside a plain PyTorch Transformer.

    python benchmarks/training_speed.py
    python benchmarks/training_speed.py --recipe tiny --repeats 5 --json build/training_speed.json

Two cores are two processes under torchrun that share each batch. The plain Transformer has the EMG tower's tokens, width, blocks, heads
and feed-forward width, a linear patch embedding and a classifier, and is trained by a plain loop on batches of the same size; it is given
its input, while the stages cut and filter theirs. Times are by the clock, of whole steps; minimum, median and maximum over repeats.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of parameters that a stage leaves alone

import numpy as np
import torch
from torch import nn

from embridge_edge.gestures import read_library
from embridge_edge.learning.alignment import align
from embridge_edge.learning.loop import Run
from embridge_edge.learning.pretraining import pretrain_emg, pretrain_poses
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.teacher import new_teacher, teacher_shape
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.towers import FEED_FORWARD
from embridge_edge.recipe import Recipe, arm_recipe, find_recipe
from embridge_edge.verbs.synth import synth
from embridge_edge.verbs.workflow import read_windows

STAGES = ("masked poses", "masked EMG", "cpep", "qformer", "embridge")
PLAIN = "plain Transformer"


def seconds_per_step(stage: str, windows: WindowSet, recipe: Recipe, steps: int) -> tuple[float, int]:
    """Clock time of one step, and the parameters that it trains."""
    changed = arm_recipe(recipe, stage) if stage in ("cpep", "qformer", "embridge") else recipe
    plan = replace(changed.train, pose_steps=steps, masked_steps=steps, steps=steps)
    shape = teacher_shape(windows.chain, len(windows.gestures), changed.teacher)
    teacher, run = new_teacher(shape, 0), Run(0)
    which = training_windows(windows, None)

    def once(count: int) -> float:
        own = replace(plan, pose_steps=count, masked_steps=count, steps=count)
        began = time.perf_counter()
        if stage == "masked poses":
            pretrain_poses(teacher.pose, windows, which, own, read_library(), run)
        elif stage == "masked EMG":
            pretrain_emg(teacher.emg, windows, which, own, run)
        else:
            align(teacher, windows, which, own, read_library(), run)
        return time.perf_counter() - began

    trained = {"masked poses": teacher.pose, "masked EMG": teacher.emg}.get(stage, teacher)
    once(2)  # compiles, and fills the caches
    few = once(2)  # what a call costs besides its steps: k-means, the projection
    return (once(steps + 2) - few) / steps, sum(p.numel() for p in trained.parameters() if p.requires_grad)


def plain_seconds_per_step(windows: WindowSet, recipe: Recipe, steps: int) -> tuple[float, int]:
    """The same for torch's own encoder on ready inputs."""
    shape = teacher_shape(windows.chain, len(windows.gestures), recipe.teacher)
    tokens, width = shape.steps // shape.patch, shape.emg_width
    layer = nn.TransformerEncoderLayer(
        width, shape.heads, FEED_FORWARD * width, 0.0, batch_first=True, norm_first=True, activation="relu"
    )
    encoder = nn.TransformerEncoder(layer, shape.emg_blocks, enable_nested_tensor=False)
    network = nn.ModuleDict(
        {"embed": nn.Linear(shape.patch * shape.columns, width), "encoder": encoder, "head": nn.Linear(width, 14)}
    )
    optimizer = torch.optim.AdamW(network.parameters())
    which = training_windows(windows, None)[: recipe.train.batch]
    x = torch.from_numpy(windows.inputs(which))[:, : tokens * shape.patch].reshape(len(which), tokens, -1)
    labels = torch.arange(len(which)) % 14

    def step() -> None:
        optimizer.zero_grad()
        scores = network["head"](network["encoder"](network["embed"](x)).mean(dim=1))
        nn.functional.cross_entropy(scores, labels).backward()
        optimizer.step()

    step()
    began = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - began) / steps, sum(p.numel() for p in network.parameters())


def measure(folder: Path, recipe: Recipe, steps: int) -> dict[str, tuple[float, int]]:
    """Windows a second of every stage, and parameters; run in one process or in each of several."""
    torch.set_num_threads(1)
    windows = WindowSet.load(folder)
    found = {}
    for stage in STAGES:
        seconds, parameters = seconds_per_step(stage, windows, recipe, steps)
        found[stage] = (recipe.train.batch / seconds, parameters)
    if "WORLD_SIZE" not in os.environ:
        seconds, parameters = plain_seconds_per_step(windows, recipe, steps)
        found[PLAIN] = (recipe.train.batch / seconds, parameters)
    return found


def started(processes: int, arguments: list[str], out: Path) -> dict[str, tuple[float, int]]:
    starter = [sys.executable]
    if processes > 1:
        starter += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    subprocess.run([*starter, __file__, *arguments, "--part", str(out)], check=True)
    found: dict[str, tuple[float, int]] = json.loads(out.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--windows", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    recipe = find_recipe(asked.recipe)
    if asked.part:
        found = measure(asked.windows, recipe, asked.steps)
        if os.environ.get("RANK", "0") == "0":
            asked.part.write_text(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synth(folder / "recordings", wearers=2, sessions=1, seconds=60.0, free_share=0.5)
        windows = read_windows(
            folder / "recordings", replace(recipe, windows=replace(recipe.windows, hold_out_gestures=())), None
        )
        (folder / "windows").mkdir()
        windows.save(folder / "windows")
        arguments = ["--recipe", asked.recipe, "--steps", str(asked.steps), "--windows", str(folder / "windows")]
        rows: dict[str, dict[str, list[float]]] = {}
        parameters: dict[str, int] = {}
        for _ in range(asked.repeats):
            for processes in (1, 2):
                for stage, (speed, count) in started(processes, arguments, folder / "part.json").items():
                    rows.setdefault(stage, {}).setdefault(str(processes), []).append(speed)
                    parameters[stage] = count
    print(
        f"recipe {recipe.name}: batch {recipe.train.batch}, {asked.steps} steps, {asked.repeats} repeats; windows a second"
    )
    print("| stage | parameters | one core: median (min to max) | two | two / one |\n|---|---:|---:|---:|---:|")
    for stage, by_cores in rows.items():
        cells = [
            f"{statistics.median(by_cores[key]):,.0f} ({min(by_cores[key]):,.0f} to {max(by_cores[key]):,.0f})"
            if key in by_cores
            else "–"
            for key in ("1", "2")
        ]
        ratio = f"{np.median(by_cores['2']) / np.median(by_cores['1']):.2f}" if "2" in by_cores else "–"
        print(f"| {stage} | {parameters[stage]:,} | {cells[0]} | {cells[1]} | {ratio} |")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
