"""Statistics of latency: bounds that the count supports, ratios of interleaved runs, drift."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, ndtr

from pipeline.core.statistics import Interval

Values = NDArray[np.float64]

RESAMPLES = 2000
DRIFT_P = 0.001
DRIFT_MIN = 0.05  # of the median; a drift too small to matter is none, however sure it is
VARIANCE_RATIO = 4.0


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


@dataclass(frozen=True)
class Drift:
    """Whether a series of runs changed while it was taken."""

    relative_slope: float  # change over the whole series, as a fraction of the median
    p_value: float  # Mann-Kendall, two-sided
    spread_ratio: float  # larger to smaller median absolute deviation of both halves
    drifting: bool


def quantile_bounds(values: Values, quantile: float, confidence: float) -> QuantileBounds:
    """Bound a quantile by order statistics, each side at ``confidence``.

    The k-th smallest of n values is an upper bound of the q-quantile with probability
    P(Binomial(n, q) < k) (David & Nagaraja, Order Statistics, 7.1). Too few values support no
    bound: at 99%, p90 needs 44 and p99 459.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n = len(ordered)
    if n == 0 or not np.isfinite(ordered).all():
        raise ValueError("values must be finite and at least one")
    ranks = np.arange(n)
    upper = np.nonzero(bdtr(ranks, n, quantile) >= confidence)[0]  # P(Bin <= k-1), k = rank + 1
    lower = np.nonzero(1 - bdtr(ranks, n, quantile) >= confidence)[0]  # P(Bin >= k)
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
    """Median ratio of paired, interleaved runs [n], with a moving-block bootstrap interval.

    Neighbouring runs resemble each other, so blocks of n^(1/3) rounds are drawn instead of single
    rounds (Künsch 1989); the seed makes the same evidence give the same interval.
    """
    a, b = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"need two equally long series of at least 2 runs: {a.shape}, {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all() and (a > 0).all() and (b > 0).all()):
        raise ValueError("latencies must be finite and positive")
    ratios = a / b
    n = len(ratios)
    length = max(1, math.ceil(n ** (1 / 3)))
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, n - length + 1, (resamples, math.ceil(n / length)))
    index = (starts[:, :, None] + np.arange(length)).reshape(resamples, -1)[:, :n]
    medians = np.median(ratios[index], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Ratio(float(np.median(ratios)), Interval(float(low), float(high)))


def drift(values: Values) -> Drift:
    """Look for a trend (Mann-Kendall, Theil-Sen slope) and for a change of spread in a series."""
    series = np.asarray(values, np.float64)
    n = len(series)
    if n < 10 or not np.isfinite(series).all():
        raise ValueError("need at least 10 finite values")
    i, j = np.triu_indices(n, 1)
    steps = series[j] - series[i]
    score = np.sign(steps).sum()
    variance = n * (n - 1) * (2 * n + 5) / 18
    z = (abs(score) - 1) / math.sqrt(variance) if score else 0.0
    p = min(1.0, 2 * float(ndtr(-z)))
    slope = float(np.median(steps / (j - i))) * n / float(np.median(series))
    spreads = [_mad(half) for half in np.array_split(series, 2)]
    spread = max(spreads) / max(min(spreads), 1e-12) if max(spreads) > 0 else 1.0
    noticeable = max(spreads) > DRIFT_MIN * float(np.median(series))
    return Drift(
        relative_slope=slope,
        p_value=p,
        spread_ratio=spread,
        drifting=(p < DRIFT_P and abs(slope) > DRIFT_MIN)
        or (spread > VARIANCE_RATIO and noticeable),
    )


def _mad(values: Values) -> float:
    return float(np.median(np.abs(values - np.median(values))))


def median(values: Values) -> float:
    """Median, in the unit of the values."""
    return float(np.median(np.asarray(values, np.float64)))
