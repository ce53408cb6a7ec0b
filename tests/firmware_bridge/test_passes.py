"""Whole graphs: random ones equal both references in every tensor, passes change no value, and what cannot be is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge import emulated, verifying
from embridge_edge.firmware_bridge.emit import library
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.harness import HostLibrary
from embridge_edge.firmware_bridge.packing import layout_for
from embridge_edge.firmware_bridge.passes import make_program
from embridge_edge.firmware_bridge.program import PROFILES, Layout, Profile, Program
from embridge_edge.firmware_bridge.verifying import Verification, seeded_inputs, verify_board, verify_host
from embridge_edge.hardware.boards import BOARDS
from embridge_edge.hardware.target import find_target
from tests.firmware_bridge.graphs import (
    RELU,
    SAME,
    SCALES,
    SOFTMAX,
    TANH,
    VALID,
    Network,
    concatenation,
    convolution,
    dense,
    like,
    lstm,
    networks,
    pad,
    pooling,
    reshape,
    split,
    sum_of,
    unary,
)
from tests.firmware_bridge.single_op import Spec, by_oracle, constant
from tests.tools import QEMU, needs

LAYOUTS: tuple[Layout, ...] = ("rows", "pairs", "vectors")
QUICK = ("-O0",)
"""Kernels that are compiled for one comparison of few values."""
FINE = (1 / 4096 * 1.1, 0)
"""Scale of activations of 16 bits."""
CAREFUL = (*QUICK, "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")


def program_of(network: Network, profile: Profile = "litert-ref", layout: Layout = "rows") -> Program:
    return make_program(read_graph(network.model()), "model", profile, layout)


def compared(network: Network, profile: Profile, layout: Layout, flags: Sequence[str] = QUICK) -> Verification:
    """The library against its reference; every tensor of the model is compared, fused, or left out, and none twice."""
    content = network.model()
    program = make_program(read_graph(content), "model", profile, layout)
    inputs = list(seeded_inputs(program.graph, 6))
    found, _ = verify_host(program, content, inputs, flags=flags)
    written = sum(len(outputs) for _, _, outputs, _, _ in network.ops)
    assert found.tensors_checked == (written - len(found.fused) - len(found.left_out)) * len(inputs)
    return found


def assert_equal(network: Network, profiles: Sequence[Profile] = PROFILES, layouts: Sequence[Layout] = LAYOUTS) -> None:
    for profile in profiles:
        for layout in layouts:
            found = compared(network, profile, layout)
            assert found.ok, f"{profile}, {layout}: {found.mismatches[0]}"


def assert_equal_in_pairs(network: Network) -> None:
    """Each profile and each layout that this machine has code of its own for, once."""
    assert_equal(network, ("litert-ref",), ("rows",))
    assert_equal(network, ("tflm",), ("pairs",))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks())
def test_random_graphs_equal_both_references_in_every_tensor_and_layout(network: Network) -> None:
    assert_equal(network)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(most=5), st.sampled_from(PROFILES), st.sampled_from(LAYOUTS))
def test_random_graphs_equal_the_reference_without_undefined_behaviour(
    network: Network, profile: Profile, layout: Layout
) -> None:
    found = compared(network, profile, layout, CAREFUL)
    assert found.ok, found.mismatches[0]


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(BOARDS))
def test_random_graphs_give_the_same_tensors_on_emulated_cores(target: str) -> None:
    needs(*QEMU)

    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(networks(), st.sampled_from(["-O3", "-Os"]))
    def same(network: Network, level: str) -> None:
        content = network.model()
        program = make_program(read_graph(content), "model", "tflm", layout_for(find_target(target)))
        inputs = list(seeded_inputs(program.graph, 5))
        host, traces = verify_host(program, content, inputs, flags=QUICK)
        on_board = emulated.traces(program, BOARDS[target], inputs, level)
        assert verify_board(program, host, traces, on_board, target).mismatches == ()

    same()


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(networks(), st.sampled_from(PROFILES), st.sampled_from(LAYOUTS))
def test_a_graph_always_becomes_the_same_files(network: Network, profile: Profile, layout: Layout) -> None:
    digest = sha256(b"model").digest()
    first, second = (library(program_of(network, profile, layout), digest) for _ in range(2))
    assert first == second


def padded(amounts: list[tuple[int, int]] | None = None, **options: int | tuple[int, int]) -> tuple[Network, int, int]:
    """A PAD and a 3 x 3 convolution of VALID padding; the padded tensor and the output."""
    network = Network()
    given = network.input((1, 6, 5, 3), *SCALES[2])
    middle = pad(network, given, amounts or [(0, 0), (1, 2), (2, 1), (0, 0)])
    made = convolution(network, middle, 4, **{"kernel": (3, 3), "padding": VALID, **options})  # type: ignore[arg-type]
    network.outputs = [made]
    return network, middle, made


def rectified(scale: tuple[float, int] = SCALES[0], name: str = "RELU", **options: int) -> tuple[Network, int, int]:
    """A convolution and its activation; the tensor between them and the output."""
    network = Network()
    middle = convolution(network, network.input((1, 4, 4, 3)), 5, SCALES[0], **options)  # type: ignore[arg-type]
    made = unary(network, name, middle, scale)
    network.outputs = [made]
    return network, middle, made


@pytest.mark.parametrize(
    "options",
    [{}, {"depthwise": True}, {"stride": (2, 2)}, {"kernel": (1, 1)}, {"kernel": (1, 1), "stride": (2, 1)}],
    ids=str,
)
def test_a_padding_before_a_convolution_becomes_its_own(options: Any) -> None:
    network, middle, _ = padded(**options)
    assert program_of(network).fused == (middle,)
    assert_equal_in_pairs(network)


def padding_is_an_output() -> Network:
    network, middle, made = padded()
    network.outputs = [middle, made]
    return network


def padding_is_read_twice() -> Network:
    network, middle, made = padded()
    network.outputs = [made, unary(network, "RELU", middle)]
    return network


def padding_of_channels() -> Network:
    return padded([(0, 0), (1, 1), (1, 1), (0, 2)])[0]


def padding_of_batches() -> Network:
    return padded([(1, 0), (1, 1), (1, 1), (0, 0)])[0]


def padding_before_same() -> Network:
    return padded(padding=SAME)[0]


def activation_of_an_output() -> Network:
    network, middle, made = rectified()
    network.outputs = [made, middle]
    return network


def activation_of_what_is_read_twice() -> Network:
    network, middle, made = rectified()
    network.outputs = [sum_of(network, middle, made)]
    return network


def activation_of_another_scale() -> Network:
    return rectified((1.5 * SCALES[0][0], SCALES[0][1]))[0]


def activation_behind_another() -> Network:
    return rectified(activation=RELU)[0]


@pytest.mark.parametrize(
    "made",
    [
        padding_is_an_output, padding_is_read_twice, padding_of_channels, padding_of_batches, padding_before_same,
        activation_of_an_output, activation_of_what_is_read_twice, activation_of_another_scale, activation_behind_another,
    ],
)  # fmt: skip
def test_ops_stay_apart_where_the_tensor_between_them_is_needed_or_the_result_would_differ(
    made: Callable[[], Network],
) -> None:
    network = made()
    assert program_of(network).fused == ()
    assert_equal_in_pairs(network)


@pytest.mark.parametrize("name", ["RELU", "RELU6"])
def test_an_activation_of_the_same_scale_is_the_clamp_of_what_comes_before_it(name: str) -> None:
    network, middle, _ = rectified(name=name)
    assert program_of(network).fused == (middle,)
    assert_equal_in_pairs(network)


def test_padding_and_activation_become_one_call_with_the_convolution_between_them() -> None:
    network, middle, made = padded()
    network.outputs = [unary(network, "RELU", made)]
    program = program_of(network)
    assert program.fused == (middle, made)
    assert len(program.steps) == 1
    assert_equal_in_pairs(network)


def test_ops_that_no_output_depends_on_are_left_out_and_named() -> None:
    network, _, made = rectified()
    unused = [unary(network, "TANH", made, TANH)]
    unused.append(unary(network, "RELU", unused[0], TANH))
    program = program_of(network)
    assert program.left_out == tuple(unused)
    found = compared(network, "litert-ref", "rows")
    assert found.ok
    assert found.left_out == tuple(network.names[index] for index in unused)


def several_ports() -> Network:
    """Inputs that are outputs under another shape, outputs that later ops read, one output twice, an input that nobody reads."""
    network = Network()
    first, second = network.input((1, 4, 4, 2)), network.input((1, 4, 4, 2))
    network.input((1, 3))
    seen = reshape(network, first, (1, 32))
    total = sum_of(network, first, second)
    again = unary(network, "RELU", total)
    flat = reshape(network, again, (2, 16))
    last = unary(network, "RELU", flat)
    network.outputs = [seen, total, flat, last, total]
    return network


def reads_twice() -> Network:
    """One tensor as both operands, as several parts of a join, and as input of two ops that could compute in place."""
    network = Network()
    given = network.input((1, 4, 4, 2))
    doubled = sum_of(network, given, given)
    joined = concatenation(network, [doubled, doubled, given], 3)
    left, right = unary(network, "RELU", joined), unary(network, "RELU", joined)
    network.outputs = [sum_of(network, left, right, name="MUL"), sum_of(network, left, right, name="SUB")]
    return network


def chain_in_place() -> Network:
    """Ops that may all compute in place, through aliases, while the first of them is still wanted."""
    network = Network()
    given = network.input((1, 8, 2, 2))
    kept = unary(network, "RELU", given)
    now = reshape(network, unary(network, "RELU", reshape(network, kept, (1, 32))), (1, 4, 4, 2))
    for seed in range(3):
        now = convolution(network, now, 2, seed=seed)
    network.outputs = [sum_of(network, reshape(network, now, (1, 8, 2, 2)), kept)]
    return network


def parts_of_one_output() -> Network:
    """Joins of parts, of constants and of parts of parts, along several axes."""
    network = Network()
    given = network.input((2, 4, 2, 4))
    parts = split(network, given, 4)
    pairs = [concatenation(network, [parts[a], parts[b]], 1) for a, b in ((3, 0), (1, 1))]
    joined = concatenation(network, [*pairs, pairs[0]], 0)
    values = np.arange(-64, 64).reshape(8, 8, 2, 1)[:6]
    options = ("ConcatenationOptions", {"axis": 3})
    output = like(network.tensors[joined], (6, 8, 2, 2))
    with_constant = network.op("CONCATENATION", [constant(values, np.int8, 0.05), joined], output, options, version=2)
    network.outputs = [with_constant, parts[2]]
    return network


def floats() -> Network:
    """From float32 to float32 through int8."""
    network = Network()
    given = network.input((1, 4, 4, 2), kind="float32")
    inner = convolution(network, network.op("QUANTIZE", [given], Spec((1, 4, 4, 2), "int8", 0.05, 3)), 3)
    network.outputs = [network.op("DEQUANTIZE", [inner], Spec((1, 4, 4, 3), "float32", None), version=2)]
    return network


def batches() -> Network:
    """Three samples at once through everything that counts rows."""
    network = Network()
    given = network.input((3, 5, 6, 4), *SCALES[2])
    wide = convolution(network, given, 6, kernel=(3, 3), stride=(2, 1))
    deep = convolution(network, wide, 1, kernel=(3, 3), depthwise=True, seed=1)
    mixed = convolution(network, deep, 5, seed=2)
    pooled = pooling(network, "AVERAGE_POOL_2D", mixed, (3, 3), (3, 3), VALID)
    scores = dense(network, reshape(network, pooled, (3, 10)), 7)
    options = ("SoftmaxOptions", {"beta": 1.0})
    network.outputs = [network.op("SOFTMAX", [scores], Spec((3, 7), "int8", *SOFTMAX), options, version=2), deep]
    return network


def constants_before() -> Network:
    """Weights that come out of a RESHAPE and a TRANSPOSE of constants."""
    network = Network()
    given = network.input((2, 6))
    rng = np.random.default_rng(0)
    flat = constant(rng.integers(-127, 128, 24), np.int8, 0.01)
    shaped = network.op("RESHAPE", [flat, constant([6, 4])], Spec((6, 4), "int8", 0.01), ("ReshapeOptions", {}))
    turned = network.op("TRANSPOSE", [shaped, constant([1, 0])], Spec((4, 6), "int8", 0.01), ("TransposeOptions", {}))
    bias = constant(rng.integers(-99, 99, 4), np.int32, 0.01 * 0.05)
    options = ("FullyConnectedOptions", {})
    network.outputs = [
        network.op("FULLY_CONNECTED", [given, turned, bias], Spec((2, 4), scale=0.2), options, version=4)
    ]
    return network


def scalars_and_many_axes() -> Network:
    network = Network()
    network.outputs = [
        unary(network, "RELU", network.input(())),
        sum_of(network, network.input((1, 2, 1, 3, 1, 2)), network.input((1, 2, 1, 3, 1, 2))),
    ]
    return network


def sixteen_bits() -> Network:
    """From int8 to activations of 16 bits and back, with a skip across everything between."""
    network = Network()
    kept = network.op("QUANTIZE", [network.input((1, 6, 5, 3))], Spec((1, 6, 5, 3), "int16", FINE[0]))
    padded = pad(network, kept, [(0, 0), (1, 1), (1, 1), (0, 0)])
    deep = convolution(network, padded, 1, FINE, kernel=(3, 3), padding=VALID, depthwise=True)
    mixed = convolution(network, deep, 3, FINE, seed=1)
    total = sum_of(network, mixed, kept, FINE)
    joined = concatenation(network, [total, kept], 3)
    pooled = pooling(network, "MAX_POOL_2D", joined, (2, 2), (2, 2), VALID)
    narrow = network.op("QUANTIZE", [pooled], Spec((1, 3, 2, 6), "int8", 0.06, 9))
    network.outputs = [dense(network, reshape(network, total, (1, 90)), 4, FINE), narrow]
    return network


def recurrent() -> Network:
    """Two layers with a state each, around them ops that may compute in place."""
    network = Network()
    given = network.input((1, 4, 6))
    first = lstm(network, unary(network, "RELU", given), 5)
    second = lstm(network, first, 5, seed=1)
    network.outputs = [sum_of(network, first, second), reshape(network, second, (4, 5))]
    return network


@pytest.mark.parametrize(
    "made",
    [
        several_ports, reads_twice, chain_in_place, parts_of_one_output, floats, batches, constants_before,
        scalars_and_many_axes, sixteen_bits, recurrent,
    ],
)  # fmt: skip
def test_graphs_of_awkward_shape_equal_both_references(made: Callable[[], Network]) -> None:
    assert_equal_in_pairs(made())


@pytest.mark.parametrize("profile", PROFILES)
def test_state_lives_on_from_one_inference_to_the_next_and_ends_with_init(profile: Profile) -> None:
    network = recurrent()
    program = program_of(network, profile)
    built = HostLibrary(program, QUICK)
    inputs = list(seeded_inputs(program.graph, 9))[4:]
    for _ in range(2):
        built.reset()
        for values, expected in zip(inputs, by_oracle(network.model(), profile, inputs), strict=True):
            found = built.run(values)
            for index, wanted in zip(network.outputs, expected, strict=True):
                np.testing.assert_array_equal(found[index], wanted)


def test_weights_out_of_constants_are_left_out_and_named() -> None:
    network = constants_before()
    assert len(program_of(network).left_out) == 2


def refusal(network: Network) -> str:
    with pytest.raises(EdgeError) as caught:
        program_of(network)
    message = str(caught.value)
    assert "\n" not in message
    assert ";" in message
    assert len(message) < 400
    return message


def with_outputs(change: Callable[[Network, int], Sequence[int]]) -> Network:
    """A network of one input and a RELU, and whatever `change` adds; its outputs are what that returns."""
    network = Network()
    given = network.input((1, 8))
    network.outputs = [*change(network, given), unary(network, "RELU", given)]
    return network


def reads_a_variable(network: Network, given: int) -> Sequence[int]:
    return [sum_of(network, given, network.tensor(Spec((1, 8), scale=0.05, variable=True)))]


def reads_a_variable_by_another_shape(network: Network, given: int) -> Sequence[int]:
    return [reshape(network, network.tensor(Spec((1, 8), scale=0.05, variable=True)), (2, 4))]


def is_a_constant(network: Network, given: int) -> Sequence[int]:
    values = constant(np.arange(8), np.int8, 0.05)
    return [network.op("RESHAPE", [values, constant([2, 4])], Spec((2, 4), scale=0.05), ("ReshapeOptions", {}))]


def has_a_second_output(network: Network, given: int) -> Sequence[int]:
    return [network.op("RELU", [given], [Spec((1, 8), scale=0.05)] * 2) + 1]


def is_an_input(network: Network, given: int) -> Sequence[int]:
    return [given]


def is_empty(network: Network, given: int) -> Sequence[int]:
    return [unary(network, "RELU", network.input((0, 8)))]


def has_an_input_of_half_floats(network: Network, given: int) -> Sequence[int]:
    network.input((1, 8), kind="float16")
    return []


def has_an_op_without_output(network: Network, given: int) -> Sequence[int]:
    network.ops.append(("CALL_ONCE", [], [], None, 1))
    return []


def reads_itself(network: Network, given: int) -> Sequence[int]:
    made = unary(network, "RELU", given)
    network.ops[-1] = ("RELU", [made], [made], None, 2)
    return [made]


def has_no_kernel(network: Network, given: int) -> Sequence[int]:
    return [unary(network, "COS", given)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (reads_a_variable, "variable 't1'"),
        (reads_a_variable_by_another_shape, "variable 't1'"),
        (is_a_constant, "depends on no input"),
        (has_a_second_output, "2 outputs"),
        (is_an_input, "No op computes the output 't0'"),
        (is_empty, "is empty"),
        (has_an_input_of_half_floats, "float16"),
        (has_an_op_without_output, "CALL_ONCE"),
        (reads_itself, "before any op"),
        (has_no_kernel, "no kernel"),
    ],
)
def test_what_would_read_or_leave_rubbish_is_refused_in_one_line(
    change: Callable[[Network, int], Sequence[int]], words: str
) -> None:
    assert words in refusal(with_outputs(change))


def test_a_model_that_only_renames_its_input_is_refused() -> None:
    network = Network()
    network.outputs = [reshape(network, network.input((1, 8)), (2, 4))]
    assert "computes nothing" in refusal(network)


def test_an_output_that_is_overwritten_after_its_step_is_found() -> None:
    """The plan is made wrong: the last step writes where an output lies that an earlier step has written."""
    network = Network()
    given = network.input((1, 8))
    early = unary(network, "TANH", given, TANH)
    late = sum_of(network, given, given)
    network.outputs = [early, late]
    content = network.model()
    right = make_program(read_graph(content), "model", "tflm", "rows")
    inputs = list(seeded_inputs(right.graph, 8))
    assert verify_host(right, content, inputs, flags=QUICK)[0].ok
    wrong = dataclasses.replace(right, offsets={**right.offsets, late: right.offsets[early]})
    found, _ = verify_host(wrong, content, inputs, flags=QUICK)
    assert found.mismatches
    assert found.mismatches[0].tensor == network.names[early]


def test_a_comparison_of_nothing_is_not_a_success() -> None:
    assert not Verification(0, 0, (), (), ()).ok


def test_a_negative_zero_is_no_zero() -> None:
    same = verifying._same(np.float32([0.0, -0.0, np.nan, 1.0]), np.float32([-0.0, -0.0, np.nan, 1.0]))
    assert same.tolist() == [False, True, True, True]


def test_a_second_inference_equals_the_first() -> None:
    network = batches()
    program = program_of(network, "tflm", "pairs")
    built = HostLibrary(program, QUICK)
    values = list(seeded_inputs(program.graph, 5))[-1]
    first = built.run(values)
    again = built.run(values)
    for index in first:
        np.testing.assert_array_equal(first[index], again[index])
