"""Pruning: what gives nothing can go without a trace, and what is left is as small as its shape says."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.compression.groups import groups_of
from embridge_edge.compression.pruning import counts_for, cut, importance, prune, residuals
from embridge_edge.compression.sizing import cost_of
from embridge_edge.errors import EdgeError
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import macs, read_graph
from embridge_edge.model.ring_student import RingShape, RingStudent
from embridge_edge.model.student import Student, StudentShape, parameters_count
from embridge_edge.model.students import AnyShape, AnyStudent, new_student, shape_of, stored_shape
from embridge_edge.model.transformer_student import TransformerShape, TransformerStudent
from embridge_edge.recipe import PrunePlan, StudentBudget

CONVOLUTIONAL = st.builds(
    lambda steps, channels, widths, queries, block, embedding: StudentShape.fitting(
        steps, channels, at_least=4, widths=widths, queries=queries, block=block, embedding=embedding
    ),
    steps=st.integers(6, 30),
    channels=st.integers(1, 6),
    widths=st.lists(st.sampled_from([4, 6, 8, 8, 8]), min_size=1, max_size=4).map(tuple),
    queries=st.integers(1, 3),
    block=st.sampled_from(["conv", "separable"]),
    embedding=st.integers(2, 5),
)
TRANSFORMERS = st.builds(
    TransformerShape,
    steps=st.integers(8, 30),
    channels=st.integers(1, 6),
    width=st.sampled_from([8, 12]),
    blocks=st.integers(1, 2),
    heads=st.sampled_from([2, 4]),
    halvings=st.integers(0, 2),
    queries=st.integers(1, 3),
    query_blocks=st.integers(0, 1),
    embedding=st.integers(2, 5),
)
RINGS = st.builds(
    lambda hop, frames, widths, reader, **rest: RingShape(
        hop * frames, 3, hop, widths, (3,) * len(widths), (2,) * len(widths), 8, reader, (3,) * len(reader), **rest
    ),
    hop=st.integers(1, 6),
    frames=st.integers(2, 5),
    widths=st.lists(st.sampled_from([4, 8]), max_size=2).map(tuple),
    reader=st.lists(st.sampled_from([4, 8]), min_size=1, max_size=2).map(tuple),
    queries=st.integers(1, 3),
    embedding=st.integers(2, 5),
)


def lived_in(shape: AnyShape, seed: int = 1) -> AnyStudent:
    """A student whose norms have seen something, and scale and shift."""
    torch.manual_seed(seed)
    student = new_student(shape).train()
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.uniform_(-0.5, 0.5)
    for _ in range(3):
        student(3.0 * torch.randn(32, shape.steps, shape.channels) + 1.0)
    return student.eval()


def silence(student: AnyStudent, group: str, gone: list[int]) -> None:
    """Have everything that writes these units give 0; written down here by what the networks compute, not by what is cut."""
    with torch.no_grad():
        if group == "queries":
            width = student.embedding.in_features // student.shape.queries
            student.embedding.weight.view(-1, student.shape.queries, width)[:, gone] = 0.0
        elif isinstance(student, Student):
            index = int(group.split(".")[1])
            writers = [index]
            while writers[-1] + 1 < len(student.blocks) and student.blocks[writers[-1] + 1].residual:
                writers.append(writers[-1] + 1)
            for writer in writers:
                norm = student.blocks[writer].layers[-1].norm
                norm.weight[gone] = norm.bias[gone] = 0.0
        elif isinstance(student, RingStudent):
            norm = student.get_submodule(group)[0].norm
            norm.weight[gone] = norm.bias[gone] = 0.0
        elif group.startswith("stem"):
            norm = student.stem[int(group.split(".")[1])][0].norm
            norm.weight[gone] = norm.bias[gone] = 0.0
        elif group == "width":
            norm = student.stem[-1][0].norm
            norm.weight[gone] = norm.bias[gone] = 0.0
            student.place[:, gone] = student.query[:, gone] = 0.0
            for block in [*student.encoder, *student.qformer]:
                for layer in (block.out, block.narrow):
                    layer.weight[gone] = layer.bias[gone] = 0.0
        else:
            block = student.get_submodule(group.rpartition(".")[0])
            if group.endswith("hidden"):
                widen = block.widen.linears[0]
                widen.weight[gone] = widen.bias[gone] = 0.0
            for head in gone if group.endswith("heads") else ():
                value = block.attend.linears[2 * block.heads + head]
                value.weight[:] = value.bias[:] = 0.0


def wider_apart(shape: AnyShape, kept: dict[str, np.ndarray]) -> bool:
    """Whether the widths that stay make no residual where there was none."""
    if isinstance(shape, TransformerShape | RingShape):
        return True
    names = [group for group in groups_of(shape) if group.kind == "channels"]
    counts = [len(kept[group.name]) for group in names]
    return shape.block == "conv" or all(one != other for one, other in pairwise(counts))


@given(st.one_of(CONVOLUTIONAL, TRANSFORMERS, RINGS), st.data())
@settings(max_examples=80, deadline=None)
def test_units_that_give_nothing_go_without_a_trace(shape: AnyShape, data: st.DataObject) -> None:
    student, kept = lived_in(shape), {}
    for group in groups_of(shape):
        # Where queries attend to each other, a silent one still takes its share of the softmax.
        fixed = group.name == "queries" and isinstance(shape, TransformerShape) and shape.query_blocks > 0
        least = group.units if fixed else min(group.units, 4 if group.name == "width" else 1)
        stays = data.draw(st.sets(st.integers(0, group.units - 1), min_size=least), label=group.name)
        kept[group.name] = np.array(sorted(stays))
        silence(student, group.name, [unit for unit in range(group.units) if unit not in stays])
    if not wider_apart(shape, kept):
        return
    smaller = cut(student, kept)
    windows = 2.0 * torch.randn(8, shape.steps, shape.channels)
    with torch.no_grad():
        expected, got = student(windows), smaller(windows)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()) + 1e-6)
    for group in groups_of(smaller.shape):
        if group.name in kept:
            assert group.units == len(kept[group.name])
    assert shape_of(stored_shape(smaller.shape)) == smaller.shape
    folded = fold_batchnorm(smaller)
    unused = smaller.query.numel() if isinstance(smaller, TransformerStudent) and not shape.query_blocks else 0  # type: ignore[union-attr]
    assert parameters_count(folded) - unused == smaller.shape.parameters_count


def test_units_that_give_something_do_leave_a_trace() -> None:
    student, windows = lived_in(StudentShape(40, 4)), torch.randn(8, 40, 4)
    smaller = cut(student, {"blocks.1": np.arange(1, 64)})
    with torch.no_grad():
        assert float((smaller(windows) - student(windows)).abs().max()) > 1e-3


@pytest.mark.parametrize(
    "shape",
    [
        StudentShape.fitting(40, 4, widths=(16, 24, 24)),
        pytest.param(StudentShape.fitting(40, 4, widths=(16, 24, 24), block="separable"), marks=pytest.mark.slow),
        pytest.param(
            TransformerShape(40, 4, width=16, blocks=1, heads=4, halvings=2, queries=2), marks=pytest.mark.slow
        ),
    ],
    ids=["conv", "separable", "transformer"],
)
def test_graph_is_smaller_by_what_the_shape_says(shape: AnyShape) -> None:
    student = lived_in(shape)
    smaller = prune(student, torch.randn(64, 40, 4), PrunePlan(keep=0.5)).student
    before, after = (to_tflite(fold_batchnorm(one), (1, 40, 4)) for one in (student, smaller))
    assert macs(read_graph(after)) == smaller.shape.macs < shape.macs == macs(read_graph(before))
    assert len(after) < len(before)
    fewer = shape.parameters_count - smaller.shape.parameters_count
    weights = read_graph(before).weight_bytes - read_graph(after).weight_bytes
    assert weights == pytest.approx(4 * fewer, abs=64)  # beside them only shapes of a few bytes


@pytest.mark.parametrize("shape", [StudentShape.fitting(40, 4, block="separable"), TransformerShape(40, 4, width=16)])
def test_least_important_units_are_those_that_give_nothing(shape: AnyShape) -> None:
    student, windows, silent = lived_in(shape), torch.randn(64, 40, 4), {}
    for group in groups_of(shape):
        if group.name != "queries":
            silent[group.name] = list(range(0, group.units, 2))
            silence(student, group.name, silent[group.name])
    worth = importance(student, windows, "taylor")
    for name, gone in silent.items():
        assert not worth[name][gone].any(), name
        assert (worth[name][np.setdiff1d(np.arange(len(worth[name])), gone)] > 0).any(), name
    pruned = prune(student, windows, PrunePlan(layers={"queries": 1.0}))
    with torch.no_grad():
        expected = student(windows)
        torch.testing.assert_close(
            pruned.student(windows), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max())
        )


def test_taylor_importance_is_the_change_where_the_embedding_is_linear_in_the_unit() -> None:
    student, windows = lived_in(StudentShape(40, 4)), torch.randn(2048, 40, 4)
    worth = importance(student, windows, "taylor")["queries"]
    for query in range(4):
        rest = np.delete(np.arange(4), query)
        with torch.no_grad():
            change = student(windows) - cut(student, {"queries": rest})(windows)
        assert worth[query] == pytest.approx(float(change.square().sum(dim=1).mean()), rel=0.15)


def test_norm_importance_is_the_scale_of_the_norm_times_weights_and_the_weights_that_read() -> None:
    student = lived_in(StudentShape(40, 4))
    first, second = (student.blocks[index].layers[0] for index in (1, 2))  # type: ignore[union-attr]
    writes, reads = (
        one.convolution.weight * (one.norm.weight / (one.norm.running_var + one.norm.eps).sqrt())[:, None, None, None]
        for one in (first, second)
    )
    expected = (writes.square().sum(dim=(1, 2, 3)) + reads.square().sum(dim=(0, 2, 3))).sqrt()
    np.testing.assert_allclose(importance(student, torch.empty(0), "norm")["blocks.1"], expected.detach(), rtol=1e-4)


def test_what_a_residual_adds_goes_together_and_no_residual_appears() -> None:
    shape = StudentShape.fitting(
        40, 4, widths=(8, 12, 16, 16), kernels=(3, 3, 3, 3), strides=(1, 1, 1, 1), block="separable"
    )
    assert residuals(shape) == (False, False, False, True)
    last = next(group for group in groups_of(shape) if group.name == "blocks.2")
    assert last.coupled == ("blocks.3", "blocks.3.layers.0 (depthwise)")
    smaller = prune(lived_in(shape), torch.randn(16, 40, 4), PrunePlan(keep=0.5)).student.shape
    assert isinstance(smaller, StudentShape)
    assert residuals(smaller) == residuals(shape) and smaller.widths == (4, 8, 12, 12)
    with pytest.raises(EdgeError, match="two blocks that differ would be equally wide"):
        cut(lived_in(shape), {"blocks.1": np.arange(8)})


@given(st.sampled_from([5_000, 20_000, 40_000, 60_000]), st.sampled_from([60_000, 200_000, 500_000]))
@settings(max_examples=12, deadline=None)
def test_budget_is_kept_and_a_share_more_would_not(flash: int, most_macs: int) -> None:
    shape, budget = StudentShape(80, 8), StudentBudget(flash_bytes=flash, macs=most_macs)
    counts = counts_for(shape, PrunePlan(budget=budget, layers={"queries": 1.0}))
    kept = {name: np.arange(count) for name, count in counts.items()}
    smaller = cut(new_student(shape), kept).shape
    assert isinstance(smaller, StudentShape) and smaller.queries == 4
    assert not cost_of(smaller).over(budget)
    more = {name: np.arange(min(count + 4, 64 if name != "blocks.0" else 32)) for name, count in counts.items()}
    more["queries"] = np.arange(4)
    larger = cut(new_student(shape), more).shape
    assert isinstance(larger, StudentShape)
    assert larger.widths == shape.widths or cost_of(larger).over(budget)


def test_plans_name_groups_and_the_last_pattern_counts() -> None:
    shape = TransformerShape(80, 8)
    counts = counts_for(shape, PrunePlan(keep=1.0, layers={"encoder.*": 0.5, "encoder.1.heads": 0.25}))
    assert counts["encoder.0.heads"] == 2 and counts["encoder.1.heads"] == 1 and counts["encoder.1.hidden"] == 64
    assert counts["width"] == 64 and counts["queries"] == 4 and counts["qformer.0.heads"] == 4


@pytest.mark.parametrize(
    ("shape", "plan", "says"),
    [
        (StudentShape(80, 8), PrunePlan(layers={"encoder.*": 0.5}), "layers names 'encoder.*', and this student has blocks.0,"),
        (StudentShape(80, 8), PrunePlan(budget=StudentBudget(flash_bytes=100)), r"still takes flash_bytes [\d,]+ \(budget 100\)"),
        (TransformerShape(80, 8), PrunePlan(budget=StudentBudget(macs=100)), "A budget is for a convolutional student"),
        (TransformerShape(80, 8, norm="layer"), PrunePlan(), "Pruning needs norms that fold, and this student has LayerNorms"),
        (RingShape(80, 8, 10), PrunePlan(budget=StudentBudget(macs=100)), "A budget is for a convolutional student"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_are_one_line(shape: AnyShape, plan: PrunePlan, says: str) -> None:
    with pytest.raises(EdgeError, match=says):
        counts_for(shape, plan)


def test_all_that_is_to_be_kept_is_kept() -> None:
    shape = StudentShape(80, 8, widths=(10, 18, 9), kernels=(3, 3, 3), strides=(2, 2, 1))
    assert {group.name: group.units for group in groups_of(shape)} == counts_for(shape, PrunePlan(keep=1.0))


@pytest.mark.parametrize("given", [{"keep": 0.0}, {"keep": 1.5}, {"layers": {"queries": 0.0}}, {"importance": "age"}])
def test_impossible_shares_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(EdgeError):
        PrunePlan(**given)  # type: ignore[arg-type]


def test_documentation_names_the_groups_that_there_are() -> None:
    page = (Path(__file__).parents[2] / "docs" / "pruning.md").read_text()
    named = set(re.findall(r"^\| `([a-z]+)", page, re.MULTILINE))
    shapes = (StudentShape(80, 8), TransformerShape(80, 8), RingShape(80, 8, 10))
    assert named == {group.name.split(".")[0] for shape in shapes for group in groups_of(shape)}
