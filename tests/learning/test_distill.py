"""What a student is drawn to: each term does what its name says, and unlabelled windows teach too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import read_library
from embridge_edge.learning import lessons, losses
from embridge_edge.learning.distill import distill_student, student_shape
from embridge_edge.learning.lessons import Lesson, teach
from embridge_edge.learning.loop import Run
from embridge_edge.learning.splits import training_windows, unlabelled_windows
from embridge_edge.learning.teacher import embed, teacher_shape, train_teacher
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.students import AnyStudent, new_student
from embridge_edge.model.teacher import Teacher
from embridge_edge.recipe import DistillPlan, StudentPlan, TeacherPlan, TrainPlan
from embridge_edge.recordings.recording import Recording
from embridge_edge.verbs.workflow import kept_lesson

PLAN = TeacherPlan(
    patch_ms=50.0, emg_width=16, emg_blocks=1, pose_width=16, pose_blocks=1, query_blocks=2, queries=3, heads=2, embedding=8
)  # fmt: skip
BY_TEACHER = DistillPlan(
    steps=80, batch=16, learning_rate=5e-3, teacher_weight=1.0, pose_weight=0.0, label_weight=0.0,
    gain_jitter=0.0, channel_jitter=0.0, rotation=0.0, time_shift=False,
)  # fmt: skip
SHAPE = StudentPlan(widths=(16, 16), kernels=(3, 3), strides=(2, 2), queries=2)


def taught(windows: WindowSet) -> Teacher:
    shape = teacher_shape(windows.chain, len(windows.gestures), PLAN)
    plan = TrainPlan(pose_steps=5, masked_steps=5, steps=20, batch=16)
    return train_teacher(windows, training_windows(windows, None), shape, plan, read_library(), Run(0))


def distilled(windows: WindowSet, teacher: Teacher, plan: DistillPlan, lesson: Lesson | None = None) -> torch.nn.Module:
    which = training_windows(windows, None)
    shape = student_shape(windows, SHAPE, teacher.shape.embedding)
    lesson = lesson or teach(teacher, windows, which, 500, 0)
    return distill_student(windows, which, lesson, teacher, shape, plan, 0.07, Run(0))[0]


def agreement(windows: WindowSet, teacher: Teacher, student: torch.nn.Module) -> tuple[float, float]:
    """Mean cosine to the teacher's embedding, and mean squared difference of cosines between windows."""
    which = training_windows(windows, None)
    own, said = (
        torch.nn.functional.normalize(torch.from_numpy(embed(net, windows, which)), dim=-1)
        for net in (student, teacher)
    )
    return float((own * said).sum(dim=-1).mean()), float(losses.relation_loss(own, said))


def test_each_term_draws_the_student_its_own_way(people: WindowSet) -> None:
    teacher = taught(people)
    untaught = agreement(people, teacher, distilled(people, teacher, replace(BY_TEACHER, learning_rate=0.0)))
    by_embedding = agreement(people, teacher, distilled(people, teacher, BY_TEACHER))
    by_relation = agreement(
        people, teacher, distilled(people, teacher, replace(BY_TEACHER, teacher_weight=0.0, relation_weight=10.0))
    )
    assert by_embedding[0] > untaught[0] + 0.2
    assert by_relation[1] < 0.7 * untaught[1]


def test_token_wise_distillation_teaches_the_blocks_below_the_embedding(people: WindowSet) -> None:
    teacher = taught(people)
    before = distilled(people, teacher, replace(BY_TEACHER, learning_rate=0.0))
    after = distilled(people, teacher, replace(BY_TEACHER, teacher_weight=0.0, token_weight=1.0))
    assert not torch.equal(before.scores.weight, after.scores.weight)  # type: ignore[union-attr, arg-type]


def test_distillation_goes_on_from_the_student_it_is_given(people: WindowSet) -> None:
    teacher, which = taught(people), training_windows(people, None)
    shape, lesson = student_shape(people, SHAPE, teacher.shape.embedding), teach(teacher, people, which, 500, 0)

    def go_on(plan: DistillPlan, start: tuple[AnyStudent, torch.nn.Linear]) -> tuple[AnyStudent, torch.nn.Linear]:
        return distill_student(people, which, lesson, teacher, shape, plan, 0.07, Run(0), start)

    given = (new_student(shape), torch.nn.Linear(shape.embedding, len(people.gestures)))
    for one, other in zip(go_on(replace(BY_TEACHER, learning_rate=0.0), given), given, strict=True):
        for (name, got), expected in zip(one.named_parameters(), other.parameters(), strict=True):
            assert torch.equal(got, expected), name
    moved = go_on(BY_TEACHER, given)[0]
    assert not torch.equal(moved.embedding.weight, given[0].embedding.weight)


@given(st.integers(2, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_relation_loss_is_the_mean_over_pairs(count: int, width: int, other: int, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.nn.functional.normalize(torch.randn(count, size, generator=draw), dim=-1) for size in (width, other)
    )
    pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
    expected = np.mean([float(student[i] @ student[j] - teacher[i] @ teacher[j]) ** 2 for i, j in pairs])
    assert float(losses.relation_loss(student, teacher)) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    turned = torch.linalg.qr(torch.randn(width, width, generator=draw))[0]
    assert float(losses.relation_loss(student @ turned, student)) == pytest.approx(0.0, abs=1e-6)


def test_lessons_on_disk_are_those_in_memory(people: WindowSet, tmp_path: Path) -> None:
    teacher, which = taught(people), training_windows(people, None)
    memory, disk = teach(teacher, people, which, 50, 0), teach(teacher, people, which, 50, 0, folder=tmp_path)
    np.testing.assert_array_equal(memory.which, disk.which)
    np.testing.assert_array_equal(memory.tokens, disk.tokens)
    assert isinstance(disk.tokens, np.memmap) and disk.tokens.shape[1:] == (3, 8)
    (tmp_path / "tokens.npy").write_bytes(b"half")
    with pytest.raises(EdgeError, match="holds no lesson"):
        Lesson.load(tmp_path)


def test_a_training_that_keeps_its_state_asks_the_teacher_once(
    people: WindowSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, which, asked = taught(people), training_windows(people, None), []

    def heard(*given: Any, **how: Any) -> Lesson:
        asked.append(how["folder"])
        return teach(*given, **how)

    monkeypatch.setattr(lessons, "teach", heard)
    run = Run(0, "student", tmp_path, "what all hangs on")
    first, second = (kept_lesson(teacher, people, which, BY_TEACHER, run, None) for _ in range(2))
    assert len(asked) == 1 and isinstance(second.tokens, np.memmap)
    np.testing.assert_array_equal(first.tokens, second.tokens)
    kept_lesson(teacher, people, which, BY_TEACHER, replace(run, key="another teacher"), None)
    in_memory = kept_lesson(teacher, people, which, BY_TEACHER, Run(0), None)
    assert len(asked) == 3 and asked[-1] is None
    np.testing.assert_array_equal(first.tokens, in_memory.tokens)


def test_unlabelled_recordings_teach(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    windows = cut([recording("a"), recording("b", labelled=False)])
    teacher, which = taught(windows), training_windows(windows, None)
    strange = unlabelled_windows(windows, None)
    assert len(strange) and not np.intersect1d(which, strange).size
    lesson = teach(teacher, windows, which, 500, 0, unlabelled=strange)
    assert np.intersect1d(lesson.which, strange).size == len(strange)

    def on_strange(plan: DistillPlan) -> float:
        student = distilled(windows, teacher, plan, lesson)
        own, said = (
            torch.nn.functional.normalize(torch.from_numpy(embed(net, windows, strange)), dim=-1)
            for net in (student, teacher)
        )
        return float((own * said).sum(dim=-1).mean())

    assert on_strange(replace(BY_TEACHER, unlabelled_share=0.5)) > on_strange(BY_TEACHER)


def test_plans_that_teach_nothing_are_one_line() -> None:
    with pytest.raises(EdgeError, match=r"Every weight of .distill. is 0"):
        DistillPlan(teacher_weight=0.0, pose_weight=0.0, label_weight=0.0)
    with pytest.raises(EdgeError, match="unlabelled_share is 1; give"):
        DistillPlan(unlabelled_share=1.0)
