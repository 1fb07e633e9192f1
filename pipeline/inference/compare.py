"""What each file of a run answers for one image, beside the float model.

Files are read from artifacts/, those between quantization and delivery too. All of them are loaded
in one process and take turns on this image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.contract.files import MODEL_FILE
from pipeline.errors import InputError
from pipeline.formats import FORMATS
from pipeline.inference.classify import Classifier, rank
from pipeline.metrics import timing
from pipeline.metrics.distances import sqnr_db
from pipeline.metrics.intervals import Interval
from pipeline.metrics.logits import answers
from pipeline.runtimes import FloatArray
from pipeline.runtimes.interleave import interleave

FLOAT = "float"
RUNS, WARMUP = 30, 3


@dataclass(frozen=True)
class Row:
    """One file's answer to the image, compared with float's."""

    label: str
    score: float  # its probability, by the softmax or sigmoid of the contract
    agrees: bool  # the label is float's
    sqnr_db: float | None  # of the logits against float's; None: equal, or float itself
    latency_ms: float  # median
    ratio: float  # of the time of float, median of paired runs
    ratio_interval: Interval  # 95%
    size_mb: float  # 10^6 bytes


def find_files(artifacts: Path) -> tuple[dict[str, Path], list[str]]:
    """Return the files that are there, in the order of the graph, and why others are left out.

    Raises:
        InputError: the float model is not there, or nothing to compare with it.
    """
    wanted = {FLOAT: artifacts / paths.CHECKPOINT.name / MODEL_FILE}
    for known in FORMATS.values():
        wanted |= {name: artifacts / path for name, path in known.between.items()}
    files = {name: path for name, path in wanted.items() if path.is_file()}
    missing = [
        f"{wanted[name]} is missing; run `dvc repro`"
        for name in wanted
        if name not in files and not paths.is_off(wanted[name].parent)
    ]
    if FLOAT not in files:
        raise InputError(f"{wanted[FLOAT]} is missing; run `dvc repro` to make it")
    for key, known in FORMATS.items():
        try:
            files[known.title] = paths.delivered_file(artifacts, key)
        except InputError as error:
            missing.append(str(error))
    if len(files) == 1:
        raise InputError("there is no file to compare with float: " + "; ".join(missing))
    return files, missing


def compare(files: Mapping[str, Path], image: bytes, runs: int) -> dict[str, Row]:
    """Run each file on one encoded image, ``runs`` times.

    Raises:
        InputError: a file cannot be loaded, is of another model than float, or the image cannot be
            used.
    """
    classifiers = {name: Classifier(path) for name, path in files.items()}
    reference = classifiers[FLOAT]
    for name, classifier in classifiers.items():
        if classifier.contract.checkpoint.sha256 != reference.contract.checkpoint.sha256:
            raise InputError(
                f"{files[name]} was made from another checkpoint than {files[FLOAT]}; "
                "run `dvc repro` to make it anew"
            )
    batch = reference.prepare(image)
    runtimes = {name: classifier.runtime for name, classifier in classifiers.items()}
    logits = {name: runtime.logits(batch) for name, runtime in runtimes.items()}
    times = interleave(
        runtimes, lambda _: batch, warmup=WARMUP, runs=runs, min_seconds=0, name="compare"
    )
    labels, threshold = reference.contract.labels, reference.contract.threshold
    (best,) = answers(logits[FLOAT], threshold)
    rows = {}
    for name, path in files.items():
        (answer,) = rank(logits[name][0], labels, 1, threshold=threshold)
        ratio = timing.bootstrap_ratio(times[name], times[FLOAT])
        rows[name] = Row(
            label=answer.label,
            score=answer.score,
            agrees=bool(answers(logits[name], threshold)[0] == best),
            sqnr_db=None if name == FLOAT else _finite(logits[FLOAT], logits[name]),
            latency_ms=timing.median(times[name]),
            ratio=ratio.median,
            ratio_interval=ratio.interval,
            size_mb=paths.size_bytes(path) / 1e6,
        )
    return rows


def _finite(reference: FloatArray, logits: FloatArray) -> float | None:
    sqnr = sqnr_db(reference, logits)
    return sqnr if math.isfinite(sqnr) else None


HEADER = ("file", "answer", "score", "as float", "SQNR dB", "median ms", "time of float", "MB")


def cells(rows: Mapping[str, Row]) -> list[tuple[str, ...]]:
    """The rows in words, in the order of :data:`HEADER`."""
    return [
        (
            name,
            row.label,
            f"{row.score:.4f}",
            "" if name == FLOAT else "yes" if row.agrees else "NO",
            "" if name == FLOAT else "equal" if row.sqnr_db is None else f"{row.sqnr_db:.1f}",
            f"{row.latency_ms:.1f}",
            "1" if name == FLOAT else f"{row.ratio:.2f} {row.ratio_interval:.2f}",
            f"{row.size_mb:.2f}",
        )
        for name, row in rows.items()
    ]
