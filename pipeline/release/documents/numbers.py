"""The numbers of a release with their intervals, computed once for card and bill of materials."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.parity import ParityEvidence
from pipeline.formats import FORMATS
from pipeline.metrics import timing
from pipeline.metrics.intervals import Interval
from pipeline.metrics.summary import AccuracySummary, Proportion, proportion, summary_of
from pipeline.release.documents.material import Material

ACCURACY, AGREEMENT, DROP = "accuracy", "top-1 agreement with float", "accuracy drop"
SQNR, SIZE, RATIO, P50 = "SQNR", "size", "time of float", "median latency"
INSTRUCTIONS = "retired instructions"
FLOAT = "float"


@dataclass(frozen=True, kw_only=True)
class Number:
    """One measured number of one file, and what bounds it."""

    key: str  # the file's format, or "float": the checkpoint itself
    metric: str
    value: float
    unit: str
    interval: Interval | None = None
    where: str = ""  # on which machine; empty where that does not matter


def numbers(material: Material) -> list[Number]:
    """What was measured, float first, then file by file; nothing that was not."""
    evidence, confidence = material.evidence, material.params.gate.confidence
    collected = list(_of_float(evidence.parity, confidence))
    for key in FORMATS:
        measured = evidence.parity.artefacts.get(key)
        summary = summary_of(measured, confidence)
        if measured and summary:
            size = measured.size_bytes
            collected.append(Number(key=key, metric=SIZE, value=size, unit="bytes"))
            collected += _of_answers(key, summary)
        collected += _of_time(key, evidence.latency, confidence)
    return [*collected, *_instructions(material)]


def _of_float(parity: ParityEvidence, confidence: float) -> Iterator[Number]:
    right = parity.reference_accuracy
    if right:
        accuracy = proportion(right.right, right.count, confidence)
        yield _proportion(FLOAT, ACCURACY, accuracy)


def _of_answers(key: str, summary: AccuracySummary) -> Iterator[Number]:
    if summary.accuracy:
        yield _proportion(key, ACCURACY, summary.accuracy)
    if drop := summary.drop:
        yield Number(key=key, metric=DROP, value=drop.drop_pp, unit="pp", interval=drop.interval_pp)
    yield _proportion(key, AGREEMENT, summary.top1_agreement)
    yield Number(key=key, metric=SQNR, value=summary.sqnr_db, unit="dB")


def _of_time(key: str, latency: LatencyEvidence, confidence: float) -> Iterator[Number]:
    timed = latency.artefacts.get(key)
    if not timed:
        return
    where = f"{latency.machine.processor}, {latency.threads} thread(s)"
    runs, of_float = timed.runs_ms, latency.float_runs_ms
    ratio = timing.bootstrap_ratio(runs, of_float, confidence)
    yield Number(key=key, metric=P50, value=timing.median(runs), unit="ms", where=where)
    yield Number(
        key=key, metric=RATIO, value=ratio.median, unit="", interval=ratio.interval, where=where
    )


def _instructions(material: Material) -> Iterator[Number]:
    sha256_of = {file.key: file.sha256 for file in material.files}
    for evidence in material.tried.values():
        for cell in evidence.cells:
            counts, key = cell.cost.instructions, cell.format
            if counts and cell.sha256 == sha256_of.get(key):
                where = f"{cell.runtime}, {cell.machine}"
                yield Number(
                    key=key, metric=INSTRUCTIONS, value=median(counts), unit="", where=where
                )


def _proportion(key: str, metric: str, share: Proportion) -> Number:
    return Number(key=key, metric=metric, value=share.value, unit="", interval=share.interval)
