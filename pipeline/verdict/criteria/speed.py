"""How long each file takes and how much memory, beside float and beside the last release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.formats import FORMATS
from pipeline.metrics import timing
from pipeline.params import Budget, Gate
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion, compare, plain


def criteria(gate: Gate, latency: Mapping[str, Any]) -> Iterator[Criterion]:
    """Yield the criteria of each file that has a budget."""
    for key in FORMATS:
        budget = gate.budgets.get(key)
        if budget is None:
            continue
        if key not in latency["artefacts"]:
            name = FORMATS[key].suffix
            yield plain("latency", name, FAIL, f"{name} was not timed")
            continue
        yield from _latency(gate, budget, key, latency)
        yield from _regression(gate, budget, key, latency)
        yield from _memory(budget, key, latency)


def _latency(
    gate: Gate, budget: Budget, key: str, latency: Mapping[str, Any]
) -> Iterator[Criterion]:
    if budget.latency_ratio_max is not None:
        yield _ratio(
            gate,
            "latency_ratio_max",
            key,
            {key: latency["artefacts"][key]["runs_ms"], "float": _float_runs(latency)},
            budget.latency_ratio_max,
            latency,
        )


def _regression(
    gate: Gate, budget: Budget, key: str, latency: Mapping[str, Any]
) -> Iterator[Criterion]:
    previous = latency["previous"]
    if budget.regression_ratio_max is None or previous is None:
        return
    if key not in previous["artefacts"]:
        return  # a format that the last release did not have
    timed = {
        key: latency["artefacts"][key]["runs_ms"],
        previous["release"]: previous["artefacts"][key]["runs_ms"],
    }
    limit = budget.regression_ratio_max
    yield _ratio(gate, "regression_ratio_max", key, timed, limit, latency)


def _ratio(
    gate: Gate,
    name: str,
    key: str,
    timed: Mapping[str, list[float]],
    limit: float,
    latency: Mapping[str, Any],
) -> Criterion:
    """Judge the ratio of the first of ``timed`` to the second, which ran in the same rounds."""
    (_, runs), (other, other_runs) = timed.items()
    ratio = timing.bootstrap_ratio(runs, other_runs, gate.confidence)
    drifting = [k for k, values in timed.items() if timing.drift(values).drifting]
    outcome = compare(ratio.interval.high <= limit, ratio.interval.low > limit)
    where = f"on {latency['machine']['processor']}, {latency['threads']} thread(s)"
    note = f"{timing.claim(ratio, gate.latency_noise)} {other} {where}"
    if drifting:
        outcome = UNDECIDED
        note = f"the machine changed while {', '.join(drifting)} was timed {where}: measure again"
    elif outcome == UNDECIDED:
        note += "; the interval holds the limit: raise latency.runs, or use a quieter machine"
    return Criterion(
        name=name,
        subject=FORMATS[key].suffix,
        outcome=outcome,
        value=ratio.median,
        interval=ratio.interval,
        limit=limit,
        unit=f"of {other}",
        note=note,
    )


def _memory(budget: Budget, key: str, latency: Mapping[str, Any]) -> Iterator[Criterion]:
    """Resident memory that loading and running adds, each in a process of its own."""
    limit = budget.memory_ratio_max
    if limit is None:
        return
    timed = latency["artefacts"]
    own, of_float = timed[key]["own_memory_mb"], timed["float"]["own_memory_mb"]
    if own is None or of_float is None:
        why = "this system does not tell memory by file; measure on Linux"
        yield plain("memory_ratio_max", FORMATS[key].suffix, UNDECIDED, why)
        return
    if not (own > 0 and of_float > 0):
        raise ValueError(f"own_memory_mb of {key} is {own}, of float {of_float}")
    ok = own / of_float <= limit
    yield Criterion(
        name="memory_ratio_max",
        subject=FORMATS[key].suffix,
        outcome=PASS if ok else FAIL,
        value=own / of_float,
        interval=None,
        limit=limit,
        unit="of float",
        note=f"loading and running it adds {own:.0f} MB, float {of_float:.0f} MB",
    )


def _float_runs(latency: Mapping[str, Any]) -> list[float]:
    runs: list[float] = latency["artefacts"]["float"]["runs_ms"]
    return runs
