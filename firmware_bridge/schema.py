"""The TFLite schema's generated reader and writer: plain Python, in whichever package brings it."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

NAME = "schema_py_generated"
ELSEWHERE = (("ai_edge_litert", f"{NAME}.py"), ("tensorflow", f"lite/python/{NAME}.py"))
"""Packages, and where in them the module stands."""


@functools.cache
def tflite_schema() -> Any:
    """The module, of ai-edge-litert where that can be imported.

    Else it is loaded from its file: it needs none of the libraries that its package loads (a LiteRT for another processor cannot be
    imported, and TensorFlow takes ten seconds for it).

    Raises:
        ImportError: neither ai-edge-litert nor TensorFlow is installed.
    """
    try:
        return importlib.import_module(f"ai_edge_litert.{NAME}")
    except (ImportError, OSError) as error:
        for package, file in ELSEWHERE:
            found = importlib.util.find_spec(package)
            for folder in (found and found.submodule_search_locations) or ():
                if (Path(folder) / file).is_file():
                    return _from_file(Path(folder) / file)
        if isinstance(error, ImportError):
            raise
        raise ImportError(str(error), name="ai_edge_litert") from None


def _from_file(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"embridge_edge.firmware_bridge._{NAME}", path)
    assert spec is not None and spec.loader is not None  # noqa: S101 - it is a file of Python
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
