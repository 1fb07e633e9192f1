"""Logits as arrays, as JSON and as a hash, and the answers that they stand for."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]


def class_logits(logits: Logits, threshold: float | None) -> Logits:
    """Logits of classes, float32 [n, classes], of which the largest is the answer.

    ``logits`` [n, outputs] are what a model gives. With a ``threshold`` they are one sigmoid logit,
    [n, 1], and the answer is the second of two classes where its probability is above the
    threshold: the first class has the threshold's own logit. None: they are those of classes.

    Raises:
        ValueError: there is a threshold, and another number of outputs.
    """
    if threshold is None:
        return logits
    if logits.shape[1:] != (1,):
        raise ValueError(f"a sigmoid head gives one logit an image, got shape {logits.shape}")
    column = logits[:, 0]
    limit = np.full_like(column, math.log(threshold / (1 - threshold)))
    return np.stack([limit, column], axis=1)


def answers(logits: Logits, threshold: float | None) -> NDArray[np.int64]:
    """The class [n] that each of ``logits`` [n, outputs] stands for; as :func:`class_logits`."""
    best: NDArray[np.int64] = class_logits(logits, threshold).argmax(1)
    return best


def logits_sha256(logits: Logits) -> str:
    """SHA-256 of logits' bytes (float32, C order)."""
    return hashlib.sha256(np.ascontiguousarray(logits, np.float32).tobytes()).hexdigest()


def json_logits(logits: Logits) -> list[list[float | None]]:
    """Logits as numbers that give the same float32 when read; null for NaN and infinity."""
    return [[float(str(value)) if np.isfinite(value) else None for value in row] for row in logits]


def logits_array(logits: Sequence[Sequence[float | None]]) -> Logits:
    """The logits that :func:`json_logits` wrote, float32 [n, classes]; NaN for null."""
    return np.array(logits, np.float32)
