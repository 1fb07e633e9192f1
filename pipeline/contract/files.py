"""Where contracts lie: beside a model in a folder, and in what is delivered."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from pipeline import formats
from pipeline.contract.contract import EXTRA_FILE, METADATA_KEY, Contract
from pipeline.contract.onnx_metadata import metadata
from pipeline.errors import InputError, IntegrityError
from pipeline.files import read_bytes, read_json
from pipeline.paths import CONTRACT_SUFFIX
from pipeline.untrusted.zip_archive import open_archive

MODEL_FILE = "model.safetensors"
CONTRACT_FILE = "contract.json"
MAX_BYTES = 4 << 20  # ImageNet-21k's labels are half a megabyte


def load_contract(folder: Path) -> Contract:
    """Read the first half of the contract that lies beside a model.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: it is not a contract.
    """
    path = folder / CONTRACT_FILE
    return _parsed(json.dumps(read_json(path)), path)


def read_contract(path: Path) -> Contract:
    """Read the contract that a delivered file carries, without a runtime that loads the file.

    Raises:
        IntegrityError: the file is damaged, or carries no contract.
    """
    known = formats.of_file(path.name)
    if known is None:
        raise IntegrityError(f"{path} is of no known format")
    read: Callable[[Path], bytes] = formats.resolve(known.contract)
    try:
        return _parsed(read(path).decode(), path)
    except UnicodeDecodeError as error:
        raise _damaged(path, str(error)) from None
    except InputError as error:
        raise _damaged(path, str(error).split("; ")[0]) from None


def _parsed(text: str, path: Path) -> Contract:
    try:
        return Contract.from_json(text)
    except IntegrityError as error:
        raise IntegrityError(f"{path}: {error}") from None


def in_archive(path: Path) -> bytes:
    """In a ``.ptl``, a zip archive, as an extra file."""
    with open_archive(path, path.name) as archive:
        inside = [n for n in archive.namelist() if n.endswith(f"/extra/{EXTRA_FILE}")]
        if len(inside) != 1:
            raise _lacking(path)
        with archive.open(inside[0]) as file:
            return _limited(file.read(MAX_BYTES + 1), path)


def in_metadata(path: Path) -> bytes:
    """In an ONNX file, as an entry of its metadata."""
    content = metadata(path, METADATA_KEY, MAX_BYTES)
    if content is None:
        raise _lacking(path)
    return content


def beside(path: Path) -> bytes:
    """In a file of its own, beside one that has no room for it."""
    contract = path.with_name(path.name + CONTRACT_SUFFIX)
    if not contract.is_file():
        raise IntegrityError(f"{contract} is missing; deliver it with {path.name}")
    return read_bytes(contract, MAX_BYTES)


def _limited(content: bytes, path: Path) -> bytes:
    if len(content) > MAX_BYTES:
        raise _damaged(path, f"its contract is larger than {MAX_BYTES} bytes")
    return content


def _lacking(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} carries no contract; was it made by edge-vit?")


def _damaged(path: Path, reason: str) -> IntegrityError:
    return IntegrityError(f"{path} is damaged ({reason}); fetch or build it again")
