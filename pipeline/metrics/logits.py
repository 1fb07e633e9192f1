"""Logits as arrays, as JSON and as a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def logits_sha256(logits: Floats) -> str:
    """SHA-256 of logits' bytes (float32, C order)."""
    return hashlib.sha256(np.ascontiguousarray(logits, np.float32).tobytes()).hexdigest()


def json_logits(logits: Floats) -> list[list[float | None]]:
    """Logits as numbers that give the same float32 when read; null for NaN and infinity."""
    return [[float(str(value)) if np.isfinite(value) else None for value in row] for row in logits]


def logits_array(logits: Sequence[Sequence[float | None]]) -> Floats:
    """The logits that :func:`json_logits` wrote, float32 [n, classes]; NaN for null."""
    return np.array(logits, np.float32)
