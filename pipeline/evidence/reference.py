"""The float reference's description: what its logits belong to (stage ``reference``)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.model import Machine, NoiseFloor, Sha256, parse
from pipeline.evidence.seal import SCHEMA
from pipeline.files import read_json
from pipeline.metrics.logits import Logits, logits_sha256
from pipeline.schema import Section

LOGITS_FILE = "logits.npy"  # float32 [n, classes]
REFERENCE_FILE = "reference.json"
REMEDY = "dvc repro --force reference"


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
    path, remedy = folder / REFERENCE_FILE, REMEDY
    content = read_json(path)
    if not isinstance(content, dict):
        raise IntegrityError(f"{path} describes no reference; run `{remedy}`")
    if content.get("schema") != SCHEMA:
        raise IntegrityError(
            f"{path} is of schema {content.get('schema')}, this edge-vit reads {SCHEMA}; "
            f"run `{remedy}`"
        )
    return parse(content, Reference, str(path), remedy)


def load_reference(folder: Path) -> tuple[Logits, Reference]:
    """Read the reference's logits, float32 [n, classes], and what they belong to.

    Raises:
        InputError: a file is missing or damaged.
        IntegrityError: the logits are not those that were taken, hold NaN or infinity, or a field
            is missing, unknown or impossible.
    """
    description, path = read_reference(folder), folder / LOGITS_FILE
    try:
        # Mapped, so that a header cannot claim more memory than the file has bytes.
        logits: Logits = np.array(np.load(path, "r", allow_pickle=False))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `{REMEDY}`") from None
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} is not an array of logits ({error}); run `{REMEDY}`") from None
    if (
        logits.dtype != np.float32
        or logits.ndim != 2
        or logits_sha256(logits) != description.logits_sha256
    ):
        raise IntegrityError(f"{path} was changed after it was taken; run `{REMEDY}`")
    if not np.isfinite(logits).all():
        raise IntegrityError(
            f"{path}: the float model answers with NaN or infinity, so nothing can be compared "
            "with it; look at the checkpoint and its preprocessing"
        )
    return logits, description
