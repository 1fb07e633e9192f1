"""Releases that were published before, to compare with; read only, and only if they are whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import IntegrityError
from pipeline.support.files import sha256_file

SUMS_FILE = "SHA256SUMS"
ENDINGS = {"ptl": ".ptl", "int8_onnx": ".int8.onnx", "onnx": ".onnx", "pte": ".pte"}


@dataclass(frozen=True)
class Release:
    """A folder that `publish` wrote."""

    folder: Path
    files: dict[str, Path]  # by format
    sha256: dict[str, str]  # of each, as published and checked


def last_release(releases: Path, name: str) -> Release | None:
    """Return the highest version of model ``name`` below ``releases``; None if there is none.

    Raises:
        IntegrityError: a file of it is missing or is not the published one.
    """
    if not releases.is_dir():
        return None
    pattern = re.compile(re.escape(name) + r"-(\d+)\.(\d+)\.(\d+)([-+].*)?")
    found = []
    for folder in releases.iterdir():
        match = pattern.fullmatch(folder.name)
        if match and folder.is_dir():
            # A pre-release sorts before its release.
            rank = (*(int(part) for part in match.groups()[:3]), match[4] is None, folder.name)
            found.append((rank, folder))
    if not found:
        return None
    return read_release(max(found)[1])


def newest_release(releases: Path) -> Release | None:
    """Return the release of any model that was published last; None if there is none.

    Raises:
        IntegrityError: a file of it is missing or is not the published one.
    """
    found = [(sums.stat().st_mtime_ns, sums.parent) for sums in releases.glob(f"*/{SUMS_FILE}")]
    return read_release(max(found)[1]) if found else None


def read_release(folder: Path) -> Release:
    """Open the release in ``folder``.

    Raises:
        IntegrityError: a file of it is missing or is not the published one.
    """
    hashes = _check(folder)
    files = {}
    for path in sorted(folder.iterdir()):
        fits = [key for key, ending in ENDINGS.items() if path.name.endswith(ending)]
        if fits and path.name in hashes:
            files[fits[0]] = path
    return Release(folder, files, {key: hashes[path.name] for key, path in files.items()})


def _check(folder: Path) -> dict[str, str]:
    """Hold each file to the hash that was published; return the hashes by name."""
    sums = folder / SUMS_FILE
    if not sums.is_file():
        raise IntegrityError(f"{folder} has no {SUMS_FILE}; delete the folder or publish it again")
    hashes = {}
    for line in sums.read_text().splitlines():
        digest, _, name = line.partition("  ")
        hashes[name] = digest
        path = folder / name
        if not path.is_file() or sha256_file(path) != digest:
            raise IntegrityError(
                f"{path} is not what was published; delete {folder} or publish it again"
            )
    return hashes
