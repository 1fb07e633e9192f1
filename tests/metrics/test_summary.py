"""The summary that tables, cards and comparisons show."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.metrics.intervals import paired_drop, wilson
from pipeline.metrics.measures import against_float
from pipeline.metrics.summary import proportion, summary_of

REFERENCE = np.array([[3, 1, 0], [0, 2, 1], [1, 0, 4], [2, 1, 0]], np.float32)
CANDIDATE = np.array([[3, 1, 0], [2, 1, 0], [1, 0, 4], [0, 2, 1]], np.float32)
LABELS = np.array([0, 1, 2, 1])


def test_numbers_follow_from_the_measured_counts() -> None:
    measured = against_float(REFERENCE, CANDIDATE, LABELS, 0.0)

    summary = summary_of(measured, 0.9)

    assert summary is not None
    assert summary.accuracy is not None
    assert summary.top1_agreement.value == 0.5
    assert summary.top1_agreement.interval == wilson(2, 4, 0.9)
    assert summary.top5_agreement == proportion(4, 4, 0.9)
    assert summary.accuracy == proportion(3, 4, 0.9)
    assert summary.drop == paired_drop(2, 1, 1, 0, 0.9)


def test_without_labels_there_is_no_accuracy() -> None:
    summary = summary_of(against_float(REFERENCE, CANDIDATE, None, 0.0))

    assert summary is not None
    assert summary.accuracy is None
    assert summary.drop is None


@pytest.mark.parametrize(
    "measured",
    [None, against_float(REFERENCE, np.full_like(REFERENCE, np.nan), LABELS, 0.0)],
    ids=["not measured", "NaN"],
)
def test_nothing_is_said_of_a_file_without_numbers(measured: dict[str, object] | None) -> None:
    assert summary_of(measured) is None
