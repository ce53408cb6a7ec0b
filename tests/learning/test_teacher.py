"""The teacher learns reproducibly, its pose tower never looks at what was not measured, and alignment leaves it alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from embridge_edge.errors import EdgeError
from embridge_edge.features.chain import ChainPlan
from embridge_edge.gestures import POSE, read_library
from embridge_edge.learning import alignment, loop, pretraining
from embridge_edge.learning import teacher as training
from embridge_edge.learning.distill import distill_student, student_shape
from embridge_edge.learning.lessons import Lesson, teach
from embridge_edge.learning.loop import Run
from embridge_edge.learning.splits import training_windows
from embridge_edge.learning.teacher import embed, pose_embeddings, teacher_shape, train_teacher
from embridge_edge.learning.windows import WindowSet
from embridge_edge.model.teacher import QFormer, Teacher, TeacherShape
from embridge_edge.model.towers import EmgTower, PoseTower
from embridge_edge.recipe import DistillPlan, StudentPlan, TeacherPlan, TrainPlan
from embridge_edge.recordings.recording import Recording

PLAN = TeacherPlan(
    patch_ms=50.0, emg_width=16, emg_blocks=1, pose_width=16, pose_blocks=1, query_blocks=2, queries=3, heads=2, embedding=8
)  # fmt: skip
TRAIN = TrainPlan(pose_steps=6, masked_steps=6, steps=10, batch=16)
LIBRARY = read_library()


def trained(
    windows: WindowSet, plan: TrainPlan = TRAIN, seed: int = 0, state: Path | None = None, like: TeacherPlan = PLAN
) -> Teacher:
    which = training_windows(windows, None)
    return train_teacher(
        windows, which, teacher_shape(windows.chain, len(windows.gestures), like), plan, LIBRARY, Run(seed, state=state)
    )


def assert_equal(one: torch.nn.Module, two: torch.nn.Module) -> None:
    for (name, mine), (_, its) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        assert torch.equal(mine, its), name


def test_same_seed_same_tensors_and_another_seed_others(people: WindowSet) -> None:
    one = trained(people)
    torch.rand(3)
    assert_equal(one, trained(people))
    assert not torch.equal(one.project.weight, trained(people, seed=1).project.weight)
    assert not one.training


@pytest.mark.parametrize("encoder", ["transformer", "convolutions"])
@pytest.mark.parametrize("stage", ["masked poses", "masked EMG", "alignment"])
def test_interrupted_in_any_stage_it_ends_the_same(
    people: WindowSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    encoder: Literal["transformer", "convolutions"],
) -> None:
    like = replace(PLAN, emg_encoder=encoder, dropout=0.1)
    whole = trained(people, like=like)
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    plain = loop.fit

    def interrupted(network, loss_of, schedule, *, label, **rest):  # type: ignore[no-untyped-def]
        def loss(step: int) -> torch.Tensor:
            if stage in label and step == 3:
                raise KeyboardInterrupt
            return loss_of(step)  # type: ignore[no-any-return]

        return plain(network, loss, schedule, label=label, **rest)

    for module in (pretraining, alignment):
        monkeypatch.setattr(module, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained(people, state=tmp_path, like=like)
    for module in (pretraining, alignment):
        monkeypatch.setattr(module, "fit", plain)
    assert_equal(trained(people, state=tmp_path, like=like), whole)


def test_alignment_leaves_the_pose_tower_as_it_was(people: WindowSet) -> None:
    before = {}
    plain = training.align

    def remembering(teacher: Teacher, *rest, **named) -> None:  # type: ignore[no-untyped-def]
        before.update({name: tensor.clone() for name, tensor in teacher.state_dict().items()})
        plain(teacher, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "align", remembering)
        teacher = trained(people)
    after = teacher.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert not {name for name in changed if name.startswith("pose.")}
    assert {"project.weight", "qformer.queries", "emg.embed.layers.0.weight"} <= changed


def test_qformer_starts_from_the_pose_towers_attention() -> None:
    torch.manual_seed(0)
    pose = PoseTower(4, 16, 2, 2, 8)
    former = QFormer(3, 16, 24, 4, 2, 0.0)
    cross = former.blocks[0].cross.in_proj_bias.clone()
    former.start_from(pose)
    for index, block in enumerate(former.blocks):
        source = pose.encoder.layers[index % 2]
        assert torch.equal(block.own.in_proj_weight, source.self_attn.in_proj_weight)
        assert torch.equal(block.own.out_proj.weight, source.self_attn.out_proj.weight)
        assert torch.equal(block.own_norm.weight, source.norm1.weight)
        assert block.own.in_proj_weight is not source.self_attn.in_proj_weight
        assert (block.cross is None) == (index % 2 == 1)
    assert torch.equal(former.blocks[0].cross.in_proj_bias, cross)


def test_unmeasured_angles_change_neither_embedding_nor_loss() -> None:
    torch.manual_seed(0)
    tower = PoseTower(4, 16, 2, 2, 8).eval()
    poses = torch.randn(5, 4, len(POSE))
    unknown = torch.rand(5, 4, len(POSE)) < 0.4
    hidden = torch.rand(5, 4) < 0.5
    masked = poses.masked_fill(unknown, torch.nan)
    # The tower sees a 0 and a flag in place of a NaN, so what the angle was cannot reach it.
    for value in (1.0, 1e6):
        other = torch.where(unknown, torch.full_like(poses, value), poses).masked_fill(unknown, torch.nan)
        assert torch.equal(tower(masked), tower(other))
        assert torch.equal(*(tower.reconstruction_error(x, hidden)[0] for x in (masked, other)))
    assert torch.isfinite(tower(torch.full((2, 4, len(POSE)), torch.nan))).all()
    # The loss counts known angles of hidden frames alone: an error elsewhere is none.
    with torch.no_grad():
        tower.decoder.weight.zero_()
        tower.decoder.bias.copy_(torch.ones(len(POSE)))
    known = ~unknown & hidden[..., None]
    expected = (1 - poses)[known].square().mean()
    error, count = tower.reconstruction_error(masked, hidden)
    assert torch.equal(count, known.sum(dim=(1, 2)))
    torch.testing.assert_close(error.sum() / count.sum(), expected)
    error, count = tower.reconstruction_error(masked, torch.zeros(5, 4, dtype=torch.bool))
    assert not error.any()
    assert not count.any()


def test_masked_emg_counts_hidden_patches_alone_and_does_not_see_them() -> None:
    torch.manual_seed(0)
    tower = EmgTower(23, 3, 5, 16, 1, 2, 0.0).eval()
    assert tower.tokens == 4
    x, hidden = torch.randn(6, 23, 3), torch.zeros(6, 4, dtype=torch.bool)
    hidden[:, 2] = True
    other = x.clone()
    other[:, 20:] = 99.0  # beyond the last whole patch
    assert torch.equal(*(tower.reconstruction_error(one, hidden) for one in (x, other)))
    with torch.no_grad():
        tower.decoder.weight.zero_()
        tower.decoder.bias.zero_()
    torch.testing.assert_close(tower.reconstruction_error(x, hidden), x[:, 10:15].square().mean(dim=(1, 2)))


def test_hidden_patch_does_not_reach_the_encoder() -> None:
    torch.manual_seed(0)
    tower = EmgTower(20, 3, 5, 16, 1, 2, 0.0).eval()
    seen: list[torch.Tensor] = []
    tower.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hidden = torch.tensor([[False, True, False, False]])
    x = torch.randn(1, 20, 3)
    other = x.clone()
    other[:, 5:10] = 7.0
    tower.reconstruction_error(x, hidden)
    tower.reconstruction_error(other, hidden)
    assert torch.equal(seen[0], seen[1])


def test_pose_projection_whitens_the_training_poses() -> None:
    torch.manual_seed(0)
    tower = PoseTower(2, 16, 1, 2, 8).eval()
    poses = torch.randn(2000, 2, len(POSE)) * torch.linspace(0.1, 2, len(POSE))
    tower.fit_projection(poses)
    with torch.no_grad():
        spread = ((tower.tokens(poses).mean(dim=1) - tower.mean) @ tower.directions).std(dim=0)
    torch.testing.assert_close(spread, spread[:1].expand(8), rtol=0.02, atol=0)
    torch.testing.assert_close(tower(poses).norm(dim=1), torch.ones(2000))


def test_shape_that_cannot_be_is_refused(people: WindowSet) -> None:
    shape = teacher_shape(people.chain, 3, PLAN)
    assert (shape.patch, shape.frames, shape.gestures) == (10, 4, 3)
    assert TeacherShape.from_dict(shape.to_dict()) == shape
    for change in ({"patch": 41}, {"heads": 3}, {"embedding": 17}):
        with pytest.raises(EdgeError, match=r"change .*recipe"):
            TeacherShape.from_dict({**shape.to_dict(), **change})
    with pytest.raises(EdgeError, match="'colour'"):
        TeacherShape.from_dict({**shape.to_dict(), "colour": 1})


def test_feature_frames_make_the_patches(recording: Callable[..., Recording], cut: Callable[..., WindowSet]) -> None:
    chain = ChainPlan(window_ms=200.0, hop_ms=50.0, features=("LOGRMS",), frame_ms=50.0)
    shape = teacher_shape(cut([recording()], chain=chain).chain, 3, PLAN)
    assert (shape.steps, shape.columns, shape.patch) == (4, 4, 1)


def kinds(recording: Callable[..., Recording]) -> dict[str, list[Recording]]:
    return {
        "one wearer": [recording()],
        "two gestures": [recording(runs=[(0, 300), (1, 300)], gestures=("rest", "fist"))],
        "one gesture": [recording(runs=[(0, 300)], gestures=("rest",))],
        "no pose": [recording(gestures=("M3", "M4", "M5"))],
        "some poses": [recording(gestures=("rest", "M4", "fist"))],
        "tracked only": [recording(labelled=False, tracked=True)],
        "tracked and labelled": [recording(tracked=True)],
        "one of two tracked": [recording("a", tracked=True), recording("b")],
        "never held long enough": [recording(runs=[(0, 50), (1, 50), (2, 50)] * 3)],
    }


@pytest.mark.parametrize(
    "kind",
    ["one wearer", "two gestures", "one gesture", "no pose", "some poses", "tracked only", "tracked and labelled",
     "one of two tracked", "never held long enough"],
)  # fmt: skip
@pytest.mark.filterwarnings("error:Initializing zero-element")
def test_teacher_and_student_learn_from_whatever_is_known(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet], kind: str
) -> None:
    windows = cut(kinds(recording)[kind])
    which = training_windows(windows, None)
    teacher = trained(windows)
    found = embed(teacher, windows, which)
    assert found.shape == (len(which), 8)
    assert np.isfinite(found).all()
    rows = pose_embeddings(teacher, LIBRARY, windows.gestures)
    assert rows.shape == (len(windows.gestures), 8)
    assert [bool(np.isfinite(row).all()) for row in rows] == [
        LIBRARY.pose(name) is not None for name in windows.gestures
    ]
    lesson = teach(teacher, windows, which, 100, 0)
    shape = student_shape(windows, StudentPlan(widths=(8, 8), kernels=(3, 3), strides=(2, 2), queries=2), 8)
    student, to_labels = distill_student(
        windows, which, lesson, teacher, shape, DistillPlan(steps=3, batch=8), 0.07, Run()
    )
    assert to_labels.weight.shape == (max(1, len(windows.gestures)), 8)
    assert np.isfinite(embed(student, windows, which)).all()


def test_unlabelled_and_untracked_has_nothing_to_train_on(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    windows = cut([recording(labelled=False)])
    with pytest.raises(EdgeError, match="No window to train on"):
        trained(windows)


def test_supervised_network_learns_from_labels_alone(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    plan = replace(TRAIN, pose_steps=0, masked_steps=0, pose_weight=0.0, steps=60, learning_rate=5e-3)
    windows = cut([recording()], chain=ChainPlan(window_ms=200.0, hop_ms=50.0, features=("LOGRMS",), frame_ms=50.0))
    windows = windows.with_chain(windows.chain.fitted(windows.signal, windows.starts))
    network = trained(windows, plan)
    which = np.flatnonzero(windows.labels >= 0)
    with torch.no_grad():
        decided = network.labels(network(torch.from_numpy(windows.inputs(which)))).argmax(dim=1).numpy()
    assert np.mean(decided == windows.labels[which]) > 0.8


def test_lesson_is_the_teachers_unit_vectors(people: WindowSet) -> None:
    teacher, which = trained(people), training_windows(people, None)
    lesson = teach(teacher, people, which, 50, 0)
    assert len(lesson.which) <= 50
    assert set(lesson.which) <= set(which)
    raw = embed(teacher, people, lesson.which)
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(
        lesson.embeddings(np.arange(len(raw))), expected, atol=2e-3
    )  # tokens are kept in half precision


def test_student_is_reproducible_and_goes_on(
    people: WindowSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, which = trained(people), training_windows(people, None)
    lesson: Lesson = teach(teacher, people, which, 50, 0)
    shape = student_shape(people, StudentPlan(widths=(8, 8), kernels=(3, 3), strides=(2, 2), queries=2), 8)
    plan = DistillPlan(steps=8, batch=8)

    def distilled(state: Path | None = None) -> torch.nn.Module:
        return torch.nn.ModuleList(distill_student(people, which, lesson, teacher, shape, plan, 0.07, Run(state=state)))

    whole = distilled()
    assert_equal(whole, distilled())
    monkeypatch.setattr(loop, "SAVE_EVERY_S", -1.0)
    rate_at = loop.Schedule.rate_at
    with monkeypatch.context() as patch:

        def stopping(self: loop.Schedule, step: int) -> float:
            if step == 5:
                raise KeyboardInterrupt
            return rate_at(self, step)

        patch.setattr(loop.Schedule, "rate_at", stopping)
        with pytest.raises(KeyboardInterrupt):
            distilled(tmp_path)
    assert_equal(distilled(tmp_path), whole)


def test_strides_that_a_short_window_cannot_bear_are_left_out(
    recording: Callable[..., Recording], cut: Callable[..., WindowSet]
) -> None:
    chain = ChainPlan(window_ms=200.0, hop_ms=50.0, features=("LOGRMS",), frame_ms=50.0)
    windows = cut([recording()], chain=chain)
    shape = student_shape(windows, StudentPlan(widths=(8, 8, 8), kernels=(3, 3, 3), strides=(2, 2, 1), queries=2), 8)
    assert shape.steps == 4
    assert shape.strides == (1, 1, 1)
