"""What the documents of a release are made from: its files, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline import formats
from pipeline.contract.contract import Artefact, Contract
from pipeline.contract.files import read_contract
from pipeline.evidence.devices import Cell, DeviceEvidence, Devices
from pipeline.evidence.read import Evidence
from pipeline.files import sha256_file
from pipeline.params import Params
from pipeline.release.build import Build, read
from pipeline.verdict.decide import Verdict


@dataclass(frozen=True, kw_only=True)
class File:
    """One delivered file."""

    key: str  # its format
    name: str
    sha256: str
    size_bytes: int
    about: Artefact | None  # what its own contract says
    beside: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of what it needs, by name


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything that the documents say comes from here."""

    contract: Contract
    verdict: Verdict
    evidence: Evidence
    params: Params
    build: Build
    files: tuple[File, ...]  # in the order of formats.FORMATS
    evidence_sha256: Mapping[str, str] = field(default_factory=dict)  # by path in the release
    golden_image: str | None = None  # path in the release of the first one

    def file(self, key: str) -> File | None:
        """Return the file of format ``key``, if there is one."""
        return next((file for file in self.files if file.key == key), None)

    @property
    def title(self) -> str:
        """Name and version of the model."""
        return f"{self.contract.name} {self.contract.version}"

    @property
    def samples_name(self) -> str:
        """What the samples are called: the last part of their path, never the whole of it."""
        return self.params.samples.source.name or "samples"

    @property
    def tried(self) -> dict[str, DeviceEvidence]:
        """What devices' runtimes made of these very files and golden images, by target."""
        golden = self.evidence.devices.golden
        tried = {}
        for target, evidence in self.evidence.devices.targets.items():
            cells = tuple(cell for cell in evidence.cells if self._is_ours(cell))
            if golden is not None and evidence.golden == golden.seal and cells:
                tried[target] = evidence.model_copy(update={"cells": cells})
        return tried

    def _is_ours(self, cell: Cell) -> bool:
        file = self.file(cell.format)
        return file is not None and file.sha256 == cell.sha256

    @property
    def devices(self) -> Devices:
        """The evidence of devices that belongs to these files."""
        return Devices(self.evidence.devices.golden, self.tried)


def gather(
    release: Path, contract: Contract, verdict: Verdict, evidence: Evidence, params: Params
) -> Material:
    """Look at what lies in the folder ``release``.

    Raises:
        InputError: ``build.json`` is missing.
        IntegrityError: a delivered file is damaged or carries no contract; or ``build.json`` is.
    """
    images = sorted((release / "golden" / "images").glob("*"))
    return Material(
        contract=contract,
        verdict=verdict,
        evidence=evidence,
        params=params,
        files=tuple(_files(release)),
        evidence_sha256={
            path.relative_to(release).as_posix(): sha256_file(path)
            for path in sorted((release / "evidence").rglob("*.json"))
        },
        build=read(release),
        golden_image=images[0].relative_to(release).as_posix() if images else None,
    )


def _files(release: Path) -> list[File]:
    found: dict[str, Path] = {}
    for path in sorted(release.iterdir()):
        if known := formats.of_file(path.name):
            found[known.key] = path
    return [
        File(
            key=key,
            name=found[key].name,
            sha256=sha256_file(found[key]),
            size_bytes=found[key].stat().st_size,
            about=read_contract(found[key]).artefact,
            beside={p.name: sha256_file(p) for p in sorted(release.glob(f"{found[key].name}.*"))},
        )
        for key in formats.FORMATS
        if key in found
    ]
