"""What parity measures, from logits alone: pure, so that `publish` can measure again and compare.

Everything is a finite number: an SQNR without end (equal logits) is written as 300 dB, far above
what float32 can resolve. Logits that hold NaN or infinity are measured no further.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from pipeline.metrics import distances
from pipeline.metrics.distances import Flips
from pipeline.metrics.logits import answers, class_logits
from pipeline.schema import Count, Section

DIGITS = 9  # significant; equal logits must give equal evidence on every platform
SQNR_LIMIT_DB = 300.0
# A logit is the sum of some hundred products, and so many rounded ones are off by about sqrt(n) / 2
# units of the sum's last place.
ROUNDING_ULPS = 8

Amount = Annotated[int, Field(ge=0)]  # of samples
NotNegative = Annotated[float, Field(ge=0)]


class PairedCounts(Section):
    """Samples by whether the float model and the file answer as their label says."""

    both: Amount
    only_float: Amount
    only_edge: Amount
    neither: Amount

    @property
    def count(self) -> int:
        """All samples."""
        return self.both + self.only_float + self.only_edge + self.neither

    @property
    def right(self) -> int:
        """Samples that the file answers rightly."""
        return self.both + self.only_edge

    @property
    def changed(self) -> int:
        """Samples that only one of both answers rightly."""
        return self.only_float + self.only_edge


class NonFinite(Section):
    """Logits of ``count`` samples that hold NaN or infinity: nothing is measured."""

    count: Count
    finite: Literal[False] = False


class FloatComparison(Section):
    """A file's logits against the float reference's on the same ``count`` samples."""

    count: Count
    finite: Literal[True] = True
    top1_equal: Amount  # samples with the same best class
    top5_equal: Amount  # samples with the same set of five best classes
    accuracy: PairedCounts | None  # None without labels
    flips: Flips
    sqnr_db: float
    kl_mean: float  # nats
    kl_p99: float
    cosine_mean: float
    max_abs: NotNegative  # logits
    p999_abs: NotNegative


class StepComparison(Section):
    """A step's logits against those of the step before on the same ``count`` samples."""

    count: Count
    finite: Literal[True] = True
    max_abs: NotNegative  # logits
    rms: NotNegative
    top1_changed: Amount  # samples


Compared = Annotated[StepComparison | NonFinite, Field(discriminator="finite")]


def float32_resolution(logits: NDArray[np.float32]) -> float:
    """How far apart logits [n, classes] of this size may be by float32's rounding, in logits.

    Never zero for finite logits: runs that happen to be equal bit by bit do not show that all are.
    """
    return ROUNDING_ULPS * float(np.spacing(np.float32(np.abs(logits).max())))


def against_float(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    labels: NDArray[np.int64] | None,
    noise_floor: float,
    threshold: float | None = None,
) -> FloatComparison | NonFinite:
    """Compare a file's logits [n, outputs] with the float reference's, and labels [n] if any.

    ``noise_floor`` is in logits; ``threshold`` that of one sigmoid output, as
    :func:`pipeline.metrics.logits.class_logits` has it. Raises ValueError where logits cannot be
    compared.
    """
    if not np.isfinite(candidate).all():
        return NonFinite(count=len(reference))
    even = None if threshold is None else 0.5  # at which both classes are equally probable
    kl = distances.kl_divergence(class_logits(reference, even), class_logits(candidate, even))
    difference = np.abs(reference.astype(np.float64) - candidate)
    classes = class_logits(reference, threshold), class_logits(candidate, threshold)
    counts = distances.agreement_counts(*classes)
    return FloatComparison(
        count=len(reference),
        top1_equal=counts.top1,
        top5_equal=counts.top5,
        accuracy=None if labels is None else _accuracy(*classes, labels),
        flips=distances.flips(*classes, labels, noise_floor),
        sqnr_db=_number(
            np.clip(distances.sqnr_db(reference, candidate), -SQNR_LIMIT_DB, SQNR_LIMIT_DB)
        ),
        kl_mean=_number(kl.mean()),
        kl_p99=_number(np.percentile(kl, 99)),
        cosine_mean=_number(distances.cosine(reference, candidate).mean()),
        max_abs=_number(difference.max()),
        p999_abs=_number(np.percentile(difference, 99.9)),
    )


def between_steps(
    before: NDArray[np.float32], after: NDArray[np.float32], threshold: float | None = None
) -> StepComparison | NonFinite:
    """Compare a step's logits [n, outputs] with the step before, which it should not change.

    ``threshold`` is as in :func:`against_float`.
    """
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return NonFinite(count=len(before))
    return StepComparison(
        count=len(before),
        max_abs=_number(np.abs(before.astype(np.float64) - after).max()),
        rms=_number(np.sqrt(np.mean((before.astype(np.float64) - after) ** 2))),
        top1_changed=int((answers(before, threshold) != answers(after, threshold)).sum()),
    )


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
) -> PairedCounts:
    right_float = reference.argmax(1) == labels
    right_edge = candidate.argmax(1) == labels
    return PairedCounts(
        both=int((right_float & right_edge).sum()),
        only_float=int((right_float & ~right_edge).sum()),
        only_edge=int((~right_float & right_edge).sum()),
        neither=int((~right_float & ~right_edge).sum()),
    )


def _number(value: float | np.floating[Any]) -> float:
    return float(f"{float(value):.{DIGITS}g}")
