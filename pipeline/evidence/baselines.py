"""Float baselines that were recorded on other machines: one folder a device and checkpoint.

A record is ``record.json``, sealed as all evidence is, and ``logits.npy``. It is made by
``edge-vit baseline``, where there is no pydantic, and read here without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from pipeline.contract.contract import Preprocessing
from pipeline.errors import InputError, IntegrityError
from pipeline.evidence.model import Machine, NoiseFloor, SealedEvidence, Sha256, read_sealed
from pipeline.evidence.parity import RightAnswers
from pipeline.metrics.logits import Logits, logits_sha256
from pipeline.metrics.measures import Compared
from pipeline.paths import BASELINE_LOGITS, BASELINE_RECORD
from pipeline.schema import Count, Positive, Section

Times = Annotated[tuple[Positive, ...], Field(min_length=1)]  # milliseconds
Name = Annotated[str, Field(min_length=1)]


class Device(Section):
    """What the float model ran on; all but kind and name only of a GPU."""

    kind: Literal["cuda", "cpu"]
    name: Name
    driver: str | None = None
    memory_mb: int | None = None
    compute_capability: str | None = None


class RecordedMachine(Machine):
    """The machine, with the versions of NVIDIA's libraries that PyTorch was built with."""

    cuda: str | None
    cudnn: int | None


class OneImage(Section):
    """Times of the float model for one image."""

    runs_ms: Times


class Throughput(Section):
    """Times and images a second at one batch size."""

    batch: Count
    images_per_s: float
    runs_ms: Times


class BaselineEvidence(SealedEvidence):
    """The content of ``record.json``."""

    kind: ClassVar[str] = "baseline"
    remedy: ClassVar[str] = "edge-vit baseline --replace"

    device: Device
    checkpoint_sha256: Sha256
    samples_sha256: Sha256
    samples_count: Count
    preprocessing: dict[str, Any]  # as the contract of the checkpoint has it
    tf32: Literal[False]
    accuracy: RightAnswers | None  # None without labels
    logits_sha256: Sha256
    logits_count: Count  # the first samples, whose logits were kept
    machine: RecordedMachine
    recorded: Name  # ISO 8601
    noise_floor: NoiseFloor
    latency: OneImage
    throughput: tuple[Throughput, ...]
    threads: Count | None  # None on a GPU


@dataclass(frozen=True)
class Record:
    """A baseline whose seal, fields and logits were checked."""

    path: str  # of its folder, below the folder of records
    content: BaselineEvidence
    logits: Logits  # [m, classes] of the first m samples


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a record says, and how far this run's float reference is from it."""

    path: str = ""  # of its folder, below the folder of records
    device: str
    kind: str  # "cuda" or "cpu"
    recorded: str  # date
    refusal: str | None  # why it does not belong to this run; None if it does
    difference: Compared | None  # between reference and record
    noise_floor: float  # of the record, in logits
    runs_ms: tuple[float, ...]  # float, batch of one


def read_records(folder: Path) -> tuple[Record, ...]:
    """Read every record below ``folder``, in the order of their paths; none if it is missing.

    Raises:
        IntegrityError: a record is damaged, was edited, or a field is missing or impossible.
    """
    files = sorted(folder.glob(f"*/*/{BASELINE_RECORD}")) if folder.is_dir() else []
    return tuple(_read(path.parent, folder) for path in files)


def belongs(
    record: Record, checkpoint_sha256: str, samples_sha256: str, preprocessing: Preprocessing
) -> str | None:
    """Return None if the record was taken on these weights and samples, else why it does not count.

    Samples are stored after resizing and cropping, so their hash covers the geometry; mean and
    standard deviation come after it.
    """
    content = record.content
    pairs = (
        ("weights", content.checkpoint_sha256, checkpoint_sha256),
        ("samples", content.samples_sha256, samples_sha256),
    )
    for what, recorded, actual in pairs:
        if recorded != actual:
            return f"{record.path} is of other {what}: {recorded[:12]}, these are {actual[:12]}"
    stated = _as_json(preprocessing.to_dict())
    for key in sorted(stated.keys() | content.preprocessing.keys()):
        was, value = content.preprocessing.get(key), stated.get(key)
        if was != value:
            return f"{record.path} was prepared with {key} {was}, this run with {value}"
    return None


def _read(folder: Path, root: Path) -> Record:
    hint = "bring it back with git, or record it again with `edge-vit baseline --replace`"
    try:
        content = read_sealed(folder / BASELINE_RECORD, BaselineEvidence)
        # Mapped, so that a header cannot claim more memory than the file has bytes.
        logits: Logits = np.array(np.load(folder / BASELINE_LOGITS, "r", allow_pickle=False))
        _check_logits(content, logits)
    except (InputError, IntegrityError) as error:
        raise IntegrityError(f"{str(error).split('; ')[0]}; {hint}") from None
    except (OSError, EOFError, ValueError) as error:
        raise IntegrityError(f"{folder} is not a usable baseline ({error}); {hint}") from None
    return Record(folder.relative_to(root).as_posix(), content, logits)


def _check_logits(content: BaselineEvidence, logits: Logits) -> None:
    """Raise ValueError where the logits are not those that were recorded."""
    recorded = (
        logits.dtype == np.float32
        and logits.ndim == 2
        and logits_sha256(logits) == content.logits_sha256
    )
    if not recorded:
        raise ValueError("logits are not the recorded ones")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")
    if not content.logits_count == len(logits) <= content.samples_count:
        raise ValueError(f"{content.logits_count} logits of {content.samples_count} samples")


def _as_json(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives them back: tuples are lists."""
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}
