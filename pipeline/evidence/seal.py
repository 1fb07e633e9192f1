"""Evidence: measurements as JSON, bound to the bytes and the machine they were taken on.

The seal is a SHA-256 over the evidence itself. It shows that evidence was edited or damaged after
it was measured; it does not stop somebody who computes a new seal, which is why `publish` measures
the logits again that the evidence rests on, and why releases are signed (docs/adr/0006).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import IntegrityError

SCHEMA = 1
SEAL = "seal"

Labels = NDArray[np.int64]


def seal(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of ``evidence`` with its seal."""
    unsealed = {key: value for key, value in evidence.items() if key != SEAL}
    return unsealed | {SEAL: _digest(unsealed)}


def check_seal(evidence: Any, kind: str, source: str, remedy: str | None = None) -> dict[str, Any]:
    """Return ``evidence`` if it is of this kind and schema and its seal holds.

    ``remedy`` is the command that makes it again, unless that is the stage named as the kind.

    Raises:
        IntegrityError: it is something else, or was changed after it was measured.
    """
    remedy = remedy or f"dvc repro --force {kind}"
    if not isinstance(evidence, dict) or evidence.get("kind") != kind:
        raise IntegrityError(f"{source} is not {kind} evidence; run `{remedy}`")
    if evidence.get("schema") != SCHEMA:
        raise IntegrityError(
            f"{source} is of schema {evidence.get('schema')}, this edge-vit reads {SCHEMA}; "
            f"run `{remedy}`"
        )
    recorded = evidence.get(SEAL)
    try:
        actual = _digest({key: value for key, value in evidence.items() if key != SEAL})
    except ValueError:
        raise IntegrityError(
            f"{source} holds NaN or infinity, which edge-vit never writes; "
            f"run `{remedy}` to measure again"
        ) from None
    if recorded != actual:
        raise IntegrityError(
            f"{source} was changed after it was measured: its seal is {recorded}, its content "
            f"gives {actual}; run `{remedy}` to measure again"
        )
    return evidence


def _digest(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
