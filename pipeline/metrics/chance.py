"""Whether a classifier is right more often than a guess."""

from __future__ import annotations

from pipeline.metrics.intervals import wilson

CAUSES = (
    "the usual causes are labels in another order than the model's outputs (folders sorted 0, 1, "
    "10, 2), another mean and standard deviation or size than it was trained with, and a head "
    "that was not trained"
)


def warning(right: int, count: int, classes: int, confidence: float = 0.95) -> str | None:
    """Say that ``right`` of ``count`` are no better than guessing among ``classes``, if so.

    They are better if the lower end of Wilson's interval lies above 1 / ``classes``.

    Raises:
        ValueError: impossible counts.
    """
    if classes < 2 or wilson(right, count, confidence).low > 1 / classes:
        return None
    return (
        f"the float model is right for {right} of {count} images ({100 * right / count:.1f}%), "
        f"which is not shown to be more than a guess among {classes} classes; {CAUSES}"
    )
