"""Where targets keep what they install. Deleting it, or any of it, costs only time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from pipeline.files import atomic
from pipeline.untrusted.download import cache_folder

STAMP = "edge-vit.stamp"


def folder(target: str) -> Path:
    """The folder of one target below ``EDGE_VIT_CACHE`` (default ``~/.cache/edge-vit``)."""
    return cache_folder() / "devices" / target


def made(path: Path, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return folder ``path``, made by ``make`` unless it was made by the same recipe before.

    ``make`` fills a new folder, which is moved into place when it is whole. ``recipe`` is every
    word that decides what comes out: versions, flags, the source's text.
    """
    wanted = hashlib.sha256(recipe.encode()).hexdigest()
    stamp = path / STAMP
    if stamp.is_file() and stamp.read_text() == wanted:
        return path
    with atomic(path) as new:
        new.mkdir()
        make(new)
        (new / STAMP).write_text(wanted)
    return path
