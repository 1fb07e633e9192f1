"""Statistics of proportions: intervals, paired accuracy, and how many samples would decide.

Pure functions on counts. scipy.special alone at run time: scipy.stats and statsmodels cost most of
a second to import, and `edge-vit gate` decides in less; tests hold every function against them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import bdtr, betaincinv, ndtri

POWER = 0.8  # with which samples_to_decide plans, as is usual for equivalence trials
MAX_SAMPLES = 10_000_000  # beyond which "more samples" is no advice


@dataclass(frozen=True)
class Interval:
    """Both ends of a confidence interval, in the unit of what it bounds."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedDrop:
    """How much accuracy was lost on the same samples, in percentage points (float minus edge)."""

    drop_pp: float
    upper_pp: float  # one-sided upper bound
    interval_pp: Interval  # two-sided, at the same confidence


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Two-sided Wilson score interval of a proportion (Wilson 1927).

    Raises:
        ValueError: ``n`` is not positive, or ``successes`` is not within 0..n.
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

    Raises:
        ValueError: a negative count, or none at all.
    """
    counts = (both, only_float, only_edge, neither)
    n = sum(counts)
    if min(counts) < 0 or n == 0:
        raise ValueError(f"counts must be at least 0 and not all 0, got {counts}")
    _check(0, n, confidence)
    drop = (only_float - only_edge) / n
    two_sided = _z(0.5 + confidence / 2)

    def bound(z: float, sign: int) -> float:
        """The drop at which the score statistic equals ``-sign * z``, by bisection."""
        inside, outside = drop, float(sign)
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(_tango_score(only_float, only_edge, n, middle)) < z:
                inside = middle
            else:
                outside = middle
        return 100 * inside

    return PairedDrop(
        drop_pp=100 * drop,
        upper_pp=bound(_z(confidence), 1),
        interval_pp=Interval(bound(two_sided, -1), bound(two_sided, 1)),
    )


def mcnemar_exact(only_float: int, only_edge: int) -> float:
    """Two-sided exact p-value of McNemar's test: are both kinds of discordance equally likely?"""
    n = only_float + only_edge
    if min(only_float, only_edge) < 0:
        raise ValueError(f"counts must be at least 0, got {only_float} and {only_edge}")
    return min(1.0, 2 * float(bdtr(min(only_float, only_edge), n, 0.5))) if n else 1.0


def samples_to_decide(
    only_float: int, only_edge: int, n: int, margin_pp: float, confidence: float = 0.95
) -> int | None:
    """How many samples would show non-inferiority, if drop and discordance stay as observed.

    Normal approximation with 80% power: n = (z_conf + z_power)^2 (psi - d^2) / (margin - d)^2 for
    discordance psi and drop d (Nam 1997). None: the drop is at or over the margin, or more than
    ten million samples would be needed, so more samples will not help.
    """
    _check(only_float + only_edge, n, confidence)
    # Half a pair more than observed: without any discordance the formula would promise too much.
    psi = (only_float + only_edge + 0.5) / n
    drop = (only_float - only_edge) / n
    room = margin_pp / 100 - drop
    return _needed((_z(confidence) + _z(POWER)) ** 2 * (psi - drop * drop), room)


def samples_to_decide_proportion(
    successes: int, n: int, limit: float, confidence: float = 0.95
) -> int | None:
    """How many samples would show that a proportion is at least ``limit``, if it stays as observed.

    Normal approximation with 80% power. None: the proportion is at or under the limit.
    """
    _check(successes, n, confidence)
    p = min(successes, n - 0.5) / n
    return _needed((_z(0.5 + confidence / 2) + _z(POWER)) ** 2 * p * (1 - p), p - limit)


def _needed(numerator: float, room: float) -> int | None:
    if room <= 0:
        return None
    count = math.ceil(numerator / room**2)
    return count if count <= MAX_SAMPLES else None


def _tango_score(only_float: int, only_edge: int, n: int, drop: float) -> float:
    """Score statistic of H0 "the true drop is ``drop``", with the nuisance at its restricted MLE."""
    a = 2 * n
    b = -only_float - only_edge + (2 * n - only_float + only_edge) * drop
    c = -only_edge * drop * (1 - drop)
    q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * q + drop * (1 - drop))
    difference = only_float - only_edge - n * drop
    if variance <= 0:
        return 0.0 if difference == 0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def _z(probability: float) -> float:
    return float(ndtri(probability))


def _check(successes: int, n: int, confidence: float) -> None:
    if n <= 0:
        raise ValueError(f"no samples: n must be positive, got {n}")
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be within 0..{n}, got {successes}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
