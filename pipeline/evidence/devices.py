"""Evidence of runtimes that devices run, as ``device_tests`` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, get_args

from pydantic import ConfigDict, model_validator

from pipeline.errors import IntegrityError
from pipeline.evidence.golden import GoldenEvidence
from pipeline.evidence.model import Machine, SealedEvidence, Sha256, read_sealed
from pipeline.params import Target
from pipeline.schema import Count, Section

Logits = list[list[float | None]]  # [n, classes]; None for NaN and infinity
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What running took; None where the target cannot tell."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    load_ms: float | None = None
    first_ms: float | None = None  # the first inference, which repacks weights
    runs_ms: tuple[float, ...] = ()  # later inferences, one image each
    peak_memory_mb: float | None = None  # of the whole process, 10^6 bytes
    instructions: tuple[Count, ...] = ()  # retired in each of some inferences of the same image


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One file on one runtime."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    format: str
    sha256: str  # of the file that was run
    runtime: str  # name and version, e.g. "PyTorch Lite 1.13.1"; as contracts name them
    machine: str  # what it ran on, e.g. "x86_64", "aarch64 (qemu, Cortex-A76)"
    loads: bool
    runs: bool
    error: str | None = None  # the runtime's own words, where it does not load or run
    own_preprocessing: bool = False  # from the image files, not from the golden inputs
    logits: Logits | None = None  # for each golden image, in their order
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Something else that a target looks at: operators, a control, pixels."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    name: str
    subject: str  # the format it is about
    sha256: str  # of that file
    passed: bool
    detail: str  # what was seen


class OldestRuntime(Section):
    """What the contract inside a file says of the oldest runtime that loads it."""

    sha256: Sha256  # of the file
    oldest_runtime: str


class PreviousCounts(Section):
    """Retired instructions of one inference that the same target counted for the last release."""

    release: str
    instructions: dict[str, int | float]  # medians, by format


class DeviceEvidence(SealedEvidence):
    """What one target made of the delivered files."""

    kind: ClassVar[str] = "device"
    remedy: ClassVar[str] = "make device-test"

    target: str
    golden: str  # seal of the golden set that was run
    formats: tuple[str, ...]  # that the target takes
    cells: tuple[Cell, ...]
    checks: tuple[Check, ...]
    claims: dict[str, OldestRuntime]  # by format
    previous: PreviousCounts | None
    machine: Machine

    @model_validator(mode="after")
    def _one_row_an_image(self) -> DeviceEvidence:
        for cell in self.cells:
            if len({len(row) for row in cell.logits or ()}) > 1:
                raise ValueError(f"the logits of {cell.format} have rows of different lengths")
        return self


@dataclass(frozen=True)
class Devices:
    """Golden answers, and what each target made of the golden images."""

    golden: GoldenEvidence | None = None
    targets: Mapping[str, DeviceEvidence] = field(default_factory=dict)  # by name


def read_devices(folder: Path) -> dict[str, DeviceEvidence]:
    """Read the evidence in ``folder``, by target in their order; empty where there is none.

    Raises:
        InputError: a file is not JSON.
        IntegrityError: evidence was changed after it was measured, is another target's, or a field
            is missing, unknown or impossible.
    """
    devices = {}
    for path in (folder / f"{name}.json" for name in get_args(Target)):
        if not path.is_file():
            continue
        evidence = read_sealed(path, DeviceEvidence)
        if evidence.target != path.stem:
            raise IntegrityError(
                f"{path} is evidence of {evidence.target}; delete it and run `{evidence.remedy}`"
            )
        devices[path.stem] = evidence
    return devices
