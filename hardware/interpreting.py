"""The packages that bring a TFLite interpreter, which are used alike: LiteRT, `tflite-runtime` and TensorFlow's `tf.lite`.

Run by its path, this file runs a model in another Python: one that has numpy and the package, and nothing of the toolkit. So it imports
neither the toolkit nor, before it is asked for one, a package.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODULES: Mapping[str, str] = {
    "ai-edge-litert": "ai_edge_litert",
    "tflite-runtime": "tflite_runtime",
    "tensorflow": "tensorflow",
}
"""Package to the module that it installs; the one that is preferred comes first."""


def interpreter_of_package(package: str) -> Any:
    """The package's class `Interpreter`.

    Raises:
        ImportError: it is not there, or what it needs is not. (It may also end the process, hence `probes`.)
    """
    module = importlib.import_module("tensorflow" if package == "tensorflow" else f"{MODULES[package]}.interpreter")
    return module.lite.Interpreter if package == "tensorflow" else module.Interpreter


def resolver_of_package(package: str) -> Any:
    """The package's `OpResolverType`, which says with whose kernels a model runs."""
    if package == "tensorflow":
        return importlib.import_module("tensorflow").lite.experimental.OpResolverType
    return importlib.import_module(f"{MODULES[package]}.interpreter").OpResolverType


def main(package: str, model: str, windows: str, outputs: str) -> int:
    """Run a model of one input and one output on the package's reference kernels.

    Args:
        model: `.tflite`. windows: `.npy` in the input's own type, `[n, …]`. outputs: `.npy` to write, as the model gives them.
    """
    import numpy as np

    interpreter = interpreter_of_package(package)(
        model_content=Path(model).read_bytes(),
        num_threads=1,
        experimental_op_resolver_type=resolver_of_package(package).BUILTIN_REF,
    )
    interpreter.allocate_tensors()
    given, taken = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    found = []
    for window in np.load(windows):
        interpreter.set_tensor(given, window[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(taken)[0])
    np.save(outputs, np.stack(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
