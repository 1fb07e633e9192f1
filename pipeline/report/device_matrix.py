"""The matrix of files and the runtimes that devices run: loads, runs, agrees, costs."""

from __future__ import annotations

from statistics import median

from pipeline.evidence.devices import Cell, Devices
from pipeline.evidence.golden import GoldenEvidence
from pipeline.formats import name_of
from pipeline.metrics.measures import SQNR_LIMIT_DB
from pipeline.params import Gate
from pipeline.report.table import table
from pipeline.verdict.criteria.devices import agreement, agrees

HEADER = (
    *("file", "runtime", "on", "loads", "runs", "agrees"),
    *("top-1 as here", "SQNR dB", "of float", "p50 ms", "peak MB", "M instructions"),
)
NONE = "-"


def rows(devices: Devices, gate: Gate) -> list[tuple[str, ...]]:
    """Return a row for each file on each runtime that was run, in the order of :data:`HEADER`.

    SQNR is against the golden answers of the same file, ``of float`` against float's.
    """
    golden = devices.golden
    if golden is None:
        return []
    return [
        _row(cell, golden, gate)
        for evidence in devices.targets.values()
        if evidence.golden == golden.seal
        for cell in evidence.cells
    ]


def lines(devices: Devices, gate: Gate, style: str = "simple") -> list[str]:
    """The matrix as lines of text, none where nothing was run."""
    cells = rows(devices, gate)
    return [*table(cells, HEADER, style).splitlines(), ""] if cells else []


def _row(cell: Cell, golden: GoldenEvidence, gate: Gate) -> tuple[str, ...]:
    agreed = agreement(golden, cell)
    cost = cell.cost
    answers = [NONE] * 3
    if agreed is not None:
        answers = [
            f"{agreed.top1_equal} of {agreed.count}",
            _decibels(agreed.sqnr_db),
            _decibels(agreed.float_sqnr_db),
        ]
    return (
        name_of(cell.format),
        cell.runtime,
        cell.machine,
        _word(cell.loads),
        _word(cell.runs),
        _word(agrees(gate, golden, cell)),
        *answers,
        f"{median(cost.runs_ms):.1f}" if cost.runs_ms else NONE,
        f"{cost.peak_memory_mb:.0f}" if cost.peak_memory_mb else NONE,
        f"{median(cost.instructions) / 1e6:.1f}" if cost.instructions else NONE,
    )


def _decibels(value: float) -> str:
    return f"{value:.1f}" if value < SQNR_LIMIT_DB else "equal"


def _word(yes: bool) -> str:
    return "yes" if yes else "NO"
