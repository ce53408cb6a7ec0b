"""Whichever interpreter is there and works runs a model; one that dies is found by running it, and never takes the tool with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ai_edge_litert
import numpy as np
import pytest

from embridge_edge.errors import EdgeError
from embridge_edge.export.comparing import compare_runtimes
from embridge_edge.export.environments import PLACE
from embridge_edge.export.onnx2tf import converter_environment
from embridge_edge.export.reading import read_artifact
from embridge_edge.export.running import python_with, run_tflite

if TYPE_CHECKING:
    from conftest import Exported

LITERT = str(Path(ai_edge_litert.__file__).parent)
DIES = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
WORKS = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("litert_under_another_name", {LITERT!r} + "/interpreter.py")
module = sys.modules["litert_under_another_name"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
Interpreter, OpResolverType = module.Interpreter, module.OpResolverType
"""
RUN = """
import json, sys
import numpy as np
from pathlib import Path
from embridge_edge.errors import EdgeError
from embridge_edge.export.running import run_tflite
from embridge_edge.firmware_bridge.interpreters import interpreter_name, working_package
try:
    package = working_package()
    got = run_tflite(Path(sys.argv[1]), np.load(sys.argv[2]), "litert-ref").tolist()
    print(json.dumps({"package": package, "name": interpreter_name(), "got": got}))
except EdgeError as error:
    print(json.dumps({"refused": str(error), "name": interpreter_name()}))
"""


def run_with(tmp_path: Path, model: bytes, windows: object, **packages: str) -> dict[str, object]:
    """Run a model in a Python that finds these in the place of LiteRT and its older names: text of their `interpreter.py`."""
    for name, code in packages.items():
        (tmp_path / "packages" / name).mkdir(parents=True)
        extended = f"__path__.append({LITERT!r})\n" if name == "ai_edge_litert" else ""
        (tmp_path / "packages" / name / "__init__.py").write_text(extended)
        (tmp_path / "packages" / name / "interpreter.py").write_text(code)
    (tmp_path / "model.tflite").write_bytes(model)
    np.save(tmp_path / "windows.npy", windows)
    path = os.pathsep.join([str(tmp_path / "packages"), os.environ.get("PYTHONPATH", ""), str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "model.tflite"), str(tmp_path / "windows.npy")],
        env=os.environ | {"PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_interpreter_that_dies_is_passed_over_for_one_that_works(exported: Exported, tmp_path: Path) -> None:
    windows = exported.windows[:4]
    found = run_with(tmp_path, exported.float_tflite, windows, ai_edge_litert=DIES, tflite_runtime=WORKS)
    assert (found["package"], found["name"]) == ("tflite-runtime", "tflite-runtime")
    np.testing.assert_allclose(found["got"], run_tflite(exported.float_tflite, windows, "litert-ref"), rtol=1e-6)


def test_first_that_works_is_taken_and_remembered(exported: Exported, tmp_path: Path) -> None:
    found = run_with(tmp_path, exported.int8_tflite, exported.windows[:4], tflite_runtime=DIES)
    assert (found["package"], found["name"]) == ("ai-edge-litert", "LiteRT")
    np.testing.assert_array_equal(found["got"], run_tflite(exported.int8_tflite, exported.windows[:4], "litert-ref"))
    assert len(list((tmp_path / "cache" / "embridge-edge" / "probes").iterdir())) == 1


def test_where_none_works_each_says_what_it_died_of(exported: Exported, tmp_path: Path) -> None:
    broken = "raise ImportError('compiled with NumPy 1')\n"
    found = run_with(tmp_path, exported.int8_tflite, exported.windows[:1], ai_edge_litert=DIES, tflite_runtime=broken)
    assert str(found["refused"]).startswith(
        "No TFLite interpreter works here (ai-edge-litert ended the process with signal 11; "
        "tflite-runtime ImportError: compiled with NumPy 1"
    )


def test_model_that_tflite_runtime_misreads_is_refused(exported: Exported, tmp_path: Path) -> None:
    found = run_with(tmp_path, exported.int8_tflite, exported.windows[:1], ai_edge_litert=DIES, tflite_runtime=WORKS)
    assert "ignores the channels' scales of 06_fully_connected" in str(found["refused"])


def test_runtime_that_is_nowhere_says_how_to_get_it(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PLACE, str(tmp_path))
    python_with.cache_clear()
    try:
        with pytest.raises(
            EdgeError, match=r"works in no Python here .*export --converter onnx2tf makes an environment"
        ):
            run_tflite(exported.int8_tflite, exported.windows[:1], "tflite-runtime")
    finally:
        python_with.cache_clear()


@pytest.mark.slow
def test_older_names_of_litert_run_in_the_converters_environment(exported: Exported, second_converter: None) -> None:
    """TensorFlow's kernels agree with LiteRT's. tflite-runtime works there too, and misreads FULLY_CONNECTED per channel: why it is refused."""
    assert python_with("tflite-runtime") == converter_environment().interpreter
    pairs = compare_runtimes(exported.int8_tflite, exported.windows, others=("tf-lite", "tflite-runtime")).pairs
    by = {pair.runtime: pair for pair in pairs}
    assert by["tf-lite"].max_steps <= 3 and by["tf-lite"].equal > 0.97
    assert by["tflite-runtime"].max_steps > 8, "it reads scales per channel now: take the refusal out"


@pytest.mark.slow
def test_older_names_of_litert_agree_on_models_of_one_scale(models: Path, second_converter: None) -> None:
    rng = np.random.default_rng(0)
    for name in ("kws_ref_model", "ad01_int8"):
        path = models / f"{name}.tflite"
        windows = rng.integers(-128, 128, (4, *read_artifact(path).input_shape[1:]), dtype=np.int8)
        assert compare_runtimes(path, windows, others=("tf-lite", "tflite-runtime")).max_steps <= 3
