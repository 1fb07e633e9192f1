"""Sign a release, and make the key pair for it (docs/adr/0022)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, IntegrityError
from pipeline.files import beside, open_up, read_bytes, write_bytes
from pipeline.release.manifest import SIGNATURE_FILE
from pipeline.release.signatures import (
    MAX_KEY_BYTES,
    check,
    hashing,
    key_id,
    pem,
    require_library,
)
from pipeline.release.verification import verify

PRIVATE_FILE = "edge-vit.key"
PUBLIC_FILE = "edge-vit.pub"
GIT_FILES = ("HEAD", "objects", "refs")  # of a repository without a work tree


def sign(folder: Path, key: Path) -> Path:
    """Sign the release in ``folder`` with a private key (PEM); return its ``model.sig``.

    A signature that the same key made before is kept.

    Raises:
        InputError: the key cannot be used, or model-signing is not installed.
        IntegrityError: the release is not what was published, or another key has signed it.
    """
    require_library("edge-vit sign")
    private = _read_private(key)
    problems = verify(folder)
    if problems:
        listed = "\n  ".join(problems)
        raise IntegrityError(
            f"{folder} is not signed, since it is not what was published:\n  {listed}"
        )
    signature = folder / SIGNATURE_FILE
    # Beside the release: inside, an interrupted run would leave an extra file.
    real = folder.resolve()
    with beside(real.with_name(f"{real.name}.sig")) as new:
        _sign(folder, key, new)
        open_up(new)
        try:
            os.link(new, signature)  # never replaces
        except FileExistsError:
            _require_same(folder, private.public_key(), new.with_name(PUBLIC_FILE))
    return signature


def _sign(folder: Path, key: Path, out: Path) -> None:
    from model_signing.signing import Config

    signer = Config().use_elliptic_key_signer(private_key=key)
    signer.set_hashing_config(hashing()).sign(folder, out)


def _require_same(folder: Path, public: Any, scratch: Path) -> None:
    """Stop unless the signature that is there was made with this key."""
    scratch.write_bytes(pem(public))
    problems = check(folder, scratch)
    if problems:
        name = folder / SIGNATURE_FILE
        raise IntegrityError(
            f"{name} is there already and was not made with key {key_id(public)[:16]}; "
            f"delete {name} if this key is to stand for the release instead"
        )


def _read_private(path: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    hint = "make a key pair with `edge-vit sign --generate-key DIR`"
    if not path.exists():
        raise InputError(f"{path} is missing; {hint}")
    content = read_bytes(path, MAX_KEY_BYTES)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise InputError(
            f"{path} has a password, which edge-vit does not ask for; {hint}"
        ) from None
    except Exception:  # the library raises several, and its messages help nobody
        key = None
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InputError(f"{path} is not a private key of an elliptic curve; {hint}")
    return key


def generate(folder: Path) -> tuple[Path, Path, str]:
    """Write a key pair into ``folder``; return the private and the public file, and the key's id.

    Raises:
        InputError: there is one already, or the folder lies in a git repository.
    """
    require_library("edge-vit sign --generate-key")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    refuse_repository(folder)
    private, public = folder / PRIVATE_FILE, folder / PUBLIC_FILE
    for path in (private, public):
        if os.path.lexists(path):
            raise InputError(f"{path} exists; keys are never replaced: choose another folder")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    number = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(number, "wb") as file:
        file.write(secret)
    write_bytes(public, pem(key.public_key()))
    return private, public, key_id(key.public_key())


def refuse_repository(folder: Path) -> None:
    """Refuse a folder in a git repository, where a private key may be committed.

    Raises:
        InputError: names the repository.
    """
    real = folder.absolute().resolve()
    for parent in (real, *real.parents):
        bare = all((parent / name).exists() for name in GIT_FILES)
        if bare or os.path.lexists(parent / ".git"):
            raise InputError(
                f"{folder} lies in the git repository {parent}, where a private key may "
                "be committed by mistake; choose a folder outside, such as ~/.config/edge-vit"
            )
