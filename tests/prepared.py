"""A folder that takes minutes to make is made once and kept for later sessions."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from filelock import FileLock

KEPT = 2  # entries beside the newest
IN_USE_SECONDS = 3600  # a session that began with an entry has ended by then


def key_of(files: Iterable[Path], *texts: str) -> str:
    """A name for what these files and texts determine, on this Python."""
    digest = hashlib.sha256()
    for text in (sys.version, *texts):
        digest.update(hashlib.sha256(text.encode()).digest())
    for path in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def prepared(cache: Path, key: str, make: Callable[[Path], object]) -> Path:
    """The folder ``key`` of a cache; ``make`` fills it where it is not there yet.

    Of several processes one makes it and the others wait. It appears whole or not at all.
    """
    cache.mkdir(parents=True, exist_ok=True)
    entry = cache / key
    with FileLock(cache / "lock"):
        if not entry.exists():
            scratch = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=cache))
            make(scratch)
            scratch.rename(entry)
        os.utime(entry)
        _prune(cache)
    return entry


def _prune(cache: Path) -> None:
    """Remove all but the entries used last; what a killed process left counts as one."""
    entries = sorted(
        (path for path in cache.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime
    )
    for path in entries[: -KEPT - 1]:
        if path.stat().st_mtime < time.time() - IN_USE_SECONDS:
            shutil.rmtree(path)


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each file, to see whether a test wrote into what is shared."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
