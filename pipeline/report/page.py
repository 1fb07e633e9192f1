"""Render the report page: one HTML file that needs no script and loads nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.contract.contract import Contract
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import Evidence
from pipeline.formats import FORMATS
from pipeline.images.samples import SampleSet
from pipeline.metrics.logits import Logits, class_logits
from pipeline.metrics.summary import proportion
from pipeline.params import Params
from pipeline.report import charts, comparison, device_matrix, flips, tables
from pipeline.report import text as report
from pipeline.report.gauge import BEST, LIMIT
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED
from pipeline.verdict.decide import Verdict

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "report.html.jinja"
MARKS = {PASS: "✓", FAIL: "✕", UNDECIDED: "?"}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that the page shows."""

    params: Params
    contract: Contract
    verdict: Verdict
    evidence: Evidence
    judged: int  # variants that were judged on these samples so far
    logits: Mapping[str, Logits]  # "reference" and each measured file, [n, classes]
    samples: SampleSet | None  # None: those at hand are not the measured ones


def page(findings: Findings) -> str:
    """Return the page as HTML; equal findings give equal text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = code
    source = resources.files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(_context(findings)) + "\n"


def code(text: str) -> Markup:
    """A sentence as HTML, what stands between backticks in it as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _context(findings: Findings) -> dict[str, Any]:
    params, verdict, evidence = findings.params, findings.verdict, findings.evidence
    parity, latency, confidence = evidence.parity, evidence.latency, params.gate.confidence
    finite: dict[str, Logits] = {
        key: findings.logits[key] for key in FORMATS if parity.measured(key)
    }
    timed = latency.artefacts
    runs = {key: timed[key].runs_ms for key in charts.STYLE if key in timed}
    samples, reference = findings.samples, findings.logits["reference"]
    threshold = findings.contract.threshold
    answers = {key: class_logits(logits, threshold) for key, logits in finite.items()}
    of_float = class_logits(reference, threshold)
    labels = None if samples is None else samples.labels
    rows = []
    if samples is not None and labels is not None and finite:
        rows = flips.by_class(of_float, answers, labels, samples.classes)
    return {
        "contract": findings.contract,
        "verdict": verdict,
        "counts": {outcome: verdict.count(outcome) for outcome in (PASS, FAIL, UNDECIDED)},
        "marks": MARKS,
        "names": {key: known.suffix for key, known in FORMATS.items()},
        "headline": comparison.headline(parity, latency),
        "failed": tables.failed(verdict),
        "undecided": tables.undecided(verdict),
        "passed": tables.passed(verdict),
        "confidence": confidence,
        "parity": parity,
        "latency": latency,
        "files": tables.files(parity, latency, confidence, verdict),
        "columns": {key: comparison.name(key) for key in comparison.keys(parity, latency)},
        "quantile_confidence": comparison.QUANTILE_CONFIDENCE,
        "previous_release": latency.previous.release if latency.previous else None,
        "gauge_limit": LIMIT,
        "gauge_best": BEST,
        "matrix": device_matrix.rows(evidence.devices, params.gate),
        "matrix_header": device_matrix.HEADER,
        "sight": [
            *tables.resolution(parity, params.gate),
            *tables.beside(parity),
            *report.power_statement(parity, params.gate),
        ],
        "warnings": report.warnings(parity, params.gate, findings.judged),
        "judged": findings.judged,
        "scatters": {key: charts.scatter(key, reference, logits) for key, logits in finite.items()},
        "not_drawn": [FORMATS[key].suffix for key in params.formats if key not in finite],
        "samples": samples,
        "labelled": labels is not None,
        "finite": list(finite),
        "class_rows": rows[: flips.CLASSES_MAX],
        "class_total": len(rows),
        "largest_net": max((abs(c.net) for row in rows for c in row.changes.values()), default=0),
        "latency_charts": [charts.distributions(runs), charts.rounds(runs)],
        "pareto_charts": _pareto(parity, runs, confidence),
        "galleries": [
            flips.gallery(key, of_float, logits, samples, parity.noise_floor.max_abs)
            for key, logits in answers.items()
        ]
        if samples is not None
        else [],
        "baselines": report.baselines(evidence),
        "reference_device": params.baseline.device,
        "provenance": tables.provenance(parity, latency),
        "machines": _machines(parity, latency),
        "params": _yaml(params),
        "light": charts.LIGHT,
        "dark": charts.DARK,
    }


def _pareto(
    parity: ParityEvidence, runs: Mapping[str, Sequence[float]], confidence: float
) -> list[charts.Chart]:
    measured = {key: file for key in FORMATS if (file := parity.measured(key))}
    sizes: dict[str, float] = {key: file.size_bytes / 1e6 for key, file in measured.items()}
    medians = {key: float(np.median(values)) for key, values in runs.items()}

    def places(costs: Mapping[str, float], of_float: float) -> dict[str, charts.Place]:
        at = {charts.FLOAT: charts.Place(of_float, 1.0, None)}
        for key, file in measured.items():
            if key in costs:
                agreement = proportion(file.top1_equal, file.count, confidence)
                at[key] = charts.Place(costs[key], agreement.value, agreement.interval)
        return at

    return [
        charts.pareto(places(sizes, parity.float_size_bytes / 1e6), "MB", "size"),
        charts.pareto(places(medians, medians[charts.FLOAT]), "ms", "median time"),
    ]


def _machines(parity: ParityEvidence, latency: LatencyEvidence) -> dict[str, list[tuple[str, str]]]:
    """Both evidences' machines, told apart only where they differ."""
    answers, times = tables.machine(parity), tables.machine(latency)
    if answers == times:
        return {"Answers and times were taken on": answers}
    return {"Answers were taken on": answers, "Times were taken on": times}


def _yaml(params: Params) -> str:
    import yaml

    text: str = yaml.safe_dump(params.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text
