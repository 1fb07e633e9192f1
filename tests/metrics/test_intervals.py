"""Proportions and paired accuracy: against other libraries, published tables and enumeration."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom, binomtest, ttest_1samp
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from pipeline.metrics.intervals import (
    POWER,
    clopper_pearson,
    expected_max_of_noise,
    mcnemar_exact,
    mean_interval,
    paired_drop,
    samples_to_decide,
    samples_to_decide_proportion,
    smallest_drop_seen,
    wilson,
)

COUNTS = [(0, 1), (1, 1), (0, 20), (3, 7), (10, 20), (299, 300), (1980, 2000), (2000, 2000)]
CONFIDENCES = [0.8, 0.95, 0.999]


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_wilson_is_scipys_and_statsmodels(successes: int, n: int, confidence: float) -> None:
    interval = wilson(successes, n, confidence)
    scipys = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    other = proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert (interval.low, interval.high) == pytest.approx((scipys.low, scipys.high), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize(("successes", "n"), COUNTS)
def test_clopper_pearson_is_scipys_and_statsmodels(
    successes: int, n: int, confidence: float
) -> None:
    interval = clopper_pearson(successes, n, confidence)
    scipys = binomtest(successes, n).proportion_ci(confidence, method="exact")
    other = proportion_confint(successes, n, alpha=1 - confidence, method="beta")
    assert (interval.low, interval.high) == pytest.approx((scipys.low, scipys.high), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx(other, abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_newcombes_table(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@pytest.mark.parametrize(
    ("table", "estimate", "low", "high"),
    [
        # Airway hyper-responsiveness (Bentur 2009) and complete response (Cavo 2012), as given by
        # Fagerland, Lydersen & Laake, Statistics in Medicine 33 (2014), and their R package.
        ((1, 1, 7, 12), -28.57, -51.72, -2.60),
        ((59, 6, 16, 80), -6.21, -12.40, -0.54),
    ],
)
def test_tangos_interval_is_the_published_one(
    table: tuple[int, int, int, int], estimate: float, low: float, high: float
) -> None:
    drop = paired_drop(*table)
    assert drop.drop_pp == pytest.approx(estimate, abs=0.005)
    assert (drop.interval_pp.low, drop.interval_pp.high) == pytest.approx((low, high), abs=0.005)


def test_tangos_bound_is_the_root_of_the_score_with_a_numerically_restricted_likelihood() -> None:
    """The closed form of the nuisance against a search for the restricted maximum."""
    n, only_float, only_edge = 2000, 25.5, 15  # half a lost answer corrects for continuity
    upper = paired_drop(1700, 25, 15, 260).upper_pp / 100
    q = np.linspace(1e-6, (1 - upper) / 2 - 1e-6, 2_000_001)
    likelihood = (
        only_float * np.log(q + upper)
        + only_edge * np.log(q)
        + (n - only_float - only_edge) * np.log1p(-2 * q - upper)
    )
    best = q[likelihood.argmax()]
    score = (only_float - only_edge - n * upper) / math.sqrt(n * (2 * best + upper - upper**2))
    assert score == pytest.approx(-1.6448536, abs=1e-4)


@pytest.mark.parametrize("n", [1, 10, 2000])
def test_without_discordance_the_bound_is_the_closed_form(n: int) -> None:
    z2 = 1.6448536269514722**2
    drop = paired_drop(n, 0, 0, 0)
    assert n * drop.upper_pp / 100 - 0.5 == pytest.approx(
        math.sqrt(z2 * n * drop.upper_pp / 100 * (1 - drop.upper_pp / 100)), abs=1e-9
    )
    z2 = 1.959963984540054**2
    assert drop.interval_pp.high == pytest.approx(100 * z2 / (n + z2), abs=1e-9)


def test_swapping_the_models_mirrors_the_interval() -> None:
    drop, gain = paired_drop(80, 9, 4, 7), paired_drop(80, 4, 9, 7)
    assert drop.drop_pp == -gain.drop_pp
    assert drop.interval_pp.low == pytest.approx(-gain.interval_pp.high)
    assert drop.interval_pp.low < drop.drop_pp < drop.upper_pp < drop.interval_pp.high


@pytest.mark.parametrize("counts", [(10, 0, 0, 0), (0, 10, 0, 0), (0, 0, 10, 0), (0, 5, 5, 0)])
def test_bounds_stay_within_what_is_possible(counts: tuple[int, int, int, int]) -> None:
    drop = paired_drop(*counts)
    assert -100 <= drop.interval_pp.low <= drop.drop_pp <= drop.upper_pp <= 100


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("margin_pp", [0.5, 1, 2])
def test_a_drop_exactly_at_the_margin_passes_no_more_often_than_promised(
    margin_pp: float, confidence: float
) -> None:
    """Exact, over all outcomes. Tango's bound without a correction passes up to 6.7% at 95%."""
    won = np.array([0, *np.geomspace(1e-5, 0.02, 40)])
    for n in (60, 96, 200, 270, 300, 500, 540, 750, 770, 2000):
        rates = _pass_rates(n, won + margin_pp / 100, won, margin_pp, confidence)
        assert rates.max() <= 1 - confidence, (n, won[rates.argmax()])


def test_agreement_exactly_at_the_limit_passes_at_most_one_time_in_twenty() -> None:
    """Exact: of Wilson's two-sided interval one end errs half as often."""
    for limit in (0.95, 0.98, 0.99):
        for n in (100, 200, 300, 414, 500, 1000, 2000):
            enough = next((k for k in range(n + 1) if wilson(k, n).low >= limit), n + 1)
            assert binom.sf(enough - 1, n, limit) <= 0.026


@pytest.mark.parametrize("discordance", [0.005, 0.02, 0.05])
def test_an_equal_model_passes_as_often_as_the_power_formula_says(discordance: float) -> None:
    observed = round(discordance / 2 * 100_000)
    n = samples_to_decide(observed, observed, 100_000, 1.0)
    assert n is not None
    (rate,) = _pass_rates(n, np.array([discordance / 2]), np.array([discordance / 2]), 1.0, 0.95)
    assert rate == pytest.approx(POWER, abs=0.05)


@pytest.mark.parametrize(("margin_pp", "n"), [(1.0, 361), (0.5, 725), (2.0, 180)])
def test_without_discordance_samples_to_decide_is_exact(margin_pp: float, n: int) -> None:
    assert samples_to_decide(0, 0, 50, margin_pp) == n
    assert paired_drop(n, 0, 0, 0).upper_pp <= margin_pp < paired_drop(n - 1, 0, 0, 0).upper_pp


@pytest.mark.parametrize(("only_float", "only_edge"), [(20, 0), (30, 10), (100, 20)])
def test_no_number_of_samples_excuses_a_drop_at_the_margin(only_float: int, only_edge: int) -> None:
    assert samples_to_decide(only_float, only_edge, 2000, 1.0) is None


def test_a_drop_barely_under_the_margin_would_need_too_many() -> None:
    assert samples_to_decide(99_999, 0, 10_000_000, 1.0) is None


def test_agreement_of_all_samples_needs_as_many_as_wilson_says() -> None:
    assert samples_to_decide_proportion(50, 50, 0.98) == 189
    assert wilson(189, 189).low >= 0.98 > wilson(188, 188).low


def test_agreement_is_shown_as_often_as_the_power_formula_says() -> None:
    p, limit = 0.99, 0.98
    n = samples_to_decide_proportion(990, 1000, limit)
    assert n is not None
    enough = [k for k in range(n + 1) if wilson(k, n).low >= limit]
    assert binom.sf(enough[0] - 1, n, p) == pytest.approx(POWER, abs=0.05)


@pytest.mark.parametrize("successes", [980, 970, 0])
def test_no_number_of_samples_excuses_agreement_at_the_limit(successes: int) -> None:
    assert samples_to_decide_proportion(successes, 1000, 0.98) is None


@pytest.mark.parametrize(("a", "b"), [(0, 0), (0, 5), (6, 16), (25, 15), (100, 100), (3, 0)])
def test_mcnemar_is_statsmodels(a: int, b: int) -> None:
    other = mcnemar([[10, a], [b, 10]], exact=True).pvalue if a + b else 1.0
    assert mcnemar_exact(a, b) == pytest.approx(other, abs=1e-12)
    assert mcnemar_exact(a, b) == mcnemar_exact(b, a)


def test_mcnemar_is_the_published_value() -> None:
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=1e-6)  # Cavo 2012, as above


@pytest.mark.parametrize("bad", [-1, 0.5, math.nan, math.inf])
def test_impossible_counts_are_refused(bad: Any) -> None:
    for call in (
        lambda: wilson(bad, 10),
        lambda: wilson(1, bad),
        lambda: clopper_pearson(bad, 10),
        lambda: paired_drop(bad, 1, 1, 1),
        lambda: paired_drop(1, 1, bad, 1),
        lambda: mcnemar_exact(bad, 1),
        lambda: samples_to_decide(1, bad, 100, 1.0),
        lambda: samples_to_decide_proportion(bad, 100, 0.9),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()


def test_no_samples_and_more_successes_than_samples_are_refused() -> None:
    for call in (lambda: wilson(0, 0), lambda: paired_drop(0, 0, 0, 0)):
        with pytest.raises(ValueError, match="no samples"):
            call()
    with pytest.raises(ValueError, match=r"within 0\.\.10"):
        clopper_pearson(11, 10)


@pytest.mark.parametrize("bad", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_that_is_none_is_refused(bad: float) -> None:
    for call in (lambda: wilson(1, 2, bad), lambda: paired_drop(1, 1, 1, 1, bad)):
        with pytest.raises(ValueError, match="confidence"):
            call()


@pytest.mark.parametrize("bad", [0.0, -1.0, 100.0, math.nan])
def test_a_margin_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        samples_to_decide(1, 1, 100, bad)


def test_a_limit_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        samples_to_decide_proportion(1, 2, math.nan)


def test_the_gate_pays_for_no_heavy_library() -> None:
    heavy = "scipy.stats", "statsmodels", "torch", "pandas"
    code = (
        "import sys; from pipeline.metrics import distances, intervals, timing;"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def _pass_rates(
    n: int,
    lost: NDArray[np.float64],
    won: NDArray[np.float64],
    margin_pp: float,
    confidence: float,
) -> NDArray[np.float64]:
    """Probability that the upper bound is at most the margin, over all outcomes that matter.

    The bound rises with every loss and falls with every win, so for each count of wins one search
    finds the most losses that still pass.
    """
    most = int(n * won.max() + 10 * math.sqrt(n * won.max() + 1))
    wins = np.arange(min(most, n) + 1)
    limits: NDArray[np.int64] = np.full(len(wins), -1)
    losses = -1
    for win in wins.tolist():
        while losses + 1 + win <= n:
            drop = paired_drop(n - losses - 1 - win, losses + 1, win, 0, confidence)
            if drop.upper_pp > margin_pp:
                break
            losses += 1
        limits[win] = losses
    chance = binom.pmf(wins, n, won[:, None])
    return np.asarray(
        (chance * binom.cdf(limits, n - wins, (lost / (1 - won))[:, None])).sum(axis=1)
    )


def test_the_best_of_equals_looks_better_by_the_expected_largest_error() -> None:
    # Harter 1961, expected values of normal order statistics: n = 2, 10, 100.
    for variants, expected in ((2, 0.56419), (10, 1.53875), (100, 2.50759)):
        assert expected_max_of_noise(variants, 1.0) == pytest.approx(expected, rel=0.05)
    assert expected_max_of_noise(1, 1.0) == 0.0
    assert expected_max_of_noise(10, 0.2) == pytest.approx(0.2 * expected_max_of_noise(10, 1.0))


@pytest.mark.parametrize(("lost", "won", "n"), [(10, 8, 2000), (40, 40, 5000), (3, 2, 1000)])
def test_the_smallest_drop_seen_is_the_inverse_of_samples_to_decide(
    lost: int, won: int, n: int
) -> None:
    drop = smallest_drop_seen(lost, won, n, 1.0)
    assert drop is not None
    assert 0 < drop < 1
    # Of a million samples with that drop and the same discordance, n would do.
    discordance, million = (lost + won) / n, 1_000_000
    a = round(million * (discordance + drop / 100) / 2)
    b = round(million * (discordance - drop / 100) / 2)
    if b >= 0:
        assert samples_to_decide(a, b, million, 1.0) == pytest.approx(n, rel=0.05)
    assert smallest_drop_seen(lost, won, 2 * n, 1.0) > drop  # type: ignore[operator]


def test_too_few_samples_pass_no_equal_model_often_enough() -> None:
    assert smallest_drop_seen(1, 1, 50, 1.0) is None


@pytest.mark.parametrize("values", [[1.0, 2.0], [79.4, 79.0, 79.6], [0.0, 1e6, -3.0, 0.1]])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_interval_of_a_mean_is_students(values: list[float], confidence: float) -> None:
    expected = ttest_1samp(values, 0).confidence_interval(confidence)
    found = mean_interval(values, confidence)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_mean_of_one_value_has_no_interval() -> None:
    with pytest.raises(ValueError, match="two values or more, got 1"):
        mean_interval([1.0])
