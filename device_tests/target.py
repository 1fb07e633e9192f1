"""What a target is: a runtime that apps ship, and how the delivered files fare on it.

A target is a module of this package with the functions of :class:`Target`. What runs a file may be
any program; it gets the golden inputs as raw little-endian float32, or the images themselves where
preprocessing is under test, too, and answers in JSON with the keys of :class:`Cell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pipeline.evidence.devices import Cell, Check, Cost
from pipeline.evidence.golden import Golden
from pipeline.release.read import Release

__all__ = ["Bundle", "Cell", "Check", "Cost", "Missing", "Results", "Target"]


@dataclass(frozen=True)
class Bundle:
    """Delivered files, and what any device must make of the golden images."""

    files: dict[str, Path]  # by format
    golden: Golden
    previous: Release | None = None  # the last release, where there is one


@dataclass(frozen=True)
class Missing:
    """Why this machine cannot run a target, and the one command that would enable it."""

    reason: str
    command: str


@dataclass(frozen=True)
class Results:
    """What a target measured."""

    cells: Sequence[Cell]
    checks: Sequence[Check] = ()


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

    def run(self, bundle: Bundle, cache: Path) -> Results:
        """Run every file of ``bundle`` that the runtime takes, on all golden images.

        A file that does not load or run is a finding; only a broken target is an error.

        Raises:
            InputError: the target itself does not work here.
        """
        ...
