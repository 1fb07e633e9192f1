"""The logits that parity evidence rests on, held to the hashes in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError, IntegrityError
from pipeline.core.evidence import logits_sha256

LOGITS_FILE = "logits.npz"

Logits = NDArray[np.float32]


def load_logits(
    artifacts: Path, parity: Mapping[str, Any], keys: Iterable[str] | None = None
) -> dict[str, Logits]:
    """Read logits [n, classes] by key: ``reference``, a format or a step (default: all measured).

    Raises:
        InputError: they are missing or damaged.
        IntegrityError: they are not those that were measured.
    """
    path = artifacts / "parity" / LOGITS_FILE
    hashes: Mapping[str, str] = parity["logits_sha256"]
    hint = "run `dvc repro --force parity`"
    try:
        with np.load(path, allow_pickle=False) as archive:
            logits = {key: archive[key] for key in (hashes if keys is None else keys)}
    except FileNotFoundError:
        raise InputError(f"{path} is missing; run `dvc repro` to make it") from None
    except (KeyError, ValueError, OSError, EOFError, BadZipFile) as error:
        raise InputError(f"{path} does not hold what was measured ({error}); {hint}") from None
    for key, rows in logits.items():
        if logits_sha256(rows) != hashes.get(key):
            raise IntegrityError(f"the logits of {key} are not the measured ones; {hint}")
    return logits
