"""The stem reads a window to its end, one token a patch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from embridge_edge.errors import EdgeError
from embridge_edge.model.teacher import Teacher, TeacherShape
from embridge_edge.model.towers import EmgTower, PatchStem, ResidualConvolutions

SHAPE = TeacherShape(
    steps=20, columns=3, patch=5, frames=4, gestures=3, readout="queries", emg_encoder="transformer", emg_width=8, emg_blocks=1,
    pose_width=8, pose_blocks=1, query_blocks=2, queries=3, heads=2, embedding=8, dropout=0.0,
)  # fmt: skip


@pytest.mark.parametrize("kind", ["transformer", "convolutions"])
@pytest.mark.parametrize("patch", [1, 2, 3, 5, 8, 10, 25, 50])
def test_every_sample_of_a_window_reaches_the_tokens(patch: int, kind: str) -> None:
    torch.manual_seed(patch)
    steps, columns = 6 * patch, 3
    tower = EmgTower(steps, columns, patch, width=16, blocks=1, heads=2, dropout=0.0, kind=kind).eval()
    x = torch.randn(4, steps, columns, requires_grad=True)
    tokens = tower(x)
    assert tokens.shape == (4, 6, 16)
    (gradient,) = torch.autograd.grad(tokens.square().sum(), x)
    assert (gradient.abs().amax(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize("patch", [2, 3, 5, 8, 10, 25, 50])
def test_tokens_look_over_both_edges_of_their_patch_and_no_patch_farther_back(patch: int) -> None:
    torch.manual_seed(0)
    stem = PatchStem(2, patch, 16).eval()
    for layer in stem.layers:
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.constant_(layer.weight, 1.0)  # every sample within reach counts, none is lost in a ReLU
    x = torch.rand(1, 9 * patch, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(stem(x)[:, 4].sum(), x)
    (seen,) = torch.nonzero(gradient[0, :, 0], as_tuple=True)
    before, behind = 4 * patch - int(seen[0]), int(seen[-1]) + 1 - 5 * patch
    assert min(before, behind) >= 0
    assert 0 <= before - behind < patch  # an odd kernel on an even stride looks one step farther back, layer by layer


def test_convolutions_hand_on_what_they_are_given_where_they_add_nothing() -> None:
    torch.manual_seed(0)
    encoder = ResidualConvolutions(width=8, blocks=2, dropout=0.0).eval()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.zeros_(module.weight)
    tokens = torch.rand(3, 5, 8)
    torch.testing.assert_close(encoder(tokens), tokens)


def test_teachers_of_before_there_were_convolutions_are_transformers() -> None:
    stored = Teacher(SHAPE).shape.to_dict()
    del stored["emg_encoder"]
    assert TeacherShape.from_dict(stored) == SHAPE
    with pytest.raises(EdgeError, match='readout "cls" is a token among others'):
        replace(SHAPE, emg_encoder="convolutions", readout="cls")
