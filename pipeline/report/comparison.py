"""Each file compared with float, once for all documents: a row a quantity.

Each cell has one number. What bounds it is one number, too: the unfavourable end of its interval,
which is what the gate judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from pipeline.evidence.latency import FLOAT, LatencyEvidence
from pipeline.evidence.parity import ParityEvidence
from pipeline.formats import FORMATS
from pipeline.metrics import timing
from pipeline.metrics.summary import Proportion, proportion, summary_of

FLOAT_NAME = "float (PyTorch)"
NONE = "-"
AT_LEAST, AT_MOST = "at least", "at most"
QUANTILE_CONFIDENCE = 0.99  # of each side of a percentile's bounds
CLEAR = 1.05  # a ratio from which the headline speaks of a difference

SIZE, SIZE_SHARE = "Size, MB", "Size, % of float's"
ACCURACY, LOST = "Right answers, %", "Accuracy lost, percentage points"
AGREEMENT, TOP5 = "Same answer as float, %", "Same five best classes as float, %"
SQNR = "SQNR, dB"
P50, P90, P99 = (
    "Median time, ms",
    "90% of images take at most, ms",
    "99% of images take at most, ms",
)
TIME_SHARE = "Time, % of float's"
MEMORY, MEMORY_SHARE = "Memory added, MB", "Memory, % of float's"
LOAD, FIRST, PEAK = "Loading, ms", "First image, ms", "Peak memory of the process, MB"
PREVIOUS = "Median time of the last release, ms"

BRIEF = (SIZE, ACCURACY, LOST, AGREEMENT, SQNR, P50, TIME_SHARE, MEMORY)
CRITERIA = {  # the quantity that a criterion judges
    "size_ratio_max": SIZE_SHARE,
    "accuracy_drop_max_pp": LOST,
    "top1_agreement_min": AGREEMENT,
    "sqnr_min_db": SQNR,
    "latency_ratio_max": TIME_SHARE,
    "memory_ratio_max": MEMORY_SHARE,
}


@dataclass(frozen=True)
class Cell:
    """A number of one file, and what it is at least or at most, or why there is none."""

    text: str = NONE
    bound: str = ""


@dataclass(frozen=True)
class Row:
    """One quantity: a cell for float, then one for each format."""

    title: str
    cells: tuple[Cell, ...]


TOO_FEW = Cell(NONE, "too few runs")


def keys(parity: ParityEvidence, latency: LatencyEvidence) -> tuple[str, ...]:
    """Whose numbers the cells of a row are: float's, then those of each measured file."""
    measured = {*parity.artefacts, *latency.artefacts}
    return (FLOAT, *(key for key in FORMATS if key in measured))


def name(key: str) -> str:
    """What people call a file."""
    return FORMATS[key].suffix if key in FORMATS else FLOAT_NAME


def rows(parity: ParityEvidence, latency: LatencyEvidence, confidence: float) -> list[Row]:
    """Every quantity of parity's and latency's evidence that at least one file has."""
    cells = {key: _cells(key, parity, latency, confidence) for key in keys(parity, latency)}
    titles = {
        title for of_file in cells.values() for title, cell in of_file.items() if cell != TOO_FEW
    }
    order = [SIZE, SIZE_SHARE, ACCURACY, LOST, AGREEMENT, TOP5, SQNR, P50, P90, P99, TIME_SHARE]
    order += [LOAD, FIRST, MEMORY, MEMORY_SHARE, PEAK, PREVIOUS]
    return [
        Row(title, tuple(of_file.get(title, Cell()) for of_file in cells.values()))
        for title in order
        if title in titles
    ]


def files_table(
    parity: ParityEvidence,
    latency: LatencyEvidence,
    confidence: float,
    style: str = "simple",
) -> str:
    """The quantities that people compare files by, as text; ``style`` is one of tabulate's."""
    lines = []
    for row in rows(parity, latency, confidence):
        if row.title in BRIEF:
            lines.append([row.title, *(cell.text for cell in row.cells)])
            bounds = [cell.bound.rpartition(" ") for cell in row.cells]
            side = next((words for words, _, _ in bounds if words in (AT_LEAST, AT_MOST)), None)
            if side and row.title != P50:
                of_side = [number if words == side else "" for words, _, number in bounds]
                lines.append([f"… {side}", *of_side])
    header = ("", *map(name, keys(parity, latency)))
    alignment = ("left", *["right"] * (len(header) - 1))
    return tabulate(lines, header, tablefmt=style, disable_numparse=True, colalign=alignment)


def headline(parity: ParityEvidence, latency: LatencyEvidence) -> str:
    """Return one sentence on the fastest file; empty where no file has all numbers."""
    timed, size = latency.artefacts, parity.float_size_bytes
    measured = {
        key: file for key in FORMATS if key in timed and (file := parity.measured(key)) is not None
    }
    if not measured:
        return ""
    times = {key: timing.median(timed[key].runs_ms) for key in measured}
    fastest = min(times, key=lambda key: times[key])
    file = measured[fastest]
    smaller = _times(size / file.size_bytes, "smaller", "larger", "as large")
    of_float = timing.median(latency.float_runs_ms) / times[fastest]
    faster = _times(of_float, "faster", "slower", "as fast")
    # Rounded down: 99.95% is not all.
    share = 1000 * file.top1_equal // file.count / 10
    return f"{smaller}, {faster}, {share:g}% of the answers: {name(fastest)} compared with float"


def _times(ratio: float, more: str, less: str, same: str) -> str:
    if ratio >= CLEAR:
        return f"{ratio:.1f} times {more}"
    return f"{1 / ratio:.1f} times {less}" if 1 / ratio >= CLEAR else same


def _cells(
    key: str, parity: ParityEvidence, latency: LatencyEvidence, confidence: float
) -> dict[str, Cell]:
    """All cells of one file, by title."""
    answers = _of_float(parity, confidence) if key == FLOAT else _answers(key, parity, confidence)
    times = _times_of(key, latency, confidence)
    return dict(answers) | dict(times)


def _of_float(parity: ParityEvidence, confidence: float) -> Iterator[tuple[str, Cell]]:
    yield SIZE, Cell(_megabytes(parity.float_size_bytes))
    right = parity.reference_accuracy
    if right:
        yield ACCURACY, _share(proportion(right.right, right.count, confidence))


def _answers(key: str, parity: ParityEvidence, confidence: float) -> Iterator[tuple[str, Cell]]:
    measured, of_float = parity.artefacts.get(key), parity.float_size_bytes
    if not measured:
        yield SIZE, Cell("not measured")
        return
    yield SIZE, Cell(_megabytes(measured.size_bytes))
    yield SIZE_SHARE, Cell(f"{100 * measured.size_bytes / of_float:.1f}")
    summary = summary_of(measured, confidence)
    if summary is None:
        yield AGREEMENT, Cell(NONE, "NaN or infinity")
        return
    if summary.accuracy and summary.drop:
        yield ACCURACY, _share(summary.accuracy)
        yield LOST, Cell(f"{summary.drop.drop_pp:.2f}", f"{AT_MOST} {summary.drop.upper_pp:.2f}")
    yield AGREEMENT, _share(summary.top1_agreement)
    yield TOP5, _share(summary.top5_agreement)
    yield SQNR, Cell(f"{summary.sqnr_db:.1f}")


def _times_of(key: str, latency: LatencyEvidence, confidence: float) -> Iterator[tuple[str, Cell]]:
    timed = latency.artefacts.get(key)
    if timed is None:
        yield P50, Cell("not timed")
        return
    runs, of_float = timed.runs_ms, latency.float_runs_ms
    for title, quantile in ((P50, 0.5), (P90, 0.9), (P99, 0.99)):
        yield title, _quantile(runs, quantile)
    if key != FLOAT:
        ratio = timing.bootstrap_ratio(runs, of_float, confidence)
        high = f"{AT_MOST} {100 * ratio.interval.high:.1f}"
        yield TIME_SHARE, Cell(f"{100 * ratio.median:.1f}", high)
    yield LOAD, Cell(f"{timed.load_ms:.0f}")
    yield FIRST, Cell(f"{timed.first_ms:.0f}")
    yield PEAK, Cell(f"{timed.peak_memory_mb:.0f}")
    memory, of_float_mb = timed.own_memory_mb, latency.artefacts[FLOAT].own_memory_mb
    if memory is not None:
        yield MEMORY, Cell(f"{memory:.0f}")
    if key != FLOAT and memory and of_float_mb:
        yield MEMORY_SHARE, Cell(f"{100 * memory / of_float_mb:.1f}")
    if previous := latency.previous_files.get(key):
        yield PREVIOUS, Cell(f"{timing.median(previous.runs_ms):.1f}")


def _quantile(runs: Sequence[float], quantile: float) -> Cell:
    """A percentile only where the number of runs bounds it from above."""
    bounds = timing.quantile_bounds(runs, quantile, QUANTILE_CONFIDENCE)
    if bounds.high is None:
        return TOO_FEW
    return Cell(f"{bounds.estimate:.1f}", f"{AT_MOST} {bounds.high:.1f}")


def _share(share: Proportion) -> Cell:
    return Cell(f"{100 * share.value:.2f}", f"{AT_LEAST} {100 * share.interval.low:.2f}")


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.2f}"
