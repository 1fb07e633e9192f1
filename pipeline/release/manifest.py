"""The manifest of a release: its files and their SHA-256, as ``sha256sum -c`` reads them.

``parse_sums(format_sums(hashes)) == hashes`` for every name that :func:`name_problem` accepts. A
name that could be read in two ways, or lead out of the folder, is refused in both directions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.errors import IntegrityError, shown

SUMS_FILE = "SHA256SUMS"
SIGNATURE_FILE = "model.sig"  # covers all other files, so it is in no list of them
UNLISTED = frozenset({SUMS_FILE, SIGNATURE_FILE})

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def name_problem(name: str) -> str | None:
    """Return why a manifest cannot carry a path below the release; None if it can."""
    parts = name.split("/")
    if "\\" in name or not name.isprintable():
        # `sha256sum` escapes these, and not all that read its files undo it.
        return "has a backslash, a line break or another unprintable character in its name"
    if name != name.strip():
        return "has a name that begins or ends with a space"
    if any(part in ("", ".", "..") for part in parts):
        return "is not a path below the release"
    if name in UNLISTED:
        return "cannot be part of a manifest"
    return None


def format_sums(hashes: Mapping[str, str]) -> str:
    """Return the text of ``SHA256SUMS``, sorted by name.

    Raises:
        IntegrityError: a manifest cannot carry a name.
    """
    for name in hashes:
        if problem := name_problem(name):
            raise IntegrityError(f"{shown(name)} {problem}; rename it and publish again")
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes))


def parse_sums(text: str, source: str) -> dict[str, str]:
    """Read the text of ``SHA256SUMS``; ``source`` is what errors call it.

    Raises:
        IntegrityError: a line is not what `format_sums` writes; the message names it.
    """
    hashes: dict[str, str] = {}
    # Not splitlines(), which also breaks at characters that may stand in a name.
    lines = text.split("\n")
    if lines.pop():
        raise IntegrityError(f"{source} ends in half a line; fetch it again")
    for number, line in enumerate(lines, 1):
        match = _LINE.fullmatch(line)
        name = match[2] if match else ""
        problem = name_problem(name) if match else "is not 64 hex digits, 2 spaces and a name"
        if name in hashes:
            problem = "is listed twice"
        if match is None or problem:
            raise IntegrityError(
                f"{source}, line {number}: {shown(name or line)} {problem}; fetch it again"
            )
        hashes[name] = match[1]
    return hashes


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two sets of files differ, by name and hash; names are sorted."""

    missing: tuple[str, ...]  # in the first only
    added: tuple[str, ...]  # in the second only
    changed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.added or self.changed)

    def lines(self) -> list[str]:
        """Return a line for each kind of difference that there is."""
        kinds: list[tuple[str, Iterable[str]]] = [
            ("changed", self.changed),
            ("added", self.added),
            ("missing", self.missing),
        ]
        return [f"{kind}: {', '.join(names)}" for kind, names in kinds if names]


def difference(first: Mapping[str, str], second: Mapping[str, str]) -> Difference:
    """Compare two manifests."""
    return Difference(
        missing=tuple(sorted(first.keys() - second.keys())),
        added=tuple(sorted(second.keys() - first.keys())),
        changed=tuple(sorted(n for n in first.keys() & second.keys() if first[n] != second[n])),
    )
