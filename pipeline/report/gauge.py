"""A criterion drawn on a line: where its value lies between its limit and the best possible.

All gauges read alike: the limit is a quarter of the way from the left, the best possible at the
right end, and what the gate refuses lies left of the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.metrics.intervals import Interval
from pipeline.verdict.criterion import Criterion

LIMIT = 25.0  # place of the limit, where the line is 0 to 100 long
BEST = 100.0
BEST_SHARE = 1.0  # of answers that are float's


@dataclass(frozen=True)
class Gauge:
    """A criterion on a line from 0 to 100; what leaves the line is drawn at its end."""

    value: float
    interval: Interval | None
    words: str  # the same for readers who do not see it


def gauge(criterion: Criterion) -> Gauge | None:
    """Place a criterion on its line; None where a finite value or limit is missing."""
    value, limit, interval = criterion.value, criterion.limit, criterion.interval
    ends = (interval.low, interval.high) if interval else ()
    if value is None or limit is None or not all(map(math.isfinite, (value, limit, *ends))):
        return None
    shortfall = _shortfall(criterion.name)
    allowed = shortfall(limit)

    def place(number: float) -> float:
        missing = shortfall(number)
        if allowed <= 0:  # only the best possible is allowed
            return BEST if missing <= 0 else 0.0
        return round(min(max(BEST - (BEST - LIMIT) * missing / allowed, 0.0), BEST), 2)

    drawn = None
    if interval:
        places = [place(interval.low), place(interval.high)]
        # A tolerance on both sides is best at nought, which may lie inside the interval.
        places += [place(0.0)] if _is_tolerance(criterion.name) and _holds_zero(interval) else []
        drawn = Interval(min(places), max(places))
    side = "within ±" if _is_tolerance(criterion.name) else _side(criterion.name)
    return Gauge(
        value=place(value),
        interval=drawn,
        words=f"{value:.4g}{f' {interval:.4g}' if interval else ''}; allowed is {side}{limit:.4g}",
    )


def _shortfall(name: str) -> Callable[[float], float]:
    """What a value of the criterion lacks to the best possible one, which is 0."""
    if _is_tolerance(name):
        return abs
    if name.endswith("_db"):
        # The error as a part of the signal: decibels themselves have no best possible value.
        return lambda decibels: float(10 ** (-decibels / 20))
    if "_min" in name:
        return lambda share: BEST_SHARE - share
    return lambda cost: cost


def _side(name: str) -> str:
    return "at least " if "_min" in name else "at most "


def _is_tolerance(name: str) -> bool:
    return "tolerance" in name


def _holds_zero(interval: Interval) -> bool:
    return interval.low < 0 < interval.high
