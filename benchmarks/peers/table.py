"""The table of docs/results.md: our files and their peers, compared with float and each other."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from tabulate import tabulate

from pipeline.formats import FORMATS
from pipeline.metrics import timing
from pipeline.metrics.measures import FloatComparison
from pipeline.metrics.summary import AccuracySummary, Proportion, summary_of

HEADER = (
    *("file", "size MB", "of float", "ARM64 M instr.", "x86 p50 ms", "time of ours"),
    *("agreement %", "SQNR dB", "top-1 %", "drop pp"),
)
NONE = "-"
FIRST_LINE = 160  # characters of a reason


def table(evidence: Mapping[str, Any], confidence: float = 0.95, style: str = "github") -> str:
    """Return a row for each file, and below the table why numbers are missing."""
    entries = evidence["entries"]
    rows = [_row(entry, evidence, confidence) for entry in entries]
    lines = [tabulate(rows, HEADER, tablefmt=style, disable_numparse=True)]
    reasons = [
        f"- {_name(entry)}: {what}: {_short(entry[key])}"
        for entry in entries
        for key, what in (("error", "**failed**"), ("instructions_error", "not counted on ARM64"))
        if entry[key]
    ]
    return "\n".join([*lines, *(["", *reasons] if reasons else [])])


def _row(
    entry: Mapping[str, Any], evidence: Mapping[str, Any], confidence: float
) -> tuple[str, ...]:
    size = entry["size_bytes"]
    summary = None
    if not entry["error"]:
        summary = summary_of(FloatComparison.model_validate(entry["measured"]), confidence)
    if summary:
        accuracy, drop, agreement, sqnr = _accuracy(summary)
    return (
        _name(entry),
        f"{size / 1e6:.2f}" if size else NONE,
        f"{size / evidence['float_size_bytes']:.3f}" if size else NONE,
        f"{median(entry['instructions']) / 1e6:.1f}" if entry["instructions"] else NONE,
        *_times(entry, evidence["entries"], confidence),
        *((agreement, sqnr, accuracy, drop) if summary else ("failed", *[NONE] * 3)),
    )


def _accuracy(summary: AccuracySummary) -> tuple[str, str, str, str]:
    """Accuracy in %, drop in pp, agreement in % and SQNR in dB."""
    accuracy = drop = "no labels"
    if summary.accuracy and summary.drop:
        accuracy = _percent(summary.accuracy)
        drop = f"{summary.drop.drop_pp:+.2f} {summary.drop.interval_pp:.2f}"
    return accuracy, drop, _percent(summary.top1_agreement), f"{summary.sqnr_db:.1f}"


def _percent(share: Proportion) -> str:
    return f"{100 * share.value:.2f} {share.interval.percent:.2f}"


def _name(entry: Mapping[str, Any]) -> str:
    return entry["label"] or f"**ours: {FORMATS[entry['counterpart']].suffix}**"


def _times(
    entry: Mapping[str, Any], entries: list[Mapping[str, Any]], confidence: float
) -> tuple[str, str]:
    runs = entry["runs_ms"]
    if not runs:
        return NONE, NONE
    middle = f"{timing.median(runs):.1f}"
    (ours,) = (e["runs_ms"] for e in entries if e["key"] == f"ours/{entry['counterpart']}")
    if ours is runs:
        return middle, "1"
    if len(ours) != len(runs) or len(runs) < timing.ROUNDS_MIN:
        return middle, NONE
    ratio = timing.bootstrap_ratio(runs, ours, confidence)
    return middle, f"{ratio.median:.2f} {ratio.interval:.2f}"


def _short(reason: str) -> str:
    """Return the last line that is not empty, which is where programs put what went wrong."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    return lines[-1][:FIRST_LINE].replace("|", "/")
