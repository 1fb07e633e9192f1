"""The evidence of a run or of a release, read and held to what it rests on.

A run has it below ``artifacts/``, a release below ``evidence/``; deciding is the same for both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.errors import IntegrityError
from pipeline.evidence import baselines
from pipeline.evidence.devices import read_devices
from pipeline.evidence.golden import read_golden
from pipeline.evidence.logits import LOGITS_FILE, load_logits
from pipeline.evidence.seal import check_seal
from pipeline.evidence.types import Baseline, Devices, Evidence
from pipeline.files import read_json
from pipeline.metrics.measures import against_float, between_steps
from pipeline.paths import Recorded

EVIDENCE_FILE = "evidence.json"
SAMPLES_FILE = "samples.json"
RELEASED = "evidence"  # the folder of a release that holds it


@dataclass(frozen=True)
class Places:
    """Where each part of the evidence lies."""

    parity: Path
    latency: Path
    logits: Path
    samples: Path  # their SHA-256 and labels
    golden: Path  # folder
    contract: Path  # folder
    recorded: Recorded

    @classmethod
    def of_run(cls, artifacts: Path, recorded: Recorded) -> Places:
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
    def of_release(cls, release: Path) -> Places:
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


def read_evidence(places: Places) -> Evidence:
    """Read the evidence, and check its seals.

    Raises:
        InputError: a file is missing or not JSON.
        IntegrityError: evidence or a record was changed after it was measured.
    """
    parity, latency = (
        check_seal(read_json(path), kind, str(path))
        for kind, path in (("parity", places.parity), ("latency", places.latency))
    )
    return Evidence(
        parity=parity,
        latency=latency,
        baselines=_baselines(places, parity),
        devices=Devices(
            golden=read_golden(places.golden), targets=read_devices(places.recorded.devices)
        ),
    )


def _baselines(places: Places, parity: Mapping[str, Any]) -> tuple[Baseline, ...]:
    """Hold the float reference against each record."""
    records = baselines.read_records(places.recorded.baselines)
    if not records:
        return ()
    contract = load_contract(places.contract)
    reference = load_logits(places.logits, parity, ["reference"])["reference"]
    return tuple(_baseline(record, parity, contract, reference) for record in records)


def _baseline(
    record: baselines.Record,
    parity: Mapping[str, Any],
    contract: Contract,
    reference: NDArray[np.float32],
) -> Baseline:
    content, same = record.content, reference[: len(record.logits)]
    refusal = baselines.belongs(
        record,
        parity["checkpoint_sha256"],
        parity["samples"]["sha256"],
        contract.preprocessing,
    )
    if refusal is None and record.logits.shape != same.shape:
        refusal = f"{record.path} has logits of shape {record.logits.shape}"
    return Baseline(
        path=record.path,
        device=content["device"]["name"],
        kind=content["device"]["kind"],
        recorded=content["recorded"][:10],
        refusal=refusal,
        difference=None if refusal else between_steps(same, record.logits),
        noise_floor=content["noise_floor"]["max_abs"],
        runs_ms=tuple(content["latency"]["runs_ms"]),
    )


def measure_again(places: Places, parity: Mapping[str, Any]) -> list[str]:
    """Compute parity's numbers again from its logits; return each that is not the evidence's.

    Raises:
        InputError: the logits are missing or damaged.
        IntegrityError: they are not those that were measured.
    """
    return list(_edited(places, parity))


def _edited(places: Places, parity: Mapping[str, Any]) -> Iterator[str]:
    known = read_json(places.samples)["labels"]
    labels = None if None in known else np.array(known, np.int64)
    floor = parity["noise_floor"]["max_abs"]

    def logits(key: str) -> NDArray[np.float32]:
        return load_logits(places.logits, parity, [key])[key]  # one at a time: they may be large

    reference = logits("reference")
    for key, recorded in parity["artefacts"].items():
        again = against_float(reference, logits(key), labels, floor)
        yield from _other(places, key, recorded, again)
    for step, recorded in parity["steps"].items():
        before, after = logits(recorded["before"]), logits(recorded["after"])
        count = min(len(before), len(after))
        yield from _other(places, step, recorded, between_steps(before[:count], after[:count]))


def _other(
    places: Places, subject: str, recorded: Mapping[str, Any], measured: Mapping[str, Any]
) -> Iterator[str]:
    for key, value in measured.items():
        if recorded.get(key) != value:
            yield (
                f"{places.parity} says {key} = {recorded.get(key)} of {subject}, its logits say "
                f"{value}: it was edited"
            )


def require_measured(places: Places, parity: Mapping[str, Any]) -> None:
    """Stop where parity's numbers are not those of its logits.

    Raises:
        IntegrityError: names the first that is not.
    """
    if edited := measure_again(places, parity):
        raise IntegrityError(f"{edited[0]}; run `dvc repro --force parity`")
