"""Statistics of latency: bounds that the count supports, ratios of interleaved runs, drift.

Runs that follow each other resemble each other: caches, clocks and other programs change more
slowly than one inference lasts. Whatever counts runs as if they were independent is too sure of
itself, so ratios and drift both ask first how much neighbours have in common.

Of few runs that cannot be told: with 10 to 20 whose neighbours correlate by 0.9 to 0.97, a ratio
at its limit seems to be under it in 9 to 26% of the cases instead of 5%. So a ratio of fewer than
``RUNS_MIN`` runs, or of runs that tell no more than ``EFFECTIVE_MIN`` independent ones, decides
nothing; of the others at most 5% seem to be under it (by simulation, in the tests).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr, stdtrit

from pipeline.metrics.intervals import Interval

Series = NDArray[np.float64]
Values = Series | Sequence[float]  # evidence holds lists

RESAMPLES = 2000
ROUNDS_MIN = 3
RUNS_MIN = 50  # below these two a ratio at its limit would pass more often than promised
EFFECTIVE_MIN = 10
MOST_ALIKE = 0.97  # correlation of neighbours; above it no series here is long enough anyway
DRIFT_RUNS_MIN = 10
DRIFT_POINTS = 1000  # longer series are thinned: all pairs are compared
DRIFT_P = 0.001
DRIFT_MIN = 0.05  # of the median; a drift too small to matter is none, however sure it is
SPREAD_RATIO = 4.0


@dataclass(frozen=True)
class QuantileBounds:
    """A quantile with distribution-free one-sided bounds; an end without support is None."""

    estimate: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Ratio:
    """Median of paired ratios, with its interval."""

    median: float
    interval: Interval
    effective_runs: float  # see :func:`effective_runs`, of the logarithms of the ratios


@dataclass(frozen=True)
class Drift:
    """Whether a series of runs changed while it was taken."""

    relative_slope: float  # change over the whole series, as a fraction of the median
    p_value: float  # Mann-Kendall, two-sided
    spread_ratio: float  # larger to smaller median absolute deviation of both halves
    drifting: bool


def median(values: Values) -> float:
    """Median, in the unit of the values.

    Raises:
        ValueError: no values, or not all of them finite.
    """
    return float(np.median(_series(values, 1)))


def quantile_bounds(values: Values, quantile: float, confidence: float) -> QuantileBounds:
    """Bound a quantile by order statistics, each side at ``confidence``, in the values' unit.

    The k-th smallest of n values is an upper bound of the q-quantile with probability
    P(Binomial(n, q) < k) (David & Nagaraja, Order Statistics, 7.1). Too few values support no
    bound: at 99%, p90 needs 44 and p99 459.

    Raises:
        ValueError: no values, not all finite, or a probability outside 0..1.
    """
    ordered = np.sort(_series(values, 1))
    _check_probability("quantile", quantile)
    _check_probability("confidence", confidence)
    n = len(ordered)
    below = bdtr(np.arange(n), n, quantile)  # P(Binomial <= k - 1) of the k-th smallest
    upper, lower = np.nonzero(below >= confidence)[0], np.nonzero(1 - below >= confidence)[0]
    return QuantileBounds(
        estimate=float(np.quantile(ordered, quantile, method="inverted_cdf")),
        low=float(ordered[lower[-1]]) if len(lower) else None,
        high=float(ordered[upper[0]]) if len(upper) else None,
    )


def bootstrap_ratio(
    numerator: Values,
    denominator: Values,
    confidence: float = 0.95,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Ratio:
    """Median ratio of paired, interleaved runs [n], with a two-sided interval.

    The standard error of the median log ratio comes from a circular block bootstrap (Politis &
    Romano 1992), the interval from Student's t with as many degrees of freedom as there are blocks
    less one: percentiles of the bootstrap would cover 80% instead of 95% where neighbours
    correlate by 0.6. The seed makes the same evidence give the same interval.

    Raises:
        ValueError: series of unequal length or fewer than 3 rounds; a time that is not positive.
    """
    a, b = _series(numerator, ROUNDS_MIN), _series(denominator, ROUNDS_MIN)
    _check_probability("confidence", confidence)
    if a.shape != b.shape:
        raise ValueError(f"paired series must be equally long, got {len(a)} and {len(b)}")
    if min(a.min(), b.min()) <= 0:
        raise ValueError("latencies must be positive")
    logs = np.log(a) - np.log(b)
    n, length = len(logs), _block_length(logs)
    blocks = n / length
    starts = np.random.default_rng(seed).integers(0, n, (resamples, math.ceil(blocks)))
    of_start = sliding_window_view(np.concatenate([logs, logs[: length - 1]]), length)
    drawn = of_start[starts].reshape(resamples, -1)[:, :n]
    drawn.sort(axis=1)  # five times as fast as np.median
    medians = (drawn[:, (n - 1) // 2] + drawn[:, n // 2]) / 2
    error = medians.std() * math.sqrt(blocks / (blocks - 1))
    half = float(stdtrit(blocks - 1, 0.5 + confidence / 2) * error)
    centre = float(np.median(logs))
    return Ratio(
        math.exp(centre),
        Interval(math.exp(centre - half), math.exp(centre + half)),
        effective_runs(logs),
    )


def effective_runs(values: Values) -> float:
    """How many independent runs tell as much as these [n], at least 1.

    n (1 - r) / (1 + r) for neighbours that correlate by r (Bayley & Hammersley 1946); 1 where r is
    beyond what can be told.

    Raises:
        ValueError: no values, or not all of them finite.
    """
    series = _series(values, 1)
    alike = _neighbour_correlation(series) if len(series) >= ROUNDS_MIN else MOST_ALIKE
    if alike >= MOST_ALIKE:
        return 1.0
    return max(1.0, len(series) * (1 - alike) / (1 + alike))


def thinned(values: Values) -> Series:
    """Every k-th of the values [n], so many as tell as much as all: nearly independent ones.

    For statistics that take their values for independent, as :func:`quantile_bounds` does.

    Raises:
        ValueError: no values, or not all of them finite.
    """
    series = _series(values, 1)
    return series[:: round(len(series) / effective_runs(series))]


def claim(ratio: Ratio, noise: float) -> str:
    """Say in words what a ratio shows, and nothing of differences under ``noise`` (a fraction)."""
    if ratio.interval.high < 1 / (1 + noise):
        return f"{1 / ratio.median:.2f} times as fast as"
    if ratio.interval.low > 1 + noise:
        return f"{ratio.median:.2f} times the time of"
    return f"no difference beyond {noise:.0%} shown to"


def drift(values: Values) -> Drift:
    """Look for a trend (Mann-Kendall, Theil-Sen slope) and for a change of spread in a series [n].

    Mann-Kendall's variance is widened by (1 + r) / (1 - r) for neighbours that correlate by r once
    the trend is taken out (Yue & Wang 2004); else slow noise would pass for a trend.

    Raises:
        ValueError: fewer than 10 values, or one that is not finite and positive.
    """
    series = _series(values, DRIFT_RUNS_MIN)
    if series.min() <= 0:
        raise ValueError("latencies must be positive")
    points = series
    if len(series) > DRIFT_POINTS:
        points = np.array([np.median(part) for part in np.array_split(series, DRIFT_POINTS)])
    n, middle = len(points), float(np.median(points))
    i, j = np.triu_indices(n, 1)
    steps = points[j] - points[i]
    slope = float(np.median(steps / (j - i)))
    alike = _neighbour_correlation(points - slope * np.arange(n))
    variance = n * (n - 1) * (2 * n + 5) / 18 * (1 + alike) / (1 - alike)
    score = max(0.0, abs(float(np.sign(steps).sum())) - 1) / math.sqrt(variance)
    p_value = min(1.0, 2 * float(ndtr(-score)))
    spreads = sorted(_spread(half) for half in np.array_split(series, 2))
    spread_ratio = spreads[1] / max(spreads[0], 1e-12 * middle) if spreads[1] else 1.0
    trend = p_value < DRIFT_P and abs(slope) * n > DRIFT_MIN * middle
    unsteady = spread_ratio > SPREAD_RATIO and spreads[1] > DRIFT_MIN * middle
    return Drift(slope * n / middle, p_value, spread_ratio, drifting=trend or unsteady)


def _block_length(series: Series) -> int:
    """Length of bootstrap blocks that neighbours' likeness calls for, at most a third of all.

    (6 n)^(1/3) (r / (1 - r^2))^(2/3) minimizes the error of the variance for AR(1) noise (Politis
    & White 2004); r is taken one standard error high, since blocks too short are the worse fault.
    """
    n = len(series)
    alike = min(_neighbour_correlation(series) + n**-0.5, MOST_ALIKE)
    wanted: float = (6 * n) ** (1 / 3) * (alike / (1 - alike**2)) ** (2 / 3)
    least: float = n ** (1 / 3)
    return max(1, min(math.ceil(max(wanted, least)), n // 3))


def _neighbour_correlation(series: Series) -> float:
    """Rank correlation of each value with the next, within 0..MOST_ALIKE; outliers do not hide it.

    (1 + 3 r) / n takes back the bias of short series (Kendall 1954).
    """
    _, place, count = np.unique(series, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place] - (len(series) + 1) / 2
    total = float(ranks @ ranks)
    alike = float(ranks[1:] @ ranks[:-1]) / total if total else 0.0
    return min(max(0.0, alike + (1 + 3 * alike) / len(series)), MOST_ALIKE)


def _spread(values: Series) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def _series(values: Values, least: int) -> Series:
    series = np.asarray(values, np.float64)
    if series.ndim != 1 or len(series) < least or not np.isfinite(series).all():
        raise ValueError(f"need at least {least} finite values, got shape {series.shape}")
    return series


def _check_probability(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")
