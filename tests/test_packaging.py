"""What is installed is what stands in the repository, wherever it is run from."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path

import click
import pytest

from embridge_edge.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
HEAVY = {"torch", "numba", "scipy", "numpy", "h5py", "matplotlib", "tensorflow", "ai_edge_litert", "onnx"}
COMMON_OPTIONS = {"--seed", "--quiet", "--force", "--json"}


@cache
def setuptools_table() -> dict[str, object]:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        table: dict[str, object] = tomllib.load(stream)["tool"]["setuptools"]
    return table


@cache
def source_files() -> tuple[Path, ...]:
    """Every file that git knows or would add, relative to the root; all files where this is no git checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False) if shutil.which("git") else None
    if listed is not None and listed.returncode == 0:
        names = [Path(name) for name in listed.stdout.split("\0") if name]
        return tuple(name for name in names if (ROOT / name).is_file())
    generated = {"build", "dist", "__pycache__"}
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    return tuple(p for p in files if not any(part in generated or part.startswith(".") for part in p.parts))


def folders_of_packages() -> dict[str, Path]:
    """Top-level folder and import name, from `package-dir`."""
    table = setuptools_table()["package-dir"]
    assert isinstance(table, dict)
    return {name: Path(folder) for name, folder in table.items()}


def package_of(folder: Path) -> str | None:
    """The import name of a folder below one of the packages' roots, None elsewhere."""
    for name, root in folders_of_packages().items():
        if folder == root or root in folder.parents:
            return ".".join([name, *folder.relative_to(root).parts])
    return None


def files_of_packages() -> list[tuple[str, Path]]:
    return [(package, path) for path in source_files() if (package := package_of(path.parent)) is not None]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that leftovers in build/ neither help nor hurt."""
    copy, target = tmp_path_factory.mktemp("copy of the tree"), tmp_path_factory.mktemp("wheel")
    for name in source_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = target.glob("*.whl")
    return path


def test_packages_are_the_folders_that_exist() -> None:
    assert sorted({package for package, _ in files_of_packages()}) == setuptools_table()["packages"]


def test_every_package_has_an_init() -> None:
    folders = {path.parent for package, path in files_of_packages()}
    assert [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()] == []


def test_package_data_covers_every_file_that_is_no_python() -> None:
    globs = setuptools_table()["package-data"]
    assert isinstance(globs, dict)
    forgotten = [
        str(path)
        for package, path in files_of_packages()
        if path.suffix != ".py" and not any(fnmatch(path.name, glob) for glob in globs.get(package, []))
    ]
    assert forgotten == []


def test_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    expected = {f"{package.replace('.', '/')}/{path.name}" for package, path in files_of_packages()}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected


def test_wheel_carries_the_licence_and_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.partition(".dist-info/")[2]: name for name in archive.namelist()}
        assert b"embridge_edge.__main__:main" in archive.read(inside["entry_points.txt"])
        assert b"Apache License" in archive.read(inside["licenses/LICENSE"])


def imports() -> list[tuple[Path, int, str]]:
    """File, line and full name of every absolute import of every Python file, `from a import b` giving `a`."""
    found = []
    for path in source_files():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"), str(path))):
            if isinstance(node, ast.Import):
                found += [(path, node.lineno, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.append((path, node.lineno, node.module or ""))
    return found


def test_nobody_imports_a_top_level_folder_by_its_bare_name() -> None:
    bare = {str(folder) for name, folder in folders_of_packages().items() if "." in name}
    assert [f"{path}:{line} {name}" for path, line, name in imports() if name.partition(".")[0] in bare] == []


def layer(package: str) -> int:
    """2 for verbs and the command line, 1 for what leaves the workstation, 0 for the spine."""
    top = package.split(".")[1:2]
    if top in (["verbs"], ["cli"], ["api"], ["__main__"]):
        return 2
    return 1 if ".".join(["embridge_edge", *top]) in folders_of_packages().keys() - {"embridge_edge"} else 0


def test_arrows_point_down_only() -> None:
    upwards = []
    for path, line, name in imports():
        package = package_of(path.parent)
        if package is None or name.partition(".")[0] != "embridge_edge":
            continue
        here = f"{package}.{path.stem}" if package == "embridge_edge" else package
        if layer(name) > layer(here):
            upwards.append(f"{path}:{line} {name}")
    assert upwards == []


BESIDE = {("export", "firmware_bridge"), ("export", "hardware"), ("firmware_bridge", "hardware")}
"""Who may use whom within the layer of what leaves the workstation."""


def test_arrows_between_the_folders_that_leave_the_workstation_point_one_way() -> None:
    folders = {name.partition(".")[2] for name in folders_of_packages() if "." in name}
    wrong = []
    for path, line, name in imports():
        here, there = (package_of(path.parent) or "").split(".")[1:2], name.split(".")[1:2]
        if here and there and here != there and {*here, *there} <= folders and (*here, *there) not in BESIDE:
            wrong.append(f"{path}:{line} {name}")
    assert wrong == []


def test_no_file_names_a_folder_of_somebodys_machine() -> None:
    machine = re.compile(rb"(?<![\w.)\]])/(?:home|root|work|Users|opt)/\w|\b[A-Z]:\\\\?Users\\")
    assert [str(path) for path in source_files() if machine.search((ROOT / path).read_bytes())] == []


def test_constraints_pin_every_direct_dependency() -> None:
    pinned = {name for name, _ in pins(ROOT / "constraints.txt")}
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    names = {normalised(re.split(r"[\[<>=!~ ]", item)[0]) for item in wanted} - {"embridge-edge"}
    assert names - pinned == set()


@pytest.mark.parametrize("name", ["constraints.txt", "export/constraints-tensorflow.txt"])
def test_constraints_are_exact_and_name_no_place(name: str) -> None:
    for package, version in pins(ROOT / name):
        assert re.fullmatch(r"[a-z0-9-]+", package), package
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{package} {version}"


def pins(path: Path) -> list[tuple[str, str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return [(normalised(name), version) for name, _, version in (line.partition("==") for line in lines)]


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_by(code: str) -> set[str]:
    """Which of the heavy libraries a fresh interpreter has loaded after running `code`."""
    program = f"import sys\n{code}\nprint(*set(sys.modules) & {HEAVY!r}, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_help_loads_no_heavy_library() -> None:
    assert imported_by("from embridge_edge.cli import run\nrun(['--help'])") == set()


def test_help_of_a_verb_loads_no_torch() -> None:
    calls = "\n".join(f"run([{verb!r}, '--help'])" for verb in VERBS)
    assert imported_by(f"from embridge_edge.cli import run\n{calls}") & {"torch", "tensorflow"} == set()


@pytest.mark.parametrize("verb", VERBS)
def test_verb_is_one_function_and_one_command_with_the_common_options(verb: str) -> None:
    module = import_module(f"embridge_edge.verbs.{verb}")
    assert callable(getattr(module, verb))
    assert isinstance(module.command, click.Command)
    assert module.command.name == verb
    options = {name for parameter in module.command.params for name in parameter.opts}
    assert options >= COMMON_OPTIONS


def test_api_gives_every_verb() -> None:
    from embridge_edge import api

    assert sorted(api.__all__) == sorted(VERBS)
    for verb in VERBS:
        assert getattr(api, verb) is getattr(import_module(f"embridge_edge.verbs.{verb}"), verb)
