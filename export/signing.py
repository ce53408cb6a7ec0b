"""Ed25519 signatures of a manifest, with keys and signatures as OpenSSL writes and reads them.

A signature is the 64 bytes over the bytes of `manifest.json` and nothing else, so that `openssl pkeyutl -verify -rawin` checks it too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from embridge_edge.errors import EdgeError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PASSPHRASE = "EMBRIDGE_EDGE_PASSPHRASE"  # noqa: S105 (the name of an environment variable)
MAKE_KEY = "openssl genpkey -algorithm ed25519 -out"
SIGNATURE_BYTES = 64


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """An Ed25519 private key from a PEM file (PKCS #8), which only its owner may read.

    An encrypted one is opened with the passphrase in the environment variable EMBRIDGE_EDGE_PASSPHRASE; nothing is asked for.

    Raises:
        EdgeError: there is none, others may read it, it is encrypted and the passphrase is wrong or missing, or it is of another kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _read(path, f"make one with {MAKE_KEY} {path}")
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise EdgeError(f"Others may use the private key {path} (its mode is {mode:03o}); run chmod 600 {path}.")
    if b"PUBLIC KEY" in content:
        raise EdgeError(f"{path} is a public key; sign with the private one that it belongs to.")
    if b"BEGIN OPENSSH" in content or b"-----BEGIN" not in content:
        kind = "has OpenSSH's own form" if b"BEGIN OPENSSH" in content else "is no PEM file"
        raise EdgeError(f"The key {path} {kind}; convert it to PKCS #8 in PEM, or make one with {MAKE_KEY} KEY.")
    passphrase = (os.environ.get(PASSPHRASE) or None) if b"ENCRYPTED" in content else None
    if b"ENCRYPTED" in content and passphrase is None:
        raise EdgeError(f"{path} is encrypted; put its passphrase into the environment variable {PASSPHRASE}.")
    try:
        key = load_pem_private_key(content, None if passphrase is None else passphrase.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        wrong = "cannot be opened: its passphrase is another, or it is damaged" if passphrase else "is no PEM key"
        raise EdgeError(f"{path} {wrong}; make a key with {MAKE_KEY} KEY.") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise EdgeError(f"{path} is a key of another kind; make an Ed25519 one with {MAKE_KEY} KEY.")
    return key


def read_public_key(path: Path) -> Ed25519PublicKey:
    """An Ed25519 public key from a PEM file.

    Raises:
        EdgeError: there is none, it is a private key, or one of another kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    make = "openssl pkey -in KEY -pubout -out PUBLIC"
    content = _read(path, f"write it with {make}")
    if b"PRIVATE KEY" in content:
        raise EdgeError(f"{path} is a private key, which no verification needs; write its public half with {make}.")
    try:
        key = load_pem_public_key(content)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise EdgeError(f"{path} is no public key in PEM; write it with {make}.") from None
    if not isinstance(key, Ed25519PublicKey):
        raise EdgeError(f"{path} is a key of another kind; bundles are signed with Ed25519.")
    return key


def _read(path: Path, otherwise: str) -> bytes:
    try:
        if not path.is_file():
            path.stat()  # says what is wrong where there is nothing
            raise EdgeError(f"The key {path} is no plain file; {otherwise}.")
        return path.read_bytes()
    except OSError as error:
        raise EdgeError(f"Cannot read the key {path}: {error.strerror}; {otherwise}.") from None


def key_sha256(key: Ed25519PublicKey) -> str:
    """SHA-256 of a public key as DER: `openssl pkey -pubin -in PUBLIC -outform DER | sha256sum`."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def is_signed_by(key: Ed25519PublicKey, signature: bytes, content: bytes) -> bool:
    """Whether a signature of `content` was made with the private half of `key`."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, content)
    except InvalidSignature:
        return False
    return True
