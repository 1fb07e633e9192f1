"""Distances between the logits of two models on the same samples, both float32 [n, classes].

Sums are taken in float64. Logits of different shapes, none at all, NaN and infinity are refused
with ValueError: nothing to compare is never an agreement. Limits are the gate's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.logits import Logits
from pipeline.schema import Section

PerSample = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Samples whose top-1 is the same, and whose five best classes are the same set."""

    top1: int
    top5: int


class Flips(Section):
    """Samples whose top-1 changed, by direction.

    Without labels no direction is known and all of them are ``unlabelled``. A flip
    ``within_noise``, counted in its direction as well, is one where the float model's own lead
    was inside the noise floor: it could have gone either way in float, too.
    """

    right_to_wrong: int
    wrong_to_right: int
    wrong_to_wrong: int
    unlabelled: int
    within_noise: int


def agreement_counts(reference: Logits, candidate: Logits) -> Agreement:
    """Count equal top-1 and equal top-5 sets (of min(5, classes) classes).

    Of equal logits the lower class comes first, on every platform.
    """
    _check(reference, candidate)
    k = min(5, reference.shape[1])
    best = np.sort(np.argsort(-reference, axis=1, kind="stable")[:, :k], axis=1)
    other = np.sort(np.argsort(-candidate, axis=1, kind="stable")[:, :k], axis=1)
    return Agreement(
        top1=int((reference.argmax(1) == candidate.argmax(1)).sum()),
        top5=int((best == other).all(1).sum()),
    )


def kl_divergence(reference: Logits, candidate: Logits) -> PerSample:
    """KL(softmax(reference) || softmax(candidate)) of each sample, in nats [n]."""
    _check(reference, candidate)
    p, q = _log_softmax(reference), _log_softmax(candidate)
    ratio = p - q
    # sum(q - p) = 0 is added, so that no term is negative: the plain sum of p * ratio cancels
    # until only rounding is left where two models differ as little as float runtimes do.
    series = ratio**2 * (1 / 2 - ratio / 6 + ratio**2 / 24 - ratio**3 / 120)
    small = np.abs(ratio) < 0.01
    terms = np.where(small, np.exp(p) * series, np.exp(p) * (ratio - 1) + np.exp(q))
    divergence: PerSample = terms.sum(1)
    return divergence


def cosine(reference: Logits, candidate: Logits) -> PerSample:
    """Cosine of the angle between both answers, per sample [n]; 1 where both are zero."""
    _check(reference, candidate)
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = (a == 0).all(1) & (b == 0).all(1)
    return np.where(both_zero, 1.0, (a * b).sum(1) / np.where(norms == 0, 1.0, norms))


def sqnr_db(reference: Logits, candidate: Logits) -> float:
    """Signal to quantization noise ratio over all logits, in decibels; infinite if equal."""
    _check(reference, candidate)
    signal = np.square(reference, dtype=np.float64).sum()
    noise = np.square(reference.astype(np.float64) - candidate).sum()
    if noise == 0:
        return float("inf")
    return float(10 * np.log10(signal / noise)) if signal else float("-inf")


def top1_margin(logits: Logits) -> PerSample:
    """How far the best class leads the second, per sample [n], in logits; infinite if alone."""
    if logits.shape[1] < 2:
        return np.full(len(logits), np.inf)
    two = np.partition(logits.astype(np.float64), -2, axis=1)[:, -2:]
    margin: PerSample = two[:, 1] - two[:, 0]
    return margin


def flips(
    reference: Logits,
    candidate: Logits,
    labels: NDArray[np.int64] | None,
    noise_floor: float,
) -> Flips:
    """Count changed top-1 answers by direction; ``noise_floor`` in logits, ``labels`` [n].

    Raises:
        ValueError: logits that cannot be compared, labels of another length, or a noise floor
            that is negative or NaN.
    """
    _check(reference, candidate)
    if labels is not None and labels.shape != reference.shape[:1]:
        raise ValueError(f"need {len(reference)} labels, got shape {labels.shape}")
    if not noise_floor >= 0:
        raise ValueError(f"noise floor must be at least 0, got {noise_floor}")
    before, after = reference.argmax(1), candidate.argmax(1)
    changed = before != after
    # Each of two logits may be off by the floor, so a lead below twice that is no lead.
    within = changed & (top1_margin(reference) <= 2 * noise_floor)
    if labels is None:
        return Flips(
            right_to_wrong=0,
            wrong_to_right=0,
            wrong_to_wrong=0,
            unlabelled=int(changed.sum()),
            within_noise=int(within.sum()),
        )
    was, now = before == labels, after == labels
    return Flips(
        right_to_wrong=int((changed & was).sum()),
        wrong_to_right=int((changed & now).sum()),
        wrong_to_wrong=int((changed & ~was & ~now).sum()),
        unlabelled=0,
        within_noise=int(within.sum()),
    )


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def _check(reference: Logits, candidate: Logits) -> None:
    if reference.shape != candidate.shape or reference.ndim != 2 or not reference.size:
        raise ValueError(
            f"logits must be of one shape [n, classes] with n > 0, got {reference.shape} "
            f"and {candidate.shape}"
        )
    if not (np.isfinite(reference).all() and np.isfinite(candidate).all()):
        raise ValueError("logits hold NaN or infinity")
