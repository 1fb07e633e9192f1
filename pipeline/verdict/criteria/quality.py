"""How near each file's answers are to float's, and float's to what was published."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.formats import FORMATS
from pipeline.metrics import intervals
from pipeline.metrics.intervals import Interval
from pipeline.params import Budget, Gate
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion, compare, plain


def criteria(gate: Gate, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    """Yield the criteria of the float model and of each file."""
    yield from _published(gate, parity)
    for key in FORMATS:
        yield from _artefact(gate, key, parity)


def _published(gate: Gate, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    """Float accuracy far from the published one: whatever follows is measured on a broken base."""
    published, right, band = (
        parity["published"],
        parity["reference_accuracy"],
        gate.published_tolerance_pp,
    )
    if right is not None and right["count"] != parity["samples"]["count"]:
        raise ValueError(f"float was measured on {right['count']} samples")
    if band is None or published is None or right is None:
        return
    claimed = published["top1"]
    seen = intervals.wilson(right["right"], right["count"], gate.confidence)
    interval = Interval(100 * seen.low - claimed, 100 * seen.high - claimed)
    outcome = compare(
        -band <= interval.low and interval.high <= band,
        interval.high < -band or interval.low > band,
    )
    note = f"published for {published['dataset']}: {claimed:g}%"
    if outcome == FAIL:
        note += (
            "; look at weights, preprocessing and the order of labels first. Are these other "
            "images? Then set gate.published_tolerance_pp to null"
        )
    elif outcome == UNDECIDED:
        note += "; more samples would tell (samples.limit)"
    yield Criterion(
        name="published_tolerance_pp",
        subject="float",
        outcome=outcome,
        value=100 * right["right"] / right["count"] - claimed,
        interval=interval,
        limit=band,
        unit="pp",
        note=note,
    )


def _artefact(gate: Gate, key: str, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    budget = gate.budgets.get(key)
    measured = parity["artefacts"].get(key)
    if not measured or not measured["count"] or not measured["finite"]:
        seen = measured and measured["count"]
        why = "answers with NaN or infinity" if seen else "was not measured on any sample"
        yield plain("parity", FORMATS[key].suffix, FAIL, f"{FORMATS[key].suffix} {why}")
        return
    _check_counts(FORMATS[key].suffix, measured, parity["samples"]["count"])
    if budget is None:
        return
    yield from _agreement(gate, budget, key, measured)
    yield from _accuracy(gate, budget, key, measured)
    yield from _bounded(
        "sqnr_min_db",
        key,
        measured["sqnr_db"],
        budget.sqnr_min_db,
        "dB",
        least=True,
        hint="quantization lost more of the signal than allowed; `edge-vit diagnose` says where",
    )
    ratio = measured["size_bytes"] / parity["float_size_bytes"]
    yield from _bounded(
        "size_ratio_max",
        key,
        ratio,
        budget.size_ratio_max,
        "of float",
        least=False,
        hint="larger than allowed; fewer layers in keep_float make it smaller",
    )


def _check_counts(name: str, measured: Mapping[str, Any], samples: int) -> None:
    pairs = measured["accuracy"]
    counts = {measured["count"], samples, *([sum(pairs.values())] if pairs else [])}
    if len(counts) != 1:
        raise ValueError(f"{name} was measured on {sorted(counts)} samples at once")
    if not measured["size_bytes"] > 0:
        raise ValueError(f"{name} has {measured['size_bytes']} bytes")


def _agreement(
    gate: Gate, budget: Budget, key: str, measured: Mapping[str, Any]
) -> Iterator[Criterion]:
    limit = budget.top1_agreement_min
    if limit is None:
        return
    equal, count = measured["top1_equal"], measured["count"]
    interval = intervals.wilson(equal, count, gate.confidence)
    outcome = compare(interval.low >= limit, interval.high < limit)
    note = f"{equal} of {count} answers are float's"
    if outcome == UNDECIDED:
        needed = intervals.samples_to_decide_proportion(equal, count, limit, gate.confidence)
        note += _more_samples(needed, count)
    elif outcome == FAIL:
        note += "; try quantize.scheme per_channel, or keep_float for the layers that lose most"
    yield Criterion(
        name="top1_agreement_min",
        subject=FORMATS[key].suffix,
        outcome=outcome,
        value=equal / count,
        interval=interval,
        limit=limit,
        unit="",
        note=note,
    )


def _accuracy(
    gate: Gate, budget: Budget, key: str, measured: Mapping[str, Any]
) -> Iterator[Criterion]:
    """Non-inferiority: the upper bound of the drop against the margin.

    That a drop is not significant would prove nothing: too few samples find no drop either.
    """
    margin = budget.accuracy_drop_max_pp
    if margin is None:
        return
    pairs = measured["accuracy"]
    if pairs is None:
        yield plain(
            "accuracy_drop_max_pp",
            FORMATS[key].suffix,
            UNDECIDED,
            "the samples have no labels; give a folder with one folder a class",
        )
        return
    drop = intervals.paired_drop(**pairs, confidence=gate.confidence)
    outcome = compare(drop.upper_pp <= margin, drop.interval_pp.low > margin)
    note = f"{pairs['only_float']} answers lost, {pairs['only_edge']} won"
    if outcome == UNDECIDED:
        discordant = (pairs["only_float"], pairs["only_edge"])
        needed = intervals.samples_to_decide(
            *discordant, measured["count"], margin, gate.confidence
        )
        note += _more_samples(needed, measured["count"])
    yield Criterion(
        name="accuracy_drop_max_pp",
        subject=FORMATS[key].suffix,
        outcome=outcome,
        value=drop.drop_pp,
        interval=Interval(drop.interval_pp.low, drop.upper_pp),
        limit=margin,
        unit="pp",
        note=note,
    )


def _bounded(
    name: str, key: str, value: float, limit: float | None, unit: str, *, least: bool, hint: str
) -> Iterator[Criterion]:
    """A limit without chance: ``value`` may not be under it (``least``) or not over it."""
    if limit is None:
        return
    ok = value >= limit if least else value <= limit
    yield Criterion(
        name=name,
        subject=FORMATS[key].suffix,
        outcome=PASS if ok else FAIL,
        value=value,
        interval=None,
        limit=limit,
        unit=unit,
        note="" if ok else hint,
    )


def _more_samples(needed: int | None, count: int) -> str:
    if needed is None:
        return "; more samples would not show it, as what was seen is at or over the limit"
    return f"; about {max(needed, count + 1)} samples would decide (samples.limit)"
