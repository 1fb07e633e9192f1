"""What `tune` searches and `diagnose --fix` leaves in float: pure, from measured numbers."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pipeline import schemes
from pipeline.formats import FORMATS
from pipeline.metrics.measures import FloatComparison, NonFinite
from pipeline.params import Gate, Quantize, Recipe, Rewrite
from pipeline.verdict.criteria import quality
from pipeline.verdict.criterion import FAIL, PASS, Criterion

MENDABLE = ("top1_agreement_min", "accuracy_drop_max_pp", "sqnr_min_db")  # by layers in float
SCHEMES_OF_OTHERS = ("per_channel", "per_tensor", "static")
STRENGTHS = (None, 0.25, 0.5, 0.75)
KEPT = (0, 1, 2, 4, 8, 16)  # so many of the ranking's first layers
SEED = 0  # of the rotation
AS_CHEAP = 0.002  # the modelled cost is within half of that of the counted one (docs/adr/0032)

Choice = str | float | bool | None
Item = TypeVar("Item")


class Trial(Protocol):
    """The part of Optuna's trial that is used."""

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Any: ...


class _Given:
    """A trial that suggests ``values``, and the first choice where they have none that there is."""

    def __init__(self, values: Mapping[str, Choice]) -> None:
        self.values = values
        self.given: dict[str, Choice] = {}
        self.asked: dict[str, Sequence[Choice]] = {}

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Any:
        self.asked[name] = choices
        value = self.values.get(name, choices[0])
        self.given[name] = value if value in choices else choices[0]
        return self.given[name]


def _values(recipe: Recipe) -> dict[str, Choice]:
    """What a trial was given that suggested ``recipe``."""
    rewrite, quantize = recipe.rewrite, recipe.quantize
    return rewrite.model_dump() | {
        "rotate": rewrite.rotate is not None,
        "scheme": quantize.scheme,
        "keep_float": len(quantize.keep_float),
        "keep_dynamic": len(quantize.keep_dynamic),
        "rounding": quantize.rounding,
    }


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may be chosen for one file of one model; ``ranking``: layers, best in float first."""

    key: str
    transformer: bool  # has what is rewritten
    ranking: tuple[str, ...]
    fused_attention: bool = False
    rounding: str = "nearest"  # of the files that the search does not look at

    @property
    def schemes(self) -> tuple[str, ...]:
        return FORMATS[self.key].schemes if self.transformer else SCHEMES_OF_OTHERS

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(count for count in KEPT if count <= len(self.ranking))

    def suggest(self, trial: Trial) -> Recipe:
        """Ask a trial for a recipe; the same names as in params.yaml."""
        rewrite: dict[str, Any] = {}
        if self.transformer:
            rewrite["fold_norm"] = trial.suggest_categorical("fold_norm", (False, True))
            if rewrite["fold_norm"] and trial.suggest_categorical("rotate", (False, True)):
                rewrite["rotate"] = SEED
            rewrite["centre"] = trial.suggest_categorical("centre", (False, True))
            for name in ("smooth", "query_key", "value"):
                rewrite[name] = trial.suggest_categorical(name, STRENGTHS)
        quantize: dict[str, Any] = {"scheme": trial.suggest_categorical("scheme", self.schemes)}
        kept = int(trial.suggest_categorical("keep_float", self.counts))
        quantize["keep_float"] = self.ranking[:kept]
        scheme = schemes.SCHEMES[quantize["scheme"]]
        if scheme.keeps_dynamic:
            dynamic = int(trial.suggest_categorical("keep_dynamic", self.counts))
            # Those after the ones in float: a layer is one or the other.
            quantize["keep_dynamic"] = self.ranking[kept : kept + dynamic]
        chosen = ("nearest", "gptq")
        quantize["rounding"] = (
            trial.suggest_categorical("rounding", chosen)
            if self._rounds(quantize["scheme"])
            else self.rounding
        )
        quantize["fused_attention"] = self.fused_attention and not scheme.fixed_ranges
        return Recipe(Rewrite(**rewrite), Quantize(**quantize))

    def first(self) -> list[dict[str, Choice]]:
        """What is tried before the search: each scheme with nothing else, then each with rewrites
        that are not known to lose."""
        nothing: dict[str, Choice] = {"keep_float": 0}
        rewritten: dict[str, Choice] = {}
        if self.transformer:
            none: dict[str, Choice] = {"fold_norm": False, "centre": False}
            nothing |= none | dict.fromkeys(("smooth", "query_key", "value"))
            rewritten = {"fold_norm": True, "rotate": False, "centre": True, "query_key": 0.75}
        plain: list[dict[str, Choice]] = [
            nothing | {"scheme": scheme} | self._own(scheme, "nearest") for scheme in self.schemes
        ]
        more = [
            trial | rewritten | self._own(scheme, "gptq")
            for trial, scheme in zip(plain, self.schemes, strict=True)
            if rewritten
        ]
        return [*plain, *more]

    def neighbours(self, recipe: Recipe) -> list[dict[str, Choice]]:
        """What to ask for to get each recipe that differs from ``recipe`` in one choice.

        What is not to choose in this space, or only since the change, has its first choice.
        """
        own = _Given(_values(recipe))
        self.suggest(own)
        found = []
        for name, choices in own.asked.items():
            for other in choices:
                if other != own.given[name]:
                    changed = _Given(own.given | {name: other})
                    self.suggest(changed)
                    found.append(changed.given)
        return found

    def recipe(self, values: Mapping[str, Choice]) -> Recipe:
        """The recipe that a trial with ``values`` suggests."""
        return self.suggest(_Given(values))

    def _own(self, scheme: str, rounding: str) -> dict[str, Choice]:
        """What is asked of a scheme alone."""
        if schemes.SCHEMES[scheme].keeps_dynamic:
            return {"keep_dynamic": 0}
        return {"rounding": rounding} if self._rounds(scheme) else {}

    def _rounds(self, scheme: str) -> bool:
        return FORMATS[self.key].rounds and not schemes.SCHEMES[scheme].fixed_ranges


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


def judged(
    gate: Gate,
    key: str,
    measured: FloatComparison | NonFinite,
    size_bytes: int,
    float_bytes: int,
) -> list[Criterion]:
    """The gate's criteria of quality and size for one file, from what `parity` measures of it."""
    return list(quality.of_file(gate, key, measured, size_bytes, float_bytes))


def violation(criteria: Iterable[Criterion]) -> float:
    """How far measured values are beyond their limits, as a sum of relative distances.

    A value counts where the gate would still wait for more samples, too: a search that picks the
    best of many must not lean on what is merely undecided. Nothing measured is infinitely far.
    """
    total = 0.0
    for criterion in criteria:
        if criterion.value is None or criterion.limit is None:
            total += float("inf") if criterion.outcome == FAIL else 0.0
            continue
        least = "_min" in criterion.name
        beyond = criterion.limit - criterion.value if least else criterion.value - criterion.limit
        total += max(0.0, beyond) / max(abs(criterion.limit), 1e-9)
    return total


def over_budget(gate: Gate, key: str, instructions_m: float) -> float:
    """How far a modelled cost is beyond the user's ``instructions_max_m``, relatively."""
    limit = gate.budgets[key].instructions_max_m if key in gate.budgets else None
    return 0.0 if limit is None else max(0.0, instructions_m / limit - 1)


def hopeless(criteria: Iterable[Criterion], slack_db: float) -> bool:
    """Whether few images show already that a file will not pass; its SQNR may still rise a bit."""
    return any(
        c.outcome == FAIL
        and (c.name != "sqnr_min_db" or c.value is None or c.value < (c.limit or 0) - slack_db)
        for c in criteria
    )


def pareto(results: Sequence[Result]) -> list[Result]:
    """Those within all limits that no other beats: no cheaper, no smaller and no nearer one."""
    fit = fitting(results)

    def costs(result: Result) -> tuple[float, float, float]:
        return result.instructions_m, result.size_ratio, -result.sqnr_db

    front = [
        result
        for result in fit
        if not any(
            costs(other) != costs(result)
            and all(a <= b for a, b in zip(costs(other), costs(result), strict=True))
            for other in fit
        )
    ]
    return sorted(front, key=costs)


def frontier(results: Iterable[Result]) -> list[Result]:
    """The cheapest, and each dearer one that is nearer to the limits than all cheaper ones are; of
    equals the nearest to float."""
    ordered = sorted(results, key=lambda r: (r.instructions_m, r.violation, -r.sqnr_db))
    found: list[Result] = []
    for result in ordered:
        if not found or result.violation < found[-1].violation:
            found.append(result)
    return found


def by_cost(results: Sequence[Result]) -> list[Result]:
    """Those within all limits, what to take first: of the cheapest and those as cheap the nearest
    to float first, then of the next."""
    left = sorted(fitting(results), key=lambda r: r.instructions_m)
    ordered: list[Result] = []
    while left:
        tier = [result for result in left if as_cheap(result, left[0])]
        ordered += sorted(tier, key=lambda r: -r.sqnr_db)
        left = left[len(tier) :]
    return ordered


def last(results: Sequence[Result], own: Recipe, count: int) -> list[Result]:
    """The first ``count`` by cost, and the one of ``own`` as the second if it is as cheap as the
    first: what somebody has already is given up only for something better."""
    ordered = by_cost(results)
    known = [r for r in ordered[1:] if r.recipe == own and as_cheap(r, ordered[0])]
    others = [r for r in ordered[1:count] if r not in known]
    return [*ordered[:1], *known, *others]


def as_cheap(result: Result, other: Result) -> bool:
    """Whether a result costs no more than another, as far as the modelled cost can tell."""
    return result.instructions_m <= dearest(other)


def dearest(result: Result) -> float:
    """The highest modelled cost that is no higher than a result's, as far as the model can tell."""
    return result.instructions_m * (1 + AS_CHEAP)


def fitting(results: Iterable[Result]) -> list[Result]:
    """Those within all limits."""
    return [result for result in results if result.violation == 0]


def mendable(criteria: Iterable[Criterion]) -> tuple[list[Criterion], list[Criterion]]:
    """Split the failed criteria into those that layers in float can mend, and the others."""
    failed = [c for c in criteria if c.outcome == FAIL]
    int8 = {known.suffix for known in FORMATS.values() if known.schemes}
    mends = [c for c in failed if c.name in MENDABLE and c.subject in int8]
    return mends, [c for c in failed if c not in mends]


def mended(criteria: Iterable[Criterion], wanted: Iterable[str]) -> bool:
    """Whether what failed at the gate (``wanted``) is shown to pass, and nothing else of what
    layers in float can mend fails.

    Fewer images than the gate's leave more undecided; that would be no repair.
    """
    found = [c for c in criteria if c.name in MENDABLE or c.value is None]
    passing = {c.name for c in found if c.outcome == PASS}
    return all(c.outcome != FAIL for c in found) and set(wanted) <= passing


def fewest(ranked: Sequence[Item], passes: Callable[[tuple[Item, ...]], bool]) -> list[Item] | None:
    """A set that passes, and that does no more without any one of its members; None if all of
    ``ranked`` together do not pass.

    The shortest beginning of ``ranked`` that passes is found by bisection; then each member is left
    out in turn, the last first, and stays out if it passes without. Of two sets that cannot be
    made smaller it may find the larger.
    """
    if passes(()):
        return []
    if not passes(tuple(ranked)):
        return None
    count = bisect_left(range(1, len(ranked)), True, key=lambda n: passes(tuple(ranked[:n]))) + 1
    taken = list(ranked[:count])
    for item in reversed(ranked[:count]):
        fewer = [other for other in taken if other != item]
        if fewer and passes(tuple(fewer)):
            taken = fewer
    return taken


def words(criterion: Criterion) -> str:
    """A criterion's number beside its limit, in a few words."""
    value = "not measured" if criterion.value is None else f"{criterion.value:.4g}"
    limit = "" if criterion.limit is None else f"limit {criterion.limit:g} {criterion.unit}".strip()
    said = f"{criterion.subject} {criterion.name} {value}" + (f" ({limit})" if limit else "")
    return said if criterion.outcome == PASS else f"{said} {criterion.outcome}"
