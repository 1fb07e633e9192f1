"""The rows of the report page's tables: words and numbers, ready to be set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.formats import FORMATS, NAMES
from pipeline.metrics import intervals, timing
from pipeline.metrics.intervals import Interval
from pipeline.metrics.summary import AccuracySummary, Proportion, proportion, summary_of
from pipeline.params import Gate
from pipeline.verdict.criterion import Criterion
from pipeline.verdict.decide import Verdict

QUANTILE_CONFIDENCE = 0.99  # of each side of a percentile's bounds
QUANTILES = (0.5, 0.9, 0.99)
FLOAT_NAME = "float (PyTorch)"
ROOM = 0.12  # of a number line, on either side of what it shows

TITLES = {
    "evidence": "Evidence for these bytes",
    "weights": "Weights left in float",
    "weight_error_max_steps": "Int8 weights against float ones",
    "noise_multiple": "Change made by the step",
    "published_tolerance_pp": "Float accuracy less the published one",
    "parity": "Finite answers",
    "top1_agreement_min": "Agreement with float",
    "accuracy_drop_max_pp": "Drop in accuracy",
    "sqnr_min_db": "Signal to quantization noise",
    "size_ratio_max": "Size",
    "latency": "Time measured",
    "latency_ratio_max": "Time",
    "regression_ratio_max": "Time beside the last release",
    "memory_ratio_max": "Memory",
    "baseline_logits": "Logits beside the reference GPU",
    "baseline_ratio_max": "Time beside the reference GPU",
    "devices": "Run on a device's runtime",
    "device_check": "Looked at on a device's runtime",
    "device_sqnr_min_db": "Answers beside the golden ones",
    "instructions_max_m": "Retired instructions, millions",
    "instructions_growth_max": "Retired instructions beside the last release",
    "oldest_runtime": "Oldest runtime",
}


@dataclass(frozen=True)
class Cell:
    """A number, and smaller below it what bounds or explains it."""

    text: str
    below: str = ""


@dataclass(frozen=True)
class Row:
    """One file; ``key`` gives its colour."""

    key: str
    name: str
    cells: tuple[Cell, ...]
    below: str = ""


@dataclass(frozen=True)
class NumberLine:
    """A criterion drawn on a line from 0 to 100: allowed side, limit, interval, value."""

    allowed: Interval
    limits: tuple[float, ...]
    interval: Interval | None
    value: float
    words: str


@dataclass(frozen=True)
class Judged:
    """One criterion in words."""

    title: str
    name: str
    outcome: str
    value: str
    interval: str
    limit: str
    line: NumberLine | None
    note: str
    subject: str


NONE = "-"
NOTHING = Cell(NONE)
ANSWERS = ("file", "size MB", "top-1 %", "drop pp", "agreement %", "top-5 set %", "SQNR dB")
TIMES = (
    *("file", "p50 ms", "p90 ms", "p99 ms", "ratio to float"),
    *("load ms", "first ms", "memory added MB", "peak memory MB"),
)


def answers(parity: Mapping[str, Any], confidence: float) -> list[Row]:
    """Size, and how near the answers are to float's; a file without numbers says why."""
    right = parity["reference_accuracy"]
    first = NOTHING
    if right:
        first = _percent(proportion(right["right"], right["count"], confidence))
    size = parity["float_size_bytes"]
    rows = [Row("float", FLOAT_NAME, (Cell(_megabytes(size)), first, *[NOTHING] * 4))]
    for key in FORMATS:
        measured = parity["artefacts"].get(key)
        if not measured:
            rows.append(Row(key, NAMES[key], (Cell("not measured"), *[NOTHING] * 5)))
            continue
        ratio = f"{100 * measured['size_bytes'] / size:.0f}% of float" if size else ""
        cells = (Cell(_megabytes(measured["size_bytes"]), ratio),)
        summary = summary_of(measured, confidence)
        if summary is None:
            why = Cell("no numbers", "NaN or infinity") if measured["count"] else Cell("no sample")
            rows.append(Row(key, NAMES[key], (*cells, why, *[NOTHING] * 4)))
            continue
        rows.append(Row(key, NAMES[key], cells + _accuracy_cells(summary)))
    return rows


def times(latency: Mapping[str, Any], confidence: float) -> list[Row]:
    """Time and memory of float, of each file, and of the last release's files."""
    timed = latency["artefacts"]
    base = timed["float"]["runs_ms"]
    rows = [
        Row(key, NAMES.get(key, FLOAT_NAME), _timing(timed[key], base, confidence))
        if key in timed
        else Row(key, NAMES[key], (Cell("not timed"), *[NOTHING] * 7))
        for key in ("float", *FORMATS)
    ]
    previous = latency.get("previous") or {"release": "", "artefacts": {}}
    return rows + [
        Row(
            key,
            NAMES[key],
            _timing(previous["artefacts"][key], base, confidence),
            below=f"of {previous['release']}",
        )
        for key in FORMATS
        if key in previous["artefacts"]
    ]


def criteria(verdict: Verdict) -> dict[str, list[Judged]]:
    """All criteria by what they are about, the files first."""
    files = [NAMES[key] for key in FORMATS]
    subjects = sorted(
        dict.fromkeys(c.subject for c in verdict.criteria),
        key=lambda subject: files.index(subject) if subject in files else len(files),
    )
    return {s: [_judged(c) for c in verdict.criteria if c.subject == s] for s in subjects}


def in_the_way(verdict: Verdict) -> list[Judged]:
    """The criteria for which the channel refuses."""
    return [_judged(c) for c in verdict.in_the_way]


def number_line(c: Criterion) -> NumberLine | None:
    """Lay a criterion out from 0 to 100; None where a finite number or limit is missing."""
    if c.value is None or c.limit is None:
        return None
    two_sided = "tolerance" in c.name
    limits: tuple[float, ...] = (-c.limit, c.limit) if two_sided else (c.limit,)
    interval = c.interval or Interval(c.value, c.value)
    shown: list[float] = [c.value, interval.low, interval.high, *limits]
    if not all(map(math.isfinite, shown)):
        return None
    span = max(shown) - min(shown) or 1.0
    low, width = min(shown) - ROOM * span, (1 + 2 * ROOM) * span

    def place(value: float) -> float:
        return round(100 * (value - low) / width, 2)

    if two_sided:
        allowed, words = Interval(place(-c.limit), place(c.limit)), "within ±"
    elif "_min" in c.name:
        allowed, words = Interval(place(c.limit), 100.0), "at least "
    else:
        allowed, words = Interval(0.0, place(c.limit)), "at most "
    return NumberLine(
        allowed=allowed,
        limits=tuple(place(limit) for limit in limits),
        interval=Interval(place(interval.low), place(interval.high)) if c.interval else None,
        value=place(c.value),
        words=f"{c.value:.4g} {format(c.interval, '.4g') if c.interval else ''} on a line where "
        f"{words}{c.limit:.4g} is allowed",
    )


def sight(parity: Mapping[str, Any], gate: Gate) -> list[str]:
    """What holds whatever was seen: how much the best possible result would prove."""
    n = parity["samples"]["count"]
    if not n:
        return ["There are no samples, so nothing was seen."]
    least = intervals.wilson(n, n, gate.confidence).low
    lines = [
        f"Were all {n} answers float's, it would show that at least {100 * least:.2f}% of all "
        f"answers are; what is rarer than {100 * (1 - least):.2f}% goes unseen."
    ]
    if not parity["samples"]["labelled"]:
        lines.append(
            "The samples have no labels: a changed answer is seen, but not whether it became "
            "better or worse, and no drop in accuracy."
        )
    return lines


def provenance(parity: Mapping[str, Any], latency: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What everything rests on, as (what, name, hash)."""
    files = [
        (NAMES[key], measured["file"], measured["sha256"])
        for key in FORMATS
        if (measured := parity["artefacts"].get(key))
    ]
    return [
        ("checkpoint", "float32, as it was fetched and converted", parity["checkpoint_sha256"]),
        ("samples", f"{parity['samples']['count']} images", parity["samples"]["sha256"]),
        *files,
        *(
            ("evidence", kind, evidence["seal"])
            for kind, evidence in (("parity", parity), ("latency", latency))
            if "seal" in evidence
        ),
    ]


def machine(evidence: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The machine that evidence was taken on, as (what, value)."""
    return [
        (key, _listing(value))
        for key, value in sorted(evidence["machine"].items())
        if value not in (None, [], {})
    ]


def _listing(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in sorted(value.items()) if v is not None)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _accuracy_cells(summary: AccuracySummary) -> tuple[Cell, ...]:
    accuracy = drop = NOTHING
    if summary.accuracy and summary.drop:
        accuracy = _percent(summary.accuracy)
        drop = Cell(f"{summary.drop.drop_pp:+.2f}", f"{summary.drop.interval_pp:+.2f}")
    return (
        accuracy,
        drop,
        _percent(summary.top1_agreement),
        _percent(summary.top5_agreement),
        Cell(f"{summary.sqnr_db:.1f}"),
    )


def _timing(
    measured: Mapping[str, Any], base: Sequence[float], confidence: float
) -> tuple[Cell, ...]:
    runs = measured["runs_ms"]
    ratio = Cell("1")
    if runs is not base:
        found = timing.bootstrap_ratio(runs, base, confidence)
        ratio = Cell(f"{found.median:.2f}", f"{found.interval:.2f}")
    return (
        *(_quantile(runs, quantile) for quantile in QUANTILES),
        ratio,
        *(_optional(measured, key, ".0f") for key in ("load_ms", "first_ms")),
        *(_optional(measured, key, ".0f") for key in ("own_memory_mb", "peak_memory_mb")),
    )


def _quantile(runs: Sequence[float], quantile: float) -> Cell:
    """A percentile only where the number of runs bounds it from above."""
    bounds = timing.quantile_bounds(runs, quantile, QUANTILE_CONFIDENCE)
    if bounds.high is None:
        return Cell(NONE, f"{len(runs)} runs are too few")
    low = f"{bounds.low:.1f}" if bounds.low is not None else NONE
    return Cell(f"{bounds.estimate:.1f}", f"[{low}, {bounds.high:.1f}]")


def _optional(measured: Mapping[str, Any], key: str, digits: str) -> Cell:
    value = measured.get(key)
    return NOTHING if value is None else Cell(format(value, digits))


def _judged(c: Criterion) -> Judged:
    return Judged(
        title=TITLES.get(c.name, c.name),
        name=c.name,
        outcome=c.outcome,
        value="" if c.value is None else f"{c.value:.4g} {c.unit}".strip(),
        interval=f"{c.interval:.4g}" if c.interval else "",
        limit="" if c.limit is None else f"{c.limit:.4g} {c.unit}".strip(),
        line=number_line(c),
        note=c.note,
        subject=c.subject,
    )


def _percent(share: Proportion) -> Cell:
    return Cell(f"{100 * share.value:.2f}", f"{share.interval.percent:.2f}")


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.2f}"
