"""Turn a target's results into evidence that the gate reads."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from device_tests.target import Bundle, Results
from pipeline.contract.files import read_contract
from pipeline.errors import IntegrityError
from pipeline.evidence.devices import (
    DeviceEvidence,
    OldestRuntime,
    PreviousCounts,
    read_devices,
)
from pipeline.evidence.machine import fingerprint
from pipeline.evidence.model import Machine, sealed_json
from pipeline.files import sha256_file, write_json
from pipeline.release.read import Release


def record(
    name: str, formats: tuple[str, ...], results: Results, bundle: Bundle, into: Path
) -> Path:
    """Write the evidence of target ``name`` into folder ``into``; return its path."""
    path = into / f"{name}.json"
    evidence = DeviceEvidence(
        target=name,
        golden=bundle.golden.seal,
        formats=formats,
        cells=tuple(results.cells),
        checks=tuple(results.checks),
        claims=_claims(bundle, formats),
        previous=_previous(name, bundle.previous) if bundle.previous else None,
        machine=Machine(**fingerprint()),
    )
    write_json(path, sealed_json(evidence))
    return path


def _claims(bundle: Bundle, formats: tuple[str, ...]) -> dict[str, OldestRuntime]:
    """What the contracts in the files say of the oldest runtime; empty where none is read."""
    claims = {}
    for key in formats:
        try:
            contract = read_contract(bundle.files[key])
        except IntegrityError:
            continue  # the cell says that the file is damaged
        if contract.artefact is not None:
            oldest = contract.artefact.oldest_runtime
            claims[key] = OldestRuntime(
                sha256=sha256_file(bundle.files[key]), oldest_runtime=oldest
            )
    return claims


def _previous(name: str, release: Release) -> PreviousCounts:
    """The instructions that the same target counted for the files of the last release."""
    before = read_devices(release.folder / "evidence" / "devices").get(name)
    counted = {
        cell.format: median(cell.cost.instructions)
        for cell in (before.cells if before else ())
        if cell.cost.instructions and cell.sha256 == release.sha256.get(cell.format)
    }
    return PreviousCounts(release=release.folder.name, instructions=counted)
