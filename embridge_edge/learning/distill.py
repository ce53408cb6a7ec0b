"""Distilling a student: towards the teacher's embedding, the poses' embeddings and the labels."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from embridge_edge.compression.sizing import largest_student
from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import SignalChain
from embridge_edge.learning import losses
from embridge_edge.learning.batches import EvenSampler, augmented, emg_batch
from embridge_edge.learning.lessons import Lesson
from embridge_edge.learning.loop import Run, Schedule, fit
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.ring_student import RingShape
from embridge_edge.model.student import StudentShape
from embridge_edge.model.students import AnyShape, AnyStudent, new_student, token_width
from embridge_edge.model.teacher import Teacher
from embridge_edge.model.transformer_student import TransformerShape
from embridge_edge.recipe import DistillPlan, StudentPlan

Index = npt.NDArray[np.int64]


def student_shape(windows: WindowSet, plan: StudentPlan, embedding: int) -> AnyShape:
    """The shape that a plan becomes for a data set.

    A plan with a budget becomes the largest convolutional student that keeps to it. Blocks whose stride the window is too short for
    do not stride, and a Transformer's stem halves no further than four tokens. A ring student's frame is what a hop of the chain brings.

    Raises:
        EdgeError: nothing keeps to the budget, the numbers make no student, or windows are no whole hops.
    """
    steps, columns = windows.chain.input_shape
    if plan.budget is not None:
        return largest_student(steps, columns, embedding, plan.budget, queries=plan.queries)
    if plan.family == "transformer":
        halvings = min(plan.halvings, max(0, int(np.log2(max(1, steps / 4)))))
        return TransformerShape(
            steps=steps,
            channels=columns,
            width=plan.width,
            blocks=plan.blocks,
            heads=plan.heads,
            halvings=halvings,
            queries=plan.queries,
            query_blocks=plan.query_blocks,
            embedding=embedding,
            norm=plan.norm,
        )
    if plan.family == "ring":
        return ring_shape(windows.chain, plan, embedding)
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


def ring_shape(chain: SignalChain, plan: StudentPlan, embedding: int) -> RingShape:
    """A ring student for a chain: blocks stride while steps are left, and no kernel reaches further than the frame."""
    hop = chain.hop_steps
    if not hop:
        raise EdgeError(
            "A ring student needs frames that windows share, and these share none; set frame_ms so that hop_ms is a whole number of "
            "frames, or leave features out."
        )
    if chain.window % chain.hop or chain.steps < 2 * hop:
        whole = chain.hop * max(2, round(chain.window / chain.hop))
        raise EdgeError(
            f"A window of {chain.window} samples is not two or more whole hops of {chain.hop}, which a ring student needs; set window_ms "
            f"to {1000.0 * whole / chain.rate_hz:.10g}, which is {whole} samples at {chain.rate_hz:g} Hz."
        )
    kernels, strides, left = [], [], hop
    for kernel, stride in zip(plan.kernels, plan.strides, strict=True):
        kernels.append(min(kernel, 2 * left - 1))
        strides.append(stride if left > 1 else 1)
        left = -(-left // strides[-1])
    frames = chain.steps // hop
    return RingShape(
        steps=chain.steps,
        channels=chain.columns,
        hop=hop,
        widths=plan.widths,
        kernels=tuple(kernels),
        strides=tuple(strides),
        width=plan.width,
        reader_widths=plan.reader_widths,
        reader_kernels=tuple(min(kernel, 2 * frames - 1) for kernel in plan.reader_kernels),
        queries=plan.queries,
        embedding=embedding,
    )


def distill_student(
    windows: WindowSet,
    which: Index,
    lesson: Lesson,
    teacher: Teacher | None,
    shape: AnyShape,
    plan: DistillPlan,
    temperature: float,
    run: Run,
    start: tuple[AnyStudent, nn.Linear] | None = None,
) -> tuple[AnyStudent, nn.Linear]:
    """Train a student on the windows `which`; those of the lesson are also drawn to what the teacher says of them.

    The loss is the sum, by the plan's weights, of

    * 1 − cosine to the teacher's embedding;
    * the mean of 1 − cosine over the teacher's query tokens, which a linear layer that is not kept reads from the student's own tokens
      (FitNets, Romero et al. 2015, on EMBridge's queries);
    * the mean squared difference between the batch's cosines among students and among teachers (similarity-preserving, Tung and
      Mori 2019): what is near what, whatever the space;
    * the divergence from the teacher's class scores, softened (Hinton et al. 2015), of the linear layer on the labels;
    * InfoNCE to the poses' embeddings; and the cross-entropy of that linear layer on the labels.

    Args:
        teacher: has the poses' embeddings; None leaves them out, as for a teacher of others.
        which: windows with a label or a pose. lesson: may hold unlabelled windows besides, which only the first three terms see; they
            make `unlabelled_share` of each batch.
        temperature: τ of InfoNCE, the teacher's.
        start: a student of this shape to go on from, and its layer from the embedding to the gestures; None starts anew.

    Returns: the student in evaluation mode, and the linear layer from its embedding to the gestures.
    """
    seed, world = run.seed, run.world
    torch.manual_seed(seed)
    student = new_student(shape)
    to_labels = nn.Linear(shape.embedding, max(1, len(windows.gestures)))
    if start is not None:
        for module, given in zip((student, to_labels), start, strict=True):
            module.load_state_dict(given.state_dict())
    count, width = lesson.token_shape
    to_tokens = nn.Linear(token_width(shape), count * width) if plan.token_weight else nn.Identity()
    trained = nn.ModuleDict({"student": student, "labels": to_labels, "tokens": to_tokens})
    sampler = EvenSampler(windows, which, seed + 3)
    place = np.full(len(windows), -1, np.int64)
    place[lesson.which] = np.arange(len(lesson.which))
    others = np.setdiff1d(lesson.which, which)
    strange = round(plan.unlabelled_share * plan.batch) if len(others) else 0

    if teacher is not None:
        teacher.pose.to(world.device).eval()

    def drawn_at(step: int) -> Index:
        drawn = sampler.draw(step, plan.batch - strange)
        if not strange:
            return drawn
        more = np.random.default_rng([seed, step, 7]).integers(len(others), size=strange)
        return np.concatenate([drawn, others[more]])

    def from_scores(scores: Tensor, drawn: Index, places: Index) -> Tensor:
        """The teacher's scores say nothing of a window whose gesture it does not know."""
        assert lesson.scores is not None  # noqa: S101 (a plan that weighs scores comes with them)
        said = np.asarray(lesson.scores[places], np.float32)
        labels = windows.labels[drawn]
        judged = np.flatnonzero((labels < 0) | np.isfinite(said[0])[labels])
        if not len(judged):
            return scores.sum() * 0.0
        at = torch.from_numpy(judged).to(scores.device)
        return losses.score_loss(scores[at], world.to(torch.from_numpy(said[judged])))

    def from_teacher(tokens: Tensor, unit: Tensor, scores: Tensor, drawn: Index) -> Tensor:
        """The terms that need the teacher's word, over the windows of the batch that it has spoken of."""
        taught = place[drawn] >= 0
        total = unit.new_zeros(())
        if not taught.any():
            return total
        places, rows = place[drawn[taught]], torch.from_numpy(np.flatnonzero(taught)).to(unit.device)
        if plan.score_weight:
            total = total + plan.score_weight * from_scores(scores[rows], drawn[taught], places)
        if not lesson.embeds:
            return total
        said = world.to(torch.from_numpy(lesson.embeddings(places)))
        if plan.teacher_weight:
            total = total + plan.teacher_weight * (1.0 - (unit[rows] * said).sum(dim=-1)).mean()
        if plan.token_weight:
            read = to_tokens(tokens[rows]).reshape(len(rows), count, width)
            wanted = world.to(torch.from_numpy(lesson.unit_tokens(places)))
            cosine = (functional.normalize(read, dim=-1) * wanted).sum(dim=-1)
            total = total + plan.token_weight * (1.0 - cosine).mean()
        if plan.relation_weight:
            total = total + plan.relation_weight * losses.relation_loss(unit[rows], said)
        return total

    def loss(step: int) -> Tensor:
        drawn = drawn_at(step)
        x = emg_batch(windows, drawn, step, seed, shifted=plan.time_shift, world=world)
        own = student.tokens(augmented(x, plan, windows.chain, world))
        out = student.embed(own)
        unit = world.gather(functional.normalize(out, dim=-1))
        tokens = world.gather(own.flatten(1)) if plan.token_weight else unit
        scores = world.gather(to_labels(out)) if plan.label_weight or plan.score_weight else unit
        total = from_teacher(tokens, unit, scores, drawn)
        if plan.pose_weight and teacher is not None:
            poses = world.to(torch.from_numpy(windows.poses(drawn)))
            posed = torch.isfinite(poses).any(dim=-1).any(dim=-1)
            if bool(posed.any()):
                with torch.no_grad():
                    target = teacher.pose(poses[posed])
                logits = unit[posed] @ target.T / temperature
                total = total + plan.pose_weight * losses.info_nce(logits, losses.same_poses(poses[posed]))
        if plan.label_weight:
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
    if teacher is not None:
        teacher.pose.cpu()
    return student.eval(), to_labels
