"""Statistics of proportions: intervals, paired accuracy, and how many samples would decide.

Pure functions on counts. scipy.special alone at run time: scipy.stats and statsmodels cost most of
a second to import, and `edge-vit gate` decides in less; tests hold every function against them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import bdtr, betaincinv, ndtri, stdtrit

CONTINUITY = 0.5  # answers, by which the upper bound of a drop is corrected
POWER = 0.8  # with which samples_to_decide plans, as is usual for equivalence trials
MAX_SAMPLES = 10_000_000  # beyond which "more samples" is no advice


@dataclass(frozen=True)
class Interval:
    """Both ends of a confidence interval, in the unit of what it bounds."""

    low: float
    high: float

    def __format__(self, digits: str) -> str:
        """``[low, high]``, each end formatted by ``digits``."""
        return f"[{self.low:{digits}}, {self.high:{digits}}]"

    @property
    def percent(self) -> Interval:
        """That of a proportion, in percent."""
        return Interval(100 * self.low, 100 * self.high)


@dataclass(frozen=True)
class PairedDrop:
    """How much accuracy was lost on the same samples, in percentage points (float minus edge)."""

    drop_pp: float
    upper_pp: float  # one-sided upper bound, corrected for continuity
    interval_pp: Interval  # two-sided, at the same confidence


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Two-sided Wilson score interval of a proportion (Wilson 1927).

    Raises:
        ValueError: ``n`` is not positive, ``successes`` is not within 0..n, or ``confidence`` not
            between 0 and 1.
    """
    _check(successes, n, confidence)
    z = _z(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Rounding leaves an end at 1e-17 from its true place where the proportion is 0 or 1.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Two-sided exact interval of a proportion (Clopper & Pearson 1934), by beta quantiles.

    Raises:
        ValueError: as :func:`wilson`.
    """
    _check(successes, n, confidence)
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(low, high)


def paired_drop(
    both: int, only_float: int, only_edge: int, neither: int, confidence: float = 0.95
) -> PairedDrop:
    """Drop in accuracy from float to edge on the same samples, with Tango's score bounds.

    Tango, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17 (1998): bounds are the drops that the score
    test would not reject. Unlike Wald's they do not collapse to a point without discordant pairs.

    Counts are discrete, so the plain upper bound lies below a true drop in up to 6.7% of the cases
    instead of 5%. It is therefore taken with half an answer more lost, a correction for continuity.
    By enumeration of all outcomes it then never does so more often than ``confidence`` allows
    (docs/adr/0037-statistical-levels.md). The two-sided interval is Tango's own.

    Raises:
        ValueError: a count that is negative or not whole, or no samples at all.
    """
    _check_counts(both, only_float, only_edge, neither)
    n = both + only_float + only_edge + neither
    _check(0, n, confidence)
    drop = (only_float - only_edge) / n
    two_sided = _z(0.5 + confidence / 2)

    def bound(z: float, sign: int, lost: float = only_float) -> float:
        """The drop at which the score statistic equals ``-sign * z``, by bisection."""
        inside, outside = min((lost - only_edge) / n, 1.0), float(sign)
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(_tango_score(lost, only_edge, n, middle)) < z:
                inside = middle
            else:
                outside = middle
        return 100 * inside

    return PairedDrop(
        drop_pp=100 * drop,
        upper_pp=bound(_z(confidence), 1, only_float + CONTINUITY),
        interval_pp=Interval(bound(two_sided, -1), bound(two_sided, 1)),
    )


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval for the mean that ``values`` were drawn around, in their unit.

    Raises:
        ValueError: fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"an interval of a mean needs two values or more, got {n}")
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * stdev(values) / math.sqrt(n)
    return Interval(fmean(values) - half, fmean(values) + half)


def mcnemar_exact(only_float: int, only_edge: int) -> float:
    """Two-sided exact p-value of McNemar's test: are both kinds of discordance equally likely?

    Raises:
        ValueError: a count that is negative or not whole.
    """
    _check_counts(only_float, only_edge)
    n = only_float + only_edge
    return min(1.0, 2 * float(bdtr(min(only_float, only_edge), n, 0.5))) if n else 1.0


def samples_to_decide(
    only_float: int, only_edge: int, n: int, margin_pp: float, confidence: float = 0.95
) -> int | None:
    """How many samples would show non-inferiority, if drop and discordance stay as observed.

    Normal approximation with 80% power (Nam 1997, for the test that Tango's bound inverts):
    n (margin - d) - 1/2 = sqrt(n) (z_conf s0 + z_power s1) for the drop d, where 1/2 corrects for
    continuity, s1 is the deviation of one pair as observed and s0 with the drop at the margin. s0
    is no less than sqrt(margin (1 - margin)), so that a handful of samples without discordance
    promise nothing.

    Returns:
        The number, or None where more samples will not help: the drop is at or over the margin,
        or so near that more than ten million would be needed.

    Raises:
        ValueError: impossible counts, or a margin outside 0..100 points.
    """
    _check_counts(only_float, only_edge)
    _check(only_float + only_edge, n, confidence)
    if not 0 < margin_pp < 100:
        raise ValueError(f"margin must be between 0 and 100 points, got {margin_pp}")
    margin, drop = margin_pp / 100, (only_float - only_edge) / n
    at_margin = _tango_variance(only_float / n, only_edge / n, 1, margin)
    as_observed = (only_float + only_edge) / n - drop**2
    return _needed(_z(confidence), at_margin, as_observed, margin - drop, CONTINUITY)


def samples_to_decide_proportion(
    successes: int, n: int, limit: float, confidence: float = 0.95
) -> int | None:
    """How many samples would lift Wilson's lower end to ``limit``, if the proportion stays.

    Normal approximation with 80% power: n = ((z s0 + z_power s1) / (p - limit))^2, where
    s0^2 = limit (1 - limit), s1^2 = p (1 - p) (Fleiss, Statistical Methods for Rates and
    Proportions, 2.3). None: the proportion is at or under the limit, or too near.

    Raises:
        ValueError: impossible counts, or a limit outside 0..1.
    """
    _check(successes, n, confidence)
    if not 0 <= limit <= 1:
        raise ValueError(f"limit must be between 0 and 1, got {limit}")
    p = successes / n
    return _needed(_z(0.5 + confidence / 2), limit * (1 - limit), p * (1 - p), p - limit)


def samples_to_decide_band(
    successes: int, n: int, low: float, high: float, confidence: float = 0.95
) -> int | None:
    """How many samples would put Wilson's interval within a band, if the proportion stays.

    As :func:`samples_to_decide_proportion`, for the end that lies less far within.

    Raises:
        ValueError: impossible counts.
    """
    _check(successes, n, confidence)
    p = successes / n
    variance = p * (1 - p)
    return _needed(_z(0.5 + confidence / 2), variance, variance, min(p - low, high - p))


def expected_max_of_noise(variants: int, deviation: float) -> float:
    """By how much the best of equally good variants looks better than it is, on average.

    The expected largest of so many independent normal errors of standard deviation ``deviation``,
    in its unit (Blom 1958). Variants measured on the same samples share part of their error, so
    this is an upper bound.
    """
    if variants < 2:
        return 0.0
    return deviation * _z((variants - 0.375) / (variants + 0.25))


def smallest_drop_seen(
    only_float: int, only_edge: int, n: int, margin_pp: float, confidence: float = 0.95
) -> float | None:
    """The largest true drop in percentage points that n samples would still pass, 4 times of 5.

    Discordance as observed; the inverse of :func:`samples_to_decide` in the drop. None: not even
    an equal model would be passed so often.

    Raises:
        ValueError: as :func:`samples_to_decide`.
    """
    _check_counts(only_float, only_edge)
    _check(only_float + only_edge, n, confidence)
    margin, discordance = margin_pp / 100, (only_float + only_edge) / n

    def passed(drop: float) -> bool:
        a, b = (discordance + drop) / 2, (discordance - drop) / 2
        at_margin = _tango_variance(max(a, drop), max(b, 0.0), 1, margin)
        varies = max(discordance, drop) - drop**2
        needed = _needed(_z(confidence), at_margin, varies, margin - drop, CONTINUITY)
        return needed is not None and needed <= n

    if not passed(0.0):
        return None
    low, high = 0.0, margin
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if passed(middle) else (low, middle)
    return 100 * low


def _needed(
    z: float, at_limit: float, as_observed: float, room: float, correction: float = 0.0
) -> int | None:
    """Samples for which a z-test passes with POWER; variances are of one sample."""
    if room <= 0:
        return None
    deviations = z * math.sqrt(at_limit) + _z(POWER) * math.sqrt(max(0.0, as_observed))
    root = (deviations + math.sqrt(deviations**2 + 4 * correction * room)) / (2 * room)
    count = max(1, math.ceil(root**2))
    return count if count <= MAX_SAMPLES else None


def _tango_score(only_float: float, only_edge: int, n: int, drop: float) -> float:
    """Score statistic of H0 "the true drop is ``drop``"."""
    variance = _tango_variance(only_float, only_edge, n, drop)
    difference = only_float - only_edge - n * drop
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def _tango_variance(only_float: float, only_edge: float, n: int, drop: float) -> float:
    """Variance of the difference of counts under H0, with the nuisance at its restricted MLE."""
    a = 2 * n
    b = -only_float - only_edge + (2 * n - only_float + only_edge) * drop
    c = -only_edge * drop * (1 - drop)
    q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    return n * (2 * q + drop * (1 - drop))


def _z(probability: float) -> float:
    return float(ndtri(probability))


def _check(successes: int, n: int, confidence: float) -> None:
    _check_counts(successes, n)
    if n == 0:
        raise ValueError("no samples: n must be positive")
    if successes > n:
        raise ValueError(f"successes must be within 0..{n}, got {successes}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")


def _check_counts(*counts: int) -> None:
    for count in counts:
        if not math.isfinite(count) or count < 0 or count != int(count):
            raise ValueError(f"counts must be whole numbers of at least 0, got {count}")
