"""How many windows a second each stage of training takes, on one core and on two, beside a plain PyTorch Transformer.

    python benchmarks/training_speed.py
    python benchmarks/training_speed.py --recipe tiny --repeats 5 --json build/training_speed.json
    python benchmarks/training_speed.py --recipe paper --steps 8 --repeats 2 --one-core

Two cores are two processes under torchrun that share each batch. The plain Transformer has the EMG tower's tokens, width, blocks, heads
and feed-forward width, a linear patch embedding and a classifier, and is trained by a plain loop on batches of the same size; it is given
its input, while the stages cut and filter theirs. Times are by the clock, of whole steps; minimum, median and maximum over repeats.

The second table is what the recipe's own number of steps takes: counted operations (two for a multiply and add, forward and backward), what a
batch holds for its backward pass in float32, and core-hours extrapolated from the measured speed of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of parameters that a stage leaves alone

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

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


@dataclass(frozen=True)
class Measured:
    """One stage.

    Attributes:
        speed: windows a second by the clock. parameters: how many are trained. operations: of one step, 0 if not counted. held_bytes:
            what one step holds for its backward pass, parameters left out.
    """

    speed: float
    parameters: int
    operations: float = 0.0
    held_bytes: int = 0


def measured_stage(stage: str, windows: WindowSet, recipe: Recipe, steps: int) -> Measured:
    """Clock time, operations and memory of one step."""
    changed = arm_recipe(recipe, stage) if stage in ("cpep", "qformer", "embridge") else recipe
    plan = replace(changed.train, precision="32")
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
    operations = [counted(once, count) for count in (1, 2)]  # also compiles, and fills the caches
    held = held_for_backward(once, trained)
    few = min(once(2), once(2))  # what a call costs besides its steps: k-means, the projection
    seconds = (once(steps + 2) - few) / steps
    if seconds <= 0:
        sys.exit(f"{stage}: {steps} steps take no longer than what a call costs besides; give more --steps.")
    parameters = sum(p.numel() for p in trained.parameters() if p.requires_grad)
    return Measured(plan.batch / seconds, parameters, operations[1] - operations[0], held)


def counted(once: Callable[[int], float], steps: int) -> float:
    """Operations of a call with so many steps."""
    with FlopCounterMode(display=False) as counter:
        once(steps)
    return float(counter.get_total_flops())


def held_for_backward(once: Callable[[int], float], trained: nn.Module) -> int:
    """Bytes that one step keeps from its forward for its backward pass."""
    own = {parameter.untyped_storage().data_ptr() for parameter in trained.parameters()}
    held: dict[int, int] = {}

    def packed(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
        once(1)
    return sum(held.values())


def measured_plain(windows: WindowSet, recipe: Recipe, steps: int) -> Measured:
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
    seconds = (time.perf_counter() - began) / steps
    return Measured(recipe.train.batch / seconds, sum(p.numel() for p in network.parameters()))


def measure(folder: Path, recipe: Recipe, steps: int) -> dict[str, Measured]:
    """Every stage; run in one process or in each of several."""
    torch.set_num_threads(1)
    windows = WindowSet.load(folder)
    found = {stage: measured_stage(stage, windows, recipe, steps) for stage in STAGES}
    if "WORLD_SIZE" not in os.environ:
        found[PLAIN] = measured_plain(windows, recipe, steps)
    return found


def started(processes: int, arguments: list[str], out: Path) -> dict[str, Measured]:
    starter = [sys.executable]
    if processes > 1:
        starter += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    subprocess.run([*starter, __file__, *arguments, "--part", str(out)], check=True)
    return {stage: Measured(**row) for stage, row in json.loads(out.read_text()).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--one-core", action="store_true", help="leave out two processes: for recipes whose steps take seconds"
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--windows", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    recipe = find_recipe(asked.recipe)
    if asked.part:
        found = measure(asked.windows, recipe, asked.steps)
        if os.environ.get("RANK", "0") == "0":
            asked.part.write_text(json.dumps({stage: asdict(row) for stage, row in found.items()}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synth(folder / "recordings", wearers=2, sessions=1, seconds=60.0, free_share=0.5)
        windows = read_windows(
            folder / "recordings",
            replace(recipe, windows=replace(recipe.windows, hold_out_gestures=(), gestures_from="labels")),
            None,
        )
        (folder / "windows").mkdir()
        windows.save(folder / "windows")
        arguments = ["--recipe", asked.recipe, "--steps", str(asked.steps), "--windows", str(folder / "windows")]
        rows: dict[str, dict[str, list[float]]] = {}
        alone: dict[str, Measured] = {}
        for _ in range(asked.repeats):
            for processes in (1,) if asked.one_core else (2, 1):
                alone = started(processes, arguments, folder / "part.json")
                for stage, one in alone.items():
                    rows.setdefault(stage, {}).setdefault(str(processes), []).append(one.speed)
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
        print(f"| {stage} | {alone[stage].parameters:,} | {cells[0]} | {cells[1]} | {ratio} |")
    print(f"\nWhat the {recipe.train.batch} windows and the steps of recipe {recipe.name} take, one core")
    print(
        "| stage | steps | windows | billion operations a window | MB held by a batch | core-hours |\n|---|---:|---:|---:|---:|---:|"
    )
    for stage in STAGES:
        taken = {"masked poses": recipe.train.pose_steps, "masked EMG": recipe.train.masked_steps}.get(
            stage, recipe.train.steps
        )
        windows_seen, one = taken * recipe.train.batch, alone[stage]
        hours = windows_seen / np.median(rows[stage]["1"]) / 3600
        print(
            f"| {stage} | {taken:,} | {windows_seen / 1e6:,.1f} million | {one.operations / recipe.train.batch / 1e9:,.3f} "
            f"| {one.held_bytes / 1e6:,.0f} | {hours:,.2f} |"
        )
    most_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"\nMost memory of a process, all stages one after the other: {most_kib / 1024:,.0f} MiB")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
