"""The float reference's description: what its logits belong to (stage ``reference``)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.errors import IntegrityError
from pipeline.evidence.model import Machine, NoiseFloor, Sha256, parse
from pipeline.evidence.seal import SCHEMA
from pipeline.files import read_json
from pipeline.schema import Section

LOGITS_FILE = "logits.npy"  # float32 [n, classes]
REFERENCE_FILE = "reference.json"


class Reference(Section):
    """Float32 logits of the checkpoint on the samples, by their hash, and their noise floor."""

    schema_: Literal[1] = Field(default=1, alias="schema")
    checkpoint_sha256: Sha256
    samples_sha256: Sha256
    logits_sha256: Sha256
    noise_floor: NoiseFloor
    machine: Machine


def read_reference(folder: Path) -> Reference:
    """Read ``reference.json`` in ``folder``.

    Raises:
        InputError: it is missing or not JSON.
        IntegrityError: a field is missing, unknown or impossible.
    """
    path, remedy = folder / REFERENCE_FILE, "dvc repro --force reference"
    content = read_json(path)
    if not isinstance(content, dict):
        raise IntegrityError(f"{path} describes no reference; run `{remedy}`")
    if content.get("schema") != SCHEMA:
        raise IntegrityError(
            f"{path} is of schema {content.get('schema')}, this edge-vit reads {SCHEMA}; "
            f"run `{remedy}`"
        )
    return parse(content, Reference, str(path), remedy)
