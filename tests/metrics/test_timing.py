"""Latency: counts that support a bound, coverage and error rates under correlated noise, drift."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import binom, kendalltau, norm, quantile_test, spearmanr, theilslopes

from pipeline.metrics import timing
from pipeline.metrics.timing import bootstrap_ratio, drift, median, quantile_bounds

SERIES = 400  # simulated for each rate
RESAMPLES = 300  # enough for a rate; the gate takes more


def noise(n: int, alike: float, count: int = SERIES, seed: int = 0) -> NDArray[np.float64]:
    """AR(1) series [count, n] of unit variance whose neighbours correlate by ``alike``."""
    white = np.random.default_rng(seed).standard_normal((count, n + 200))
    series: NDArray[np.float64] = lfilter([math.sqrt(1 - alike**2)], [1, -alike], white)[:, 200:]
    return series


def latencies(n: int, alike: float, seed: int = 0) -> NDArray[np.float64]:
    return 10 * np.exp(0.05 * noise(n, alike, seed=seed))


@pytest.mark.parametrize(
    ("quantile", "enough", "with_one_violation"), [(0.9, 44, 64), (0.99, 459, 662)]
)
def test_a_bound_needs_so_many_runs(quantile: float, enough: int, with_one_violation: int) -> None:
    """At 99% confidence; the same counts as in MLPerf's rules and in the design."""
    assert quantile_bounds(np.arange(enough), quantile, 0.99).high == enough - 1
    assert quantile_bounds(np.arange(enough - 1), quantile, 0.99).high is None
    second = quantile_bounds(np.arange(with_one_violation), quantile, 0.99)
    assert second.high == with_one_violation - 2
    first = quantile_bounds(np.arange(with_one_violation - 1), quantile, 0.99)
    assert first.high == with_one_violation - 2  # the largest of one fewer


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("n", [50, 101, 400])
def test_bounds_are_scipys(quantile: float, n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    bounds = quantile_bounds(values, quantile, 0.95)
    upper = quantile_test(values, p=quantile, alternative="less").confidence_interval(0.95).high
    lower = quantile_test(values, p=quantile, alternative="greater").confidence_interval(0.95).low
    assert (bounds.low, bounds.high) == (lower, upper)


def test_a_bound_holds_as_often_as_it_says() -> None:
    runs = np.random.default_rng(5).exponential(size=(2000, 100))
    truth = -math.log(0.1)  # p90 of the exponential distribution
    held = np.mean([quantile_bounds(r, 0.9, 0.95).high >= truth for r in runs])
    ranks = np.arange(1, 101)
    exact = binom.cdf(ranks - 1, 100, 0.9)
    assert held == pytest.approx(exact[exact >= 0.95].min(), abs=0.015)


@pytest.mark.parametrize(
    ("n", "alike"), [(30, 0.3), (100, 0.0), (100, 0.6), (100, 0.8), (300, 0.6)]
)
def test_a_ratio_at_the_limit_passes_at_most_one_time_in_twenty(n: int, alike: float) -> None:
    """The gate passes a ratio whose upper end is under the limit; here the truth is the limit.

    Percentiles of a bootstrap with blocks of n^(1/3) rounds pass 11% for 100 rounds and 0.8.
    """
    a, b = latencies(n, alike, seed=1), latencies(n, alike, seed=2)
    found = [bootstrap_ratio(x, y, resamples=RESAMPLES).interval for x, y in zip(a, b, strict=True)]
    passed = np.mean([interval.high < 1 for interval in found])
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert passed <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / SERIES)
    assert covered >= 0.9


@pytest.mark.parametrize("alike", [0.9, 0.97])
@pytest.mark.parametrize("n", [10, 20, 50, 70, 100])
def test_of_few_effective_runs_a_ratio_at_the_limit_would_pass_too_often(
    n: int, alike: float
) -> None:
    """Of what the gate judges at most 5% pass; of all, up to 26%."""
    noise_ = latencies(n, alike, seed=1)
    found = [bootstrap_ratio(x, np.full(n, 10.0), resamples=100) for x in noise_]
    passed = np.array([ratio.interval.high < 1 for ratio in found])
    enough = np.array([ratio.effective_runs >= timing.EFFECTIVE_MIN for ratio in found])
    assert (passed & enough).mean() <= 0.05
    if n < timing.RUNS_MIN:
        assert passed.mean() > 0.05


def test_effective_runs_are_those_whose_mean_varies_as_much() -> None:
    for alike in (0.0, 0.5, 0.9):
        many = noise(2000, alike)
        found = np.mean([timing.effective_runs(series) for series in many[:50]])
        assert found == pytest.approx(1 / many.mean(axis=1).var(), rel=0.25)
        thin = timing.thinned(many[0])
        assert abs(np.corrcoef(thin[1:], thin[:-1])[0, 1]) < 0.3
    assert timing.effective_runs(np.arange(1000.0)) == 1


def test_a_faster_file_is_found_in_a_hundred_runs() -> None:
    a, b = 0.9 * latencies(100, 0.5, seed=3), latencies(100, 0.5, seed=4)
    found = [bootstrap_ratio(x, y, resamples=RESAMPLES).interval for x, y in zip(a, b, strict=True)]
    assert np.mean([interval.high < 1 for interval in found]) > 0.95


def test_what_slows_both_files_does_not_change_their_ratio() -> None:
    load = np.exp(0.5 * noise(100, 0.9, 1)[0])
    a, b = latencies(100, 0, seed=5)[0], latencies(100, 0, seed=6)[0]
    quiet, loaded = bootstrap_ratio(a, b), bootstrap_ratio(a * load, b * load)
    assert loaded.median == pytest.approx(quiet.median)
    assert loaded.interval.high == pytest.approx(quiet.interval.high)


def test_the_same_evidence_gives_the_same_interval() -> None:
    a, b = latencies(100, 0.5, seed=7)[0], latencies(100, 0.5, seed=8)[0]
    assert bootstrap_ratio(a, b) == bootstrap_ratio(list(a), list(b))
    assert bootstrap_ratio(a, b, seed=1) != bootstrap_ratio(a, b, seed=2)


def test_the_inverse_ratio_has_the_inverse_interval() -> None:
    a, b = latencies(99, 0.5, seed=9)[0], latencies(99, 0.5, seed=10)[0]
    there, back = bootstrap_ratio(a, b), bootstrap_ratio(b, a)
    assert there.median == pytest.approx(1 / back.median)
    assert there.interval.low == pytest.approx(1 / back.interval.high, rel=0.01)


def test_equal_times_have_the_ratio_one() -> None:
    ratio = bootstrap_ratio([5.0] * 30, [5.0] * 30)
    assert (ratio.median, ratio.interval.low, ratio.interval.high) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.6, 0.8])
def test_slow_noise_is_no_drift(alike: float) -> None:
    assert np.mean([drift(series).drifting for series in latencies(100, alike)]) <= 0.02


@pytest.mark.parametrize("change", [0.8, 1.2])
def test_a_machine_that_slows_down_or_speeds_up_is_found(change: float) -> None:
    trend = np.linspace(1, change, 100)
    found = [drift(series * trend) for series in latencies(100, 0.3)]
    assert np.mean([d.drifting for d in found]) > 0.95
    assert np.mean([d.relative_slope for d in found]) == pytest.approx(change - 1, abs=0.05)


def test_a_machine_that_becomes_restless_is_found() -> None:
    restless = np.where(np.arange(100) < 50, 0.02, 0.2)
    found = [drift(10 * np.exp(restless * series)).drifting for series in noise(100, 0)]
    assert np.mean(found) > 0.95


def test_a_certain_but_tiny_trend_is_no_drift() -> None:
    small = drift(10 + np.linspace(0, 0.2, 100))
    assert small.p_value < 1e-6
    assert not small.drifting


def test_drift_is_scipys_slope_and_score() -> None:
    series = latencies(80, 0.0)[0]
    found, x = drift(series), np.arange(80)
    assert found.relative_slope == pytest.approx(
        theilslopes(series, x).slope * 80 / np.median(series)
    )
    # Neighbours of this order do not correlate, so nothing is widened.
    mixed = np.random.default_rng(0).permutation(np.arange(1.0, 81.0))
    score = abs(kendalltau(x, mixed).statistic) * 80 * 79 / 2
    deviation = math.sqrt(80 * 79 * 165 / 18)
    assert drift(mixed).p_value == pytest.approx(2 * norm.sf((score - 1) / deviation))


def test_neighbours_correlation_is_scipys() -> None:
    series = np.round(noise(2000, 0.6, 1)[0], 1)  # with ties
    assert timing._neighbour_correlation(series) == pytest.approx(
        spearmanr(series[1:], series[:-1]).statistic, abs=0.01
    )


def test_long_series_take_no_more_than_they_need() -> None:
    trend = np.linspace(1, 1.2, 20_000)
    assert drift(trend * (1 + 0.01 * noise(20_000, 0, 1)[0])).drifting


def test_equal_values_do_not_drift() -> None:
    found = drift([3.0] * 20)
    assert (found.relative_slope, found.p_value, found.spread_ratio, found.drifting) == (
        0,
        1,
        1,
        False,
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda v: median(v),
        lambda v: quantile_bounds(v, 0.5, 0.9),
        lambda v: bootstrap_ratio(v, v),
        lambda v: drift(v),
    ],
)
@pytest.mark.parametrize("bad", [[], [math.nan] * 20, [1.0] * 19 + [math.inf], [[1.0] * 20]])
def test_series_that_say_nothing_are_refused(call: Callable[[Any], Any], bad: Any) -> None:
    with pytest.raises(ValueError, match="finite"):
        call(bad)


def test_too_few_unequal_and_impossible_times_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3"):
        bootstrap_ratio([1, 2], [1, 2])
    with pytest.raises(ValueError, match="at least 10"):
        drift([1.0] * 9)
    with pytest.raises(ValueError, match="equally long"):
        bootstrap_ratio([1, 2, 3], [1, 2, 3, 4])
    for call in (lambda: bootstrap_ratio([1, 2, 0], [1, 2, 3]), lambda: drift([-1.0] * 10)):
        with pytest.raises(ValueError, match="positive"):
            call()


@pytest.mark.parametrize("bad", [0.0, 1.0, 99.0, math.nan])
def test_probabilities_that_are_none_are_refused(bad: float) -> None:
    for call in (
        lambda: quantile_bounds([1, 2], bad, 0.9),
        lambda: quantile_bounds([1, 2], 0.5, bad),
        lambda: bootstrap_ratio([1, 2, 3], [1, 2, 3], bad),
    ):
        with pytest.raises(ValueError, match="between 0 and 1"):
            call()
