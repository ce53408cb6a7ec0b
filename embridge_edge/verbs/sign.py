"""`sign`: put an Ed25519 signature beside a bundle's manifest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from embridge_edge.artifacts import written_by_rename
from embridge_edge.errors import EdgeError
from embridge_edge.export.bundle import SIGNATURE, check_bundle
from embridge_edge.progress import SILENT, Progress
from embridge_edge.verbs.options import Common, common_options, show
from embridge_edge.verbs.verify import refuse_problems


@dataclass(frozen=True)
class SignReport:
    """The signature that was written.

    Attributes:
        key_sha256: of the public half of the key, as DER.
    """

    signature: Path
    files: int
    artifacts_sha256: str
    key_sha256: str

    def text(self) -> str:
        return (
            f"{self.signature}: {self.files} files signed with the key of SHA-256 {self.key_sha256}\n"
            f"artifacts {self.artifacts_sha256}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "signature": str(self.signature),
            "files": self.files,
            "artifacts_sha256": self.artifacts_sha256,
            "key_sha256": self.key_sha256,
        }


def sign(bundle: Path, key: Path, *, force: bool = False, seed: int = 0, progress: Progress = SILENT) -> SignReport:
    """Check a bundle as `verify` does and sign its manifest.

    Args:
        bundle: folder that deploy wrote. key: Ed25519 private key in PEM that only its owner may read.
        force: replace a signature that is there. seed: taken for uniformity with the other verbs; nothing here is random.

    Raises:
        EdgeError: no bundle, no such key, or it is signed already.
        GateMissed: the bundle is not what its manifest says.
    """
    from embridge_edge.export.signing import key_sha256, read_private_key

    private = read_private_key(key)
    found = check_bundle(bundle)
    refuse_problems(found.problems)
    assert found.manifest is not None  # noqa: S101 (a problem else)
    if found.signature is not None and not force:
        raise EdgeError(f"{bundle} is signed already; sign it anew with --force.")
    with written_by_rename(bundle / SIGNATURE) as temporary:
        temporary.write_bytes(private.sign(found.manifest.content))
    return SignReport(
        signature=bundle / SIGNATURE,
        files=len(found.manifest.files),
        artifacts_sha256=found.manifest.artifacts_sha256,
        key_sha256=key_sha256(private.public_key()),
    )


@click.command("sign")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path), help="Ed25519 private key (PEM).")
@common_options
def command(bundle: Path, key: Path, common: Common) -> None:
    """Sign the manifest of BUNDLE, and with it every file that the manifest lists.

    \b
    Make a key once and keep it to yourself; its public half goes to whoever verifies:
        openssl genpkey -algorithm ed25519 -out key.pem
        openssl pkey -in key.pem -pubout -out public.pem
    """
    show(sign(bundle, key, force=common.force, seed=common.seed, progress=common.progress), common)
