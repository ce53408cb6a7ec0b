"""Distilling a student: towards the teacher's embedding, the poses' embeddings and the labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_edge.learning import losses
from embridge_edge.learning.batches import EvenSampler, augmented, emg_batch
from embridge_edge.learning.loop import Run, Schedule, fit
from embridge_edge.learning.teacher import embed
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.student import Student, StudentShape
from embridge_edge.model.teacher import Teacher
from embridge_edge.progress import SILENT, Progress
from embridge_edge.recipe import DistillPlan, StudentPlan

Index = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lesson:
    """What a teacher says about some windows, computed once.

    Attributes:
        which: int64 `[n]`, indices of the windows.
        embeddings: float32 `[n, embedding]`, the teacher's unit vectors.
    """

    which: Index
    embeddings: Floats


def student_shape(windows: WindowSet, plan: StudentPlan, embedding: int) -> StudentShape:
    """The shape that a plan becomes for a data set; blocks whose stride the window is too short for do not stride."""
    steps, columns = windows.chain.input_shape
    strides, left = [], steps
    for stride in plan.strides:
        taken = stride if -(-left // stride) >= min(steps, 4) else 1
        strides.append(taken)
        left = -(-left // taken)
    return StudentShape(
        steps=steps,
        channels=columns,
        widths=plan.widths,
        kernels=plan.kernels,
        strides=tuple(strides),
        queries=plan.queries,
        embedding=embedding,
    )


def teach(
    teacher: Teacher, windows: WindowSet, which: Index, most: int, seed: int, progress: Progress = SILENT
) -> Lesson:
    """The teacher's embeddings of at most `most` windows, drawn evenly over gestures and wearers."""
    chosen = np.unique(EvenSampler(windows, which, seed).draw(0, most))
    embeddings = embed(teacher, windows, chosen, progress, "teacher's embeddings")
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return Lesson(chosen, (embeddings / np.maximum(norms, 1e-9)).astype(np.float32))


def distill_student(
    windows: WindowSet,
    which: Index,
    lesson: Lesson,
    teacher: Teacher,
    shape: StudentShape,
    plan: DistillPlan,
    temperature: float,
    run: Run,
) -> tuple[Student, nn.Linear]:
    """Train a student on the windows `which`; those of the lesson are also drawn to the teacher's embedding.

    The loss is the sum, by the plan's weights, of 1 − cosine to the teacher's embedding, InfoNCE to the poses' embeddings and the
    cross-entropy of a linear layer on the labels.

    Args:
        temperature: τ of InfoNCE, the teacher's.

    Returns: the student in evaluation mode, and the linear layer from its embedding to the gestures.
    """
    seed, world = run.seed, run.world
    torch.manual_seed(seed)
    student = Student(shape)
    to_labels = nn.Linear(shape.embedding, max(1, len(windows.gestures)))
    trained = nn.ModuleDict({"student": student, "labels": to_labels})
    sampler = EvenSampler(windows, which, seed + 3)
    place = np.full(len(windows), -1, np.int64)
    place[lesson.which] = np.arange(len(lesson.which))
    lessons = torch.from_numpy(lesson.embeddings)

    teacher.pose.to(world.device).eval()

    def loss(step: int) -> Tensor:
        drawn = sampler.draw(step, plan.batch)
        x = emg_batch(windows, drawn, step, seed, shifted=plan.time_shift, world=world)
        out = student(augmented(x, plan, windows.chain, world))
        unit = world.gather(functional.normalize(out, dim=-1))
        total = unit.new_zeros(())
        taught = place[drawn] >= 0
        if plan.teacher_weight and taught.any():
            cosine = (unit[torch.from_numpy(taught)] * world.to(lessons[place[drawn[taught]]])).sum(dim=-1)
            total = total + plan.teacher_weight * (1.0 - cosine).mean()
        if plan.pose_weight:
            poses = world.to(torch.from_numpy(windows.poses(drawn)))
            posed = torch.isfinite(poses).any(dim=-1).any(dim=-1)
            if bool(posed.any()):
                with torch.no_grad():
                    target = teacher.pose(poses[posed])
                logits = unit[posed] @ target.T / temperature
                total = total + plan.pose_weight * losses.info_nce(logits, losses.same_poses(poses[posed]))
        if plan.label_weight:
            scores = world.gather(to_labels(out))
            labels = world.to(torch.from_numpy(windows.labels[drawn]))
            total = total + plan.label_weight * losses.label_loss(scores, labels, plan.label_smoothing)
        return total

    saved = run.saved("distill", shape.to_dict(), asdict(plan))
    schedule = Schedule(plan.steps, plan.learning_rate, plan.weight_decay)
    fit(
        trained,
        loss,
        schedule,
        seed=seed + 3,
        label=f"{run.name}: distillation",
        saved=saved,
        progress=run.progress,
        world=world,
    )
    teacher.pose.cpu()
    return student.eval(), to_labels
