"""What a target is: a runtime that apps ship, and how the delivered files fare on it.

A target is a module of this package with the functions of :class:`Target`. What runs a file may be
any program; it gets the golden inputs as raw little-endian float32, or the images themselves where
preprocessing is under test, too, and answers in JSON with the keys of :class:`Cell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.evidence.golden import Golden
from pipeline.release.read import Release


@dataclass(frozen=True)
class Bundle:
    """Delivered files, and what any device must make of the golden images."""

    files: dict[str, Path]  # by format: "ptl", "onnx", "int8_onnx", "pte"
    golden: Golden
    previous: Release | None = None  # the last release, where there is one


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What running took; None where the target cannot tell."""

    load_ms: float | None = None
    first_ms: float | None = None  # the first inference, which repacks weights
    runs_ms: tuple[float, ...] = ()  # later inferences, one image each
    peak_memory_mb: float | None = None  # of the whole process, 10^6 bytes
    instructions: tuple[int, ...] = ()  # retired in each of some inferences of the same image


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One file on one runtime."""

    format: str
    sha256: str  # of the file that was run
    runtime: str  # name and version, e.g. "PyTorch Lite 1.13.1"; as contracts name them
    machine: str  # what it ran on, e.g. "x86_64", "aarch64 (qemu, Cortex-A76)"
    loads: bool
    runs: bool
    error: str | None = None  # the runtime's own words, where it does not load or run
    own_preprocessing: bool = False  # from the image files, not from the golden inputs
    logits: list[list[float | None]] | None = None  # for each golden image, in their order
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True, kw_only=True)
class Check:
    """Something else that a target looks at: operators, a control, pixels."""

    name: str
    subject: str  # the format it is about
    sha256: str  # of that file
    passed: bool
    detail: str  # what was seen


@dataclass(frozen=True)
class Missing:
    """Why this machine cannot run a target, and the one command that would enable it."""

    reason: str
    command: str


@dataclass(frozen=True)
class Findings:
    cells: Sequence[Cell]
    checks: Sequence[Check] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "cells": [asdict(cell) for cell in self.cells],
            "checks": [asdict(check) for check in self.checks],
        }


class Target(Protocol):
    """A module of this package that runs delivered files on something that apps ship."""

    @property
    def WHAT(self) -> str:
        """One line: what runs there."""
        ...

    @property
    def FORMATS(self) -> tuple[str, ...]:
        """The formats that it takes."""
        ...

    def missing(self) -> Missing | None:
        """Say what this machine lacks that cannot be installed into the cache; quick."""
        ...

    def install(self, cache: Path) -> None:
        """Put what the target needs into folder ``cache``, its own; at once when it is there.

        What a killed run left, and an older version's, is not taken for whole. The folder may be
        deleted at any time.
        """
        ...

    def run(self, bundle: Bundle, cache: Path) -> Findings:
        """Run every file of ``bundle`` that the runtime takes, on all golden images.

        A file that does not load or run is a finding; only a broken target is an error.

        Raises:
            InputError: the target itself does not work here.
        """
        ...
