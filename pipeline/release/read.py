"""Read published releases, once their files match their manifest."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from pipeline import formats
from pipeline.errors import InputError, IntegrityError, shown
from pipeline.files import read_bytes, sha256_file
from pipeline.params import Baseline, Gate
from pipeline.release.manifest import SUMS_FILE, UNLISTED, name_problem, parse_sums
from pipeline.schema import Section

PARAMS_FILE = "params.json"  # what the gate judged by
MAX_FILES = 10_000
MAX_SUMS_BYTES = 4 << 20


class JudgedBy(Section):
    """``params.json``: what the gate judged by."""

    edge_vit: str
    gate: Gate
    baseline: Baseline


@dataclass(frozen=True)
class Release:
    """A folder that `publish` wrote."""

    folder: Path
    files: dict[str, Path]  # by format
    sha256: dict[str, str]  # of each, as published and checked


@dataclass(frozen=True)
class Checked:
    """A release's files, compared with its manifest."""

    sha256: dict[str, str]  # of what is listed and is there, by path below the folder
    problems: list[str]  # empty: nothing is missing, changed or added


def last_release(releases: Path, name: str, below: str) -> Release | None:
    """Return the highest version of model ``name`` that is lower than ``below``; None if none is.

    The version that is being made never counts, whether it has been published already or not.

    Raises:
        IntegrityError: a file of it is missing or is not the published one.
    """
    if not releases.is_dir():
        return None
    ranked = {folder: _rank(folder.name, name) for folder in releases.iterdir() if folder.is_dir()}
    limit = _rank(f"{name}-{below}", name)
    lower = [(rank, folder) for folder, rank in ranked.items() if rank and limit and rank < limit]
    return read_release(max(lower)[1]) if lower else None


def _rank(folder: str, name: str) -> tuple[int, int, int, bool, str] | None:
    """What sorts versions of model ``name``; None for other folders."""
    match = re.fullmatch(re.escape(name) + r"-(\d+)\.(\d+)\.(\d+)([-+].*)?", folder)
    if match is None:
        return None
    # A pre-release sorts before its release.
    return int(match[1]), int(match[2]), int(match[3]), match[4] is None, folder


def newest_release(releases: Path) -> Release | None:
    """Return the release of any model that was published last; None if there is none.

    Raises:
        IntegrityError: a file of it is missing or is not the published one.
    """
    dated = [(sums.stat().st_mtime_ns, sums.parent) for sums in releases.glob(f"*/{SUMS_FILE}")]
    return read_release(max(dated)[1]) if dated else None


def read_release(folder: Path) -> Release:
    """Open the release in ``folder``.

    Raises:
        InputError: there is no such folder.
        IntegrityError: a file of it is missing, added, or not the published one.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder of a release")
    checked = check_sums(folder)
    if checked.problems:
        more = f" (and {len(checked.problems) - 1} more)" if len(checked.problems) > 1 else ""
        raise IntegrityError(
            f"{folder} is not what was published: {checked.problems[0]}{more}; "
            "delete the folder or publish it again"
        )
    files = {key: files_of[0] for key, files_of in model_files(folder).items()}
    return Release(folder, files, {key: checked.sha256[path.name] for key, path in files.items()})


def judged_by(folder: Path) -> JudgedBy:
    """What the gate judged the release in ``folder`` by.

    Raises:
        InputError: the file is missing.
        IntegrityError: it is not what edge-vit writes.
    """
    path = folder / PARAMS_FILE
    try:
        return JudgedBy.model_validate_json(read_bytes(path), strict=True)
    except ValueError as error:
        raise IntegrityError(f"{path} is not what edge-vit writes ({shown(error, 200)})") from None


def model_files(folder: Path) -> dict[str, list[Path]]:
    """The files of ``folder`` that a runtime loads, by format."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        known = formats.of_file(path.name)
        if known and path.is_file():
            found.setdefault(known.key, []).append(path)
    return found


def check_sums(folder: Path) -> Checked:
    """Compare every file below ``folder`` with its ``SHA256SUMS``; each problem names its file."""
    try:
        text = read_bytes(folder / SUMS_FILE, MAX_SUMS_BYTES).decode()
        listed = parse_sums(text, SUMS_FILE)
    except (InputError, IntegrityError, UnicodeDecodeError) as error:
        there = (folder / SUMS_FILE).exists()
        return Checked({}, [str(error) if there else f"{SUMS_FILE} is missing; fetch it again"])
    actual, problems = _walk(folder)
    sha256 = {}
    for name, expected in listed.items():
        if name not in actual:
            # What is not a regular file was reported before.
            problems += [] if _exists(folder / name) else [f"{name} is missing"]
            continue
        sha256[name] = sha256_file(actual[name])
        if sha256[name] != expected:
            problems.append(f"{name} has SHA-256 {sha256[name]}, {SUMS_FILE} says {expected}")
    extra = sorted(actual.keys() - listed.keys() - UNLISTED)
    problems += [f"{name} is in the folder, but not in {SUMS_FILE}" for name in extra]
    return Checked(sha256, problems)


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file that a manifest of ``folder`` has to list, by path below it.

    Raises:
        IntegrityError: there is something that a release cannot hold.
    """
    files, problems = _walk(folder)
    if problems:
        raise IntegrityError(f"{folder}: {problems[0]}; a release holds regular files only")
    return {name: sha256_file(path) for name, path in files.items() if name not in UNLISTED}


def _walk(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Return regular files below ``folder`` by path, and a problem for whatever else is there."""
    files: dict[str, Path] = {}
    problems = []
    for root, folders, names in os.walk(folder):  # follows no links
        for entry in sorted(folders) + sorted(names):
            path = Path(root, entry)
            name = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            odd = None if name in UNLISTED else name_problem(name)
            if stat.S_ISLNK(mode):
                problems.append(f"{shown(name)} is a symbolic link to {shown(os.readlink(path))}")
            elif odd:
                problems.append(f"{shown(name)} {odd}")
            elif stat.S_ISREG(mode):
                files[name] = path
            elif not stat.S_ISDIR(mode):
                problems.append(f"{shown(name)} is not a regular file")
            elif not any(path.iterdir()):
                problems.append(f"{shown(name)} is an empty folder")
        if len(files) + len(problems) > MAX_FILES:
            return files, [*problems, f"there are more than {MAX_FILES} files"]
    return files, problems


def _exists(path: Path) -> bool:
    """Whether anything has this name, even a broken link."""
    return os.path.lexists(path)
