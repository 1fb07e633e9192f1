"""Read the evidence of a run or of a release.

A run has it below ``artifacts/``, a release below ``evidence/``; deciding is the same for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.evidence.baselines import Baseline, Record, belongs, read_records
from pipeline.evidence.devices import Devices, read_devices
from pipeline.evidence.golden import read_golden
from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.logits import LOGITS_FILE, load_logits
from pipeline.evidence.model import read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.metrics.measures import between_steps
from pipeline.paths import Recorded

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
    run: Path | None  # the artifacts of a run, with what a release no longer has

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
            run=artifacts,
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
            run=None,
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
        difference=None if refusal else between_steps(same, record.logits, contract.threshold),
        noise_floor=content.noise_floor.max_abs,
        runs_ms=content.latency.runs_ms,
    )
