"""Losses are what their formulas say, and teach the EMG side alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from embridge_edge.gestures import POSE
from embridge_edge.learning import losses


def unit(count: int, width: int, seed: int) -> torch.Tensor:
    return functional.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def by_hand(emg: np.ndarray, pose: np.ndarray, same: np.ndarray, temperature: float) -> float:
    total = 0.0
    for row in range(len(emg)):
        scores = np.exp(pose.astype(np.float64) @ emg[row].astype(np.float64) / temperature)
        total -= np.log(scores[same[row]].sum() / scores.sum())
    return total / len(emg)


@pytest.mark.parametrize("temperature", [0.02, 0.07, 1.0])
def test_info_nce_with_all_poses_different_is_the_papers(temperature: float) -> None:
    emg, pose = unit(9, 5, 0), unit(9, 5, 1)
    got = losses.info_nce(emg @ pose.T / temperature, torch.eye(9, dtype=torch.bool))
    diagonal = -functional.log_softmax(emg @ pose.T / temperature, dim=1).diagonal().mean()
    torch.testing.assert_close(got, diagonal)
    assert got.item() == pytest.approx(by_hand(emg.numpy(), pose.numpy(), np.eye(9, dtype=bool), temperature), rel=1e-5)


def test_windows_of_one_pose_are_positives_of_each_other() -> None:
    emg, kinds = unit(8, 4, 2), torch.tensor([0, 0, 1, 2, 2, 2, 1, 0])
    pose = unit(3, 4, 3)[kinds]
    same = kinds[:, None] == kinds[None]
    got = losses.info_nce(emg @ pose.T / 0.1, same)
    assert got.item() == pytest.approx(by_hand(emg.numpy(), pose.numpy(), same.numpy(), 0.1), rel=1e-5)
    everything = torch.ones(8, 8, dtype=torch.bool)
    assert losses.info_nce(emg @ pose.T / 0.1, everything).item() == pytest.approx(0.0, abs=1e-6)


def test_same_poses_are_those_of_equal_tracks() -> None:
    tracks = torch.zeros(5, 2, len(POSE))
    tracks[1, 1, 3] = 0.5
    tracks[2, :, 20:] = torch.nan
    tracks[3, :, 20:] = torch.nan
    tracks[4] = tracks[1]
    same = losses.same_poses(tracks)
    kinds = torch.tensor([0, 1, 2, 2, 1])
    assert torch.equal(same, kinds[:, None] == kinds[None])


def test_best_query_is_the_one_most_similar_to_the_pose() -> None:
    queries, pose = torch.randn(7, 5, 4), unit(7, 4, 0)
    got = losses.aligned_feature(queries, pose, best=True)
    cosines = functional.cosine_similarity(queries, pose[:, None], dim=-1)
    for row in range(7):
        torch.testing.assert_close(got[row], functional.normalize(queries[row, cosines[row].argmax()], dim=0))
    torch.testing.assert_close(got.norm(dim=1), torch.ones(7))


def test_mean_query_does_not_look_at_the_pose() -> None:
    queries = torch.randn(7, 5, 4)
    one, two = (losses.aligned_feature(queries, unit(7, 4, seed), best=False) for seed in (0, 1))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    torch.testing.assert_close(one, functional.normalize(queries.mean(dim=1), dim=-1))


def test_label_loss_leaves_windows_without_a_label_out() -> None:
    scores, labels = torch.randn(6, 3, requires_grad=True), torch.tensor([0, -1, 2, -1, 1, 1])
    known = labels >= 0
    expected = functional.cross_entropy(scores[known], labels[known], label_smoothing=0.1)
    torch.testing.assert_close(losses.label_loss(scores, labels, 0.1), expected)


@pytest.mark.parametrize("gestures", [0, 3])
def test_label_loss_without_any_label_is_zero_and_still_differentiable(gestures: int) -> None:
    scores = torch.randn(4, gestures, requires_grad=True)
    loss = losses.label_loss(scores, torch.full((4,), -1), 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0


@given(st.integers(1, 6), st.integers(2, 5), st.integers(0, 3), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_scores_are_learnt_as_far_as_the_teacher_knows_the_gestures(n: int, known: int, others: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    scores, said = torch.randn(n, known + others, generator=rng), 3.0 * torch.randn(n, known + others, generator=rng)
    said[:, known:] = torch.nan
    got = losses.score_loss(scores, said, temperature=2.0)
    teacher, own = (values[:, :known].div(2.0).softmax(dim=1) for values in (said, scores))
    torch.testing.assert_close(got, 4.0 * (teacher * (teacher / own).log()).sum(dim=1).mean(), rtol=1e-4, atol=1e-5)
    assert got >= -1e-6
    # What it says of the others may be anything, and a shift of all logits says nothing.
    scores[:, known:] += 5.0
    torch.testing.assert_close(losses.score_loss(scores, said + 7.0, temperature=2.0), got, rtol=1e-3, atol=1e-4)
    assert losses.score_loss(said.nan_to_num() + 1.0, said).item() == pytest.approx(0.0, abs=1e-5)
