"""`verify`: is a bundle what its manifest says, and is the manifest signed?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from embridge_edge.errors import GateMissed
from embridge_edge.export.bundle import SIGNATURE, WORKSPACE, Findings, Problem, check_bundle, shown
from embridge_edge.export.signing import SIGNATURE_BYTES
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, show

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MOST_SHOWN = 20


@dataclass(frozen=True)
class Verification:
    """What is wrong with a bundle, if anything.

    Attributes:
        files, size_bytes: that the manifest lists. artifacts_sha256: one hash for what equal runs share; None without a manifest.
        problems: in the order in which they matter.
        signed: whether there is a signature; whether it is right was looked at where a key was given.
        key_sha256: of the public key that the signature was checked with; None where no key was given.
        workspace: whether deploy's workspace stands in the folder, which belongs to no bundle and was not looked at.
    """

    folder: Path
    files: int
    size_bytes: int
    artifacts_sha256: str | None
    problems: tuple[Problem, ...]
    signed: bool
    key_sha256: str | None
    workspace: bool

    @property
    def ok(self) -> bool:
        return not self.problems

    def text(self) -> str:
        if not self.ok:
            lines = [f"  {problem}" for problem in self.problems[:MOST_SHOWN]]
            more = len(self.problems) - len(lines)
            return "\n".join(
                [f"{self.folder}: not the bundle that was made", *lines, *([f"  and {more} more"] if more else [])]
            )
        signature = "not signed"
        if self.key_sha256 is not None:
            signature = f"signed with the key of SHA-256 {self.key_sha256}"
        elif self.signed:
            signature = "signed; the signature was not checked, which takes --key PUBLIC"
        lines = [
            f"{self.folder}: {self.files} files, {self.size_bytes:,} bytes, all as the manifest says",
            signature,
            f"artifacts {self.artifacts_sha256}",
        ]
        if self.workspace:
            lines.append(f"{WORKSPACE}/ is deploy's workspace: no part of the bundle, not looked at")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "ok": self.ok,
            "files": self.files,
            "bytes": self.size_bytes,
            "artifacts_sha256": self.artifacts_sha256,
            "signed": self.signed,
            "signature_checked": self.key_sha256 is not None,
            "key_sha256": self.key_sha256,
            "problems": [{"path": shown(problem.path), "what": problem.what} for problem in self.problems],
            "workspace": self.workspace,
        }


def verify(bundle: Path, *, key: Path | None = None, seed: int = 0, progress: Progress = SILENT) -> Verification:
    """Hold a bundle against its manifest, and the manifest against its signature. What is wrong does not raise: the result names it.

    Args:
        bundle: folder that deploy wrote. key: public key in PEM; with one, a bundle that it did not sign is refused.
        seed: taken for uniformity with the other verbs; nothing here is random.

    Raises:
        EdgeError: no such folder, or no Ed25519 public key.
    """
    public = None
    if key is not None:  # a wrong key file is said before hundreds of megabytes are read
        from embridge_edge.export.signing import read_public_key

        public = read_public_key(key)
    found = check_bundle(bundle)
    problems, digest = list(found.problems), None
    if (wrong := _wrong_with_signature(found, public)) is not None:
        problems.insert(0, Problem(SIGNATURE, wrong))
    if public is not None:
        from embridge_edge.export.signing import key_sha256

        digest = key_sha256(public)
    rows = found.manifest.files if found.manifest is not None else ()
    return Verification(
        folder=bundle,
        files=len(rows),
        size_bytes=sum(row.size_bytes for row in rows),
        artifacts_sha256=None if found.manifest is None else found.manifest.artifacts_sha256,
        problems=tuple(problems),
        signed=found.signature is not None,
        key_sha256=digest,
        workspace=found.workspace,
    )


def _wrong_with_signature(found: Findings, public: Ed25519PublicKey | None) -> str | None:
    if found.signature is not None and len(found.signature) != SIGNATURE_BYTES:
        return f"is no Ed25519 signature, which has {SIGNATURE_BYTES} bytes"
    if public is None or found.manifest is None:
        return None
    if found.signature is None:
        named = any(problem.path == SIGNATURE for problem in found.problems)
        return None if named else "is missing: nobody has signed this bundle"
    from embridge_edge.export.signing import is_signed_by

    if is_signed_by(public, found.signature, found.manifest.content):
        return None
    return "is no signature of manifest.json with this key: another key, or the manifest was changed since"


def refuse_problems(problems: tuple[Problem, ...]) -> None:
    """Refuse a bundle that is not what its manifest says.

    Raises:
        GateMissed: names the first file, and says how many more there are.
    """
    if problems:
        more = f"; and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise GateMissed(f"{problems[0]}{more}.")


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key", type=click.Path(path_type=Path), help="Public key (PEM); the bundle must be signed with its private half."
)
@common_options
def command(bundle: Path, key: Path | None, common: Common) -> None:
    """Check every file of BUNDLE against its manifest, and the manifest against its signature.

    Ends with status 3 where a file was changed, is missing or is not in the manifest, or where the signature is not by the key.
    """
    report = verify(bundle, key=key, seed=common.seed, progress=common.progress)
    show(report, common)
    refuse_problems(report.problems)
