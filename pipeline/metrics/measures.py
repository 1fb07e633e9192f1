"""What parity measures, from logits alone: pure, so that `publish` can measure again and compare.

Everything is a finite number: an SQNR without end (equal logits) is written as 300 dB, far above
what float32 can resolve. Logits that hold NaN or infinity are measured no further.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics import distances

DIGITS = 9  # significant; equal logits must give equal evidence on every platform
SQNR_LIMIT_DB = 300.0


def against_float(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    noise_floor: float,
) -> dict[str, Any]:
    """Hold a file's logits [n, classes] against the float reference's, and labels [n] if any."""
    if not np.isfinite(candidate).all():
        return {"count": len(reference), "finite": False}
    kl = distances.kl_divergence(reference, candidate)
    difference = np.abs(reference.astype(np.float64) - candidate)
    counts = distances.agreement_counts(reference, candidate)
    return {
        "count": len(reference),
        "finite": True,
        "top1_equal": counts.top1,
        "top5_equal": counts.top5,
        "accuracy": None if labels is None else _accuracy(reference, candidate, labels),
        "flips": distances.flips(reference, candidate, labels, noise_floor).to_dict(),
        "sqnr_db": _number(
            np.clip(distances.sqnr_db(reference, candidate), -SQNR_LIMIT_DB, SQNR_LIMIT_DB)
        ),
        "kl_mean": _number(kl.mean()),
        "kl_p99": _number(np.percentile(kl, 99)),
        "cosine_mean": _number(distances.cosine(reference, candidate).mean()),
        "max_abs": _number(difference.max()),
        "p999_abs": _number(np.percentile(difference, 99.9)),
    }


def between_steps(before: NDArray[np.float32], after: NDArray[np.float32]) -> dict[str, Any]:
    """Hold a step's logits [n, classes] against the step before, which it should not change."""
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return {"count": len(before), "finite": False}
    return {
        "count": len(before),
        "finite": True,
        "max_abs": _number(np.abs(before.astype(np.float64) - after).max()),
        "rms": _number(np.sqrt(np.mean((before.astype(np.float64) - after) ** 2))),
        "top1_changed": int((before.argmax(1) != after.argmax(1)).sum()),
    }


def weight_error_steps(
    weight: NDArray[np.float32], integers: NDArray[np.int8], scale: NDArray[np.float64]
) -> float:
    """How far int8 weights [out, ...] lie from float ones, in quantization steps.

    Rounding to the nearest step is at most 0.5 away. More means that the int8 weights are not a
    quantization of these float weights: other weights, a swapped row, a wrong scale.
    """
    steps = weight.astype(np.float64) / scale.reshape(-1, *[1] * (weight.ndim - 1))
    return float(np.abs(steps - integers).max())


def _accuracy(
    reference: NDArray[np.float32], candidate: NDArray[np.float32], labels: NDArray[np.int64]
) -> dict[str, int]:
    right_float = reference.argmax(1) == labels
    right_edge = candidate.argmax(1) == labels
    return {
        "both": int((right_float & right_edge).sum()),
        "only_float": int((right_float & ~right_edge).sum()),
        "only_edge": int((~right_float & right_edge).sum()),
        "neither": int((~right_float & ~right_edge).sum()),
    }


def _number(value: float | np.floating[Any]) -> float:
    return float(f"{float(value):.{DIGITS}g}")
