"""A verdict for people and for CI: text, Markdown and JUnit XML, from the same values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.read import Evidence
from pipeline.formats import FORMATS
from pipeline.metrics import chance, intervals, timing
from pipeline.metrics.measures import PairedCounts, StepComparison
from pipeline.params import Gate
from pipeline.report import comparison, device_matrix
from pipeline.report.comparison import files_table
from pipeline.report.table import table
from pipeline.verdict.criterion import FAIL, PASS, QUIET, UNDECIDED, Criterion
from pipeline.verdict.decide import Verdict

SELECTION_BIAS_MAX = 0.5  # of the allowed drop; more is warned of
WORST_FIRST = (FAIL, UNDECIDED, PASS)
MARKS = {PASS: "pass", FAIL: "FAIL", UNDECIDED: "undecided"}


def headline(verdict: Verdict) -> str:
    """One sentence: the verdict and how many criteria ended in which way."""
    counts = ", ".join(f"{verdict.count(o)} {o}" for o in (PASS, FAIL, UNDECIDED))
    word = "passed" if verdict.passed else "refused"
    return f"{word} for channel {verdict.channel}: {counts}"


def refusals(verdict: Verdict) -> list[str]:
    """Each criterion that stands in the way: what, the number, the limit, what to do."""
    return [_refusal(c) for c in verdict.in_the_way]


def refusal(verdict: Verdict) -> str:
    """What :func:`refusals` says in few lines: each failure, and what would decide the rest."""
    lines = [_refusal(c) for c in verdict.in_the_way if c.outcome == FAIL]
    return "\n  ".join([headline(verdict), *lines, *undecided(verdict).splitlines()])


def _refusal(c: Criterion) -> str:
    return " ".join(part for part in (f"{c.subject}: {c.name}", _numbers(c), f"- {c.note}") if part)


def undecided(verdict: Verdict) -> str:
    """How many criteria are undecided, then a line for each thing that would decide some; or ""."""
    criteria = [c for c in verdict.criteria if c.outcome == UNDECIDED]
    if not criteria:
        return ""
    images = max(c.images_needed or 0 for c in criteria)
    refused = () if verdict.passed else verdict.in_the_way
    needs: Counter[str] = Counter()
    for c in criteria:
        need = f"about {images} images (samples.limit)" if c.images_needed else _need(c)
        later = ", which a candidate may leave open" if refused and c not in refused else ""
        needs[need + later] += 1
    lines = (f"  {count}: {need}" for need, count in needs.items())
    return "\n".join([f"{len(criteria)} undecided; what would decide them:", *lines])


def _need(c: Criterion) -> str:
    """What would decide an undecided criterion; the same words for all that need the same."""
    if c.value is None and c.name.startswith("baseline_"):
        return "a record of the reference GPU (`edge-vit baseline`)"
    if c.name in ("devices", "oldest_runtime"):
        return "runs on devices' runtimes (`make device-test`)"
    if c.waits_for == QUIET:
        return "time on a quiet machine (`dvc repro --force latency`)"
    if "latency.runs" in c.note:
        return "more timed runs (latency.runs) or a quieter machine"
    return f"{c.subject} {c.name}: {c.note}"


def criteria_table(
    verdict: Verdict,
    style: str = "simple",
    outcomes: Sequence[str] = WORST_FIRST,
) -> str:
    """The criteria that ended in one of ``outcomes``, in their order; one number a cell.

    ``style`` as of :func:`pipeline.report.table.table`.
    """
    rows = [
        (MARKS[c.outcome], c.subject, c.name, *_cells(c), c.note)
        for outcome in outcomes
        for c in verdict.criteria
        if c.outcome == outcome
    ]
    header = ("outcome", "of", "criterion", "value", "from", "to", "limit", "unit", "note")
    return table(rows, header, style)


def markdown(verdict: Verdict, evidence: Evidence, gate: Gate, judged: int | None = None) -> str:
    """The whole verdict as Markdown, for a pull request or a job summary.

    What failed or is undecided comes first; what passed is folded. ``judged`` is how many variants
    were judged on these samples so far; None in a release, which says only what follows from its
    evidence.
    """
    parity, latency = evidence.parity, evidence.latency
    results = comparison.headline(parity, latency)
    lines = [
        f"## edge-vit: {headline(verdict)}",
        "",
        *([f"**{results}**", ""] if results else []),
        *_open_criteria(verdict),
        files_table(parity, latency, gate.confidence, "github"),
        "",
        f"{parity.samples.count} images; bounds at {gate.confidence:.0%} (Wilson; Tango for "
        "the accuracy lost; a block bootstrap for the share of float's time); times on "
        f"{latency.machine.processor}, {latency.threads} thread(s).",
        "",
        *[f"- {line}" for line in (*power_statement(parity, gate), *baselines(evidence))],
        *[f"- **{line}**" for line in warnings(parity, gate, judged or 0)],
        "",
        *device_matrix.lines(evidence.devices, gate, "github"),
        *_passed_criteria(verdict),
        *_relaxed(verdict),
    ]
    return "\n".join(lines)


def _open_criteria(verdict: Verdict) -> list[str]:
    open_ones = (FAIL, UNDECIDED)
    if not any(map(verdict.count, open_ones)):
        return []
    return [criteria_table(verdict, "github", open_ones), ""]


def _relaxed(verdict: Verdict) -> list[str]:
    if not verdict.relaxed:
        return []
    return [
        "Less was asked for than as shipped, or in the last release:",
        "",
        *(f"- {sentence}" for sentence in verdict.relaxed),
        "",
    ]


def _passed_criteria(verdict: Verdict) -> list[str]:
    count = verdict.count(PASS)
    if not count:
        return []
    summary = f"<details><summary>{count} criteria passed</summary>"
    return [summary, "", criteria_table(verdict, "github", (PASS,)), "", "</details>", ""]


def power_statement(parity: ParityEvidence, gate: Gate) -> list[str]:
    """What the test of accuracy can and cannot show with this number of images.

    Files of which it can show the same share a sentence.
    """
    n, luck = parity.samples.count, 1 - gate.confidence
    groups: dict[str, list[tuple[str, int | None]]] = {}
    for key, pairs, margin in _judged_accuracy(parity, gate):
        lost, won = pairs.only_float, pairs.only_edge
        drop = intervals.smallest_drop_seen(lost, won, n, margin, gate.confidence)
        if drop is None:
            text = (
                f"{lost + won} answers changed, too many for {n} images: even a file as accurate "
                "as float would often not pass"
            )
        else:
            unit = "percentage point" if margin == 1 else "percentage points"
            text = (
                f"with {n} images, a file that truly loses {margin:g} {unit} of "
                f"accuracy or more passes by luck at most {luck:.0%} of the time; one that loses "
                f"no more than {drop:.2f} passes at least 80% of the time"
            )
        needed = intervals.samples_to_decide(lost, won, n, margin, gate.confidence)
        groups.setdefault(text, []).append((FORMATS[key].suffix, needed))
    return [_power_sentence(text, files) for text, files in groups.items()]


def _power_sentence(text: str, files: list[tuple[str, int | None]]) -> str:
    enough = [needed for _, needed in files if needed is not None]
    names = ", ".join(name for name, _ in files)
    if len(enough) < len(files):
        return f"{names}: {text}"
    return f"{names}: {text}. To decide what was seen here, {max(enough)} images are enough"


def warnings(parity: ParityEvidence, gate: Gate, judged: int) -> list[str]:
    """What may make good numbers worthless, a sentence each."""
    lines = selection_bias_warning(parity, gate, judged)
    if float_ := parity.reference_accuracy:
        classes = parity.samples.classes
        words = chance.warning(float_.right, float_.count, classes, gate.confidence)
        lines = [*([words] if words else []), *lines]
    return lines


def selection_bias_warning(parity: ParityEvidence, gate: Gate, judged: int) -> list[str]:
    """Warn where choosing among variants on one set of samples may have made up the result."""
    lines = []
    for key, pairs, margin in _judged_accuracy(parity, gate):
        n, changed = parity.samples.count, pairs.changed
        deviation = 100 * math.sqrt(max(1, changed)) / n
        luck = intervals.expected_max_of_noise(judged, deviation)
        if luck > SELECTION_BIAS_MAX * margin:
            lines.append(
                f"{FORMATS[key].suffix}: {judged} variants were judged on these samples; by luck "
                f"alone the best of them looks up to {luck:.2f} percentage points better than it "
                "is. Take fresh samples (samples.seed, or another folder) before you trust it"
            )
    return lines


def baselines(evidence: Evidence) -> list[str]:
    """The float baselines that were recorded, a line each; which of them count is the verdict's."""
    lines = []
    for baseline in evidence.baselines:
        text = f"baseline of {baseline.device} ({baseline.kind}), {baseline.recorded}: "
        if baseline.refusal:
            text += f"not used, {baseline.refusal}"
        elif isinstance(baseline.difference, StepComparison):
            text += f"float takes {timing.median(baseline.runs_ms):.2f} ms there, "
            text += f"logits differ by at most {baseline.difference.max_abs:.2g}"
        lines.append(text)
    return lines


def _judged_accuracy(
    parity: ParityEvidence, gate: Gate
) -> Iterator[tuple[str, PairedCounts, float]]:
    for key in FORMATS:
        budget, measured = gate.budgets.get(key), parity.measured(key)
        if not budget or not measured or not measured.accuracy:
            continue
        if budget.accuracy_drop_max_pp is not None:
            yield key, measured.accuracy, budget.accuracy_drop_max_pp


def junit(verdict: Verdict) -> str:
    """JUnit XML: a test case for each criterion, undecided ones skipped.

    Properties say what asks for less than as shipped.
    """
    suite = ElementTree.Element(
        "testsuite",
        name=f"edge-vit gate ({verdict.channel})",
        tests=str(len(verdict.criteria)),
        failures=str(verdict.count(FAIL)),
        skipped=str(verdict.count(UNDECIDED)),
    )
    if verdict.relaxed:
        properties = ElementTree.SubElement(suite, "properties")
        for sentence in verdict.relaxed:
            ElementTree.SubElement(properties, "property", name="relaxed", value=sentence)
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


def _numbers(c: Criterion) -> str:
    if c.value is None:
        return ""
    value, low, high, limit, unit = _cells(c)
    interval = f" [{low}, {high}]" if c.interval else ""
    return f"{value} {unit}".strip() + f"{interval} against a limit of {limit} {unit}".rstrip()


def _cells(c: Criterion) -> tuple[str, str, str, str, str]:
    """Value, both ends of its interval, limit, unit."""
    ends = (c.interval.low, c.interval.high) if c.interval else (None, None)
    numbers = ("" if number is None else f"{number:.4g}" for number in (c.value, *ends, c.limit))
    value, low, high, limit = numbers
    return value, low, high, limit, c.unit if value or limit else ""
