"""`sign` and `verify`: who has signed a bundle, in OpenSSL's own formats."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as elliptic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge_edge.api import sign, verify
from embridge_edge.cli import run
from embridge_edge.errors import EdgeError, GateMissed
from embridge_edge.export.bundle import MANIFEST, SEAL, SIGNATURE, Part, write_manifest
from embridge_edge.export.signing import PASSPHRASE

FILES = {"student_int8.tflite": bytes(range(200)), "student/model.json": b"{}\n", "report.json": b"[]\n"}


def key_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key as `openssl genpkey` and `openssl pkey -pubout` write them."""
    private = Ed25519PrivateKey.generate()
    paths = folder / f"{name}.pem", folder / f"{name}.public.pem"
    return written(paths[0], private), written_public(paths[1], private)


def written(path: Path, key: Any, passphrase: bytes | None = None) -> Path:
    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)
    return path


def written_public(path: Path, key: Any) -> Path:
    path.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return path


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("keys"), "mine")


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    """Not to be changed."""
    folder = tmp_path_factory.mktemp("signed") / "bundle"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, {"seed": 0}, [Part(name, "file", ("b" * 64,)) for name in FILES])
    assert run(["sign", str(folder), "--key", str(keys[0]), "--quiet"]) == 0
    return folder


@pytest.fixture
def bundle(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "bundle"))


@pytest.fixture
def says(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a verb that must end with a status; the one line on stderr."""

    def call(status: int, *arguments: str | Path) -> str:
        capsys.readouterr()
        assert run([*map(str, arguments)]) == status
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1, printed.err
        return printed.err

    return call


def test_signed_bundle_is_verified_with_its_key(
    bundle: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert run(["verify", str(bundle), "--key", str(keys[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["signed"], found["signature_checked"], found["files"]) == (True, True, True, 3)
    assert found["bytes"] == sum(map(len, FILES.values()))
    assert run(["verify", str(bundle)]) == 0
    assert "the signature was not checked" in capsys.readouterr().out


def test_openssl_agrees_in_both_directions(bundle: Path, tmp_path: Path) -> None:
    """The commands of the documentation: keys, the signature, and the key's hash."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl: apt-get install openssl")

    def ssl(*arguments: str | Path) -> bytes:
        return subprocess.run([openssl, *map(str, arguments)], capture_output=True, check=True).stdout

    key, public = tmp_path / "key.pem", tmp_path / "public.pem"
    ssl("genpkey", "-algorithm", "ed25519", "-out", key)
    ssl("pkey", "-in", key, "-pubout", "-out", public)
    assert sign(bundle, key, force=True).key_sha256 == verify(bundle, key=public).key_sha256
    hashed = ssl("pkey", "-pubin", "-in", public, "-outform", "DER")
    assert (
        verify(bundle, key=public).key_sha256
        == subprocess.run([openssl, "dgst", "-sha256", "-r"], input=hashed, capture_output=True, check=True)
        .stdout.decode()
        .split()[0]
    )
    checked = ("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin", "-in", bundle / MANIFEST)
    assert b"Success" in ssl(*checked, "-sigfile", bundle / SIGNATURE)
    (bundle / SIGNATURE).unlink()
    ssl("pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", bundle / MANIFEST, "-out", bundle / SIGNATURE)
    assert verify(bundle, key=public).ok


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_of_a_signed_bundle_is_refused_with_its_files_name(
    signed: Path, keys: tuple[Path, Path], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from([MANIFEST, SIGNATURE, *FILES]))
    before = (signed / name).read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    changed = bytearray(before)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        (signed / name).write_bytes(changed)
        found = verify(signed, key=keys[1])
    finally:
        (signed / name).write_bytes(before)
    assert [problem.path for problem in found.problems] == [name]
    assert verify(signed, key=keys[1]).ok


def test_tampered_file_is_one_line_with_its_name_and_status_3(
    bundle: Path, keys: tuple[Path, Path], says: Callable[..., str]
) -> None:
    (bundle / "student_int8.tflite").write_bytes(bytes(200))
    line = says(3, "verify", bundle, "--key", keys[1])
    assert line.startswith("embridge-edge: student_int8.tflite was changed")
    assert says(3, "verify", bundle) == line
    (bundle / "more").touch()
    assert "; and 1 more." in says(3, "verify", bundle)


def test_manifest_that_an_attacker_made_anew_fails_on_the_signature(
    bundle: Path, keys: tuple[Path, Path], says: Callable[..., str]
) -> None:
    (bundle / "student_int8.tflite").write_bytes(bytes(200))
    write_manifest(bundle, {"seed": 0}, [Part(name, "file", ("b" * 64,)) for name in FILES])
    assert verify(bundle).ok  # which is why a receiver asks with a key
    assert says(3, "verify", bundle, "--key", keys[1]).startswith(f"embridge-edge: {SIGNATURE} is no signature of")


def test_signature_by_another_key_is_refused(bundle: Path, tmp_path: Path, says: Callable[..., str]) -> None:
    _, other = key_pair(tmp_path, "other")
    assert SIGNATURE in says(3, "verify", bundle, "--key", other)


@pytest.mark.parametrize("content", [b"", b"x" * 63, b"x" * 64, b"x" * 65, b"x" * 100_000])
def test_signature_that_is_none_is_refused(bundle: Path, keys: tuple[Path, Path], content: bytes) -> None:
    (bundle / SIGNATURE).write_bytes(content)
    assert [problem.path for problem in verify(bundle, key=keys[1]).problems] == [SIGNATURE]
    assert verify(bundle).ok == (len(content) == 64)  # without the key its length is all that can be said


def test_folder_in_the_place_of_the_signature_is_named(
    bundle: Path, keys: tuple[Path, Path], says: Callable[..., str]
) -> None:
    (bundle / SIGNATURE).unlink()
    (bundle / SIGNATURE).mkdir()
    for words in (
        ["verify", bundle],
        ["verify", bundle, "--key", keys[1]],
        ["sign", bundle, "--key", keys[0], "--force"],
    ):
        assert f"{SIGNATURE} is no plain file" in says(3, *words)


def test_unsigned_bundle_is_refused_only_where_a_key_is_given(
    bundle: Path, keys: tuple[Path, Path], says: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / SIGNATURE).unlink()
    assert f"{SIGNATURE} is missing" in says(3, "verify", bundle, "--key", keys[1])
    assert run(["verify", str(bundle)]) == 0
    assert "not signed" in capsys.readouterr().out


def test_changed_bundle_is_not_signed(bundle: Path, keys: tuple[Path, Path], says: Callable[..., str]) -> None:
    before = (bundle / SIGNATURE).read_bytes()
    (bundle / "report.json").write_bytes(b"{}\n")
    assert "report.json was changed" in says(3, "sign", bundle, "--key", keys[0], "--force")
    assert (bundle / SIGNATURE).read_bytes() == before


def test_signature_is_replaced_only_with_force(bundle: Path, tmp_path: Path, says: Callable[..., str]) -> None:
    private, public = key_pair(tmp_path, "other")
    assert "--force" in says(2, "sign", bundle, "--key", private)
    assert sign(bundle, private, force=True).files == 3
    assert verify(bundle, key=public).ok


def test_the_same_bundle_and_key_give_the_same_signature(bundle: Path, keys: tuple[Path, Path]) -> None:
    before = (bundle / SIGNATURE).read_bytes()
    sign(bundle, keys[0], force=True)
    assert (bundle / SIGNATURE).read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_private_key_that_others_may_use_is_refused(
    bundle: Path, tmp_path: Path, mode: int, says: Callable[..., str]
) -> None:
    private, _ = key_pair(tmp_path, "open")
    private.chmod(mode)
    assert f"chmod 600 {private}" in says(2, "sign", bundle, "--key", private, "--force")


def test_encrypted_key_takes_its_passphrase_from_the_environment(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: Callable[..., str]
) -> None:
    private = Ed25519PrivateKey.generate()
    key = written(tmp_path / "key.pem", private, b"secret")
    monkeypatch.delenv(PASSPHRASE, raising=False)
    assert PASSPHRASE in says(2, "sign", bundle, "--key", key, "--force")
    monkeypatch.setenv(PASSPHRASE, "guess")
    assert "passphrase" in says(2, "sign", bundle, "--key", key, "--force")
    monkeypatch.setenv(PASSPHRASE, "secret")
    sign(bundle, key, force=True)
    assert verify(bundle, key=written_public(tmp_path / "public.pem", private)).ok


def test_what_is_no_private_key_is_one_line(
    bundle: Path, tmp_path: Path, keys: tuple[Path, Path], says: Callable[..., str]
) -> None:
    public = Path(shutil.copy(keys[1], tmp_path / "public.pem"))
    public.chmod(0o600)
    other = written(tmp_path / "p256.pem", elliptic(SECP256R1()))
    os.mkfifo(tmp_path / "pipe")  # nobody writes into it: reading would wait for ever
    for name, content in (
        ("text", "no key"),
        ("ssh", "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----\n"),
        ("damaged", "-----BEGIN PRIVATE KEY-----\nb3Bl\n-----END PRIVATE KEY-----\n"),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o600)
    for key, words in (
        (tmp_path / "nothere", "openssl genpkey"),
        (tmp_path, "is no plain file"),
        (tmp_path / "pipe", "is no plain file"),
        (public, "is a public key"),
        (other, "of another kind"),
        (tmp_path / "text", "is no PEM file"),
        (tmp_path / "ssh", "has OpenSSH's own form"),
        (tmp_path / "damaged", "is no PEM key"),
    ):
        assert words in says(2, "sign", bundle, "--key", key, "--force")


def test_what_is_no_public_key_is_one_line(
    bundle: Path, tmp_path: Path, keys: tuple[Path, Path], says: Callable[..., str]
) -> None:
    other = written_public(tmp_path / "p256.pem", elliptic(SECP256R1()))
    (tmp_path / "text").write_text("no key")
    for key, words in (
        (tmp_path / "nothere", "openssl pkey"),
        (keys[0], "is a private key"),
        (other, "of another kind"),
        (tmp_path / "text", "is no public key"),
    ):
        assert words in says(2, "verify", bundle, "--key", key)


def test_no_bundle(tmp_path: Path, keys: tuple[Path, Path], says: Callable[..., str]) -> None:
    assert "is no folder" in says(2, "verify", tmp_path / "nothere")
    assert f"{MANIFEST} is missing" in says(3, "verify", tmp_path)
    assert f"{MANIFEST} is missing" in says(3, "sign", tmp_path, "--key", keys[0])
    assert [path.name for path in tmp_path.iterdir()] == []


def test_full_disk_leaves_the_old_signature(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private, _ = key_pair(tmp_path, "other")
    before = sorted((path.name, path.stat().st_size) for path in bundle.iterdir())
    old = (bundle / SIGNATURE).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EdgeError, match="No space left"):
        sign(bundle, private, force=True)
    monkeypatch.undo()
    assert (bundle / SIGNATURE).read_bytes() == old
    assert sorted((path.name, path.stat().st_size) for path in bundle.iterdir()) == before


def test_sign_raises_for_what_verify_reports(bundle: Path, keys: tuple[Path, Path]) -> None:
    (bundle / "more").touch()
    assert not verify(bundle).ok
    with pytest.raises(GateMissed, match="more is not in the manifest"):
        sign(bundle, keys[0], force=True)


def test_verifying_loads_nothing_heavy_and_is_quick(bundle: Path, keys: tuple[Path, Path]) -> None:
    heavy = {"torch", "numpy", "numba", "scipy", "h5py", "matplotlib", "ai_edge_litert", "onnx"}
    program = (
        "import sys\nfrom embridge_edge.cli import run\n"
        f"status = run(['verify', {str(bundle)!r}, '--key', {str(keys[1])!r}])\n"
        f"print(*{heavy!r} & set(sys.modules), file=sys.stderr)\nsys.exit(status)"
    )

    def spent_s() -> float:
        """Processor time of the processes that have ended: the clock says how busy the machine is."""
        return os.times().children_user + os.times().children_system

    before = spent_s()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    assert spent_s() - before < 2  # 0.2 s on a quiet machine


def test_without_cryptography_verify_checks_hashes_and_the_key_asks_for_the_extra(
    bundle: Path, keys: tuple[Path, Path]
) -> None:
    program = (
        "import sys\nsys.modules['cryptography'] = None\nfrom embridge_edge.cli import run\n"
        f"assert run(['verify', {str(bundle)!r}]) == 0\n"
        f"sys.exit(run(['verify', {str(bundle)!r}, '--key', {str(keys[1])!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'embridge-edge[sign]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_manifest_names_its_own_hash_last(signed: Path) -> None:
    assert list(json.loads((signed / MANIFEST).read_text()))[-1] == SEAL
    assert (signed / SIGNATURE).stat().st_size == 64
