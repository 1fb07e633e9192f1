"""Time and memory of each file, compared with float and with the last release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pipeline.errors import IntegrityError
from pipeline.evidence.latency import FLOAT, LatencyEvidence
from pipeline.formats import FORMATS, name_of
from pipeline.metrics import timing
from pipeline.params import Budget, Gate
from pipeline.verdict.criterion import FAIL, PASS, QUIET, UNDECIDED, Criterion, compare, plain


def criteria(gate: Gate, latency: LatencyEvidence) -> Iterator[Criterion]:
    """Yield the criteria of each file that has a budget."""
    for key in FORMATS:
        budget = gate.budgets.get(key)
        if budget is None:
            continue
        if key not in latency.artefacts:
            yield plain(
                "latency", FORMATS[key].suffix, FAIL, f"{FORMATS[key].suffix} was not timed"
            )
            continue
        yield from _latency(gate, budget, key, latency)
        yield from _regression(gate, budget, key, latency)
        yield from _memory(budget, key, latency)


def _latency(gate: Gate, budget: Budget, key: str, latency: LatencyEvidence) -> Iterator[Criterion]:
    if budget.latency_ratio_max is not None:
        yield _ratio(
            gate,
            "latency_ratio_max",
            key,
            {key: latency.artefacts[key].runs_ms, FLOAT: latency.float_runs_ms},
            budget.latency_ratio_max,
            latency,
        )


def _regression(
    gate: Gate, budget: Budget, key: str, latency: LatencyEvidence
) -> Iterator[Criterion]:
    previous = latency.previous
    if budget.regression_ratio_max is None or previous is None:
        return
    if key not in previous.artefacts:
        return  # a format that the last release did not have
    timed = {
        key: latency.artefacts[key].runs_ms,
        previous.release: previous.artefacts[key].runs_ms,
    }
    limit = budget.regression_ratio_max
    yield _ratio(gate, "regression_ratio_max", key, timed, limit, latency)


def _ratio(
    gate: Gate,
    name: str,
    key: str,
    timed: Mapping[str, Sequence[float]],
    limit: float,
    latency: LatencyEvidence,
) -> Criterion:
    """Judge the ratio of the first of ``timed`` to the second, which ran in the same rounds."""
    (_, runs), (other, other_runs) = timed.items()
    where = f"on {latency.machine.processor}, {latency.threads} thread(s)"
    if len(runs) < timing.RUNS_MIN:
        note = (
            f"{len(runs)} runs are too few to judge time by, at least {timing.RUNS_MIN} are "
            "needed; raise latency.runs"
        )
        return plain(name, FORMATS[key].suffix, UNDECIDED, note)
    ratio = timing.bootstrap_ratio(runs, other_runs, gate.confidence)
    drifting = [name_of(k) for k, values in timed.items() if timing.drift(values).drifting]
    outcome, waits_for = compare(ratio.interval.high <= limit, ratio.interval.low > limit), ""
    note = f"{timing.claim(ratio, gate.latency_noise)} {other} {where}"
    if drifting:
        outcome, waits_for = UNDECIDED, QUIET
        names = " and ".join(drifting)
        note = f"the machine changed while {names} ran {where}: measure again"
    elif ratio.effective_runs < timing.EFFECTIVE_MIN:
        outcome, waits_for = UNDECIDED, QUIET
        note = (
            f"the machine was busy with something else {where}: {len(runs)} runs, each much like "
            f"the one before, tell no more than {ratio.effective_runs:.0f} independent ones: "
            "measure again"
        )
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
        waits_for=waits_for,
    )


def _memory(budget: Budget, key: str, latency: LatencyEvidence) -> Iterator[Criterion]:
    """Resident memory that loading and running adds, each in a process of its own."""
    limit = budget.memory_ratio_max
    if limit is None:
        return
    timed = latency.artefacts
    own, of_float = timed[key].own_memory_mb, timed[FLOAT].own_memory_mb
    if own is None or of_float is None:
        why = "this system does not tell memory by file; measure on Linux"
        yield plain("memory_ratio_max", FORMATS[key].suffix, UNDECIDED, why, waits_for="Linux")
        return
    if not (own > 0 and of_float > 0):
        raise IntegrityError(
            f"loading {FORMATS[key].suffix} adds {own} MB of memory and float {of_float} MB, which "
            f"cannot be compared; run `{latency.remedy}` to measure again"
        )
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
