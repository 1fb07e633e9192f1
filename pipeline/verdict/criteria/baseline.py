"""The float baseline that was recorded on the reference GPU.

An edge processor is never ranked against a GPU: the record gives the float answer to agree with,
and a stated budget for how many times slower the edge may be. A record of another GPU is shown and
never counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipeline.evidence.baselines import Baseline
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.parity import ParityEvidence
from pipeline.formats import FORMATS
from pipeline.metrics import timing
from pipeline.metrics.intervals import Interval
from pipeline.metrics.measures import StepComparison
from pipeline.params import Gate
from pipeline.verdict.criterion import FAIL, PASS, QUIET, UNDECIDED, Criterion, compare, plain


def criteria(
    gate: Gate,
    device: str | None,
    parity: ParityEvidence,
    latency: LatencyEvidence,
    baselines: Sequence[Baseline],
) -> Iterator[Criterion]:
    """Yield the criteria of the record of ``device``; undecided where there is none.

    Without a reference GPU there are none.
    """
    if device is None:
        return
    of_device = [b for b in baselines if (b.kind, b.device) == ("cuda", device)]
    fitting = [b for b in of_device if b.refusal is None]
    missing = "; ".join(
        [
            f"no record of {device} for this model and these samples",
            *(f"one was refused: {b.refusal}" for b in of_device if b.refusal),
            *(
                f"there is one of {name}, which baseline.device does not ask for"
                for name in dict.fromkeys(_named(b) for b in baselines if b not in of_device)
            ),
            "a candidate is published without it, a release is not: run `edge-vit baseline` there",
        ]
    )
    record = f"a record of {device}"
    if fitting:
        yield from (_logits(gate, baseline, parity) for baseline in fitting)
    else:
        yield plain("baseline_logits", "float", UNDECIDED, missing, waits_for=record)
    for key in FORMATS:
        budget = gate.budgets.get(key)
        if budget is None or budget.baseline_ratio_max is None:
            continue
        if not fitting:
            suffix = FORMATS[key].suffix
            yield plain("baseline_ratio_max", suffix, UNDECIDED, missing, waits_for=record)
        elif key in latency.artefacts:
            for baseline in fitting:
                yield _latency(gate, key, budget.baseline_ratio_max, baseline, latency)


def _named(baseline: Baseline) -> str:
    return baseline.device if baseline.kind == "cuda" else f"{baseline.device} ({baseline.kind})"


def _logits(gate: Gate, baseline: Baseline, parity: ParityEvidence) -> Criterion:
    floor = parity.noise_floor.max_abs + baseline.noise_floor
    limit, difference = gate.noise_multiple * floor, baseline.difference
    value = difference.max_abs if isinstance(difference, StepComparison) else None
    ok = value is not None and value <= limit
    return Criterion(
        name="baseline_logits",
        subject="float",
        outcome=PASS if ok else FAIL,
        value=value,
        interval=None,
        limit=limit,
        unit="logits",
        note=f"gives the same answers as on {baseline.device}, recorded {baseline.recorded}"
        if ok
        else f"float gives other answers than on {baseline.device}, recorded {baseline.recorded}: "
        "record it again, or look at the reference stage",
    )


def _latency(
    gate: Gate, key: str, limit: float, baseline: Baseline, latency: LatencyEvidence
) -> Criterion:
    """The ratio of medians of two machines, from the bounds of each: they share no rounds."""
    runs = latency.artefacts[key].runs_ms
    # Both bounds of both medians at once: Bonferroni over four one-sided ones.
    each = 1 - (1 - gate.confidence) / 4
    edge = timing.quantile_bounds(timing.thinned(runs), 0.5, each)
    gpu = timing.quantile_bounds(timing.thinned(baseline.runs_ms), 0.5, each)
    gpu_ms = timing.median(baseline.runs_ms)
    note = f"on {latency.machine.processor}; float on {baseline.device} takes {gpu_ms:.2f} ms"
    outcome, interval, waits_for = UNDECIDED, None, ""
    if edge.low and edge.high and gpu.low and gpu.high:
        interval = Interval(edge.low / gpu.high, edge.high / gpu.low)
        outcome = compare(interval.high <= limit, interval.low > limit)
    if len(runs) < timing.RUNS_MIN:
        outcome = UNDECIDED
        note += f"; {len(runs)} runs are too few, at least {timing.RUNS_MIN} are needed: "
        note += "raise latency.runs"
    elif timing.drift(runs).drifting:
        outcome, waits_for = UNDECIDED, QUIET
        note += "; the machine changed meanwhile: measure again"
    elif interval is None:
        here = not (edge.low and edge.high)
        waits_for = QUIET if here else f"a longer record of {baseline.device}"
        note += f"; the runs {'here' if here else 'there'} are too few, or too much like those "
        note += "before them, to bound the median: measure again"
    elif outcome == UNDECIDED:
        note += "; the interval holds the limit: raise latency.runs"
    return Criterion(
        name="baseline_ratio_max",
        subject=FORMATS[key].suffix,
        outcome=outcome,
        value=timing.median(runs) / gpu_ms,
        interval=interval,
        limit=limit,
        unit=f"of {baseline.device}",
        note=note,
        waits_for=waits_for,
    )
