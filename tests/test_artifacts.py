"""Files appear whole or not at all, and a full disk is one line."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from embridge_edge.artifacts import (
    canonical_json,
    finite,
    folder_written_by_rename,
    read_json,
    remove_leftovers,
    sha256_of,
    sha256_of_file,
    write_json,
    written_by_rename,
)
from embridge_edge.errors import EdgeError


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_as_numpy_says() -> None:
    raise OSError("100000 requested and 8176 written")


def full_disk_as_safetensors_says() -> None:
    raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")


Writer = Callable[[Path], AbstractContextManager[Path]]
FULL_DISKS = (full_disk, full_disk_as_numpy_says, full_disk_as_safetensors_says)


@pytest.mark.parametrize("fill", FULL_DISKS)
def test_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path, fill: Callable[[], None]) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("old", encoding="utf-8")
    says = "No space left on device; free space or choose another --out"
    with pytest.raises(EdgeError, match=says) as raised, written_by_rename(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        fill()
    assert str(path) in str(raised.value)
    assert path.read_text(encoding="utf-8") == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("fill", FULL_DISKS)
def test_full_disk_leaves_the_old_folder(tmp_path: Path, fill: Callable[[], None]) -> None:
    path = tmp_path / "teacher"
    path.mkdir()
    (path / "old").touch()
    says = "free space or choose another --out"
    with pytest.raises(EdgeError, match=says), folder_written_by_rename(path) as temporary:
        (temporary / "model.safetensors").write_bytes(b"half")
        fill()
    assert [item.name for item in path.iterdir()] == ["old"]
    assert leftovers(tmp_path) == []


def test_limit_on_file_size_is_one_line(tmp_path: Path) -> None:
    program = (
        "import resource, sys\nfrom pathlib import Path\nimport numpy as np\n"
        "from embridge_edge.artifacts import written_by_rename\nfrom embridge_edge.errors import EdgeError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    with written_by_rename(Path(sys.argv[1])) as temporary:\n"
        "        np.save(temporary.open('wb'), np.zeros(100_000))\n"
        "except EdgeError as error:\n    sys.exit(str(error))\n"
    )

    command = [sys.executable, "-B", "-c", program, str(tmp_path / "windows.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Cannot write {tmp_path / 'windows.npy'}: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_only_what_a_killed_run_left_of_this_file_is_removed(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom embridge_edge.artifacts import written_by_rename\n"
        "with written_by_rename(Path(sys.argv[1])) as temporary:\n    os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "a[1].json"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert len(leftovers(tmp_path)) == 1
    kept = [".a[1].json", ".a[1].json.mine", ".a1.json.00000000.json", ".a[1].json.00000000.old"]
    for name in (path.name, *kept):
        (tmp_path / name).touch()
    remove_leftovers(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted([path.name, *kept])


def test_a_folder_that_a_killed_run_left_goes_and_others_stay(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom embridge_edge.artifacts import folder_written_by_rename\n"
        "with folder_written_by_rename(Path(sys.argv[1])) as temporary:\n"
        "    (temporary / 'file').touch()\n    os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "package"
    subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert len(leftovers(tmp_path)) == 1
    for name in ("package", ".package.a1b2c3d4.old", ".package.backup", ".package.my-notes"):
        (tmp_path / name).mkdir()
    remove_leftovers(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == [".package.backup", ".package.my-notes", "package"]


def test_another_error_keeps_its_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="somewhere-else"), written_by_rename(tmp_path / "out.json"):
        (tmp_path / "somewhere-else").read_bytes()
    with pytest.raises(EdgeError, match="a gate"), folder_written_by_rename(tmp_path / "out"):
        raise EdgeError("a gate")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [written_by_rename, folder_written_by_rename])
def test_parent_that_is_a_file_is_one_line(tmp_path: Path, write: Writer) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EdgeError, match="choose another --out"), write(tmp_path / "file" / "out"):
        pass


def test_file_in_the_way_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(EdgeError, match="Cannot write"), folder_written_by_rename(tmp_path / "out"):
        pass
    assert leftovers(tmp_path) == []


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    for write in (written_by_rename, folder_written_by_rename):
        with pytest.raises(KeyboardInterrupt), write(tmp_path / "out"):
            raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_may_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    current = os.umask(0o022)
    try:
        write_json(tmp_path / "a.json", {})
        with folder_written_by_rename(tmp_path / "b"):
            pass
    finally:
        os.umask(current)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o755


def test_writers_at_the_same_time_leave_one_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "shared.json"
    values = [{"values": [index] * 20_000} for index in range(8)]
    threads = [threading.Thread(target=write_json, args=(path, value)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read_json(path) in values
    assert leftovers(tmp_path) == []


def test_json_says_none_for_what_it_cannot_say(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": [float("inf"), 1.0], "c": ({"d": -float("inf")},)})
    assert read_json(tmp_path / "a.json") == {"a": None, "b": [None, 1.0], "c": [{"d": None}]}
    assert finite(np.float64("nan")) is None


@pytest.mark.parametrize(
    ("text", "says"), [("{", "no|not valid JSON"), ("[]", "holds no JSON object"), ("\xff", "JSON")]
)
def test_file_that_is_no_json_object_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(EdgeError, match=says):
        read_json(path)


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="does not exist"):
        read_json(tmp_path / "a.json")


def test_hash_depends_on_the_value_and_not_on_its_order(tmp_path: Path) -> None:
    assert sha256_of({"a": 1, "b": [1.5]}) == sha256_of({"b": [1.5], "a": 1}) != sha256_of({"a": 1, "b": [2.5]})
    path = tmp_path / "a.json"
    path.write_text(canonical_json({"a": 1, "b": [1.5]}), encoding="utf-8")
    assert sha256_of_file(path) == sha256_of(json.loads(path.read_text(encoding="utf-8")))
