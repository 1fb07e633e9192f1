"""Which measured recipes are worth more."""

from __future__ import annotations

from pipeline.params import Quantize, Recipe, Rewrite
from pipeline.tuning.pareto import (
    Result,
    as_cheap,
    by_cost,
    pareto_front,
    shortlist,
    violation_front,
)

PLAIN = Recipe(Rewrite(), Quantize(scheme="per_channel"))


def result(number, cost, size, sqnr, violation=0.0, recipe=PLAIN):
    return Result(
        number=number,
        instructions_m=cost,
        size_ratio=size,
        sqnr_db=sqnr,
        agreement=1.0,
        violation=violation,
        recipe=recipe,
    )


def test_on_the_violation_front_more_cost_means_less_violation():
    cheap, equal = result(0, 100, 0.3, 30, 0.2), result(1, 100, 0.3, 31, 0.2)
    worse, better = result(2, 110, 0.3, 40, 0.3), result(3, 120, 0.3, 40, 0.1)
    fit, costlier = result(4, 130, 0.3, 40), result(5, 140, 0.3, 50)
    assert violation_front([costlier, fit, better, worse, cheap, equal]) == [equal, better, fit]
    assert violation_front([]) == []


def test_the_pareto_front_is_of_what_keeps_the_limits():
    results = [
        result(0, 100, 0.3, 40),
        result(1, 120, 0.3, 40),  # as 0, at a higher cost
        result(2, 120, 0.3, 45),
        result(3, 10, 0.1, 99, violation=0.1),
    ]
    assert [r.number for r in pareto_front(results)] == [0, 2]
    assert pareto_front([]) == []
    assert by_cost(results[3:]) == []


def test_the_cheapest_is_first_and_of_those_as_cheap_the_highest_sqnr():
    results = [
        *(result(0, 100, 0.35, 40), result(1, 100.19, 0.28, 50), result(2, 102, 0.2, 60)),
        *(result(3, 100.1, 0.35, 45), result(4, 90, 0.2, 60, violation=0.1)),
    ]
    assert [r.number for r in by_cost(results)] == [1, 3, 0, 2]
    assert as_cheap(results[1], results[0])
    assert not as_cheap(results[2], results[0])


def test_the_configured_recipe_is_compared_if_it_is_as_cheap():
    configured = Recipe(Rewrite(centre=True), Quantize(scheme="per_channel"))

    def chosen(cost, sqnr, violation=0.0):
        others = [result(n, 100.0, 0.3, 40.0 - n) for n in range(4)]
        mine = result(9, cost, 0.3, sqnr, violation, configured)
        return [r.number for r in shortlist([*others, mine], configured, 3)]

    assert chosen(100.19, 30.0) == [0, 9, 1, 2]
    assert chosen(100.0, 39.5) == [0, 9, 1]
    assert chosen(100.0, 38.5) == [0, 9, 1]
    assert chosen(102.0, 50.0) == [0, 1, 2]
    assert chosen(90.0, 30.0) == [9, 0, 1]
    assert chosen(100.0, 30.0, violation=0.1) == [0, 1, 2]
    assert shortlist([], configured, 3) == []
