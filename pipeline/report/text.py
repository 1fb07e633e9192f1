"""A verdict for people and for CI: text, Markdown and JUnit XML, from the same values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from tabulate import tabulate

from pipeline.evidence.types import Evidence
from pipeline.formats import FORMATS, NAMES
from pipeline.metrics import intervals, timing
from pipeline.metrics.summary import AccuracySummary, Proportion, proportion, summary_of
from pipeline.params import Gate
from pipeline.report import device_matrix
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion
from pipeline.verdict.decide import Verdict

WORN = 0.5  # of the margin; luck beyond it is warned of
MARKS = {PASS: "pass", FAIL: "FAIL", UNDECIDED: "undecided"}


def headline(verdict: Verdict) -> str:
    """One sentence: is it let out, and why not."""
    counts = ", ".join(f"{verdict.count(o)} {o}" for o in (PASS, FAIL, UNDECIDED))
    word = "passed" if verdict.passed else "refused"
    return f"{word} for channel {verdict.channel}: {counts}"


def refusals(verdict: Verdict) -> list[str]:
    """Each criterion that stands in the way: what, the number, the limit, what to do."""
    return [
        " ".join(part for part in (f"{c.subject}: {c.name}", _numbers(c), f"- {c.note}") if part)
        for c in verdict.in_the_way
    ]


def criteria_table(verdict: Verdict, style: str = "simple") -> str:
    """All criteria, worst first; ``style`` is one of tabulate's."""
    worst_first = sorted(verdict.criteria, key=lambda c: (FAIL, UNDECIDED, PASS).index(c.outcome))
    rows = [
        (MARKS[c.outcome], c.subject, c.name, _value(c), _interval(c), _limit(c), c.note)
        for c in worst_first
    ]
    header = ("outcome", "of", "criterion", "value", "interval", "limit", "note")
    return tabulate(rows, header, tablefmt=style, disable_numparse=True)


def files_table(
    parity: Mapping[str, Any],
    latency: Mapping[str, Any],
    confidence: float,
    style: str = "simple",
) -> str:
    """Each file beside the float model: size, accuracy, agreement, distance, time."""
    rows = [_float_row(parity, latency, confidence)]
    for key in FORMATS:
        measured, timed = parity["artefacts"].get(key), latency["artefacts"].get(key)
        summary = summary_of(measured, confidence)
        if measured and timed and summary:
            rows.append(_file_row(key, measured["size_bytes"], summary, timed, latency, confidence))
    header = (
        "file",
        "size MB",
        "top-1 %",
        "drop pp",
        "agreement %",
        "SQNR dB",
        "p50 ms",
        "time of float",
    )
    return tabulate(rows, header, tablefmt=style, disable_numparse=True)


def markdown(verdict: Verdict, evidence: Evidence, gate: Gate, judged: int | None = None) -> str:
    """The whole verdict as Markdown, for a pull request or a job summary.

    ``judged`` counts the variants that were judged on these samples so far; None in a release,
    which says only what follows from its evidence.
    """
    parity, latency = evidence.parity, evidence.latency
    lines = [
        f"## edge-vit: {headline(verdict)}",
        "",
        *[f"- {refusal}" for refusal in refusals(verdict)],
        "",
        files_table(parity, latency, gate.confidence, "github"),
        "",
        f"{parity['samples']['count']} samples; intervals at {gate.confidence:.0%} (Wilson; Tango "
        f"for the drop); times on {latency['machine']['processor']}, {latency['threads']} "
        "thread(s).",
        "",
        *[f"- {line}" for line in (*sight(parity, gate), *baselines(evidence))],
        *[f"- **{line}**" for line in wear(parity, gate, judged or 0)],
        "",
        criteria_table(verdict, "github"),
        "",
        *device_matrix.lines(evidence.devices, gate, "github"),
    ]
    return "\n".join(lines)


def sight(parity: Mapping[str, Any], gate: Gate) -> list[str]:
    """What the test of accuracy can and cannot see at this number of samples, a line a file."""
    lines = []
    for key, pairs, margin in _judged_accuracy(parity, gate):
        n = parity["samples"]["count"]
        lost, won = pairs["only_float"], pairs["only_edge"]
        drop = intervals.smallest_drop_seen(lost, won, n, margin, gate.confidence)
        needed = intervals.samples_to_decide(lost, won, n, margin, gate.confidence)
        if drop is None:
            text = (
                f"with {lost + won} answers changed, {n} samples do not pass even an equal model "
                "4 times of 5"
            )
        else:
            text = (
                f"{n} samples pass a true drop of up to {drop:.2f} pp 4 times of 5, and one of "
                f"{margin:g} pp at most {1 - gate.confidence:.0%} of the time"
            )
        if needed is not None:
            text += f"; for the drop that was seen {needed} would do"
        lines.append(f"{NAMES[key]}: {text}")
    return lines


def wear(parity: Mapping[str, Any], gate: Gate, judged: int) -> list[str]:
    """Warn where choosing among variants on one set of samples may have made up the result."""
    lines = []
    for key, pairs, margin in _judged_accuracy(parity, gate):
        n, changed = parity["samples"]["count"], pairs["only_float"] + pairs["only_edge"]
        deviation = 100 * math.sqrt(max(1, changed)) / n
        luck = intervals.luck_of_the_best(judged, deviation)
        if luck > WORN * margin:
            lines.append(
                f"{NAMES[key]}: {judged} variants were judged on these samples; the best of so "
                f"many equals looks up to {luck:.2f} pp better than it is. Take fresh samples "
                "(samples.seed, or another folder) before you trust it"
            )
    return lines


def baselines(evidence: Evidence) -> list[str]:
    """The float baselines that were recorded, a line each; which of them count is the verdict's."""
    lines = []
    for baseline in evidence.baselines:
        text = f"baseline of {baseline.device} ({baseline.kind}), {baseline.recorded}: "
        if baseline.refusal:
            text += f"not used, {baseline.refusal}"
        elif baseline.difference is not None:
            text += f"float takes {timing.median(baseline.runs_ms):.2f} ms there, "
            text += f"logits differ by at most {baseline.difference['max_abs']:.2g}"
        lines.append(text)
    return lines


def _judged_accuracy(
    parity: Mapping[str, Any], gate: Gate
) -> Iterator[tuple[str, Mapping[str, int], float]]:
    for key in FORMATS:
        budget, measured = gate.budgets.get(key), parity["artefacts"].get(key)
        if not budget or not measured or not measured["finite"] or not measured["count"]:
            continue
        if budget.accuracy_drop_max_pp is not None and measured["accuracy"]:
            yield key, measured["accuracy"], budget.accuracy_drop_max_pp


def junit(verdict: Verdict) -> str:
    """JUnit XML: a test case for each criterion; undecided ones are skipped ones."""
    suite = ElementTree.Element(
        "testsuite",
        name=f"edge-vit gate ({verdict.channel})",
        tests=str(len(verdict.criteria)),
        failures=str(verdict.count(FAIL)),
        skipped=str(verdict.count(UNDECIDED)),
    )
    for c in verdict.criteria:
        case = ElementTree.SubElement(suite, "testcase", classname=c.subject, name=c.name)
        message = f"{_numbers(c)} {c.note}".strip()
        if c.outcome == FAIL:
            ElementTree.SubElement(case, "failure", message=message)
        elif c.outcome == UNDECIDED:
            ElementTree.SubElement(case, "skipped", message=message)
    ElementTree.indent(suite)
    # Not "unicode", which declares the encoding of the locale.
    xml: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return xml.decode() + "\n"


def _float_row(
    parity: Mapping[str, Any], latency: Mapping[str, Any], confidence: float
) -> tuple[str, ...]:
    right = parity["reference_accuracy"]
    accuracy = "no labels"
    if right:
        accuracy = _percent(proportion(right["right"], right["count"], confidence))
    p50 = timing.median(latency["artefacts"]["float"]["runs_ms"])
    size = f"{parity['float_size_bytes'] / 1e6:.2f}"
    return ("float (PyTorch)", size, accuracy, "", "", "", f"{p50:.1f}", "1")


def _file_row(
    key: str,
    size_bytes: int,
    summary: AccuracySummary,
    timed: Mapping[str, Any],
    latency: Mapping[str, Any],
    confidence: float,
) -> tuple[str, ...]:
    ratio = timing.bootstrap_ratio(
        timed["runs_ms"], latency["artefacts"]["float"]["runs_ms"], confidence
    )
    return (
        NAMES[key],
        f"{size_bytes / 1e6:.2f}",
        *accuracy_cells(summary),
        f"{timing.median(timed['runs_ms']):.1f}",
        f"{ratio.median:.2f} {ratio.interval:.2f}",
    )


def accuracy_cells(summary: AccuracySummary) -> tuple[str, str, str, str]:
    """Accuracy in %, drop in accuracy in pp, agreement in % and SQNR in dB, as tables show them."""
    accuracy = drop = "no labels"
    if summary.accuracy and summary.drop:
        accuracy = _percent(summary.accuracy)
        drop = f"{summary.drop.drop_pp:+.2f} {summary.drop.interval_pp:.2f}"
    return accuracy, drop, _percent(summary.top1_agreement), f"{summary.sqnr_db:.1f}"


def _percent(share: Proportion) -> str:
    return f"{100 * share.value:.2f} {share.interval.percent:.2f}"


def _numbers(c: Criterion) -> str:
    if c.value is None:
        return ""
    interval = f" {_interval(c)}" if c.interval else ""
    return f"{_value(c)}{interval} against a limit of {_limit(c)}"


def _value(c: Criterion) -> str:
    return "" if c.value is None else f"{c.value:.4g} {c.unit}".strip()


def _interval(c: Criterion) -> str:
    return f"{c.interval:.4g}" if c.interval else ""


def _limit(c: Criterion) -> str:
    return "" if c.limit is None else f"{c.limit:.4g} {c.unit}".strip()
