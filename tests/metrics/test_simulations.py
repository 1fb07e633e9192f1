"""The error rates that the gate promises, over thousands of synthetic comparisons.

Everything goes through the criteria themselves, so that what is simulated is what decides. The
allowance for chance is three standard errors of the simulation.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.special import ndtr, stdtrit

from pipeline.metrics import intervals
from pipeline.metrics.measures import PairedCounts
from pipeline.params import Gate
from pipeline.verdict.criteria import quality, speed
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED
from tests.verdict import builders

MARGIN_PP = 1.0
COMPARISONS, TIMED = 4000, 800


def chance(rate: float, count: int) -> float:
    return 3 * math.sqrt(rate * (1 - rate) / count)


def outcomes_of_accuracy(n: int, lost: float, won: float) -> dict[str, float]:
    """How often each outcome comes up where these fractions of answers are truly lost and won."""
    gate = Gate.model_validate({"budgets": {"ptl": {"accuracy_drop_max_pp": MARGIN_PP}}})
    both, rng = 0.85, np.random.default_rng(n)
    chances = [both, lost, won, 1 - both - lost - won]
    drawn, times = np.unique(
        rng.multinomial(n, chances, COMPARISONS)[:, 1:3], axis=0, return_counts=True
    )
    seen = dict.fromkeys((PASS, FAIL, UNDECIDED), 0.0)
    whole = builders.case().evidence.parity
    file = whole.artefacts["ptl"]
    for (only_float, only_edge), count in zip(drawn.tolist(), times.tolist(), strict=True):
        right = round(both * n)
        pairs = PairedCounts(
            both=right,
            only_float=only_float,
            only_edge=only_edge,
            neither=n - right - only_float - only_edge,
        )
        measured = file.model_copy(update={"count": n, "accuracy": pairs})
        parity = whole.model_copy(update={"artefacts": {"ptl": measured}})
        found = [c for c in quality.criteria(gate, parity) if c.name == "accuracy_drop_max_pp"]
        seen[found[0].outcome] += count / COMPARISONS
    return seen


@pytest.mark.parametrize("n", [500, 2000, 10_000])
@pytest.mark.parametrize("won", [0.0, 0.005, 0.03])
def test_a_model_exactly_at_the_margin_is_passed_at_most_one_time_in_twenty(
    n: int, won: float
) -> None:
    seen = outcomes_of_accuracy(n, won + MARGIN_PP / 100, won)
    assert seen[PASS] <= 0.05 + chance(0.05, COMPARISONS)
    assert seen[FAIL] <= 0.05  # of a two-sided interval one side errs half as often


@pytest.mark.parametrize("discordance", [0.01, 0.02, 0.06])
def test_an_equal_model_is_passed_as_often_as_the_power_formula_says(discordance: float) -> None:
    changed = round(discordance / 2 * 100_000)
    n = intervals.samples_to_decide(changed, changed, 100_000, MARGIN_PP)
    assert n is not None
    seen = outcomes_of_accuracy(n, discordance / 2, discordance / 2)
    # The formula is a normal approximation of counts of a few tens.
    assert seen[PASS] == pytest.approx(intervals.POWER, abs=0.05)
    assert seen[FAIL] <= chance(0.001, COMPARISONS)


def alike(
    rng: np.random.Generator, shape: tuple[int, int], rho: float, deviation: float
) -> np.ndarray:
    """AR(1) noise [series, n] whose neighbours correlate by ``rho``."""
    noise = rng.normal(scale=deviation, size=shape)
    noise[:, 1:] *= math.sqrt(1 - rho**2)
    return np.asarray(lfilter([1.0], [1.0, -rho], noise))


def outcomes_of_latency(ratio: float, limit: float, rho: float, n: int) -> dict[str, float]:
    """How often each outcome comes up where a file truly takes ``ratio`` of float's time.

    What disturbs the machine disturbs both in a round; what is left to each is autocorrelated.
    """
    gate = Gate.model_validate({"budgets": {"ptl": {"latency_ratio_max": limit}}})
    rng = np.random.default_rng(int(1000 * rho) + n)
    seen = dict.fromkeys((PASS, FAIL, UNDECIDED), 0.0)
    shared = alike(rng, (TIMED, n), 0.8, 0.03)
    float_times = 30 * np.exp(shared)
    file_times = ratio * 30 * np.exp(shared + alike(rng, (TIMED, n), rho, NOISE))
    whole = builders.case().evidence.latency
    for float_ms, file_ms in zip(float_times, file_times, strict=True):
        runs = {"float": float_ms.tolist(), "ptl": file_ms.tolist()}
        timed = {
            key: whole.artefacts[key].model_copy(update={"runs_ms": tuple(ms)})
            for key, ms in runs.items()
        }
        latency = whole.model_copy(update={"artefacts": timed, "previous": None})
        (criterion,) = speed.criteria(gate, latency)
        seen[criterion.outcome] += 1 / TIMED
    return seen


NOISE = 0.05


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.9])
@pytest.mark.full
def test_a_file_exactly_at_the_limit_of_time_is_passed_at_most_one_time_in_twenty(
    rho: float,
) -> None:
    seen = outcomes_of_latency(builders.BUDGET.latency_ratio_max or 0, 1.0, rho, 100)
    assert seen[PASS] <= 0.05 + chance(0.05, TIMED)
    assert seen[FAIL] <= 0.05 + chance(0.05, TIMED)


@pytest.mark.parametrize("rho", [0.0, 0.6])
@pytest.mark.full
def test_a_fast_file_is_passed_as_often_as_the_power_formula_says(rho: float) -> None:
    """The median of Gaussian AR(1) noise: its signs correlate by 2/pi arcsin(rho^k)."""
    n, lags = 200, np.arange(1, 200)
    together = 1 + 2 * float((2 / math.pi * np.arcsin(rho**lags)).sum())
    error = NOISE * math.sqrt(math.pi / 2 / n * together)
    ratio = math.exp(-3 * error)
    expected = float(ndtr(3 - stdtrit(20, 0.975)))  # blocks are about a twentieth of the runs
    seen = outcomes_of_latency(ratio, 1.0, rho, n)
    assert seen[PASS] == pytest.approx(expected, abs=0.12)
    assert seen[FAIL] <= chance(0.001, TIMED)
