"""Read the evidence of a run or of a release, and check it against the logits it rests on.

A run has it below ``artifacts/``, a release below ``evidence/``; deciding is the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.errors import IntegrityError
from pipeline.evidence.baselines import Baseline, Record, belongs, read_records
from pipeline.evidence.devices import Devices, read_devices
from pipeline.evidence.golden import read_golden
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.logits import LOGITS_FILE, load_logits
from pipeline.evidence.model import read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.evidence.samples import read_samples
from pipeline.metrics.measures import against_float, between_steps
from pipeline.paths import Recorded
from pipeline.schema import Section

EVIDENCE_FILE = "evidence.json"
SAMPLES_FILE = "samples.json"
RELEASED = "evidence"  # the folder of a release that holds it


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that the gate decides by."""

    parity: ParityEvidence
    latency: LatencyEvidence
    baselines: Sequence[Baseline] = ()
    devices: Devices = field(default_factory=Devices)


@dataclass(frozen=True)
class EvidencePaths:
    """Where each part of the evidence lies."""

    parity: Path
    latency: Path
    logits: Path
    samples: Path  # their SHA-256 and labels
    golden: Path  # folder
    contract: Path  # folder
    recorded: Recorded

    @classmethod
    def of_run(cls, artifacts: Path, recorded: Recorded) -> EvidencePaths:
        """Those of a run below ``artifacts``, and what was recorded beside it."""
        return cls(
            parity=artifacts / "parity" / EVIDENCE_FILE,
            latency=artifacts / "latency" / EVIDENCE_FILE,
            logits=artifacts / "parity" / LOGITS_FILE,
            samples=artifacts / "samples" / SAMPLES_FILE,
            golden=artifacts / "golden",
            contract=artifacts / "checkpoint",
            recorded=recorded,
        )

    @classmethod
    def of_release(cls, release: Path) -> EvidencePaths:
        """Those below the folder of a release."""
        folder = release / RELEASED
        return cls(
            parity=folder / "parity.json",
            latency=folder / "latency.json",
            logits=folder / LOGITS_FILE,
            samples=folder / SAMPLES_FILE,
            golden=release / "golden",
            contract=release,
            recorded=Recorded(baselines=folder / "baselines", devices=folder / "devices"),
        )


def read_evidence(paths: EvidencePaths) -> Evidence:
    """Read the evidence, and check its seals and fields.

    Raises:
        InputError: a file is missing or not JSON.
        IntegrityError: evidence or a record was changed after it was measured, or a field is
            missing, unknown or impossible.
    """
    parity = read_sealed(paths.parity, ParityEvidence)
    return Evidence(
        parity=parity,
        latency=read_sealed(paths.latency, LatencyEvidence),
        baselines=_baselines(paths, parity),
        devices=Devices(
            golden=read_golden(paths.golden), targets=read_devices(paths.recorded.devices)
        ),
    )


def _baselines(paths: EvidencePaths, parity: ParityEvidence) -> tuple[Baseline, ...]:
    """Compare the float reference with each record."""
    records = read_records(paths.recorded.baselines)
    if not records:
        return ()
    contract = load_contract(paths.contract)
    reference = load_logits(paths.logits, parity, ["reference"])["reference"]
    return tuple(_baseline(record, parity, contract, reference) for record in records)


def _baseline(
    record: Record, parity: ParityEvidence, contract: Contract, reference: NDArray[np.float32]
) -> Baseline:
    content, same = record.content, reference[: len(record.logits)]
    refusal = belongs(
        record, parity.checkpoint_sha256, parity.samples.sha256, contract.preprocessing
    )
    if refusal is None and record.logits.shape != same.shape:
        refusal = f"{record.path} has logits of shape {record.logits.shape}"
    return Baseline(
        path=record.path,
        device=content.device.name,
        kind=content.device.kind,
        recorded=content.recorded[:10],
        refusal=refusal,
        difference=None if refusal else between_steps(same, record.logits),
        noise_floor=content.noise_floor.max_abs,
        runs_ms=content.latency.runs_ms,
    )


def measure_again(paths: EvidencePaths, parity: ParityEvidence) -> list[str]:
    """Compute parity's numbers again from its logits; return each that is not the evidence's.

    Raises:
        InputError: the logits are missing or damaged.
        IntegrityError: they are not those that were measured.
    """
    return list(_edited(paths, parity))


def _edited(paths: EvidencePaths, parity: ParityEvidence) -> Iterator[str]:
    labels = read_samples(paths.samples).label_array
    floor = parity.noise_floor.max_abs

    def logits(key: str) -> NDArray[np.float32]:
        return load_logits(paths.logits, parity, [key])[key]  # one at a time: they may be large

    reference = logits("reference")
    for key, file in parity.artefacts.items():
        measured = against_float(reference, logits(key), labels, floor)
        yield from _differences(paths, key, file, measured)
    for name, step in parity.steps.items():
        before, after = logits(step.before), logits(step.after)
        count = min(len(before), len(after))
        yield from _differences(paths, name, step, between_steps(before[:count], after[:count]))


def _differences(
    paths: EvidencePaths, subject: str, recorded: Section, measured: Section
) -> Iterator[str]:
    for key, value in measured.model_dump().items():
        if (was := recorded.model_dump(include={key}).get(key)) != value:
            yield (
                f"{paths.parity} says {key} = {was} of {subject}, its logits say {value}: "
                "it was edited"
            )


def require_measured(paths: EvidencePaths, parity: ParityEvidence) -> None:
    """Refuse parity evidence whose numbers are not those of its logits.

    Raises:
        IntegrityError: names the first that is not.
    """
    if edited := measure_again(paths, parity):
        raise IntegrityError(f"{edited[0]}; run `dvc repro --force parity`")
