"""Each term of the alignment against a computation of its own, and what each of them may reach."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from embridge_edge.errors import EdgeError
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning import losses
from embridge_edge.learning.alignment import Alignment, communities
from embridge_edge.learning.loop import Run
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.teacher import embed, embed_poses, train_teacher
from embridge_edge.learning.windows import WindowSet
from embridge_edge.learning.world import World, open_world
from embridge_edge.model.teacher import Teacher, TeacherShape
from embridge_edge.recipe import TrainPlan
from tests.learning.conftest import MakeRecording, MakeWindows

ALONE = open_world()
SHAPE = TeacherShape(
    steps=20, columns=3, patch=5, frames=4, gestures=3, readout="queries", emg_encoder="transformer", emg_width=8, emg_blocks=1, pose_width=8,
    pose_blocks=2, query_blocks=4, queries=5, heads=2, embedding=6, dropout=0.0,
)  # fmt: skip
FULL = TrainPlan(
    label_weight=0.5,
    soft_targets="cascle",
    soft_weight=0.7,
    reconstruct_weight=0.9,
    regression_weight=0.3,
    communities=4,
)

Matrix = npt.NDArray[np.float64]


def unit(count: int, width: int, seed: int) -> Tensor:
    return functional.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def aligned(plan: TrainPlan = FULL, shape: TeacherShape = SHAPE, seed: int = 0) -> Alignment:
    torch.manual_seed(seed)
    return Alignment(Teacher(shape), plan, unit(4, shape.embedding, 9)).eval()


def batch(count: int = 6, seed: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(count, SHAPE.steps, SHAPE.columns, generator=draw)
    poses = torch.randn(count, SHAPE.frames, len(POSE), generator=draw)
    return x, poses, torch.arange(count) % 3


def cascle_by_hand(poses: Matrix, centroids: Matrix, nearest: int, temperature: float) -> Matrix:
    """The soft targets as the paper writes them, pair by pair."""
    count, kept = len(poses), []
    for pose in poses:
        similarity = [float(pose @ centroid) for centroid in centroids]
        best = sorted(range(len(centroids)), key=lambda place: -similarity[place])[:nearest]
        kept.append([similarity[place] if place in best else 0.0 for place in range(len(centroids))])
    targets = np.zeros((count, count))
    for row in range(count):
        weights = {
            other: math.exp(sum(a * b for a, b in zip(kept[row], kept[other], strict=True)) / temperature)
            for other in range(count)
            if other != row
        }
        for other, weight in weights.items():
            targets[row, other] = weight / sum(weights.values())
    return targets


@given(st.integers(2, 9), st.integers(1, 7), st.integers(1, 7), st.floats(0.05, 2.0), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_community_targets_are_the_papers(count: int, groups: int, nearest: int, temperature: float, seed: int) -> None:
    poses, centroids = unit(count, 5, seed), unit(groups, 5, seed + 1)
    got = losses.community_targets(poses, centroids, nearest, temperature).numpy()
    expected = cascle_by_hand(poses.double().numpy(), centroids.double().numpy(), min(nearest, groups), temperature)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert not got.diagonal().any()
    np.testing.assert_allclose(got.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("with_self", [False, True])
def test_soft_contrastive_is_the_papers_sum(with_self: bool) -> None:
    logits = (unit(6, 4, 0) @ unit(6, 4, 1).T / 0.1).double()
    targets = losses.similarity_targets(unit(6, 4, 2), 0.2).double()
    total = 0.0
    for row in range(6):
        denominator = sum(math.exp(logits[row, k]) for k in range(6) if with_self or k != row)
        for other in range(6):
            if other != row:
                total -= float(targets[row, other]) * (float(logits[row, other]) - math.log(denominator))
    assert losses.soft_contrastive(logits, targets, with_self=with_self).item() == pytest.approx(total / 6, rel=1e-6)


def test_soft_contrastive_with_its_softmax_as_target_has_no_gradient() -> None:
    """Cross-entropy is least where both distributions are the same; −∞ on the diagonal must not become NaN."""
    logits = torch.randn(5, 5, requires_grad=True)
    targets = losses.without_diagonal(logits.detach()).softmax(dim=1)
    losses.soft_contrastive(logits, targets, with_self=False).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(5, 5), atol=1e-6, rtol=0)


def test_smoothing_and_softclip_targets() -> None:
    even = losses.even_targets(5, torch.zeros(1))
    torch.testing.assert_close(even, (1 - torch.eye(5)) / 4)
    poses = unit(5, 3, 0)
    similar = losses.similarity_targets(poses, 0.3)
    weights = (poses @ poses.T / 0.3).exp() * (1 - torch.eye(5))
    torch.testing.assert_close(similar, weights / weights.sum(dim=1, keepdim=True))


def test_total_is_the_weighted_sum_of_its_terms() -> None:
    x, poses, labels = batch()
    everything = aligned()
    off = replace(
        FULL, pose_weight=0.0, label_weight=0.0, soft_targets="none", reconstruct_weight=0.0, regression_weight=0.0
    )  # fmt: skip

    def value(plan: TrainPlan) -> float:
        alignment = aligned(plan)
        alignment.load_state_dict(everything.state_dict())
        torch.manual_seed(5)
        return alignment.loss(x, poses, labels, ALONE).item()

    terms = [
        value(replace(off, pose_weight=1.0)),
        0.5 * value(replace(off, label_weight=1.0)),
        0.7 * value(replace(off, soft_targets="cascle", soft_weight=1.0)),
        0.9 * value(replace(off, reconstruct_weight=1.0)),
        0.3 * value(replace(off, regression_weight=1.0)),
    ]
    assert all(abs(term) > 1e-4 for term in terms)
    assert value(FULL) == pytest.approx(sum(terms), rel=1e-5)
    assert value(off) == 0.0


def test_gradients_reach_the_emg_side_and_never_the_pose_tower() -> None:
    alignment = aligned()
    x, poses, labels = batch()
    alignment.loss(x, poses, labels, ALONE).backward()  # type: ignore[no-untyped-call]
    grads = {name: parameter.grad for name, parameter in alignment.named_parameters()}
    reached = {name for name, grad in grads.items() if grad is not None and grad.abs().sum() > 0}
    assert not {name for name in reached if name.startswith("teacher.pose.")}
    assert {
        "mask",
        "decoder.weight",
        "teacher.qformer.queries",
        "teacher.emg.position",
        "teacher.labels.weight",
    } <= reached
    assert "sharpness" not in reached
    assert {f"teacher.qformer.blocks.{block}.cross.in_proj_bias" for block in (0, 2)} <= reached


def test_learned_temperature_gets_a_gradient() -> None:
    alignment = aligned(replace(FULL, learned_temperature=True))
    alignment.loss(*batch(), ALONE).backward()  # type: ignore[no-untyped-call]
    assert alignment.sharpness.grad is not None
    assert alignment.sharpness.grad.abs() > 0


def test_both_ways_is_the_mean_of_the_two_directions() -> None:
    feature, target = unit(6, 6, 0), unit(6, 6, 1)
    poses = batch()[1]
    off = replace(FULL, soft_targets="none", regression_weight=0.0)
    logits = feature @ target.T / off.temperature
    here, there = (functional.cross_entropy(way, torch.arange(6)) for way in (logits, logits.T))
    torch.testing.assert_close(aligned(off).contrast(feature, target, poses), here)
    both = aligned(replace(off, both_ways=True)).contrast(feature, target, poses)
    torch.testing.assert_close(both, 0.5 * (here + there))


def test_reconstruction_reads_the_queries_output_and_no_emg() -> None:
    """With the queries' output fixed, nothing else of the EMG is left to change."""
    alignment = aligned()
    x, poses, _ = batch()
    read = alignment.teacher.read(x).detach()
    torch.manual_seed(0)
    one = alignment.reconstruction(read, poses, ALONE)
    with torch.no_grad():  # whatever the EMG tower and cross-attention hold, they take no part
        for name, parameter in alignment.teacher.named_parameters():
            if name.startswith("emg.") or ".cross" in name:
                parameter.fill_(7.0)
    torch.manual_seed(0)
    assert torch.equal(alignment.reconstruction(read, poses, ALONE), one)
    torch.manual_seed(0)
    assert not torch.equal(alignment.reconstruction(read.flip(0), poses, ALONE), one)


def test_pose_tokens_change_neither_queries_nor_the_alignment_feature() -> None:
    teacher = aligned().teacher
    x, poses, _ = batch()
    read = teacher.read(x)
    hidden = torch.zeros(6, SHAPE.frames, dtype=torch.bool)
    seen: list[Tensor] = []
    for block in teacher.qformer.blocks:
        block.register_forward_hook(lambda _, __, out: seen.append(out[:, : SHAPE.queries]))
    for other in (poses, poses + 3.0):
        teacher.qformer.complete(read, teacher.pose.hidden_tokens(other, hidden, torch.zeros(8)))
    for mine, its in zip(seen[:4], seen[4:], strict=True):
        assert torch.equal(mine, its)
    assert torch.equal(teacher.read(x), read)


def test_hidden_pose_frames_do_not_reach_their_own_reconstruction() -> None:
    alignment = aligned()
    x, poses, _ = batch()
    read, hidden = alignment.teacher.read(x), torch.rand(6, SHAPE.frames) < 0.5
    other = torch.where(hidden[..., None], poses + 5.0, poses)
    tokens = [alignment.teacher.pose.hidden_tokens(pose, hidden, alignment.mask) for pose in (poses, other)]
    assert torch.equal(tokens[0], tokens[1])
    torch.testing.assert_close(*(alignment.teacher.qformer.complete(read, one) for one in tokens), rtol=0, atol=0)


def test_reconstruction_is_the_mean_over_known_angles_of_hidden_frames() -> None:
    alignment = aligned(replace(FULL, reconstruct_mask_share=1.0))
    x, poses, _ = batch()
    poses = poses.masked_fill(torch.rand(poses.shape) < 0.3, torch.nan)
    with torch.no_grad():
        alignment.decoder.weight.zero_()
        alignment.decoder.bias.zero_()
    got = alignment.reconstruction(alignment.teacher.read(x), poses, ALONE)
    torch.testing.assert_close(got, poses[torch.isfinite(poses)].square().mean())


def test_windows_without_a_pose_take_no_part_in_the_contrast() -> None:
    alignment = aligned(replace(FULL, label_weight=0.0, reconstruct_weight=0.0))
    x, poses, labels = batch(8)
    poses[5:] = torch.nan
    got = alignment.loss(x, poses, labels, ALONE)
    torch.testing.assert_close(got, alignment.loss(x[:5], poses[:5], labels[:5], ALONE))


def test_mean_over_queries_uses_no_pose(people: WindowSet) -> None:
    """Inference sees EMG alone: another pose tower changes no embedding."""
    teacher = aligned().teacher
    x = batch()[0]
    before = teacher(x)
    with torch.no_grad():
        for parameter in teacher.pose.parameters():
            parameter.fill_(3.0)
    assert torch.equal(teacher(x), before)
    torch.testing.assert_close(before, teacher.queries(x).mean(dim=1))


@pytest.mark.parametrize("readout", ["cls", "mean"])
def test_reconstruction_without_a_qformer_is_refused(readout: str) -> None:
    shape = replace(SHAPE, readout=readout, embedding=8)
    with pytest.raises(EdgeError, match="needs the Q-Former"):
        aligned(FULL, shape)
    assert Teacher(shape).queries(batch()[0]).shape == (6, 1, 8)


def test_mean_readout_of_another_width_is_refused() -> None:
    with pytest.raises(EdgeError, match="emg_width 8, not 6"):
        replace(SHAPE, readout="mean")


def test_cls_token_sees_the_whole_window() -> None:
    teacher = Teacher(replace(SHAPE, readout="cls")).eval()
    x = batch()[0].requires_grad_()
    teacher(x).square().sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().reshape(6, -1, SHAPE.patch, 3).sum(dim=(0, 2, 3)) > 0).all()


def test_communities_are_unit_and_as_many_as_there_are_poses(people: WindowSet) -> None:
    """Labelled recordings have one pose per gesture and the ways between: rarely as many as the plan's communities."""
    plan = TrainPlan(communities=500, nearest_communities=2)
    teacher = Teacher(replace(SHAPE, steps=40, columns=4, patch=10))
    which = training_windows(people, None)
    centroids = communities(teacher, people, which, plan, 0)
    torch.testing.assert_close(centroids.norm(dim=1), torch.ones(len(centroids)))
    distinct = np.unique(embed_poses(teacher.eval(), people, which).round(4), axis=0)
    assert 3 <= len(centroids) <= len(distinct)
    assert len(communities(teacher, people, which, TrainPlan(communities=3), 0)) == 3


@pytest.mark.parametrize("soft", ["cascle", "softclip", "smoothing"])
@pytest.mark.parametrize(
    ("readout", "encoder"), [("queries", "transformer"), ("cls", "transformer"), ("queries", "convolutions")]
)
def test_every_arm_trains_and_embeds(people: WindowSet, soft: str, readout: str, encoder: str) -> None:
    weight = 1.0 if readout == "queries" else 0.0
    plan = replace(
        FULL, pose_steps=2, masked_steps=2, steps=3, batch=8, soft_targets=soft, reconstruct_weight=weight, both_ways=True
    )  # type: ignore[arg-type]  # fmt: skip
    shape = replace(SHAPE, steps=40, columns=4, patch=10, readout=readout, emg_encoder=encoder)
    which = training_windows(people, None)
    teacher = train_teacher(people, which, shape, plan, read_library(), Run(0))
    assert np.isfinite(embed(teacher, people, which[:5])).all()


def test_mixtures_take_their_share_of_every_batch(
    recording: MakeRecording, cut: MakeWindows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flexion and fist are in these recordings, both together in none: their pose can come from a mixture alone."""
    windows = cut([recording(wearer, runs=[(0, 400), (1, 400), (2, 400)]) for wearer in "ab"])
    which = training_windows(windows, None)
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    whole = Alignment.loss

    def spied(self: Alignment, x: Tensor, poses: Tensor, labels: Tensor, world: World) -> Tensor:
        seen.append((x, poses, labels))
        return whole(self, x, poses, labels, world)

    monkeypatch.setattr(Alignment, "loss", spied)
    both = torch.from_numpy(read_library().poses(("fist+flexion",)))[0]
    for share, mixed in ((0.25, 2), (0.0, 0)):
        seen.clear()
        plan = TrainPlan(batch=8, pose_steps=1, masked_steps=1, steps=3, noise=0.0, mix_share=share)
        shape = replace(SHAPE, steps=40, columns=4, patch=10)
        train_teacher(windows, which, shape, plan, read_library(), Run(0))
        assert len(seen) == 3
        for x, poses, labels in seen:
            assert (len(x), len(poses), len(labels)) == (8, 8, 8)
            made = (poses == both).all(dim=-1).any(dim=-1)
            assert made.tolist() == [False] * (8 - mixed) + [True] * mixed
            assert (labels[made] == -1).all()
