"""The numbers of a release with their intervals, computed once for card and bill of materials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipeline.formats import FORMATS
from pipeline.metrics import intervals, timing
from pipeline.metrics.intervals import Interval
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
    found = list(_of_float(evidence.parity, confidence))
    for key in FORMATS:
        measured = evidence.parity["artefacts"].get(key)
        if measured and measured["count"] and measured["finite"]:
            found += _of_answers(key, measured, confidence)
        found += _of_time(key, evidence.latency, confidence)
    return [*found, *_instructions(material)]


def _of_float(parity: Mapping[str, Any], confidence: float) -> Iterator[Number]:
    right = parity["reference_accuracy"]
    if right:
        yield _proportion(FLOAT, ACCURACY, right["right"], right["count"], confidence)


def _of_answers(key: str, measured: Mapping[str, Any], confidence: float) -> Iterator[Number]:
    count, pairs = measured["count"], measured["accuracy"]
    yield Number(key=key, metric=SIZE, value=measured["size_bytes"], unit="bytes")
    if pairs:
        right = pairs["both"] + pairs["only_edge"]
        yield _proportion(key, ACCURACY, right, count, confidence)
        drop = intervals.paired_drop(**pairs, confidence=confidence)
        yield Number(key=key, metric=DROP, value=drop.drop_pp, unit="pp", interval=drop.interval_pp)
    yield _proportion(key, AGREEMENT, measured["top1_equal"], count, confidence)
    yield Number(key=key, metric=SQNR, value=measured["sqnr_db"], unit="dB")


def _of_time(key: str, latency: Mapping[str, Any], confidence: float) -> Iterator[Number]:
    timed = latency["artefacts"].get(key)
    if not timed:
        return
    where = f"{latency['machine']['processor']}, {latency['threads']} thread(s)"
    runs, of_float = timed["runs_ms"], latency["artefacts"][FLOAT]["runs_ms"]
    ratio = timing.bootstrap_ratio(runs, of_float, confidence)
    yield Number(key=key, metric=P50, value=timing.median(runs), unit="ms", where=where)
    yield Number(
        key=key, metric=RATIO, value=ratio.median, unit="", interval=ratio.interval, where=where
    )


def _instructions(material: Material) -> Iterator[Number]:
    known = {file.key: file.sha256 for file in material.files}
    for found in material.tried.values():
        for cell in found["cells"]:
            counts, key = cell["cost"]["instructions"], cell["format"]
            if counts and cell["sha256"] == known.get(key):
                where = f"{cell['runtime']}, {cell['machine']}"
                yield Number(
                    key=key, metric=INSTRUCTIONS, value=median(counts), unit="", where=where
                )


def _proportion(key: str, metric: str, right: int, count: int, confidence: float) -> Number:
    return Number(
        key=key,
        metric=metric,
        value=right / count,
        unit="",
        interval=intervals.wilson(right, count, confidence),
    )
