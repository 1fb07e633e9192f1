"""What the runtimes that devices run made of the delivered files.

Answers are compared with the golden ones of the same file, which `parity` compared with float on
many samples: a device may only add what another runtime's kernels round differently. All numbers
are computed here, from the logits in the evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from pipeline.evidence.devices import Cell, DeviceEvidence, Devices, PreviousCounts
from pipeline.evidence.golden import FLOAT, GoldenEvidence
from pipeline.formats import name_of
from pipeline.metrics import distances
from pipeline.metrics.logits import answers, logits_array
from pipeline.metrics.measures import SQNR_LIMIT_DB
from pipeline.params import Budget, Gate
from pipeline.verdict.criteria.files import Files
from pipeline.verdict.criterion import FAIL, PASS, UNDECIDED, Criterion, plain

IMAGES_MIN = 16  # golden images that a target runs at least, the first ones
SPREAD_MAX = 0.001  # of repeated counts of instructions; an emulator counts exactly


@dataclass(frozen=True)
class Agreement:
    """How close the answers of a device are to the golden ones."""

    top1_equal: int
    count: int
    sqnr_db: float  # against the golden answers of the same file
    float_sqnr_db: float  # against float's


def criteria(gate: Gate, files: Files, devices: Devices) -> Iterator[Criterion]:
    """Yield the criteria of each target that a channel asks for or that was run."""
    asked = dict.fromkeys([*gate.devices.candidate, *gate.devices.release])
    golden = devices.golden
    for target in dict.fromkeys([*asked, *devices.targets]):
        evidence = devices.targets.get(target)
        again = f"run `make device-test TARGETS={target}`"
        if evidence is None:
            yield _undecided(gate, target, target, f"was not run; {again}")
        elif golden is None or evidence.golden != golden.seal:
            yield _undecided(gate, target, target, f"was run on other golden images; {again}")
        else:
            yield from _target(gate, files, golden, target, evidence, again)
    if golden is not None and devices.targets:
        yield from _oldest_runtimes(gate, files, golden, devices.targets)


def _target(
    gate: Gate,
    files: Files,
    golden: GoldenEvidence,
    target: str,
    evidence: DeviceEvidence,
    again: str,
) -> Iterator[Criterion]:
    cells = {cell.format: cell for cell in evidence.cells}
    made = {*gate.budgets, *files.artefacts}  # the formats that are not off
    for key in (key for key in evidence.formats if key in made):
        subject = f"{name_of(key)} on {target}"
        cell = cells.get(key)
        if cell is None:
            yield _undecided(gate, target, subject, f"was not run; {again}")
        elif cell.sha256 != files.artefacts.get(key):
            yield _undecided(gate, target, subject, f"other bytes were run; {again}")
        else:
            budget = gate.budgets.get(key, Budget())
            yield _answers(budget, golden, subject, cell)
            if cell.cost.instructions:
                yield from _instructions(budget, subject, cell, evidence.previous)
    for check in (check for check in evidence.checks if check.subject in made):
        subject = f"{name_of(check.subject)} on {target}"
        if check.sha256 != files.artefacts.get(check.subject):
            yield _undecided(gate, target, subject, f"{check.name}: of other bytes; {again}")
        else:
            outcome = PASS if check.passed else FAIL
            yield plain("device_check", subject, outcome, f"{check.name}: {check.detail}")


def agreement(golden: GoldenEvidence, cell: Cell) -> Agreement | None:
    """Compare a cell's answers with the golden ones; None where there is nothing to compare."""
    if not (cell.loads and cell.runs) or cell.logits is None:
        return None
    if cell.format not in golden.artefacts:
        return None
    expected, threshold = golden.logits(cell.format), golden.threshold
    of_float = golden.logits(FLOAT)
    actual = logits_array(cell.logits)
    count = len(actual)
    if count < min(IMAGES_MIN, len(expected)) or actual.shape != expected[:count].shape:
        return None
    expected, of_float = expected[:count], of_float[:count]
    if not all(np.isfinite(logits).all() for logits in (expected, of_float, actual)):
        return None
    return Agreement(
        top1_equal=int((answers(expected, threshold) == answers(actual, threshold)).sum()),
        count=count,
        sqnr_db=_sqnr_db(expected, actual),
        float_sqnr_db=_sqnr_db(of_float, actual),
    )


def agrees(gate: Gate, golden: GoldenEvidence, cell: Cell) -> bool:
    """Whether a cell's file loads, runs and answers as close to the golden ones as is asked."""
    budget = gate.budgets.get(cell.format, Budget())
    return _answers(budget, golden, "", cell).outcome == PASS


def _answers(budget: Budget, golden: GoldenEvidence, subject: str, cell: Cell) -> Criterion:
    where = f"{cell.runtime}, {cell.machine}"
    name = "device_sqnr_min_db"
    if not (cell.loads and cell.runs):
        failed = "run" if cell.loads else "load"
        words = " ".join(str(cell.error).split())[:400]
        return plain(name, subject, FAIL, f"does not {failed} on {where}: {words}")
    agreed = agreement(golden, cell)
    if agreed is None:
        return plain(name, subject, FAIL, f"not enough finite answers to golden images on {where}")
    limit = budget.device_sqnr_min_db
    seen = f"top-1 as here on {agreed.top1_equal} of {agreed.count} golden images"
    return Criterion(
        name=name,
        subject=subject,
        outcome=PASS if limit is None or agreed.sqnr_db >= limit else FAIL,
        value=agreed.sqnr_db,
        interval=None,
        limit=limit,
        unit="dB",
        note=f"{where}: {seen}, {agreed.float_sqnr_db:.1f} dB from float",
    )


def _instructions(
    budget: Budget, subject: str, cell: Cell, previous: PreviousCounts | None
) -> Iterator[Criterion]:
    """Retired instructions of one inference: repeatable, so bounded without an interval."""
    counts = cell.cost.instructions
    count, spread = median(counts), (max(counts) - min(counts)) / min(counts)
    steady = spread <= SPREAD_MAX
    note = f"{len(counts)} counts within {100 * spread:.2g}%"
    if not steady:
        note += f", more than {100 * SPREAD_MAX:g}%: something else was counted; measure again"
    limits = [("instructions_max_m", count / 1e6, budget.instructions_max_m, "M")]
    before = previous.instructions.get(cell.format) if previous else None
    if before:
        limit = budget.instructions_growth_max
        limits.append(("instructions_growth_max", count / before, limit, "of the last release"))
    for name, value, limit, unit in limits:
        if limit is not None:
            yield Criterion(
                name=name,
                subject=subject,
                outcome=(PASS if value <= limit else FAIL) if steady else UNDECIDED,
                waits_for="" if steady else f"a run of {subject}",
                value=value,
                interval=None,
                limit=limit,
                unit=unit,
                note=note,
            )


def _oldest_runtimes(
    gate: Gate,
    files: Files,
    golden: GoldenEvidence,
    targets: Mapping[str, DeviceEvidence],
) -> Iterator[Criterion]:
    """Check the oldest runtime that each contract names by a run on exactly that one."""
    claims: dict[str, str] = {}
    seen: dict[tuple[str, str], list[bool]] = {}
    for evidence in targets.values():
        if evidence.golden != golden.seal:
            continue
        for key, claim in evidence.claims.items():
            if claim.sha256 == files.artefacts.get(key):
                claims[key] = claim.oldest_runtime
        for cell in evidence.cells:
            if cell.sha256 == files.artefacts.get(cell.format):
                place = (cell.format, cell.runtime)
                seen.setdefault(place, []).append(agrees(gate, golden, cell))
    for key, runtime in claims.items():
        ran = seen.get((key, runtime), [])
        outcome = UNDECIDED if not ran else PASS if all(ran) else FAIL
        words = {
            PASS: f"loads, runs and agrees on {runtime}, the oldest that its contract names",
            FAIL: f"its contract says that it runs on {runtime}, and it does not",
            UNDECIDED: f"its contract names {runtime}, where it was not run; `make device-test`",
        }
        waits_for = "" if ran else f"a run on {runtime}"
        yield plain("oldest_runtime", name_of(key), outcome, words[outcome], waits_for=waits_for)


def _undecided(gate: Gate, target: str, subject: str, note: str) -> Criterion:
    waits_for = "" if target in getattr(gate.devices, gate.channel) else f"a run on {target}"
    return plain("devices", subject, UNDECIDED, note, waits_for=waits_for)


def _sqnr_db(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    value = distances.sqnr_db(expected, actual)
    return round(min(max(value, -SQNR_LIMIT_DB), SQNR_LIMIT_DB), 3)
