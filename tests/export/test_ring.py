"""Token by token with a ring, or the window at once: the parts of a ring student say what the whole says, byte for byte."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from embridge_edge.compression.folding import fold_batchnorm
from embridge_edge.errors import EdgeError
from embridge_edge.export import metadata
from embridge_edge.export.flatbuffer import pack, unpack
from embridge_edge.export.onnx import to_onnx
from embridge_edge.export.quantizing import quantize_tflite, quantized
from embridge_edge.export.ranges import observed, ranges_in, ranges_of
from embridge_edge.export.ring import Parts, cut, parts_of, refuse_unless_equal, run_parts
from embridge_edge.export.running import Runtime, run_onnx, run_tflite
from embridge_edge.export.tflite import to_tflite
from embridge_edge.firmware_bridge.graph import float_ops, macs, op_counts, read_graph
from embridge_edge.model.ring_student import RingShape
from embridge_edge.recipe import QuantizePlan
from tests.model.test_ring_student import trained

Bytes = npt.NDArray[np.int8]


def int8_of(shape: RingShape, plan: QuantizePlan | None = None) -> tuple[bytes, bytes]:
    """A student whose norms have seen something, in float and in int8."""
    model = to_tflite(fold_batchnorm(trained(shape)), (1, shape.steps, shape.channels))
    windows = 3.0 * np.random.default_rng(0).standard_normal((64, shape.steps, shape.channels)) + 1.0
    return model, quantize_tflite(model, windows.astype(np.float32), plan or QuantizePlan())


def stream(shape: RingShape, hops: int, seed: int = 0) -> Bytes:
    """The rows of a network's input, hop after hop: `[hops, hop, channels]`, now faint and now at the ends of int8."""
    draw = np.random.default_rng(seed)
    loud = draw.lognormal(3.0, 1.0, (hops, 1, 1))
    return np.clip(np.rint(loud * draw.standard_normal((hops, shape.hop, shape.channels))), -128, 127).astype(np.int8)


def windows_of(shape: RingShape, frames: Bytes) -> Bytes:
    """The windows at each hop of a stream, `[n, steps, channels]`."""
    ends = range(shape.frames, len(frames) + 1)
    return np.stack([frames[end - shape.frames : end].reshape(shape.steps, shape.channels) for end in ends])


def rings(parts: Parts, frames: Bytes, runtime: Runtime) -> Bytes:
    """The ring at each hop of a stream, `[n, frames, width]`, where each frame becomes a token once."""
    tokens = run_tflite(parts.token, frames, runtime, raw=True).reshape(len(frames), parts.width)
    ends = range(parts.frames, len(tokens) + 1)
    return np.stack([tokens[end - parts.frames : end] for end in ends])


@pytest.fixture(scope="module")
def armband() -> tuple[RingShape, bytes, bytes]:
    shape = RingShape(80, 8, 10)
    return (shape, *int8_of(shape))


@pytest.mark.parametrize("runtime", ["litert-ref", "litert", "tflm"])
def test_a_ring_of_tokens_says_at_every_hop_what_the_window_says(
    armband: tuple[RingShape, bytes, bytes], runtime: str
) -> None:
    shape, _, whole = armband
    parts, frames = cut(whole), stream(shape, 40)
    expected = run_tflite(whole, windows_of(shape, frames), runtime, raw=True)  # type: ignore[arg-type]
    found = run_tflite(parts.reader, rings(parts, frames, runtime), runtime, raw=True)  # type: ignore[arg-type]
    assert len(found) == 40 - shape.frames + 1  # none until the ring is full
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found, axis=0)) > 20


@pytest.mark.slow
@given(
    hop=st.integers(1, 9), frames=st.integers(2, 7), blocks=st.integers(0, 2), channels=st.integers(1, 5),
    width=st.sampled_from([4, 7, 8]), readers=st.integers(1, 2), queries=st.integers(1, 3),
)  # fmt: skip
@example(hop=3, frames=7, blocks=1, channels=3, width=7, readers=1, queries=3)
@example(hop=1, frames=2, blocks=0, channels=1, width=4, readers=1, queries=1)
@settings(
    max_examples=10, deadline=None, phases=(Phase.explicit, Phase.generate)
)  # shrinking converts hundreds of models
def test_parts_of_any_shape_say_what_the_whole_says(
    hop: int, frames: int, blocks: int, channels: int, width: int, readers: int, queries: int
) -> None:
    shape = RingShape(
        hop * frames, channels, hop, (6, 8)[:blocks], (3, 2)[:blocks], (2, 1)[:blocks], width,
        (5, 8)[:readers], (3, 2)[:readers], queries, 4,
    )  # fmt: skip
    model, whole = int8_of(shape)
    parts, given = cut(whole), windows_of(shape, stream(shape, frames + 8))
    np.testing.assert_array_equal(run_parts(parts, given), run_tflite(whole, given, "litert-ref", raw=True))
    assert (parts.frames, parts.hop, parts.width) == (frames, hop, width)
    assert (parts.token_macs, parts.reader_macs) == (shape.token_macs, shape.reader_macs)
    assert parts.whole_macs == macs(read_graph(model)) == shape.macs


def test_parts_are_ordinary_int8_graphs_with_one_scale_at_the_seam(armband: tuple[RingShape, bytes, bytes]) -> None:
    _, _, whole = armband
    parts = cut(whole)
    token, reader = read_graph(parts.token), read_graph(parts.reader)
    ends = [
        (graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]])
        for graph in (token, reader, read_graph(whole))
    ]
    assert [(given.shape, taken.shape) for given, taken in ends[:2]] == [((1, 10, 8), (1, 64)), ((1, 8, 64), (1, 64))]
    assert all(tensor.type == "int8" for pair in ends for tensor in pair)
    assert (ends[0][1].scales, ends[0][1].zero_points) == (ends[1][0].scales, ends[1][0].zero_points)
    assert (ends[0][0].scales, ends[1][1].scales) == (ends[2][0].scales, ends[2][1].scales)
    assert not float_ops(token) and not float_ops(reader)
    assert len(parts.token) + len(parts.reader) < 1.1 * len(whole)  # nothing but shapes stands in both
    refuse_unless_equal(
        whole, parts, np.random.default_rng(0).standard_normal((32, 80, 8)).astype(np.float32), ranges_in(whole)
    )


def test_whole_graph_converts_without_moving_anything_else(armband: tuple[RingShape, bytes, bytes]) -> None:
    _, model, _ = armband
    counts = op_counts(read_graph(model))
    assert counts["TRANSPOSE"] == 1
    assert set(counts) == {"RESHAPE", "CONV_2D", "FULLY_CONNECTED", "TRANSPOSE", "SOFTMAX", "BATCH_MATMUL"}


def test_float_parts_and_onnx_say_what_torch_says(armband: tuple[RingShape, bytes, bytes]) -> None:
    shape, model, _ = armband
    folded, windows = (
        fold_batchnorm(trained(shape)),
        np.random.default_rng(3).standard_normal((5, 80, 8)).astype(np.float32),
    )
    with torch.no_grad():
        exact = folded(torch.from_numpy(windows)).numpy()
    np.testing.assert_allclose(run_parts(cut(model), windows), exact, atol=1e-4 * np.abs(exact).max())
    np.testing.assert_allclose(run_onnx(to_onnx(folded, (1, 80, 8)), windows), exact, atol=1e-4 * np.abs(exact).max())


def test_metadata_says_what_can_be_cut(armband: tuple[RingShape, bytes, bytes]) -> None:
    _, _, whole = armband
    assert parts_of(whole) is None
    about = {"kind": "student", "ring": {"frames": 8, "hop": 10}, "provenance": {"split": "session"}}
    parts = parts_of(metadata.attach(whole, about))
    assert parts is not None
    for part, kind in ((parts.token, "token"), (parts.reader, "reader")):
        found = metadata.read(part)
        assert found is not None and found["kind"] == kind and found["ring"] == about["ring"]
        assert found["provenance"]["split"] == "session" and len(found["provenance"]["parents"]) == 1
        assert parts_of(part) is None  # a part is cut no further
    with pytest.raises(EdgeError, match=r"its graph has 8 frames of 10 steps"):
        parts_of(metadata.attach(whole, {**about, "ring": {"frames": 4, "hop": 20}}))


def test_tokens_have_8_bits_and_any_other_layer_may_have_16(armband: tuple[RingShape, bytes, bytes]) -> None:
    shape, model, _ = armband
    windows = np.random.default_rng(0).standard_normal((32, 80, 8)).astype(np.float32)
    with pytest.raises(
        EdgeError, match=r"No layer that can have 16 bits is named '03_.*'; choose among 01_conv_2d, 02_conv_2d, 05_"
    ):
        quantize_tflite(model, windows, QuantizePlan(wide=("03_*",)))
    with pytest.raises(EdgeError, match=r"03_conv_2d\) are int16, and the ring holds int8; leave .* out of wide"):
        cut(quantized(model, ranges_of(model, observed(model, windows), QuantizePlan()), wide=["03_conv_2d"]))
    whole = quantize_tflite(model, windows, QuantizePlan(wide=("01_*", "02_*", "05_*")))
    given = windows_of(shape, stream(shape, 12))
    np.testing.assert_array_equal(run_parts(cut(whole), given), run_tflite(whole, given, "litert-ref", raw=True))


def test_other_graphs_are_refused(armband: tuple[RingShape, bytes, bytes]) -> None:
    _, _, whole = armband
    with pytest.raises(EdgeError, match="no ring of tokens"):
        cut(cut(whole).token)
    unpacked = unpack(whole)
    names = {tensor.name: tensor for tensor in unpacked.subgraphs[0].tensors}
    names[b"02_conv_2d.weights"].shape = [64, 3, 1, 32]  # a kernel that is three frames high
    with pytest.raises(EdgeError, match="CONV_2D 02_conv_2d does not go frame by frame"):
        cut(pack(unpacked))


def test_parts_that_say_something_else_are_refused(armband: tuple[RingShape, bytes, bytes]) -> None:
    _, _, whole = armband
    _, other = int8_of(RingShape(80, 8, 10, embedding=63))
    windows = np.random.default_rng(0).standard_normal((32, 80, 8)).astype(np.float32)
    with pytest.raises(EdgeError, match=r"reader_int8\.tflite is not what was asked for"):
        refuse_unless_equal(whole, cut(other), windows, {})
