"""The two runtimes that generated code and exported models are compared with: LiteRT and TensorFlow Lite Micro, loaded."""

from __future__ import annotations

from typing import Any

from embridge_edge.errors import EdgeError, one_line
from embridge_edge.firmware_bridge.graph import Graph, peak_activation_bytes
from embridge_edge.quiet import silenced

LARGEST_ARENA = 256 * 1024 * 1024


def litert_interpreter(content: bytes, *, reference: bool, preserve: bool = False) -> Any:
    """LiteRT with the model loaded; `preserve` keeps every tensor readable after an inference.

    Raises:
        EdgeError: it is not installed, or cannot run the model.
    """
    try:
        with silenced():
            from ai_edge_litert import interpreter as litert

            resolver = litert.OpResolverType.BUILTIN_REF if reference else litert.OpResolverType.AUTO
            interpreter = litert.Interpreter(
                model_content=content,
                num_threads=1,
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=preserve,
            )
            interpreter.allocate_tensors()
            return interpreter
    except ImportError as error:
        raise EdgeError(
            f"Running TFLite needs ai-edge-litert ({error.name} is missing); install embridge-edge[tflite]."
        ) from None
    except (ValueError, RuntimeError) as error:
        raise EdgeError(f"LiteRT cannot run the model ({one_line(error)}); check its ops.") from None


def tflm_interpreter(content: bytes, graph: Graph, *, preserve: bool = False) -> Any:
    """TensorFlow Lite Micro with the model loaded; `preserve` keeps every tensor readable after an inference.

    Raises:
        EdgeError: it is not installed, or cannot run the model.
    """
    if graph.weights_at_offsets:
        raise EdgeError("The model keeps weights behind the flatbuffer, which TFLM reads as nothing; repack it first.")
    arena = max(1 << 20, 4 * peak_activation_bytes(graph) + (1 << 16))
    while True:
        try:
            with silenced():
                from tflite_micro import runtime as tflm

                kind = (
                    tflm.InterpreterConfig.kPreserveAllTensors
                    if preserve
                    else tflm.InterpreterConfig.kAllocationRecording
                )
                return tflm.Interpreter.from_bytes(content, arena_size=arena, intrepreter_config=kind)
        except ImportError as error:
            raise EdgeError(
                f"Running TFLM needs tflite-micro ({error.name} is missing); install embridge-edge[tflite]."
            ) from None
        except Exception as error:
            arena *= 4
            if arena > LARGEST_ARENA:
                raise EdgeError(
                    f"TFLM cannot load the model ({one_line(error)}); it may lack a kernel for one of its ops."
                ) from None
