"""The rows of the report page's tables: words and numbers, ready to be set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import first_of
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.parity import ParityEvidence
from pipeline.formats import FORMATS
from pipeline.metrics import intervals
from pipeline.params import Gate
from pipeline.report import comparison
from pipeline.report.gauge import Gauge, gauge
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion
from pipeline.verdict.decide import Verdict

CLASSES_SHOWN = 20
TITLES = {
    "evidence": "Evidence for these bytes",
    "weights": "Weights left in float",
    "weight_error_max_steps": "Rounding error of int8 weights",
    "noise_multiple": "Change made by the step",
    "published_tolerance_pp": "Float accuracy compared with the published one",
    "parity": "Finite answers",
    "top1_agreement_min": "Agreement with float",
    "accuracy_drop_max_pp": "Drop in accuracy",
    "sqnr_min_db": "Signal to quantization noise",
    "size_ratio_max": "Size",
    "latency": "Time measured",
    "latency_ratio_max": "Time",
    "regression_ratio_max": "Time compared with the last release",
    "memory_ratio_max": "Memory",
    "baseline_logits": "Logits compared with the reference GPU",
    "baseline_ratio_max": "Time compared with the reference GPU",
    "devices": "Run on a device's runtime",
    "device_check": "Checked on a device's runtime",
    "device_sqnr_min_db": "Answers compared with the golden ones",
    "instructions_max_m": "Retired instructions, millions",
    "instructions_growth_max": "Retired instructions compared with the last release",
    "oldest_runtime": "Oldest runtime",
}

TARGETS = "TARGETS=...`"
SHARES = ("top1_agreement_min",)  # shown in percent


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One criterion in words."""

    title: str
    name: str  # its key in params.yaml
    subjects: str  # what it is about; several where they share one reason
    outcome: str
    value: str
    interval: str
    limit: str
    gauge: Gauge | None
    note: str
    in_files: bool = False  # whether the table of the files shows its number


@dataclass(frozen=True)
class FileCell:
    """A number of one file, and the criterion that judges it."""

    text: str
    bound: str
    judged: Judged | None


@dataclass(frozen=True)
class FileRow:
    """One quantity of all files."""

    title: str
    cells: tuple[FileCell, ...]


def files(
    parity: ParityEvidence, latency: LatencyEvidence, confidence: float, verdict: Verdict
) -> list[FileRow]:
    """What was measured of each file, with the criteria that judge it."""
    judges = {
        (comparison.CRITERIA[c.name], c.subject): judged(c)
        for c in verdict.criteria
        if _in_files(c)
    }
    names = [comparison.name(key) for key in comparison.keys(parity, latency)]
    return [
        FileRow(
            row.title,
            tuple(
                FileCell(cell.text, cell.bound, judges.get((row.title, name)))
                for name, cell in zip(names, row.cells, strict=True)
            ),
        )
        for row in comparison.rows(parity, latency, confidence)
    ]


def failed(verdict: Verdict) -> list[Judged]:
    """The criteria that do not hold; those of one name and reason are one."""
    return _grouped(verdict, FAIL)


def undecided(verdict: Verdict) -> list[Judged]:
    """The criteria that lack evidence; those of one name and reason are one."""
    return _grouped(verdict, UNDECIDED)


def passed(verdict: Verdict) -> dict[str, list[Judged]]:
    """The criteria that hold, by title, those of the files first."""
    holding = [c for c in verdict.criteria if c.outcome == PASS]
    groups: dict[str, list[Judged]] = {}
    for c in sorted(holding, key=lambda c: not _in_files(c)):
        groups.setdefault(title(c.name), []).append(judged(c))
    return groups


def judged(c: Criterion) -> Judged:
    """Put a criterion in words."""
    return Judged(
        title=title(c.name),
        name=c.name,
        subjects=c.subject,
        outcome=c.outcome,
        value="" if c.value is None else _number(c, c.value),
        interval=""
        if c.interval is None
        else f"{_number(c, c.interval.low)} to {_number(c, c.interval.high)}",
        limit="" if c.limit is None else _number(c, c.limit),
        gauge=gauge(c),
        note=c.note,
        in_files=_in_files(c),
    )


def title(name: str) -> str:
    """What people call a criterion."""
    return TITLES.get(name, name)


def resolution(parity: ParityEvidence, gate: Gate) -> list[str]:
    """The smallest difference that this number of images can show, whatever the answers were."""
    n = parity.samples.count
    least = intervals.wilson(n, n, gate.confidence).low
    lines = [
        f"If all {n} answers were float's, that would show that at least {100 * least:.2f}% of "
        f"all answers are; changes rarer than {100 * (1 - least):.2f}% cannot be seen."
    ]
    if not parity.samples.labelled:
        lines.append(
            "The samples have no labels: a changed answer is seen, but not whether it became "
            "better or worse, and no drop in accuracy."
        )
    return lines


def beside(parity: ParityEvidence) -> list[str]:
    """What there is to say of where the images come from, a sentence each."""
    samples, lines = parity.samples, []
    if samples.skipped:
        lines.append(f"{samples.skipped} file(s) of the source are not images.")
    if samples.left_out:
        lines.append(f"{samples.left_out} hidden or unrelated file(s) and folder(s) were left out.")
    if samples.duplicates:
        lines.append(
            f"{samples.duplicates} sample(s) have the pixels of an earlier one; intervals take "
            "them for independent."
        )
    if missing := samples.classes_without_images:
        lines.append(
            f"{len(missing)} of {samples.classes} classes have no image, so nothing is known of "
            f"them: {first_of(missing, CLASSES_SHOWN)}."
        )
    return lines


def provenance(parity: ParityEvidence, latency: LatencyEvidence) -> list[tuple[str, str, str]]:
    """What everything rests on, as (what, name, hash)."""
    files = [
        (FORMATS[key].suffix, measured.file, measured.sha256)
        for key in FORMATS
        if (measured := parity.artefacts.get(key))
    ]
    return [
        ("checkpoint", "float32, as it was fetched and converted", parity.checkpoint_sha256),
        ("samples", f"{parity.samples.count} images", parity.samples.sha256),
        *files,
        *(
            ("evidence", evidence.kind, evidence.seal)
            for evidence in (parity, latency)
            if evidence.seal
        ),
    ]


def machine(evidence: ParityEvidence | LatencyEvidence) -> list[tuple[str, str]]:
    """The machine that evidence was taken on, as (what, value)."""
    return [
        (key, _listing(value))
        for key, value in sorted(evidence.machine.model_dump().items())
        if value not in (None, (), {})
    ]


def _listing(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in sorted(value.items()) if v is not None)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _grouped(verdict: Verdict, outcome: str) -> list[Judged]:
    groups: dict[tuple[str, str, float | None], list[Criterion]] = {}
    for c in verdict.criteria:
        if c.outcome == outcome:
            # The command of a device target names it; one command runs several targets.
            reason = c.note.replace(f"TARGETS={c.subject}`", TARGETS)
            groups.setdefault((c.name, reason, c.value), []).append(c)
    merged = []
    for (_, reason, _), group in groups.items():
        subjects = [c.subject for c in group]
        targets = subjects[0] if len(subjects) == 1 else f'"{" ".join(subjects)}"'
        note = reason.replace(TARGETS, f"TARGETS={targets}`")
        merged.append(replace(judged(group[0]), subjects=", ".join(subjects), note=note))
    return merged


def _in_files(c: Criterion) -> bool:
    return c.value is not None and c.name in comparison.CRITERIA


def _number(c: Criterion, value: float) -> str:
    """A value of the criterion with its unit; ratios and shares as percentages."""
    if c.unit.startswith("of "):
        return f"{100 * value:.3g}% {c.unit}"
    if c.name in SHARES:
        return f"{100 * value:.4g}%"
    return f"{value:.4g} {c.unit}".strip()
