"""Does a runtime work here? A two-value ReLU is run on it, in a process of its own, because importing proves nothing.

`tflite-runtime` under numpy 2 imports and then ends the process; a wheel for another processor may do the same.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from embridge_edge.hardware.interpreting import interpreter_of_package

PROBE_TIMEOUT_S = 60.0
# y = ReLU(x) on float32 [1, 2], once as TFLite and once as ONNX: written by the flatbuffers and onnx packages, kept as
# bytes so that probing a runtime needs nothing but that runtime.
TFLITE_RELU = base64.b64decode(
    "GAAAAFRGTDMAAA4AFAAQAAwACAAAAAQADgAAABAAAAAcAAAA2AAAAAMAAAABAAAACAAAAAQABAAEAAAAAQAAABAAAAAMABQAEAAMAAgABAAMAAAA"
    "EAAAADwAAABAAAAARAAAAAEAAAAQAAAAAAAKAAwAAAAIAAQACgAAAAgAAAAMAAAAAQAAAAEAAAABAAAAAAAAAAEAAAABAAAAAQAAAAAAAAACAAAA"
    "NAAAAAQAAADg////CAAAAAwAAAABAAAAeQAAAAIAAAABAAAAAgAAAAwADAAIAAAAAAAEAAwAAAAIAAAADAAAAAEAAAB4AAAAAgAAAAEAAAACAAAA"
    "AQAAABAAAAAMAAwACwAAAAAABAAMAAAAEwAAAAAAABM="
)
ONNX_RELU = base64.b64decode(
    "CAg6OwoMCgF4EgF5IgRSZWx1EgFnWhMKAXgSDgoMCAESCAoCCAEKAggCYhMKAXkSDgoMCAESCAoCCAEKAggCQgQKABAN"
)


def probe(name: str) -> str | None:
    """Run the probe `name` in a process of its own: None when it works, else what went wrong, in one line."""
    command = [sys.executable, "-m", "embridge_edge.hardware.probes", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"gave no answer within {PROBE_TIMEOUT_S:.0f} s"
    if done.returncode == 0:
        return None
    if done.returncode < 0:
        return f"ended the process with signal {-done.returncode}"
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"ended with status {done.returncode}"


def _tflite(package: str) -> Callable[[], Any]:
    return lambda: _interpreted(interpreter_of_package(package))


def _interpreted(kind: Callable[..., Any]) -> Any:
    interpreter = kind(model_content=TFLITE_RELU)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], _input())
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _tflm() -> Any:
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(TFLITE_RELU)
    interpreter.set_input(_input(), 0)
    interpreter.invoke()
    return interpreter.get_output(0)


def _onnxruntime() -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(ONNX_RELU, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": _input()})[0]


def _numba() -> Any:
    import numba
    import numpy as np

    return numba.njit(lambda values: np.maximum(values, 0.0))(_input())


def _input() -> Any:
    import numpy as np

    return np.array([[-1.0, 2.0]], np.float32)


PROBES: Mapping[str, Callable[[], Any]] = {
    "ai-edge-litert": _tflite("ai-edge-litert"),
    "numba": _numba,
    "onnxruntime": _onnxruntime,
    "tensorflow": _tflite("tensorflow"),
    "tflite-micro": _tflm,
    "tflite-runtime": _tflite("tflite-runtime"),
}


def main(name: str) -> int:
    """Run one probe; 0 when its result is right, else 1 with one line on stderr."""
    try:
        result = PROBES[name]().tolist()
    except Exception as error:
        sys.stderr.write(f"{type(error).__name__}: {' '.join(str(error).split())}\n")
        return 1
    if result != [[0.0, 2.0]]:
        sys.stderr.write(f"computed {result} where [[0.0, 2.0]] is right\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
