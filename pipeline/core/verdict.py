"""The verdict: every criterion with its number, interval, limit and outcome, from evidence alone.

Three outcomes. **pass**: the evidence shows that the limit is kept. **fail**: it shows that the
limit is broken. **undecided**: it shows neither, and says what would. Nothing to compare, NaN,
evidence for other bytes: never a pass. The same evidence gives the same verdict everywhere; nothing
here reads a file, a clock or the machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.core import statistics, timing
from pipeline.core.errors import IntegrityError
from pipeline.core.params import Budget, Gate
from pipeline.core.statistics import Interval

PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"
FORMATS = ("ptl", "onnx", "int8_onnx", "pte")
STEPS = ("script", "optimize", "lite", "export_onnx")
DELIVERING = {"lite": "ptl", "export_onnx": "onnx"}  # steps whose output is let out
NAMES = {"ptl": ".ptl", "onnx": ".onnx", "int8_onnx": ".int8.onnx", "pte": ".pte"}


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One rule, and what the evidence says of it."""

    name: str  # the key in params.yaml that sets the limit, where there is one
    subject: str  # the file or step that it is about
    outcome: str  # pass, fail or undecided
    value: float | None  # as measured
    interval: Interval | None
    limit: float | None
    unit: str
    note: str  # what was seen, and for a fail or an undecided one what to do


@dataclass(frozen=True)
class Verdict:
    """All criteria, and whether the channel's rule is met."""

    channel: str
    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        """`candidate` takes what has no failure; `release` refuses undecided ones, too."""
        refused = {FAIL} if self.channel == "candidate" else {FAIL, UNDECIDED}
        return bool(self.criteria) and not any(c.outcome in refused for c in self.criteria)

    def count(self, outcome: str) -> int:
        return sum(c.outcome == outcome for c in self.criteria)

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "channel": self.channel,
            "passed": self.passed,
            "counts": {outcome: self.count(outcome) for outcome in (PASS, FAIL, UNDECIDED)},
            "criteria": [asdict(c) for c in self.criteria],
        }


@dataclass(frozen=True, kw_only=True)
class Files:
    """SHA-256 of what is about to be let out, and of what it was made from."""

    artefacts: Mapping[str, str]  # by format
    checkpoint: str
    samples: str


def decide(
    gate: Gate, device: str, files: Files, parity: Mapping[str, Any], latency: Mapping[str, Any]
) -> Verdict:
    """Judge sealed evidence (see :func:`pipeline.core.evidence.check_seal`).

    ``device`` names the reference GPU whose record a release needs.

    Raises:
        IntegrityError: the evidence lacks what edge-vit writes, so it is not edge-vit's.
    """
    try:
        criteria = [
            *_bindings(files, parity, latency),
            *_weights(gate, parity),
            *_steps(gate, parity),
            *(c for key in FORMATS for c in _artefact(gate, key, parity, latency)),
            _baseline(device),
        ]
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise IntegrityError(
            f"the evidence is not complete or not possible ({error!r}); "
            "run `dvc repro --force parity latency`"
        ) from None
    return Verdict(gate.channel, tuple(criteria))


def _bindings(
    files: Files, parity: Mapping[str, Any], latency: Mapping[str, Any]
) -> Iterator[Criterion]:
    """Evidence counts only for the bytes it was taken on."""
    pairs: list[tuple[str, str | None, str | None, str]] = [
        ("checkpoint", files.checkpoint, parity["checkpoint_sha256"], "parity"),
        ("checkpoint", files.checkpoint, latency["artefacts"]["float"]["sha256"], "latency"),
        ("samples", files.samples, parity["samples"]["sha256"], "parity"),
        ("samples", files.samples, latency["samples_sha256"], "latency"),
    ]
    for key in FORMATS:
        for kind, evidence in (("parity", parity), ("latency", latency)):
            measured = evidence["artefacts"].get(key, {}).get("sha256")
            pairs.append((NAMES[key], files.artefacts.get(key), measured, kind))
    for step, key in DELIVERING.items():
        if step in parity["steps"]:
            measured = parity["steps"][step].get("after_sha256")
            pairs.append((step, files.artefacts.get(key), measured, "parity"))
    other = [pair for pair in pairs if not pair[1] or pair[1] != pair[2]]
    for subject, actual, measured, kind in other:
        yield _plain(
            "evidence",
            subject,
            FAIL,
            f"{kind} was measured on {_short(measured)}, this is {_short(actual)}; "
            f"run `dvc repro {kind}` to measure these bytes",
        )
    if not other:
        yield _plain("evidence", "all files", PASS, "every file is the one that was measured")


def _weights(gate: Gate, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    weights = parity["weights"]
    worst, limit = weights["worst_error_steps"], gate.weight_error_max_steps
    changed = weights["changed_floats"]
    if changed:
        yield _plain(
            "weights",
            "quantize",
            FAIL,
            f"{len(changed)} arrays that quantization leaves alone differ from the checkpoint, "
            f"first {changed[0]}; run `dvc repro --force quantize`",
        )
    if not weights["layers"]:
        yield _plain("weight_error_max_steps", "quantize", FAIL, "no int8 layer was compared")
        return
    ok = worst <= limit
    yield Criterion(
        name="weight_error_max_steps",
        subject="quantize",
        outcome=PASS if ok else FAIL,
        value=worst,
        interval=None,
        limit=limit,
        unit="steps",
        note=f"{weights['layers']} int8 layers lie within half a step of their float weights"
        if ok
        else f"{weights['worst_layer']} is no quantization of the checkpoint's weights; "
        "look at the quantize stage",
    )


def _steps(gate: Gate, parity: Mapping[str, Any]) -> Iterator[Criterion]:
    """Steps that should change nothing, each against the step before and its noise floor."""
    for step in STEPS:
        measured = parity["steps"].get(step)
        if measured is None:
            yield _plain("noise_multiple", step, FAIL, f"the {step} step was not compared")
            continue
        noise = measured.get("noise", parity["noise_floor"])["max_abs"]
        limit = gate.noise_multiple * noise
        finite = measured["finite"] and measured["count"] > 0 and math.isfinite(limit)
        ok = finite and measured["max_abs"] <= limit
        yield Criterion(
            name="noise_multiple",
            subject=step,
            outcome=PASS if ok else FAIL,
            value=measured["max_abs"] if finite else None,
            interval=None,
            limit=limit,
            unit="logits",
            note=f"{measured['after']} answers as {measured['before']} does"
            if ok
            else f"the {step} stage changed the answers: {measured['after']} differs from "
            f"{measured['before']} by more than {gate.noise_multiple:g} noise floors",
        )


def _artefact(
    gate: Gate, key: str, parity: Mapping[str, Any], latency: Mapping[str, Any]
) -> Iterator[Criterion]:
    budget = gate.budgets.get(key)  # type: ignore[call-overload]
    measured = parity["artefacts"].get(key)
    if not measured or not measured["count"] or not measured["finite"]:
        seen = measured and measured["count"]
        why = "answers with NaN or infinity" if seen else "was not measured on any sample"
        yield _plain("parity", NAMES[key], FAIL, f"{NAMES[key]} {why}")
        return
    _check_counts(NAMES[key], measured, parity["samples"]["count"])
    if budget is None:
        return
    yield from _agreement(gate, budget, key, measured)
    yield from _accuracy(gate, budget, key, measured)
    yield from _at_least("sqnr_min_db", key, measured["sqnr_db"], budget.sqnr_min_db, "dB")
    ratio = measured["size_bytes"] / parity["float_size_bytes"]
    yield from _at_most("size_ratio_max", key, ratio, budget.size_ratio_max, "of float")
    yield from _latency(gate, budget, key, latency)


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
    interval = statistics.wilson(equal, count, gate.confidence)
    outcome = _compare(interval.low >= limit, interval.high < limit)
    note = f"{equal} of {count} answers are float's"
    if outcome == UNDECIDED:
        needed = statistics.samples_to_decide_proportion(equal, count, limit, gate.confidence)
        note += _more_samples(needed, count)
    elif outcome == FAIL:
        note += "; try quantize.scheme per_channel, or keep_float for the layers that lose most"
    yield Criterion(
        name="top1_agreement_min",
        subject=NAMES[key],
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
        yield _plain(
            "accuracy_drop_max_pp",
            NAMES[key],
            UNDECIDED,
            "the samples have no labels; give a folder with one folder a class",
        )
        return
    drop = statistics.paired_drop(**pairs, confidence=gate.confidence)
    outcome = _compare(drop.upper_pp <= margin, drop.interval_pp.low > margin)
    note = f"{pairs['only_float']} answers lost, {pairs['only_edge']} won"
    if outcome == UNDECIDED:
        discordant = (pairs["only_float"], pairs["only_edge"])
        needed = statistics.samples_to_decide(
            *discordant, measured["count"], margin, gate.confidence
        )
        note += _more_samples(needed, measured["count"])
    yield Criterion(
        name="accuracy_drop_max_pp",
        subject=NAMES[key],
        outcome=outcome,
        value=drop.drop_pp,
        interval=Interval(drop.interval_pp.low, drop.upper_pp),
        limit=margin,
        unit="pp",
        note=note,
    )


def _latency(
    gate: Gate, budget: Budget, key: str, latency: Mapping[str, Any]
) -> Iterator[Criterion]:
    limit = budget.latency_ratio_max
    if limit is None:
        return
    timed = latency["artefacts"]
    if key not in timed:
        yield _plain("latency_ratio_max", NAMES[key], FAIL, f"{NAMES[key]} was not timed")
        return
    ratio = timing.bootstrap_ratio(
        timed[key]["runs_ms"], timed["float"]["runs_ms"], gate.confidence
    )
    drifting = [k for k in (key, "float") if timing.drift(timed[k]["runs_ms"]).drifting]
    outcome = _compare(ratio.interval.high <= limit, ratio.interval.low > limit)
    note = f"on {latency['machine']['processor']}, {latency['threads']} thread(s)"
    if drifting:
        outcome = UNDECIDED
        note += f"; the machine changed while {', '.join(drifting)} was timed: measure again"
    elif outcome == UNDECIDED:
        note += "; the interval holds the limit: raise latency.runs, or use a quieter machine"
    yield Criterion(
        name="latency_ratio_max",
        subject=NAMES[key],
        outcome=outcome,
        value=ratio.median,
        interval=ratio.interval,
        limit=limit,
        unit="of float",
        note=note,
    )


def _at_least(
    name: str, key: str, value: float, limit: float | None, unit: str
) -> Iterator[Criterion]:
    if limit is None:
        return
    ok = value >= limit
    yield Criterion(
        name=name,
        subject=NAMES[key],
        outcome=PASS if ok else FAIL,
        value=value,
        interval=None,
        limit=limit,
        unit=unit,
        note="" if ok else "quantization lost more of the signal than allowed; see keep_float",
    )


def _at_most(
    name: str, key: str, value: float, limit: float | None, unit: str
) -> Iterator[Criterion]:
    if limit is None:
        return
    ok = value <= limit
    yield Criterion(
        name=name,
        subject=NAMES[key],
        outcome=PASS if ok else FAIL,
        value=value,
        interval=None,
        limit=limit,
        unit=unit,
        note="" if ok else "larger than allowed; fewer layers in keep_float make it smaller",
    )


def _baseline(device: str) -> Criterion:
    return _plain(
        "baseline",
        "float",
        UNDECIDED,
        f"no record of {device}; a candidate goes out without it, a release needs it",
    )


def _compare(passes: bool, fails: bool) -> str:
    return PASS if passes else FAIL if fails else UNDECIDED


def _more_samples(needed: int | None, count: int) -> str:
    if needed is None:
        return "; more samples would not show it, as what was seen is at or over the limit"
    return f"; about {max(needed, count + 1)} samples would decide (samples.limit)"


def _plain(name: str, subject: str, outcome: str, note: str) -> Criterion:
    return Criterion(
        name=name,
        subject=subject,
        outcome=outcome,
        value=None,
        interval=None,
        limit=None,
        unit="",
        note=note,
    )


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "nothing"
