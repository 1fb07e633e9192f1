"""Two releases beside each other, from what each recorded: answers, time, size, instructions.

Nothing is measured. What was measured on other samples or on another machine is not compared, and
it is said why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.contract.changes import Change, Side
from pipeline.contract.contract import Artefact, Contract
from pipeline.contract.files import load_contract, read_contract
from pipeline.errors import IntegrityError
from pipeline.evidence.logits import load_logits
from pipeline.evidence.read import Evidence, EvidencePaths, read_evidence
from pipeline.evidence.samples import read_samples
from pipeline.formats import FORMATS
from pipeline.metrics import timing
from pipeline.metrics.distances import sqnr_db
from pipeline.metrics.intervals import Interval, PairedDrop, paired_drop
from pipeline.metrics.logits import Logits, answers, logits_array
from pipeline.metrics.measures import SQNR_LIMIT_DB
from pipeline.metrics.summary import Proportion, proportion, summary_of
from pipeline.release.read import Release, judged_by, read_release
from pipeline.verdict import limits as verdict_limits

FLOAT = "float"
KEYS = (FLOAT, *FORMATS)
MACHINE = ("device", "processor", "cores", "flags", "system")  # what makes times comparable
COUNTED_ON = "arm64"  # the target whose emulator counts instructions


@dataclass(frozen=True)
class Opened:
    """A release that is whole, and what it says."""

    release: Release
    contract: Contract
    artefacts: dict[str, Artefact]
    evidence: Evidence
    labels: NDArray[np.int64] | None  # of the samples

    @classmethod
    def open(cls, folder: Path) -> Opened:
        """Read the release in ``folder``.

        Raises:
            InputError: something is missing or damaged.
            IntegrityError: it is not what was published.
        """
        release, evidence_paths = read_release(folder), EvidencePaths.of_release(folder)
        artefacts = {}
        for key, path in release.files.items():
            artefact = read_contract(path).artefact
            if artefact is None:
                raise IntegrityError(f"{path} does not say what it needs; fetch it again")
            artefacts[key] = artefact
        evidence, samples = read_evidence(evidence_paths), read_samples(evidence_paths.samples)
        if len(samples.labels) != evidence.parity.samples.count:
            raise IntegrityError(
                f"{evidence_paths.samples} has {len(samples.labels)} labels, parity was measured "
                f"on {evidence.parity.samples.count} samples; fetch the release again"
            )
        return cls(release, load_contract(folder), artefacts, evidence, samples.label_array)

    @property
    def side(self) -> Side:
        """The contracts and file names, for :mod:`pipeline.contract.changes`."""
        names = {key: path.name for key, path in self.release.files.items()}
        return Side(self.contract, names, self.artefacts)

    def logits(self, key: str) -> Logits | None:
        """Answers to the samples, [n, outputs]."""
        name = "reference" if key == FLOAT else key
        parity = self.evidence.parity
        if name not in parity.logits_sha256:
            return None
        logits = EvidencePaths.of_release(self.release.folder).logits
        return load_logits(logits, parity, [name])[name]


@dataclass(frozen=True)
class Accuracy:
    """Right answers of one file before and after, and on the same samples the paired drop."""

    before: Proportion | None
    after: Proportion | None
    drop: PairedDrop | None


@dataclass(frozen=True)
class Agreement:
    """How many answers are the same, before and after."""

    on: str  # "samples" or "golden images"
    count: int
    same: Proportion
    sqnr_db: float  # of after's logits against before's


@dataclass(frozen=True)
class Cost:
    """What one file costs, after as a multiple of before; None where that cannot be said."""

    size_bytes: tuple[int | None, int | None]
    time_ratio: float | None
    time_interval: Interval | None  # only where both took turns in one process
    instructions_m: tuple[float | None, float | None]
    note: str  # why there is no time


def accuracy(before: Opened, after: Opened, key: str) -> Accuracy:
    """Return the accuracy of one file before and after; the drop only on the same samples."""
    drop = None
    if _same_samples(before, after) and before.labels is not None:
        one, other = before.logits(key), after.logits(key)
        if one is not None and other is not None and _finite(one, other):
            a = answers(one, before.contract.threshold) == before.labels
            b = answers(other, after.contract.threshold) == before.labels
            counts = ((a & b), (a & ~b), (~a & b), (~a & ~b))
            drop = paired_drop(*(int(part.sum()) for part in counts))
    return Accuracy(_right(before, key), _right(after, key), drop)


def _right(of: Opened, key: str) -> Proportion | None:
    parity = of.evidence.parity
    if key == FLOAT:
        right = parity.reference_accuracy
        return proportion(right.right, right.count) if right else None
    summary = summary_of(parity.artefacts.get(key))
    return summary.accuracy if summary else None


def agreement(before: Opened, after: Opened, key: str) -> Agreement | str:
    """Return how similar the answers are; a phrase where that is not known."""
    order = _order(before.contract.labels, after.contract.labels)
    if before.contract.activation != after.contract.activation:
        return "another head"
    outputs = after.contract.outputs
    if order is None or (outputs == 1 and order[0]):  # the one logit is of the other label
        return "other labels"
    if _same_samples(before, after):
        on, one, other = "samples", before.logits(key), after.logits(key)
    else:
        on, one, other = "golden images", *_golden(before, after, key)
    if one is None or other is None or not len(one):
        return "not measured on the same images"
    if not _finite(one, other):
        return "NaN or infinity"
    other = other[:, order[:outputs]]
    first, second = before.contract.threshold, after.contract.threshold
    equal = int((answers(one, first) == answers(other, second)).sum())
    distance = float(np.clip(sqnr_db(one, other), -SQNR_LIMIT_DB, SQNR_LIMIT_DB))
    return Agreement(on, len(one), proportion(equal, len(one)), distance)


def _order(before: tuple[str, ...], after: tuple[str, ...]) -> list[int] | None:
    """Where each class of ``before`` is in ``after``; None unless both have the same classes."""
    if before == after:
        return list(range(len(before)))
    if sorted(before) != sorted(after) or len(set(before)) != len(before):
        return None
    return [after.index(label) for label in before]


def _golden(before: Opened, after: Opened, key: str) -> tuple[Logits | None, Logits | None]:
    """Return the logits of the golden images that both have."""
    sides = []
    for of in (before, after):
        golden = of.evidence.devices.golden
        if golden is None or key not in golden.artefacts:
            return None, None
        rows = golden.artefacts[key].logits
        hashes = [image.sha256 for image in golden.images]
        sides.append(dict(zip(hashes, rows, strict=True)))
    shared = [sha256 for sha256 in sides[0] if sha256 in sides[1]]
    one, other = (logits_array([side[sha256] for sha256 in shared]) for side in sides)
    return one, other


def cost(before: Opened, after: Opened, key: str) -> Cost:
    """Return what one file costs, after as a multiple of before."""
    ratio, interval, note = _time(before, after, key)
    return Cost(
        size_bytes=(_size(before, key), _size(after, key)),
        time_ratio=ratio,
        time_interval=interval,
        instructions_m=(_instructions(before, key), _instructions(after, key)),
        note=note,
    )


def _time(before: Opened, after: Opened, key: str) -> tuple[float | None, Interval | None, str]:
    one, other = (of.release.sha256.get(key) for of in (before, after))
    if one is not None and one == other:
        return 1.0, None, "the same bytes"
    if (pair := _turns(before, after, key)) is not None:
        ratio = timing.bootstrap_ratio(*pair)
        return ratio.median, ratio.interval, "took turns"
    if (pair := _turns(after, before, key)) is not None:
        ratio = timing.bootstrap_ratio(pair[1], pair[0])
        return ratio.median, ratio.interval, "took turns"
    was, now = before.evidence.latency, after.evidence.latency
    earlier, later = was.artefacts.get(key), now.artefacts.get(key)
    if earlier is None or later is None:
        return None, None, "not timed"
    same_machine = all(getattr(was.machine, f) == getattr(now.machine, f) for f in MACHINE)
    if not same_machine or was.threads != now.threads:
        return None, None, "timed on other machines"
    return timing.median(later.runs_ms) / timing.median(earlier.runs_ms), None, "timed apart"


def _turns(
    before: Opened, after: Opened, key: str
) -> tuple[Sequence[float], Sequence[float]] | None:
    """Times of ``after`` and of ``before`` in one process, which the later release measured."""
    latency = after.evidence.latency
    previous = latency.previous_files.get(key)
    if previous is None or key not in latency.artefacts:
        return None
    if previous.sha256 != before.release.sha256.get(key):
        return None
    return latency.artefacts[key].runs_ms, previous.runs_ms


def _size(of: Opened, key: str) -> int | None:
    path = of.release.files.get(key)
    return paths.size_bytes(path) if path else None


def _instructions(of: Opened, key: str) -> float | None:
    """Millions that one inference retires on ARM64, of these very bytes."""
    evidence = of.evidence.devices.targets.get(COUNTED_ON)
    for cell in evidence.cells if evidence else ():
        same = cell.format == key and cell.sha256 == of.release.sha256.get(key)
        if same and cell.cost.instructions:
            return float(median(cell.cost.instructions)) / 1e6
    return None


def _same_samples(before: Opened, after: Opened) -> bool:
    one, other = (of.evidence.parity.samples.sha256 for of in (before, after))
    return one == other


def _finite(*logits: Logits) -> bool:
    return all(bool(np.isfinite(rows).all()) for rows in logits)


def limits(before: Opened, after: Opened) -> list[Change]:
    """The limits of the gate that differ, by their place in params.yaml.

    Raises:
        InputError, IntegrityError: a release does not say what it was judged by.
    """
    by = [judged_by(opened.release.folder) for opened in (before, after)]
    one, other = (verdict_limits.limits(side.gate, side.baseline.device) for side in by)
    return [
        Change(name, *(verdict_limits.shown(side.get(name)) for side in (one, other)))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]
