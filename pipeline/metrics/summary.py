"""What tables, cards and comparisons say of a file's answers: proportions with their intervals."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.metrics.intervals import Interval, PairedDrop, paired_drop, wilson
from pipeline.metrics.measures import FloatComparison, NonFinite


@dataclass(frozen=True)
class Proportion:
    """A proportion of samples, 0 to 1, with its two-sided Wilson interval."""

    value: float
    interval: Interval


@dataclass(frozen=True, kw_only=True)
class AccuracySummary:
    """How close a file's answers are to the float model's on the same samples."""

    accuracy: Proportion | None  # top-1 against the labels; None without labels
    drop: PairedDrop | None  # float's accuracy less the file's, in pp; None without labels
    top1_agreement: Proportion  # the same best class as float
    top5_agreement: Proportion  # the same set of five best classes as float
    sqnr_db: float  # signal to quantization noise ratio of the logits


def proportion(successes: int, count: int, confidence: float = 0.95) -> Proportion:
    """``successes`` of ``count`` samples as a proportion with its Wilson interval.

    Raises:
        ValueError: as :func:`pipeline.metrics.intervals.wilson`.
    """
    interval = wilson(successes, count, confidence)
    return Proportion(successes / count, interval)


def summary_of(
    measured: FloatComparison | NonFinite | None, confidence: float = 0.95
) -> AccuracySummary | None:
    """Summarize what :func:`pipeline.metrics.measures.against_float` measured of a file.

    None where nothing can be said: it was not measured, or its logits held NaN or infinity.
    """
    if not isinstance(measured, FloatComparison):
        return None
    count, pairs = measured.count, measured.accuracy
    accuracy = drop = None
    if pairs:
        accuracy = proportion(pairs.right, count, confidence)
        drop = paired_drop(**pairs.model_dump(), confidence=confidence)
    return AccuracySummary(
        accuracy=accuracy,
        drop=drop,
        top1_agreement=proportion(measured.top1_equal, count, confidence),
        top5_agreement=proportion(measured.top5_equal, count, confidence),
        sqnr_db=measured.sqnr_db,
    )
