"""Where a criterion's value, interval and limit lie on its gauge."""

from __future__ import annotations

import pytest

from pipeline.metrics.intervals import Interval
from pipeline.report.gauge import BEST, LIMIT, gauge
from pipeline.verdict.criterion import PASS, Criterion


def criterion(
    name: str, value: float | None, limit: float | None, interval: Interval | None = None
) -> Criterion:
    return Criterion(
        name=name,
        subject=".ptl",
        outcome=PASS,
        value=value,
        interval=interval,
        limit=limit,
        unit="",
        note="",
    )


@pytest.mark.parametrize(
    ("name", "value", "limit", "allowed"),
    [
        ("top1_agreement_min", 0.99, 0.98, True),
        ("top1_agreement_min", 0.97, 0.98, False),
        ("sqnr_min_db", 41.0, 30.0, True),
        ("sqnr_min_db", 20.0, 30.0, False),
        ("size_ratio_max", 0.3, 0.35, True),
        ("size_ratio_max", 0.4, 0.35, False),
        ("noise_multiple", 1e-6, 1e-5, True),
        ("accuracy_drop_max_pp", -0.5, 1.0, True),
        ("published_tolerance_pp", -3.0, 4.0, True),
        ("published_tolerance_pp", -25.0, 4.0, False),
        ("published_tolerance_pp", 25.0, 4.0, False),
    ],
)
def test_the_dot_is_right_of_the_limit_when_the_limit_is_kept(name, value, limit, allowed):
    drawn = gauge(criterion(name, value, limit))
    assert drawn is not None
    assert (drawn.value > LIMIT) is allowed
    assert 0 <= drawn.value <= BEST


@pytest.mark.parametrize(
    ("name", "value", "limit", "place"),
    [
        ("size_ratio_max", 0.175, 0.35, 62.5),  # half of what is allowed
        ("top1_agreement_min", 0.99, 0.98, 62.5),
        ("published_tolerance_pp", -2.0, 4.0, 62.5),
        ("sqnr_min_db", 36.0206, 30.0, 62.5),  # 6.02 dB: half of the error
        ("top1_agreement_min", 1.0, 0.98, BEST),
        ("accuracy_drop_max_pp", -0.05, 1.0, BEST),
        ("size_ratio_max", 0.35, 0.35, LIMIT),
    ],
)
def test_without_an_interval_the_dot_lies_between_the_limit_and_the_best(name, value, limit, place):
    drawn = gauge(criterion(name, value, limit))
    assert drawn is not None
    assert drawn.interval is None
    assert drawn.value == pytest.approx(place, abs=0.01)


def test_nought_of_an_allowed_nought_is_the_best_and_anything_else_is_refused():
    best, refused = (gauge(criterion("noise_multiple", value, 0.0)) for value in (0.0, 1e-6))
    assert best is not None
    assert refused is not None
    assert best.value == BEST
    assert refused.value == 0


def test_an_interval_lies_around_its_value_and_over_a_limit_that_it_holds():
    drawn = gauge(criterion("size_ratio_max", 0.3, 0.35, Interval(0.28, 0.36)))
    assert drawn is not None
    assert drawn.interval is not None
    assert 0 < drawn.interval.low < LIMIT < drawn.value < drawn.interval.high < BEST


def test_an_interval_around_nought_of_a_tolerance_reaches_the_best():
    drawn = gauge(criterion("published_tolerance_pp", 0.7, 4.0, Interval(-0.55, 1.79)))
    assert drawn is not None
    assert drawn.interval == Interval(pytest.approx(66.44), BEST)


@pytest.mark.parametrize(("value", "limit"), [(None, 1.0), (1.0, None), (1.0, float("inf"))])
def test_without_a_number_or_a_limit_there_is_no_gauge(value, limit):
    assert gauge(criterion("size_ratio_max", value, limit)) is None
