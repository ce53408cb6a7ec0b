"""Trains a small teacher in every stage and writes the loss curves: run by itself or under torchrun (test_world.py)."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import read_library
from embridge_edge.learning.alignment import align
from embridge_edge.learning.loop import Run
from embridge_edge.learning.pretraining import pretrain_emg, pretrain_poses
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.teacher import new_teacher, teacher_shape
from embridge_edge.learning.windows import WindowSet, cut_windows
from embridge_edge.recipe import TeacherPlan, TrainPlan, WindowPlan
from embridge_edge.recordings.recording import Recording

SHAPE = TeacherPlan(
    patch_ms=50.0, emg_width=16, emg_blocks=1, pose_width=16, pose_blocks=1, query_blocks=2, queries=3, heads=2, embedding=8
)  # fmt: skip
PLAN = TrainPlan(
    pose_steps=6, masked_steps=6, steps=12, batch=16, soft_targets="cascle", reconstruct_weight=0.5, regression_weight=0.2,
    both_ways=True, learned_temperature=True, noise=0.1, channel_drop=0.1, communities=4, mix_share=0.25,
)  # fmt: skip


def recordings() -> list[Recording]:
    found = []
    for wearer in "abc":
        random = np.random.default_rng(ord(wearer))
        labels = np.repeat(np.array([0, 1, 2], np.int16), 300)
        strength = 1.0 + 4.0 * np.abs(np.sin(1.7 * (labels[:, None] + 2.0) * (1.0 + np.arange(4))))
        emg = (strength * random.standard_normal((900, 4))).astype(np.float32)
        found.append(
            Recording(
                emg=emg,
                rate_hz=200.0,
                unit="myo",
                source=wearer,
                wearer=wearer,
                session="1",
                labels=labels,
                gestures=("rest", "fist", "flexion"),
            )
        )
    return found


def windows() -> WindowSet:
    chain = ChainPlan(window_ms=200.0, hop_ms=50.0, bandpass_hz=None)
    return cut_windows(recordings(), chain, WindowPlan(), read_library())


def main(out: Path, accumulate: int) -> None:
    plan = replace(PLAN, accumulate=accumulate)
    cut = windows()
    which = training_windows(cut, None)
    run = Run(3)
    teacher = new_teacher(teacher_shape(cut.chain, len(cut.gestures), SHAPE), run.seed)
    curves = {
        "poses": pretrain_poses(teacher.pose, cut, which, plan, read_library(), run),
        "emg": pretrain_emg(teacher.emg, cut, which, plan, run),
    }
    teacher.qformer.start_from(teacher.pose)
    curves["alignment"] = align(teacher, cut, which, plan, read_library(), run)
    if run.world.first:
        out.write_text(json.dumps({"processes": run.world.size, "curves": curves}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
