"""For those who stay with TensorFlow Lite Micro: the model as an array, a resolver with exactly its ops, the arena's size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from embridge_edge.errors import EdgeError
from embridge_edge.firmware_bridge.graph import Graph, op_counts
from embridge_edge.firmware_bridge.packages.rendering import filled

ARRAY_ALIGNMENT = 16
"""Of the flatbuffer and the arena; TFLM wants 16 for both."""
_WIDTH = 110

# Methods of tflite::MicroMutableOpResolver in micro_mutable_op_resolver.h. Left out: ops that run other subgraphs or keep
# resource variables (IF, WHILE, CALL_ONCE, VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE), which need more than a resolver.
RESOLVER_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "ABS": "AddAbs",
        "ADD": "AddAdd",
        "ADD_N": "AddAddN",
        "ARG_MAX": "AddArgMax",
        "ARG_MIN": "AddArgMin",
        "AVERAGE_POOL_2D": "AddAveragePool2D",
        "BATCH_MATMUL": "AddBatchMatMul",
        "BATCH_TO_SPACE_ND": "AddBatchToSpaceNd",
        "BROADCAST_ARGS": "AddBroadcastArgs",
        "BROADCAST_TO": "AddBroadcastTo",
        "CAST": "AddCast",
        "CEIL": "AddCeil",
        "CONCATENATION": "AddConcatenation",
        "CONV_2D": "AddConv2D",
        "COS": "AddCos",
        "CUMSUM": "AddCumSum",
        "DEPTHWISE_CONV_2D": "AddDepthwiseConv2D",
        "DEPTH_TO_SPACE": "AddDepthToSpace",
        "DEQUANTIZE": "AddDequantize",
        "DIV": "AddDiv",
        "ELU": "AddElu",
        "EQUAL": "AddEqual",
        "EXP": "AddExp",
        "EXPAND_DIMS": "AddExpandDims",
        "FILL": "AddFill",
        "FLOOR": "AddFloor",
        "FLOOR_DIV": "AddFloorDiv",
        "FLOOR_MOD": "AddFloorMod",
        "FULLY_CONNECTED": "AddFullyConnected",
        "GATHER": "AddGather",
        "GATHER_ND": "AddGatherNd",
        "GREATER": "AddGreater",
        "GREATER_EQUAL": "AddGreaterEqual",
        "HARD_SWISH": "AddHardSwish",
        "L2_NORMALIZATION": "AddL2Normalization",
        "L2_POOL_2D": "AddL2Pool2D",
        "LEAKY_RELU": "AddLeakyRelu",
        "LESS": "AddLess",
        "LESS_EQUAL": "AddLessEqual",
        "LOG": "AddLog",
        "LOGICAL_AND": "AddLogicalAnd",
        "LOGICAL_NOT": "AddLogicalNot",
        "LOGICAL_OR": "AddLogicalOr",
        "LOGISTIC": "AddLogistic",
        "LOG_SOFTMAX": "AddLogSoftmax",
        "MAXIMUM": "AddMaximum",
        "MAX_POOL_2D": "AddMaxPool2D",
        "MEAN": "AddMean",
        "MINIMUM": "AddMinimum",
        "MIRROR_PAD": "AddMirrorPad",
        "MUL": "AddMul",
        "NEG": "AddNeg",
        "NOT_EQUAL": "AddNotEqual",
        "PACK": "AddPack",
        "PAD": "AddPad",
        "PADV2": "AddPadV2",
        "PRELU": "AddPrelu",
        "QUANTIZE": "AddQuantize",
        "REDUCE_MAX": "AddReduceMax",
        "RELU": "AddRelu",
        "RELU6": "AddRelu6",
        "RESHAPE": "AddReshape",
        "RESIZE_BILINEAR": "AddResizeBilinear",
        "RESIZE_NEAREST_NEIGHBOR": "AddResizeNearestNeighbor",
        "ROUND": "AddRound",
        "RSQRT": "AddRsqrt",
        "SELECT_V2": "AddSelectV2",
        "SHAPE": "AddShape",
        "SIN": "AddSin",
        "SLICE": "AddSlice",
        "SOFTMAX": "AddSoftmax",
        "SPACE_TO_BATCH_ND": "AddSpaceToBatchNd",
        "SPACE_TO_DEPTH": "AddSpaceToDepth",
        "SPLIT": "AddSplit",
        "SPLIT_V": "AddSplitV",
        "SQRT": "AddSqrt",
        "SQUARE": "AddSquare",
        "SQUARED_DIFFERENCE": "AddSquaredDifference",
        "SQUEEZE": "AddSqueeze",
        "STRIDED_SLICE": "AddStridedSlice",
        "SUB": "AddSub",
        "SUM": "AddSum",
        "SVDF": "AddSvdf",
        "TANH": "AddTanh",
        "TRANSPOSE": "AddTranspose",
        "TRANSPOSE_CONV": "AddTransposeConv",
        "UNIDIRECTIONAL_SEQUENCE_LSTM": "AddUnidirectionalSequenceLSTM",
        "UNPACK": "AddUnpack",
        "ZEROS_LIKE": "AddZerosLike",
    }
)


def resolver_methods(graph: Graph) -> tuple[str, ...]:
    """The calls that register the graph's ops, each once, in alphabetical order.

    Raises:
        EdgeError: an op that TFLM's resolver has no method for; all such ops are named.
    """
    unknown = sorted(set(op_counts(graph)) - set(RESOLVER_METHODS))
    if unknown:
        raise EdgeError(
            f"TFLM's resolver has no method for {', '.join(unknown)}; replace it in the network, or use the C library."
        )
    return tuple(sorted(RESOLVER_METHODS[name] for name in op_counts(graph)))


def tflm_files(graph: Graph, content: bytes, name: str, arena_bytes: int) -> dict[str, str]:
    """Model array, resolver and an example for TensorFlow Lite Micro, by path.

    Args:
        graph: the model as it was read, before any pass.
        content: the `.tflite` file.
        name: prefix of all symbols.
        arena_bytes: what TFLM's allocator took on this machine (`export.running.tflm_arena_bytes`). Its pointers have eight
            bytes there, so that a 32-bit core needs somewhat less.

    Raises:
        EdgeError: TFLM cannot run the model.
    """
    if graph.weights_at_offsets:
        raise EdgeError("The model keeps weights behind the flatbuffer, which TFLM reads as nothing; repack it first.")
    methods = resolver_methods(graph)
    arena = -(-arena_bytes // ARRAY_ALIGNMENT) * ARRAY_ALIGNMENT
    values = {
        "name": name,
        "upper": name.upper(),
        "bytes": str(len(content)),
        "array": "\n".join(_rows(content)),
        "alignment": str(ARRAY_ALIGNMENT),
        "count": str(len(methods)),
        "calls": " ||\n        ".join(f"resolver->{method}() != kTfLiteOk" for method in methods),
        "measured": str(arena_bytes),
        "arena": str(arena),
    }
    return {
        f"{name}_model_data.h": filled("tflm_model_data.h.in", values),
        f"{name}_model_data.cc": filled("tflm_model_data.cc.in", values),
        f"{name}_resolver.h": filled("tflm_resolver.h.in", values),
        "main.cc": filled("tflm_main.cc.in", values),
    }


def _rows(content: bytes) -> Iterator[str]:
    per_row = (_WIDTH - 4) // len("0x00, ")
    for start in range(0, len(content), per_row):
        yield "    " + " ".join(f"0x{byte:02x}," for byte in content[start : start + per_row])
