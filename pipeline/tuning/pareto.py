"""The measured results of a search, and which of them are worth more: pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.params import Recipe

SAME_COST = 0.002  # the modelled cost is within half of that of the counted one (docs/adr/0032)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One trial that was measured."""

    number: int
    instructions_m: float  # by :mod:`pipeline.tuning.cost_model`, in millions
    size_ratio: float  # of the float checkpoint's bytes
    sqnr_db: float
    agreement: float
    violation: float  # 0: keeps every limit
    recipe: Recipe


def feasible(results: Iterable[Result]) -> list[Result]:
    """Return those that keep every limit."""
    return [result for result in results if result.violation == 0]


def pareto_front(results: Sequence[Result]) -> list[Result]:
    """Return the feasible results that none dominates in cost, size and SQNR; cheapest first."""
    candidates = feasible(results)

    def objectives(result: Result) -> tuple[float, float, float]:
        return result.instructions_m, result.size_ratio, -result.sqnr_db

    def dominates(one: Result, other: Result) -> bool:
        pairs = zip(objectives(one), objectives(other), strict=True)
        return objectives(one) != objectives(other) and all(a <= b for a, b in pairs)

    front = [
        result for result in candidates if not any(dominates(other, result) for other in candidates)
    ]
    return sorted(front, key=objectives)


def violation_front(results: Iterable[Result]) -> list[Result]:
    """Return the front of cost against violation, cheapest first.

    Each result violates the limits less than all cheaper ones; of equals the highest SQNR is taken.
    """
    ordered = sorted(results, key=lambda r: (r.instructions_m, r.violation, -r.sqnr_db))
    front: list[Result] = []
    for result in ordered:
        if not front or result.violation < front[-1].violation:
            front.append(result)
    return front


def by_cost(results: Sequence[Result]) -> list[Result]:
    """Return the feasible results, cheapest first; of those with the same cost, highest SQNR."""
    left = sorted(feasible(results), key=lambda r: r.instructions_m)
    ordered: list[Result] = []
    while left:
        tier = [result for result in left if as_cheap(result, left[0])]
        ordered += sorted(tier, key=lambda r: -r.sqnr_db)
        left = left[len(tier) :]
    return ordered


def shortlist(results: Sequence[Result], configured: Recipe, count: int) -> list[Result]:
    """Return the first ``count`` by cost.

    The result of recipe ``configured`` (that of params.yaml) is the second if it costs no more than
    the first: it is replaced only by something better.
    """
    ordered = by_cost(results)
    present = [r for r in ordered[1:] if r.recipe == configured and as_cheap(r, ordered[0])]
    others = [r for r in ordered[1:count] if r not in present]
    return [*ordered[:1], *present, *others]


def as_cheap(result: Result, other: Result) -> bool:
    """Whether a result costs no more than another, as far as the modelled cost can tell."""
    return result.instructions_m <= cost_ceiling(other)


def cost_ceiling(result: Result) -> float:
    """Return the highest modelled cost, in millions, that counts as equal to a result's."""
    return result.instructions_m * (1 + SAME_COST)
