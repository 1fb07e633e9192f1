"""The logits that parity evidence rests on, checked against the hashes in it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pipeline.errors import InputError, IntegrityError, shown
from pipeline.evidence.parity import ParityEvidence
from pipeline.formats import REFERENCE
from pipeline.metrics.logits import Logits, logits_sha256
from pipeline.untrusted.npz import open_npz

LOGITS_FILE = "logits.npz"
MAX_BYTES = 1 << 28  # of one array: the 50 000 images of ImageNet's validation set have 200 MB


def load_logits(
    path: Path, parity: ParityEvidence, keys: Iterable[str] | None = None
) -> dict[str, Logits]:
    """Read logits [n, classes] by key: ``reference``, a format or a step (default: all measured).

    Raises:
        InputError: they are missing or damaged.
        IntegrityError: they are not those that were measured.
    """
    hashes = parity.logits_sha256
    hint = "run `dvc repro --force parity`"
    wanted = list(hashes if keys is None else keys)
    try:
        arrays = open_npz(path, str(path), wanted, MAX_BYTES)
    except InputError as error:
        if not path.exists():
            raise
        reason = str(error).split("; ")[0]
        raise InputError(f"{path} does not hold what was measured ({reason}); {hint}") from None
    if missing := [key for key in wanted if key not in arrays]:
        lacks = f"no {shown(missing[0])}"
        raise InputError(f"{path} does not hold what was measured ({lacks}); {hint}")
    for key in wanted:
        if arrays[key].dtype != np.float32 or logits_sha256(arrays[key]) != hashes.get(key):
            raise IntegrityError(f"the logits of {key} are not the measured ones; {hint}")
        _require_shape(key, arrays[key], parity, hint)
    return arrays


def _require_shape(key: str, logits: Logits, parity: ParityEvidence, hint: str) -> None:
    """Refuse logits that are not those of as many samples as were measured."""
    count = parity.samples.count
    every = key == REFERENCE or key in parity.artefacts
    few = logits.ndim != 2 or not 0 < len(logits) <= count or logits.shape[1] == 0
    if few or (every and len(logits) != count):
        raise IntegrityError(
            f"the logits of {key} have shape {shown(logits.shape)}, parity was measured on {count} "
            f"samples; {hint}"
        )
    if key == REFERENCE and not np.isfinite(logits).all():
        raise IntegrityError(f"the logits of {key} hold NaN or infinity; {hint}")
