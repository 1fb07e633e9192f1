"""What `tune` searches and `repair` leaves in float: pure, from measured numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import yaml

from pipeline.core.criteria import quality, speed
from pipeline.core.criterion import FAIL, NAMES, PASS, UNDECIDED, Criterion
from pipeline.core.params import Budget, Format, Gate, Quantize, Rewrite

MENDABLE = ("top1_agreement_min", "accuracy_drop_max_pp", "sqnr_min_db")  # by layers in float
SCHEMES: dict[str, tuple[str, ...]] = {  # worth trying on a vision transformer, by format
    "ptl": ("per_channel", "per_tensor", "static_symmetric"),
    "int8_onnx": ("per_channel", "per_tensor", "static"),
    "pte": ("per_channel", "static"),
}
SCHEMES_OF_OTHERS = ("per_channel", "per_tensor", "static")
STRENGTHS = (None, 0.25, 0.5, 0.75)
KEPT = (0, 1, 2, 4, 8)  # so many of the ranking's first layers
SEED = 0  # of the rotation

Choice = str | float | bool | None
Item = TypeVar("Item")


class Trial(Protocol):
    """The part of Optuna's trial that is used."""

    def suggest_categorical(self, name: str, choices: Sequence[Choice]) -> Any: ...


@dataclass(frozen=True)
class Recipe:
    """The two sections of params.yaml that are searched."""

    rewrite: Rewrite
    quantize: Quantize

    def lines(self) -> str:
        """What to paste into params.yaml."""
        own = self.quantize.model_dump(mode="json")
        return yaml.safe_dump(
            {"rewrite": self.rewrite.model_dump(mode="json"), "quantize": own}, sort_keys=False
        ).rstrip()


@dataclass(frozen=True, kw_only=True)
class Space:
    """What may be chosen for one file of one model; ``ranking``: layers, best in float first."""

    key: Format
    transformer: bool  # has what is rewritten
    ranking: tuple[str, ...]
    fused_attention: bool = False

    @property
    def schemes(self) -> tuple[str, ...]:
        return SCHEMES[self.key] if self.transformer else SCHEMES_OF_OTHERS

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
        if quantize["scheme"] == "static_symmetric":
            dynamic = int(trial.suggest_categorical("keep_dynamic", self.counts))
            # Named after those in float: a layer is one or the other.
            quantize["keep_dynamic"] = self.ranking[kept : kept + dynamic]
        else:
            quantize["fused_attention"] = self.fused_attention and quantize["scheme"] != "static"
        return Recipe(Rewrite(**rewrite), Quantize(**quantize))

    def first(self, proposed: int) -> list[dict[str, Choice]]:
        """What is tried before the search: the defaults, the tutorials' recipe, what `diagnose`
        proposes (``proposed`` layers in float), each other scheme, and one with rewrites."""
        nothing: dict[str, Choice] = {"keep_float": 0}
        rewritten: dict[str, Choice] = {}
        if self.transformer:
            none = {"fold_norm": False, "centre": False}
            nothing |= none | dict.fromkeys(("smooth", "query_key", "value"))
            rewritten = {"fold_norm": True, "rotate": False, "centre": True, "smooth": 0.5}
        most = max(count for count in self.counts if count <= max(1, proposed))
        found = [nothing | {"scheme": "per_channel"}]
        found += [
            nothing | {"scheme": scheme} | ({"keep_dynamic": 0} if "symm" in scheme else {})
            for scheme in sorted(self.schemes, key=lambda scheme: scheme != "per_tensor")
            if scheme != "per_channel"
        ]
        found.append(nothing | {"scheme": "per_channel", "keep_float": most})
        if rewritten:
            found += [trial | rewritten for trial in found[: len(self.schemes)]]
        return found


@dataclass(frozen=True, kw_only=True)
class Result:
    """One trial that was measured to its end."""

    number: int
    size_ratio: float  # of the float checkpoint's bytes
    latency_ratio: float  # of float's time, on this machine
    sqnr_db: float
    agreement: float
    violation: float  # 0: keeps every limit
    recipe: Mapping[str, Any] | None = None


def judged(
    gate: Gate, key: Format, measured: Mapping[str, Any], float_bytes: int
) -> list[Criterion]:
    """The gate's criteria of quality and size for one file, from what `parity` measures of it."""
    parity = {
        "published": None,
        "reference_accuracy": None,
        "samples": {"count": measured["count"]},
        "artefacts": {key: measured},
        "float_size_bytes": float_bytes,
    }
    return [c for c in quality.criteria(gate, parity) if c.subject == NAMES[key]]


def timed(
    gate: Gate, key: Format, runs_ms: Mapping[str, list[float]], processor: str
) -> list[Criterion]:
    """The gate's criterion of time; ``runs_ms`` has the rounds of ``key`` and of float."""
    limit = gate.budgets[key].latency_ratio_max if key in gate.budgets else None
    only = gate.model_copy(update={"budgets": {key: Budget(latency_ratio_max=limit)}})
    evidence = {
        "artefacts": {name: {"runs_ms": runs} for name, runs in runs_ms.items()},
        "previous": None,
        "threads": 1,
        "machine": {"processor": processor},
    }
    return list(speed.criteria(only, evidence))


def violation(criteria: Iterable[Criterion]) -> float:
    """How far measured values are beyond their limits, as a sum of relative distances.

    A search that picks the best of many must not lean on what is merely undecided, so a value
    counts where the gate would still wait for more samples. Nothing measured is infinitely far.
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


def hopeless(criteria: Iterable[Criterion], slack_db: float) -> bool:
    """Whether few images show already that a file will not pass; its SQNR may still rise a bit."""
    return any(
        c.outcome == FAIL
        and (c.name != "sqnr_min_db" or c.value is None or c.value < (c.limit or 0) - slack_db)
        for c in criteria
    )


def pareto(results: Sequence[Result]) -> list[Result]:
    """Those within all limits that no other beats: no smaller, no faster and no nearer one."""
    fit = [result for result in results if result.violation == 0]

    def costs(result: Result) -> tuple[float, float, float]:
        return result.size_ratio, result.latency_ratio, -result.sqnr_db

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


def cheapest(results: Sequence[Result], latency_noise: float) -> Result | None:
    """The one to take: fastest; among those as fast, within noise, the smallest, then nearest."""
    front = pareto(results)
    if not front:
        return None
    fastest = min(result.latency_ratio for result in front)
    as_fast = [r for r in front if r.latency_ratio <= fastest * (1 + latency_noise)]
    return min(as_fast, key=lambda r: (round(r.size_ratio, 3), -r.sqnr_db))


def mendable(criteria: Iterable[Criterion]) -> tuple[list[Criterion], list[Criterion]]:
    """Split the failed criteria into those that layers in float can mend, and the others."""
    failed = [c for c in criteria if c.outcome == FAIL]
    int8 = {NAMES[key] for key in SCHEMES}
    mends = [c for c in failed if c.name in MENDABLE and c.subject in int8]
    return mends, [c for c in failed if c not in mends]


def mended(criteria: Iterable[Criterion], wanted: Iterable[str]) -> bool:
    """Whether nothing fails, and what failed at the gate (``wanted``) is shown to pass.

    Fewer images than the gate's leave more undecided; that would be no repair.
    """
    found = list(criteria)
    passing = {c.name for c in found if c.outcome == PASS}
    return all(c.outcome != FAIL for c in found) and set(wanted) <= passing


def fewest(ranked: Sequence[Item], passes: Callable[[tuple[Item, ...]], bool]) -> list[Item] | None:
    """A set that passes, and that does no more without any one of its members.

    All of ``ranked`` are tried first: if these do not pass, None. Then they are added one at a
    time, best first, until it passes; then each is left out again, the last first, and
    stays out if it passes without. Of two sets that cannot be made smaller it may find the larger.
    """
    if passes(()):
        return []
    if not passes(tuple(ranked)):
        return None
    taken: list[Item] = []
    for item in ranked:
        taken.append(item)
        if len(taken) == len(ranked) or passes(tuple(taken)):
            break
    for item in reversed(tuple(taken)):
        fewer = [other for other in taken if other != item]
        if fewer and passes(tuple(fewer)):
            taken = fewer
    return taken


def words(criterion: Criterion) -> str:
    """A criterion's number beside its limit, in a few words."""
    value = "not measured" if criterion.value is None else f"{criterion.value:.4g}"
    limit = "" if criterion.limit is None else f" (limit {criterion.limit:g} {criterion.unit})"
    sure = " undecided" if criterion.outcome == UNDECIDED else ""
    return f"{criterion.subject} {criterion.name} {value}{limit.replace(' )', ')')}{sure}"
