"""The two runtimes that generated code and exported models are compared with: LiteRT and TensorFlow Lite Micro, loaded.

LiteRT is `ai-edge-litert`, or one of the packages that bore its name before, where only that is there and works.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from embridge_edge.artifacts import sha256_of, user_cache
from embridge_edge.errors import EdgeError, one_line
from embridge_edge.firmware_bridge.graph import Graph, peak_activation_bytes, read_graph
from embridge_edge.hardware import interpreting
from embridge_edge.hardware.host import installed_version
from embridge_edge.hardware.interpreting import MODULES, interpreter_of_package, resolver_of_package
from embridge_edge.hardware.probes import TFLITE_RELU, probe
from embridge_edge.quiet import silenced

Values = npt.NDArray[Any]

LARGEST_ARENA = 256 * 1024 * 1024


NAMES = {"ai-edge-litert": "LiteRT", "tflite-runtime": "tflite-runtime", "tensorflow": "tf.lite"}
"""How reports call the packages."""


@functools.cache
def working_package() -> str:
    """The first of the packages that bring a TFLite interpreter which is installed and has run a model, in a process of its own.

    Importing proves nothing: tflite-runtime under numpy 2 imports, and the interpreter then ends the process.

    Raises:
        EdgeError: none is there, or none works; says what each one died of.
    """
    wrong = {}
    for package, module in MODULES.items():
        if find_spec(module) is not None:
            died_of = _works(package)
            if died_of is None:
                return package
            wrong[package] = died_of
    if not wrong:
        raise EdgeError("Running TFLite needs ai-edge-litert, which is not installed; install embridge-edge[tflite].")
    each = "; ".join(f"{package} {one_line(EdgeError(died_of))}" for package, died_of in wrong.items())
    raise EdgeError(f"No TFLite interpreter works here ({each}); install embridge-edge[tflite] again, or ask doctor.")


def interpreter_name() -> str:
    """How reports call what runs `.tflite` files here."""
    with contextlib.suppress(EdgeError):
        return NAMES[working_package()]
    return NAMES["ai-edge-litert"]


def _works(package: str) -> str | None:
    """As `probe`, which costs half a second: that it went well is remembered for these versions on this machine."""
    about = [package, installed_version(package), installed_version("numpy"), os.path.realpath(sys.executable)]
    known = user_cache() / "probes" / sha256_of([*about, platform.machine(), platform.node()])[:16]
    if about[1] is not None and known.exists():
        return None
    died_of = probe(package)
    if died_of is None and about[1] is not None:
        with contextlib.suppress(OSError):
            known.parent.mkdir(parents=True, exist_ok=True)
            known.touch()
    return died_of


def litert_interpreter(content: bytes, *, reference: bool, preserve: bool = False) -> Any:
    """LiteRT with the model loaded; `preserve` keeps every tensor readable after an inference.

    Raises:
        EdgeError: it is not installed, or cannot run the model.
    """
    package = working_package()
    if package == "tflite-runtime":
        _refuse_what_it_misreads(content)
    try:
        with silenced():
            resolver = resolver_of_package(package)
            interpreter = interpreter_of_package(package)(
                model_content=content,
                num_threads=1,
                experimental_op_resolver_type=resolver.BUILTIN_REF if reference else resolver.AUTO,
                experimental_preserve_all_tensors=preserve,
            )
            interpreter.allocate_tensors()
            return interpreter
    except (ValueError, RuntimeError) as error:
        raise EdgeError(f"{NAMES[package]} cannot run the model ({one_line(error)}); check its ops.") from None


def _refuse_what_it_misreads(content: bytes) -> None:
    """tflite-runtime 2.14, the last there is, takes the first channel's scale for all of FULLY_CONNECTED's: a student's outputs were 21
    steps away from LiteRT's, without an error. Convolutions per channel it computes as LiteRT does."""
    graph = read_graph(content)
    for op in graph.ops:
        if op.name == "FULLY_CONNECTED" and len(graph.tensors[op.inputs[1]].scales) > 1:
            raise EdgeError(
                f"tflite-runtime ignores the channels' scales of {graph.tensors[op.outputs[0]].name} (FULLY_CONNECTED) and would "
                "give other numbers without an error; install embridge-edge[tflite]."
            )


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


def died_elsewhere_of(python: Path, package: str) -> str | None:
    """Whether a package's interpreter works in another Python: None where it has run a model there, else what it died of."""
    try:
        relu = run_elsewhere(python, package, TFLITE_RELU, np.array([[-1.0, 2.0]], np.float32))
    except EdgeError as error:
        return str(error)
    return None if relu.tolist() == [[0.0, 2.0]] else f"computed {relu.tolist()} where [[0.0, 2.0]] is right"


def run_elsewhere(python: Path, package: str, content: bytes, windows: Values) -> Values:
    """Run a model of one input and one output on a package's reference kernels, in a process of another Python.

    Args:
        windows: `[n, …]` in the input's own type.

    Returns: outputs `[n, …]` as the model gives them.

    Raises:
        EdgeError: it cannot run there; one line says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        model, given, taken = (Path(folder) / name for name in ("model.tflite", "given.npy", "taken.npy"))
        model.write_bytes(content)
        np.save(given, windows)
        command = [str(python), interpreting.__file__, package, str(model), str(given), str(taken)]
        variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
        if str(python) != sys.executable:
            variables = {name: value for name, value in variables.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        done = subprocess.run(
            command,
            env=variables,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode == 0:
            return np.asarray(np.load(taken))
    if done.returncode < 0:
        raise EdgeError(f"{package} ended the process with signal {-done.returncode}")
    said = done.stderr.strip().splitlines()
    raise EdgeError(one_line(EdgeError(said[-1] if said else f"{package} ended with status {done.returncode}")))
