"""Signatures of releases, by OpenSSF model-signing with a key pair (docs/adr/0022).

``model.sig`` in the folder covers every other file, ``SHA256SUMS`` included. It is a Sigstore
bundle around an in-toto statement, which ``model_signing verify key`` checks as well.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import EdgeVitError, InputError, shown
from pipeline.files import parse_json, read_bytes
from pipeline.release.manifest import SIGNATURE_FILE

if TYPE_CHECKING:
    from model_signing.hashing import Config as Hashing

MAX_BYTES = 16 << 20
MAX_KEY_BYTES = 1 << 16
UNSIGNED = "not signed, so whoever changes a file can change its list as well"


def require_library(command: str) -> None:
    """Stop where model-signing is not installed.

    Raises:
        InputError: names the command that installs it.
    """
    try:
        import model_signing.signing
        import model_signing.verifying  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            f"{command} needs {error.name}, which is not installed; in the repository's folder, "
            f"run: {sys.executable} -m pip install -e '.[sign]'"
        ) from None


def state(folder: Path) -> str:
    """Return one line: whether the release is signed, which key it names, and how to check that."""
    path = folder / SIGNATURE_FILE
    if not os.path.lexists(path):
        return UNSIGNED
    try:
        key = _claimed_key(path)
    except EdgeVitError as error:
        return f"damaged: {error}"
    return (
        f"{SIGNATURE_FILE} names key {shown(key)[:16]}, not checked: give its owner's public key "
        "with --public-key"
    )


def check(folder: Path, public_key: Path) -> list[str]:
    """Check the release against its signature; return each problem.

    Raises:
        InputError: the key is not a public key, or model-signing is not installed.
    """
    require_library("--public-key")
    from model_signing.verifying import Config

    wanted = key_id(read_public(public_key))
    path = folder / SIGNATURE_FILE
    if not os.path.lexists(path):
        return [f"{SIGNATURE_FILE} is missing: the release is {UNSIGNED}"]
    try:
        claimed = _claimed_key(path)
        if claimed != wanted:
            names = f"{shown(claimed)[:16]}, {public_key} is {wanted[:16]}"
            return [f"{SIGNATURE_FILE} was made with another key: {names}"]
        verifier = Config().use_elliptic_key_verifier(public_key=public_key)
        verifier.set_hashing_config(hashing()).verify(folder, path)
    except EdgeVitError as error:
        return [str(error)]
    except Exception as error:  # the library raises whatever its parsers do
        reason = str(error) or "the signature is not of this content"
        return [f"{SIGNATURE_FILE} does not hold: {shown(reason, 400)}"]
    return []


def hashing() -> Hashing:
    """Return what is signed: every file but the signature, also those that git would ignore."""
    from model_signing.hashing import Config

    return Config().set_ignored_paths(paths=[SIGNATURE_FILE], ignore_git_paths=False)


def read_public(path: Path) -> Any:
    """Read a public key (PEM).

    Raises:
        InputError: it is not a public key of an elliptic curve.
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if not path.exists():
        raise InputError(
            f"{path} is missing; give the public key that `edge-vit sign --generate-key` wrote"
        )
    content = read_bytes(path, MAX_KEY_BYTES)
    try:
        key = load_pem_public_key(content)
    except Exception:  # the library raises several, and its messages help nobody
        key = None
    if not isinstance(key, EllipticCurvePublicKey):
        private = b"PRIVATE KEY" in content
        kind = "a private key: keep it to yourself" if private else "not a public key of this kind"
        raise InputError(
            f"{path} is {kind}; give the .pub file that `edge-vit sign --generate-key` wrote"
        )
    return key


def key_id(public: Any) -> str:
    """Return the SHA-256 of a public key's PEM, by which a signature names its key."""
    return hashlib.sha256(pem(public)).hexdigest()


def pem(public: Any) -> bytes:
    """Return a public key as PEM."""
    from cryptography.hazmat.primitives import serialization

    content: bytes = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return content


def _claimed_key(path: Path) -> str:
    """The key that a signature names; nothing is checked.

    Raises:
        InputError: it is not a signature of this kind.
    """
    try:
        bundle = parse_json(read_bytes(path, MAX_BYTES).decode())
        return str(bundle["verificationMaterial"]["publicKey"]["hint"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{SIGNATURE_FILE} is not a signature by a key pair") from None
