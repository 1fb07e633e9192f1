"""Commands of the registry as lists of steps, which a dry run only prints."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError


@dataclass(frozen=True)
class Step:
    """One step. Interrupted before, during or after it, the same command resumes."""

    name: str
    description: str
    do: Callable[[], object]
    dry: bool = False  # changes nothing, so a dry run does it as well


def carry_out(title: str, steps: Sequence[Step], yes: bool) -> None:
    """Print each step and then do it; without ``yes`` do only those that change nothing."""
    print(title if yes else f"{title}: a dry run, nothing is changed; --yes does this:")
    width = max((len(step.name) for step in steps), default=0)
    for step in steps:
        print(f"  {step.name:{width}}  {step.description}", flush=True)
        if yes or step.dry:
            step.do()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Wait until no other command of the registry runs in this clone.

    Raises:
        InputError: DVC, or what comes with it, is not installed.
    """
    _require_dvc()
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("waiting for another release, promotion or rollback to end", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _require_dvc() -> None:
    try:
        for library in ("dvc", "filelock", "gto"):
            importlib.import_module(library)
    except ModuleNotFoundError as error:
        raise InputError(
            f"this needs {error.name}, which is not installed; in the repository's folder, run: "
            f"{sys.executable} -m pip install -e '.[pipeline]'"
        ) from None
