"""Reading a flatbuffer: the counts that others published, and one line for every file that is damaged."""

from __future__ import annotations

import functools
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.export.flatbuffer import as_array, pack
from embridge_edge.firmware_bridge.graph import (
    float_ops,
    live_activation_bytes,
    macs,
    op_counts,
    peak_activation_bytes,
    read_graph,
)

WEIGHTS = np.arange(-12, 12, dtype=np.int8).reshape(4, 6)


@functools.cache
def _tiny_model(at_offset: bool = False) -> bytes:
    """One FULLY_CONNECTED of six inputs and four outputs, without bias; its weights inline or behind the flatbuffer."""
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: list[int], buffer: int, scale: float) -> object:
        quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[0])
        return schema.TensorT(
            shape=shape, type=schema.TensorType.INT8, buffer=buffer, name=name, quantization=quantization
        )

    model = schema.ModelT(
        version=3,
        operatorCodes=[schema.OperatorCodeT(deprecatedBuiltinCode=9, version=4, builtinCode=9)],
        subgraphs=[
            schema.SubGraphT(
                tensors=[tensor("x", [1, 6], 1, 0.5), tensor("w", [4, 6], 2, 0.25), tensor("y", [1, 4], 1, 2.0)],
                inputs=[0],
                outputs=[2],
                operators=[
                    schema.OperatorT(
                        opcodeIndex=0,
                        inputs=[0, 1, -1],
                        outputs=[2],
                        builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
                        builtinOptions=schema.FullyConnectedOptionsT(),
                    )
                ],
            )
        ],
        buffers=[schema.BufferT(), schema.BufferT(), schema.BufferT(data=as_array(WEIGHTS.tobytes()))],
    )
    if not at_offset:
        return pack(model)
    import flatbuffers

    model.buffers[2] = schema.BufferT(offset=1, size=WEIGHTS.nbytes)
    for _ in range(2):  # Once for the length of the flatbuffer, once with the offset that follows from it.
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        written = bytes(builder.Output())
        model.buffers[2].offset = len(written)
    return written + WEIGHTS.tobytes()


@pytest.mark.parametrize(
    ("name", "expected_macs", "peak"),
    [
        ("kws_ref_model", 2_656_768, 16_000),
        ("ad01_int8", 264_192, 768),
        ("vww_96_int8", 7_489_664, 55_296),
        ("str_ww_ref_model", 826_368, 6_656),
    ],
)
def test_counts_of_the_mlperf_models(models: Path, name: str, expected_macs: int, peak: int) -> None:
    graph = read_graph(models / f"{name}.tflite")
    assert macs(graph) == expected_macs
    assert peak_activation_bytes(graph) == max(live_activation_bytes(graph)) == peak
    assert float_ops(graph) == ()
    assert sum(op_counts(graph).values()) == len(graph.ops)
    assert not graph.weights_at_offsets


def test_convolution_tells_weights_scales_and_options(models: Path) -> None:
    graph = read_graph(models / "kws_ref_model.tflite")
    first = graph.ops[0]
    weights = graph.tensors[first.inputs[1]]
    assert first.name == "CONV_2D"
    assert (first.options["strideH"], first.options["strideW"]) == (2, 2)
    assert weights.array().shape == weights.shape == (64, 10, 4, 1)
    assert len(weights.scales) == 64
    assert weights.axis == 0
    assert graph.tensors[graph.inputs[0]].data is None


@pytest.mark.parametrize("at_offset", [False, True])
def test_weights_read_the_same_wherever_they_stand(at_offset: bool) -> None:
    graph = read_graph(_tiny_model(at_offset))
    assert graph.weights_at_offsets is at_offset
    np.testing.assert_array_equal(graph.tensors[1].array(), WEIGHTS)
    assert graph.ops[0].inputs == (0, 1, -1)
    assert (macs(graph), peak_activation_bytes(graph), graph.weight_bytes) == (24, 10, 24)


def test_values_of_an_activation_are_refused() -> None:
    with pytest.raises(EdgeError, match="activation"):
        read_graph(_tiny_model()).tensors[0].array()


@pytest.mark.parametrize(
    "content", [b"", b"TFL3", b"\0\0\0\0TFL3", b"hello, this is text", b"\xff" * 4 + b"TFL3" + b"\xff" * 99]
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(EdgeError) as caught:
        read_graph(path)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.tflite"):
        with pytest.raises(EdgeError, match="Cannot read"):
            read_graph(path)


def test_weights_cut_off_are_refused(models: Path) -> None:
    whole = (models / "kws_ref_model.tflite").read_bytes()
    with pytest.raises(EdgeError, match="damaged"):
        read_graph(whole[: len(whole) // 2])
    with pytest.raises(EdgeError, match="damaged"):
        read_graph(_tiny_model(at_offset=True)[:-1])


def _reads_or_says_why(content: bytes) -> None:
    try:
        graph = read_graph(content)
    except EdgeError as error:
        assert "\n" not in str(error)
    else:
        macs(graph)
        peak_activation_bytes(graph)
        float_ops(graph)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_file_is_refused_or_read_but_never_raises_otherwise(data: st.DataObject) -> None:
    content = bytearray(_tiny_model(data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        # Words as well as bytes: a large word makes a vector long or sends a reader far away.
        place = data.draw(st.integers(8, len(content) - 4))
        content[place : place + 4] = data.draw(
            st.one_of(
                st.binary(min_size=1, max_size=4),
                st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**20, len(content)]).map(lambda n: struct.pack("<I", n)),
            )
        )
    _reads_or_says_why(bytes(content[: data.draw(st.integers(0, len(content)))]))


@given(cut=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_truncated_file_is_refused_or_read_but_never_raises_otherwise(cut: int) -> None:
    _reads_or_says_why(_tiny_model()[:cut])
