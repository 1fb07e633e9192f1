"""Where contracts lie: beside a model in a folder, and in what is delivered."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from pipeline.core.contract import EXTRA_FILE, METADATA_KEY, Contract
from pipeline.core.errors import IntegrityError
from pipeline.support.files import read_json
from pipeline.support.paths import CONTRACT_SUFFIX

MODEL_FILE = "model.safetensors"
CONTRACT_FILE = "contract.json"


def load_contract(folder: Path) -> Contract:
    """Read the first half of the contract that lies beside a model.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: it is no contract.
    """
    return Contract.from_json(json.dumps(read_json(folder / CONTRACT_FILE)))


def read_contract(path: Path) -> Contract:
    """Read the contract that a delivered file carries, without a runtime that loads the file.

    Raises:
        IntegrityError: the file is damaged, or carries no contract.
    """
    text = {".ptl": _in_archive, ".onnx": _in_metadata, ".pte": _beside}[path.suffix](path)
    return Contract.from_json(text)


def _in_archive(path: Path) -> str:
    """In a ``.ptl``, a zip archive, as an extra file."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = [n for n in archive.namelist() if n.endswith(f"/extra/{EXTRA_FILE}")]
            if len(inside) != 1:
                raise IntegrityError(f"{path} carries no contract; was it made by edge-vit?")
            return archive.read(inside[0]).decode()
    except zipfile.BadZipFile as error:
        raise IntegrityError(f"{path} is damaged ({error}); fetch or build it again") from None


def _in_metadata(path: Path) -> str:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    except DecodeError as error:
        raise IntegrityError(f"{path} is damaged ({error}); fetch or build it again") from None
    if METADATA_KEY not in found:
        raise IntegrityError(f"{path} carries no contract; was it made by edge-vit?")
    return str(found[METADATA_KEY])


def _beside(path: Path) -> str:
    beside = path.with_name(path.name + CONTRACT_SUFFIX)
    if not beside.is_file():
        raise IntegrityError(f"{beside} is missing; deliver it with {path.name}")
    return beside.read_text()
