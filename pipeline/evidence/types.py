"""What the gate decides by, as read from evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a record says, and how far this run's float reference is from it."""

    path: str = ""  # of its folder, below the folder of records
    device: str
    kind: str  # "cuda" or "cpu"
    recorded: str  # date
    refusal: str | None  # why it does not belong to this run; None if it does
    difference: Mapping[str, Any] | None  # measures.between_steps of reference and record
    noise_floor: float  # of the record, in logits
    runs_ms: tuple[float, ...]  # float, batch of one


@dataclass(frozen=True)
class Devices:
    """Golden answers, and what each target made of the golden images."""

    golden: Mapping[str, Any] | None = None  # golden.json
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # sealed, by name


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Sealed measurements (see :func:`pipeline.evidence.seal.check_seal`)."""

    parity: Mapping[str, Any]
    latency: Mapping[str, Any]
    baselines: Sequence[Baseline] = ()
    devices: Devices = field(default_factory=Devices)
