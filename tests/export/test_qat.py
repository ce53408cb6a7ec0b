"""A student trained with rounding becomes the int8 graph that training saw: fake-quantized torch against LiteRT, to the step."""

from __future__ import annotations

import copy
import dataclasses
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.compression.qat import FakeQuantized, Grid, fake_quantized
from embridge_edge.errors import EdgeError
from embridge_edge.export.qat import Carried, Placement, carried, placed, start_corrected, steps_apart
from embridge_edge.export.quantizing import quantize_tflite
from embridge_edge.export.ranges import observed, ranges_of
from embridge_edge.export.reading import dequantize_values, quantize_values
from embridge_edge.export.running import layer_values, run_tflite
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import float_ops, read_graph
from embridge_edge.model.ring_student import RingShape, RingStudent
from embridge_edge.model.student import Student, StudentShape
from embridge_edge.model.students import AnyStudent
from embridge_edge.model.transformer_student import TransformerShape, TransformerStudent
from embridge_edge.recipe import QuantizePlan

Floats = npt.NDArray[np.float32]

STEPS, CHANNELS, CLASSES = 80, 8, 8
FAMILIES = {
    "conv": lambda: Student(StudentShape(STEPS, CHANNELS, widths=(16, 32, 32), kernels=(5, 5, 3), strides=(2, 2, 1))),
    "separable": lambda: Student(
        StudentShape(STEPS, CHANNELS, widths=(16, 32, 32), kernels=(5, 5, 3), strides=(2, 2, 1), block="separable")
    ),
    "transformer": lambda: TransformerStudent(
        TransformerShape(STEPS, CHANNELS, width=32, blocks=2, heads=2, halvings=3, embedding=64)
    ),
    "ring": lambda: RingStudent(RingShape(STEPS, CHANNELS, 10)),
}


@dataclasses.dataclass(frozen=True)
class Made:
    """A student that has learned, learned on with rounding, and was carried over.

    `as_trained` is the network with rounding before it was settled: the grids are those of training, the sums 32-bit floats.
    """

    as_trained: FakeQuantized
    fake: FakeQuantized
    placement: Placement
    carried: Carried
    float_before: bytes
    float_now: Floats
    windows: Floats


def fit(network: torch.nn.Module, windows: Floats, labels: npt.NDArray[np.int64], steps: int) -> None:
    head = torch.nn.Linear(64, CLASSES)
    learning = [one for one in network.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW([*learning, *head.parameters()], 2e-3)
    for step in range(steps):
        some = np.random.default_rng(step).choice(len(windows), 64)
        found = network(torch.from_numpy(windows[some]))
        found = found[1] if isinstance(found, tuple) else found
        loss = torch.nn.functional.cross_entropy(head(found), torch.from_numpy(labels[some]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def made_of(student: AnyStudent, train: Floats, labels: npt.NDArray[np.int64], test: Floats) -> Made:
    fit(student, train, labels, 60)
    folded = fold_batchnorm(student)
    calibration = train[:256]
    float_model = to_tflite(folded, (1, *train.shape[1:]))
    fake = fake_quantized(folded, calibration)
    ranges = ranges_of(float_model, observed(float_model, calibration), QuantizePlan())
    placement = placed(fake, ranges, calibration, float_model)
    fit(fake.network, train, labels, 40)
    with torch.no_grad():
        now = fake.trained()(torch.from_numpy(test)).numpy()
    as_trained = copy.deepcopy(fake)
    result = carried(fake, placement, calibration)
    return Made(as_trained, fake, placement, result, float_model, now, test)


def simulated(count: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Windows `[n, 80, 8]`: each class has its own muscles; effort varies as it does on an arm."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    distance = (np.arange(CHANNELS)[None] - labels[:, None] + 4) % 8 - 4
    envelope = 0.3 + np.exp(-0.5 * distance**2)
    effort = rng.lognormal(0, 0.4, (count, 1, 1))
    return (rng.standard_normal((count, STEPS, CHANNELS)) * envelope[:, None] * effort).astype(np.float32), labels


@pytest.fixture(scope="module", params=list(FAMILIES))
def made(request: pytest.FixtureRequest) -> Made:
    pytest.importorskip("nncf")
    torch.manual_seed(0)
    (train, labels), (test, _) = simulated(800, 0), simulated(300, 1)
    return made_of(FAMILIES[request.param](), train, labels, test)


pytestmark = pytest.mark.slow


def test_int8_equals_the_network_that_was_trained_within_a_step_of_every_output(made: Made) -> None:
    apart = steps_apart(made.fake, made.carried.int8, made.windows)
    assert apart.shape == (300, 64)
    assert apart.max() <= 1
    assert np.mean(apart.any(axis=1)) < 0.05  # most windows to the bit: only the table of a softmax parts them


def test_every_tensor_inside_is_the_one_that_was_trained(made: Made) -> None:
    """Integers of each activation, in order of size since layouts differ: all but one in a hundred equal (of a softmax two), none far off."""
    graph = read_graph(made.carried.int8)
    taken = graph.tensors[graph.inputs[0]]
    inputs = quantize_values(made.windows[:50], taken.scales[0], taken.zero_points[0])
    inputs = dequantize_values(inputs, taken.scales[0], taken.zero_points[0])
    heard: dict[str, list[Floats]] = {}
    hooks = [
        made.fake.quantizers[name].register_forward_hook(
            lambda _, __, out, name=name: heard.setdefault(name, []).append(out.detach().numpy().copy())
        )
        for name in set(made.placement.activations.values())
    ]
    made.fake.embed(inputs)
    for hook in hooks:
        hook.remove()
    integers = layer_values(made.carried.int8, inputs)
    # A step of what a softmax reads is up to 256 × p (1 − p) × its size in steps of what it puts out.
    most = {op.outputs[0]: 2 + 64 * graph.tensors[op.inputs[0]].scales[0] for op in graph.ops if op.name == "SOFTMAX"}
    compared = 0
    for tensor in graph.tensors:
        if tensor.name in made.placement.activations:
            mine = np.sort(integers[tensor.name].reshape(len(inputs), -1).astype(np.int64), axis=1)
            theirs = [
                np.sort(np.rint(one / tensor.scales[0]).astype(np.int64).reshape(len(inputs), -1), axis=1)
                for one in heard[made.placement.activations[tensor.name]]
                if one.size == mine.size
            ]
            if theirs:  # a concatenation is rounded in its parts alone
                apart = min((np.abs(one + tensor.zero_points[0] - mine) for one in theirs), key=lambda one: one.mean())
                assert apart.max() <= most.get(tensor.index, 2), tensor.name
                assert np.mean(apart > 0) < (0.02 if tensor.index in most else 0.01), tensor.name
                compared += 1
    assert compared > 0.9 * len(made.placement.activations)


def test_what_training_saw_is_what_int8_computes_but_for_the_kernels_rounding(made: Made) -> None:
    """Before it was settled, too: what is apart then is the second rounding of reference kernels, which adds up over the layers."""
    apart = steps_apart(made.as_trained, made.carried.int8, made.windows)
    assert np.sqrt(np.mean(apart.astype(np.float64) ** 2)) < 1.0
    plain = quantize_tflite(made.float_before, made.windows[:256])
    assert apart.mean() < 0.3 * steps_apart(made.as_trained, plain, made.windows).mean()


def test_what_is_rounded_is_what_training_rounded(made: Made) -> None:
    graph = read_graph(made.carried.int8)
    assert not float_ops(graph)
    rounded = {tensor.name for tensor in graph.tensors if tensor.type == "int8"}
    assert rounded == {*made.placement.activations, *made.placement.constants}
    assert set(made.fake.quantizers) == {*made.placement.activations.values(), *made.placement.constants.values()}
    for tensor in graph.tensors:
        if tensor.name in made.placement.constants:
            seen: list[Floats] = []
            module = made.fake.quantizers[made.placement.constants[tensor.name]]
            hook = module.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out.detach().numpy().copy()))
            made.fake.embed(made.windows[:1])
            hook.remove()
            along = [1] * len(tensor.shape)
            along[tensor.axis if len(tensor.scales) > 1 else 0] = -1
            scales, zeros = (
                np.asarray(each, np.float64).reshape(along) for each in (tensor.scales, tensor.zero_points)
            )
            mine = (tensor.array().astype(np.float64) - zeros) * scales
            np.testing.assert_allclose(np.sort(mine, None), np.sort(seen[0], None), atol=1e-4 * max(tensor.scales))


def test_training_moved_weights_and_ranges_and_int8_follows(made: Made) -> None:
    before = run_tflite(quantize_tflite(made.float_before, made.windows), made.windows)
    now = run_tflite(made.carried.int8, made.windows, "litert-ref")
    spread = float(made.float_now.std())
    assert np.abs(before - made.float_now).mean() > 0.1 * spread
    assert np.abs(now - made.as_trained.embed(made.windows)).mean() < 0.01 * spread
    # The twin neither rounds nor ends where learnt ranges do, which cut the largest third off some of the ring's outputs.
    apart = 0.25 if isinstance(made.fake.folded, RingStudent) else 0.1
    assert np.abs(now - made.float_now).mean() < apart * spread
    np.testing.assert_allclose(run_tflite(made.carried.float32, made.windows), made.float_now, atol=1e-3 * spread)
    scales = {
        tensor.name: tensor.scales for tensor in read_graph(quantize_tflite(made.float_before, made.windows)).tensors
    }
    moved = [
        t
        for t in read_graph(made.carried.int8).tensors
        if t.name in made.placement.activations and t.scales != scales[t.name]
    ]
    assert len(moved) > 5


@pytest.mark.parametrize("correct", [False, True])
@pytest.mark.parametrize("family", list(FAMILIES))
def test_training_begins_at_what_int8_is_without_it(family: str, correct: bool) -> None:
    """The same integers in every weight, the same biases, no more damage: NNCF would halve the range of a first layer's weights."""
    pytest.importorskip("nncf")
    torch.manual_seed(0)
    (windows, labels), student = simulated(400, 0), FAMILIES[family]()
    fit(student, windows, labels, 60)
    folded, plan = fold_batchnorm(student), QuantizePlan(bias_correction=correct)
    float_model = to_tflite(folded, (1, STEPS, CHANNELS))
    ranges = ranges_of(float_model, observed(float_model, windows), plan)
    fake = fake_quantized(folded, windows)
    placement = placed(fake, ranges, windows, float_model)
    if correct:
        start_corrected(fake, placement, ranges, windows, float_model)
    plain, begun = quantize_tflite(float_model, windows, plan), carried(fake, placement, windows).int8
    other = quantize_tflite(float_model, windows, dataclasses.replace(plan, bias_correction=not correct))
    theirs, others = ({tensor.name: tensor for tensor in read_graph(one).tensors} for one in (begun, other))
    biases = []
    for tensor in read_graph(plain).tensors:
        # Torch puts the zero point of a range that begins below 0 on the grid in its own way, which moves the scale by a step in 255 at most.
        np.testing.assert_allclose(theirs[tensor.name].scales, tensor.scales, rtol=1e-2)
        if tensor.is_constant and tensor.type == "int8":
            apart = np.abs(theirs[tensor.name].array().astype(np.int64) - tensor.array())
            assert apart.max() <= (0 if len(tensor.scales) > 1 else 1), tensor.name
        elif tensor.is_constant and tensor.type == "int32" and tensor.scales:
            mine, its, wrong = (
                one.array() * np.asarray(one.scales) for one in (tensor, theirs[tensor.name], others[tensor.name])
            )
            biases.append((np.abs(its - mine).sum(), np.abs(its - wrong).sum()))
    near, far = np.sum(biases, axis=0)
    assert near < 0.2 * far
    with torch.no_grad():
        exact = folded(torch.from_numpy(windows)).numpy()
    lost, lost_at_first = (np.square(run_tflite(one, windows, "litert-ref") - exact).mean() for one in (plain, begun))
    assert lost_at_first < 1.1 * lost


def test_softmax_keeps_the_grid_that_the_runtime_fixes(made: Made) -> None:
    graph = read_graph(made.carried.int8)
    outputs = [graph.tensors[op.outputs[0]] for op in graph.ops if op.name == "SOFTMAX"]
    assert outputs
    for tensor in outputs:
        grid = made.fake.grid(made.placement.activations[tensor.name])
        assert tensor.scales == (1 / 256,) and tensor.zero_points == (-128,)
        assert grid.step == pytest.approx(1 / 256, rel=1e-6) and grid.zero == -128


def untrained() -> tuple[AnyStudent, Floats, bytes]:
    pytest.importorskip("nncf")
    torch.manual_seed(1)
    windows, _ = simulated(32, 2)
    student = FAMILIES["conv"]().train()
    student(torch.from_numpy(windows))
    folded = fold_batchnorm(student)
    return folded, windows, to_tflite(folded, (1, STEPS, CHANNELS))


def test_a_tensor_that_torch_does_not_compute_is_one_line() -> None:
    folded, windows, float_model = untrained()
    other = copy.deepcopy(folded)
    with torch.no_grad():
        other.blocks[1].layers[0].convolution.weight *= 1.01  # type: ignore[index, operator, union-attr]
    ranges = ranges_of(float_model, observed(float_model, windows), QuantizePlan())
    with pytest.raises(EdgeError, match="Nothing in the torch student computes the tensor 02_conv_2d"):
        placed(fake_quantized(other, windows), ranges, windows, float_model)


def test_two_quantizers_of_one_tensor_and_one_of_none_are_one_line() -> None:
    folded, windows, float_model = untrained()
    ranges = ranges_of(float_model, observed(float_model, windows), QuantizePlan())
    fake = fake_quantized(folded, windows)
    relu = next(op for op in fake.ops if "relu" in op)
    fake.add(relu)
    with pytest.raises(EdgeError, match="01_conv_2d of the int8 graph has two quantizers"):
        placed(fake, ranges, windows, float_model)
    fake = fake_quantized(folded, windows)
    fake.add(next(op for op in fake.ops if "conv2d" in op))  # what the ReLU reads, which int8 never writes down
    with pytest.raises(EdgeError, match="rounds what the int8 graph does not have"):
        placed(fake, ranges, windows, float_model)


def test_a_grid_that_lost_zero_is_one_line() -> None:
    folded, windows, _ = untrained()
    fake = fake_quantized(folded, windows)
    name = next(one for one, module in fake.quantizers.items() if "input_low" in module.get_trainable_params())
    fake.start_at(name, (0.0, 1.0))
    with torch.no_grad():
        fake.quantizers[name].get_trainable_params()["input_low"].fill_(-0.4 / 255)
    with pytest.raises(EdgeError, match="a grid without 0"):
        fake.grid(name)


def test_without_nncf_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EdgeError, match=r"needs NNCF .*; install embridge-edge\[qat\]"):
        fake_quantized(FAMILIES["conv"](), simulated(2, 0)[0])


def test_a_grid_is_held_to_the_last_bit() -> None:
    folded, windows, _ = untrained()
    fake = fake_quantized(folded, windows)
    name = next(one for one, module in fake.quantizers.items() if "input_low" in module.get_trainable_params())
    for step, zero in ((1 / 256, -128), (0.25, 0), (1 / 64, 127), (0.5, -7)):
        fake.hold(name, Grid(np.array([step], np.float32), np.array([zero])))
        grid = fake.grid(name)
        assert grid.step[0] == pytest.approx(step, rel=1e-6) and grid.zero[0] == zero


@pytest.mark.data
@pytest.mark.parametrize("family", ["conv", "transformer"])
def test_on_real_windows_too(family: str, data: Path) -> None:
    pytest.importorskip("nncf")
    windows, labels = real_windows(data)
    torch.manual_seed(0)
    made = made_of(FAMILIES[family](), windows[::2], labels[::2], windows[1::2][:300])
    apart = steps_apart(made.fake, made.carried.int8, made.windows)
    assert apart.max() <= 1 and np.mean(apart.any(axis=1)) < 0.05


def real_windows(data: Path) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Windows of one person of `myo_readings` with one label each, `[n, 80, 8]`, scaled to a spread of 1."""
    from embridge_edge.recordings.loading import read_recordings

    windows, labels = [], []
    for recording in read_recordings(data / "myo_readings" / "right_56912.tar.xz"):
        assert recording.labels is not None
        for start in range(0, len(recording.emg) - STEPS, STEPS):
            label = recording.labels[start : start + STEPS]
            if 0 <= label.min() == label.max() < CLASSES:
                windows.append(recording.emg[start : start + STEPS])
                labels.append(int(label[0]))
    found = np.stack(windows).astype(np.float32)
    return found / found.std(), np.asarray(labels, np.int64)
