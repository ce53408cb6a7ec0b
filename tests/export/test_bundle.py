"""A bundle is what its manifest says: any other byte, file or link is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.errors import EdgeError
from embridge_edge.export.bundle import (
    MANIFEST,
    SEAL,
    SIGNATURE,
    Part,
    check_bundle,
    write_manifest,
)

FILES = {
    "student_int8.tflite": b"\x00\x01TFL3" + bytes(range(256)),
    "student/model.json": b'{"kind": "student"}\n',
    "student/model.safetensors": bytes(40),
    "MODEL_CARD.md": b"# Model card\n",
    "report.json": b"{}\n",
    "empty": b"",
}


def make(folder: Path, **about: Any) -> Path:
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    parts = [Part(name, "file", ("a" * 64,), reproducible=name != "report.json") for name in FILES]
    write_manifest(folder, {"seed": 0, "versions": {"torch": "2.13.0"}, **about}, parts)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return make(tmp_path_factory.mktemp("whole") / "bundle")


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "bundle"))


def problems(folder: Path) -> list[str]:
    return [str(problem) for problem in check_bundle(folder).problems]


def rewritten(folder: Path, change: dict[str, Any], seal: bool = True) -> None:
    """The manifest with other values, and with its own hash as an attacker would make it."""
    value = json.loads((folder / MANIFEST).read_text()) | change
    del value[SEAL]
    if seal:
        digest = hashlib.sha256((json.dumps(value, indent=2) + "\n").encode()).hexdigest()
        value |= {SEAL: digest}
    (folder / MANIFEST).write_text(json.dumps(value, indent=2) + "\n")


def test_whole_bundle_has_no_problem(whole: Path) -> None:
    found = check_bundle(whole)
    assert (found.problems, found.signature, found.workspace) == ((), None, False)
    assert found.manifest is not None
    assert {row.path: row.size_bytes for row in found.manifest.files} == {k: len(v) for k, v in FILES.items()}
    for row in found.manifest.files:
        assert row.sha256 == hashlib.sha256(FILES[row.path]).hexdigest()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_refused_with_its_files_name(whole: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([MANIFEST, MANIFEST, *(name for name in FILES if FILES[name])]))
    before = (whole / name).read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        (whole / name).write_bytes(changed)
        found = problems(whole)
    finally:
        (whole / name).write_bytes(before)
    assert len(found) == 1
    assert found[0].startswith(f"{name} ")
    assert problems(whole) == []


def test_every_byte_of_the_manifest_matters(whole: Path, tmp_path: Path) -> None:
    """Spaces included: a manifest that another program has laid out anew is another file."""
    content = (whole / MANIFEST).read_bytes()
    bundle = Path(shutil.copytree(whole, tmp_path / "bundle"))
    for place in range(len(content)):
        (bundle / MANIFEST).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert [line.split()[0] for line in problems(bundle)] == [MANIFEST], place
    for other in (content[:-1], content + b"\n", content + b"x", b"", content.replace(b"\n", b"\r\n")):
        (bundle / MANIFEST).write_bytes(other)
        assert [line.split()[0] for line in problems(bundle)] == [MANIFEST]


@settings(max_examples=200, deadline=None)
@given(content=st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["files", "format", SEAL, "path"]), inner),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_no_manifest_is_believed_or_ends_in_a_traceback(whole: Path, content: bytes) -> None:
    before = (whole / MANIFEST).read_bytes()
    try:
        (whole / MANIFEST).write_bytes(content)
        found = check_bundle(whole)
    finally:
        (whole / MANIFEST).write_bytes(before)
    assert found.manifest is None
    assert [problem.path for problem in found.problems] == [MANIFEST]


@pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 5000, b'{"a": ' * 50_000])
def test_manifest_that_would_break_the_reader_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    assert [line.split()[0] for line in problems(bundle)] == [MANIFEST]


@pytest.mark.parametrize(
    "path",
    ["../outside", "/etc/passwd", "a/../../outside", "./empty", "student//model.json", "", ".", "C:/x", "..\\outside", "a\nb", "a\0b",
     MANIFEST, SIGNATURE, "work/x", "student/", 7, None],
)  # fmt: skip
def test_path_that_leads_out_of_the_bundle_or_is_not_plain_is_refused_and_not_opened(
    bundle: Path, path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    (bundle.parent / "outside").write_bytes(b"")
    row = {"path": path, "sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0}
    rewritten(bundle, {"files": [row]})
    opened: list[str] = []
    plain = os.open
    monkeypatch.setattr(os, "open", lambda name, *more: (opened.append(str(name)), plain(name, *more))[1])
    (problem,) = problems(bundle)
    assert problem.startswith(f"{MANIFEST} names ")
    assert "\n" not in problem
    assert "\0" not in problem
    assert opened == [str(bundle / MANIFEST)]


@pytest.mark.parametrize(
    "row", [{"sha256": "x" * 64}, {"sha256": None}, {"bytes": -1}, {"bytes": True}, {"bytes": "0"}, {"bytes": 1.5}]
)
def test_row_without_hash_or_size_is_refused(bundle: Path, row: dict[str, Any]) -> None:
    rewritten(bundle, {"files": [{"path": "empty", "sha256": hashlib.sha256(b"").hexdigest(), "bytes": 0} | row]})
    assert problems(bundle) == [f"{MANIFEST} gives no SHA-256 or no size of 'empty'"]


def test_file_that_is_named_twice_is_refused(bundle: Path) -> None:
    rows = json.loads((bundle / MANIFEST).read_text())["files"]
    rewritten(bundle, {"files": [*rows, rows[0]]})
    assert "names it twice" in problems(bundle)[0]


def test_manifest_without_a_seal_is_of_another_version(bundle: Path) -> None:
    rewritten(bundle, {"format": None}, seal=False)
    assert "make the bundle again" in problems(bundle)[0]
    rewritten_again = json.loads((bundle / MANIFEST).read_text())
    assert SEAL not in rewritten_again


def test_extra_missing_and_changed_files_are_named(bundle: Path) -> None:
    (bundle / "student" / "more").write_bytes(b"x")
    (bundle / "empty").unlink()
    (bundle / "MODEL_CARD.md").write_bytes(b"# Model card!")
    (bundle / "report.json").write_bytes(b"{}\n\n")
    assert problems(bundle) == [
        "MODEL_CARD.md was changed: its SHA-256 is not the one in the manifest",
        "report.json was changed: it has 4 bytes, the manifest says 3",
        "empty is missing",
        "student/more is not in the manifest",
    ]


def test_name_that_would_steer_a_terminal_is_escaped(bundle: Path) -> None:
    (bundle / "a\x1b[31m\nb").touch()
    os.close(os.open(os.fsencode(bundle) + b"/\xff", os.O_CREAT | os.O_WRONLY))
    assert problems(bundle) == [r"'a\x1b[31m\nb' is not in the manifest", r"'\udcff' is not in the manifest"]


def test_links_are_refused_and_not_followed(bundle: Path) -> None:
    """Also to the very same bytes: what a link points to may change after it was looked at."""
    outside = bundle.parent / "outside"
    outside.mkdir()
    (bundle / "student").replace(outside / "student")
    (bundle / "student").symlink_to(outside / "student")
    (bundle / "empty").unlink()
    (bundle / "empty").symlink_to("/dev/null")
    (bundle / "loop").symlink_to(".")
    (bundle / "nowhere").symlink_to("not-there")
    linked = [line.split()[0] for line in problems(bundle) if "is a symbolic link" in line]
    assert linked == ["empty", "loop", "nowhere", "student"]


def test_manifest_signature_and_workspace_that_are_links_are_refused(bundle: Path) -> None:
    for name in (MANIFEST, SIGNATURE):
        (bundle / name).touch()
        (bundle / name).replace(bundle.parent / name)
        (bundle / name).symlink_to(bundle.parent / name)
    assert problems(bundle) == [f"{MANIFEST} is a symbolic link; a bundle holds plain files only"]
    (bundle / MANIFEST).unlink()
    shutil.copy(bundle.parent / MANIFEST, bundle / MANIFEST)
    (bundle / "work").symlink_to(bundle.parent)
    assert [line.split()[0] for line in problems(bundle)] == [SIGNATURE, "work"]


def test_pipe_is_refused_without_waiting_for_it(bundle: Path) -> None:
    (bundle / "empty").unlink()
    os.mkfifo(bundle / "empty")
    assert problems(bundle) == ["empty is no plain file"]


def test_workspace_of_deploy_is_no_part_of_the_bundle(bundle: Path) -> None:
    (bundle / "work" / "windows").mkdir(parents=True)
    (bundle / "work" / "windows" / "signal.npy").write_bytes(b"x")
    found = check_bundle(bundle)
    assert found.problems == ()
    assert found.workspace
    (bundle / "student" / "work").mkdir()
    (bundle / "student" / "work" / "x").touch()
    assert problems(bundle) == ["student/work/x is not in the manifest"]


def test_no_manifest_and_no_folder(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()
    assert problems(bundle) == [f"{MANIFEST} is missing: this is no bundle, or deploy did not finish it"]
    with pytest.raises(EdgeError, match="is no folder"):
        check_bundle(bundle / "empty")


def test_reproducible_files_alone_make_the_artifacts_hash(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two", seed=1)
    (two / "report.json").write_bytes(b'{"created": "later"}\n')
    parts = [Part(name, "file", (), reproducible=name != "report.json") for name in reversed(FILES)]
    write_manifest(two, {"seed": 1}, parts)
    first, second = (check_bundle(folder).manifest for folder in (one, two))
    assert first is not None
    assert second is not None
    assert first.artifacts_sha256 == second.artifacts_sha256
    (two / "empty").write_bytes(b"no more")
    write_manifest(two, {"seed": 1}, parts)
    third = check_bundle(two).manifest
    assert third is not None
    assert third.artifacts_sha256 != first.artifacts_sha256


def test_manifest_is_whole_or_not_at_all(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (bundle / MANIFEST).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EdgeError, match="No space left"):
        write_manifest(bundle, {}, [Part("empty", "file", ())])
    monkeypatch.undo()
    assert (bundle / MANIFEST).read_bytes() == before
    assert problems(bundle) == []


def test_checking_needs_the_standard_library_alone(whole: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom embridge_edge.export.bundle import check_bundle\n"
        f"assert not check_bundle(Path({str(whole)!r})).problems\n"
        "print(*{'numpy', 'torch', 'numba', 'click', 'cryptography', 'h5py', 'ai_edge_litert'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
