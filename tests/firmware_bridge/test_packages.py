"""Packages: what each build system would do with the folder, done here with its own tools or with stand-ins that record."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pytest
import yaml

from embridge_edge.errors import EdgeError
from embridge_edge.export.running import tflm_arena_bytes
from embridge_edge.firmware_bridge.emit import library
from embridge_edge.firmware_bridge.graph import op_counts, read_graph
from embridge_edge.firmware_bridge.host_build import WARNINGS, write_files
from embridge_edge.firmware_bridge.packages import (
    FORMATS,
    RESOLVER_METHODS,
    Description,
    describe,
    pack_archive,
    package,
    selftest_files,
    selftest_inputs,
    tflm_files,
)
from embridge_edge.firmware_bridge.program import PROFILES, Profile
from embridge_edge.firmware_bridge.section import linker_script, placed_library
from embridge_edge.hardware.boards import BOARDS, build, run
from embridge_edge.hardware.target import runtimes
from tests.firmware_bridge.package_rules import (
    IDF_COMPONENT,
    PLATFORMIO,
    ZEPHYR,
    arduino_faults,
    pdsc_faults,
)
from tests.firmware_bridge.single_op import Spec, model_of, random_values
from tests.firmware_bridge.small_models import (
    M4,
    dense_model,
    graph_of,
    program_of,
    reference_outputs,
)
from tests.tools import ARM, CMAKE, QEMU, needs

ROOT = Path(__file__).resolve().parents[2]
SHA = bytes(range(32))
ADDRESS = 0x0020_0000
CPU_FLAGS = "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard"


def packaged(
    content: bytes, name: str = "tiny", *, profile: Profile = "tflm", address: int | None = None, **more: str
) -> dict[str, str]:
    """A whole package of a model."""
    program = program_of(content, name, profile)
    files = library(program, SHA) if address is None else placed_library(program, SHA, address)
    files = {path: text for path, text in files.items() if not path.endswith(".ld")}
    files |= selftest_files(program, reference_outputs(program, content))
    settings = {"version": "1.2.3", "target": "qemu-m4", "about": "A model for tests", "cpu_flags": CPU_FLAGS} | more
    return package(files, describe(program, model_sha256=SHA, address=address, **settings))  # type: ignore[arg-type]


def quantize_model() -> bytes:
    """A model that computes in floating point."""
    return model_of("QUANTIZE", [Spec((1, 6), "float32", None)], [Spec((1, 6), scale=0.25, zero=3)])


@pytest.fixture(scope="module")
def tiny() -> dict[str, str]:
    return packaged(dense_model())


def command(*words: object, cwd: Path | None = None) -> str:
    """What a command prints; an error shows what it said."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cmake(source: Path, binary: Path, *options: str) -> None:
    command("cmake", "-G", "Ninja", "-S", source, "-B", binary, *options)
    command("cmake", "--build", binary)


def sources_in(files: Mapping[str, str]) -> set[str]:
    return {path for path in files if path.endswith(".c") and path.startswith("src/")}


# The package itself


def test_package_is_one_tree_and_the_same_every_time(tiny: dict[str, str]) -> None:
    assert packaged(dense_model()) == tiny
    assert [path for path in tiny if tiny[path] == ""] == []
    public = {path for path in tiny if re.fullmatch(r"src/[^/]+", path)}
    assert public == {"src/tiny.h", "src/tiny_selftest.h"}
    assert tiny["LICENSE"] == (ROOT / "LICENSE").read_text("utf-8")
    assert not any("@" in line for path in tiny for line in tiny[path].splitlines() if path != "LICENSE")
    assert not any(str(ROOT) in text for text in tiny.values())


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_can_be_had_alone(name: str) -> None:
    program = program_of(dense_model())
    files = library(program, SHA) | selftest_files(program, reference_outputs(program, dense_model()))
    about = describe(program, version="1.0.0", target="host", about="Alone", model_sha256=SHA)
    alone, all_of_them = package(files, about, [name]), package(files, about)
    assert alone.items() < all_of_them.items()
    assert sources_in(alone) == sources_in(all_of_them)
    assert len(alone) > len(package(files, about, []))


def test_readme_says_what_the_model_is_and_how_it_is_called(tiny: dict[str, str]) -> None:
    text = tiny["README.md"]
    for said in ("tiny_invoke(&model)", "0.5 × (q − 3)", "4 × (q − -7)", SHA.hex(), "`tflm`", "no floating point"):
        assert said in text
    assert "Updating the model" not in text
    assert "Not measured." in text
    assert "```\nflash 9 bytes\n```" in packaged(dense_model(), sizes="flash 9 bytes")["README.md"]
    assert "Updating the model" in packaged(dense_model(), address=ADDRESS)["README.md"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "2fast"), ("name", "arduino_net"), ("name", "x" * 51), ("name", "ünder"), ("version", "1.0"),
        ("version", "01.0.0"), ("version", "1.0.0-rc1"), ("about", ""), ("about", "two\nlines"), ("about", 'a "quote"'),
        ("about", "$ENV{HOME}"), ("vendor", "a b"), ("url", "ftp://example.org"), ("target", "a\nb"), ("author", ""),
    ],
)  # fmt: skip
def test_what_some_format_does_not_take_is_refused(field: str, value: str) -> None:
    good = Description("m", "1.0.0", "m4", "About", "tflm", SHA, (), 8)
    with pytest.raises(EdgeError, match=f"The package's {field} "):
        dataclasses.replace(good, **{field: value})


def test_library_without_its_parts_is_refused() -> None:
    program = program_of(dense_model())
    about = describe(program, version="1.0.0", target="host", about="Parts", model_sha256=SHA)
    with pytest.raises(EdgeError, match=r"tiny_selftest\.h"):
        package(library(program, SHA), about)
    with pytest.raises(EdgeError, match="no place in a package"):
        package({"docs/x.md": ""}, about)
    whole = library(program, SHA) | selftest_files(program, reference_outputs(program, dense_model()))
    with pytest.raises(EdgeError, match="choose from cmake, arduino"):
        package(whole, about, ["conan"])
    with pytest.raises(EdgeError, match="do not fit"):
        selftest_files(program, [np.zeros(4, np.int8)])


def test_model_whose_name_begins_like_the_kernels_is_none_of_them() -> None:
    text = packaged(dense_model(), "emb_model")["cmake/emb_model_kernels.cmake"]
    kernels = re.findall(r"^ +(\w+\.c)=\w+$", text, re.MULTILINE)
    assert "emb_section.c" in kernels
    assert not any(kernel.startswith("emb_model") for kernel in kernels)


# CMake


@pytest.mark.parametrize("profile", PROFILES)
def test_cmake_builds_and_the_example_runs_on_this_machine(tmp_path: Path, profile: Profile) -> None:
    needs(*CMAKE)
    write_files(packaged(dense_model(), profile=profile), tmp_path / "p")
    cmake(tmp_path / "p", tmp_path / "b", f"-DCMAKE_C_FLAGS={' '.join(WARNINGS)}")
    assert "100% tests passed" in command("ctest", "--test-dir", tmp_path / "b")


def test_example_fails_where_the_model_computes_something_else(tmp_path: Path, tiny: dict[str, str]) -> None:
    needs(*CMAKE)
    wrong = re.sub(r"(expected0\[5\] = \{\s*)(-?\d+)", lambda m: f"{m[1]}{-int(m[2]) - 1}", tiny[SELFTEST])
    assert wrong != tiny[SELFTEST]
    write_files({**tiny, SELFTEST: wrong}, tmp_path / "p")
    cmake(tmp_path / "p", tmp_path / "b")
    assert subprocess.run([tmp_path / "b" / "tiny_selftest_example"], check=False).returncode == 1


SELFTEST = "src/tiny/tiny_selftest.c"
CONSUMER = """#include <one.h>
#include <one_selftest.h>
#include <two.h>
#include <two_selftest.h>
static one_t first;
static two_t second;
int main(void) { return one_selftest(&first) + two_selftest(&second); }
"""


@pytest.mark.slow
def test_two_models_in_one_program_share_their_kernels(tmp_path: Path) -> None:
    needs(*CMAKE)
    for seed, name in enumerate(("one", "two")):
        write_files(packaged(dense_model(seed), name), tmp_path / name)
    write_files(
        {
            "main.c": CONSUMER,
            "CMakeLists.txt": f"""cmake_minimum_required(VERSION 3.16)
project(consumer LANGUAGES C)
include(FetchContent)
FetchContent_Declare(one SOURCE_DIR {tmp_path}/one)
FetchContent_MakeAvailable(one)
add_subdirectory({tmp_path}/two two)
add_executable(consumer main.c)
target_link_libraries(consumer PRIVATE one::one two::two)
""",
        },
        tmp_path / "app",
    )
    cmake(tmp_path / "app", tmp_path / "b")
    command(tmp_path / "b" / "consumer")
    assert not (tmp_path / "b" / "two" / "two_selftest_example").exists()

    kernels = tmp_path / "two/cmake/two_kernels.cmake"
    kernels.write_text(re.sub(r"(emb_section\.c=)\w+", r"\g<1>0000000000000001", kernels.read_text()))
    words = ["cmake", "-G", "Ninja", "-S", tmp_path / "app", "-B", tmp_path / "other"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "need different versions of emb_section.c" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_installed_package_is_found(tmp_path: Path, tiny: dict[str, str]) -> None:
    needs(*CMAKE)
    write_files(tiny, tmp_path / "p")
    cmake(tmp_path / "p", tmp_path / "b", f"-DCMAKE_INSTALL_PREFIX={tmp_path}/prefix", "-Dtiny_EXAMPLES=OFF")
    command("cmake", "--install", tmp_path / "b")
    write_files(
        {
            "main.c": tiny["examples/host/main.c"],
            "CMakeLists.txt": """cmake_minimum_required(VERSION 3.16)
project(consumer LANGUAGES C)
find_package(tiny 1.2 REQUIRED)
add_executable(consumer main.c)
target_link_libraries(consumer PRIVATE tiny::tiny)
""",
        },
        tmp_path / "app",
    )
    cmake(tmp_path / "app", tmp_path / "c", f"-DCMAKE_PREFIX_PATH={tmp_path}/prefix")
    command(tmp_path / "c" / "consumer")


def arm_symbol(elf: Path, name: str) -> str:
    return next((line for line in command("arm-none-eabi-nm", elf).splitlines() if line.endswith(f" {name}")), "")


@pytest.mark.parametrize(
    "option", ["", "-Dtiny_PORTABLE=ON", "-Dtiny_PLACED=ON", f"-Dtiny_SECTION_ADDRESS={ADDRESS:#x}"]
)
def test_cmake_links_for_a_cortex_m4(tmp_path: Path, option: str) -> None:
    needs(*CMAKE, *ARM)
    write_files(packaged(dense_model(), address=ADDRESS), tmp_path / "p")
    toolchain = tmp_path / "p/cmake/arm-none-eabi.cmake"
    cmake(tmp_path / "p", tmp_path / "b", f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", *([option] if option else []))
    elf = tmp_path / "b/tiny_selftest_example"
    assert "Tag_CPU_arch: v7E-M" in command("arm-none-eabi-readelf", "-A", elf)
    placed = f"{ADDRESS:08x}" in arm_symbol(elf, "tiny_section")
    assert placed == ("PLACED" in option or "ADDRESS" in option)
    assert ("A tiny_section" in arm_symbol(elf, "tiny_section")) == ("ADDRESS" in option)
    assert arm_symbol(elf, "emb_section_check") == ""  # not called, not linked


def test_linker_script_of_the_package_is_that_of_the_section() -> None:
    files = packaged(dense_model(), address=ADDRESS)
    assert files["cmake/tiny_section.ld"] == linker_script("tiny", ADDRESS)
    assert "cmake/tiny_section.ld" not in packaged(dense_model())


@pytest.mark.slow
def test_code_in_floating_point_is_compiled_without_contraction(tmp_path: Path) -> None:
    needs(*CMAKE)
    files = packaged(quantize_model())
    write_files(files, tmp_path / "p")
    cmake(tmp_path / "p", tmp_path / "b", "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON")
    compiled = json.loads((tmp_path / "b/compile_commands.json").read_text())
    own = [entry["command"] for entry in compiled if "/src/" in entry["file"]]
    assert len(own) == len(sources_in(files))
    assert all("-ffp-contract=off" in line for line in own)
    assert "100% tests passed" in command("ctest", "--test-dir", tmp_path / "b")
    assert json.loads(files["library.json"])["build"]["flags"] == ["-ffp-contract=off"]
    assert "-ffp-contract=off" in files["zephyr/CMakeLists.txt"]
    assert "-ffp-contract" not in packaged(dense_model())["CMakeLists.txt"]


# The emulated core


@pytest.mark.parametrize("name", ["ad01_int8", "kws_ref_model"])
def test_package_of_a_real_model_passes_its_self_test_on_an_emulated_core(
    models: Path, tmp_path: Path, name: str
) -> None:
    needs(*QEMU)
    content, _ = graph_of(models, name)
    files = packaged(content, "net")
    write_files(files, tmp_path)
    built = build(
        BOARDS["qemu-m4"],
        [*(tmp_path / path for path in sorted(sources_in(files))), tmp_path / "examples/host/main.c"],
        folder=tmp_path / "b",
        includes=(tmp_path / "src",),
        extra_flags=WARNINGS,
    )
    assert run(built.elf, BOARDS["qemu-m4"]).exit_status == 0


# Arduino

ARDUINO_H = """#include <stdint.h>
#include <stdio.h>
struct Serial_t {
    void begin(long) {}
    void print(const char *text) { fputs(text, stdout); }
    void print(unsigned long value) { printf("%lu", value); }
    void println(const char *text) { puts(text); }
};
static Serial_t Serial;
static unsigned long micros() { static unsigned long now; return now += 7; }
"""


def test_arduino_library_has_valid_properties_and_its_sketch_runs(tmp_path: Path, tiny: dict[str, str]) -> None:
    needs("g++")
    assert arduino_faults(tiny["library.properties"]) == []
    write_files(tiny, tmp_path)
    write_files({"core/Arduino.h": ARDUINO_H}, tmp_path)
    # What the IDE does: C files as C, the sketch as C++ behind Arduino.h; src/ alone on the include path.
    sketch = '#include "Arduino.h"\n' + tiny["examples/selftest/selftest.ino"] + "int main() { setup(); loop(); }\n"
    (tmp_path / "sketch.cpp").write_text(sketch)
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{tmp_path}/src"]
    objects = []
    for path in sorted(sources_in(tiny)):
        objects.append(tmp_path / f"{Path(path).stem}.o")
        command("gcc", *flags, "-c", tmp_path / path, "-o", objects[-1])
    command("g++", *flags, f"-I{tmp_path}/core", tmp_path / "sketch.cpp", *objects, "-o", tmp_path / "sketch")
    assert command(tmp_path / "sketch") == "right after 7 us\n"


@pytest.mark.parametrize("compiler", ["g++", "arm-none-eabi-g++"])
def test_every_header_can_be_included_in_cxx(tmp_path: Path, tiny: dict[str, str], compiler: str) -> None:
    needs(compiler)
    write_files(tiny, tmp_path)
    headers = [path.removeprefix("src/") for path in tiny if path.endswith(".h")]
    text = "".join(f"#include <{header}>\n" for header in [*headers, *headers])
    (tmp_path / "all.cpp").write_text(
        text + "int use(tiny_t *m) { tiny_init(m); tiny_invoke(m); return tiny_output(m)[0]; }\n"
    )
    core = M4 if compiler != "g++" else ()
    flags = ["-std=c++11", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}/src"]
    command(compiler, *core, *flags, "-c", tmp_path / "all.cpp", "-o", tmp_path / "all.o")
    named = command("arm-none-eabi-nm" if core else "nm", tmp_path / "all.o")
    assert " U tiny_invoke" in named  # not mangled


def test_the_check_of_properties_finds_faults(tiny: dict[str, str]) -> None:
    text = tiny["library.properties"]
    for wrong, right in (
        ("category=AI", "category=Data Processing"), ("version=1.x", "version=1.2.3"), ("name=Arduino", "name=tiny"),
        ("", "architectures=*"), ("url=nowhere", "url=https://example.org/"), ("dot_a_linkage=1", "dot_a_linkage=true"),
    ):  # fmt: skip
        assert right in text
        assert len(arduino_faults(text.replace(right, wrong))) == 1, wrong


# Manifests


def test_manifests_follow_their_schemas(tiny: dict[str, str]) -> None:
    jsonschema.validate(json.loads(tiny["library.json"]), PLATFORMIO)
    jsonschema.validate(yaml.safe_load(tiny["zephyr/module.yml"]), ZEPHYR)
    jsonschema.validate(yaml.safe_load(tiny["idf_component.yml"]), IDF_COMPONENT)
    named = packaged(dense_model(), author="Ann Example <ann@example.org>", about="Pinch: rest & fist, 'quoted' #1")
    manifest = json.loads(named["library.json"])
    jsonschema.validate(manifest, PLATFORMIO)
    assert manifest["authors"] == [{"name": "Ann Example", "email": "ann@example.org"}]
    assert yaml.safe_load(named["idf_component.yml"])["description"] == "Pinch: rest & fist, 'quoted' #1"
    assert arduino_faults(named["library.properties"]) == []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest | {"version": "1"}, PLATFORMIO)


def test_platformio_names_files_that_exist(tiny: dict[str, str]) -> None:
    manifest = json.loads(tiny["library.json"])
    assert [f"src/{header}" for header in manifest["headers"]] == ["src/tiny.h", "src/tiny_selftest.h"]
    assert all(f"src/{header}" in tiny for header in manifest["headers"])
    for example in manifest["examples"]:
        assert all(f"{example['base']}/{name}" in tiny for name in example["files"])
    assert any(path.startswith(f"{manifest['build']['srcDir']}/") for path in tiny)


# Zephyr and ESP-IDF: their CMake functions as stand-ins that write down what they are given

RECORDING = """cmake_minimum_required(VERSION 3.20)
project(stub LANGUAGES NONE)
function(record what)
    foreach(item IN LISTS ARGN)
        file(APPEND ${CMAKE_BINARY_DIR}/record "${what}=${item}\\n")
    endforeach()
endfunction()
"""
ZEPHYR_STUB = """
function(zephyr_library_named name)
    record(library ${name})
endfunction()
function(zephyr_library_sources source)
    record(source ${source} ${ARGN})
endfunction()
function(zephyr_include_directories)
    record(include ${ARGV})
endfunction()
function(zephyr_library_compile_options item)
    record(option ${item} ${ARGN})
endfunction()
function(zephyr_library_compile_definitions_ifdef toggle item)
    if(${toggle})
        record(definition ${item})
    endif()
endfunction()
"""
IDF_STUB = """
set(ESP_PLATFORM 1)
function(idf_component_register)
    cmake_parse_arguments(given "" "" "SRCS;INCLUDE_DIRS;REQUIRES" ${ARGN})
    record(source ${given_SRCS})
    record(include ${given_INCLUDE_DIRS})
    record(unknown ${given_UNPARSED_ARGUMENTS})
endfunction()
function(target_compile_options target scope)
    record(option ${ARGN})
endfunction()
set(COMPONENT_LIB __idf_tiny)
"""


def recorded(folder: Path, text: str) -> dict[str, list[str]]:
    """What a CMake project that is made of stand-ins was asked for."""
    needs(*CMAKE)
    write_files({"CMakeLists.txt": RECORDING + text}, folder)
    command("cmake", "-G", "Ninja", "-S", folder, "-B", folder / "b")
    found: dict[str, list[str]] = {}
    path = folder / "b/record"
    for line in path.read_text().splitlines() if path.exists() else ():
        what, _, item = line.partition("=")
        found.setdefault(what, []).append(item)
    return found


def test_zephyr_module_takes_every_source_once(tmp_path: Path, tiny: dict[str, str]) -> None:
    manifest = yaml.safe_load(tiny["zephyr/module.yml"])
    assert f"{manifest['build']['cmake']}/CMakeLists.txt" in tiny
    assert manifest["build"]["kconfig"] in tiny
    write_files(tiny, tmp_path / "tiny")
    added = f"add_subdirectory({tmp_path}/tiny/zephyr z)\n"
    found = recorded(tmp_path / "on", f"{ZEPHYR_STUB}set(CONFIG_TINY y)\nset(CONFIG_TINY_PORTABLE y)\n{added}")
    assert sorted(found["source"]) == sorted(f"{tmp_path}/tiny/{path}" for path in sources_in(tiny))
    assert found["include"] == [f"{tmp_path}/tiny/src"]
    assert (found["library"], found["definition"]) == (["tiny"], ["EMB_PORTABLE"])
    assert "option" not in found
    assert recorded(tmp_path / "off", ZEPHYR_STUB + added) == {}
    symbols = re.findall(r"^config (\w+)$", tiny["zephyr/Kconfig"], re.MULTILINE)
    assert symbols == ["TINY", "TINY_PORTABLE"]


def test_second_zephyr_module_brings_no_kernel_again(tmp_path: Path, tiny: dict[str, str]) -> None:
    second = packaged(quantize_model(), "other")
    write_files(tiny, tmp_path / "tiny")
    write_files(second, tmp_path / "other")
    added = [
        f"set(CONFIG_{name.upper()} y)\nadd_subdirectory({tmp_path}/{name}/zephyr {name})\n"
        for name in ("tiny", "other")
    ]
    found = recorded(tmp_path / "both", ZEPHYR_STUB + "".join(added))
    names = [Path(source).name for source in found["source"]]
    assert len(names) == len(set(names))
    assert set(names) == {Path(path).name for path in sources_in(tiny) | sources_in(second)}
    assert found["option"] == ["-ffp-contract=off"]


def test_esp_idf_component_registers_every_source(tmp_path: Path, tiny: dict[str, str]) -> None:
    for name, files in (("tiny", tiny), ("other", packaged(quantize_model(), "other"))):
        write_files(files, tmp_path / name)
        found = recorded(tmp_path / f"idf_{name}", f"{IDF_STUB}add_subdirectory({tmp_path}/{name} c)\n")
        assert sorted(found["source"]) == sorted(sources_in(files))
        assert found["include"] == ["src"]
        assert found.get("option") == (["-ffp-contract=off"] if name == "other" else None)
        assert "unknown" not in found


# CMSIS-Pack


def test_pack_describes_the_tree_and_is_the_same_every_time(tiny: dict[str, str]) -> None:
    name = "embridge-edge.tiny.pdsc"
    assert pdsc_faults(tiny[name], name) == []
    assert pdsc_faults(tiny[name].replace("Cgroup", "Cgruppe"), name) == ["a component has no Cgroup"]
    listed = [(file.get("category"), file.get("name")) for file in ElementTree.fromstring(tiny[name]).iter("file")]  # noqa: S314
    assert {path for category, path in listed if category == "sourceC"} == sources_in(tiny)
    assert {path for category, path in listed if category == "header"} == {path for path in tiny if path.endswith(".h")}
    assert len(listed) == len(set(listed))
    archive = pack_archive(tiny)
    assert archive == pack_archive(dict(reversed(tiny.items())))
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert {entry: opened.read(entry).decode() for entry in opened.namelist()} == tiny


# The section


PSA_STUB = """#include <stddef.h>
#include <stdint.h>
typedef int32_t psa_status_t;
typedef uint32_t psa_key_id_t;
typedef uint32_t psa_algorithm_t;
#define PSA_SUCCESS ((psa_status_t)0)
#define PSA_ALG_SHA_256 ((psa_algorithm_t)0x02000009)
#define PSA_ALG_ECDSA(hash) ((psa_algorithm_t)(0x06000600 | ((hash) & 0xff)))
psa_status_t psa_hash_compute(psa_algorithm_t alg, const uint8_t *input, size_t input_length, uint8_t *hash,
                              size_t hash_size, size_t *hash_length);
psa_status_t psa_verify_hash(psa_key_id_t key, psa_algorithm_t alg, const uint8_t *hash, size_t hash_length,
                             const uint8_t *signature, size_t signature_length);
"""


def test_example_for_psa_crypto_compiles(tmp_path: Path) -> None:
    needs(*ARM)
    files = packaged(dense_model(), address=ADDRESS)
    write_files(files, tmp_path)
    write_files({"stub/psa/crypto.h": PSA_STUB}, tmp_path)
    flags = ["-std=c99", *WARNINGS, *M4, f"-I{tmp_path}/src", f"-I{tmp_path}/stub"]
    made = tmp_path / "psa.o"
    command("arm-none-eabi-gcc", *flags, "-c", tmp_path / "examples/psa/section_psa.c", "-o", made)
    undefined = set(re.findall(r" U (\w+)", command("arm-none-eabi-nm", made)))
    assert undefined == {"emb_section_check", "psa_hash_compute", "psa_verify_hash", "tiny_section"}


# TensorFlow Lite Micro

STUBS = {
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """#pragma once
#include <cstddef>
#include <cstdint>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteTensor { union { char *raw; } data; size_t bytes; };
namespace tflite {
template <unsigned int N> class MicroMutableOpResolver {
 public:
METHODS
    unsigned int count = 0, room = N;
};
}
""",
    "tensorflow/lite/micro/micro_interpreter.h": """#pragma once
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
namespace tflite {
class MicroInterpreter {
 public:
    template <class Resolver> MicroInterpreter(const Model *, const Resolver &ops, uint8_t *arena, size_t size)
        : full_(ops.count == ops.room), arena_(arena), size_(size) {}
    TfLiteStatus AllocateTensors() { tensor_ = {{reinterpret_cast<char *>(arena_)}, size_}; return full_ ? kTfLiteOk : kTfLiteError; }
    size_t inputs_size() const { return 1; }
    TfLiteTensor *input(size_t) { return &tensor_; }
    TfLiteStatus Invoke() { return kTfLiteOk; }
 private:
    bool full_;
    uint8_t *arena_;
    size_t size_;
    TfLiteTensor tensor_{};
};
}
""",
    "tensorflow/lite/schema/schema_generated.h": """#pragma once
#define TFLITE_SCHEMA_VERSION 3
namespace tflite {
struct Model { unsigned version() const { return 3; } };
inline const Model *GetModel(const void *data) { return static_cast<const Model *>(data); }
}
""",
}


@pytest.mark.parametrize("name", ["ad01_int8", "kws_ref_model", "str_ww_ref_model", "vww_96_int8"])
def test_tflm_resolver_has_the_ops_of_the_graph_and_the_example_compiles(
    models: Path, tmp_path: Path, name: str
) -> None:
    needs("g++")
    content, graph = graph_of(models, name)
    measured = tflm_arena_bytes(content)
    files = tflm_files(graph, content, "net", measured)
    assert files == tflm_files(graph, content, "net", measured)
    called = re.findall(r"resolver->(\w+)\(\)", files["net_resolver.h"])
    assert sorted(called) == sorted(RESOLVER_METHODS[op] for op in op_counts(graph))
    assert f"MicroMutableOpResolver<{len(called)}>" in files["net_resolver.h"]
    assert measured <= int(re.findall(r"ARENA_BYTES (\d+)", files["net_model_data.h"])[0]) < measured + 16
    methods = "".join(f"    TfLiteStatus {method}() {{ ++count; return kTfLiteOk; }}\n" for method in called)
    stubs = {f"stub/{path}": text.replace("METHODS", methods) for path, text in STUBS.items()}
    write_files({**files, **stubs}, tmp_path)
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", f"-I{tmp_path}/stub"]
    sources = [tmp_path / "main.cc", tmp_path / "net_model_data.cc"]
    command("g++", *flags, *sources, "-o", tmp_path / "example")
    command(tmp_path / "example")
    section = next(line for line in command("nm", "-S", tmp_path / "example").splitlines() if "net_model_data" in line)
    start, size = (int(word, 16) for word in section.split()[:2])
    assert (start % 16, size) == (0, len(content))
    array = re.findall(r"0x(\w\w),", files["net_model_data.cc"])
    assert bytes.fromhex("".join(array)) == content


def test_op_that_tflm_lacks_is_refused_by_name() -> None:
    graph = read_graph(dense_model())
    ops = tuple(dataclasses.replace(graph.ops[0], name=name) for name in ("GELU", "WHILE", "CUSTOM:mine", "ADD"))
    with pytest.raises(EdgeError, match="no method for CUSTOM:mine, GELU, WHILE; "):
        tflm_files(dataclasses.replace(graph, ops=ops), b"", "net", 1)
    with pytest.raises(EdgeError, match="behind the flatbuffer"):
        tflm_files(dataclasses.replace(graph, weights_at_offsets=True), b"", "net", 1)


def test_resolver_methods_are_those_of_the_runtime_that_is_installed() -> None:
    import tflite_micro

    binary = (Path(tflite_micro.__file__).parent / "python/tflite_micro/_runtime.so").read_bytes()
    # Mangled: the length of the name, the name, then "Ev" for no parameters.
    registered = {name.decode() for name in re.findall(rb"Register_([A-Z0-9_]+?)Ev", binary)}
    assert set(RESOLVER_METHODS) <= registered
    assert set(RESOLVER_METHODS) >= set(runtimes()["tflm"].ops or ())


# The self-test


def test_self_test_feeds_numbers_of_every_type() -> None:
    inputs = [Spec((1, 6), "int8", 0.5), Spec((1, 6), "int8", 0.25)]
    program = program_of(model_of("ADD", inputs, [Spec((1, 6), scale=1.0)], ("AddOptions", {}), version=2))
    first, second = selftest_inputs(program)
    assert first.dtype == second.dtype == np.int8
    assert not np.array_equal(first, second)
    (floats,) = selftest_inputs(program_of(quantize_model()))
    assert floats.dtype == np.float32
    assert np.array_equal(floats, np.rint(floats * 16) / 16)


def every_program() -> list[tuple[str, bytes]]:
    rng = np.random.default_rng(1)
    two = [Spec((1, 6), "int8", 0.5, 3), Spec((1, 6), "int8", 0.25, -4)]
    table = Spec((6,), "int16", 0.001, data=random_values(rng, (6,), np.int16))
    return [
        ("two_inputs", model_of("ADD", two, [Spec((1, 6), scale=1.0)], ("AddOptions", {}), version=2)),
        ("float_input", quantize_model()),
        ("float_output", model_of("DEQUANTIZE", [Spec((1, 6), scale=0.25, zero=3)], [Spec((1, 6), "float32", None)])),
        ("wide", model_of("ADD", [Spec((1, 6), "int16", 0.002), table], [Spec((1, 6), "int16", 0.003)], ("AddOptions", {}), version=2)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), every_program(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_self_test_is_right_for_every_kind_of_port(tmp_path: Path, name: str, content: bytes) -> None:
    files = packaged(content, name)
    write_files(files, tmp_path)
    flags = ["-std=c99", *WARNINGS, "-O1", "-ffp-contract=off", "-fsanitize=address,undefined", f"-I{tmp_path}/src"]
    sources = [tmp_path / path for path in sorted(sources_in(files))]
    command("cc", *flags, *sources, tmp_path / "examples/host/main.c", "-o", tmp_path / "example")
    command(tmp_path / "example")
