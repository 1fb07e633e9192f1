"""Latency evidence: how long each file takes, and how much memory (stage ``latency``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, model_validator

from pipeline.evidence.model import Machine, NotNegative, SealedEvidence, Sha256
from pipeline.params import Gate
from pipeline.schema import Count, Positive, Section

FLOAT = "float"  # the key of the checkpoint itself


class Timing(Section):
    """One file's times for one image, in milliseconds."""

    file: str
    sha256: Sha256
    load_ms: NotNegative
    first_ms: NotNegative  # the first inference, which repacks weights
    runs_ms: Annotated[tuple[Positive, ...], Field(min_length=1)]  # one for each round


class TimedFile(Timing):
    """A file of this run, with its memory in MB (10^6 bytes)."""

    peak_memory_mb: float  # of a whole process that loads and runs it
    own_memory_mb: float | None  # what loading and running added; None where it cannot be told


class Previous(Section):
    """The last release: its files, timed in the same rounds, and what it was judged by."""

    release: str
    artefacts: dict[str, Timing]
    gate: Gate | None = None  # None: it does not say, or an earlier edge-vit judged it
    device: str | None = None  # its reference GPU


class LatencyEvidence(SealedEvidence):
    """What stage ``latency`` measured, bound to files, samples and machine."""

    kind: ClassVar[str] = "latency"
    remedy: ClassVar[str] = "dvc repro --force latency"

    samples_sha256: Sha256
    threads: Count
    warmup: Annotated[int, Field(ge=0)]  # rounds that were not counted
    artefacts: dict[str, TimedFile]  # by format, and the float model
    previous: Previous | None
    machine: Machine

    @model_validator(mode="after")
    def _took_turns(self) -> LatencyEvidence:
        """Float and every file ran in the same rounds: ratios are of pairs."""
        if FLOAT not in self.artefacts:
            raise ValueError("artefacts.float is missing")
        for key, timing in (*self.artefacts.items(), *self.previous_files.items()):
            if len(timing.runs_ms) != self.rounds:
                raise ValueError(f"{key} has {len(timing.runs_ms)} runs, float {self.rounds}")
        return self

    @property
    def float_runs_ms(self) -> tuple[float, ...]:
        """Times of the float model, one for each round."""
        return self.artefacts[FLOAT].runs_ms

    @property
    def rounds(self) -> int:
        """How often each file ran."""
        return len(self.float_runs_ms)

    @property
    def previous_files(self) -> Mapping[str, Timing]:
        """The last release's files by format; none where there is no release."""
        return self.previous.artefacts if self.previous else {}
