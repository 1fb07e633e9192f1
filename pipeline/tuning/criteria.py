"""The gate's criteria as `tune` and `diagnose --fix` use them: pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from pipeline.formats import FORMATS
from pipeline.metrics.measures import FloatComparison, NonFinite
from pipeline.params import Gate
from pipeline.verdict.criteria import quality
from pipeline.verdict.criterion import FAIL, PASS, Criterion

FIXABLE = ("top1_agreement_min", "accuracy_drop_max_pp", "sqnr_min_db")  # by layers in float


def judged(
    gate: Gate,
    key: str,
    measured: FloatComparison | NonFinite,
    size_bytes: int,
    float_bytes: int,
) -> list[Criterion]:
    """Return the gate's criteria of quality and size for one file of format ``key``.

    ``measured`` is what `parity` measures of it.
    """
    return list(quality.of_file(gate, key, measured, size_bytes, float_bytes))


def violation(criteria: Iterable[Criterion]) -> float:
    """Return how far values are beyond their limits: the sum of relative distances, 0 if none is.

    An undecided value counts as well: a search that picks the best of many would else pick one that
    is good by chance. A failed criterion without a value is infinitely far.
    """
    total = 0.0
    for criterion in criteria:
        if criterion.value is None or criterion.limit is None:
            total += inf if criterion.outcome == FAIL else 0.0
            continue
        is_minimum = "_min" in criterion.name
        beyond = criterion.limit - criterion.value
        total += max(0.0, beyond if is_minimum else -beyond) / max(abs(criterion.limit), 1e-9)
    return total


def over_budget(gate: Gate, key: str, instructions_m: float) -> float:
    """Return how far a modelled cost, in millions, is relatively beyond ``instructions_max_m``."""
    limit = gate.budgets[key].instructions_max_m if key in gate.budgets else None
    return 0.0 if limit is None else max(0.0, instructions_m / limit - 1)


def early_stop(criteria: Iterable[Criterion], slack_db: float) -> bool:
    """Whether few images already show that a file will not pass.

    An SQNR within ``slack_db`` of its limit may still rise.
    """
    return any(
        c.outcome == FAIL
        and (c.name != "sqnr_min_db" or c.value is None or c.value < (c.limit or 0) - slack_db)
        for c in criteria
    )


def fixable(criteria: Iterable[Criterion]) -> tuple[list[Criterion], list[Criterion]]:
    """Split the failed criteria into those that layers in float can fix, and the others."""
    failed = [c for c in criteria if c.outcome == FAIL]
    int8 = {fmt.suffix for fmt in FORMATS.values() if fmt.schemes}
    can = [c for c in failed if c.name in FIXABLE and c.subject in int8]
    return can, [c for c in failed if c not in can]


def is_fixed(criteria: Iterable[Criterion], failed: Iterable[str]) -> bool:
    """Whether the criteria named ``failed`` pass now, and no other fixable one fails.

    Fewer images than the gate's leave more undecided; undecided is not fixed.
    """
    relevant = [c for c in criteria if c.name in FIXABLE or c.value is None]
    passing = {c.name for c in relevant if c.outcome == PASS}
    return all(c.outcome != FAIL for c in relevant) and set(failed) <= passing


def describe(criterion: Criterion) -> str:
    """Return file, name, value, limit and outcome on one line."""
    value = "not measured" if criterion.value is None else f"{criterion.value:.4g}"
    limit = "" if criterion.limit is None else f"limit {criterion.limit:g} {criterion.unit}".strip()
    text = f"{criterion.subject} {criterion.name} {value}" + (f" ({limit})" if limit else "")
    return text if criterion.outcome == PASS else f"{text} {criterion.outcome}"
