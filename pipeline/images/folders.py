"""Which files of a folder are images to look at: one rule for everything that takes a folder.

Hidden files and folders, and what systems and tools leave beside images, are left out and named.
A link to a folder is followed, but no folder is read twice.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import InputError

JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
JUNK_FOLDERS = {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found"}
JUNK_STEMS = {"readme", "license", "licence", "copying", "notice", "citation"}
JUNK_SUFFIXES = {".csv", ".tsv", ".json", ".jsonl", ".md"}
PARTS = ("val", "valid", "validation", "test", "testing", "train", "training")  # of data sets


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not looked at, and why."""

    path: Path  # below the folder
    reason: str


@dataclass(frozen=True)
class Listing:
    """The files below a folder, sorted, as paths below it, and what was left out."""

    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def listing(folder: Path, *, deep: bool = True) -> Listing:
    """List the files of a folder and, if ``deep``, of all folders below it."""
    files: list[Path] = []
    left_out: list[LeftOut] = []
    seen = {os.path.realpath(folder)}
    waiting, links = [folder], list[Path]()
    while waiting or links:
        links.sort(reverse=True)
        # Links last: where one leads to a folder of this tree, it is the link that is left out.
        current = (waiting or links).pop()
        if current != folder:
            real = os.path.realpath(current)
            if real in seen:
                twice = "a link to a folder that is read elsewhere"
                left_out.append(LeftOut(current.relative_to(folder), twice))
                continue
            seen.add(real)
        for path in sorted(current.iterdir()):
            is_folder = path.is_dir()
            if reason := _no_image(path.name, is_folder=is_folder):
                left_out.append(LeftOut(path.relative_to(folder), reason))
            elif not is_folder:
                files.append(path.relative_to(folder))
            elif deep:
                (links if path.is_symlink() else waiting).append(path)
    return Listing(tuple(sorted(files)), tuple(sorted(left_out, key=lambda left: left.path)))


def _no_image(name: str, *, is_folder: bool) -> str | None:
    """Why a file or folder is not looked at; None if it is."""
    if name.startswith("."):
        return "hidden"
    path = Path(name.casefold())
    if is_folder:
        return "left by a system or tool" if path.name in JUNK_FOLDERS else None
    junk = path.name in JUNK or path.stem in JUNK_STEMS or path.suffix in JUNK_SUFFIXES
    return "left by a system or tool" if junk else None


def top_folders(files: Sequence[Path]) -> list[str]:
    """The folders right below the root that hold any of the files, sorted."""
    return sorted({path.parts[0] for path in files if len(path.parts) > 1})


def refuse_parts(folder: Path, names: Sequence[str], asking: str) -> None:
    """Refuse a folder of which these ``names`` are the parts of a data set and no classes.

    Raises:
        InputError: they are; ``asking`` is the parameter that names the folder.
    """
    there = {name.casefold(): name for name in names}
    if not there or not there.keys() <= {*PARTS}:
        return
    shown = " and ".join(f"{name}/" for name in names)
    best = next(there[part] for part in PARTS if part in there)
    raise InputError(
        f"{asking}: {folder} holds {shown}, parts of a data set and no classes; "
        f"did you mean {folder / best}?"
    )
