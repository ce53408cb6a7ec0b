"""Training with rounding leads back to what the student said, and to the labels where it is asked to; the heads stay."""

from __future__ import annotations

import copy

import numpy as np
import torch

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.learning.distill import student_shape
from embridge_edge.learning.loop import Run
from embridge_edge.learning.rounding import tune_rounded
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.teacher import embed
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.head import make_head
from embridge_edge.model.student import Student
from embridge_edge.recipe import QatPlan, StudentPlan

SHAPE = StudentPlan(widths=(16, 16), kernels=(3, 3), strides=(2, 2), queries=2)


class Parts(torch.nn.Module):
    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student

    def forward(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.student.tokens(windows)
        return tokens, self.student.embed(tokens)


def shaken(student: Student) -> Student:
    """A copy with noise on every weight, which stands for rounding here: NNCF is not needed to see where a loss leads."""
    other = copy.deepcopy(student)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            spread = 0.2 * float(parameter.std(correction=0))
            parameter.add_(spread * torch.randn(parameter.shape, generator=random))
    return other


def test_it_leads_back_to_what_was_said_and_to_the_labels(people: WindowSet) -> None:
    which = training_windows(people, None)
    torch.manual_seed(0)
    before = fold_batchnorm(Student(student_shape(people, SHAPE, 8)))
    said = embed(before, people, which)
    weights = np.random.default_rng(0).standard_normal((len(people.gestures), 8)).astype(np.float32)
    head = make_head("linear", people.gestures, weights, np.zeros(len(people.gestures), np.float32))

    def tuned(plan: QatPlan) -> tuple[float, float]:
        student = shaken(before)
        tune_rounded(Parts(student), before, people, which, head, plan, 32, Run(0))
        now = embed(student.eval(), people, which)
        right = np.mean(head.decide(now) == people.labels[which])
        return float(np.square(now - said).mean() / said.var(axis=0).mean()), float(right)

    untrained = tuned(QatPlan(steps=1, learning_rate=1e-12))
    faithful = tuned(QatPlan(steps=150, learning_rate=3e-3))
    labelled = tuned(QatPlan(steps=150, learning_rate=3e-3, label_weight=1e4))
    assert faithful[0] < 0.5 * untrained[0]
    assert labelled[1] > faithful[1] + 0.1
    np.testing.assert_array_equal(embed(before, people, which), said)
