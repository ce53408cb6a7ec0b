"""`bridge` for a phone: the C library as AArch64 code and through Java gives what Python gives, bit for bit."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embridge_edge import cli
from embridge_edge.export.reading import quantize_values
from embridge_edge.features import Stream
from embridge_edge.features.chain import SignalChain
from embridge_edge.firmware_bridge.graph import read_graph
from embridge_edge.firmware_bridge.host_build import WARNINGS, has_aarch64
from embridge_edge.firmware_bridge.oracle import oracle_for
from embridge_edge.model.head import Head
from embridge_edge.recordings import read_recordings
from tests.tools import AARCH64, CMAKE, JAVA, needs
from tests.verbs.test_bridge_device import EMBEDDING, GESTURES, artifact, myo_chain

HERE = Path(__file__).parent / "phone"
JAVA_SOURCE = "android/src/main/java/org/embridge/edge/EmbNative.java"
FRAMES = 4000


@dataclass(frozen=True)
class Phone:
    """A package for a phone, and what it was made of."""

    folder: Path
    model: Path
    chain: SignalChain
    head: Head


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Phone:
    folder, chain = tmp_path_factory.mktemp("phone"), myo_chain()
    model, head = artifact(folder / "student.tflite", chain)
    out = folder / "package"
    assert cli.run(["bridge", str(model), "--target", "phone-arm64", "--out", str(out), "--quiet"]) == 0
    return Phone(out, model, chain, head)


@pytest.fixture(scope="module")
def recordings(data: Path) -> list[npt.NDArray[np.int16]]:
    """Some seconds of three real recordings, as whole numbers."""
    found = itertools.islice(read_recordings(data / "myo_readings"), 3)
    return [np.rint(recording.emg).astype("<i2")[:FRAMES] for recording in found]


DECISION = np.dtype(
    [("number", "u4"), ("first", "u4"), ("index", "i4"), ("score", "f4"), ("margin", "f4"), ("scores", "f4", (5,))]
)


def by_python(
    phone: Phone, counts: npt.NDArray[np.int16]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8], list[int]]:
    """The network's inputs, the reference kernels' embeddings, and the indices of the decisions."""
    content = phone.model.read_bytes()
    graph = read_graph(content)
    given, taken = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    real = Stream(phone.chain).push(counts.astype(np.float32))
    windows = quantize_values(real, given.scales[0], given.zero_points[0])
    oracle = oracle_for(content, graph, "litert-ref")
    outputs = np.stack([oracle([window[None]])[taken.index].reshape(-1) for window in windows])
    embedding = (outputs.astype(np.float32) - taken.zero_points[0]) * np.float32(taken.scales[0])
    return windows, outputs, [int(index) for index in phone.head.decide(embedding)]


# The package


def test_package_of_a_phone_is_an_android_library_as_well(phone: Phone) -> None:
    android = phone.folder / "android"
    assert (android / "src/main/assets/model_int8.tflite").read_bytes() == phone.model.read_bytes()
    assert {"emb_jni.c", "emb_jni.h", "CMakeLists.txt"} == {path.name for path in (android / "src/main/cpp").iterdir()}
    kotlin = (android / "src/main/kotlin/org/embridge/edge/EmbDecoder.kt").read_text("utf-8")
    assert "samples: ShortArray" in kotlin
    assert "RATE_HZ: Double = 200.0" in kotlin
    assert "short[] samples" in (phone.folder / JAVA_SOURCE).read_text("utf-8")
    assert "android/README.md" in (phone.folder / "README.md").read_text("utf-8")
    texts = [path.read_text("utf-8") for path in android.rglob("*") if path.is_file() and path.suffix != ".tflite"]
    assert not any(f"@{word}@" in text for text in texts for word in ("rate_hz", "kotlin_array", "model_asset"))
    listed = json.loads((phone.folder / "bridge.json").read_text("utf-8"))["files"]
    assert {"android/build.gradle.kts", "cmake/aarch64-linux-gnu.cmake", "src/emb_litert.h"} <= set(listed)


def test_samples_of_32_bits_are_an_array_of_int(tmp_path: Path) -> None:
    model, _ = artifact(tmp_path / "student.tflite", myo_chain())
    arguments = ["--target", "phone-arm64", "--sample-bits", "32", "--out", str(tmp_path / "package"), "--quiet"]
    assert cli.run(["bridge", str(model), *arguments]) == 0
    assert "int[] samples" in (tmp_path / "package" / JAVA_SOURCE).read_text("utf-8")


def test_only_a_chain_for_a_phone_is_an_android_library(tmp_path: Path) -> None:
    """A network alone is what LiteRT runs; other targets have no Android."""
    model, _ = artifact(tmp_path / "student.tflite", myo_chain())
    for number, options in enumerate((["--target", "phone-arm64", "--network-only"], ["--target", "nrf52840"])):
        out = tmp_path / str(number)
        assert cli.run(["bridge", str(model), *options, "--out", str(out), "--quiet"]) == 0
        assert not (out / "android").exists()
        assert not (out / "src" / "emb_litert.h").exists()


# The C library as AArch64 code


def built(phone: Phone, program: Path, compiler: str, *flags: str) -> Path:
    """The library with `run_windows.c`, in GNU C, where a compiler fuses products and sums unless it is told not to."""
    sources = [str(path) for path in sorted((phone.folder / "src").rglob("*.c"))]
    includes = [f"-I{phone.folder / 'src'}", "-ffp-contract=off"]
    command = [compiler, "-O2", *WARNINGS, *includes, *flags, "-o", str(program), *sources, str(HERE / "run_windows.c")]
    subprocess.run(command, check=True)
    return program


def test_windows_embeddings_and_decisions_are_the_same_in_python_on_this_machine_and_as_aarch64_code(
    phone: Phone, recordings: list[npt.NDArray[np.int16]], tmp_path: Path
) -> None:
    needs("cc", *AARCH64)
    here = built(phone, tmp_path / "here", "cc")
    there = built(phone, tmp_path / "there", AARCH64[0], "-static")
    record = np.dtype(
        [("input", "i1", phone.chain.input_shape), ("output", "i1", (EMBEDDING,)), ("decision", DECISION)]
    )
    for counts in recordings:
        inputs, outputs, indices = by_python(phone, counts)
        results = {}
        for name, command in (
            ("host", [here]), ("host in halves", [here, "halves"]),
            ("aarch64", [AARCH64[1], there]), ("aarch64 in halves", [AARCH64[1], there, "halves"]),
        ):  # fmt: skip
            done = subprocess.run(
                [str(word) for word in command], input=counts.tobytes(), capture_output=True, check=True
            )
            results[name] = np.frombuffer(done.stdout, record)
        assert results["host"].tobytes() == results["aarch64"].tobytes()
        assert results["host in halves"].tobytes() == results["aarch64 in halves"].tobytes()
        for name, found in results.items():
            np.testing.assert_array_equal(found["output"], outputs, err_msg=name)
            assert found["decision"]["index"].tolist() == indices, name
            np.testing.assert_array_equal(found["decision"], results["host"]["decision"], err_msg=name)
        np.testing.assert_array_equal(results["aarch64 in halves"]["input"], inputs)
        assert len(set(indices)) > 1


def test_burst_of_a_window_and_a_hop_or_of_a_second_loses_nothing(
    phone: Phone, recordings: list[npt.NDArray[np.int16]], tmp_path: Path
) -> None:
    chain = phone.chain
    found = {}
    for frames in (7, chain.window + chain.hop, round(chain.rate_hz)):
        program = built(phone, tmp_path / f"burst{frames}", "cc", f"-DBURST={frames}")
        done = subprocess.run([str(program)], input=recordings[0].tobytes(), capture_output=True, check=False)
        assert done.returncode == 0, f"{frames} frames at once: some were lost"
        found[frames] = done.stdout
    assert len(set(found.values())) == 1 and found[7]


def test_compiler_without_its_library_is_no_compiler_for_aarch64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Debian packs the C library apart; gcc then prints the name that it was asked for."""
    for tool in AARCH64:
        program = tmp_path / tool
        program.write_text("#!/bin/sh\necho libc.a\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert not has_aarch64()


def test_self_test_passes_as_aarch64_code(phone: Phone, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    needs("cc", *AARCH64)
    arguments = ["--target", "phone-arm64", "--verify", "2", "--out", str(tmp_path / "out"), "--json", "--quiet"]
    assert cli.run(["bridge", str(phone.model), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["selftests"] == {"host": True, "qemu-aarch64": True}


def test_cmake_cross_compiles_the_package_and_its_self_test_runs_in_qemu(phone: Phone, tmp_path: Path) -> None:
    needs(*CMAKE, *AARCH64)
    toolchain = phone.folder / "cmake" / "aarch64-linux-gnu.cmake"
    cmake(phone.folder, tmp_path, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", f"-DCMAKE_C_FLAGS={' '.join(WARNINGS)}")
    command("ctest", "--test-dir", tmp_path)


# Through Java


def command(*words: object) -> None:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def cmake(source: Path, binary: Path, *options: str) -> None:
    command("cmake", "-G", "Ninja", "-S", source, "-B", binary, *options)
    command("cmake", "--build", binary)


def jni_includes() -> str:
    """Where the JDK of `javac` has its headers, as a list of CMake."""
    needs(*JAVA)
    include = Path(shutil.which("javac") or "").resolve().parent.parent / "include"
    return f"{include};{include / 'linux'}"


@pytest.fixture(scope="module")
def driver(phone: Phone, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of a command that runs `Driver.java` with `libemb_jni.so` of this machine, JNI checks on."""
    includes = jni_includes()
    needs(*CMAKE)
    folder = tmp_path_factory.mktemp("jni")
    options = [f"-DEMB_JNI_INCLUDES={includes}", f"-DCMAKE_C_FLAGS={' '.join(WARNINGS)}"]
    cmake(phone.folder / "android/src/main/cpp", folder / "build", *options)
    command("javac", "-d", folder, phone.folder / JAVA_SOURCE, HERE / "Driver.java")
    machine = ["java", "-Xcheck:jni", "-XX:TieredStopAtLevel=1", f"-Djava.library.path={folder / 'build'}"]
    return [*machine, "-cp", str(folder), "org.embridge.edge.Driver"]


def driven(driver: list[str], *words: object, samples: bytes = b"") -> bytes:
    done = subprocess.run([*driver, *map(str, words)], input=samples, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert b"WARNING in native method" not in done.stdout + done.stderr
    return done.stdout


def as_java(decisions: npt.NDArray[np.void]) -> bytes:
    """Decisions as `DataOutputStream` writes their numbers: big-endian, without padding."""
    return decisions.astype(DECISION.newbyteorder(">")).tobytes()


@pytest.mark.slow
def test_decisions_through_java_are_those_of_c_and_python(
    phone: Phone, driver: list[str], recordings: list[npt.NDArray[np.int16]], tmp_path: Path
) -> None:
    """From an array, from a direct buffer, with two threads, and with the embeddings given as LiteRT gives them."""
    here = built(phone, tmp_path / "here", "cc")
    record = np.dtype(
        [("input", "i1", phone.chain.input_shape), ("output", "i1", (EMBEDDING,)), ("decision", DECISION)]
    )
    for counts in recordings[:2]:
        given = counts.tobytes()
        done = subprocess.run([str(here)], input=given, capture_output=True, check=True)
        decisions = np.frombuffer(done.stdout, record)["decision"]
        inputs, outputs, indices = by_python(phone, counts)
        assert decisions["index"].tolist() == indices
        for way in ("array", "direct", "threads"):
            assert driven(driver, way, samples=given) == as_java(decisions), way
        (tmp_path / "outputs").write_bytes(outputs.tobytes())
        found = driven(driver, "litert", tmp_path / "outputs", samples=given)
        said = np.frombuffer(
            found, [("input", "i1", phone.chain.input_shape), ("decision", DECISION.newbyteorder(">"))]
        )
        np.testing.assert_array_equal(said["input"], inputs)
        assert said["decision"].tobytes() == as_java(decisions)


@pytest.mark.slow
def test_wrong_sizes_and_closed_handles_are_exceptions_of_java(phone: Phone, driver: list[str]) -> None:
    said = driven(driver, "misuse").decode("utf-8").splitlines()
    assert said == [*GESTURES, hashlib.sha256(phone.model.read_bytes()).hexdigest()]


def test_jni_library_exports_its_entry_alone_also_for_aarch64(phone: Phone, tmp_path: Path) -> None:
    includes = jni_includes()
    needs(*CMAKE, *AARCH64)
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={phone.folder / 'cmake' / 'aarch64-linux-gnu.cmake'}"
    flags = f"-DCMAKE_C_FLAGS={' '.join(WARNINGS)}"
    cmake(phone.folder / "android/src/main/cpp", tmp_path, toolchain, f"-DEMB_JNI_INCLUDES={includes}", flags)
    readelf = ["aarch64-linux-gnu-readelf", "--wide"]
    symbols = subprocess.run(
        [*readelf, "--dyn-syms", str(tmp_path / "libemb_jni.so")], capture_output=True, text=True, check=True
    )
    two = tmp_path / "two"  # beside another model in one application
    named = "-DEMB_JNI_LIBRARY=emb_second"
    cmake(phone.folder / "android/src/main/cpp", two, toolchain, f"-DEMB_JNI_INCLUDES={includes}", flags, named)
    assert (two / "libemb_second.so").is_file() and not (two / "libemb_jni.so").exists()
    exported = [line.split()[-1] for line in symbols.stdout.splitlines() if " GLOBAL " in line and " UND " not in line]
    assert exported == ["JNI_OnLoad"]
    segments = subprocess.run(
        [*readelf, "--segments", str(tmp_path / "libemb_jni.so")], capture_output=True, text=True, check=True
    )
    aligned = [int(line.split()[-1], 16) for line in segments.stdout.splitlines() if line.split()[:1] == ["LOAD"]]
    assert aligned
    assert set(aligned) == {0x4000}
